//! What can go wrong with a file or a directory.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::model::{ErrorFields, text};

#[derive(Debug, thiserror::Error)]
pub enum FsError {
    #[error("cannot {doing} `{}`: {source}{}", path.display(), behind(self.hint()))]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "`{}` has {} free, {} more {} needed{}",
        path.display(), text::size(*free), text::size(need.saturating_sub(*free)),
        if need.saturating_sub(*free) == 1 { "is" } else { "are" }, behind(self.hint())
    )]
    NoSpace { path: PathBuf, free: u64, need: u64, held: String },
    #[error(
        "`{}` has {free} free inodes, {need} are needed{}",
        path.display(), behind(self.hint())
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

    /// What the user can do about it, as its sentence ends.
    pub fn hint(&self) -> Option<Cow<'static, str>> {
        let (hint, held) = match self {
            Self::NoSpace { held, .. } => ("enlarge the volume or remove old models", held),
            Self::NoInodes { held, .. } => ("remove small files or enlarge the volume", held),
            Self::Io { .. } => return of_errno(self.errno()?).map(Cow::Borrowed),
        };
        Some(match held.as_str() {
            "" => hint.into(),
            held => format!("{hint}; {held}").into(),
        })
    }

    /// The sentence without that.
    pub fn what(&self) -> String {
        let (sentence, end) = (self.to_string(), behind(self.hint()));
        sentence.strip_suffix(end.as_str()).unwrap_or(&sentence).to_owned()
    }

    /// What a program can read of it.
    pub fn fields(&self) -> ErrorFields {
        let fields = ErrorFields::of_file(self.path().display());
        ErrorFields { hint: self.hint().map(Into::into), ..fields }
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
fn of_errno(errno: Errno) -> Option<&'static str> {
    match errno {
        // The system does not say which of the two it was.
        Errno::NOSPC => Some(
            "remove old models, or enlarge the volume: it has no free bytes or no free inodes (`weightlift doctor` shows \
             both)",
        ),
        Errno::DQUOT => Some("remove old models, or raise the quota of the volume"),
        Errno::ROFS => Some("mount it writable, or let another pod fetch"),
        Errno::ACCESS | Errno::PERM => {
            Some("compare owner and mode of the path with runAsUser and fsGroup of the pod")
        }
        _ => None,
    }
}

fn behind(hint: Option<Cow<'_, str>>) -> String {
    hint.map(|hint| format!("; {hint}")).unwrap_or_default()
}
