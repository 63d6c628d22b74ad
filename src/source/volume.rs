//! A model that weightlift has published in a directory: on this volume, or on another one that is
//! mounted. Its sentinel is the listing.
//!
//! The directory is opened once and read through that descriptor, so that an update of the model in the
//! meantime makes no mixture: what is read is the revision that was opened, or is gone.
//!
//! Imports `model`, `content`, `net` and `fs`; knows no other source.

use std::fs::File;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::OnceLock;

use async_trait::async_trait;
use reqwest::Client;

use crate::content::{Body, FilePart, PartProblem, Source};
use crate::fs::{Dir, FsError};
use crate::model::{
    Digest, ErrorFields, RelPath, RemoteFile, SENTINEL, Sentinel, SentinelProblem, Snapshot, text,
};
use crate::net::{Problem, SourceError};

/// What can be wrong with such a directory. Paths are inert.
#[derive(Debug, thiserror::Error)]
enum VolumeProblem {
    #[error("there is no directory `{path}`")]
    NoDirectory { path: String },
    #[error("`{path}` holds no model that weightlift has published: it has no `{SENTINEL}`")]
    NoModel { path: String },
    #[error("`{SENTINEL}` in `{path}`: {problem}")]
    Sentinel { path: String, problem: SentinelProblem },
    #[error("`{file}` is in the sentinel but missing")]
    Missing { file: RelPath },
    #[error("`{file}` has {found} bytes, but the listing says {listed}")]
    Size { file: RelPath, found: u64, listed: u64 },
    #[error("{told}")]
    Fs { path: String, told: String, hint: Option<String> },
}

impl Problem for VolumeProblem {
    fn fields(&self) -> ErrorFields {
        match self {
            Self::NoDirectory { path } => {
                ErrorFields::of_file(path).hint("check the path and the mounts of the pod")
            }
            Self::NoModel { path } => {
                ErrorFields::of_file(path).hint("check the path, or fetch the model there before")
            }
            Self::Sentinel { path, problem } => {
                ErrorFields { hint: problem.hint().map(String::from), ..ErrorFields::of_file(path) }
            }
            Self::Fs { path, hint, .. } => {
                ErrorFields { hint: hint.clone(), ..ErrorFields::of_file(path) }
            }
            Self::Missing { file } | Self::Size { file, .. } => ErrorFields::of_file(file)
                .hint("run `weightlift verify` on that directory, and fetch it again"),
        }
    }
}

/// A directory with a sentinel.
pub struct Published {
    /// As the user wrote it.
    path: PathBuf,
    pinned: OnceLock<Pinned>,
}

struct Pinned {
    dir: Dir,
    revision: String,
    files: Vec<RemoteFile>,
}

impl Published {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), pinned: OnceLock::new() }
    }

    fn pinned(&self) -> Result<&Pinned, SourceError> {
        if let Some(pinned) = self.pinned.get() {
            return Ok(pinned);
        }
        let pinned = self.open()?;
        Ok(self.pinned.get_or_init(|| pinned))
    }

    fn open(&self) -> Result<Pinned, SourceError> {
        let dir = Dir::open(&self.path).map_err(said)?.ok_or_else(|| {
            SourceError::NotFound(VolumeProblem::NoDirectory { path: self.shown() }.into())
        })?;
        let sentinel = dir.read_file(SENTINEL).map_err(said)?.ok_or_else(|| {
            SourceError::NotFound(VolumeProblem::NoModel { path: self.shown() }.into())
        })?;
        let sentinel = Sentinel::read(sentinel).map_err(|problem| {
            let path = self.shown();
            SourceError::Contradiction(VolumeProblem::Sentinel { path, problem }.into())
        })?;
        let file = |file: &crate::model::SentinelFile| {
            Ok(RemoteFile {
                path: RelPath::parse(&file.path)?,
                size: file.size,
                digest: Some(Digest::Sha256(file.sha256.0)),
                validator: None,
                xet_hash: None,
            })
        };
        let files = sentinel.files.iter().map(file).collect::<Result<_, SourceError>>()?;
        Ok(Pinned { dir, revision: sentinel.revision, files })
    }

    fn shown(&self) -> String {
        text::inert(&self.path.to_string_lossy(), 200)
    }
}

impl Pinned {
    fn file(&self, file: &RemoteFile) -> Result<File, SourceError> {
        let missing = || {
            let file = file.path.clone();
            SourceError::NotFound(VolumeProblem::Missing { file }.into())
        };
        let above = file.path.parent().into_iter().flat_map(|parent| parent.split('/'));
        let dir = self.dir.descend(above).map_err(said)?.ok_or_else(missing)?;
        let opened = dir.read_file(file.path.name()).map_err(said)?.ok_or_else(missing)?;
        let len = opened.metadata().map_err(|error| unreadable(&file.path, error))?.len();
        if len != file.size {
            return Err(SourceError::Stale(
                VolumeProblem::Size { file: file.path.clone(), found: len, listed: file.size }
                    .into(),
            ));
        }
        Ok(opened)
    }
}

#[async_trait]
impl Source for Published {
    async fn revision(&self) -> Result<String, SourceError> {
        Ok(self.pinned()?.revision.clone())
    }

    async fn snapshot(&self) -> Result<Snapshot, SourceError> {
        let Pinned { revision, files, .. } = self.pinned()?;
        let name = format!("file://{}", self.path.display());
        Ok(Snapshot::new(name, revision.clone(), files.clone(), Vec::new()))
    }

    async fn read(
        &self,
        _: &Client,
        file: &RemoteFile,
        range: Range<u64>,
    ) -> Result<Body, SourceError> {
        let opened = self.pinned()?.file(file)?;
        Ok(FilePart::new(opened, file.path.to_string(), range).into())
    }

    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }
}

fn said(error: FsError) -> SourceError {
    use rustix::io::Errno;
    let errno = error.errno();
    let told = VolumeProblem::Fs {
        path: text::inert(&error.path().to_string_lossy(), 200),
        told: text::inert(&error.what(), 400),
        hint: error.hint().map(Into::into),
    };
    let told = told.into();
    match errno {
        Some(Errno::ACCESS | Errno::PERM) => SourceError::Access(told),
        Some(Errno::NOTDIR | Errno::LOOP | Errno::INVAL | Errno::NAMETOOLONG) => {
            SourceError::Unusable(told)
        }
        // Also a stale handle of NFS.
        _ => SourceError::Unreachable(told),
    }
}

fn unreadable(path: &RelPath, why: std::io::Error) -> SourceError {
    SourceError::Unreachable(PartProblem::Unreadable { file: path.to_string(), why }.into())
}
