//! `ms://org/name`: a model of ModelScope.

use std::process::Command;
use std::time::Duration;

use crate::support::table::{BIG, Case, check, modelscope};
use crate::support::*;
use weightlift_fakes::{Blob, FakeHub, FakeModelScope, Fault, Rule, Tree};

const MIB: u64 = 1 << 20;
const ID: &str = "org/llama";

fn tree() -> Tree {
    Tree::new()
        .with("config.json", "{\"a\": 1}")
        .with("empty", "")
        .with("sub/we ird+a%[1]é#?&.json", "odd")
        .with_blob("big.bin", Blob::synthetic(3 * MIB + 7, 5))
}

fn fetch(there: &FakeModelScope, volume: &Volume, arguments: &[&str]) -> Command {
    let mut command = weightlift();
    command.arg("fetch").arg("--root").arg(volume.root()).args(arguments);
    command.args(["--chunk-size", "1MiB", "--connections", "2"]);
    command.env("WEIGHTLIFT_RETRY_TIMEOUT", "2s").env("WEIGHTLIFT_RETRY_DELAY", "25ms");
    command.env("MODELSCOPE_ENDPOINT", there.url()).env("MODELSCOPE_API_TOKEN", TOKEN);
    command
}

fn sentinel(volume: &Volume, family: &str) -> serde_json::Value {
    let text = std::fs::read(volume.family(family).join(".weightlift-complete.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

#[test]
fn a_model_of_modelscope_is_fetched_compared_and_warm_by_one_request() {
    let there = FakeModelScope::builder().model(ID, tree()).token(TOKEN).start();
    let volume = Volume::new();
    fetch(&there, &volume, &["ms://org/llama"]).run().assert_success();
    volume.assert_holds("llama", &tree());
    volume.assert_clean();
    let told = sentinel(&volume, "llama");
    assert_eq!(
        (&told["source"], &told["requested_revision"]),
        (&"ms://org/llama".into(), &"master".into())
    );
    for file in told["files"].as_array().unwrap() {
        assert_eq!(file["verified_by"], "sha256", "{file}");
    }
    // The token, in both of its forms, goes to ModelScope and to nobody else.
    for request in there.requests() {
        let has_token = request.headers.iter().any(|(_, value)| value.contains(TOKEN));
        assert_eq!(has_token, request.origin == "modelscope", "{request:?}");
        assert!(!request.target.contains(TOKEN), "{request:?}");
    }
    there.log().clear();
    fetch(&there, &volume, &["ms://org/llama"]).run().assert_success().assert_says("nothing to do");
    assert_eq!((there.requests().len(), there.count("GET", "/repo/files")), (1, 1));
    let updated = tree().with("config.json", "{\"a\": 22}");
    there.move_master(ID, updated.clone());
    there.log().clear();
    fetch(&there, &volume, &["ms://org/llama"]).run().assert_success();
    volume.assert_holds("llama", &updated);
    assert_eq!(there.count("GET", "big.bin"), 0);
}

#[test]
fn a_commit_is_a_pin_and_a_tag_is_asked_for() {
    let commit = "c0ffee00".repeat(5);
    let there = FakeModelScope::builder()
        .revision(ID, &commit, tree())
        .revision(ID, "v1.0", tree().without("empty"))
        .start();
    let volume = Volume::new();
    let pinned = format!("ms://org/llama@{commit}");
    fetch(&there, &volume, &[&pinned]).run().assert_success();
    volume.assert_holds("llama", &tree());
    assert_eq!(sentinel(&volume, "llama")["revision"], commit.as_str());
    there.log().clear();
    fetch(&there, &volume, &[&pinned]).run().assert_success().assert_says("nothing to do");
    assert_eq!(there.requests().len(), 0);
    fetch(&there, &volume, &["ms://org/llama@v1.0", "v"]).run().assert_success();
    volume.assert_holds("v", &tree().without("empty"));
    let run = fetch(&there, &volume, &["ms://org/llama", "n"]).run().assert_code(10);
    run.assert_says("no revision").assert_says("`master`");
}

#[test]
fn a_listing_that_is_cut_off_is_completed_directory_by_directory() {
    let many = |directory: &str, count: usize| {
        (0..count).map(move |n| format!("{directory}{n}.txt")).collect::<Vec<_>>()
    };
    // Of 3,000 entries no listing says whether there are more.
    let names = [many("a/b/", 1_700), many("a/c/", 1_600), many("d/", 10), many("", 10)].concat();
    let tree = names.iter().fold(Tree::new(), |tree, name| tree.with(name, name.as_bytes()));
    let there = FakeModelScope::builder().model(ID, tree.clone()).start();
    let volume = Volume::new();
    let arguments = ["ms://org/llama", "m", "--include", "a/c/1*", "--include", "*9.txt"];
    fetch(&there, &volume, &arguments).run().assert_success();
    let told = sentinel(&volume, "m");
    let left_out = told["left_out"].as_array().unwrap().len();
    assert_eq!(left_out + told["files"].as_array().unwrap().len(), names.len());
    // One directory with that many cannot be listed as a whole.
    let names = many("a/", 3_000);
    let tree = names.iter().fold(Tree::new(), |tree, name| tree.with(name, ""));
    let there = FakeModelScope::builder().model(ID, tree).start();
    let run = fetch(&there, &Volume::new(), &["ms://org/llama"]).run().assert_code(13);
    run.assert_says("lists no more than that");
}

#[test]
fn modelscope_and_the_hub_are_places_of_the_same_bytes() {
    let there = FakeModelScope::builder().model(ID, tree()).start();
    let hub = FakeHub::builder().repo(ID, tree()).lfs_threshold(MIB).start();
    let volume = Volume::new();
    let mut command = fetch(&there, &volume, &["hf://org/llama", "--also", "ms://org/llama"]);
    command.env("HF_ENDPOINT", hub.url()).run().assert_success();
    volume.assert_holds("llama", &tree());
    assert_eq!(hub.bytes_sent_for("big.bin"), 0);
    assert!(there.count("GET", "/lfs/") > 0);
}

#[test]
fn a_model_of_modelscope_can_be_pinned_in_a_lock_file() {
    let there = FakeModelScope::builder().model(ID, tree()).start();
    let volume = Volume::new();
    let (models, lock) = (volume.path("models.yaml"), volume.path("models.lock"));
    std::fs::write(&models, "version: 1\nmodels:\n  - source: ms://org/llama\n").unwrap();
    let mut pin = weightlift();
    pin.arg("pin").arg("--models").arg(&models).current_dir(lock.parent().unwrap());
    pin.env("MODELSCOPE_ENDPOINT", there.url()).run().assert_success();
    there.log().clear();
    fetch(&there, &volume, &["--locked", lock.to_str().unwrap()]).run().assert_success();
    volume.assert_holds("llama", &tree());
    assert_eq!(there.count("GET", "/repo/files"), 0);
    there.move_master(ID, tree().without("config.json"));
    pin.arg("--check").run().assert_code(16);
    let lock = lock.to_str().unwrap();
    let run = fetch(&there, &Volume::new(), &["--locked", lock]).run().assert_code(16);
    run.assert_says("has what the lock file names and ms://org/llama no longer has");
}

#[test]
fn what_is_no_model_of_modelscope_is_refused() {
    for (source, words) in [
        ("ms://llama", "org/name"),
        ("ms://a/b/c", "more than a repo"),
        ("ms://datasets/org/d", "does not name a model"),
        ("ms://org/m@", "no usable revision"),
        ("ms://org/m@../x", "no usable revision"),
    ] {
        weightlift().args(["fetch", source, "/tmp/x"]).run().assert_code(2).assert_says(words);
    }
    for (name, value) in [
        ("MODELSCOPE_ENDPOINT", "https://user:CANARY@host"),
        ("MODELSCOPE_DOMAIN", "host?CANARY"),
        ("MODELSCOPE_API_TOKEN", "CANARY; x=y"),
    ] {
        let volume = Volume::new();
        let mut command = weightlift();
        command.args(["fetch", "ms://org/m", "--root"]).arg(volume.root()).env(name, value);
        let run = command.run().assert_code(2).assert_says(name);
        assert!(!run.stderr.contains("CANARY"), "{}", run.stderr);
    }
}

/// Requests of a fetch of the model without any fault, and two more that may be on their way.
const USUAL: usize = 14;

fn list() -> Rule {
    Rule::on("GET", "/repo/files")
}

fn reads() -> Rule {
    Rule::on("GET", "big.bin").at("storage")
}

fn links() -> Rule {
    Rule::on("GET", "FilePath=big.bin").at("modelscope")
}

#[test]
fn trouble_of_modelscope_that_passes_is_waited_out() {
    let once = |name, rule: Rule, fault| -> Case { modelscope(name).rule(rule.once().then(fault)) };
    check([
        once("500 for the listing", list(), Fault::status(500)).recovers(USUAL + 3),
        once("429 for the listing", list(), Fault::status(429)).recovers(USUAL + 3),
        once("a listing that breaks off", list(), Fault::CutAfter(30)).recovers(USUAL + 3),
        once("503 for a link", links(), Fault::status(503)).recovers(USUAL + 4),
        once("a read that is cut", reads(), Fault::CutAfter(300_000)).recovers(USUAL + 4),
        once("a read that is reset", reads(), Fault::ResetAfter(300_000)).recovers(USUAL + 4),
        once("a read that stalls", reads(), Fault::StallAfter(9, Duration::from_secs(60)))
            .recovers(USUAL + 4),
        once("another range", reads(), Fault::WrongRange).recovers(USUAL + 4),
        once("500 for a read", reads(), Fault::status(500)).recovers(USUAL + 4),
        once("429 for a read", reads(), Fault::status(429)).recovers(USUAL + 4),
        once("a flipped byte", reads().when_range_starts_at(MIB), Fault::FlipByteAt(1_500_000))
            .recovers_saying(2 * USUAL, &["fetching it again"]),
        web_page("a web page in place of the listing").recovers(USUAL + 3),
    ]);
}

fn web_page(name: &'static str) -> Case {
    let page = b"<!DOCTYPE html><html>please log in</html>".to_vec();
    modelscope(name).rule(list().once().then(Fault::ReplaceBody(page)))
}

#[test]
fn trouble_of_modelscope_that_stays_is_named_and_is_no_storm() {
    let always = |name, rule: Rule, fault| -> Case { modelscope(name).rule(rule.then(fault)) };
    let redirect = |to: &str| Fault::status_with(302, &[("Location", to)], "");
    check([
        always("500 for ever", reads(), Fault::status(500)).fails(20, 3 * USUAL, &["500"]),
        always("429 for ever", reads(), Fault::status(429)).fails(21, 3 * USUAL, &["rate"]),
        always("401 for the listing", list(), Fault::status(401)).fails(
            11,
            2,
            &["401", "MODELSCOPE_API_TOKEN"],
        ),
        always("404 for the listing", list(), Fault::status(404)).fails(10, 2, &["404"]),
        always("403 of the storage", reads(), Fault::status(403)).fails(11, USUAL, &["403"]),
        always("404 for a file", links(), Fault::status(404)).fails(20, USUAL, &["big.bin", "404"]),
        always("another size", reads(), Fault::WrongTotal(BIG + 1)).fails(20, USUAL, &["big.bin"]),
        always("wrong bytes for ever", reads(), Fault::FlipByteAt(1_500_000)).fails(
            12,
            6 * USUAL,
            &["`big.bin`", "3 complete fetches"],
        ),
        always("a metadata service", links(), redirect("http://169.254.169.254/x")).fails(
            13,
            USUAL,
            &["link-local"],
        ),
    ]);
}
