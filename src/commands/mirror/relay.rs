//! Moves files from a source to a bucket through memory, or only reads them: parts at the same time, hashed
//! in order.
//!
//! A worker is a thread with a runtime and connections of its own. It takes one part, reads it, waits until
//! the parts before it are hashed, hashes it, and sends it. Parts are taken in the order of the files, and each
//! with the memory that it needs: so whoever waits for a part that was taken before waits for a worker that
//! has all it needs.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::job::{Job, Proved, Task};
use crate::Error;
use crate::commands::several::{no_thread, runtime};
use crate::content::Source;
use crate::engine::{RetryPolicy, Stop};
use crate::net::http::Http;
use crate::report::{Event, Progress, Screen};
use crate::source::Sink;

/// The parts that are in memory at the same time, all together.
const MEMORY_BYTES: u64 = 128 << 20;
const UNIT_BYTES: u64 = 1 << 20;
/// More would each keep a part in memory.
const MAX_WORKERS: usize = 8;
/// Lines about what is tried again are not more frequent.
const SAY_EVERY: Duration = Duration::from_secs(5);

/// From where, and to where.
pub struct Relay<'a> {
    pub source: &'a dyn Source,
    /// None where the bytes are only proved.
    pub sink: Option<&'a Sink>,
    pub http: &'a Http,
    pub retry: RetryPolicy,
    pub connections: usize,
    pub progress: &'a Progress,
    pub screen: &'a Screen,
    /// Of the whole run.
    pub stop: &'a Stop,
    /// Whether wrong bytes of one file end the run; otherwise it is told with the others.
    pub wrong_is_fatal: bool,
}

/// What all workers share.
pub(super) struct Shared<'a> {
    pub relay: &'a Relay<'a>,
    queue: tokio::sync::Mutex<VecDeque<Arc<Job>>>,
    memory: Arc<Semaphore>,
    /// Files that are not done yet.
    open: AtomicUsize,
    /// Counts what may have changed for a worker without work.
    changes: watch::Sender<u64>,
    results: Mutex<Vec<Option<Result<Proved, Error>>>>,
    failure: Mutex<Option<Error>>,
    stop: Stop,
    said: Mutex<Option<Instant>>,
}

/// A part to be moved.
struct Taken {
    job: Arc<Job>,
    part: u32,
    memory: OwnedSemaphorePermit,
}

impl Relay<'_> {
    /// Blocks until all `tasks` are done, and returns what came of each, or the first error that is fatal.
    pub fn run(&self, tasks: Vec<Task>) -> Result<Vec<Result<Proved, Error>>, Error> {
        let jobs: VecDeque<Arc<Job>> =
            tasks.into_iter().enumerate().map(|(n, task)| Arc::new(Job::new(n, task))).collect();
        let count = jobs.len();
        let parts: usize = jobs.iter().map(|job| job.count() as usize).sum();
        let shared = Shared {
            relay: self,
            queue: tokio::sync::Mutex::new(jobs),
            memory: Arc::new(Semaphore::new((MEMORY_BYTES / UNIT_BYTES) as usize)),
            open: AtomicUsize::new(count),
            changes: watch::Sender::new(0),
            results: Mutex::new((0..count).map(|_| None).collect()),
            failure: Mutex::default(),
            stop: self.stop.part(),
            said: Mutex::default(),
        };
        let workers = self.connections.clamp(1, MAX_WORKERS).min(parts);
        std::thread::scope(|scope| {
            for n in 0..workers {
                let thread = std::thread::Builder::new().name(format!("relay-{n}"));
                if let Err(error) = thread.spawn_scoped(scope, || shared.work()) {
                    // Fewer are slower, not wrong; none at all is the end.
                    if n == 0 {
                        shared.fail(no_thread(error));
                    }
                    break;
                }
            }
        });
        let Shared { results, failure, .. } = shared;
        if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        if self.stop.is_set() {
            return Err(Error::Stopped);
        }
        let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        let unfinished = || Error::Bug("a file was neither moved nor given up".into());
        Ok(results.into_iter().map(|result| result.unwrap_or_else(|| Err(unfinished()))).collect())
    }
}

impl Shared<'_> {
    fn work(&self) {
        let result = runtime().and_then(|runtime| {
            runtime.block_on(async {
                let client = self.relay.http.client()?;
                let parts = async {
                    while let Some(taken) = self.take().await {
                        self.part(&client, taken).await?;
                    }
                    Ok(())
                };
                tokio::select! {
                    done = parts => done,
                    () = self.stop.wait() => Err(Error::Stopped),
                }
            })
        });
        if let Err(error) = result {
            self.fail(error);
        }
    }

    async fn part(&self, client: &reqwest::Client, taken: Taken) -> Result<(), Error> {
        let Taken { job, part, memory } = taken;
        let is_last = self.move_part(client, &job, part).await?;
        if !is_last {
            return Ok(());
        }
        match self.finish(&job).await {
            Ok(Some(proved)) => self.ended(&job, Ok(proved)),
            Ok(None) => {
                // Whoever holds the queue may wait for it.
                drop(memory);
                self.again(job).await;
            }
            Err(error @ Error::Integrity(_)) if !self.relay.wrong_is_fatal => {
                self.ended(&job, Err(error));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The next part, when there is memory for it; none when all is done.
    async fn take(&self) -> Option<Taken> {
        let mut changes = self.changes.subscribe();
        loop {
            changes.borrow_and_update();
            if let Some(taken) = self.take_now().await {
                return Some(taken);
            }
            if self.open.load(SeqCst) == 0 {
                return None;
            }
            // A file may begin again.
            let _ = changes.changed().await;
        }
    }

    async fn take_now(&self) -> Option<Taken> {
        // Held until there is memory: in the order of the parts.
        let mut queue = self.queue.lock().await;
        let job = queue.front()?.clone();
        let (part, has_more) = job.take_part();
        if !has_more {
            queue.pop_front();
        }
        if part == 0 {
            job.shows(self.relay.progress);
        }
        let bytes = job.range(part).end - job.range(part).start;
        let units = bytes.div_ceil(UNIT_BYTES).clamp(1, MEMORY_BYTES / UNIT_BYTES) as u32;
        let memory = self.memory.clone().acquire_many_owned(units).await;
        Some(Taken { job, part, memory: memory.expect("the semaphore is never closed") })
    }

    /// Lets the file begin again, before all others.
    async fn again(&self, job: Arc<Job>) {
        job.begin_again(self.relay.progress);
        self.queue.lock().await.push_front(job);
        self.changes.send_modify(|count| *count += 1);
    }

    fn ended(&self, job: &Job, result: Result<Proved, Error>) {
        job.is_over(self.relay.progress);
        self.results.lock().unwrap_or_else(PoisonError::into_inner)[job.n] = Some(result);
        self.open.fetch_sub(1, SeqCst);
        self.changes.send_modify(|count| *count += 1);
    }

    /// Ends the run; the first failure is the one that is reported.
    fn fail(&self, error: Error) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if failure.is_none() && !matches!(error, Error::Stopped) {
            *failure = Some(error);
        }
        self.stop.set();
    }

    /// One line about something that will be tried again.
    pub fn say_sometimes(&self, event: impl FnOnce() -> Event) {
        let mut last = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let is_verbose = self.relay.screen.is_verbose();
        if is_verbose || last.is_none_or(|last| last.elapsed() > SAY_EVERY) {
            *last = Some(Instant::now());
            self.relay.screen.tell(&event());
        }
    }
}
