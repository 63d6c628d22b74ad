//! What a program reads of an error: fields beside the sentence, in the log and in the termination message.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::schema::TERMINATION;
use crate::support::*;
use weightlift_fakes::{Blob, FakeHub, FakeS3, Fault, Rule, Tree};

/// The last line of a run that must fail, as a program reads it, and its termination message.
fn failed(command: &mut std::process::Command, code: i32) -> (Value, Value) {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("termination");
    std::fs::write(&log, "").unwrap();
    command.env("WEIGHTLIFT_LOG_FORMAT", "json").env("WEIGHTLIFT_TERMINATION_LOG", &log);
    let run = command.run().assert_code(code);
    let last: Value = serde_json::from_str(run.last_line()).expect("the last line is JSON");
    assert_eq!((&last["event"], &last["code"]), (&json!("failed"), &json!(code)), "{last}");
    let told = std::fs::read_to_string(&log).unwrap();
    assert!(told.len() <= 1_024, "{told}");
    let told = serde_json::from_str(&told).expect(&told);
    TERMINATION.assert_holds(&told);
    (last, told)
}

/// Fails unless the fields of `found` are exactly `expected`, but for `hint`, which must be in the sentence
/// as well and hold `hint`.
#[track_caller]
fn assert_fields(found: &Value, hint: Option<&str>, expected: Value) {
    let names = ["host", "http_status", "file", "setting", "said"];
    let fields: serde_json::Map<String, Value> = names
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), found.get(name)?.clone())))
        .collect();
    assert_eq!(Value::Object(fields), expected, "{found}");
    let told = found.get("hint").and_then(Value::as_str);
    assert_eq!(told.is_some(), hint.is_some(), "{found}");
    let (told, hint) = (told.unwrap_or_default(), hint.unwrap_or_default());
    let sentence = found["message"].as_str().unwrap();
    assert!(told.contains(hint) && sentence.contains(told), "{found}");
}

#[test]
fn a_refusal_of_the_hub_names_host_status_file_and_what_to_do() {
    let (hub, volume) = (FakeHub::builder().repo(REPO, tiny()).gated(REPO).start(), Volume::new());
    let (last, told) = failed(&mut fetch(&hub, &volume, &["hf://org/tiny"]), 11);
    let said = last["said"].as_str().expect("the Hub says something").to_owned();
    let file = last["file"].as_str().expect("a file").to_owned();
    let expected = json!({ "host": hub.url(), "http_status": 401, "file": file, "said": said });
    assert_fields(&last, Some("accept its licence at "), expected);
    assert!(last["message"].as_str().unwrap().starts_with(&format!("`{file}`: ")), "{last}");
    for name in ["host", "http_status", "file"] {
        assert_eq!(told[name], last[name], "{told}");
    }
    // It is about the repo, and a setting that the user can change.
    let (last, _) = failed(fetch(&hub, &volume, &["hf://org/none"]).env("HF_TOKEN", TOKEN), 10);
    let expected = json!({ "host": hub.url(), "http_status": 404, "said": last["said"] });
    assert_fields(&last, None, expected);
}

#[test]
fn an_answer_that_is_not_the_file_names_it_and_whence_it_may_come() {
    let tree = Tree::new().with("config.json", "{}");
    let (hub, volume) = (FakeHub::serving(REPO, tree), Volume::new());
    let page = Fault::status_with(200, &[("Content-Type", "text/html")], "<html>log in</html>");
    hub.script(Rule::on("GET", "config.json").then(page));
    let mut command = fetch(&hub, &volume, &["hf://org/tiny"]);
    let (last, _) = failed(command.env("WEIGHTLIFT_RETRY_TIMEOUT", "1s"), 20);
    let expected = json!({ "host": hub.url(), "file": "config.json" });
    assert_fields(&last, Some("check for a proxy or a login portal in between"), expected);
}

fn small() -> Blob {
    Blob::bytes("{}")
}

#[test]
fn a_refusal_of_s3_names_host_status_key_and_what_to_do() {
    let volume = Volume::new();
    let s3 = FakeS3::builder().bucket("models").object("models", "tiny/config.json", small());
    let s3 = s3.credentials(ACCESS_KEY, SECRET_KEY).deny_list().start();
    let (last, told) = failed(&mut fetch_s3(&s3, &volume, &["s3://models/tiny/"]), 11);
    let expected = json!({
        "host": s3.url(), "http_status": 403, "file": "tiny/", "said": "AccessDenied: Access Denied",
    });
    assert_fields(&last, Some("allow `s3:GetObject`"), expected);
    assert_eq!((&told["host"], &told["file"]), (&last["host"], &last["file"]));

    let s3 = FakeS3::builder().bucket("models").object("models", "tiny/config.json", small());
    let s3 = s3.credentials(ACCESS_KEY, SECRET_KEY).start();
    s3.script(Rule::on("GET", "tiny/config.json").then(Fault::status_with(
        403,
        &[("Content-Type", "application/xml")],
        "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>",
    )));
    let (last, _) = failed(&mut fetch_s3(&s3, &volume, &["s3://models/tiny/"]), 11);
    let expected = json!({
        "host": s3.url(),
        "http_status": 403,
        "file": "tiny/config.json",
        "said": "AccessDenied: Access Denied",
    });
    assert_fields(&last, None, expected);
}

