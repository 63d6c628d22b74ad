//! What programs read: whatever the command, and however it ends, each line is an object that docs describe.
//! Every other test of the binary is held to the same (`Run::from`).

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::schema::{LOG, OUTPUT, TERMINATION};
use crate::support::*;
use weightlift::model::ErrorFields;
use weightlift::report::{CompleteModel, Event, LeftOutFiles, NamedFile, Setting, Subject};
use weightlift_fakes::{FakeHub, FakeS3, Fault, Rule, Writes};

/// A Hub, a bucket and a volume.
struct Scene {
    hub: FakeHub,
    s3: FakeS3,
    volume: Volume,
    /// Each line with the command that has printed it.
    seen: Vec<(&'static str, Value)>,
}

impl Scene {
    fn new() -> Self {
        let s3 = FakeS3::builder().bucket("models").credentials(ACCESS_KEY, SECRET_KEY);
        Self {
            hub: FakeHub::builder().repo("org/a", tiny()).repo("org/b", tiny()).start(),
            s3: s3.writable(Writes::default()).start(),
            volume: Volume::new(),
            seen: Vec::new(),
        }
    }

    fn command(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = weightlift();
        command.arg(name).args(arguments).args(["--output", "json"]);
        command.args(["--termination-log"]).arg(self.volume.path("message"));
        command.env("HF_ENDPOINT", self.hub.url()).env("WEIGHTLIFT_RETRY_TIMEOUT", "1s");
        command.env("WEIGHTLIFT_ROOT", self.volume.root());
        command
            .env("WEIGHTLIFT_S3_ENDPOINT", self.s3.url())
            .env("WEIGHTLIFT_S3_PATH_STYLE", "true");
        command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
        command.env("AWS_REGION", "us-east-1");
        command
    }

