//! A link that connections share: together they are as fast as it is.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Cloning shares it. Whoever sends a block waits until those before it have passed.
#[derive(Clone, Debug)]
pub struct Link(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    bytes_per_second: u64,
    free_at: Instant,
}

impl Link {
    pub fn of(bytes_per_second: u64) -> Self {
        Self(Arc::new(Mutex::new(State { bytes_per_second, free_at: Instant::now() })))
    }

    /// From the next block on.
    pub fn set_speed(&self, bytes_per_second: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).bytes_per_second = bytes_per_second;
    }

    /// Takes `bytes`; returns how long the sender has to wait until they have passed.
    pub(crate) fn busy_with(&self, bytes: u64) -> Duration {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let takes = Duration::from_secs_f64(bytes as f64 / state.bytes_per_second.max(1) as f64);
        // What nobody used is lost.
        state.free_at = state.free_at.max(now) + takes;
        state.free_at.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_all_connections_pass_one_after_the_other() {
        let link = Link::of(1_000_000);
        let other = link.clone();
        let waits = [link.busy_with(50_000), other.busy_with(50_000), link.busy_with(100_000)];
        let bounds = [49..=50, 95..=100, 190..=200];
        for (wait, bound) in waits.iter().zip(bounds) {
            assert!(bound.contains(&wait.as_millis()), "{waits:?}");
        }
    }
}
