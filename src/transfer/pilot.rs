//! How many connections are worth having: more, as long as they make the transfer faster.
//!
//! A CDN that caps each connection, or a long round trip, wants many; a link, a disk or a processor
//! that is busy already gains nothing by them, and pays.

use std::time::Duration;

/// A transfer begins with this many connections, if it may have so many.
pub const FIRST: usize = 4;
/// How often the rate is looked at.
pub const TICK: Duration = Duration::from_millis(250);

/// More connections must bring at least this.
const WORTH_IT: f64 = 1.15;
/// Where this part of the processors is busy with us, more connections cannot help.
const BUSY: f64 = 0.5;
/// Where no more than this is, the next step is a large one.
const QUIET: f64 = 0.25;
/// Ticks until a further step is tried after one that brought nothing.
const REST: u32 = 40;

#[derive(Debug)]
pub struct Pilot {
    now: usize,
    most: usize,
    /// What there was before the last step, and the rate it had.
    before: Option<(usize, f64)>,
    /// Ticks during which nothing is changed: connections need time to come up to speed.
    wait: u32,
}

impl Pilot {
    pub fn new(most: usize) -> Self {
        Self { now: FIRST.min(most), most, before: None, wait: 1 }
    }

    /// After a tick with `rate` bytes per second, in which `cpu` of the processors was ours (0 to
    /// 1): how many connections there should be.
    pub fn steer(&mut self, rate: f64, cpu: f64) -> usize {
        if self.wait > 0 {
            self.wait -= 1;
            return self.now;
        }
        match self.before.take() {
            Some((fewer, then)) if rate < then * WORTH_IT => {
                self.now = fewer;
                self.wait = REST;
            }
            _ if self.now < self.most && cpu < BUSY => {
                self.before = Some((self.now, rate));
                let step = if cpu < QUIET { 4 } else { 2 };
                self.now = (self.now * step).min(self.most);
                self.wait = 1;
            }
            _ => {}
        }
        self.now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where it is after `ticks` with a server that gives `each` bytes per second to a connection
    /// and `all` to all of them.
    fn after(ticks: usize, most: usize, each: f64, all: f64, cpu: f64) -> usize {
        let mut pilot = Pilot::new(most);
        (0..ticks).fold(pilot.now, |now, _| pilot.steer((now as f64 * each).min(all), cpu))
    }

    #[test]
    fn a_cap_on_each_connection_is_answered_with_more_of_them() {
        assert_eq!(after(10, 32, 40e6, 1e12, 0.1), 32);
        assert_eq!(after(10, 20, 40e6, 1e12, 0.1), 20);
    }

    #[test]
    fn a_link_that_is_full_keeps_what_it_has() {
        assert_eq!(after(200, 32, 40e6, 160e6, 0.1), FIRST);
        // Sixteen fill it; thirty-two would bring nothing.
        assert_eq!(after(30, 32, 40e6, 600e6, 0.1), 16);
    }

    #[test]
    fn busy_processors_get_no_more() {
        assert_eq!(after(100, 32, 40e6, 1e12, 0.9), FIRST);
    }

    #[test]
    fn what_the_operator_allows_is_the_most() {
        assert_eq!(after(100, 4, 40e6, 1e12, 0.1), 4);
        assert_eq!(after(100, 1, 40e6, 1e12, 0.1), 1);
    }

    #[test]
    fn a_link_that_becomes_faster_is_tried_again() {
        let mut pilot = Pilot::new(32);
        let mut now = pilot.now;
        for _ in 0..10 {
            now = pilot.steer((now as f64 * 40e6).min(160e6), 0.1);
        }
        assert_eq!(now, FIRST);
        for _ in 0..60 {
            now = pilot.steer(now as f64 * 40e6, 0.1);
        }
        assert_eq!(now, 32);
    }
}