    /// Runs a command that must end with `code` after lines of these statuses (verdicts, of `doctor` the worst).
    #[track_caller]
    fn ends(&mut self, name: &'static str, arguments: &[&str], code: i32, statuses: &[&str]) {
        std::fs::write(self.volume.path("message"), "").unwrap();
        let run = self.command(name, arguments).run().assert_code(code);
        let lines: Vec<Value> =
            run.stdout.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
        let found: Vec<&str> = lines.iter().filter_map(|line| line["status"].as_str()).collect();
        assert_eq!(found, statuses, "{name} {arguments:?}: {}", run.stderr);
        for line in &lines {
            assert_eq!(OUTPUT.problem_by(name, line), None, "{name} {arguments:?}: {line}");
        }
        if code != 0 {
            assert_failed(lines.last().expect("the last line says why"), &run);
        }
        let message = std::fs::read_to_string(self.volume.path("message")).unwrap();
        TERMINATION.assert_holds(&serde_json::from_str(&message).expect(&message));
        self.seen.extend(lines.into_iter().map(|line| (name, line)));
    }
}

/// The last line for programs and the one for people say the same.
#[track_caller]
fn assert_failed(line: &Value, run: &Run) {
    let (code, class) = (&line["code"], line["class"].as_str().unwrap());
    let told = format!("error: {} [exit {code}, {class}]", line["message"].as_str().unwrap());
    assert_eq!((run.last_line(), code), (told.as_str(), &json!(run.code)));
}

#[test]
fn every_command_tells_a_program_how_it_ended() {
    let mut scene = Scene::new();
    let path = |name: &str| scene.volume.family(name).display().to_string();
    let (a, none, yaml) = (path("a"), path("none"), scene.volume.path("models.yaml"));
    let list = |names: &[&str]| {
        let of = |name: &&str| format!("- {{name: {name}, source: 'hf://org/{name}'}}\n");
        let models: String = names.iter().map(of).collect();
        std::fs::write(&yaml, format!("version: 1\nmodels:\n{models}")).unwrap();
    };
    let yaml_text = yaml.display().to_string();
    let lock = scene.volume.path("models.lock").display().to_string();
    let models = ["--models", &yaml_text, "--locked", &lock];

    scene.ends("list", &[], 10, &["failed"]);
    scene.ends("plan", &["hf://org/a", "a"], 0, &["fetch"]);
    scene.ends("fetch", &["hf://org/a", "a", "--dry-run"], 0, &["fetch"]);
    scene.ends("fetch", &["hf://org/a", "a"], 0, &["fetched"]);
    scene.ends("fetch", &["hf://org/a", "a"], 0, &["present"]);
    scene.ends("fetch", &["hf://org/b", "a"], 16, &["failed"]);
    let several = ["hf://org/a", "a", "hf://org/none", "n", "hf://org/b", "b"];
    scene.ends("fetch", &several, 11, &["present", "failed", "fetched", "failed"]);
    scene.ends("plan", &several, 11, &["present", "failed", "present", "failed"]);
    scene.ends("plan", &["hf://org/none", "n"], 11, &["failed"]);
    // Mistakes that the parser finds, that are found later, and that no file can be written.
    scene.ends("fetch", &["--nonsense"], 2, &["failed"]);
    scene.ends("fetch", &[], 2, &["failed"]);
    scene.ends("fetch", &["hf://org/a", "--progress-file", "/nonexistent/x"], 2, &["failed"]);
    scene.ends("verify", &[&a], 0, &["verified"]);
    scene.ends("verify", &[&none, &a], 10, &["failed", "verified", "failed"]);
    scene.ends("verify", &[&none], 10, &["failed"]);
    scene.ends("verify", &[], 2, &["failed"]);
    scene.ends("wait", &[&a], 0, &["ready"]);
    scene.ends("wait", &[&a, &none, "--timeout", "0s"], 23, &["ready", "failed", "failed"]);
    scene.ends("wait", &[&none, "--timeout", "0s"], 23, &["failed"]);
    scene.ends("wait", &[&a, "--expect-revision", "main"], 2, &["failed"]);

    let prefix = "s3://models/m/";
    scene.ends("mirror", &["hf://org/a", prefix], 0, &["mirrored"]);
    scene.ends("mirror", &["hf://org/a", prefix], 0, &["present"]);
    scene.ends("mirror", &["--check", prefix], 0, &["verified"]);
    scene.ends("mirror", &["--check", "s3://models/x/"], 10, &["failed"]);
    scene.ends("mirror", &["hf://org/none", "s3://models/x/"], 11, &["failed"]);
    scene.ends("mirror", &["hf://org/a", "file:///x"], 2, &["failed"]);

    list(&["a", "b"]);
    scene.ends("pin", &[&models[..], &["--check"]].concat(), 2, &["failed"]);
    scene.ends("pin", &models, 0, &["pinned", "pinned"]);
    scene.ends("pin", &[&models[..], &["--upgrade", "a"]].concat(), 0, &["pinned", "kept"]);
    scene.ends("pin", &[&models[..], &["--check"]].concat(), 0, &["current", "current"]);
    scene.hub.move_branch("org/a", "main", tiny().with("new.txt", "new"));
    list(&["a", "c"]);
    let moved = ["moved", "unlocked", "unasked", "failed"];
    scene.ends("pin", &[&models[..], &["--check"]].concat(), 16, &moved);
    list(&["c"]);
    scene.ends("pin", &models, 11, &["failed"]);

    scene.ends("fetch", &["hf://org/a", "a"], 0, &["updated"]);
    scene.ends("list", &[], 0, &["published", "published"]);
    scene.ends("list", &["--root", &a], 2, &["failed"]);
    let keep = ["--keep-revisions", "0"];
    scene.ends("prune", &keep, 0, &["removable"]);
    scene.ends("prune", &[&keep[..], &["--yes"]].concat(), 0, &["removed"]);
    scene.ends("prune", &["--root", &none], 10, &["failed"]);
    let bad = scene.volume.family("b/config.json");
    std::fs::remove_file(&bad).unwrap();
    std::fs::write(&bad, "{").unwrap();
    scene.ends("verify", &[bad.parent().unwrap().to_str().unwrap()], 12, &["failed"]);
    scene.ends("doctor", &["hf://org/b"], 0, &[]);
    scene.ends("doctor", &["hf://org/none"], 11, &["failed"]);
    scene.ends("doctor", &["--nonsense"], 2, &["failed"]);
    let run = scene.command("fetch", &["hf://org/a", "a"]).env("HF_HUB_OFFLINE", "1").run();
    assert!(run.assert_success().stdout.contains("\"stale\":{\"why\":"));

    let commands: BTreeSet<&str> = scene.seen.iter().map(|(name, _)| *name).collect();
    let known = std::fs::read_to_string(format!(
        "{}/docs/progress.schema.json",
        env!("CARGO_MANIFEST_DIR")
    ));
    let known: Value = serde_json::from_str(&known.unwrap()).unwrap();
    let known = known["properties"]["command"]["enum"].as_array().unwrap();
    assert_eq!(commands, known.iter().filter_map(Value::as_str).collect());
    OUTPUT.assert_agrees(&scene.seen);
}

#[test]
fn a_run_that_is_stopped_tells_a_program_so() {
    let scene = Scene::new();
    let hang = Fault::HangBeforeHeaders(Duration::from_secs(60));
    scene.hub.script(Rule::on("GET", "").at("cdn").then(hang));
    let path = scene.volume.family("a").display().to_string();
    let last = |run: &Run| -> Value { serde_json::from_str(run.stdout.trim()).unwrap() };
    let fetch = |more: &[&str]| {
        let mut command = scene.command("fetch", &[&["hf://org/a", "a"], more].concat());
        command.env("WEIGHTLIFT_RETRY_TIMEOUT", "60s");
        command
    };
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let requests = scene.hub.count("GET", "org/a/resolve");
        let running = fetch(&[]).start();
        eventually("it fetches", || scene.hub.count("GET", "org/a/resolve") > requests);
        running.signal(signal);
        let run = running.wait().assert_code(code);
        assert_failed(&last(&run), &run);
        assert_eq!(last(&run)["path"], path.as_str());
    }
    let run = fetch(&["--deadline", "2s"]).run();
    let run = run.assert_code(23);
    assert_failed(&last(&run), &run);
    assert_eq!(last(&run)["source"], "hf://org/a");
}

