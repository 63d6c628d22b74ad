//! The one place that decides whether and when something is tried again: the decisions are
//! `schedule::backoff`'s, the clock and the pauses that hosts ask for are here.

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use super::schedule::backoff::RetryPolicy;
use super::schedule::backoff::{Backoff, Failure};
use crate::net::tally::{self, Reason};
use crate::net::{Pace, SourceError};

/// The history of one request that is tried again.
#[derive(Debug)]
pub struct Retry {
    backoff: Backoff,
    pace: Arc<Pace>,
    started: Instant,
    /// What the hosts had asked to wait by then; waiting for them is not held against the budget.
    paused_before: Duration,
}

impl Retry {
    /// `pace` is what the request waits for.
    pub fn new(policy: RetryPolicy, pace: Arc<Pace>) -> Self {
        let backoff = Backoff::new(policy, Duration::ZERO);
        Self { backoff, paused_before: pace.paused(), pace, started: Instant::now() }
    }

    /// So many bytes have arrived since the last failure.
    pub fn progressed(&mut self, bytes: u64) {
        self.backoff.progressed(bytes, self.now());
    }

    /// How long it was tried in vain, asked-for waits left out.
    pub fn tried_for(&self) -> Duration {
        self.backoff.tried_for(self.now())
    }

    /// Whether this failure should be shown: the first, and then ever more rarely.
    pub fn is_worth_a_line(&self) -> bool {
        self.backoff.is_worth_a_line()
    }

    /// How long to wait before the next try, or the error if there is to be none.
    pub fn after(&mut self, error: SourceError) -> Result<(Duration, SourceError), SourceError> {
        if !error.is_transient() {
            return Err(error);
        }
        let (failure, reason) = match &error {
            SourceError::RateLimited { wait, .. } => {
                (Failure::RateLimited(*wait), Reason::RateLimited)
            }
            SourceError::Again(_) => (Failure::Renewed, Reason::RenewedLink),
            SourceError::NoRanges { .. } => (Failure::Whole, Reason::NoRanges),
            SourceError::Protocol(_) => (Failure::Broken, Reason::Protocol),
            _ => (Failure::Transient, Reason::Unreachable),
        };
        match self.backoff.after(failure, self.now(), fastrand::f64()) {
            Some(delay) => {
                tally::retried(reason);
                Ok((delay, error))
            }
            None => Err(error),
        }
    }

    fn now(&self) -> Duration {
        let paused = self.pace.paused().saturating_sub(self.paused_before);
        self.started.elapsed().saturating_sub(paused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permanent_error_is_not_tried_again() {
        let mut retry = Retry::new(RetryPolicy::default(), Arc::default());
        assert!(retry.after(SourceError::Access("no".into())).is_err());
    }

    #[test]
    fn every_kind_of_transient_error_ends_some_time() {
        let policy = RetryPolicy {
            budget: Duration::from_millis(300),
            max_delay: Duration::from_secs(1),
            ..RetryPolicy::default()
        };
        for make in [
            || SourceError::Unreachable("x".into()),
            || SourceError::Protocol("x".into()),
            || SourceError::Again("x".into()),
            || SourceError::NoRanges { host: "h".into(), file: "f".into() },
            || SourceError::RateLimited { host: "h".into(), wait: Duration::from_millis(100) },
        ] {
            let mut retry = Retry::new(policy, Arc::default());
            let ended = (0..1_000).any(|_| retry.after(make()).is_err());
            assert!(ended, "{:?}", make());
        }
    }

    #[test]
    fn a_pause_that_another_request_was_asked_for_is_no_failure_of_ours() {
        let pace = Arc::new(Pace::default());
        let budget = Duration::from_millis(200);
        let mut retry = Retry::new(
            RetryPolicy { budget, max_delay: budget, ..RetryPolicy::default() },
            pace.clone(),
        );
        pace.pause("https://a", Duration::from_millis(400));
        std::thread::sleep(Duration::from_millis(410));
        assert!(retry.tried_for() < Duration::from_millis(200), "{:?}", retry.tried_for());
        let limited = SourceError::RateLimited { host: "h".into(), wait: Duration::from_millis(1) };
        assert!(retry.after(limited).is_ok());
    }
}
