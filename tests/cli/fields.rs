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
        ("HF_ENDPOINT", "hub.example", None),
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
    assert_fields(&last, None, json!({ "file": missing }));
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
    let (last, _) = failed(weightlift().arg("verify").arg(volume.path("a; b")), 10);
    assert_fields(&last, None, json!({}));
}

/// The Rust files below `dir`.
fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let (dirs, files): (Vec<_>, Vec<_>) = list(dir).into_iter().partition(|path| path.is_dir());
    let deeper = dirs.iter().flat_map(|dir| rust_files(dir));
    deeper.chain(files.into_iter().filter(|it| it.extension() == Some("rs".as_ref()))).collect()
}

/// The string literal that begins within a few words after each `marker`.
fn literals<'a>(code: &'a str, marker: &str) -> Vec<&'a str> {
    let of = |rest: &'a str| {
        let start = rest.find('"').filter(|at| *at < 60)? + 1;
        let ends = |(at, _): &(usize, &str)| !rest[..*at].ends_with('\\');
        let end = rest[start..].match_indices('"').map(|(at, it)| (start + at, it)).find(ends)?.0;
        Some(&rest[start..end])
    };
    code.split(marker).skip(1).filter_map(of).collect()
}

/// `Error::fields` takes the last clause of these sentences for the hint.
#[test]
fn the_last_clause_of_a_sentence_says_what_to_do() {
    const BEGINS: [&str; 19] = [
        "add",
        "check",
        "choose",
        "fetch",
        "give",
        "leave",
        "list",
        "look",
        "mirror",
        "mount",
        "move",
        "name",
        "remove",
        "run",
        "set",
        "use",
        "wait",
        "write",
        "`weightlift",
    ];
    let classes = ["Usage", "NotFound", "Integrity", "Unusable", "Policy", "Conflict", "Deadline"];
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut seen, mut wrong) = (0, Vec::new());
    for path in rust_files(&source) {
        let text = std::fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap().replace("SourceError::", "");
        let mut sentences: Vec<&str> =
            classes.iter().flat_map(|it| literals(&code, &format!("Error::{it}("))).collect();
        if ["volume/error.rs", "model/selection/mod.rs", "model/uri/mod.rs"]
            .iter()
            .any(|name| path.ends_with(name))
        {
            sentences.extend(literals(&code, "#[error("));
        }
        for sentence in sentences {
            let Some((_, clause)) = sentence.rsplit_once("; ") else { continue };
            seen += 1;
            let first = clause.trim_start_matches(['\\', '\n', ' ']).split(' ').next().unwrap();
            // A value has a clause of its own.
            if !BEGINS.contains(&first) && !first.starts_with('{') {
                wrong.push(format!("{}: {clause}", path.display()));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(seen > 30, "{seen}");
}
