//! What `doctor` finds on a volume, and that it leaves nothing there.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::link::Pod;
use super::list::{looks, slow_fetch};
use super::probe::{as_user, bound, done, give, tmpfs};
use crate::support::process::{ends_traced_within, straced, worker_on};
use crate::support::*;

const USER: u32 = 65_532;

/// `doctor` of a root, with a Hub that needs no network.
fn doctor_at(root: &Path) -> Command {
    let mut command = weightlift();
    command.args(["doctor", "--output", "json", "--root"]).arg(root);
    command.env("HF_HUB_OFFLINE", "1").arg("hf://org/tiny");
    command
}

/// What is said of the volume, by the name of the check.
fn said(run: &Run, name: &str) -> Option<Value> {
    let lines = run.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.into_iter().find(|it| it["area"] == "volume" && it["check"] == name)
}

#[track_caller]
fn is(run: &Run, name: &str, verdict: &str, says: &str) {
    let check = said(run, name).unwrap_or_else(|| panic!("{name}: {}", run.stdout));
    assert_eq!(check["verdict"], verdict, "{check}");
    let hint = check["hint"].as_str().unwrap_or_default();
    let told = format!("{}; {hint}", check["value"].as_str().unwrap());
    assert!(told.contains(says), "`{says}` is not in: {told}");
}

#[test]
fn a_volume_is_looked_at_and_nothing_stays_there() {
    let volume = Volume::new();
    std::fs::create_dir(volume.root()).unwrap();
    let run = doctor_at(&volume.root()).run().assert_success();
    for (name, says) in [
        ("filesystem", "is on "),
        ("space", "free of"),
        ("owner", "belongs to user"),
        ("operations", "works: rename, exchange"),
        ("locks", "work"),
        ("content", "0 models (0 B), 0 kept revisions (0 B), 0 attempts (0 B)"),
    ] {
        is(&run, name, "ok", says);
    }
    // No working area either: it would be that of whoever has looked.
    assert_eq!(list(&volume.root()), Vec::<std::path::PathBuf>::new());
    let hub = hub_of_tiny();
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    let attempts = volume.root().join(".weightlift/attempts");
    let before: Vec<_> = looks(&volume.root()).into_keys().collect();
    let run = doctor_at(&volume.root()).run().assert_success();
    is(&run, "content", "ok", "1 model (");
    is(&run, "working-area", "ok", ".weightlift` belongs to");
    assert_eq!(looks(&volume.root()).into_keys().collect::<Vec<_>>(), before);
    assert!(attempts.is_dir());
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
}

#[test]
fn a_root_that_is_not_there_is_not_made() {
    let volume = Volume::new();
    let run = doctor_at(&volume.root()).run().assert_success();
    is(&run, "root", "warning", "does not exist; a fetch makes it in");
    assert!(!volume.root().exists());
    if is_root() {
        let closed = volume.path("closed");
        give(&closed, 0, 0o755);
        let run = as_user(&volume, &doctor_at(&closed.join("models"))).run().assert_code(14);
        is(&run, "root", "fails", "cannot be made in");
    }
    std::fs::write(volume.root(), "").unwrap();
    let run = doctor_at(&volume.root()).run().assert_code(14);
    is(&run, "root", "fails", "cannot open the directory");
}

#[test]
fn a_read_only_mount_is_a_warning_and_nothing_is_tried() {
    if !is_root() {
        return;
    }
    let volume = Volume::new();
    let _mount = tmpfs(&volume.root(), "size=8m,ro");
    let run = doctor_at(&volume.root()).run().assert_success();
    is(&run, "writable", "warning", "is mounted read-only");
    is(&run, "owner", "ok", "");
    assert_eq!(said(&run, "operations"), None);
    // As a claim is mounted with `readOnly: true`, by a user who could not write either.
    if has("setpriv") {
        let volume = Volume::new();
        give(&volume.root(), 1_000, 0o755);
        let _bound = bound(&volume.root());
        assert!(done(&["mount", "-o", "remount,bind,ro"], &volume.root()));
        let run = as_user(&volume, &doctor_at(&volume.root())).run().assert_success();
        is(&run, "writable", "warning", "is mounted read-only");
    }
}

#[test]
fn what_belongs_to_another_user_fails_with_who_and_whom() {
    if !is_root() || !has("setpriv") {
        return;
    }
    let volume = Volume::new();
    give(&volume.root(), 1_000, 0o755);
    let run = as_user(&volume, &doctor_at(&volume.root())).run().assert_code(14);
    is(&run, "owner", "fails", "belongs to user 1000, group 1000, mode 0755; we are user 65532");
    is(&run, "owner", "fails", "fsGroup");
    assert_eq!(said(&run, "operations"), None, "nothing could be tried");
    // The same of a working area that another user has made.
    std::fs::set_permissions(volume.root(), PermissionsExt::from_mode(0o777)).unwrap();
    give(&volume.root().join(".weightlift"), 1_000, 0o755);
    let run = as_user(&volume, &doctor_at(&volume.root())).run().assert_code(14);
    is(&run, "owner", "ok", "mode 0777");
    is(&run, "working-area", "fails", "user 1000");
    give(&volume.root().join(".weightlift"), USER, 0o755);
    as_user(&volume, &doctor_at(&volume.root())).run().assert_success();
}

