//! The one retry loop, around a whole chunk with its body, and the requests in it.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::activity::Doing;
use super::error::{EngineProblem, TransferError};
use super::header::{BadStart, LookError};
use super::retry::Retry;
use super::schedule::event::{Ending, Restart};
use super::shared::Shared;
use super::worker::{Fetch, Worker};
use super::written::{NOTE_EVERY, Written};
use crate::net::SourceError;
use crate::report::Event as Said;
use crate::volume::StoreError;

/// How a request failed.
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

impl From<LookError> for Failure {
    fn from(error: LookError) -> Self {
        match error {
            LookError::Store(error) => error.into(),
            LookError::Start(bad) => Self::Start(bad),
        }
    }
}

impl From<TransferError> for Failure {
    fn from(error: TransferError) -> Self {
        Self::Transfer(error)
    }
}

impl Shared<'_> {
    /// Fetches a chunk, going on after the last byte that was written.
    pub async fn fetch(
        &self,
        worker: &Worker<'_>,
        fetch: &Fetch<'_>,
        written: &mut Written,
    ) -> Result<Ending, TransferError> {
        let (job, chunk) = (fetch.job, fetch.chunk);
        let mut retry = Retry::new(self.options.retry, self.http.pace.clone());
        loop {
            let before = written.at;
            let requested = tokio::select! {
                biased;
                requested = self.request(worker, fetch, written) => requested,
                rate = self.desk.is_to_reconnect(worker.number, chunk) => {
                    written.avoid_peer();
                    Err(Failure::Source(SourceError::Unreachable(EngineProblem::Slow(rate).into())))
                }
            };
            let error = match requested {
                Ok(()) => return Ok(Ending::Written),
                Err(Failure::Transfer(error)) => return Err(error),
                Err(Failure::Start(bad)) => {
                    self.suspect(worker, job, fetch.staged, bad).await?;
                    return Ok(Ending::Restart(Restart::InRanges));
                }
                // There is no range left to ask for. Whether the bytes are right, the digest says.
                Err(Failure::Source(_)) if written.at >= self.desk.end_of(worker.number) => {
                    return Ok(Ending::Written);
                }
                Err(Failure::Source(error)) => error,
            };
            self.count(fetch.shown, written);
            // It may take long until more comes, and the process may be killed meanwhile.
            self.record(job, fetch.staged, written)?;
            retry.progressed(written.at - before);
            let again = match error {
                SourceError::NoRanges { .. } if !self.has_ranges(fetch, written) => Err(error),
                error => retry.after(error),
            };
            let path = || job.file.path.to_string();
            let (delay, error) = match again {
                Ok(again) => again,
                Err(SourceError::NoRanges { host, file }) => {
                    self.say_sometimes(|| Said::NoRanges { host, file });
                    return Ok(Ending::Restart(Restart::InOneStream));
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
            self.progress.retries.fetch_add(1, Relaxed);
            self.say_sometimes(|| Said::Retrying {
                path: Some(path()),
                from_byte: Some(written.at),
                error: error.to_string(),
                delay,
                fields: Box::new(error.fields()),
            });
            worker.post.tell(Doing::WaitsToRetry(job.n));
            tokio::time::sleep(delay).await;
            self.desk.has_settled().await;
        }
    }

    /// Whether the file has bytes that came by ranges: more than what a server without them sends
    /// for a chunk at byte 0. One whole answer, as of a cache, is then no reason to give them up.
    fn has_ranges(&self, fetch: &Fetch<'_>, written: &Written) -> bool {
        let is_first = fetch.chunk.range.start == 0;
        let in_one = if is_first { written.at } else { self.options.chunk_size };
        fetch.shown.done.load(Relaxed) > in_one || fetch.job.present() > 0
    }

    /// One request for what the chunk still lacks.
    async fn request(
        &self,
        worker: &Worker<'_>,
        fetch: &Fetch<'_>,
        written: &mut Written,
    ) -> Result<(), Failure> {
        let Fetch { job, staged, shown, chunk } = *fetch;
        if written.at == chunk.range.start {
            written.look_at = self.look_before(job, staged, written.at, chunk.from_start)?;
        }
        let mut end = self.desk.end_of(worker.number);
        if written.at >= end {
            return Ok(());
        }
        worker.post.tell(Doing::WaitsForAnswer(job.n));
        let asked = written.at..end;
        written.from = None;
        let mut body = self.source.read(&worker.client, job.file, asked.clone()).await?;
        written.from = body.peer();
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
                            self.count(shown, written);
                            self.record(job, staged, written)?;
                            note_due.as_mut().reset(tokio::time::Instant::now() + NOTE_EVERY);
                        }
                    }
                }
            };
            let Some(mut piece) = piece else { return Ok(()) };
            worker.post.tell(Doing::Works(job.n));
            // Others may have been given what follows.
            end = self.desk.claim(worker.number, written.at + piece.len() as u64);
            piece.truncate(end.saturating_sub(written.at) as usize);
            while !piece.is_empty() {
                let part = piece.split_to(written.part(piece.len()));
                self.take_in(worker, fetch, written, &part)?;
            }
            end = self.desk.has_come_to(worker.number, written.at);
            if written.at >= end && end < asked.end {
                // The rest of the answer is somebody else's; the connection is closed with it.
                return Ok(());
            }
        }
    }

    /// Writes what has come, hashes it, and looks at it.
    fn take_in(
        &self,
        worker: &Worker<'_>,
        fetch: &Fetch<'_>,
        written: &mut Written,
        bytes: &[u8],
    ) -> Result<(), Failure> {
        let Fetch { job, staged, shown, .. } = *fetch;
        written.write(staged, bytes, worker.number, &self.trial)?;
        written.add(bytes);
        if written.at >= written.look_at {
            written.flush(staged)?;
            written.look_at = self.look_at_header(job, staged, written.at)?;
        }
        let now = Instant::now();
        if written.is_to_be_counted(now) {
            self.count(shown, written);
        }
        if written.is_to_be_noted(now) {
            self.record(job, staged, written)?;
        }
        Ok(())
    }
}
