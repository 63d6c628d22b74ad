//! Ends a transfer in which nothing happens any more, whatever the reason.
//!
//! Every wait has an end of its own; this is for the one that was overlooked. It knows neither threads
//! nor clocks: it is told what there is to see.

use std::time::{Duration, Instant};

/// With less patience, a machine that is slow to start a thread would look dead.
const LEAST: Duration = Duration::from_secs(2);
/// As much of the time between two looks counts. A process that was frozen has not waited.
const MOST_BETWEEN_LOOKS: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Watchdog {
    patience: Duration,
    /// What a request that is on its way may take beyond that until it ends by itself, with a better
    /// message.
    grace: Duration,
    silent: Duration,
    /// The part of it in which nothing was on its way that ends by itself.
    idle: Duration,
    last: Option<Look>,
}

/// What there is to see at a moment.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    pub at: Instant,
    /// Grows with every byte that arrives or is hashed, and every file that is done.
    pub progress: u64,
    /// A host has asked to be left alone until later.
    pub is_paused: bool,
    /// Somebody hashes, or is in a call to the volume: a disk may be as slow as it likes.
    pub is_working: bool,
    /// Somebody waits for the network, which has deadlines.
    pub has_deadline: bool,
}

impl Watchdog {
    pub fn new(patience: Duration, grace: Duration) -> Self {
        Self {
            patience: patience.max(LEAST),
            grace,
            silent: Duration::ZERO,
            idle: Duration::ZERO,
            last: None,
        }
    }

    /// How long nothing has happened, if that is too long.
    pub fn look(&mut self, now: Look) -> Option<Duration> {
        let last = self.last.replace(now)?;
        if now.progress != last.progress {
            (self.silent, self.idle) = (Duration::ZERO, Duration::ZERO);
        } else if !now.is_paused && !now.is_working {
            let passed = now.at.saturating_duration_since(last.at).min(MOST_BETWEEN_LOOKS);
            self.silent += passed;
            // A request that has just ended late is still to be told of: its time stays the network's.
            if !now.has_deadline {
                self.idle += passed;
            }
        }
        let is_over =
            self.idle > self.patience || self.silent > self.patience.saturating_add(self.grace);
        is_over.then_some(self.silent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);
    const GRACE: Duration = Duration::from_secs(30);
    const TICK: Duration = Duration::from_millis(250);

    /// After how many seconds of `seconds` it barks, where every tick looks like what `see` makes of
    /// the second that it is in.
    fn barks(seconds: u64, see: impl Fn(u64, &mut Look)) -> Option<u64> {
        let start = Instant::now();
        let mut dog = Watchdog::new(PATIENCE, GRACE);
        (0..seconds * 4).find_map(|tick| {
            let mut look = Look {
                at: start + TICK * tick as u32,
                progress: 0,
                is_paused: false,
                is_working: false,
                has_deadline: false,
            };
            see(tick / 4, &mut look);
            dog.look(look).map(|_| tick / 4)
        })
    }

    /// A name, what every second looks like, and when it barks.
    type Row = (&'static str, fn(u64, &mut Look), Option<u64>);

    #[test]
    fn silence_ends_the_transfer_and_what_is_none_does_not() {
        let table: [Row; 11] = [
            ("nothing at all", |_, _| {}, Some(60)),
            ("the network, which ends by itself", |_, look| look.has_deadline = true, Some(90)),
            ("an answer that took long", |second, look| look.has_deadline = second < 70, Some(90)),
            (
                "answers that take long, and a moment behind each",
                |second, look| look.has_deadline = second % 30 != 0,
                Some(90),
            ),
            ("a byte each second", |second, look| look.progress = second, None),
            ("one byte", |second, look| look.progress = u64::from(second >= 50), Some(110)),
            ("a byte each minute", |second, look| look.progress = second / 60, None),
            ("a host that asked to wait", |_, look| look.is_paused = true, None),
            ("a long sync", |_, look| look.is_working = true, None),
            ("a sync that ends", |second, look| look.is_working = second < 500, Some(560)),
            // The time before each counts.
            (
                "pauses in between",
                |second, look| look.is_paused = (second / 25) % 2 == 0,
                Some(135),
            ),
        ];
        for (name, see, expected) in table {
            let found = barks(1_000, see);
            let is_so = match (found, expected) {
                (Some(found), Some(expected)) => found.abs_diff(expected) <= 2,
                (found, expected) => found == expected,
            };
            assert!(is_so, "{name}: {found:?}, expected {expected:?}");
        }
    }

    #[test]
    fn a_process_that_was_frozen_has_not_waited() {
        let start = Instant::now();
        let mut dog = Watchdog::new(PATIENCE, GRACE);
        let mut look = Look {
            at: start,
            progress: 7,
            is_paused: false,
            is_working: false,
            has_deadline: false,
        };
        for hour in 0..5 {
            look.at = start + Duration::from_secs(hour * 3_600);
            assert_eq!(dog.look(look), None);
        }
    }

    #[test]
    fn no_patience_is_some_all_the_same() {
        let mut dog = Watchdog::new(Duration::ZERO, Duration::ZERO);
        let start = Instant::now();
        let look = |millis| Look {
            at: start + Duration::from_millis(millis),
            progress: 0,
            is_paused: false,
            is_working: false,
            has_deadline: false,
        };
        let barked = (0..20).find(|tick| dog.look(look(tick * 250)).is_some());
        assert_eq!(barked, Some(9));
    }
}
