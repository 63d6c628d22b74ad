//! Two nodes and a real NFS server: one download, a node that is lost, and what readers on the
//! other node see. `tests/rigs/nfs/README.md` says how they come to be.

#[path = "two_nodes/readers.rs"]
mod readers;
#[path = "two_nodes/rig.rs"]
mod rig;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use self::readers::revision;
use self::rig::{Nodes, drop_caches, nodes, remove, restart_server};
use crate::support::*;
use weightlift_fakes::{Blob, FakeHub, Fault, Rule, Tree};

const MIB: u64 = 1 << 20;
/// So long a publication may stay unseen on the other node. It is a fraction of a second unless the
/// machine is busy; what is remembered as missing would stay so for half a minute.
const SOON: Duration = Duration::from_secs(10);
/// The server gives the locks of a lost node away after ten seconds.
const TAKEOVER: Duration = Duration::from_secs(60);

fn model(seed: u64) -> Tree {
    Tree::new().with("config.json", "{}").with_blob("big.bin", Blob::synthetic(32 * MIB, seed))
}

fn slow(bytes_per_second: u64) -> Rule {
    Rule::on("GET", "").at("cdn").then(Fault::Drip { bytes_per_second })
}

fn fetched(hub: &FakeHub) -> u64 {
    hub.bytes_sent_for("xet-bridge")
}

#[test]
fn two_nodes_cause_one_download() {
    let name = "two_nodes_cause_one_download";
    let Some(Nodes { a, b, rounds }) = nodes(name) else { return };
    for round in 0..rounds {
        let (tree, root) = (model(round), format!("/volume/one-{round}"));
        let hub = FakeHub::serving(REPO, tree.clone());
        hub.script(slow(4 * MIB));
        let runs = [a.fetch(&hub, &root, &[]).start(), b.fetch(&hub, &root, &[]).start()];
        let runs = runs.map(|run| ended(run).assert_success());
        let waited = runs.iter().filter(|run| run.stderr.contains("waiting for ")).count();
        assert_eq!(waited, 1, "{}\n{}", runs[0].stderr, runs[1].stderr);
        for node in [&a, &b] {
            assert_tree(&node.path(&format!("one-{round}/tiny")), &tree);
            assert_eq!(list(&node.path(&format!("one-{round}/.weightlift/attempts"))).len(), 0);
        }
        // A file that is removed while it is open stays behind on NFS, under another name.
        let cleaned = |run: &Run| !run.stderr.contains("could not be cleaned up");
        assert!(runs.iter().all(cleaned), "{}\n{}", runs[0].stderr, runs[1].stderr);
        let (sent, size) = (hub.body_bytes(), tree.total_bytes());
        // Each connection whose tail is given to another one has something on its way by then.
        assert!(sent as f64 <= 1.05 * size as f64, "{sent} bytes for {size}");
        eprintln!(
            "{name}: {sent} bytes sent for a model of {size}; both exit 0, both see it whole"
        );
        remove(&root);
    }
}

/// Waits until it has ended; fails if it hangs.
#[track_caller]
fn ended(mut running: Running) -> Run {
    let started = Instant::now();
    while running.is_running() {
        assert!(started.elapsed() < Duration::from_secs(120), "it hangs");
        std::thread::sleep(Duration::from_millis(20));
    }
    running.wait()
}

