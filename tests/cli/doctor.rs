//! `doctor`: each check, and what makes it warn or fail. What it finds on a volume: `tests/volume/doctor.rs`.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use weightlift_fakes::{
    Blob, FakeAzure, FakeGcs, FakeHub, FakeModelScope, FakeRegistry, FakeS3, FakeWeb, Fault, Rule,
    Tree,
};

use super::kubernetes_docs::skeleton;
use crate::support::cluster::{API_TOKEN, FakeCluster, Fault as ClusterFault};
use crate::support::measure::MemoryGroup;
use crate::support::process::{ends_within, in_shell};
use crate::support::tls::{Authority, Front, Handshake};
use crate::support::*;

/// `doctor` about `sources` and a volume that is well.
fn doctor(volume: &Volume, sources: &[&str]) -> Command {
    std::fs::create_dir_all(volume.root()).unwrap();
    let mut command = weightlift();
    command.arg("doctor").args(sources).arg("--root").arg(volume.root());
    command.env("WEIGHTLIFT_TERMINATION_LOG", "/nonexistent/log").env("WEIGHTLIFT_OUTPUT", "json");
    command
}

fn doctor_of(hub: &FakeHub, volume: &Volume) -> Command {
    let mut command = doctor(volume, &["hf://org/tiny"]);
    command.env("HF_ENDPOINT", hub.url());
    command
}

/// The checks that a run has printed.
struct Checks(Vec<Value>);

impl Checks {
    fn of(run: &Run) -> Self {
        Self(run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    }

    /// The check of this name; of several, the worst.
    #[track_caller]
    fn get(&self, area: &str, name: &str) -> &Value {
        let of = |it: &&Value| it["area"] == area && it["check"] == name;
        let worst =
            |it: &&Value| ["ok", "warning", "fails"].iter().position(|v| it["verdict"] == *v);
        self.0
            .iter()
            .filter(of)
            .max_by_key(worst)
            .unwrap_or_else(|| panic!("{area} {name}: {:?}", self.0))
    }

    #[track_caller]
    fn is(&self, area: &str, name: &str, verdict: &str, says: &str) -> &Self {
        let check = self.get(area, name);
        assert_eq!(check["verdict"], verdict, "{check}");
        let told = format!(
            "{}; {}",
            check["value"].as_str().unwrap(),
            check["hint"].as_str().unwrap_or("")
        );
        assert!(told.contains(says), "`{says}` is not in: {told}");
        self
    }

    fn has(&self, area: &str, name: &str) -> bool {
        self.0.iter().any(|it| it["area"] == area && it["check"] == name)
    }
}

/// What the Hub says of a token.
fn whoami(token: Value) -> Rule {
    let answer = json!({"type": "user", "name": "ada", "auth": {"accessToken": token}});
    Rule::on("GET", "whoami").then(Fault::ReplaceBody(answer.to_string().into()))
}

#[test]
fn a_pod_that_is_well_is_told_so_by_one_line_for_each_check() {
    let hub = FakeHub::builder().repo(REPO, tiny()).token(TOKEN).lfs_threshold(1_000).start();
    hub.script(whoami(json!({"displayName": "pods", "role": "read"})));
    let volume = Volume::new();
    let run = doctor_of(&hub, &volume).env("HF_TOKEN", TOKEN).run().assert_success();
    let checks = Checks::of(&run);
    for (area, name, says) in [
        ("container", "memory", "in use"),
        ("container", "cpu", "core"),
        ("container", "descriptors", "can be opened"),
        ("container", "user", "user "),
        ("container", "termination-log", "does not exist"),
        ("container", "pod", "not in a cluster"),
        ("volume", "filesystem", "is on "),
        ("volume", "writable", "for writing"),
        ("volume", "space", "free of"),
        ("volume", "owner", "belongs to user"),
        ("volume", "operations", "works: rename, exchange, symbolic link, hard link"),
        ("volume", "locks", "work"),
        ("volume", "content", "0 models"),
        ("network", "certificates", "authorities built in"),
        ("source", "token", "`pods`, of user ada, role read"),
        ("source", "list", "13 files"),
        ("source", "read", "answered 206"),
        ("network", "proxy", "none"),
        ("network", "dns", "127.0.0.1"),
        ("network", "answer", "without TLS"),
        ("network", "clock", "that of `http://127.0.0.1:"),
    ] {
        checks.is(area, name, "ok", says);
    }
    // The storage is another host, and is looked at as well.
    let read = checks.get("source", "read")["value"].as_str().unwrap();
    assert!(read.contains("after 1 redirect"), "{read}");
    let hosts: BTreeSet<&str> = checks.0.iter().filter_map(|it| it["of"].as_str()).collect();
    assert_eq!(hosts.iter().filter(|it| it.starts_with("http:")).count(), 2, "{hosts:?}");
    let count = checks.0.len();
    assert!(
        run.last_line().contains(&format!("complete: {count} checks: {count} ok, 0 warnings")),
        "{}",
        run.stderr
    );
    // For people the same, a line each.
    let mut command = doctor_of(&hub, &volume);
    let text = command.args(["--output", "text"]).env("HF_TOKEN", TOKEN).run().assert_success();
    assert_eq!(text.stdout.lines().count(), count, "{}", text.stdout);
    assert!(text.stdout.lines().all(|line| line.starts_with("ok      ")), "{}", text.stdout);
    // No more than a look.
    let bytes: usize = hub.requests().iter().filter(|it| it.origin == "cdn").count();
    assert!(bytes <= 4, "{bytes} requests for bytes");
}

#[test]
fn without_a_source_the_hub_and_its_token_are_checked() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    let run = doctor(&volume, &[]).env("HF_ENDPOINT", hub.url()).run().assert_success();
    let checks = Checks::of(&run);
    checks.is("source", "token", "ok", "none: only public repos").is(
        "network",
        "answer",
        "ok",
        "without TLS",
    );
    assert!(!checks.has("source", "list"));
}

