//! An update takes what has not changed from the revision that is there, and never harms that one.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::support::*;
use weightlift_fakes::{Blob, Checksum, FakeHub, FakeS3, ObjectOptions, Tree};

const BIG: usize = 24 << 20;
const MIB: u64 = 1 << 20;

fn first() -> Tree {
    Tree::new()
        .with("config.json", "{}")
        .with("vocab/merges.txt", "a b")
        .with_blob("big.bin", Blob::synthetic(BIG as u64, 1))
}

fn second() -> Tree {
    first().with("config.json", "[]").with("new.json", "[1]")
}

/// A Hub and a volume with the first revision, after which the branch has moved to `tree`.
fn moved_to(tree: &Tree) -> (FakeHub, Volume) {
    let (hub, volume) = (FakeHub::serving(REPO, first()), Volume::new());
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    volume.assert_holds("tiny", &first());
    hub.move_branch(REPO, "main", tree.clone());
    hub.log().clear();
    (hub, volume)
}

fn inode(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().ino()
}

fn kept(volume: &Volume) -> std::path::PathBuf {
    let shown = std::fs::canonicalize(volume.family("tiny")).unwrap();
    let all = list(&volume.root().join(".weightlift/revisions/tiny"));
    all.into_iter().find(|path| *path != shown).unwrap()
}

#[test]
fn files_that_have_not_changed_are_linked_and_not_fetched() {
    let (hub, volume) = moved_to(&second());
    let big = inode(&volume.family("tiny/big.bin"));
    let run = fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    volume.assert_holds("tiny", &second());
    assert_tree(&kept(&volume), &first());
    assert_eq!(inode(&volume.family("tiny/big.bin")), big);
    assert_eq!(inode(&kept(&volume).join("vocab/merges.txt")), {
        inode(&volume.family("tiny/vocab/merges.txt"))
    });
    for unchanged in ["big.bin", "merges.txt"] {
        assert_eq!(hub.count("*", unchanged), 0, "{unchanged}");
    }
    assert!(run.stderr.contains("are here already"), "{}", run.stderr);
    for path in [volume.family("tiny"), kept(&volume)] {
        weightlift().arg("verify").arg(path).run().assert_success();
    }
}

#[test]
fn a_file_under_another_name_is_found_by_its_content() {
    let tree = first().without("big.bin").with_blob("a/b.bin", Blob::synthetic(BIG as u64, 1));
    let (hub, volume) = moved_to(&tree);
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    volume.assert_holds("tiny", &tree);
    assert_eq!(hub.bytes_sent_for("xet-bridge"), 0);
}

#[test]
fn a_published_file_is_never_opened_for_writing() {
    if !has("strace") {
        return;
    }
    let (hub, volume) = moved_to(&second());
    let log = volume.path("calls");
    let wrapper =
        ["strace", "-f", "-qq", "-e", "trace=openat,open,openat2", "-o", log.to_str().unwrap()];
    under(&wrapper, &fetch(&hub, &volume, &["hf://org/tiny"])).run().assert_success();
    let calls = std::fs::read_to_string(log).unwrap();
    let of = |name: &str| calls.lines().filter(|line| line.contains(name)).collect::<Vec<_>>();
    assert!(!of("\"big.bin\"").is_empty(), "{calls}");
    let written = |line: &&&str| line.contains("O_RDWR") || line.contains("O_WRONLY");
    assert_eq!(of("\"big.bin\"").iter().find(written), None);
    // The rule tells the difference: what is new is written.
    assert!(of("\"new.json\"").iter().any(|line| line.contains("O_RDWR")), "{calls}");
}

#[test]
fn a_damaged_file_is_fetched_again_and_the_old_revision_stays_as_it_was() {
    let (hub, volume) = moved_to(&second());
    let path = volume.family("tiny/big.bin");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[12345] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    fetch(&hub, &volume, &["hf://org/tiny"])
        .run()
        .assert_success()
        .assert_says("the bytes that were here are damaged");
    volume.assert_holds("tiny", &second());
    assert!(std::fs::read(kept(&volume).join("big.bin")).unwrap() == bytes, "written through");
}

