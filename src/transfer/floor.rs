//! The least throughput of a connection. A per-read timeout never fires on a trickle.

use std::time::{Duration, Instant};

/// Below this, and below a fair share of what all connections get, a connection is replaced.
const FLOOR_BYTES_PER_SECOND: u64 = 64 << 10;

/// Watches one body over windows of time.
#[derive(Debug)]
pub struct Floor {
    window: Duration,
    started: Instant,
    bytes: u64,
    all_at_start: u64,
}

impl Floor {
    /// `all_bytes` is the counter of all connections.
    pub fn new(window: Duration, now: Instant, all_bytes: u64) -> Self {
        Self {
            window,
            started: now,
            bytes: 0,
            all_at_start: all_bytes,
        }
    }

    /// Counts `bytes`; at the end of a window returns the rate, in bytes per second, if it was too
    /// low.
    pub fn too_slow(
        &mut self,
        bytes: u64,
        now: Instant,
        all_bytes: u64,
        connections: u64,
    ) -> Option<u64> {
        self.bytes += bytes;
        let elapsed = now.saturating_duration_since(self.started);
        if elapsed < self.window {
            return None;
        }
        let per_second = |bytes: u64| (bytes as f64 / elapsed.as_secs_f64()) as u64;
        let rate = per_second(self.bytes);
        // Where the whole link is slow, a new connection would be no faster: a quarter of the
        // fair share is still accepted.
        let fair = per_second(all_bytes.saturating_sub(self.all_at_start)) / connections.max(1);
        *self = Self::new(self.window, now, all_bytes);
        (rate < FLOOR_BYTES_PER_SECOND.min(fair / 4)).then_some(rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(20);

    /// What one window says about a connection with `own` bytes of `all`.
    fn verdict(own: u64, all: u64) -> Option<u64> {
        let start = Instant::now();
        let mut floor = Floor::new(WINDOW, start, 1_000);
        assert_eq!(
            floor.too_slow(own, start + WINDOW / 2, 1_000 + all, 8),
            None
        );
        floor.too_slow(0, start + WINDOW, 1_000 + all, 8)
    }

    #[test]
    fn a_trickle_beside_fast_connections_is_too_slow() {
        assert_eq!(verdict(20, 1 << 30), Some(1));
    }

    #[test]
    fn a_slow_link_is_borne() {
        // 1 Mbit/s over eight connections.
        assert_eq!(verdict(16_000 * 20, 125_000 * 20), None);
        assert_eq!(verdict(10_000 * 20, 125_000 * 20), None);
    }

    #[test]
    fn a_connection_above_the_floor_is_kept_however_fast_the_others_are() {
        assert_eq!(verdict((64 << 10) * 21, 100 << 30), None);
    }
}
