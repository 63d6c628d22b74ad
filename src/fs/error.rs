//! What can go wrong with a file or a directory.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::model::text;

#[derive(Debug, thiserror::Error)]
pub enum FsError {
    #[error("cannot {doing} `{}`: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "`{}` has {} free, {} more {} needed; enlarge the volume or remove old models{}",
        path.display(), text::size(*free), text::size(need.saturating_sub(*free)),
        if need.saturating_sub(*free) == 1 { "is" } else { "are" }, also(held)
    )]
    NoSpace { path: PathBuf, free: u64, need: u64, held: String },
    #[error(
        "`{}` has {free} free inodes, {need} are needed; remove small files or enlarge the volume{}",
        path.display(), also(held)
    )]
    NoInodes { path: PathBuf, free: u64, need: u64, held: String },
}

impl FsError {
    pub fn io(doing: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Io { doing, path: path.to_owned(), source: source.into() }
    }

    /// What it is about.
    pub fn path(&self) -> &Path {
        let (Self::Io { path, .. } | Self::NoSpace { path, .. } | Self::NoInodes { path, .. }) =
            self;
        path
    }

    /// The system's error number, where there is one.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Io { source, .. } => Errno::from_io_error(source),
            Self::NoSpace { .. } | Self::NoInodes { .. } => None,
        }
    }

    /// Whether this user may not do that.
    pub fn is_closed(&self) -> bool {
        matches!(self.errno(), Some(Errno::ACCESS | Errno::PERM))
    }

    /// What holds the space that is missing, if that was told.
    pub fn held(&self) -> Option<&str> {
        match self {
            Self::NoSpace { held, .. } | Self::NoInodes { held, .. } if !held.is_empty() => {
                Some(held)
            }
            _ => None,
        }
    }

    /// Says as well what holds the space that is missing, where the message has room for it.
    pub fn with_what_is_held(&mut self, by: &str) -> bool {
        match self {
            Self::NoSpace { held, .. } | Self::NoInodes { held, .. } => {
                by.clone_into(held);
                true
            }
            Self::Io { .. } => false,
        }
    }
}

/// The end of a message, if there is more to say.
fn also(held: &str) -> String {
    if held.is_empty() { String::new() } else { format!("; {held}") }
}
