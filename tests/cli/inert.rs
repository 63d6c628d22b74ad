//! Text of others, from the network or from the volume, is shown and obeyed by no terminal. `Run`
//! refuses control characters in whatever the binary prints; here is what tries to bring them in.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

use crate::support::measure::with_peak_memory;
use crate::support::*;
use fs2::FileExt as _;
use serde_json::{Value, json};
use weightlift_fakes::{Blob, FakeS3, Fault, Rule};

/// Clears the screen, sets the title, begins a line, reverses and hides text, and a C1 sequence.
const NASTY: &str = "\u{1b}[2J\u{1b}]0;owned\u{7}\r\nerror: fake\u{202e}\u{200b}\u{9b}31m";
/// What of it a header can carry.
const NASTY_HEADER: &str = "\u{202e}\u{200b}\u{9b}31m\terror: fake";

/// Runs it with a termination message, which owes the same.
#[track_caller]
fn refused(command: &mut Command, volume: &Volume, what: &str) -> Run {
    let log = volume.path("termination-log");
    std::fs::write(&log, "").unwrap();
    let run = command.env("WEIGHTLIFT_TERMINATION_LOG", &log).run();
    assert!(run.code > 0 && run.code != 70, "{what}: {} {}", run.code, run.stderr);
    let errors = run.stderr.lines().filter(|line| line.starts_with("error:")).count();
    assert_eq!(errors, 1, "{what}: {}", run.stderr);
    let told = std::fs::read_to_string(&log).unwrap();
    let acts =
        |c: char| c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}');
    assert!(told.ends_with('\n') && !told.trim_end().chars().any(acts), "{what}: {told:?}");
    assert!(told.len() <= 1_024 && serde_json::from_str::<Value>(&told).is_ok(), "{told}");
    run
}

#[test]
fn nothing_that_a_hub_says_acts_on_a_terminal() {
    let body = |status, text: &str| Fault::status_with(status, &[], text);
    let header = |status, name, value| Fault::status_with(status, &[(name, value)], "");
    let listing = |entry: Value| Fault::ReplaceBody(json!([entry]).to_string().into_bytes());
    let oid = "0".repeat(40);
    let revision = || Rule::on("GET", "/revision/");
    let tree = || Rule::on("GET", "/tree/");
    let file = || Rule::on("*", "/resolve/");
    let cdn = || Rule::on("GET", "").at("cdn");
    let raw = format!("HTTP/1.1 500 {NASTY_HEADER}\r\nContent-Length: 0\r\n\r\n");
    let cases = [
        revision().then(body(403, NASTY)),
        revision().then(body(500, NASTY)),
        revision().then(body(418, NASTY)),
        revision().then(header(403, "X-Error-Message", NASTY_HEADER)),
        revision().then(header(500, "X-Request-Id", NASTY_HEADER)),
        revision().then(header(302, "Location", &format!("http://{NASTY_HEADER}/"))),
        revision().then(header(302, "Location", &format!("x:{NASTY_HEADER}"))),
        revision().then(header(307, "Location", &format!("/api/models/{NASTY_HEADER}/y"))),
        revision().then(Fault::Raw(raw.into_bytes())),
        revision().then(Fault::Raw(format!("HTTP/1.1 {NASTY}\r\n\r\n").into_bytes())),
        revision().then(Fault::ReplaceBody(json!({"sha": NASTY, "id": NASTY}).to_string().into())),
        revision().then(Fault::ReplaceBody(format!("{{\"sha\": {NASTY}").into_bytes())),
        revision().then(Fault::ReplaceBody(NASTY.into())),
        tree().then(body(404, NASTY)),
        tree().then(header(200, "Link", NASTY_HEADER)),
        tree().then(Fault::add_headers(&[("Link", "<http://\u{202e}x/>; rel=next")])),
        tree().then(listing(json!({"type": "file", "path": NASTY, "size": 1, "oid": oid}))),
        tree().then(listing(json!({"type": "file", "path": "x", "size": 1, "oid": NASTY}))),
        tree().then(listing(
            json!({"type": "file", "path": "x", "size": 1, "lfs": {"oid": NASTY, "size": 1}}),
        )),
        tree().then(listing(json!({"type": NASTY, "path": "x", "size": NASTY}))),
        file().then(body(404, NASTY)),
        file().then(body(403, NASTY)),
        file().then(Fault::add_headers(&[("X-Repo-Commit", "a\terror: fake")])),
        cdn().then(body(403, NASTY)),
        cdn().then(body(503, NASTY)),
        cdn().then(Fault::add_headers(&[("Content-Range", NASTY_HEADER)])),
        cdn()
            .then(Fault::add_headers(&[("Content-Encoding", NASTY_HEADER)]))
            .then(Fault::CutAfter(0)),
    ];
    for (n, rule) in cases.into_iter().enumerate() {
        let volume = Volume::new();
        let large = tiny().with_blob("big.bin", Blob::synthetic(3 << 20, 1));
        let hub = weightlift_fakes::FakeHub::serving(REPO, large);
        let what = format!("case {n}: {rule:?}");
        hub.script(rule);
        let mut command = fetch(&hub, &volume, &["hf://org/tiny", "--chunk-size", "1MiB", "--all"]);
        refused(command.env("WEIGHTLIFT_RETRY_TIMEOUT", "1s"), &volume, &what);
        assert!(hub.faults_applied() > 0, "{what}: nothing happened");
    }
}

