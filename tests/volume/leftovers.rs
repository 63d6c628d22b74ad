//! What lies on a volume that is neither a model nor at work: what the filesystem keeps there, what
//! somebody else has put there, and what killed runs of other models have left.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::process::{Mounted, Node, straced};
use crate::support::tracer::{Act, Call, traced};
use crate::support::*;
use nix::errno::Errno;
use weightlift_fakes::{Blob, FakeHub, Fault, Rule, Tree};

const MIB: u64 = 1 << 20;
const OLD: &str = "9 days ago";
const SMALL: &str = "hf://org/small";

/// A sample of each kind of name; `store/filesystem.rs` has them all.
const OF_FILESYSTEMS: [&str; 12] = [
    "lost+found",
    ".snapshot",
    ".snapshots",
    ".snap",
    ".zfs",
    ".glusterfs",
    ".lustre",
    "System Volume Information",
    "#recycle",
    "@eaDir",
    "$RECYCLE.BIN",
    ".Trash-1000",
];
const OPEN_ON_NFS: &str = ".nfs000000000000abcd00000001";

// What the filesystem keeps

/// Directories that only root may open, with something in them, and a file that is open elsewhere.
fn put_what_a_filesystem_keeps(at: &Path) {
    std::fs::create_dir_all(at).unwrap();
    for name in OF_FILESYSTEMS {
        let dir = at.join(name);
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("x"), "of the filesystem").unwrap();
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700)).unwrap();
    }
    for name in [OPEN_ON_NFS, "aquota.user"] {
        std::fs::write(at.join(name), "of the filesystem").unwrap();
        std::fs::set_permissions(at.join(name), std::fs::Permissions::from_mode(0o600)).unwrap();
    }
}

#[track_caller]
fn assert_keeps_it(at: &Path) {
    for name in OF_FILESYSTEMS {
        let content = std::fs::read_to_string(at.join(name).join("x"));
        assert_eq!(content.ok().as_deref(), Some("of the filesystem"), "{name}");
    }
    for name in [OPEN_ON_NFS, "aquota.user"] {
        let content = std::fs::read_to_string(at.join(name));
        assert_eq!(content.ok().as_deref(), Some("of the filesystem"), "{name}");
    }
}

/// The model is there, whatever else is.
#[track_caller]
fn assert_has(family: &Path, tree: &Tree) {
    for (name, blob) in tree.iter() {
        let found = std::fs::read(family.join(name)).ok();
        assert!(found.is_some_and(|found| found == blob.to_vec()), "{name}");
    }
    assert!(family.join(".weightlift-complete.json").is_file(), "no sentinel");
}

/// `command` as the image runs it: a user who is nobody, and owns `dirs`.
fn as_nobody(volume: &Volume, command: &Command, dirs: &[&Path]) -> Command {
    // The binary may lie where this user cannot look.
    let copy = volume.path("weightlift");
    if !copy.exists() {
        copy_binary(&copy);
    }
    let open = |path: &Path| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    open(&volume.path(""));
    for dir in dirs {
        open(dir);
        std::os::unix::fs::chown(dir, Some(65_532), Some(65_532)).unwrap();
    }
    let mut other = Command::new(copy);
    other.args(command.get_args()).env_clear().uid(65_532).gid(65_532);
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            other.env(name, value);
        }
    }
    other
}

#[test]
fn what_a_filesystem_keeps_in_a_directory_is_never_foreign_and_never_opened() {
    if !is_root() {
        return;
    }
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    let family = volume.family("tiny");
    put_what_a_filesystem_keeps(&family);
    put_what_a_filesystem_keeps(&volume.root().join(".weightlift"));
    let dirs = [volume.root(), volume.root().join(".weightlift"), family.clone()];
    let dirs = dirs.each_ref().map(PathBuf::as_path);
    let run = |command: &Command| as_nobody(&volume, command, &dirs).run();
    run(&fetch(&hub, &volume, &["hf://org/tiny"])).assert_success();
    assert_has(&family, &tiny_selected());
    let warm = run(&fetch(&hub, &volume, &["hf://org/tiny"])).assert_success();
    assert!(warm.stderr.contains("nothing to do"), "{}", warm.stderr);
    let of = |word: &str| {
        let mut command = weightlift();
        command.arg(word).arg(&family);
        command
    };
    let verified = run(&of("verify")).assert_success();
    assert!(!verified.stderr.contains("not in the sentinel"), "{}", verified.stderr);
    run(of("wait").args(["--timeout", "20s"])).assert_success();
    let new = tiny_selected().with("new/file.json", "{}").without("README.md");
    hub.move_branch(REPO, "main", new.clone());
    run(&fetch(&hub, &volume, &["hf://org/tiny"])).assert_success();
    assert_has(&family, &new);
    assert!(!family.join("README.md").exists());
    for dir in [&family, &volume.root().join(".weightlift")] {
        assert_keeps_it(dir);
    }
}

#[test]
fn a_fresh_ext4_volume_is_filled_by_a_user_who_is_not_root() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    let mounted = volume.path("mnt-models");
    let Some(_mounted) = Mounted::ext4(64 * MIB, &volume.path("image"), &mounted) else { return };
    assert_eq!(std::fs::metadata(mounted.join("lost+found")).unwrap().mode() & 0o777, 0o700);
    let fetch_there = || {
        let mut command = weightlift();
        command.args(["fetch", "hf://org/tiny"]).arg(&mounted).env("HF_ENDPOINT", hub.url());
        as_nobody(&volume, &command, &[&mounted]).run()
    };
    fetch_there().assert_success();
    assert_has(&mounted, &tiny_selected());
    let new = tiny_selected().with("new.json", "{}");
    hub.move_branch(REPO, "main", new.clone());
    fetch_there().assert_success();
    assert_has(&mounted, &new);
    let mut verify = weightlift();
    as_nobody(&volume, verify.arg("verify").arg(&mounted), &[]).run().assert_success();
}

