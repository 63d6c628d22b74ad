//! What can go wrong at a source, by what to do about it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::model::UnsafePath;

/// The message says what failed; every text from the other side in it is already inert.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Repo, revision, file, bucket or key.
    #[error("{0}")]
    NotFound(String),
    /// 401, 403, gated, expired credentials.
    #[error("{0}")]
    Access(String),
    /// The source holds something else than what was pinned, and will in the next run.
    #[error("{0}")]
    Changed(String),
    /// What was listed is not there any more: another try of the same is no use, another run, which
    /// lists anew, is.
    #[error("{0}")]
    Stale(String),
    /// What arrives is not what the source itself says of it, and will not be in another run.
    #[error("{0}")]
    Contradiction(String),
    /// The answer must not be used.
    #[error("{0}")]
    Unsafe(String),
    #[error(transparent)]
    UnsafePath(#[from] UnsafePath),
    /// The other side's certificate is not trusted.
    #[error(
        "{0}; if a proxy or a private authority signs it, add that authority with SSL_CERT_FILE"
    )]
    Trust(String),
    /// This machine cannot do it: its clock is wrong.
    #[error("{0}")]
    Unusable(String),
    /// Settings that cannot work: a bad endpoint, an unreadable certificate file.
    #[error("{0}")]
    Settings(String),

    /// No usable answer: refused, reset, timed out, 5xx. Worth trying again after a while.
    #[error("{0}")]
    Unreachable(String),
    /// An answer that breaks the protocol. Worth a few more tries.
    #[error("{0}")]
    Protocol(String),
    /// Something is different now (a link was renewed): try again at once.
    #[error("{0}")]
    Again(String),
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
#[derive(Debug)]
pub struct Failures {
    /// The place, and its last error. The place that was pinned comes last.
    pub each: Vec<(String, Arc<SourceError>)>,
    /// No place is left that could be asked again in this run.
    pub is_final: bool,
}

impl Failures {
    /// The error that says what to do: where one place may work in another run, that run is worth it.
    pub fn decisive(&self) -> Option<&SourceError> {
        let errors = || self.each.iter().map(|(_, error)| error.as_ref());
        errors().find(|error| error.is_transient()).or_else(|| errors().next_back())
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

impl SourceError {
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
