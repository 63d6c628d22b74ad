//! Several things in one run: one that fails ends no other, the worst decides the exit code, and all that have
//! failed are named.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::support::schema::TERMINATION;
use crate::support::*;
use weightlift_fakes::{FakeHub, Fault, Rule};

/// A Hub with two models that can be had, one that cannot be reached, and none of the name `absent`.
fn hub() -> FakeHub {
    let hub = FakeHub::builder().repo("org/a", tiny()).repo("org/b", tiny());
    let hub = hub.repo("org/hangs", tiny()).start();
    hub.script(Rule::on("*", "org/hangs").then(Fault::status(503)));
    hub
}

/// What a run that fails has left: its lines, its JSON lines about each, and its termination message.
struct Ends {
    run: Run,
    lines: Vec<Value>,
    message: Value,
}

fn ends(command: &mut Command, volume: &Volume, code: i32) -> Ends {
    let message = volume.path("message");
    std::fs::write(&message, "").unwrap();
    command.args(["--output", "json", "--termination-log"]).arg(&message);
    let run = command.env("WEIGHTLIFT_RETRY_TIMEOUT", "1s").run().assert_code(code);
    let told = run.stdout.lines().map(|line| serde_json::from_str(line).unwrap());
    let mut lines: Vec<Value> = told.collect();
    // That of the run.
    let last = lines.pop().unwrap();
    assert_eq!((&last["code"], last.get("path")), (&code.into(), None), "{last}");
    let message: Value = serde_json::from_str(&std::fs::read_to_string(&message).unwrap()).unwrap();
    TERMINATION.assert_holds(&message);
    Ends { run, lines, message }
}

impl Ends {
    /// Fails unless the last line and the termination message name what has `failed`, each with its class, and no
    /// more.
    #[track_caller]
    fn assert_named(&self, all: usize, failed: &[(&str, &str)]) {
        let named: Vec<String> =
            failed.iter().map(|(name, class)| format!("`{name}` ({class})")).collect();
        let end = format!("{} of {all} models failed: {}", failed.len(), named.join(", "));
        let last = self.run.last_line();
        let (_, told) = last.split_once("; ").unwrap_or_default();
        assert!(told.contains(&format!("{end} [exit ")), "`{end}` is not the end of {last}");
        assert!(self.message["message"].as_str().unwrap().ends_with(&end), "{}", self.message);
        let ends = self.message["models"].as_object().unwrap();
        assert_eq!(ends.len(), all, "{}", self.message);
        let classes: Vec<&str> = ends.values().filter_map(Value::as_str).collect();
        for (_, class) in failed {
            assert!(classes.contains(class), "{class} is not in {}", self.message);
        }
    }

    /// Status and class of each JSON line.
    fn statuses(&self) -> Vec<(&str, &str)> {
        self.lines.iter().map(|line| (text_of(line, "status"), text_of(line, "class"))).collect()
    }
}

fn text_of<'a>(line: &'a Value, name: &str) -> &'a str {
    line[name].as_str().unwrap_or_default()
}

#[test]
fn pairs_of_source_and_dest_are_fetched_and_planned_each_to_its_end() {
    let (hub, volume) = (hub(), Volume::new());
    let pairs =
        ["hf://org/hangs", "h", "hf://org/a", "a", "hf://org/absent", "n", "hf://org/b", "b"];
    let failed = [("h", "unreachable"), ("n", "access")];
    let mut planned = fetch(&hub, &volume, &pairs);
    let ended = ends(planned.arg("--dry-run"), &volume, 11);
    ended.assert_named(4, &failed);
    let expected = [("failed", "unreachable"), ("fetch", ""), ("failed", "access"), ("fetch", "")];
    assert_eq!(ended.statuses(), expected);
    assert!(!volume.root().exists());
    let ended = ends(&mut fetch(&hub, &volume, &pairs), &volume, 11);
    ended.assert_named(4, &failed);
    let expected =
        [("failed", "unreachable"), ("fetched", ""), ("failed", "access"), ("fetched", "")];
    assert_eq!(ended.statuses(), expected);
    for name in ["a", "b"] {
        volume.assert_holds(name, &tiny_selected());
    }
    assert!(ended.run.last_line().starts_with("error: `n`: "), "{}", ended.run.stderr);
    // Where a retry helps all of them, the first decides.
    let pairs = ["hf://org/hangs", "h", "hf://org/a", "a"];
    ends(&mut fetch(&hub, &volume, &pairs), &volume, 20).assert_named(2, &failed[..1]);
}