#[test]
fn a_full_volume_fails_as_a_fetch_would() {
    if !is_root() {
        return;
    }
    let volume = Volume::new();
    {
        let _mount = tmpfs(&volume.root(), "size=1m");
        let run = doctor_at(&volume.root()).run().assert_code(15);
        is(&run, "space", "fails", "free of 1.0 MB");
    }
    {
        let _mount = tmpfs(&volume.root(), "size=64m");
        let run = doctor_at(&volume.root()).run().assert_success();
        is(&run, "space", "warning", "weightlift prune");
    }
    {
        let _mount = tmpfs(&volume.root(), "size=2g,nr_inodes=20");
        let run = doctor_at(&volume.root()).run().assert_code(15);
        is(&run, "inodes", "fails", "of 20");
    }
    // Nothing at all can be made.
    let _mount = tmpfs(&volume.root(), "size=2g,nr_inodes=1");
    let run = doctor_at(&volume.root()).run().assert_code(15);
    is(&run, "operations", "fails", "cannot create the directory");
}

#[test]
fn what_a_filesystem_cannot_do_is_told() {
    if !has("strace") {
        return;
    }
    for (calls, inject, code, name, verdict, says) in [
        ("flock", "flock:error=ENOLCK", 0, "locks", "warning", "--lock kubernetes"),
        ("fsync", "fsync:error=EINVAL", 14, "operations", "fails", "cannot make files durable"),
        (
            "renameat2,renameat",
            "renameat2,renameat:error=EINVAL",
            14,
            "operations",
            "fails",
            "cannot rename files",
        ),
        (
            "renameat2,renameat",
            "renameat2:error=EINVAL",
            0,
            "operations",
            "ok",
            "without: exchange",
        ),
        ("linkat,ioctl", "linkat:error=EPERM", 0, "operations", "warning", "hard link"),
        (
            "symlinkat,renameat2",
            "symlinkat,renameat2:error=EPERM",
            0,
            "operations",
            "ok",
            "without: exchange, symbolic link",
        ),
        ("fallocate", "fallocate:error=EOPNOTSUPP", 0, "operations", "ok", "allocate"),
        ("unlinkat", "unlinkat:error=EPERM", 14, "operations", "fails", "cannot remove"),
    ] {
        let volume = Volume::in_memory();
        std::fs::create_dir(volume.root()).unwrap();
        let run = straced(&doctor_at(&volume.root()), calls, &[inject]).run().assert_code(code);
        is(&run, name, verdict, says);
    }
}

#[test]
fn a_filesystem_that_does_not_answer_is_a_line_and_no_hang() {
    if !has("strace") {
        return;
    }
    let volume = Volume::in_memory();
    std::fs::create_dir(volume.root()).unwrap();
    let inject = "fstatfs:delay_enter=120000000";
    let running = straced(&doctor_at(&volume.root()), "fstatfs", &[inject]).start();
    let pid = worker_on(&volume);
    let run = ends_traced_within(Duration::from_secs(60), pid, running).assert_code(22);
    is(&run, "filesystem", "fails", "no answer for 10s");
    assert!(run.stdout.contains("\"area\":\"network\""), "the others are checked: {}", run.stdout);
}

#[test]
fn what_runs_have_left_is_weighed() {
    let pod = Pod::new();
    pod.fetch(&["hf://org/tiny", "m"]).run().assert_success();
    let running = slow_fetch(&pod, "slow");
    let run = doctor_at(&pod.volume.root()).run().assert_success();
    is(&run, "content", "ok", "1 attempt at work");
    running.signal("-KILL");
    running.wait();
    let run = doctor_at(&pod.volume.root()).run().assert_success();
    is(&run, "content", "warning", "1 attempt (");
    is(&run, "content", "warning", "weightlift prune");
}

#[test]
fn a_volume_below_is_named() {
    if !is_root() {
        return;
    }
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    let team = volume.family("team-a");
    let _mount = bound(&team);
    fetch(&hub, &volume, &["hf://org/tiny", "team-a/tiny"]).run().assert_success();
    let run = doctor_at(&volume.root()).run().assert_success();
    is(&run, "mounts", "ok", &team.display().to_string());
}

#[test]
fn what_a_killed_doctor_has_left_goes() {
    if !has("strace") {
        return;
    }
    let volume = Volume::new();
    std::fs::create_dir(volume.root()).unwrap();
    let killed = || {
        let command = doctor_at(&volume.root());
        let run = straced(&command, "symlinkat", &["symlinkat:signal=KILL"]).run();
        assert_eq!(run.stdout.matches("operations").count(), 0, "{}", run.stdout);
    };
    let left = || {
        let probes = |path: &std::path::PathBuf| {
            path.file_name().unwrap().to_string_lossy().starts_with(".weightlift-probe")
        };
        list(&volume.root()).into_iter().filter(probes).collect::<Vec<_>>()
    };
    killed();
    assert_eq!(left().len(), 1);
    // It may be at work.
    doctor_at(&volume.root()).run().assert_success();
    assert_eq!(left().len(), 1);
    let touched = Command::new("touch").args(["-d", "2 hours ago"]).arg(&left()[0]).status();
    assert!(touched.unwrap().success());
    doctor_at(&volume.root()).run().assert_success();
    assert_eq!(left().len(), 0);
    // The same in a working area, where it is an attempt of nobody.
    fetch(&hub_of_tiny(), &volume, &["hf://org/tiny"]).run().assert_success();
    killed();
    assert_eq!(volume.attempts().len(), 1);
    let touched =
        Command::new("touch").args(["-d", "2 hours ago"]).arg(&volume.attempts()[0]).status();
    assert!(touched.unwrap().success());
    doctor_at(&volume.root()).run().assert_success();
    volume.assert_clean();
}
