//! The waits of the engine: for descriptors, for the network, for a hash. None is for ever.

use std::time::{Duration, Instant};

use crate::support::*;
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

// The journal

/// Bytes of files that a journal on the volume vouches for.
fn journalled(volume: &Volume) -> u64 {
    let of = |attempt: &std::path::PathBuf| {
        let journal = std::fs::read_to_string(attempt.join("journal")).unwrap_or_default();
        let records = journal.lines().filter_map(|line| serde_json::from_str(line.get(9..)?).ok());
        let chunks = records.filter(|record: &serde_json::Value| record["is"] == "chunk");
        let size =
            |it: serde_json::Value| it["end"].as_u64().unwrap() - it["start"].as_u64().unwrap();
        chunks.map(size).sum::<u64>()
    };
    volume.attempts().iter().map(of).sum()
}

#[test]
fn a_kill_costs_no_more_than_two_seconds_of_each_connection() {
    const EACH: u64 = MIB;
    const CONNECTIONS: u64 = 16;
    // So large that no connection comes to the end of its chunk.
    let tree = many(CONNECTIONS, 24 * MIB);
    let (hub, volume) = (FakeHub::serving(REPO, tree.clone()), Volume::in_memory());
    hub.script(Rule::on("GET", "").at("cdn").then(Fault::Drip { bytes_per_second: EACH }));
    let running = fetch(&hub, &volume, &["hf://org/tiny"]).start();
    eventually("much arrives", || hub.bytes_sent_for("xet-bridge") > 64 * MIB);
    running.signal("-KILL");
    assert_eq!(running.wait().code, -1);
    let before = hub.bytes_sent_for("xet-bridge");
    hub.clear_script();
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    volume.assert_holds("tiny", &tree);
    let again = hub.bytes_sent_for("xet-bridge") - CONNECTIONS * 24 * MIB;
    eprintln!("{} of {} MiB were fetched twice", again / MIB, before / MIB);
    // And what was on its way to each.
    let bound = CONNECTIONS * (2 * EACH + MIB / 4);
    assert!(again <= bound, "{again} of {before} bytes were lost, not {bound}");
}

#[test]
fn what_has_come_before_a_stall_is_noted_while_it_lasts() {
    let tree = Tree::new().with_blob("big.bin", Blob::synthetic(24 * MIB, 1));
    let (hub, volume) = (FakeHub::serving(REPO, tree.clone()), Volume::in_memory());
    let silence = Fault::StallAfter(3 * MIB + 5, Duration::from_secs(300));
    hub.script(Rule::on("GET", "").at("cdn").then(silence));
    let mut command = fetch(&hub, &volume, &["hf://org/tiny", "--connections", "1"]);
    let running = command.env("WEIGHTLIFT_STALL_TIMEOUT", "200s").start();
    eventually("all that has come is noted", || journalled(&volume) == 3 * MIB + 5);
    running.signal("-KILL");
    drop(running.wait());
    hub.clear_script();
    hub.log().clear();
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    volume.assert_holds("tiny", &tree);
    assert_eq!(hub.bytes_sent_for("xet-bridge"), 21 * MIB - 5);
}

#[test]
fn what_has_come_before_a_retry_is_noted_while_it_waits() {
    let tree = Tree::new().with_blob("big.bin", Blob::synthetic(24 * MIB, 1));
    let (hub, volume) = (FakeHub::serving(REPO, tree.clone()), Volume::in_memory());
    let storage = || Rule::on("GET", "").at("cdn");
    hub.script(storage().once().then(Fault::CutAfter(MIB + 5)));
    hub.script(storage().then(Fault::HangBeforeHeaders(Duration::from_secs(300))));
    let mut command = fetch(&hub, &volume, &["hf://org/tiny", "--connections", "1"]);
    let running = command.env("WEIGHTLIFT_RETRY_TIMEOUT", "300s").start();
    eventually("all that has come is noted", || journalled(&volume) == MIB + 5);
    running.signal("-KILL");
    drop(running.wait());
}

// Patience