#[test]
fn each_path_is_verified_whatever_the_others_hold() {
    let (hub, volume) = (hub(), Volume::new());
    fetch(&hub, &volume, &["hf://org/a", "a", "hf://org/a", "bad"]).run().assert_success();
    let bad = volume.family("bad/config.json");
    let mut bytes = std::fs::read(&bad).unwrap();
    bytes[0] ^= 1;
    std::fs::remove_file(&bad).unwrap();
    std::fs::write(&bad, bytes).unwrap();
    let paths = ["none", "bad", "a"].map(|name| volume.family(name));
    let mut command = weightlift();
    let ended = ends(command.arg("verify").args(&paths), &volume, 10);
    let names = paths.each_ref().map(|path| path.to_str().unwrap());
    ended.assert_named(3, &[(names[0], "not_found"), (names[1], "integrity")]);
    let expected = [("failed", "not_found"), ("failed", "integrity"), ("verified", "")];
    assert_eq!(ended.statuses(), expected);
}

#[test]
fn each_path_is_waited_for_whatever_the_others_hold() {
    let (hub, volume) = (hub(), Volume::new());
    // One that no time mends: its sentinel is of a later version.
    let later = volume.family("later");
    std::fs::create_dir_all(&later).unwrap();
    std::fs::write(later.join(".weightlift-complete.json"), "{\"format\": 99}").unwrap();
    let (never, late) = (volume.family("never"), volume.family("late"));
    let mut waiter = weightlift();
    waiter.arg("wait").args([&later, &late, &never]).args(["--timeout", "6s"]);
    let fetched = std::thread::scope(|scope| {
        let fetched = scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(700));
            fetch(&hub, &volume, &["hf://org/a", "late"]).run()
        });
        let ended = ends(&mut waiter, &volume, 16);
        let names = [&later, &never].map(|path| path.to_str().unwrap());
        ended.assert_named(3, &[(names[0], "conflict"), (names[1], "deadline")]);
        let expected = [("failed", "conflict"), ("ready", ""), ("failed", "deadline")];
        assert_eq!(ended.statuses(), expected);
        fetched.join().unwrap()
    });
    fetched.assert_success();
}

#[test]
fn each_model_is_pinned_or_checked_whatever_the_others_are() {
    let (hub, volume) = (hub(), Volume::new());
    let list = volume.path("models.yaml");
    let (models, lock) = (list.to_str().unwrap(), volume.path("models.lock"));
    let names = ["hangs", "a", "absent", "b"];
    let yaml = |names: &[&str]| {
        names.iter().fold("version: 1\nmodels:\n".to_owned(), |yaml, name| {
            format!("{yaml}- {{name: {name}, source: 'hf://org/{name}'}}\n")
        })
    };
    let pin = |arguments: &[&str]| {
        let mut command = weightlift();
        command.args(["pin", "--models", models, "--locked"]).arg(&lock).args(arguments);
        command.env("HF_ENDPOINT", hub.url());
        command
    };
    std::fs::write(&list, yaml(&names)).unwrap();
    let failed = [("hangs", "unreachable"), ("absent", "access")];
    let ended = ends(&mut pin(&[]), &volume, 11);
    ended.assert_named(4, &failed);
    let expected =
        [("failed", "unreachable"), ("failed", "access"), ("resolved", ""), ("resolved", "")];
    assert_eq!(ended.statuses(), expected);
    assert!(!lock.exists(), "half of it is worse than nothing");
    // What cannot be checked is named beside what has moved.
    std::fs::write(&list, yaml(&names[..2])).unwrap();
    hub.clear_script();
    pin(&[]).run().assert_success();
    hub.script(Rule::on("*", "org/hangs").then(Fault::status(503)));
    let ended = ends(&mut pin(&["--check"]), &volume, 20);
    ended.assert_named(2, &failed[..1]);
    hub.move_branch("org/a", "main", tiny().with("new.txt", "new"));
    let ended = ends(&mut pin(&["--check"]), &volume, 16);
    let last = ended.run.last_line();
    assert!(last.contains("1 model moved; not checked: `hangs` (unreachable);"), "{last}");
    // And what has moved beside what no retry mends, with what nobody asks for any more.
    hub.clear_script();
    hub.script(Rule::on("*", "org/hangs").then(Fault::status(404)));
    for asked in [&names[..2], &names[..1]] {
        std::fs::write(&list, yaml(asked)).unwrap();
        let ended = ends(&mut pin(&["--check"]), &volume, 10);
        let end = format!(
            "; 1 of 2 models failed: `hangs` (not_found); `{}` is not up to date: 1 model moved",
            lock.display()
        );
        assert!(ended.run.last_line().contains(&end), "{}", ended.run.stderr);
        assert!(ended.message["message"].as_str().unwrap().ends_with(&end), "{}", ended.message);
        assert_eq!(ended.message["models"].as_object().unwrap().len(), 2, "{}", ended.message);
    }
}

