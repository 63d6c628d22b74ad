//! `--verify-signature`: a model is published, and believed, only if the right one has signed it.

use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::support::*;
use weightlift_fakes::{Blob, FakeHub, FakeS3, Fault, Rule, Tree, Writes};

const SENTINEL: &str = ".weightlift-complete.json";
const SHARD: &str = "model-00001-of-00002.safetensors";

fn signed_file(name: &str) -> PathBuf {
    fixture("signed").join(name)
}

/// The fixture model with its signature of this name.
fn signed(name: &str) -> Tree {
    tiny().with("model.sig", std::fs::read(signed_file(name)).unwrap())
}

/// What the default selection takes of that.
fn selected(name: &str) -> Tree {
    tiny_selected().with("model.sig", std::fs::read(signed_file(name)).unwrap())
}

fn by_key(name: &str) -> String {
    format!("key={}", signed_file(name).display())
}

fn by_roots(name: &str) -> String {
    format!("certificate={}", signed_file(name).display())
}

/// A fetch of `org/tiny` at its commit, which must be signed as `policy` says.
fn fetch_signed(hub: &FakeHub, volume: &Volume, policy: &str, more: &[&str]) -> Command {
    let pinned = format!("hf://org/tiny@{}", hub.commit(REPO));
    let mut command = fetch(hub, volume, &[&pinned, "tiny", "--verify-signature", policy]);
    command.args(more).env("WEIGHTLIFT_RETRY_DELAY", "10ms");
    command
}

fn verify(volume: &Volume, policy: &str, more: &[&str]) -> Run {
    let mut command = weightlift();
    command.arg("verify").arg(volume.family("tiny")).args(["--verify-signature", policy]);
    command.args(more).run()
}

fn sentinel(volume: &Volume) -> Value {
    let json = std::fs::read(volume.family("tiny").join(SENTINEL)).unwrap();
    serde_json::from_slice(&json).unwrap()
}

fn requests_for_weights(hub: &FakeHub) -> usize {
    hub.requests().iter().filter(|it| it.target.contains("model-0000")).count()
}

#[test]
fn a_model_that_is_signed_as_asked_is_published_and_its_signer_is_recorded() {
    for (signature, policy, method) in [
        ("p256.sig", by_key("p256.pub"), "key"),
        ("p384.sig", by_key("p384.pub"), "key"),
        ("p521.sig", by_key("p521.pub"), "key"),
        ("certificate.sig", by_roots("roots.pem"), "certificate"),
        ("certificate-p384.sig", by_roots("roots.pem"), "certificate"),
    ] {
        let (hub, volume) = (FakeHub::serving(REPO, signed(signature)), Volume::new());
        let mut run = fetch_signed(&hub, &volume, &policy, &["--output", "json"]);
        let run = run.run().assert_success();
        let said = format!("`model.sig` is signed by {method} SHA256:");
        assert!(run.stderr.contains(&said), "{signature}: {}", run.stderr);
        // What the signature names and the selection leaves out is no reason to refuse.
        assert!(run.stderr.contains("3 of them not fetched"), "{signature}: {}", run.stderr);
        volume.assert_holds("tiny", &selected(signature));
        let record = sentinel(&volume)["signed"].clone();
        assert_eq!(record["method"], method);
        assert_eq!(record["file"], "model.sig");
        assert_eq!(record["by"].as_str().unwrap().len(), 64);
        let json: Value = serde_json::from_str(&run.stdout).unwrap();
        assert_eq!(json["signed"], record);
        verify(&volume, &policy, &[]).assert_success().assert_says("signed by");
        // A warm start believes the record: no request, nor a look at the signature.
        hub.log().clear();
        let run = fetch_signed(&hub, &volume, &policy, &[]).run().assert_success();
        assert!(run.last_line().contains("nothing to do"), "{}", run.stderr);
        assert_eq!(hub.requests().len(), 0);
    }
}

#[test]
fn the_fingerprint_of_a_key_is_what_sha256sum_says_of_its_file() {
    let (hub, volume) = (FakeHub::serving(REPO, signed("p384.sig")), Volume::new());
    fetch_signed(&hub, &volume, &by_key("p384.pub"), &[]).run().assert_success();
    let output = Command::new("sha256sum").arg(signed_file("p384.pub")).output().unwrap();
    let sum = String::from_utf8(output.stdout).unwrap();
    assert_eq!(sentinel(&volume)["signed"]["by"], sum.split(' ').next().unwrap());
}

