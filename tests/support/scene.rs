//! A model in two revisions, and the ways in which it gets where it is.

use std::path::Path;

use nix::errno::Errno;
use weightlift_fakes::{Blob, Tree};

use super::tracer::{Act, Call};
use super::{Run, Runs, files_below, weightlift};

pub const SENTINEL: &str = ".weightlift-complete.json";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// The family is a link, wherever links work.
    Links,
    /// As on NFS, where nothing can be exchanged.
    LinksAlone,
    /// There are no links, and directories can be exchanged.
    Exchange,
    /// The family directory was given to us empty.
    InPlace,
}

impl Layout {
    /// What this kind of volume does to a call, whatever else happens.
    pub fn refuses(self, call: &Call) -> Option<Act> {
        match (self, call.name) {
            (Self::LinksAlone, "renameat2") => Some(Act::Fail(Errno::EINVAL)),
            (Self::Exchange, "symlinkat") => Some(Act::Fail(Errno::EPERM)),
            _ => None,
        }
    }
}

pub fn old() -> Tree {
    Tree::new()
        .with("config.json", "{\"revision\": \"old\"}")
        .with("gone.txt", "only in the old one")
        .with_blob("same.bin", Blob::synthetic(100_000, 7))
        .with_blob("sub/weights.bin", Blob::synthetic(300_000, 1))
}

pub fn new() -> Tree {
    old()
        .without("gone.txt")
        .with("config.json", "{\"revision\": \"new\"}")
        .with("sub/deep/empty.txt", "")
        .with_blob("sub/weights.bin", Blob::synthetic(300_000, 2))
}

/// So many that one `syncfs` serves for all.
pub fn many_small() -> Tree {
    (0..66).fold(Tree::new(), |tree, n| tree.with(&format!("d/{n}.json"), format!("{{{n}}}")))
}

/// Whether `dir` holds the files of `tree` and no others.
pub fn holds(dir: &Path, tree: &Tree) -> bool {
    let found = files_below(dir);
    found.len() == tree.len()
        && tree.iter().all(|(name, blob)| found.get(name) == Some(&blob.to_vec()))
}

#[track_caller]
pub fn assert_verifies(family: &Path, what: &str) {
    let run: Run = weightlift().arg("verify").arg(family).run();
    assert_eq!(run.code, 0, "{what}: a sentinel over a bad tree: {}", run.stderr);
}

/// Which calls belong to the publication: those from here on.
pub fn begins_publication(call: &Call) -> bool {
    call.changes() && call.path.ends_with(SENTINEL)
}
