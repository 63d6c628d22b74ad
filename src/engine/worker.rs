//! A worker: fetches the chunks that it is given, writes them where they belong, and finishes small files.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use reqwest::Client;

use super::activity::{Doing, Post};
use super::direct;
use super::error::TransferError;
use super::job::Job;
use super::schedule::event::{Chunk, Ending, Event, Party, Recall, Task};
use super::shared::Shared;
use super::written::{Written, new_crc};
use crate::report::{ActiveFile, Event as Said};
use crate::volume::StagedFile;

/// So much is sent to the disk at once; of the end of a chunk, from this size on. Small files wait for
/// one sync of all.
const WRITEBACK_BYTES: u64 = 16 << 20;
const LAST_WRITEBACK_BYTES: u64 = 8 << 20;

/// What a worker has of its own.
pub struct Worker<'a> {
    pub number: usize,
    pub client: Client,
    pub post: Post<'a>,
}

/// A chunk on its way, with its file.
pub struct Fetch<'a> {
    pub job: &'a Job<'a>,
    pub staged: &'a StagedFile,
    pub shown: &'a ActiveFile,
    pub chunk: &'a Chunk,
}

/// Works until there is nothing left to do. Runs on a thread of its own.
pub fn work<'a>(
    shared: &'a Shared<'_>,
    number: usize,
    post: Post<'a>,
) -> Result<(), TransferError> {
    let party = Party::Worker(number);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(_) if number > 0 => {
            // Descriptors are scarce: the others do the work.
            shared.desk.tell(Event::Gone(party));
            return Ok(());
        }
        Err(error) => return Err(TransferError::Thread(error)),
    };
    let client = shared.http.client().map_err(TransferError::Setup)?;
    let worker = Worker { number, client, post };
    shared.desk.tell(Event::Started(party));
    runtime.block_on(async {
        loop {
            worker.post.tell(Doing::WaitsForChunk);
            match shared.desk.next(number).await {
                Task::Fetch(chunk) => {
                    shared.desk.has_settled().await;
                    if shared.stop.is_set() {
                        return Err(TransferError::Stopped);
                    }
                    worker.post.tell(Doing::Works(chunk.file));
                    let (at, ending) = shared.take_chunk(&worker, &chunk).await?;
                    worker.post.tell(Doing::Finishes(chunk.file));
                    shared.desk.tell(Event::Fetched { worker: number, at, ending });
                }
                task @ (Task::Finish { file } | Task::Restart { file, .. }) => {
                    worker.post.tell(Doing::Finishes(file));
                    shared.serve(party, &task, None)?;
                }
                Task::End | Task::Hash { .. } => return Ok(()),
            }
        }
    })
}

impl Shared<'_> {
    /// Fetches a chunk; returns how far it came, and how it ended.
    async fn take_chunk(
        &self,
        worker: &Worker<'_>,
        chunk: &Chunk,
    ) -> Result<(u64, Ending), TransferError> {
        let job = &self.jobs[chunk.file];
        let (staged, shown) = self.staged(job)?;
        let hasher = chunk.hashes.then(|| job.take_hasher());
        let mut written = Written::new(chunk.range.start, hasher);
        // What is hashed by another thread is read back, and should be in memory then.
        if chunk.hashes && chunk.range.end - chunk.range.start >= direct::WINDOW {
            written.may_be_direct(self.trial.begin());
        }
        let fetch = Fetch { job, staged: &staged, shown: &shown, chunk };
        let fetched = tokio::select! {
            biased;
            fetched = self.fetch(worker, &fetch, &mut written) => fetched,
            recalled = self.desk.recalled(worker.number, chunk) => match recalled {
                Some(why) => {
                    self.say_why(job, why);
                    if matches!(why, Recall::Slow { .. }) {
                        written.avoid_peer();
                    }
                    Ok(Ending::Written)
                }
                None => Err(TransferError::Stopped),
            }
        };
        self.trial.end(worker.number);
        self.count(&shown, &mut written);
        worker.post.tell(Doing::Finishes(job.n));
        // However it ended, what has arrived is kept for this run or the next.
        self.record(job, &staged, &mut written)?;
        written.write_back(&staged, LAST_WRITEBACK_BYTES);
        if let Some(hasher) = written.hasher.take() {
            job.put_hasher(hasher);
        }
        Ok((written.at, fetched?))
    }

    /// Adds what has come to the counters that all workers share.
    pub fn count(&self, shown: &ActiveFile, written: &mut Written) {
        let len = written.take_uncounted();
        self.progress.done_bytes.fetch_add(len, Relaxed);
        shown.done.fetch_add(len, Relaxed);
        if written.hasher.is_some() {
            shown.hashed.store(written.at, Relaxed);
        }
        self.progress.fetched_bytes.fetch_add(len, Relaxed);
    }

    fn say_why(&self, job: &Job<'_>, why: Recall) {
        if let Recall::Slow { rate, usual } = why {
            self.say_sometimes(|| Said::ReplacingConnection {
                path: job.file.path.to_string(),
                bytes_per_second: rate,
                usual_bytes_per_second: usual,
            });
        }
    }

    /// Notes in the journal what has been written since the last note.
    pub fn record(
        &self,
        job: &Job<'_>,
        staged: &StagedFile,
        written: &mut Written,
    ) -> Result<(), TransferError> {
        written.flush(staged)?;
        let range = written.noted..written.at;
        if range.is_empty() {
            return Ok(());
        }
        let crc = std::mem::replace(&mut written.crc, new_crc());
        (written.noted, written.noted_at) = (written.at, Instant::now());
        self.staging.wrote(job.n, range, crc.finalize())?;
        written.write_back(staged, WRITEBACK_BYTES);
        Ok(())
    }

    /// The open file, opened by whoever comes first. The schedule gives no chunk of a file that may not be
    /// open.
    fn staged(&self, job: &Job<'_>) -> Result<(Arc<StagedFile>, Arc<ActiveFile>), TransferError> {
        let shown = self.shown(job);
        job.with(|state| {
            let staged = match &state.staged {
                Some(open) => open.clone(),
                None => state.staged.insert(Arc::new(self.staging.open(job.n)?)).clone(),
            };
            Ok((staged, shown))
        })
    }

    /// What those see of the file who look on, from the first thing that happens to it until it is finished.
    pub fn shown(&self, job: &Job<'_>) -> Arc<ActiveFile> {
        let (path, size, present) = (job.file.path.as_str(), job.file.size, job.present());
        let show = || self.progress.start_file(path, size, present);
        job.with(|state| state.shown.get_or_insert_with(show).clone())
    }
}
