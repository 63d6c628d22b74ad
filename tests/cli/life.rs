//! The life of the process: signals in every phase, what it was started with, and how it ends.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::process::*;
use crate::support::*;
use weightlift_fakes::{Blob, FakeHub, Fault, Rule, Tree};

const MIB: u64 = 1 << 20;
const TO_END: Duration = Duration::from_secs(10);

fn tree() -> Tree {
    Tree::new().with("config.json", "{}").with_blob("big.bin", Blob::synthetic(24 * MIB, 1))
}

/// Volumes here are in memory: no process can end while it waits for a disk that others keep busy.
fn hub() -> FakeHub {
    FakeHub::serving(REPO, tree())
}

fn drip(hub: &FakeHub, bytes_per_second: u64) {
    hub.script(Rule::on("GET", "").at("cdn").then(Fault::Drip { bytes_per_second }));
}

fn sent(hub: &FakeHub) -> u64 {
    hub.bytes_sent_for("xet-bridge")
}

/// Asks the one process on `volume` to end, and waits until it has.
#[track_caller]
fn ask(volume: &Volume, running: Running, which: &str, code: i32) -> Run {
    let pid = worker_on(volume);
    assert!(signal(pid, which));
    let run = ends_traced_within(TO_END, pid, running).assert_code(code);
    eventually("the process is gone", || working_on(volume).is_empty());
    run
}

/// The next run finds the lock free and the model or its bytes: at most `again` are fetched.
#[track_caller]
fn goes_on(hub: &FakeHub, volume: &Volume, again: u64) {
    hub.clear_script();
    let before = sent(hub);
    let run = fetch(hub, volume, &["hf://org/tiny"]).run().assert_success();
    assert!(!run.stderr.contains("waiting"), "{}", run.stderr);
    volume.assert_holds("tiny", &tree());
    volume.assert_clean();
    assert!(sent(hub) - before <= again, "{} bytes were fetched again", sent(hub) - before);
}

#[test]
fn while_waiting_for_the_lock() {
    let (hub, volume) = (hub(), Volume::in_memory());
    drip(&hub, MIB / 2);
    let holder = fetch(&hub, &volume, &["hf://org/tiny", "--chunk-size", "4MiB"]).start();
    eventually("the holder fetches", || sent(&hub) > MIB);
    for (which, code) in [("-TERM", 143), ("-INT", 130), ("-HUP", 143)] {
        let waiter = fetch(&hub, &volume, &["hf://org/tiny"]).start();
        std::thread::sleep(Duration::from_millis(700));
        waiter.signal(which);
        let run = ends_within(TO_END, waiter).assert_code(code);
        assert!(run.stderr.contains("waiting for "), "{}", run.stderr);
        assert!(heartbeat(&volume, "tiny")["sequence"].is_u64());
    }
    hub.clear_script();
    holder.wait().assert_success();
    volume.assert_holds("tiny", &tree());
}

#[test]
fn while_resolving() {
    let (hub, volume) = (hub(), Volume::in_memory());
    for (which, code) in [("-TERM", 143), ("-INT", 130)] {
        hub.log().clear();
        hub.script(Rule::on("*", "").then(Fault::HangBeforeHeaders(Duration::from_secs(60))));
        let running = fetch(&hub, &volume, &["hf://org/tiny"]).start();
        eventually("the Hub is asked", || !hub.requests().is_empty());
        ask(&volume, running, which, code);
    }
    goes_on(&hub, &volume, 24 * MIB);
}

#[test]
fn while_no_name_server_answers() {
    // A black hole is what a new pod often sees before its network is ready.
    if !is_root() || !has("unshare") {
        return;
    }
    let volume = Volume::in_memory();
    let silent = std::net::UdpSocket::bind("127.0.0.77:53").unwrap();
    let resolv = volume.path("resolv.conf");
    std::fs::write(&resolv, "nameserver 127.0.0.77\n").unwrap();
    let mut command = weightlift();
    command.args(["fetch", "--root"]).arg(volume.root()).arg("hf://org/tiny");
    command.env("HF_ENDPOINT", "http://hub.example");
    let mount = format!("mount --bind '{}' /etc/resolv.conf || exit 99", resolv.display());
    let running = under(&["unshare", "--mount"], &in_shell(&mount, &command)).start();
    silent.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    silent.recv(&mut [0; 512]).expect("the name server is asked");
    let asked = Instant::now();
    ask(&volume, running, "-TERM", 143);
    // It is not the bound on a run that does not obey that has ended it.
    assert!(asked.elapsed() < Duration::from_secs(6), "{:?}", asked.elapsed());
}

