//! Moves the chunks of a plan from a source into a staging tree, and checks every file. Each worker is a
//! thread with a runtime and a connection of its own: a byte is written, and mostly hashed, by the thread
//! that received it. Writes are positioned, so running a chunk again is harmless. What is done when, and by
//! whom, `schedule` says.
//!
//! Imports `model`, `content`, `net`, `verify`, `report` and `volume`'s staging; knows nothing of URLs,
//! tokens or final paths.

mod activity;
mod bounds;
mod checkpoint;
mod desk;
mod direct;
mod error;
mod finish;
mod hashing;
mod header;
mod job;
mod last_resort;
mod load;
mod options;
mod request;
mod retry;
/// For `benches/engine.rs`.
#[doc(hidden)]
pub mod schedule;
mod share;
mod shared;
mod stop;
mod watchdog;
mod worker;
mod written;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub use direct::DirectIo;
pub use error::TransferError;
pub use options::Options;
pub use retry::{Retry, RetryPolicy};
pub use share::Share;
pub use shared::Proof;
pub use stop::Stop;

use crate::content::Source;
use crate::model::{Plan, RemoteFile};
use crate::net::http::Http;
use crate::report::{Event as Said, Progress, Screen};
use crate::volume::Staging;
use activity::{Activity, Post};
use desk::Desk;
use direct::Trial;
use job::Job;
use load::Load;
use options::Shares;
use schedule::Schedule;
use schedule::event::{Event, Limits, MinRate, Party, Tick};
use shared::Shared;
use watchdog::{Look, Watchdog};

/// What a thread of a transfer does; it is told its number, and where to tell what it is doing.
type Body = for<'a, 'b> fn(&'a Shared<'b>, usize, Post<'a>) -> Result<(), TransferError>;

/// Fetches what `plan` lacks of the files that are `wanted` and have none of `proofs` yet, and
/// returns the proofs, those of before included, in the plan's order.
///
/// Blocks until everything is fetched and hashed, and with the last file synced, or the first fatal
/// error. Bytes that are on the volume by then serve the next run.
// Each argument is another room's; a struct for one call would only rename them.
#[allow(clippy::too_many_arguments)]
pub fn run(
    source: &dyn Source,
    http: &Http,
    staging: &Staging,
    plan: &Plan,
    options: &Options,
    progress: &Arc<Progress>,
    screen: &Screen,
    stop: &Stop,
    proofs: Vec<Option<Proof>>,
    wanted: impl Fn(&RemoteFile) -> bool,
) -> Result<Vec<Option<Proof>>, TransferError> {
    let is_open = |n: usize| proofs[n].is_none() && wanted(&plan.files[n]);
    let mut missing = plan.missing.iter().peekable();
    let mut part = Plan { files: plan.files.clone(), missing: Vec::new() };
    let mut jobs = Vec::with_capacity(plan.files.len());
    let mut open = 0;
    for (n, file) in plan.files.iter().enumerate() {
        let before = part.missing.len();
        let of_file = std::iter::from_fn(|| missing.next_if(|(of, _)| *of == n)).cloned();
        if is_open(n) {
            part.missing.extend(of_file);
            open += 1;
        } else {
            of_file.for_each(drop);
        }
        jobs.push(Job::new(n, file, part.missing[before..].iter().map(|(_, range)| range)));
    }
    if open == 0 {
        return Ok(proofs);
    }
    let _active = options.share.join();
    let limits = limits(&part, options, http.deadlines.stall, open);
    // A failure ends this transfer, not what its caller still wants to do.
    let stop = &stop.part();
    let shared = Shared {
        source,
        http,
        staging,
        options,
        progress,
        screen,
        stop,
        desk: Desk::new(Schedule::new(&part, is_open, limits), limits.workers, limits.hashers),
        trial: Trial::new(options.direct_io, staging.is_on_disk() && options.may_try_direct()),
        activity: Activity::of(limits.workers, limits.hashers),
        old_hash_nanos: AtomicU64::new(0),
        has_md5_etags: AtomicBool::new(last_resort::has_proved(&plan.files, &proofs)),
        proofs: Mutex::new(proofs),
        jobs,
        failure: Mutex::default(),
        last_said: Mutex::default(),
    };
    std::thread::scope(|scope| {
        let shared = &shared;
        let activity = &shared.activity;
        let start = |name, n: usize, post, body: Body| {
            let thread = std::thread::Builder::new().name(format!("{name}-{n}"));
            let started = thread.spawn_scoped(scope, move || {
                if let Err(error) = body(shared, n, post) {
                    shared.fail(error);
                }
            });
            started.map(drop)
        };
        // Fewer threads than wanted are slower, not wrong; none at all is the end.
        let start_one_of = |party, started: std::io::Result<()>| match (party, started) {
            (_, Ok(())) => {}
            (Party::Worker(0) | Party::Hasher(0), Err(error)) => {
                shared.fail(TransferError::Thread(error));
            }
            (party, Err(_)) => shared.desk.tell(Event::Gone(party)),
        };
        for n in 0..limits.hashers {
            let started = start("hash", n, activity.hasher(n), hashing::follow);
            start_one_of(Party::Hasher(n), started);
        }
        // The transfer can do without it.
        let _ = start("checkpoint", 0, activity.checkpointer(), checkpoint::checkpoint);
        shared.watch(|n| {
            let started = start("fetch", n, activity.worker(n), worker::work);
            start_one_of(Party::Worker(n), started);
        });
    });
    if let Some(failure) = shared.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return Err(failure);
    }
    if stop.is_set() {
        return Err(TransferError::Stopped);
    }
    let proofs = shared.proofs.into_inner().unwrap_or_else(PoisonError::into_inner);
    if proofs.iter().all(Option::is_some) {
        staging.sync_rest()?;
    }
    Ok(proofs)
}

