//! Every way to fail, and its class: one exhaustive `match`, so that a new one does not compile until
//! somebody has chosen.

pub use crate::exit::Class;
pub use crate::failures::{Failures, MAX_CHARS};

use std::fmt;
use std::time::Duration;

use crate::engine::TransferError;
use crate::failures::sentence;
use crate::fs::FsError;
use crate::lock::cluster::ClusterError;
use crate::model::{ErrorFields, Message, SelectionError, SourceUriError, text};
use crate::net::SourceError;
use crate::volume::{Lack, StoreError};

const WAIT_LONGER: &str = "raise --lock-timeout to wait longer";
const WAIT_FOR_IT: &str = "raise --lock-timeout to wait for it";
const PIN_AGAIN: &str = "run `weightlift pin` to update it";
const FAILED_BEFORE: &str = "; failed before that: ";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Usage(Message),
    #[error(transparent)]
    SourceUri(#[from] SourceUriError),
    #[error(transparent)]
    Selection(#[from] SelectionError),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Fs(FsError),
    #[error(transparent)]
    Store(StoreError),
    #[error(transparent)]
    Transfer(TransferError),
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("{0}")]
    NotFound(Message),
    /// `verify` found damage, or a model is not what it says.
    #[error("{0}")]
    Integrity(Message),
    /// What the pod or the volume lacks.
    #[error("{0}")]
    Unusable(Message),
    #[error("{0}")]
    Policy(Message),
    #[error("{0}")]
    Conflict(Message),
    /// The holder of the lock is stuck.
    #[error(
        "{holder} has made no progress for {}; {WAIT_LONGER}",
        text::duration(*unmoved)
    )]
    LockTimeout { holder: String, unmoved: Duration },
    /// `--lock-timeout 0s`.
    #[error("{0} is fetching this model; {WAIT_FOR_IT}")]
    Locked(String),
    /// The time that the user has given to the whole run is over.
    #[error("{0}")]
    Deadline(Message),
    /// The same of a run for several, of which some may have failed before; `class` is what that makes of it.
    #[error("{}", out_of_time(MAX_CHARS, message, failures))]
    OutOfTime { class: Class, message: Message, failures: Failures },
    /// Told to stop. Who was told does not know why; the end of the run says it.
    #[error("told to stop")]
    Stopped,
    #[error("{}", of_signal(MAX_CHARS, *signal, failures))]
    Signal { signal: Signal, failures: Failures },
    /// Of a run for `all` models (or whatever there were several of) the error that most needs a person.
    #[error("{}", of_several(MAX_CHARS, name, error, what, failures, *all, aside))]
    OfSeveral {
        name: String,
        error: Box<Error>,
        what: &'static str,
        failures: Failures,
        all: usize,
        /// What is to be said of those that have not failed; empty, or behind a semicolon.
        aside: Box<str>,
        /// What came of each, by its path: a status or a class of errors; failures first.
        ends: Vec<(String, &'static str)>,
    },
    /// `pin --check` found what has moved; of `unchecked` nobody knows.
    #[error("{}", of_moved(MAX_CHARS, what, unchecked))]
    Moved { what: String, unchecked: Failures },
    /// Of the checks that `doctor` makes the failure that most needs a person.
    #[error("{failed} of {all} checks failed; {what}{}", behind(hint.as_deref()))]
    Diagnosis { class: Class, what: String, hint: Option<String>, failed: usize, all: usize },
    #[error("this is a bug in weightlift, please report it: {0}")]
    Bug(String),
}

/// Engine and commands are told to stop by the same [`crate::engine::Stop`].
impl From<TransferError> for Error {
    fn from(error: TransferError) -> Self {
        match error {
            TransferError::Stopped => Self::Stopped,
            TransferError::Store(error) => Self::Transfer(TransferError::Store(error.explained())),
            error => Self::Transfer(error),
        }
    }
}

/// What the system says of a volume that is read-only or closed to this user is said in words here, for every
/// command: whoever has work left in spite of it never makes an [`Error`] of it.
impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::Store(error.explained())
    }
}

