//! Moves the chunks of a plan from a source into a staging tree, and checks every file. Each worker is a
//! thread with a runtime and a connection of its own: a byte is written, and mostly hashed, by the thread
//! that received it. Writes are positioned, so running a chunk again is harmless.
//!
//! Imports `model`, `content`, `net`, `verify`, `report` and `volume`'s staging; knows nothing of URLs,
//! tokens or final paths.

mod activity;
mod checkpoint;
mod concurrency;
mod hashing;
mod header;
mod job;
mod last_resort;
mod low_speed;
mod queue;
mod ranges;
mod retry;
mod schedule;
mod stop;
mod watchdog;
mod worker;
mod written;

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

#[doc(hidden)]
pub use queue::{Limits, Queue};
pub use retry::{Retry, RetryPolicy};
pub use stop::Stop;

use crate::content::Source;
use crate::model::{Plan, RemoteFile, exclude_flag, literal_pattern};
use crate::net::SourceError;
use crate::net::http::Http;
use crate::report::{Progress, Screen};
use crate::verify::Mismatch;
use crate::volume::{Staging, StoreError};
use activity::Post;
use job::Job;
use watchdog::{Look, Watchdog};

/// Files that are open for writing at the same time, those that wait to be hashed and synced
/// included.
const MAX_OPEN_FILES: usize = 128;

/// What a worker has open beside its file: its runtime's four, and a connection to each of two hosts.
const DESCRIPTORS_OF_A_WORKER: usize = 6;
/// For a moment, or for somebody else: directories, heartbeats, name servers, files that are hashed.
const SPARE_DESCRIPTORS: usize = 12;

/// A file that only it reads, and for a moment the directory of that.
const DESCRIPTORS_OF_A_HASHER: usize = 3;
/// A further thread that hashes is worth it where so many more can be open.
const FREE_FOR_A_HASHER: usize = 16;

/// Threads that hash what is on the volume already, as many as there are processors up to this.
const MAX_HASHERS: usize = 16;

/// How a transfer is done.
#[derive(Clone, Debug)]
pub struct Options {
    /// The most workers, each with one connection.
    pub connections: usize,
    /// The most bytes asked for in one request.
    pub chunk_size: u64,
    pub retry: RetryPolicy,
    /// Descriptors that the process can still open.
    pub descriptors: usize,
    /// Each file must be what its source published, whatever sort of digest that is.
    pub require_digests: bool,
}

impl Options {
    /// As much of each as the descriptors allow; there is always one of each.
    fn shares(&self, cores: usize) -> Shares {
        let free = self.descriptors.saturating_sub(SPARE_DESCRIPTORS);
        let most = cores.min(MAX_HASHERS).min(1 + free / FREE_FOR_A_HASHER);
        let hashers = most.max(1);
        // The first one is among those that are spared.
        let free = free.saturating_sub((hashers - 1) * DESCRIPTORS_OF_A_HASHER);
        // A worker needs a file as well.
        let workers = (free / (DESCRIPTORS_OF_A_WORKER + 1)).clamp(1, self.connections.max(1));
        let files = free.saturating_sub(workers * DESCRIPTORS_OF_A_WORKER);
        Shares { workers, open_files: files.clamp(1, MAX_OPEN_FILES), hashers }
    }
}

/// What a transfer may have at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shares {
    workers: usize,
    open_files: usize,
    hashers: usize,
}

/// What is known of a file once it is complete.
#[derive(Clone, Debug)]
pub struct Proof {
    pub sha256: [u8; 32],
    /// The bytes have the digest that the source published.
    pub is_compared: bool,
    /// For safetensors: `valid`, or why the structure was not checked.
    pub structure: Option<Cow<'static, str>>,
}

