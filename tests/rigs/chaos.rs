//! Several processes fetch one family for a while, as its branch moves, and are killed, frozen and
//! told to stop at random. Whatever happens, a reader finds no model or a whole one.
//!
//! `WEIGHTLIFT_TEST_ROUNDS=2000 cargo test --test rigs chaos::` is the long form.

use std::collections::BTreeMap;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use crate::support::process::*;
use crate::support::*;
use weightlift_fakes::{Blob, FakeHub, Fault, Rule, Tree};

const MIB: u64 = 1 << 20;
const PROCESSES: usize = 5;
/// After so many events the branch moves.
const MOVE_EVERY: usize = 4;
const SENTINEL: &str = ".weightlift-complete.json";

/// Revision `n` of the model: one file stays, one changes, one has another name.
fn revision(n: u64) -> Tree {
    Tree::new()
        .with_blob("kept.bin", Blob::synthetic(MIB, 1))
        .with_blob("weights/changed.bin", Blob::synthetic(2 * MIB, 100 + n))
        .with(&format!("named-{n}.json"), format!("{{\"revision\": {n}}}"))
}

/// Renames take so long that what lies between two of them is seen, and hit by signals.
const SLOW: [&str; 2] = ["renameat:delay_exit=20000", "renameat2:delay_exit=20000"];

#[test]
fn a_reader_never_sees_a_part_of_a_model() {
    if has("strace") {
        chaos(false, |command| straced(&command, "renameat,renameat2", &SLOW));
    }
}

#[test]
fn a_reader_never_sees_a_part_of_a_model_without_any_lock() {
    if has("strace") {
        let injects = [&SLOW[..], &["flock:retval=0"]].concat();
        chaos(false, |command| straced(&command, "flock,renameat,renameat2", &injects));
    }
}

#[test]
fn whoever_honours_the_sentinel_never_sees_a_part_of_a_filled_directory() {
    if has("strace") {
        chaos(true, |command| straced(&command, "renameat,renameat2", &SLOW));
    }
}

/// `in_place`: the directory of the family is given, and has to stay.
fn chaos(in_place: bool, wrap: impl Fn(Command) -> Command + Sync) {
    let (events, seed) = (rounds(40), seed());
    let trees = [revision(0), revision(1)];
    let contents = trees.each_ref().map(|tree| {
        BTreeMap::from_iter(tree.iter().map(|(name, blob)| (name.to_owned(), blob.to_vec())))
    });
    let (hub, volume) = (FakeHub::serving(REPO, trees[0].clone()), Volume::new());
    if in_place {
        std::fs::create_dir_all(volume.family("tiny")).unwrap();
    }
    hub.script(Rule::on("GET", "").at("cdn").then(Fault::Drip { bytes_per_second: 2 * MIB }));
    let (is_over, looks) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut moves = 0;
    let ends: Mutex<BTreeMap<i32, usize>> = Mutex::default();
    std::thread::scope(|scope| {
        for n in 0..PROCESSES {
            let (hub, volume, is_over, ends, wrap) = (&hub, &volume, &is_over, &ends, &wrap);
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed + n as u64);
                while !is_over.load(SeqCst) {
                    let connections = format!("--connections={}", random.u8(1..=6));
                    let mut command = fetch(hub, volume, &["hf://org/tiny", "--chunk-size=1MiB"]);
                    command.args([&*connections, "--takeover-after=2s", "--lock-timeout=20s"]);
                    let run = wrap(command).start().wait();
                    assert!(
                        matches!(run.code, 0 | 20..=23 | 130 | 143 | -1 | 137),
                        "seed {seed}: exit {}: {}",
                        run.code,
                        run.stderr
                    );
                    *ends.lock().unwrap().entry(run.code).or_default() += 1;
                    // What is complete is left alone until the branch moves.
                    std::thread::sleep(Duration::from_millis(random.u64(10..100)));
                }
            });
        }
        scope.spawn(|| {
            let mut was_there = false;
            while !is_over.load(SeqCst) {
                let seen = whole_family(&volume.family("tiny"), in_place);
                let is_whole = seen.as_ref().is_none_or(|seen| contents.contains(seen));
                let names = seen.as_ref().map(|it| it.keys().cloned().collect::<Vec<_>>());
                let is_ok = is_whole && (in_place || !was_there || seen.is_some());
                if !is_ok {
                    is_over.store(true, SeqCst);
                }
                assert!(is_whole, "seed {seed}: a part of a model: {names:?}");
                assert!(is_ok, "seed {seed}: there is no model any more");
                was_there |= seen.is_some();
                looks.fetch_add(usize::from(seen.is_some()), SeqCst);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let end = Ends(&is_over);
        let mut random = fastrand::Rng::with_seed(seed);
        let mut frozen = Vec::new();
        for event in 0..events {
            if is_over.load(SeqCst) {
                break;
            }
            std::thread::sleep(Duration::from_millis(random.u64(50..300)));
            if event % MOVE_EVERY == MOVE_EVERY - 1 {
                moves += 1;
                hub.move_branch(REPO, "main", trees[moves % 2].clone());
            }
            if frozen.len() > 1 {
                signal(frozen.remove(0), "-CONT");
            }
            let pids = working_on(&volume);
            let Some(pid) = random.choice(pids) else { continue };
            match random.u8(0..10) {
                0..4 => _ = signal(pid, "-KILL"),
                4..6 => _ = signal(pid, "-TERM"),
                6 => _ = signal(pid, ["-INT", "-HUP"][random.usize(0..2)]),
                _ => {
                    signal(pid, "-STOP");
                    frozen.push(pid);
                }
            }
        }
        drop(end);
        hub.clear_script();
        for _ in 0..3 {
            working_on(&volume).into_iter().for_each(|pid| _ = signal(pid, "-CONT"));
            std::thread::sleep(Duration::from_millis(200));
        }
    });
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    let last = whole_family(&volume.family("tiny"), in_place).expect("a model");
    assert!(last == contents[moves % 2], "seed {seed}: not the last revision");
    weightlift().arg("verify").arg(volume.family("tiny")).run().assert_success();
    let ends = ends.into_inner().unwrap();
    eprintln!(
        "seed {seed}: {events} events, {moves} moves, {looks:?} looks at a model, exits {ends:?}"
    );
}

/// What a reader that opens the family once finds in it, if there is a model.
fn whole_family(family: &Path, in_place: bool) -> Option<BTreeMap<String, Vec<u8>>> {
    for _ in 0..100 {
        let dir = std::fs::File::open(family).ok()?;
        let path = std::path::PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
        let sentinel = || std::fs::read(path.join(SENTINEL)).ok();
        let before = sentinel();
        if before.is_none() {
            assert!(in_place, "a family without a sentinel");
            return None;
        }
        let files = read_all(&path);
        // A server that is given a directory to be filled has to look twice.
        if !in_place || sentinel() == before {
            return files;
        }
    }
    panic!("the family never rests");
}

/// Like `files_below`, for a directory whose files may vanish.
fn read_all(dir: &Path) -> Option<BTreeMap<String, Vec<u8>>> {
    fn walk(dir: &Path, above: &str, found: &mut BTreeMap<String, Vec<u8>>) {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = format!("{above}{}", entry.file_name().to_string_lossy());
            if name.starts_with(".weightlift") {
                continue;
            }
            if entry.path().is_dir() {
                walk(&entry.path(), &format!("{name}/"), found);
            } else {
                found.insert(name, std::fs::read(entry.path()).unwrap_or_default());
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(dir, "", &mut found);
    Some(found)
}
