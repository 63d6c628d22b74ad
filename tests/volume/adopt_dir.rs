//! `--adopt`: what a directory has already is taken from there, and that directory stays as it is.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::*;
use weightlift_fakes::{Blob, Checksum, FakeHub, FakeS3, ObjectOptions, Tree};

const SHARD: u64 = 3 << 20;

pub fn model() -> Tree {
    (1..4)
        .fold(Tree::new(), |tree, n| {
            tree.with_blob(&format!("weights/{n}.bin"), Blob::synthetic(SHARD, n))
        })
        .with("config.json", "{\"a\": 1}")
}

pub fn hub() -> FakeHub {
    FakeHub::serving(REPO, model())
}

pub fn adopting(hub: &FakeHub, volume: &Volume, dir: &Path) -> Command {
    fetch(hub, volume, &["hf://org/tiny", "--adopt", dir.to_str().unwrap()])
}

/// Bytes of files that the Hub has sent.
pub fn sent(hub: &FakeHub) -> u64 {
    hub.bytes_sent_for("xet-bridge") + hub.bytes_sent_for("resolve")
}

pub fn write(path: &Path, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

fn link(target: &str, path: &Path) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    symlink(target, path).unwrap();
}

/// The name of a blob in a cache.
fn etag(path: &str, blob: &Blob) -> String {
    if path.ends_with(".bin") { blob.sha256() } else { blob.git_sha1() }
}

/// What the Hub's own client makes of `tree` in `home`; with large files in the store that repos share, if
/// `is_shared`. Returns the directory of the repo.
fn cache(home: &Path, tree: &Tree, is_shared: bool) -> PathBuf {
    let hub = home.join("hub");
    let repo = hub.join("models--org--other");
    write(&repo.join("refs/main"), b"c0ffee");
    write(&hub.join("CACHEDIR.TAG"), b"Signature: 8a477f597d28d172789f06886806bc55");
    for (path, blob) in tree.iter() {
        let etag = etag(path, blob);
        let up = "../".repeat(path.split('/').count() + 1);
        link(&format!("{up}blobs/{etag}"), &repo.join("snapshots/c0ffee").join(path));
        if is_shared && path.ends_with(".bin") {
            // Their hash is another one, of the same length.
            let hash = Blob::bytes(etag.clone()).sha256();
            let place = format!("blobs/{}/{hash}", &hash[..2]);
            write(&hub.join(&place), &blob.to_vec());
            write(&hub.join(format!("{place}.refs")), etag.as_bytes());
            link(&format!("../../{place}"), &repo.join("blobs").join(etag));
        } else {
            write(&repo.join("blobs").join(etag), &blob.to_vec());
        }
    }
    repo
}

/// `tree` by its paths, as `hf download --local-dir` leaves it.
pub fn filled(dir: &Path, tree: &Tree) {
    for (path, blob) in tree.iter() {
        write(&dir.join(path), &blob.to_vec());
        let metadata = format!("c0ffee\n{}\n1712656091.1\n", etag(path, blob));
        let at = dir.join(".cache/huggingface/download");
        write(&at.join(format!("{path}.metadata")), metadata.as_bytes());
    }
    write(&dir.join(".cache/huggingface/.gitignore"), b"*");
}

/// All that can be seen of a directory, but for the number of names that its files have.
pub fn seen(dir: &Path) -> BTreeMap<PathBuf, (u32, u64, i64, i64, Vec<u8>)> {
    let mut all = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(at) = open.pop() {
        for path in list(&at) {
            let stat = std::fs::symlink_metadata(&path).unwrap();
            let content = if stat.is_file() {
                std::fs::read(&path).unwrap()
            } else if stat.is_symlink() {
                std::fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
            } else {
                Vec::new()
            };
            if stat.is_dir() {
                open.push(path.clone());
            }
            let times = (stat.mtime(), stat.mtime_nsec());
            all.insert(path, (stat.mode(), stat.ino(), times.0, times.1, content));
        }
    }
    all
}