/// `signature` with what `change` makes of its payload.
fn with_payload(signature: &str, change: impl Fn(String) -> String) -> Vec<u8> {
    let mut bundle: Value =
        serde_json::from_slice(&std::fs::read(signed_file(signature)).unwrap()).unwrap();
    let payload = STANDARD.decode(bundle["dsseEnvelope"]["payload"].as_str().unwrap()).unwrap();
    let payload = change(String::from_utf8(payload).unwrap());
    bundle["dsseEnvelope"]["payload"] = STANDARD.encode(payload).into();
    bundle.to_string().into_bytes()
}

/// `signature` with what `change` makes of the bundle.
fn with_bundle(signature: &str, change: impl Fn(&mut Value)) -> Vec<u8> {
    let mut bundle: Value =
        serde_json::from_slice(&std::fs::read(signed_file(signature)).unwrap()).unwrap();
    change(&mut bundle);
    bundle.to_string().into_bytes()
}

/// A name, the files of the repo, the policy, and what the last line says.
type Refused<'a> = (&'a str, Tree, String, &'a [&'a str]);

#[test]
fn a_model_that_is_not_signed_as_asked_ends_before_its_weights() {
    let key = || by_key("p256.pub");
    let config = tiny().blob("config.json").unwrap().to_vec();
    let mut changed = config.clone();
    changed[20] ^= 1;
    let weights = tiny().blob(SHARD).unwrap().to_vec();
    let mut other_weights = weights.clone();
    *other_weights.last_mut().unwrap() ^= 1;
    let other_digest = "0".repeat(64);
    let digest_of_config = tiny().blob("config.json").unwrap().sha256();
    let bundle = |bytes: Vec<u8>| tiny().with("model.sig", bytes);
    let rows: Vec<Refused<'_>> = vec![
        ("no signature", tiny(), key(), &["has no `model.sig`", "--signature-file"]),
        (
            "another key",
            signed("p256.sig"),
            by_key("p384.pub"),
            &["is signed by key SHA256:", ", not by SHA256:"],
        ),
        (
            "another key without a name",
            bundle(with_bundle("p256.sig", |it| {
                it["verificationMaterial"]["publicKey"] = serde_json::json!({})
            })),
            by_key("p384.pub"),
            &["does not match its content under key SHA256:"],
        ),
        (
            "the name of our key, and another signature",
            bundle(with_bundle("p256.sig", |it| {
                let other: Value =
                    serde_json::from_slice(&std::fs::read(signed_file("p384.sig")).unwrap())
                        .unwrap();
                it["dsseEnvelope"]["signatures"] = other["dsseEnvelope"]["signatures"].clone();
            })),
            key(),
            &["does not match its content"],
        ),
        (
            "a payload that was changed",
            bundle(with_payload("p256.sig", |it| it.replace(&digest_of_config, &other_digest))),
            key(),
            &["does not match its content under key"],
        ),
        (
            "a payload that was changed, by certificate",
            bundle(with_payload("certificate.sig", |it| {
                it.replace(&digest_of_config, &other_digest)
            })),
            by_roots("roots.pem"),
            &["does not match its content under its certificate"],
        ),
        (
            "a small file that was changed",
            signed("p256.sig").with("config.json", changed),
            key(),
            &["says that `config.json` has SHA-256 ", "do not use this copy"],
        ),
        (
            "weights that were changed",
            signed("p256.sig").with(SHARD, other_weights),
            key(),
            &["says that `model-00001-of-00002.safetensors` has SHA-256 "],
        ),
        (
            "a file that nobody has signed",
            signed("p256.sig").with("modeling_tiny.py", "import os"),
            key(),
            &["does not name `modeling_tiny.py`", "--ignore-unsigned 'modeling_tiny.py'"],
        ),
        (
            "a signed file that is gone",
            signed("p256.sig").without("tokenizer.json"),
            key(),
            &["names `tokenizer.json`, which the source does not have"],
        ),
        (
            "shards",
            signed("shards.sig"),
            key(),
            &["signs `shards` in place of whole files", "is not supported"],
        ),
        (
            "another hash",
            signed("blake3.sig"),
            key(),
            &["digests of kind `blake3`", "is not supported"],
        ),
        ("no JSON", bundle(b"-----BEGIN".to_vec()), key(), &["is no Sigstore bundle"]),
        ("nothing", bundle(Vec::new()), key(), &["is no Sigstore bundle"]),
        (
            "another bundle",
            bundle(with_bundle("p256.sig", |it| it["mediaType"] = "application/x".into())),
            key(),
            &["is a bundle of type `application/x`"],
        ),
        (
            "another payload",
            bundle(with_bundle("p256.sig", |it| {
                it["dsseEnvelope"]["payloadType"] = "text/plain".into()
            })),
            key(),
            &["has a payload of type `text/plain`"],
        ),
        (
            "two signatures",
            bundle(with_bundle("p256.sig", |it| {
                let one = it["dsseEnvelope"]["signatures"][0].clone();
                it["dsseEnvelope"]["signatures"].as_array_mut().unwrap().push(one);
            })),
            key(),
            &["it must have one signature"],
        ),
        (
            "a keyless signature",
            bundle(with_bundle("p256.sig", |it| {
                it["verificationMaterial"] =
                    serde_json::json!({"certificate": {"rawBytes": "AA=="}});
            })),
            key(),
            &["keyless, by Sigstore", "not supported"],
        ),
        (
            "a certificate in place of a key",
            signed("certificate.sig"),
            key(),
            &["was made with a certificate, not with a key"],
        ),
        (
            "a key in place of a certificate",
            signed("p256.sig"),
            by_roots("roots.pem"),
            &["was made with a key, not with a certificate"],
        ),
        (
            "another root of the same name",
            signed("certificate.sig"),
            by_roots("other-roots.pem"),
            &["no given root vouches for"],
        ),
        (
            "a certificate older than its root",
            signed("certificate-before-root.sig"),
            by_roots("roots.pem"),
            &["no given root vouches for"],
        ),
        (
            "a certificate for servers",
            signed("certificate-server.sig"),
            by_roots("roots.pem"),
            &["no given root vouches for"],
        ),
        (
            "a certificate for nothing",
            signed("certificate-no-use.sig"),
            by_roots("roots.pem"),
            &["is not for signatures"],
        ),
        (
            "a chain without what is between",
            bundle(with_bundle("certificate.sig", |it| {
                let chain = &mut it["verificationMaterial"]["x509CertificateChain"]["certificates"];
                chain.as_array_mut().unwrap().truncate(1);
            })),
            by_roots("roots.pem"),
            &["no given root vouches for"],
        ),
        (
            "an empty chain",
            bundle(with_bundle("certificate.sig", |it| {
                it["verificationMaterial"]["x509CertificateChain"]["certificates"] =
                    serde_json::json!([]);
            })),
            by_roots("roots.pem"),
            &["cannot be read"],
        ),
        (
            "a signature of a gigabyte",
            tiny().with_blob("model.sig", Blob::synthetic(1 << 30, 7)),
            key(),
            &["has 1.1 GB, more than the "],
        ),
    ];
    for (name, tree, policy, words) in rows {
        // Files above a kilobyte have a published SHA-256, as weights have at the Hub.
        let hub = FakeHub::builder().repo(REPO, tree).lfs_threshold(100_000).start();
        let volume = Volume::new();
        let run = fetch_signed(&hub, &volume, &policy, &[]).run();
        assert_eq!(run.code, 12, "{name}: {}", run.stderr);
        for word in words {
            assert!(run.last_line().contains(word), "{name}: `{word}` is not in {}", run.stderr);
        }
        assert!(!volume.family("tiny").exists(), "{name}: published");
        volume.assert_clean();
        assert_eq!(requests_for_weights(&hub), 0, "{name}");
    }
}