#[test]
fn a_truncated_file_is_no_copy() {
    let (hub, volume) = moved_to(&second());
    let path = volume.family("tiny/big.bin");
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(1000).unwrap();
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    volume.assert_holds("tiny", &second());
    assert!(hub.bytes_sent_for("xet-bridge") >= BIG as u64);
}

#[test]
fn where_there_are_no_hard_links_the_bytes_are_copied() {
    if !has("strace") {
        return;
    }
    for error in ["EPERM", "EMLINK", "EXDEV", "EOPNOTSUPP"] {
        let (hub, volume) = moved_to(&second());
        let big = inode(&volume.family("tiny/big.bin"));
        let inject = format!("inject=linkat:error={error}");
        let wrapper =
            ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=linkat", "-e", &inject];
        under(&wrapper, &fetch(&hub, &volume, &["hf://org/tiny"])).run().assert_success();
        volume.assert_holds("tiny", &second());
        assert_tree(&kept(&volume), &first());
        assert_ne!(inode(&volume.family("tiny/big.bin")), big, "{error}");
        assert_eq!(hub.bytes_sent_for("xet-bridge"), 0, "{error}");
    }
}

#[test]
fn a_directory_that_is_filled_file_by_file_keeps_what_has_not_changed() {
    let (hub, volume) = (FakeHub::serving(REPO, first()), Volume::new());
    let family = volume.family("tiny");
    std::fs::create_dir_all(&family).unwrap();
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    let big = inode(&family.join("big.bin"));
    hub.move_branch(REPO, "main", second());
    hub.log().clear();
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    assert_tree(&family, &second());
    assert_eq!(inode(&family.join("big.bin")), big);
    assert_eq!(std::fs::metadata(family.join("big.bin")).unwrap().nlink(), 1, "a name is left");
    assert_eq!(hub.bytes_sent_for("xet-bridge"), 0);
}

#[test]
fn an_update_that_was_killed_leaves_the_published_revision_alone() {
    if !has("strace") {
        return;
    }
    // The first link is that of the probe.
    for when in [1, 2, 3, 4] {
        let (hub, volume) = moved_to(&second());
        let kill = format!("inject=linkat:signal=KILL:when={when}");
        let wrapper = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=linkat", "-e", &kill];
        let killed = under(&wrapper, &fetch(&hub, &volume, &["hf://org/tiny"])).run();
        assert_eq!(killed.code == 0, when == 4, "two files are linked");
        if killed.code != 0 {
            volume.assert_holds("tiny", &first());
            fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
        }
        volume.assert_holds("tiny", &second());
        volume.assert_clean();
        assert_tree(&kept(&volume), &first());
        assert_eq!(hub.bytes_sent_for("xet-bridge"), 0);
    }
}

#[test]
fn an_s3_object_is_recognised_by_its_checksum() {
    for checksum in [Checksum::Crc64Nvme, Checksum::Sha256, Checksum::Crc32c] {
        let options = ObjectOptions { checksum: Some(checksum), ..ObjectOptions::default() };
        let mut builder = FakeS3::builder().bucket("models").credentials(ACCESS_KEY, SECRET_KEY);
        for (path, blob) in first().iter() {
            let key = format!("tiny/{path}");
            builder = builder.object_with("models", &key, blob.clone(), options.clone());
        }
        let (s3, volume) = (builder.start(), Volume::new());
        fetch_s3(&s3, &volume, &["s3://models/tiny/"]).run().assert_success();
        s3.overwrite("models", "tiny/config.json", Blob::bytes("[]"));
        s3.log().clear();
        fetch_s3(&s3, &volume, &["s3://models/tiny/"]).run().assert_success();
        volume.assert_holds("tiny", &first().with("config.json", "[]"));
        assert_eq!(s3.log().bytes_sent_for("big.bin"), 0, "{checksum:?}");
    }
}

/// A revision that has gone back to the first one but for one file.
fn nearly_first() -> Tree {
    first().with("new.json", "[2]")
}