#[test]
fn a_cache_of_the_hubs_own_client_is_taken_over_and_stays_as_it_is() {
    for is_shared in [false, true] {
        let (hub, volume) = (hub(), Volume::new());
        let home = volume.path("home");
        let repo = cache(&home, &model(), is_shared);
        let before = seen(&home);
        let mut dirs = vec![home.clone(), home.join("hub")];
        // By itself the repo lacks what others have in common with it.
        dirs.extend((!is_shared).then(|| repo.clone()));
        dirs.extend((!is_shared).then(|| repo.join("blobs")));
        for dir in dirs {
            let volume = Volume::new();
            let run = adopting(&hub, &volume, &dir).run().assert_success();
            volume.assert_holds("tiny", &model());
            volume.assert_clean();
            assert_eq!(sent(&hub), 0, "{}", dir.display());
            let said = format!("adopting 4 files (9.4 MB) of `{}`", dir.display());
            assert!(run.stderr.contains(&said), "{}", run.stderr);
            assert!(!run.stderr.contains("hashing"), "the names tell: {}", run.stderr);
            let blob = std::fs::canonicalize(repo.join("snapshots/c0ffee/weights/1.bin")).unwrap();
            let (ours, theirs) = (volume.family("tiny/weights/1.bin"), blob);
            let inode = |path: &Path| std::fs::metadata(path).unwrap().ino();
            assert_eq!(inode(&ours), inode(&theirs), "linked where both are on one filesystem");
            weightlift().arg("verify").arg(volume.family("tiny")).run().assert_success();
            assert!(seen(&home) == before, "the cache has changed");
        }
    }
}

#[test]
fn a_directory_that_was_filled_by_hand_is_taken_over_and_stays_as_it_is() {
    let hub = hub();
    for (below, is_renamed) in [("", false), ("some/where", false), ("", true)] {
        let volume = Volume::new();
        let dir = volume.path("dir");
        if is_renamed {
            for (n, (_, blob)) in model().iter().enumerate() {
                write(&dir.join(format!("file-{n}")), &blob.to_vec());
            }
        } else {
            filled(&dir.join(below), &model());
        }
        let before = seen(&dir);
        adopting(&hub, &volume, &dir)
            .run()
            .assert_success()
            .assert_says("hashing the files in `")
            .assert_says("adopting 4 files");
        volume.assert_holds("tiny", &model());
        assert_eq!(sent(&hub), 0);
        assert!(seen(&dir) == before, "the directory has changed");
    }
}

#[test]
fn what_has_the_size_and_another_content_is_fetched() {
    let (hub, volume) = (hub(), Volume::new());
    let dir = volume.path("dir");
    let other = (1..4).fold(Tree::new(), |tree, n| {
        tree.with_blob(&format!("weights/{n}.bin"), Blob::synthetic(SHARD, n + n / 3))
    });
    filled(&dir, &other);
    let run = adopting(&hub, &volume, &dir).run().assert_success();
    volume.assert_holds("tiny", &model());
    assert_eq!(hub.bytes_sent_for("xet-bridge"), SHARD);
    assert!(!run.stderr.contains("damaged"), "{}", run.stderr);
    // As the base of a fine-tune in a cache: the names say that it is something else.
    let (volume, home) = (Volume::new(), volume.path("home"));
    let other = model().with_blob("weights/3.bin", Blob::synthetic(SHARD, 7));
    cache(&home, &other, false);
    hub.log().clear();
    let run = adopting(&hub, &volume, &home).run().assert_success();
    assert!(run.stderr.contains("adopting 3 files"), "{}", run.stderr);
    assert!(!run.stderr.contains("hashing"), "the names tell: {}", run.stderr);
    volume.assert_holds("tiny", &model());
    assert_eq!(hub.bytes_sent_for("xet-bridge"), SHARD);
}

