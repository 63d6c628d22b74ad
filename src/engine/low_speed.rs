//! The least throughput of a connection. A per-read timeout never fires on a trickle.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// A connection above this is kept, however fast the others are. Bytes per second.
const ENOUGH: u64 = 64 << 10;
/// A connection below this is replaced, however slow the others are. Bytes per second.
const TOO_SLOW: u64 = 1 << 10;

/// What all connections of a transfer have in common.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Bytes that have arrived.
    bytes: AtomicU64,
    /// Bodies that are being read.
    active: AtomicU64,
    /// The best rate that one connection has had over a window.
    best: AtomicU64,
}

/// Watches one body over windows of time.
#[derive(Debug)]
pub struct Floor<'a> {
    traffic: &'a Traffic,
    window: Duration,
    started: Instant,
    bytes: u64,
    all_at_start: u64,
}

impl<'a> Floor<'a> {
    pub fn new(traffic: &'a Traffic, window: Duration, now: Instant) -> Self {
        traffic.active.fetch_add(1, Relaxed);
        let all_at_start = traffic.bytes.load(Relaxed);
        Self { traffic, window, started: now, bytes: 0, all_at_start }
    }

    /// Counts `bytes`; at the end of a window returns the rate, in bytes per second, if it was too
    /// low.
    pub fn too_slow(&mut self, bytes: u64, now: Instant) -> Option<u64> {
        self.bytes += bytes;
        let all = self.traffic.bytes.fetch_add(bytes, Relaxed) + bytes;
        let elapsed = now.saturating_duration_since(self.started);
        if elapsed < self.window {
            return None;
        }
        let per_second = |bytes: u64| (bytes as f64 / elapsed.as_secs_f64()) as u64;
        let rate = per_second(self.bytes);
        // Where the whole link is slow, a new connection would be no faster: a quarter of a fair
        // share is still accepted, and so is a hundredth of the best that there has been.
        let active = self.traffic.active.load(Relaxed).max(1);
        let fair = per_second(all.saturating_sub(self.all_at_start)) / active;
        let best = self.traffic.best.fetch_max(rate, Relaxed).max(rate);
        let floor = (fair / 4).max(best / 100).clamp(TOO_SLOW, ENOUGH);
        (self.started, self.bytes, self.all_at_start) = (now, 0, all);
        (rate < floor).then_some(rate)
    }
}

impl Drop for Floor<'_> {
    fn drop(&mut self) {
        self.traffic.active.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(20);

    /// What one window says about a connection with `own` bytes per second beside `others` with
    /// `each`.
    fn verdict(own: u64, others: u64, each: u64) -> Option<u64> {
        let (start, traffic) = (Instant::now(), Traffic::default());
        let mut floor = Floor::new(&traffic, WINDOW, start);
        let mut rest: Vec<_> = (0..others).map(|_| Floor::new(&traffic, WINDOW, start)).collect();
        let seconds = WINDOW.as_secs();
        for other in &mut rest {
            assert_eq!(other.too_slow(each * seconds, start), None);
        }
        assert_eq!(floor.too_slow(own * seconds, start + WINDOW / 2), None);
        floor.too_slow(0, start + WINDOW)
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
        let (start, traffic) = (Instant::now(), Traffic::default());
        let mut fast = Floor::new(&traffic, WINDOW, start);
        assert_eq!(fast.too_slow(200 << 20, start + WINDOW), None);
        drop(fast);
        let mut last = Floor::new(&traffic, WINDOW, start);
        assert_eq!(last.too_slow(10_000 * 20, start + WINDOW), Some(10_000));
    }
}
