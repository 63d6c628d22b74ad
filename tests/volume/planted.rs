//! What a co-tenant of the volume plants under the names that we use: nothing outside the root is
//! touched, nothing hangs, and once it is gone the next run is right.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::support::*;
use rustix::fs::{CWD, FileType, Mode, RenameFlags};
use weightlift_fakes::{Blob, FakeHub, Fault, Rule, Tree};

/// Every way to end that tells the truth about a volume that somebody else plays with: done, unusable,
/// conflict, local error.
const SANE: [i32; 4] = [0, 14, 16, 22];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plant {
    LinkToDirectory,
    LinkToFile,
    LinkToNothing,
    LinkToItself,
    Fifo,
    Socket,
    Device,
    Directory,
    DeepDirectory,
    OddName,
    Rubbish,
    HardLink,
}

const PLANTS: [Plant; 12] = [
    Plant::LinkToDirectory,
    Plant::LinkToFile,
    Plant::LinkToNothing,
    Plant::LinkToItself,
    Plant::Fifo,
    Plant::Socket,
    Plant::Device,
    Plant::Directory,
    Plant::DeepDirectory,
    Plant::OddName,
    Plant::Rubbish,
    Plant::HardLink,
];

impl Plant {
    fn is_rare(self) -> bool {
        !matches!(
            self,
            Self::LinkToDirectory
                | Self::LinkToFile
                | Self::Fifo
                | Self::Device
                | Self::Directory
                | Self::HardLink
        )
    }

    /// Puts it at `path`; false if this machine does not let us.
    fn at(self, path: &Path, outside: &Path) -> bool {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let node = |kind| rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o666), 0x0103);
        match self {
            Self::LinkToDirectory => symlink(outside, path).is_ok(),
            Self::LinkToFile => symlink(outside.join("secret"), path).is_ok(),
            Self::LinkToNothing => symlink(outside.join("nothing"), path).is_ok(),
            Self::LinkToItself => symlink(path, path).is_ok(),
            Self::Fifo => node(FileType::Fifo).is_ok(),
            Self::Socket => std::os::unix::net::UnixListener::bind(path).is_ok(),
            // The null device, which lets everything through.
            Self::Device => is_root() && node(FileType::CharacterDevice).is_ok(),
            Self::Directory => std::fs::create_dir_all(path.join("x")).is_ok(),
            Self::DeepDirectory => deep(path),
            Self::OddName => {
                use std::os::unix::ffi::OsStrExt;
                let odd = std::ffi::OsStr::from_bytes(b"\xff\x1b[2J");
                std::fs::create_dir_all(path.join(odd)).unwrap();
                std::fs::write(path.join(odd).join(odd), "x").is_ok()
            }
            Self::Rubbish => std::fs::write(path, "\u{1b}[2J\0rubbish\n").is_ok(),
            Self::HardLink => std::fs::hard_link(outside.join("secret"), path).is_ok(),
        }
    }
}

/// More levels than there are descriptors.
fn deep(path: &Path) -> bool {
    std::fs::create_dir_all(path).unwrap();
    let mut at = std::fs::File::open(path).unwrap();
    for _ in 0..1_500 {
        rustix::fs::mkdirat(&at, "d", Mode::from_raw_mode(0o777)).unwrap();
        let flags = rustix::fs::OFlags::DIRECTORY;
        at = rustix::fs::openat(&at, "d", flags, Mode::empty()).unwrap().into();
    }
    true
}

/// Everything below a directory that must not change.
#[derive(Debug, PartialEq)]
struct Seen(BTreeMap<PathBuf, Facts>);

/// Inode, mode and size; time of the last change; content.
type Facts = ([u64; 3], [i64; 2], Vec<u8>);

impl Seen {
    fn of(dir: &Path) -> Self {
        let mut found = BTreeMap::new();
        let mut to_see = vec![dir.to_owned()];
        while let Some(path) = to_see.pop() {
            let meta = std::fs::symlink_metadata(&path).unwrap();
            let content = if meta.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
            // Not the link count, which `HardLink` itself changes, nor with it the change time.
            let numbers = [meta.ino(), u64::from(meta.mode()), meta.len()];
            let facts = (numbers, [meta.mtime(), meta.mtime_nsec()], content);
            to_see.extend(if meta.is_dir() { list(&path) } else { Vec::new() });
            found.insert(path, facts);
        }
        Self(found)
    }
}