#[test]
fn nothing_that_s3_says_acts_on_a_terminal() {
    let error = |code: &str, message: &str| {
        format!(
            "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
        )
    };
    let forged = NASTY.chars().map(|c| format!("&#{};", u32::from(c))).collect::<String>();
    let key = |key: &str| {
        format!(
            "<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>{key}</Key>\
             <Size>1</Size></Contents></ListBucketResult>"
        )
    };
    let list = || Rule::on("GET", "list-type=2");
    let get = || Rule::on("GET", "big.bin");
    let region = [("x-amz-bucket-region", NASTY_HEADER)];
    for (n, rule) in [
        list().then(Fault::status_with(403, &[], &error("AccessDenied", NASTY))),
        list().then(Fault::status_with(403, &[], &error(NASTY, NASTY))),
        list().then(Fault::status_with(400, &[], &error("Odd", &forged))),
        list().then(Fault::status_with(500, &[], NASTY)),
        list().then(Fault::status_with(301, &region, &error("PermanentRedirect", "x"))),
        list().then(Fault::ReplaceBody(key(&format!("m/{NASTY}")).into_bytes())),
        list().then(Fault::ReplaceBody(key(NASTY).into_bytes())),
        list().then(Fault::ReplaceBody(key(&format!("m/{forged}")).into_bytes())),
        list().then(Fault::ReplaceBody(NASTY.into())),
        get().then(Fault::status_with(403, &[], &error("AccessDenied", NASTY))),
        get().then(Fault::status_with(403, &[], &error(NASTY, &forged))),
        get().then(Fault::status_with(500, &[], NASTY)),
        get().then(Fault::add_headers(&[("Content-Range", NASTY_HEADER)])),
    ]
    .into_iter()
    .enumerate()
    {
        let s3 = FakeS3::builder().object("models", "m/big.bin", Blob::synthetic(3 << 20, 1));
        let (s3, volume) = (s3.credentials(ACCESS_KEY, SECRET_KEY).start(), Volume::new());
        let what = format!("case {n}: {rule:?}");
        s3.script(rule);
        let mut command = fetch_s3(&s3, &volume, &["s3://models/m/", "--chunk-size", "1MiB"]);
        refused(command.env("WEIGHTLIFT_RETRY_TIMEOUT", "1s"), &volume, &what);
        assert!(s3.faults_applied() > 0, "{what}: nothing happened");
    }
}

