//! Moves the chunks of a plan from a source into an attempt, and proves every file.
//!
//! Knows nothing of URLs, tokens or final paths. Each worker is a thread with a runtime and a
//! connection of its own: a byte is written, and mostly hashed, by the thread that received it.
//! Writes are positioned, so running a chunk again is harmless.

mod floor;
mod hashing;
mod job;
mod queue;
mod ranges;
mod retry;
mod stop;
mod worker;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

pub use retry::{Retry, RetryPolicy};
pub use stop::Stop;

use crate::model::Plan;
use crate::progress::{Progress, Screen};
use crate::source::http::Http;
use crate::source::{Source, SourceError};
use crate::store::{Attempt, StoreError};
use crate::verify::Mismatch;
use job::Job;
use queue::Queue;

/// Files that are open for writing at the same time, those that wait to be hashed and synced
/// included. The usual limit of a process is 1024 descriptors.
const MAX_OPEN_FILES: usize = 128;

/// How a transfer is done.
#[derive(Clone, Debug)]
pub struct Options {
    /// Workers, each with one connection.
    pub connections: usize,
    /// Bytes asked for in one request.
    pub chunk_size: u64,
    pub retry: RetryPolicy,
}

/// What is known of a file once it is complete.
#[derive(Clone, Debug)]
pub struct Proof {
    pub sha256: [u8; 32],
    /// For safetensors: `valid`, or why the structure was not checked.
    pub structure: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    #[error("`{path}`: {source}")]
    Source { path: String, source: SourceError },
    #[error("`{path}`: no byte arrived for {}: {source}", crate::model::text::duration(*tried_for))]
    GaveUp { path: String, tried_for: Duration, source: SourceError },
    #[error("`{path}` is still wrong after {fetches} complete fetches: {mismatch}{hint}")]
    Integrity { path: String, fetches: u32, mismatch: Mismatch, hint: &'static str },
    #[error("`{path}` is what the source published, but no valid safetensors: {why}")]
    Structure { path: String, why: String },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    #[error(transparent)]
    Setup(SourceError),
    #[error("stopped")]
    Stopped,
}

/// What a thread of a transfer does.
type Body = for<'a, 'b> fn(&'a Shared<'b>) -> Result<(), TransferError>;

/// Everything that the threads of one transfer share.
pub(crate) struct Shared<'a> {
    source: &'a dyn Source,
    http: &'a Http,
    attempt: &'a Attempt,
    options: &'a Options,
    progress: &'a Progress,
    screen: &'a Screen,
    stop: &'a Stop,
    jobs: Vec<Job>,
    queue: Queue,
    traffic: floor::Traffic,
    open_files: Arc<Semaphore>,
    hashing: hashing::Inbox,
    failure: Mutex<Option<TransferError>>,
    /// When a line about a retry was last shown: a flapping network must not flood the log.
    last_said: Mutex<Option<std::time::Instant>>,
}

/// Fetches what `plan` lacks and returns a proof for each file, in the plan's order.
///
/// Blocks until everything is fetched, hashed and synced, or the first fatal error. Bytes that
/// are on the volume by then serve the next attempt.
// Each argument is another room's; a struct for one call would only rename them.
#[allow(clippy::too_many_arguments)]
pub fn run(
    source: &dyn Source,
    http: &Http,
    attempt: &Attempt,
    plan: &Plan,
    options: &Options,
    progress: &Arc<Progress>,
    screen: &Screen,
    stop: &Stop,
) -> Result<Vec<Proof>, TransferError> {
    let jobs: Vec<Job> = plan
        .files
        .iter()
        .zip(&plan.missing)
        .enumerate()
        .map(|(n, (file, missing))| Job::new(n, file.clone(), missing))
        .collect();
    // A failure ends this transfer, not what its caller still wants to do.
    let stop = &stop.part();
    let shared = Shared {
        source,
        http,
        attempt,
        options,
        progress,
        screen,
        stop,
        queue: Queue::new(plan, options.chunk_size),
        traffic: floor::Traffic::default(),
        open_files: Arc::new(Semaphore::new(MAX_OPEN_FILES)),
        jobs,
        hashing: hashing::Inbox::default(),
        failure: Mutex::default(),
        last_said: Mutex::default(),
    };
    // What is complete already, empty files among it, has only to be hashed.
    for job in &shared.jobs {
        if job.is_ready_to_hash() {
            shared.hashing.push_old(job.n);
        }
    }
    let missing = plan.missing.iter().flatten().count() as u64;
    let chunks = plan.missing_bytes().div_ceil(options.chunk_size).max(missing);
    let workers = (chunks.min(options.connections as u64) as usize).max(1);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let hashers = cores.min(workers.max(2)).min(plan.files.len()).max(1);
    let shared_by_all = &shared;
    std::thread::scope(|scope| {
        for (name, count, body) in
            [("hash", hashers, hashing::follow as Body), ("fetch", workers, worker::work as Body)]
        {
            for n in 0..count {
                let thread = std::thread::Builder::new().name(format!("{name}-{n}"));
                let started = thread.spawn_scoped(scope, move || {
                    if let Err(error) = body(shared_by_all) {
                        shared_by_all.fail(error);
                    }
                });
                // Fewer threads than wanted are slower, not wrong; none at all is the end.
                if let (Err(error), 0) = (started, n) {
                    shared_by_all.fail(TransferError::Thread(error));
                }
            }
        }
    });
    if let Some(failure) = shared.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return Err(failure);
    }
    if stop.is_set() {
        return Err(TransferError::Stopped);
    }
    Ok(shared.jobs.into_iter().map(Job::into_proof).collect())
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
        self.queue.wake_all();
        self.hashing.close();
    }

    /// One line about something that will be tried again, not more often than every five seconds.
    fn say_sometimes(&self, line: impl FnOnce() -> String) {
        let mut last = self.last_said.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() > Duration::from_secs(5)) {
            *last = Some(std::time::Instant::now());
            self.screen.say(&line());
        }
    }
}
