//! Connections that are far slower than the others: who has to give back what it has, and where a running
//! chunk is split for a worker that has nothing to do.
//!
//! Nothing is fetched twice for that: the slow connection is closed where it stands, and its rest, or
//! the tail of it, goes to whoever is free first. A link that is slow for all is borne.

use std::collections::VecDeque;
use std::time::Duration;

use super::event::Phase;

/// A connection is judged by what it has brought in this time.
pub const SLOW_AFTER: Duration = Duration::from_secs(3);
/// The head of an answer may take longer: a store that is busy answers late.
const HEAD_SLOW_AFTER: Duration = Duration::from_secs(6);
/// A connection that brings nothing at all for this long, and that others wait for, is given up.
const SILENT_AFTER: Duration = Duration::from_millis(1_500);
/// Slow is less than this part of what is usual; a new connection costs round trips as well.
const SLOW_PART: f64 = 0.25;
/// Where somebody waits for it already, this part.
const SPLIT_PART: f64 = 0.5;
/// Where less than this is usual in that time, packets are too few to compare.
const LEAST_USUAL_BYTES: f64 = (256 << 10) as f64;
/// A piece is taken from slow connections no more often than this: it may be the piece that is slow.
pub const MAX_RECALLS: u32 = 3;
/// What is done sooner than this, in seconds, is left alone: a connection for it would cost round trips. A tail
/// goes to somebody who has a connection and nothing else to do, so it is worth it sooner.
const SOON: f64 = 2.0;
const TAIL_SOON: f64 = 1.0;
/// What takes longer than this, in seconds, and could be faster, is worth a new connection however much
/// there is to do beside it.
const LONG: f64 = 12.0;
/// Of fewer connections none is good because it is better than the others.
const LEAST_TO_COMPARE: usize = 4;
/// A pause between two chunks, or until the first byte of one, that is none.
const GAP: Duration = Duration::from_millis(500);
/// After this time a rate says something.
const LEAST_WINDOW: Duration = Duration::from_millis(700);

/// What one worker has brought lately.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    /// Bytes that it has brought in all, and when; of the last seconds.
    samples: VecDeque<(Duration, u64)>,
    bytes: u64,
    /// Where its chunk began, and how far it is.
    start: u64,
    at: u64,
    phase: Phase,
    /// When the phase began, and when the last bytes were seen.
    since: Duration,
    moved: Duration,
    /// When its chunk began, and when the last one ended.
    begun: Duration,
    ended: Duration,
    /// Bytes per second, the last time that it could be told.
    last_rate: Option<f64>,
}

impl Meter {
    /// A chunk begins.
    pub fn begin(&mut self, now: Duration, at: u64) {
        if now.saturating_sub(self.ended) > GAP {
            self.samples.clear();
        }
        (self.start, self.at) = (at, at);
        // Of many small files there are many beginnings.
        if self.samples.back().is_none_or(|(then, _)| *then + GAP / 4 <= now) {
            self.sample(now);
        }
        (self.phase, self.since, self.begun) = (Phase::Head, now, now);
        self.moved = now;
    }

    /// A chunk ends.
    pub fn end(&mut self, now: Duration, at: u64) {
        self.advance(at);
        self.ended = now;
        // A short one says less than a window, but something.
        let lasted = now.saturating_sub(self.begun);
        if self.last_rate.is_none() && self.at > self.start && lasted >= GAP / 4 {
            self.last_rate = Some((self.at - self.start) as f64 / lasted.as_secs_f64());
        }
    }

    /// Forgets how slow it was: that was not the fault of its connection.
    pub fn pause(&mut self, now: Duration) {
        self.samples.clear();
        self.samples.push_back((now, self.bytes));
        (self.since, self.moved) = (now, now);
    }

    pub fn see(&mut self, now: Duration, at: u64, phase: Phase) {
        if at > self.at || phase != Phase::Body {
            self.moved = now;
        }
        self.advance(at);
        if self.phase != phase {
            // The wait for a head says nothing of the rate.
            if self.phase == Phase::Head && now.saturating_sub(self.since) > GAP {
                self.pause(now);
            }
            (self.phase, self.since) = (phase, now);
        }
        if phase == Phase::Other {
            self.pause(now);
        }
        self.sample(now);
        if phase == Phase::Body && self.window() >= LEAST_WINDOW {
            self.last_rate = Some(self.brought());
        }
    }

