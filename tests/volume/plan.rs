//! What a fetch would do: `plan`, and `fetch --dry-run`.

use std::process::Command;

use serde_json::Value;

use super::list::looks;
use super::probe::tmpfs;
use crate::support::*;
use weightlift_fakes::{Blob, FakeHub, Fault, Rule, Tree};

const MIB: u64 = 1 << 20;

fn shards(last: u64) -> Tree {
    Tree::new()
        .with("config.json", "{}")
        .with_blob("a.bin", Blob::synthetic(3 * MIB, 1))
        .with_blob("b.bin", Blob::synthetic(3 * MIB, 2))
        .with_blob("c.bin", Blob::synthetic(3 * MIB, last))
}

/// `plan` in place of `fetch`.
fn plan(hub: &FakeHub, volume: &Volume, arguments: &[&str]) -> Command {
    let mut command = weightlift();
    command.arg("plan").arg("--root").arg(volume.root()).args(arguments);
    command.env("HF_ENDPOINT", hub.url()).env("WEIGHTLIFT_RETRY_TIMEOUT", "5s");
    command
}

fn json(run: &Run) -> Vec<Value> {
    run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn actions(report: &Value) -> Vec<(String, String, u64)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let steps = report["plan"].as_array().unwrap().iter();
    steps
        .map(|it| (text(&it["path"]), text(&it["action"]), it["fetch_bytes"].as_u64().unwrap()))
        .collect()
}

#[test]
fn a_plan_says_what_a_fetch_does_and_writes_nothing() {
    let hub = FakeHub::builder().repo(REPO, shards(3)).repo("org/tune", shards(4)).start();
    let volume = Volume::new();
    // Nothing is there, not even the root.
    let run = plan(&hub, &volume, &["hf://org/tiny", "--output", "json"]).run().assert_success();
    assert!(!volume.root().exists());
    let report = &json(&run)[0];
    assert_eq!((&report["status"], &report["fits"]), (&"fetch".into(), &true.into()));
    assert_eq!(report["fetch_bytes"], 9 * MIB + 2);
    assert_eq!(report["revision"].as_str().unwrap(), hub.commit(REPO));
    assert_eq!(hub.bytes_sent_for("a.bin"), 0);
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    // A fine-tune shares two of three shards; an update of the same model as well.
    let before = looks(&volume.root());
    let run = plan(&hub, &volume, &["hf://org/tune", "--output", "json"]).run().assert_success();
    let report = &json(&run)[0];
    let step = |path: &str, action: &str, bytes| (path.to_owned(), action.to_owned(), bytes);
    let expected = [
        step("a.bin", "reuse", 0),
        step("b.bin", "reuse", 0),
        step("c.bin", "fetch", 3 * MIB),
        step("config.json", "reuse", 0),
    ];
    assert_eq!(actions(report), expected);
    assert_eq!(report["plan"][0]["from"], volume.family("tiny").display().to_string());
    assert_eq!(report["plan"][2]["from"], "hf://org/tune@main");
    let (free, after) = (&report["free_bytes"], &report["free_bytes_after"]);
    assert_eq!(free.as_u64().unwrap() - after.as_u64().unwrap(), 3 * MIB);
    assert!(run.last_line().starts_with("planned: 3.1 MB to fetch"), "{}", run.stderr);
    // The same by a flag, in words.
    let run = fetch(&hub, &volume, &["hf://org/tune", "--dry-run"]).run().assert_success();
    assert!(
        run.stdout.contains("\n  fetch 1 file, 3.1 MB from hf://org/tune@main: c.bin\n"),
        "{}",
        run.stdout
    );
    assert!(run.stdout.contains("\n  reuse 3 files, 6.3 MB of "), "{}", run.stdout);
    hub.move_branch(REPO, "main", shards(5));
    let run = plan(&hub, &volume, &["hf://org/tiny", "--output", "json"]).run().assert_success();
    let report = &json(&run)[0];
    assert_eq!((&report["status"], &report["fetch_bytes"]), (&"update".into(), &(3 * MIB).into()));
    assert_eq!(looks(&volume.root()), before, "something was written");
    // And then it is what was planned.
    hub.log().clear();
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    // With the redirect to the storage.
    assert!((3 * MIB..3 * MIB + 2_000).contains(&hub.bytes_sent_for("c.bin")));
    assert_eq!(hub.bytes_sent_for("a.bin"), 0);
    let run = plan(&hub, &volume, &["hf://org/tiny", "--output", "json"]).run().assert_success();
    assert_eq!(json(&run)[0]["status"], "present");
}

