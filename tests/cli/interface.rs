//! What scripts and people rely on: standard output, the last line, exit codes, the termination
//! message.

use std::process::Stdio;

use crate::support::measure::with_peak_memory;
use crate::support::*;
use weightlift_fakes::{Blob, FakeHub, Fault, Rule, Tree};

#[test]
fn json_output_is_one_line_of_facts() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    for status in ["fetched", "present"] {
        let run =
            fetch(&hub, &volume, &["hf://org/tiny", "--output", "json"]).run().assert_success();
        assert_eq!(run.stdout.lines().count(), 1);
        let facts: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
        assert_eq!(facts["path"], volume.family("tiny").to_str().unwrap());
        assert_eq!(facts["status"], status);
        assert_eq!(facts["revision"], hub.commit(REPO));
        assert_eq!(facts["files"], 13);
        assert_eq!(facts["total_bytes"], tiny_selected().total_bytes());
    }
}

#[test]
fn the_termination_message_tells_success_and_failure() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    let log = volume.path("termination-log");
    let told = |source: &str| -> serde_json::Value {
        std::fs::write(&log, "x".repeat(3000)).unwrap();
        let run = fetch(&hub, &volume, &[source]).arg("--termination-log").arg(&log).run();
        let text = std::fs::read_to_string(&log).unwrap();
        assert!(text.len() <= 1024 && text.lines().count() == 1, "{text}");
        let facts: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(facts["code"], run.code);
        assert!(
            run.last_line().contains(facts["message"].as_str().unwrap()),
            "{text} {}",
            run.stderr
        );
        facts
    };
    let facts = told("hf://org/tiny");
    assert_eq!((&facts["code"], &facts["class"]), (&0.into(), &"complete".into()));
    assert_eq!(facts["path"], volume.family("tiny").to_str().unwrap());
    assert_eq!(told("hf://org/missing")["class"], "access");
    assert_eq!(told("ftp://x/y")["class"], "usage");
    assert_eq!(told(&format!("hf://org/{}", "x".repeat(3000)))["v"], 1);
    // A file that is not there is not made.
    std::fs::remove_file(&log).unwrap();
    fetch(&hub, &volume, &["hf://org/tiny"]).arg("--termination-log").arg(&log).run();
    assert!(!log.exists());
}

#[test]
fn usage_errors_are_code_2_and_go_to_the_termination_message_too() {
    let volume = Volume::new();
    let log = volume.path("termination-log");
    for arguments in [
        vec!["fetch"],
        vec!["fetch", "--nope", "hf://a/b"],
        vec!["fetch", "gopher://a/b"],
        vec!["fetch", "hf://a/b", "../x"],
        vec!["fetch", "hf://a/b", "--connections", "0"],
        vec!["fetch", "hf://a/b", "--chunk-size", "1KiB"],
        vec!["fetch", "hf://a/b", "--lock-timeout", "soon"],
        vec!["fetch", "hf://a/b", "--expect-revision", "a", "--expect-revision", "b"],
        vec!["verify"],
        vec!["frobnicate"],
    ] {
        std::fs::write(&log, "").unwrap();
        let run = weightlift().env("WEIGHTLIFT_TERMINATION_LOG", &log).args(&arguments).run();
        assert_eq!(run.code, 2, "{arguments:?}: {}", run.stderr);
        assert_eq!(run.stdout, "");
        assert!(run.last_line().contains("[exit 2, usage]"), "{}", run.stderr);
        assert!(std::fs::read_to_string(&log).unwrap().contains("\"usage\""), "{arguments:?}");
    }
}

#[test]
fn flags_can_come_from_the_environment() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    let mut command = weightlift();
    command.args(["fetch", "hf://org/tiny"]).env("HF_ENDPOINT", hub.url());
    command.env("WEIGHTLIFT_ROOT", volume.root()).env("WEIGHTLIFT_ALL", "1");
    command.env("WEIGHTLIFT_EXCLUDE", "*.pth,onnx/").env("WEIGHTLIFT_OUTPUT", "json");
    let run = command.run().assert_success();
    assert!(run.stdout.starts_with('{'));
    let tree = tiny().without("original/consolidated.00.pth").without("onnx/model.onnx");
    volume.assert_holds("tiny", &tree);
}

