//! Who waits for whom, for how long, and what a holder that comes back may do.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::process::*;
use crate::support::*;
use weightlift_fakes::{Blob, FakeHub, FakeS3, Fault, Rule, Tree};

const MIB: u64 = 1 << 20;

fn tree() -> Tree {
    Tree::new().with("config.json", "{}").with_blob("big.bin", Blob::synthetic(24 * MIB, 2))
}

fn hub() -> FakeHub {
    FakeHub::serving(REPO, tree())
}

fn drip(hub: &FakeHub, bytes_per_second: u64) {
    hub.script(Rule::on("GET", "").at("cdn").then(Fault::Drip { bytes_per_second }));
}

fn sent(hub: &FakeHub) -> u64 {
    hub.bytes_sent_for("xet-bridge")
}

/// `command` where locks keep nobody out and the filesystem could be one that many nodes share.
fn with_locks_of_one_node(command: &Command) -> Command {
    straced(command, "flock,fstatfs", &["flock:retval=0", "fstatfs:error=ENOSYS"])
}

#[test]
fn a_holder_that_was_killed_is_followed_within_two_seconds() {
    let (hub, volume) = (hub(), Volume::new());
    drip(&hub, MIB);
    let arguments = ["hf://org/tiny", "--chunk-size", "1MiB", "--connections", "2"];
    let mut holder = fetch(&hub, &volume, &arguments).start();
    for _ in 0..4 {
        let before = sent(&hub);
        eventually("the holder fetches", || sent(&hub) > before + MIB);
        let waiter = fetch(&hub, &volume, &arguments).start();
        std::thread::sleep(Duration::from_millis(1_500));
        let (asked, killed) = (hub.requests().len(), Instant::now());
        holder.signal("-KILL");
        assert_eq!(holder.wait().code, -1);
        let next = || hub.requests().into_iter().skip(asked).find(|it| it.origin == "hub");
        eventually("the waiter goes on", || next().is_some());
        let gap = next().unwrap().at.duration_since(killed);
        eprintln!("followed after {gap:?}");
        // Two seconds, and as much again for a machine that is busy.
        assert!(gap < Duration::from_secs(4), "{gap:?}");
        holder = waiter;
    }
    hub.clear_script();
    holder.wait().assert_success().assert_says("are here already");
    volume.assert_holds("tiny", &tree());
    volume.assert_clean();
}

#[test]
fn whoever_has_waited_asks_the_source_again() {
    let (hub, volume) = (hub(), Volume::new());
    let of = |n: u64| tree().with("config.json", n.to_string()).with_blob("big.bin", blob(n));
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    hub.move_branch(REPO, "main", of(1));
    drip(&hub, MIB);
    let before = sent(&hub);
    let holder = fetch(&hub, &volume, &["hf://org/tiny"]).start();
    eventually("the holder fetches", || sent(&hub) > before + MIB);
    let asked = hub.count("*", "/revision/");
    let waiter = fetch(&hub, &volume, &["hf://org/tiny"]).start();
    eventually("the waiter has asked", || hub.count("*", "/revision/") > asked);
    std::thread::sleep(Duration::from_millis(500));
    // By now it knows of a revision that nobody wants any more.
    hub.move_branch(REPO, "main", of(2));
    holder.signal("-KILL");
    holder.wait();
    hub.clear_script();
    waiter.wait().assert_success();
    volume.assert_holds("tiny", &of(2));
}

fn blob(n: u64) -> Blob {
    Blob::synthetic(24 * MIB, n)
}

#[test]
fn objects_that_were_replaced_while_somebody_waited_are_listed_again() {
    let (key, volume) = ("llama/big.bin", Volume::new());
    let s3 = FakeS3::builder().bucket("models").object("models", key, blob(1));
    let s3 = s3.credentials(ACCESS_KEY, SECRET_KEY).start();
    let fetched = || fetch_s3(&s3, &volume, &["s3://models/llama/"]);
    fetched().run().assert_success();
    s3.overwrite("models", key, blob(2));
    let slow = Fault::Drip { bytes_per_second: MIB };
    s3.script(Rule::on("GET", "big.bin").then(slow));
    let before = s3.bytes_sent_for("big.bin");
    let holder = fetched().start();
    eventually("the holder fetches", || s3.bytes_sent_for("big.bin") > before + MIB);
    let listed = s3.count("GET", "list-type");
    let waiter = fetched().start();
    eventually("the waiter has listed", || s3.count("GET", "list-type") > listed);
    std::thread::sleep(Duration::from_millis(500));
    s3.overwrite("models", key, blob(3));
    holder.signal("-KILL");
    holder.wait();
    s3.clear_script();
    waiter.wait().assert_success();
    volume.assert_holds("llama", &Tree::new().with_blob("big.bin", blob(3)));
}