#[test]
fn an_answer_that_takes_long_to_ask_for_a_short_wait_is_none_that_was_asked_for() {
    let (hub, volume) = (hub_of_tiny(), Volume::in_memory());
    // As long as a first byte may take here.
    let slow = Fault::Delay(Duration::from_millis(1_500));
    let no = Fault::status_with(429, &[("Retry-After", "1")], "");
    hub.script(Rule::on("GET", "").at("cdn").then(slow).then(no));
    let mut command = fetch(&hub, &volume, &["hf://org/tiny", "--connections", "1"]);
    let run = command.env("WEIGHTLIFT_RETRY_TIMEOUT", "4s").run().assert_code(21);
    assert!(run.last_line().contains("limits the rate"), "{}", run.stderr);
    // The waits alone would have allowed thirteen.
    let asked = hub.requests().iter().filter(|request| request.origin == "cdn").count();
    assert!((2..=4).contains(&asked), "{asked}: {}", run.stderr);
}

// Descriptors

#[test]
fn files_that_are_partly_here_need_no_descriptor_each() {
    if !has("prlimit") {
        return;
    }
    let tree = many(64, 3 * MIB);
    let (hub, volume) = (FakeHub::serving(REPO, tree.clone()), Volume::in_memory());
    let storage = || Rule::on("GET", "").at("cdn");
    // Of each file the first chunk comes, and no other.
    // So slowly that as many connections as files are tried.
    hub.script(storage().when_range_starts_at(0).then(Fault::Drip { bytes_per_second: MIB / 4 }));
    hub.script(storage().then(Fault::StallAfter(0, Duration::from_secs(300))));
    let arguments = ["hf://org/tiny", "--chunk-size", "1MiB"];
    let mut command = fetch(&hub, &volume, &arguments);
    let running = command.args(["--connections", "64"]).start();
    eventually("every file is begun with", || journalled(&volume) == 64 * MIB);
    running.signal("-KILL");
    drop(running.wait());
    hub.clear_script();
    // So slowly that all of them are hashed as far as they are here before many are complete.
    hub.script(storage().then(Fault::Drip { bytes_per_second: 6 * MIB }));
    hub.log().clear();
    let command = fetch(&hub, &volume, &arguments);
    let run = with_descriptors(40, &command).run().assert_success();
    assert!(!run.stderr.contains("retrying"), "{}", run.stderr);
    volume.assert_holds("tiny", &tree);
    assert!(hub.bytes_sent_for("xet-bridge") == 128 * MIB);
}

#[test]
fn few_descriptors_are_enough_for_files_that_begin_anew_or_are_here_already() {
    if !has("prlimit") {
        return;
    }
    for limit in [32, 48, 64, 96] {
        let tree = many(20, 3 * MIB);
        let arguments = ["hf://org/tiny", "--chunk-size", "1MiB", "--connections", "64"];
        let run = |hub: &FakeHub, volume: &Volume, tree: &Tree| {
            let run = with_descriptors(limit, &fetch(hub, volume, &arguments)).run();
            assert_eq!(run.code, 0, "with {limit}: {}", run.stderr);
            volume.assert_holds("tiny", tree);
        };
        // Wrong bytes in every file, once.
        let (hub, volume) = (FakeHub::serving(REPO, tree.clone()), Volume::in_memory());
        for (name, _) in tree.iter() {
            let wrong = Rule::on("GET", &format!("path={name}")).when_range_starts_at(0);
            hub.script(wrong.at("cdn").once().then(Fault::FlipByteAt(7)));
        }
        run(&hub, &volume, &tree);
        assert!(hub.bytes_sent_for("xet-bridge") >= 120 * MIB);
        // Another revision, of which nearly all is here.
        let changed = tree.clone().with_blob("000.bin", Blob::synthetic(3 * MIB, 1_000));
        let small = |tree: Tree, n: u64| tree.with(&format!("d/{n}.json"), format!("{{{n}}}"));
        let changed = (0..60).fold(changed, small);
        hub.move_branch(REPO, "main", changed.clone());
        run(&hub, &volume, &changed);
        // A server without ranges, for some of the files.
        let (hub, volume) = (FakeHub::serving(REPO, tree.clone()), Volume::in_memory());
        let whole = |n: usize| Rule::on("GET", &format!("path=00{n}.bin")).at("cdn");
        (0..4).for_each(|n| hub.script(whole(n).then(Fault::IgnoreRange)));
        run(&hub, &volume, &tree);
    }
}