/// All commands that walk a volume, on the root `mounted` and on DEST `dest`, below it or itself.
fn each_command(hub: &FakeHub, volume: &Volume, mounted: &Path, dest: &Path) -> Vec<Command> {
    let cache = volume.path("cache");
    let s3 = ["--s3-endpoint", "http://127.0.0.1:9", "--retry-timeout", "1s"];
    let (root, at) = (mounted.to_str().unwrap(), dest.to_str().unwrap());
    let file = format!("file://{at}");
    let copy = volume.path("copy");
    let lines: [&[&str]; 15] = [
        &["plan", "hf://org/tiny", at],
        &["fetch", "hf://org/tiny", at],
        &["fetch", "hf://org/tiny", at],
        &["fetch", "hf://org/tiny", at, "--recheck"],
        &["fetch", "hf://org/tiny", at, "--replace", "--exclude", "README.md"],
        &["verify", at],
        &["wait", at, "--timeout", "20s"],
        &["list", "--root", root],
        &["prune", "--root", root, "--keep-revisions", "0", "--yes"],
        &["fetch", "hf://org/tiny", "other", "--root", copy.to_str().unwrap(), "--adopt", root],
        &["fetch", &file, "again", "--root", copy.to_str().unwrap()],
        &["plan", &file, "third", "--root", copy.to_str().unwrap()],
        &["fetch", "hf://org/tiny", "--layout", "hf-cache", "--root", cache.to_str().unwrap()],
        &["list", "--root", cache.to_str().unwrap()],
        &["prune", "--root", cache.to_str().unwrap(), "--yes"],
    ];
    let of = |line: &&[&str]| {
        let mut command = weightlift();
        command.args(*line).env("HF_ENDPOINT", hub.url());
        command
    };
    let mut commands: Vec<Command> = lines.iter().map(of).collect();
    // Its bucket cannot be reached, so that it ends after it has looked at the model.
    let mut mirror = weightlift();
    mirror.args(["mirror", &file, "s3://bucket/tiny/"]).args(s3);
    mirror.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
    mirror.env("AWS_REGION", "us-east-1").arg("--s3-path-style");
    commands.push(mirror);
    commands
}

#[test]
fn no_command_opens_what_a_filesystem_keeps() {
    if !has("strace") || !has("setpriv") {
        return;
    }
    // DEST is the mount, and DEST lies below it.
    for is_dest in [true, false] {
        let (hub, volume) = (hub_of_tiny(), Volume::new());
        let mounted = volume.path("mnt");
        let Some(_mounted) = Mounted::ext4(64 * MIB, &volume.path("image"), &mounted) else {
            return;
        };
        std::fs::remove_dir(mounted.join("lost+found")).unwrap();
        put_what_a_filesystem_keeps(&mounted);
        let owned = ["copy", "cache"].map(|name| volume.path(name));
        for dir in &owned {
            put_what_a_filesystem_keeps(dir);
        }
        let dest = if is_dest { mounted.clone() } else { mounted.join("tiny") };
        let dirs = [&mounted, &owned[0], &owned[1]].map(|dir| dir.as_path());
        for command in each_command(&hub, &volume, &mounted, &dest) {
            let text = format!("{:?}", command.get_args().collect::<Vec<_>>());
            let is_mirror = text.contains("\"mirror\"");
            let log = volume.path("calls");
            let trace = "trace=open,openat,openat2";
            let mut wrapper = vec!["strace", "-f", "-qq", "-e", trace, "-o", log.to_str().unwrap()];
            wrapper.extend(["setpriv", "--reuid=65532", "--regid=65532", "--clear-groups", "--"]);
            let run = under(&wrapper, &as_nobody(&volume, &command, &dirs)).run();
            assert_eq!(run.code, if is_mirror { 20 } else { 0 }, "{text}: {}", run.stderr);
            for name in OF_FILESYSTEMS {
                assert!(!run.stderr.contains(name), "{text} names {name}: {}", run.stderr);
            }
            assert!(!run.stderr.contains("not read"), "{text}: {}", run.stderr);
            // What is refused is not always told.
            let calls = std::fs::read_to_string(&log).unwrap();
            assert!(calls.contains("openat("), "nothing was traced");
            for name in OF_FILESYSTEMS {
                let opened = calls.lines().find(|line| line.contains(&format!("{name}\"")));
                assert_eq!(opened, None, "{text} opens {name}");
            }
        }
        for dir in dirs {
            assert_keeps_it(dir);
        }
    }
}

