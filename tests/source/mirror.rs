//! `mirror`: a model from a source into a bucket, and from there onto a volume.

use std::process::Command;
use std::time::Duration;

use crate::support::measure::with_peak_memory;
use crate::support::*;
use weightlift_fakes::{Blob, Checksum, FakeHub, FakeS3, Fault, ObjectOptions, Rule, Tree, Writes};

const MIB: u64 = 1 << 20;
const SENTINEL: &str = ".weightlift-complete.json";

fn store(writes: Writes) -> FakeS3 {
    let builder = FakeS3::builder().bucket("models").credentials(ACCESS_KEY, SECRET_KEY);
    builder.writable(writes).start()
}

/// A model with a file of three parts.
fn big() -> Tree {
    Tree::new()
        .with("config.json", "{}")
        .with("empty.txt", "")
        .with_blob("sub/big.bin", Blob::synthetic(40 * MIB + 3, 4))
}

fn with_s3(mut command: Command, s3: &FakeS3) -> Command {
    command.args(["--s3-path-style", "--s3-endpoint", &s3.url()]);
    command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
    command.env("AWS_REGION", "us-east-1");
    command.env("WEIGHTLIFT_RETRY_TIMEOUT", "20s").env("WEIGHTLIFT_RETRY_DELAY", "10ms");
    command
}

fn mirror(hub: &FakeHub, s3: &FakeS3, arguments: &[&str]) -> Command {
    let mut command = weightlift();
    command.arg("mirror").args(arguments).env("HF_ENDPOINT", hub.url());
    with_s3(command, s3)
}

fn check(s3: &FakeS3, arguments: &[&str]) -> Command {
    let mut command = weightlift();
    command.args(["mirror", "--check"]).args(arguments);
    with_s3(command, s3)
}

const TINY: [&str; 2] = ["hf://org/tiny", "s3://models/m/"];

/// Fails unless the prefix `m/` holds the files of `tree`, and a sentinel.
#[track_caller]
fn assert_mirrors(s3: &FakeS3, tree: &Tree) {
    let mut expected: Vec<String> = tree.iter().map(|(path, _)| format!("m/{path}")).collect();
    expected.extend([format!("m/{SENTINEL}"), "m/SHA256SUMS".to_owned()]);
    expected.sort();
    assert_eq!(s3.keys("models"), expected);
    let sums = s3.content("models", "m/SHA256SUMS").unwrap().to_vec();
    let sums = String::from_utf8(sums).unwrap();
    assert_eq!(sums.lines().count(), tree.len());
    for (path, blob) in tree.iter() {
        assert!(sums.contains(&format!("{}  {path}\n", blob.sha256())), "{path}: {sums}");
        let content = s3.content("models", &format!("m/{path}")).unwrap();
        assert!(content.to_vec() == blob.to_vec(), "{path} differs");
    }
}

fn sentinel(s3: &FakeS3) -> serde_json::Value {
    let sentinel = s3.content("models", &format!("m/{SENTINEL}")).expect("a sentinel");
    serde_json::from_slice(&sentinel.to_vec()).unwrap()
}

fn puts(s3: &FakeS3) -> usize {
    s3.count("PUT", "") + s3.count("POST", "") + s3.count("DELETE", "")
}

#[test]
fn a_model_is_copied_and_a_fetch_of_it_needs_one_listing() {
    let (hub, s3, volume) = (hub_of_tiny(), store(Writes::default()), Volume::new());
    let run = mirror(&hub, &s3, &TINY).run().assert_success();
    assert_eq!(run.stdout, "s3://models/m/\n");
    assert_mirrors(&s3, &tiny_selected());
    // Last of all writes.
    let writes: Vec<_> = s3.requests().into_iter().filter(|it| it.method == "PUT").collect();
    let last: Vec<_> = writes.iter().rev().take(2).collect();
    assert!(last[0].is_for(SENTINEL) && last[1].is_for("SHA256SUMS"), "{writes:?}");
    s3.log().clear();
    fetch_s3(&s3, &volume, &["s3://models/m/"]).run().assert_success();
    volume.assert_holds("m", &tiny_selected());
    let listings = s3.count("GET", "list-type") + s3.count("GET", SENTINEL);
    assert_eq!((listings, s3.count("HEAD", "")), (1, 0));
    let text = std::fs::read_to_string(volume.family("m").join(SENTINEL)).unwrap();
    let fetched: serde_json::Value = serde_json::from_str(&text).unwrap();
    for file in fetched["files"].as_array().unwrap() {
        assert_eq!(file["verified_by"], "sha256", "{file}");
    }
    // Warm: the sentinel, and nothing else.
    s3.log().clear();
    fetch_s3(&s3, &volume, &["s3://models/m/"]).run().assert_success();
    assert_eq!((s3.requests().len(), s3.count("GET", SENTINEL)), (1, 1));
}

