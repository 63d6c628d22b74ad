//! A lock file for weights: what `pin` writes down, and what `fetch --locked` makes of it.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::support::*;
use weightlift_fakes::{Blob, Checksum, FakeHub, FakeS3, Fault, ObjectOptions, Rule, Tree, Writes};

const MIB: u64 = 1 << 20;

fn tree() -> Tree {
    Tree::new()
        .with("config.json", "{\"n\": 1}")
        .with("README.md", "read me")
        .with_blob("model.txt", Blob::synthetic(2 * MIB, 1))
        .with_blob("sub/tokenizer.bin", Blob::synthetic(2 * MIB + 1, 2))
}

/// A bucket whose objects have no digest but their ETags.
fn bucket(tree: &Tree, checksum: Option<Checksum>) -> FakeS3 {
    let mut builder = FakeS3::builder().bucket("models").credentials(ACCESS_KEY, SECRET_KEY);
    for (path, blob) in tree.iter() {
        let options = ObjectOptions { checksum, ..ObjectOptions::default() };
        builder = builder.object_with("models", &format!("m/{path}"), blob.clone(), options);
    }
    builder.start()
}

struct Desk {
    dir: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn lock(&self) -> PathBuf {
        self.dir.path().join("models.lock")
    }

    fn models(&self, yaml: &str) -> PathBuf {
        let path = self.dir.path().join("models.yaml");
        std::fs::write(&path, yaml).unwrap();
        path
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.lock()).unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.text()).unwrap()
    }
}

fn with_places(command: &mut Command, hub: Option<&FakeHub>, s3: Option<&FakeS3>) {
    command.env("HF_ENDPOINT", hub.map_or("http://127.0.0.1:9".into(), FakeHub::url));
    command.env("HF_TOKEN", TOKEN).env("WEIGHTLIFT_RETRY_TIMEOUT", "3s");
    command.env("WEIGHTLIFT_RETRY_DELAY", "25ms");
    if let Some(s3) = s3 {
        command.args(["--s3-path-style", "--s3-endpoint", &s3.url()]);
        command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
        command.env("AWS_REGION", "us-east-1");
    }
}

/// `pin`, in the directory of `desk`.
fn pin(desk: &Desk, hub: Option<&FakeHub>, s3: Option<&FakeS3>, arguments: &[&str]) -> Command {
    let mut command = weightlift();
    command.arg("pin").args(arguments).current_dir(desk.dir.path());
    with_places(&mut command, hub, s3);
    command
}

/// `fetch --locked`.
fn locked(
    lock: &Path,
    volume: &Volume,
    hub: Option<&FakeHub>,
    s3: Option<&FakeS3>,
    arguments: &[&str],
) -> Command {
    let mut command = weightlift();
    command.arg("fetch").arg("--root").arg(volume.root()).arg("--locked").arg(lock).args(arguments);
    with_places(&mut command, hub, s3);
    command
}