#[test]
fn a_token_that_is_refused_or_may_do_too_much_is_told() {
    let hub = FakeHub::builder().repo(REPO, tiny()).token(TOKEN).start();
    let volume = Volume::new();
    let run = doctor_of(&hub, &volume).env("HF_TOKEN", "hf_another").run().assert_code(11);
    let checks = Checks::of(&run);
    checks
        .is("source", "token", "fails", "does not accept the token: 401")
        .is("source", "list", "fails", "");
    assert_eq!(checks.get("source", "token")["code"], 11);
    assert!(run.last_line().contains("checks failed; source"), "{}", run.stderr);
    assert!(run.last_line().contains("; check HF_TOKEN, or the Secret"), "{}", run.stderr);
    for (token, says) in [
        (json!({"role": "write"}), "needs to read only"),
        (
            json!({"role": "fineGrained", "fineGrained": {"canReadGatedRepos": false, "scoped": []}}),
            "to fetch gated repos",
        ),
    ] {
        hub.clear_script();
        hub.script(whoami(token));
        let run = doctor_of(&hub, &volume).env("HF_TOKEN", TOKEN).run().assert_success();
        Checks::of(&run).is("source", "token", "warning", says);
    }
    // A mirror that knows no such question.
    hub.clear_script();
    hub.script(Rule::on("GET", "whoami").then(Fault::status(404)));
    let run = doctor_of(&hub, &volume).env("HF_TOKEN", TOKEN).run().assert_success();
    Checks::of(&run).is("source", "token", "warning", "does not tell whose");
}

#[test]
fn a_gated_repo_is_listed_and_cannot_be_read() {
    let hub = FakeHub::builder().repo(REPO, tiny()).token(TOKEN).gated(REPO).start();
    let run = doctor_of(&hub, &Volume::new()).env("HF_TOKEN", TOKEN).run().assert_code(11);
    Checks::of(&run).is("source", "list", "ok", "13 files").is(
        "source",
        "read",
        "fails",
        "accept its licence",
    );
}