#[test]
fn a_directory_that_somebody_has_filled_is_taken_over_beside_what_the_filesystem_keeps() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    let mounted = volume.path("mnt");
    let Some(_mounted) = Mounted::ext4(64 * MIB, &volume.path("image"), &mounted) else { return };
    let old = Tree::new().with("config.json", "old").with("notes/mine.txt", "mine");
    for (name, blob) in old.iter() {
        std::fs::create_dir_all(mounted.join(name).parent().unwrap()).unwrap();
        std::fs::write(mounted.join(name), blob.to_vec()).unwrap();
    }
    let mut chown = Command::new("chown");
    chown.args(["-R", "65532:65532"]).args([mounted.join("config.json"), mounted.join("notes")]);
    assert!(chown.status().unwrap().success());
    let mut command = weightlift();
    command.args(["fetch", "hf://org/tiny"]).arg(&mounted).arg("--adopt").arg(&mounted);
    command.env("HF_ENDPOINT", hub.url());
    as_nobody(&volume, &command, &[&mounted]).run().assert_success();
    assert_has(&mounted, &tiny_selected());
    assert_eq!(std::fs::read(mounted.join("notes/mine.txt")).unwrap(), b"mine");
    assert_eq!(std::fs::metadata(mounted.join("lost+found")).unwrap().mode() & 0o777, 0o700);
}

#[test]
fn a_file_that_is_open_elsewhere_does_not_stop_an_update_that_was_cut_off() {
    // The server has the removed file open, the sentinel is gone, the fetch was killed.
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    std::fs::create_dir_all(volume.family("tiny")).unwrap();
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    std::fs::write(volume.family("tiny").join(OPEN_ON_NFS), "mapped").unwrap();
    let new = tiny_selected().without("README.md").with("config.json", "{\"new\": true}");
    hub.move_branch(REPO, "main", new.clone());
    let command = fetch(&hub, &volume, &["hf://org/tiny"]);
    let readme = volume.family("tiny/README.md");
    let mut is_removed = false;
    let run = traced(&command, &volume.path(""), |call| {
        if std::mem::replace(&mut is_removed, call.name == "unlinkat" && call.path == readme) {
            Act::Kill
        } else {
            Act::Pass
        }
    });
    assert_eq!(run.code, -1, "{}", run.stderr);
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    assert_has(&volume.family("tiny"), &new);
    assert!(volume.family("tiny").join(OPEN_ON_NFS).is_file());
}

#[test]
fn a_dest_that_a_filesystem_keeps_is_refused() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    for dest in ["lost+found", ".snapshot/tiny", "a/.zfs", OPEN_ON_NFS] {
        let at = volume.family(dest);
        std::fs::create_dir_all(&at).unwrap();
        fetch(&hub, &volume, &["hf://org/tiny", dest])
            .run()
            .assert_code(2)
            .assert_says("a name that filesystems reserve");
        assert_eq!(list(&at), Vec::<PathBuf>::new(), "{dest}");
    }
    assert!(!volume.root().join(".weightlift").exists());
    assert_eq!(hub.requests().len(), 0);
}

fn with_odd_names() -> Tree {
    Tree::new()
        .with("config.json", "{}")
        .with(".snapshot", "a file of the model")
        .with("lost+found/x.bin", "and another one")
        .with("sub/@eaDir/y.bin", "and a third")
        .with("sub/.nfs000000000000abcd00000002", "and a fourth")
}

#[test]
fn files_of_a_model_with_such_names_are_files_of_the_model() {
    for is_in_place in [false, true] {
        let (hub, volume) = (FakeHub::serving(REPO, with_odd_names()), Volume::new());
        let family = volume.family("tiny");
        if is_in_place {
            std::fs::create_dir_all(&family).unwrap();
        }
        let verify = || weightlift().arg("verify").arg(&family).run();
        fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
        assert_has(&family, &with_odd_names());
        let run = verify().assert_success();
        assert!(!run.stderr.contains("not in the sentinel"), "{}", run.stderr);
        // None of them gets lost without a word.
        std::fs::write(family.join("lost+found/x.bin"), "and another oNe").unwrap();
        verify().assert_code(12).assert_says("`lost+found/x.bin`");
        std::fs::remove_file(family.join(".snapshot")).unwrap();
        fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
        assert_has(&family, &with_odd_names());
        // Nor in an update, nor does one of them stay.
        let new = with_odd_names().without("lost+found/x.bin").with(".snapshot", "a newer one");
        hub.move_branch(REPO, "main", new.clone());
        fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
        assert_has(&family, &new);
        assert!(!family.join("lost+found/x.bin").exists());
        verify().assert_success();
    }
}

#[test]
fn a_file_of_the_model_whose_name_the_filesystem_has_taken_is_told_before_the_first_byte() {
    let (hub, volume) = (FakeHub::serving(REPO, with_odd_names()), Volume::new());
    let family = volume.family("tiny");
    put_what_a_filesystem_keeps(&family);
    let run = fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_code(16);
    assert!(
        run.last_line().contains("/.snapshot` is reserved by the filesystem"),
        "{}",
        run.stderr
    );
    assert_eq!(hub.count("*", "/resolve/"), 0);
    let except = ["hf://org/tiny", "--exclude", ".snapshot", "--exclude", "lost+found/*"];
    fetch(&hub, &volume, &except).run().assert_success();
    assert_keeps_it(&family);
}

// What somebody else has put there

