//! The state machine: what it keeps, and what each event changes in it.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use super::concurrency::{Concurrency, TICK};
use super::event::{Action, Ending, Event, Limits, Party, Recall, Restart, Task};
use super::exchange::Exchange;
use super::frontier::Frontier;
use super::hedge::Meter;
use super::low_speed::{LowSpeed, RunRate, Traffic};
use super::permits::Permits;
use super::spans::{Piece, Spans};

use crate::model::Plan;

#[derive(Clone, Debug)]
pub struct Schedule {
    pub(super) limits: Limits,
    pub(super) spans: Spans,
    pub(super) permits: Permits,
    pub(super) frontier: Frontier,
    pub(super) concurrency: Concurrency,
    pub(super) exchange: Exchange,
    pub(super) run_rate: RunRate,
    pub(super) traffic: Traffic,
    pub(super) workers: Vec<Worker>,
    pub(super) hashers: Vec<Hasher>,
    /// Workers that may fetch.
    pub(super) wanted: usize,
    pub(super) leases: u64,
    /// Bytes that all workers have brought, as of the last tick.
    pub(super) came: u64,
    pub(super) last_tick: Duration,
    pub(super) actions: VecDeque<Action>,
    pub(super) is_closed: bool,
    /// It was said that everything is over.
    pub(super) is_ended: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Worker {
    pub(super) doing: Doing,
    /// The file of its last chunk: it goes on there if nobody else does.
    pub(super) own: Option<usize>,
    pub(super) meter: Meter,
    pub(super) low_speed: LowSpeed,
}

#[derive(Clone, Debug, Default)]
pub(super) enum Doing {
    /// It has no thread.
    #[default]
    Absent,
    Starting,
    Idle,
    Fetches(Lease),
    Serves(Service),
    Ended,
}

/// A file that a thread finishes, or throws away.
#[derive(Clone, Copy, Debug)]
pub(super) struct Service {
    pub(super) file: usize,
    pub(super) restart: Option<Restart>,
}

/// A chunk that a worker has.
#[derive(Clone, Debug)]
pub(super) struct Lease {
    pub(super) id: u64,
    pub(super) piece: Piece,
    pub(super) is_recalled: bool,
    /// For the sake of another server: that says nothing of the piece.
    pub(super) is_exchanged: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) enum Hasher {
    #[default]
    Absent,
    Idle,
    Hashes {
        file: usize,
        range: Range<u64>,
        is_old: bool,
    },
    Serves(Service),
    Ended,
}

impl Schedule {
    /// Of the files of `plan` only those that are `wanted` are fetched and finished.
    pub fn new(plan: &Plan, wanted: impl Fn(usize) -> bool, limits: Limits) -> Self {
        let most = limits.workers.max(1);
        let concurrency = Concurrency::new(limits.at_first, most);
        let first = concurrency.now();
        let mut workers = vec![Worker::default(); most];
        workers[..first].iter_mut().for_each(|worker| worker.doing = Doing::Starting);
        Self {
            spans: Spans::new(plan, limits.chunk_size, most),
            permits: Permits::new(limits.open_files),
            frontier: Frontier::new(plan, wanted),
            concurrency,
            exchange: Exchange::new(most),
            run_rate: RunRate::new(limits.min_rate),
            traffic: Traffic::default(),
            workers,
            hashers: vec![Hasher::default(); limits.hashers.max(1)],
            wanted: first,
            leases: 0,
            came: 0,
            last_tick: Duration::ZERO,
            actions: (0..first).map(Action::StartWorker).collect(),
            is_closed: false,
            is_ended: false,
            limits,
        }
    }

    /// Something has happened.
    pub fn handle(&mut self, now: Duration, event: Event) {
        match event {
            Event::Started(party) => self.is_free(party),
            Event::Gone(party) => self.is_gone(party),
            Event::Fetched { worker, at, ending } => self.fetched(now, worker, at, ending),
            Event::Hashed { hasher } => self.hashed(hasher),
            Event::Finished(party) => {
                if let Some(Service { file, .. }) = self.served(party) {
                    self.permits.close(file);
                    self.frontier.finish(file);
                }
            }
            Event::Wrong(party) => {
                if let Some(Service { file, .. }) = self.served(party) {
                    self.frontier.wrong(file);
                    self.restart_if_unused(party, file);
                }
            }
            Event::Restarted(party) => {
                if let Some(Service { file, restart: Some(how) }) = self.served(party) {
                    self.permits.close(file);
                    self.frontier.forget(file);
                    let in_one = how == Restart::InOneStream;
                    self.spans.put_first(file, self.frontier.size(file), in_one);
                }
            }
            Event::Tick(tick) => self.tick(now, &tick),
            Event::Close => self.is_closed = true,
        }
        self.assign(now);
    }

