//! Several models in one run: a models file, models that overlap, and what becomes of a run in which some fail.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::*;
use weightlift_fakes::{Blob, FakeHub, Fault, Rule, Tree};

const MIB: u64 = 1 << 20;

fn small(n: u64) -> Tree {
    Tree::new()
        .with("config.json", format!("{{\"n\": {n}}}"))
        .with_blob("w.bin", Blob::synthetic(MIB, n))
}

fn large(n: u64) -> Tree {
    Tree::new().with("config.json", "{}").with_blob("w.bin", Blob::synthetic(24 * MIB, n))
}

/// `fetch --models` with a file of this content.
fn fetch_listed(hub: &FakeHub, volume: &Volume, yaml: &str) -> Command {
    let file = volume.path("models.yaml");
    std::fs::write(&file, yaml).unwrap();
    fetch(hub, volume, &["--models", file.to_str().unwrap()])
}

fn list_of(sources: &[&str]) -> String {
    sources.iter().fold("version: 1\nmodels:\n".to_owned(), |list, source| {
        format!("{list}- source: hf://{source}\n")
    })
}

fn json_lines(run: &Run) -> Vec<Value> {
    run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_models_file_is_fetched_as_it_says_of_each() {
    let hub = FakeHub::builder().repo(REPO, tiny()).repo("org/b", small(1)).start();
    let volume = Volume::new();
    let yaml = "
version: 1
defaults: {exclude: ['*.bin']}
models:
- name: chat/tiny
  source: hf://${OWNER}/tiny
- name: b
  source: hf://org/b
  exclude: []
";
    let run = fetch_listed(&hub, &volume, yaml).env("OWNER", "org").run().assert_success();
    let paths = [volume.family("chat/tiny"), volume.family("b")];
    assert_eq!(run.stdout, format!("{}\n{}\n", paths[0].display(), paths[1].display()));
    assert!(!paths[0].join("pytorch_model.bin").exists());
    volume.assert_holds("b", &small(1));
    assert!(run.last_line().starts_with("complete: 2 models, "), "{}", run.stderr);
    for name in ["chat/tiny", "b"] {
        let line = format!("{name}: complete: ");
        assert_eq!(run.stderr.matches(&line).count(), 1, "{}", run.stderr);
    }
    // Again, without a request for what is pinned by nothing but a branch: one each.
    hub.log().clear();
    let again =
        fetch_listed(&hub, &volume, yaml).env("OWNER", "org").args(["--output", "json"]).run();
    let again = json_lines(&again.assert_success());
    assert_eq!(again.iter().map(|it| &it["status"]).collect::<Vec<_>>(), ["present", "present"]);
    assert_eq!(hub.requests().len(), 2);
}

#[test]
fn only_some_of_the_models_are_fetched_if_that_is_said() {
    let repos =
        |hub: weightlift_fakes::FakeHubBuilder, n: u64| hub.repo(&format!("org/m{n}"), small(n));
    let (hub, volume) = ((0..3).fold(FakeHub::builder(), repos).start(), Volume::new());
    let yaml = list_of(&["org/m0", "org/m1", "org/m2"]);
    fetch_listed(&hub, &volume, &yaml).args(["--only", "m2,m0"]).run().assert_success();
    assert!(volume.family("m0").exists() && volume.family("m2").exists());
    assert!(!volume.family("m1").exists());
    let run = fetch_listed(&hub, &volume, &yaml).args(["--only", "m1", "--only", "m9"]).run();
    run.assert_code(2).assert_says(
        "--only names `m9`, but there is no such model; choose among these: m0, m1, m2",
    );
    fetch(&hub, &volume, &["hf://org/m1", "--only", "m1"]).run().assert_code(2);
    assert!(!volume.family("m1").exists());
}

#[test]
fn a_file_that_is_wrong_or_contradicted_is_a_usage_error_before_anything_is_done() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    let list = list_of(&["org/tiny"]);
    for (yaml, flags, says) in [
        (
            "version: 1\nmodels:\n- source: hf://org/tiny\n  nme: x\n",
            vec![],
            "line 4, column 3: unknown field `nme`",
        ),
        (
            "version: 1\nmodels: [{source: 'ftp://x'}]\n",
            vec![],
            "line 2, column 19: SOURCE `ftp://x` has an unknown scheme",
        ),
        (
            "version: 1\nmodels: [{source: 'hf://a/${HF_TOKEN}'}]\n",
            vec![],
            "the variable `HF_TOKEN` may hold a secret",
        ),
        ("a\u{1b}[2J: 1\n", vec![], "models.yaml`: "),
        (&list, vec!["--include", "x"], "--include is set for each model"),
        (&list, vec!["--all"], "--all is set for each model"),
        (&list, vec!["--also", "s3://bkt/x/"], "--also is set for each model"),
        (&list, vec!["--expect-revision", "0"], "--expect-revision is set for each model"),
        (
            &list,
            vec!["hf://org/tiny"],
            "SOURCE and --models FILE are both given; leave one of them out",
        ),
    ] {
        let mut command = fetch_listed(&hub, &volume, yaml);
        let run = command.args(&flags).env("HF_TOKEN", "hf_secretsecret").run().assert_code(2);
        let run = run.assert_says(says);
        assert!(!run.stderr.contains("secretsecret") && !run.stderr.contains('\u{1b}'));
    }
    let absent = volume.path("absent.yaml");
    let run = fetch(&hub, &volume, &["--models", absent.to_str().unwrap()]).run().assert_code(2);
    run.assert_says("absent.yaml`: No such file");
    let large = volume.path("large.yaml");
    std::fs::write(&large, list.clone() + &"#".repeat(1 << 20)).unwrap();
    let run = fetch(&hub, &volume, &["--models", large.to_str().unwrap()]).run().assert_code(2);
    run.assert_says("it is larger than 1.0 MB");
    fetch(&hub, &volume, &[]).run().assert_code(2);
    assert!(hub.requests().is_empty() && !volume.root().exists());
}