#[test]
fn a_file_of_many_parts_has_a_checksum_of_the_whole() {
    let (hub, s3) = (FakeHub::serving("org/tiny", big()), store(Writes::default()));
    mirror(&hub, &s3, &TINY).run().assert_success();
    assert_mirrors(&s3, &big());
    assert_eq!((s3.count("PUT", "partNumber"), s3.unfinished_uploads()), (3, 0));
    let completed =
        s3.requests().into_iter().find(|it| it.method == "POST" && it.is_for("uploadId"));
    let completed = completed.unwrap();
    assert!(completed.header("x-amz-checksum-crc64nvme").is_some());
    assert_eq!(completed.header("x-amz-checksum-type"), Some("FULL_OBJECT"));
    let sentinel = sentinel(&s3);
    let file = sentinel["files"].as_array().unwrap().iter().find(|it| it["path"] == "sub/big.bin");
    let (file, blob) = (file.unwrap(), Blob::synthetic(40 * MIB + 3, 4));
    assert_eq!(file["sha256"], blob.sha256().as_str());
    assert_eq!(file["stored"], format!("s3-crc64nvme:{:016x}", blob.crc64nvme()).as_str());
    assert_eq!(file["validator"], s3.etag("models", "m/sub/big.bin").unwrap().as_str());
}

#[test]
fn a_second_run_sends_nothing_and_an_update_sends_what_changed() {
    let (hub, s3) = (FakeHub::serving("org/tiny", big()), store(Writes::default()));
    mirror(&hub, &s3, &TINY).run().assert_success();
    s3.log().clear();
    let run = mirror(&hub, &s3, &TINY).run().assert_success();
    assert!(run.last_line().contains("nothing to do"), "{}", run.stderr);
    assert_eq!(puts(&s3), 0);
    let updated = big().with("config.json", "{\"a\": 1}").with("new.txt", "new");
    hub.move_branch("org/tiny", "main", updated.clone());
    mirror(&hub, &s3, &TINY).run().assert_success();
    assert_mirrors(&s3, &updated);
    assert_eq!(s3.count("PUT", "big.bin"), 0);
    assert_eq!((s3.count("PUT", "config.json"), s3.count("PUT", "new.txt")), (1, 1));
    assert_eq!(s3.count("DELETE", ""), 0);
}

#[test]
fn wrong_bytes_never_become_an_object() {
    let (hub, s3) = (FakeHub::serving("org/tiny", big()), store(Writes::default()));
    hub.script(Rule::on("GET", "big.bin").at("cdn").then(Fault::FlipByteAt(20_000_000)));
    let run = mirror(&hub, &s3, &TINY).run().assert_code(12);
    assert!(run.last_line().contains("`sub/big.bin`"), "{}", run.stderr);
    assert_eq!(s3.content("models", "m/sub/big.bin").map(|it| it.len()), None);
    assert_eq!(s3.unfinished_uploads(), 0, "the upload is aborted");
    assert_eq!(sentinel(&s3)["mirror"]["state"], "writing");
    // Once wrong: the wrong part is sent again, and no other.
    hub.clear_script();
    hub.script(
        Rule::on("GET", "big.bin")
            .at("cdn")
            .once()
            .when_range_starts_at(16 * MIB)
            .then(Fault::FlipByteAt(20_000_000)),
    );
    s3.log().clear();
    mirror(&hub, &s3, &TINY).run().assert_success().assert_says("fetching it again");
    assert_mirrors(&s3, &big());
    assert_eq!(s3.count("PUT", "partNumber"), 4);
}

