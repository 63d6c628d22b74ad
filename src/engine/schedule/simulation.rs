//! Whole transfers at random, without a network, a volume or a clock: workers that take and finish
//! chunks, files that begin anew, a hash that follows, a pilot that changes its mind.
//!
//! A bad one prints the seed that repeats it.

use super::tests::plan;
use super::*;
use crate::engine::ranges::Ranges;

const MIB: u64 = 1 << 20;

/// What is broken on purpose, to see that it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Workers that wait are not told.
    LostNews,
    /// A file that is proved still counts as open.
    FileLeftOpen,
    /// One more file may be open than there are descriptors.
    OneTooMany,
    /// Who asks begins a new file, and what others have left waits: as it was with a semaphore for open
    /// files beside the queue.
    NewFilesFirst,
}

#[derive(Default)]
struct File {
    size: u64,
    written: Ranges,
    hashed: u64,
    generation: u32,
    active: usize,
    /// It begins anew once nobody writes to it.
    restarts: bool,
    beginnings: u32,
    proved: bool,
    is_open: bool,
}

#[derive(Clone, Debug)]
enum Worker {
    /// Will ask, as soon as it is its turn.
    Asks {
        last: Option<u64>,
    },
    Waits {
        own: Option<u64>,
    },
    Fetches(Chunk),
    Ended,
}

struct World {
    random: fastrand::Rng,
    fault: Option<Fault>,
    schedule: Schedule,
    may_be_open: usize,
    files: Vec<File>,
    workers: Vec<Worker>,
}

/// Runs one transfer to its end; says what went wrong.
fn simulate(seed: u64, fault: Option<Fault>) -> Result<(), String> {
    let mut world = World::new(seed, fault);
    for _ in 0..200_000 {
        world.check()?;
        if world.files.iter().all(|file| file.proved) {
            return world.ended();
        }
        if !world.step()? {
            return Err(format!("nobody can do anything: {:?}", world.workers));
        }
    }
    Err("it does not end".into())
}