#[test]
fn a_name_is_a_hint_and_no_proof() {
    let (hub, volume) = (hub(), Volume::new());
    let home = volume.path("home");
    let repo = cache(&home, &model(), false);
    let blob = repo.join("blobs").join(model().blob("weights/2.bin").unwrap().sha256());
    let mut bytes = std::fs::read(&blob).unwrap();
    bytes[77] ^= 1;
    std::fs::write(&blob, &bytes).unwrap();
    let before = seen(&home);
    adopting(&hub, &volume, &home)
        .run()
        .assert_success()
        .assert_says("the bytes that were here are damaged");
    volume.assert_holds("tiny", &model());
    assert_eq!(hub.bytes_sent_for("xet-bridge"), SHARD);
    assert!(seen(&home) == before, "the cache has changed");
}

#[test]
fn what_has_no_published_digest_is_fetched() {
    let made = Volume::new();
    let dir = made.path("dir");
    filled(&dir, &model());
    for (checksum, is_taken) in
        [(None, false), (Some(Checksum::Crc64Nvme), false), (Some(Checksum::Sha256), true)]
    {
        let options = ObjectOptions { checksum, ..ObjectOptions::default() };
        let mut builder = FakeS3::builder().bucket("models").credentials(ACCESS_KEY, SECRET_KEY);
        let prefix = format!("tiny-{checksum:?}").to_lowercase().replace(['(', ')'], "");
        for (path, blob) in model().iter() {
            let key = format!("{prefix}/{path}");
            builder = builder.object_with("models", &key, blob.clone(), options.clone());
        }
        let (s3, volume) = (builder.start(), Volume::new());
        let uri = format!("s3://models/{prefix}/");
        let arguments = [&uri, "tiny", "--adopt", dir.to_str().unwrap()];
        fetch_s3(&s3, &volume, &arguments).run().assert_success();
        volume.assert_holds("tiny", &model());
        assert_eq!(s3.bytes_sent_for("weights/"), if is_taken { 0 } else { 3 * SHARD });
    }
}

#[test]
fn links_that_lead_out_are_not_followed_and_said() {
    let (hub, volume) = (hub(), Volume::new());
    let home = volume.path("home");
    let repo = cache(&home, &model(), true);
    for dir in [repo.clone(), repo.join("snapshots/c0ffee")] {
        let (hub, volume) = (self::hub(), Volume::new());
        adopting(&hub, &volume, &dir).run().assert_success().assert_says(
            "of its links lead out of it and are not followed: name the directory above it with --adopt",
        );
        volume.assert_holds("tiny", &model());
        assert_eq!(hub.bytes_sent_for("xet-bridge"), 3 * SHARD);
    }
    let away = volume.path("away");
    filled(&away, &model());
    let dir = volume.path("dir");
    for (n, (path, blob)) in model().iter().enumerate() {
        // Absolute, relative, through a directory.
        link(away.join(path).to_str().unwrap(), &dir.join("blobs").join(etag(path, blob)));
        link(&format!("../../away/{path}"), &dir.join(format!("a/blobs-{n}")));
    }
    link(away.to_str().unwrap(), &dir.join("weights"));
    link("../away", &dir.join("more"));
    adopting(&hub, &volume, &dir)
        .run()
        .assert_success()
        .assert_says("does not have all of the missing files");
    volume.assert_holds("tiny", &model());
    assert_eq!(hub.bytes_sent_for("xet-bridge"), 3 * SHARD);
}