#[test]
fn a_killed_run_goes_on_with_the_parts_that_are_there() {
    for writes in [Writes::default(), Writes { ignores_checksums: true, ..Writes::default() }] {
        let (hub, s3) = (FakeHub::serving("org/tiny", big()), store(writes));
        hub.script(
            Rule::on("GET", "big.bin")
                .at("cdn")
                .when_range_starts_at(32 * MIB)
                .then(Fault::HangBeforeHeaders(Duration::from_secs(60))),
        );
        let running = mirror(&hub, &s3, &TINY).start();
        let is_sent = || {
            let parts = s3.requests().into_iter().filter(|it| it.is_for("partNumber"));
            parts.filter(|it| it.status == 200).count() == 2
        };
        eventually("two parts are sent", is_sent);
        running.signal("-KILL");
        drop(running);
        hub.clear_script();
        s3.log().clear();
        mirror(&hub, &s3, &TINY).run().assert_success();
        assert_mirrors(&s3, &big());
        assert_eq!(s3.count("PUT", "partNumber"), 1);
        assert!(s3.log().bytes_received_for("big.bin") < 9 * MIB);
        assert_eq!(s3.unfinished_uploads(), 0);
    }
}

#[test]
fn a_store_that_loses_a_part_is_found_out() {
    for completes_without in [false, true] {
        let writes = Writes { loses_part: Some(2), completes_without, ..Writes::default() };
        let (hub, s3) = (FakeHub::serving("org/tiny", big()), store(writes));
        mirror(&hub, &s3, &TINY).run().assert_success().assert_says("fetching it again");
        assert_mirrors(&s3, &big());
    }
    // Without checksums the size tells.
    let writes = Writes {
        loses_part: Some(2),
        completes_without: true,
        ignores_checksums: true,
        ..Writes::default()
    };
    let (hub, s3) = (FakeHub::serving("org/tiny", big()), store(writes));
    mirror(&hub, &s3, &TINY).run().assert_success().assert_says("the store made an object of");
    assert_mirrors(&s3, &big());
}

#[test]
fn a_reader_gets_the_whole_or_nothing() {
    let (hub, s3, volume) =
        (FakeHub::serving("org/tiny", big()), store(Writes::default()), Volume::new());
    let stop = || {
        hub.script(
            Rule::on("GET", "big.bin")
                .at("cdn")
                .then(Fault::HangBeforeHeaders(Duration::from_secs(60))),
        );
    };
    stop();
    let running = mirror(&hub, &s3, &TINY).start();
    eventually("small files are there", || s3.content("models", "m/config.json").is_some());
    let run = fetch_s3(&s3, &volume, &["s3://models/m/"]).run().assert_code(20);
    assert!(run.last_line().contains("is being written"), "{}", run.stderr);
    assert!(!volume.family("m").exists());
    drop(running);
    hub.clear_script();
    mirror(&hub, &s3, &TINY).run().assert_success();
    fetch_s3(&s3, &volume, &["s3://models/m/"]).run().assert_success();
    volume.assert_holds("m", &big());
    // An update: who has a copy keeps it, who has none waits.
    let updated = big()
        .with("config.json", "{\"a\": 1}")
        .with_blob("sub/big.bin", Blob::synthetic(40 * MIB + 3, 5));
    hub.move_branch("org/tiny", "main", updated.clone());
    stop();
    let running = mirror(&hub, &s3, &TINY).start();
    let is_new = || s3.content("models", "m/config.json").is_some_and(|it| it.len() > 2);
    eventually("a file is replaced", is_new);
    fetch_s3(&s3, &volume, &["s3://models/m/"])
        .run()
        .assert_success()
        .assert_says("using the complete copy");
    volume.assert_holds("m", &big());
    fetch_s3(&s3, &Volume::new(), &["s3://models/m/"]).run().assert_code(20);
    drop(running);
    hub.clear_script();
    mirror(&hub, &s3, &TINY).run().assert_success();
    fetch_s3(&s3, &volume, &["s3://models/m/"]).run().assert_success();
    volume.assert_holds("m", &updated);
}