#[test]
fn what_only_the_bytes_tell_is_found_before_publication() {
    // A bucket publishes no SHA-256 of anything.
    let mut weights = tiny().blob(SHARD).unwrap().to_vec();
    *weights.last_mut().unwrap() ^= 1;
    for (tree, code) in [(signed("p256.sig"), 0), (signed("p256.sig").with(SHARD, weights), 12)] {
        let builder = FakeS3::builder().bucket("models").credentials(ACCESS_KEY, SECRET_KEY);
        let object = |all: weightlift_fakes::FakeS3Builder, (path, blob): (&str, &Blob)| {
            all.object("models", &format!("m/{path}"), blob.clone())
        };
        let (s3, volume) = (tree.iter().fold(builder, object).start(), Volume::new());
        let policy = by_key("p256.pub");
        let arguments = ["s3://models/m/", "tiny", "--verify-signature", &policy];
        let run = fetch_s3(&s3, &volume, &arguments).run().assert_code(code);
        if code == 0 {
            volume.assert_holds("tiny", &selected("p256.sig"));
            continue;
        }
        assert!(
            run.last_line().contains(&format!("says that `{SHARD}` has SHA-256")),
            "{}",
            run.stderr
        );
        assert!(!volume.family("tiny").exists());
        volume.assert_clean();
    }
}