#[test]
fn small_models_do_not_wait_behind_a_large_one() {
    let repos =
        |hub: weightlift_fakes::FakeHubBuilder, n: u64| hub.repo(&format!("org/m{n}"), small(n));
    let hub = FakeHub::builder().repo("org/large", large(9));
    let (hub, volume) = ((0..4).fold(hub, repos).start(), Volume::in_memory());
    // It does not end before the others have.
    hub.script(Rule::on("GET", "/org/large/resolve/").then(Fault::status(503)));
    let yaml = list_of(&["org/large", "org/m0", "org/m1", "org/m2", "org/m3"]);
    let mut running = fetch_listed(&hub, &volume, &yaml).start();
    eventually("the others are there", || (0..4).all(|n| volume.family(&format!("m{n}")).exists()));
    assert!(running.is_running());
    hub.clear_script();
    let run = running.wait().assert_success();
    volume.assert_holds("large", &large(9));
    let at = |name: &str| run.stderr.find(&format!("{name}: complete")).unwrap();
    assert!((0..4).all(|n| at(&format!("m{n}")) < at("large")), "{}", run.stderr);
    // Standard output keeps the order of the file.
    assert!(run.stdout.lines().next().unwrap().ends_with("/large"), "{}", run.stdout);
}

#[test]
fn models_at_the_same_time_share_the_connections() {
    let repos =
        |hub: weightlift_fakes::FakeHubBuilder, n: u64| hub.repo(&format!("org/m{n}"), large(n));
    let (hub, volume) = ((0..3).fold(FakeHub::builder(), repos).start(), Volume::in_memory());
    hub.script(Rule::on("GET", "").at("cdn").then(Fault::Drip { bytes_per_second: 4 * MIB }));
    let yaml = list_of(&["org/m0", "org/m1", "org/m2"]);
    let mut command = fetch_listed(&hub, &volume, &yaml);
    command.args(["--connections", "3", "--chunk-size", "1MiB"]).run().assert_success();
    let most = hub.most_transfers_at_once();
    eprintln!("at most {most} transfers at the same time");
    // One each; each may have had more until the others had begun.
    assert!((3..=5).contains(&most), "{most}");
}