impl From<FsError> for Error {
    fn from(error: FsError) -> Self {
        match StoreError::from(error).explained() {
            StoreError::Fs(error) => Self::Fs(error),
            error => Self::Store(error),
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
            Self::Conflict(_) | Self::Moved { .. } => Class::Conflict,
            Self::LockTimeout { .. } | Self::Locked(_) | Self::Deadline(_) => Class::Deadline,
            Self::OutOfTime { class, .. } => *class,
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
    /// The sentence in at most so many characters, in which what has failed is named as far as there is room.
    pub fn within(&self, max_chars: usize) -> String {
        match self {
            Self::OfSeveral { name, error, what, failures, all, aside, .. } => {
                of_several(max_chars, name, error, what, failures, *all, aside)
            }
            Self::Signal { signal, failures } => of_signal(max_chars, *signal, failures),
            Self::OutOfTime { message, failures, .. } => out_of_time(max_chars, message, failures),
            Self::Moved { what, unchecked } => of_moved(max_chars, what, unchecked),
            error => text::inert(&error.to_string(), max_chars),
        }
    }

    /// What the sentence about several says at its end, of others than those that have failed.
    pub fn beside(mut self, said: String) -> Self {
        if let Self::OfSeveral { aside, .. } = &mut self {
            *aside = said.into();
        }
        self
    }

    /// What a program can read of it beside the sentence.
    pub fn fields(&self) -> ErrorFields {
        let fields = self.known_fields();
        let hint = fields.hint.map(|hint| text::inert(&hint, MAX_CHARS));
        ErrorFields { hint, ..fields }
    }

    /// The sentence where it is a part of another one, to which the hint does not belong.
    pub fn without_hint(&self) -> String {
        let sentence = self.to_string();
        let end = self.known_fields().hint.map(|hint| format!("; {hint}")).unwrap_or_default();
        sentence.strip_suffix(end.as_str()).unwrap_or(&sentence).to_owned()
    }

    fn known_fields(&self) -> ErrorFields {
        match self {
            Self::Selection(error @ SelectionError::UnsafePath(refused)) => ErrorFields {
                hint: error.hint().map(String::from),
                ..ErrorFields::of_file(&refused.name)
            },
            Self::Source(error) => error.fields(),
            Self::Fs(error) => error.fields(),
            Self::Store(error) => error.fields(),
            Self::Transfer(error) => error.fields(),
            Self::Cluster(error) => error.fields(),
            Self::OfSeveral { error, .. } => error.fields(),
            Self::Diagnosis { hint, .. } => ErrorFields::of_hint(hint.clone()),
            Self::LockTimeout { holder, .. } => ErrorFields::of_holder(holder).hint(WAIT_LONGER),
            Self::Locked(holder) => ErrorFields::of_holder(holder).hint(WAIT_FOR_IT),
            Self::Moved { .. } => ErrorFields::default().hint(PIN_AGAIN),
            Self::Usage(message)
            | Self::NotFound(message)
            | Self::Integrity(message)
            | Self::Unusable(message)
            | Self::Policy(message)
            | Self::Conflict(message)
            | Self::Deadline(message)
            | Self::OutOfTime { message, .. } => ErrorFields::of_hint(message.hint.clone()),
            Self::Selection(error) => ErrorFields::of_hint(error.hint()),
            Self::SourceUri(error) => ErrorFields::of_hint(Some(error.hint())),
            Self::Stopped | Self::Signal { .. } | Self::Bug(_) => ErrorFields::default(),
        }
    }

    /// Whether a whole older copy may be used in place of this end: the source cannot be reached, says no,
    /// or what it holds now cannot be fetched. Not where the user's own settings are the reason, and not
    /// where the volume is, unless it only lacks room or is read-only: whoever only reads it needs neither.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Source(error) => is_refusal_of_source(error),
            Self::Transfer(error) => match error {
                TransferError::Source { source, .. }
                | TransferError::GaveUp { source, .. }
                | TransferError::Setup(source) => is_refusal_of_source(source),
                TransferError::Store(error) => {
                    error.is_read_only() || self.class() == Class::NoSpace
                }
                TransferError::Thread(_) => self.class() == Class::NoSpace,
                TransferError::Stopped => false,
                TransferError::Integrity { .. }
                | TransferError::Structure { .. }
                | TransferError::Header { .. }
                | TransferError::UnsteadyHeader { .. }
                | TransferError::Silent { .. }
                | TransferError::TooSlow(_) => true,
            },
            Self::Selection(_) | Self::NotFound(_) | Self::Integrity(_) => true,
            Self::Fs(_) => self.class() == Class::NoSpace,
            Self::Store(error) => error.is_read_only() || self.class() == Class::NoSpace,
            Self::Usage(_)
            | Self::SourceUri(_)
            | Self::Cluster(_)
            | Self::Unusable(_)
            | Self::Policy(_)
            | Self::Conflict(_)
            | Self::LockTimeout { .. }
            | Self::Locked(_)
            | Self::Deadline(_)
            | Self::OutOfTime { .. }
            | Self::Moved { .. }
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

fn of_several(
    max_chars: usize,
    name: &str,
    error: &Error,
    what: &str,
    failures: &Failures,
    all: usize,
    aside: &str,
) -> String {
    let matter = format!("`{name}`: {error}");
    let lead = format!("; {} of {all} {what} failed: ", failures.count());
    sentence(max_chars, &matter, &lead, failures, aside)
}

fn of_signal(max_chars: usize, signal: Signal, failures: &Failures) -> String {
    let matter = format!("stopped by {signal}; the next run resumes");
    sentence(max_chars, &matter, FAILED_BEFORE, failures, "")
}

fn out_of_time(max_chars: usize, message: &Message, failures: &Failures) -> String {
    sentence(max_chars, &message.to_string(), FAILED_BEFORE, failures, "")
}

fn of_moved(max_chars: usize, what: &str, unchecked: &Failures) -> String {
    let tail = behind(Some(PIN_AGAIN));
    sentence(max_chars, what, "; not checked: ", unchecked, &tail)
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
        | StoreError::HoldsModels { .. }
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