#[test]
fn a_branch_that_goes_back_nearly_takes_from_what_is_kept() {
    for layout in ["plain", "hf-cache"] {
        let (hub, volume) = (FakeHub::serving(REPO, first()), Volume::new());
        let run = || fetch(&hub, &volume, &["hf://org/tiny", "--layout", layout]).run();
        run().assert_success();
        // Nothing of the first is left in what is shown.
        let other = Tree::new()
            .with("config.json", "[]")
            .with("vocab/merges.txt", "c d")
            .with_blob("big.bin", Blob::synthetic(BIG as u64, 9));
        hub.move_branch(REPO, "main", other.clone());
        run().assert_success();
        for (tree, fetched) in [
            (nearly_first(), &["new.json"][..]),
            (first(), &[]),
            (other, &[]),
            (nearly_first(), &[]),
        ] {
            hub.move_branch(REPO, "main", tree.clone());
            hub.log().clear();
            let run = run().assert_success();
            for (path, _) in tree.iter() {
                let requests = hub.count("*", &format!("/{path}"));
                assert_eq!(requests > 0, fetched.contains(&path), "{layout} {path}");
            }
            assert_eq!(hub.bytes_sent_for("xet-bridge"), 0, "{layout}: {}", run.stderr);
            if layout == "plain" {
                volume.assert_holds("tiny", &tree);
            }
        }
    }
}

#[test]
fn objects_that_go_back_are_taken_from_what_is_kept() {
    let other = first()
        .with("config.json", "[]")
        .with("vocab/merges.txt", "c d")
        .with_blob("big.bin", Blob::synthetic(BIG as u64, 9));
    let kinds = [Checksum::Crc64Nvme, Checksum::Sha256, Checksum::Crc32c, Checksum::Sha1];
    for checksum in kinds.map(Some).into_iter().chain([None]) {
        let options = ObjectOptions { checksum, ..ObjectOptions::default() };
        let mut builder = FakeS3::builder().bucket("models").credentials(ACCESS_KEY, SECRET_KEY);
        for (path, blob) in first().iter() {
            let key = format!("tiny/{path}");
            builder = builder.object_with("models", &key, blob.clone(), options.clone());
        }
        let (s3, volume) = (builder.start(), Volume::new());
        let put = |tree: &Tree| {
            for (path, blob) in tree.iter() {
                let key = format!("tiny/{path}");
                s3.overwrite_with("models", &key, blob.clone(), options.clone());
            }
            s3.log().clear();
        };
        let run = || fetch_s3(&s3, &volume, &["s3://models/tiny/"]).run().assert_success();
        run();
        put(&other);
        run();
        volume.assert_holds("tiny", &other);
        // The same versions as before, as far as the listing tells: a link is all that changes.
        for tree in [first(), other.clone()] {
            put(&tree);
            run();
            volume.assert_holds("tiny", &tree);
            for (path, _) in tree.iter() {
                assert_eq!(s3.count("GET", &format!("/{path}")), 0, "{checksum:?} {path}");
            }
        }
        // All but one: what the place publishes has to prove that it is the same.
        put(&first().with("config.json", "{ }"));
        run();
        volume.assert_holds("tiny", &first().with("config.json", "{ }"));
        let is_taken = s3.log().bytes_sent_for("big.bin") == 0;
        assert_eq!(is_taken, checksum.is_some(), "{checksum:?}");
    }
}

#[test]
fn where_nothing_is_kept_going_back_costs_what_differs() {
    let (hub, volume) = (FakeHub::serving(REPO, first()), Volume::new());
    let family = volume.family("tiny");
    std::fs::create_dir_all(&family).unwrap();
    for (tree, big) in [(first(), true), (second(), false), (first(), false), (second(), false)] {
        hub.move_branch(REPO, "main", tree.clone());
        hub.log().clear();
        fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
        assert_tree(&family, &tree);
        assert_eq!(hub.bytes_sent_for("xet-bridge") > 0, big);
    }
}