/// A place outside the root with things that have the names of ours.
fn outside(volume: &Volume) -> PathBuf {
    let outside = volume.path("outside");
    for dir in ["attempts/tiny~x/tree", "locks", "owners", "revisions/tiny", "x", "tree", "sub"] {
        std::fs::create_dir_all(outside.join(dir)).unwrap();
    }
    for file in [
        "secret",
        "config.json",
        "attempts/tiny~x/journal",
        "attempts/tiny~x/tree/config.json",
        "locks/tiny.lock",
        "owners/tiny.json",
        "publishing.json",
        "journal",
        "owner.json",
        "sub/big.bin",
        ".weightlift-complete.json",
    ] {
        std::fs::write(outside.join(file), "secret").unwrap();
    }
    outside
}

/// The names, and the family that is fetched.
const NAMES: [(&str, &str); 24] = [
    (".weightlift", "tiny"),
    (".weightlift/locks", "tiny"),
    (".weightlift/owners", "tiny"),
    (".weightlift/attempts", "tiny"),
    (".weightlift/locks/tiny.lock", "tiny"),
    (".weightlift/owners/tiny.json", "tiny"),
    (".weightlift/attempts/tiny~evil", "tiny"),
    (".weightlift/attempts/tiny~evil/journal", "tiny"),
    (".weightlift/attempts/tiny~evil/tree", "tiny"),
    (".weightlift/attempts/LEFT/journal", "tiny"),
    (".weightlift/attempts/LEFT/owner.json", "tiny"),
    (".weightlift/attempts/LEFT/tree", "tiny"),
    (".weightlift/attempts/LEFT/tree/config.json", "tiny"),
    (".weightlift/attempts/LEFT/tree/sub", "tiny"),
    (".weightlift/attempts/LEFT/tree/sub/big.bin", "tiny"),
    (".weightlift/attempts/LEFT/tree/more", "tiny"),
    (".weightlift/attempts/LEFT/probe-a", "tiny"),
    ("tiny", "tiny"),
    ("tiny/.weightlift-complete.json", "tiny"),
    ("tiny/.weightlift", "tiny"),
    ("tiny/.weightlift/publishing.json", "tiny"),
    ("tiny/.weightlift/locks/publish.lock", "tiny"),
    ("emb", "emb/tiny"),
    ("emb/tiny", "emb/tiny"),
];

#[test]
fn whatever_lies_under_our_names_nothing_outside_is_touched_and_nothing_hangs() {
    let hub = FakeHub::builder().repo(REPO, tree()).lfs_threshold(1_000).start();
    let left = left_by_a_killed_run(&hub);
    let (mut cases, mut turn) = (0, 0);
    for (name, family) in NAMES {
        for plant in PLANTS {
            // The rarer ones only at some names, unless there is time.
            turn += 1;
            if plant.is_rare()
                && turn % 4 != 0
                && std::env::var_os("WEIGHTLIFT_TEST_ROUNDS").is_none()
            {
                continue;
            }
            let volume = Volume::new();
            let outside = outside(&volume);
            if name.contains("LEFT") {
                lay_out(left.path(), &volume.root());
            }
            let attempt = volume.attempts().pop().unwrap_or_default();
            let attempt = attempt.file_name().unwrap_or_default().to_str().unwrap().to_owned();
            let path = volume.root().join(name.replace("LEFT", &attempt));
            // What was there is put aside, to come back.
            let aside = volume.path("aside");
            let was_there = std::fs::rename(&path, &aside).is_ok();
            let before = Seen::of(&outside);
            if !plant.at(&path, &outside) {
                continue;
            }
            cases += 1;
            let what = format!("{plant:?} at {name}");
            let run = bounded(&mut fetch(&hub, &volume, &["hf://org/tiny", family]), &what);
            assert!(SANE.contains(&run.code), "{what}: exit {}: {}", run.code, run.stderr);
            assert!(Seen::of(&outside) == before, "{what}: changed outside: {}", run.stderr);
            if run.code == 0 {
                assert_holds(&volume, family, &what);
            }
            remove(&path);
            if was_there && path.parent().is_some_and(Path::is_dir) {
                std::fs::rename(&aside, &path).unwrap();
            }
            let run = bounded(&mut fetch(&hub, &volume, &["hf://org/tiny", family]), &what);
            assert_eq!(run.code, 0, "{what}, removed again: {}", run.stderr);
            assert_holds(&volume, family, &what);
            assert!(Seen::of(&outside) == before, "{what}: changed outside: {}", run.stderr);
        }
    }
    eprintln!("{cases} plants");
    assert!(cases >= NAMES.len() * 6, "only {cases}");
}

fn tree() -> Tree {
    Tree::new()
        .with("config.json", "{\"a\": 1}")
        .with_blob("sub/big.bin", Blob::synthetic((2 << 20) + 5, 9))
}

