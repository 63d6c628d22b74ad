//! What a run does with the copy that lies there: nothing, add to it, use it although it is old, or refuse
//! to take it away.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::Value;

use crate::support::*;
use weightlift_fakes::{Blob, FakeHub, FakeS3, Fault, Rule, Tree};

fn parts() -> Tree {
    Tree::new()
        .with("config.json", "{}")
        .with_blob("a.safetensors", Blob::bytes(safetensors(1)))
        .with_blob("b.safetensors", Blob::bytes(safetensors(2)))
        .with_blob("c.safetensors", Blob::bytes(safetensors(3)))
}

/// A whole safetensors file with one tensor of a kilobyte.
fn safetensors(fill: u8) -> Vec<u8> {
    let header = br#"{"t":{"dtype":"U8","shape":[1024],"data_offsets":[0,1024]}}"#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    bytes.resize(bytes.len() + 1024, fill);
    bytes
}

fn only(tree: &Tree, names: &[&str]) -> Tree {
    names
        .iter()
        .fold(Tree::new(), |all, name| all.with_blob(name, tree.blob(name).unwrap().clone()))
}

fn bucket() -> FakeS3 {
    let all = FakeS3::builder().bucket("bucket");
    let object = |all: weightlift_fakes::FakeS3Builder, (path, blob): (&str, &Blob)| {
        all.object("bucket", &format!("m/{path}"), blob.clone())
    };
    parts().iter().fold(all, object).start()
}

fn json(run: &Run) -> Value {
    serde_json::from_str(&run.stdout).unwrap()
}

fn model(volume: &Volume) -> std::path::PathBuf {
    volume.family("m")
}

#[test]
fn another_source_at_the_same_directory_is_refused_and_nothing_is_touched() {
    let hub = FakeHub::builder().repo("org/one", parts()).repo("org/two", tiny()).start();
    let s3 = bucket();
    let volume = Volume::new();
    fetch(&hub, &volume, &["hf://org/one", "m"]).run().assert_success();
    let commit = hub.commit("org/one");
    let pinned = format!("hf://org/two@{}", hub.commit("org/two"));
    hub.log().clear();
    for other in ["hf://org/two", &pinned, "hf://org/two@v1"] {
        let run = fetch(&hub, &volume, &[other, "m"]).run().assert_code(16);
        for part in [other, "hf://org/one", &commit[..12], "another DEST", "--replace"] {
            assert!(run.last_line().contains(part), "{part}: {}", run.stderr);
        }
    }
    let run = fetch_s3(&s3, &volume, &["s3://bucket/m/", "m"]).run().assert_code(16);
    assert!(run.last_line().contains("s3://bucket/m/"), "{}", run.stderr);
    // Also where it is damaged, the source is down, or nobody may ask.
    std::fs::remove_file(model(&volume).join("a.safetensors")).unwrap();
    fetch(&hub, &volume, &["hf://org/two", "m"]).run().assert_code(16);
    fetch(&hub, &volume, &["hf://org/two", "m"]).env("HF_HUB_OFFLINE", "1").run().assert_code(16);
    assert_eq!(hub.requests().len(), 0, "nobody needs to be asked for that");
    assert_eq!(list(&volume.root().join(".weightlift/attempts")), Vec::<std::path::PathBuf>::new());
    volume.assert_holds("m", &only(&parts(), &["config.json", "b.safetensors", "c.safetensors"]));
    let run = fetch(&hub, &volume, &["hf://org/two", "m", "--replace"]).run().assert_success();
    run.assert_says("will be replaced");
    volume.assert_holds("m", &tiny_selected());
}

#[test]
fn a_repo_by_its_old_and_its_new_name_is_the_same_source() {
    let hub = FakeHub::builder().repo("org/new", parts()).renamed("org/old", "org/new").start();
    let volume = Volume::new();
    fetch(&hub, &volume, &["hf://org/old", "m"]).run().assert_success();
    let run = fetch(&hub, &volume, &["hf://org/new", "m", "--output", "json"]).run();
    assert_eq!(json(&run.assert_success())["status"], "present");
}

