//! Every way to fail, and its class: one exhaustive `match`, so that a new one does not compile until
//! somebody has chosen.

pub use crate::exit::Class;

use std::fmt;
use std::time::Duration;

use crate::engine::TransferError;
use crate::fs::FsError;
use crate::lock::cluster::ClusterError;
use crate::model::{ErrorFields, SelectionError, SourceUriError, text};
use crate::net::SourceError;
use crate::volume::{Lack, StoreError};

const WAIT_LONGER: &str = "raise --lock-timeout to wait longer";
const WAIT_FOR_IT: &str = "raise --lock-timeout to wait for it";
/// So many failures of one run are named, and so much of each name.
const MAX_NAMED: usize = 20;
const MAX_NAME_CHARS: usize = 120;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    SourceUri(#[from] SourceUriError),
    #[error(transparent)]
    Selection(#[from] SelectionError),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Fs(#[from] FsError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Transfer(TransferError),
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("{0}")]
    NotFound(String),
    /// `verify` found damage, or a model is not what it says.
    #[error("{0}")]
    Integrity(String),
    /// What the pod or the volume lacks.
    #[error("{0}")]
    Unusable(String),
    #[error("{0}")]
    Policy(String),
    #[error("{0}")]
    Conflict(String),
    /// The holder of the lock is stuck.
    #[error(
        "{holder} has made no progress for {}; {WAIT_LONGER}",
        text::duration(*unmoved)
    )]
    LockTimeout { holder: String, unmoved: Duration },
    /// `--lock-timeout 0s`.
    #[error("{0} fetches this model; {WAIT_FOR_IT}")]
    Locked(String),
    /// The time that the user has given to the whole run is over.
    #[error("{0}")]
    Deadline(String),
    /// Told to stop. Who was told does not know why; the end of the run says it.
    #[error("told to stop")]
    Stopped,
    #[error("stopped by {signal}; the next run resumes{}", failures.before())]
    Signal { signal: Signal, failures: Failures },
    /// Of a run for `all` models (or whatever there were several of) the error that most needs a person.
    #[error("`{name}`: {error}; {} of {all} {what} failed: {failures}", failures.count())]
    OfSeveral {
        name: String,
        error: Box<Error>,
        what: &'static str,
        failures: Failures,
        all: usize,
        /// What came of each, by its path: a status or a class of errors; failures first.
        ends: Vec<(String, &'static str)>,
    },
    /// Of the checks that `doctor` makes the failure that most needs a person.
    #[error("{failed} of {all} checks failed; {what}{}", behind(hint.as_deref()))]
    Diagnosis { class: Class, what: String, hint: Option<String>, failed: usize, all: usize },
    #[error("this is a bug in weightlift, please report it: {0}")]
    Bug(String),
}

/// What has failed of several things, by name, as a sentence has it.
#[derive(Clone, Debug, Default)]
pub struct Failures(Vec<(String, Class)>);

impl Failures {
    pub fn new<'a>(failed: impl Iterator<Item = (&'a str, Class)>) -> Self {
        Self(failed.map(|(name, class)| (text::name(name, MAX_NAME_CHARS), class)).collect())
    }

    pub fn add(&mut self, name: &str, class: Class) {
        self.0.push((text::name(name, MAX_NAME_CHARS), class));
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The end of a sentence about a run that was stopped; empty where nothing had failed by then.
    pub fn before(&self) -> String {
        if self.0.is_empty() { String::new() } else { format!("; failed before that: {self}") }
    }
}

/// `` `a` (not_found), `b` (unreachable) ``
impl fmt::Display for Failures {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (name, class)) in self.0.iter().take(MAX_NAMED).enumerate() {
            let comma = if n == 0 { "" } else { ", " };
            write!(out, "{comma}`{name}` ({})", class.name())?;
        }
        match self.0.len().saturating_sub(MAX_NAMED) {
            0 => Ok(()),
            more => write!(out, " and {more} more"),
        }
    }
}

/// Engine and commands are told to stop by the same [`crate::engine::Stop`].
impl From<TransferError> for Error {
    fn from(error: TransferError) -> Self {
        match error {
            TransferError::Stopped => Self::Stopped,
            error => Self::Transfer(error),
        }
    }
}

/// The signals that ask a run to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    Hangup,
    Interrupt,
    Terminate,
}