#[test]
fn a_setting_that_cannot_work_is_named_and_its_value_is_not() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    for (setting, value, hint) in [
        ("HF_ENDPOINT", "hub.example", Some("write a URL such as")),
        ("HTTPS_PROXY", "ftp://hunter2", Some("write it as http://host:port")),
        ("HF_TOKEN", "hunter2 hunter2", Some("check the Secret")),
    ] {
        let mut command = fetch(&hub, &volume, &["hf://org/tiny"]);
        let code = if setting == "HF_TOKEN" { 11 } else { 2 };
        let (last, _) = failed(command.env(setting, value), code);
        assert_fields(&last, hint, json!({ "setting": setting }));
        assert!(!last.to_string().contains("hunter2"), "{last}");
    }
    let mut command = fetch(&hub, &volume, &["hf://org/tiny", "--lock", "kubernetes"]);
    let (last, _) = failed(&mut command, 14);
    assert_fields(&last, Some("service account token"), json!({ "setting": "--lock" }));
}

#[test]
fn what_is_wrong_on_this_machine_names_the_path() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    let missing = volume.root().join("missing").display().to_string();
    let (last, _) = failed(&mut fetch(&hub, &volume, &[&format!("file://{missing}"), "x"]), 10);
    assert_fields(&last, Some("check the path and the mounts"), json!({ "file": missing }));
    let taken = volume.root().join("tiny");
    std::fs::create_dir(&taken).unwrap();
    std::fs::write(taken.join("notes"), "mine").unwrap();
    let (last, _) = failed(&mut fetch(&hub, &volume, &["hf://org/tiny"]), 16);
    assert_fields(
        &last,
        Some("choose another DEST"),
        json!({ "file": taken.display().to_string() }),
    );
}

#[test]
fn a_retry_has_the_fields_of_what_it_is_for() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    hub.script(Rule::on("GET", "config.json").once().then(Fault::status(503)));
    let mut command = fetch(&hub, &volume, &["hf://org/tiny", "--log-format", "json"]);
    let run = command.run().assert_success();
    let line = run.stderr.lines().find(|line| line.contains(r#""retrying""#)).expect(&run.stderr);
    let line: Value = serde_json::from_str(line).expect(line);
    assert_eq!((&line["host"], &line["http_status"]), (&json!(hub.url()), &json!(503)), "{line}");
}

#[test]
fn a_mistake_on_the_command_line_has_a_hint() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    let rates = ["hf://org/tiny", "--min-rate", "2MB", "--bandwidth", "1MB"];
    let (last, _) = failed(&mut fetch(&hub, &volume, &rates), 2);
    assert_fields(&last, Some("lower --min-rate"), json!({}));
    // What is quoted is not what to do.
    for name in ["a; b", "no`pe; run evil"] {
        let (last, _) = failed(weightlift().arg("verify").arg(volume.path(name)), 10);
        assert_fields(&last, Some("check the path"), json!({}));
        assert_eq!(last["hint"], "check the path", "{last}");
    }
    let value = ["hf://org/tiny", "--connections", "x; rm -rf /"];
    let (last, _) = failed(&mut fetch(&hub, &volume, &value), 2);
    assert_fields(&last, Some("run `weightlift fetch --help`"), json!({}));
    // What is missing is named.
    let (last, _) = failed(weightlift().arg("verify"), 2);
    assert!(last["message"].as_str().unwrap().contains("<PATH>..."), "{last}");
}

#[test]
fn the_name_of_a_remote_file_is_quoted_in_a_hint() {
    let tree = Tree::new()
        .with("model; run curl evil.safetensors.index.json", "{")
        .with_blob("model.safetensors", Blob::synthetic(4 << 10, 1));
    let (hub, volume) = (FakeHub::serving(REPO, tree), Volume::new());
    let run = fetch(&hub, &volume, &["hf://org/tiny", "--output", "json"]).run();
    let last: Value = serde_json::from_str(run.stdout.lines().last().unwrap()).unwrap();
    assert_eq!(last["status"], "failed", "{last}");
    // As one word of a shell, which is to be pasted.
    let hint = "add --exclude 'model; run curl evil.safetensors.index.json' to continue without it";
    assert_eq!(last["hint"], hint, "{last}");
}

