//! What a person sees at a terminal, and how much is said with `--quiet` and `--verbose`.

use std::process::Command;

use crate::support::process::{heartbeat, straced};
use crate::support::terminal::AtTerminal;
use crate::support::*;
use weightlift_fakes::{Blob, FakeHub, Fault, Rule, Tree};

/// Three files that come slowly, the largest last.
pub fn slow_hub(bytes_per_second: u64) -> FakeHub {
    let tree = Tree::new()
        .with_blob("weights-1.dat", Blob::synthetic(12 << 20, 1))
        .with_blob("权重/很长的名字-很长的名字-很长的名字.dat", Blob::synthetic(12 << 20, 2))
        .with("config.json", "{}");
    let hub = FakeHub::serving(REPO, tree);
    hub.script(Rule::on("GET", "").at("cdn").then(Fault::Drip { bytes_per_second }));
    hub
}

pub fn fetch_in_utf8(hub: &FakeHub, volume: &Volume, arguments: &[&str]) -> Command {
    let mut command = fetch(hub, volume, arguments);
    command.args(["hf://org/tiny", "--connections", "1"]).env("LANG", "C.UTF-8");
    command
}

/// Whether a sequence sets a colour, or takes it back.
fn has_colour(bytes: &str) -> bool {
    let is_of_number = |c: char| c.is_ascii_digit() || c == ';';
    bytes.split("\u{1b}[").skip(1).any(|it| it.trim_start_matches(is_of_number).starts_with('m'))
}

pub fn has_track(line: &str) -> bool {
    line.contains('━') || line.contains("──")
}

#[test]
fn a_person_sees_how_far_the_whole_and_each_file_is() {
    let (hub, volume) = (slow_hub(4 << 20), Volume::new());
    let terminal = AtTerminal::start(&mut fetch_in_utf8(&hub, &volume, &[]), 200, 24);
    let whole = terminal.eventually("the whole", |line| {
        has_track(line)
            && line.contains(" of 25.2 MB")
            && line.contains("/s ")
            && line.ends_with("s left")
    });
    assert!(whole.contains(" % ") && whole.contains(" of 3 files"), "{whole}");
    // How far it is shows: what is there, and what is not.
    assert!(whole.contains('━') && whole.contains('─'), "{whole}");
    terminal.eventually("a file", |line| line.starts_with("  ") && line.contains("12.6 MB"));
    terminal
        .eventually("the rest", |line| line.starts_with("  and ") && line.contains("more file"));
    let (code, lines, _) = terminal.wait();
    assert_eq!(code, 0, "{lines}");
    assert!(lines.contains("complete: ") && !has_track(&lines), "{lines}");
}

#[test]
fn the_picture_fits_a_terminal_of_any_width_also_while_it_changes() {
    let (hub, volume) = (slow_hub(1 << 20), Volume::new());
    let terminal = AtTerminal::start(&mut fetch_in_utf8(&hub, &volume, &[]), 200, 24);
    terminal.eventually("a wide picture", |line| has_track(line) && line.contains(" of 3 files"));
    for (columns, rows) in [(60, 24), (20, 8), (9, 3), (100, 24), (60, 24)] {
        terminal.resize(columns, rows);
        let is_of_whole = |line: &str| line.contains('%') && !line.starts_with("  ");
        terminal.eventually("a picture of another width", |line| {
            is_of_whole(line)
                && unicode_width::UnicodeWidthStr::width(line) < usize::from(columns)
                && has_track(line) == (columns >= 20)
        });
        // Two pictures later nothing of the old width is left.
        std::thread::sleep(std::time::Duration::from_millis(700));
        let lines = terminal.lines();
        assert_eq!(terminal.wrapped(has_track), Vec::<String>::new(), "{columns}");
        let wholes = lines.iter().filter(|line| is_of_whole(line)).count();
        assert_eq!(wholes, 1, "{columns}: {}", lines.join("\n"));
    }
    let (code, lines, _) = terminal.wait();
    assert_eq!(code, 0, "{lines}");
    assert!(lines.contains("complete: ") && !has_track(&lines), "{lines}");
}

