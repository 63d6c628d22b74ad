//! The official Rust client of the Hub, `hf-hub`, against the same fake: it must see the tree that
//! weightlift publishes, so that the fake is honest and our reading of the Hub is the common one.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use futures_util::TryStreamExt;
use hf_hub::HFClient;
use hf_hub::repository::RepoTreeEntry;
use weightlift_fakes::{Blob, FakeHub, Tree};

fn tree() -> Tree {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tiny");
    // `hf-hub` asks the final answer of an LFS file for `X-Repo-Commit`, which no CDN sends: small
    // files it can fetch, large ones it can only list.
    Tree::from_dir(&fixture).expect("the fixture is there")
}

fn client(hub: &FakeHub, cache: &Path) -> HFClient {
    HFClient::builder().endpoint(hub.url()).cache_dir(cache).build().expect("a client")
}

fn files_below(dir: &Path, above: &str, found: &mut BTreeMap<String, Vec<u8>>) {
    for entry in std::fs::read_dir(dir).expect("readable") {
        let entry = entry.expect("an entry");
        let name = format!("{above}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            if !name.starts_with(".cache") && !name.starts_with(".weightlift") {
                files_below(&entry.path(), &format!("{name}/"), found);
            }
        } else if !name.starts_with(".weightlift") {
            found.insert(name, std::fs::read(entry.path()).expect("readable"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_lists_the_same_paths_sizes_and_oids() {
    let hub = FakeHub::builder().repo("org/tiny", tree()).page_size(4).start();
    let home = tempfile::tempdir().expect("a directory");
    let repo = client(&hub, home.path()).model("org", "tiny");
    let entries: Vec<RepoTreeEntry> = repo
        .list_tree()
        .recursive(true)
        .send()
        .expect("a listing")
        .try_collect()
        .await
        .expect("all pages");
    let mut listed = BTreeMap::new();
    for entry in entries {
        if let RepoTreeEntry::File { oid, size, path, .. } = entry {
            listed.insert(path, (oid, size));
        }
    }
    let tree = tree();
    let names: Vec<&str> = listed.keys().map(String::as_str).collect();
    assert_eq!(names, tree.iter().map(|(name, _)| name).collect::<Vec<_>>());
    for (path, blob) in tree.iter() {
        assert_eq!(listed[path].1, blob.len(), "{path}");
        if !path.ends_with(".safetensors") && !path.contains(".bin") && !path.contains('/') {
            assert_eq!(listed[path].0, blob.git_sha1(), "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_fetches_the_same_bytes_as_weightlift() {
    // The Hub itself serves the large files, as `hf-hub` 1.0 needs it (see above).
    let tree = tree().with_blob("more.safetensors.txt", Blob::synthetic(100_000, 1));
    let hub = FakeHub::builder().repo("org/tiny", tree.clone()).lfs_direct().start();
    let home = tempfile::tempdir().expect("a directory");
    let theirs = home.path().join("theirs");
    client(&hub, &home.path().join("cache"))
        .model("org", "tiny")
        .snapshot_download()
        .local_dir(theirs.clone())
        .send()
        .await
        .expect("hf-hub fetches the snapshot");

    let Some(binary) = binary() else { return };
    let status = Command::new(binary)
        .args(["fetch", "hf://org/tiny", "ours", "--all", "--root"])
        .arg(home.path())
        .env("HF_ENDPOINT", hub.url())
        .status()
        .expect("weightlift runs");
    assert!(status.success());

    let (mut a, mut b) = (BTreeMap::new(), BTreeMap::new());
    files_below(&theirs, "", &mut a);
    files_below(&home.path().join("ours"), "", &mut b);
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    assert!(a == b, "the content differs");
    assert_eq!(a.len(), tree.len());
}

/// The binary that the same `cargo test` run has built beside us.
fn binary() -> Option<std::path::PathBuf> {
    if let Some(binary) = std::env::var_os("WEIGHTLIFT_TEST_BIN") {
        return Some(binary.into());
    }
    let here = std::env::current_exe().expect("our own path");
    let binary = here.parent().and_then(Path::parent).expect("target/…/deps").join("weightlift");
    if !binary.is_file() {
        assert!(std::env::var_os("WEIGHTLIFT_TEST_NO_SKIP").is_none(), "no {}", binary.display());
        eprintln!("skipped: {} is not built; run `cargo build` first", binary.display());
        return None;
    }
    Some(binary)
}