#[test]
fn a_source_that_does_not_exist_is_not_found_and_the_other_is_checked() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    let mut command = doctor(&volume, &["hf://org/none", "hf://org/tiny"]);
    let run = command.env("HF_ENDPOINT", hub.url()).env("HF_TOKEN", TOKEN).run().assert_code(10);
    let checks = Checks::of(&run);
    checks.is("source", "list", "fails", "org/none").is("source", "read", "ok", "of `model");
    doctor(&volume, &["nonsense"]).run().assert_code(2);
}

#[test]
fn a_storage_that_sends_whole_files_is_a_warning() {
    let tree = Tree::new().with_blob("big.bin", Blob::synthetic(2 << 20, 1));
    let hub = FakeHub::builder().repo(REPO, tree).lfs_threshold(1_000).start();
    hub.script(Rule::on("GET", "").at("cdn").then(Fault::IgnoreRange));
    let run = doctor_of(&hub, &Volume::new()).run().assert_success();
    Checks::of(&run).is("source", "read", "warning", "is sent whole where a part was asked for");
}

#[test]
fn a_clock_that_differs_is_a_warning() {
    let hub = hub_of_tiny();
    for (date, says) in
        [("Sat, 01 Jan 2000 00:00:00 GMT", "ahead of"), ("Fri, 01 Jan 2100 00:00:00 GMT", "behind")]
    {
        hub.clear_script();
        hub.script(Rule::on("*", "").then(Fault::add_headers(&[("Date", date)])));
        let run = doctor_of(&hub, &Volume::new()).run().assert_success();
        Checks::of(&run).is("network", "clock", "warning", says);
    }
}

#[test]
fn a_certificate_that_is_not_trusted_and_one_that_cannot_be_read() {
    if !has("openssl") {
        return;
    }
    let (hub, volume) = (FakeHub::builder().repo(REPO, tiny()).lfs_direct().start(), Volume::new());
    let authority = Authority::new("ours");
    let front = |from, to| {
        let config = authority.certify("DNS:localhost,IP:127.0.0.1", from, to);
        let port = hub.url().rsplit(':').next().unwrap().parse().unwrap();
        Front::start(config, port, |_| Handshake::Done)
    };
    let at = |front: &Front| {
        let mut command = doctor(&volume, &["hf://org/tiny"]);
        command.env("HF_ENDPOINT", front.url());
        command
    };
    let good = front(2020, 2090);
    let run = at(&good).run().assert_code(14);
    Checks::of(&run)
        .is("network", "answer", "fails", "is not trusted")
        .is("network", "answer", "fails", "SSL_CERT_FILE")
        .is("network", "dns", "ok", "127.0.0.1");
    let run = at(&good).env("SSL_CERT_FILE", authority.path()).run().assert_success();
    Checks::of(&run).is("network", "certificates", "ok", "1 from SSL_CERT_FILE").is(
        "network",
        "answer",
        "ok",
        "certificate trusted",
    );
    let run = at(&front(2020, 2021)).env("SSL_CERT_FILE", authority.path()).run().assert_code(14);
    Checks::of(&run).is("network", "answer", "fails", "certificate expired");
    // What cannot be read is told, and nothing is asked.
    let run = at(&good).env("SSL_CERT_FILE", "/nonexistent").run().assert_code(2);
    let checks = Checks::of(&run);
    checks
        .is("network", "certificates", "fails", "SSL_CERT_FILE")
        .is("volume", "space", "ok", "free");
    assert!(!checks.has("source", "list"));
}

#[test]
fn a_name_that_is_not_found_and_a_host_that_is_not_there() {
    let volume = Volume::new();
    let mut command = doctor(&volume, &["hf://org/tiny"]);
    let run = command.env("HF_ENDPOINT", "http://hub.invalid").run().assert_code(20);
    Checks::of(&run)
        .is("network", "dns", "fails", "`hub.invalid` is not found")
        .is("network", "answer", "fails", "http://hub.invalid")
        .is("source", "list", "fails", "");
    let run = command.env("HF_ENDPOINT", "http://127.0.0.1:9").run().assert_code(20);
    Checks::of(&run).is("network", "dns", "ok", "127.0.0.1").is(
        "network",
        "answer",
        "fails",
        "NetworkPolicy",
    );
}