#[test]
fn without_unicode_the_track_is_made_of_ascii() {
    let (hub, volume) = (slow_hub(6 << 20), Volume::new());
    let mut command = fetch_in_utf8(&hub, &volume, &[]);
    command.env("LC_ALL", "C").env("NO_COLOR", "1");
    let terminal = AtTerminal::start(&mut command, 100, 24);
    terminal.eventually("a track", |line| line.contains("=>--") && line.contains(" of 25.2 MB"));
    let (code, lines, bytes) = terminal.wait();
    assert!(code == 0 && !has_track(&lines), "{lines}");
    // It says when it is done, and NO_COLOR is heard.
    assert!(bytes.contains("complete: ") && !has_colour(&bytes), "{bytes:?}");
}

#[test]
fn colours_say_how_it_ended_and_nothing_else() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    let run = |source: &str, variables: &[(&str, &str)]| {
        let mut command = fetch(&hub, &volume, &[source]);
        command.envs(variables.iter().copied());
        AtTerminal::start(&mut command, 200, 24).wait()
    };
    let (code, _, bytes) = run("hf://org/tiny", &[]);
    assert!(code == 0 && bytes.contains("\u{1b}[32mcomplete:\u{1b}[0m"), "{bytes:?}");
    let (code, _, bytes) = run("hf://org/missing", &[]);
    assert!(code == 11 && bytes.contains("\u{1b}[31merror:\u{1b}[0m"), "{bytes:?}");
    for variables in [[("NO_COLOR", "1")], [("TERM", "dumb")]] {
        let (code, _, bytes) = run("hf://org/missing", &variables);
        assert!(code == 11 && bytes.contains("error: ") && !has_colour(&bytes), "{bytes:?}");
    }
    // A program reads objects, also at a terminal.
    let (_, _, bytes) = run("hf://org/missing", &[("WEIGHTLIFT_LOG_FORMAT", "json")]);
    assert!(!bytes.contains('\u{1b}'), "{bytes:?}");
    let piped = fetch(&hub, &volume, &["hf://org/missing"]).run();
    assert!(!piped.stderr.contains('\u{1b}'), "{}", piped.stderr);
}

#[test]
fn a_terminal_that_cannot_move_its_cursor_gets_lines() {
    let tree = Tree::new().with_blob("big.bin", Blob::synthetic(26 << 20, 1));
    let (hub, volume) = (FakeHub::serving(REPO, tree), Volume::new());
    hub.script(Rule::on("GET", "").at("cdn").then(Fault::Drip { bytes_per_second: 2 << 20 }));
    let mut command = fetch_in_utf8(&hub, &volume, &[]);
    let (code, lines, bytes) = AtTerminal::start(command.env("TERM", "dumb"), 200, 24).wait();
    assert!(code == 0 && lines.contains("fetching: "), "{lines}");
    assert!(!bytes.contains('\u{1b}') && !has_track(&bytes), "{bytes:?}");
}

#[test]
fn retries_are_counted_below_the_bars_and_said_above_them() {
    let tree = Tree::new().with_blob("big.dat", Blob::synthetic(24 << 20, 1)).with("a.json", "{}");
    let (hub, volume) = (FakeHub::serving(REPO, tree), Volume::new());
    hub.script(Rule::on("GET", "").at("cdn").times(2).then(Fault::status(503)));
    hub.script(Rule::on("GET", "").at("cdn").then(Fault::Drip { bytes_per_second: 4 << 20 }));
    let terminal = AtTerminal::start(&mut fetch_in_utf8(&hub, &volume, &[]), 200, 24);
    terminal.eventually("the count", |line| line.ends_with("2 retries"));
    terminal.eventually("the cause", |line| line.starts_with("retrying ") && line.contains("503"));
    assert_eq!(terminal.wait().0, 0);
}

#[test]
fn files_that_are_there_and_not_hashed_yet_say_so() {
    if !has("strace") {
        return;
    }
    let tree = Tree::new().with_blob("big.bin", Blob::synthetic(24 << 20, 1));
    let (hub, volume) = (FakeHub::serving(REPO, tree), Volume::new());
    hub.script(Rule::on("GET", "").at("cdn").then(Fault::Drip { bytes_per_second: 2 << 20 }));
    let mut command = fetch_in_utf8(&hub, &volume, &[]);
    let killed = command.start();
    let done = || heartbeat(&volume, "tiny")["done_bytes"].as_u64().unwrap_or_default();
    eventually("a part is there", || done() > 4 << 20);
    killed.signal("-KILL");
    drop(killed);
    hub.clear_script();
    // What an earlier run has left is read back, and slowly.
    let mut command = straced(&command, "pread64", &["pread64:delay_exit=100000"]);
    let terminal = AtTerminal::start(&mut command, 200, 24);
    terminal.eventually("a file that is hashed", |line| {
        line.contains("big.bin") && line.contains("100 %") && line.contains("hashed ")
    });
    terminal.eventually("the whole", |line| {
        // The track is that of the hash: what is here is not what is done.
        line.starts_with("hashing ")
            && line.contains(" of 25.2 MB")
            && line.contains('─')
            && line.ends_with("s left")
    });
    assert_eq!(terminal.wait().0, 0);
}

