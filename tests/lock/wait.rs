//! Pods that only wait for a model: nothing is written, nothing is asked, and the wait ends.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::support::*;
use weightlift_fakes::{Fault, Rule};

fn wait(path: &Path, arguments: &[&str]) -> Command {
    let mut command = weightlift();
    command.arg("wait").arg(path).args(arguments);
    command
}

/// `script` with `$1` as the binary, in namespaces without a network and with mounts of its own.
fn apart(script: &str, arguments: &[&Path]) -> Run {
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "sh", "-euc", script, "sh"]).arg(binary()).args(arguments);
    command.env("WEIGHTLIFT_TERMINATION_LOG", "/nonexistent").run()
}

#[test]
fn a_complete_model_is_found_at_once() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    fetch(&hub, &volume, &["hf://org/tiny", "second"]).run().assert_success();
    let (first, second) = (volume.family("tiny"), volume.family("second"));
    let both = [&*first, &*second].map(|path| path.to_str().unwrap());
    let mut command = wait(&first, &[both[1], "--timeout", "0s"]);
    let run = command.run().assert_success().assert_says("complete: ");
    assert_eq!(run.stdout.lines().collect::<Vec<_>>(), both);
    let run = wait(&first, &["--output", "json"]).run().assert_success();
    let facts: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!((&facts["status"], &facts["files"]), (&"ready".into(), &13.into()));
    assert_eq!(facts["revision"], hub.commit(REPO));
}

/// As a file server that is away for a while answers.
#[test]
fn an_error_of_the_file_server_is_waited_out() {
    if !has("strace") {
        return;
    }
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    let family = volume.family("tiny");
    for (error, code) in [("ESTALE", 23), ("EIO", 23), ("EACCES", 14)] {
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-e", "trace=open,openat", "-e"]);
        command.arg(format!("inject=open,openat:error={error}")).arg("-P").arg(&family);
        command.args(["-o", "/dev/null"]).arg(binary()).arg("wait").arg(&family);
        let run = command.args(["--timeout", "2s"]).run();
        assert_eq!(run.code, code, "{error}: {}", run.stderr);
    }
}

#[test]
fn a_read_only_mount_without_a_network_is_enough() {
    if !is_root() || !has("unshare") {
        return;
    }
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    let script = r#"mount --bind "$2" "$2"; mount -o remount,bind,ro "$2"
        if touch "$2/x" 2>/dev/null; then echo "is not read-only" >&2; exit 99; fi
        exec "$1" wait "$2/tiny" --timeout 0s"#;
    let before = files_below(&volume.root());
    apart(script, &[&volume.root()]).assert_success();
    assert_eq!(files_below(&volume.root()), before);
}

#[test]
fn it_ends_when_the_model_has_come_and_says_for_what_it_waits() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    let waiter = wait(&volume.family("tiny"), &["--timeout", "60s"]).start();
    std::thread::sleep(Duration::from_millis(500));
    // Nothing of a transfer under way counts.
    hub.script(Rule::on("GET", "").at("cdn").then(Fault::Drip { bytes_per_second: 200_000 }));
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    let run = waiter.wait().assert_success().assert_says("waiting up to ");
    assert!(run.stderr.contains("does not exist"), "{}", run.stderr);
    assert_tree(&volume.family("tiny"), &tiny_selected());
}

#[test]
fn what_is_not_there_in_time_is_code_23() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    let family = volume.family("tiny");
    let run = wait(&family, &["--timeout", "300ms"]).run().assert_code(23);
    assert!(run.last_line().contains("does not exist"), "{}", run.stderr);
    assert_eq!(run.stdout, "");
    assert!(!volume.root().exists(), "it has written");
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    // A file of another size, no sentinel, another revision: all are things to wait for.
    let other = ["--timeout", "300ms", "--expect-revision", &"0".repeat(40)];
    wait(&family, &other).run().assert_code(23).assert_says("holds revision");
    wait(&family, &["--expect-revision", &hub.commit(REPO)]).run().assert_success();
    std::fs::write(family.join("config.json"), "{}").unwrap();
    wait(&family, &["--timeout", "300ms"]).run().assert_code(23).assert_says("is damaged");
    std::fs::remove_file(family.join(".weightlift-complete.json")).unwrap();
    wait(&family, &["--timeout", "300ms"]).run().assert_code(23).assert_says("holds no");
}

#[test]
fn it_waits_for_the_revision_that_is_expected() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    hub.move_branch(REPO, "main", tiny().with("new.txt", "new"));
    let expected = ["--expect-revision", &hub.commit(REPO)];
    let mut waiter = wait(&volume.family("tiny"), &expected).start();
    std::thread::sleep(Duration::from_millis(1_500));
    assert!(waiter.is_running());
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    waiter.wait().assert_success();
    assert!(volume.family("tiny").join("new.txt").exists());
}

#[test]
fn waiting_cannot_help_with_everything() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    let family = volume.family("tiny");
    std::fs::write(family.join(".weightlift-complete.json"), r#"{"format": 2}"#).unwrap();
    wait(&family, &[]).run().assert_code(16).assert_says("use a newer weightlift");
    wait(&family.join("config.json"), &[]).run().assert_code(14);
    let revisions = ["--expect-revision", "a,b"];
    wait(&family, &revisions).run().assert_code(2);
}