#[test]
fn what_another_one_was_still_fetching_is_no_conflict_with_what_is_expected() {
    let (hub, volume) = (hub(), Volume::new());
    drip(&hub, 4 * MIB);
    let holder = fetch(&hub, &volume, &["hf://org/tiny"]).start();
    eventually("the holder fetches", || sent(&hub) > MIB);
    let new = tree().with("config.json", "[]");
    let commit = hub.move_branch(REPO, "main", new.clone());
    let waiter = fetch(&hub, &volume, &["hf://org/tiny", "--expect-revision", &commit]).start();
    holder.wait().assert_success();
    waiter.wait().assert_success().assert_says("waiting for ");
    volume.assert_holds("tiny", &new);
}

#[test]
fn the_usual_patience_with_a_frozen_holder_is_a_minute() {
    let help = weightlift().args(["fetch", "--help"]).run().assert_success().stdout;
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let (_, flag) = help.split_once("--takeover-after").unwrap();
    let (flag, _) = flag.split_once("--takeover-rate").unwrap();
    assert!(flag.contains("[default: 60s]"), "{flag}");
}

/// What a server that has the files open would notice.
fn inodes(family: &Path) -> BTreeMap<String, (u64, i64, i64)> {
    let of = |name: &String| {
        let meta = std::fs::metadata(family.join(name)).unwrap();
        (meta.ino(), meta.mtime(), meta.mtime_nsec())
    };
    files_below(family).into_keys().map(|name| (name.clone(), of(&name))).collect()
}

/// Freezes a holder with eight waiters behind it, and thaws it when they are done.
#[track_caller]
fn outlive_a_frozen_holder(freeze: impl Fn(i32), thaw: impl Fn(i32)) {
    let (hub, volume) = (hub(), Volume::new());
    drip(&hub, MIB);
    let holder = fetch(&hub, &volume, &["hf://org/tiny", "--chunk-size", "1MiB"]).start();
    eventually("the holder fetches", || sent(&hub) > 3 * MIB);
    let pid = holder.pid();
    freeze(pid);
    // A frozen process cannot even be killed: it must not stay so if this fails.
    let frozen = Frozen(|| thaw(pid));
    // Less than the time between two beats, so that the progress of one does not hold back the others.
    let arguments = ["hf://org/tiny", "--connections", "4", "--takeover-after", "1s"];
    let waiters: Vec<_> = (0..8).map(|_| fetch(&hub, &volume, &arguments).start()).collect();
    let runs: Vec<_> = waiters.into_iter().map(|it| it.wait().assert_success()).collect();
    let extra = runs.iter().filter(|run| run.stderr.contains("fetching as well")).count();
    assert!((1..=2).contains(&extra), "{extra} have taken over");
    // The holder's own, and what is taken over from it, beside the two.
    let all = sent(&hub);
    assert!(all <= 3 * 24 * MIB + 8 * MIB, "{all} bytes");
    volume.assert_holds("tiny", &tree());
    let before = inodes(&volume.family("tiny"));
    drop(frozen);
    let zombie = ends_within(Duration::from_secs(60), holder);
    let zombie = zombie.assert_success();
    assert!(zombie.stderr.contains("another process published it first"), "{}", zombie.stderr);
    assert_eq!(inodes(&volume.family("tiny")), before);
    volume.assert_holds("tiny", &tree());
    weightlift().arg("verify").arg(volume.family("tiny")).run().assert_success();
}

/// Thaws what is frozen when dropped.
struct Frozen<F: Fn()>(F);

impl<F: Fn()> Drop for Frozen<F> {
    fn drop(&mut self) {
        self.0();
    }
}

#[test]
fn of_many_waiters_at_most_two_take_over_from_a_stopped_holder() {
    outlive_a_frozen_holder(|pid| assert!(signal(pid, "-STOP")), |pid| _ = signal(pid, "-CONT"));
}

