//! What can go wrong on the volume.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;

use crate::model::{SentinelProblem, text};

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot {doing} `{}`: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "`{}` holds files that weightlift did not put there; choose another DEST or move them away",
        .0.display()
    )]
    Foreign(PathBuf),
    #[error("`{}` is {what}; choose another DEST or move it away", path.display())]
    InTheWay { path: PathBuf, what: &'static str },
    #[error("`{}` lies inside the published model `{}`; choose another DEST", inner.display(), outer.display())]
    InsideFamily { inner: PathBuf, outer: PathBuf },
    #[error("`{}`: {problem}", path.display())]
    Sentinel { path: PathBuf, problem: SentinelProblem },
    #[error(
        "`{}` has {} free, {} more {} needed; enlarge the volume or remove old models",
        path.display(), text::size(*free), text::size(need.saturating_sub(*free)),
        if need.saturating_sub(*free) == 1 { "is" } else { "are" }
    )]
    NoSpace { path: PathBuf, free: u64, need: u64 },
    #[error("`{}` has {free} free inodes, {need} are needed; remove small files or enlarge the volume", path.display())]
    NoInodes { path: PathBuf, free: u64, need: u64 },
    #[error("another process publishes into `{}` at the same time; run again", .0.display())]
    Overtaken(PathBuf),
    #[error("somebody else changes or removes what weightlift keeps at `{}`; run again", .0.display())]
    Disturbed(PathBuf),
    #[error("waited {} for {holder}; raise --lock-timeout to wait longer", text::duration(*waited))]
    LockTimeout { waited: Duration, holder: String },
    #[error(
        "`{}` can neither exchange, rename nor link directories, so a model cannot appear there in \
         one step; use a volume of another kind, or --allow-degraded to fill the directory file by file",
        .0.display()
    )]
    NoAtomicPublication(PathBuf),
}

impl StoreError {
    pub fn io(doing: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Io { doing, path: path.to_owned(), source: source.into() }
    }

    /// The system's error number, where there is one.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Io { source, .. } => Errno::from_io_error(source),
            _ => None,
        }
    }
}