#[test]
fn a_variable_that_is_set_to_nothing_is_not_set() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    let mut command = fetch(&hub, &volume, &["hf://org/tiny"]);
    for name in [
        "ROOT",
        "ALL",
        "CONNECTIONS",
        "CHUNK_SIZE",
        "OUTPUT",
        "EXPECT_REVISION",
        "S3_ENDPOINT",
        "INCLUDE",
        "LOCK_TIMEOUT",
        "TERMINATION_LOG",
    ] {
        command.env(format!("WEIGHTLIFT_{name}"), "");
    }
    command.run().assert_success();
    volume.assert_holds("tiny", &tiny_selected());
}

#[test]
fn help_and_version_go_to_standard_output() {
    for arguments in [&["--help"][..], &["fetch", "--help"], &["verify", "--help"], &["--version"]]
    {
        let run = weightlift().args(arguments).run().assert_success();
        assert!(run.stdout.contains("weightlift") && run.stderr.is_empty(), "{}", run.stderr);
    }
    let help = weightlift().args(["fetch", "--help"]).run().stdout;
    assert!(!help.contains("--token"), "a token is never a flag");
}

#[test]
fn the_version_names_the_commit_that_a_release_is_made_of() {
    let release = env!("CARGO_PKG_VERSION");
    let printed = |flag| weightlift().arg(flag).run().assert_success().stdout;
    assert_eq!(printed("-V").trim_end(), format!("weightlift {release}"));
    let long = printed("--version");
    let start = format!("weightlift {release} (");
    let made_from = long.trim_end().strip_prefix(&start).and_then(|rest| rest.strip_suffix(')'));
    let made_from = made_from.unwrap_or_else(|| panic!("{long}"));
    // What it has to be is known only of a binary that was built for a release.
    let Ok(commit) = std::env::var("WEIGHTLIFT_TEST_COMMIT") else {
        assert!(!made_from.is_empty(), "{long}");
        return;
    };
    assert_eq!(made_from.split(", ").next(), Some(&commit[..12]), "{long}");
}

#[test]
fn a_closed_standard_output_does_not_undo_the_work() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    let mut command = fetch(&hub, &volume, &["hf://org/tiny"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    drop(child.stderr.take());
    assert!(child.wait().unwrap().success());
    volume.assert_holds("tiny", &tiny_selected());
}

#[test]
fn without_a_terminal_there_is_at_most_a_line_every_ten_seconds() {
    let tree = Tree::new().with_blob("big.bin", Blob::synthetic(24 << 20, 1));
    let (hub, volume) = (FakeHub::serving(REPO, tree), Volume::new());
    hub.script(Rule::on("GET", "").at("cdn").then(Fault::Drip { bytes_per_second: 2 << 20 }));
    let mut command = fetch(&hub, &volume, &["hf://org/tiny", "--connections", "1"]);
    // A person may look at it by `tee`, and has a terminal that could show bars.
    let run = command.env("TERM", "xterm-256color").run().assert_success();
    assert!(!run.stderr.contains('\u{1b}'), "{}", run.stderr);
    let lines: Vec<_> = run.stderr.lines().filter(|line| line.starts_with("fetching: ")).collect();
    // 24 MiB at 2 MiB/s take twelve seconds.
    assert_eq!(lines.len(), 1, "{}", run.stderr);
    assert!(lines[0].contains(" of 25.2 MB") && lines[0].contains("left"), "{}", lines[0]);
}

#[test]
fn on_a_terminal_there_are_bars() {
    if !has("script") {
        return;
    }
    let tree = Tree::new().with_blob("big.bin", Blob::synthetic(12 << 20, 1));
    let (hub, volume) = (FakeHub::serving(REPO, tree), Volume::new());
    hub.script(Rule::on("GET", "").at("cdn").then(Fault::Drip { bytes_per_second: 6 << 20 }));
    let inner = fetch(&hub, &volume, &["hf://org/tiny"]);
    let words: Vec<_> = inner.get_args().map(|word| word.to_str().unwrap()).collect();
    let line = format!("{} {}", inner.get_program().to_str().unwrap(), words.join(" "));
    let output = std::process::Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .env("HF_ENDPOINT", hub.url())
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let screen = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{screen}");
    for part in [" % ", "big.bin", "MB/s", "complete:"] {
        assert!(screen.contains(part), "{part} is missing: {screen}");
    }
}

#[test]
fn memory_stays_small_whatever_the_size() {
    let tree = Tree::new().with_blob("big.bin", Blob::synthetic(1 << 30, 1));
    let (hub, volume) = (FakeHub::serving(REPO, tree), Volume::new());
    let (run, peak) = with_peak_memory(&mut fetch(&hub, &volume, &["hf://org/tiny"]));
    run.assert_success();
    // What is promised. On a busy machine it is more than alone; tests/engine/budget.rs is stricter.
    assert!(peak <= 64 << 20, "peak RSS {} KiB", peak >> 10);
}

#[test]
fn custom_roots_are_added_and_an_untrusted_certificate_is_not_retried() {
    if !has("openssl") {
        return;
    }
    let volume = Volume::new();
    let at = |name: &str| volume.path(name).to_str().unwrap().to_owned();
    let made = std::process::Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
        ])
        .args(["-keyout", &at("key.pem"), "-out", &at("cert.pem"), "-days", "2"])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .output()
        .unwrap();
    assert!(made.status.success());
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut server = std::process::Command::new("openssl")
        .args(["s_server", "-quiet", "-www", "-cert", &at("cert.pem"), "-key", &at("key.pem")])
        .args(["-accept", &format!("127.0.0.1:{port}")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the TLS server listens", || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    let run = |roots: Option<&str>| {
        let mut command = weightlift();
        command.args(["fetch", "hf://org/tiny", "--root"]).arg(volume.root());
        command.env("HF_ENDPOINT", format!("https://127.0.0.1:{port}"));
        command.env("WEIGHTLIFT_RETRY_TIMEOUT", "2s");
        if let Some(roots) = roots {
            command.env("SSL_CERT_FILE", at(roots));
        }
        command.run()
    };
    let untrusted = run(None);
    let trusted = run(Some("cert.pem"));
    std::fs::write(volume.path("empty.pem"), "").unwrap();
    let empty = run(Some("empty.pem"));
    let _ = server.kill();
    let _ = server.wait();
    assert!(untrusted.last_line().contains("SSL_CERT_FILE"), "{}", untrusted.stderr);
    untrusted.assert_code(14);
    // The certificate is accepted; what the test server answers is no Hub.
    assert!(!trusted.stderr.contains("certificate"), "{}", trusted.stderr);
    trusted.assert_code(20);
    empty.assert_code(2);
}