#[test]
fn a_waiter_sees_for_whom_it_waits_and_how_far_they_are() {
    let (hub, volume) = (slow_hub(1 << 20), Volume::new());
    let mut holder = fetch_in_utf8(&hub, &volume, &[]);
    let holder = holder.env("POD_NAME", "web-7").env("NODE_NAME", "n2").start();
    eventually("there is a holder", || heartbeat(&volume, "tiny") != serde_json::Value::Null);
    let fetching = AtTerminal::start(&mut fetch_in_utf8(&hub, &volume, &[]), 200, 24);
    let mut wait = weightlift();
    wait.arg("wait").arg(volume.family("tiny")).env("LANG", "C.UTF-8");
    let waiting = AtTerminal::start(&mut wait, 60, 24);
    for (terminal, how) in [(&fetching, " of 25.2 MB"), (&waiting, " %")] {
        let line = terminal.eventually("the holder", |line| {
            line.starts_with("waiting ") && has_track(line) && line.contains(how)
        });
        assert!(line.contains("pod web-7 on node n2") && line.contains(" %"), "{line}");
        // There is no room for it next to a long name in sixty columns.
        assert_eq!(line.contains("  gives up in "), how.contains("of"), "{line}");
        // A line that moves says it all; one that stays would fill the screen.
        let said =
            |line: &&String| line.starts_with("waiting for pod") || line.starts_with("waiting up");
        assert!(terminal.lines().iter().filter(said).count() <= 1, "{:?}", terminal.lines());
    }
    holder.wait().assert_success();
    for terminal in [fetching, waiting] {
        let (code, lines, _) = terminal.wait();
        assert!(code == 0 && lines.contains("complete: ") && !has_track(&lines), "{lines}");
    }
}

#[test]
fn of_several_models_each_has_its_line() {
    let (hub, volume) = (slow_hub(1 << 20), Volume::new());
    let mut command = fetch(&hub, &volume, &["hf://org/tiny", "llama", "hf://org/tiny", "qwen"]);
    command.args(["--connections", "2"]);
    let terminal = AtTerminal::start(command.env("LANG", "C.UTF-8"), 80, 24);
    for model in ["llama ", "qwen "] {
        terminal.eventually(model, |line| line.starts_with(model) && has_track(line));
    }
    terminal.eventually("the count", |line| line == "0 of 2 models complete");
    for (columns, rows) in [(200, 24), (60, 24), (80, 24)] {
        terminal.resize(columns, rows);
        std::thread::sleep(std::time::Duration::from_millis(700));
        let track = |model: &str| {
            let line = terminal.eventually(model, |line| line.starts_with(model));
            let is_of_track = |c: char| "━╾─".contains(c);
            let start = line.chars().position(is_of_track).unwrap_or_else(|| panic!("{line}"));
            (start, line.chars().filter(|c| is_of_track(*c)).count())
        };
        // One below the other, of one length.
        assert_eq!(track("llama "), track("qwen "), "{}", terminal.lines().join("\n"));
    }
    let lines = terminal.lines();
    let below = |model: &str| {
        let at = lines.iter().position(|line| line.starts_with(model)).unwrap();
        lines[at + 1..].iter().take_while(|line| line.starts_with("  ")).count()
    };
    // Its own files are below it, and few enough for the others to be seen.
    for model in ["llama ", "qwen "] {
        assert!((1..=3).contains(&below(model)), "{}", lines.join("\n"));
    }
    let (code, lines, _) = terminal.wait();
    assert!(code == 0 && !has_track(&lines), "{lines}");
}

