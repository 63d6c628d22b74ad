//! The waits of the engine: for descriptors, for the network, for a hash. None is for ever.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use support::*;
use weightlift_fakes::{Blob, FakeHub, Fault, Link, Rule, Tree};

const MIB: u64 = 1 << 20;
/// A bound on a hang, no more.
const STANDS_STILL: Duration = Duration::from_secs(15);

/// So many files of that size, with a `config.json`.
fn many(files: u64, size: u64) -> Tree {
    let add = |tree: Tree, n: u64| tree.with_blob(&format!("{n:03}.bin"), Blob::synthetic(size, n));
    (0..files).fold(Tree::new().with("config.json", "{}"), add)
}

/// `command` with no more descriptors than that.
fn with_descriptors(limit: usize, command: &std::process::Command) -> std::process::Command {
    under(&["prlimit", &format!("--nofile={limit}:{limit}")], command)
}

#[test]
fn connections_that_are_given_up_leave_no_file_that_the_others_wait_for() {
    if !has("prlimit") {
        return;
    }
    // Four connections fill the link, so more of them are tried and given up, again and again; each
    // leaves the file that it had begun with. Twice, because it takes as many files as fit exactly.
    std::thread::scope(|scope| {
        for limit in [108, 110] {
            scope.spawn(move || over_a_link_that_four_fill(limit));
        }
    });
}

fn over_a_link_that_four_fill(limit: usize) {
    let (tree, link) = (many(30, 5 * MIB), Link::of(6 * MIB));
    let (hub, volume) = (FakeHub::serving(REPO, tree.clone()), Volume::in_memory());
    hub.script(Rule::on("GET", "").at("cdn").then(Fault::Over(link.clone())));
    let command = fetch(&hub, &volume, &["hf://org/tiny", "--chunk-size", "1MiB"]);
    let mut running = with_descriptors(limit, &command).start();
    let started = Instant::now();
    let mut last = (0, started);
    while running.is_running() {
        let sent = hub.bytes_sent_for("xet-bridge");
        if sent > last.0 {
            last = (sent, Instant::now());
        }
        assert!(last.1.elapsed() < STANDS_STILL, "{limit}: {sent} bytes, and no more");
        // A rate that falls is another reason to try more.
        link.set_speed(if started.elapsed().as_secs() % 16 < 8 { 6 * MIB } else { 4 * MIB });
        std::thread::sleep(Duration::from_millis(50));
    }
    let run = running.wait().assert_success();
    assert!(!run.stderr.contains("retrying"), "{}", run.stderr);
    volume.assert_holds("tiny", &tree);
    assert_eq!(hub.bytes_sent_for("xet-bridge"), tree.total_bytes() - 2);
}
