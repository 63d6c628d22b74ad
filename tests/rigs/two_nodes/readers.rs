//! What servers on another node see while a model is updated.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use super::SOON;
use super::rig::{Nodes, nodes};
use crate::support::*;
use weightlift_fakes::{FakeHub, Tree};

#[test]
fn a_reader_on_another_node_never_sees_a_mixture() {
    let name = "readers::a_reader_on_another_node_never_sees_a_mixture";
    let Some(Nodes { a, b, rounds }) = nodes(name) else { return };
    let updates = 20 * rounds;
    let root = "/volume/mixture";
    let hub = FakeHub::serving(REPO, revision(0));
    a.fetch(&hub, root, &[]).run().assert_success();
    let family = b.path("mixture/tiny");
    assert!(family.is_symlink(), "an update here is not by link");
    let done = AtomicBool::new(false);
    let (sets, seen) = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut sets, mut seen) = (0_u64, BTreeSet::new());
            while !done.load(SeqCst) {
                let marks = read_set(&family).unwrap();
                assert_eq!(marks.len(), 1, "a mixture: {marks:?}");
                seen.extend(marks);
                sets += 1;
                // The publisher needs the one processor as well.
                std::thread::sleep(Duration::from_millis(10));
            }
            (sets, seen)
        });
        for n in 1..=updates {
            hub.move_branch(REPO, "main", revision(n));
            a.fetch(&hub, root, &[]).run().assert_success();
        }
        done.store(true, SeqCst);
        reader.join().unwrap()
    });
    assert!(seen.len() > 2, "too few revisions were seen: {seen:?}");
    let published = Instant::now();
    let newest = BTreeSet::from([format!("revision {updates}")]);
    while read_set(&family).unwrap() != newest {
        assert!(published.elapsed() < SOON, "the last revision is not seen");
    }
    eprintln!(
        "{name}: {sets} sets read during {updates} updates, {} revisions, 0 mixed; the last one \
         seen after {:.1} s",
        seen.len(),
        published.elapsed().as_secs_f64()
    );
}

#[test]
fn a_server_that_opens_its_files_one_by_one_sees_one_revision() {
    let name = "readers::a_server_that_opens_its_files_one_by_one_sees_one_revision";
    let Some(Nodes { a, b, rounds }) = nodes(name) else { return };
    let updates = 12 * rounds;
    let (root, pod) = ("/volume/slow", tempfile::tempdir().unwrap());
    let link = pod.path().join("current");
    let hub = FakeHub::serving(REPO, revision(0));
    a.fetch(&hub, root, &[]).run().assert_success();
    // The pod starts on the other node, whose volume this process sees elsewhere.
    let seen = b.path("slow");
    let arguments = ["--link", link.to_str().unwrap(), "--link-root", seen.to_str().unwrap()];
    let started = b.fetch(&hub, root, &arguments).run().assert_success();
    assert!(link.join("0.json").exists(), "{}", started.stderr);
    let done = AtomicBool::new(false);
    let read_slowly = |dir: PathBuf| {
        let mut marks = BTreeSet::new();
        let mut file = 0;
        while file < FILES || !done.load(SeqCst) {
            let text = std::fs::read_to_string(dir.join(format!("{}.json", file % FILES))).unwrap();
            marks.extend(text.lines().next().map(str::to_owned));
            file += 1;
            std::thread::sleep(Duration::from_millis(50));
        }
        marks
    };
    let (through_link, through_directory) = std::thread::scope(|scope| {
        let readers = [link, b.path("slow/tiny")].map(|dir| scope.spawn(|| read_slowly(dir)));
        for n in 1..=updates {
            hub.move_branch(REPO, "main", revision(n));
            a.fetch(&hub, root, &[]).run().assert_success();
        }
        done.store(true, SeqCst);
        let [first, second] = readers.map(|reader| reader.join().unwrap());
        (first, second)
    });
    assert_eq!(through_link, BTreeSet::from(["revision 0".to_owned()]));
    // Else the test could not fail.
    assert!(through_directory.len() > 1, "{through_directory:?}");
    let many = through_directory.len();
    eprintln!(
        "{name}: {updates} updates, 1 revision through the link, {many} through the directory"
    );
}

const FILES: u64 = 8;

/// Each of its files says which revision it is of.
pub fn revision(n: u64) -> Tree {
    (0..FILES).fold(Tree::new(), |tree, file| {
        tree.with(&format!("{file}.json"), format!("revision {n}\n{}", "x".repeat(50_000)))
    })
}

/// Follows the link of the family once, and says of which revisions its files are.
fn read_set(family: &Path) -> std::io::Result<BTreeSet<String>> {
    let dir = File::open(family)?;
    let dir = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
    (0..FILES)
        .map(|file| {
            let text = std::fs::read_to_string(dir.join(format!("{file}.json")))?;
            let mark = text.lines().next().map(str::to_owned);
            mark.ok_or_else(|| ErrorKind::UnexpectedEof.into())
        })
        .collect()
}