#[test]
fn of_many_waiters_at_most_two_take_over_from_a_holder_in_a_frozen_cgroup() {
    if !is_root() {
        return;
    }
    let Some(freezer) = Freezer::new() else { return };
    let freeze = |pid| {
        freezer.take(pid);
        freezer.freeze();
    };
    outlive_a_frozen_holder(freeze, |_| freezer.thaw());
}

#[test]
fn a_heartbeat_of_another_node_is_respected_by_whoever_has_the_lock() {
    if !is_root() || !has("strace") || !has("unshare") {
        return;
    }
    let (hub, volume) = (hub(), Volume::new());
    drip(&hub, MIB / 2);
    let arguments = ["hf://org/tiny", "--chunk-size", "1MiB", "--connections", "4"];
    let far = Node::new(&volume, "far");
    let holder = far.run(&fetch(&hub, &volume, &arguments)).start();
    eventually("the holder fetches", || sent(&hub) > MIB);
    let waiter = with_locks_of_one_node(&fetch(&hub, &volume, &arguments)).run().assert_success();
    assert!(waiter.stderr.contains("for pod pod-of-far on node far"), "{}", waiter.stderr);
    assert!(waiter.stderr.contains("nothing to do"), "{}", waiter.stderr);
    holder.wait().assert_success();
    assert!(sent(&hub) <= 24 * MIB + MIB / 2, "{} bytes", sent(&hub));
    volume.assert_holds("tiny", &tree());
    volume.assert_clean();
}

#[test]
fn a_heartbeat_of_another_node_that_has_stopped_is_not_waited_for_much_longer() {
    if !is_root() || !has("strace") || !has("unshare") {
        return;
    }
    let (hub, volume) = (hub(), Volume::new());
    drip(&hub, 2 * MIB);
    let arguments = ["hf://org/tiny", "--chunk-size", "1MiB", "--connections", "4"];
    let far = Node::new(&volume, "far");
    let holder = far.run(&fetch(&hub, &volume, &arguments)).start();
    eventually("the holder fetches", || sent(&hub) > 3 * MIB);
    holder.signal("-KILL");
    holder.wait();
    hub.clear_script();
    let started = Instant::now();
    let run = with_locks_of_one_node(&fetch(&hub, &volume, &arguments)).run().assert_success();
    // Two beats are certainty; a minute is the patience with a holder that has a lock.
    assert!(started.elapsed() < Duration::from_secs(40), "{:?}", started.elapsed());
    assert!(run.stderr.contains("waiting for "), "{}", run.stderr);
    assert!(run.stderr.contains("are here already"), "{}", run.stderr);
    volume.assert_holds("tiny", &tree());
}

#[test]
fn on_a_local_disk_nobody_waits_for_a_holder_of_an_earlier_boot() {
    if !is_root() || !has("unshare") {
        return;
    }
    let (hub, volume) = (hub(), Volume::new());
    drip(&hub, 2 * MIB);
    let before = Node::new(&volume, "before-the-reboot");
    let holder = before.run(&fetch(&hub, &volume, &["hf://org/tiny"])).start();
    eventually("the holder fetches", || sent(&hub) > MIB);
    holder.signal("-KILL");
    holder.wait();
    assert_eq!(heartbeat(&volume, "tiny")["writer"]["node"], "before-the-reboot");
    hub.clear_script();
    let run = fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    assert!(!run.stderr.contains("waiting"), "{}", run.stderr);
    volume.assert_holds("tiny", &tree());
}

#[test]
fn without_locks_a_heartbeat_saves_the_second_download() {
    if !has("strace") {
        return;
    }
    let (hub, volume) = (hub(), Volume::new());
    drip(&hub, 2 * MIB);
    let start = |arguments: &[&str]| {
        let command = fetch(&hub, &volume, arguments);
        straced(&command, "flock", &["flock:error=ENOLCK"]).start()
    };
    let first = start(&["hf://org/tiny", "--chunk-size", "1MiB"]);
    eventually("the first fetches", || sent(&hub) > MIB);
    let second = start(&["hf://org/tiny"]).wait().assert_success();
    assert_eq!(second.stderr.matches("no usable locks").count(), 1, "{}", second.stderr);
    first.wait().assert_success();
    assert!(sent(&hub) <= 24 * MIB + MIB / 2, "{} bytes", sent(&hub));
    volume.assert_holds("tiny", &tree());
    volume.assert_clean();
}