#[test]
fn a_log_for_programs_is_one_object_a_line_with_the_same_sentences() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    hub.script(Rule::on("GET", "config.json").once().then(Fault::status(503)));
    let lines = |run: &Run| -> Vec<serde_json::Value> {
        run.stderr.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    };
    let run =
        fetch(&hub, &volume, &["hf://org/tiny", "--log-format", "json"]).run().assert_success();
    let told = lines(&run);
    for line in &told {
        assert!(line["time"].as_str().unwrap().ends_with('Z'), "{line}");
        assert!(["info", "warning"].contains(&line["level"].as_str().unwrap()), "{line}");
        assert!(!line["message"].as_str().unwrap().is_empty(), "{line}");
    }
    for line in run.stderr.lines() {
        assert_eq!(line.matches("\"message\":").count(), 1, "{line}");
    }
    let of = |name: &str| {
        told.iter().find(|line| line["event"] == name).unwrap_or_else(|| panic!("{name}: {told:?}"))
    };
    let begins = of("fetching");
    assert_eq!((&begins["source"], &begins["files"]), (&"hf://org/tiny".into(), &13.into()));
    assert_eq!(begins["revision"], hub.commit(REPO));
    assert_eq!(begins["left_out"][0]["why"], "duplicate format");
    assert_eq!(of("left_out")["named"].as_array().unwrap().len(), 3);
    assert!(of("complete")["message"].as_str().unwrap().starts_with("complete: "));
    assert_eq!(told.last().unwrap()["event"], "complete");
    // Mistakes and failures are lines of the same kind.
    let run = fetch(&hub, &volume, &["hf://org/none"]).env("WEIGHTLIFT_LOG_FORMAT", "json").run();
    let last = lines(&run.assert_code(11)).pop().unwrap();
    assert_eq!((&last["event"], &last["code"]), (&"failed".into(), &11.into()));
    assert_eq!((&last["level"], &last["class"]), (&"error".into(), &"access".into()));
    let run = weightlift().args(["fetch"]).env("WEIGHTLIFT_LOG_FORMAT", "json").run();
    assert_eq!(lines(&run.assert_code(2)).pop().unwrap()["code"], 2);
}