#[test]
fn foreign_files_are_named() {
    let many: Vec<String> = (0..3_000).map(|n| format!("f{n:04}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for (files, expected) in [
        (&["mine.txt"][..], "holds 1 file that weightlift did not put there: `mine.txt`;"),
        (&["a", "b"], "holds 2 files that weightlift did not put there: `a`, `b`;"),
        (
            &["a", "b", "c", "d"],
            "holds 4 files that weightlift did not put there: `a`, `b`, `c` and 1 more;",
        ),
        (
            &many,
            "holds 3000 files that weightlift did not put there: `f0000`, `f0001`, `f0002` and 2997 more;",
        ),
        (&["a\u{1b}[2J\n"], "`a\\u{1b}[2J\\u{a}`;"),
        (&["logs/x"], "holds 1 file that weightlift did not put there: `logs/`;"),
        (
            &["lost+found/x", ".Trash-1000/y", "mine/z"],
            "holds 1 file that weightlift did not put there: `mine/`;",
        ),
    ] {
        for is_begun in [false, true] {
            let (hub, volume) = (hub_of_tiny(), Volume::new());
            let family = volume.family("tiny");
            for file in files {
                std::fs::create_dir_all(family.join(file).parent().unwrap()).unwrap();
                std::fs::write(family.join(file), "mine").unwrap();
            }
            if is_begun {
                std::fs::create_dir(family.join(".weightlift")).unwrap();
            }
            let run = fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_code(16);
            let line = run.last_line();
            assert!(line.contains(expected), "{line}");
            assert!(line.contains("choose another DEST, move or remove what is there"), "{line}");
            assert!(line.len() < 600, "{line}");
            assert_eq!(std::fs::read(family.join(files[0])).unwrap(), b"mine");
        }
    }
}

#[test]
fn what_is_in_the_way_is_told() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    std::fs::create_dir_all(volume.root()).unwrap();
    let elsewhere = volume.path("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let link = format!("a link to `{}`", elsewhere.display());
    let plant = |what: &str| match what {
        "file" => std::fs::write(volume.family("x"), "x").unwrap(),
        "link" => symlink(&elsewhere, volume.family("x")).unwrap(),
        "nasty link" => symlink("/a\u{1b}[2J", volume.family("x")).unwrap(),
        "pipe" => {
            assert!(Command::new("mkfifo").arg(volume.family("x")).status().unwrap().success());
        }
        other => panic!("{other}"),
    };
    for (what, expected) in [
        ("file", "a file"),
        ("link", link.as_str()),
        ("nasty link", "a link to `/a\\u{1b}[2J`"),
        ("pipe", "a pipe, a socket or a device"),
    ] {
        plant(what);
        for dest in ["x", "x/tiny"] {
            let run = fetch(&hub, &volume, &["hf://org/tiny", dest]).run().assert_code(16);
            let line = format!("`{}` is {expected}, but", volume.family("x").display());
            assert!(run.last_line().contains(&line), "{what}, {dest}: {}", run.stderr);
        }
        std::fs::remove_file(volume.family("x")).unwrap();
    }
    assert_eq!(list(&elsewhere), Vec::<PathBuf>::new());
    // A link to another model at the place of a model.
    symlink("x", volume.family("linked")).unwrap();
    let run = fetch(&hub, &volume, &["hf://org/tiny", "linked"]).run().assert_code(16);
    assert!(run.last_line().contains("a link to `x`"), "{}", run.stderr);
}

#[test]
fn verify_names_what_it_may_not_look_into_and_counts_what_is_too_much() {
    if !is_root() {
        return;
    }
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    let family = volume.family("tiny");
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    let closed = family.join("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o700)).unwrap();
    for n in 0..100 {
        std::fs::write(family.join(format!("extra-{n:03}")), "x").unwrap();
    }
    let mut command = weightlift();
    command.arg("verify").arg(&family);
    let run = as_nobody(&volume, &command, &[]).run().assert_success();
    assert!(run.stderr.contains("/closed/` is not in the sentinel"), "{}", run.stderr);
    assert!(run.stderr.contains("81 more in "), "{}", run.stderr);
    assert!(run.stderr.lines().count() < 30, "{}", run.stderr);
}

// What killed runs of other models have left

/// `org/tiny` is large, `org/small` is not.
fn hub() -> FakeHub {
    FakeHub::builder()
        .repo(REPO, large())
        .repo("org/small", Tree::new().with("config.json", "{}"))
        .start()
}

fn large() -> Tree {
    Tree::new().with("config.json", "{}").with_blob("big.bin", Blob::synthetic(24 * MIB, 2))
}

/// A fetch of the large model to `family` that is killed in the middle by `-KILL`, as `wrapped` has
/// it; its attempt.
fn killed(
    hub: &FakeHub,
    volume: &Volume,
    family: &str,
    wrapped: impl Fn(Command) -> Command,
) -> PathBuf {
    let before = attempts_below(&volume.root());
    hub.script(Rule::on("GET", "").at("cdn").then(Fault::Drip { bytes_per_second: 4 * MIB }));
    let arguments = ["hf://org/tiny", family, "--chunk-size", "1MiB", "--connections", "2"];
    let running = wrapped(fetch(hub, volume, &arguments)).start();
    let new = || attempts_below(&volume.root()).into_iter().find(|it| !before.contains(it));
    eventually("some chunks arrive", || {
        let journal = new().and_then(|it| std::fs::read_to_string(it.join("journal")).ok());
        journal.is_some_and(|text| text.matches("\"chunk\"").count() >= 3)
    });
    running.signal("-KILL");
    running.wait();
    hub.clear_script();
    new().unwrap()
}

/// The attempts in the working area of the root and of the families in it.
fn attempts_below(root: &Path) -> Vec<PathBuf> {
    let mut found = list(&root.join(".weightlift/attempts"));
    for family in list(root) {
        found.extend(list(&family.join(".weightlift/attempts")));
    }
    found
}

/// As if nothing had been written below `path` since then.
fn age(path: &Path, since: &str) {
    let mut find = Command::new("find");
    find.arg(path).args(["-depth", "-exec", "touch", "-h", "-d", since, "{}", "+"]);
    assert!(find.status().unwrap().success());
}

fn fetch_small(hub: &FakeHub, volume: &Volume) -> Run {
    fetch(hub, volume, &[SMALL, "small"]).run()
}

fn heartbeats(volume: &Volume) -> Vec<PathBuf> {
    list(&volume.root().join(".weightlift/owners"))
}

#[test]
fn what_killed_runs_of_other_models_left_long_ago_is_removed_and_told() {
    let (hub, volume) = (hub(), Volume::new());
    let left = ["a", "emb/b"].map(|family| killed(&hub, &volume, family, |it| it));
    left.iter().for_each(|left| age(left, OLD));
    assert_eq!((volume.attempts().len(), heartbeats(&volume).len()), (2, 2));
    let locks = list(&volume.root().join(".weightlift/locks"));
    let run = fetch_small(&hub, &volume).assert_success();
    assert_eq!(volume.attempts(), Vec::<PathBuf>::new(), "{}", run.stderr);
    assert_eq!(heartbeats(&volume), Vec::<PathBuf>::new());
    let line = run.stderr.lines().find(|line| line.contains("removed")).unwrap();
    assert!(line.contains("removed 2 unfinished attempts of other models ("), "{line}");
    assert!(line.contains(" MB, up to 9 days old): `a`, `emb/b`"), "{line}");
    // A lock is never removed: two processes could lock two files of one name.
    let left = list(&volume.root().join(".weightlift/locks"));
    assert!(locks.iter().all(|lock| left.contains(lock)), "{left:?}");
    // And it is told once.
    std::fs::remove_dir_all(volume.family("small")).unwrap();
    let again = fetch_small(&hub, &volume).assert_success();
    assert!(!again.stderr.contains("removed"), "{}", again.stderr);
}

#[test]
fn a_family_whose_name_was_cut_is_cleared_as_well() {
    let (hub, volume) = (hub(), Volume::new());
    let family = "x".repeat(230);
    let left = killed(&hub, &volume, &family, |it| it);
    age(&left, "1 day ago");
    fetch_small(&hub, &volume).assert_success();
    assert!(left.is_dir());
    age(&left, OLD);
    std::fs::remove_dir_all(volume.family("small")).unwrap();
    let run = fetch_small(&hub, &volume).assert_success();
    assert!(run.stderr.contains("removed 1 unfinished attempt of other models"), "{}", run.stderr);
    volume.assert_clean();
}

#[test]
fn what_may_still_be_continued_is_kept() {
    let (hub, volume) = (hub(), Volume::new());
    let left = killed(&hub, &volume, "a", |it| it);
    for since in ["1 minute ago", "6 days ago"] {
        age(&left, since);
        let _ = std::fs::remove_dir_all(volume.family("small"));
        let run = fetch_small(&hub, &volume).assert_success();
        assert!(left.is_dir(), "{since}: {}", run.stderr);
        assert!(!run.stderr.contains("removed"), "{since}: {}", run.stderr);
    }
    let run = fetch(&hub, &volume, &["hf://org/tiny", "a"]).run().assert_success();
    assert!(run.stderr.contains("are here already"), "{}", run.stderr);
    volume.assert_holds("a", &large());
    volume.assert_clean();
}

#[test]
fn what_a_newer_revision_of_its_family_has_left_behind_is_removed_at_once() {
    let (hub, volume) = (hub(), Volume::new());
    let left = killed(&hub, &volume, "a", |it| it);
    let aside = volume.path("aside");
    std::fs::rename(&left, &aside).unwrap();
    fetch(&hub, &volume, &["hf://org/tiny", "a"]).run().assert_success();
    std::fs::rename(&aside, &left).unwrap();
    let run = fetch_small(&hub, &volume).assert_success();
    assert!(!left.exists(), "{}", run.stderr);
    assert!(run.stderr.contains("removed 1 unfinished attempt of other models"), "{}", run.stderr);
    volume.assert_holds("a", &large());

    // But not what was begun after that revision, or beside one that is damaged.
    hub.move_branch(REPO, "main", large().with_blob("big.bin", Blob::synthetic(24 * MIB, 3)));
    let update = killed(&hub, &volume, "a", |it| it);
    std::fs::remove_dir_all(volume.family("small")).unwrap();
    fetch_small(&hub, &volume).assert_success();
    assert!(update.is_dir());
    let sentinel = volume.family("a/.weightlift-complete.json");
    age(&sentinel, "now");
    std::fs::remove_file(volume.family("a/config.json")).unwrap();
    std::fs::remove_dir_all(volume.family("small")).unwrap();
    fetch_small(&hub, &volume).assert_success();
    assert!(update.is_dir());
}

#[test]
fn whoever_is_at_work_is_left_alone_however_old_it_looks() {
    let (hub, volume) = (hub(), Volume::new());
    hub.script(Rule::on("GET", "").at("cdn").then(Fault::Drip { bytes_per_second: 3 * MIB }));
    let holder = fetch(&hub, &volume, &["hf://org/tiny", "a", "--chunk-size", "1MiB"]).start();
    eventually("a chunk arrives", || hub.bytes_sent_for("xet-bridge") > 3 * MIB);
    age(&volume.attempts()[0], OLD);
    let run = fetch_small(&hub, &volume).assert_success();
    assert!(!run.stderr.contains("removed"), "{}", run.stderr);
    hub.clear_script();
    holder.wait().assert_success();
    volume.assert_holds("a", &large());
    volume.assert_clean();
}

/// A fetch where the filesystem could be one that many nodes share.
fn on_network(command: &Command) -> Command {
    straced(command, "fstatfs", &["fstatfs:error=ENOSYS"])
}

#[test]
fn what_another_node_left_is_removed_when_its_heartbeat_has_stopped_long_ago() {
    if !is_root() || !has("strace") || !has("unshare") {
        return;
    }
    let (hub, volume) = (hub(), Volume::new());
    let far = Node::new(&volume, "far");
    let left = killed(&hub, &volume, "a", |command| far.run(&command));
    let small = || {
        let _ = std::fs::remove_dir_all(volume.family("small"));
        on_network(&fetch(&hub, &volume, &[SMALL, "small"])).run().assert_success()
    };
    // Nobody can tell whether it is there, and it may just be slow.
    age(&left, "6 days ago");
    small();
    assert!(left.is_dir());
    // It seems old, as when the clock of a file server jumps, and it beats.
    age(&left, OLD);
    let heartbeat = left.join("owner.json");
    let beats = std::thread::scope(|scope| {
        let running = scope.spawn(small);
        let mut beats = 0;
        while !running.is_finished() {
            let text = std::fs::read_to_string(&heartbeat).unwrap();
            let mut owner: serde_json::Value = serde_json::from_str(&text).unwrap();
            owner["sequence"] = (owner["sequence"].as_u64().unwrap() + 1).into();
            let next = left.join("owner.json.next");
            std::fs::write(&next, owner.to_string()).unwrap();
            std::fs::rename(&next, &heartbeat).unwrap();
            age(&heartbeat, OLD);
            beats += 1;
            std::thread::sleep(Duration::from_millis(500));
        }
        running.join().unwrap();
        beats
    });
    assert!(left.is_dir(), "removed after {beats} beats");
    let run = small();
    assert!(!left.exists(), "{}", run.stderr);
    assert!(run.stderr.contains("removed 1 unfinished attempt"), "{}", run.stderr);
    assert_eq!(heartbeats(&volume), Vec::<PathBuf>::new());
}

#[test]
fn what_another_node_left_of_the_same_model_is_used_and_then_removed() {
    if !is_root() || !has("strace") || !has("unshare") {
        return;
    }
    let (hub, volume) = (hub(), Volume::new());
    let far = Node::new(&volume, "far");
    let left = killed(&hub, &volume, "a", |command| far.run(&command));
    age(&left, OLD);
    let run = on_network(&fetch(&hub, &volume, &["hf://org/tiny", "a"])).run().assert_success();
    assert!(run.stderr.contains("are here already"), "{}", run.stderr);
    assert!(run.stderr.contains("removed 1 unfinished attempt of this model"), "{}", run.stderr);
    volume.assert_holds("a", &large());
    volume.assert_clean();
}

#[test]
fn a_directory_that_is_filled_in_place_is_cleared_as_well() {
    let (hub, volume) = (hub(), Volume::new());
    let family = volume.family("models");
    std::fs::create_dir_all(&family).unwrap();
    // Somebody has used it as a root before.
    let other = Volume::new();
    let left = killed(&hub, &other, "a", |it| it);
    let attempts = family.join(".weightlift/attempts");
    std::fs::create_dir_all(&attempts).unwrap();
    let moved = attempts.join(left.file_name().unwrap());
    assert!(Command::new("cp").arg("-a").args([&left, &moved]).status().unwrap().success());
    age(&moved, OLD);
    // And one beside it, in the working area of the root.
    let beside = killed(&hub, &volume, "b", |it| it);
    age(&beside, OLD);
    let run = fetch(&hub, &volume, &[SMALL, "models"]).run().assert_success();
    assert!(run.stderr.contains("removed 2 unfinished attempts of other models"), "{}", run.stderr);
    assert!(family.join("config.json").is_file());
    assert_eq!(attempts_below(&volume.root()), Vec::<PathBuf>::new());
}

#[test]
fn an_attempt_that_never_began_is_removed_when_it_is_old() {
    let (hub, volume) = (hub(), Volume::new());
    let attempts = volume.root().join(".weightlift/attempts");
    let leave = |name: &str, journal: Option<&str>, since: &str| {
        let attempt = attempts.join(name);
        std::fs::create_dir_all(attempt.join("tree")).unwrap();
        if let Some(journal) = journal {
            std::fs::write(attempt.join("journal"), journal).unwrap();
        }
        age(&attempt, since);
        attempt
    };
    let old = [
        leave("a~1111111111111111", None, OLD),
        leave("b~2222222222222222", Some(""), OLD),
        leave("c~3333333333333333", Some("torn in the fir"), OLD),
        leave("small~4444444444444444", None, OLD),
        // Half removed, whenever that was.
        leave("d~5555555555555555~gone", None, "now"),
    ];
    let young = leave("e~6666666666666666", None, "1 hour ago");
    let run = fetch_small(&hub, &volume).assert_success();
    for attempt in old {
        assert!(!attempt.exists(), "{}: {}", attempt.display(), run.stderr);
    }
    assert!(young.is_dir());
}

#[test]
fn what_is_no_attempt_of_ours_is_never_removed() {
    let (hub, volume) = (hub(), Volume::new());
    let attempts = volume.root().join(".weightlift/attempts");
    let outside = volume.path("outside");
    std::fs::create_dir_all(outside.join("tree")).unwrap();
    std::fs::write(outside.join("tree/x"), "x").unwrap();
    for dir in [
        "notes",
        "a~b",
        "a~111111111111111",
        "a~111111111111111G",
        "~1111111111111111",
        "x~gone",
        "a~1111111111111111",
        ".snapshot",
    ] {
        std::fs::create_dir_all(attempts.join(dir).join("tree")).unwrap();
        std::fs::write(attempts.join(dir).join("mine.txt"), "mine").unwrap();
    }
    std::fs::write(attempts.join("b~2222222222222222"), "a file").unwrap();
    symlink(&outside, attempts.join("c~3333333333333333")).unwrap();
    symlink(&outside, attempts.join("c~3333333333333333~gone")).unwrap();
    // Of another family than its name says.
    let real = killed(&hub, &volume, "a", |it| it);
    let renamed = attempts.join("other~4444444444444444");
    std::fs::rename(&real, &renamed).unwrap();
    let owners = volume.root().join(".weightlift/owners");
    std::fs::write(owners.join("notes.json"), "{}").unwrap();
    std::fs::write(owners.join("mine.txt"), "mine").unwrap();
    age(&volume.root(), OLD);
    let before = list(&attempts);
    let run = fetch_small(&hub, &volume).assert_success();
    assert_eq!(list(&attempts), before, "{}", run.stderr);
    assert!(!run.stderr.contains("removed"), "{}", run.stderr);
    assert_eq!(std::fs::read(outside.join("tree/x")).unwrap(), b"x");
    for dir in ["notes", "a~b", ".snapshot"] {
        assert_eq!(std::fs::read(attempts.join(dir).join("mine.txt")).unwrap(), b"mine");
    }
    assert!(owners.join("notes.json").is_file() && owners.join("mine.txt").is_file());
}

#[test]
fn a_link_below_an_attempt_is_removed_and_not_followed() {
    let (hub, volume) = (hub(), Volume::new());
    let outside = volume.path("outside");
    std::fs::create_dir_all(&outside).unwrap();
    std::fs::write(outside.join("x"), "x").unwrap();
    let left = killed(&hub, &volume, "a", |it| it);
    symlink(&outside, left.join("tree/link")).unwrap();
    std::fs::hard_link(outside.join("x"), left.join("tree/second-name")).unwrap();
    age(&left, OLD);
    age(&outside, "now");
    fetch_small(&hub, &volume).assert_success();
    assert!(!left.exists());
    assert_eq!(std::fs::read(outside.join("x")).unwrap(), b"x");
}

#[test]
fn a_revision_that_only_a_dead_attempt_holds_is_kept() {
    let (hub, volume) = (hub(), Volume::new());
    let command = fetch(&hub, &volume, &["hf://org/tiny", "a"]);
    // There are no links.
    let without = |call: &Call| call.name == "symlinkat";
    let refuse = |call: &Call| if without(call) { Act::Fail(Errno::EPERM) } else { Act::Pass };
    traced(&command, &volume.path(""), refuse).assert_success();
    let new = large().with("config.json", "{\"new\": 1}");
    hub.move_branch(REPO, "main", new.clone());
    // Killed right after the two trees were exchanged: the old one lies in the attempt.
    let mut is_exchanged = false;
    let run = traced(&command, &volume.path(""), |call| {
        if without(call) {
            return Act::Fail(Errno::EPERM);
        }
        let was_exchanged = is_exchanged;
        is_exchanged |= call.name == "renameat2" && call.path == volume.family("a");
        if was_exchanged && call.changes() { Act::Kill } else { Act::Pass }
    });
    assert_eq!(run.code, -1, "{}", run.stderr);
    age(&volume.attempts()[0], OLD);
    fetch_small(&hub, &volume).assert_success();
    volume.assert_clean();
    volume.assert_holds("a", &new);
    let kept = list(&volume.root().join(".weightlift/revisions/a"));
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_tree(&kept[0], &large());
}

#[test]
fn what_the_filesystem_holds_on_to_does_not_fail_a_run_and_goes_later() {
    let (hub, volume) = (hub(), Volume::new());
    let families = [("a", "tree"), ("b", ""), ("c", "tree/sub/deep")];
    let left = families.map(|(family, _)| killed(&hub, &volume, family, |it| it));
    for ((_, place), left) in families.into_iter().zip(&left) {
        std::fs::create_dir_all(left.join(place)).unwrap();
        std::fs::write(left.join(place).join(OPEN_ON_NFS), "open").unwrap();
        age(left, OLD);
    }
    let run = fetch_small(&hub, &volume).assert_success();
    assert!(!run.stderr.contains("warning"), "{}", run.stderr);
    let attempts = volume.root().join(".weightlift/attempts");
    let files: Vec<(String, Vec<u8>)> = files_below(&attempts).into_iter().collect();
    assert_eq!(files.len(), 3, "{files:?}");
    for (name, content) in &files {
        assert!(name.ends_with(OPEN_ON_NFS) && content == b"open", "{name}");
        std::fs::remove_file(attempts.join(name)).unwrap();
    }
    // Nobody has it open any more.
    std::fs::remove_dir_all(volume.family("small")).unwrap();
    fetch_small(&hub, &volume).assert_success();
    volume.assert_clean();
}

#[test]
fn a_run_whose_own_files_are_still_open_on_nfs_succeeds() {
    let (hub, volume) = (hub(), Volume::new());
    hub.script(Rule::on("GET", "").at("cdn").then(Fault::Drip { bytes_per_second: 8 * MIB }));
    let running = fetch(&hub, &volume, &["hf://org/tiny", "a"]).start();
    eventually("the attempt has begun", || {
        volume.attempts().iter().any(|it| it.join("tree/big.bin").is_file())
    });
    // As a file that was given up while another thread still wrote to it.
    std::fs::write(volume.attempts()[0].join("tree").join(OPEN_ON_NFS), "open").unwrap();
    hub.clear_script();
    running.wait().assert_success();
    assert_has(&volume.family("a"), &large());
}

#[test]
fn a_removal_that_is_killed_is_finished_by_the_next_run() {
    for kill_at in [0, 1, 3, 6] {
        let (hub, volume) = (hub(), Volume::new());
        let left = killed(&hub, &volume, "a", |it| it);
        age(&left, OLD);
        let mut seen = 0;
        let command = fetch(&hub, &volume, &[SMALL, "small"]);
        let run = traced(&command, &volume.path(""), |call| {
            let is_of_it = call.changes() && call.path.to_string_lossy().contains("/a~");
            seen += usize::from(is_of_it);
            if is_of_it && seen > kill_at { Act::Kill } else { Act::Pass }
        });
        assert_eq!(run.code, -1, "{kill_at}: {}", run.stderr);
        assert!(volume.attempts().iter().any(|it| it.to_string_lossy().contains("/a~")));
        fetch_small(&hub, &volume).assert_success();
        assert_eq!(volume.attempts(), Vec::<PathBuf>::new(), "{kill_at}");
    }
}

#[test]
fn several_runs_may_clear_at_once() {
    let (hub, volume) = (hub(), Volume::new());
    let left = killed(&hub, &volume, "a", |it| it);
    for n in 0..400 {
        std::fs::create_dir_all(left.join(format!("tree/{}", n % 20))).unwrap();
        std::fs::write(left.join(format!("tree/{}/{n}", n % 20)), "x").unwrap();
    }
    age(&left, OLD);
    let runs: Vec<Running> =
        (0..6).map(|n| fetch(&hub, &volume, &[SMALL, &format!("small-{n}")]).start()).collect();
    for run in runs {
        let run = run.wait().assert_success();
        assert!(!run.stderr.contains("could not be"), "{}", run.stderr);
    }
    fetch_small(&hub, &volume).assert_success();
    volume.assert_clean();
}

#[test]
fn a_warm_start_removes_nothing() {
    let (hub, volume) = (hub(), Volume::new());
    fetch_small(&hub, &volume).assert_success();
    let left = killed(&hub, &volume, "a", |it| it);
    age(&left, OLD);
    let run = fetch_small(&hub, &volume).assert_success();
    assert!(run.stderr.contains("nothing to do"), "{}", run.stderr);
    assert!(left.is_dir());
}

#[test]
fn room_that_dead_attempts_take_is_used_and_what_others_hold_is_named() {
    if !is_root() {
        return;
    }
    let (hub, volume) = (hub(), Volume::new());
    std::fs::create_dir_all(volume.root()).unwrap();
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "size=40m", "tmpfs"]).arg(volume.root());
    assert!(mount.status().unwrap().success());
    let _mounted = Mounted(volume.root());
    let left = killed(&hub, &volume, "a", |it| it);
    // There is no room for two, and it may still be continued.
    let fetch_b = || fetch(&hub, &volume, &["hf://org/tiny", "b"]).run();
    let run = fetch_b().assert_code(15);
    let line = run.last_line();
    let expected = "; unfinished attempts of other models take 25.2 MB: `a` (25.2 MB, ";
    assert!(line.contains(expected), "{line}");
    assert!(line.contains("a fetch of these models resumes them"), "{line}");
    assert!(left.is_dir());
    age(&left, OLD);
    fetch_b().assert_success();
    volume.assert_holds("b", &large());
    volume.assert_clean();
    // A file system that fills up later says so as well.
    std::fs::remove_file(volume.family("b")).unwrap();
    std::fs::remove_dir_all(volume.root().join(".weightlift/revisions/b")).unwrap();
    killed(&hub, &volume, "a", |it| it);
    if has("strace") {
        let command = fetch(&hub, &volume, &[SMALL, "small"]);
        let full = straced(&command, "fsync", &["fsync:error=ENOSPC:when=1+"]).run();
        full.assert_code(15).assert_says("warning: unfinished attempts of other models take");
    }
}