/// A file above 32 MiB is compared with the signature when all is there, whichever run has fetched it.
#[test]
fn a_large_file_that_nobody_has_signed_so_is_not_published_by_a_run_that_resumes_either() {
    const SIZE: u64 = 48 << 20;
    let tree = signed("p256.sig").with_blob("tokenizer.json", Blob::synthetic(SIZE, 5));
    let builder = FakeS3::builder().bucket("models").credentials(ACCESS_KEY, SECRET_KEY);
    let object = |all: weightlift_fakes::FakeS3Builder, (path, blob): (&str, &Blob)| {
        all.object("models", &format!("m/{path}"), blob.clone())
    };
    let (s3, volume) = (tree.iter().fold(builder, object).start(), Volume::new());
    let policy = by_key("p256.pub");
    let arguments = ["s3://models/m/", "tiny", "--verify-signature", &policy];
    let drip = Fault::Drip { bytes_per_second: 16 << 20 };
    s3.script(Rule::on("GET", "tokenizer.json").then(drip));
    let running = fetch_s3(&s3, &volume, &arguments).args(["--connections=1"]).start();
    // A line is a checksum and a record.
    let kept = |journal: &str| -> u64 {
        let records = journal.lines().filter_map(|line| serde_json::from_str(line.get(9..)?).ok());
        let chunks = records.filter(|record: &Value| record["is"] == "chunk");
        chunks.map(|it| it["end"].as_u64().unwrap() - it["start"].as_u64().unwrap()).sum()
    };
    let journals = || {
        let all = volume.attempts().into_iter().map(|attempt| attempt.join("journal"));
        all.filter_map(|path| std::fs::read_to_string(path).ok()).collect::<String>()
    };
    eventually("a part of the large file is kept", || kept(&journals()) > 12 << 20);
    running.signal("-KILL");
    assert_eq!(running.wait().code, -1);
    assert!(!volume.family("tiny").exists());
    s3.clear_script();
    let before = s3.bytes_sent_for("tokenizer.json");
    let run = fetch_s3(&s3, &volume, &arguments).run().assert_code(12);
    let said = "says that `tokenizer.json` has SHA-256";
    assert!(run.last_line().contains(said), "{}", run.stderr);
    assert!(run.stderr.contains("are here already"), "{}", run.stderr);
    assert!(s3.bytes_sent_for("tokenizer.json") - before < SIZE, "it was fetched again");
    assert!(!volume.family("tiny").exists());
    // What was resumed is kept for another run, which finds the same.
    fetch_s3(&s3, &volume, &arguments).run().assert_code(12).assert_says(said);
    assert!(!volume.family("tiny").exists());
}

#[test]
fn files_that_the_user_ignores_need_no_signature() {
    let tree = signed("p256.sig").with("extra/notes.md", "later").with("more.txt", "later");
    let (hub, volume) = (FakeHub::serving(REPO, tree), Volume::new());
    let policy = by_key("p256.pub");
    let run = fetch_signed(&hub, &volume, &policy, &["--ignore-unsigned", "*.md"]).run();
    let run = run.assert_code(12).assert_says("does not name `more.txt`;");
    assert!(!run.stderr.contains("notes.md"), "{}", run.stderr);
    fetch_signed(&hub, &volume, &policy, &["--ignore-unsigned", "*.md,more.*"])
        .run()
        .assert_success();
    // Whoever ignores less does not go by what was verified by more.
    let run = fetch_signed(&hub, &volume, &policy, &["--ignore-unsigned", "*.md"]).run();
    run.assert_code(12).assert_says("does not name `more.txt`");
    verify(&volume, &policy, &[]).assert_code(12);
    verify(&volume, &policy, &["--ignore-unsigned", "*"]).assert_success();
    // What is ignored and signed all the same must be right.
    let tree = signed("p256.sig").with("README.md", "another");
    let (hub, volume) = (FakeHub::serving(REPO, tree), Volume::new());
    let run = fetch_signed(&hub, &volume, &policy, &["--ignore-unsigned", "*"]).run();
    run.assert_code(12).assert_says("says that `README.md` has SHA-256");
}