impl World {
    fn new(seed: u64, fault: Option<Fault>) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let largest = [4 * MIB, 64 * MIB, 2048 * MIB][random.usize(0..3)];
        let count = random.usize(1..30);
        let sizes = Vec::from_iter((0..count).map(|_| random.u64(0..=largest)));
        let mut plan = plan(&sizes);
        let mut files: Vec<File> =
            sizes.iter().map(|size| File { size: *size, ..File::default() }).collect();
        if random.bool() {
            // Some of it is here from an earlier run: pieces of files, and whole ones.
            let files_of_plan = plan.files.clone();
            let mut present = vec![Vec::new(); count];
            for (n, size) in sizes.iter().enumerate().filter(|(_, size)| **size > 0) {
                for _ in 0..random.usize(0..4) {
                    let start = random.u64(0..*size);
                    let all = random.u8(0..4) == 0;
                    let piece = if all { 0..*size } else { start..random.u64(start..*size) + 1 };
                    present[n].push(piece);
                }
            }
            plan = Plan::new(files_of_plan, |n| present[n].clone());
            for (n, file) in files.iter_mut().enumerate() {
                let mut at = 0;
                for (_, missing) in plan.missing.iter().filter(|(of, _)| *of == n) {
                    file.written.insert(at..missing.start);
                    at = missing.end;
                }
                file.written.insert(at..file.size);
            }
        }
        let workers = random.usize(1..9);
        let may_be_open = random.usize(1..10);
        let limits = Limits {
            chunk_size: random.u64(1..65) * MIB,
            workers: random.usize(1..=workers),
            open_files: may_be_open + usize::from(fault == Some(Fault::OneTooMany)),
        };
        let schedule = Schedule::new(&plan, limits);
        let workers = vec![Worker::Asks { last: None }; workers];
        Self { random, fault, schedule, may_be_open, files, workers }
    }

    /// What must hold at any time.
    fn check(&self) -> Result<(), String> {
        let open = self.files.iter().filter(|file| file.is_open).count();
        if open > self.may_be_open {
            return Err(format!("{open} files are open, {} may be", self.may_be_open));
        }
        for (n, worker) in self.workers.iter().enumerate() {
            let Worker::Waits { own } = worker else { continue };
            let (turn, _) = self.schedule.clone().turn(n, *own);
            if turn != Turn::Wait {
                return Err(format!("worker {n} waits and could have {turn:?}"));
            }
        }
        Ok(())
    }

    /// Everything is proved: nobody works or waits.
    fn ended(&mut self) -> Result<(), String> {
        while let Some(n) = self.workers.iter().position(|it| matches!(it, Worker::Asks { .. })) {
            self.ask(n);
        }
        let ended = self.workers.iter().all(|worker| matches!(worker, Worker::Ended));
        let left = self.schedule.bytes_left() + self.schedule.open_files() as u64;
        let is_over = ended && left == 0;
        if is_over { Ok(()) } else { Err(format!("at the end {left}, {:?}", self.workers)) }
    }

    /// Somebody does something, if anybody can.
    fn step(&mut self) -> Result<bool, String> {
        // A change of the pilot's mind alone is no progress.
        if self.random.u8(0..16) == 0 {
            let workers = self.random.usize(1..=self.workers.len());
            let rate = self.random.f64() * 1e8;
            let news = self.schedule.let_work(workers, rate);
            self.tell(news);
        }
        let busy = |(n, worker): (usize, &Worker)| {
            matches!(worker, Worker::Asks { .. } | Worker::Fetches(_)).then_some(n)
        };
        let busy = Vec::from_iter(self.workers.iter().enumerate().filter_map(busy));
        let to_hash = |(n, file): (usize, &File)| {
            let more = file.written.end_of(file.hashed) > file.hashed || file.hashed == file.size;
            (!file.proved && !file.restarts && more).then_some(n)
        };
        let to_hash = Vec::from_iter(self.files.iter().enumerate().filter_map(to_hash));
        // Sometimes the hash is slow, and sometimes the network.
        let hash_first = self.random.u8(0..4) == 0;
        if !to_hash.is_empty() && (hash_first || busy.is_empty()) {
            let n = to_hash[self.random.usize(0..to_hash.len())];
            self.hash(n);
        } else if busy.is_empty() {
            return Ok(false);
        } else {
            let n = busy[self.random.usize(0..busy.len())];
            match self.workers[n].clone() {
                Worker::Fetches(chunk) => self.finish(n, &chunk),
                _ => self.ask(n),
            }
        }
        Ok(true)
    }

    fn ask(&mut self, n: usize) {
        let Worker::Asks { last } = self.workers[n] else { return };
        if let Some(span) = last {
            self.schedule.leave(span);
        }
        self.ask_again(n, last);
    }

    fn ask_again(&mut self, n: usize, own: Option<u64>) {
        if self.fault == Some(Fault::NewFilesFirst) {
            let own_is_left = |span: &Span| Some(span.id) == own && span.workers == 0;
            if !self.schedule.begun.iter().any(own_is_left) {
                let _ = self.schedule.begin_file();
                // What is left is nobody's: only its own worker would go on with it.
                let newest = self.schedule.spans;
                self.schedule.begun.retain(|span| span.workers > 0 || span.id == newest);
            }
        }
        let (turn, news) = self.schedule.turn(n, own);
        self.workers[n] = match turn {
            Turn::Take(chunk) => {
                let file = &mut self.files[chunk.file];
                if file.restarts || file.generation != chunk.generation {
                    Worker::Asks { last: Some(chunk.span) }
                } else {
                    file.active += 1;
                    file.is_open = true;
                    Worker::Fetches(chunk)
                }
            }
            Turn::Wait => Worker::Waits { own },
            Turn::End => Worker::Ended,
        };
        self.tell(news);
    }

    /// A worker is done with `chunk`: it is there, or the server has sent the whole file.
    fn finish(&mut self, n: usize, chunk: &Chunk) {
        self.workers[n] = Worker::Asks { last: Some(chunk.span) };
        let is_whole = chunk.range == (0..self.files[chunk.file].size);
        let file = &mut self.files[chunk.file];
        file.active -= 1;
        if !is_whole && file.beginnings < 3 && self.random.u8(0..40) == 0 {
            file.restarts = true;
            self.schedule.withdraw(chunk.file);
        } else {
            file.written.insert(chunk.range.clone());
            if file.hashed == chunk.range.start && chunk.alone {
                file.hashed = chunk.range.end;
                self.tell_hash(chunk.file);
            }
        }
        if self.files[chunk.file].restarts && self.files[chunk.file].active == 0 {
            self.begin_anew(chunk.file, true);
        }
    }

    fn begin_anew(&mut self, n: usize, in_one: bool) {
        let file = &mut self.files[n];
        let (size, generation) = (file.size, file.generation + 1);
        *file = File { size, generation, beginnings: file.beginnings + 1, ..File::default() };
        let news = self.schedule.again(n, size, generation, in_one);
        self.tell(news);
    }

    fn hash(&mut self, n: usize) {
        let file = &mut self.files[n];
        let end = file.written.end_of(file.hashed);
        if file.hashed < end {
            file.hashed =
                if self.random.bool() { end } else { self.random.u64(file.hashed..end) + 1 };
            self.tell_hash(n);
        } else if file.size > 0 && file.beginnings < 3 && self.random.u8(0..20) == 0 {
            self.begin_anew(n, false);
        } else {
            (file.proved, file.is_open) = (true, false);
            let was_open = self.schedule.open.contains(&n);
            let news = self.schedule.finish(n);
            if was_open && self.fault == Some(Fault::FileLeftOpen) {
                self.schedule.open.insert(n);
            }
            self.tell(news);
        }
    }

    fn tell_hash(&mut self, n: usize) {
        let (generation, hashed) = (self.files[n].generation, self.files[n].hashed);
        let news = self.schedule.hashed(n, generation, hashed);
        self.tell(news);
    }

    fn tell(&mut self, news: News) {
        let is_lost = self.fault == Some(Fault::LostNews) && self.random.u8(0..4) == 0;
        if news == News::Nothing || is_lost {
            return;
        }
        let waiting = |(n, worker): (usize, &Worker)| match worker {
            Worker::Waits { own } => Some((n, *own)),
            _ => None,
        };
        let mut waiting = Vec::from_iter(self.workers.iter().enumerate().filter_map(waiting));
        self.random.shuffle(&mut waiting);
        for (n, own) in waiting {
            // Who has got something meanwhile has been told by another.
            if matches!(self.workers[n], Worker::Waits { .. }) {
                self.ask_again(n, own);
            }
        }
    }
}

#[test]
fn every_transfer_ends_within_its_files_and_with_nobody_idle() {
    let set = std::env::var("WEIGHTLIFT_TEST_SEED").ok().and_then(|seed| seed.parse::<u64>().ok());
    let rounds = if set.is_some() { 1 } else { 3_000 };
    let first = set.unwrap_or_else(|| fastrand::u64(..u64::MAX / 2));
    for seed in first..first + rounds {
        let done = simulate(seed, None);
        assert_eq!(done, Ok(()), "WEIGHTLIFT_TEST_SEED={seed}");
    }
}

#[test]
fn what_is_broken_on_purpose_is_found() {
    use Fault::*;
    for fault in [LostNews, FileLeftOpen, OneTooMany, NewFilesFirst] {
        let found = (0..500).find_map(|seed| simulate(seed, Some(fault)).err());
        assert!(found.is_some(), "{fault:?} is not found");
    }
}
