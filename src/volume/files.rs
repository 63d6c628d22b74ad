//! How the files of a published model are found by their paths: they lie in its directory, or the links there
//! lead to them.

use std::path::Path;

use rustix::io::Errno;

use super::StoreError;
use super::existing::first_difference;
use crate::fs::{Dir, Followed, FsError, Kind};
use crate::model::hf_cache::{BLOBS, blob_of};
use crate::model::{RelPath, Sentinel};

/// The files of one published model.
#[derive(Debug)]
pub struct PublishedFiles {
    dir: Dir,
    blobs: Option<Blobs>,
}

/// Where the links in a cache lead that are followed; no other is.
#[derive(Debug)]
pub(super) struct Blobs {
    /// What a link of this directory may lead to in turn lies below here.
    pub hub: Dir,
    /// The name of the repo there.
    pub repo: String,
    pub dir: Dir,
}

impl Blobs {
    /// The file that the blob `name` is, or leads to.
    pub fn find(&self, name: &str) -> Result<Option<(Dir, String)>, FsError> {
        Ok(match self.dir.kind(name)? {
            Some(Kind::File) => Some((self.dir.again()?, name.to_owned())),
            Some(Kind::Link) => match self.hub.follow(&format!("{}/{BLOBS}/{name}", self.repo)) {
                Followed::File { dir, name } => Some((dir, name)),
                Followed::Outside | Followed::Nothing => None,
            },
            Some(Kind::Directory | Kind::Other) | None => None,
        })
    }
}

impl PublishedFiles {
    /// In a directory without links.
    pub fn plain(dir: Dir) -> Self {
        Self { dir, blobs: None }
    }

    /// With links to `blobs`, if there are any.
    pub(super) fn of_cache(dir: Dir, blobs: Option<Blobs>) -> Self {
        Self { dir, blobs }
    }

    /// The directory that has the paths.
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The directory that the file is in, and its name there.
    pub fn find(&self, path: &RelPath) -> Result<Option<(Dir, String)>, FsError> {
        let parent = path.parent().into_iter().flat_map(|parent| parent.split('/'));
        let Some(parent) = self.dir.descend(parent)? else { return Ok(None) };
        match &self.blobs {
            Some(blobs) if parent.kind(path.name())? == Some(Kind::Link) => {
                let target = parent.link_target(path.name())?;
                blob_of(path, &target).map_or(Ok(None), |name| blobs.find(name))
            }
            _ => Ok(Some((parent, path.name().to_owned()))),
        }
    }

    /// The first file that is missing or has another size than the sentinel says.
    pub fn first_difference(&self, sentinel: &Sentinel) -> Result<Option<String>, StoreError> {
        if self.blobs.is_none() {
            return first_difference(&self.dir, sentinel);
        }
        for file in &sentinel.files {
            let Ok(path) = RelPath::parse(&file.path) else {
                return Ok(Some(format!("`{}` is not a safe path", file.path)));
            };
            let size = match self.find(&path) {
                Ok(Some((dir, name))) => dir.file_size(&name)?,
                Ok(None) => None,
                Err(error) if matches!(error.errno(), Some(Errno::NOTDIR | Errno::LOOP)) => None,
                Err(error) => return Err(error.into()),
            };
            match size {
                Some(size) if size == file.size => {}
                Some(size) => {
                    return Ok(Some(format!("`{path}` has {size} bytes instead of {}", file.size)));
                }
                None => return Ok(Some(format!("`{path}` is missing"))),
            }
        }
        Ok(None)
    }
}