/// What the schedule of `plan`, which has so many `files` to finish, may use.
fn limits(plan: &Plan, options: &Options, stall: Duration, files: usize) -> Limits {
    // No more workers than there can be chunks.
    let chunks = plan.missing_bytes().div_ceil(schedule::least_chunk(options.chunk_size));
    let chunks = chunks.max(plan.missing.len() as u64);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let Shares { workers, open_files, hashers } = options.shares(cores);
    let window = options.rate_window();
    Limits {
        chunk_size: options.chunk_size,
        workers: (chunks.min(workers as u64) as usize).max(1),
        at_first: options.at_first(cores, files).min(options.share.of(options.most_connections())),
        open_files,
        hashers: hashers.min(files),
        small_bytes: written::SMALL_BYTES,
        low_speed_after: stall,
        min_rate: options.min_rate.map(|bytes_per_second| MinRate { bytes_per_second, window }),
    }
}

impl Shared<'_> {
    /// Looks after the transfer until it is over; `start` starts a worker.
    fn watch(&self, start: impl Fn(usize)) {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let processors = self.options.processors(cores);
        let most = self.options.most_connections();
        let mut last = Usage::now(self);
        let (first_bytes, mut started) = (last.bytes, 0);
        let mut load = Load::new(processors);
        let mut watchdog = Watchdog::new(self.options.retry.budget, self.grace());
        loop {
            let news = self.desk.news();
            if self.stop.is_set() {
                self.desk.stop();
            }
            if news.is_over {
                return;
            }
            if news.start_workers.contains(&(most - 1)) {
                self.say_memory(most);
            }
            for n in news.start_workers {
                started = started.max(n + 1);
                start(n);
            }
            if let Some(too_slow) = news.too_slow {
                self.fail(TransferError::TooSlow(too_slow));
                return;
            }
            if !news.is_tick_due {
                continue;
            }
            let now = Usage::now(self);
            if let Some(silent) = watchdog.look(self.look(now.at)) {
                let path = |n: usize| self.jobs.get(n).map_or("", |job| job.file.path.as_str());
                self.fail(TransferError::Silent { silent, waits: self.activity.describe(path) });
                return;
            }
            if let Some(used) = load.look(now.at, now.cpu_of_all, now.bytes) {
                self.say_processor(used);
            }
            // The wait for the bandwidth says nothing of any connection, and more of them would wait as well.
            let is_limited = self.http.is_limited();
            let share = self.options.share.of(most);
            let tick = Tick {
                fetched_bytes: now.bytes - first_bytes,
                cpu: now.cpu_since(&last, processors),
                is_paused: self.http.pace.is_pausing() || is_limited,
                most: if is_limited { share.min(started) } else { share },
                readings: Vec::new(),
            };
            self.desk.tick(tick, |n| self.activity.phase(n));
            last = now;
        }
    }

    /// There would be more connections if there was more memory.
    fn say_memory(&self, connections: usize) {
        let asked = self.options.connections;
        if let Some(memory_limit) = self.options.memory_limit
            && connections < asked
            && self.options.share.says_memory()
        {
            self.screen.tell(&Said::MemoryLimit { connections, asked, memory_limit });
        }
    }

    fn say_processor(&self, used: f64) {
        let limit = self.options.processor_limit;
        if self.options.share.says_processor() {
            self.screen.tell(&Said::ProcessorLimit { used, limit });
        }
    }

    /// How long a request may take beyond the budget, until it ends and says why.
    fn grace(&self) -> Duration {
        let deadlines = &self.http.deadlines;
        deadlines.connect + deadlines.first_byte + deadlines.stall + self.options.retry.max_delay
    }

    /// What the watchdog sees.
    fn look(&self, at: Instant) -> Look {
        let (is_working, has_deadline) = self.activity.looks();
        let bytes = [&self.progress.fetched_bytes, &self.progress.worked_bytes];
        let bytes: u64 = bytes.iter().map(|bytes| bytes.load(Relaxed)).sum();
        Look {
            at,
            progress: bytes + self.progress.done_files.load(Relaxed),
            is_paused: self.http.pace.is_pausing() || self.http.is_limited(),
            is_working,
            has_deadline,
        }
    }
}

/// What a transfer has used up to a moment.
struct Usage {
    at: Instant,
    bytes: u64,
    /// Of all threads, in seconds, without the hashing of old bytes: that waits for what comes in.
    cpu: f64,
    /// With it.
    cpu_of_all: f64,
}

impl Usage {
    fn now(shared: &Shared<'_>) -> Self {
        let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let all = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
        Self {
            at: Instant::now(),
            bytes: shared.progress.fetched_bytes.load(Relaxed),
            cpu_of_all: all,
            cpu: all - shared.old_hash_nanos.load(Relaxed) as f64 / 1e9,
        }
    }

    /// The part of the processors (0 to 1) that was used since `earlier`.
    fn cpu_since(&self, earlier: &Self, processors: f64) -> f64 {
        let seconds = self.at.duration_since(earlier.at).as_secs_f64().max(0.001);
        (self.cpu - earlier.cpu).max(0.0) / seconds / processors.max(0.01)
    }
}

#[cfg(test)]
mod tests;