#[test]
fn a_mistake_is_told_in_the_form_that_was_asked_for() {
    let of = |arguments: &[&str], output: Option<&str>| {
        let mut command = weightlift();
        command.args(arguments).envs(output.map(|output| ("WEIGHTLIFT_OUTPUT", output))).run()
    };
    for (arguments, output, is_json) in [
        (&["fetch", "--nonsense", "--output=json"][..], None, true),
        (&["--output", "json", "nonsense"], None, true),
        (&["fetch", "--nonsense"], Some("json"), true),
        (&["fetch", "--nonsense", "--output=text"], Some("json"), false),
        (&["fetch", "--nonsense"], None, false),
    ] {
        let run = of(arguments, output).assert_code(2);
        assert_eq!(!run.stdout.is_empty(), is_json, "{arguments:?}: {}", run.stdout);
    }
    // The log as well.
    let run = of(&["fetch", "--nonsense", "--log-format", "json"], None).assert_code(2);
    let last: Value = serde_json::from_str(run.last_line()).expect(&run.stderr);
    assert_eq!((&last["event"], &last["class"]), (&json!("failed"), &json!("usage")));
}

fn fields() -> ErrorFields {
    let text = || Some("x".to_owned());
    ErrorFields {
        host: text(),
        http_status: Some(503),
        file: text(),
        setting: text(),
        holder: text(),
        said: text(),
        hint: text(),
    }
}

