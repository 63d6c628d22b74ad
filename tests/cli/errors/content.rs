//! Models that are not whole, not right or not allowed.

use super::*;
use weightlift_fakes::{Blob, FakeHub, Fault, Rule, Tree};

const INDEX: &str = "model.safetensors.index.json";

/// The smallest file of weights that is valid.
fn safetensors(header: &str) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file
}

#[test]
fn a_model_is_incomplete_wrong_or_not_allowed() {
    let whole = || Tree::new().with("config.json", "{}").with("w.safetensors", safetensors("{}"));
    let index = r#"{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}"#;
    let shard = "model-00001-of-00002.safetensors";
    let hub = FakeHub::builder()
        .repo(REPO, whole())
        .repo("org/half", whole().with(INDEX, index).with(shard, safetensors("{}")))
        .repo("org/broken", whole().with("w.safetensors", safetensors("not JSON")))
        .repo("org/pickle", whole().with("pytorch_model.bin", "pickled"))
        .repo("org/large", whole().with_blob("big.bin", Blob::synthetic(300_000, 1)))
        .start();
    let volume = Volume::new();
    let mut page = Page::new("content");
    page.place(hub.url(), "https://hub.example");
    page.place(hub.cdn_url(), "https://cdn.example");
    page.volume(&volume);
    let fetch = |arguments: &[&str]| fetch(&hub, &volume, arguments);
    page.case("a shard that the index names is missing", 12, &mut fetch(&["hf://org/half"]));
    page.case("weights with a broken header", 12, &mut fetch(&["hf://org/broken"]));
    page.case(
        "a file that can run code",
        13,
        &mut fetch(&["hf://org/pickle", "--all", "--deny-pickle"]),
    );
    page.case(
        "a pattern that matches no file",
        2,
        &mut fetch(&["hf://org/tiny", "--include", "*.gguf"]),
    );
    hub.script(Rule::on("GET", "big.bin").at("cdn").then(Fault::FlipByteAt(1_000)));
    page.case("wrong bytes in each fetch", 12, &mut fetch(&["hf://org/large"]));
    hub.clear_script();
    let entry = serde_json::json!([{ "type": "file", "path": "../../etc/passwd", "size": 1, "oid": "0".repeat(40) }]);
    hub.script(Rule::on("GET", "/tree/").then(Fault::ReplaceBody(entry.to_string().into_bytes())));
    page.case("a file name that leaves the directory", 13, &mut fetch(&["hf://org/tiny"]));
    hub.clear_script();

    let s3 = weightlift_fakes::FakeS3::builder()
        .object("models", "tiny/w.bin", Blob::synthetic(1_000, 1))
        .start();
    page.place(s3.url(), "https://s3.example");
    page.case(
        "a store without digests, and they are required",
        12,
        &mut fetch_s3(&s3, &volume, &["s3://models/tiny/", "--require-digests"]),
    );

    fetch(&["hf://org/tiny"]).run().assert_success();
    let family = volume.family("tiny");
    std::fs::write(family.join("config.json"), "[]").unwrap();
    let verify = |path: &std::path::Path| {
        let mut command = weightlift();
        command.arg("verify").arg(path);
        command
    };
    page.case("verify finds damage", 12, &mut verify(&family));
    page.case("verify finds no model", 10, &mut verify(&volume.root()));
    page.case("verify of a path that does not exist", 10, &mut verify(&volume.path("elsewhere")));
    page.compare();
}