#[test]
fn a_proxy_is_named_without_its_password_and_a_dead_one_fails() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    let proxy = format!("http://user:{PASSWORD}@127.0.0.1:9");
    let mut command = doctor_of(&hub, &volume);
    let run = command.env("HTTP_PROXY", &proxy).run().assert_code(20);
    Checks::of(&run).is("network", "proxy", "ok", "`http://127.0.0.1:9`").is(
        "network",
        "answer",
        "fails",
        "check the proxy variables",
    );
    let run = command.env("NO_PROXY", "127.0.0.1").run().assert_success();
    Checks::of(&run).is("network", "proxy", "ok", "none");
    let mut command = doctor_of(&hub, &volume);
    let run = command.env("HTTP_PROXY", format!("ftp://user:{PASSWORD}@p")).run().assert_code(2);
    Checks::of(&run).is("network", "proxy", "fails", "HTTP_PROXY");
    let mut command = doctor_of(&hub, &volume);
    let run = command.env("HTTP_PROXY", "http://proxy.invalid:3128").run().assert_code(20);
    Checks::of(&run).is("network", "dns", "fails", "`proxy.invalid` (the proxy) is not found");
}

/// A bucket, with a command that is to look at it.
fn bucket(volume: &Volume) -> (FakeS3, Command) {
    let s3 = FakeS3::builder()
        .bucket("models")
        .credentials(ACCESS_KEY, SECRET_KEY)
        .object("models", "m/config.json", Blob::bytes("{}"))
        .object("models", "m/big.bin", Blob::synthetic(100_000, 1))
        .start();
    let mut command = doctor(volume, &["s3://models/m/", "--s3-path-style"]);
    command.args(["--s3-endpoint", &s3.url()]).env("AWS_EC2_METADATA_DISABLED", "true");
    command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
    command.env("AWS_REGION", "eu-west-1");
    (s3, command)
}

#[test]
fn of_s3_the_credentials_the_listing_and_the_reading_are_told_apart() {
    let volume = Volume::new();
    let (s3, mut command) = bucket(&volume);
    let run = command.run().assert_success();
    let checks = Checks::of(&run);
    checks
        .is("source", "credentials", "ok", "long-lived key …NARY from AWS_ACCESS_KEY_ID")
        .is("source", "credentials", "ok", "region eu-west-1")
        .is("source", "list", "ok", "2 files")
        .is("source", "read", "ok", "1024 bytes of `big.bin`, answered 206");
    assert!(!run.stdout.contains(ACCESS_KEY), "{}", run.stdout);
    assert!(!checks.has("source", "token"), "the Hub is not asked");
    s3.script(Rule::on("GET", "list-type=2").then(Fault::status(403)));
    let run = command.run().assert_code(11);
    let checks = Checks::of(&run);
    checks.is("source", "credentials", "ok", "").is("source", "list", "fails", "403");
    assert!(!checks.has("source", "read"));
    s3.clear_script();
    s3.script(Rule::on("GET", "big.bin").then(Fault::status(403)));
    let run = command.run().assert_code(11);
    Checks::of(&run).is("source", "list", "ok", "").is("source", "read", "fails", "403");
    let run = command.env_remove("AWS_SECRET_ACCESS_KEY").run().assert_code(11);
    Checks::of(&run).is("source", "credentials", "fails", "AWS_ACCESS_KEY_ID is set");
    let run = command.arg("--s3-anonymous").run().assert_code(11);
    Checks::of(&run).is("source", "credentials", "ok", "none are sent");
}

