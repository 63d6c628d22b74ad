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
/// Ticks until a further step is tried after one that brought nothing; twice as many after each
/// further one.
const REST: u32 = 40;
const LONGEST_REST: u32 = 16 * REST;
/// Ticks that the rate has to be lower, after a step was taken back, until that is regretted.
const REGRET: u32 = 8;
/// A step that was worth it can still be too large: so many times what the rate needs is kept.
const SPARE: f64 = 1.25;
/// What is kept must be fewer than this part of what there is: anything else is not worth a change.
const FEWER: f64 = 0.7;

#[derive(Clone, Debug)]
pub struct Concurrency {
    now: usize,
    most: usize,
    /// What others leave of it at the moment.
    allowed: usize,
    step: Option<Step>,
    /// The step that was taken back last, with the rate that there was during it.
    taken_back: Option<Step>,
    /// Connections before the last step that was worth it, and their rate.
    before: Option<(usize, f64)>,
    /// The rates since then, while it is not known whether all of its connections are needed.
    settling: Vec<f64>,
    /// Ticks during which nothing is changed.
    wait: u32,
    /// How long is waited after a step that brought nothing.
    rest: u32,
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

fn mean(rates: &[f64]) -> f64 {
    rates.iter().sum::<f64>() / rates.len().max(1) as f64
}

impl Concurrency {
    /// Begins with `first` of at most `most`.
    pub fn new(first: usize, most: usize) -> Self {
        Self {
            now: first.clamp(1, most.max(1)),
            most,
            allowed: most,
            step: None,
            taken_back: None,
            before: None,
            settling: Vec::new(),
            wait: 1,
            rest: REST,
        }
    }