    /// The connection was slow, and is gone.
    pub fn forget(&mut self) {
        self.last_rate = None;
        self.samples.clear();
    }

    /// Bytes that it has brought in all.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether bytes have come lately.
    pub fn moves(&self, now: Duration) -> bool {
        self.phase == Phase::Body && now.saturating_sub(self.moved) < SILENT_AFTER
    }

    pub fn at(&self) -> u64 {
        self.at
    }

    pub fn last_rate(&self) -> Option<f64> {
        self.last_rate
    }

    #[cfg(test)]
    pub fn samples(&self) -> usize {
        self.samples.len()
    }

    fn sample(&mut self, now: Duration) {
        self.samples.push_back((now, self.bytes));
        while self.samples.get(1).is_some_and(|(then, _)| *then + SLOW_AFTER <= now) {
            self.samples.pop_front();
        }
    }

    fn advance(&mut self, at: u64) {
        self.bytes += at.saturating_sub(self.at);
        self.at = self.at.max(at);
    }

    fn window(&self) -> Duration {
        match (self.samples.front(), self.samples.back()) {
            (Some((first, _)), Some((last, _))) => last.saturating_sub(*first),
            _ => Duration::ZERO,
        }
    }

    fn brought(&self) -> f64 {
        let first = self.samples.front().map_or(0, |(_, bytes)| *bytes);
        (self.bytes - first) as f64 / self.window().as_secs_f64().max(0.001)
    }

    /// Whether it waits for bytes, and none have come for a while.
    fn is_silent(&self, now: Duration) -> bool {
        self.phase == Phase::Body && now.saturating_sub(self.moved) >= SILENT_AFTER
    }

    /// Bytes per second, once it has had its time to show them.
    fn judged(&self, now: Duration) -> Option<f64> {
        let lasts = now.saturating_sub(self.since);
        match self.phase {
            Phase::Body => (lasts >= SLOW_AFTER).then(|| self.brought()),
            // The connection, too, is waited for here.
            Phase::Head => (lasts >= HEAD_SLOW_AFTER).then_some(0.0),
            Phase::Other => None,
        }
    }
}

/// What connections bring that have shown something, in order.
#[derive(Clone, Debug, Default)]
pub struct Rates(Vec<f64>);

impl Rates {
    pub fn of<'a>(meters: impl Iterator<Item = &'a Meter>) -> Self {
        let mut rates: Vec<f64> = meters.filter_map(Meter::last_rate).collect();
        rates.sort_by(f64::total_cmp);
        Self(rates)
    }

    /// What is usual: the median.
    pub fn usual(&self) -> Option<f64> {
        self.0.get(self.0.len() / 2).copied()
    }

    /// What is usual without `meter`, which is one of them.
    pub fn usual_without(&self, meter: &Meter) -> Option<f64> {
        let Some(own) = meter.last_rate() else { return self.usual() };
        let place = self.0.partition_point(|rate| *rate < own);
        let median = self.0.len().saturating_sub(1) / 2;
        self.0.get(if place <= median { median + 1 } else { median }).copied()
    }

    /// What an eighth of the connections brings at least: the others may all lead to servers that are worse.
    pub fn good(&self) -> Option<f64> {
        let is_enough = self.0.len() >= LEAST_TO_COMPARE;
        is_enough.then(|| self.0[self.0.len() * 7 / 8])
    }
}

/// A running chunk, for those who judge it.
#[derive(Clone, Copy, Debug)]
pub struct Running<'a> {
    pub meter: &'a Meter,
    pub end: u64,
    pub recalls: u32,
}

