//! Every wait, and the whole run, has an end that the user can set; and a holder that is honest is given
//! the time that it needs.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::cluster::FakeCluster;
use crate::support::process::*;
use crate::support::*;
use weightlift_fakes::{Blob, FakeHub, Fault, Rule, Tree};

const MIB: u64 = 1 << 20;
/// What a deadline leaves for saving the state or for a volume that hangs, and as much again for a machine
/// that is busy.
const TO_END: Duration = Duration::from_secs(40);

fn tree() -> Tree {
    Tree::new().with("config.json", "{}").with_blob("big.bin", Blob::synthetic(24 * MIB, 9))
}

fn hub() -> FakeHub {
    FakeHub::serving(REPO, tree())
}

fn drip(hub: &FakeHub, bytes_per_second: u64) {
    hub.script(Rule::on("GET", "").at("cdn").then(Fault::Drip { bytes_per_second }));
}

fn hang(hub: &FakeHub, path: &'static str) {
    hub.script(Rule::on("*", path).then(Fault::HangBeforeHeaders(Duration::from_secs(300))));
}

fn sent(hub: &FakeHub) -> u64 {
    hub.bytes_sent_for("xet-bridge")
}

/// A run that is out of time says so, and what it was doing.
#[track_caller]
fn assert_out_of_time(run: &Run, doing: &str) {
    assert_eq!(run.code, 23, "{}", run.stderr);
    // A tracer may have something to say after that.
    let last = run.stderr.lines().rfind(|line| line.starts_with("error: "));
    let last = last.unwrap_or_else(|| panic!("{}", run.stderr));
    assert!(last.contains(" expired while "), "{}", run.stderr);
    assert!(last.contains(doing) && last.ends_with("[exit 23, deadline]"), "{}", run.stderr);
}

/// The next run finds the lock free and the model or its bytes: at most `again` are fetched.
#[track_caller]
fn resumes(hub: &FakeHub, volume: &Volume, again: u64) {
    hub.clear_script();
    let before = sent(hub);
    let run = fetch(hub, volume, &["hf://org/tiny"]).run().assert_success();
    assert!(!run.stderr.contains("waiting for"), "{}", run.stderr);
    volume.assert_holds("tiny", &tree());
    volume.assert_clean();
    assert!(sent(hub) - before <= again, "{} bytes were fetched again", sent(hub) - before);
}

// The whole run

#[test]
fn a_deadline_ends_a_run_that_resolves_and_leaves_a_termination_message() {
    let (hub, volume) = (hub(), Volume::new());
    hang(&hub, "");
    let log = volume.path("termination-log");
    std::fs::write(&log, "").unwrap();
    let mut command = fetch(&hub, &volume, &["hf://org/tiny", "--deadline", "1500ms"]);
    let run = command.env("WEIGHTLIFT_TERMINATION_LOG", &log).run();
    assert_out_of_time(&run, "--deadline of 1.5s expired while resolving hf://org/tiny");
    let told = std::fs::read_to_string(&log).unwrap();
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!((&told["code"], &told["class"]), (&23.into(), &"deadline".into()));
    assert!(told["message"].as_str().unwrap().contains("resolving hf://org/tiny"), "{told}");
    // From the environment, and between the retries of a Hub that refuses.
    hub.clear_script();
    hub.script(Rule::on("*", "").then(Fault::status(503)));
    let run = fetch(&hub, &volume, &["hf://org/tiny"]).env("WEIGHTLIFT_DEADLINE", "3s").run();
    assert_out_of_time(&run, "resolving hf://org/tiny");
    resumes(&hub, &volume, 24 * MIB);
}

#[test]
fn a_deadline_ends_a_wait_for_another_fetcher_and_leaves_that_alone() {
    let (hub, volume) = (hub(), Volume::new());
    drip(&hub, 2 * MIB);
    let mut holder = fetch(&hub, &volume, &["hf://org/tiny", "--connections", "2"]);
    let holder = holder.env("POD_NAME", "holder-7").start();
    eventually("the holder fetches", || sent(&hub) > MIB);
    let run = fetch(&hub, &volume, &["hf://org/tiny", "--deadline", "2s"]).run();
    assert_out_of_time(&run, "while waiting for pod holder-7");
    run.assert_says("; --deadline in ");
    holder.wait().assert_success();
    volume.assert_holds("tiny", &tree());
}