#[test]
fn a_run_that_is_stopped_names_what_had_failed_by_then() {
    let (hub, volume) = (hub(), Volume::new());
    hub.script(
        Rule::on("GET", "").at("cdn").then(Fault::HangBeforeHeaders(Duration::from_secs(60))),
    );
    let message = volume.path("message");
    std::fs::write(&message, "").unwrap();
    let pairs = ["hf://org/absent", "n", "hf://org/a", "a"];
    let command = || {
        let mut command = fetch(&hub, &volume, &pairs);
        command.arg("--termination-log").arg(&message);
        command
    };
    let end = "; failed before that: `n` (access)";
    let run = command().args(["--deadline", "3s"]).run().assert_code(23);
    assert!(run.last_line().contains(end), "{}", run.stderr);
    let running = command().start();
    let asked = || hub.count("GET", "org/a/resolve") > 0 && hub.count("GET", "org/absent") > 1;
    eventually("it fetches, and one has failed", asked);
    std::thread::sleep(Duration::from_millis(500));
    running.signal("-TERM");
    let run = running.wait().assert_code(143);
    assert!(run.last_line().contains(end), "{}", run.stderr);
    assert!(std::fs::read_to_string(&message).unwrap().contains(end));
}

#[test]
fn neither_many_long_names_nor_a_long_error_hide_what_has_failed() {
    let volume = Volume::new();
    let long = |n: usize| format!("{n:02}{}", "-with-a-long-name".repeat(6));
    let deep = (0..10).fold(volume.root(), |path, _| path.join("d".repeat(250)));
    for (above, count) in [(volume.root(), 30), (volume.root(), 9), (deep, 3)] {
        let paths: Vec<PathBuf> = (0..count).map(|n| above.join(long(n))).collect();
        let mut wait = weightlift();
        wait.arg("wait").args(&paths).args(["--timeout", "0s"]);
        let ended = ends(&mut wait, &volume, 23);
        let message = ended.message["message"].as_str().unwrap();
        for said in [ended.run.last_line(), message] {
            let (error, names) = said
                .split_once(&format!("; {count} of {count} models failed: `"))
                .unwrap_or_else(|| panic!("{said}"));
            assert!(error.contains("waited 0.0s: `"), "{said}");
            let named = names.matches("` (deadline)").count();
            let more = names.split("(deadline) and ").nth(1).map_or(0, |more| {
                more.split(' ').next().unwrap().parse().unwrap_or_else(|_| panic!("{said}"))
            });
            assert!(named > 0 && named + more == count, "{named} and {more}: {said}");
        }
        let told = ended.message["models"].as_object().unwrap().len() as u64;
        let more = ended.message["more_models"].as_u64().unwrap_or_default();
        assert_eq!(told + more, count as u64, "{}", ended.message);
        assert!(message.chars().count() <= 600, "{message}");
        assert!(ended.message.to_string().len() <= 1_024, "{}", ended.message);
    }
}

