//! A worker: takes a chunk, reads it, writes it where it belongs, and tries again until it is
//! complete.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use reqwest::Client;

use super::activity::{Doing, Post};
use super::header::BadStart;
use super::job::Job;
use super::low_speed::Floor;
use super::queue::Chunk;
use super::written::{Written, new_crc};
use super::{Retry, Shared, TransferError};
use crate::model::text;
use crate::net::SourceError;
use crate::report::ActiveFile;
use crate::volume::{StagedFile, StoreError};

/// How a chunk ended.
enum Outcome {
    Written,
    /// The server sends only whole files: this one begins anew, in one stream.
    NeedsOneStream,
    /// The file begins anew: its first bytes were damaged on the way.
    WrongStart,
}

/// A killed run loses at most this much of each connection, and what came in this time: each note is
/// one small write.
const NOTE_BYTES: u64 = 4 << 20;
const NOTE_EVERY: Duration = Duration::from_secs(1);
/// So much is sent to the disk at once; of the end of a chunk, from this size on. Small files wait for
/// one sync of all.
const WRITEBACK_BYTES: u64 = 16 << 20;
const LAST_WRITEBACK_BYTES: u64 = 8 << 20;
/// Less than this between two failures is no progress: a server that drips for ever must not keep
/// us for ever.
const PROGRESS_BYTES: u64 = 16 << 10;
/// Files up to this size are proved by the worker that fetched them.
pub const SMALL_BYTES: u64 = 8 << 20;
/// How often a file is streamed from its start before a server without ranges is given up.
const MAX_STREAMS: u32 = 10;

/// Works until the queue is empty. Runs on a thread of its own.
pub fn work<'a>(
    shared: &'a Shared<'_>,
    number: usize,
    post: Post<'a>,
) -> Result<(), TransferError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        // Descriptors are scarce: the others do the work.
        Err(_) if number > 0 => return Ok(()),
        Err(error) => return Err(TransferError::Thread(error)),
    };
    let client = shared.http.client().map_err(TransferError::Setup)?;
    let worker = Worker { client, post };
    runtime.block_on(async {
        let mut last = None;
        loop {
            worker.post.tell(Doing::WaitsForChunk);
            let Some(chunk) = shared.queue.next(number, last.take()).await else { return Ok(()) };
            worker.post.tell(Doing::Works(chunk.file));
            shared.take_chunk(&worker, &chunk).await?;
            last = Some(chunk);
        }
    })
}

/// What a worker has of its own.
struct Worker<'a> {
    client: Client,
    post: Post<'a>,
}