#[test]
fn the_path_of_a_model_stands_in_a_line_of_its_own_while_another_is_fetched() {
    let small = Tree::new().with("config.json", "{}");
    let large = Tree::new().with_blob("big.dat", Blob::synthetic(12 << 20, 1));
    let hub = FakeHub::builder().repo(REPO, small).repo("org/big", large).start();
    let volume = Volume::new();
    hub.script(Rule::on("GET", "").at("cdn").then(Fault::Drip { bytes_per_second: 2 << 20 }));
    let mut command = fetch(&hub, &volume, &["hf://org/tiny", "small", "hf://org/big", "big"]);
    let terminal = AtTerminal::start_both(command.env("LANG", "C.UTF-8"), 100, 24);
    let path = volume.family("small").display().to_string();
    terminal.eventually("the path", |line| line == path);
    terminal.eventually("the other model", |line| line.starts_with("big ") && has_track(line));
    terminal.eventually("the count", |line| line == "1 of 2 models complete");
    let (code, lines, _) = terminal.wait();
    let is_alone = |name: &str| {
        lines.lines().any(|line| line.trim_end() == volume.family(name).to_str().unwrap())
    };
    assert!(code == 0 && is_alone("small") && is_alone("big"), "{lines}");
    assert!(!has_track(&lines), "{lines}");
}

#[test]
fn a_flag_outdoes_the_variable_of_the_other() {
    let volume = Volume::new();
    std::fs::create_dir_all(volume.root()).unwrap();
    for (variable, flag) in [("WEIGHTLIFT_VERBOSE", "-q"), ("WEIGHTLIFT_QUIET", "--verbose")] {
        let mut command = weightlift();
        command.args(["list", flag, "--root"]).arg(volume.root()).env(variable, "1");
        let run = command.run().assert_success();
        assert_eq!(
            run.stderr.contains("flags that are set"),
            flag == "--verbose",
            "{}",
            run.stderr
        );
    }
    weightlift().args(["list", "-q", "-v"]).run().assert_code(2);
}

#[test]
fn quiet_leaves_warnings_errors_and_the_result() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    let run = fetch(&hub, &volume, &["hf://org/tiny", "-q"]).run().assert_success();
    assert!(run.stderr.lines().all(|line| line.starts_with("warning: ")), "{}", run.stderr);
    assert_eq!(run.stdout.trim_end(), volume.family("tiny").to_str().unwrap());
    let mut quiet = fetch(&hub, &volume, &["hf://org/missing"]);
    let run = quiet.env("WEIGHTLIFT_QUIET", "1").run().assert_code(11);
    assert!(run.stderr.starts_with("error: ") && run.stderr.lines().count() == 1, "{}", run.stderr);
    // A mistake is one line as well, and `Usage:` is none.
    for arguments in [&["fetch", "-q", "--no-such-flag"][..], &["fetch", "-q"], &["-q"]] {
        let run = weightlift().args(arguments).run().assert_code(2);
        let lines = run.stderr.lines().count();
        assert!(run.stderr.starts_with("error: ") && lines == 1, "{}", run.stderr);
    }
    let adopt = ["hf://org/tiny", "other", "--quiet", "--adopt", "/nonexistent-directory"];
    fetch(&hub, &volume, &adopt).run().assert_code(14).assert_says("--adopt");
    let mut json = fetch(&hub, &volume, &["hf://org/missing", "--quiet", "--log-format", "json"]);
    let run = json.run().assert_code(11);
    let lines: Vec<serde_json::Value> =
        run.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.len() == 1 && lines[0]["level"] == "error", "{}", run.stderr);
    // No bars either, and nothing else that is for a terminal.
    let (hub, volume) = (slow_hub(12 << 20), Volume::new());
    let mut command = fetch_in_utf8(&hub, &volume, &["--quiet"]);
    let (code, _, bytes) = AtTerminal::start(&mut command, 100, 24).wait();
    assert_eq!((code, bytes.as_str()), (0, ""));
}

