//! When what another run has left on the volume may be removed. Decided from facts alone, so that it
//! is one table.

use std::time::Duration;

/// Nobody goes on with an attempt that has given no sign for so long.
pub(super) const ABANDONED_AFTER: Duration = Duration::from_secs(7 * 86_400);

/// Whether the process that writes to an attempt is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writer {
    AtWork,
    Gone,
    /// It is of another node on a network filesystem, or nobody can tell.
    Unknown,
}

/// What is known of an attempt.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    pub writer: Writer,
    pub silence: Duration,
    /// Its family has been published since: whoever did that has taken what was of use.
    pub is_superseded: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Keep,
    Remove,
    /// If it gives no sign while we look: that the clock of a file server has jumped must not cost
    /// anybody who is at work.
    RemoveIfStill,
}

pub(super) fn verdict(facts: Facts) -> Verdict {
    let is_old = facts.silence >= ABANDONED_AFTER;
    match facts.writer {
        Writer::Gone if is_old || facts.is_superseded => Verdict::Remove,
        Writer::Unknown if is_old => Verdict::RemoveIfStill,
        Writer::AtWork | Writer::Gone | Writer::Unknown => Verdict::Keep,
    }
}

/// How long an attempt has given no sign, by the filesystem's own clock: `now` is the time of something
/// that we have just written there. A sign from the future tells only that a clock was wrong; one that
/// is far ahead would otherwise never become old.
pub(super) fn silence(now: Duration, last_sign: Duration) -> Duration {
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
            assert_eq!(verdict(facts), expected, "{facts:?}");
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
