//! Repos that mean harm: nothing outside the family is touched, nothing of them is trusted.

#![allow(clippy::unwrap_used)]

mod support;

use serde_json::json;
use support::measure::with_peak_memory;
use support::*;
use weightlift_fakes::{Blob, FakeHub, Tree};

#[test]
fn names_that_leave_the_directory_or_reach_for_us_are_refused() {
    for name in [
        "../x",
        "a/../../x",
        "/etc/cron.d/x",
        "a\nb",
        "a\u{1b}[2Jb",
        "a\u{202e}b",
        "a\\..\\b",
        "./a",
        "a//b",
        ".weightlift-complete.json",
        ".weightlift/locks/tiny.lock",
        ".WEIGHTLIFT/x",
    ] {
        let entry = json!({"type": "file", "path": name, "size": 2, "oid": "0".repeat(40)});
        let hub = FakeHub::builder().repo(REPO, tiny()).raw_tree_entry(REPO, entry).start();
        let volume = Volume::new();
        let run = fetch(&hub, &volume, &["hf://org/tiny"]).run();
        assert_eq!(run.code, 13, "{name:?}: {}", run.stderr);
        assert!(!volume.family("tiny").exists());
        assert_eq!(list(&volume.path("")).len(), 1, "something beside the root: {name:?}");
    }
}

#[test]
fn listings_that_are_no_tree_are_refused() {
    for name in ["config.json", "config.json/x", "1_Pooling"] {
        let entry = json!({"type": "file", "path": name, "size": 2, "oid": "0".repeat(40)});
        let hub = FakeHub::builder().repo(REPO, tiny()).raw_tree_entry(REPO, entry).start();
        fetch(&hub, &Volume::new(), &["hf://org/tiny"]).run().assert_code(13);
    }
}

#[test]
fn digests_that_are_paths_are_no_digests() {
    for oid in ["../../etc/passwd", "", "sha256:zz"] {
        let lfs = json!({"oid": oid, "size": 2, "pointerSize": 100});
        let entry = json!({"type": "file", "path": "x.bin", "size": 2, "lfs": lfs});
        let hub = FakeHub::builder().repo(REPO, tiny()).raw_tree_entry(REPO, entry).start();
        fetch(&hub, &Volume::new(), &["hf://org/tiny"]).run().assert_code(20);
    }
}

#[test]
fn submodules_and_directories_are_not_made() {
    let entry = json!({"type": "submodule", "path": "sub", "size": 0, "oid": "0".repeat(40)});
    let hub = FakeHub::builder().repo(REPO, tiny()).raw_tree_entry(REPO, entry).start();
    let volume = Volume::new();
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    volume.assert_holds("tiny", &tiny_selected());
}

#[test]
fn a_file_that_claims_the_size_of_the_world_does_not_fit() {
    let size = u64::MAX / 2;
    let entry = json!({"type": "file", "path": "x", "size": size, "oid": "0".repeat(40)});
    let hub = FakeHub::builder().repo(REPO, tiny()).raw_tree_entry(REPO, entry).start();
    let volume = Volume::new();
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_code(15);
    volume.assert_clean();
}

#[test]
fn bad_safetensors_that_match_their_digest_are_the_publishers_fault() {
    let mut seen = 0;
    for path in list(&fixture("bad")).into_iter().filter(|path| path.is_file()) {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let tree = Tree::new().with("model.safetensors", std::fs::read(&path).unwrap());
        let (hub, volume) = (FakeHub::serving(REPO, tree.clone()), Volume::new());
        let run = fetch(&hub, &volume, &["hf://org/tiny"]).run();
        seen += 1;
        if name.starts_with("unknown-dtype") {
            run.assert_success().assert_says("was not checked");
            volume.assert_holds("tiny", &tree);
            continue;
        }
        assert!(run.last_line().contains("is what the source published"), "{name}: {}", run.stderr);
        run.assert_code(12);
        assert!(!volume.family("tiny").exists(), "{name} was published");
    }
    assert!(seen >= 9, "only {seen} fixtures");
}

#[test]
fn an_index_that_names_a_shard_that_is_not_there_is_refused() {
    let tree = Tree::from_dir(&fixture("bad/missing-shard")).unwrap();
    let (hub, volume) = (FakeHub::serving(REPO, tree), Volume::new());
    let run = fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_code(12);
    assert!(run.last_line().contains("the model is incomplete"), "{}", run.stderr);
    assert!(!volume.family("tiny").exists());
}

#[test]
fn a_hostile_header_costs_no_memory() {
    // The largest header the format allows, all of it JSON that would become a large tree.
    let mut header = String::from("{\"__metadata__\":{");
    while header.len() < 60_000_000 {
        header.push_str("\"k");
        header.push_str(&header.len().to_string());
        header.push_str("\":\"\",");
    }
    header.push_str("\"end\":\"\"}}");
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    let tree = Tree::new().with_blob("model.safetensors", Blob::bytes(file));
    let (hub, volume) = (FakeHub::serving(REPO, tree), Volume::new());
    let mut command = fetch(&hub, &volume, &["hf://org/tiny"]);
    let (run, peak) = with_peak_memory(&mut command);
    run.assert_success();
    assert!(peak < 48 << 20, "peak RSS {} KiB", peak >> 10);
}