#[test]
fn a_mistake_is_told_without_what_acts_on_a_terminal_and_without_secrets() {
    const KEY: &str = "-----BEGIN PRIVATE KEY-----hunter2";
    const URL: &str = "https://user:hunter2@host.example/x/";
    for arguments in [
        &["fetch", "hf://org/tiny", "--connections", "\u{1b}[31m8"][..],
        &["fetch", "hf://org/tiny", "--chunk-size", "\u{1b}[31m8"],
        &["fetch", "hf://org/tiny", "--umask", "\u{1b}[31m8"],
        &["fetch", "hf://org/tiny", "--metrics-listen", "\u{1b}[31m8"],
        &["fetch", "hf://org/tiny", "--if-stale", "\u{9b}31m"],
        &["fetch", "hf://org/tiny", "--\u{1b}[31m"],
        &["fetch", "\u{1b}[31m"],
        &["fetch", "hf://org/tiny", "\u{1b}[31m"],
        &["\u{1b}[31m"],
        &["fetch", URL],
        &["fetch", "hf://org/tiny", URL],
        &["fetch", "hf://org/tiny", "--layout", "hf-cache", URL],
        &["fetch", "hf://org/tiny", "--also", URL],
        &["fetch", "hf://org/tiny", "--mirror", URL],
        &["fetch", "hf://org/tiny", "--connections", URL],
        &["fetch", "hf://org/tiny", "--chunk-size", URL],
        &["fetch", "hf://org/tiny", "--bandwidth", "hf_hunter2"],
        &["fetch", "hf://org/tiny", "--if-stale", "hf_hunter2"],
        &["fetch", "hf://org/tiny", "--token=hunter2"],
        &["fetch", "hf://org/tiny", "--p2p", "dragonfly=http://user:hunter2@host.example"],
        &["fetch", "s3://bucket/tiny/", "--s3-endpoint", URL],
        &["verify", "x", "--verify-signature", KEY],
        &["mirror", "hf://org/tiny", URL],
        &["list", URL],
        &[URL],
    ] {
        let run = weightlift().args(arguments).env("WEIGHTLIFT_OUTPUT", "json").run();
        let run = run.assert_code(2);
        let said = format!("{}{}", run.stdout, run.stderr);
        assert!(!said.contains("hunter2"), "{arguments:?}: {said}");
        let acts = |c: char| c.is_control() && c != '\n';
        assert!(!said.contains(acts), "{arguments:?}: {said:?}");
        // Once, in one line, and the hint last.
        assert_eq!((run.stdout.lines().count(), run.stderr.lines().count()), (1, 1), "{said}");
        let line: Value = serde_json::from_str(run.stdout.trim()).expect(&run.stdout);
        let hint = line["hint"].as_str().unwrap_or_else(|| panic!("{arguments:?}: {line}"));
        assert!(line["message"].as_str().unwrap().ends_with(&format!("; {hint}")), "{line}");
    }
}

/// The Rust files below `dir`.
fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let (dirs, files): (Vec<_>, Vec<_>) = list(dir).into_iter().partition(|path| path.is_dir());
    let deeper = dirs.iter().flat_map(|dir| rust_files(dir));
    deeper.chain(files.into_iter().filter(|it| it.extension() == Some("rs".as_ref()))).collect()
}

/// The string literal, or the format, right after each `marker`.
fn literals<'a>(code: &'a str, marker: &str) -> Vec<&'a str> {
    let of = |rest: &'a str| {
        let bare = rest.trim_start();
        let bare = bare.strip_prefix("format!(").unwrap_or(bare).trim_start();
        let start = rest.len() - bare.strip_prefix('"')?.len();
        let ends = |(at, _): &(usize, &str)| !rest[..*at].ends_with('\\');
        let end = rest[start..].match_indices('"').map(|(at, it)| (start + at, it)).find(ends)?.0;
        Some(&rest[start..end])
    };
    code.split(marker).skip(1).filter_map(of).collect()
}

/// The words that a hint begins with: what to do, not what is so.
const IMPERATIVES: [&str; 38] = [
    "accept", "add", "allow", "change", "check", "choose", "close", "compare", "create", "enlarge",
    "fetch", "free", "give", "ignore", "leave", "look", "lower", "make", "mirror", "mount", "move",
    "name", "put", "raise", "remove", "rename", "renew", "repair", "run", "set", "sign", "stop",
    "unset", "upload", "use", "wait", "write", "build",
];

/// A hint is a field, so no sentence needs to be taken apart for it; what it says is held here.
#[test]
fn each_hint_says_what_to_do_and_no_sentence_hides_one() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut seen, mut wrong) = (0, Vec::new());
    for path in rust_files(&source) {
        let text = std::fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        let first = |clause: &str| clause.trim_start_matches(['\\', '\n', ' ']).to_owned();
        let is_imperative = |clause: &str| {
            let clause = first(clause);
            let word = clause.split([' ', ',', ':']).next().unwrap_or_default();
            IMPERATIVES.contains(&word) || word.starts_with('{')
        };
        for hint in literals(code, ".hint(") {
            seen += 1;
            if !is_imperative(hint) {
                wrong.push(format!("{}: {hint}", path.display()));
            }
        }
        for sentence in literals(code, "Message::new(") {
            if sentence.split("; ").skip(1).any(is_imperative) {
                wrong.push(format!("{}: a hint in `{sentence}`", path.display()));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(seen > 100, "{seen}");
}