/// Who has read the old sentinel, and then asks for an object that was replaced.
#[test]
fn a_reader_that_began_before_an_update_gets_no_mixture() {
    let (hub, s3, volume) =
        (FakeHub::serving("org/tiny", big()), store(Writes::default()), Volume::new());
    mirror(&hub, &s3, &TINY).run().assert_success();
    s3.script(Rule::on("GET", "big.bin").then(Fault::HangBeforeHeaders(Duration::ZERO)));
    let mut reader = fetch_s3(&s3, &volume, &["s3://models/m/"]);
    let reader = reader.env("WEIGHTLIFT_RETRY_TIMEOUT", "5m").start();
    eventually("it reads", || s3.count("GET", "big.bin") > 0);
    let updated = big().with_blob("sub/big.bin", Blob::synthetic(40 * MIB + 3, 5));
    hub.move_branch("org/tiny", "main", updated);
    mirror(&hub, &s3, &TINY).run().assert_success();
    s3.clear_script();
    let run = reader.wait().assert_code(20);
    assert!(run.last_line().contains("changed"), "{}", run.stderr);
    assert!(!volume.family("m").exists());
}

#[test]
fn what_others_have_written_is_left_as_it_is() {
    let hub = FakeHub::serving("org/tiny", big());
    let builder =
        || FakeS3::builder().credentials(ACCESS_KEY, SECRET_KEY).writable(Writes::default());
    let s3 = builder()
        .object("models", "m/config.json", Blob::bytes("theirs"))
        .object("models", "m/notes.txt", Blob::bytes("theirs"))
        .start();
    let run = mirror(&hub, &s3, &TINY).run().assert_code(16);
    assert!(run.last_line().contains("`m/config.json`"), "{}", run.stderr);
    assert!(!run.last_line().contains("notes"), "{}", run.stderr);
    assert_eq!(puts(&s3), 0, "nothing is written");
    // The same content, proved by the store.
    let sha256 = ObjectOptions { checksum: Some(Checksum::Sha256), ..ObjectOptions::default() };
    let s3 = builder()
        .object_with("models", "m/sub/big.bin", Blob::synthetic(40 * MIB + 3, 4), sha256)
        .object("models", "m/notes.txt", Blob::bytes("theirs"))
        .start();
    mirror(&hub, &s3, &TINY).run().assert_success().assert_says("1 other object");
    assert_eq!(s3.count("PUT", "big.bin"), 0);
    assert_eq!(s3.content("models", "m/notes.txt").unwrap().to_vec(), b"theirs");
    // A sentinel that was copied there.
    let s3 = builder().object("models", &format!("m/{SENTINEL}"), Blob::bytes("{}")).start();
    mirror(&hub, &s3, &TINY).run().assert_code(16);
    assert_eq!(puts(&s3), 0);
    let s3 = builder().object("models", "m/SHA256SUMS", Blob::bytes("theirs")).start();
    let run = mirror(&hub, &s3, &TINY).run().assert_code(16);
    assert!(run.last_line().contains("`m/SHA256SUMS`"), "{}", run.stderr);
    assert_eq!(puts(&s3), 0);
}

/// An object that appears between the look and the write.
#[test]
fn an_object_that_appears_meanwhile_is_not_overwritten() {
    let (hub, s3) = (FakeHub::serving("org/tiny", big()), store(Writes::default()));
    hub.script(Rule::on("GET", "big.bin").at("cdn").then(Fault::Delay(Duration::from_secs(1))));
    let running = mirror(&hub, &s3, &TINY).start();
    eventually("it writes", || s3.content("models", "m/config.json").is_some());
    s3.overwrite("models", "m/sub/big.bin", Blob::bytes("theirs"));
    let run = running.wait().assert_code(16);
    assert!(run.last_line().contains("another program"), "{}", run.stderr);
    assert_eq!(s3.content("models", "m/sub/big.bin").unwrap().to_vec(), b"theirs");
}

