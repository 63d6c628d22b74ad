//! The least throughput: of a connection, which is replaced, and of the whole transfer, which fails. A
//! timeout of each read never fires on a trickle.

use std::collections::VecDeque;
use std::time::Duration;

use super::event::{MinRate, Phase, TooSlow};

/// A connection above this is kept, however fast the others are. Bytes per second.
const ENOUGH: u64 = 64 << 10;
/// A connection below this is replaced, however slow the others are. Bytes per second.
const TOO_SLOW: u64 = 1 << 10;
/// More looks than this of one window are not kept.
const MAX_LOOKS: usize = 64;

/// What all connections of a transfer have in common.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    /// Bytes that have arrived.
    pub bytes: u64,
    /// Bodies that are being read.
    pub active: u64,
    /// The best rate that one connection has had.
    best: u64,
}

impl Traffic {
    /// A connection has brought so much per second, if only for some seconds.
    pub fn has_seen(&mut self, rate: u64) {
        self.best = self.best.max(rate);
    }
}

/// Watches the connection of one worker over windows of time.
#[derive(Clone, Debug, Default)]
pub struct LowSpeed(Option<Window>);

#[derive(Clone, Copy, Debug)]
struct Window {
    since: Duration,
    at: u64,
    all: u64,
}

impl LowSpeed {
    /// The window begins again with the next bytes.
    pub fn reset(&mut self) {
        self.0 = None;
    }

    /// Looks at a worker that has come to `at`; at the end of a window returns the rate, in bytes per
    /// second, if it was too low.
    pub fn look(
        &mut self,
        now: Duration,
        window: Duration,
        at: u64,
        phase: Phase,
        traffic: &mut Traffic,
    ) -> Option<u64> {
        if phase != Phase::Body {
            self.0 = None;
            return None;
        }
        let start = self.0.get_or_insert(Window { since: now, at, all: traffic.bytes });
        let elapsed = now.saturating_sub(start.since);
        if elapsed < window {
            return None;
        }
        let per_second = |bytes: u64| (bytes as f64 / elapsed.as_secs_f64()) as u64;
        let brought = at.saturating_sub(start.at);
        let rate = per_second(brought);
        // Where the whole link is slow, a new connection would be no faster: a quarter of a fair
        // share is still accepted, and so is a hundredth of the best that there has been.
        let fair = per_second(traffic.bytes.saturating_sub(start.all)) / traffic.active.max(1);
        traffic.has_seen(rate);
        let floor = (fair / 4).max(traffic.best / 100).clamp(TOO_SLOW, ENOUGH);
        *start = Window { since: now, at, all: traffic.bytes };
        // Nothing at all is a stall, which the body itself ends, with a better message.
        (rate < floor && brought > 0).then_some(rate)
    }
}

/// Watches the rate of the whole transfer over a sliding window. Time that nobody waits for the network,
/// or that a host has asked for, is left out.
#[derive(Clone, Debug)]
pub struct RunRate {
    least: Option<MinRate>,
    /// Time that counts, and the bytes by then.
    looks: VecDeque<(Duration, u64)>,
    counted: Duration,
    last: Option<Duration>,
}

impl RunRate {
    pub fn new(least: Option<MinRate>) -> Self {
        Self { least, looks: VecDeque::new(), counted: Duration::ZERO, last: None }
    }

