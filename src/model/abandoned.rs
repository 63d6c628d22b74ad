//! When what another run has left on the volume may be removed. Decided from facts alone, so that it
//! is one table.

use std::time::Duration;

/// A fetch takes an attempt for abandoned that has given no sign for so long.
pub const ABANDONED_AFTER: Duration = Duration::from_secs(7 * 86_400);
/// A Job retries within minutes, and then resumes: `prune` leaves its attempt alone for this long.
const RETRIED_WITHIN: Duration = Duration::from_secs(3_600);

/// How long an attempt must have given no sign before it is removed.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Its writer is certainly gone.
    pub gone: Duration,
    /// And its family has been published since.
    pub superseded: Duration,
    /// Nobody can tell whether its writer is there.
    pub unknown: Duration,
}

impl Limits {
    pub const OF_FETCH: Self =
        Self { gone: ABANDONED_AFTER, superseded: Duration::ZERO, unknown: ABANDONED_AFTER };

    /// As the user of `prune` says it.
    pub fn of_prune(older_than: Option<Duration>) -> Self {
        Self {
            gone: older_than.unwrap_or(RETRIED_WITHIN),
            superseded: older_than.unwrap_or_default(),
            unknown: older_than.unwrap_or_default().max(RETRIED_WITHIN),
        }
    }
}

/// Whether the process that writes to an attempt is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    AtWork,
    Gone,
    /// It is of another node on a network filesystem, or nobody can tell.
    Unknown,
}

/// What is known of an attempt.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    pub writer: Writer,
    pub silence: Duration,
    /// Its family has been published since: whoever did that has taken what was of use.
    pub is_superseded: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Keep,
    Remove,
    /// If it gives no sign while we look: that the clock of a file server has jumped must not cost
    /// anybody who is at work.
    RemoveIfStill,
}

pub fn verdict(facts: Facts, limits: Limits) -> Verdict {
    let silent_for = |limit: Duration| facts.silence >= limit;
    let is_superseded = facts.is_superseded && silent_for(limits.superseded);
    match facts.writer {
        Writer::Gone if is_superseded || silent_for(limits.gone) => Verdict::Remove,
        Writer::Unknown if silent_for(limits.unknown) => Verdict::RemoveIfStill,
        Writer::AtWork | Writer::Gone | Writer::Unknown => Verdict::Keep,
    }
}

/// How long an attempt has given no sign, by the filesystem's own clock: `now` is the time of something
/// that we have just written there. A sign from the future tells only that a clock was wrong; one that
/// is far ahead would otherwise never become old.
pub fn silence(now: Duration, last_sign: Duration) -> Duration {
    now.abs_diff(last_sign)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_certainly_of_no_use_is_removed() {
        const HOUR: Duration = Duration::from_secs(3_600);
        const OLD: Duration = ABANDONED_AFTER;
        use Verdict::{Keep, Remove, RemoveIfStill};
        use Writer::{AtWork, Gone, Unknown};
        for (writer, silence, is_superseded, expected) in [
            (AtWork, Duration::ZERO, false, Keep),
            (AtWork, HOUR, true, Keep),
            (AtWork, OLD, false, Keep),
            (AtWork, OLD, true, Keep),
            (Gone, Duration::ZERO, false, Keep),
            (Gone, HOUR, false, Keep),
            (Gone, OLD - HOUR, false, Keep),
            (Gone, Duration::ZERO, true, Remove),
            (Gone, HOUR, true, Remove),
            (Gone, OLD, false, Remove),
            (Gone, OLD * 50, true, Remove),
            (Unknown, Duration::ZERO, true, Keep),
            (Unknown, OLD - HOUR, true, Keep),
            (Unknown, OLD, false, RemoveIfStill),
            (Unknown, OLD * 50, true, RemoveIfStill),
        ] {
            let facts = Facts { writer, silence, is_superseded };
            assert_eq!(verdict(facts, Limits::OF_FETCH), expected, "{facts:?}");
        }
    }

    #[test]
    fn prune_removes_what_is_as_old_as_the_user_says_and_has_no_writer() {
        const MINUTE: Duration = Duration::from_secs(60);
        const HOUR: Duration = RETRIED_WITHIN;
        use Verdict::{Keep, Remove, RemoveIfStill};
        use Writer::{AtWork, Gone, Unknown};
        let (now, day) = (Some(Duration::ZERO), Some(HOUR * 24));
        for (older_than, writer, silence, is_superseded, expected) in [
            (None, AtWork, HOUR * 999, true, Keep),
            (now, AtWork, HOUR * 999, true, Keep),
            (None, Gone, HOUR - MINUTE, false, Keep),
            (None, Gone, HOUR, false, Remove),
            (None, Gone, MINUTE, true, Remove),
            (now, Gone, Duration::ZERO, false, Remove),
            (day, Gone, HOUR * 23, false, Keep),
            (day, Gone, HOUR * 23, true, Keep),
            (day, Gone, HOUR * 24, false, Remove),
            (day, Gone, HOUR * 24, true, Remove),
            (None, Unknown, HOUR, false, RemoveIfStill),
            (now, Unknown, HOUR - MINUTE, true, Keep),
            (now, Unknown, HOUR, false, RemoveIfStill),
            (day, Unknown, HOUR * 23, false, Keep),
            (day, Unknown, HOUR * 24, false, RemoveIfStill),
        ] {
            let facts = Facts { writer, silence, is_superseded };
            let limits = Limits::of_prune(older_than);
            assert_eq!(verdict(facts, limits), expected, "{older_than:?} {facts:?}");
        }
    }

    #[test]
    fn a_clock_that_was_wrong_keeps_nothing_for_ever() {
        let seconds = Duration::from_secs;
        for (now, last_sign, is_old) in [
            (1_000_000, 999_990, false),
            (1_000_000, 1_000_030, false),
            (1_000_000, 0, true),
            // Written while the clock was decades ahead.
            (1_000_000, 900_000_000, true),
        ] {
            let silence = silence(seconds(now), seconds(last_sign));
            assert_eq!(silence >= ABANDONED_AFTER, is_old, "{now} {last_sign}");
        }
    }
}