#[test]
fn while_what_is_left_of_an_earlier_boot_is_checked() {
    if !is_root() || !has("strace") || !has("unshare") {
        return;
    }
    let (hub, volume) = (hub(), Volume::in_memory());
    drip(&hub, 8 * MIB);
    let arguments = ["hf://org/tiny", "--chunk-size", "1MiB", "--connections", "2"];
    let killed = fetch(&hub, &volume, &arguments).start();
    eventually("most arrives", || sent(&hub) > 16 * MIB);
    killed.signal("-KILL");
    killed.wait();
    for (which, code) in [("-TERM", 143), ("-INT", 130)] {
        // Each time a reboot later, and with a disk that takes half a second for 256 KiB.
        let node = Node::new(&volume, which);
        let slow = ["pread64:delay_enter=500000"];
        let command = fetch(&hub, &volume, &arguments);
        let running = node.run(&straced(&command, "pread64", &slow)).start();
        eventually("it has checked something", || {
            let beat = heartbeat(&volume, "tiny");
            beat["phase"] == "reading what is here" && beat["worked_bytes"].as_u64() > Some(0)
        });
        ask(&volume, running, which, code);
    }
    // What had arrived is there still, although nobody has come to its end.
    goes_on(&hub, &volume, 12 * MIB);
}

#[test]
fn while_fetching() {
    let (hub, volume) = (hub(), Volume::in_memory());
    drip(&hub, MIB / 2);
    for (which, code) in [("-HUP", 143), ("-TERM", 143), ("-INT", 130)] {
        let before = sent(&hub);
        let arguments = ["hf://org/tiny", "--chunk-size", "2MiB", "--connections", "4"];
        let running = fetch(&hub, &volume, &arguments).start();
        eventually("bytes arrive", || sent(&hub) > before + 3 * MIB);
        let run = ask(&volume, running, which, code);
        let name = format!("SIG{}", &which[1..]);
        assert!(run.last_line().contains(&format!("stopped by {name}; the next run resumes")));
        assert_eq!(heartbeat(&volume, "tiny"), serde_json::Value::Null);
    }
    // Of what had arrived only what was on its way is lost.
    let arrived = sent(&hub);
    goes_on(&hub, &volume, 24 * MIB - arrived + 3 * MIB);
}

#[test]
fn while_the_rest_is_hashed() {
    if !has("strace") {
        return;
    }
    let (hub, volume) = (hub(), Volume::in_memory());
    // Several share the file, so that its hash is a thread's own work, made slow here.
    let command = fetch(&hub, &volume, &["hf://org/tiny", "--chunk-size", "1MiB"]);
    let running = straced(&command, "pread64", &["pread64:delay_enter=1000000"]).start();
    eventually("all bytes have arrived", || sent(&hub) >= 24 * MIB);
    std::thread::sleep(Duration::from_secs(1));
    ask(&volume, running, "-TERM", 143);
    goes_on(&hub, &volume, 0);
}

#[test]
fn while_the_disk_syncs() {
    if !has("strace") {
        return;
    }
    for signals in 1..=2 {
        let (hub, volume) = (hub(), Volume::in_memory());
        let command = fetch(&hub, &volume, &["hf://org/tiny"]);
        // After the two of the probe: the main thread hangs in that of the sentinel.
        let slow = ["fsync:delay_enter=60000000:when=3"];
        let running = straced(&command, "fsync", &slow).start();
        eventually("all bytes have arrived", || sent(&hub) >= 24 * MIB);
        std::thread::sleep(Duration::from_secs(1));
        let pid = worker_on(&volume);
        if signals == 2 {
            // Whoever asks twice does not want to wait for a disk.
            assert!(signal(pid, "-INT"));
            std::thread::sleep(Duration::from_millis(300));
            assert!(signal(pid, "-INT"));
            ends_traced_within(Duration::from_secs(3), pid, running).assert_code(130);
        } else {
            ask(&volume, running, "-TERM", 143);
        }
        assert!(!volume.family("tiny").exists());
        goes_on(&hub, &volume, 0);
    }
}

#[test]
fn while_publishing_it_finishes_or_nothing_is_published() {
    if !has("strace") {
        return;
    }
    // The fifth rename, after two of the probe and two of the heartbeat, is the publication.
    for (slow, code) in
        [("renameat:delay_enter=1000000", 0), ("renameat:delay_enter=60000000:when=5", 143)]
    {
        let (hub, volume) = (hub(), Volume::in_memory());
        let command = fetch(&hub, &volume, &["hf://org/tiny"]);
        let running = straced(&command, "renameat", &[slow]).start();
        eventually("the sentinel is written", || {
            volume.attempts().iter().any(|it| it.join("tree/.weightlift-complete.json").exists())
        });
        std::thread::sleep(Duration::from_millis(200));
        ask(&volume, running, "-TERM", code);
        assert_eq!(volume.family("tiny").exists(), code == 0);
        goes_on(&hub, &volume, 0);
    }
}

