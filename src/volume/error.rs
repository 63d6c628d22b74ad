//! What can go wrong on the volume.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::foreign::SHOWN;
use super::{Foreign, Lack, Obstacle};
use crate::fs::FsError;
use crate::model::{ErrorFields, SentinelProblem, exclude_flag, text};

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Fs(#[from] FsError),
    #[error(
        "`{}` holds {found}; {}",
        path.display(), self.advice()
    )]
    Foreign { path: PathBuf, found: Foreign },
    #[error(
        "`{}` is {what}, but a directory is needed there; {}",
        path.display(), self.advice()
    )]
    InTheWay { path: PathBuf, what: String },
    #[error("`{}`: `{name}` is a name that filesystems reserve; {}", path.display(), self.advice())]
    Reserved { path: PathBuf, name: String },
    #[error(
        "`{}` is reserved by the filesystem, and the model has a file of that name; {}",
        path.display(), self.advice()
    )]
    OwnedName { path: PathBuf, name: String },
    #[error("`{}` lies inside the published model `{}`; {}", inner.display(), outer.display(), self.advice())]
    InsideFamily { inner: PathBuf, outer: PathBuf },
    #[error("`{}` holds the {}; {}", path.display(), named(models), self.advice())]
    HoldsModels { path: PathBuf, models: Vec<String> },
    #[error("`{}`: {problem}{}", path.display(), problem.hint().map(|hint| format!("; {hint}")).unwrap_or_default())]
    Sentinel { path: PathBuf, problem: SentinelProblem },
    #[error(
        "`{}` already holds {source_name}; {}",
        path.display(), self.advice()
    )]
    AnotherModel { path: PathBuf, source_name: String },
    #[error("another process is publishing into `{}` at the same time; {}", .0.display(), self.advice())]
    Overtaken(PathBuf),
    #[error("another program changes or removes weightlift's working files at `{}`; {}", .0.display(), self.advice())]
    Disturbed(PathBuf),
    #[error(
        "`{}` can neither exchange, rename nor link directories, so a model cannot appear there in \
         one step; {}",
        .0.display(), self.advice()
    )]
    NoAtomicPublication(PathBuf),
    #[error("`{}` {lack}", path.display())]
    Lacks { path: PathBuf, lack: Box<Lack> },
}

impl StoreError {
    pub fn io(doing: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        FsError::io(doing, path, source).into()
    }

    /// Says as well what holds the space that is missing, where the message has room for it.
    pub fn with_what_is_held(&mut self, by: &str) -> bool {
        match self {
            Self::Fs(error) => error.with_what_is_held(by),
            _ => false,
        }
    }

    /// What a program can read of it.
    pub fn fields(&self) -> ErrorFields {
        let path = match self {
            Self::Fs(error) => error.path(),
            Self::InsideFamily { inner, .. } => inner,
            Self::Foreign { path, .. }
            | Self::InTheWay { path, .. }
            | Self::Reserved { path, .. }
            | Self::OwnedName { path, .. }
            | Self::HoldsModels { path, .. }
            | Self::Sentinel { path, .. }
            | Self::AnotherModel { path, .. }
            | Self::Lacks { path, .. } => path,
            Self::Overtaken(path) | Self::Disturbed(path) | Self::NoAtomicPublication(path) => path,
        };
        ErrorFields { hint: self.hint().map(Into::into), ..ErrorFields::of_file(path.display()) }
    }

    /// What the user can do about it, as its sentence ends.
    pub fn hint(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Fs(error) => error.hint(),
            Self::Sentinel { problem, .. } => problem.hint().map(Cow::Borrowed),
            Self::Lacks { lack, .. } => lack.message().hint,
            Self::OwnedName { name, .. } => Some(
                format!("choose another DEST, or leave it out with {}", exclude_flag(name)).into(),
            ),
            error => Some(Cow::Borrowed(match error {
                Self::Foreign { .. } => {
                    "choose another DEST, move or remove what is there, or reuse it with --adopt"
                }
                Self::InTheWay { .. } => "choose another DEST, or move or remove what is there",
                Self::AnotherModel { .. } => {
                    "choose another DEST, or replace what is there with --replace"
                }
                Self::Overtaken(_) => "run again",
                Self::Disturbed(_) => "stop that program and run again",
                Self::NoAtomicPublication(_) => {
                    "use a volume of another kind, or --allow-degraded to fill the directory file by file"
                }
                _ => "choose another DEST",
            })),
        }
    }

    fn advice(&self) -> Cow<'static, str> {
        self.hint().unwrap_or_default()
    }

    /// Whether this user may not do that.
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Fs(error) if error.is_closed())
    }

    /// Whether nothing can be written there, by anybody.
    pub fn is_read_only(&self) -> bool {
        let is_so =
            |lack: &Lack| matches!(lack, Lack::Obstacle { obstacle: Obstacle::ReadOnly, .. });
        matches!(self, Self::Lacks { lack, .. } if is_so(lack))
    }

    /// The system's error number, where there is one.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Fs(error) => error.errno(),
            _ => None,
        }
    }
}

/// The first models that lie somewhere: `models `a/b`, `a/c``.
fn named(models: &[String]) -> String {
    let shown = |model: &String| format!("`{}`", text::name(model, 120));
    let names: Vec<String> = models.iter().take(SHOWN).map(shown).collect();
    let plural = if models.len() == 1 { "" } else { "s" };
    let others = if models.len() > SHOWN { " and others" } else { "" };
    format!("model{plural} {}{others}", names.join(", "))
}