#[test]
fn every_kind_of_source_is_listed_and_read_and_one_without_it_fails() {
    let big = Blob::synthetic(2 << 20, 1);
    let tree = Tree::new().with_blob("big.bin", big.clone());
    let gcs = FakeGcs::builder().object("models", "m/big.bin", big.clone()).start();
    let azure = FakeAzure::builder("models").object("weights", "m/big.bin", big.clone()).start();
    let registry = FakeRegistry::serving("org/tiny", "v1", &tree);
    let web = FakeWeb::builder().with_sums("m", &tree).start();
    let modelscope = FakeModelScope::builder().model("org/tiny", tree.clone()).start();
    let volume = Volume::new();
    let hub = FakeHub::serving(REPO, tree);
    fetch(&hub, &volume, &["hf://org/tiny", "there"]).run().assert_success();
    let there = format!("file://{}", volume.family("there").display());
    let command = |sources: &[&str]| {
        let mut command = doctor(&volume, sources);
        command.env("CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE", gcs.url());
        command.env("GCE_METADATA_HOST", "127.0.0.1:9").env("GCE_METADATA_IP", "127.0.0.1:9");
        command.env("GOOGLE_SKIP_SIGNATURE", "true").env("AZURE_SKIP_SIGNATURE", "true");
        command.env("MODELSCOPE_ENDPOINT", modelscope.url());
        command.env("AZURE_STORAGE_ENDPOINT", azure.url());
        command
    };
    let oci = format!("oci://{}/org/tiny", registry.host());
    let kinds = [
        ("gs://models/m/".to_owned(), "gs://models/none/".to_owned()),
        ("az://models/weights/m/".into(), "az://models/weights/none/".into()),
        (format!("{oci}:v1"), format!("{oci}:v2")),
        (format!("{}/m/", web.url()), format!("{}/none/", web.url())),
        ("ms://org/tiny".into(), "ms://org/none".into()),
        (there.clone(), format!("{there}/none")),
    ];
    for (source, none) in kinds {
        let run = command(&[&source]).run().assert_success();
        Checks::of(&run).is("source", "list", "ok", "1 file").is(
            "source",
            "read",
            "ok",
            "1024 bytes of `big.bin`",
        );
        let run = command(&[&none]).run();
        assert_ne!(run.code, 0, "{none}: {}", run.stdout);
        Checks::of(&run).is("source", "list", "fails", "");
    }
}

#[test]
fn the_hub_is_not_asked_where_a_variable_forbids_it() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    let run = doctor_of(&hub, &volume).env("HF_HUB_OFFLINE", "1").run().assert_success();
    Checks::of(&run).is("source", "list", "warning", "HF_HUB_OFFLINE is set");
    assert_eq!(hub.requests().len(), 0);
}

#[test]
fn a_host_that_says_nothing_is_a_line_and_no_hang() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    hub.script(Rule::on("*", "").then(Fault::HangBeforeHeaders(Duration::from_secs(120))));
    let running = doctor_of(&hub, &volume).start();
    let run = ends_within(Duration::from_secs(90), running).assert_code(20);
    Checks::of(&run)
        .is("source", "token", "fails", "did not answer within")
        .is("source", "list", "fails", "did not answer within")
        .is("network", "answer", "fails", "did not answer within")
        .is("network", "dns", "ok", "127.0.0.1");
    // The whole has an end of its own, and is told to stop.
    let run = doctor_of(&hub, &volume).args(["--deadline", "2s"]).run().assert_code(23);
    run.assert_says("--deadline of 2.0s expired while checking source");
    let before = hub.requests().len();
    let running = doctor_of(&hub, &volume).start();
    eventually("it asks", || hub.requests().len() > before);
    running.signal("-TERM");
    ends_within(Duration::from_secs(10), running).assert_code(143);
}

#[test]
fn limits_of_the_container_that_are_too_low_are_told() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    for (limit, code, verdict) in [(24, 14, "fails"), (64, 0, "warning")] {
        let command = doctor_of(&hub, &volume);
        let run = in_shell(&format!("ulimit -n {limit}"), &command).run().assert_code(code);
        Checks::of(&run).is("container", "descriptors", verdict, "ulimit -n");
    }
    if has("prlimit") {
        for (limit, code, verdict) in [("20000", 0, "ok"), ("30", 0, "warning"), ("5", 14, "fails")]
        {
            // Root is not held to it.
            let wrapper = ["prlimit", &format!("--nproc={limit}")];
            let run = under(&wrapper, &doctor_of(&hub, &volume)).run();
            if is_root() {
                let run = run.assert_code(code);
                Checks::of(&run).is("container", "threads", verdict, &format!("limit {limit}"));
            }
        }
    }
    if let Some(group) = MemoryGroup::limited_to(48 << 20) {
        let run = group.around(&doctor_of(&hub, &volume)).run().assert_success();
        Checks::of(&run).is("container", "memory", "warning", "resources.limits.memory");
    }
}

