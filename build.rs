//! Tells a release the commit that it is made of, for `weightlift --version`.
//!
//! `WEIGHTLIFT_COMMIT` says it where there is no repository, as in the build of the image. A package has it in a file of
//! cargo's. Otherwise Git is asked. A build for development has "no commit": each one
//! would compile everything once more.

use std::path::Path;
use std::process::Command;

/// What `cargo package` writes.
const OF_PACKAGE: &str = ".cargo_vcs_info.json";
const SHOWN: usize = 12;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=WEIGHTLIFT_COMMIT");
    let made_from = given().or_else(of_release).unwrap_or_else(|| "no commit".to_owned());
    println!("cargo::rustc-env=WEIGHTLIFT_BUILT_FROM={made_from}");
}

fn given() -> Option<String> {
    shown(&std::env::var("WEIGHTLIFT_COMMIT").ok()?)
}

fn of_release() -> Option<String> {
    if std::env::var("PROFILE").ok()? != "release" {
        return None;
    }
    of_package().or_else(of_repository)
}

fn of_package() -> Option<String> {
    let text = std::fs::read_to_string(OF_PACKAGE).ok()?;
    let (_, behind) = text.split_once("\"sha1\": \"")?;
    shown(behind.split('"').next()?)
}

fn of_repository() -> Option<String> {
    // A directory inside somebody else's repository says nothing of us.
    if !Path::new(".git").exists() {
        return None;
    }
    for path in [".git/HEAD", ".git/logs/HEAD", "src", "Cargo.toml", "Cargo.lock", ".cargo"] {
        if Path::new(path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    let commit = shown(&git(&["rev-parse", "HEAD"])?)?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changed.is_empty() { commit } else { format!("{commit}, changed") })
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A commit as it is shown; nothing that is none.
fn shown(commit: &str) -> Option<String> {
    let is_commit = commit.len() >= SHOWN && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_commit.then(|| commit[..SHOWN].to_ascii_lowercase())
}