#[test]
fn a_deadline_keeps_what_has_been_fetched() {
    let (hub, volume) = (hub(), Volume::new());
    drip(&hub, MIB / 2);
    let arguments = ["hf://org/tiny", "--chunk-size", "2MiB", "--connections", "4"];
    for _ in 0..2 {
        let run = fetch(&hub, &volume, &arguments).args(["--deadline", "5s"]).run();
        assert_out_of_time(&run, "while fetching hf://org/tiny@main, ");
        assert!(run.last_line().contains(" % of 25.2 MB"), "{}", run.stderr);
        assert_eq!(heartbeat(&volume, "tiny"), serde_json::Value::Null);
    }
    let arrived = sent(&hub);
    assert!(arrived > 4 * MIB, "{arrived} bytes");
    resumes(&hub, &volume, 24 * MIB - arrived + 3 * MIB);
}

#[test]
fn a_deadline_ends_a_run_that_hashes() {
    if !has("strace") {
        return;
    }
    let (hub, volume) = (hub(), Volume::in_memory());
    // Several share the file, so that its hash is a thread's own work, made slow here.
    let arguments = ["hf://org/tiny", "--chunk-size", "1MiB", "--deadline", "8s"];
    let command = fetch(&hub, &volume, &arguments);
    let running = straced(&command, "pread64", &["pread64:delay_enter=1000000"]).start();
    let pid = worker_on(&volume);
    let run = ends_traced_within(TO_END, pid, running);
    assert_out_of_time(&run, "while hashing and syncing hf://org/tiny@main, ");
    resumes(&hub, &volume, 0);
}

/// Runs `command`, which a volume that does not answer keeps from ending by itself.
#[track_caller]
fn ends_although_the_volume_hangs(volume: &Volume, command: &Command, call: &str) -> Run {
    let delay = format!("{call}:delay_enter=120000000");
    let running = straced(command, call, &[&delay]).start();
    let pid = worker_on(volume);
    ends_traced_within(TO_END, pid, running)
}

#[test]
fn a_deadline_ends_a_run_whose_volume_hangs() {
    if !has("strace") {
        return;
    }
    for (call, doing) in [("fsync", "while "), ("flock", "while looking at `")] {
        let (hub, volume) = (hub(), Volume::in_memory());
        let log = volume.path("termination-log");
        std::fs::write(&log, "").unwrap();
        let mut command = fetch(&hub, &volume, &["hf://org/tiny", "--deadline", "3s"]);
        command.env("WEIGHTLIFT_TERMINATION_LOG", &log);
        let run = ends_although_the_volume_hangs(&volume, &command, call);
        assert_out_of_time(&run, doing);
        assert!(std::fs::read_to_string(&log).unwrap().contains("\"code\":23"));
        assert!(!volume.family("tiny").exists());
        resumes(&hub, &volume, 24 * MIB);
    }
}

#[test]
fn at_a_deadline_a_model_is_published_or_it_is_not() {
    if !has("strace") {
        return;
    }
    // Each rename and sync takes its time, so that one of the deadlines is in the middle of them.
    let calls = "renameat,renameat2,fsync";
    let slow = ["renameat,renameat2,fsync:delay_enter=500000"];
    let mut codes = Vec::new();
    for deadline in ["2s", "3s", "4s", "5s", "6s", "8s"] {
        let (hub, volume) = (hub(), Volume::in_memory());
        let command = fetch(&hub, &volume, &["hf://org/tiny", "--deadline", deadline]);
        let running = straced(&command, calls, &slow).start();
        let run = ends_within(TO_END, running);
        assert!(matches!(run.code, 0 | 23), "{deadline}: {}", run.stderr);
        assert_eq!(volume.family("tiny").exists(), run.code == 0, "{deadline}: {}", run.stderr);
        codes.push(run.code);
        resumes(&hub, &volume, 24 * MIB);
    }
    assert!(codes.contains(&23), "{codes:?}");
}

#[test]
fn a_deadline_is_for_all_models_of_a_run() {
    let hub = FakeHub::builder().repo(REPO, tree()).repo("org/b", tiny()).start();
    let volume = Volume::new();
    hang(&hub, "org/b");
    let models = ["hf://org/tiny", "tiny", "hf://org/b", "b"];
    let run = fetch(&hub, &volume, &models).args(["--deadline", "5s"]).run();
    assert_out_of_time(&run, "while resolving hf://org/b@main (1 of 2 models are complete)");
    assert_eq!(run.stdout, format!("{}\n", volume.family("tiny").display()));
    volume.assert_holds("tiny", &tree());
}

