//! Datasets and spaces of the Hub: the API of models, at paths of their own, and none of the rules for weights.

use crate::support::*;
use weightlift_fakes::{Blob, FakeHub, Tree};

const MIB: u64 = 1 << 20;
const DATASET: &str = "datasets/org/corpus";

/// What would be left out of a model, or refused: formats side by side, training state, numbers with gaps.
fn dataset() -> Tree {
    Tree::new()
        .with("README.md", "read me")
        .with("data/train-00000-of-00003.parquet", "one of three")
        .with("probe/model-00001-of-00002.bin", "the first of two")
        .with(
            "probe/model.safetensors.index.json",
            "{\"weight_map\": {\"a\": \"not-there.safetensors\"}}",
        )
        .with("onnx/model.onnx", "o")
        .with("optimizer.pt", "p")
        .with("checkpoint-10/optimizer.pt", "p")
        .with_blob("data/é 1%.bin", Blob::synthetic(3 * MIB, 3))
}

fn hub_of(name: &str, tree: &Tree) -> FakeHub {
    FakeHub::builder()
        .repo(name, tree.clone())
        .lfs_threshold(MIB)
        .token(TOKEN)
        .private(name)
        .start()
}

fn run(hub: &FakeHub, volume: &Volume, arguments: &[&str]) -> Run {
    let mut command = fetch(hub, volume, arguments);
    command.args(["--chunk-size", "1MiB", "--connections", "2"]);
    command.env("HF_TOKEN", TOKEN).env("WEIGHTLIFT_RETRY_DELAY", "25ms");
    command.run()
}

fn sentinel(dir: &std::path::Path) -> serde_json::Value {
    let text = std::fs::read(dir.join(".weightlift-complete.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

#[test]
fn a_dataset_and_a_space_are_fetched_whole_from_paths_of_their_own() {
    for (name, family) in
        [(DATASET, "corpus"), ("spaces/org/Demo", "demo"), ("datasets/squad", "squad")]
    {
        let (hub, volume) = (hub_of(name, &dataset()), Volume::new());
        let source = format!("hf://{name}");
        run(&hub, &volume, &[&source]).assert_success();
        volume.assert_holds(family, &dataset());
        let (kind, _) = name.split_once('/').unwrap();
        for request in hub.requests() {
            let is_of_kind = ["/api/resolve-cache", "/api", ""]
                .iter()
                .any(|above| request.target.starts_with(&format!("{above}/{kind}/")));
            assert!(is_of_kind || request.origin == "cdn", "{}", request.target);
            let has_token = request.headers.iter().any(|(_, value)| value.contains(TOKEN));
            assert_eq!(has_token, request.origin == "hub", "{request:?}");
        }
        let told = sentinel(&volume.family(family));
        assert_eq!(told["source"], source.as_str());
        assert_eq!(told["left_out"].as_array().unwrap().len(), 0);
        // Warm: pinned by its commit without a request, and with one by the branch.
        let before = hub.requests().len();
        let pinned = format!("{source}@{}", hub.commit(name));
        run(&hub, &volume, &[&pinned]).assert_success().assert_says("nothing to do");
        assert_eq!(hub.requests().len(), before);
        run(&hub, &volume, &[&source]).assert_success().assert_says("nothing to do");
        assert_eq!(hub.requests().len(), before + 1);
    }
}

#[test]
fn a_dataset_that_was_renamed_keeps_its_kind() {
    let volume = Volume::new();
    let hub =
        FakeHub::builder().repo(DATASET, dataset()).renamed("datasets/org/old", DATASET).start();
    let run = run(&hub, &volume, &["hf://datasets/org/old", "d"]).assert_success();
    run.assert_says("`datasets/org/old` has been renamed to `datasets/org/corpus`");
    volume.assert_holds("d", &dataset());
    assert_eq!(sentinel(&volume.family("d"))["renamed_to"], "hf://datasets/org/corpus");
}

#[test]
fn a_dataset_and_a_model_of_one_name_are_two() {
    let (model, volume) = (Tree::new().with("config.json", "{}"), Volume::new());
    let hub = FakeHub::builder().repo("org/corpus", model.clone()).repo(DATASET, dataset()).start();
    run(&hub, &volume, &["hf://org/corpus", "m", "hf://datasets/org/corpus", "d"]).assert_success();
    volume.assert_holds("m", &model);
    volume.assert_holds("d", &dataset());
    run(&hub, &volume, &["hf://datasets/org/corpus", "m"]).assert_code(16);
}

#[test]
fn the_chunks_of_a_dataset_are_read_with_a_token_of_that_dataset() {
    let volume = Volume::new();
    let tree = Tree::new().with_blob("data.parquet", Blob::synthetic(3 * MIB, 4));
    let hub = FakeHub::builder().repo(DATASET, tree.clone()).lfs_threshold(1).xet().start();
    run(&hub, &volume, &["hf://datasets/org/corpus", "d", "--xet", "always"]).assert_success();
    volume.assert_holds("d", &tree);
    assert_eq!(hub.count("GET", "/api/datasets/org/corpus/xet-read-token/"), 1);
    assert_eq!(hub.count("GET", "/resolve/"), 0);
}

#[test]
fn a_dataset_lies_in_a_cache_where_clients_look_for_datasets() {
    let (hub, volume) = (hub_of(DATASET, &dataset()), Volume::new());
    let source = "hf://datasets/org/corpus";
    run(&hub, &volume, &["--layout", "hf-cache", source]).assert_success();
    let snapshot =
        volume.root().join("hub/datasets--org--corpus/snapshots").join(hub.commit(DATASET));
    assert_eq!(files_below(&snapshot).len(), dataset().len());
}

#[test]
fn a_dataset_can_be_pinned_in_a_lock_file() {
    let (hub, volume) = (hub_of(DATASET, &dataset()), Volume::new());
    let (models, lock) = (volume.path("models.yaml"), volume.path("models.lock"));
    let listed = "version: 1\nmodels:\n  - source: hf://datasets/org/corpus\n";
    std::fs::write(&models, listed).unwrap();
    let mut pin = weightlift();
    pin.arg("pin").arg("--models").arg(&models).env("HF_ENDPOINT", hub.url());
    pin.current_dir(lock.parent().unwrap()).env("HF_TOKEN", TOKEN).run().assert_success();
    hub.log().clear();
    run(&hub, &volume, &["--locked", lock.to_str().unwrap()]).assert_success();
    volume.assert_holds("corpus", &dataset());
    assert_eq!(hub.count("GET", "/tree/"), 0);
    pin.arg("--check").run().assert_success();
}

#[test]
fn what_is_no_repo_of_these_kinds_is_refused_with_the_way_to_go() {
    for (source, words) in [
        ("hf://buckets/org/b/llama", "--s3-endpoint https://s3.hf.co/NAMESPACE"),
        ("hf://kernels/org/k", "a kernel"),
        ("hf://models/org/m", "`models/` before the name"),
        ("hf://datasets", "after `datasets/` or `spaces/`"),
        ("hf://datasets/", "after `datasets/` or `spaces/`"),
        ("hf://datasets/a/b/c", "more than a repo"),
    ] {
        weightlift().args(["fetch", source, "/tmp/x"]).run().assert_code(2).assert_says(words);
    }
}