#[test]
fn verbose_tells_settings_lock_files_and_every_retry() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    hub.script(Rule::on("GET", "").at("cdn").times(3).then(Fault::status(503)));
    let arguments = ["hf://org/tiny", "-v", "--connections", "1"];
    let mut command = fetch(&hub, &volume, &arguments);
    command.env("HF_TOKEN", TOKEN).env("WEIGHTLIFT_RETRY_DELAY", "10ms");
    let run = command.run().assert_success();
    let first = run.stderr.lines().next().unwrap();
    for part in [
        "fetch; flags that are set: ",
        "--connections 1",
        "--retry-delay 10ms (WEIGHTLIFT_RETRY_DELAY)",
        "other variables that are set: HF_ENDPOINT, HF_TOKEN",
    ] {
        assert!(first.contains(part), "{part} is not in {first}");
    }
    let root = volume.family("tiny").display().to_string();
    let run = run.assert_says(&format!("acquired the lock of the volume for `{root}`"));
    for (path, _) in tiny_selected().iter() {
        let says = |line: &&str| line.starts_with(&format!("`{path}` is complete: "));
        assert_eq!(run.stderr.lines().filter(says).count(), 1, "{path}: {}", run.stderr);
    }
    let retries = run.stderr.lines().filter(|line| line.starts_with("retrying ")).count();
    assert_eq!(retries, 3, "{}", run.stderr);
    // Each request, and whether it said who asks; no token, and no query, which may be a signature.
    let says = |parts: &[&str]| {
        let has_all = |line: &str| parts.iter().all(|part| line.contains(part));
        assert!(run.stderr.lines().any(has_all), "{parts:?}: {}", run.stderr);
    };
    says(&["GET http://", "/api/models/org/tiny/revision/main with credentials: 200, in "]);
    // Links that are signed say who asks, too.
    says(&["/xet-bridge-us/", " with credentials: 503, in "]);
    says(&["/xet-bridge-us/", " with credentials: 200, in "]);
    assert!(!run.stderr.contains(TOKEN) && !run.stderr.contains('?'), "{}", run.stderr);
    // What only the curious want has a level of its own.
    let other = Volume::new();
    let mut command = fetch(&hub, &other, &["hf://org/tiny", "--log-format", "json"]);
    let run = command.env("WEIGHTLIFT_VERBOSE", "true").run().assert_success();
    let lines = run.stderr.lines().map(|line| serde_json::from_str(line).unwrap());
    let lines: Vec<serde_json::Value> = lines.collect();
    for (event, level) in [
        ("settings", "debug"),
        ("request", "debug"),
        ("locked", "debug"),
        ("file_done", "debug"),
        ("complete", "info"),
    ] {
        let line = lines.iter().find(|line| line["event"] == event);
        assert_eq!(line.expect(event)["level"], level);
    }
    // Usually none of it is said.
    let run = fetch(&hub, &volume, &["hf://org/tiny", "third"]).run().assert_success();
    for part in ["flags that are set", "acquired", "with credentials"] {
        assert!(!run.stderr.contains(part), "{}", run.stderr);
    }
}

#[test]
fn verbose_tells_a_request_that_fails() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    let endpoint = "http://127.0.0.1:1";
    let arguments = ["hf://org/tiny", "-v", "--retry-timeout", "100ms"];
    let run = fetch(&hub, &volume, &arguments).env("HF_ENDPOINT", endpoint).run().assert_code(20);
    let line = run.stderr.lines().find(|line| line.starts_with("GET "));
    let line = line.unwrap_or_else(|| panic!("{}", run.stderr));
    assert!(
        line.starts_with(&format!("GET {endpoint}/api/models/org/tiny/revision/main ")),
        "{line}"
    );
    assert!(line.contains("refused") && line.contains(", in 0."), "{line}");
}

#[test]
fn more_and_less_at_once_is_a_mistake() {
    let run = weightlift().args(["list", "-q", "--verbose"]).run().assert_code(2);
    assert!(run.last_line().contains("--quiet and --verbose"), "{}", run.stderr);
    let mut command = weightlift();
    command.arg("list").env("WEIGHTLIFT_QUIET", "1").env("WEIGHTLIFT_VERBOSE", "1");
    command.run().assert_code(2);
    let mut command = weightlift();
    command.args(["list", "-v", "--root"]).arg(Volume::new().root()).env("WEIGHTLIFT_QUIET", "0");
    assert_ne!(command.run().code, 2);
    let help = weightlift().args(["--help"]).run().assert_success().stdout;
    assert!(help.contains("-v, --verbose") && help.contains("-q, --quiet"), "{help}");
    assert!(help.contains("-V, --version"), "{help}");
}