#[test]
fn a_check_finds_what_has_changed() {
    let (hub, s3) = (FakeHub::serving("org/tiny", big()), store(Writes::default()));
    mirror(&hub, &s3, &TINY).run().assert_success();
    for deep in [&["s3://models/m/"][..], &["s3://models/m/", "--deep"]] {
        s3.log().clear();
        check(&s3, deep).run().assert_success();
        assert_eq!(puts(&s3), 0);
    }
    assert!(s3.log().bytes_sent_for("big.bin") > 40 * MIB);
    // The same size and the same ETag, as after damage in the store.
    let etag = s3.etag("models", "m/sub/big.bin");
    let mut bytes = big().blob("sub/big.bin").unwrap().to_vec();
    bytes[30_000_000] ^= 1;
    let options = ObjectOptions { etag, ..ObjectOptions::default() };
    s3.overwrite_with("models", "m/sub/big.bin", Blob::bytes(bytes), options);
    check(&s3, &["s3://models/m/"]).run().assert_success();
    let run = check(&s3, &["s3://models/m/", "--deep"]).run().assert_code(12);
    assert!(run.last_line().contains("`sub/big.bin` has other bytes"), "{}", run.stderr);
    for (path, blob, says) in [
        ("config.json", Some(Blob::bytes("[]")), "ETag"),
        ("config.json", Some(Blob::bytes("{ }")), "bytes"),
        ("empty.txt", None, "is not there"),
    ] {
        match blob {
            Some(blob) => s3.overwrite("models", &format!("m/{path}"), blob),
            None => s3.remove("models", &format!("m/{path}")),
        }
        let run = check(&s3, &["s3://models/m/"]).run().assert_code(12);
        assert!(run.stderr.contains(&format!("`{path}`")), "{}", run.stderr);
        assert!(run.stderr.contains(says), "{}", run.stderr);
    }
    check(&s3, &["s3://models/other/"]).run().assert_code(10);
}

#[test]
fn stores_that_know_less_are_written_to_and_that_is_said() {
    for (writes, says) in [
        (Writes { refuses_checksums: Some(501), ..Writes::default() }, "does not accept checksums"),
        (Writes { refuses_checksums: Some(400), ..Writes::default() }, "does not accept checksums"),
        (
            Writes { refuses_conditions: Some(501), ..Writes::default() },
            "support conditional writes",
        ),
        (Writes { refuses_if_match: true, ..Writes::default() }, "although it matches"),
        (Writes { ignores_conditions: true, ..Writes::default() }, ""),
        (Writes { drops_metadata: true, ..Writes::default() }, ""),
        (Writes { lists_no_uploads: true, ..Writes::default() }, ""),
    ] {
        let (hub, s3, volume) = (FakeHub::serving("org/tiny", big()), store(writes), Volume::new());
        mirror(&hub, &s3, &TINY).run().assert_success().assert_says(says);
        assert_mirrors(&s3, &big());
        mirror(&hub, &s3, &TINY).run().assert_success().assert_says("nothing to do");
        check(&s3, &["--deep", "s3://models/m/"]).run().assert_success();
        fetch_s3(&s3, &volume, &["s3://models/m/"]).run().assert_success();
        volume.assert_holds("m", &big());
    }
}

#[test]
fn without_metadata_an_interrupted_mirror_still_knows_its_objects() {
    let writes = Writes { drops_metadata: true, ..Writes::default() };
    let (hub, s3) = (FakeHub::serving("org/tiny", big()), store(writes));
    hub.script(
        Rule::on("GET", "big.bin")
            .at("cdn")
            .then(Fault::HangBeforeHeaders(Duration::from_secs(60))),
    );
    let running = mirror(&hub, &s3, &TINY).start();
    eventually("small files are there", || s3.content("models", "m/config.json").is_some());
    drop(running);
    hub.clear_script();
    mirror(&hub, &s3, &TINY).run().assert_success();
    assert_mirrors(&s3, &big());
}