#[test]
fn pods_that_want_different_files_converge_on_the_union() {
    let hub = FakeHub::serving(REPO, parts());
    let volume = Volume::new();
    let run = |include: &str, more: &[&str]| {
        let arguments = [&["hf://org/tiny", "m", "--include", include, "--output", "json"], more];
        let run = fetch(&hub, &volume, &arguments.concat()).run().assert_success();
        let (status, fetched) = (json(&run)["status"].clone(), json(&run)["fetched_bytes"].clone());
        (status.as_str().unwrap().to_owned(), fetched.as_u64().unwrap())
    };
    let one = parts().blob("a.safetensors").unwrap().len();
    assert_eq!(run("a.*", &[]), ("fetched".into(), one));
    assert_eq!(run("b.*", &[]), ("extended".into(), one));
    volume.assert_holds("m", &only(&parts(), &["a.safetensors", "b.safetensors"]));
    // Nobody takes away what the other has, however often they start; and what lies there is present,
    // also to somebody who has never asked before.
    for _ in 0..3 {
        for include in ["a.*", "b.*", "[ab].*"] {
            assert_eq!(run(include, &[]), ("present".into(), 0), "{include}");
        }
    }
    // A pin of that revision costs no request then.
    let pinned = format!("hf://org/tiny@{}", hub.commit(REPO));
    hub.log().clear();
    fetch(&hub, &volume, &[&pinned, "m", "--include", "b.*"]).run().assert_success();
    assert_eq!(hub.requests().len(), 0);
    // An update brings all of them.
    let changed = parts().with_blob("a.safetensors", Blob::bytes(safetensors(9)));
    hub.move_branch(REPO, "main", changed.clone());
    assert_eq!(run("b.*", &[]), ("updated".into(), one));
    volume.assert_holds("m", &only(&changed, &["a.safetensors", "b.safetensors"]));
    assert_eq!(run("a.*", &[]), ("present".into(), 0));
    // Without patterns it is everything, and what was there before is not fetched again.
    let run_all = fetch(&hub, &volume, &["hf://org/tiny", "m", "--output", "json"]).run();
    let told = json(&run_all.assert_success());
    assert_eq!(
        (told["status"].as_str(), told["fetched_bytes"].as_u64()),
        (Some("extended"), Some(one + 2))
    );
    volume.assert_holds("m", &changed);
    assert_eq!(run("a.*", &[]), ("present".into(), 0));
    // Only --replace takes files away.
    assert_eq!(run("a.*", &["--replace"]), ("updated".into(), 0));
    volume.assert_holds("m", &only(&changed, &["a.safetensors"]));
    fetch(&hub, &volume, &["hf://org/tiny", "m", "--include", "a.*", "--replace"])
        .run()
        .assert_success();
    volume.assert_clean();
}

#[test]
fn a_narrower_or_wider_wish_in_s3_is_answered_the_same_way() {
    let s3 = bucket();
    let volume = Volume::new();
    let run = |more: &[&str]| {
        let arguments = [&["s3://bucket/m/", "m", "--output", "json"], more].concat();
        let run = fetch_s3(&s3, &volume, &arguments).run().assert_success();
        json(&run)["status"].as_str().unwrap().to_owned()
    };
    assert_eq!(run(&["--exclude", "c.*"]), "fetched");
    assert_eq!(run(&["--include", "a.*"]), "present");
    assert_eq!(run(&[]), "extended");
    volume.assert_holds("m", &parts());
    assert_eq!(run(&["--exclude", "c.*"]), "present");
}

#[test]
fn two_pods_that_start_at_once_with_different_files_both_get_theirs() {
    let hub = FakeHub::serving(REPO, parts());
    let volume = Volume::new();
    hub.script(Rule::on("GET", "a.safetensors").then(Fault::Drip { bytes_per_second: 2_000 }));
    let start =
        |include: &str| fetch(&hub, &volume, &["hf://org/tiny", "m", "--include", include]).start();
    let runs = [start("a.*"), start("b.*"), start("c.*")];
    for run in runs {
        run.wait().assert_success();
    }
    let all = only(&parts(), &["a.safetensors", "b.safetensors", "c.safetensors"]);
    volume.assert_holds("m", &all);
    volume.assert_clean();
}

