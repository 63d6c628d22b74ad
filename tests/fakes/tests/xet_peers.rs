//! The chunk store as Hugging Face's own client sees it: the fake is honest.
//!
//! Needs Python with `tests/real/requirements.txt`, or the one that `WEIGHTLIFT_TEST_PYTHON` names.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use weightlift_fakes::{Blob, FakeHub, FakeHubBuilder, Tree};

const REPO: &str = "org/tiny";

const DOWNLOAD: &str = "import sys; from huggingface_hub import snapshot_download
snapshot_download('org/tiny', local_dir=sys.argv[1])";

/// Chunks of all schemes; some twice, some in both files.
fn tree() -> Tree {
    let noise = Blob::synthetic(3_000_000, 1).to_vec();
    let floats: Vec<u8> =
        noise[..900_000].chunks(3).flat_map(|it| [it[0], it[1], it[2], 63]).collect();
    let text = b"a line of text\n".repeat(50_000);
    let weights = [&noise, &floats, &text, &noise[..500_000], &[0; 400_000]].concat();
    let other = [&noise[700_000..2_000_000], &text[..], &noise[100_000..400_000]].concat();
    Tree::new().with("config.json", "{}").with("model.bin", weights).with("other.bin", other)
}

fn python() -> Option<Command> {
    let command =
        || Command::new(env::var_os("WEIGHTLIFT_TEST_PYTHON").unwrap_or("python3".into()));
    let mut probe = command();
    probe.args(["-c", "import huggingface_hub, hf_xet"]).stderr(Stdio::null());
    if probe.status().is_ok_and(|status| status.success()) {
        return Some(command());
    }
    let why = "python3 cannot import huggingface_hub and hf_xet";
    assert!(env::var_os("WEIGHTLIFT_TEST_NO_SKIP").is_none(), "must not be skipped: {why}");
    eprintln!("skipped: {why}");
    None
}

/// An empty directory.
fn directory(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).expect("a directory");
    directory
}

fn download_with_the_python_client(
    name: &str,
    change: impl FnOnce(FakeHubBuilder) -> FakeHubBuilder,
) {
    let Some(mut python) = python() else {
        return;
    };
    let hub = change(FakeHub::builder().repo(REPO, tree()).token("hf_member").xet()).start();
    let directory = directory(name);
    let output = python
        .args(["-c", DOWNLOAD])
        .arg(directory.join("theirs"))
        .env("HF_ENDPOINT", hub.url())
        .env("HF_TOKEN", "hf_member")
        .env("HF_HOME", directory.join("home"))
        .env("HF_HUB_DISABLE_TELEMETRY", "1")
        .output()
        .expect("Python");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for (path, blob) in tree().iter() {
        let found = fs::read(directory.join("theirs").join(path)).expect("a file");
        assert!(found == blob.to_vec(), "{path}");
    }
    let refused = hub.requests().into_iter().filter(|it| it.origin != "hub" && it.status >= 400);
    let refused: Vec<_> = refused.filter(|it| !it.target.starts_with("/v2/")).collect();
    assert!(refused.is_empty(), "{refused:?}");
    assert!(hub.bytes_sent_for("/xorbs/default/") > 3_000_000);
    assert_eq!(hub.bytes_sent_for("xet-bridge"), 0);
}

#[test]
fn the_python_client_reads_many_small_xorbs() {
    download_with_the_python_client("small", |builder| {
        builder.xet_xorb_chunks(9).xet_ranges_per_link(2).xet_whole_ranges()
    });
}

#[test]
fn the_python_client_reads_from_a_store_of_version_1() {
    download_with_the_python_client("version-1", FakeHubBuilder::xet_v1_only);
}

#[test]
fn the_python_client_reads_every_scheme() {
    for (number, name) in [(0, "plain"), (1, "lz4"), (2, "grouped")] {
        download_with_the_python_client(name, |builder| builder.xet_scheme(number));
    }
}