#[test]
fn whatever_lies_in_the_directory_is_harmless() {
    let (hub, volume) = (hub(), Volume::new());
    let dir = volume.path("dir\u{1b}[2J\u{202e}");
    let digest = model().blob("weights/1.bin").unwrap().sha256();
    write(
        &dir.join("a\u{1b}]0;x\u{7}/\u{202e}gpj"),
        &model().blob("weights/2.bin").unwrap().to_vec(),
    );
    std::fs::create_dir_all(dir.join("blobs")).unwrap();
    assert!(
        Command::new("mkfifo").arg(dir.join("blobs").join(&digest)).status().unwrap().success()
    );
    assert!(Command::new("mkfifo").arg(dir.join("config.json")).status().unwrap().success());
    link(&digest, &dir.join("x").join(&digest));
    link("../blobs", &dir.join("x/circle"));
    link("..", &dir.join("x/up"));
    std::fs::create_dir_all(dir.join("y").join(&digest)).unwrap();
    write(&dir.join("z").join(&digest), b"too short");
    // Another run may still write to what lies in a working area.
    let attempt = dir.join("root/.weightlift/attempts/a~b/tree/3.bin");
    write(&attempt, &model().blob("weights/3.bin").unwrap().to_vec());
    use std::os::unix::ffi::OsStrExt;
    write(&dir.join(std::ffi::OsStr::from_bytes(b"no-\xff-text")), b"{\"a\": 1}");
    let deep = dir.join("d/".repeat(60));
    write(&deep.join("config.json"), b"{\"a\": 1}");
    if Path::new("/proc/self").exists() {
        let root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
        let node = dir.join("device");
        let made = root
            && Command::new("mknod").arg(&node).args(["c", "1", "5"]).status().unwrap().success();
        assert!(made || !root);
    }
    let run = adopting(&hub, &volume, &dir).run().assert_success().assert_says("adopting 1 file ");
    assert!(run.stderr.contains("dir\\u{1b}"), "{}", run.stderr);
    volume.assert_holds("tiny", &model());
    assert_eq!(hub.bytes_sent_for("xet-bridge"), 2 * SHARD);
}

#[test]
fn a_hundred_thousand_files_cost_little_memory_and_none_is_hashed_that_has_another_size() {
    let (hub, volume) = (hub(), Volume::in_memory());
    let dir = volume.path("dir");
    std::fs::create_dir_all(&dir).unwrap();
    let done = Command::new("sh")
        .arg("-c")
        .arg("cd \"$1\" && seq -f 'a-file-with-a-rather-long-name-number-%06.0f' 100000 | xargs touch")
        .arg("sh")
        .arg(&dir)
        .status();
    assert!(done.unwrap().success());
    filled(&dir, &model());
    let (run, peak) = measure::with_peak_memory(&mut adopting(&hub, &volume, &dir));
    run.assert_success().assert_says("adopting 4 files");
    assert!(peak < 64 << 20, "{peak}");
    assert_eq!(sent(&hub), 0);
}

#[test]
fn a_directory_that_is_not_there_is_said_before_any_request() {
    let (hub, volume) = (hub(), Volume::new());
    write(&volume.path("file"), b"x");
    for (name, says) in
        [("missing", "which --adopt names, does not exist"), ("file", "cannot open")]
    {
        let run = adopting(&hub, &volume, &volume.path(name)).run().assert_code(14);
        assert!(run.stderr.contains(says), "{}", run.stderr);
        assert_eq!(hub.requests().len(), 0);
    }
    // Once the model is there it does not matter: the cache may have been removed since.
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    let commit = format!("hf://org/tiny@{}", hub.commit(REPO));
    let missing = volume.path("missing");
    let arguments = [&commit, "tiny", "--adopt", missing.to_str().unwrap()];
    fetch(&hub, &volume, &arguments).run().assert_success();
    hub.move_branch(REPO, "main", model().with("config.json", "[]"));
    adopting(&hub, &volume, &missing).run().assert_success().assert_says("does not exist");
    volume.assert_holds("tiny", &model().with("config.json", "[]"));
}

#[test]
fn several_directories_and_the_variable_for_them() {
    let (hub, volume) = (hub(), Volume::new());
    let (one, two) = (volume.path("one"), volume.path("two"));
    write(&one.join("1"), &model().blob("weights/1.bin").unwrap().to_vec());
    write(&two.join("2"), &model().blob("weights/2.bin").unwrap().to_vec());
    let both = format!("{},{}", one.display(), two.display());
    fetch(&hub, &volume, &["hf://org/tiny"]).env("WEIGHTLIFT_ADOPT", both).run().assert_success();
    volume.assert_holds("tiny", &model());
    assert_eq!(hub.bytes_sent_for("xet-bridge"), SHARD);
    let (hub, volume) = (self::hub(), Volume::new());
    adopting(&hub, &volume, &one).args(["--adopt", two.to_str().unwrap()]).run().assert_success();
    assert_eq!(hub.bytes_sent_for("xet-bridge"), SHARD);
}

