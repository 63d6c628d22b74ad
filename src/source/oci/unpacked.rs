//! How far the archives are unpacked, and what they hold.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;

use super::archive::{Changes, Content, overlay};
use super::archive_problem::ArchiveProblem;
use super::inflate::Stream;
use super::layers::{Packed, Root};
use crate::model::{Digest, RelPath, RemoteFile};

/// How far the layers are unpacked.
#[derive(Default)]
pub struct Unpacking {
    pub scratch: Option<PathBuf>,
    pub done: Vec<Changes>,
    pub current: Option<Current>,
    /// Layers that were begun: no two write under the same names.
    pub begun: u32,
    pub damaged: u32,
}

/// A layer that is being read.
pub struct Current {
    pub stream: Stream,
    pub hash: digest::Context,
    /// Bytes that were read.
    pub at: u64,
    /// Why nothing more is unpacked. The rest is read for the digest, which tells damage from a bad archive.
    pub failed: Option<ArchiveProblem>,
}

/// What all layers have.
#[derive(Default)]
pub struct Unpacked {
    pub scratch: Option<PathBuf>,
    pub files: Vec<RemoteFile>,
    /// What each is called in the scratch directory, if there is one.
    pub names: HashMap<RelPath, Option<String>>,
}

impl Unpacked {
    /// Layers of an image lie one over the other; others lie beside each other.
    pub fn of(layers: &[Packed], all: Vec<Changes>, scratch: Option<&Path>) -> Self {
        let (mut image, mut beside) = (BTreeMap::new(), Vec::new());
        for (layer, changes) in layers.iter().zip(all) {
            match layer.root {
                Root::Models => overlay(&mut image, changes),
                Root::All => beside.extend(changes.files),
            }
        }
        let mut unpacked = Self { scratch: scratch.map(Path::to_owned), ..Self::default() };
        for (path, Content { size, sha256, stored }) in image.into_iter().chain(beside) {
            unpacked.names.insert(path.clone(), stored);
            let digest = Some(Digest::Sha256(sha256));
            let (validator, xet_hash) = (None, None);
            unpacked.files.push(RemoteFile { path, size, digest, validator, xet_hash });
        }
        unpacked
    }
}