#[test]
fn refusals_are_explained() {
    let hub = FakeHub::serving("org/tiny", big());
    let denied = store(Writes { denies: true, ..Writes::default() });
    let run = mirror(&hub, &denied, &TINY).run().assert_code(11);
    assert!(run.last_line().contains("`s3:PutObject` is missing"), "{}", run.stderr);
    let read_only = FakeS3::builder().bucket("models").credentials(ACCESS_KEY, SECRET_KEY).start();
    let run = mirror(&hub, &read_only, &TINY).run().assert_code(11);
    assert!(run.last_line().contains("cannot be written"), "{}", run.stderr);
    let run = mirror(&hub, &store(Writes::default()), &["hf://org/tiny", "s3://none/m/"]).run();
    let run = run.assert_code(10);
    assert!(run.last_line().contains("bucket `none` does not exist"), "{}", run.stderr);
    assert_eq!(hub.count("GET", "/resolve/"), 0, "nothing is read in vain");
}

#[test]
fn a_write_that_fails_is_tried_again() {
    let (hub, s3) = (FakeHub::serving("org/tiny", big()), store(Writes::default()));
    s3.script(Rule::on("PUT", "partNumber=2").times(2).then(Fault::status(500)));
    s3.script(Rule::on("PUT", "config.json").once().then(Fault::status(503)));
    // Done, and the answer is lost.
    s3.script(Rule::on("PUT", "empty.txt").once().then(Fault::HangBeforeHeaders(Duration::ZERO)));
    s3.script(Rule::on("POST", "uploadId").once().then(Fault::HangBeforeHeaders(Duration::ZERO)));
    s3.script(Rule::on("PUT", "SHA256SUMS").once().then(Fault::HangBeforeHeaders(Duration::ZERO)));
    s3.script(Rule::on("PUT", SENTINEL).times(2).then(Fault::HangBeforeHeaders(Duration::ZERO)));
    mirror(&hub, &s3, &TINY).run().assert_success();
    assert_mirrors(&s3, &big());
    assert_eq!(s3.faults_applied(), 8);
}

#[test]
fn two_mirrors_of_the_same_at_once_both_succeed() {
    let (hub, s3) = (FakeHub::serving("org/tiny", big()), store(Writes::default()));
    let runs: Vec<Running> = (0..3).map(|_| mirror(&hub, &s3, &TINY).start()).collect();
    let codes: Vec<i32> = runs.into_iter().map(|run| run.wait().code).collect();
    assert!(codes.contains(&0) && codes.iter().all(|code| [0, 20].contains(code)), "{codes:?}");
    mirror(&hub, &s3, &TINY).run().assert_success();
    assert_mirrors(&s3, &big());
    check(&s3, &["--deep", "s3://models/m/"]).run().assert_success();
}

#[test]
fn a_models_file_fills_one_prefix_for_each_model() {
    let hub = FakeHub::builder().repo("org/tiny", tiny()).repo("org/big", big()).start();
    let (s3, volume) = (store(Writes::default()), Volume::new());
    let file = volume.path("models.yaml");
    std::fs::write(
        &file,
        "version: 1\nmodels:\n- {name: a/tiny, source: 'hf://org/tiny'}\n\
         - {name: none, source: 'hf://org/none'}\n- {name: big, source: 'hf://org/big'}\n",
    )
    .unwrap();
    let arguments = ["--models", file.to_str().unwrap(), "s3://models/all/", "--output", "json"];
    let run = mirror(&hub, &s3, &arguments).run().assert_code(11);
    let lines: Vec<serde_json::Value> =
        run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told =
        |n: usize| (lines[n]["path"].as_str().unwrap(), lines[n]["status"].as_str().unwrap());
    assert_eq!(told(0), ("s3://models/all/a/tiny/", "mirrored"));
    assert_eq!(told(1), ("s3://models/all/none/", "failed"));
    assert_eq!(told(2), ("s3://models/all/big/", "mirrored"));
    for moved in ["sent_bytes", "fetched_bytes"] {
        assert_eq!(lines[2][moved].as_u64().unwrap(), 40 * MIB + 5, "{moved}");
    }
    fetch_s3(&s3, &volume, &["s3://models/all/a/tiny/"]).run().assert_success();
    volume.assert_holds("tiny", &tiny_selected());
    let arguments = ["--models", file.to_str().unwrap(), "--only", "big", "s3://models/all/"];
    check(&s3, &arguments).run().assert_success();
}