    /// There may be so many now: a step beyond would not be one, and what was in vain before may not be now.
    pub fn allow(&mut self, allowed: usize) {
        if allowed > self.allowed {
            (self.wait, self.rest) = (self.wait.min(1), REST);
        }
        self.allowed = allowed;
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
        self.regret(rate, cpu);
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
                    self.take_back(step);
                }
                return self.now;
            }
            Some(step) => {
                self.before = Some((step.from, step.rate));
                self.rest = REST;
                self.settling.clear();
            }
            None => {}
        }
        let most = self.most.min(self.allowed);
        if self.now < most && cpu < BUSY {
            let times = if cpu < QUIET { 4 } else { 2 };
            let (from, to) = (self.now, (self.now * times).min(most));
            self.step = Some(Step { from, to, rate, rates: Vec::new() });
            (self.now, self.wait, self.taken_back) = (to, 1, None);
        } else {
            self.settle(rate);
        }
        self.now
    }

    /// A step has brought nothing.
    fn take_back(&mut self, step: Step) {
        (self.now, self.wait) = (step.from, self.rest);
        self.rest = (self.rest * 2).min(LONGEST_REST);
        let needed = self.needed(step.rate);
        let rate = mean(&step.rates);
        self.taken_back = Some(Step { rate, rates: Vec::new(), ..step });
        self.shrink(needed);
    }

    /// Takes the last step again if the rate has fallen without it.
    fn regret(&mut self, rate: f64, cpu: f64) {
        let Some(step) = &mut self.taken_back else { return };
        // A connection that has just begun can be fast, and fall behind by its first losses.
        if rate * WORTH_IT < step.rate && cpu < BUSY {
            step.rates.push(rate);
        } else {
            step.rates.clear();
        }
        if step.rates.len() >= REGRET as usize {
            // As every step, it has to show.
            let (to, rate) = (step.to, mean(&step.rates));
            self.step = Some(Step { from: self.now, to, rate, rates: Vec::new() });
            (self.now, self.wait, self.taken_back, self.before) = (to, 1, None, None);
        }
    }

    /// All connections that there may be were worth it; whether so many are needed shows after a while.
    fn settle(&mut self, rate: f64) {
        if self.before.is_none() {
            return;
        }
        self.settling.push(rate);
        if self.settling.len() > PATIENCE as usize {
            let rate = mean(&self.settling);
            let needed = self.needed(rate);
            self.taken_back = Some(Step { from: self.now, to: self.now, rate, rates: Vec::new() });
            self.shrink(needed);
        }
    }

    /// As many connections as bring `rate`, if each brings what it brought before the last step.
    fn needed(&mut self, rate: f64) -> usize {
        self.settling.clear();
        let Some((from, before)) = self.before.take() else { return self.now };
        (from as f64 * rate / before.max(1.0) * SPARE).ceil() as usize
    }

    fn shrink(&mut self, needed: usize) {
        if (needed as f64) < self.now as f64 * FEWER {
            self.now = needed.clamp(1, self.most);
            self.wait = self.wait.max(self.rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where it is after `ticks` with a server that gives `each` bytes per second to a connection
    /// and `all` to all of them.
    fn after(ticks: usize, most: usize, each: f64, all: f64, cpu: f64) -> usize {
        let mut concurrency = Concurrency::new(FIRST, most);
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
        let mut concurrency = Concurrency::new(FIRST, 16);
        // What each of the last ticks had; a connection delivers after three seconds.
        let mut had = vec![concurrency.now; 13];
        for tick in 0..30 {
            had.push(concurrency.now);
            let delivering = had[tick..].iter().take(13).min().map_or(0, |now| *now);
            concurrency.steer(delivering as f64 * 1e6, 0.1);
        }
        assert_eq!(concurrency.now, 16);
    }

    /// Lets `ticks` pass with connections that bring `each` after so many ticks, and a link that carries `all`.
    /// Returns how many there were at each tick.
    fn over_time(ticks: usize, most: usize, slow_start: usize, each: f64, all: f64) -> Vec<usize> {
        let mut concurrency = Concurrency::new(FIRST, most);
        let mut had = vec![0; slow_start];
        for tick in 0..ticks {
            had.push(concurrency.now);
            // Each doubles its rate on the way.
            let ages = had[tick..].iter().rev().scan(usize::MAX, |least, now| {
                *least = (*least).min(*now);
                Some(*least)
            });
            let ages: Vec<usize> = ages.collect();
            let rate: f64 = (0..concurrency.now)
                .map(|n| {
                    let age = ages.iter().take_while(|had| **had > n).count();
                    each / 2_f64.powi((slow_start + 1 - age.min(slow_start + 1)) as i32)
                })
                .sum();
            concurrency.steer(rate.min(all), 0.1);
        }
        had.split_off(slow_start)
    }

    #[test]
    fn a_link_that_needs_64_connections_has_them_within_ten_seconds() {
        // A round trip of 1 ms, and of 100: a dozen of them until a connection is at its speed.
        for slow_start in [0, 2, 5] {
            let had = over_time(40, 64, slow_start, 60e6, 12.5e9);
            assert_eq!(had[39], 64, "{slow_start}: {had:?}");
            // And keeps them.
            let had = over_time(400, 64, slow_start, 60e6, 12.5e9);
            assert!(had[40..].iter().all(|now| *now == 64), "{had:?}");
        }
    }

    #[test]
    fn a_home_line_gets_no_more_than_it_needs() {
        // 1 Gbit/s; what each connection brings, and what is enough.
        for (each, enough) in [(125e6, 4), (40e6, 8), (20e6, 16), (10e6, 24)] {
            for slow_start in [0, 2] {
                let had = over_time(1_200, 64, slow_start, each, 120e6);
                // Tried now and then, and less and less often.
                let more = had[40..].iter().filter(|now| **now > enough).count();
                let first = &had[..60];
                assert!(more <= 150, "{each} {slow_start}: {more} of 1200 ticks: {first:?}");
                let least = (120e6 / each).ceil() as usize;
                let is_enough = had[20..].iter().all(|now| *now >= least);
                assert!(is_enough, "{each} {slow_start}: {first:?}");
            }
        }
    }

    #[test]
    fn what_others_leave_is_tried_as_soon_as_they_leave_it() {
        let mut concurrency = Concurrency::new(FIRST, 64);
        concurrency.allow(4);
        for _ in 0..400 {
            assert_eq!(concurrency.steer(4.0 * 10e6, 0.1), 4);
        }
        concurrency.allow(64);
        let had: Vec<usize> =
            (0..8).map(|_| concurrency.steer(concurrency.now as f64 * 10e6, 0.1)).collect();
        assert_eq!(had.last(), Some(&64), "{had:?}");
    }

    #[test]
    fn a_step_that_was_too_large_is_made_smaller_and_that_is_regretted_if_it_costs() {
        let mut concurrency = Concurrency::new(FIRST, 64);
        let mut steer = |each: f64, all: f64| {
            let rate = (concurrency.now as f64 * each).min(all);
            concurrency.steer(rate, 0.1)
        };
        // Twenty are needed.
        let had: Vec<usize> = (0..40).map(|_| steer(10e6, 200e6)).collect();
        assert!(had.contains(&64) && had[39] == 25, "{had:?}");
        // Those that are left bring less, alone.
        let had: Vec<usize> = (0..REGRET + 4).map(|_| steer(4e6, 200e6)).collect();
        assert_eq!(had.last(), Some(&64), "{had:?}");
    }

    #[test]
    fn a_step_is_taken_again_at_once_when_the_rate_falls_without_it() {
        let mut concurrency = Concurrency::new(FIRST, 16);
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
            let mut concurrency = Concurrency::new(FIRST, 16);
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
        let mut concurrency = Concurrency::new(FIRST, 32);
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