#[test]
fn between_two_models() {
    if !has("strace") {
        return;
    }
    let hub = FakeHub::builder().repo(REPO, tree()).repo("org/b", tiny()).start();
    let volume = Volume::in_memory();
    hub.script(Rule::on("GET", "org/b").then(Fault::HangBeforeHeaders(Duration::from_secs(60))));
    let command = fetch(&hub, &volume, &["hf://org/tiny", "tiny", "hf://org/b", "b"]);
    // As above.
    let slow = ["renameat:delay_enter=1000000:when=5"];
    let running = straced(&command, "renameat", &slow).start();
    eventually("the sentinel is written", || {
        volume.attempts().iter().any(|it| it.join("tree/.weightlift-complete.json").exists())
    });
    let run = ask(&volume, running, "-TERM", 143);
    assert_eq!(run.stdout, format!("{}\n", volume.family("tiny").display()));
    assert!(!volume.family("b").exists());
    goes_on(&hub, &volume, 0);
}

#[test]
fn while_verifying() {
    if !has("strace") {
        return;
    }
    let (hub, volume) = (hub(), Volume::in_memory());
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    for (which, code) in [("-TERM", 143), ("-INT", 130), ("-HUP", 143)] {
        let mut command = weightlift();
        command.arg("verify").arg(volume.family("tiny"));
        let running = straced(&command, "pread64", &["pread64:delay_enter=300000"]).start();
        worker_on(&volume);
        std::thread::sleep(Duration::from_millis(500));
        let run = ask(&volume, running, which, code);
        assert!(!run.stderr.contains("bad"), "{}", run.stderr);
    }
}

#[test]
fn a_hangup_that_nohup_ignores_stays_ignored() {
    let (hub, volume) = (hub(), Volume::in_memory());
    drip(&hub, MIB);
    let command = fetch(&hub, &volume, &["hf://org/tiny"]);
    let mut running = in_shell("trap '' HUP", &command).start();
    eventually("bytes arrive", || sent(&hub) > MIB);
    running.signal("-HUP");
    std::thread::sleep(Duration::from_secs(1));
    assert!(running.is_running());
    ask(&volume, running, "-TERM", 143);
}

#[test]
fn as_pid_1_signals_work_as_well() {
    if !is_root() || !has("unshare") {
        return;
    }
    for (which, code) in [("-TERM", 143), ("-INT", 130), ("-HUP", 143)] {
        let (hub, volume) = (hub(), Volume::in_memory());
        drip(&hub, MIB / 2);
        let command = fetch(&hub, &volume, &["hf://org/tiny"]);
        let running = under(&["unshare", "--pid", "--fork", "--mount-proc"], &command).start();
        eventually("bytes arrive", || sent(&hub) > MIB);
        let status = std::fs::read_to_string(format!("/proc/{}/status", worker_on(&volume)));
        assert!(
            status.unwrap().lines().any(|line| line.starts_with("NSpid:") && line.ends_with("\t1"))
        );
        ask(&volume, running, which, code);
        goes_on(&hub, &volume, 24 * MIB);
    }
}

#[test]
fn closed_standard_streams_are_no_place_for_a_file() {
    let (hub, volume) = (hub(), Volume::in_memory());
    hub.script(
        Rule::on("GET", "").at("cdn").times(2).then(Fault::Drip { bytes_per_second: 8 * MIB }),
    );
    let command = fetch(&hub, &volume, &["hf://org/tiny", "--connections", "2"]);
    let running = in_shell("exec <&- >&- 2>&-", &command).start();
    eventually("bytes arrive", || sent(&hub) > MIB);
    let pid = worker_on(&volume);
    for fd in 0..=2 {
        let place = std::fs::read_link(format!("/proc/{pid}/fd/{fd}")).unwrap();
        assert_eq!(place, std::path::Path::new("/dev/null"));
    }
    let run = running.wait().assert_success();
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("", ""));
    volume.assert_holds("tiny", &tree());
    volume.assert_clean();
}

/// A pipe that is full and that nobody reads, as long as the first is kept.
fn full_pipe() -> (std::io::PipeReader, Stdio) {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut filler = writer.try_clone().unwrap();
    let full = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        loop {
            filler.write_all(&[b'x'; 4096]).unwrap_or_default();
            if full.0.send(()).is_err() {
                return;
            }
        }
    });
    while full.1.recv_timeout(Duration::from_millis(300)).is_ok() {}
    (reader, writer.into())
}

