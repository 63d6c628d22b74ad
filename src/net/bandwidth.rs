//! The most bytes per second that a process takes: one bucket for the bodies of all connections.
//!
//! `Bucket` decides, and has no clock. `Bandwidth` is a bucket with a clock, which everybody shares.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// So much of the rate passes at once after a rest. It covers the moments in which a busy machine gives us no
/// turn, and is 2 % of five seconds.
const BURST: Duration = Duration::from_millis(100);
/// At a slow rate as well: a small file comes at once.
const LEAST_BURST_BYTES: u64 = 8 << 10;
/// The rate counts as used up for this long after the last wait: two looks of a transfer.
const LATELY: Duration = Duration::from_millis(500);

/// Each taker has its turn behind those that came before it, so that all get the same.
#[derive(Clone, Debug)]
pub struct Bucket {
    bytes_per_second: u64,
    /// The time by which all that was taken has passed at this rate, times the rate: exact, however small the
    /// pieces are.
    taken: u128,
}

const NANOS: u128 = 1_000_000_000;

impl Bucket {
    pub fn of(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), taken: 0 }
    }

    /// The most bytes that should be taken at once: those before and after wait no longer than for these.
    pub fn burst(&self) -> u64 {
        let bytes = u128::from(self.bytes_per_second) * BURST.as_nanos() / NANOS;
        (bytes as u64).max(LEAST_BURST_BYTES)
    }

    /// Takes `bytes` at `now`, a time since the bucket was made; returns how long they have to wait.
    pub fn take(&mut self, now: Duration, bytes: u64) -> Duration {
        let rate = u128::from(self.bytes_per_second);
        let given = rate * now.as_nanos();
        // What was not used is lost, but for the burst.
        self.taken = self.taken.max(given) + u128::from(bytes) * NANOS;
        let over = self.taken.saturating_sub(given + u128::from(self.burst()) * NANOS);
        let nanos = over.div_ceil(rate);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// Shared by all who read, or by all who send.
#[derive(Debug)]
pub struct Bandwidth {
    started: Instant,
    burst: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    bucket: Bucket,
    /// The end of the last wait.
    waits_until: Option<Duration>,
}

impl Bandwidth {
    pub fn of(bytes_per_second: u64) -> Self {
        let bucket = Bucket::of(bytes_per_second);
        let burst = usize::try_from(bucket.burst()).unwrap_or(usize::MAX);
        let state = Mutex::new(State { bucket, waits_until: None });
        Self { started: Instant::now(), burst, state }
    }

    /// The most bytes that are passed at once.
    pub fn burst(&self) -> usize {
        self.burst
    }

    /// The wait until `bytes` more may pass, if there is one. They count as passed.
    pub fn take(&self, bytes: usize) -> Option<tokio::time::Sleep> {
        let now = self.started.elapsed();
        let mut state = self.state();
        let wait = state.bucket.take(now, bytes as u64);
        if wait.is_zero() {
            return None;
        }
        state.waits_until = Some(now + wait);
        Some(tokio::time::sleep(wait))
    }

    /// Whether it is this limit that makes bodies slow.
    pub fn is_used_up(&self) -> bool {
        let now = self.started.elapsed();
        self.state().waits_until.is_some_and(|until| now < until + LATELY)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_is_taken_waits_for_its_turn() {
        let millis = Duration::from_millis;
        // 1 MB/s passes 100 kB at once. Each row: when, how many bytes, and how long they wait.
        for (name, takes) in [
            ("a small file", &[(0, 90_000, 0)][..]),
            ("a burst, and no more", &[(0, 100_000, 0), (0, 1_000, 1), (0, 1_000, 2)]),
            ("one after the other", &[(0, 100_000, 0), (0, 50_000, 50), (10, 50_000, 90)]),
            ("what has passed is made up for", &[(0, 100_000, 0), (50, 50_000, 0), (50, 1_000, 1)]),
            ("a rest", &[(0, 150_000, 50), (5_000, 100_000, 0), (5_000, 1_000, 1)]),
            ("no more than a burst is saved", &[(9_000, 100_000, 0), (9_000, 10_000, 10)]),
            ("a piece that is too large", &[(0, 1_100_000, 1_000), (2_000, 100_000, 0)]),
            ("nothing", &[(0, 100_000, 0), (0, 0, 0), (3, 0, 0)]),
        ] {
            let mut bucket = Bucket::of(1_000_000);
            for (at, bytes, wait) in takes {
                assert_eq!(bucket.take(millis(*at), *bytes), millis(*wait), "{name}: {at} {bytes}");
            }
        }
    }

    #[test]
    fn five_seconds_are_within_three_per_cent_at_every_rate_and_number_of_takers() {
        let span = Duration::from_secs(5);
        for rate in [64_000, 64 << 10, 333_333, 16 * MIB, 250_000_000, 12_500_000_000] {
            for (takers, piece) in [(1, 16_384), (16, 16_384), (16, 400_001), (256, 65_536)] {
                let mut bucket = Bucket::of(rate);
                let piece = bucket.burst().min(piece);
                // Each takes again when its piece has passed, up to a millisecond late, as timers are.
                let mut free_at = vec![Duration::ZERO; takers];
                let mut passed = 0;
                loop {
                    let next = (0..takers).min_by_key(|n| free_at[*n]).expect("some");
                    let now = free_at[next];
                    if now >= span {
                        break;
                    }
                    let wait = bucket.take(now, piece);
                    if now + wait < span {
                        passed += piece;
                    }
                    let late = if wait.is_zero() { 1_000 } else { 1_000_000 };
                    free_at[next] = now + wait + Duration::from_nanos(late);
                }
                let part = passed as f64 / (rate as f64 * span.as_secs_f64());
                let is_held = rate as f64 / (takers as f64 * piece as f64) < 900.0;
                assert!(part <= 1.03, "{rate} {takers} {piece}: {part}");
                assert!(!is_held || part >= 0.97, "{rate} {takers} {piece}: {part}");
            }
        }
    }

    #[test]
    fn it_is_used_up_only_while_somebody_waits() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let bandwidth = Bandwidth::of(1_000_000);
            assert!(bandwidth.take(60_000).is_none() && !bandwidth.is_used_up());
            assert!(bandwidth.take(10_000_000).is_some() && bandwidth.is_used_up());
        });
    }
}