/// Refusals of a source, and what of them a run without a copy says.
fn refusals() -> Vec<(&'static str, Rule, i32)> {
    let revision = || Rule::on("GET", "/api/models/org/tiny/revision");
    let tree = || Rule::on("GET", "/api/models/org/tiny/tree");
    let status = |status| Fault::status(status);
    vec![
        ("401 at the revision", revision().then(status(401)), 11),
        ("403 at the revision", revision().then(status(403)), 11),
        ("404 at the revision", revision().then(status(404)), 10),
        ("410 at the revision", revision().then(status(410)), 10),
        ("451 at the revision", revision().then(status(451)), 11),
        ("403 at the listing", tree().then(status(403)), 11),
        ("404 at the listing", tree().then(status(404)), 10),
        ("503 for ever", revision().then(status(503)), 20),
        ("429 for ever", revision().then(status(429)), 21),
        ("403 at a file", Rule::on("GET", "a.safetensors").then(status(403)), 11),
        ("404 at a file", Rule::on("GET", "a.safetensors").then(status(404)), 10),
    ]
}

#[test]
fn whoever_has_a_whole_copy_starts_whatever_the_source_says() {
    let changed = parts().with_blob("a.safetensors", Blob::bytes(safetensors(9)));
    for (name, rule, code) in refusals() {
        let hub = FakeHub::serving(REPO, parts());
        let volume = Volume::new();
        let log = volume.path("message");
        std::fs::write(&log, "").unwrap();
        let run = |uri: &str, more: &[&str]| {
            let arguments =
                [&[uri, "m", "--output", "json", "--retry-timeout", "2s"], more].concat();
            fetch(&hub, &volume, &arguments).env("WEIGHTLIFT_TERMINATION_LOG", &log).run()
        };
        run("hf://org/tiny", &[]).assert_success();
        let old = hub.commit(REPO);
        let new = hub.move_branch(REPO, "main", changed.clone());
        hub.script(rule);
        let stale = run("hf://org/tiny", &[]);
        assert_eq!(stale.code, 0, "{name}: {}", stale.stderr);
        let told = json(&stale);
        assert_eq!(told["status"], "stale", "{name}: {}", stale.stderr);
        assert_eq!(told["revision"], old, "{name}");
        assert!(told["stale"]["why"].as_str().unwrap().len() > 20, "{name}: {told}");
        assert!(told["stale"]["since"].as_str().unwrap().starts_with("20"), "{name}: {told}");
        assert!(stale.last_line().starts_with("complete but stale: "), "{name}: {}", stale.stderr);
        let message: Value = serde_json::from_slice(&std::fs::read(&log).unwrap()).unwrap();
        assert_eq!((&message["code"], &message["status"]), (&0.into(), &"stale".into()), "{name}");
        assert!(message["message"].as_str().unwrap().contains("stale"), "{name}: {message}");
        volume.assert_holds("m", &parts());
        // Told to fail, it does, and leaves the copy.
        let fails = run("hf://org/tiny", &["--if-stale", "fail"]);
        assert_eq!(fails.code, code, "{name}: {}", fails.stderr);
        // A pin is never satisfied by another commit, nor a wish by a copy that lacks files.
        let pinned = run(&format!("hf://org/tiny@{new}"), &[]);
        assert!(pinned.code != 0, "{name}: {}", pinned.stderr);
        let expecting = run("hf://org/tiny", &["--expect-revision", &new]);
        assert!(expecting.code != 0, "{name}: {}", expecting.stderr);
        volume.assert_holds("m", &parts());
        hub.clear_script();
        run("hf://org/tiny", &[]).assert_success();
        volume.assert_holds("m", &changed);
    }
}