impl Running<'_> {
    fn left(&self) -> u64 {
        self.end.saturating_sub(self.meter.at())
    }

    /// The rate of a connection that is to be replaced. `usual` is that of the others; `is_awaited`: a
    /// worker has nothing to do; `all_take`: seconds that the whole rest takes for all together;
    /// `others_move`: bytes have come to others lately.
    pub fn is_slow(
        &self,
        now: Duration,
        usual: f64,
        is_awaited: bool,
        all_take: f64,
        others_move: bool,
    ) -> Option<f64> {
        let could_have_come =
            others_move && usual * SILENT_AFTER.as_secs_f64() >= LEAST_USUAL_BYTES;
        if is_awaited && could_have_come && self.recalls < MAX_RECALLS && self.meter.is_silent(now)
        {
            return Some(0.0);
        }
        let rate = self.far_below(now, usual)?;
        let seconds_left = self.left() as f64 / rate.max(1.0);
        // It would be the last; or it is slow for longer than a new connection costs.
        let blocks = is_awaited || seconds_left > all_take.min(LONG) + SLOW_AFTER.as_secs_f64();
        blocks.then_some(rate)
    }

    /// The same for a connection that may be exchanged for a better one: an answer that is late is no sign of a
    /// bad server.
    pub fn could_be_better(&self, now: Duration, good: f64) -> Option<f64> {
        (self.meter.phase == Phase::Body).then(|| self.far_below(now, good))?
    }

    /// What the connection brings, if that is far below `other` and its chunk takes a while.
    pub fn far_below(&self, now: Duration, other: f64) -> Option<f64> {
        let rate = self.meter.judged(now)?;
        let is_far_below = rate < other * SLOW_PART;
        let can_tell = other * SLOW_AFTER.as_secs_f64() >= LEAST_USUAL_BYTES;
        let is_long = self.left() as f64 / rate.max(1.0) > SOON;
        (is_far_below && can_tell && is_long && self.recalls < MAX_RECALLS).then_some(rate)
    }

    /// Seconds until it is done and where to split it for a worker that brings `other` bytes per second,
    /// so that both end together. Not if it is done soon; and if nobody waits for it in particular
    /// (`is_waited_for`), only if it is slow.
    pub fn split(&self, other: f64, is_waited_for: bool, least: u64) -> Option<(f64, u64)> {
        let rate = self.meter.last_rate.filter(|_| self.meter.phase == Phase::Body)?.max(1.0);
        let seconds_left = self.left() as f64 / rate;
        if seconds_left <= TAIL_SOON || !(is_waited_for || rate < other * SPLIT_PART) {
            return None;
        }
        let tail = (self.left() as f64 * other / (rate + other)) as u64;
        // Where the worker stands now, a moment after the last look, is not known.
        let own = (rate * TAIL_SOON / 2.0) as u64;
        let end = self.end - tail.min(self.left().saturating_sub(own));
        let aligned = end.next_multiple_of(least.min(super::spans::ALIGNMENT));
        (aligned + least <= self.end).then_some((seconds_left, aligned))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// A meter that has seen `rate` bytes per second for `seconds`.
    fn after(seconds: u64, rate: u64, phase: Phase) -> (Meter, Duration) {
        let mut meter = Meter::default();
        meter.begin(Duration::ZERO, 0);
        for tick in 0..=seconds * 4 {
            meter.see(Duration::from_millis(tick * 250), rate * tick / 4, phase);
        }
        (meter, Duration::from_secs(seconds))
    }

    #[test]
    fn who_is_far_below_the_others_and_is_waited_for_is_replaced() {
        let fast = (10 * MIB) as f64;
        // Seconds, rate, usual rate, whether somebody waits, seconds that all take, and the verdict.
        for (name, seconds, rate, usual, is_awaited, all_take, expected) in [
            ("it blocks the others", 4, 70_000, fast, true, 1e3, true),
            ("it would be the last", 4, 6 * MIB, 4.0 * fast, false, 3.0, true),
            ("there is more to do beside it", 4, 6 * MIB, 4.0 * fast, false, 8.0, false),
            ("it takes long in any case", 4, 70_000, fast, false, 1e6, true),
            ("it has just begun", 2, 70_000, fast, true, 5.0, false),
            ("it is a little slower", 4, 3 * MIB, fast, true, 5.0, false),
            ("all are slow", 4, 70_000, 71_000.0, true, 5.0, false),
            ("packets are few", 4, 1_000, 10_000.0, true, 5.0, false),
        ] {
            let (meter, now) = after(seconds, rate, Phase::Body);
            let running = |recalls| Running { meter: &meter, end: 64 * MIB, recalls };
            let verdict = running(0).is_slow(now, usual, is_awaited, all_take, true);
            assert_eq!(verdict.is_some(), expected, "{name}");
            assert_eq!(running(MAX_RECALLS).is_slow(now, usual, is_awaited, all_take, true), None);
        }
    }

    #[test]
    fn a_head_that_does_not_come_has_more_time_and_a_pause_counts_for_nothing() {
        let slow = |seconds, phase| {
            let (meter, now) = after(seconds, 0, phase);
            let running = Running { meter: &meter, end: 64 * MIB, recalls: 0 };
            running.is_slow(now, 1e7, true, 1.0, true).is_some()
        };
        assert!(!slow(5, Phase::Head) && slow(7, Phase::Head));
        assert!(!slow(60, Phase::Other));
    }

    #[test]
    fn who_falls_silent_and_is_waited_for_is_replaced_sooner() {
        let fast = (10 * MIB) as f64;
        let (mut meter, mut now) = after(4, 10 * MIB, Phase::Body);
        let at = 40 * MIB;
        // Milliseconds of silence, whether somebody waits, what is usual, and the verdict.
        let mut silent = 0;
        for (millis, is_awaited, usual, expected) in [
            (1_000, true, fast, None),
            (1_500, true, fast, Some(0.0)),
            (1_500, false, fast, None),
            (1_500, true, 100_000.0, None),
        ] {
            while silent < millis {
                silent += 250;
                now += Duration::from_millis(250);
                meter.see(now, at, Phase::Body);
            }
            let running = Running { meter: &meter, end: at + MIB, recalls: 0 };
            let verdict = running.is_slow(now, usual, is_awaited, 1.0, true);
            assert_eq!(verdict, expected, "{millis} {usual}");
            // A disk that stands still, or a process that was frozen, is nobody's fault.
            assert_eq!(running.is_slow(now, usual, is_awaited, 1.0, false), None);
        }
        meter.see(now, at + 1, Phase::Body);
        let running = Running { meter: &meter, end: at + MIB, recalls: 0 };
        assert_eq!(running.is_slow(now, fast, true, 1.0, true), None);
    }

    #[test]
    fn a_chunk_is_split_so_that_both_end_together() {
        let (meter, _) = after(4, MIB, Phase::Body);
        let running = |end| Running { meter: &meter, end, recalls: 0 };
        let at = 4 * MIB;
        // As fast: half of it.
        let (left, end) = running(at + 64 * MIB).split(MIB as f64, true, MIB).expect("split");
        assert_eq!((left.round(), end), (64.0, at + 32 * MIB));
        // Three times as fast: a quarter stays.
        let split = running(at + 64 * MIB).split(3.0 * MIB as f64, false, MIB);
        assert_eq!(split.map(|(_, end)| end), Some(at + 16 * MIB));
        // There is more to fetch, and it is not slow; it is done soon; nothing worth a request is left.
        assert_eq!(running(at + 64 * MIB).split(MIB as f64, false, MIB), None);
        assert_eq!(running(at + MIB).split(MIB as f64, true, MIB), None);
        assert_eq!(running(at + 12 * MIB).split(MIB as f64, true, 8 * MIB), None);
    }

    #[test]
    fn what_is_usual_is_the_median_of_those_who_have_shown_something() {
        let meters = [1, 100, 100, 120].map(|rate| after(4, rate, Phase::Body).0);
        assert_eq!(Rates::of(meters.iter()).usual(), Some(100.0));
        assert_eq!(Rates::of(std::iter::empty()).usual(), None);
        assert_eq!(Rates::of([Meter::default()].iter()).usual(), None);
    }

    #[test]
    fn what_is_usual_beside_a_connection_is_the_median_of_the_others() {
        for count in 1..9 {
            let meters: Vec<Meter> =
                (0..count).map(|n| after(4, (n * 7 + 3) % 11, Phase::Body).0).collect();
            let rates = Rates::of(meters.iter());
            for (n, meter) in meters.iter().enumerate() {
                let others = meters.iter().enumerate().filter(|(other, _)| *other != n);
                let expected = Rates::of(others.map(|(_, other)| other)).usual();
                assert_eq!(rates.usual_without(meter), expected, "{n} of {count}");
            }
            assert_eq!(rates.usual_without(&Meter::default()), rates.usual());
        }
    }

    #[test]
    fn good_is_what_an_eighth_of_the_connections_bring_at_least() {
        let good = |rates: &[u64]| {
            let meters: Vec<Meter> =
                rates.iter().map(|rate| after(4, *rate, Phase::Body).0).collect();
            Rates::of(meters.iter()).good()
        };
        assert_eq!(good(&[9, 9, 68]), None);
        assert_eq!(good(&[9, 9, 9, 68]), Some(68.0));
        assert_eq!(good(&[[9; 14].as_slice(), &[68; 2]].concat()), Some(68.0));
        assert_eq!(good(&[[9; 15].as_slice(), &[68]].concat()), Some(9.0));
    }
}
