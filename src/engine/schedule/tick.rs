//! What is looked at now and then: how many connections are worth having, and which is too slow.

use std::time::Duration;

use super::event::{Action, Phase, Reading, Recall, Tick};
use super::exchange;
use super::hedge::{Rates, Running};
use super::machine::{Doing, Schedule, Worker};

impl Schedule {
    pub(super) fn tick(&mut self, now: Duration, tick: &Tick) {
        let elapsed = now.saturating_sub(std::mem::replace(&mut self.last_tick, now));
        self.traffic.bytes = tick.fetched_bytes;
        self.read(now, tick);
        // By what each worker has written by now: the counters of all follow later.
        let bytes: u64 = self.workers.iter().map(|worker| worker.meter.bytes()).sum();
        let came = bytes - std::mem::replace(&mut self.came, bytes);
        let rate = came as f64 / elapsed.as_secs_f64().max(0.001);
        self.steer(rate, tick);
        if !tick.is_paused {
            self.replace_low_speed(now, tick);
            self.recall_slow(now);
        }
        let waits_for_network = |reading: &Reading| reading.phase != Phase::Other;
        let counts = !tick.is_paused && tick.readings.iter().any(waits_for_network);
        if let Some(too_slow) = self.run_rate.look(now, tick.fetched_bytes, counts) {
            self.actions.push_back(Action::GiveUp(too_slow));
        }
    }

    fn read(&mut self, now: Duration, tick: &Tick) {
        for (worker, reading) in self.workers.iter_mut().zip(&tick.readings) {
            if matches!(worker.doing, Doing::Fetches(_)) {
                worker.meter.see(now, reading.at, reading.phase);
                if tick.is_paused {
                    worker.meter.pause(now);
                    worker.low_speed.reset();
                }
            }
        }
        if let Some(usual) = self.rates().usual() {
            self.spans.set_usual_rate(usual);
        }
    }

    fn steer(&mut self, rate: f64, tick: &Tick) {
        self.concurrency.allow(tick.most);
        let wanted = self.concurrency.steer(rate, tick.cpu).min(self.workers.len());
        self.wanted = wanted.min(tick.most.max(1));
        if self.spans.bytes() == 0 {
            return;
        }
        for (n, worker) in self.workers[..self.wanted].iter_mut().enumerate() {
            if matches!(worker.doing, Doing::Absent) {
                worker.doing = Doing::Starting;
                self.actions.push_back(Action::StartWorker(n));
            }
        }
    }

    fn replace_low_speed(&mut self, now: Duration, tick: &Tick) {
        let is_body = |reading: &&Reading| reading.phase == Phase::Body;
        let rates = self.workers.iter().filter_map(|worker| worker.meter.last_rate());
        self.traffic.has_seen(rates.fold(0.0, f64::max) as u64);
        self.traffic.active = tick.readings.iter().filter(is_body).count() as u64;
        let window = self.limits.low_speed_after;
        for (n, (worker, reading)) in self.workers.iter_mut().zip(&tick.readings).enumerate() {
            let Doing::Fetches(lease) = &worker.doing else { continue };
            let (at, phase) = (reading.at, reading.phase);
            let too_slow = worker.low_speed.look(now, window, at, phase, &mut self.traffic);
            if let Some(rate) = too_slow {
                let lease = lease.id;
                self.actions.push_back(Action::Reconnect { worker: n, lease, rate });
            }
        }
    }

    /// Of those that fetch, or may: what others have brought before is no measure.
    pub(super) fn rates(&self) -> Rates {
        let workers = self.workers.iter().enumerate();
        let counts = |(n, worker): &(usize, &Worker)| {
            *n < self.wanted || matches!(worker.doing, Doing::Fetches(_))
        };
        Rates::of(workers.filter(counts).map(|(_, worker)| &worker.meter))
    }

    /// Takes their chunks from connections that are far below others, if these wait for them, or will; or if
    /// there is so much left that it is worth looking for a better server.
    fn recall_slow(&mut self, now: Duration) {
        let is_awaited = self.idle().next().is_some();
        let left = |running: &Running<'_>| running.end.saturating_sub(running.meter.at());
        let all_left: u64 = self.running().map(|(_, running)| left(&running)).sum();
        let all_left = (all_left + self.spans.bytes()) as f64;
        let running_rates = self.running().filter_map(|(_, running)| running.meter.last_rate());
        let rate: f64 = running_rates.sum();
        let rates = self.rates();
        let fetching = |worker: &Worker| matches!(worker.doing, Doing::Fetches(_));
        self.exchange.look(now, self.workers.iter().map(|it| (&it.meter, fetching(it))));
        let good = rates.good().filter(|_| exchange::is_worth_it(all_left / rate.max(1.0)));
        let mut may_exchange = self.exchange.room(now, self.leases, self.wanted);
        let mut slow = Vec::new();
        let moving = self.running().filter(|(_, running)| running.meter.moves(now)).count();
        for (n, running) in self.running() {
            let others_move = moving > usize::from(running.meter.moves(now));
            let all_take = (all_left - left(&running) as f64) / rate.max(1.0);
            let usual = rates.usual_without(running.meter);
            let blocking = usual.and_then(|usual| {
                let own = running.is_slow(now, usual, is_awaited, all_take, others_move)?;
                Some((usual, own, false))
            });
            let exchanged = || {
                let good = good.filter(|_| may_exchange > 0 && n < self.wanted)?;
                Some((good, running.could_be_better(now, good)?, true))
            };
            if let Some((usual, own, is_exchange)) = blocking.or_else(exchanged) {
                may_exchange -= usize::from(is_exchange);
                slow.push((n, own, usual, is_exchange));
            }
        }
        for (worker, own, usual, is_exchange) in slow {
            if is_exchange {
                self.exchange.begin(worker, own);
            }
            let Doing::Fetches(lease) = &mut self.workers[worker].doing else { continue };
            (lease.is_recalled, lease.is_exchanged) = (true, is_exchange);
            let lease = lease.id;
            let why = Recall::Slow { rate: own as u64, usual: usual as u64 };
            self.actions.push_back(Action::Recall { worker, lease, why });
        }
    }
}
