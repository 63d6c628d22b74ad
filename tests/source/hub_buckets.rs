//! Storage Buckets of the Hub, by their S3 gateway (`https://s3.hf.co/NAMESPACE`), with all its ways at once: the
//! namespace is in the endpoint, objects have no checksums, `If-Match` of a GET is not looked at, and a GET is
//! sent on to a CDN unless an SDK of AWS asks.

use std::process::Command;

use crate::support::*;
use weightlift_fakes::{
    Blob, FakeS3, FakeS3Builder, Fault, Habits, ObjectOptions, Rule, Tree, Writes,
};

const MIB: u64 = 1 << 20;
const SESSION: &str = "sessionCANARY";

fn model() -> Tree {
    Tree::new()
        .with("config.json", "{\"a\": 1}")
        .with("sub/we ird+é.json", "odd")
        .with_blob("big.bin", Blob::synthetic(3 * MIB + 5, 9))
}

fn sums(tree: &Tree) -> Blob {
    let line = |(path, blob): (&str, &Blob)| format!("{}  {path}\n", blob.sha256());
    Blob::bytes(tree.iter().map(line).collect::<String>())
}

fn put(builder: FakeS3Builder, tree: &Tree) -> FakeS3Builder {
    tree.iter().fold(builder, |builder, (path, blob)| {
        let options = ObjectOptions::default();
        builder.object_with("models", &format!("llama/{path}"), blob.clone(), options)
    })
}

/// What the gateway sends reads on to.
fn cdn(tree: &Tree) -> FakeS3 {
    let cdn = put(FakeS3::builder().below("/acme").bucket("models"), tree).start();
    cdn.script(Rule::on("GET", "").then(etag_of_its_own()));
    cdn
}

fn etag_of_its_own() -> Fault {
    Fault::add_headers(&[("ETag", "\"of the cdn\"")])
}

fn gateway(tree: &Tree, cdn: &FakeS3) -> FakeS3 {
    let builder = FakeS3::builder().below("/acme").credentials(ACCESS_KEY, SECRET_KEY);
    let habits = Habits {
        sends_on: Some((302, cdn.url())),
        serves_sdks: true,
        ignores_if_match: true,
        ..Habits::default()
    };
    put(builder.bucket("models").session_token(SESSION).habits(habits), tree).start()
}

fn with_bucket(mut command: Command, gateway: &FakeS3) -> Command {
    command.args(["--s3-path-style", "--s3-endpoint", &format!("{}/acme", gateway.url())]);
    command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
    command.env("AWS_SESSION_TOKEN", SESSION).env("AWS_REGION", "us-east-1");
    command.env("WEIGHTLIFT_RETRY_TIMEOUT", "2s").env("WEIGHTLIFT_RETRY_DELAY", "25ms");
    command
}

fn fetch(gateway: &FakeS3, volume: &Volume) -> Run {
    let mut command = weightlift();
    command.args(["fetch", "s3://models/llama/", "m", "--chunk-size", "1MiB", "--root"]);
    command.arg(volume.root());
    with_bucket(command, gateway).run()
}

/// No credentials at the CDN, none in what is said, and no question that the gateway does not know.
fn assert_discreet(gateway: &FakeS3, cdn: &FakeS3, run: &Run) {
    assert!(!run.stderr.contains(SESSION) && !run.stdout.contains(SESSION), "{}", run.stderr);
    assert!(cdn.count("GET", "big.bin") >= 4, "{}", run.stderr);
    for request in cdn.requests() {
        let shown = format!("{request:?}").to_lowercase();
        for secret in [ACCESS_KEY, SECRET_KEY, SESSION, "authorization", "x-amz-", "signature"] {
            assert!(!shown.contains(&secret.to_lowercase()), "{shown}");
        }
    }
    for request in gateway.requests().iter().filter(|it| it.target.contains("prefix=")) {
        assert!(request.target.contains("list-type=2"), "{request:?}");
    }
}

#[test]
fn a_storage_bucket_is_fetched_from_its_cdn_without_credentials_there() {
    let (cdn, volume) = (cdn(&model()), Volume::new());
    let gateway = gateway(&model(), &cdn);
    let run = fetch(&gateway, &volume).assert_success();
    volume.assert_holds("m", &model());
    assert_discreet(&gateway, &cdn, &run);
    // Warm by one listing.
    cdn.log().clear();
    fetch(&gateway, &volume).assert_success().assert_says("nothing to do");
    assert_eq!(cdn.requests().len(), 0);
}

#[test]
fn wrong_bytes_of_a_storage_bucket_are_seen_where_a_list_lies_beside_them() {
    let tree = model().with_blob("SHA256SUMS", sums(&model()));
    for (wrong_reads, code) in [(1, 0), (usize::MAX, 12)] {
        let (cdn, volume) = (cdn(&tree), Volume::new());
        let gateway = gateway(&tree, &cdn);
        let flipped = Fault::FlipByteAt(MIB + 5);
        let rule = Rule::on("GET", "big.bin").when_range_starts_at(MIB).times(wrong_reads);
        cdn.clear_script();
        cdn.script(rule.then(flipped).then(etag_of_its_own()));
        cdn.script(Rule::on("GET", "").then(etag_of_its_own()));
        let run = fetch(&gateway, &volume).assert_code(code).assert_says("fetching it again");
        assert_discreet(&gateway, &cdn, &run);
        match code {
            0 => volume.assert_holds("m", &tree),
            _ => assert!(!volume.family("m").exists(), "{}", run.stderr),
        }
    }
}

#[test]
fn a_storage_bucket_that_mirror_has_filled_is_fetched_by_its_sentinel() {
    // It keeps neither checksums nor metadata of what it is sent.
    let writes = Writes { ignores_checksums: true, drops_metadata: true, ..Writes::default() };
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    let filled = FakeS3::builder().below("/acme").bucket("models").writable(writes);
    let filled = filled.credentials(ACCESS_KEY, SECRET_KEY).session_token(SESSION).start();
    let mut mirror = weightlift();
    mirror.args(["mirror", "hf://org/tiny", "s3://models/llama/"]).env("HF_ENDPOINT", hub.url());
    with_bucket(mirror, &filled).run().assert_success();
    // What lies there now, as the gateway and its CDN show it.
    let mut tree = Tree::new();
    for key in filled.keys("models") {
        let blob = filled.content("models", &key).unwrap();
        tree = tree.with_blob(key.strip_prefix("llama/").unwrap(), blob);
    }
    let cdn = cdn(&tree);
    let gateway = gateway(&tree, &cdn);
    let run = fetch(&gateway, &volume).assert_success();
    volume.assert_holds("m", &tiny_selected());
    let told = std::fs::read(volume.family("m").join(".weightlift-complete.json")).unwrap();
    let told: serde_json::Value = serde_json::from_slice(&told).unwrap();
    for file in told["files"].as_array().unwrap() {
        assert_eq!(file["verified_by"], "sha256", "{}", run.stderr);
    }
}