/// One event of each kind, with all that it can have.
fn events() -> Vec<Event> {
    let text = || "x".to_owned();
    let seconds = Duration::from_secs(3);
    let files = LeftOutFiles { why: text(), files: 1, bytes: 2, by_default: true };
    let model = CompleteModel {
        path: text(),
        source: text(),
        revision: text(),
        status: "fetched",
        files: 1,
        total_bytes: 2,
        fetched_bytes: 1,
        reused_bytes: 1,
        seconds: 3.0,
    };
    let subject = Subject { name: Some(text()), path: Some(text()), source: Some(text()) };
    let named = NamedFile { path: text(), bytes: 1 };
    vec![
        Event::Rechecking { path: text(), bytes: 1 },
        Event::Damaged { path: text(), source: text(), damage: text() },
        Event::Replacing { path: text(), source: text() },
        Event::Stale { path: text(), source: text(), revision: text(), why: text() },
        Event::Fetching {
            source: text(),
            revision: text(),
            path: text(),
            files: 1,
            bytes: 2,
            reused_bytes: 1,
            left_out: vec![files.clone()],
            free_bytes: Some(1),
        },
        Event::Mirroring {
            source: text(),
            revision: text(),
            target: text(),
            files: 1,
            bytes: 2,
            kept_files: 1,
            kept_bytes: 1,
            left_out: vec![files],
        },
        Event::Checking { target: text(), files: 1, bytes: 2, deep: true },
        Event::WrongObject { path: text(), why: text() },
        Event::LeftOut { why: text(), named: vec![named], more: 1 },
        Event::Progress {
            phase: text(),
            done_bytes: 1,
            total_bytes: 2,
            done_files: 1,
            total_files: 2,
            bytes_per_second: 1,
            left: text(),
        },
        Event::Retrying {
            path: Some(text()),
            from_byte: Some(1),
            error: text(),
            delay: seconds,
            fields: Box::new(fields()),
        },
        Event::FetchingAgain { path: text(), cause: text() },
        Event::ReplacingConnection { path: text(), bytes_per_second: 1, usual_bytes_per_second: 2 },
        Event::MemoryLimit { connections: 1, asked: 2, memory_limit: 3 },
        Event::ProcessorLimit { used: 0.5, limit: Some(1.5) },
        Event::NoRanges { host: text(), file: text() },
        Event::Waiting {
            holder: text(),
            without_progress: seconds,
            gives_up_in: seconds,
            deadline_in: Some(seconds),
        },
        Event::Settings {
            command: "fetch",
            settings: vec![Setting { flag: text(), value: text(), variable: Some(text()) }],
            variables: vec![text()],
        },
        Event::Request {
            method: text(),
            url: text(),
            range: Some(text()),
            has_credentials: true,
            status: Some(206),
            error: Some(text()),
            took: seconds,
        },
        Event::Locked { path: text(), lock: text() },
        Event::FileDone {
            path: text(),
            bytes: 2,
            reused_bytes: 1,
            from: Some(text()),
            took: seconds,
            is_compared: true,
        },
        Event::Linked { link: text(), target: text() },
        Event::RemovedRevisions { path: text(), revisions: vec![text()], bytes: 1 },
        Event::Skipped { family: text(), why: text() },
        Event::warning("x"),
        Event::note("x"),
        Event::Complete { message: text(), model: Some(Box::new(model)) },
        Event::Failed {
            message: text(),
            subject: Box::new(subject),
            code: 20,
            class: "unreachable",
            fields: Box::new(fields()),
        },
    ]
}

/// The line of an event, as `--log-format json` has it.
fn line_of(event: &Event) -> Value {
    let mut line = serde_json::to_value(event).unwrap();
    line["time"] = "2026-11-28T23:08:01Z".into();
    line["level"] = serde_json::to_value(event.level()).unwrap();
    line["message"] = event.to_string().into();
    line
}

/// The names of the enum, as the log has them.
fn variants() -> BTreeSet<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/report/event.rs");
    let text = std::fs::read_to_string(path).unwrap();
    let body = text.split("pub enum Event {\n").nth(1).unwrap().split("\n}\n").next().unwrap();
    let names = body.lines().filter_map(|line| line.strip_prefix("    "));
    let names = names.filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()));
    names.map(|line| snake(line.split(|c: char| !c.is_alphanumeric()).next().unwrap())).collect()
}

fn snake(name: &str) -> String {
    let small = |(n, c): (usize, char)| {
        let between = if n > 0 && c.is_ascii_uppercase() { "_" } else { "" };
        format!("{between}{}", c.to_ascii_lowercase())
    };
    name.char_indices().map(small).collect()
}

#[test]
fn the_schema_of_the_log_has_every_event_with_its_fields() {
    let lines: Vec<(&str, Value)> = events().iter().map(|event| ("", line_of(event))).collect();
    let names = |lines: &[(&str, Value)]| -> BTreeSet<String> {
        lines.iter().map(|(_, line)| line["event"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&lines), variants());
    let parts: BTreeSet<String> = LOG.parts().into_iter().map(str::to_owned).collect();
    let shared = ["time", "message", "model"].map(str::to_owned);
    assert_eq!(&parts - &shared.into(), variants());
    for (_, line) in &lines {
        let part = line["event"].as_str().unwrap();
        assert_eq!(LOG.problem_by(part, line), None, "{line}");
        // Each field is described, and none that is not there.
        let told: BTreeSet<&str> = line.as_object().unwrap().keys().map(String::as_str).collect();
        let mut described = LOG.fields(part);
        described.remove("model");
        assert_eq!(told, described, "{part}");
    }
    LOG.assert_agrees(&lines);
}
