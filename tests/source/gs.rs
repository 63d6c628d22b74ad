//! The main job against Google Cloud Storage.

use crate::support::*;
use weightlift_fakes::{
    Blob, CloudObject, FakeGcs, FakeGcsBuilder, Fault, Response, Rule, Server, Tree,
};

fn serving(prefix: &str, tree: &Tree) -> FakeGcsBuilder {
    let put = |builder: FakeGcsBuilder, (path, blob): (&str, &Blob)| {
        builder.object("models", &format!("{prefix}{path}"), blob.clone())
    };
    tree.iter().fold(FakeGcs::builder().bucket("models"), put)
}

fn big() -> Tree {
    Tree::new().with("config.json", "{}").with_blob("big.bin", Blob::synthetic((5 << 20) + 3, 4))
}

/// From a public bucket.
fn fetch(gcs: &FakeGcs, volume: &Volume, arguments: &[&str]) -> std::process::Command {
    fetch_gs(gcs, None, volume, arguments)
}

fn sentinel(volume: &Volume, family: &str) -> String {
    let path = volume.family(family).join(".weightlift-complete.json");
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn a_prefix_is_published_whole_and_a_warm_start_asks_for_the_listing_only() {
    let gcs = serving("llama/", &tiny()).token(TOKEN).page_size(3).start();
    let (metadata, volume) = (google_metadata(), Volume::new());
    let fetch = || fetch_gs(&gcs, Some(&metadata), &volume, &["gs://models/llama/"]);
    let run = fetch().run().assert_success();
    assert_eq!(run.stdout, format!("{}\n", volume.family("llama").display()));
    volume.assert_holds("llama", &tiny_selected());
    volume.assert_clean();
    let verified = sentinel(&volume, "llama").matches("\"verified_by\": \"crc32c\"").count();
    assert_eq!(verified, tiny_selected().len());
    gcs.log().clear();
    fetch().run().assert_success();
    let requests = gcs.requests();
    assert!(requests.iter().all(|it| it.target.contains("/o?prefix=llama%2F")), "{requests:?}");
}

#[test]
fn a_prefix_is_a_directory_and_not_the_start_of_a_name() {
    let gcs = FakeGcs::builder()
        .object("models", "llama/config.json", Blob::bytes("small"))
        .object("models", "llama/", Blob::bytes(""))
        .object("models", "llama/empty.txt", Blob::bytes(""))
        .object("models", "llama/sub/", Blob::bytes(""))
        .object("models", "llama-70b/config.json", Blob::bytes("large"))
        .start();
    let tree = Tree::new().with("config.json", "small").with("empty.txt", "");
    for source in ["gs://models/llama/", "gs://models/llama"] {
        let volume = Volume::new();
        fetch(&gcs, &volume, &[source]).run().assert_success();
        volume.assert_holds("llama", &tree);
    }
    fetch(&gcs, &Volume::new(), &["gs://models/lla"]).run().assert_code(10);
    let run = fetch(&gcs, &Volume::new(), &["gs://nobucket/x/"]).run().assert_code(10);
    run.assert_says("bucket `nobucket` does not exist");
}

#[test]
fn a_single_object_is_published_inside_the_family_directory_also_without_a_right_to_list() {
    for builder in [serving("llama/", &big()), serving("llama/", &big()).deny_list()] {
        let (gcs, volume) = (builder.start(), Volume::new());
        fetch(&gcs, &volume, &["gs://models/llama/big.bin", "one"]).run().assert_success();
        volume.assert_holds("one", &big().without("config.json"));
    }
    let gcs = serving("m/", &big()).object("models", "m", Blob::bytes("x")).start();
    let run = fetch(&gcs, &Volume::new(), &["gs://models/m"]).run().assert_code(16);
    run.assert_says("both exist in bucket `models`");
}

#[test]
fn names_are_encoded_once_and_unsafe_ones_are_refused() {
    let tree = Tree::new()
        .with("a b+c%20[1]é#?.json", "odd")
        .with("d/e/f&g=h;i.json", "deep")
        .with_blob("ü/%2F.bin", Blob::synthetic(2 << 20, 1));
    let (gcs, volume) = (serving("my models/x/", &tree).start(), Volume::new());
    fetch(&gcs, &volume, &["gs://models/my models/x/"]).run().assert_success();
    volume.assert_holds("x", &tree);
    for key in ["p/../x", "p/a\\b", "p/a\nb", "p/./x"] {
        let gcs = serving("p/", &big()).object("models", key, Blob::bytes("x")).start();
        let volume = Volume::new();
        fetch(&gcs, &volume, &["gs://models/p/"]).run().assert_code(13);
        assert!(!volume.family("p").exists(), "{key}");
    }
}

#[test]
fn every_read_names_the_generation_that_was_listed() {
    let (gcs, volume) = (serving("llama/", &big()).versioned().start(), Volume::new());
    let listed = gcs.generation("models", "llama/big.bin").unwrap();
    gcs.script(Rule::on("GET", "big.bin").then(Fault::Drip { bytes_per_second: 4 << 20 }));
    let arguments = ["gs://models/llama/", "--chunk-size", "1MiB", "--connections", "1"];
    let running = fetch(&gcs, &volume, &arguments).start();
    eventually("the first bytes are sent", || gcs.log().bytes_sent_for("big.bin") > 1 << 20);
    // The bucket keeps the old one: it is what was pinned.
    gcs.overwrite("models", "llama/big.bin", Blob::synthetic((5 << 20) + 3, 99));
    running.wait().assert_success();
    volume.assert_holds("llama", &big());
    let reads: Vec<_> =
        gcs.requests().into_iter().filter(|it| it.header("range").is_some()).collect();
    assert!(reads.len() >= 6, "{}", reads.len());
    for read in reads.iter().filter(|read| read.target.contains("big.bin")) {
        assert!(read.target.contains(&format!("generation={listed}")), "{}", read.target);
    }
}

#[test]
fn an_object_that_changes_during_the_fetch_is_left_to_the_next_run() {
    let other = || Blob::synthetic((5 << 20) + 3, 99);
    let (gcs, volume) = (serving("llama/", &big()).start(), Volume::new());
    gcs.script(Rule::on("GET", "big.bin").then(Fault::Drip { bytes_per_second: 2 << 20 }));
    let arguments = ["gs://models/llama/", "--chunk-size", "1MiB", "--connections", "1"];
    let running = fetch(&gcs, &volume, &arguments).start();
    eventually("the first bytes are sent", || gcs.log().bytes_sent_for("big.bin") > 1 << 20);
    gcs.overwrite("models", "llama/big.bin", other());
    running.wait().assert_code(20).assert_says("run again");
    assert!(!volume.family("llama").exists());
    gcs.clear_script();
    fetch(&gcs, &volume, &arguments).run().assert_success();
    volume.assert_holds("llama", &big().with_blob("big.bin", other()));
    // Something in between that does not look at the generation.
    let volume = Volume::new();
    let generation = [("x-goog-generation", "1")];
    gcs.script(Rule::on("GET", "big.bin").then(Fault::add_headers(&generation)));
    fetch(&gcs, &volume, &arguments).run().assert_code(20).assert_says("changed while");
}

#[test]
fn an_update_fetches_what_has_changed_and_a_lock_file_names_generations() {
    let (gcs, volume) = (serving("llama/", &big()).versioned().start(), Volume::new());
    let source = "gs://models/llama/";
    let mut pin = weightlift();
    pin.args(["pin", source, "llama"]).current_dir(volume.root().parent().unwrap());
    pin.env("STORAGE_EMULATOR_HOST", gcs.url()).run().assert_success();
    fetch(&gcs, &volume, &[source]).run().assert_success();
    gcs.overwrite("models", "llama/config.json", Blob::bytes("[]"));
    gcs.log().clear();
    fetch(&gcs, &volume, &[source]).run().assert_success();
    volume.assert_holds("llama", &big().with("config.json", "[]"));
    assert_eq!(gcs.log().bytes_sent_for("big.bin"), 0);
    // What was pinned is what it was, as long as the bucket keeps it.
    let (lock, other) = (volume.path("models.lock"), Volume::new());
    fetch(&gcs, &other, &["--locked", lock.to_str().unwrap()]).run().assert_success();
    other.assert_holds("llama", &big());
}

#[test]
fn bytes_that_are_not_what_the_store_has_a_checksum_of_are_refused() {
    let md5_only = CloudObject { without_checksum: true, ..CloudObject::default() };
    let gcs = serving("crc/", &big())
        .object_with("models", "md5/big.bin", big().blob("big.bin").unwrap().clone(), md5_only)
        .start();
    for (prefix, kind) in [("crc", "crc32c"), ("md5", "md5")] {
        let source = format!("gs://models/{prefix}/");
        let volume = Volume::new();
        fetch(&gcs, &volume, &[&source]).run().assert_success();
        let verified = format!("\"verified_by\": \"{kind}\"");
        assert!(sentinel(&volume, prefix).contains(&verified), "{kind}");
        gcs.script(Rule::on("GET", "big.bin").then(Fault::FlipByteAt(1_500_000)));
        let volume = Volume::new();
        fetch(&gcs, &volume, &[&source]).run().assert_code(12);
        assert!(!volume.family(prefix).exists());
        gcs.clear_script();
    }
}

#[test]
fn sums_and_a_sentinel_beside_the_objects_are_their_digests() {
    let sums = format!("{}  big.bin\n", big().blob("big.bin").unwrap().sha256());
    let gcs = serving("p/", &big().with("SHA256SUMS", sums)).start();
    let volume = Volume::new();
    fetch(&gcs, &volume, &["gs://models/p/"]).run().assert_success();
    let sentinel_text = sentinel(&volume, "p");
    assert_eq!(sentinel_text.matches("\"verified_by\": \"sha256\"").count(), 1, "{sentinel_text}");
    let wrong = format!("{}  big.bin\n", "0".repeat(64));
    let gcs = serving("p/", &big().with("SHA256SUMS", wrong)).start();
    fetch(&gcs, &Volume::new(), &["gs://models/p/"]).run().assert_code(12);
    // A published model that was copied there.
    let with_sentinel = |tree: &Tree| {
        serving("m/", tree)
            .object("models", "m/.weightlift-complete.json", Blob::bytes(sentinel_text.clone()))
            .start()
    };
    let tree = Tree::from_dir(&volume.family("p")).unwrap().without(".weightlift-complete.json");
    let volume = Volume::new();
    fetch(&with_sentinel(&tree), &volume, &["gs://models/m/"]).run().assert_success();
    volume.assert_holds("m", &tree);
    assert_eq!(sentinel(&volume, "m").matches("\"verified_by\": \"sha256\"").count(), 3);
    let gcs = with_sentinel(&tree.clone().without("config.json"));
    fetch(&gcs, &volume, &["gs://models/m/", "n"])
        .run()
        .assert_code(20)
        .assert_says("wait until the upload is finished");
    let gcs = with_sentinel(&tree.with("config.json", "other"));
    fetch(&gcs, &volume, &["gs://models/m/", "o"]).run().assert_code(16);
}

#[test]
fn an_object_that_is_stored_packed_is_fetched_as_it_is_stored() {
    let (packed, unpacked) = (Blob::synthetic(3 << 20, 8), Blob::synthetic(9 << 20, 9));
    let options = || CloudObject {
        content_encoding: Some("gzip".into()),
        unpacked: Some(unpacked.clone()),
        ..CloudObject::default()
    };
    let gcs = FakeGcs::builder()
        .object_with("models", "p/a.bin", packed.clone(), options())
        .object("models", "p/b.bin", Blob::bytes("b"))
        .start();
    let volume = Volume::new();
    fetch(&gcs, &volume, &["gs://models/p/", "--chunk-size", "1MiB"]).run().assert_success();
    volume.assert_holds("p", &Tree::new().with_blob("a.bin", packed.clone()).with("b.bin", "b"));
    // A store that does not say so in the listing, but with the object.
    let listing = serde_json::json!({ "items": [{
        "name": "p/a.bin", "size": packed.len().to_string(),
        "generation": gcs.generation("models", "p/a.bin").unwrap().to_string(),
    }]});
    let body = listing.to_string().into_bytes();
    gcs.script(Rule::on("GET", "/o?prefix").then(Fault::ReplaceBody(body)));
    let volume = Volume::new();
    fetch(&gcs, &volume, &["gs://models/p/"]).run().assert_success();
    volume.assert_holds("p", &Tree::new().with_blob("a.bin", packed));
}

#[test]
fn a_redirect_is_not_followed_and_no_token_leaves_its_origin() {
    let elsewhere = Server::start(|_| Response::text(200, "{}"));
    let gcs = serving("p/", &big()).token(TOKEN).start();
    let (metadata, location) = (google_metadata(), format!("{}/x", elsewhere.url()));
    for what in ["/o?prefix", "big.bin"] {
        let redirect = Fault::status_with(307, &[("Location", location.as_str())], "");
        gcs.script(Rule::on("GET", what).then(redirect));
        let mut command = fetch_gs(&gcs, Some(&metadata), &Volume::new(), &["gs://models/p/"]);
        command.env("WEIGHTLIFT_RETRY_TIMEOUT", "1s").run().assert_code(20);
        gcs.clear_script();
    }
    assert_eq!(elsewhere.accepted_connections(), 0);
}

#[test]
fn an_emulator_is_sent_no_token() {
    let (gcs, metadata, volume) = (serving("p/", &big()).start(), google_metadata(), Volume::new());
    let mut command = fetch_gs(&gcs, Some(&metadata), &volume, &["gs://models/p/"]);
    command.env("STORAGE_EMULATOR_HOST", gcs.url().trim_start_matches("http://"));
    command.env_remove("CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE").run().assert_success();
    assert!(gcs.requests().iter().all(|it| it.header("authorization").is_none()));
    assert_eq!(metadata.accepted_connections(), 0);
}

#[test]
fn a_bucket_is_another_place_of_what_the_hub_publishes() {
    let sums: String =
        tiny().iter().map(|(path, blob)| format!("{}  {path}\n", blob.sha256())).collect();
    let gcs = serving("tiny/", &tiny().with("SHA256SUMS", sums)).start();
    let (hub, volume) = (hub_of_tiny(), Volume::new());
    let mut command = fetch(&gcs, &volume, &["hf://org/tiny", "--also", "gs://models/tiny/"]);
    command.env("HF_ENDPOINT", hub.url()).run().assert_success();
    volume.assert_holds("tiny", &tiny_selected());
    assert!(gcs.log().bytes_sent_for("model-00001-of-00002.safetensors") > 0);
    assert_eq!(hub.log().bytes_sent_for("model-00001-of-00002.safetensors"), 0);
}
