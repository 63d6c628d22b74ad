//! What a waiter does: wait for the holder, fetch as well, or give up.
//!
//! Pure: it is told what there is to see of a holder, and when it was seen, by the waiter's own clock. It
//! reads no file and no clock, and knows nothing of locks.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::heartbeat::{BEAT, Owner, STOPPED_AFTER};

/// The rate of a holder is measured over this many times `takeover_after`, and over three beats at least.
const WINDOW_FACTOR: u32 = 3;
const SHORTEST_WINDOW: Duration = BEAT.saturating_mul(3);
/// To fetch as well never costs less: another start, another connection that has to become fast.
const TAKEOVER_TAKES: Duration = Duration::from_secs(5 * 60);
/// What the holder has on the volume is re-checked and copied, at this many bytes a second at least.
const RECHECK_RATE: u64 = 100_000_000;
/// An attempt is forgotten when it has not been seen for this long. The attempts of one model share a
/// heartbeat, so one of them can miss a few looks.
const FORGOTTEN_AFTER: Duration = STOPPED_AFTER.saturating_mul(5);
/// A holder and two extra attempts, and what is just ending.
const MAX_ATTEMPTS: usize = 8;
/// Measurements that are kept of one window.
const SAMPLES: u32 = 64;

/// How long a waiter waits.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Without any progress of the holder, until it gives up; zero does not wait at all.
    pub lock_timeout: Duration,
    /// Without any progress of the holder, until it fetches as well.
    pub takeover_after: Duration,
    /// Bytes per second at which the waiter expects to fetch at least; zero never calls a holder slow.
    pub takeover_rate: u64,
}

/// A heartbeat, as far as a waiter needs it.
#[derive(Clone, Copy, Debug)]
pub struct Beat<'a> {
    pub staging: &'a str,
    pub sequence: u64,
    pub phase: &'a str,
    pub done_bytes: u64,
    pub total_bytes: u64,
    pub worked_bytes: u64,
}

impl<'a> From<&'a Owner> for Beat<'a> {
    fn from(owner: &'a Owner) -> Self {
        Self {
            staging: &owner.staging,
            sequence: owner.sequence,
            phase: &owner.phase,
            done_bytes: owner.done_bytes,
            total_bytes: owner.total_bytes,
            worked_bytes: owner.worked_bytes,
        }
    }
}

/// What a waiter does next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Next {
    Wait,
    /// Fetch beside the holder, if no more than `extra_attempts` do so, this one included.
    FetchAsWell {
        why: Why,
        extra_attempts: usize,
    },
    GiveUp,
}

/// What is wrong with the holder.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Why {
    Stuck,
    /// Bytes per second over the last minutes, and how long the rest takes at that.
    Slow {
        rate: u64,
        left: Duration,
    },
}

/// One wait, as long as it lasts.
#[derive(Debug)]
pub struct Waiter {
    patience: Patience,
    /// How long this waiter holds back after a holder has turned out to be slow.
    stagger: Duration,
    progress: Option<(u64, u64, String, String)>,
    moved_at: Instant,
    beat: Option<(String, u64)>,
    beat_at: Instant,
    lease: Option<(String, String)>,
    attempts: Vec<Attempt>,
}

impl Waiter {
    /// `luck`, 0 to 1, tells waiters apart: where locks do not reach all of them, they must not all fetch at
    /// the same moment.
    pub fn new(now: Instant, patience: Patience, luck: f64) -> Self {
        Self {
            patience,
            stagger: patience.window().mul_f64(luck.clamp(0.0, 1.0)),
            progress: None,
            moved_at: now,
            beat: None,
            beat_at: now,
            lease: None,
            attempts: Vec::new(),
        }
    }

    /// The heartbeat that is there now.
    pub fn sees(&mut self, now: Instant, beat: &Beat<'_>) {
        let progress =
            (beat.done_bytes, beat.worked_bytes, beat.phase.to_owned(), beat.staging.to_owned());
        if self.progress.as_ref() != Some(&progress) {
            self.progress = Some(progress);
            self.moved_at = now;
        }
        let id = (beat.staging.to_owned(), beat.sequence);
        if self.beat.as_ref() == Some(&id) {
            return;
        }
        self.beat = Some(id);
        self.beat_at = now;
        self.attempts.retain(|it| now.duration_since(it.beat_at) < FORGOTTEN_AFTER);
        let known = self.attempts.iter_mut().find(|it| it.staging == beat.staging);
        if let Some(attempt) = known {
            attempt.sees(now, beat, &self.patience);
        } else if self.attempts.len() < MAX_ATTEMPTS {
            self.attempts.push(Attempt::new(now, beat));
        }
    }

    /// The holder of a Lease, whose heartbeat may not reach this volume, and what it tells of its progress.
    pub fn hears(&mut self, now: Instant, holder: &str, progress: &str) {
        let is_same = |(was, did): &(String, String)| was == holder && did == progress;
        if !self.lease.as_ref().is_some_and(is_same) {
            self.lease = Some((holder.to_owned(), progress.to_owned()));
            self.moved_at = now;
        }
    }

    /// The holder of the Lease, if one was heard of.
    pub fn lease_holder(&self) -> Option<&str> {
        self.lease.as_ref().map(|(holder, _)| &**holder)
    }

    /// Whether the last heartbeat is so old that its writer has stopped.
    pub fn is_silent(&self, now: Instant) -> bool {
        now.duration_since(self.beat_at) >= STOPPED_AFTER
    }