#[test]
fn when_a_node_is_lost_the_other_takes_over() {
    let name = "when_a_node_is_lost_the_other_takes_over";
    let Some(Nodes { a, b, rounds }) = nodes(name) else { return };
    for round in 0..rounds {
        let (tree, root) = (model(round), format!("/volume/lost-{round}"));
        let family = format!("{root}/tiny");
        let hub = FakeHub::serving(REPO, tree.clone());
        hub.script(slow(MIB));
        let holder = a.fetch(&hub, &root, &["--connections", "2"]).start();
        eventually("the holder fetches", || fetched(&hub) > 4 * MIB);
        let waiter = b.fetch(&hub, &root, &["--takeover-after", "4s"]).start();
        // Long enough that the waiter has seen the holder move.
        std::thread::sleep(Duration::from_secs(2));
        let cut = a.cut_off();
        let lost = Instant::now();
        hub.clear_script();
        let run = ended(waiter).assert_success();
        let took = lost.elapsed();
        assert!(took < TAKEOVER, "{took:?}");
        let why = if run.stderr.contains("has made no progress") { "no progress" } else { "lock" };
        assert_tree(&b.path(&format!("lost-{round}/tiny")), &tree);
        b.verify(&family).assert_success();
        // The lost node comes back, and its process with it.
        cut.heal();
        let zombie = ended(holder);
        assert!([0, 20, 21, 22, 23].contains(&zombie.code), "{}: {}", zombie.code, zombie.stderr);
        a.try_sync();
        drop_caches();
        for node in [&a, &b] {
            node.verify(&family).assert_success();
        }
        eprintln!(
            "{name}: complete {:.1} s after the loss ({why}); the lost one ends with {}, `{}`",
            took.as_secs_f64(),
            zombie.code,
            zombie.last_line()
        );
        remove(&root);
    }
}