#[test]
fn a_log_that_nobody_reads_does_not_stop_the_work() {
    let (hub, volume) = (hub(), Volume::in_memory());
    let (reader, stderr) = full_pipe();
    let mut command = fetch(&hub, &volume, &["hf://org/tiny"]);
    let child = command.stdout(Stdio::piped()).stderr(stderr).spawn().unwrap();
    let mut child = Killed(child);
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.0.try_wait().unwrap() {
            break status;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "it waits for its reader");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(status.success(), "{status}");
    volume.assert_holds("tiny", &tree());
    drop(reader);
}

#[test]
fn an_answer_that_nobody_reads_does_not_outlive_a_signal() {
    let (hub, volume) = (hub(), Volume::in_memory());
    let (reader, stdout) = full_pipe();
    let mut command = fetch(&hub, &volume, &["hf://org/tiny"]);
    let mut child = Killed(command.stdout(stdout).stderr(Stdio::null()).spawn().unwrap());
    eventually("the model is published", || volume.family("tiny").exists());
    eventually("the lock is free", || list(&volume.root().join(".weightlift/owners")).is_empty());
    // Whoever needs the model does not wait for the one who cannot tell of it.
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    assert!(child.0.try_wait().unwrap().is_none(), "the pipe was not full");
    assert!(signal(child.0.id() as i32, "-TERM"));
    let asked = Instant::now();
    while child.0.try_wait().unwrap().is_none() {
        assert!(asked.elapsed() < TO_END, "it waits for its reader");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(child.0.wait().unwrap().code(), Some(143));
    drop(reader);
}

/// A process that does not survive a failed test.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_log_on_a_full_disk_is_lost_and_an_answer_is_an_error() {
    let (hub, volume) = (hub(), Volume::in_memory());
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = fetch(&hub, &volume, &["hf://org/tiny"]);
    let output = command.stderr(full()).stdout(Stdio::piped()).spawn().unwrap().wait_with_output();
    assert!(output.unwrap().status.success());
    volume.assert_holds("tiny", &tree());
    let mut command = fetch(&hub, &volume, &["hf://org/tiny"]);
    let child = command.stdout(full()).stderr(Stdio::piped()).spawn().unwrap();
    let run = Run::from(&child.wait_with_output().unwrap()).assert_code(15);
    assert!(run.last_line().contains("cannot write to `standard output`"), "{}", run.stderr);
    volume.assert_holds("tiny", &tree());
}

#[test]
fn few_descriptors_are_enough() {
    if !has("prlimit") {
        return;
    }
    // Many small files and a large one, and more connections than could ever be opened.
    let small = |tree: Tree, n: usize| tree.with(&format!("d/{n}.json"), format!("{{{n}}}"));
    let tree = (0..100).fold(tree(), small);
    for limit in [32, 40, 64, 128] {
        let (hub, volume) = (FakeHub::serving(REPO, tree.clone()), Volume::in_memory());
        hub.script(
            Rule::on("GET", "").at("cdn").times(8).then(Fault::Delay(Duration::from_secs(1))),
        );
        let arguments = ["hf://org/tiny", "--connections", "64", "--chunk-size", "1MiB"];
        let command = fetch(&hub, &volume, &arguments);
        let run = under(&["prlimit", &format!("--nofile={limit}")], &command).run();
        assert_eq!(run.code, 0, "with {limit}: {}", run.stderr);
        assert!(!run.stderr.contains("retrying"), "with {limit}: {}", run.stderr);
        volume.assert_holds("tiny", &tree);
        let mut verify = weightlift();
        verify.arg("verify").arg(volume.family("tiny"));
        under(&["prlimit", "--nofile=32"], &verify).run().assert_success();
    }
}

#[test]
fn a_soft_limit_of_descriptors_is_raised() {
    if !has("prlimit") {
        return;
    }
    let (hub, volume) = (hub(), Volume::in_memory());
    drip(&hub, MIB / 2);
    let command = fetch(&hub, &volume, &["hf://org/tiny"]);
    let running = under(&["prlimit", "--nofile=32:2048"], &command).start();
    eventually("bytes arrive", || sent(&hub) > MIB);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", worker_on(&volume))).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let values: Vec<_> = line.split_whitespace().skip(3).take(2).collect();
    assert_eq!(values, ["2048", "2048"]);
    ask(&volume, running, "-TERM", 143);
}