    /// After a look, at which `bytes` had come: what it was, if that was too slow.
    pub fn look(&mut self, now: Duration, bytes: u64, counts: bool) -> Option<TooSlow> {
        let MinRate { bytes_per_second, window } = self.least?;
        let last = self.last.replace(now).unwrap_or(now);
        // A process that was frozen has not been slow.
        let step = now.saturating_sub(last).min(Duration::from_secs(1));
        if counts {
            self.counted += step;
        }
        let step = window / MAX_LOOKS as u32;
        if self.looks.back().is_none_or(|(then, _)| *then + step <= self.counted) {
            self.looks.push_back((self.counted, bytes));
        }
        // The first is the youngest that is as old as the window.
        while self.looks.get(1).is_some_and(|(then, _)| *then + window <= self.counted) {
            self.looks.pop_front();
        }
        let (then, before) = *self.looks.front()?;
        let over = self.counted - then;
        let bytes = bytes.saturating_sub(before);
        let is_slow = (bytes as f64) < bytes_per_second as f64 * over.as_secs_f64();
        (counts && over >= window && is_slow).then_some(TooSlow {
            bytes,
            over,
            min_rate: bytes_per_second,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(20);

    /// What one window says about a connection with `own` bytes per second beside `others` with
    /// `each`.
    fn verdict(own: u64, others: u64, each: u64) -> Option<u64> {
        let mut traffic = Traffic { active: others + 1, ..Traffic::default() };
        let mut meters = vec![LowSpeed::default(); others as usize + 1];
        let mut all = |seconds: u64| {
            traffic.bytes = (own + others * each) * seconds;
            let now = Duration::from_secs(seconds);
            let mut look = |n: usize| {
                let rate = if n == 0 { own } else { each };
                meters[n].look(now, WINDOW, rate * seconds, Phase::Body, &mut traffic)
            };
            let found: Vec<_> = (0..=others as usize).rev().map(&mut look).collect();
            found.last().copied().flatten()
        };
        assert_eq!((all(0), all(10)), (None, None));
        all(20)
    }

    #[test]
    fn a_trickle_is_too_slow_beside_fast_connections_and_alone() {
        assert_eq!(verdict(20, 7, 10 << 20), Some(20));
        assert_eq!(verdict(20, 0, 0), Some(20));
        assert_eq!(verdict(20, 7, 20), Some(20));
    }

    #[test]
    fn a_slow_link_is_borne() {
        // 1 Mbit/s over eight connections, evenly and unevenly.
        assert_eq!(verdict(16_000, 7, 16_000), None);
        assert_eq!(verdict(5_000, 7, 17_000), None);
        assert_eq!(verdict(2_000, 0, 0), None);
    }

    #[test]
    fn a_connection_above_the_floor_is_kept_however_fast_the_others_are() {
        assert_eq!(verdict((64 << 10) + 1, 7, 1 << 30), None);
    }

    #[test]
    fn the_last_connection_is_held_against_what_has_been() {
        let mut traffic = Traffic { active: 1, ..Traffic::default() };
        let second = Duration::from_secs;
        let mut look = |connection: &mut LowSpeed, now, at, all| {
            traffic.bytes = all;
            connection.look(second(now), WINDOW, at, Phase::Body, &mut traffic)
        };
        let mut connection = LowSpeed::default();
        assert_eq!(look(&mut connection, 0, 0, 0), None);
        assert_eq!(look(&mut connection, 20, 200 << 20, 200 << 20), None);
        connection.reset();
        assert_eq!(look(&mut connection, 21, 0, 200 << 20), None);
        assert_eq!(look(&mut connection, 41, 200_000, (200 << 20) + 200_000), Some(10_000));
    }

    /// After how many seconds of `seconds` a run that brings what `rate` says in each ends.
    fn ends(
        seconds: u64,
        least: u64,
        counts: fn(u64) -> bool,
        rate: fn(u64) -> u64,
    ) -> Option<u64> {
        let least = MinRate { bytes_per_second: least, window: Duration::from_secs(60) };
        let mut run = RunRate::new(Some(least));
        let mut bytes = 0;
        (0..seconds * 4).find_map(|tick| {
            bytes += rate(tick / 4) / 4;
            let now = Duration::from_millis(tick * 250);
            run.look(now, bytes, counts(tick / 4)).map(|_| tick / 4)
        })
    }

    #[test]
    fn a_run_below_its_least_rate_ends_and_one_above_it_does_not() {
        let always = |_: u64| true;
        for (name, counts, rate, expected) in [
            ("a drip", always as fn(u64) -> bool, (|_| 40_000) as fn(u64) -> u64, Some(60)),
            ("enough", always, |_| 1_000_100, None),
            ("bursts", always, |second| if second % 10 == 0 { 11_000_000 } else { 0 }, None),
            ("a start that is slow", always, |second| second * 100_000, None),
            (
                "a rate that falls",
                always,
                |second| if second < 100 { 2_000_000 } else { 0 },
                Some(131),
            ),
            ("nobody asks the network", |_| false, |_| 0, None),
            ("half of the time", |second| second % 2 == 0, |_| 40_000, Some(118)),
        ] {
            let found = ends(600, 1_000_000, counts, rate);
            let is_so = match (found, expected) {
                (Some(found), Some(expected)) => found.abs_diff(expected) <= 3,
                (found, expected) => found == expected,
            };
            assert!(is_so, "{name}: {found:?}, expected {expected:?}");
        }
        assert_eq!(ends(600, 0, always, |_| 0), None);
    }
}