#[test]
fn late_writes_of_a_lost_node_reach_no_published_file() {
    let name = "late_writes_of_a_lost_node_reach_no_published_file";
    let Some(Nodes { a, b, rounds }) = nodes(name) else { return };
    for round in 0..rounds {
        let (tree, root) = (model(round), format!("/volume/late-{round}"));
        let family = format!("{root}/tiny");
        let hub = FakeHub::serving(REPO, tree.clone());
        // What the holder gets beyond the piece that it notes is wrong once in a page.
        let wrong = (18 * MIB..32 * MIB).step_by(4096).map(Fault::FlipByteAt);
        hub.script(wrong.fold(slow(4 * MIB), Rule::then));
        let one_stream = ["--connections", "1", "--chunk-size", "1GiB"];
        let holder = a.fetch(&hub, &root, &one_stream).start();
        let staging = a.path(&format!("late-{round}/.weightlift/attempts"));
        let noted = |attempt: &PathBuf| {
            let journal = std::fs::read_to_string(attempt.join("journal"));
            journal.is_ok_and(|journal| journal.contains(r#""is":"chunk""#))
        };
        eventually("a piece is in the journal", || list(&staging).iter().any(noted));
        // That piece reaches the server, what follows stays in the memory of the node.
        a.sync();
        let from = fetched(&hub).max(18 * MIB);
        eventually("the holder has unwritten bytes", || fetched(&hub) > from + 4 * MIB);
        let cut = a.cut_off();
        holder.signal("-KILL");
        hub.clear_script();

        hub.log().clear();
        let run = b.fetch(&hub, &root, &["--takeover-after", "10m"]).run().assert_success();
        assert!(run.stderr.contains("are here already"), "{}", run.stderr);
        let again = fetched(&hub);
        assert!(again < 17 * MIB, "{again} bytes were fetched again");
        b.verify(&family).assert_success();
        let staged = staged_files(&Path::new("/export").join(format!("late-{round}")));
        assert_eq!(staged.len(), 1, "{staged:?}");
        let unwritten = std::fs::read(&staged[0]).unwrap();

        cut.heal();
        assert_eq!(ended(holder).code, -1);
        a.try_sync();
        let ghosts = || {
            let now = std::fs::read(&staged[0]).unwrap();
            now.iter().zip(&unwritten).filter(|(now, before)| now != before).count()
        };
        assert!(ghosts() > 0, "nothing was written late: this shows nothing");
        drop_caches();
        assert_tree(&Path::new("/export").join(format!("late-{round}/tiny")), &tree);
        for node in [&a, &b] {
            node.verify(&family).assert_success();
        }
        eprintln!(
            "{name}: {} bytes came late, none into the model; {again} bytes were fetched again",
            ghosts()
        );
        remove(&root);
    }
}

/// The large file in each attempt that is left, by the server's own path.
fn staged_files(root: &Path) -> Vec<PathBuf> {
    let attempts = list(&root.join(".weightlift/attempts"));
    attempts.iter().map(|attempt| attempt.join("tree/big.bin")).filter(|it| it.exists()).collect()
}

#[test]
fn a_node_that_looked_too_early_sees_the_model_soon() {
    let name = "a_node_that_looked_too_early_sees_the_model_soon";
    let Some(Nodes { a, b, rounds }) = nodes(name) else { return };
    for round in 0..rounds {
        let (tree, root) = (model(round), format!("/volume/early-{round}"));
        let hub = FakeHub::serving(REPO, tree.clone());
        hub.script(slow(8 * MIB));
        a.fetch(&hub, &root, &["something-else"]).run().assert_success();
        // Now this node remembers that there is none, and nobody there looks again.
        b.verify(&format!("{root}/tiny")).assert_code(10);
        a.fetch(&hub, &root, &[]).run().assert_success();
        let verified = seen_after(|| b.verify(&format!("{root}/tiny")).code == 0);

        hub.clear_script();
        hub.script(slow(2 * MIB));
        hub.log().clear();
        // One that no other family there has.
        let other = model(1_000 + round);
        hub.move_branch(REPO, "main", other.clone());
        let holder = a.fetch(&hub, &root, &["waited-for", "--connections", "2"]).start();
        eventually("the holder fetches", || fetched(&hub) > 2 * MIB);
        let waiter = b.fetch(&hub, &root, &["waited-for"]).start();
        ended(holder).assert_success();
        let published = Instant::now();
        ended(waiter).assert_success().assert_says("waiting for ");
        let waited = published.elapsed();
        assert!(waited < SOON, "the waiter took {waited:?}");
        for (family, tree) in [("tiny", &tree), ("waited-for", &other)] {
            assert_tree(&b.path(&format!("early-{round}/{family}")), tree);
        }
        eprintln!(
            "{name}: `verify` had seen and read it after {verified:.1} s, a waiter after {:.1} s",
            waited.as_secs_f64()
        );
        remove(&root);
    }
}

/// After how many seconds `condition` holds.
#[track_caller]
fn seen_after(condition: impl Fn() -> bool) -> f64 {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < SOON, "not seen for {:?}", started.elapsed());
        std::thread::sleep(Duration::from_millis(100));
    }
    started.elapsed().as_secs_f64()
}

#[test]
fn a_restart_of_the_server_is_waited_out() {
    let name = "a_restart_of_the_server_is_waited_out";
    let Some(Nodes { a, b, rounds }) = nodes(name) else { return };
    for round in 0..rounds {
        let (tree, root) = (model(round), format!("/volume/restart-{round}"));
        let hub = FakeHub::serving(REPO, tree.clone());
        hub.script(slow(2 * MIB));
        let holder = a.fetch(&hub, &root, &[]).start();
        eventually("the holder fetches", || fetched(&hub) > 4 * MIB);
        restart_server();
        // The server takes old locks back for some seconds, and gives no new ones meanwhile.
        let waiter = b.fetch(&hub, &root, &[]).start();
        let runs = [holder, waiter].map(|run| ended(run).assert_success());
        for node in [&a, &b] {
            node.verify(&format!("{root}/tiny")).assert_success();
        }
        let (sent, size) = (hub.body_bytes(), tree.total_bytes());
        // One download, and what the sockets held of connections that were replaced while all writes hung.
        assert!(sent as f64 <= 1.5 * size as f64, "{sent} bytes for {size}: {}", runs[1].stderr);
        eprintln!("{name}: {sent} bytes sent for a model of {size}; both exit 0, both verify");
        remove(&root);
    }
}