#[test]
fn without_locks_a_holder_that_is_frozen_is_not_waited_for() {
    if !has("strace") {
        return;
    }
    let (hub, volume) = (hub(), Volume::new());
    drip(&hub, MIB);
    let none = ["flock:error=ENOLCK"];
    let command = fetch(&hub, &volume, &["hf://org/tiny", "--chunk-size", "1MiB"]);
    let zombie = straced(&command, "flock", &none).start();
    eventually("the first fetches", || sent(&hub) > 3 * MIB);
    let pid = worker_on(&volume);
    assert!(signal(pid, "-STOP"));
    hub.clear_script();
    let command = fetch(&hub, &volume, &["hf://org/tiny"]);
    straced(&command, "flock", &none).run().assert_success();
    volume.assert_holds("tiny", &tree());
    assert!(signal(pid, "-CONT"));
    let zombie = ends_within(Duration::from_secs(60), zombie);
    assert!(matches!(zombie.code, 0 | 20..=23), "{}: {}", zombie.code, zombie.stderr);
    volume.assert_holds("tiny", &tree());
    weightlift().arg("verify").arg(volume.family("tiny")).run().assert_success();
}

#[test]
fn waiters_learn_of_a_refusal_one_after_the_other_but_soon() {
    let (hub, volume) = (hub(), Volume::new());
    hub.script(
        Rule::on("*", "").then(Fault::Delay(Duration::from_millis(300))).then(Fault::status(401)),
    );
    let started = Instant::now();
    let runs: Vec<_> = (0..8).map(|_| fetch(&hub, &volume, &["hf://org/tiny"]).start()).collect();
    for run in runs {
        run.wait().assert_code(11);
    }
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    assert!(hub.requests().len() <= 16, "{} requests", hub.requests().len());
}

#[test]
fn a_holder_that_wakes_fetches_nothing_that_another_has_published_meanwhile() {
    wakes(Answers::Slow);
}