#[test]
fn without_proc_it_says_that_it_cannot_tell() {
    if !is_root() || !has("unshare") {
        return;
    }
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    let command = doctor_of(&hub, &volume);
    let command = in_shell("umount -l /proc", &command);
    let run = under(&["unshare", "--mount"], &command).run().assert_success();
    let checks = Checks::of(&run);
    for name in ["memory", "cpu", "threads", "security"] {
        checks.is("container", name, "warning", "cannot tell: /proc is not mounted");
    }
    checks.is("volume", "operations", "ok", "rename").is("source", "read", "ok", "");
}

#[test]
fn in_a_cluster_it_expects_what_the_manifests_set() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    let log = volume.path("log");
    let command = || {
        let mut command = doctor_of(&hub, &volume);
        command.env("KUBERNETES_SERVICE_HOST", "10.0.0.1").env("POD_NAME", "pod-a");
        command.env("WEIGHTLIFT_TERMINATION_LOG", &log);
        command
    };
    let run = command().run().assert_success();
    Checks::of(&run).is("container", "pod", "warning", "NODE_NAME").is(
        "container",
        "termination-log",
        "warning",
        "does not exist",
    );
    std::fs::create_dir(&log).unwrap();
    let run = command().run().assert_success();
    Checks::of(&run).is("container", "termination-log", "warning", "cannot be written");
    std::fs::remove_dir(&log).unwrap();
    std::fs::write(&log, "").unwrap();
    let run = command().env("NODE_NAME", "node-1").run().assert_success();
    Checks::of(&run).is("container", "pod", "ok", "pod pod-a on node node-1").is(
        "container",
        "termination-log",
        "ok",
        "can be written",
    );
    // And the message is there.
    let message: Value = serde_json::from_slice(&std::fs::read(&log).unwrap()).unwrap();
    assert_eq!((&message["code"], &message["class"]), (&json!(0), &json!("complete")));
    if is_root() {
        Checks::of(&run).is("container", "user", "warning", "runAsNonRoot");
        Checks::of(&run).is("container", "security", "warning", "allowPrivilegeEscalation: false");
    }
    let run = command().env("HF_ENDPOINT", "http://127.0.0.1:9").run().assert_code(20);
    let message: Value = serde_json::from_slice(&std::fs::read(&log).unwrap()).unwrap();
    assert_eq!(message["class"], "unreachable", "{}", run.stderr);
    assert!(message["message"].as_str().unwrap().contains("checks failed"), "{message}");
}

#[test]
fn the_rights_for_a_lease_are_asked_for_and_none_is_made() {
    if !has("openssl") {
        return;
    }
    let (cluster, hub, volume) = (FakeCluster::start(), hub_of_tiny(), Volume::new());
    let command = || {
        let mut command = doctor_of(&hub, &volume);
        cluster.tell(&mut command, &volume.path("account"));
        command.args(["--lock", "kubernetes"]);
        command
    };
    let run = command().run().assert_success();
    Checks::of(&run).is("cluster", "lease", "ok", "in namespace model-storage");
    let asked: Vec<_> = cluster.requests();
    assert_eq!(asked.len(), 3);
    assert!(asked.iter().all(|(_, path, _)| path.ends_with("/selfsubjectaccessreviews")));
    cluster.deny("update");
    let run = command().args(["--lease-name", "ours"]).run().assert_code(11);
    assert!(!run.stdout.contains(API_TOKEN) && !run.stderr.contains(API_TOKEN));
    let checks = Checks::of(&run);
    checks.is("cluster", "lease", "fails", "may not update Leases in namespace model-storage");
    checks.is("source", "list", "ok", "");
    let names = cluster.requests();
    let name = |(_, _, body): &(String, String, Value)| {
        body["spec"]["resourceAttributes"]["name"].as_str().map(str::to_owned)
    };
    let names: Vec<_> = names[3..].iter().map(name).collect();
    assert_eq!(names, [Some("ours".to_owned()), None, Some("ours".to_owned())]);
    cluster.fail("POST", 1, ClusterFault::Status(403, "forbidden"));
    let run = command().run().assert_code(11);
    Checks::of(&run).is("cluster", "lease", "fails", "403");
    cluster.fail("POST", 1, ClusterFault::Close);
    let run = command().run().assert_code(20);
    Checks::of(&run).is("cluster", "lease", "fails", "does not answer");
    // Outside of a cluster.
    let mut outside = doctor_of(&hub, &volume);
    let run = outside.args(["--lock", "kubernetes"]).run().assert_code(14);
    Checks::of(&run).is("cluster", "lease", "fails", "finds no cluster");
}