fn assert_holds(volume: &Volume, family: &str, what: &str) {
    let found = files_below(&volume.family(family));
    for (name, blob) in tree().iter() {
        assert!(found.get(name).is_some_and(|bytes| *bytes == blob.to_vec()), "{what}: {name}");
    }
}

/// The root after a kill in the middle of the large file.
fn left_by_a_killed_run(hub: &FakeHub) -> tempfile::TempDir {
    let volume = Volume::new();
    let stall = Fault::StallAfter(0, Duration::from_secs(3_600));
    hub.script(Rule::on("GET", "big.bin").when_range_starts_at(1 << 20).then(stall));
    let arguments = ["hf://org/tiny", "--chunk-size", "1MiB", "--connections", "2"];
    let running = fetch(hub, &volume, &arguments).start();
    eventually("a chunk arrives", || {
        let journal = volume.attempts().pop().map(|attempt| attempt.join("journal"));
        let journal = journal.and_then(|path| std::fs::read_to_string(path).ok());
        journal.is_some_and(|text| text.matches("\"chunk\"").count() >= 2)
    });
    running.signal("-KILL");
    drop(running.wait());
    hub.clear_script();
    let left = tempfile::tempdir().unwrap();
    lay_out(&volume.root(), left.path());
    left
}

fn lay_out(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    let copied = Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status().unwrap();
    assert!(copied.success());
}

/// Fails if the run takes longer than any wait that it may have.
fn bounded(command: &mut Command, what: &str) -> Run {
    let mut running = command.start();
    let started = Instant::now();
    while running.is_running() {
        assert!(started.elapsed() < Duration::from_secs(60), "{what}: hangs");
        std::thread::sleep(Duration::from_millis(5));
    }
    running.wait()
}

fn remove(path: &Path) {
    let Ok(meta) = std::fs::symlink_metadata(path) else { return };
    if meta.is_dir() {
        std::fs::remove_dir_all(path).unwrap();
    } else {
        assert!(meta.file_type().is_fifo() || !meta.is_dir());
        std::fs::remove_file(path).unwrap();
    }
}

#[test]
fn directories_that_are_swapped_for_links_lead_nowhere() {
    let hub = FakeHub::builder().repo(REPO, tree()).lfs_threshold(1_000).start();
    let mut swaps_of_all = 0;
    // Which directory is exchanged with a link to the outside; below our attempt for the last two.
    for target in [".weightlift", ".weightlift/attempts", "emb", "", "tree", "tree/sub"] {
        let volume = Volume::new();
        let outside = outside(&volume);
        std::fs::create_dir_all(volume.root().join(".weightlift/attempts")).unwrap();
        std::fs::create_dir_all(volume.root().join("emb")).unwrap();
        let before = Seen::of(&outside);
        let (stop, swaps) = (AtomicBool::new(false), AtomicU64::new(0));
        let (mut codes, mut complete) = (BTreeMap::new(), Vec::new());
        std::thread::scope(|scope| {
            scope.spawn(|| swap(&volume, target, &outside, &stop, &swaps));
            let _end = Ends(&stop);
            for round in 0.. {
                let family = format!("emb/tiny-{round}");
                let run = bounded(&mut fetch(&hub, &volume, &["hf://org/tiny", &family]), target);
                if run.code == 0 {
                    complete.push(family);
                }
                *codes.entry(run.code).or_insert(0) += 1;
                let is_sane = SANE.contains(&run.code);
                let is_enough = round >= 5 && swaps.load(Relaxed) >= 17_000;
                assert!(is_sane, "{target}: exit {}: {}", run.code, run.stderr);
                if is_enough || round > 500 {
                    break;
                }
            }
        });
        assert!(Seen::of(&outside) == before, "{target}: something outside has changed");
        for family in complete {
            // What is swapped after the last look cannot be seen by the run; `verify` sees it.
            let run = weightlift().arg("verify").arg(volume.family(&family)).run();
            match run.code {
                0 => volume.assert_holds(&family, &tree()),
                code => assert!(target == "tree/sub" && code == 12, "{target}: {}", run.stderr),
            }
        }
        let run = bounded(&mut fetch(&hub, &volume, &["hf://org/tiny", "emb/last"]), target);
        assert_eq!(run.code, 0, "{target}, at peace again: {}", run.stderr);
        volume.assert_holds("emb/last", &tree());
        let swaps = swaps.load(Relaxed);
        swaps_of_all += swaps;
        eprintln!("{target:?}: {swaps} swaps, exits {codes:?}");
    }
    assert!(swaps_of_all >= 100_000, "only {swaps_of_all} swaps");
}