#[test]
fn a_deadline_leaves_time_to_use_the_copy_that_is_there() {
    let (hub, volume) = (hub(), Volume::new());
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    hang(&hub, "");
    let run = fetch(&hub, &volume, &["hf://org/tiny", "--deadline", "8s"]).run();
    run.assert_success().assert_says("using the complete copy");
}

#[test]
fn a_deadline_gives_the_lease_back() {
    let (cluster, hub, node) = (FakeCluster::start(), hub(), Volume::new());
    drip(&hub, MIB / 4);
    let mut command =
        fetch(&hub, &node, &["hf://org/tiny", "--lock", "kubernetes", "--deadline", "4s"]);
    cluster.tell(&mut command, &node.path("account"));
    let run = command.env("POD_NAME", "pod-a").run();
    assert_out_of_time(&run, "while fetching hf://org/tiny");
    assert!(cluster.lease("weightlift-tiny").is_some(), "it was never held");
    assert_eq!(cluster.holder("weightlift-tiny"), None);
}

#[test]
fn a_deadline_that_is_far_away_does_nothing_and_one_of_zero_is_a_mistake() {
    let (hub, volume) = (hub(), Volume::new());
    fetch(&hub, &volume, &["hf://org/tiny", "--deadline", "500d"]).run().assert_success();
    fetch(&hub, &volume, &["hf://org/tiny", "--deadline", "9999999999999d"]).run().assert_code(2);
    fetch(&hub, &volume, &["hf://org/tiny", "--deadline", "100000000000d"]).run().assert_success();
    for wrong in ["0s", "soon", "-1s"] {
        let deadline = format!("--deadline={wrong}");
        fetch(&hub, &volume, &["hf://org/tiny", &deadline]).run().assert_code(2);
    }
    fetch(&hub, &volume, &["hf://org/tiny"]).env("WEIGHTLIFT_DEADLINE", "").run().assert_success();
}

#[test]
fn verify_has_a_deadline_and_says_how_far_it_was() {
    if !has("strace") {
        return;
    }
    let (hub, volume) = (hub(), Volume::in_memory());
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    let mut command = weightlift();
    command.arg("verify").arg(volume.family("tiny")).args(["--deadline", "2s"]);
    let running = straced(&command, "pread64", &["pread64:delay_enter=300000"]).start();
    let pid = worker_on(&volume);
    let run = ends_traced_within(TO_END, pid, running);
    assert_out_of_time(&run, "while verifying `");
    assert!(run.last_line().contains(" % of 25.2 MB"), "{}", run.stderr);
    assert!(!run.stderr.contains("bad"), "{}", run.stderr);
}

#[test]
fn what_verify_has_found_does_not_get_lost_at_its_deadline() {
    if !has("strace") {
        return;
    }
    let hub = FakeHub::builder().repo(REPO, tree()).repo("org/b", tiny()).start();
    let volume = Volume::in_memory();
    let models = ["hf://org/tiny", "tiny", "hf://org/b", "b"];
    fetch(&hub, &volume, &models).run().assert_success();
    let (first, second) = (volume.family("b"), volume.family("tiny"));
    std::fs::remove_file(first.join("config.json")).unwrap();
    let mut command = weightlift();
    command.arg("verify").args([&first, &second]).args(["--deadline", "8s"]);
    let running = straced(&command, "pread64", &["pread64:delay_enter=300000"]).start();
    let pid = worker_on(&volume);
    let run = ends_traced_within(TO_END, pid, running).assert_code(12);
    run.assert_says("is damaged in 1 of").assert_says("while verifying `");
}

#[test]
fn wait_ends_although_the_volume_hangs() {
    if !has("strace") {
        return;
    }
    let (hub, volume) = (hub(), Volume::in_memory());
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    let mut command = weightlift();
    command.arg("wait").arg(volume.family("tiny")).args(["--timeout", "1s"]);
    // The open of the directory, as on a mount whose server is gone.
    let path = volume.family("tiny").display().to_string();
    let hangs = ["-e", "trace=openat", "-e", "inject=openat:delay_enter=120000000"];
    let strace = [&["strace", "-f", "-qq", "-o", "/dev/null", "-P", &path], &hangs[..]].concat();
    let running = under(&strace, &command).start();
    let pid = worker_on(&volume);
    let run = ends_traced_within(TO_END, pid, running);
    assert_out_of_time(&run, "--timeout of 1.0s expired while looking at `");
    let deadline = |path: &Path| {
        let mut command = weightlift();
        command.arg("wait").arg(path).args(["--deadline", "300ms"]).run()
    };
    deadline(&volume.family("absent")).assert_code(23).assert_says("does not exist");
}