#[test]
fn a_signature_comes_with_every_selection_and_may_have_another_name() {
    let bytes = std::fs::read(signed_file("p256.sig")).unwrap();
    let (hub, volume) = (FakeHub::serving(REPO, tiny().with("sub/ours.sig", bytes)), Volume::new());
    let policy = by_key("p256.pub");
    let more = ["--signature-file", "sub/ours.sig", "--include", "*.safetensors"];
    let run = fetch_signed(&hub, &volume, &policy, &more).run().assert_success();
    assert!(volume.family("tiny/sub/ours.sig").is_file(), "{}", run.stderr);
    assert!(!volume.family("tiny/config.json").exists());
    hub.log().clear();
    fetch_signed(&hub, &volume, &policy, &more).run().assert_success();
    assert_eq!(hub.requests().len(), 0);
    verify(&volume, &policy, &more[..2]).assert_success();
    verify(&volume, &policy, &[]).assert_code(12).assert_says("is missing, so nothing says who");
}

#[test]
fn a_copy_that_nobody_verified_is_verified_from_the_volume() {
    let (hub, volume) = (FakeHub::serving(REPO, signed("p256.sig")), Volume::new());
    let pinned = format!("hf://org/tiny@{}", hub.commit(REPO));
    fetch(&hub, &volume, &[&pinned, "tiny"]).run().assert_success();
    assert_eq!(sentinel(&volume)["signed"], Value::Null);
    let policy = by_key("p256.pub");
    hub.log().clear();
    let run = fetch_signed(&hub, &volume, &policy, &[]).run().assert_success();
    assert!(run.last_line().contains("nothing to do"), "{}", run.stderr);
    assert!(run.last_line().contains("signed by key SHA256:"), "{}", run.stderr);
    let run = fetch_signed(&hub, &volume, &policy, &[]).env("HF_HUB_OFFLINE", "1").run();
    run.assert_success();
    let run = fetch_signed(&hub, &volume, &policy, &["--dry-run"]).run().assert_success();
    assert!(run.stdout.contains(": present, "), "{}", run.stdout);
    assert_eq!(hub.requests().len(), 0, "the digests are in the sentinel");
    // By another key it is no copy, and stays as it is.
    let other = by_key("p384.pub");
    let run = fetch_signed(&hub, &volume, &other, &[]).run().assert_code(12);
    run.assert_says("the copy that lies here does not count").assert_says("not by SHA256:");
    let run = fetch_signed(&hub, &volume, &other, &["--dry-run"]).run();
    run.assert_code(12).assert_says("not by SHA256:");
    let run = fetch_signed(&hub, &volume, &other, &[]).env("HF_HUB_OFFLINE", "1").run();
    run.assert_code(10).assert_says("signed as asked");
    volume.assert_holds("tiny", &selected("p256.sig"));
}

#[test]
fn a_copy_without_its_signature_gets_it_and_nothing_else_is_fetched() {
    let (hub, volume) = (FakeHub::serving(REPO, signed("p256.sig")), Volume::new());
    let pinned = format!("hf://org/tiny@{}", hub.commit(REPO));
    let exclude = ["--exclude", "*.sig"];
    fetch(&hub, &volume, &[&[pinned.as_str(), "tiny"][..], &exclude].concat())
        .run()
        .assert_success();
    volume.assert_holds("tiny", &tiny_selected());
    hub.log().clear();
    let policy = by_key("p256.pub");
    fetch_signed(&hub, &volume, &policy, &exclude).run().assert_success();
    volume.assert_holds("tiny", &selected("p256.sig"));
    assert_eq!(requests_for_weights(&hub), 0);
    assert_eq!(sentinel(&volume)["signed"]["method"], "key");
    hub.log().clear();
    fetch_signed(&hub, &volume, &policy, &exclude).run().assert_success();
    assert_eq!(hub.requests().len(), 0);
}

#[test]
fn a_branch_that_moves_to_what_is_not_signed_leaves_the_signed_copy_in_use() {
    let (hub, volume) = (FakeHub::serving(REPO, signed("p256.sig")), Volume::new());
    let policy = by_key("p256.pub");
    let arguments = ["hf://org/tiny", "tiny", "--verify-signature", &policy];
    fetch(&hub, &volume, &arguments).run().assert_success();
    hub.move_branch(REPO, "main", signed("p256.sig").with("evil.py", "import os"));
    let run = fetch(&hub, &volume, &arguments).run().assert_success();
    assert!(run.last_line().contains("complete but stale"), "{}", run.stderr);
    assert!(run.last_line().contains("does not name `evil.py`"), "{}", run.stderr);
    let strict = [&arguments[..], &["--if-stale", "fail"]].concat();
    fetch(&hub, &volume, &strict).run().assert_code(12);
    volume.assert_holds("tiny", &selected("p256.sig"));
    // A copy that is not signed as asked is not used in its place.
    let volume = Volume::new();
    fetch(&hub, &volume, &arguments[..2]).run().assert_success();
    fetch(&hub, &volume, &arguments).run().assert_code(12).assert_says("does not name `evil.py`");
}

