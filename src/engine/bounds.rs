//! Where the chunk of one worker ends, agreed between that worker and whoever gives a part of it away.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Under one lock, and not two atomics: each could see the other's, and then both would leave the same bytes
/// to the other.
#[derive(Default)]
pub struct Bounds(Mutex<State>);

#[derive(Clone, Copy, Default)]
struct State {
    /// The worker has written up to here, or is about to.
    claimed: u64,
    end: u64,
}

impl Bounds {
    /// The worker begins a chunk.
    pub fn begin(&self, chunk: &Range<u64>) {
        *self.state() = State { claimed: chunk.start, end: chunk.end };
    }

    pub fn end(&self) -> u64 {
        self.state().end
    }

    /// The worker is about to write up to `upto`; returns where the chunk ends, which it does not write
    /// beyond.
    pub fn claim(&self, upto: u64) -> u64 {
        let mut state = self.state();
        state.claimed = upto.min(state.end);
        state.end
    }

    /// What follows `end` is somebody else's; returns where that begins: behind what the worker has claimed.
    pub fn shorten(&self, end: u64) -> u64 {
        let mut state = self.state();
        state.end = end;
        state.claimed.max(end)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Up to where the worker writes that has `upto` at hand, and where the other begins.
    fn parts(upto: u64, end: u64, is_claimed_first: bool) -> (u64, u64) {
        let bounds = Bounds::default();
        bounds.begin(&(0..100));
        let claim = || upto.min(bounds.claim(upto));
        if is_claimed_first {
            let written = claim();
            (written.max(end), bounds.shorten(end))
        } else {
            let begins = bounds.shorten(end);
            (claim().max(end), begins)
        }
    }

    #[test]
    fn the_parts_meet_whoever_comes_first() {
        for upto in [10, 40, 50, 51, 99, 100, 130] {
            for is_claimed_first in [true, false] {
                let (ends, begins) = parts(upto, 50, is_claimed_first);
                assert_eq!(ends, begins, "{upto} {is_claimed_first}");
            }
        }
        // A chunk that is shortened twice while its worker is beyond both places.
        let bounds = Bounds::default();
        bounds.begin(&(0..100));
        assert_eq!(bounds.claim(70), 100);
        assert_eq!((bounds.shorten(60), bounds.end()), (70, 60));
        assert_eq!((bounds.shorten(50).min(60), bounds.end()), (60, 50));
    }
}
