//! Whether and when something is tried again, with time and luck passed in.

use std::time::Duration;

/// How patient we are.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// After so much time in vain, give up.
    pub budget: Duration,
    /// The wait before the second try; it doubles with each.
    pub first_delay: Duration,
    /// Bound on the wait between two tries.
    pub max_delay: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            budget: Duration::from_secs(300),
            first_delay: FIRST_DELAY,
            max_delay: Duration::from_secs(30),
        }
    }
}

impl RetryPolicy {
    /// The same with other waits, if `first` is given: it is the first one, and all are longer or shorter in
    /// proportion.
    pub fn with_first_delay(self, first: Option<Duration>) -> Self {
        let Some(first) = first else { return self };
        let ratio = first.as_secs_f64() / self.first_delay.as_secs_f64();
        Self { first_delay: first, max_delay: self.max_delay.mul_f64(ratio), ..self }
    }
}

/// What a try ended with, as far as the next one depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The network, or a server that has trouble.
    Transient,
    /// A host asks to wait for so long.
    RateLimited(Duration),
    /// What was asked with was too old, and is renewed.
    Renewed,
    /// The answer was the whole file.
    Whole,
    /// The answer broke the protocol; another try rarely mends a server.
    Broken,
}

/// The history of one request that is tried again.
#[derive(Clone, Debug)]
pub struct Backoff {
    policy: RetryPolicy,
    /// The time of the last failure, with pauses that hosts had asked for left out.
    last: Duration,
    /// Time in vain: what bytes have paid for is taken off.
    spent: Duration,
    failures: u32,
    /// Answers in a row.
    broken: u32,
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

/// Bytes pay for time at this rate, per second. A server that drips a little before each failure does
/// not renew the budget by it; a slow line that brings more than this does.
const PAYS_PER_SECOND: u64 = 16 << 10;
/// Bytes that let one failure be forgotten; and all of them.
const FORGIVES_ONE: u64 = 64 << 10;
const FORGIVES_ALL: u64 = 1 << 20;
/// Less than this between two failures is not another answer.
const ANSWERS: u64 = 16 << 10;

impl Backoff {
    /// `now` is the time without the pauses that hosts ask for.
    pub fn new(policy: RetryPolicy, now: Duration) -> Self {
        Self {
            policy,
            last: now,
            spent: Duration::ZERO,
            failures: 0,
            broken: 0,
            whole: 0,
            renewals: 0,
            limited: Duration::ZERO,
        }
    }

    /// So many bytes have arrived since the last failure.
    pub fn progressed(&mut self, bytes: u64, now: Duration) {
        self.pass(now);
        if bytes >= FORGIVES_ALL {
            *self = Self::new(self.policy, now);
            return;
        }
        if bytes >= ANSWERS {
            (self.broken, self.whole, self.renewals) = (0, 0, 0);
            self.limited = Duration::ZERO;
        }
        let forgiven = (bytes / FORGIVES_ONE).min(u64::from(self.failures)) as u32;
        self.failures -= forgiven;
        let paid = Duration::from_secs_f64(bytes as f64 / PAYS_PER_SECOND as f64);
        self.spent = self.spent.saturating_sub(paid);
    }

    /// Time in vain so far.
    pub fn tried_for(&self, now: Duration) -> Duration {
        self.spent + now.saturating_sub(self.last)
    }

    /// Whether this failure should be shown: the first, and then ever more rarely.
    pub fn is_worth_a_line(&self) -> bool {
        let tries = self.failures + self.broken + self.renewals;
        tries.is_power_of_two() || self.limited > Duration::ZERO
    }

    /// How long to wait before the next try, if there is to be one. `jitter` is from 0 to 1.
    pub fn after(&mut self, failure: Failure, now: Duration, jitter: f64) -> Option<Duration> {
        self.pass(now);
        let delay = match failure {
            Failure::RateLimited(wait) => {
                self.limited += wait;
                // The time that such answers take is not one that was asked for.
                let is_patient = self.limited <= self.policy.budget.saturating_mul(LIMITED_FACTOR)
                    && self.spent <= self.policy.budget;
                // The wait itself is kept by the pace of the host, for everybody.
                return is_patient.then_some(Duration::ZERO);
            }
            Failure::Renewed => {
                self.renewals += 1;
                if self.renewals > MAX_RENEWALS {
                    return None;
                }
                Duration::ZERO
            }
            Failure::Whole => {
                self.whole += 1;
                if self.whole >= MAX_WHOLE {
                    return None;
                }
                self.delay(jitter)
            }
            Failure::Broken => {
                self.broken += 1;
                if self.broken >= MAX_BROKEN {
                    return None;
                }
                self.delay(jitter)
            }
            Failure::Transient => self.delay(jitter),
        };
        (self.spent + delay <= self.policy.budget).then_some(delay)
    }