#[test]
fn with_fewer_threads_than_wanted_it_is_slower_or_says_why_not() {
    if !has("strace") {
        return;
    }
    let mut codes = Vec::new();
    for first in 1..=10 {
        let (hub, volume) = (hub(), Volume::in_memory());
        // By name, because looking it up takes a thread too.
        let endpoint = hub.url().replace("127.0.0.1", "localhost");
        let mut command = fetch(&hub, &volume, &["hf://org/tiny", "--chunk-size", "1MiB"]);
        command.env("HF_ENDPOINT", endpoint);
        let none = [
            &*format!("clone:error=EAGAIN:when={first}+"),
            &format!("clone3:error=EAGAIN:when={first}+"),
        ];
        let run = straced(&command, "clone,clone3", &none).run();
        match run.code {
            0 => volume.assert_holds("tiny", &tree()),
            22 => assert!(run.last_line().contains("thread"), "{first}: {}", run.stderr),
            code => panic!("exit {code} without thread {first}: {}", run.stderr),
        }
        codes.push(run.code);
        goes_on(&hub, &volume, 24 * MIB);
        let mut verify = weightlift();
        verify.arg("verify").arg(volume.family("tiny"));
        let run = straced(&verify, "clone,clone3", &none).run();
        assert!(run.code == 0 || first == 1 && run.code == 22, "{first}: {}", run.stderr);
    }
    assert!(codes.contains(&0) && codes.contains(&22), "{codes:?}");
}

#[test]
fn a_limit_on_the_size_of_files_is_no_space() {
    if !has("prlimit") {
        return;
    }
    let (hub, volume) = (hub(), Volume::in_memory());
    let command = fetch(&hub, &volume, &["hf://org/tiny"]);
    let run = under(&["prlimit", "--fsize=1048576"], &command).run().assert_code(15);
    assert!(run.last_line().contains("big.bin"), "{}", run.stderr);
    goes_on(&hub, &volume, 24 * MIB);
}

#[test]
fn a_panic_is_code_70_and_one_line() {
    if !is_root() || !has("strace") || !has("unshare") {
        return;
    }
    // On a disk: below, nothing in `/dev` is seen.
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    // The standard library gives up where a kernel has no random numbers at all.
    let log = volume.path("termination-log");
    std::fs::write(&log, "").unwrap();
    let mut command = weightlift();
    command.arg("verify").arg(volume.family("tiny")).arg("--termination-log").arg(&log);
    let command = straced(&command, "getrandom", &["getrandom:error=ENOSYS"]);
    let no_devices = "mount -t tmpfs none /dev && : >/dev/null || exit 99";
    let run = under(&["unshare", "--mount"], &in_shell(no_devices, &command)).run();
    let run = run.assert_code(70);
    assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
    assert!(run.last_line().contains("[exit 70, bug]"), "{}", run.stderr);
    let told: serde_json::Value = serde_json::from_slice(&std::fs::read(&log).unwrap()).unwrap();
    assert_eq!(told["class"], "bug");
}

#[test]
fn nobody_else_reads_its_memory_and_there_is_no_core_file() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    if !is_root() || !has("setpriv") || !has("prlimit") {
        return;
    }
    let (hub, volume) = (hub(), Volume::in_memory());
    drip(&hub, MIB / 2);
    std::fs::create_dir(volume.root()).unwrap();
    for dir in [volume.root(), volume.path("")] {
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o777)).unwrap();
    }
    let mut command = fetch(&hub, &volume, &["hf://org/tiny"]);
    command.env("HF_TOKEN", TOKEN);
    let user = ["setpriv", "--reuid=65532", "--regid=65532", "--clear-groups", "--"];
    let command = under(&["prlimit", "--core=unlimited"], &under(&user, &command));
    let script = format!("cd '{}'", volume.path("").display());
    let running = in_shell(&script, &command).start();
    eventually("bytes arrive", || sent(&hub) > MIB);
    let pid = worker_on(&volume);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("Uid:\t65532"), "{status}");
    // What a process shows to its own user belongs to that user, unless it shows nothing.
    assert_eq!(std::fs::metadata(format!("/proc/{pid}/environ")).unwrap().uid(), 0);
    let environ = format!("/proc/{pid}/environ");
    let mut spy = Command::new("setpriv");
    let spied = spy.args(&user[1..]).args(["cat", &environ]).output().unwrap();
    assert!(!spied.status.success() && spied.stdout.is_empty());
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    assert!(signal(pid, "-ABRT"));
    assert_eq!(ends_within(TO_END, running).code, -1);
    let cores = list(&volume.path(""));
    assert!(!cores.iter().any(|it| it.to_string_lossy().contains("core")), "{cores:?}");
}