#[test]
fn a_pause_that_one_model_is_asked_for_is_kept_by_all() {
    let hub = FakeHub::builder().repo("org/m0", small(0)).repo("org/m1", small(1)).start();
    let volume = Volume::new();
    let pause = Fault::status_with(429, &[("Retry-After", "3")], "");
    hub.script(Rule::on("GET", "org/m0").once().then(pause));
    // Its first question is on its way by then; what follows can wait.
    hub.script(Rule::on("GET", "org/m1").once().then(Fault::Delay(Duration::from_millis(700))));
    fetch_listed(&hub, &volume, &list_of(&["org/m0", "org/m1"])).run().assert_success();
    let requests = hub.requests();
    let asked = requests.iter().find(|it| it.status == 429).unwrap().at;
    let early = requests.iter().filter(|it| it.at < asked + Duration::from_millis(2_900));
    let early: Vec<&str> = early.map(|it| it.target.as_str()).collect();
    // On a busy machine the second model may begin after the answer to the first.
    assert!(early.len() <= 2, "the first question of each: {early:?}");
}

#[test]
fn a_model_that_fails_does_not_stop_the_others() {
    let hub = FakeHub::builder().repo("org/good", small(1)).repo("org/hangs", small(2)).start();
    let volume = Volume::new();
    hub.script(Rule::on("GET", "/org/hangs").then(Fault::status(503)));
    let yaml = list_of(&["org/hangs", "org/absent", "org/good"]);
    let message = volume.path("message");
    std::fs::write(&message, "").unwrap();
    let mut command = fetch_listed(&hub, &volume, &yaml);
    command.env("WEIGHTLIFT_RETRY_TIMEOUT", "1s").args(["--output", "json"]);
    command.arg("--termination-log").arg(&message);
    let run = command.run().assert_code(11);
    volume.assert_holds("good", &small(1));
    let last = run.last_line();
    assert!(
        last.starts_with("error: `absent`: ") && last.contains("; 2 of 3 models failed"),
        "{last}"
    );
    let run = run.assert_says("error: hangs: ").assert_says("good: complete: ");
    let lines = json_lines(&run);
    let of = |key: &str| lines.iter().map(|it| it[key].clone()).collect::<Vec<_>>();
    assert_eq!(of("status"), ["failed", "failed", "fetched", "failed"]);
    assert_eq!(
        of("class"),
        [Value::from("unreachable"), "access".into(), Value::Null, "access".into()]
    );
    let told: Value = serde_json::from_str(&std::fs::read_to_string(&message).unwrap()).unwrap();
    assert_eq!(told["code"], 11);
    let ends = told["models"].as_object().unwrap();
    let ends: Vec<&str> = ends.values().map(|it| it.as_str().unwrap()).collect();
    assert_eq!(ends, ["access", "fetched", "unreachable"]);
    // What only needs time is done by the next run; without it the code is that of the other.
    let yaml = list_of(&["org/hangs", "org/good"]);
    let run = fetch_listed(&hub, &volume, &yaml).env("WEIGHTLIFT_RETRY_TIMEOUT", "1s").run();
    run.assert_code(20);
}