#[test]
fn a_forged_sentinel_is_found_by_the_signature_alone() {
    let (hub, volume) = (FakeHub::serving(REPO, signed("p256.sig")), Volume::new());
    let policy = by_key("p256.pub");
    fetch_signed(&hub, &volume, &policy, &[]).run().assert_success();
    let family = volume.family("tiny");
    let forged = std::fs::read_to_string(family.join("config.json")).unwrap().replace("64", "63");
    std::fs::write(family.join("config.json"), &forged).unwrap();
    verify(&volume, &policy, &[]).assert_code(12).assert_says("config.json");
    let old = tiny().blob("config.json").unwrap().sha256();
    let json = std::fs::read_to_string(family.join(SENTINEL)).unwrap();
    let json = json.replace(&old, &Blob::bytes(forged).sha256());
    std::fs::write(family.join(SENTINEL), json).unwrap();
    weightlift().arg("verify").arg(&family).run().assert_success();
    let run = verify(&volume, &policy, &[]).assert_code(12);
    run.assert_says("says that `config.json` has SHA-256");
}

#[test]
fn verify_finds_what_lies_beside_the_signed_files() {
    let (hub, volume) = (FakeHub::serving(REPO, signed("p256.sig")), Volume::new());
    let policy = by_key("p256.pub");
    fetch_signed(&hub, &volume, &policy, &[]).run().assert_success();
    std::fs::write(volume.family("tiny/evil.py"), "import os").unwrap();
    weightlift().arg("verify").arg(volume.family("tiny")).run().assert_success();
    verify(&volume, &policy, &[]).assert_code(12).assert_says("`evil.py` lies in");
    verify(&volume, &policy, &["--ignore-unsigned", "evil.py"]).assert_success();
    verify(&volume, &by_key("p521.pub"), &[]).assert_code(12).assert_says("not by SHA256:");
}

#[test]
fn a_failed_run_is_continued_under_the_same_policy() {
    let (hub, volume) = (FakeHub::serving(REPO, signed("p256.sig")), Volume::new());
    let policy = by_key("p256.pub");
    hub.script(Rule::on("GET", SHARD).then(Fault::status(503)));
    let mut command = fetch_signed(&hub, &volume, &policy, &[]);
    command.env("WEIGHTLIFT_RETRY_TIMEOUT", "1s").run().assert_code(20);
    hub.clear_script();
    hub.log().clear();
    fetch_signed(&hub, &volume, &policy, &[]).run().assert_success();
    assert_eq!(hub.bytes_sent_for("model-00002-of-00002"), 0, "it had come before");
    volume.assert_holds("tiny", &selected("p256.sig"));
    assert_eq!(sentinel(&volume)["signed"]["method"], "key");
    volume.assert_clean();
}

#[test]
fn a_mirror_and_a_cache_carry_the_signature() {
    let hub = FakeHub::serving(REPO, signed("p256.sig"));
    let builder = FakeS3::builder().bucket("models").credentials(ACCESS_KEY, SECRET_KEY);
    let s3 = builder.writable(Writes::default()).start();
    let with_s3 = |command: &mut Command| {
        command.args(["--s3-path-style", "--s3-endpoint", &s3.url()]);
        command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
        command.env("AWS_REGION", "us-east-1").env("HF_ENDPOINT", hub.url());
    };
    let mut mirror = weightlift();
    mirror.args(["mirror", "hf://org/tiny", "s3://models/m/"]);
    with_s3(&mut mirror);
    mirror.run().assert_success();
    // The bucket lacks what its selection has left out, and the signature names that as well.
    let policy = by_key("p256.pub");
    let arguments = ["s3://models/m/", "tiny", "--verify-signature", &policy];
    let volume = Volume::new();
    fetch_s3(&s3, &volume, &arguments).run().assert_success().assert_says("3 of them not fetched");
    volume.assert_holds("tiny", &selected("p256.sig"));
    verify(&volume, &policy, &[]).assert_success();
    let run = fetch_s3(&s3, &Volume::new(), &[&arguments[..], &["--all"]].concat()).run();
    run.assert_code(12).assert_says("which the source does not have");
    // In a cache of the Hub's clients.
    let volume = Volume::new();
    let in_cache = |policy: &str| {
        let layout = ["hf://org/tiny", "--layout", "hf-cache", "--verify-signature", policy];
        fetch(&hub, &volume, &layout).run()
    };
    let run = in_cache(&policy).assert_success();
    let snapshot = run.stdout.trim();
    assert!(Path::new(snapshot).join("model.sig").exists(), "{snapshot}");
    in_cache(&policy).assert_success().assert_says("nothing to do");
    let mut command = weightlift();
    command.args(["verify", snapshot, "--verify-signature", &policy]).run().assert_success();
    in_cache(&by_key("p384.pub")).assert_code(12);
}