/// A hundred chunks of a fast source could come before the process looks.
#[test]
fn a_holder_that_wakes_asks_a_fast_source_for_nothing_before_it_has_looked() {
    if has("strace") {
        wakes(Answers::FastOnceItWakes);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Answers {
    Slow,
    FastOnceItWakes,
}

fn wakes(answers: Answers) {
    let tree = match answers {
        Answers::Slow => tree(),
        Answers::FastOnceItWakes => tree().with_blob("big.bin", Blob::synthetic(160 * MIB, 2)),
    };
    let (hub, volume) = (FakeHub::serving(REPO, tree.clone()), Volume::new());
    drip(&hub, MIB);
    // Each answer is sent within a second, whoever reads it.
    let arguments =
        ["hf://org/tiny", "--connections", "4", "--chunk-size", "1MiB", "--output", "json"];
    let command = fetch(&hub, &volume, &arguments);
    let holder = match answers {
        Answers::Slow => command,
        // As from a file server that takes its time.
        Answers::FastOnceItWakes => {
            straced(&command, "readlinkat", &["readlinkat:delay_enter=50000"])
        }
    };
    let holder = { holder }.start();
    eventually("the holder fetches", || sent(&hub) > 3 * MIB);
    let pid = worker_on(&volume);
    assert!(signal(pid, "-STOP"));
    let frozen = Frozen(|| _ = signal(pid, "-CONT"));
    if answers == Answers::FastOnceItWakes {
        hub.clear_script();
    }
    // Longer than any takeover takes where nobody has asked for an early one.
    std::thread::sleep(Duration::from_secs(6));
    let takeover = ["hf://org/tiny", "--takeover-after", "1s"];
    fetch(&hub, &volume, &takeover).run().assert_success().assert_says("fetching as well");
    let before = inodes(&volume.family("tiny"));
    let was_sent = (sent(&hub), hub.requests().len());
    drop(frozen);
    let run = ends_within(Duration::from_secs(30), holder).assert_success();
    let run = run.assert_says("another process published it first");
    // What each of the four connections was at comes to its end. At least 20 MiB were left.
    let more = (sent(&hub) - was_sent.0, hub.requests().len() - was_sent.1);
    assert!(more.0 <= 4 * MIB && more.1 <= 4, "{more:?}: it has asked for more");
    let told: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(told["status"], "present");
    assert!(told["fetched_bytes"].as_u64().unwrap() > MIB, "what it has fetched is not hidden");
    assert_eq!(inodes(&volume.family("tiny")), before);
    volume.assert_holds("tiny", &tree);
    volume.assert_clean();
}

#[test]
fn whoever_has_taken_over_ends_when_the_holder_has_published_after_all() {
    // Two ways to the same repo, so that one can be slow.
    let (fast, slow, volume) = (hub(), hub(), Volume::new());
    drip(&fast, 2 * MIB);
    drip(&slow, MIB / 4);
    let holder = fetch(&fast, &volume, &["hf://org/tiny", "--chunk-size", "1MiB"]).start();
    eventually("the holder fetches", || sent(&fast) > 3 * MIB);
    holder.signal("-STOP");
    let takeover = ["hf://org/tiny", "--takeover-after", "1s", "--connections", "2"];
    let waiter = fetch(&slow, &volume, &takeover).start();
    eventually("the waiter fetches as well", || sent(&slow) > 0);
    holder.signal("-CONT");
    fast.clear_script();
    holder.wait().assert_success();
    let run = ends_within(Duration::from_secs(30), waiter).assert_success();
    run.assert_says("fetching as well").assert_says("another process published it first");
    assert!(sent(&slow) < 12 * MIB, "{} bytes", sent(&slow));
    volume.assert_holds("tiny", &tree());
    volume.assert_clean();
}

#[test]
fn a_holder_that_waits_out_an_outage_ends_when_another_has_published() {
    let (away, well, volume) = (hub(), hub(), Volume::new());
    away.script(Rule::on("GET", "").at("cdn").then(Fault::status(503)));
    let outage = ["hf://org/tiny", "--retry-timeout", "10m"];
    let holder = fetch(&away, &volume, &outage).start();
    eventually("the holder has failed once", || away.count("GET", "xet-bridge") > 0);
    fetch(&well, &volume, &["hf://org/tiny", "--takeover-after", "1s"])
        .run()
        .assert_success()
        .assert_says("fetching as well");
    let run = ends_within(Duration::from_secs(30), holder).assert_success();
    run.assert_says("another process published it first");
    volume.assert_holds("tiny", &tree());
    volume.assert_clean();
}

#[test]
fn another_revision_that_is_published_meanwhile_ends_no_fetch_of_a_pin() {
    let (old, new, volume) = (hub(), hub(), Volume::new());
    let pin = old.commit(REPO);
    drip(&old, 4 * MIB);
    let holder = fetch(&old, &volume, &[&format!("hf://org/tiny@{pin}")]).start();
    eventually("the holder fetches", || sent(&old) > 3 * MIB);
    holder.signal("-STOP");
    let commit = new.move_branch(REPO, "main", tree().with("config.json", "[]"));
    let source = format!("hf://org/tiny@{commit}");
    fetch(&new, &volume, &[&source, "--takeover-after", "1s"]).run().assert_success();
    holder.signal("-CONT");
    let run = holder.wait().assert_success();
    assert!(!run.stderr.contains("another process published it first"), "{}", run.stderr);
    volume.assert_holds("tiny", &tree());
    volume.assert_clean();
}

#[test]
fn an_older_revision_that_is_published_meanwhile_ends_no_fetch_of_a_branch() {
    let (old, new, volume) = (hub(), hub(), Volume::new());
    drip(&old, 4 * MIB);
    let holder = fetch(&old, &volume, &["hf://org/tiny"]).start();
    eventually("the holder fetches", || sent(&old) > 3 * MIB);
    holder.signal("-STOP");
    let newer =
        tree().with("config.json", "[]").with_blob("other.bin", Blob::synthetic(8 * MIB, 9));
    let commit = new.move_branch(REPO, "main", newer.clone());
    drip(&new, MIB / 2);
    let arguments = ["hf://org/tiny", "--takeover-after", "1s", "--output", "json"];
    let waiter = fetch(&new, &volume, &arguments).start();
    eventually("the waiter fetches the newer revision", || sent(&new) > 0);
    old.clear_script();
    holder.signal("-CONT");
    holder.wait().assert_success();
    let shown = std::fs::read_to_string(volume.family("tiny").join(".weightlift-complete.json"));
    assert!(!shown.unwrap().contains(&commit), "the holder has published what it began with");
    new.clear_script();
    let run = waiter.wait().assert_success();
    assert!(!run.stderr.contains("another process published it first"), "{}", run.stderr);
    let told: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(told["revision"], commit);
    volume.assert_holds("tiny", &newer);
}