#[test]
fn the_room_that_all_of_them_need_is_counted_together() {
    if !is_root() {
        return;
    }
    let hub = FakeHub::builder().repo("org/m0", large(0)).repo("org/m1", large(1)).start();
    let volume = Volume::new();
    std::fs::create_dir(volume.root()).unwrap();
    let mount = |options: &str| {
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(volume.root()).run()
    };
    mount("size=40m").assert_success();
    hub.script(Rule::on("GET", "").at("cdn").then(Fault::Drip { bytes_per_second: 2 * MIB }));
    let run = fetch_listed(&hub, &volume, &list_of(&["org/m0", "org/m1"])).run();
    let complete = [0, 1].map(|n| volume.family(&format!("m{n}")).exists());
    assert!(Command::new("umount").arg("-l").arg(volume.root()).status().unwrap().success());
    run.assert_code(15).assert_says("more are needed");
    assert_eq!(complete.iter().filter(|it| **it).count(), 1);
    // Half of the second was not fetched for nothing.
    let sent = hub.bytes_sent_for("xet-bridge");
    assert!(sent < 26 * MIB, "{sent}");
}

/// Whether the published schema and the parser agree, both ways.
#[test]
fn the_schema_says_what_the_parser_reads() {
    let mut python =
        Command::new(std::env::var_os("WEIGHTLIFT_TEST_PYTHON").unwrap_or("python3".into()));
    if !python
        .args(["-c", "import jsonschema, yaml"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|it| it.success())
    {
        skip("this needs Python with jsonschema and yaml");
        return;
    }
    // Keys that are there: one that is not is exit 2 as well.
    let signed = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/signed");
    let with = |model: &str| {
        let model = model.replace("/k.pub}", &format!("{signed}/p256.pub}}"));
        let model = model.replace("/r.pem", &format!("{signed}/roots.pem"));
        format!("version: 1\nmodels:\n- source: hf://org/tiny\n{model}")
    };
    let documents = [
        (with(""), true),
        (
            with(
                "  name: a/b\n  also: ['s3://bkt/x/']\n  include: [a]\n  exclude: [b]\n  all: true\n  expect: abc\n",
            ),
            true,
        ),
        (
            with("- source: 's3://bkt/${A}/'\n")
                + "defaults: {all: false, include: [], exclude: [x]}\n",
            true,
        ),
        (with("  signed_by: {key: /k.pub}\n"), true),
        (
            with("  signed_by: {certificate: /r.pem, file: a.sig, ignore_unsigned: ['*.md']}\n"),
            true,
        ),
        (with("defaults: {signed_by: {key: /k.pub}}\n"), true),
        (with("  signed_by: {}\n"), false),
        (with("  signed_by: {key: ''}\n"), false),
        (with("  signed_by: {key: a, certificate: b}\n"), false),
        (with("  signed_by: {sigstore: me}\n"), false),
        (with("  signed_by: /k.pub\n"), false),
        (with("  nme: x\n"), false),
        (with("  name: 5\n"), false),
        (with("  name: ''\n"), false),
        (with("  all: 1\n"), false),
        (with("  all: 'true'\n"), true),
        (with("  include: a\n"), false),
        (with("  include: [1]\n"), false),
        (with("  include: [null]\n"), false),
        (with("  also: s3://bkt/x/\n"), false),
        (with("  also: ['ftp://x']\n"), false),
        (with("  expect: 12\n"), false),
        (with("  expect: ''\n"), false),
        (with("") + "defaults: {name: x}\n", false),
        (with("") + "more: 1\n", false),
        ("version: 2\nmodels: [{source: 'hf://org/tiny'}]\n".into(), false),
        ("version: '1'\nmodels: [{source: 'hf://org/tiny'}]\n".into(), true),
        ("version: one\nmodels: [{source: 'hf://org/tiny'}]\n".into(), false),
        ("version: 1\nmodels: []\n".into(), false),
        ("version: 1\nmodels: {source: 'hf://org/tiny'}\n".into(), false),
        ("version: 1\nmodels: [{name: a}]\n".into(), false),
        ("version: 1\n".into(), false),
        ("models: [{source: 'hf://org/tiny'}]\n".into(), false),
        ("[]\n".into(), false),
    ];
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    for (yaml, is_valid) in &documents {
        // Nothing is fetched: offline, which is another code than that of a file that is wrong.
        let mut command = fetch_listed(&hub, &volume, yaml);
        let run = command.env("HF_HUB_OFFLINE", "1").env("A", "x").args(["--deadline", "20s"]);
        let run = run
            .env("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
            .env("WEIGHTLIFT_RETRY_TIMEOUT", "1s")
            .run();
        assert_eq!(run.code != 2, *is_valid, "{yaml}\n{}", run.stderr);
    }
    let schema = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/models.schema.json");
    let script = "import json, sys, yaml, jsonschema
schema = json.load(open(sys.argv[1]))
jsonschema.Draft202012Validator.check_schema(schema)
validator = jsonschema.Draft202012Validator(schema)
print([validator.is_valid(yaml.safe_load(text)) for text in json.load(sys.stdin)])";
    let mut python = Command::new(python.get_program());
    python.args(["-c", script, schema]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut python = python.spawn().unwrap();
    let texts: Vec<&String> = documents.iter().map(|(yaml, _)| yaml).collect();
    let mut input = python.stdin.take().unwrap();
    input.write_all(serde_json::to_string(&texts).unwrap().as_bytes()).unwrap();
    drop(input);
    let output = python.wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap().to_lowercase();
    let expected: Vec<bool> = documents.iter().map(|(_, is_valid)| *is_valid).collect();
    let said: Vec<bool> = serde_json::from_str(&said).unwrap();
    for ((yaml, expected), said) in documents.iter().zip(&said) {
        assert_eq!(expected, said, "the schema, of:\n{yaml}");
    }
    assert_eq!(said, expected);
}

/// 200 models of 200 files: pinned, planned, fetched and found complete, each in little memory.
#[test]
fn hundreds_of_models_with_hundreds_of_files_cost_little_memory() {
    const MODELS: u64 = 200;
    let files =
        (0..200).fold(Tree::new(), |tree, n| tree.with(&format!("d/{n}.json"), format!("{{{n}}}")));
    // The same files in each: what one model has, the others need not fetch.
    let repos = |hub: weightlift_fakes::FakeHubBuilder, n: u64| {
        hub.repo(&format!("org/m{n}"), files.clone())
    };
    let hub = (0..MODELS).fold(FakeHub::builder().lfs_threshold(1), repos).start();
    let volume = Volume::in_memory();
    let sources: Vec<String> = (0..MODELS).map(|n| format!("org/m{n}")).collect();
    let sources: Vec<&str> = sources.iter().map(String::as_str).collect();
    let models = volume.path("models.yaml");
    std::fs::write(&models, list_of(&sources)).unwrap();
    let lock = volume.path("models.lock");
    let of_hub = |command: &mut Command| {
        command.env("HF_ENDPOINT", hub.url());
    };
    let mut pin = weightlift();
    pin.arg("pin").arg("--models").arg(&models).arg("--locked").arg(&lock);
    let mut plan = weightlift();
    plan.arg("plan").arg("--root").arg(volume.root()).arg("--locked").arg(&lock);
    let fetch = || {
        let mut fetch = weightlift();
        fetch.arg("fetch").arg("--root").arg(volume.root()).arg("--locked").arg(&lock);
        fetch
    };
    for (what, mut command) in
        [("pin", pin), ("plan", plan), ("fetch", fetch()), ("warm start", fetch())]
    {
        of_hub(&mut command);
        // It says more than a pipe takes that nobody reads.
        let quiet = format!("exec \"$@\" > /dev/null 2> {}", volume.path("log").display());
        let mut command = under(&["sh", "-c", &quiet, "sh"], &command);
        let (run, peak) = measure::with_peak_memory(&mut command);
        let log = std::fs::read_to_string(volume.path("log")).unwrap();
        assert_eq!(run.code, 0, "{what}: {log}");
        eprintln!("{what}: {} MiB; {}", peak >> 20, log.lines().last().unwrap_or_default());
        assert!(peak < 64 << 20, "{what}: {peak}");
    }
    for n in [0, 7, MODELS - 1] {
        volume.assert_holds(&format!("m{n}"), &files);
    }
}
