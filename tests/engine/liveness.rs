//! The waits of the engine: for descriptors, for the network, for a hash. None is for ever.

use std::time::{Duration, Instant};

use crate::support::process::ends_within;
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

// Slow connections

/// A bound on what a slow connection may cost, far below what it would cost by itself.
const SOON: Duration = Duration::from_secs(60);

/// Fetches `tree`, in which the requests that `slow` describes meet `fault`, over connections that bring
/// `each` bytes per second.
#[track_caller]
fn with_a_bad_one(
    name: &str,
    tree: &Tree,
    arguments: &[&str],
    each: u64,
    (bad, fault): (Rule, Fault),
) {
    let (hub, volume) = (FakeHub::serving(REPO, tree.clone()), Volume::in_memory());
    hub.script(bad.at("cdn").then(fault));
    hub.script(Rule::on("GET", "").at("cdn").then(Fault::Drip { bytes_per_second: each }));
    let command = fetch(&hub, &volume, &[&["hf://org/tiny"], arguments].concat());
    let started = Instant::now();
    let run = ends_within(SOON, { command }.start()).assert_success();
    volume.assert_holds("tiny", tree);
    let twice = hub.bytes_sent_for("xet-bridge") - tree.total_bytes();
    eprintln!("{name}: {:?}, {} KiB twice: {}", started.elapsed(), twice >> 10, run.stderr);
    // What was on its way to those who were called off, and nothing else.
    assert!(twice <= 16 * MIB, "{name}: {twice} bytes were fetched twice");
}

#[test]
fn one_connection_far_below_the_others_is_replaced_wherever_it_blocks_them() {
    let one = |size| Tree::new().with_blob("big.bin", Blob::synthetic(size, 9));
    let slow = || Fault::Drip { bytes_per_second: 70 << 10 };
    let nth = |n| Rule::on("GET", "").skip(n).once();
    std::thread::scope(|scope| {
        // The start of the file, which all hashing waits for.
        scope.spawn(|| {
            let bad = (Rule::on("GET", "").when_range_starts_at(0), slow());
            with_a_bad_one("the start", &one(192 * MIB), &["--connections", "4"], 4 * MIB, bad);
        });
        // One of many, somewhere in the middle.
        scope
            .spawn(|| with_a_bad_one("one of 16", &one(192 * MIB), &[], 2 * MIB, (nth(7), slow())));
        // One that stops, long before its deadline; and one that never begins.
        scope.spawn(|| {
            let bad = (nth(2), Fault::StallAfter(MIB, Duration::from_secs(300)));
            let arguments = ["--stall-timeout", "200s"];
            with_a_bad_one("a stall", &one(96 * MIB), &arguments, 2 * MIB, bad);
        });
        scope.spawn(|| {
            let bad = (nth(2), Fault::Delay(Duration::from_secs(300)));
            with_a_bad_one("no head", &one(96 * MIB), &["--retry-timeout", "600s"], 2 * MIB, bad);
        });
        // Of several files, the last.
        scope.spawn(|| {
            let tree = many(4, 24 * MIB);
            let bad = (Rule::on("GET", "003.bin").once(), slow());
            with_a_bad_one("the last file", &tree, &["--connections", "4"], 4 * MIB, bad);
        });
    });
}

#[test]
fn a_link_that_is_slow_for_all_replaces_nobody() {
    let tree = many(4, 3 * MIB);
    let (hub, volume) = (FakeHub::serving(REPO, tree.clone()), Volume::in_memory());
    // Not all alike: one has half. (The fake sends blocks, so that a few seconds show a third of that.)
    let storage = |name: &str| Rule::on("GET", name).at("cdn");
    hub.script(storage("002.bin").then(Fault::Drip { bytes_per_second: 195 << 10 }));
    hub.script(storage("").then(Fault::Drip { bytes_per_second: 390 << 10 }));
    let run = fetch(&hub, &volume, &["hf://org/tiny", "--connections", "4"]).run();
    let run = run.assert_success();
    volume.assert_holds("tiny", &tree);
    assert!(!run.stderr.contains("replacing"), "{}", run.stderr);
}

#[test]
fn a_request_for_a_shared_file_is_as_large_as_it_is_worth_and_allowed() {
    let tree = Tree::new().with_blob("big.bin", Blob::synthetic(512 * MIB, 9));
    for (chunk_size, least, most) in [("64MiB", 48 * MIB, 64 * MIB), ("8MiB", 8 * MIB, 8 * MIB)] {
        let (hub, volume) = (FakeHub::serving(REPO, tree.clone()), Volume::in_memory());
        let head = Fault::Delay(Duration::from_millis(60));
        hub.script(Rule::on("GET", "").at("cdn").then(head));
        let arguments = ["hf://org/tiny", "--connections", "4", "--chunk-size", chunk_size];
        fetch(&hub, &volume, &arguments).run().assert_success();
        volume.assert_holds("tiny", &tree);
        let requests = hub.requests();
        let asked = requests.iter().filter(|request| request.origin == "cdn").map(|request| {
            let range = request.header("range").unwrap().strip_prefix("bytes=").unwrap();
            let (first, last) = range.split_once('-').unwrap();
            last.parse::<u64>().unwrap() + 1 - first.parse::<u64>().unwrap()
        });
        let asked: Vec<u64> = asked.collect();
        eprintln!("{chunk_size}: {} requests, {:?}", asked.len(), asked.iter().max());
        // Towards the end they become smaller.
        let largest = asked.iter().max().unwrap();
        assert!((least..=most).contains(largest), "{asked:?}");
    }
}