#[test]
fn keys_that_cannot_be_used_are_told_before_anything_is_asked() {
    let (hub, volume) = (FakeHub::serving(REPO, signed("p256.sig")), Volume::new());
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        format!("key={}", path.display())
    };
    let read = |name: &str| std::fs::read_to_string(signed_file(name)).unwrap();
    let pem =
        |name: &str, body: &str| format!("-----BEGIN {name}-----\n{body}\n-----END {name}-----\n");
    // Ed25519
    let other = "MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=";
    for (policy, words) in [
        ("/k.pub".to_owned(), "write key=FILE or certificate=FILE"),
        ("key=/nonexistent/k.pub".to_owned(), "`/nonexistent/k.pub`, by whose key"),
        ("sigstore=me@example.com".to_owned(), "keyless signatures (sigstore) are not supported"),
        (file("empty", ""), "holds no public key"),
        (file("private", &pem("PRIVATE KEY", "AAAA")), "holds a private key"),
        (file("ed25519", &pem("PUBLIC KEY", other)), "none of ECDSA with P-256, P-384 or P-521"),
        (file("roots", &read("roots.pem")), "holds no public key"),
        (format!("certificate={}", signed_file("p256.pub").display()), "holds no certificate"),
    ] {
        let run = fetch_signed(&hub, &volume, &policy, &[]).run().assert_code(2);
        assert!(run.stderr.contains(words), "{policy}: {}", run.stderr);
    }
    let pinned = format!("hf://org/tiny@{}", hub.commit(REPO));
    for flag in [["--signature-file", "a.sig"], ["--ignore-unsigned", "*"]] {
        let run = fetch(&hub, &volume, &[&[pinned.as_str()][..], &flag].concat()).run();
        run.assert_code(2).assert_says("give --verify-signature as well");
    }
    assert_eq!(hub.requests().len(), 0);
    // One file may hold several keys, as while one replaces the other; and a key need not be in a file.
    let both = file("both", &(read("p384.pub") + &read("p256.pub")));
    fetch_signed(&hub, &volume, &both, &[]).run().assert_success();
    let text = format!("key={}", read("p256.pub"));
    fetch_signed(&hub, &volume, &text, &[]).run().assert_success();
}

/// A Python that has the reference implementation, if there is one.
fn model_signing() -> Option<Command> {
    let python = std::env::var_os("WEIGHTLIFT_TEST_PYTHON").unwrap_or("python3".into());
    let has = Command::new(&python).args(["-c", "import model_signing"]).output();
    if !has.is_ok_and(|run| run.status.success()) {
        skip("no Python with model-signing; see tests/real");
        return None;
    }
    let mut command = Command::new(python);
    command.args(["-m", "model_signing"]);
    Some(command)
}