#[test]
fn a_waiter_whose_server_is_gone_ends_on_sigterm() {
    let name = "a_waiter_whose_server_is_gone_ends_on_sigterm";
    let Some(Nodes { a, b, rounds }) = nodes(name) else { return };
    for round in 0..rounds {
        let (tree, root) = (model(round), format!("/volume/gone-{round}"));
        let hub = FakeHub::serving(REPO, tree.clone());
        hub.script(slow(2 * MIB));
        let holder = a.fetch(&hub, &root, &[]).start();
        eventually("the holder fetches", || fetched(&hub) > MIB);
        let waiter = b.fetch(&hub, &root, &[]).start();
        std::thread::sleep(Duration::from_secs(1));
        let cut = b.cut_off();
        // By now each of its calls hangs in the kernel.
        std::thread::sleep(Duration::from_secs(2));
        waiter.signal("-TERM");
        let signalled = Instant::now();
        ended(waiter).assert_code(143);
        let took = signalled.elapsed();
        assert!(took < Duration::from_secs(20), "{took:?}");
        ended(holder).assert_success();
        cut.heal();
        b.verify(&format!("{root}/tiny")).assert_success();
        eprintln!(
            "{name}: exit 143 after {:.1} s, the holder is not disturbed",
            took.as_secs_f64()
        );
        remove(&root);
    }
}

#[test]
fn a_directory_that_must_stay_is_filled_on_nfs() {
    let name = "a_directory_that_must_stay_is_filled_on_nfs";
    let Some(Nodes { a, b, rounds }) = nodes(name) else { return };
    for round in 0..rounds {
        // As a claim that is mounted at the family itself: its directory is there, and empty.
        let (root, below) = (format!("/volume/stay-{round}"), format!("stay-{round}/tiny"));
        let hub = FakeHub::serving(REPO, revision(0));
        std::fs::create_dir_all(a.path(&below)).unwrap();
        for n in 0..=3 {
            hub.move_branch(REPO, "main", revision(n));
            let runs = [a.fetch(&hub, &root, &[]).start(), b.fetch(&hub, &root, &[]).start()];
            for run in runs.map(ended) {
                let run = run.assert_success();
                assert!(!run.stderr.contains("warning"), "{}", run.stderr);
            }
            for node in [&a, &b] {
                node.verify(&format!("{root}/tiny")).assert_success();
                assert_tree(&node.path(&below), &revision(n));
                let attempts = node.path(&below).join(".weightlift/attempts");
                assert_eq!(list(&attempts), Vec::<PathBuf>::new());
            }
        }
        assert!(!a.path(&below).is_symlink());
        eprintln!("{name}: 4 revisions, each fetched by both at once, each seen whole by both");
        remove(&root);
    }
}

#[test]
fn without_locks_between_the_nodes_both_succeed() {
    let name = "without_locks_between_the_nodes_both_succeed";
    let Some(Nodes { a, b, rounds }) = nodes(name) else { return };
    for round in 0..rounds {
        // NFS 3 with `nolock`: each node grants itself every lock.
        let (tree, root) = (model(round), format!("/volume3/nolock-{round}"));
        let hub = FakeHub::serving(REPO, tree.clone());
        hub.script(slow(4 * MIB));
        let runs = [a.fetch(&hub, &root, &[]).start(), b.fetch(&hub, &root, &[]).start()];
        for run in runs.map(ended) {
            run.assert_success();
        }
        drop_caches();
        assert_tree(&Path::new("/export").join(format!("nolock-{round}/tiny")), &tree);
        for node in [&a, &b] {
            node.verify(&format!("{root}/tiny")).assert_success();
        }
        eprintln!(
            "{name}: both exit 0, both verify; {} bytes sent for a model of {}",
            hub.body_bytes(),
            tree.total_bytes()
        );
        remove(&root);
    }
}
