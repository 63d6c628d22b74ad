//! What can go wrong at a source, by what to do about it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::model::{ErrorFields, UnsafePath};

/// What went wrong, as the module describes it where it did. Its `Display` is what happened, without the
/// hint, which is a field; every text from the other side in it is inert.
pub trait Problem: std::error::Error + Send + Sync + 'static {
    fn fields(&self) -> ErrorFields {
        ErrorFields::default()
    }
}

/// A [`Problem`] of any source. Its `Display` is the whole sentence: what happened, and what to do; the
/// alternate one (`{:#}`) is only what happened.
#[derive(Clone, Debug)]
pub struct Cause(Arc<dyn Problem>);

impl Cause {
    pub fn fields(&self) -> ErrorFields {
        self.0.fields()
    }
}

impl<P: Problem> From<P> for Cause {
    fn from(problem: P) -> Self {
        Self(Arc::new(problem))
    }
}

/// Words without any value in them.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Words(&'static str);

impl Problem for Words {}

impl From<&'static str> for Cause {
    fn from(words: &'static str) -> Self {
        Words(words).into()
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.0)?;
        match self.fields().hint {
            Some(hint) if !out.alternate() => write!(out, "; {hint}"),
            _ => Ok(()),
        }
    }
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum SourceError {
    /// Repo, revision, file, bucket or key.
    #[error("{0}")]
    NotFound(Cause),
    /// 401, 403, gated, expired credentials.
    #[error("{0}")]
    Access(Cause),
    /// The source holds something else than what was pinned, and will in the next run.
    #[error("{0}")]
    Changed(Cause),
    /// What was listed is not there any more: another try of the same is no use, another run, which
    /// lists anew, is.
    #[error("{0}")]
    Stale(Cause),
    /// What arrives is not what the source itself says of it, and will not be in another run.
    #[error("{0}")]
    Contradiction(Cause),
    /// The answer must not be used.
    #[error("{0}")]
    Unsafe(Cause),
    #[error(transparent)]
    UnsafePath(#[from] UnsafePath),
    /// The other side's certificate is not trusted.
    #[error("{0}")]
    Trust(Cause),
    /// This machine cannot do it: its clock is wrong.
    #[error("{0}")]
    Unusable(Cause),
    /// Settings that cannot work: a bad endpoint, an unreadable certificate file.
    #[error("{0}")]
    Settings(Cause),

    /// No usable answer: refused, reset, timed out, 5xx. Worth trying again after a while.
    #[error("{0}")]
    Unreachable(Cause),
    /// An answer that breaks the protocol. Worth a few more tries.
    #[error("{0}")]
    Protocol(Cause),
    /// Something is different now (a link was renewed): try again at once.
    #[error("{0}")]
    Again(Cause),
    /// The server sends the whole file instead of the range.
    #[error("`{host}` does not serve ranges of `{file}`")]
    NoRanges { host: String, file: String },
    /// The pace of this host already includes the wait.
    #[error("`{host}` limits the rate of requests for another {}", crate::model::text::duration(*wait))]
    RateLimited { host: String, wait: Duration },

    /// Several places have the same bytes, and reading them has failed.
    #[error("{0}")]
    Everywhere(Failures),
}

/// What each of several places said.
#[derive(Clone, Debug)]
pub struct Failures {
    /// The place, and its last error. The place that was pinned comes last.
    pub each: Vec<(String, Arc<SourceError>)>,
    /// No place is left that could be asked again in this run.
    pub is_final: bool,
    /// They are ways to one storage: what the pinned one has refused, another run will not find there.
    pub is_one_storage: bool,
}

impl Failures {
    /// The error that says what to do: where one place may work in another run, that run is worth it.
    pub fn decisive(&self) -> Option<&SourceError> {
        let errors = || self.each.iter().map(|(_, error)| error.as_ref());
        let may_pass = errors().find(|error| error.is_transient());
        let may_pass = may_pass.filter(|_| !(self.is_final && self.is_one_storage));
        may_pass.or_else(|| errors().next_back())
    }
}

impl fmt::Display for Failures {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (place, error)) in self.each.iter().enumerate() {
            let between = if n > 0 { "; " } else { "" };
            write!(out, "{between}{place}: {error}")?;
        }
        Ok(())
    }
}

/// An error that is not made of a cause, as one.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct Whole(SourceError);

impl Problem for Whole {
    fn fields(&self) -> ErrorFields {
        ErrorFields { hint: None, ..self.0.fields() }
    }
}

impl std::error::Error for Failures {}

/// The fields are those of the decisive error; the sentence has them all.
impl Problem for Failures {
    fn fields(&self) -> ErrorFields {
        let decisive = self.decisive().map(SourceError::fields).unwrap_or_default();
        // The sentence of its place ends with it.
        ErrorFields { hint: None, ..decisive }
    }
}

impl SourceError {
    /// What a program can read of it.
    pub fn fields(&self) -> ErrorFields {
        match self {
            Self::NotFound(cause)
            | Self::Access(cause)
            | Self::Changed(cause)
            | Self::Stale(cause)
            | Self::Contradiction(cause)
            | Self::Unsafe(cause)
            | Self::Trust(cause)
            | Self::Unusable(cause)
            | Self::Settings(cause)
            | Self::Unreachable(cause)
            | Self::Protocol(cause)
            | Self::Again(cause) => cause.fields(),
            Self::UnsafePath(refused) => ErrorFields::of_file(&refused.name),
            Self::NoRanges { host, file } => ErrorFields::of_host(host).file(file),
            Self::RateLimited { host, .. } => ErrorFields::of_host(host),
            Self::Everywhere(failures) => failures.decisive().map(Self::fields).unwrap_or_default(),
        }
    }

    /// What happened, whatever class it has here.
    pub fn into_cause(self) -> Cause {
        match self {
            Self::NotFound(cause)
            | Self::Access(cause)
            | Self::Changed(cause)
            | Self::Stale(cause)
            | Self::Contradiction(cause)
            | Self::Unsafe(cause)
            | Self::Trust(cause)
            | Self::Unusable(cause)
            | Self::Settings(cause)
            | Self::Unreachable(cause)
            | Self::Protocol(cause)
            | Self::Again(cause) => cause,
            Self::UnsafePath(_)
            | Self::NoRanges { .. }
            | Self::RateLimited { .. }
            | Self::Everywhere(_) => Whole(self).into(),
        }
    }

    /// Whether the same request may succeed in this run.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable(_)
            | Self::Protocol(_)
            | Self::Again(_)
            | Self::NoRanges { .. }
            | Self::RateLimited { .. } => true,
            Self::Everywhere(failures) => !failures.is_final,
            Self::NotFound(_)
            | Self::Access(_)
            | Self::Changed(_)
            | Self::Stale(_)
            | Self::Contradiction(_)
            | Self::Unsafe(_)
            | Self::UnsafePath(_)
            | Self::Trust(_)
            | Self::Unusable(_)
            | Self::Settings(_) => false,
        }
    }
}
