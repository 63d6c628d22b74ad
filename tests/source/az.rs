//! The main job against Azure Blob Storage.

use std::process::Command;

use crate::support::*;
use weightlift_fakes::{
    Blob, CloudObject, FakeAzure, FakeAzureBuilder, Fault, Response, Rule, Server, Tree,
};

fn serving(prefix: &str, tree: &Tree) -> FakeAzureBuilder {
    let put = |builder: FakeAzureBuilder, (path, blob): (&str, &Blob)| {
        builder.object("weights", &format!("{prefix}{path}"), blob.clone())
    };
    tree.iter().fold(FakeAzure::builder(AZURE_ACCOUNT), put)
}

fn big() -> Tree {
    Tree::new().with("config.json", "{}").with_blob("big.bin", Blob::synthetic((5 << 20) + 3, 4))
}

/// From a public container.
fn fetch(azure: &FakeAzure, volume: &Volume, arguments: &[&str]) -> Command {
    let mut command = fetch_az(azure, volume, arguments);
    command.env("AZURE_SKIP_SIGNATURE", "true");
    command
}

fn sentinel(volume: &Volume, family: &str) -> String {
    let path = volume.family(family).join(".weightlift-complete.json");
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn a_prefix_is_published_whole_and_a_warm_start_asks_for_the_listing_only() {
    let azure = serving("llama/", &tiny()).key(AZURE_KEY).page_size(3).start();
    let volume = Volume::new();
    let fetch = || {
        let mut command = fetch_az(&azure, &volume, &["az://models/weights/llama/"]);
        command.env("AZURE_STORAGE_KEY", AZURE_KEY);
        command
    };
    let run = fetch().run().assert_success();
    assert_eq!(run.stdout, format!("{}\n", volume.family("llama").display()));
    volume.assert_holds("llama", &tiny_selected());
    volume.assert_clean();
    let verified = sentinel(&volume, "llama").matches("\"verified_by\": \"md5\"").count();
    assert_eq!(verified, tiny_selected().len());
    azure.log().clear();
    fetch().run().assert_success();
    let requests = azure.requests();
    assert!(requests.iter().all(|it| it.target.contains("comp=list")), "{requests:?}");
}

#[test]
fn the_url_of_a_container_is_the_same_source() {
    let (azure, volume) = (serving("llama/", &big()).start(), Volume::new());
    fetch(&azure, &volume, &["az://models/weights/llama/"]).run().assert_success();
    azure.log().clear();
    let url = "https://models.blob.core.windows.net/weights/llama/";
    fetch(&azure, &volume, &[url]).run().assert_success();
    assert_eq!(azure.log().bytes_sent_for("big.bin"), 0);
    assert!(sentinel(&volume, "llama").contains("az://models/weights/llama/"));
    let run = fetch(&azure, &volume, &[&format!("{url}?sv=1&sig={SECRET_KEY}")]).run();
    run.assert_code(2).assert_says("AZURE_STORAGE_SAS_TOKEN");
}

#[test]
fn a_prefix_is_a_directory_and_directories_are_no_files() {
    let directory = || CloudObject { is_directory: true, ..CloudObject::default() };
    let azure = FakeAzure::builder(AZURE_ACCOUNT)
        .object_with("weights", "llama", Blob::bytes(""), directory())
        .object("weights", "llama/config.json", Blob::bytes("small"))
        .object("weights", "llama/empty.txt", Blob::bytes(""))
        .object_with("weights", "llama/sub", Blob::bytes(""), directory())
        .object("weights", "llama/sub/a.json", Blob::bytes("a"))
        .object("weights", "llama-70b/config.json", Blob::bytes("large"))
        .start();
    let tree =
        Tree::new().with("config.json", "small").with("empty.txt", "").with("sub/a.json", "a");
    for source in ["az://models/weights/llama/", "az://models/weights/llama"] {
        let volume = Volume::new();
        fetch(&azure, &volume, &[source]).run().assert_success();
        volume.assert_holds("llama", &tree);
    }
    fetch(&azure, &Volume::new(), &["az://models/weights/lla"]).run().assert_code(10);
    let run = fetch(&azure, &Volume::new(), &["az://models/none/x/"]).run().assert_code(10);
    run.assert_says("container `none` of account `models` does not exist");
}

#[test]
fn a_single_blob_is_published_inside_the_family_directory_also_without_a_right_to_list() {
    for builder in [serving("llama/", &big()), serving("llama/", &big()).deny_list()] {
        let (azure, volume) = (builder.start(), Volume::new());
        fetch(&azure, &volume, &["az://models/weights/llama/big.bin", "one"])
            .run()
            .assert_success();
        volume.assert_holds("one", &big().without("config.json"));
    }
}

#[test]
fn names_are_encoded_once_and_signed_as_they_are_sent() {
    let tree = Tree::new()
        .with("a b+c%20[1]é#?.json", "odd")
        .with("d/e/f&g=h;i.json", "deep")
        .with_blob("ü/%2F.bin", Blob::synthetic(2 << 20, 1));
    let azure = serving("my models/x/", &tree).key(AZURE_KEY).start();
    let volume = Volume::new();
    let mut command = fetch_az(&azure, &volume, &["az://models/weights/my models/x/"]);
    command.env("AZURE_STORAGE_ACCOUNT_KEY", AZURE_KEY).run().assert_success();
    volume.assert_holds("x", &tree);
    for key in ["p/../x", "p/a\\b", "p/./x"] {
        let azure = serving("p/", &big()).object("weights", key, Blob::bytes("x")).start();
        fetch(&azure, &Volume::new(), &["az://models/weights/p/"]).run().assert_code(13);
    }
}

#[test]
fn every_read_is_of_the_version_that_was_listed() {
    let other = || Blob::synthetic((5 << 20) + 3, 99);
    let (azure, volume) = (serving("llama/", &big()).start(), Volume::new());
    let etag = azure.etag("weights", "llama/big.bin").unwrap();
    azure.script(Rule::on("GET", "big.bin").then(Fault::Drip { bytes_per_second: 2 << 20 }));
    let arguments = ["az://models/weights/llama/", "--chunk-size", "1MiB", "--connections", "1"];
    let running = fetch(&azure, &volume, &arguments).start();
    eventually("the first bytes are sent", || azure.log().bytes_sent_for("big.bin") > 1 << 20);
    azure.overwrite("weights", "llama/big.bin", other());
    running.wait().assert_code(20).assert_says("run again");
    assert!(!volume.family("llama").exists());
    let requests = azure.requests();
    let reads =
        requests.iter().filter(|it| it.target.contains("big.bin") && it.header("range").is_some());
    assert!(reads.clone().count() >= 2);
    assert!(reads.into_iter().all(|it| it.header("if-match") == Some(&etag)));
    azure.clear_script();
    fetch(&azure, &volume, &arguments).run().assert_success();
    volume.assert_holds("llama", &big().with_blob("big.bin", other()));
    // Something in between that does not look at the condition.
    azure.script(Rule::on("GET", "big.bin").then(Fault::add_headers(&[("ETag", "\"other\"")])));
    fetch(&azure, &Volume::new(), &arguments).run().assert_code(20).assert_says("changed while");
}

#[test]
fn an_md5_that_is_told_is_verified_and_a_blob_without_one_is_marked_so() {
    let blob = || big().blob("big.bin").unwrap().clone();
    let wrong = CloudObject { md5: Some([7; 16]), ..CloudObject::default() };
    let none = CloudObject { without_checksum: true, ..CloudObject::default() };
    let azure = serving("right/", &big())
        .object_with("weights", "wrong/big.bin", blob(), wrong)
        .object_with("weights", "none/big.bin", blob(), none)
        .start();
    azure.script(Rule::on("GET", "right/big.bin").then(Fault::FlipByteAt(1_500_000)));
    for prefix in ["right", "wrong"] {
        let volume = Volume::new();
        let source = format!("az://models/weights/{prefix}/");
        fetch(&azure, &volume, &[&source]).run().assert_code(12);
        assert!(!volume.family(prefix).exists());
    }
    let volume = Volume::new();
    fetch(&azure, &volume, &["az://models/weights/none/"]).run().assert_success();
    assert!(sentinel(&volume, "none").contains("\"verified_by\": \"unpublished\""));
    let mut command = fetch(&azure, &Volume::new(), &["az://models/weights/none/"]);
    command.arg("--require-digests").run().assert_code(12);
}

#[test]
fn sums_beside_the_blobs_are_their_digests() {
    let sums = format!("{}  big.bin\n", big().blob("big.bin").unwrap().sha256());
    let azure = serving("p/", &big().with("SHA256SUMS", sums)).start();
    let volume = Volume::new();
    fetch(&azure, &volume, &["az://models/weights/p/"]).run().assert_success();
    let text = sentinel(&volume, "p");
    assert_eq!(text.matches("\"verified_by\": \"sha256\"").count(), 1, "{text}");
    let azure = serving("p/", &big().with("SHA256SUMS", format!("{}  big.bin\n", "0".repeat(64))));
    fetch(&azure.start(), &Volume::new(), &["az://models/weights/p/"]).run().assert_code(12);
}

#[test]
fn a_stored_encoding_changes_no_bytes() {
    let packed = Blob::synthetic(3 << 20, 8);
    let options = CloudObject { content_encoding: Some("gzip".into()), ..CloudObject::default() };
    let azure = FakeAzure::builder(AZURE_ACCOUNT)
        .object_with("weights", "p/a.bin", packed.clone(), options)
        .start();
    let volume = Volume::new();
    fetch(&azure, &volume, &["az://models/weights/p/", "--chunk-size", "1MiB"])
        .run()
        .assert_success();
    volume.assert_holds("p", &Tree::new().with_blob("a.bin", packed));
}

#[test]
fn a_redirect_is_not_followed_and_no_secret_leaves_its_origin() {
    let elsewhere = Server::start(|_| Response::text(200, "{}"));
    let azure = serving("p/", &big()).signature(SECRET_KEY).start();
    let location = format!("{}/x", elsewhere.url());
    for what in ["comp=list", "big.bin"] {
        let redirect = Fault::status_with(307, &[("Location", location.as_str())], "");
        azure.script(Rule::on("GET", what).then(redirect));
        let mut command = fetch_az(&azure, &Volume::new(), &["az://models/weights/p/"]);
        command.env("AZURE_STORAGE_SAS_TOKEN", format!("sv=2023-11-03&sp=rl&sig={SECRET_KEY}"));
        command.env("WEIGHTLIFT_RETRY_TIMEOUT", "1s").run().assert_code(20);
        azure.clear_script();
    }
    assert_eq!(elsewhere.accepted_connections(), 0);
}