    /// How long the holder has made no progress.
    pub fn unmoved(&self, now: Instant) -> Duration {
        now.duration_since(self.moved_at)
    }

    /// When the waiter gives up, unless the holder moves before.
    pub fn gives_up_in(&self, now: Instant) -> Duration {
        self.patience.until_give_up().saturating_sub(self.unmoved(now))
    }

    pub fn next(&self, now: Instant) -> Next {
        if self.unmoved(now) >= self.patience.takeover_after {
            return Next::FetchAsWell { why: Why::Stuck, extra_attempts: 2 };
        }
        if let Some((why, since)) = self.slow() {
            let slow_for = now.duration_since(since);
            // The second one gives the first the time to show what it can do.
            let second = self.stagger.saturating_add(self.patience.window());
            if slow_for >= self.stagger {
                let extra_attempts = if slow_for >= second { 2 } else { 1 };
                return Next::FetchAsWell { why, extra_attempts };
            }
        }
        self.next_without_takeover(now)
    }

    /// Where as many fetch as may, or there is no space for another attempt.
    pub fn next_without_takeover(&self, now: Instant) -> Next {
        if self.gives_up_in(now).is_zero() { Next::GiveUp } else { Next::Wait }
    }

    /// If all attempts that are at work are slow: the best of them, and since when that is so.
    fn slow(&self) -> Option<(Why, Instant)> {
        let slow: Option<Vec<_>> = self.attempts.iter().map(|attempt| attempt.slow).collect();
        let slow = slow?;
        let since = slow.iter().map(|(_, since)| *since).max()?;
        let best = slow.iter().min_by_key(|(pace, _)| pace.left)?.0;
        Some((Why::Slow { rate: best.rate, left: best.left }, since))
    }
}

impl Patience {
    /// A holder shows its progress with each heartbeat only: with less patience, every one would look stuck.
    fn until_give_up(&self) -> Duration {
        if self.lock_timeout.is_zero() {
            Duration::ZERO
        } else {
            self.lock_timeout.max(STOPPED_AFTER)
        }
    }

    fn window(&self) -> Duration {
        self.takeover_after.saturating_mul(WINDOW_FACTOR).max(SHORTEST_WINDOW)
    }

    /// A careful guess of how long a waiter needs for the rest that a holder has `left`, from what it has
    /// `done`; none where a slow holder is no reason.
    fn fetching_as_well(&self, done: u64, left: u64) -> Option<Duration> {
        let seconds = left.checked_div(self.takeover_rate)?.saturating_add(done / RECHECK_RATE);
        Some(TAKEOVER_TAKES.saturating_add(Duration::from_secs(seconds)))
    }
}

#[derive(Clone, Copy, Debug)]
struct Pace {
    rate: u64,
    left: Duration,
}

/// What was seen of one attempt.
#[derive(Debug)]
struct Attempt {
    staging: String,
    beat_at: Instant,
    /// Bytes that have arrived or were read back, by the last heartbeat.
    bytes: u64,
    /// The growth of that, in which no step back counts.
    moved: u64,
    /// `moved` at earlier times, the oldest first and as old as the window, if possible.
    samples: VecDeque<(Instant, u64)>,
    slow: Option<(Pace, Instant)>,
}

impl Attempt {
    fn new(now: Instant, beat: &Beat<'_>) -> Self {
        Self {
            staging: beat.staging.to_owned(),
            beat_at: now,
            bytes: bytes_of(beat),
            moved: 0,
            samples: VecDeque::from([(now, 0)]),
            slow: None,
        }
    }

    fn sees(&mut self, now: Instant, beat: &Beat<'_>, patience: &Patience) {
        let bytes = bytes_of(beat);
        self.moved = self.moved.saturating_add(bytes.saturating_sub(self.bytes));
        self.bytes = bytes;
        self.beat_at = now;
        let window = patience.window();
        let is_older = |sample: Option<&(Instant, u64)>, than| {
            sample.is_some_and(|(at, _)| now.duration_since(*at) >= than)
        };
        if is_older(self.samples.back(), window / SAMPLES) {
            self.samples.push_back((now, self.moved));
        }
        while is_older(self.samples.get(1), window) {
            self.samples.pop_front();
        }
        let since = self.slow.map_or(now, |(_, since)| since);
        self.slow = self.pace(now, beat, patience).map(|pace| (pace, since));
    }

    /// How fast it is, if that was seen for long enough and is too slow.
    fn pace(&self, now: Instant, beat: &Beat<'_>, patience: &Patience) -> Option<Pace> {
        let (at, before) = *self.samples.front()?;
        let seen_for = now.duration_since(at);
        let left = beat.total_bytes.saturating_sub(beat.done_bytes);
        if beat.phase != "fetching" || left == 0 || seen_for < patience.window() {
            return None;
        }
        let rate = (self.moved - before) as f64 / seen_for.as_secs_f64();
        let takes = Duration::from_secs_f64((left as f64 / rate.max(0.001)).min(1e9));
        let is_slow = takes > patience.fetching_as_well(beat.done_bytes, left)?;
        is_slow.then_some(Pace { rate: rate as u64, left: takes })
    }
}

/// A holder that reads back what it has is no slow one.
fn bytes_of(beat: &Beat<'_>) -> u64 {
    beat.done_bytes.saturating_add(beat.worked_bytes)
}

#[cfg(test)]
mod tests;
