//! What surrounds the schedule: files, connections, threads, and time.

use std::ops::Range;

use super::{Fault, Outcome, seconds};
use crate::engine::schedule::concurrency::TICK;
use crate::engine::schedule::event::*;
use crate::engine::schedule::machine::Doing;
use crate::engine::schedule::ranges::Ranges;
use crate::engine::schedule::tests::plan;
use crate::engine::schedule::{Schedule, least_chunk};
use crate::model::Plan;

const MIB: u64 = 1 << 20;
const GB: f64 = 1e9;
/// A connection that brings nothing for so long is given up by its worker.
const STALL: f64 = 20.0;
const NEVER: f64 = f64::INFINITY;

pub struct World {
    random: fastrand::Rng,
    fault: Option<Fault>,
    schedule: Schedule,
    limits: Limits,
    now: f64,
    next_tick: f64,
    files: Vec<File>,
    workers: Vec<Worker>,
    hashers: Vec<Hasher>,
    conditions: Conditions,
    fetched: f64,
    /// Bytes that are to be fetched, beginnings included.
    needed: u64,
    /// That this takes at least.
    requests: u64,
    restarts: u32,
    recalls: u32,
    is_over: bool,
    idle_ticks: u32,
}

/// The network and the machine of one transfer.
#[derive(Debug)]
struct Conditions {
    /// Of a healthy connection, of the link, of one hasher; bytes per second.
    rate: f64,
    link: f64,
    hash: f64,
    head: f64,
    cpu: f64,
    /// Connections that will still turn out to be bad, or become so.
    bad_left: u32,
    bad: u32,
    cuts: bool,
    restarts: bool,
    threads_fail: bool,
}

#[derive(Default)]
struct File {
    size: u64,
    written: Ranges,
    is_open: bool,
    is_finished: bool,
    beginnings: u32,
}

#[derive(Clone, Debug)]
enum Worker {
    Absent,
    Starts(f64),
    Waits,
    Fetches(Fetching),
    Serves(f64, Task),
    Ended,
}

#[derive(Clone, Debug)]
struct Fetching {
    chunk: Chunk,
    at: f64,
    end: u64,
    connection: Connection,
    /// Asks again then, on a new connection.
    retries_at: f64,
}

#[derive(Clone, Copy, Debug)]
struct Connection {
    rate: f64,
    head_at: f64,
    turns_bad_at: f64,
    bad_rate: f64,
    breaks_at: f64,
    /// When it last brought a byte.
    heard: f64,
}