#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    #[error("`{path}`: {source}")]
    Source { path: String, source: SourceError },
    #[error("`{path}`: no byte arrived for {}: {source}", crate::model::text::duration(*tried_for))]
    GaveUp { path: String, tried_for: Duration, source: SourceError },
    #[error("`{path}` is still wrong after {fetches} complete fetches: {mismatch}{hint}")]
    Integrity { path: String, fetches: u32, mismatch: Mismatch, hint: &'static str },
    #[error(
        "`{path}` is what the source published, but no valid safetensors: {why}; to do without it \
         add {}", exclude_flag(&literal_pattern(path))
    )]
    Structure { path: String, why: String },
    #[error(
        "`{path}` is no valid safetensors at the source: {why} (two reads of its first {len} bytes \
         agree); to do without it add {}", exclude_flag(&literal_pattern(path))
    )]
    Header { path: String, why: String, len: u64 },
    #[error(
        "`{path}` is still wrong after {fetches} tries: no valid safetensors ({why}), and each read \
         of its start brings other bytes"
    )]
    UnsteadyHeader { path: String, fetches: u32, why: String },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    #[error(transparent)]
    Setup(SourceError),
    #[error("no byte arrived and none was hashed for {}; waited for: {waits}", crate::model::text::duration(*silent))]
    Silent { silent: Duration, waits: String },
    #[error("stopped")]
    Stopped,
}

/// What a thread of a transfer does; it is told its number, and where to tell what it is doing.
type Body = for<'a, 'b> fn(&'a Shared<'b>, usize, Post<'a>) -> Result<(), TransferError>;

/// Everything that the threads of one transfer share.
pub(crate) struct Shared<'a> {
    source: &'a dyn Source,
    http: &'a Http,
    staging: &'a Staging,
    options: &'a Options,
    progress: &'a Progress,
    screen: &'a Screen,
    stop: &'a Stop,
    jobs: Vec<Job<'a>>,
    proofs: Mutex<Vec<Option<Proof>>>,
    /// An ETag of this source was the MD5 of its file.
    has_md5_etags: AtomicBool,
    queue: Queue,
    traffic: low_speed::Traffic,
    activity: activity::Activity,
    hashing: hashing::Inbox,
    failure: Mutex<Option<TransferError>>,
    /// Set when there is nothing left to do, or no sense in going on.
    over: (Mutex<bool>, Condvar),
    /// When a line about a retry was last shown: a flapping network must not flood the log.
    last_said: Mutex<Option<Instant>>,
}

/// Fetches what `plan` lacks of the files that are `wanted` and have none of `proofs` yet, and
/// returns the proofs, those of before included, in the plan's order.
///
/// Blocks until everything is fetched and hashed, and with the last file synced, or the first fatal
/// error. Bytes that are on the volume by then serve the next attempt.
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
    let mut missing = plan.missing.iter().peekable();
    let mut part = Plan { files: plan.files.clone(), missing: Vec::new() };
    let mut jobs = Vec::with_capacity(plan.files.len());
    let mut open = 0;
    for (n, file) in plan.files.iter().enumerate() {
        let of_file = std::iter::from_fn(|| missing.next_if(|(of, _)| *of == n));
        if proofs[n].is_none() && wanted(file) {
            let before = part.missing.len();
            part.missing.extend(of_file.cloned());
            jobs.push(Job::new(n, file, part.missing[before..].iter().map(|(_, range)| range)));
            open += 1;
        } else {
            of_file.for_each(drop);
            jobs.push(Job::for_later(n, file));
        }
    }
    let plan = &part;
    if open == 0 {
        return Ok(proofs);
    }
    // No more workers than there can be chunks.
    let chunks = plan.missing_bytes().div_ceil(queue::least_chunk(options.chunk_size));
    let chunks = chunks.max(plan.missing.len() as u64);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let Shares { workers, open_files, hashers } = options.shares(cores);
    let hashers = hashers.min(open);
    let most = (chunks.min(workers as u64) as usize).max(1);
    let first = most.min(concurrency::FIRST);
    let limits = Limits { chunk_size: options.chunk_size, workers: first, open_files };
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
        queue: Queue::new(plan, limits).until_proved(open),
        traffic: low_speed::Traffic::default(),
        activity: activity::Activity::of(most, hashers),
        has_md5_etags: AtomicBool::new(last_resort::has_proved(&plan.files, &proofs)),
        proofs: Mutex::new(proofs),
        jobs,
        hashing: hashing::Inbox::default(),
        failure: Mutex::default(),
        over: Default::default(),
        last_said: Mutex::default(),
    };
    // What is complete already, empty files among it, has only to be hashed.
    for job in &shared.jobs {
        if job.begins_with_hashing() {
            shared.hashing.push_old(job.n);
        }
    }
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
            // Fewer threads than wanted are slower, not wrong; none at all is the end.
            if let (Err(error), 0) = (started, n) {
                shared.fail(TransferError::Thread(error));
            }
        };
        let fetch = |n| start("fetch", n, activity.worker(n), worker::work);
        (0..hashers).for_each(|n| start("hash", n, activity.hasher(n), hashing::follow));
        (0..first).for_each(fetch);
        // Number 1, because the transfer can do without it.
        start("keep", 1, activity.keeper(), checkpoint::keep);
        shared.steer(most, cores, fetch);
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