#[test]
fn a_working_area_that_may_not_be_read_is_told() {
    if !is_root() {
        return;
    }
    let (hub, volume) = (hub(), Volume::new());
    let left = killed(&hub, &volume, "a", |it| it);
    age(&left, OLD);
    // Another user's attempt stays, and is no failure.
    let state = volume.root().join(".weightlift");
    let (attempts, locks, owners) =
        (state.join("attempts"), state.join("locks"), state.join("owners"));
    let dirs = [volume.root(), state, attempts.clone(), locks, owners];
    let dirs = dirs.each_ref().map(PathBuf::as_path);
    std::fs::set_permissions(&left, std::fs::Permissions::from_mode(0o700)).unwrap();
    let command = fetch(&hub, &volume, &[SMALL, "small"]);
    as_nobody(&volume, &command, &dirs).run().assert_success();
    assert!(left.is_dir());
    std::os::unix::fs::chown(&attempts, Some(0), Some(0)).unwrap();
    std::fs::set_permissions(&attempts, std::fs::Permissions::from_mode(0o700)).unwrap();
    std::fs::remove_dir_all(volume.family("small")).unwrap();
    let run = as_nobody(&volume, &command, &[]).run().assert_code(14);
    assert!(
        run.last_line().contains(".weightlift/attempts` is not readable for"),
        "{}",
        run.stderr
    );
}