/// Each line that the page quotes is one that is printed, amounts and names of hosts aside.
#[test]
fn the_page_quotes_what_is_printed() {
    let page = include_str!("../../docs/doctor.md");
    let quoted = page.split("```text doctor\n").nth(1).unwrap().split("```").next().unwrap();
    let model = "meta-llama/Llama-3.1-8B-Instruct";
    let shards = ["model-00001-of-00004.safetensors", "model-00002-of-00004.safetensors"];
    let tree = Tree::new()
        .with("config.json", "{}")
        .with_blob(shards[0], Blob::synthetic(3 << 20, 1))
        .with_blob(shards[1], Blob::synthetic(2 << 20, 2));
    let hub = FakeHub::builder().repo(model, tree).token(TOKEN).gated(model).start();
    hub.script(whoami(json!({"displayName": "ci", "role": "write"})));
    let volume = Volume::new();
    let mut command = doctor(&volume, &[&format!("hf://{model}"), "--output", "text"]);
    command.env("HF_ENDPOINT", hub.url()).env("HF_TOKEN", TOKEN);
    command.env("KUBERNETES_SERVICE_HOST", "10.0.0.1").env("POD_NAME", "doctor-x2x7k");
    let log = volume.path("log");
    std::fs::write(&log, "").unwrap();
    command.env("NODE_NAME", "node-1").env("WEIGHTLIFT_TERMINATION_LOG", &log);
    // The page shows the default.
    command.env_remove("WEIGHTLIFT_SANDBOX");
    let run = command.run().assert_code(11);
    let (root, host) = (volume.root().display().to_string(), hub.url());
    let ours = run.stdout.replace(&root, "/data/models").replace(&host, "https://huggingface.co");
    let question = |line: &str| {
        let line = line[8..].to_owned();
        line.split(": ").next().unwrap().to_owned()
    };
    for line in quoted.lines() {
        let printed = ours.lines().find(|it| question(it) == question(line));
        let printed = printed.unwrap_or_else(|| panic!("not printed: {line}\n{ours}"));
        // What depends on the machine, and not on us.
        let is_of_machine = [
            "memory",
            "cpu",
            "descriptors",
            "certificates",
            "user",
            "security",
            "termination-log",
            "filesystem",
            "inodes",
            "owner",
            "operations",
            "locks",
            "list",
            "dns",
            "answer",
            "threads",
        ]
        .iter()
        .any(|name| question(line).ends_with(&format!(" {name}")));
        if !is_of_machine {
            assert_eq!(skeleton(printed), skeleton(line));
        }
    }
    // And each check has a row of the table.
    for line in ours.lines() {
        let name = question(line).rsplit(' ').next().unwrap().to_owned();
        assert!(page.contains(&format!("`{name}`")), "{name} is not on the page");
    }
    // The Job can be pasted: every word after its `args:` is one that is known.
    let args = page.split("args:\n").nth(1).unwrap().split("env:").next().unwrap();
    let args = args.lines().filter_map(|line| line.trim().strip_prefix("- "));
    let mut pasted = weightlift();
    pasted.args(args.map(|arg| arg.replace("/data/models", &root)));
    pasted.env("HF_ENDPOINT", hub.url());
    pasted.env("HF_TOKEN", TOKEN).run().assert_code(11);
}
