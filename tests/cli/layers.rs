//! The layers of `src`, as ARCHITECTURE.md has them: nothing imports what is above it, and what decides
//! does nothing else.

use std::path::{Path, PathBuf};

/// Each layer and what it may import beside itself.
const MAY_IMPORT: [(&str, &[&str]); 14] = [
    ("model", &[]),
    ("fs", &["environment", "model"]),
    ("net", &["environment", "model"]),
    ("verify", &["model"]),
    ("report", &["model"]),
    ("fleet", &["model"]),
    ("content", &["model", "net"]),
    ("lock", &["environment", "model", "fs", "net", "report"]),
    ("source", &["environment", "model", "content", "net", "fs"]),
    ("volume", &["model", "content", "fs", "lock", "verify"]),
    ("engine", &["model", "content", "net", "report", "verify", "volume"]),
    (
        "cli",
        &[
            "cgroup",
            "engine",
            "environment",
            "error",
            "Error",
            "exit",
            "fleet",
            "model",
            "process",
            "report",
            "sandbox",
            "source",
            "volume",
        ],
    ),
    (
        "commands",
        &[
            "cgroup", "cli", "content", "engine", "error", "Error", "exit", "fleet", "fs", "lock",
            "model", "net", "process", "report", "sandbox", "source", "verify", "volume",
        ],
    ),
    ("monitor", &["commands", "error", "Error", "exit", "fs", "model", "net", "report"]),
];

/// No clock, file, network, thread or environment: what is decided depends on the arguments alone. (A
/// reader or writer may be one of them.)
const PURE: [&str; 5] =
    ["model", "fleet", "engine/schedule", "lock/waiter", "commands/doctor/verdict"];
const IMPURE: [&str; 10] = [
    "std::fs",
    "std::net",
    "std::thread",
    "std::env",
    "crate::environment",
    "tokio",
    "reqwest",
    "rustix",
    "::now()",
    "Mutex",
];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The files below `dir` with what of them is compiled into the binary: no comments, no tests.
pub fn files(dir: &str) -> Vec<(String, String)> {
    let mut open = vec![source().join(dir)];
    let mut found = Vec::new();
    while let Some(at) = open.pop() {
        for entry in std::fs::read_dir(&at).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(source()).unwrap().display().to_string();
            if path.is_dir() {
                open.push(path);
            } else if !["tests.rs", "simulation.rs", "fuzz.rs"]
                .iter()
                .any(|end| name.ends_with(end))
            {
                let text = std::fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
                let lines = code.lines().map(|line| line.split("//").next().unwrap());
                found.push((name, lines.collect::<Vec<_>>().join("\n")));
            }
        }
    }
    found
}

/// What stands after each `crate::`.
fn imports(code: &str) -> impl Iterator<Item = &str> {
    let end = |c: char| !(c.is_alphanumeric() || c == '_');
    code.split("crate::").skip(1).map(move |rest| rest.split(end).next().unwrap())
}

#[test]
fn no_layer_imports_one_above_it() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for (layer, allowed) in MAY_IMPORT {
        for (file, code) in files(layer) {
            for import in imports(&code) {
                seen += 1;
                if import != layer && !allowed.contains(&import) {
                    wrong.push(format!("{file} imports {import}"));
                }
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    // A reader that finds nothing would always be content.
    assert!(seen > 200, "{seen}");
}

#[test]
fn every_folder_is_a_layer_that_is_described() {
    for entry in std::fs::read_dir(source()).unwrap() {
        let path = entry.unwrap().path();
        if !path.is_dir() {
            continue;
        }
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(MAY_IMPORT.iter().any(|(layer, _)| *layer == name), "{name}");
        let text = std::fs::read_to_string(path.join("mod.rs")).unwrap();
        let about = text.lines().take_while(|line| line.starts_with("//!")).count();
        assert!(about >= 3, "src/{name}/mod.rs says what it knows and what it may import");
        assert!(text.contains("//! Imports "), "src/{name}/mod.rs says what it may import");
    }
}

#[test]
fn what_decides_does_nothing_else() {
    for layer in PURE {
        for (file, code) in files(layer) {
            for word in IMPURE {
                assert!(!code.contains(word), "{file} has `{word}`");
            }
        }
    }
}

/// Whether `code` reads the process's environment itself.
fn reads_environment(code: &str) -> bool {
    ["std::env::var", "std::env::{", "std::env::*", "use std::env;"]
        .iter()
        .any(|it| code.contains(it))
}

#[test]
fn one_module_reads_the_environment_and_imports_nothing() {
    let mut readers: Vec<String> = files("")
        .into_iter()
        .filter(|(_, code)| reads_environment(code))
        .map(|(file, _)| file)
        .collect();
    readers.sort_unstable();
    assert_eq!(readers, ["environment.rs"]);
    let text = std::fs::read_to_string(source().join("environment.rs")).unwrap();
    assert_eq!(imports(&text).next(), None);
    for planted in ["let home = std::env::var_os(\"HOME\");", "use std::env::{self, VarError};"] {
        assert!(reads_environment(planted), "{planted}");
    }
    assert!(!reads_environment("Self::of(environment::all(Part::S3)); std::env::args_os()"));
}