impl fmt::Display for Signal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Hangup => "SIGHUP",
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        })
    }
}

impl Error {
    pub fn class(&self) -> Class {
        match self {
            Self::Usage(_) | Self::SourceUri(_) => Class::Usage,
            Self::Selection(SelectionError::UnsafePath(_) | SelectionError::NoTree(_)) => {
                Class::Unsafe
            }
            Self::Selection(SelectionError::NothingSelected { .. } | SelectionError::Empty) => {
                Class::Usage
            }
            Self::Source(error) => of_source(error),
            Self::Fs(error) => of_fs(error),
            Self::Store(error) => of_store(error),
            Self::Transfer(error) => of_transfer(error),
            Self::Cluster(ClusterError::NoCluster(_)) => Class::Unusable,
            Self::Cluster(ClusterError::Refused { .. }) => Class::Access,
            Self::Cluster(ClusterError::Name(_)) => Class::Usage,
            Self::NotFound(_) => Class::NotFound,
            Self::Integrity(_) => Class::Integrity,
            Self::Unusable(_) => Class::Unusable,
            Self::Policy(_) => Class::Unsafe,
            Self::Conflict(_) => Class::Conflict,
            Self::LockTimeout { .. } | Self::Locked(_) | Self::Deadline(_) => Class::Deadline,
            Self::Signal { signal: Signal::Interrupt, .. } => Class::Interrupted,
            Self::Signal { signal: Signal::Terminate | Signal::Hangup, .. } | Self::Stopped => {
                Class::Terminated
            }
            Self::OfSeveral { error, .. } => error.class(),
            Self::Diagnosis { class, .. } => *class,
            Self::Bug(_) => Class::Bug,
        }
    }
}

impl Error {
    /// What a program can read of it beside the sentence.
    pub fn fields(&self) -> ErrorFields {
        match self {
            Self::Selection(SelectionError::UnsafePath(refused)) => {
                ErrorFields::of_file(&refused.name)
            }
            Self::Source(error) => error.fields(),
            Self::Fs(error) => ErrorFields::of_file(error.path().display()),
            Self::Store(error) => error.fields(),
            Self::Transfer(error) => error.fields(),
            Self::Cluster(error) => error.fields(),
            Self::OfSeveral { error, .. } => error.fields(),
            Self::Diagnosis { hint, .. } => {
                ErrorFields { hint: hint.clone(), ..ErrorFields::default() }
            }
            Self::LockTimeout { holder, .. } => ErrorFields::of_holder(holder).hint(WAIT_LONGER),
            Self::Locked(holder) => ErrorFields::of_holder(holder).hint(WAIT_FOR_IT),
            Self::Selection(_)
            | Self::Usage(_)
            | Self::SourceUri(_)
            | Self::NotFound(_)
            | Self::Integrity(_)
            | Self::Unusable(_)
            | Self::Policy(_)
            | Self::Conflict(_)
            | Self::Deadline(_)
            | Self::Stopped
            | Self::Signal { .. }
            | Self::Bug(_) => ErrorFields::default(),
        }
    }

    /// Whether a whole older copy may be used in place of this end: the source cannot be reached, says no,
    /// or what it holds now cannot be fetched. Not where the user's own settings are the reason, and not
    /// where the volume is, unless it only lacks room.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Source(error) => is_refusal_of_source(error),
            Self::Transfer(error) => match error {
                TransferError::Source { source, .. }
                | TransferError::GaveUp { source, .. }
                | TransferError::Setup(source) => is_refusal_of_source(source),
                TransferError::Store(_) | TransferError::Thread(_) => {
                    self.class() == Class::NoSpace
                }
                TransferError::Stopped => false,
                TransferError::Integrity { .. }
                | TransferError::Structure { .. }
                | TransferError::Header { .. }
                | TransferError::UnsteadyHeader { .. }
                | TransferError::Silent { .. }
                | TransferError::TooSlow(_) => true,
            },
            Self::Selection(_) | Self::NotFound(_) | Self::Integrity(_) => true,
            Self::Fs(_) | Self::Store(_) => self.class() == Class::NoSpace,
            Self::Usage(_)
            | Self::SourceUri(_)
            | Self::Cluster(_)
            | Self::Unusable(_)
            | Self::Policy(_)
            | Self::Conflict(_)
            | Self::LockTimeout { .. }
            | Self::Locked(_)
            | Self::Deadline(_)
            | Self::OfSeveral { .. }
            | Self::Diagnosis { .. }
            | Self::Stopped
            | Self::Signal { .. }
            | Self::Bug(_) => false,
        }
    }
}