#[test]
fn a_broken_new_revision_does_not_take_the_old_one_from_anybody() {
    let lacking = Tree::new()
        .with("config.json", "{}")
        .with("model.safetensors.index.json", r#"{"weight_map":{"t":"model-00001-of-00002.safetensors","u":"model-00002-of-00002.safetensors"}}"#)
        .with_blob("model-00001-of-00002.safetensors", Blob::bytes(safetensors(1)));
    let damaged = parts().with("a.safetensors", "no safetensors at all, however often it is read");
    let other = Blob::bytes(safetensors(4)).sha256();
    let lies =
        parts().with_blob("a.safetensors", Blob::bytes(safetensors(5)).announcing_sha256(&other));
    let empty = Tree::new().with(".gitattributes", "*");
    for (name, tree) in
        [("lacking", lacking), ("damaged", damaged), ("lies", lies), ("empty", empty)]
    {
        let hub = FakeHub::serving(REPO, parts());
        let volume = Volume::new();
        let arguments = [
            "hf://org/tiny",
            "m",
            "--output",
            "json",
            "--include",
            "*.json",
            "--include",
            "*.safetensors",
        ];
        fetch(&hub, &volume, &arguments).run().assert_success();
        hub.move_branch(REPO, "main", tree);
        let run = fetch(&hub, &volume, &arguments).run();
        assert_eq!(run.code, 0, "{name}: {}", run.stderr);
        assert_eq!(json(&run)["status"], "stale", "{name}");
        volume.assert_holds("m", &parts());
        let strict = [&arguments[..], &["--if-stale=fail"]].concat();
        let run = fetch(&hub, &volume, &strict).run();
        assert!(matches!(run.code, 2 | 10 | 12), "{name}: {:?} {}", run.code, run.stderr);
        volume.assert_holds("m", &parts());
    }
}

#[test]
fn what_the_users_own_settings_refuse_is_no_reason_to_use_an_old_copy() {
    let hub = FakeHub::serving(REPO, parts());
    let volume = Volume::new();
    fetch(&hub, &volume, &["hf://org/tiny", "m"]).run().assert_success();
    let pickle = parts().with("extra.pkl", "code");
    hub.move_branch(REPO, "main", pickle);
    fetch(&hub, &volume, &["hf://org/tiny", "m", "--deny-pickle"]).run().assert_code(13);
    fetch(&hub, &volume, &["hf://org/tiny", "m"])
        .env("HF_ENDPOINT", "ftp://nowhere")
        .run()
        .assert_code(2);
    fetch(&hub, &volume, &["hf://org/tiny", "m", "--expect-revision", &"0".repeat(40)])
        .run()
        .assert_code(16);
    volume.assert_holds("m", &parts());
}

#[test]
fn a_copy_that_lacks_files_or_is_damaged_is_not_used_in_place_of_an_answer() {
    let hub = FakeHub::serving(REPO, parts());
    let volume = Volume::new();
    let run = |more: &[&str]| fetch(&hub, &volume, &[&["hf://org/tiny", "m"], more].concat()).run();
    run(&["--include", "a.*"]).assert_success();
    hub.script(Rule::on("GET", "/api/").then(Fault::status(403)));
    run(&["--include", "b.*"]).assert_code(11);
    run(&[]).assert_code(11);
    run(&["--include", "a.*", "--replace"]).assert_success().assert_says("complete but stale");
    std::fs::write(model(&volume).join("a.safetensors"), "x").unwrap();
    run(&["--include", "a.*"]).assert_code(11);
}

#[test]
fn offline_a_whole_copy_is_stale_by_name() {
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    hub.log().clear();
    let offline = |more: &[&str]| {
        let arguments = [&["hf://org/tiny", "--output", "json"], more].concat();
        fetch(&hub, &volume, &arguments).env("HF_HUB_OFFLINE", "1").run()
    };
    let run = offline(&[]).assert_success();
    assert_eq!(json(&run)["stale"]["why"], "HF_HUB_OFFLINE is set");
    offline(&["--if-stale=fail"]).assert_code(10);
    offline(&["--all"]).assert_code(10).assert_says("does not have all requested files");
    assert_eq!(hub.requests().len(), 0);
}

/// Changes one byte of a published file and leaves its size.
fn damage(path: &std::path::Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    // In the same file: a fetch must not write through other names of it.
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_recheck_finds_damage_of_the_same_size_and_mends_only_that() {
    let hub = FakeHub::serving(REPO, parts());
    let volume = Volume::new();
    let pinned = format!("hf://org/tiny@{}", hub.commit(REPO));
    let run = |uri: &str, more: &[&str]| {
        let arguments = [&[uri, "m", "--output", "json"], more].concat();
        fetch(&hub, &volume, &arguments).run()
    };
    let one = parts().blob("a.safetensors").unwrap().len();
    run("hf://org/tiny", &[]).assert_success();
    for uri in ["hf://org/tiny", &pinned] {
        damage(&model(&volume).join("b.safetensors"));
        // Believed by size.
        assert_eq!(json(&run(uri, &[]).assert_success())["status"], "present", "{uri}");
        let mended = run(uri, &["--recheck"]).assert_success();
        assert_eq!(json(&mended)["status"], "repaired", "{uri}: {}", mended.stderr);
        assert_eq!(json(&mended)["fetched_bytes"], one, "{uri}: {}", mended.stderr);
        assert!(mended.stderr.contains("`b.safetensors`"), "{}", mended.stderr);
        volume.assert_holds("m", &parts());
        // Whole, it costs a pin no request.
        hub.log().clear();
        assert_eq!(json(&run(&pinned, &["--recheck"]).assert_success())["status"], "present");
        assert_eq!(hub.requests().len(), 0);
        volume.assert_clean();
    }
    // With the source away the damage is told, and the copy is not called good.
    damage(&model(&volume).join("b.safetensors"));
    hub.script(Rule::on("GET", "/api/").then(Fault::status(403)));
    let refused = run("hf://org/tiny", &["--recheck"]).assert_code(11);
    assert!(refused.stderr.contains("`b.safetensors`"), "{}", refused.stderr);
}

#[test]
fn a_recheck_mends_a_directory_that_is_filled_in_place() {
    let hub = FakeHub::serving(REPO, parts());
    let volume = Volume::new();
    std::fs::create_dir_all(model(&volume)).unwrap();
    fetch(&hub, &volume, &["hf://org/tiny", "m"]).run().assert_success();
    damage(&model(&volume).join("c.safetensors"));
    let run = fetch(&hub, &volume, &["hf://org/tiny", "m", "--recheck"]).run().assert_success();
    assert!(run.last_line().contains("repaired"), "{}", run.stderr);
    volume.assert_holds("m", &parts());
    fetch(&hub, &volume, &["hf://org/tiny", "m", "--include", "a.*"]).run().assert_success();
    volume.assert_holds("m", &parts());
}

#[test]
fn a_recheck_that_has_waited_for_a_holder_still_mends_what_it_has_found() {
    let large = Blob::synthetic(4 << 20, 7);
    let tree = parts().with_blob("large.bin", large);
    let hub = FakeHub::serving(REPO, tree.clone());
    let volume = Volume::new();
    let run = |more: &[&str]| fetch(&hub, &volume, &[&["hf://org/tiny", "m"], more].concat());
    run(&["--exclude", "large.bin"]).run().assert_success();
    damage(&model(&volume).join("b.safetensors"));
    hub.script(Rule::on("GET", "").at("cdn").then(Fault::Drip { bytes_per_second: 64 << 10 }));
    // Another pod adds a file, and holds the lock when the damage is found.
    hub.log().clear();
    let holder = run(&[]).start();
    eventually("the holder fetches", || hub.bytes_sent_for("xet-bridge") > 0);
    let mut command = run(&["--exclude", "large.bin", "--recheck"]);
    let mut waiter = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(waiter.stderr.take().unwrap()).lines().map(Result::unwrap);
    let mut said = Vec::new();
    let waits =
        lines.by_ref().inspect(|line| said.push(line.clone())).any(|it| it.contains("waiting"));
    assert!(waits, "it did not wait: {said:?}");
    holder.signal("-KILL");
    drop(holder);
    hub.clear_script();
    let last = lines.last().unwrap_or_default();
    assert!(waiter.wait().unwrap().success() && last.contains("repaired"), "{last}");
    volume.assert_holds("m", &parts());
}
