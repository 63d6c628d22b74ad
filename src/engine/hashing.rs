//! Threads that follow behind the workers: they hash what has been written out of order, while it
//! is still in the page cache, and prove each file that is complete.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::activity::{Doing, Post};
use super::job::Job;
use super::{Proof, Shared, TransferError, last_resort};
use crate::model::Digest;
use crate::net::SourceError;
use crate::verify::{self, Mismatch, Structure};
use crate::volume::StagedFile;

/// Fits into a core's own cache beside the hash.
const BUFFER_BYTES: usize = 256 << 10;
/// How often those who fetch the file learn how far its hash is.
const TELL_BYTES: u64 = 16 << 20;
/// Complete fetches of a file that may end with a wrong digest.
const MAX_WRONG_FETCHES: u32 = 3;

/// Files that wait for a hashing thread.
#[derive(Default)]
pub struct Inbox {
    state: Mutex<(VecDeque<usize>, bool)>,
    changed: Condvar,
}

impl Inbox {
    /// What has just arrived comes first: it is open, and in the page cache.
    pub fn push(&self, file: usize) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0.push_front(file);
        self.changed.notify_one();
    }

    /// What was there before comes when there is time.
    pub fn push_old(&self, file: usize) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0.push_back(file);
        self.changed.notify_one();
    }

    /// Lets the threads end.
    pub fn close(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
        self.changed.notify_all();
    }

    fn next(&self) -> Option<usize> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if state.1 {
                return None;
            }
            if let Some(file) = state.0.pop_front() {
                return Some(file);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Hashes until everything is proved.
pub fn follow<'a>(
    shared: &'a Shared<'_>,
    _number: usize,
    post: Post<'a>,
) -> Result<(), TransferError> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        post.tell(Doing::WaitsForFile);
        let Some(n) = shared.hashing.next() else { return Ok(()) };
        post.tell(Doing::Works(n));
        let job = &shared.jobs[n];
        let opened = shared.catch_up(job, &mut buffer)?;
        if let Some(hasher) = job.take_complete() {
            let staged = shared.staged_for_reading(job, opened)?;
            shared.prove(job, &staged, hasher.finish())?;
        } else if job.is_ready_to_hash() {
            // Bytes that came between the last look and the letting go.
            shared.hashing.push(n);
        }
    }
}