fn is_refusal_of_source(error: &SourceError) -> bool {
    !matches!(error, SourceError::Settings(_))
}

/// A hint behind its sentence, if there is one.
fn behind(hint: Option<&str>) -> String {
    hint.map(|hint| format!("; {hint}")).unwrap_or_default()
}

fn of_source(error: &SourceError) -> Class {
    match error {
        SourceError::NotFound(_) => Class::NotFound,
        SourceError::Access(_) => Class::Access,
        SourceError::Changed(_) => Class::Conflict,
        SourceError::Contradiction(_) => Class::Integrity,
        SourceError::Unsafe(_) | SourceError::UnsafePath(_) => Class::Unsafe,
        SourceError::Trust(_) | SourceError::Unusable(_) => Class::Unusable,
        SourceError::Settings(_) => Class::Usage,
        SourceError::RateLimited { .. } => Class::RateLimited,
        SourceError::Everywhere(failures) => {
            failures.decisive().map_or(Class::Unreachable, of_source)
        }
        // The next run lists what is there by then.
        SourceError::Stale(_)
        | SourceError::Unreachable(_)
        | SourceError::Protocol(_)
        | SourceError::Again(_)
        | SourceError::NoRanges { .. } => Class::Unreachable,
    }
}

fn of_store(error: &StoreError) -> Class {
    match error {
        StoreError::Fs(error) => of_fs(error),
        StoreError::Disturbed(_) => Class::LocalIo,
        StoreError::Reserved { .. } => Class::Usage,
        StoreError::Foreign { .. }
        | StoreError::InTheWay { .. }
        | StoreError::OwnedName { .. }
        | StoreError::AnotherModel { .. }
        | StoreError::InsideFamily { .. }
        | StoreError::Sentinel { .. } => Class::Conflict,
        StoreError::Overtaken(_) => Class::Deadline,
        // As where such a file cannot be written.
        StoreError::Lacks { lack, .. } if matches!(**lack, Lack::Size { .. }) => Class::NoSpace,
        StoreError::NoAtomicPublication(_) | StoreError::Lacks { .. } => Class::Unusable,
    }
}

fn of_fs(error: &FsError) -> Class {
    match error {
        FsError::Io { .. } => of_errno(error.errno()),
        FsError::NoSpace { .. } | FsError::NoInodes { .. } => Class::NoSpace,
    }
}

fn of_errno(errno: Option<rustix::io::Errno>) -> Class {
    use rustix::io::Errno;
    match errno {
        Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => Class::NoSpace,
        Some(
            Errno::ACCESS
            | Errno::PERM
            | Errno::ROFS
            | Errno::NOTDIR
            | Errno::LOOP
            | Errno::NAMETOOLONG
            | Errno::OPNOTSUPP
            | Errno::NOSYS,
        ) => Class::Unusable,
        _ => Class::LocalIo,
    }
}

fn of_transfer(error: &TransferError) -> Class {
    match error {
        TransferError::Source { source, .. } | TransferError::GaveUp { source, .. } => {
            of_source(source)
        }
        TransferError::Integrity { .. }
        | TransferError::Structure { .. }
        | TransferError::Header { .. }
        | TransferError::UnsteadyHeader { .. } => Class::Integrity,
        TransferError::Store(error) => of_store(error),
        TransferError::Thread(_) => Class::LocalIo,
        TransferError::Setup(error) => of_source(error),
        TransferError::Silent { .. } | TransferError::TooSlow(_) => Class::Unreachable,
        TransferError::Stopped => Class::Terminated,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_a_read_only_disk_and_a_broken_disk_differ() {
        let io = |errno: rustix::io::Errno| {
            Error::from(StoreError::io("write", std::path::Path::new("/x"), errno))
                .class()
                .exit_code()
        };
        use rustix::io::Errno;
        assert_eq!(io(Errno::NOSPC), 15);
        assert_eq!(io(Errno::DQUOT), 15);
        assert_eq!(io(Errno::ROFS), 14);
        assert_eq!(io(Errno::ACCESS), 14);
        assert_eq!(io(Errno::IO), 22);
        assert_eq!(io(Errno::STALE), 22);
    }
}