#[test]
fn where_there_are_no_hard_links_blocks_are_shared_if_the_filesystem_can() {
    if !is_root() || !has("strace") || !has("mkfs.xfs") {
        return;
    }
    let (hub, volume) = (FakeHub::serving(REPO, first()), Volume::new());
    let image = volume.path("image");
    std::fs::File::create(&image).unwrap().set_len(320 << 20).unwrap();
    std::fs::create_dir_all(volume.root()).unwrap();
    let done = |program: &str, arguments: &[&std::ffi::OsStr]| {
        std::process::Command::new(program).args(arguments).status().unwrap().success()
    };
    assert!(done("mkfs.xfs", &["-q".as_ref(), image.as_os_str()]));
    let root = volume.root();
    if !done("mount", &["-o".as_ref(), "loop".as_ref(), image.as_os_str(), root.as_os_str()]) {
        skip("no image can be mounted");
        return;
    }
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
        hub.move_branch(REPO, "main", second());
        hub.log().clear();
        let log = volume.path("calls");
        let (log, calls) = (log.to_str().unwrap(), "trace=linkat,ioctl,pwrite64");
        let wrapper =
            ["strace", "-f", "-qq", "-o", log, "-e", calls, "-e", "inject=linkat:error=EPERM"];
        under(&wrapper, &fetch(&hub, &volume, &["hf://org/tiny"])).run().assert_success();
        volume.assert_holds("tiny", &second());
        assert_tree(&kept(&volume), &first());
        assert_eq!(hub.bytes_sent_for("xet-bridge"), 0);
        let calls = std::fs::read_to_string(log).unwrap();
        let shared = calls.lines().filter(|line| line.contains("FICLONE") && line.ends_with("= 0"));
        assert_eq!(shared.count(), 2, "{calls}");
    }));
    assert!(done("umount", &["-l".as_ref(), root.as_os_str()]));
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

/// A model that moves on for ever, in a volume that never grows: one of twice its size, and a MiB for what
/// is said of it.
#[test]
fn a_volume_of_twice_the_model_takes_as_many_updates_as_come() {
    if !is_root() {
        skip("mounts need root");
        return;
    }
    const SHARDS: u64 = 4;
    let shard = |n: u64| format!("shard-{n}.bin");
    let model = |revision: u64| {
        let files = (0..SHARDS).map(|n| (shard(n), Blob::synthetic(MIB, revision * SHARDS + n)));
        let config = format!("{{\"revision\": {revision}}}");
        files.fold(Tree::new().with("config.json", config), |tree, (name, blob)| {
            tree.with_blob(&name, blob)
        })
    };
    let hub = FakeHub::serving(REPO, model(0));
    let volume = Volume::new();
    std::fs::create_dir(volume.root()).unwrap();
    // A file that is removed takes its room for as long as the reader has it open.
    let held = MIB;
    let size = format!("size={}", 2 * SHARDS * MIB + 2 * MIB + held);
    let _mounted = super::probe::tmpfs(&volume.root(), &size);
    // Room that is lacking would be no failure, but the older copy.
    let flags = ["hf://org/tiny", "--keep-revisions", "0", "--if-stale", "fail"];
    let update = || fetch(&hub, &volume, &flags);
    update().run().assert_success();
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let reads = std::thread::scope(|scope| {
        // A server that opens one file after the other, again and again, and finds each at its size.
        let reader = scope.spawn(|| {
            let mut reads = 0_u64;
            while !is_over.load(std::sync::atomic::Ordering::Acquire) {
                for n in 0..SHARDS {
                    let bytes = std::fs::read(volume.family("tiny").join(shard(n)));
                    assert_eq!(bytes.expect("the file is there").len() as u64, MIB);
                    reads += 1;
                }
            }
            reads
        });
        let end = Ends(&is_over);
        for revision in 1..=50 {
            hub.move_branch(REPO, "main", model(revision));
            update().run().assert_success();
        }
        drop(end);
        reader.join().unwrap()
    });
    eprintln!("{reads} reads beside 50 updates");
    assert!(reads > 50);
    volume.assert_holds("tiny", &model(50));
    assert_eq!(list(&volume.root().join(".weightlift/revisions/tiny")).len(), 1);
    volume.assert_clean();
}