    fn pass(&mut self, now: Duration) {
        self.spent += now.saturating_sub(self.last);
        self.last = self.last.max(now);
    }

    /// Exponential, with full jitter above a half: many pods must not come back at once.
    fn delay(&mut self, jitter: f64) -> Duration {
        let exponent = self.failures.min(16);
        self.failures += 1;
        let ceiling =
            self.policy.first_delay.saturating_mul(1 << exponent).min(self.policy.max_delay);
        ceiling.mul_f64(0.5 + jitter / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);
    const START: Duration = Duration::ZERO;

    fn policy(budget: Duration) -> RetryPolicy {
        RetryPolicy { budget, ..RetryPolicy::default() }
    }

    #[test]
    fn delays_grow_to_their_bound_and_progress_resets_them() {
        let mut backoff = Backoff::new(policy(HOUR), START);
        let delay = |backoff: &mut Backoff| {
            backoff.after(Failure::Transient, START, 0.7).expect("within the budget")
        };
        let delays: Vec<_> = (0..12).map(|_| delay(&mut backoff)).collect();
        assert!(delays[0] <= FIRST_DELAY && delays[0] >= FIRST_DELAY / 2);
        assert!(delays[11] >= Duration::from_secs(15) && delays[11] <= Duration::from_secs(30));
        backoff.progressed(FORGIVES_ALL, START);
        assert!(delay(&mut backoff) <= FIRST_DELAY);
    }

    /// After how much time a connection gives up that brings `bytes` in `each` and then fails; none if
    /// it never does.
    fn gives_up(budget: Duration, bytes: u64, each: Duration) -> Option<Duration> {
        let mut backoff = Backoff::new(policy(budget), START);
        let mut now = START;
        while now < 24 * HOUR {
            now += each;
            backoff.progressed(bytes, now);
            match backoff.after(Failure::Transient, now, 1.0) {
                Some(delay) => now += delay,
                None => return Some(now),
            }
        }
        None
    }

    #[test]
    fn a_little_before_each_failure_does_not_renew_the_budget_for_ever() {
        let second = Duration::from_secs;
        let minutes = |m: u64| second(60 * m);
        for (name, budget, bytes, each, at_most) in [
            ("nothing", second(10), 0, second(0), Some(second(10))),
            ("a drip of 2.5 kB/s", second(10), 17_000, second(7), Some(second(40))),
            ("a drip, patiently", minutes(5), 17_000, second(7), Some(minutes(15))),
            ("17 kB, and a reset", second(10), 17_000, second(0), Some(second(40))),
            ("17 kB, and a reset, patiently", minutes(5), 17_000, second(0), Some(minutes(15))),
            ("a byte less than what counts", second(10), 16_383, second(0), Some(second(40))),
            ("64 KiB, and a reset", second(10), 64 << 10, second(0), None),
            ("1 MiB, and a reset", second(10), 1 << 20, second(60), None),
            ("a slow line", second(10), 200_000, second(10), None),
        ] {
            let found = gives_up(budget, bytes, each);
            match (found, at_most) {
                (Some(found), Some(bound)) => assert!(found <= bound, "{name}: {found:?}"),
                (found, expected) => assert_eq!(found, expected, "{name}"),
            }
        }
    }

    #[test]
    fn every_kind_of_failure_ends_some_time() {
        for failure in [
            Failure::Transient,
            Failure::Broken,
            Failure::Renewed,
            Failure::Whole,
            Failure::RateLimited(Duration::from_millis(100)),
        ] {
            let mut backoff = Backoff::new(policy(Duration::from_millis(300)), START);
            let ended = (0..1_000).any(|_| backoff.after(failure, START, 0.5).is_none());
            assert!(ended, "{failure:?}");
        }
    }
}