#[test]
fn nothing_that_a_sentinel_says_acts_on_a_terminal() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    let path = volume.family("tiny/.weightlift-complete.json");
    let whole: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    for pointer in [
        "/tool",
        "/source",
        "/renamed_to",
        "/requested_revision",
        "/revision",
        "/completed_at",
        "/files/0/path",
        "/files/0/sha256",
        "/files/0/verified_by",
        "/files/0/structure",
        "/left_out/0/path",
        "/left_out/0/why",
        "/selection/include",
    ] {
        let mut forged = whole.clone();
        forged["renamed_to"] = "hf://org/new".into();
        forged["files"][0]["structure"] = "valid".into();
        let nasty = if pointer.ends_with("include") { json!([NASTY]) } else { NASTY.into() };
        *forged.pointer_mut(pointer).expect(pointer) = nasty;
        std::fs::write(&path, forged.to_string()).unwrap();
        for output in ["text", "json"] {
            let mut verify = weightlift();
            let run = verify.args(["--output", output, "verify"]).arg(volume.family("tiny")).run();
            assert_ne!(run.code, 70, "{pointer}: {}", run.stderr);
            let run = fetch(&hub, &volume, &["hf://org/tiny", "--output", output]).run();
            assert_ne!(run.code, 70, "{pointer}: {}", run.stderr);
            std::fs::write(&path, forged.to_string()).unwrap();
        }
    }
}

#[test]
fn no_name_on_the_volume_acts_on_a_terminal() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    for name in [NASTY.replace('/', "_").as_bytes(), b"\xff\xfe\x1b[2J", b"a\nb"] {
        std::fs::write(volume.family("tiny").join(OsStr::from_bytes(name)), "x").unwrap();
    }
    let mut verify = weightlift();
    let run = verify.arg("verify").arg(volume.family("tiny")).run().assert_success();
    assert_eq!(run.stderr.matches("is not in the sentinel").count(), 3, "{}", run.stderr);
    // Where a link leads, and the directories that a user has named.
    std::os::unix::fs::symlink(NASTY, volume.root().join("link")).unwrap();
    refused(&mut fetch(&hub, &volume, &["hf://org/tiny", "link"]), &volume, "a link");
    let mut verify = weightlift();
    refused(verify.arg("verify").arg(volume.path(NASTY)), &volume, "a path");
    refused(&mut fetch(&hub, &volume, &[NASTY]), &volume, "a source");
    refused(&mut fetch(&hub, &volume, &["hf://org/tiny", NASTY]), &volume, "a family");
}

#[test]
fn a_forged_heartbeat_is_told_without_harm() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    let state = volume.root().join(".weightlift");
    for dir in ["locks", "owners"] {
        std::fs::create_dir_all(state.join(dir)).unwrap();
    }
    let lock = std::fs::File::create(state.join("locks/tiny.lock")).unwrap();
    lock.lock_exclusive().unwrap();
    let writer =
        json!({"boot_id": NASTY, "host": NASTY, "node": NASTY, "pid": -1, "pid_namespace": NASTY});
    let whole = json!({
        "attempt": NASTY, "writer": writer, "sequence": u64::MAX, "since_boot_ms": u64::MAX,
        "phase": NASTY, "done_bytes": u64::MAX, "total_bytes": 1, "worked_bytes": u64::MAX,
    });
    let mut many = whole.to_string();
    many.push_str(&" ".repeat(100 << 20));
    for (owner, told) in [
        (whole.to_string(), "100 % of 1 B"),
        (many, "100 % of 1 B"),
        (NASTY.into(), "another fetcher"),
    ] {
        std::fs::write(state.join("owners/tiny.json"), owner).unwrap();
        let mut command = fetch(&hub, &volume, &["hf://org/tiny", "--lock-timeout", "0s"]);
        let (run, peak) = with_peak_memory(&mut command);
        run.assert_code(23).assert_says(told);
        assert!(peak < 32 << 20, "peak RSS {} KiB", peak >> 10);
    }
}