fn sha256(blob: &Blob) -> String {
    Sha256::digest(blob.to_vec()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the lock says of each file of the only model.
fn assert_locks(lock: &Value, tree: &Tree) {
    let files = lock["models"][0]["files"].as_array().unwrap();
    let found: Vec<_> = files
        .iter()
        .map(|it| {
            (
                it["path"].as_str().unwrap().to_owned(),
                it["size"].as_u64().unwrap(),
                it["sha256"].as_str().unwrap().to_owned(),
            )
        })
        .collect();
    let mut expected: Vec<_> =
        tree.iter().map(|(path, blob)| (path.to_owned(), blob.len(), sha256(blob))).collect();
    expected.sort();
    let mut sorted = found.clone();
    sorted.sort();
    assert_eq!(sorted, expected);
}

#[test]
fn pin_writes_down_exactly_what_a_model_is() {
    let (hub, desk) = (FakeHub::serving(REPO, tree()), Desk::new());
    let run = pin(&desk, Some(&hub), None, &["hf://org/tiny", "chat/tiny"]).run().assert_success();
    assert!(run.stdout.starts_with("chat/tiny: pinned at "), "{}", run.stdout);
    assert!(run.last_line().starts_with("pinned: 1 model, 4 files, "), "{}", run.stderr);
    let lock = desk.json();
    assert_locks(&lock, &tree());
    let model = &lock["models"][0];
    assert_eq!(model["source"], "hf://org/tiny@main");
    assert_eq!(model["revision"].as_str().unwrap(), hub.commit(REPO));
    // What the source itself calls the small ones, whose SHA-256 it does not tell.
    assert!(model["files"][0]["published"].as_str().unwrap().starts_with("git-sha1:"));
    let of_files = |text: &str| text.lines().filter(|line| line.contains("\"sha256\"")).count();
    assert_eq!(of_files(&desk.text()), 4, "a line each");
    // Nothing is kept but the lock file, the large ones are not read, and the same again is the same.
    assert_eq!(hub.bytes_sent_for("tokenizer.bin"), 0);
    let text = desk.text();
    hub.log().clear();
    pin(&desk, Some(&hub), None, &[]).run().assert_success();
    assert_eq!(desk.text(), text);
    assert_eq!(hub.count("GET", "/resolve/"), 0, "a blob that is known is not read again");
    assert_eq!(list(desk.dir.path()), [desk.lock()]);
}

#[test]
fn what_the_store_of_chunks_calls_a_file_is_kept_for_updates_by_chunks() {
    let builder = FakeHub::builder().repo(REPO, tree()).lfs_threshold(1_000);
    let (hub, desk, volume) = (builder.xet_hashes().start(), Desk::new(), Volume::new());
    pin(&desk, Some(&hub), None, &["hf://org/tiny"]).run().assert_success();
    locked(&desk.lock(), &volume, Some(&hub), None, &[]).run().assert_success();
    let other = Volume::new();
    fetch(&hub, &other, &["hf://org/tiny"]).run().assert_success();
    let lock = desk.json()["models"][0].clone();
    for volume in [&volume, &other] {
        let json = std::fs::read(volume.family("tiny").join(".weightlift-complete.json")).unwrap();
        let sentinel: Value = serde_json::from_slice(&json).unwrap();
        for model in [&lock, &sentinel] {
            let files = model["files"].as_array().unwrap();
            let of = |path: &str| {
                files.iter().find(|it| it["path"] == path).unwrap()["xet_hash"].clone()
            };
            assert_eq!(of("sub/tokenizer.bin").as_str().map(str::len), Some(64), "{model}");
            assert_eq!(of("config.json"), Value::Null);
        }
    }
}

#[test]
fn what_has_no_published_sha256_is_read_once_and_proved() {
    for checksum in [None, Some(Checksum::Crc64Nvme), Some(Checksum::Sha256)] {
        let (s3, desk) = (bucket(&tree(), checksum), Desk::new());
        s3.script(Rule::on("GET", "tokenizer.bin").once().then(Fault::CutAfter(MIB)));
        pin(&desk, None, Some(&s3), &["s3://models/m/"]).run().assert_success();
        let lock = desk.json();
        assert_locks(&lock, &tree());
        assert!(lock["models"][0]["files"][0]["etag"].is_string());
        let sent = s3.bytes_sent_for("tokenizer.bin");
        // The ETag looks like an MD5 and is none: the same bytes twice are what is there.
        let times = match checksum {
            None => 2,
            Some(Checksum::Sha256) => 0,
            Some(_) => 1,
        };
        assert_eq!(sent, times * (2 * MIB + 1), "{checksum:?}");
        // The same versions of the same objects are not read again.
        s3.log().clear();
        pin(&desk, None, Some(&s3), &[]).run().assert_success();
        assert_eq!(s3.bytes_sent_for("tokenizer.bin"), 0, "{checksum:?}");
    }
    // Bytes that are not what the store says of them are no pin.
    let (s3, desk) = (bucket(&tree(), Some(Checksum::Crc64Nvme)), Desk::new());
    s3.script(Rule::on("GET", "tokenizer.bin").then(Fault::FlipByteAt(5)));
    let run = pin(&desk, None, Some(&s3), &["s3://models/m/"]).run().assert_code(12);
    assert!(
        run.last_line().contains("`sub/tokenizer.bin` is wrong after 3 reads"),
        "{}",
        run.stderr
    );
    assert!(!desk.lock().exists());
}

#[test]
fn a_lock_that_was_made_from_the_hub_is_fetched_from_a_bucket_with_the_hub_out_of_reach() {
    let desk = Desk::new();
    {
        let hub = FakeHub::serving(REPO, tree());
        pin(&desk, Some(&hub), None, &["hf://org/tiny", "tiny"]).run().assert_success();
    }
    let (s3, volume) = (bucket(&tree(), Some(Checksum::Sha256)), Volume::new());
    let run = locked(&desk.lock(), &volume, None, Some(&s3), &["--also", "s3://models/m/"]).run();
    run.assert_success();
    volume.assert_holds("tiny", &tree());
    let sentinel = std::fs::read(volume.family("tiny").join(".weightlift-complete.json")).unwrap();
    let sentinel: Value = serde_json::from_slice(&sentinel).unwrap();
    assert_eq!(sentinel["lock"].as_str().unwrap(), sha256(&Blob::bytes(desk.text())));
    assert_eq!(sentinel["source"], "hf://org/tiny");
    // Now nobody need be there; and HF_HUB_OFFLINE forbids nothing.
    for variable in [None, Some("HF_HUB_OFFLINE")] {
        let mut again = locked(&desk.lock(), &volume, None, None, &[]);
        variable.map(|variable| again.env(variable, "1"));
        let run = again.args(["--output", "json"]).run().assert_success();
        let outcome: Value = serde_json::from_str(&run.stdout).unwrap();
        assert_eq!((&outcome["status"], &outcome["fetched_bytes"]), (&"present".into(), &0.into()));
    }
    let offline = Volume::new();
    locked(&desk.lock(), &offline, None, Some(&s3), &["--also", "s3://models/m/"])
        .env("HF_HUB_OFFLINE", "1")
        .run()
        .assert_success();
    offline.assert_holds("tiny", &tree());
}

#[test]
fn each_of_several_models_is_read_from_its_place_below_a_mirror() {
    let desk = Desk::new();
    {
        let hub = FakeHub::builder().repo(REPO, tree()).repo("org/b", tiny()).start();
        let yaml = "version: 1\nmodels: [{name: m, source: hf://org/tiny}, {name: x/b, source: hf://org/b, include: ['*.json']}]";
        let models = desk.models(yaml);
        let run = pin(&desk, Some(&hub), None, &["--models", models.to_str().unwrap()]).run();
        run.assert_success().assert_says("warning: x/b: no file that looks like weights");
    }
    let mut builder = FakeS3::builder().bucket("models").credentials(ACCESS_KEY, SECRET_KEY);
    for (prefix, tree) in [("all/m", tree()), ("all/x/b", tiny())] {
        for (path, blob) in tree.iter() {
            let options =
                ObjectOptions { checksum: Some(Checksum::Sha256), ..ObjectOptions::default() };
            builder =
                builder.object_with("models", &format!("{prefix}/{path}"), blob.clone(), options);
        }
    }
    let (s3, volume) = (builder.start(), Volume::new());
    for place in ["hf://org/", "s3://", "s3:/models"] {
        locked(&desk.lock(), &volume, None, Some(&s3), &["--mirror", place]).run().assert_code(2);
    }
    locked(&desk.lock(), &volume, None, Some(&s3), &["--mirror", "s3://models/all"])
        .run()
        .assert_success();
    volume.assert_holds("m", &tree());
    let tiny = tiny();
    let of_json = tiny.iter().filter(|(path, _)| path.ends_with(".json")).count();
    assert_eq!(files_below(&volume.family("x/b")).len(), of_json);
}

#[test]
fn a_volume_that_holds_what_is_locked_is_complete_whichever_source_it_came_from() {
    let (hub, s3) = (FakeHub::serving(REPO, tree()), bucket(&tree(), Some(Checksum::Sha256)));
    let (desk, volume) = (Desk::new(), Volume::new());
    fetch_s3(&s3, &volume, &["s3://models/m/", "tiny"]).run().assert_success();
    pin(&desk, Some(&hub), None, &["hf://org/tiny", "tiny"]).run().assert_success();
    hub.log().clear();
    let run = locked(&desk.lock(), &volume, Some(&hub), None, &[]).run().assert_success();
    assert!(run.last_line().contains("nothing to do"), "{}", run.stderr);
    assert!(hub.requests().is_empty());
    // Another model at that place is none of it.
    let other = tree().with("config.json", "{\"n\": 2}");
    hub.move_branch(REPO, "main", other.clone());
    pin(&desk, Some(&hub), None, &[]).run().assert_success();
    locked(&desk.lock(), &volume, Some(&hub), None, &[]).run().assert_code(16);
    locked(&desk.lock(), &volume, Some(&hub), None, &["--replace"]).run().assert_success();
    volume.assert_holds("tiny", &other);
}

#[test]
fn with_a_lock_no_source_is_asked_what_it_holds_and_nothing_else_is_fetched() {
    let (desk, volume) = (Desk::new(), Volume::new());
    let hub = FakeHub::serving(REPO, tree());
    let pinned = ["hf://org/tiny", "tiny", "--exclude", "README.md"];
    pin(&desk, Some(&hub), None, &pinned).run().assert_success();
    // The branch moves on, and the lock does not.
    hub.move_branch(REPO, "main", tree().with("new.bin", "new").with("config.json", "{}"));
    hub.log().clear();
    locked(&desk.lock(), &volume, Some(&hub), None, &[]).run().assert_success();
    volume.assert_holds("tiny", &tree().without("README.md"));
    assert_eq!(hub.count("*", "/api/models"), 0, "nothing is listed");

    let s3 = bucket(&tree(), None);
    let desk = Desk::new();
    pin(&desk, None, Some(&s3), &["s3://models/m", "m"]).run().assert_success();
    s3.log().clear();
    let volume = Volume::new();
    locked(&desk.lock(), &volume, None, Some(&s3), &[]).run().assert_success();
    volume.assert_holds("m", &tree());
    assert_eq!(s3.count("GET", "list-type"), 0, "nothing is listed");
}

#[test]
fn a_source_that_has_moved_is_a_conflict_and_other_bytes_are_found() {
    let with_hashes = FakeHub::builder().repo(REPO, tree()).xet_hashes().start();
    for (hub, what) in
        [(with_hashes, "tokenizer.bin"), (FakeHub::serving(REPO, tree()), "/resolve/")]
    {
        let desk = Desk::new();
        pin(&desk, Some(&hub), None, &["hf://org/tiny", "tiny"]).run().assert_success();
        // The Hub has forgotten the commit.
        hub.script(Rule::on("*", what).then(Fault::status(404)));
        let run = locked(&desk.lock(), &Volume::new(), Some(&hub), None, &[]).run();
        let run = run.assert_code(16);
        assert!(run.last_line().contains("pin` again"), "{}", run.stderr);
    }
    let hub = FakeHub::serving(REPO, tree());
    let desk = Desk::new();
    pin(&desk, Some(&hub), None, &["hf://org/tiny", "tiny"]).run().assert_success();
    hub.script(Rule::on("GET", "tokenizer.bin").at("cdn").then(Fault::FlipByteAt(7)));
    locked(&desk.lock(), &Volume::new(), Some(&hub), None, &[]).run().assert_code(12);

    // An object that was replaced, with and without a change of its size; one that is gone.
    let s3 = bucket(&tree(), None);
    let desk = Desk::new();
    pin(&desk, None, Some(&s3), &["s3://models/m/"]).run().assert_success();
    for blob in [Blob::synthetic(2 * MIB + 1, 9), Blob::synthetic(MIB, 9)] {
        s3.overwrite("models", "m/sub/tokenizer.bin", blob);
        let run = locked(&desk.lock(), &Volume::new(), None, Some(&s3), &[]).run().assert_code(16);
        assert!(run.last_line().contains("has what the lock file names and"), "{}", run.stderr);
    }
    s3.remove("models", "m/sub/tokenizer.bin");
    locked(&desk.lock(), &Volume::new(), None, Some(&s3), &[]).run().assert_code(16);
}

#[test]
fn check_says_what_has_moved_and_writes_nothing() {
    let hub = FakeHub::builder().repo(REPO, tree()).repo("org/b", tiny()).start();
    let desk = Desk::new();
    let yaml = "version: 1\nmodels:\n- {name: a, source: hf://org/tiny}\n- {name: b, source: hf://org/b}\n";
    let models = desk.models(yaml);
    let models = ["--models", models.to_str().unwrap()];
    pin(&desk, Some(&hub), None, &["--check"]).args(models).run().assert_code(2);
    pin(&desk, Some(&hub), None, &models).run().assert_success();
    let check = |hub: &FakeHub| {
        let run = pin(&desk, Some(hub), None, &["--check", "--output", "json"]).args(models).run();
        let lines = run.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let told: Vec<_> = lines
            .map(|it| (it["status"].as_str().unwrap().to_owned(), it["changes"].clone()))
            .collect();
        (run, told)
    };
    let (run, told) = check(&hub);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(told.iter().all(|(status, _)| status == "current"));
    let text = desk.text();
    // What is not fetched, may change; a commit that changes nothing is none.
    let changed = tree().with("config.json", "{}").with("new.json", "{}").without("README.md");
    hub.move_branch(REPO, "main", changed);
    hub.move_branch("org/b", "main", tiny());
    let (run, told) = check(&hub);
    assert_eq!(run.code, 16, "{}", run.stderr);
    let changes: Vec<&str> =
        told[0].1.as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
    assert!(changes[0].starts_with("hf://org/tiny@main moved from "), "{changes:?}");
    assert_eq!(changes[1..], ["changed: config.json", "added: new.json", "removed: README.md"]);
    assert_eq!(told[1].0, "current");
    assert_eq!(desk.text(), text);
    assert!(
        run.last_line().contains("`models.lock` is not up to date: 1 model moved"),
        "{}",
        run.stderr
    );
    // One of them anew, and the other as it was.
    hub.move_branch("org/b", "main", tiny().with("more.json", "{}"));
    pin(&desk, Some(&hub), None, &["--upgrade", "a"]).args(models).run().assert_success();
    let lock = desk.json();
    assert_eq!(lock["models"][0]["revision"].as_str().unwrap(), hub.commit(REPO));
    assert_ne!(lock["models"][1]["revision"].as_str().unwrap(), hub.commit("org/b"));
    pin(&desk, Some(&hub), None, &["--upgrade", "c"]).args(models).run().assert_code(2);
    // What the models file asks for otherwise.
    pin(&desk, Some(&hub), None, &models).run().assert_success();
    desk.models(
        &yaml.replace("name: b, ", "name: c, ").replace("tiny}", "tiny, exclude: ['*.md']}"),
    );
    let (run, told) = check(&hub);
    let statuses: Vec<&str> = told.iter().map(|(status, _)| status.as_str()).collect();
    assert_eq!((run.code, statuses), (16, vec!["moved", "unlocked", "unasked", "failed"]));
}

#[test]
fn one_model_is_put_into_a_lock_file_and_one_that_fails_leaves_it_alone() {
    let hub = FakeHub::builder().repo(REPO, tree()).repo("org/b", tiny()).start();
    let desk = Desk::new();
    for source in ["hf://org/tiny", "hf://org/b", "hf://org/tiny"] {
        pin(&desk, Some(&hub), None, &[source]).run().assert_success();
    }
    let names: Vec<_> =
        desk.json()["models"].as_array().unwrap().iter().map(|it| it["name"].clone()).collect();
    assert_eq!(names, ["b", "tiny"]);
    let text = desk.text();
    hub.script(Rule::on("GET", "org/b/revision").then(Fault::status(404)));
    let run = pin(&desk, Some(&hub), None, &[]).run().assert_code(10);
    assert!(run.stderr.contains("`b` cannot be pinned"), "{}", run.stderr);
    assert_eq!(desk.text(), text);
}

#[test]
fn a_lock_file_that_is_none_is_a_usage_error_and_nothing_is_lost() {
    let (desk, volume) = (Desk::new(), Volume::new());
    for (text, says) in [
        (None, "there is no such file"),
        (Some(""), "line 1, column 0"),
        (Some("{\"version\": 1, \"models\": [{}]}"), "missing field"),
        (Some("{\"version\": 7, \"models\": []}"), "version 7 is not known"),
    ] {
        if let Some(text) = text {
            std::fs::write(desk.lock(), text).unwrap();
        }
        let run = locked(&desk.lock(), &volume, None, None, &[]).run().assert_code(2);
        assert!(run.last_line().contains(says), "{}", run.stderr);
    }
    // Nor is a broken one written over.
    let hub = FakeHub::serving(REPO, tree());
    std::fs::write(desk.lock(), "<<<<<<< HEAD").unwrap();
    pin(&desk, Some(&hub), None, &["hf://org/tiny"]).run().assert_code(2);
    assert_eq!(desk.text(), "<<<<<<< HEAD");
}

/// The way into a cluster that reaches nothing but a bucket, from the first command to the last.
#[test]
fn what_is_pinned_and_mirrored_is_fetched_with_only_the_bucket_in_reach() {
    let desk = Desk::new();
    let builder = FakeS3::builder().bucket("models").credentials(ACCESS_KEY, SECRET_KEY);
    let s3 = builder.writable(Writes::default()).start();
    let lock = desk.lock();
    let mirror = |hub: Option<&FakeHub>, arguments: &[&str]| {
        let mut command = weightlift();
        command.arg("mirror").arg("--locked").arg(&lock).args(arguments).arg("s3://models/all/");
        with_places(&mut command, hub, Some(&s3));
        command
    };
    {
        let hub = FakeHub::builder().repo(REPO, tree()).repo("org/b", tiny()).start();
        let yaml = "version: 1\nmodels: [{name: m, source: hf://org/tiny}, {name: x/b, source: hf://org/b}]";
        let models = desk.models(yaml);
        pin(&desk, Some(&hub), None, &["--models", models.to_str().unwrap()])
            .run()
            .assert_success();
        // The branch moves on; what is locked is copied.
        hub.move_branch(REPO, "main", tree().with("config.json", "{\"n\": 2}"));
        hub.log().clear();
        mirror(Some(&hub), &[]).run().assert_success();
        assert_eq!(hub.count("*", "/api/models"), 0, "nothing is listed");
    }
    mirror(None, &["--check", "--deep"]).run().assert_success();
    s3.log().clear();
    let volume = Volume::new();
    locked(&lock, &volume, None, Some(&s3), &["--mirror", "s3://models/all/"])
        .run()
        .assert_success();
    volume.assert_holds("m", &tree());
    volume.assert_holds("x/b", &tiny_selected());
    assert_eq!(s3.count("GET", "list-type"), 0, "the sentinel object is the listing");
}