impl Shared<'_> {
    async fn take_chunk(&self, worker: &Worker<'_>, chunk: &Chunk) -> Result<(), TransferError> {
        let job = &self.jobs[chunk.file];
        let staged = {
            let mut state = job.state();
            if state.proved || state.restart.is_some() || state.generation != chunk.generation {
                // The file has begun anew while the chunk was on its way to us.
                return Ok(());
            }
            state.active += 1;
            self.staged(job, &mut state)?
        };
        // Where several share a file, its hash is on a thread of its own: it is what all wait for.
        let hash_here = chunk.alone || job.file.size <= SMALL_BYTES;
        let frontier = if hash_here { job.frontier_at(chunk.range.start) } else { None };
        let mut written = Written::new(chunk.range.start, frontier);
        let fetched = tokio::select! {
            fetched = self.fetch(worker, job, &staged.0, &staged.1, chunk, &mut written) => fetched,
            () = self.stop.wait() => Err(TransferError::Stopped),
        };
        worker.post.tell(Doing::Works(job.n));
        // However it ended, what has arrived is kept for this run or the next.
        self.record(job, &staged.0, &mut written)?;
        written.write_back(&staged.0, LAST_WRITEBACK_BYTES);
        if let Some(frontier) = written.frontier.take() {
            self.queue.hashed(job.n, frontier.generation, frontier.at);
            job.return_frontier(frontier);
        }
        let outcome = fetched?;
        let restart = {
            let mut state = job.state();
            state.active -= 1;
            match outcome {
                Outcome::Written => state.written.insert(chunk.range.clone()),
                Outcome::NeedsOneStream => state.restart = Some(true),
                Outcome::WrongStart => _ = state.restart.get_or_insert(false),
            }
            if state.restart.is_some() && state.active == 0 { state.restart } else { None }
        };
        if !matches!(outcome, Outcome::Written) {
            self.queue.withdraw(job.n);
        }
        if let Some(in_one) = restart {
            return self.begin_anew(job, in_one);
        }
        // A small file that came in one piece is done here; others are synced by those who hash.
        if job.file.size <= SMALL_BYTES
            && let Some(hasher) = job.take_complete()
        {
            return self.prove(job, &staged.0, hasher.finish());
        }
        if job.is_ready_to_hash() {
            self.hashing.push(job.n);
        }
        Ok(())
    }

    /// Notes in the journal what has been written since the last note.
    fn record(
        &self,
        job: &Job<'_>,
        staged: &StagedFile,
        written: &mut Written,
    ) -> Result<(), TransferError> {
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

    /// The open file, opened by whoever comes first. The queue gives no chunk of a file that may not be
    /// open.
    fn staged(
        &self,
        job: &Job<'_>,
        state: &mut super::job::State,
    ) -> Result<(Arc<StagedFile>, Arc<ActiveFile>), TransferError> {
        let staged = match &state.staged {
            Some(open) => open.clone(),
            None => state.staged.insert(Arc::new(self.staging.open(job.n)?)).clone(),
        };
        let shown = state.shown.get_or_insert_with(|| {
            self.progress.start_file(job.file.path.as_str(), job.file.size, state.written.total())
        });
        Ok((staged, shown.clone()))
    }

    /// The one retry loop: around the whole chunk, body included, going on after the last byte
    /// that was written.
    async fn fetch(
        &self,
        worker: &Worker<'_>,
        job: &Job<'_>,
        staged: &StagedFile,
        shown: &ActiveFile,
        chunk: &Chunk,
        written: &mut Written,
    ) -> Result<Outcome, TransferError> {
        let mut retry = Retry::new(self.options.retry, self.http.pace.clone());
        loop {
            let before = written.at;
            let error = match self.request(worker, job, staged, shown, chunk, written).await {
                Ok(()) => return Ok(Outcome::Written),
                Err(Failure::Transfer(error)) => return Err(error),
                Err(Failure::Start(bad)) => {
                    self.suspect(&worker.client, job, staged, bad).await?;
                    return Ok(Outcome::WrongStart);
                }
                // There is no range left to ask for. Whether the bytes are right, the digest says.
                Err(Failure::Source(_)) if written.is_all_of(&chunk.range) => {
                    return Ok(Outcome::Written);
                }
                Err(Failure::Source(error)) => error,
            };
            // It may take long until more comes, and the process may be killed meanwhile.
            self.record(job, staged, written)?;
            if written.at - before >= PROGRESS_BYTES {
                retry.progressed();
            }
            let again = match error {
                SourceError::NoRanges { .. } if !self.has_ranges(job, shown, chunk, written) => {
                    Err(error)
                }
                error => retry.after(error),
            };
            let path = || job.file.path.to_string();
            let (delay, error) = match again {
                Ok(again) => again,
                Err(SourceError::NoRanges { host, file }) => {
                    self.say_sometimes(|| format!("`{host}` sends no ranges; streaming `{file}`"));
                    return Ok(Outcome::NeedsOneStream);
                }
                Err(source) if source.is_transient() => {
                    let tried_for = retry.tried_for();
                    return Err(TransferError::GaveUp { path: path(), tried_for, source });
                }
                Err(source) => return Err(TransferError::Source { path: path(), source }),
            };
            for warning in self.source.warnings() {
                self.screen.warn(&warning);
            }
            self.say_sometimes(|| {
                format!("retrying `{}` from byte {}: {error}", job.file.path, written.at)
            });
            worker.post.tell(Doing::WaitsToRetry(job.n));
            tokio::time::sleep(delay).await;
        }
    }

    /// Whether the file has bytes that came by ranges: more than what a server without them sends
    /// for a chunk at byte 0. One whole answer, as of a cache, is then no reason to give them up.
    fn has_ranges(
        &self,
        job: &Job<'_>,
        shown: &ActiveFile,
        chunk: &Chunk,
        written: &Written,
    ) -> bool {
        let in_one = if chunk.range.start == 0 { written.at } else { self.options.chunk_size };
        shown.done.load(Relaxed) > in_one || job.state().resumed
    }

    /// One request for what the chunk still lacks.
    async fn request(
        &self,
        worker: &Worker<'_>,
        job: &Job<'_>,
        staged: &StagedFile,
        shown: &ActiveFile,
        chunk: &Chunk,
        written: &mut Written,
    ) -> Result<(), Failure> {
        if written.at == chunk.range.start {
            written.look_at = self.look_before(job, staged, written.at)?;
        }
        let range = written.at..chunk.range.end;
        worker.post.tell(Doing::WaitsForAnswer(job.n));
        let mut body = self.source.read(&worker.client, job.file, range).await?;
        let mut floor = Floor::new(&self.traffic, self.http.deadlines.stall, Instant::now());
        let note_due = tokio::time::sleep(NOTE_EVERY);
        tokio::pin!(note_due);
        loop {
            worker.post.tell(Doing::WaitsForBytes(job.n));
            let piece = {
                // Never given up in the middle: it may hold bytes already.
                let next = body.next();
                tokio::pin!(next);
                loop {
                    tokio::select! {
                        biased;
                        piece = &mut next => break piece?,
                        // Nothing comes: what has come is noted all the same.
                        () = &mut note_due => {
                            self.record(job, staged, written)?;
                            note_due.as_mut().reset(tokio::time::Instant::now() + NOTE_EVERY);
                        }
                    }
                }
            };
            let Some(piece) = piece else { return Ok(()) };
            worker.post.tell(Doing::Works(job.n));
            staged.write_at(&piece, written.at)?;
            written.add(&piece);
            if written.at >= written.look_at {
                written.look_at = self.look_at_header(job, staged, written.at)?;
            }
            let now = Instant::now();
            if written.at - written.noted >= NOTE_BYTES
                || now.saturating_duration_since(written.noted_at) >= NOTE_EVERY
            {
                self.record(job, staged, written)?;
            }
            let len = piece.len() as u64;
            self.progress.done_bytes.fetch_add(len, Relaxed);
            shown.done.fetch_add(len, Relaxed);
            self.progress.fetched_bytes.fetch_add(len, Relaxed);
            if let Some(rate) = floor.too_slow(len, now) {
                let rate = text::size(rate);
                return Err(Failure::Source(SourceError::Unreachable(format!(
                    "the connection brought only {rate}/s"
                ))));
            }
        }
    }

    /// Throws a file away and queues it again. Nobody is writing to it.
    pub fn begin_anew(&self, job: &Job<'_>, in_one: bool) -> Result<(), TransferError> {
        let lost = {
            let mut state = job.state();
            if in_one {
                state.streams += 1;
                if state.streams > MAX_STREAMS {
                    return Err(TransferError::Source {
                        path: job.file.path.to_string(),
                        source: SourceError::Protocol(format!(
                            "the server sends no ranges and broke off {MAX_STREAMS} times"
                        )),
                    });
                }
            }
            let lost = match &state.shown {
                Some(shown) => shown.done.swap(0, Relaxed),
                None => state.written.total(),
            };
            self.progress.done_bytes.fetch_sub(lost, Relaxed);
            state.staged.is_some() || state.written.total() > 0
        };
        if lost {
            self.staging.discard(job.n)?;
        }
        let generation = job.reset();
        self.queue.again(job.n, job.file.size, generation, in_one);
        Ok(())
    }
}

pub enum Failure {
    Source(SourceError),
    Transfer(TransferError),
    Start(BadStart),
}

impl From<SourceError> for Failure {
    fn from(error: SourceError) -> Self {
        Self::Source(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Transfer(error.into())
    }
}

impl From<TransferError> for Failure {
    fn from(error: TransferError) -> Self {
        Self::Transfer(error)
    }
}