impl Shared<'_> {
    /// Ends the transfer; the first failure is the one that is reported.
    fn fail(&self, error: TransferError) {
        {
            let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
            if failure.is_none() && !matches!(error, TransferError::Stopped) {
                *failure = Some(error);
            }
        }
        self.stop.set();
        self.end();
    }

    /// Lets all threads end.
    fn end(&self) {
        self.queue.wake_all();
        self.hashing.close();
        *self.over.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.over.1.notify_all();
    }

    /// Waits for the end of the transfer, but not longer than `time`.
    fn is_over_within(&self, time: Duration) -> bool {
        let is_over = self.over.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.over.1.wait_timeout_while(is_over, time, |over| !*over);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Has as many workers as are worth it, up to `most`, until the transfer is over; `start` starts
    /// another one.
    fn steer(&self, most: usize, cores: usize, start: impl Fn(usize)) {
        let mut pilot = concurrency::Pilot::new(most);
        let mut started = most.min(concurrency::FIRST);
        let mut wanted = started;
        let mut last = Usage::now(self.progress);
        let mut watchdog = Watchdog::new(self.options.retry.budget, self.grace());
        loop {
            if self.is_over_within(concurrency::TICK) {
                return;
            }
            let now = Usage::now(self.progress);
            if let Some(silent) = watchdog.look(self.look(now.at)) {
                let path = |n: usize| self.jobs.get(n).map_or("", |job| job.file.path.as_str());
                self.fail(TransferError::Silent { silent, waits: self.activity.describe(path) });
                return;
            }
            let (rate, cpu) = now.since(&last, cores);
            last = now;
            let rate_each = rate / wanted as f64;
            wanted = pilot.steer(rate, cpu);
            while started < wanted && self.queue.bytes_left() > 0 {
                start(started);
                started += 1;
            }
            self.queue.let_work(wanted, rate_each);
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
            is_paused: self.http.pace.is_pausing(),
            is_working,
            has_deadline,
        }
    }

    /// One line about something that will be tried again, not more often than every five seconds.
    fn say_sometimes(&self, line: impl FnOnce() -> String) {
        let mut last = self.last_said.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() > Duration::from_secs(5)) {
            *last = Some(Instant::now());
            self.screen.say(&line());
        }
    }
}

/// What a transfer has used up to a moment.
struct Usage {
    at: Instant,
    bytes: u64,
    /// Of all threads, in seconds.
    cpu: f64,
}

impl Usage {
    fn now(progress: &Progress) -> Self {
        let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Self {
            at: Instant::now(),
            bytes: progress.fetched_bytes.load(Relaxed),
            cpu: cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9,
        }
    }

    /// Bytes per second, and the part of the processors (0 to 1), since `earlier`.
    fn since(&self, earlier: &Self, cores: usize) -> (f64, f64) {
        let seconds = self.at.duration_since(earlier.at).as_secs_f64().max(0.001);
        let bytes = self.bytes.saturating_sub(earlier.bytes) as f64;
        (bytes / seconds, (self.cpu - earlier.cpu) / seconds / cores as f64)
    }
}

#[cfg(test)]
mod tests;
