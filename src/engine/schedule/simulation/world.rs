//! What surrounds the schedule: files, workers, hashers, and time.

use std::ops::Range;

use super::super::concurrency::TICK;
use super::super::event::*;
use super::super::exchange::Exchange;
use super::super::ranges::Ranges;
use super::super::tests::plan;
use super::super::{Schedule, least_chunk};
use super::network::{Address, Conditions, Fetching, NEVER};
use super::{Fault, Outcome, seconds};
use crate::model::{Plan, RemoteFile};

pub const MIB: u64 = 1 << 20;
pub const GB: f64 = 1e9;

pub struct World {
    pub random: fastrand::Rng,
    pub fault: Option<Fault>,
    pub schedule: Schedule,
    pub limits: Limits,
    pub now: f64,
    pub next_tick: f64,
    pub files: Vec<File>,
    pub workers: Vec<Worker>,
    /// Where the connection leads that each has kept.
    pub at_address: Vec<Option<usize>>,
    pub hashers: Vec<Hasher>,
    pub conditions: Conditions,
    pub fetched: f64,
    /// Bytes that are to be fetched, beginnings included.
    pub needed: u64,
    /// That this takes at least.
    pub requests: u64,
    pub restarts: u32,
    pub recalls: u32,
    pub is_over: bool,
    pub idle_ticks: u32,
    /// How far a chunk that was shortened goes all the same.
    pub reached: Option<u64>,
}

#[derive(Default)]
pub struct File {
    pub size: u64,
    pub written: Ranges,
    pub is_open: bool,
    pub is_finished: bool,
    pub beginnings: u32,
}

#[derive(Clone, Debug)]
pub enum Worker {
    Absent,
    Starts(f64),
    Waits,
    Fetches(Fetching),
    Serves(f64, Task),
    Ended,
}

#[derive(Clone, Debug)]
pub enum Hasher {
    Starts(f64),
    Waits,
    Hashes(f64, Range<u64>, usize),
    Serves(f64, Task),
    Ended,
}