#[test]
fn what_a_killed_fetch_has_left_is_part_of_the_plan() {
    let hub = FakeHub::serving(REPO, shards(3));
    let volume = Volume::new();
    hub.script(Rule::on("GET", "").at("cdn").then(Fault::Drip { bytes_per_second: 2 * MIB }));
    let running = fetch(&hub, &volume, &["hf://org/tiny", "--connections", "1"]).start();
    eventually("some bytes", || hub.bytes_sent_for("a.bin") > 2 * MIB);
    running.signal("-TERM");
    running.wait();
    hub.clear_script();
    let run = plan(&hub, &volume, &["hf://org/tiny", "--output", "json"]).run().assert_success();
    let report = &json(&run)[0];
    let of_a = actions(report).into_iter().find(|(path, ..)| path == "a.bin").unwrap();
    assert!(of_a.1 == "continue" && of_a.2 < 2 * MIB, "{of_a:?}");
}

#[test]
fn what_does_not_fit_is_said_and_so_is_what_is_left_out() {
    if !is_root() {
        skip("mounts need root");
        return;
    }
    let tree = shards(3).with("model.safetensors", vec![0; 100]);
    let hub = FakeHub::builder().repo(REPO, tree).repo("org/b", shards(9)).start();
    let volume = Volume::new();
    std::fs::create_dir(volume.root()).unwrap();
    let _mounted = tmpfs(&volume.root(), "size=11m");
    let run = plan(
        &hub,
        &volume,
        &["hf://org/tiny", "tiny", "hf://org/b", "b", "--exclude", "a.bin", "--output", "json"],
    )
    .run()
    .assert_code(15);
    let reports = json(&run);
    let fits: Vec<_> = reports.iter().filter_map(|it| it["fits"].as_bool()).collect();
    assert_eq!(fits, [true, false], "each by itself fits: {}", run.stdout);
    assert_eq!(reports[0]["left_out"][0]["path"], "a.bin");
    // That of the model, and that of the run.
    let failed = reports.iter().filter(|it| it["status"] == "failed");
    assert_eq!(failed.filter(|it| it["class"] == "no_space").count(), 2, "{}", run.stdout);
    assert!(run.last_line().contains("`b`"), "{}", run.stderr);
    assert!(list(&volume.root()).is_empty());
}

#[test]
fn what_a_fetch_would_refuse_the_plan_refuses() {
    let hub = FakeHub::builder().repo(REPO, shards(3)).repo("org/b", shards(9)).start();
    let volume = Volume::new();
    fetch(&hub, &volume, &["hf://org/b", "tiny"]).run().assert_success();
    plan(&hub, &volume, &["hf://org/tiny"]).run().assert_code(16);
    plan(&hub, &volume, &["hf://org/none"]).run().assert_code(11);
    let run = plan(&hub, &volume, &["hf://org/tiny", "--replace", "--output", "json"]).run();
    assert_eq!(json(&run.assert_success())[0]["status"], "replace");
}

#[test]
fn a_directory_that_is_a_volume_of_its_own_has_its_own_room() {
    if !is_root() {
        skip("mounts need root");
        return;
    }
    let (hub, volume) = (FakeHub::serving(REPO, shards(3)), Volume::new());
    let _mounted = tmpfs(&volume.family("tiny"), "size=2m");
    plan(&hub, &volume, &["hf://org/tiny"]).run().assert_code(15).assert_says("enlarge the volume");
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_code(15);
}
