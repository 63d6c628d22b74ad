//! What monitoring reads of a run: the file with its progress, and its metrics.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::process::*;
use crate::support::*;
use weightlift_fakes::{Blob, FakeHub, Fault, Rule, Tree};

const MIB: u64 = 1 << 20;

fn tree() -> Tree {
    Tree::new().with("config.json", "{}").with_blob("big.bin", Blob::synthetic(8 * MIB, 1))
}

fn slow(hub: &FakeHub) {
    let drip = Fault::Drip { bytes_per_second: 2 * MIB };
    hub.script(Rule::on("GET", "").at("cdn").then(drip));
}

/// The value of a metric, written with its labels.
fn metric(text: &str, name: &str) -> Option<f64> {
    let of_line = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
    text.lines().find_map(of_line)
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn progress(path: &Path) -> Value {
    let text = read(path);
    assert!(text.ends_with('\n') && text.matches('\n').count() == 1, "{text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn get(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn the_metrics_of_a_fetch_say_what_it_did() {
    let (hub, volume) = (FakeHub::serving(REPO, tree()), Volume::in_memory());
    hub.script(Rule::on("GET", "").at("cdn").times(2).then(Fault::status(503)));
    let file = volume.path("weightlift.prom");
    let file_text = file.display().to_string();
    fetch(&hub, &volume, &["hf://org/tiny", "--metrics-file", &file_text]).run().assert_success();
    let text = read(&file);
    let is = |name: &str, expected: f64| assert_eq!(metric(&text, name), Some(expected), "{text}");
    is("weightlift_fetched_bytes_total{source=\"hf\"}", (8 * MIB + 2) as f64);
    is("weightlift_complete_files_total{source=\"hf\"}", 2.0);
    is("weightlift_retries_total{reason=\"unreachable\"}", 2.0);
    is("weightlift_retries_total{reason=\"rate_limited\"}", 0.0);
    is("weightlift_models", 1.0);
    is("weightlift_complete_models", 1.0);
    is("weightlift_connections", 0.0);
    is("weightlift_last_run_exit_code", 0.0);
    is("weightlift_last_run_success", 1.0);
    is(
        &format!("weightlift_info{{version=\"{}\",command=\"fetch\"}}", env!("CARGO_PKG_VERSION")),
        1.0,
    );
    // Nothing is left beside it.
    let left: Vec<_> = list(file.parent().unwrap())
        .into_iter()
        .filter(|path| path.to_string_lossy().ends_with(".tmp"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// By the reader of Prometheus' own Python client.
#[test]
fn what_prometheus_reads_is_what_was_written() {
    let python =
        || Command::new(std::env::var_os("WEIGHTLIFT_TEST_PYTHON").unwrap_or("python3".into()));
    let has_parser =
        python().args(["-c", "import prometheus_client"]).stderr(Stdio::null()).status();
    if !has_parser.is_ok_and(|it| it.success()) {
        skip("this needs Python with prometheus_client");
        return;
    }
    let (hub, volume) = (FakeHub::serving(REPO, tree()), Volume::in_memory());
    let file = volume.path("weightlift.prom").display().to_string();
    fetch(&hub, &volume, &["hf://org/tiny", "--metrics-file", &file]).run().assert_success();
    let script = "
import sys
from prometheus_client.parser import text_string_to_metric_families
seen = set()
for family in text_string_to_metric_families(open(sys.argv[1]).read()):
    assert family.documentation and family.type in ('counter', 'gauge'), family
    assert family.samples, family.name
    for sample in family.samples:
        assert sample.name.endswith('_total') == (family.type == 'counter'), sample
        key = (sample.name, tuple(sorted(sample.labels.items())))
        assert key not in seen, key
        seen.add(key)
print(len(seen))
";
    let output = python().args(["-c", script, &file]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let samples: usize = String::from_utf8_lossy(&output.stdout).trim().parse().unwrap();
    assert!(samples > 20, "{samples}");
}

#[test]
fn the_progress_file_is_whole_whenever_it_is_read() {
    let (hub, volume) = (FakeHub::serving(REPO, tree()), Volume::in_memory());
    slow(&hub);
    let file = volume.path("progress.json");
    let flag = file.display().to_string();
    let mut running =
        fetch(&hub, &volume, &["hf://org/tiny", "--connections", "1", "--progress-file", &flag])
            .start();
    eventually("the file is there", || file.exists());
    let (mut seen, mut phases) = (Vec::new(), Vec::new());
    while running.is_running() {
        let now = progress(&file);
        assert_eq!((&now["v"], &now["command"]), (&1.into(), &"fetch".into()), "{now}");
        if now["state"] == "running" {
            let model = &now["models"][0];
            phases.push(model["phase"].as_str().unwrap().to_owned());
            seen.push(model["done_bytes"].as_u64().unwrap());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    running.wait().assert_success();
    assert!(seen.is_sorted() && seen.last() > Some(&MIB), "{seen:?}");
    assert!(phases.iter().any(|phase| phase == "fetching"), "{phases:?}");
    let last = progress(&file);
    assert_eq!(
        (&last["state"], &last["code"], &last["class"]),
        (&"ended".into(), &0.into(), &"complete".into())
    );
    assert_eq!(
        (&last["fetched_bytes"], &last["complete_models"]),
        (&(8 * MIB + 2).into(), &1.into()),
        "{last}"
    );
    assert!(last["message"].as_str().unwrap().starts_with("complete: "), "{last}");
}

#[test]
fn metrics_are_answered_while_a_fetch_runs() {
    let (hub, volume) = (FakeHub::serving(REPO, tree()), Volume::in_memory());
    slow(&hub);
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    let running = fetch(
        &hub,
        &volume,
        &["hf://org/tiny", "--connections", "1", "--metrics-listen", &address],
    )
    .start();
    eventually("somebody answers", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    // Who connects and says nothing keeps nobody else from asking.
    let silent: Vec<_> = (0..6).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
    let name = "weightlift_fetched_bytes_total{source=\"hf\"}";
    eventually("bytes have come", || metric(&get(port, "/metrics"), name) > Some(MIB as f64));
    let answer = get(port, "/metrics");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("content-type: text/plain; version=0.0.4"), "{answer}");
    assert!(metric(&answer, "weightlift_connections") >= Some(1.0), "{answer}");
    assert!(
        metric(&answer, "weightlift_wanted_bytes") > metric(&answer, "weightlift_present_bytes"),
        "{answer}"
    );
    assert_eq!(metric(&answer, "weightlift_last_run_exit_code"), None, "{answer}");
    assert!(get(port, "/").starts_with("HTTP/1.1 404 "), "only /metrics");
    drop(silent);
    running.wait().assert_success();
}

#[test]
fn whoever_waits_counts_the_time() {
    let (hub, volume) = (FakeHub::serving(REPO, tree()), Volume::in_memory());
    slow(&hub);
    let holder = fetch(&hub, &volume, &["hf://org/tiny", "--connections", "1"]).start();
    eventually("the holder fetches", || hub.bytes_sent_for("xet-bridge") > 0);
    let file = volume.path("waiter.prom");
    let flag = file.display().to_string();
    fetch(&hub, &volume, &["hf://org/tiny", "--metrics-file", &flag]).run().assert_success();
    holder.wait().assert_success();
    let text = read(&file);
    assert!(
        metric(&text, "weightlift_phase_seconds_total{phase=\"waiting\"}") > Some(0.5),
        "{text}"
    );
    assert_eq!(metric(&text, "weightlift_phase_seconds_total{phase=\"fetching\"}"), None, "{text}");
}

#[test]
fn the_last_run_stays_known_until_the_next_has_ended() {
    let (hub, volume) = (FakeHub::serving(REPO, tree()), Volume::in_memory());
    let file = volume.path("weightlift.prom");
    let flag = file.display().to_string();
    let code = || metric(&read(&file), "weightlift_last_run_exit_code");
    fetch(&hub, &volume, &["hf://org/none", "--metrics-file", &flag]).run().assert_code(11);
    assert_eq!(code(), Some(11.0));
    slow(&hub);
    let running =
        fetch(&hub, &volume, &["hf://org/tiny", "--connections", "1", "--metrics-file", &flag])
            .start();
    eventually("the next one fetches", || hub.bytes_sent_for("xet-bridge") > MIB);
    assert_eq!(code(), Some(11.0));
    running.signal("-TERM");
    ends_within(Duration::from_secs(10), running).assert_code(143);
    assert_eq!(
        (code(), metric(&read(&file), "weightlift_last_run_success")),
        (Some(143.0), Some(0.0))
    );
}

#[test]
fn what_cannot_be_written_is_said_at_once_and_later_costs_no_model() {
    let (hub, volume) = (FakeHub::serving(REPO, tree()), Volume::in_memory());
    for flag in ["--metrics-file", "--progress-file"] {
        let nowhere = volume.path("none/x.prom").display().to_string();
        let run = fetch(&hub, &volume, &["hf://org/tiny", flag, &nowhere]).run().assert_code(2);
        assert!(
            run.last_line().contains(flag) && run.last_line().contains("No such file"),
            "{}",
            run.stderr
        );
    }
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let run =
        fetch(&hub, &volume, &["hf://org/tiny", "--metrics-listen", &address]).run().assert_code(2);
    assert!(
        run.last_line().contains("--metrics-listen") && run.last_line().contains("in use"),
        "{}",
        run.stderr
    );
    let run =
        fetch(&hub, &volume, &["hf://org/tiny", "--metrics-listen", "here"]).run().assert_code(2);
    assert!(run.stderr.contains("127.0.0.1:9464"), "{}", run.stderr);
    assert!(hub.requests().is_empty());
    // The directory goes while it runs.
    let place = volume.path("metrics");
    std::fs::create_dir(&place).unwrap();
    slow(&hub);
    let flag = place.join("x.json").display().to_string();
    let running =
        fetch(&hub, &volume, &["hf://org/tiny", "--connections", "1", "--progress-file", &flag])
            .start();
    eventually("it fetches", || hub.bytes_sent_for("xet-bridge") > 0);
    std::fs::remove_dir_all(&place).unwrap();
    let run = running.wait().assert_success();
    assert_eq!(run.stderr.matches("cannot write").count(), 1, "{}", run.stderr);
}

/// A file is replaced, and nothing else: as root, `/dev/stdout` would be a file from then on.
#[test]
fn what_is_no_file_is_refused_and_stays_what_it_is() {
    let volume = Volume::new();
    std::fs::create_dir_all(volume.root()).unwrap();
    let (pipe, dir) = (volume.path("pipe.prom"), volume.path("dir.prom"));
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    std::fs::create_dir(&dir).unwrap();
    let (to_pipe, nowhere) = (volume.path("to-pipe.prom"), volume.path("nowhere.prom"));
    symlink(&pipe, &to_pipe).unwrap();
    symlink(volume.path("missing"), &nowhere).unwrap();
    let places = [
        (pipe.clone(), "it is not a regular file"),
        (dir, "it is not a regular file"),
        (to_pipe, "it leads to what is not a regular file"),
        (nowhere, "it is a link that leads nowhere"),
        ("/..".into(), "it is not the name of a file"),
    ];
    for (place, why) in &places {
        let place = place.display().to_string();
        for flag in ["--metrics-file", "--progress-file"] {
            let mut command = weightlift();
            command.arg("list").arg("--root").arg(volume.root()).args([flag, &place]);
            let run = command.run().assert_code(2);
            assert!(
                run.last_line().contains(&format!("{flag}: cannot write `{place}`: {why}")),
                "{}",
                run.stderr
            );
        }
        let run =
            weightlift().args(["pin", "hf://org/tiny", "--locked", &place]).run().assert_code(2);
        assert!(run.last_line().contains(why), "{place}: {}", run.stderr);
    }
    let kind = std::fs::symlink_metadata(&pipe).unwrap().file_type();
    assert!(kind.is_fifo(), "{kind:?}");
}

/// Neither what another process writes to the same path, nor what somebody has put there for it to be followed.
#[test]
fn a_file_is_written_beside_it_under_a_new_name() {
    if !has("strace") {
        return;
    }
    let volume = Volume::new();
    std::fs::create_dir_all(volume.root()).unwrap();
    let file = volume.path("m.prom");
    std::fs::write(&file, "").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o660)).unwrap();
    let mut command = weightlift();
    command.arg("list").arg("--root").arg(volume.root()).arg("--metrics-file").arg(&file);
    let trace = volume.path("trace");
    let mut traced = Command::new("strace");
    traced.args(["-f", "-e", "trace=openat,open", "-o"]).arg(&trace);
    traced.arg(command.get_program()).args(command.get_args());
    traced.output().unwrap();
    let trace = read(&trace);
    let opened: Vec<&str> = trace.lines().filter(|line| line.contains("/.m.prom.")).collect();
    assert!(opened.len() > 1 && opened.iter().all(|line| line.contains("O_EXCL")), "{trace}");
    let names: std::collections::BTreeSet<_> =
        opened.iter().filter_map(|line| line.split('"').nth(1)).collect();
    assert_eq!(names.len(), opened.len(), "{opened:?}");
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
}

#[test]
fn a_link_to_a_file_stays_one() {
    let volume = Volume::new();
    std::fs::create_dir_all(volume.root()).unwrap();
    let (file, link) = (volume.path("real.prom"), volume.path("link.prom"));
    std::fs::write(&file, "").unwrap();
    symlink(&file, &link).unwrap();
    let mut command = weightlift();
    command.arg("list").arg("--root").arg(volume.root()).arg("--metrics-file").arg(&link);
    command.run().assert_success();
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(metric(&read(&file), "weightlift_last_run_exit_code").is_some());
}

#[test]
fn the_metrics_of_a_verify_say_what_it_has_read() {
    let (hub, volume) = (FakeHub::serving(REPO, tree()), Volume::in_memory());
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    let file = volume.path("weightlift.prom");
    let verify = |code| {
        let mut command = weightlift();
        command.arg("verify").arg(volume.family("tiny")).arg("--metrics-file").arg(&file);
        command.run().assert_code(code);
        let text = read(&file);
        let of = |name: &str| metric(&text, &format!("weightlift_{name}{{source=\"hf\"}}"));
        (of("read_bytes_total"), of("complete_files_total"), of("fetched_bytes_total"))
    };
    let all = (8 * MIB + 2) as f64;
    assert_eq!(verify(0), (Some(all), Some(2.0), Some(0.0)));
    // What is damaged was read, and is not complete.
    std::fs::write(volume.family("tiny").join("config.json"), "[]").unwrap();
    assert_eq!(verify(12), (Some(all), Some(1.0), Some(0.0)));
}

/// Two runs on one node, or in one job, are told apart.
#[test]
fn labels_are_on_every_metric_and_none_is_of_our_own() {
    let (hub, volume) = (FakeHub::serving(REPO, tree()), Volume::in_memory());
    let file = volume.path("weightlift.prom").display().to_string();
    let flags = ["hf://org/tiny", "--metrics-file", &file, "--metrics-label", "model=a \"b\""];
    let mut command = fetch(&hub, &volume, &flags);
    command.env("WEIGHTLIFT_METRICS_LABEL", "never=seen");
    command.run().assert_success();
    let text = read(Path::new(&file));
    let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    assert!(samples.len() > 10, "{text}");
    for sample in &samples {
        assert!(sample.contains(r#"model="a \"b\"""#) && !sample.contains("never"), "{sample}");
    }
    // The next run reads its own lines again.
    let mut command = weightlift();
    command.arg("list").arg("--root").arg(volume.root()).args(["--metrics-file", &file]);
    command.env("WEIGHTLIFT_METRICS_LABEL", "pod=x, node=y").run().assert_success();
    let text = read(Path::new(&file));
    assert!(text.contains(r#"weightlift_last_run_exit_code{pod="x",node="y"} 0"#), "{text}");
    let own = samples.iter().flat_map(|sample| sample.split(['{', ',']).skip(1));
    let mut own: Vec<&str> = own.filter_map(|it| Some(it.split_once("=\"")?.0)).collect();
    own.retain(|name| *name != "model");
    assert!(own.contains(&"source") && own.contains(&"phase"), "{own:?}");
    own.extend(["reason", "1st", "__name", "a-b", ""]);
    for name in own {
        let label = format!("{name}=x");
        weightlift().args(["list", "--metrics-label", &label]).run().assert_code(2);
    }
    let twice =
        ["list", "--root", "/nowhere", "--metrics-file", &file, "--metrics-label", "a=1,a=2"];
    weightlift().args(twice).run().assert_code(2).assert_says("`a` is given twice");
}

/// Whoever looks at an odd moment, and however often, is told the rate of the last second.
#[test]
fn the_rate_is_right_for_whoever_asks_often() {
    let (hub, volume) = (FakeHub::serving(REPO, tree()), Volume::in_memory());
    slow(&hub);
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    let file = volume.path("weightlift.prom").display().to_string();
    let flags = [
        "hf://org/tiny",
        "--connections",
        "1",
        "--metrics-listen",
        &address,
        "--metrics-file",
        &file,
    ];
    let running = fetch(&hub, &volume, &flags).start();
    eventually("somebody answers", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    let rates = RefCell::new(Vec::new());
    eventually("bytes have come", || {
        // Far more often than a rate is made.
        let text = get(port, "/metrics");
        rates.borrow_mut().extend(metric(&text, "weightlift_receive_bytes_per_second"));
        metric(&text, "weightlift_fetched_bytes_total{source=\"hf\"}") > Some(5.0 * MIB as f64)
    });
    running.wait().assert_success();
    let rates = rates.into_inner();
    let most = rates.iter().copied().fold(0.0, f64::max);
    // It comes at 2 MiB a second: what the bytes of more than one second would make is far above that.
    assert!(most > 0.0 && most < 5.0 * MIB as f64, "{rates:?}");
    // What has ended brings nothing more.
    assert_eq!(metric(&read(Path::new(&file)), "weightlift_receive_bytes_per_second"), Some(0.0));
}

/// The names of metrics in a text.
fn names(text: &str) -> std::collections::BTreeSet<String> {
    let is_of_name = |c: char| c.is_ascii_lowercase() || c == '_';
    text.split(|c| !is_of_name(c))
        .filter(|word| word.starts_with("weightlift_") && !word.ends_with('_'))
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_documents_and_the_dashboard_name_what_there_is() {
    let (hub, volume) = (FakeHub::serving(REPO, tree()), Volume::in_memory());
    let file = volume.path("weightlift.prom");
    let flag = file.display().to_string();
    fetch(&hub, &volume, &["hf://org/tiny", "--metrics-file", &flag]).run().assert_success();
    let written = read(&file);
    let written: Vec<&str> = written.lines().filter(|line| !line.starts_with('#')).collect();
    let written = names(&written.join("\n"));
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let table = read(&docs.join("monitoring.md"));
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| `weightlift_")).collect();
    assert_eq!(names(&rows.join("\n")), written, "docs/monitoring.md");
    let dashboard: Value =
        serde_json::from_str(&read(&docs.join("grafana-dashboard.json"))).unwrap();
    let mut shown = String::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            shown += target["expr"].as_str().unwrap();
            shown += "\n";
        }
    }
    assert_eq!(names(&shown), written, "docs/grafana-dashboard.json");
}

/// Both ways: what is written fits, and the schema refuses what is not of this form.
#[test]
fn the_schema_of_the_progress_is_kept() {
    let python =
        || Command::new(std::env::var_os("WEIGHTLIFT_TEST_PYTHON").unwrap_or("python3".into()));
    let has = python().args(["-c", "import jsonschema"]).stderr(Stdio::null()).status();
    if !has.is_ok_and(|it| it.success()) {
        skip("this needs Python with jsonschema");
        return;
    }
    let (hub, volume) = (FakeHub::serving(REPO, tree()), Volume::in_memory());
    slow(&hub);
    let file = volume.path("progress.json");
    let flag = file.display().to_string();
    let running =
        fetch(&hub, &volume, &["hf://org/tiny", "--connections", "1", "--progress-file", &flag])
            .start();
    eventually("it fetches", || hub.bytes_sent_for("xet-bridge") > MIB);
    eventually("the file says so", || read(&file).contains("\"fetching\""));
    let during = read(&file);
    running.wait().assert_success();
    let after = read(&file);
    let more = after.replacen("\"v\":1", "\"v\":1,\"more\":1", 1);
    let less = during.replacen("\"state\":\"running\",", "", 1);
    let script = "
import json, sys, jsonschema
schema = json.load(open(sys.argv[1]))
validator = jsonschema.Draft202012Validator(schema)
print(' '.join(str(validator.is_valid(json.loads(text))) for text in sys.argv[2:]))
";
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/progress.schema.json");
    let output =
        python().args(["-c", script]).arg(schema).args([during, after, more, less]).output();
    let said = String::from_utf8_lossy(&output.unwrap().stdout).into_owned();
    assert_eq!(said.trim(), "True True False False");
}