#[derive(Clone, Debug)]
enum Hasher {
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
        let workers = [1, 2, 4, 8, 16][random.usize(0..5)].min(chunks as usize).max(1);
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
        };
        let may_be_open = if random.bool() { random.usize(1..10) } else { 128 };
        let limits = Limits {
            chunk_size,
            workers,
            open_files: may_be_open + usize::from(fault == Some(Fault::OneTooMany)),
            hashers: random.usize(1..5),
            small_bytes: 8 * MIB,
            low_speed_after: seconds(20.0),
            min_rate: None,
        };
        // Where workers share a file, one that takes four seconds, or 16 MiB.
        let usual = chunk_size.min(((4.0 * rate) as u64).max(16 * MIB));
        let requests = |(_, range): &(usize, Range<u64>)| (range.end - range.start).div_ceil(usual);
        let requests = plan.missing.iter().map(requests).sum();
        let schedule = Schedule::new(&plan, |_| true, limits);
        let limits = Limits { open_files: may_be_open, ..limits };
        let mut files: Vec<File> =
            sizes.iter().map(|size| File { size: *size, ..File::default() }).collect();
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
            hashers,
            conditions,
            fetched: 0.0,
            needed,
            requests,
            restarts: 0,
            recalls: 0,
            is_over: false,
            idle_ticks: 0,
        }
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
                let about = format!("{about}, {} recalls", self.recalls);
                return Ok(Outcome { took: self.now, ideal, is_comparable, about });
            }
            self.step()?;
        }
        Err(format!("it does not end: {about}, {:?}, {:?}", self.workers, self.now))
    }

    /// What the transfer takes at least: all bytes over the link, or over as many connections as may be,
    /// whichever is less, each request with its head; or the hashing of all bytes by the hashers; or that
    /// of the longest file by one.
    ///
    /// What costs more by nature is part of it: where fewer files may be open than there are workers, the two
    /// seconds at the end of each file; old bytes of a file behind others that lack, which are hashed
    /// after these; a bad connection its share of the rate for fifteen seconds, and three and a half of them all, because a
    /// piece can meet one after the other
    /// (three until it shows, or as long as a piece of it is no longer than twelve); few descriptors, where
    /// files are small (a piece of a file is not smaller than 8 MiB); the last 2 MiB, which are not split; busy processors, where four
    /// connections are all that is asked for; a cut the delay before the next try.
    fn ideal(&self) -> f64 {
        let Conditions { rate, link, hash, head, cpu, bad, cuts, .. } = self.conditions;
        let missing = self.files.iter().map(|file| file.size - file.written.total());
        let all = missing.clone().sum::<u64>() as f64;
        let files = missing.filter(|missing| *missing > 0).count().max(1) as f64;
        let at_once = self.limits.open_files as f64 * (all / files / (8 * MIB) as f64).max(1.0);
        let most = if cpu < 0.5 { self.limits.workers } else { self.limits.workers.min(4) };
        let most = (most as f64).min(at_once);
        let heads = self.requests as f64 * head / most;
        let fetching = all / (rate * most).min(link);
        let old: u64 = self.files.iter().map(|file| file.written.total()).sum();
        let all_hash = (old as f64 + all) / hash / self.limits.hashers as f64;
        let longest = self.files.iter().map(|file| file.size).max().unwrap_or_default();
        // What was there of a file cannot be hashed before what lacks in front of it.
        let behind = |file: &File| file.written.total() - file.written.end_of(0);
        let behind = self.files.iter().map(behind).max().unwrap_or_default() as f64 / hash;
        // Each file ends with a piece that is not worth a split, and the next one cannot begin meanwhile.
        let is_scarce = self.limits.open_files < self.limits.workers;
        let ends =
            if is_scarce { files / self.limits.open_files as f64 * (2.0 + head) } else { 0.0 };
        let lost = f64::from(bad) * (15.0 / most).max(3.5);
        let retries =
            if cuts { (self.requests as f64 / 20.0 + fetching / 40.0) * 0.3 / most } else { 0.0 };
        let hashing = all_hash.max(longest as f64 / hash);
        let last = longest.min(2 * MIB) as f64 / rate;
        (fetching + heads + retries).max(hashing) + lost + behind + last + ends
    }

    /// Not where a file begins again or threads never start: what that costs depends on when it happens.
    /// Not where more than a quarter of the connections are bad, or all others have had nothing to do: then
    /// there is nothing to compare them with. Not where hashing is hardly faster than the network: what is
    /// hashed last is hashed after the last byte.
    fn is_comparable(&self) -> bool {
        let Conditions { threads_fail, bad, hash, cpu, .. } = self.conditions;
        let most = if cpu < 0.5 { self.limits.workers } else { self.limits.workers.min(4) };
        let most = most.min(self.limits.open_files) as u32;
        !threads_fail && self.restarts == 0 && bad * 4 <= most && hash >= 2.0 * GB
    }

    fn about(&self) -> String {
        let sizes = self.files.iter().map(|file| file.size).sum::<u64>() / MIB;
        let present = self.files.iter().map(|file| file.written.total()).sum::<u64>() / MIB;
        let (files, limits, conditions) = (self.files.len(), &self.limits, &self.conditions);
        let largest = self.files.iter().map(|file| file.size).max().unwrap_or_default() / MIB;
        format!(
            "{files} files of {sizes} MiB, the largest {largest}, {present} there, {limits:?}, {conditions:?}"
        )
    }

    fn check_end(&self, expected: f64) -> Result<(), String> {
        if let Some(n) = self.files.iter().position(|file| !file.is_finished) {
            return Err(format!("file {n} was not finished"));
        }
        let ended = self.workers.iter().all(|it| matches!(it, Worker::Ended | Worker::Absent));
        let hashers = self.hashers.iter().all(|it| matches!(it, Hasher::Ended));
        if !(ended && hashers) {
            return Err(format!("somebody was not told: {:?} {:?}", self.workers, self.hashers));
        }
        if self.restarts == 0 && self.fetched > expected * 1.001 + 1e6 {
            return Err(format!("{} bytes were fetched in place of {expected}", self.fetched));
        }
        Ok(())
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

    fn work(&mut self, n: usize) -> Result<(), String> {
        let now = self.now;
        match self.workers[n].clone() {
            Worker::Starts(at) if at <= now => {
                self.workers[n] = Worker::Waits;
                self.tell(Event::Started(Party::Worker(n)))
            }
            Worker::Serves(at, task) if at <= now => {
                self.workers[n] = Worker::Waits;
                self.served(Party::Worker(n), &task)
            }
            Worker::Fetches(mut it) => {
                if it.at + 0.5 >= it.end as f64 {
                    let at = it.end;
                    return self.fetched(n, &it.chunk, at, false);
                }
                if it.retries_at <= now {
                    it.connection = self.connect();
                    it.retries_at = NEVER;
                } else if it.retries_at == NEVER && it.connection.is_broken(now) {
                    it.retries_at = now + 0.25;
                } else if it.rate(now) > 0.0 {
                    it.connection.heard = now;
                }
                self.workers[n] = Worker::Fetches(it);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Worker `n` is done with its chunk, or gives it back.
    fn fetched(
        &mut self,
        n: usize,
        chunk: &Chunk,
        at: u64,
        is_given_back: bool,
    ) -> Result<(), String> {
        self.workers[n] = Worker::Waits;
        let file = &mut self.files[chunk.file];
        let may_restart = self.conditions.restarts && file.beginnings < 2 && !is_given_back;
        let ending = if may_restart && self.random.u16(0..200) == 0 {
            let is_stream = self.random.bool();
            Ending::Restart(if is_stream { Restart::InOneStream } else { Restart::InRanges })
        } else {
            file.written.insert(chunk.range.start..at);
            Ending::Written
        };
        if self.fault == Some(Fault::RestLost)
            && let Doing::Fetches(lease) = &mut self.schedule.workers[n].doing
        {
            lease.piece.range.end = lease.piece.range.end.min(at);
        }
        self.tell(Event::Fetched { worker: n, at, ending })
    }

    fn hash(&mut self, n: usize) -> Result<(), String> {
        let now = self.now;
        match self.hashers[n].clone() {
            Hasher::Starts(at) if at <= now => {
                self.hashers[n] = Hasher::Waits;
                self.tell(Event::Started(Party::Hasher(n)))
            }
            Hasher::Hashes(at, range, file) if at <= now => {
                if self.files[file].written.end_of(range.start) < range.end {
                    return Err(format!(
                        "{range:?} of file {file} was hashed before it was written"
                    ));
                }
                self.hashers[n] = Hasher::Waits;
                self.tell(Event::Hashed { hasher: n })
            }
            Hasher::Serves(at, task) if at <= now => {
                self.hashers[n] = Hasher::Waits;
                self.served(Party::Hasher(n), &task)
            }
            _ => Ok(()),
        }
    }

    fn served(&mut self, party: Party, task: &Task) -> Result<(), String> {
        match task {
            Task::Finish { file: n } => {
                let file = &mut self.files[*n];
                if file.is_finished || file.written.end_of(0) < file.size {
                    return Err(format!("file {n} was finished too early, or twice"));
                }
                let may_restart = self.conditions.restarts && file.size > 0 && file.beginnings < 2;
                if may_restart && self.random.u8(0..20) == 0 {
                    return self.tell(Event::Wrong(party));
                }
                (file.is_finished, file.is_open) = (true, false);
                self.tell(Event::Finished(party))?;
                if self.fault == Some(Fault::FileLeftOpen) {
                    self.schedule.permits.open(*n);
                }
            }
            Task::Restart { file: n, .. } => {
                let uses = |it: &Worker| matches!(it, Worker::Fetches(it) if it.chunk.file == *n);
                let hashes = |it: &Hasher| matches!(it, Hasher::Hashes(_, _, file) if file == n);
                if self.workers.iter().any(uses) || self.hashers.iter().any(hashes) {
                    return Err(format!("file {n} was thrown away under somebody"));
                }
                let file = &mut self.files[*n];
                let (size, beginnings) = (file.size, file.beginnings + 1);
                *file = File { size, beginnings, ..File::default() };
                self.needed += size;
                self.restarts += 1;
                self.tell(Event::Restarted(party))?;
            }
            _ => {}
        }
        Ok(())
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
        self.tell(Event::Tick(Tick { fetched_bytes, cpu, is_paused: false, readings }))?;
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

    fn tell(&mut self, event: Event) -> Result<(), String> {
        if self.fault == Some(Fault::NewFilesFirst) {
            // What is left is nobody's: only its own worker would go on with it.
            self.schedule.spans.forget_what_is_left(&self.schedule.frontier);
        }
        self.schedule.handle(seconds(self.now), event);
        self.carry_out()
    }

    fn carry_out(&mut self) -> Result<(), String> {
        while let Some(action) = self.schedule.poll() {
            match action {
                Action::Give(party, _)
                    if self.fault == Some(Fault::LostTask)
                        && self.random.u8(0..50) == 0
                        && party != Party::Worker(0) => {}
                Action::Give(Party::Worker(n), task) => self.give_worker(n, task)?,
                Action::Give(Party::Hasher(n), task) => self.give_hasher(n, task)?,
                Action::Shorten { worker, end, .. } => {
                    if self.fault != Some(Fault::DeafToSplits)
                        && let Worker::Fetches(it) = &mut self.workers[worker]
                    {
                        it.end = end;
                    }
                }
                Action::Recall { worker, lease, why } => {
                    if let Worker::Fetches(it) = self.workers[worker].clone()
                        && it.chunk.lease == lease
                    {
                        self.recalls += u32::from(matches!(why, Recall::Slow { .. }));
                        let at = (it.at as u64).min(it.end);
                        self.fetched(worker, &it.chunk, at, true)?;
                    }
                }
                Action::Reconnect { worker, .. } => {
                    let now = self.now;
                    if let Worker::Fetches(it) = &mut self.workers[worker] {
                        it.retries_at = now + 0.25;
                    }
                }
                Action::StartWorker(n) => {
                    if n > 0 && self.conditions.threads_fail && self.random.u8(0..3) == 0 {
                        self.workers[n] = Worker::Ended;
                        self.tell(Event::Gone(Party::Worker(n)))?;
                    } else {
                        self.workers[n] = Worker::Starts(self.now + 0.001);
                    }
                }
                Action::GiveUp(too_slow) => return Err(format!("{too_slow:?}")),
                Action::End => self.is_over = true,
            }
        }
        Ok(())
    }

    fn give_worker(&mut self, n: usize, task: Task) -> Result<(), String> {
        if !matches!(self.workers[n], Worker::Waits) {
            return Err(format!("worker {n} is given {task:?} and has {:?}", self.workers[n]));
        }
        self.workers[n] = match task {
            Task::Fetch(chunk) => {
                self.files[chunk.file].is_open = true;
                let (at, end) = (chunk.range.start as f64, chunk.range.end);
                let mut connection = self.connect();
                if self.files[chunk.file].beginnings > 0 {
                    // In one stream it could not be replaced, whatever it brings.
                    connection.turns_bad_at = NEVER;
                }
                Worker::Fetches(Fetching { chunk, at, end, connection, retries_at: NEVER })
            }
            Task::End => Worker::Ended,
            task => Worker::Serves(self.now + 0.002, task),
        };
        Ok(())
    }

    fn give_hasher(&mut self, n: usize, task: Task) -> Result<(), String> {
        if !matches!(self.hashers[n], Hasher::Waits) {
            return Err(format!("hasher {n} is given {task:?} and has {:?}", self.hashers[n]));
        }
        self.hashers[n] = match task {
            Task::Hash { file, range, .. } => {
                let takes = (range.end - range.start) as f64 / self.conditions.hash;
                Hasher::Hashes(self.now + takes, range, file)
            }
            Task::End => Hasher::Ended,
            task => Hasher::Serves(self.now + 0.002, task),
        };
        Ok(())
    }

    /// A request, on a connection that may be bad.
    fn connect(&mut self) -> Connection {
        let (random, it) = (&mut self.random, &mut self.conditions);
        let rate = it.rate * (0.85 + 0.3 * random.f64());
        let mut connection = Connection {
            rate,
            head_at: self.now + it.head,
            turns_bad_at: NEVER,
            bad_rate: rate,
            breaks_at: NEVER,
            heard: self.now,
        };
        if it.bad_left > 0 && random.u8(0..4) == 0 {
            it.bad_left -= 1;
            connection.turns_bad_at = self.now + it.head + random.f64() * 3.0;
            // Dead, a drip, slow.
            connection.bad_rate =
                [0.0, 2_500.0, 70_000.0, rate / 20.0, rate / 6.0][random.usize(0..5)];
        } else if it.cuts && random.u8(0..20) == 0 {
            connection.breaks_at = connection.head_at + random.f64() * 2.0;
        }
        connection
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

impl Fetching {
    fn rate(&self, now: f64) -> f64 {
        let connection = &self.connection;
        if self.retries_at < NEVER || now < connection.head_at {
            0.0
        } else if now >= connection.turns_bad_at {
            connection.bad_rate
        } else {
            connection.rate
        }
    }

    /// When something happens to it, at the latest.
    fn next(&self, now: f64, share: f64) -> f64 {
        if self.retries_at < NEVER {
            return self.retries_at.max(now);
        }
        let connection = &self.connection;
        let rate = self.rate(now) * share;
        let done =
            if rate > 0.0 { now + (self.end as f64 - self.at).max(0.0) / rate } else { NEVER };
        let after = |time: f64| if time > now { time } else { NEVER };
        let stall = if rate > 0.0 { NEVER } else { connection.heard + STALL };
        done.min(after(connection.head_at))
            .min(after(connection.turns_bad_at))
            .min(connection.breaks_at.max(now))
            .min(stall.max(now))
    }
}

impl Connection {
    fn is_broken(&self, now: f64) -> bool {
        now >= self.breaks_at || now >= self.heard + STALL
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