#[track_caller]
fn runs(mut command: Command) {
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn what_model_signing_signs_is_accepted_and_what_is_published_is_accepted_by_it() {
    if !has("openssl") || model_signing().is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    for curve in ["prime256v1", "secp384r1", "secp521r1"] {
        let model = dir.path().join("model");
        let _ = std::fs::remove_dir_all(&model);
        for (path, blob) in tiny().with("é/ü \"x\".txt", "names").with("logs/a", "log").iter() {
            let path = model.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, blob.to_vec()).unwrap();
        }
        let mut key = Command::new("openssl");
        key.args(["ecparam", "-name", curve, "-genkey", "-noout", "-out", &at("key")]);
        runs(key);
        let mut public = Command::new("openssl");
        public.args(["ec", "-in", &at("key"), "-pubout", "-out", &at("key.pub")]);
        runs(public);
        let mut sign = model_signing().unwrap();
        sign.args([
            "sign",
            "key",
            "--private_key",
            &at("key"),
            "--ignore-paths",
            &at("model/logs"),
        ]);
        sign.args(["--signature", &at("model/model.sig"), &at("model")]);
        runs(sign);
        let (hub, volume) =
            (FakeHub::serving(REPO, Tree::from_dir(&model).unwrap()), Volume::new());
        let policy = format!("key={}", at("key.pub"));
        // All of it: the reference knows no selection.
        fetch_signed(&hub, &volume, &policy, &["--all"]).run().assert_success();
        verify(&volume, &policy, &[]).assert_success();
        let family = volume.family("tiny").canonicalize().unwrap();
        let mut verify = model_signing().unwrap();
        verify.args(["verify", "key", "--public_key", &at("key.pub")]);
        verify.arg("--signature").arg(family.join("model.sig"));
        verify.arg("--ignore-paths").arg(family.join(SENTINEL)).arg(&family);
        runs(verify);
    }
}

#[test]
fn a_models_file_says_who_must_have_signed_and_the_lock_file_keeps_it() {
    let (hub, volume) = (FakeHub::serving(REPO, signed("p256.sig")), Volume::new());
    let dir = tempfile::tempdir().unwrap();
    let run = |command: &str, models: &str, arguments: &[&str]| {
        std::fs::write(dir.path().join("models.yaml"), models).unwrap();
        let mut weightlift = weightlift();
        weightlift.arg(command).args(arguments).current_dir(dir.path());
        weightlift.env("HF_ENDPOINT", hub.url()).env("WEIGHTLIFT_RETRY_TIMEOUT", "20s").run()
    };
    let file = |key: &str| signed_file(key).display().to_string();
    let yaml = |of_model: &str, of_all: &str| {
        format!("version: 1\n{of_all}models:\n- name: tiny\n  source: hf://org/tiny\n{of_model}")
    };
    let of_model = |key: &str| format!("  signed_by: {{key: {}}}\n", file(key));
    let of_all = |key: &str| format!("defaults:\n  signed_by: {{key: {}}}\n", file(key));
    let root = volume.root().display().to_string();
    let from_models = ["--root", &root, "--models", "models.yaml"];
    let wrong = yaml(&of_model("p384.pub"), &of_all("p256.pub"));
    run("fetch", &wrong, &from_models).assert_code(12).assert_says("not by SHA256:");
    assert!(!volume.family("tiny").exists());
    let right = yaml(&of_model("p256.pub"), &of_all("p384.pub"));
    run("fetch", &right, &from_models).assert_success().assert_says("signed by key SHA256:");
    // What the file says comes before the flag, which is for models of which it says nothing.
    let other = by_key("p384.pub");
    let with_flag = [&from_models[..], &["--verify-signature", &other]].concat();
    run("fetch", &right, &with_flag).assert_success();
    run("fetch", &yaml("", ""), &with_flag).assert_code(12);
    // A pin of what is not signed as asked is none, and a pin keeps who must have signed.
    let pin = ["--models", "models.yaml"];
    run("pin", &wrong, &pin).assert_code(12).assert_says("not by SHA256:");
    assert!(!dir.path().join("models.lock").exists());
    run("pin", &right, &pin).assert_success();
    let lock = std::fs::read_to_string(dir.path().join("models.lock")).unwrap();
    assert!(
        lock.contains(&format!("\"signed_by\": {{\"key\":\"{}\"}}", file("p256.pub"))),
        "{lock}"
    );
    run("pin", &right, &["--models", "models.yaml", "--check"]).assert_success();
    let run_check = run("pin", &wrong, &["--models", "models.yaml", "--check"]).assert_code(16);
    assert!(
        run_check.stdout.contains("`signed_by` names another signature"),
        "{}",
        run_check.stdout
    );
    let (locked, fresh) = (["--locked", "models.lock", "--root"], Volume::new());
    let fresh_root = fresh.root().display().to_string();
    let from_lock = [&locked[..], &[&fresh_root]].concat();
    run("fetch", &right, &from_lock).assert_success().assert_says("signed by key SHA256:");
    fresh.assert_holds("tiny", &selected("p256.sig"));
    // Another key in the lock file: what lies there does not count any more.
    let forged = lock.replace("p256.pub", "p521.pub");
    std::fs::write(dir.path().join("models.lock"), forged).unwrap();
    run("fetch", &right, &from_lock).assert_code(12).assert_says("not by SHA256:");
}
