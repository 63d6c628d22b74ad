//! What is done with a file that is complete: digest, structure, sync; and with one that is wrong.

use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::error::{EngineProblem, TransferError};
use super::job::Job;
use super::last_resort;
use super::schedule::event::{Event, Party, Restart, Task};
use super::shared::{Proof, Shared};
use crate::model::Digest;
use crate::net::SourceError;
use crate::report::Event as Said;
use crate::verify::{self, Mismatch, Structure};
use crate::volume::{StagedFile, StoreError};

/// Complete fetches of a file that may end with a wrong digest.
const MAX_WRONG_FETCHES: u32 = 3;
/// How often a file is streamed from its start before a server without ranges is given up.
const MAX_STREAMS: u32 = 10;

impl Shared<'_> {
    /// Finishes a file or throws it away, and tells the schedule. `opened` is the file, if `party` has it
    /// open.
    pub fn serve(
        &self,
        party: Party,
        task: &Task,
        opened: Option<Arc<StagedFile>>,
    ) -> Result<(), TransferError> {
        match task {
            Task::Finish { file } => {
                let job = &self.jobs[*file];
                let is_right = self.finish(job, opened)?;
                let event = if is_right { Event::Finished(party) } else { Event::Wrong(party) };
                self.desk.tell(event);
            }
            Task::Restart { file, how } => {
                self.restart(&self.jobs[*file], *how)?;
                self.desk.tell(Event::Restarted(party));
            }
            Task::Fetch(_) | Task::Hash { .. } | Task::End => {}
        }
        Ok(())
    }

    /// The file as those who write to it have it open; else as `opened`, or opened now.
    pub fn staged_for_reading(
        &self,
        job: &Job<'_>,
        opened: Option<Arc<StagedFile>>,
    ) -> Result<Arc<StagedFile>, TransferError> {
        // Those who write may open it at any time: nothing is decided without them.
        job.with(|state| match (&state.staged, opened) {
            (Some(open), _) => Ok(open.clone()),
            (None, Some(opened)) => Ok(opened),
            (None, None) => Ok(Arc::new(self.staging.open(job.n)?)),
        })
    }

    /// Compares digests, checks the structure and makes the file durable. Returns false if it has to be
    /// fetched again.
    fn finish(
        &self,
        job: &Job<'_>,
        opened: Option<Arc<StagedFile>>,
    ) -> Result<bool, TransferError> {
        let staged = self.staged_for_reading(job, opened)?;
        let (sha256, is_compared) = match job.take_hasher().finish() {
            Ok(sha256) => {
                self.has_matched(job.file);
                (sha256, job.file.digest.is_some())
            }
            Err(mismatch) if self.is_no_digest(job, &mismatch) => (mismatch.sha256, false),
            Err(mismatch) => return self.check_wrong(job, &staged, mismatch).map(|()| false),
        };
        let structure = self.structure(job, &staged)?.map(Box::new);
        self.staging.sync(job.n, &staged)?;
        self.proofs.lock().unwrap_or_else(PoisonError::into_inner)[job.n] =
            Some(Proof { sha256, is_compared, structure });
        let reused_bytes = job.present();
        self.progress.hashed_bytes.fetch_add(job.file.size, Relaxed);
        let took = job.close().map_or(Duration::ZERO, |shown| {
            self.progress.end_file(&shown);
            shown.started.elapsed()
        });
        self.progress.done_files.fetch_add(1, Relaxed);
        if self.screen.is_verbose() {
            self.say_done(job, reused_bytes, took, is_compared);
        }
        Ok(true)
    }

    fn say_done(&self, job: &Job<'_>, reused_bytes: u64, took: Duration, is_compared: bool) {
        self.screen.tell(&Said::FileDone {
            path: job.file.path.to_string(),
            bytes: job.file.size,
            reused_bytes,
            from: self.source.place_of(job.file),
            took,
            is_compared,
        });
    }

    /// What the sentinel says of the structure of a file.
    fn structure(
        &self,
        job: &Job<'_>,
        staged: &StagedFile,
    ) -> Result<Option<std::borrow::Cow<'static, str>>, TransferError> {
        let path = job.file.path.to_string();
        if !verify::is_safetensors(&path) {
            return Ok(None);
        }
        let fail = |error| StoreError::io("read back", std::path::Path::new(&path), error);
        let known = match job.with(|state| state.structure.take()) {
            Some(known) => known,
            None => verify::check_safetensors(staged.file(), job.file.size).map_err(fail)?,
        };
        match known {
            Structure::Valid => Ok(Some("valid".into())),
            Structure::Unchecked(why) => {
                self.screen.warn(&format!("the structure of `{path}` was not checked: {why}"));
                Ok(Some(format!("unchecked: {why}").into()))
            }
            Structure::Invalid(why) => Err(TransferError::Structure { path, why }),
        }
    }

    /// Says why the file is fetched again; fails if there is no sense in that.
    fn check_wrong(
        &self,
        job: &Job<'_>,
        staged: &StagedFile,
        mismatch: Mismatch,
    ) -> Result<(), TransferError> {
        let path = job.file.path.to_string();
        if self.source.is_detour_to_blame(job.file) {
            // It says nothing of what is published, nor of who publishes it.
            let cause = format!("wrong bytes ({mismatch})");
            self.screen.tell(&Said::FetchingAgain { path, cause });
            return Ok(());
        }
        let (resumed, wrong, agrees) = job.with(|state| {
            if !state.resumed {
                state.wrong_fetches += 1;
            }
            let last = state.last_wrong.replace(mismatch.found.clone());
            (state.resumed, state.wrong_fetches, last.as_ref() == Some(&mismatch.found))
        });
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
            let hint = if refutes { hint(staged, job.file.size) } else { Some(last_resort::HINT) };
            self.staging.discard(job.n)?;
            return Err(TransferError::Integrity {
                path,
                fetches: wrong,
                mismatch: Box::new(mismatch),
                hint,
            });
        }
        if !resumed {
            self.source.distrust(job.file);
        }
        let cause = if resumed { "the bytes that were here are damaged" } else { "wrong bytes" };
        let cause = format!("{cause} ({mismatch})");
        self.screen.tell(&Said::FetchingAgain { path, cause });
        Ok(())
    }

    /// Throws a file away. Nobody uses it.
    fn restart(&self, job: &Job<'_>, how: Restart) -> Result<(), TransferError> {
        let present = job.present();
        let (streams, lost, is_there) = job.with(|state| {
            state.streams += u32::from(how == Restart::InOneStream);
            let shown = state.shown.as_ref().map(|shown| {
                shown.hashed.store(0, Relaxed);
                shown.done.swap(0, Relaxed)
            });
            (state.streams, shown.unwrap_or(present), state.staged.is_some() || present > 0)
        });
        if streams > MAX_STREAMS {
            return Err(TransferError::Source {
                path: job.file.path.to_string(),
                source: SourceError::Protocol(EngineProblem::BrokeOff(MAX_STREAMS).into()),
            });
        }
        self.progress.done_bytes.fetch_sub(lost, Relaxed);
        self.progress.reused_bytes.fetch_sub(present, Relaxed);
        if is_there {
            self.staging.discard(job.n)?;
        }
        job.reset();
        Ok(())
    }
}

/// A list beside the files that is older than the file it names, or that names another one.
fn stale(list: &str, mismatch: &Mismatch) -> SourceError {
    let Mismatch { expected, found, .. } = mismatch;
    let (expected, found) = (expected.to_string(), found.to_string());
    let list = list.to_owned();
    SourceError::Contradiction(EngineProblem::List { list, expected, found }.into())
}

/// What wrong content looks like, where that tells the cause.
fn hint(staged: &StagedFile, size: u64) -> Option<&'static str> {
    let mut start = [0; 16];
    let len = start.len().min(size as usize);
    if staged.read_at(&mut start[..len], 0).is_err() {
        return None;
    }
    let text = String::from_utf8_lossy(&start[..len]).trim_start().to_ascii_lowercase();
    if text.starts_with("<!doctype") || text.starts_with("<html") {
        Some("check for a proxy or a login portal in between: the content looks like a web page")
    } else if text.starts_with("version https://") {
        Some("use a mirror that serves the large files: the content is a Git LFS pointer")
    } else {
        None
    }
}