impl Shared<'_> {
    /// Hashes what can be hashed; returns the file that it has opened for that, if it had to. It is
    /// closed again if it is not complete: files that are only here from an earlier run do not count
    /// as open, and there may be very many.
    fn catch_up(
        &self,
        job: &Job<'_>,
        buffer: &mut [u8],
    ) -> Result<Option<Arc<StagedFile>>, TransferError> {
        let mut opened = None;
        while let Some((mut frontier, range)) = job.next_to_hash() {
            let staged = self.staged_for_reading(job, opened.take())?;
            let mut told = frontier.at;
            while frontier.at < range.end {
                if self.stop.is_set() {
                    return Err(TransferError::Stopped);
                }
                let len = buffer.len().min((range.end - frontier.at) as usize);
                staged.read_at(&mut buffer[..len], frontier.at)?;
                frontier.hasher.update(&buffer[..len]);
                frontier.at += len as u64;
                self.progress.worked_bytes.fetch_add(len as u64, Relaxed);
                if frontier.at - told >= TELL_BYTES {
                    told = frontier.at;
                    self.queue.hashed(job.n, frontier.generation, told);
                }
            }
            let (generation, at) = (frontier.generation, frontier.at);
            job.return_frontier(frontier);
            self.queue.hashed(job.n, generation, at);
            opened = Some(staged);
        }
        Ok(opened)
    }

    /// The file as those who write to it have it open; else as `opened`, or opened now.
    fn staged_for_reading(
        &self,
        job: &Job<'_>,
        opened: Option<Arc<StagedFile>>,
    ) -> Result<Arc<StagedFile>, TransferError> {
        // Those who write may open it, or begin it anew, at any time: nothing is decided without them.
        let state = job.state();
        match (&state.staged, opened) {
            (Some(open), _) => Ok(open.clone()),
            (None, Some(opened)) => Ok(opened),
            (None, None) => Ok(Arc::new(self.staging.open(job.n)?)),
        }
    }

    /// Compares digests, checks the structure and makes the file durable.
    pub fn prove(
        &self,
        job: &Job<'_>,
        staged: &StagedFile,
        digest: Result<[u8; 32], Mismatch>,
    ) -> Result<(), TransferError> {
        let path = job.file.path.to_string();
        let (sha256, is_compared) = match digest {
            Ok(sha256) => {
                self.has_matched(job.file);
                (sha256, job.file.digest.is_some())
            }
            Err(mismatch) if self.is_no_digest(job, &mismatch) => (mismatch.sha256, false),
            Err(mismatch) => return self.fetch_again(job, staged, mismatch),
        };
        let mut structure = None;
        if verify::is_safetensors(&path) {
            let fail = |error| {
                crate::volume::StoreError::io("read back", std::path::Path::new(&path), error)
            };
            let known = job.state().structure.take();
            let known = known.map_or_else(
                || verify::check_safetensors(staged.file(), job.file.size).map_err(fail),
                Ok,
            );
            structure = Some(match known? {
                Structure::Valid => "valid".into(),
                Structure::Unchecked(why) => {
                    self.screen.warn(&format!("the structure of `{path}` was not checked: {why}"));
                    format!("unchecked: {why}").into()
                }
                Structure::Invalid(why) => return Err(TransferError::Structure { path, why }),
            });
        }
        self.staging.sync(job.n, staged)?;
        self.proofs.lock().unwrap_or_else(PoisonError::into_inner)[job.n] =
            Some(Proof { sha256, is_compared, structure });
        if let Some(shown) = job.close() {
            self.progress.end_file(&shown);
        }
        self.progress.done_files.fetch_add(1, Relaxed);
        if self.queue.finish_file(job.n) {
            self.end();
        }
        Ok(())
    }

    fn fetch_again(
        &self,
        job: &Job<'_>,
        staged: &StagedFile,
        mismatch: Mismatch,
    ) -> Result<(), TransferError> {
        let path = job.file.path.to_string();
        let (resumed, wrong, agrees) = {
            let mut state = job.state();
            if !state.resumed {
                state.wrong_fetches += 1;
            }
            let last = state.last_wrong.replace(mismatch.found.clone());
            (state.resumed, state.wrong_fetches, last.as_ref() == Some(&mismatch.found))
        };
        // What comes twice alike is what is there; it is the list that is wrong.
        if let Some(list) = self.source.list_with_digest(&job.file.path)
            && (agrees || job.file.size == 0)
        {
            self.staging.discard(job.n)?;
            return Err(TransferError::Source { path, source: stale(list, &mismatch) });
        }
        // Of an empty file there is nothing to fetch again.
        if wrong >= MAX_WRONG_FETCHES || job.file.size == 0 {
            let refutes = job.file.digest.as_ref().is_none_or(Digest::refutes);
            let hint = if refutes { hint(staged, job.file.size) } else { last_resort::HINT };
            self.staging.discard(job.n)?;
            return Err(TransferError::Integrity { path, fetches: wrong, mismatch, hint });
        }
        if !resumed {
            self.source.distrust(job.file);
        }
        let cause = if resumed { "what was here already is damaged" } else { "wrong bytes" };
        self.screen
            .warn(&format!("`{path}`: {cause} ({mismatch}); fetching it again from the start"));
        self.begin_anew(job, false)
    }
}

/// A list beside the files that is older than the file it names, or that names another one.
fn stale(list: &str, mismatch: &Mismatch) -> SourceError {
    let Mismatch { expected, found, .. } = mismatch;
    SourceError::Contradiction(format!(
        "`{list}` beside it says {expected}, and each fetch brings {found}; upload the list or the \
         file again, or fetch without the list by `--exclude {list}`"
    ))
}

/// What wrong content looks like, where that tells the cause.
fn hint(staged: &StagedFile, size: u64) -> &'static str {
    let mut start = [0; 16];
    let len = start.len().min(size as usize);
    if staged.read_at(&mut start[..len], 0).is_err() {
        return "";
    }
    let text = String::from_utf8_lossy(&start[..len]).trim_start().to_ascii_lowercase();
    if text.starts_with("<!doctype") || text.starts_with("<html") {
        "; the content looks like a web page: is there a proxy or a portal in between?"
    } else if text.starts_with("version https://") {
        "; the content is a Git LFS pointer: the mirror does not serve the large files"
    } else {
        ""
    }
}