/// Exchanges a directory and a link to the outside as fast as it can; in the end all is as before.
fn swap(volume: &Volume, target: &str, outside: &Path, stop: &AtomicBool, swaps: &AtomicU64) {
    let link = volume.root().join("swapped");
    let exchange = |path: &Path| {
        rustix::fs::renameat_with(CWD, &link, CWD, path, RenameFlags::EXCHANGE).is_ok()
    };
    let is_inside = !target.starts_with('.') && target != "emb";
    let real = volume.root().join(".weightlift/attempts");
    let below = |attempt: &PathBuf| match target {
        "" => attempt.clone(),
        target => attempt.join(target),
    };
    let mut aside = 0;
    while !stop.load(Relaxed) {
        let paths = if is_inside {
            list(&real).iter().map(&below).collect()
        } else {
            vec![volume.root().join(target)]
        };
        for path in paths {
            let _ = std::fs::remove_file(&link);
            if symlink(outside, &link).is_err() {
                // A directory has stayed under the other name: its owner has given it up.
                aside += 1;
                let _ = std::fs::rename(&link, volume.root().join(format!("aside-{aside}")));
                continue;
            }
            for _ in 0..50 {
                // Back and forth; the second one brings the directory back.
                if !exchange(&path) {
                    break;
                }
                std::hint::spin_loop();
                if exchange(&path) {
                    swaps.fetch_add(2, Relaxed);
                }
            }
        }
    }
    let _ = std::fs::remove_file(&link);
}

#[test]
fn an_attempt_that_is_removed_under_us_ends_the_run_and_the_next_one_is_right() {
    let hub = FakeHub::builder().repo(REPO, tree()).lfs_threshold(1_000).start();
    for what in ["tree", "tree/sub", "", "journal", "..", "../../locks", "../.."] {
        let volume = Volume::new();
        hub.script(Rule::on("GET", "").at("cdn").then(Fault::Drip { bytes_per_second: 2 << 20 }));
        let mut running = fetch(&hub, &volume, &["hf://org/tiny"]).start();
        eventually("the attempt has begun", || {
            volume.attempts().iter().any(|attempt| attempt.join("tree/sub/big.bin").is_file())
        });
        let attempt = volume.attempts().remove(0);
        let path = if what.starts_with("..") {
            let depth = what.matches("..").count();
            let above = attempt.ancestors().nth(depth).unwrap();
            above.join(what.trim_start_matches("../").trim_start_matches(".."))
        } else {
            attempt.join(what)
        };
        while running.is_running() {
            let gone = match std::fs::metadata(&path) {
                Ok(meta) if meta.is_dir() => std::fs::remove_dir_all(&path),
                Ok(_) => std::fs::remove_file(&path),
                Err(_) => Ok(()),
            };
            // Somebody may be making what we remove.
            drop(gone);
            std::thread::sleep(Duration::from_millis(20));
        }
        let run = running.wait();
        hub.clear_script();
        assert!([0, 14, 22].contains(&run.code), "{what:?}: {} {}", run.code, run.stderr);
        match run.code {
            0 => volume.assert_holds("tiny", &tree()),
            _ => assert!(!volume.family("tiny").exists(), "{what:?} was published"),
        }
        fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
        volume.assert_holds("tiny", &tree());
    }
}

#[test]
fn a_lock_file_of_somebody_else_is_told_and_does_not_stop_us() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    if !is_root() {
        return;
    }
    let hub = hub_of_tiny();
    for (mode, told) in [(0o600, true), (0o644, false)] {
        let volume = Volume::new();
        let open = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        let locks = volume.root().join(".weightlift/locks");
        std::fs::create_dir_all(&locks).unwrap();
        for dir in
            [volume.path(""), volume.root(), volume.root().join(".weightlift"), locks.clone()]
        {
            open(&dir, 0o777);
        }
        std::fs::write(locks.join("tiny.lock"), "").unwrap();
        open(&locks.join("tiny.lock"), mode);
        // The binary may lie where this user cannot look.
        let copy = volume.path("weightlift");
        copy_binary(&copy);
        let mut command = Command::new(&copy);
        command.args(["fetch", "hf://org/tiny", "--root"]).arg(volume.root()).env_clear();
        let run = command.env("HF_ENDPOINT", hub.url()).uid(65_532).gid(65_532).run();
        assert_eq!(run.stderr.contains("no usable locks"), told, "{mode:o}: {}", run.stderr);
        run.assert_success();
        volume.assert_holds("tiny", &tiny_selected());
        assert_eq!(std::fs::metadata(locks.join("tiny.lock")).unwrap().uid(), 0);
    }
}
