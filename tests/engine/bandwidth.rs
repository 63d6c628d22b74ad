//! `--bandwidth`: what the whole process takes in a second, and that a wait for it is no fault of anybody.
//!
//! What a limit does is to take time, so these tests measure it. The lower bounds are hard: nothing that a busy
//! machine does makes a run faster. The upper ones only find a limit that is far off.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::process::ends_within;
use crate::support::*;
use weightlift_fakes::{Blob, FakeHub, FakeS3, Fault, Rule, Tree, Writes};

const MIB: u64 = 1 << 20;

fn of_one(size: u64, seed: u64) -> Tree {
    Tree::new().with_blob("w.bin", Blob::synthetic(size, seed))
}

/// `fetch --models` with a file of these repos.
fn fetch_listed(hub: &FakeHub, volume: &Volume, repos: &[&str]) -> Command {
    let file = volume.path("models.yaml");
    let head = "version: 1\nmodels:\n".to_owned();
    let list = repos.iter().fold(head, |list, repo| format!("{list}- source: hf://{repo}\n"));
    std::fs::write(&file, list).unwrap();
    fetch(hub, volume, &["--models", file.to_str().unwrap()])
}

/// What `bytes` at `rate` take at least: a tenth of a second, or 8 KiB, may come at once.
fn least(bytes: u64, rate: u64) -> Duration {
    let at_once = (rate / 10).max(8 << 10);
    Duration::from_secs_f64((bytes - at_once) as f64 / rate as f64)
}

#[track_caller]
fn assert_takes(name: &str, took: Duration, bytes: u64, rate: u64) {
    let exact = bytes as f64 / rate as f64;
    eprintln!("{name}: {bytes} bytes in {took:.2?}, exactly {exact:.2} s");
    assert!(took >= least(bytes, rate), "{name}: {took:.2?}, exactly {exact:.2} s");
    assert!(took.as_secs_f64() < 3.0 * exact + 5.0, "{name}: {took:.2?}, exactly {exact:.2} s");
}

#[test]
fn a_large_file_takes_as_long_as_the_bandwidth_says_with_no_more_connections_than_at_first() {
    let tree = of_one(80 * MIB, 1);
    let (hub, volume) = (FakeHub::serving(REPO, tree.clone()), Volume::in_memory());
    let mut command = fetch(&hub, &volume, &["hf://org/tiny", "--bandwidth", "128Mbit/s"]);
    let started = Instant::now();
    let running = command.args(["--min-rate", "15MB"]).start();
    let sent = || {
        std::thread::sleep(Duration::from_millis(2_000));
        (hub.bytes_sent_for("xet-bridge"), started.elapsed())
    };
    let (first, second) = (sent(), sent());
    running.wait().assert_success();
    // By the record of the server, which counts what is in the buffers of the kernels.
    let rate = (second.0 - first.0) as f64 / (second.1 - first.1).as_secs_f64();
    eprintln!("sent in between: {:.3} MB/s", rate / 1e6);
    assert!(rate < 16e6 * 1.1, "{rate}");
    assert_takes("one file", started.elapsed(), 80 * MIB, 16_000_000);
    volume.assert_holds("tiny", &tree);
    assert_eq!(hub.bytes_sent_for("xet-bridge"), 80 * MIB);
    let cdn = hub.requests().into_iter().filter(|it| it.origin == "cdn");
    let connections: std::collections::BTreeSet<_> = cdn.map(|it| it.connection).collect();
    assert!(connections.len() <= 5, "{connections:?}");
}

#[test]
fn several_models_share_the_bandwidth() {
    let repos = FakeHub::builder().repo("org/a", of_one(40 * MIB, 1));
    let hub = repos.repo("org/b", of_one(40 * MIB, 2)).start();
    let volume = Volume::in_memory();
    let mut command = fetch_listed(&hub, &volume, &["org/a", "org/b"]);
    let started = Instant::now();
    command.env("WEIGHTLIFT_BANDWIDTH", "16MB").run().assert_success();
    assert_takes("two models", started.elapsed(), 80 * MIB, 16_000_000);
}

#[test]
fn a_wait_for_the_bandwidth_is_no_stall_no_slow_connection_and_no_low_rate() {
    // Twelve connections, each of which waits for longer than it may be silent, and brings next to nothing.
    let file =
        |tree: Tree, n: u64| tree.with_blob(&format!("{n}.bin"), Blob::synthetic(32 << 10, n));
    let tree = |seed: u64| (seed..seed + 4).fold(Tree::new(), file);
    let models = [("a", 0), ("b", 4), ("c", 8)];
    let repos = models.map(|(name, seed)| (format!("org/{name}"), tree(seed)));
    let hub = repos.into_iter().fold(FakeHub::builder(), |hub, (name, tree)| hub.repo(&name, tree));
    let (hub, volume) = (hub.start(), Volume::in_memory());
    let mut command = fetch_listed(&hub, &volume, &["org/a", "org/b", "org/c"]);
    command.args(["--bandwidth", "64KiB", "--min-rate", "64kB"]);
    command.args(["--stall-timeout", "1s", "--retry-timeout", "2s"]);
    let started = Instant::now();
    let run = command.run().assert_success();
    assert_takes("slow", started.elapsed(), 12 * (32 << 10), 64 << 10);
    for word in ["retrying", "replac", "slow"] {
        assert!(!run.stderr.contains(word), "{word}: {}", run.stderr);
    }
    for (name, seed) in models {
        volume.assert_holds(name, &tree(seed));
    }
    assert_eq!(hub.bytes_sent_for("xet-bridge"), 12 * (32 << 10));
}

