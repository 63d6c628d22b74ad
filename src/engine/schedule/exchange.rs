//! Connections that lead to a server which is worse than others of the same host: each is given up for another
//! one, as long as that finds better servers. Where it does not, the link is what is slow, or unfair.

use std::time::Duration;

use super::hedge::Meter;

/// What is left for all together must take so many seconds: a connection needs a while until it is fast.
const LEAST_LEFT: f64 = 6.0;
/// A new connection is better if it brings so many times what the one before has brought.
const BETTER: f64 = 2.0;
/// So long it has to show that.
const SHOWS_AFTER: Duration = Duration::from_secs(3);
/// Exchanges for each worker that may bring nothing, one after the other, until there are none for a while.
const FRUITLESS: usize = 2;
const REST: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
pub struct Exchange {
    /// Of each worker: what its last connection brought, and since when it has another one.
    tried: Vec<Option<Try>>,
    /// Exchanges so far, and how many of the last ones have brought nothing.
    count: u64,
    fruitless: usize,
    rests_until: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Try {
    rate: f64,
    since: Option<Duration>,
}

/// Whether a transfer that still takes so many seconds is worth it.
pub fn is_worth_it(seconds_left: f64) -> bool {
    seconds_left > LEAST_LEFT
}

impl Exchange {
    pub fn new(workers: usize) -> Self {
        let tried = vec![None; workers];
        Self { tried, count: 0, fruitless: 0, rests_until: Duration::ZERO }
    }

    /// How many more there may be now, where `leases` is how often a chunk, or what was left of one, was given
    /// to a worker: in all no more than one for each chunk.
    pub fn room(&mut self, now: Duration, leases: u64, workers: usize) -> usize {
        let may_fail = workers * FRUITLESS;
        if self.fruitless >= may_fail {
            (self.fruitless, self.rests_until) = (0, now + REST);
        }
        if now < self.rests_until {
            return 0;
        }
        let under_way = self.tried.iter().flatten().count();
        let chunks = leases.saturating_sub(self.count);
        let more = chunks.saturating_sub(self.count) as usize;
        may_fail.saturating_sub(self.fruitless + under_way).min(more)
    }

    /// The connection of `worker`, which has brought `rate`, is given up.
    pub fn begin(&mut self, worker: usize, rate: f64) {
        self.count += 1;
        self.tried[worker] = Some(Try { rate, since: None });
    }

    /// Looks at what the new connections of the workers bring, each with whether it fetches.
    pub fn look<'a>(&mut self, now: Duration, workers: impl Iterator<Item = (&'a Meter, bool)>) {
        for (tried, (meter, fetches)) in self.tried.iter_mut().zip(workers) {
            if !fetches {
                // It may never get another chunk.
                *tried = None;
            }
            let Some(one) = tried else { continue };
            // The first rate is that of the new connection: the one before was forgotten.
            let Some(rate) = meter.last_rate() else { continue };
            let since = *one.since.get_or_insert(now);
            if rate >= one.rate * BETTER {
                (*tried, self.fruitless) = (None, 0);
            } else if now.saturating_sub(since) >= SHOWS_AFTER {
                *tried = None;
                self.fruitless += 1;
            }
        }
    }
}

#[cfg(test)]
impl Exchange {
    /// A fault for the simulation.
    pub fn never() -> Self {
        Self { rests_until: Duration::MAX, ..Self::new(0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::schedule::event::Phase;

    /// Exchanges the connection of each worker in turn for one that brings `times` as much; returns how many
    /// exchanges there were within two minutes.
    fn exchanges(workers: usize, chunks: u64, times: f64) -> u64 {
        let mut exchange = Exchange::new(workers);
        let mut meters = vec![Meter::default(); workers];
        let mut at = vec![0; workers];
        let rate = 1e6;
        for meter in &mut meters {
            meter.begin(Duration::ZERO, 0);
        }
        for tick in 0..480 {
            let now = Duration::from_millis(tick * 250);
            for (meter, at) in meters.iter_mut().zip(&mut at) {
                *at += (rate * times / 4.0) as u64;
                meter.see(now, *at, Phase::Body);
            }
            exchange.look(now, meters.iter().map(|meter| (meter, true)));
            // What is left of a chunk is given again.
            let leases = chunks + exchange.count;
            let mut room = exchange.room(now, leases, workers);
            for (n, meter) in meters.iter_mut().enumerate() {
                if exchange.tried[n].is_none() && room > 0 {
                    room -= 1;
                    exchange.begin(n, rate);
                    meter.forget();
                }
            }
        }
        exchange.count
    }

    #[test]
    fn what_brings_nothing_is_given_up_for_a_while() {
        // Twice as many as there are workers, and again after each minute.
        let count = exchanges(16, u64::MAX / 2, 1.0);
        assert!((32..=2 * 32).contains(&count), "{count}");
    }

    #[test]
    fn a_worker_that_gets_no_other_chunk_keeps_nobody_from_an_exchange() {
        let mut exchange = Exchange::new(8);
        (0..8).for_each(|n| exchange.begin(n, 1e6));
        assert_eq!(exchange.room(Duration::ZERO, 1_000, 4), 0);
        let meters = vec![Meter::default(); 8];
        exchange.look(Duration::ZERO, meters.iter().enumerate().map(|(n, it)| (it, n < 4)));
        assert_eq!(exchange.room(Duration::ZERO, 1_000, 4), 4);
    }

    #[test]
    fn what_brings_better_servers_goes_on_but_not_for_more_than_each_chunk() {
        assert!(exchanges(16, u64::MAX / 2, 3.0) > 200);
        assert_eq!(exchanges(16, 40, 3.0), 40);
    }
}