#[test]
fn memory_stays_small_whatever_the_size() {
    let size = 1_300 * MIB;
    let tree = Tree::new().with_blob("big.bin", Blob::synthetic(size, 7));
    let writes = Writes { keeps_no_bytes: true, ..Writes::default() };
    let (hub, s3) = (FakeHub::serving("org/tiny", tree), store(writes));
    let (run, peak) = with_peak_memory(&mut mirror(&hub, &s3, &TINY));
    run.assert_success();
    assert_eq!(s3.content("models", "m/big.bin").map(|it| it.len()), Some(size));
    assert!(peak <= 192 * MIB, "{} MiB", peak / MIB);
    eprintln!("peak: {} MiB", peak / MIB);
}

#[test]
fn a_model_that_lacks_a_shard_is_not_copied() {
    let tree = tiny().without("model-00002-of-00002.safetensors");
    let (hub, s3) = (FakeHub::serving("org/tiny", tree), store(Writes::default()));
    mirror(&hub, &s3, &TINY).run().assert_code(12);
    assert_eq!(puts(&s3), 0);
}

#[test]
fn a_run_that_is_told_to_stop_leaves_what_the_next_one_uses() {
    let (hub, s3) = (FakeHub::serving("org/tiny", big()), store(Writes::default()));
    hub.script(
        Rule::on("GET", "big.bin")
            .at("cdn")
            .when_range_starts_at(32 * MIB)
            .then(Fault::HangBeforeHeaders(Duration::from_secs(60))),
    );
    let running = mirror(&hub, &s3, &TINY).start();
    let is_sent = || s3.log().requests().iter().filter(|it| it.is_for("partNumber")).count() == 2;
    eventually("two parts are on their way", is_sent);
    std::thread::sleep(Duration::from_millis(500));
    running.signal("-TERM");
    running.wait().assert_code(143);
    assert_eq!(s3.unfinished_uploads(), 1);
    hub.clear_script();
    mirror(&hub, &s3, &TINY).run().assert_success();
    assert_mirrors(&s3, &big());
}

#[test]
fn a_source_without_ranges_or_digests_is_copied_once() {
    // Nothing but CRCs is published, which prove nothing to another run by themselves.
    let crc = || ObjectOptions { checksum: Some(Checksum::Crc32c), ..ObjectOptions::default() };
    let mut builder = FakeS3::builder().bucket("models").credentials(ACCESS_KEY, SECRET_KEY);
    for (path, blob) in big().iter() {
        builder = builder.object_with("models", &format!("from/{path}"), blob.clone(), crc());
    }
    let s3 = builder.writable(Writes::default()).start();
    s3.script(Rule::on("GET", "from/sub/big.bin").then(Fault::IgnoreRange));
    let mirror = || {
        let mut command = weightlift();
        command.args(["mirror", "s3://models/from/", "s3://models/m/"]);
        with_s3(command, &s3)
    };
    mirror().run().assert_success().assert_says("sends no ranges");
    for (path, blob) in big().iter() {
        let content = s3.content("models", &format!("m/{path}")).unwrap();
        assert!(content.to_vec() == blob.to_vec(), "{path} differs");
    }
    s3.log().clear();
    mirror().run().assert_success().assert_says("nothing to do");
    assert_eq!(puts(&s3), 0);
}

#[test]
fn parts_of_one_file_are_on_their_way_at_the_same_time() {
    let tree = Tree::new().with_blob("big.bin", Blob::synthetic(40 * MIB, 7));
    let (hub, s3) = (FakeHub::serving("org/tiny", tree), store(Writes::default()));
    let first = Rule::on("GET", "big.bin").at("cdn").when_range_starts_at(0);
    hub.script(first.then(Fault::HangBeforeHeaders(Duration::from_secs(60))));
    let running = mirror(&hub, &s3, &TINY).start();
    let starts = |at: u64| {
        let range = format!("bytes={at}-");
        hub.log()
            .requests()
            .iter()
            .any(|it| it.header("range").is_some_and(|it| it.starts_with(&range)))
    };
    eventually("the others are asked for", || starts(0) && starts(16 * MIB) && starts(32 * MIB));
    drop(running);
}
