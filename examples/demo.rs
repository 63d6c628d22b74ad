//! `cargo demo`: the whole job on this machine, without a network.
//!
//! Starts a Hub (and its CDN) in this process that serves `fixtures/tiny`, then runs weightlift's
//! own command line against it three times: a first fetch, a warm start, and `verify`.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use weightlift_fakes::{FakeHub, Tree};

/// Tells this program to be weightlift.
const AS_WEIGHTLIFT: &str = "WEIGHTLIFT_DEMO_CHILD";

fn main() -> ExitCode {
    if std::env::var_os(AS_WEIGHTLIFT).is_some() {
        return weightlift::main(std::env::args_os());
    }
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tiny");
    let hub = FakeHub::serving("weightlift/tiny", Tree::from_dir(&fixture).unwrap());
    let root = std::env::args_os().nth(1).map_or_else(
        || std::env::temp_dir().join(format!("weightlift-demo-{}", std::process::id())),
        PathBuf::from,
    );
    let weightlift = |arguments: &[&str]| {
        println!("\n$ weightlift {}", arguments.join(" "));
        let status = Command::new(std::env::current_exe().unwrap())
            .args(arguments)
            .env(AS_WEIGHTLIFT, "1")
            .env("WEIGHTLIFT_ROOT", &root)
            .env("HF_ENDPOINT", hub.url())
            .env("NO_PROXY", "127.0.0.1")
            .env_remove("HF_HUB_OFFLINE")
            .status()
            .unwrap();
        status.success()
    };
    println!("a Hub with the repo weightlift/tiny listens at {}", hub.url());
    println!("WEIGHTLIFT_ROOT is {}", root.display());
    let family = root.join("tiny").display().to_string();
    let done = weightlift(&["fetch", "hf://weightlift/tiny"])
        && weightlift(&["fetch", "hf://weightlift/tiny"])
        && weightlift(&["verify", &family]);
    if !done {
        return ExitCode::FAILURE;
    }
    println!("\nwhat is there now:");
    show(&root.join("tiny"), 1);
    ExitCode::SUCCESS
}

fn show(dir: &Path, depth: usize) {
    let mut entries: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap()).collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        println!("{:indent$}{name}", "", indent = 2 * depth);
        if entry.path().is_dir() {
            show(&entry.path(), depth + 1);
        }
    }
}