#[test]
fn a_stall_is_one_with_a_bandwidth_as_well() {
    let (hub, volume) = (FakeHub::serving(REPO, of_one(2 * MIB, 3)), Volume::in_memory());
    let stall = Fault::StallAfter(MIB, Duration::from_secs(60));
    hub.script(Rule::on("GET", "").at("cdn").times(1).then(stall));
    let arguments = ["hf://org/tiny", "--bandwidth", "1GB", "--stall-timeout", "1s"];
    let running = fetch(&hub, &volume, &arguments).start();
    ends_within(Duration::from_secs(20), running)
        .assert_success()
        .assert_says("sent nothing for 1.0s");
}

#[test]
fn a_wait_for_the_bandwidth_ends_with_the_run() {
    for (name, is_deadline) in [("a signal", false), ("a deadline", true)] {
        let tree = of_one(24 * MIB, 4);
        let (hub, volume) = (FakeHub::serving(REPO, tree.clone()), Volume::in_memory());
        let mut command = fetch(&hub, &volume, &["hf://org/tiny", "--bandwidth", "64KiB"]);
        if is_deadline {
            command.args(["--deadline", "3s"]);
        }
        let running = command.start();
        eventually(name, || hub.bytes_sent_for("xet-bridge") > 0);
        std::thread::sleep(Duration::from_secs(2));
        if !is_deadline {
            running.signal("-TERM");
        }
        let code = if is_deadline { 23 } else { 143 };
        let run = ends_within(Duration::from_secs(7), running).assert_code(code);
        assert!(!run.stderr.contains("retrying"), "{name}: {}", run.stderr);
        // What has come is kept.
        hub.log().clear();
        fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
        volume.assert_holds("tiny", &tree);
        assert!(hub.bytes_sent_for("xet-bridge") < 24 * MIB, "{name}");
    }
}

#[test]
fn a_mirror_reads_and_sends_with_the_bandwidth_each() {
    let tree = of_one(12 * MIB, 5);
    let s3 = FakeS3::builder().bucket("models").credentials(ACCESS_KEY, SECRET_KEY);
    let s3 = s3.writable(Writes::default()).start();
    let (hub, volume) = (FakeHub::serving(REPO, tree.clone()), Volume::in_memory());
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    let timed = |name, arguments: &[&str]| {
        let mut command = weightlift();
        command.arg("mirror").args(arguments).args(["--bandwidth", "4MB"]);
        command.args(["--s3-path-style", "--s3-endpoint", &s3.url()]);
        command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
        command.env("AWS_REGION", "us-east-1").env("HF_ENDPOINT", hub.url());
        let started = Instant::now();
        command.run().assert_success();
        assert_takes(name, started.elapsed(), 12 * MIB, 4_000_000);
    };
    // From a disk, whose bytes do not come over the network.
    let from = format!("file://{}", volume.family("tiny").display());
    timed("sent", &[&from, "s3://models/m/"]);
    timed("read", &["--check", "--deep", "s3://models/m/"]);
    timed("both", &["hf://org/tiny", "s3://models/n/"]);
}

#[test]
fn what_pin_reads_for_a_digest_is_limited() {
    // Not in LFS, so that the Hub publishes no SHA-256 of it.
    let tree = Tree::new().with("tokenizer.json", "x".repeat(3_000_000));
    let (hub, volume) = (FakeHub::serving(REPO, tree), Volume::in_memory());
    let mut command = weightlift();
    command.args(["pin", "hf://org/tiny", "--bandwidth", "1MB", "--locked"]);
    command.arg(volume.path("models.lock")).env("HF_ENDPOINT", hub.url());
    let started = Instant::now();
    command.run().assert_success();
    assert_takes("pin", started.elapsed(), 3_000_000, 1_000_000);
}

#[test]
fn a_file_of_this_machine_is_not_limited() {
    let tree = of_one(64 * MIB, 6);
    let (hub, volume) = (FakeHub::serving(REPO, tree.clone()), Volume::in_memory());
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    let (other, from) =
        (Volume::in_memory(), format!("file://{}", volume.family("tiny").display()));
    // It would take a quarter of an hour.
    let running = fetch(&hub, &other, &[&from, "m", "--bandwidth", "64KiB"]).start();
    ends_within(Duration::from_secs(60), running).assert_success();
    other.assert_holds("m", &tree);
}

#[test]
fn a_bandwidth_that_is_not_clear_or_below_the_least_rate_is_a_usage_error() {
    let (hub, volume) = (hub_of_tiny(), Volume::in_memory());
    for (arguments, said) in [
        (&["--bandwidth", "2Gb"][..], "does not say whether it is bits or bytes"),
        (&["--bandwidth", "0"], "bits or bytes"),
        (&["--bandwidth", "1kB"], "too small"),
        (&["--bandwidth", "9999TB"], "too large"),
        (
            &["--bandwidth", "8Mbit", "--min-rate", "2MB"],
            "--min-rate is 2.0 MB/s and --bandwidth 1.0 MB/s",
        ),
    ] {
        let run = fetch(&hub, &volume, &[&["hf://org/tiny"], arguments].concat()).run();
        run.assert_code(2).assert_says(said);
    }
    assert!(hub.requests().is_empty());
}