impl World {
    pub fn new(seed: u64, fault: Option<Fault>) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let (sizes, present) = files(&mut random);
        let files_of_plan = plan(&sizes).files;
        let plan = Plan::new(files_of_plan, |n| present[n].clone());
        let needed = plan.missing_bytes();
        let chunk_size = [8, 16, 64, 256, 1024][random.usize(0..5)] * MIB;
        // No more workers than there can be chunks, as the engine has it.
        let chunks = needed.div_ceil(least_chunk(chunk_size)).max(plan.missing.len() as u64);
        let workers = [1, 2, 4, 8, 16, 64][random.usize(0..6)].min(chunks as usize).max(1);
        // Long enough to be a transfer, and short enough to be played.
        let target = 4.0 * 100.0_f64.powf(random.f64());
        let restarts = random.u8(0..4) == 0;
        let most_needed = if restarts { sizes.iter().sum() } else { needed };
        let rate = (most_needed as f64 / workers as f64 / target).clamp(3e5, GB / workers as f64);
        let is_linked = random.bool();
        let all = rate * workers as f64;
        let total = sizes.iter().sum::<u64>() as f64;
        let bad = if random.bool() { random.u32(0..=(workers as u32).div_ceil(2)) } else { 0 };
        let conditions = Conditions {
            rate,
            link: if is_linked { all * (0.3 + 0.6 * random.f64()) } else { NEVER },
            // As fast as hashing is, or not much faster than the network.
            hash: if random.bool() { 2.0 * GB } else { (2.5 * all).max(total / 300.0) },
            head: [0.001, 0.06, 0.3][random.usize(0..3)],
            cpu: [0.1, 0.3, 0.6][random.usize(0..3)],
            bad_left: bad,
            bad,
            cuts: random.u8(0..4) == 0,
            restarts,
            threads_fail: random.u8(0..8) == 0,
            has_siblings: random.u8(0..6) == 0,
            addresses: vec![Address { part: 1.0, avoided_until: 0.0 }],
            turn: 0,
        };
        let may_be_open = if random.bool() { random.usize(1..10) } else { 128 };
        let limits = Limits {
            chunk_size,
            workers,
            at_first: workers,
            open_files: may_be_open + usize::from(fault == Some(Fault::OneTooMany)),
            hashers: random.usize(1..5),
            small_bytes: 8 * MIB,
            low_speed_after: seconds(20.0),
            min_rate: None,
        };
        Self::of(random, fault, &plan, &present, limits, conditions)
    }

    /// The transfer of `plan`, of whose files `present` was there before.
    fn of(
        random: fastrand::Rng,
        fault: Option<Fault>,
        plan: &Plan,
        present: &[Vec<Range<u64>>],
        limits: Limits,
        conditions: Conditions,
    ) -> Self {
        let Limits { chunk_size, workers, .. } = limits;
        let may_be_open = limits.open_files - usize::from(fault == Some(Fault::OneTooMany));
        let rate = conditions.rate;
        let needed = plan.missing_bytes();
        // Where workers share a file, one that takes four seconds, or 16 MiB.
        let usual = chunk_size.min(((4.0 * rate) as u64).max(16 * MIB));
        let requests = |(_, range): &(usize, Range<u64>)| (range.end - range.start).div_ceil(usual);
        let requests = plan.missing.iter().map(requests).sum();
        let mut schedule = Schedule::new(plan, |_| true, limits);
        if fault == Some(Fault::NoExchange) {
            schedule.exchange = Exchange::never();
        }
        let limits = Limits { open_files: may_be_open, ..limits };
        let file = |file: &RemoteFile| File { size: file.size, ..File::default() };
        let mut files: Vec<File> = plan.files.iter().map(file).collect();
        for (n, file) in files.iter_mut().enumerate() {
            present[n].iter().for_each(|range| file.written.insert(range.clone()));
        }
        let hashers = (0..limits.hashers).map(|_| Hasher::Starts(0.001)).collect();
        Self {
            random,
            fault,
            schedule,
            limits,
            now: 0.0,
            next_tick: TICK.as_secs_f64(),
            files,
            workers: vec![Worker::Absent; workers],
            at_address: vec![None; workers],
            hashers,
            conditions,
            fetched: 0.0,
            needed,
            requests,
            restarts: 0,
            recalls: 0,
            is_over: false,
            idle_ticks: 0,
            reached: None,
        }
    }

    /// Files of `size` bytes from a host with `addresses`, over connections that bring up to `rate` and as much as
    /// `link` together.
    pub fn unequal(seed: u64, fault: Option<Fault>, parts: &[f64], rate: f64, link: f64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut parts = parts.to_vec();
        random.shuffle(&mut parts);
        let addresses = parts.iter().map(|part| Address { part: *part, avoided_until: 0.0 });
        let conditions = Conditions {
            rate,
            link,
            hash: 2.0 * GB,
            head: 0.06,
            cpu: 0.1,
            bad_left: 0,
            bad: 0,
            cuts: false,
            restarts: false,
            threads_fail: false,
            has_siblings: false,
            addresses: addresses.collect(),
            turn: 0,
        };
        let limits = Limits {
            chunk_size: 64 * MIB,
            workers: 16,
            at_first: 16,
            open_files: 128,
            hashers: 4,
            small_bytes: 8 * MIB,
            low_speed_after: seconds(20.0),
            min_rate: None,
        };
        let plan = plan(&[5_000_000_000; 8]);
        let present = vec![Vec::new(); plan.files.len()];
        Self::of(random, fault, &plan, &present, limits, conditions)
    }

    pub fn run(mut self) -> Result<Outcome, String> {
        let ideal = self.ideal();
        let about = self.about();
        let expected = self.needed as f64;
        self.carry_out()?;
        for _ in 0..1_000_000 {
            if self.is_over {
                self.check_end(expected)?;
                let is_comparable = self.is_comparable();
                let recalls = self.recalls;
                let about = format!("{about}, {recalls} recalls");
                return Ok(Outcome { took: self.now, ideal, is_comparable, recalls, about });
            }
            self.step()?;
        }
        Err(format!("it does not end: {about}, {:?}, {:?}", self.workers, self.now))
    }

    /// Lets time pass until something happens.
    fn step(&mut self) -> Result<(), String> {
        let share = self.share();
        let mut next = self.next_tick;
        for worker in &self.workers {
            next = next.min(match worker {
                Worker::Starts(at) | Worker::Serves(at, _) => *at,
                Worker::Fetches(it) => it.next(self.now, share),
                _ => NEVER,
            });
        }
        for hasher in &self.hashers {
            next = next.min(match hasher {
                Hasher::Starts(at) | Hasher::Serves(at, _) | Hasher::Hashes(at, ..) => *at,
                _ => NEVER,
            });
        }
        let passed = next - self.now;
        for worker in &mut self.workers {
            if let Worker::Fetches(it) = worker {
                let bytes = it.rate(self.now) * share * passed;
                it.at += bytes;
                self.fetched += bytes;
            }
        }
        self.now = next;
        for n in 0..self.workers.len() {
            self.work(n)?;
        }
        for n in 0..self.hashers.len() {
            self.hash(n)?;
        }
        if self.now >= self.next_tick {
            self.tick()?;
        }
        self.check()
    }

    /// How much of what they could bring the link lets through.
    fn share(&self) -> f64 {
        let rates = self.workers.iter().map(|worker| match worker {
            Worker::Fetches(it) => it.rate(self.now),
            _ => 0.0,
        });
        (self.conditions.link / rates.sum::<f64>().max(1.0)).min(1.0)
    }

    /// How many workers may fetch, while other transfers of the run come and go.
    fn most(&self) -> usize {
        let is_shared = self.conditions.has_siblings && (self.now / 5.0) as u64 % 2 == 1;
        if is_shared { 1 + (self.now / 10.0) as usize % 3 } else { usize::MAX }
    }

    fn tick(&mut self) -> Result<(), String> {
        self.next_tick = self.now + TICK.as_secs_f64();
        let now = self.now;
        let reading = |worker: &Worker| match worker {
            Worker::Fetches(it) => {
                let phase = match it.retries_at {
                    NEVER if now < it.connection.head_at => Phase::Head,
                    NEVER => Phase::Body,
                    _ => Phase::Other,
                };
                Reading { at: it.at as u64, phase }
            }
            _ => Reading::default(),
        };
        let mut readings: Vec<Reading> = self.workers.iter().map(reading).collect();
        if self.fault == Some(Fault::NoHedge) {
            readings.iter_mut().for_each(|reading| reading.phase = Phase::Other);
        }
        let fetched_bytes = self.fetched as u64;
        let cpu = self.conditions.cpu;
        self.tell(Event::Tick(Tick {
            fetched_bytes,
            cpu,
            is_paused: false,
            most: self.most(),
            readings,
        }))?;
        // Somebody is on the way to something at any time.
        let waits =
            |worker: &Worker| matches!(worker, Worker::Waits | Worker::Absent | Worker::Ended);
        let hash_waits = |hasher: &Hasher| matches!(hasher, Hasher::Waits | Hasher::Ended);
        let nobody = self.workers.iter().all(waits) && self.hashers.iter().all(hash_waits);
        self.idle_ticks = if nobody { self.idle_ticks + 1 } else { 0 };
        if self.idle_ticks > 400 {
            return Err(format!("nobody can do anything: {:?}", self.workers));
        }
        Ok(())
    }

    /// What must hold at any time.
    fn check(&mut self) -> Result<(), String> {
        let open = self.files.iter().filter(|file| file.is_open).count();
        if open > self.limits.open_files {
            return Err(format!("{open} files are open, {} may be", self.limits.open_files));
        }
        if self.random.u8(0..32) > 0 {
            return Ok(());
        }
        let mut copy = self.schedule.clone();
        let idle: Vec<usize> = copy.idle().collect();
        if !copy.is_over()
            && self.fault != Some(Fault::NewFilesFirst)
            && let Some(n) = idle.first()
            && let Some(piece) = copy.take_for_test(*n)
        {
            return Err(format!("worker {n} waits and could have {piece:?}"));
        }
        // What it remembers does not grow with time.
        let most = self.limits.open_files * 4 + 4 * self.workers.len() + 8;
        let (spans, samples) = self.schedule.remembers();
        if spans > most || samples > 32 {
            return Err(format!("it remembers {spans} spans and {samples} samples"));
        }
        Ok(())
    }
}

/// Sizes of files, and what is there of each from an earlier run.
fn files(random: &mut fastrand::Rng) -> (Vec<u64>, Vec<Vec<Range<u64>>>) {
    let (most, largest) = [
        (2_000, 3 * MIB),
        (30, 4 * MIB),
        (30, 64 * MIB),
        (30, 2_048 * MIB),
        (8, 20_480 * MIB),
        (2, 400_000_000_000),
    ][random.usize(0..6)];
    let count = random.usize(1..=most);
    let sizes: Vec<u64> = (0..count)
        .map(|_| if random.u8(0..20) == 0 { 0 } else { random.u64(0..=largest) })
        .collect();
    let mut present = vec![Vec::new(); count];
    if random.u8(0..3) == 0 {
        for (n, size) in sizes.iter().enumerate().filter(|(_, size)| **size > 0) {
            for _ in 0..random.usize(0..4) {
                let start = random.u64(0..*size);
                let is_whole = random.u8(0..4) == 0;
                let piece = if is_whole { 0..*size } else { start..random.u64(start..*size) + 1 };
                present[n].push(piece);
            }
        }
    }
    (sizes, present)
}