#[test]
fn what_comes_in_is_hashed_before_what_was_there() {
    if !has("strace") || !has("taskset") {
        return;
    }
    // On one core one thread hashes, slowly: each look at the volume takes its time.
    let old = Tree::new().with_blob("old.bin", Blob::synthetic(48 * MIB, 1));
    let (hub, volume) = (FakeHub::serving(REPO, old.clone()), Volume::in_memory());
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    let new = old.with_blob("new.bin", Blob::synthetic(96 * MIB, 2));
    hub.move_branch(REPO, "main", new.clone());
    hub.script(Rule::on("GET", "").at("cdn").then(Fault::Drip { bytes_per_second: 24 * MIB }));
    let trace = volume.path("reads");
    let trace = trace.to_str().unwrap();
    let strace = ["-f", "-qq", "-y", "-o", trace, "-e", "trace=pread64"];
    let slow = ["-e", "inject=pread64:delay_enter=20000"];
    let wrapper = [&["taskset", "-c", "0", "strace"][..], &strace, &slow].concat();
    let command = fetch(&hub, &volume, &["hf://org/tiny", "--connections", "4"]);
    under(&wrapper, &command).run().assert_success();
    volume.assert_holds("tiny", &new);
    let reads = std::fs::read_to_string(trace).unwrap();
    let reads: Vec<bool> = reads
        .lines()
        .filter(|line| line.contains("pread64(") && line.contains(".bin>"))
        .map(|line| line.contains("new.bin>"))
        .collect();
    let last_new = reads.iter().rposition(|is_new| *is_new).expect("it was shared");
    let old_before = reads[..last_new].iter().filter(|is_new| !**is_new).count();
    eprintln!("{} reads, {old_before} of the old file before the last of the new one", reads.len());
    // Of 192; before the first bytes come there is a pause, and now and then.
    assert!(old_before <= 128, "{old_before}");
}

// Time has an end

#[test]
fn a_run_below_its_least_rate_ends_and_says_the_figures() {
    let tree = Tree::new().with_blob("big.bin", Blob::synthetic(64 * MIB, 9));
    let (hub, volume) = (FakeHub::serving(REPO, tree.clone()), Volume::in_memory());
    hub.script(Rule::on("GET", "").at("cdn").then(Fault::Drip { bytes_per_second: 2_500 }));
    let arguments = ["hf://org/tiny", "--retry-timeout", "4s"];
    let mut command = fetch(&hub, &volume, &arguments);
    let running = command.args(["--min-rate", "1MB"]).start();
    let run = ends_within(SOON, running).assert_code(20);
    for words in ["too slow", "/s on average", "--min-rate is 1.0 MB/s"] {
        assert!(run.last_line().contains(words), "{words}: {}", run.stderr);
    }
    // What has come is kept; and a rate that is met is no obstacle, however little the files are.
    assert!(journalled(&volume) > 0);
    hub.clear_script();
    let mut command = fetch(&hub, &volume, &arguments);
    command.env("WEIGHTLIFT_MIN_RATE", "1kB/s").run().assert_success();
    volume.assert_holds("tiny", &tree);
}

#[test]
fn a_rate_that_is_none_is_a_usage_error() {
    let (hub, volume) = (hub_of_tiny(), Volume::in_memory());
    for rate in ["0", "fast", "-1", "1MB/m"] {
        let argument = format!("--min-rate={rate}");
        fetch(&hub, &volume, &["hf://org/tiny", &argument]).run().assert_code(2);
    }
}

#[test]
fn a_little_before_each_failure_does_not_renew_the_budget_for_ever() {
    let tree = Tree::new().with_blob("big.bin", Blob::synthetic(64 * MIB, 9));
    for (name, drip) in [("a cut after a little", 1 << 30), ("a drip that is cut", 2_500)] {
        let (hub, volume) = (FakeHub::serving(REPO, tree.clone()), Volume::in_memory());
        let cut = Rule::on("GET", "").at("cdn").then(Fault::CutAfter(17_000));
        hub.script(cut.then(Fault::Drip { bytes_per_second: drip }));
        let mut command = fetch(&hub, &volume, &["hf://org/tiny", "--retry-timeout", "4s"]);
        let run = ends_within(SOON, command.start()).assert_code(20);
        assert!(run.last_line().contains("big.bin"), "{name}: {}", run.stderr);
        assert!(hub.bytes_sent_for("xet-bridge") < 16 * MIB, "{name}");
    }
}
