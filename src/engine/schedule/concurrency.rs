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
/// Ticks that a step has to bring something: until a connection to a server far away is open and at
/// its speed, a dozen round trips go by.
const PATIENCE: u32 = 16;
/// Ticks until a further step is tried after one that brought nothing.
const REST: u32 = 40;
/// Ticks that the rate has to be lower, after a step was taken back, until that is regretted.
const REGRET: u32 = 8;

#[derive(Clone, Debug)]
pub struct Concurrency {
    now: usize,
    most: usize,
    step: Option<Step>,
    /// The step that was taken back last, with the rate that there was during it.
    taken_back: Option<Step>,
    /// Ticks during which nothing is changed.
    wait: u32,
}

#[derive(Clone, Debug)]
struct Step {
    from: usize,
    to: usize,
    /// The rate to compare with.
    rate: f64,
    /// Of the ticks since.
    rates: Vec<f64>,
}

impl Step {
    fn mean(&self) -> f64 {
        self.rates.iter().sum::<f64>() / self.rates.len().max(1) as f64
    }
}

impl Concurrency {
    pub fn new(most: usize) -> Self {
        Self { now: FIRST.min(most), most, step: None, taken_back: None, wait: 1 }
    }

    /// How many connections there should be.
    pub fn now(&self) -> usize {
        self.now
    }

    /// After a tick with `rate` bytes per second, in which `cpu` of the processors was ours (0 to
    /// 1): how many connections there should be.
    pub fn steer(&mut self, rate: f64, cpu: f64) -> usize {
        // A pause that was asked for, or an outage, says nothing about their number.
        if rate <= 0.0 {
            self.wait = self.wait.saturating_sub(1);
            return self.now;
        }
        if let Some(step) = &mut self.taken_back {
            // A connection that has just begun can be fast, and fall behind by its first losses.
            if rate * WORTH_IT < step.rate && cpu < BUSY {
                step.rates.push(rate);
            } else {
                step.rates.clear();
            }
            if step.rates.len() >= REGRET as usize {
                // As every step, it has to show.
                let (to, rate) = (step.to, step.mean());
                self.step = Some(Step { from: self.now, to, rate, rates: Vec::new() });
                (self.now, self.wait, self.taken_back) = (to, 1, None);
            }
        }
        if self.wait > 0 {
            self.wait -= 1;
            return self.now;
        }
        match self.step.take() {
            Some(mut step) if rate < step.rate * WORTH_IT => {
                step.rates.push(rate);
                if step.rates.len() <= PATIENCE as usize {
                    self.step = Some(step);
                } else {
                    (self.now, self.wait) = (step.from, REST);
                    let rate = step.mean();
                    self.taken_back = Some(Step { rate, rates: Vec::new(), ..step });
                }
            }
            _ if self.now < self.most && cpu < BUSY => {
                let times = if cpu < QUIET { 4 } else { 2 };
                let (from, to) = (self.now, (self.now * times).min(self.most));
                self.step = Some(Step { from, to, rate, rates: Vec::new() });
                (self.now, self.wait, self.taken_back) = (to, 1, None);
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
        let mut concurrency = Concurrency::new(most);
        (0..ticks)
            .fold(concurrency.now, |now, _| concurrency.steer((now as f64 * each).min(all), cpu))
    }

    #[test]
    fn a_cap_on_each_connection_is_answered_with_more_of_them() {
        assert_eq!(after(10, 32, 40e6, 1e12, 0.1), 32);
        assert_eq!(after(10, 20, 40e6, 1e12, 0.1), 20);
    }

    #[test]
    fn a_link_that_is_full_keeps_what_it_has() {
        let ticks = (PATIENCE + REST) as usize;
        assert_eq!(after(ticks, 32, 40e6, 160e6, 0.1), FIRST);
        // Sixteen fill it; thirty-two bring nothing.
        assert_eq!(after(ticks, 32, 40e6, 600e6, 0.1), 16);
    }

    #[test]
    fn connections_that_take_seconds_to_be_made_are_waited_for() {
        let mut concurrency = Concurrency::new(16);
        // What each of the last ticks had; a connection delivers after three seconds.
        let mut had = vec![concurrency.now; 13];
        for tick in 0..30 {
            had.push(concurrency.now);
            let delivering = had[tick..].iter().take(13).min().map_or(0, |now| *now);
            concurrency.steer(delivering as f64 * 1e6, 0.1);
        }
        assert_eq!(concurrency.now, 16);
    }

    #[test]
    fn a_step_is_taken_again_at_once_when_the_rate_falls_without_it() {
        let mut concurrency = Concurrency::new(16);
        let mut now = concurrency.now;
        let mut ticks = 0;
        // Each connection alone is fast at first: four fill the link.
        while ticks < 4 || now != FIRST {
            now = concurrency.steer((now as f64 * 40e6).min(160e6), 0.1);
            ticks += 1;
        }
        assert!(ticks > PATIENCE, "{ticks}");
        for _ in 0..2 * REGRET {
            now = concurrency.steer((now as f64 * 10e6).min(160e6), 0.1);
        }
        assert_eq!(now, 16);
    }

    #[test]
    fn a_pause_and_busy_processors_are_no_reason_for_more() {
        for (each, cpu) in [(0.0, 0.1), (10e6, 0.9)] {
            let mut concurrency = Concurrency::new(16);
            let mut steer = |each: f64, cpu| {
                let rate = (concurrency.now as f64 * each).min(160e6);
                concurrency.steer(rate, cpu)
            };
            // Tried, and taken back.
            (0..PATIENCE + 4).for_each(|_| _ = steer(40e6, 0.1));
            assert_eq!(steer(40e6, 0.1), FIRST);
            assert!((0..2 * REGRET).all(|_| steer(each, cpu) == FIRST), "{each} {cpu}");
            assert!((0..REGRET).all(|_| steer(40e6, 0.1) == FIRST), "{each} {cpu}");
        }
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
        let mut concurrency = Concurrency::new(32);
        let mut now = concurrency.now;
        for _ in 0..PATIENCE + 10 {
            now = concurrency.steer((now as f64 * 40e6).min(160e6), 0.1);
        }
        assert_eq!(now, FIRST);
        for _ in 0..60 {
            now = concurrency.steer(now as f64 * 40e6, 0.1);
        }
        assert_eq!(now, 32);
    }
}