    /// What is to be done; until there is nothing.
    pub fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When a tick is due at the latest.
    pub fn next_deadline(&self) -> Option<Duration> {
        (!self.is_over()).then(|| self.last_tick + TICK)
    }

    pub fn is_over(&self) -> bool {
        self.is_closed || self.frontier.unfinished() == 0
    }

    fn is_free(&mut self, party: Party) {
        match party {
            Party::Worker(n) => self.workers[n].doing = Doing::Idle,
            Party::Hasher(n) => self.hashers[n] = Hasher::Idle,
        }
    }

    fn is_gone(&mut self, party: Party) {
        match party {
            Party::Worker(n) => self.workers[n].doing = Doing::Ended,
            Party::Hasher(n) => self.hashers[n] = Hasher::Ended,
        }
    }

    fn fetched(&mut self, now: Duration, n: usize, at: u64, ending: Ending) {
        let worker = &mut self.workers[n];
        let Doing::Fetches(Lease { piece, is_recalled, is_exchanged, .. }) =
            std::mem::take(&mut worker.doing)
        else {
            return;
        };
        worker.doing = Doing::Idle;
        worker.meter.end(now, at);
        worker.low_speed.reset();
        let (party, file) = (Party::Worker(n), piece.file);
        self.frontier.written(file, party, piece.range.start..at);
        if let Ending::Restart(how) = ending {
            self.restart(file, how);
        }
        if self.frontier.is_restarting(file) {
            self.restart_if_unused(party, file);
            return;
        }
        if at < piece.range.end {
            let recalls = piece.recalls + u32::from(is_recalled && !is_exchanged);
            self.spans.put_back(file, at..piece.range.end, recalls);
            self.workers[n].meter.forget();
        } else if self.frontier.size(file) <= self.limits.small_bytes
            && self.frontier.take_complete(file, party)
        {
            self.serve(party, Service { file, restart: None });
        }
    }

    /// The file is to be fetched again: those who fetch it stop.
    fn restart(&mut self, file: usize, how: Restart) {
        self.frontier.restart(file, how);
        self.spans.withdraw(file);
        for (n, worker) in self.workers.iter_mut().enumerate() {
            if let Doing::Fetches(lease) = &mut worker.doing
                && lease.piece.file == file
                && !std::mem::replace(&mut lease.is_recalled, true)
            {
                let why = Recall::Restart;
                self.actions.push_back(Action::Recall { worker: n, lease: lease.id, why });
            }
        }
    }

    /// Lets `party` throw `file` away if nobody uses it any more.
    fn restart_if_unused(&mut self, party: Party, file: usize) {
        if let Some(how) = self.frontier.take_restart(file, party) {
            self.spans.withdraw(file);
            self.serve(party, Service { file, restart: Some(how) });
        }
    }

    fn hashed(&mut self, n: usize) {
        let Hasher::Hashes { file, range, .. } =
            std::mem::replace(&mut self.hashers[n], Hasher::Idle)
        else {
            return;
        };
        self.frontier.hashed_by(file, &range);
        self.restart_if_unused(Party::Hasher(n), file);
    }

    /// The file that `party` was given to finish or throw away; it is free now.
    fn served(&mut self, party: Party) -> Option<Service> {
        let service = match party {
            Party::Worker(n) => match self.workers[n].doing {
                Doing::Serves(service) => service,
                _ => return None,
            },
            Party::Hasher(n) => match self.hashers[n] {
                Hasher::Serves(service) => service,
                _ => return None,
            },
        };
        self.is_free(party);
        Some(service)
    }

    pub(super) fn serve(&mut self, party: Party, service: Service) {
        match party {
            Party::Worker(n) => self.workers[n].doing = Doing::Serves(service),
            Party::Hasher(n) => self.hashers[n] = Hasher::Serves(service),
        }
        let Service { file, restart } = service;
        let task = restart.map_or(Task::Finish { file }, |how| Task::Restart { file, how });
        self.actions.push_back(Action::Give(party, task));
    }
}

#[cfg(test)]
impl Schedule {
    /// What worker `n`, which waits, could have.
    pub fn take_for_test(&mut self, n: usize) -> Option<Piece> {
        self.take(n).or_else(|| self.split_for(n))
    }

    /// Spans that are begun, and samples of the worker that has most of them.
    pub fn remembers(&self) -> (usize, usize) {
        let samples = self.workers.iter().map(|worker| worker.meter.samples()).max();
        (self.spans.begun(), samples.unwrap_or_default())
    }
}
