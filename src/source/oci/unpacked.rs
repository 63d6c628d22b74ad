//! How far the archives are unpacked, and what they hold.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;

use super::archive::{Changes, Content, overlay};
use super::archive_problem::ArchiveProblem;
use super::inflate::Stream;
use super::layers::{Packed, Root};
use crate::fs::{Dir, FsError};
use crate::model::{Digest, RelPath, RemoteFile, text};
use crate::net::SourceError;

/// How far the layers are unpacked.
#[derive(Default)]
pub struct Unpacking {
    pub scratch: Option<PathBuf>,
    pub done: Vec<Changes>,
    pub current: Option<Current>,
    /// Layers that were begun: no two write under the same names.
    pub begun: u32,
    /// How often one was begun anew because it cannot be continued.
    pub restarts: u32,
    pub damaged: u32,
}

impl Unpacking {
    /// Gives up the layer that is being read, and what it has left.
    pub fn drop_current(&mut self) -> Result<(), SourceError> {
        self.current = None;
        self.clear()
    }

    /// Removes what the last layer has left: it is not used.
    pub fn clear(&self) -> Result<(), SourceError> {
        let Some(scratch) = &self.scratch else { return Ok(()) };
        let Some(dir) = Dir::open(scratch).map_err(unusable)? else { return Ok(()) };
        let left = format!("{}-", prefix(self.begun));
        for name in dir.names().map_err(unusable)?.iter().filter(|name| name.starts_with(&left)) {
            dir.remove_file(name).map_err(unusable)?;
        }
        Ok(())
    }
}

/// What the names of the files of a layer begin with.
pub fn prefix(begun: u32) -> String {
    format!("layer-{begun}")
}

pub fn unusable(error: FsError) -> SourceError {
    let why = text::inert(&error.to_string(), 300);
    SourceError::Unusable(ArchiveProblem::Write(why).into())
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