#[test]
fn of_what_is_no_model_verify_says_nothing_that_does_harm() {
    let (hub, volume) = (hub(), Volume::new());
    fetch(&hub, &volume, &["hf://org/a", "a"]).run().assert_success();
    let (foreign, empty) = (volume.path("plain"), volume.path("empty"));
    std::fs::create_dir_all(&empty).unwrap();
    std::fs::create_dir_all(&foreign).unwrap();
    std::fs::write(foreign.join("x"), "").unwrap();
    let list = format!("`weightlift list --root {}`", volume.root().display());
    let adopt = format!(
        "`{}` holds no complete model: there is no .weightlift-complete.json; check the path, or fetch with --adopt",
        foreign.display()
    );
    for (path, hint) in [
        (Path::new("/"), "; check the path, or "),
        (&foreign, &adopt),
        (&empty, "; check the path, or fetch it"),
        (&volume.root(), &list),
    ] {
        let run = weightlift().arg("verify").arg(path).run().assert_code(10);
        assert!(run.last_line().contains(hint), "{}", run.stderr);
        assert!(!run.last_line().contains("remove"), "{}", run.stderr);
    }
    // One that is filled in place has a working area, and is no root.
    let mount = volume.root().join("mount");
    std::fs::create_dir_all(&mount).unwrap();
    fetch(&hub, &volume, &["hf://org/a", "mount"]).run().assert_success();
    std::fs::remove_file(mount.join(".weightlift-complete.json")).unwrap();
    let run = weightlift().arg("verify").arg(&mount).run().assert_code(10);
    assert!(run.last_line().contains("; fetch it [exit"), "{}", run.stderr);
}

#[test]
fn a_wait_whose_last_looks_take_long_or_hang_ends_as_what_failed_before() {
    if !has("strace") {
        return;
    }
    let volume = Volume::new();
    let later = volume.family("later");
    std::fs::create_dir_all(&later).unwrap();
    std::fs::write(later.join(".weightlift-complete.json"), "{\"format\": 99}").unwrap();
    // Each look takes half a second, and then longer than anybody waits.
    for (delay, count) in [("250ms", 40), ("12s", 2)] {
        let slow: Vec<PathBuf> = (0..count).map(|n| volume.family(&format!("slow{n}"))).collect();
        let mut wait = weightlift();
        wait.arg("wait").arg(&later).args(&slow).args(["--timeout", "1s"]);
        let inject = format!("inject=?open,openat:delay_enter={delay}");
        let mut wrapper =
            vec!["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=?open,openat"];
        wrapper.extend(["-e", &inject]);
        wrapper.extend(slow.iter().flat_map(|path| ["-P", path.to_str().unwrap()]));
        let run = under(&wrapper, &wait).run().assert_code(16);
        // The tracer may have a last word of its own.
        let is_last = |line: &&str| line.starts_with("error: ");
        let last = run.stderr.lines().rfind(is_last).unwrap_or_default();
        assert!(last.contains("later` (conflict)"), "{last}");
        if count == 40 {
            assert!(last.contains("; 41 of 41 models failed: "), "{last}");
            assert!(run.stderr.contains("no time was left for a last look"), "{}", run.stderr);
        } else {
            assert!(last.contains("--timeout of 1.0s expired while looking at `"), "{last}");
        }
    }
}

#[test]
fn all_directories_of_adopt_that_are_not_there_are_named() {
    let (hub, volume) = (hub(), Volume::new());
    let missing = ["x", "y"].map(|name| volume.path(name));
    let [x, y]: [&Path; 2] = missing.each_ref().map(PathBuf::as_path);
    let adopt = format!("{},{}", x.display(), y.display());
    let run = fetch(&hub, &volume, &["hf://org/a", "--adopt", &adopt]).run().assert_code(14);
    let both = format!("`{}`, `{}`, which --adopt names, do not exist", x.display(), y.display());
    assert!(run.last_line().contains(&both), "{}", run.stderr);
}

#[test]
fn a_model_inside_another_is_refused_before_anything_is_asked() {
    let (hub, volume) = (hub(), Volume::new());
    for [outer, inner] in [["a", "a/b"], ["a/b/c", "a"]] {
        let pairs = ["hf://org/a", outer, "hf://org/b", inner];
        let run = fetch(&hub, &volume, &pairs).run().assert_code(2);
        assert!(run.last_line().contains("lies inside the DEST"), "{}", run.stderr);
    }
    assert_eq!(hub.requests().len(), 0);
    fetch(&hub, &volume, &["hf://org/a", "a", "hf://org/b", "ab"]).run().assert_success();
}