#[test]
fn where_no_second_name_can_be_had_the_bytes_are_copied() {
    if !has("strace") {
        return;
    }
    for error in ["EPERM", "EMLINK", "EXDEV", "EOPNOTSUPP"] {
        let (hub, volume) = (hub(), Volume::new());
        let dir = volume.path("dir");
        filled(&dir, &model());
        let before = seen(&dir);
        let inject = format!("inject=linkat:error={error}");
        let wrapper =
            ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=linkat", "-e", &inject];
        under(&wrapper, &adopting(&hub, &volume, &dir)).run().assert_success();
        volume.assert_holds("tiny", &model());
        assert_eq!(sent(&hub), 0, "{error}");
        assert!(seen(&dir) == before, "the directory has changed");
    }
    // Another filesystem, where there is one.
    let elsewhere = Volume::in_memory();
    let (hub, volume) = (hub(), Volume::new());
    filled(&elsewhere.path("dir"), &model());
    adopting(&hub, &volume, &elsewhere.path("dir")).run().assert_success();
    volume.assert_holds("tiny", &model());
    assert_eq!(sent(&hub), 0);
}

#[test]
fn nothing_in_the_directory_is_opened_for_writing() {
    if !has("strace") {
        return;
    }
    let (hub, volume) = (hub(), Volume::new());
    let home = volume.path("home");
    cache(&home, &model(), true);
    let log = volume.path("calls");
    let calls =
        "trace=openat,open,openat2,unlinkat,renameat,renameat2,linkat,mkdirat,utimensat,fchmodat";
    let wrapper = ["strace", "-f", "-y", "-qq", "-e", calls, "-o", log.to_str().unwrap()];
    under(&wrapper, &adopting(&hub, &volume, &home)).run().assert_success();
    let text = std::fs::read_to_string(log).unwrap();
    let here = format!("<{}", home.display());
    let about: Vec<&str> = text.lines().filter(|line| line.contains(&here)).collect();
    assert!(about.len() > 10, "{text}");
    let changes = |line: &&&str| {
        let reads = (line.contains("openat(") || line.contains(" open("))
            && !line.contains("O_RDWR")
            && !line.contains("O_CREAT");
        // It is linked from there, and not to there.
        let links = line.split("linkat(").nth(1).is_some_and(|to| {
            to.starts_with(|c: char| c.is_ascii_digit())
                && to.matches(&here).count() == 1
                && !line.contains("unlinkat")
        });
        !reads && !links
    };
    assert_eq!(about.iter().find(changes), None);
}

#[test]
fn where_the_filesystem_can_the_blocks_are_shared_and_not_the_file() {
    if !is_root() || !has("mkfs.xfs") {
        return;
    }
    let (hub, volume) = (hub(), Volume::new());
    let (image, root) = (volume.path("image"), volume.root());
    std::fs::File::create(&image).unwrap().set_len(320 << 20).unwrap();
    std::fs::create_dir_all(&root).unwrap();
    let done = |program: &str, arguments: &[&std::ffi::OsStr]| {
        Command::new(program).args(arguments).status().unwrap().success()
    };
    assert!(done("mkfs.xfs", &["-q".as_ref(), image.as_os_str()]));
    if !done("mount", &["-o".as_ref(), "loop".as_ref(), image.as_os_str(), root.as_os_str()]) {
        skip("no image can be mounted");
        return;
    }
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let dir = root.join("by-hand");
        // So much that a second copy has no room.
        let tree = model().with_blob("weights/large.bin", Blob::synthetic(150 << 20, 8));
        hub.move_branch(REPO, "main", tree.clone());
        filled(&dir, &tree);
        adopting(&hub, &volume, &dir).run().assert_success();
        volume.assert_holds("tiny", &tree);
        assert_eq!(sent(&hub), 0);
        // Whoever writes into the adopted file does not reach the model.
        let path = dir.join("weights/1.bin");
        std::fs::write(&path, b"overwritten").unwrap();
        weightlift().arg("verify").arg(volume.family("tiny")).run().assert_success();
    }));
    assert!(done("umount", &["-l".as_ref(), root.as_os_str()]));
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}