#[test]
fn sigterm_ends_it() {
    let volume = Volume::new();
    let waiter = wait(&volume.family("tiny"), &[]).start();
    std::thread::sleep(Duration::from_millis(500));
    waiter.signal("-TERM");
    waiter.wait().assert_code(143);
}

#[test]
fn a_wait_names_what_is_there_and_who_fetches_what_is_not() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    let (family, old) = (volume.family("team/tiny"), hub.commit(REPO));
    fetch(&hub, &volume, &["hf://org/tiny", "team/tiny"]).run().assert_success();
    let new = hub.move_branch(REPO, "main", tiny().with("config.json", "[]"));
    hub.script(
        Rule::on("GET", "config.json").then(Fault::HangBeforeHeaders(Duration::from_secs(60))),
    );
    for (variables, named) in [
        (&[("POD_NAME", "loader-1"), ("NODE_NAME", "gpu-7")][..], "pod loader-1 on node gpu-7, "),
        (&[("POD_NAME", "loader-1")], "pod loader-1, "),
        (&[("NODE_NAME", "gpu-7")], " on node gpu-7, "),
    ] {
        // What the one before has left.
        let owner = volume.root().join(".weightlift/owners/team%2Ftiny.json");
        let _ = std::fs::remove_file(&owner);
        let mut command = fetch(&hub, &volume, &["hf://org/tiny", "team/tiny"]);
        let holder = command.envs(variables.iter().copied()).start();
        let fetches = || {
            let beat = std::fs::read_to_string(&owner).unwrap_or_default();
            beat.contains("\"fetching\"")
        };
        eventually("the holder says that it fetches", fetches);
        let expected = ["--timeout", "1s", "--expect-revision", &new];
        let run = wait(&family, &expected).run().assert_code(23);
        let says = format!(
            "`{}` holds revision {old}, waiting for {new}; being fetched by ",
            family.display()
        );
        let lines: Vec<&str> = run.stderr.lines().collect();
        assert_eq!(lines.len(), 2, "{}", run.stderr);
        for line in lines {
            assert!(line.contains(&says) && line.contains(named), "{line}");
        }
        // Another fetcher says the same of whom it waits for.
        let patience = ["hf://org/tiny", "team/tiny", "--lock-timeout", "0s"];
        let run = fetch(&hub, &volume, &patience).run().assert_code(23);
        assert!(run.last_line().contains(named), "{}", run.stderr);
        drop(holder);
    }
    // A killed one leaves its heartbeat, and that is said.
    let is_silent = |timeout: &str| {
        let expected = ["--timeout", timeout, "--expect-revision", &new];
        let run = wait(&family, &expected).run().assert_code(23);
        assert!(run.last_line().contains(", shows no sign of life for "), "{}", run.stderr);
        assert!(!run.last_line().contains("fetched by"), "{}", run.stderr);
    };
    is_silent("13s");
    // At once, where it was written on this node.
    is_silent("100ms");
    // Of another node nobody knows how old it is: it is watched.
    let owner = volume.root().join(".weightlift/owners/team%2Ftiny.json");
    let mut beat: Value = serde_json::from_slice(&std::fs::read(&owner).unwrap()).unwrap();
    beat["writer"]["boot_id"] = "another".into();
    std::fs::write(&owner, beat.to_string()).unwrap();
    let expected = ["--timeout", "100ms", "--expect-revision", &new];
    let run = wait(&family, &expected).run().assert_code(23);
    assert!(run.last_line().contains("; being fetched by pod "), "{}", run.stderr);
    is_silent("13s");
}

#[test]
fn who_fetches_into_a_cache_is_named_to_those_who_wait_for_a_snapshot() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    hub.script(
        Rule::on("GET", "config.json").then(Fault::HangBeforeHeaders(Duration::from_secs(60))),
    );
    let mut command = fetch(&hub, &volume, &["hf://org/tiny", "--layout", "hf-cache"]);
    let holder = command.env("POD_NAME", "loader-1").start();
    let owners = volume.root().join(".weightlift/owners");
    let beat = || {
        files_below(&owners)
            .iter()
            .any(|(_, beat)| String::from_utf8_lossy(beat).contains("\"fetching\""))
    };
    eventually("the holder says that it fetches", beat);
    let repo = volume.root().join("hub/models--org--tiny");
    for path in [repo.join("snapshots").join(hub.commit(REPO)), repo] {
        let run = wait(&path, &["--timeout", "100ms"]).run().assert_code(23);
        assert!(run.last_line().contains("; being fetched by pod loader-1"), "{}", run.stderr);
    }
    drop(holder);
}

#[test]
fn a_name_that_no_model_has_as_its_revision_is_not_waited_for() {
    let volume = Volume::new();
    for name in ["main", "v1.0", "refs/pr/1", "0123456789ab"] {
        let run = wait(&volume.family("tiny"), &["--expect-revision", name]).run().assert_code(2);
        assert!(
            run.last_line().contains(&format!("`{name}` is not a full commit")),
            "{}",
            run.stderr
        );
    }
}
