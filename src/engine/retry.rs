//! The one place that decides whether and when something is tried again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::net::{Pace, SourceError};

/// How patient we are.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// Without a single byte of progress for this long, give up.
    pub budget: Duration,
    /// Bound on the wait between two tries.
    pub max_delay: Duration,
}

/// The history of one request that is tried again.
#[derive(Debug)]
pub struct Retry {
    policy: RetryPolicy,
    pace: Arc<Pace>,
    since_progress: Instant,
    /// What the hosts had asked to wait by then; waiting for them is not held against the budget.
    paused_before: Duration,
    failures: u32,
    /// Answers in a row that broke the protocol; another try rarely mends a server.
    broken: u32,
    /// Answers in a row that were the whole file.
    whole: u32,
    renewals: u32,
    /// What was asked for in answers to this request.
    limited: Duration,
}

const FIRST_DELAY: Duration = Duration::from_millis(250);
const MAX_BROKEN: u32 = 5;
const MAX_WHOLE: u32 = 3;
const MAX_RENEWALS: u32 = 8;
/// A host may ask to wait for three times the budget in all: rate-limit windows are minutes long.
const LIMITED_FACTOR: u32 = 3;

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { budget: Duration::from_secs(300), max_delay: Duration::from_secs(30) }
    }
}

impl Retry {
    /// `pace` is what the request waits for.
    pub fn new(policy: RetryPolicy, pace: Arc<Pace>) -> Self {
        Self {
            policy,
            paused_before: pace.paused(),
            pace,
            since_progress: Instant::now(),
            failures: 0,
            broken: 0,
            whole: 0,
            renewals: 0,
            limited: Duration::ZERO,
        }
    }

    /// Something arrived: the budget starts anew.
    pub fn progressed(&mut self) {
        *self = Self::new(self.policy, self.pace.clone());
    }

    /// How long nothing has arrived, asked-for waits left out.
    pub fn tried_for(&self) -> Duration {
        let paused = self.pace.paused().saturating_sub(self.paused_before);
        self.since_progress.elapsed().saturating_sub(paused)
    }

    /// Whether this failure should be shown: the first, and then ever more rarely.
    pub fn is_worth_a_line(&self) -> bool {
        let tries = self.failures + self.broken + self.renewals;
        tries.is_power_of_two() || self.limited > Duration::ZERO
    }

    /// How long to wait before the next try, or the error if there is to be none.
    pub fn after(&mut self, error: SourceError) -> Result<(Duration, SourceError), SourceError> {
        if !error.is_transient() {
            return Err(error);
        }
        let delay = match &error {
            SourceError::RateLimited { wait, .. } => {
                self.limited += *wait;
                // The time that such answers take is not one that was asked for.
                if self.limited > self.policy.budget.saturating_mul(LIMITED_FACTOR)
                    || self.tried_for() > self.policy.budget
                {
                    return Err(error);
                }
                // The wait itself is kept by the pace of the host, for everybody.
                return Ok((Duration::ZERO, error));
            }
            SourceError::Again(_) => {
                self.renewals += 1;
                if self.renewals > MAX_RENEWALS {
                    return Err(error);
                }
                Duration::ZERO
            }
            SourceError::NoRanges { .. } => {
                self.whole += 1;
                if self.whole >= MAX_WHOLE {
                    return Err(error);
                }
                self.backoff()
            }
            SourceError::Protocol(_) => {
                self.broken += 1;
                if self.broken >= MAX_BROKEN {
                    return Err(error);
                }
                self.backoff()
            }
            _ => self.backoff(),
        };
        if self.tried_for() + delay > self.policy.budget {
            return Err(error);
        }
        Ok((delay, error))
    }

    /// Exponential, with full jitter above a half: many pods must not come back at once.
    fn backoff(&mut self) -> Duration {
        let exponent = self.failures.min(16);
        self.failures += 1;
        let ceiling = FIRST_DELAY.saturating_mul(1 << exponent).min(self.policy.max_delay);
        ceiling.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unreachable() -> SourceError {
        SourceError::Unreachable("x".into())
    }

    #[test]
    fn delays_grow_to_their_bound_and_progress_resets_them() {
        let budget = Duration::from_secs(3_600);
        let mut retry =
            Retry::new(RetryPolicy { budget, max_delay: Duration::from_secs(30) }, Arc::default());
        let mut delays = Vec::new();
        for _ in 0..12 {
            delays.push(retry.after(unreachable()).expect("within the budget").0);
        }
        assert!(delays[0] <= FIRST_DELAY && delays[0] >= FIRST_DELAY / 2);
        assert!(delays[11] >= Duration::from_secs(15) && delays[11] <= Duration::from_secs(30));
        retry.progressed();
        assert!(retry.after(unreachable()).expect("within the budget").0 <= FIRST_DELAY);
    }

    #[test]
    fn a_permanent_error_is_not_tried_again() {
        let mut retry = Retry::new(RetryPolicy::default(), Arc::default());
        assert!(retry.after(SourceError::Access("no".into())).is_err());
    }

    #[test]
    fn every_kind_of_transient_error_ends_some_time() {
        let policy =
            RetryPolicy { budget: Duration::from_millis(300), max_delay: Duration::from_secs(1) };
        for make in [
            unreachable as fn() -> SourceError,
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
        let mut retry = Retry::new(RetryPolicy { budget, max_delay: budget }, pace.clone());
        pace.pause("https://a", Duration::from_millis(400));
        std::thread::sleep(Duration::from_millis(410));
        assert!(retry.tried_for() < Duration::from_millis(200), "{:?}", retry.tried_for());
        let limited = SourceError::RateLimited { host: "h".into(), wait: Duration::from_millis(1) };
        assert!(retry.after(limited).is_ok());
    }
}
