//! A model in two revisions, and the ways in which it gets where it is.

use std::path::{Path, PathBuf};

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
    /// The model is a snapshot in a cache of the Hub's clients.
    HfCache,
}

impl Layout {
    /// What the fetch is told beside the usual.
    pub fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::HfCache => &["--layout", "hf-cache"],
            Self::Links | Self::LinksAlone | Self::Exchange | Self::InPlace => &[],
        }
    }

    /// What a server would load on a volume with this root, if there is a model.
    pub fn shown(self, root: &Path) -> PathBuf {
        let repo = cached_repo(root);
        match (self, std::fs::read_to_string(repo.join("refs/main"))) {
            (Self::HfCache, Ok(commit)) => repo.join("snapshots").join(commit),
            (Self::HfCache, Err(_)) => repo.join("snapshots/none"),
            _ => root.join("tiny"),
        }
    }

    /// Whether a server would find a model there.
    pub fn is_shown(self, root: &Path) -> bool {
        match self {
            Self::HfCache => cached_repo(root).join("refs/main").exists(),
            _ => self.shown(root).join(SENTINEL).exists(),
        }
    }

    /// Where revisions lie beside each other.
    pub fn revisions(self, root: &Path) -> PathBuf {
        match self {
            Self::HfCache => cached_repo(root).join("snapshots"),
            _ => root.join(".weightlift/revisions/tiny"),
        }
    }

    /// What this kind of volume does to a call, whatever else happens.
    pub fn refuses(self, call: &Call) -> Option<Act> {
        match (self, call.name) {
            (Self::LinksAlone, "renameat2") => Some(Act::Fail(Errno::EINVAL)),
            (Self::Exchange, "symlinkat") => Some(Act::Fail(Errno::EPERM)),
            _ => None,
        }
    }
}

/// The directory of the repo in a cache.
pub fn cached_repo(root: &Path) -> PathBuf {
    root.join("hub/models--org--tiny")
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

/// A revision with a file of many chunks, and one that has other bytes in the middle of it and behind its end.
pub fn chunked() -> [Tree; 2] {
    let content = Blob::synthetic(900_000, 21).to_vec();
    let mut edited = [&content[..], &Blob::synthetic(70_000, 22).to_vec()].concat();
    edited[450_000..450_100].fill(0);
    let tree = |content| old().with("sub/chunked.bin", content);
    [tree(content), tree(edited)]
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
    call.changes() && (call.path.ends_with(SENTINEL) || call.path.ends_with("cache-sentinel"))
}
