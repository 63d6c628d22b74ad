//! A download that is killed again and again.
//!
//! `WEIGHTLIFT_TEST_ROUNDS=100 cargo test --test engine resume::` is the long form.

use std::time::Duration;

use crate::support::*;
use weightlift_fakes::{Blob, FakeHub, Fault, Rule, Tree};

const MIB: u64 = 1 << 20;

/// How much of each connection is not in the journal yet, whatever the chunk size.
const NOTE: u64 = 4 * MIB;
/// What a connection may have been sent and not have read: what the buffers of two sockets take where the
/// machine is busy with other tests (`tcp_rmem` and `tcp_wmem`, 6 and 4 MiB at most).
const ON_ITS_WAY: u64 = 8 * MIB;
/// Of all connections together, a second.
const SPEED: u64 = 24 * MIB;

/// One kill.
struct Round {
    connections: u64,
    chunk: u64,
    after: Duration,
}

#[test]
fn a_hundred_kills_cost_no_more_than_what_was_on_its_way() {
    let rounds = rounds(15);
    let seed = seed();
    let mut random = fastrand::Rng::with_seed(seed);
    let all = Vec::from_iter((0..rounds).map(|n| match n % 5 {
        // One stream without an end in sight, in which nothing but a note in between is kept.
        0 => Round { connections: 1, chunk: 64 * MIB, after: Duration::from_millis(1_500) },
        _ => Round {
            connections: random.u64(1..=8),
            chunk: random.u64(1..=8).pow(2) * MIB,
            after: Duration::from_millis(random.u64(20..1_500)),
        },
    }));
    // So large that it cannot be complete before the last kill.
    let seconds: Duration = all.iter().map(|it| it.after).sum();
    let size = SPEED * seconds.as_millis() as u64 / 1_000 + 8 * MIB + 12_345;
    let tree =
        Tree::new().with("config.json", "{}").with_blob("big.bin", Blob::synthetic(size, seed));
    let (hub, volume) = (FakeHub::serving(REPO, tree.clone()), Volume::new());
    let (mut kept, mut lost, mut worst) = (0, 0, 0.0_f64);
    for (n, Round { connections, chunk, after }) in all.iter().enumerate() {
        hub.clear_script();
        let bytes_per_second = SPEED / connections;
        hub.script(Rule::on("GET", "").at("cdn").then(Fault::Drip { bytes_per_second }));
        let before = hub.bytes_sent_for("xet-bridge");
        let arguments = [format!("--connections={connections}"), format!("--chunk-size={chunk}")];
        let running = fetch(&hub, &volume, &["hf://org/tiny"]).args(arguments).start();
        std::thread::sleep(*after);
        running.signal("-KILL");
        let run = running.wait();
        assert_eq!(run.code, -1, "seed {seed}, round {n}: {}", run.stderr);
        assert!(!volume.family("tiny").exists(), "seed {seed}, round {n}");
        let arrived = hub.bytes_sent_for("xet-bridge") - before;
        let then = std::mem::replace(&mut kept, journalled(&volume));
        let lost_now = (then + arrived).saturating_sub(kept);
        let bound = connections * (chunk.min(&NOTE) + ON_ITS_WAY);
        assert!(
            lost_now <= bound,
            "seed {seed}, round {n}: {lost_now} of {arrived} lost, not {bound}"
        );
        lost += lost_now;
        worst = worst.max(lost_now as f64 / bound as f64);
    }
    hub.clear_script();
    let run = fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    assert!(run.stderr.contains("are here already"), "{}", run.stderr);
    assert!(!run.stderr.contains("damaged"), "{}", run.stderr);
    volume.assert_holds("tiny", &tree);
    // A run that was killed before its journal had begun leaves a directory that tells of nobody.
    for left in volume.attempts() {
        let journal = std::fs::read(left.join("journal")).unwrap_or_default();
        assert!(journal.is_empty() && list(&left.join("tree")).is_empty(), "{}", left.display());
    }
    weightlift().arg("verify").arg(volume.family("tiny")).run().assert_success();
    // Nothing but what was lost has been fetched again, and what the server still sent to the killed.
    let twice = hub.log().bytes_sent_twice();
    assert!(
        twice <= lost + rounds as u64 * MIB / 4,
        "seed {seed}: {twice} bytes fetched twice, {lost} lost"
    );
    eprintln!(
        "seed {seed}: {rounds} kills in {} MiB; {} MiB lost, {} MiB fetched twice; at worst {:.0} % of \
         the bound",
        size / MIB,
        lost / MIB,
        twice / MIB,
        worst * 100.0
    );
}

/// Bytes of the large file that a journal vouches for.
fn journalled(volume: &Volume) -> u64 {
    let of = |attempt: &std::path::PathBuf| {
        let journal = std::fs::read_to_string(attempt.join("journal")).unwrap_or_default();
        let records = journal.lines().filter_map(|line| serde_json::from_str(line.get(9..)?).ok());
        let chunks = records.filter(|record: &serde_json::Value| record["is"] == "chunk");
        let size =
            |it: serde_json::Value| it["end"].as_u64().unwrap() - it["start"].as_u64().unwrap();
        let is_there = attempt.join("tree/big.bin").exists();
        if is_there { chunks.map(size).sum() } else { 0 }
    };
    volume.attempts().iter().map(of).max().unwrap_or(0)
}

#[test]
fn of_two_earlier_attempts_the_fuller_one_is_continued() {
    let size = 24 * MIB;
    let tree = Tree::new().with("config.json", "{}").with_blob("big.bin", Blob::synthetic(size, 1));
    let (hub, volume) = (FakeHub::serving(REPO, tree.clone()), Volume::new());
    hub.script(Rule::on("GET", "").at("cdn").then(Fault::Drip { bytes_per_second: 8 * MIB }));
    let arguments = ["hf://org/tiny", "--connections=1", "--chunk-size=1MiB"];
    let running = fetch(&hub, &volume, &arguments).start();
    eventually("half of it is there", || journalled(&volume) > 12 * MIB);
    running.signal("-KILL");
    drop(running.wait());
    hub.clear_script();
    let fuller = volume.attempts().pop().unwrap();
    let kept = journalled(&volume);
    // An earlier one by name, that knows of the first pieces only.
    let emptier = fuller.with_file_name("tiny~0000000000000000");
    let copied = std::process::Command::new("cp").arg("-r").args([&fuller, &emptier]).status();
    assert!(copied.unwrap().success());
    let journal = std::fs::read_to_string(fuller.join("journal")).unwrap();
    let cut = journal.lines().take_while(|line| !line.contains("\"start\":4194304")).count();
    let start: String = journal.lines().take(cut).map(|line| format!("{line}\n")).collect();
    assert!(start.contains("big.bin") && start.len() < journal.len(), "{journal}");
    std::fs::write(emptier.join("journal"), start).unwrap();
    hub.log().clear();
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    volume.assert_holds("tiny", &tree);
    assert_eq!(hub.bytes_sent_for("xet-bridge"), size - kept);
}