// The wait for a holder

#[test]
fn a_holder_that_moves_is_waited_for_beyond_the_lock_timeout() {
    let (hub, volume) = (hub(), Volume::new());
    drip(&hub, MIB / 2);
    let arguments = ["hf://org/tiny", "--chunk-size", "1MiB", "--connections", "3"];
    let holder = fetch(&hub, &volume, &arguments).start();
    eventually("the holder fetches", || sent(&hub) > MIB);
    let waits = Instant::now();
    let waiter = fetch(&hub, &volume, &["hf://org/tiny", "--lock-timeout", "2s"]).run();
    let waiter = waiter.assert_success();
    assert!(waits.elapsed() > Duration::from_secs(11), "the holder was too fast to show anything");
    waiter.assert_says("; no progress for ").assert_says("giving up in ");
    holder.wait().assert_success();
    assert!(sent(&hub) <= 24 * MIB + MIB / 2, "{} bytes", sent(&hub));
}

#[test]
fn a_holder_that_does_not_move_is_given_up_on_where_nobody_may_take_over() {
    let (hub, volume) = (hub(), Volume::new());
    drip(&hub, MIB);
    let holder = fetch(&hub, &volume, &["hf://org/tiny", "--chunk-size", "1MiB"]).start();
    eventually("the holder fetches", || sent(&hub) > 3 * MIB);
    holder.signal("-STOP");
    let arguments = ["hf://org/tiny", "--lock-timeout", "12s", "--takeover-after", "1h"];
    let run = fetch(&hub, &volume, &arguments).run().assert_code(23);
    let last = run.last_line();
    // On a busy machine a second later.
    let told = ["12s", "13s"].map(|time| format!("no progress for {time}; raise --lock-timeout"));
    assert!(told.iter().any(|told| last.contains(told)), "{last}");
    // Who does not want to wait at all is told at once who is in the way.
    let run = fetch(&hub, &volume, &["hf://org/tiny", "--lock-timeout", "0s"]).run();
    run.assert_code(23).assert_says(" is fetching this model; raise --lock-timeout");
    holder.signal("-CONT");
    holder.wait().assert_success();
}

/// Four waiters beside a holder that fetches 10 kB/s; how many of them have fetched as well.
#[track_caller]
fn beside_a_slow_holder(arguments: &[&str], until: impl Fn(&FakeHub, &mut [Running])) -> usize {
    let (hub, volume) = (hub(), Volume::new());
    drip(&hub, 5_000);
    let holder = fetch(&hub, &volume, &["hf://org/tiny", "--connections", "2"]).start();
    eventually("the holder fetches", || sent(&hub) > 10_000);
    // What is on its way keeps its rate.
    hub.clear_script();
    let all = [&["hf://org/tiny", "--takeover-after", "7s"], arguments].concat();
    let mut waiters: Vec<_> = (0..4).map(|_| fetch(&hub, &volume, &all).start()).collect();
    until(&hub, &mut waiters);
    if waiters[0].is_running() {
        waiters.iter().for_each(|waiter| waiter.signal("-TERM"));
    }
    let runs = waiters.into_iter().map(Running::wait);
    let extra = runs.filter(|run| run.stderr.contains("; fetching as well")).inspect(|run| {
        let line = run.stderr.lines().find(|line| line.contains("; fetching as well"));
        let line = line.unwrap();
        assert!(line.contains("/s, ") && line.contains(" left; "), "{line}");
    });
    let extra = extra.count();
    holder.signal("-KILL");
    holder.wait();
    extra
}

#[test]
fn of_many_waiters_one_fetches_beside_a_holder_that_is_far_too_slow() {
    let extra = beside_a_slow_holder(&[], |hub, waiters| {
        let waits = Instant::now();
        while waiters.iter_mut().any(Running::is_running) {
            assert!(waits.elapsed() < Duration::from_secs(120), "still waiting");
            std::thread::sleep(Duration::from_millis(100));
        }
        // The holder's two parts, and the one that has fetched everything.
        assert!(sent(hub) < 30 * MIB, "{} bytes", sent(hub));
    });
    assert!((1..=2).contains(&extra), "{extra} have fetched as well");
}

#[test]
fn a_slow_holder_is_waited_for_by_those_who_say_so() {
    let extra = beside_a_slow_holder(&["--takeover-rate", "0"], |_, waiters| {
        std::thread::sleep(Duration::from_secs(50));
        assert!(waiters.iter_mut().all(Running::is_running));
    });
    assert_eq!(extra, 0);
}
