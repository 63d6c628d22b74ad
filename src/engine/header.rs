//! The header of a safetensors file is looked at as soon as its bytes are there, so that a broken
//! one costs the start of a file, and not the file and the model.
//!
//! The digest of the file proves nothing at that time: what is wrong may have become so on the way.
//! So the first bytes are asked for once more before the publisher is blamed.

use std::time::Duration;

use super::activity::Doing;
use super::error::TransferError;
use super::job::Job;
use super::retry::Retry;
use super::shared::Shared;
use super::worker::Worker;
use super::written::NEVER;
use crate::net::SourceError;
use crate::report::Event as Said;
use crate::verify::{self, Start, Structure};
use crate::volume::{StagedFile, StoreError};

/// Times that the start of a file may be wrong in another way.
const MAX_WRONG_STARTS: u32 = 3;
/// How often those look who wait for a second read by another worker.
const WAIT: Duration = Duration::from_millis(50);
/// The start of a file that is no safetensors.
pub struct BadStart {
    why: String,
    /// Bytes that show it.
    len: u64,
}

/// What is wrong with a start that was looked at.
pub enum LookError {
    Store(StoreError),
    Start(BadStart),
}

impl From<StoreError> for LookError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// What a second read of the start brought.
enum SecondRead {
    Same,
    Other,
    /// The first one could not be read back.
    Unreadable(StoreError),
}

/// Lets another worker ask, should the one that asks be called off.
struct Suspicion<'a>(&'a Job<'a>);

impl Drop for Suspicion<'_> {
    fn drop(&mut self) {
        self.0.with(|state| state.is_suspected = false);
    }
}

impl Shared<'_> {
    /// Looks at the first `there` bytes before those from `at` on are asked for; returns how many there
    /// must be for the next look.
    pub fn look_before(
        &self,
        job: &Job<'_>,
        staged: &StagedFile,
        at: u64,
        there: u64,
    ) -> Result<u64, LookError> {
        let mut look_at = job.with(|state| state.look_at);
        if there >= look_at {
            look_at = self.look_at_header(job, staged, there)?;
        }
        // Only who goes on where everything before is there sees a whole start.
        Ok(if at <= there { look_at } else { NEVER })
    }

    /// Looks at the first `there` bytes; returns how many are needed for the next look.
    pub fn look_at_header(
        &self,
        job: &Job<'_>,
        staged: &StagedFile,
        there: u64,
    ) -> Result<u64, LookError> {
        let path = job.file.path.as_str();
        let fail = |error| StoreError::io("read back", std::path::Path::new(path), error);
        let start = verify::check_safetensors_start(staged.file(), job.file.size, there);
        let (look_at, structure) = match start.map_err(fail)? {
            Start::Needs(len) => (len, None),
            Start::Known { structure: Structure::Invalid(why), len } => {
                return Err(LookError::Start(BadStart { why, len }));
            }
            Start::Known { structure, .. } => (NEVER, Some(structure)),
        };
        job.with(|state| {
            state.look_at = look_at;
            state.structure = structure.or(state.structure.take());
        });
        Ok(look_at)
    }

    /// Returns if the file must begin again, because its start has been wrong on the way only.
    pub async fn suspect(
        &self,
        worker: &Worker<'_>,
        job: &Job<'_>,
        staged: &StagedFile,
        bad: BadStart,
    ) -> Result<(), TransferError> {
        worker.post.tell(Doing::Compares(job.n));
        // One of those who have found it asks; the others wait for what comes out.
        while job.with(|state| {
            !state.has_wrong_start && std::mem::replace(&mut state.is_suspected, true)
        }) {
            tokio::time::sleep(WAIT).await;
        }
        if job.with(|state| state.has_wrong_start) {
            return Ok(());
        }
        let _suspicion = Suspicion(job);
        let path = || job.file.path.to_string();
        // The second read should come from elsewhere, if it can.
        if !self.source.is_detour_to_blame(job.file) {
            self.source.distrust(job.file);
        }
        let BadStart { why, len } = bad;
        let mut retry = Retry::new(self.options.retry, self.http.pace.clone());
        let is_same = loop {
            let error = match self.is_same(worker, job, staged, len).await {
                Ok(SecondRead::Same) => break true,
                Ok(SecondRead::Other) => break false,
                Ok(SecondRead::Unreadable(error)) => return Err(error.into()),
                Err(error) => error,
            };
            let tried_for = retry.tried_for();
            let (delay, error) = retry.after(error).map_err(|source| {
                if source.is_transient() {
                    TransferError::GaveUp { path: path(), tried_for, source }
                } else {
                    TransferError::Source { path: path(), source }
                }
            })?;
            self.say_sometimes(|| Said::Retrying {
                path: Some(path()),
                from_byte: Some(0),
                error: error.to_string(),
                delay,
                fields: Box::new(error.fields()),
            });
            tokio::time::sleep(delay).await;
        };
        if is_same {
            return Err(TransferError::Header { path: path(), why, len });
        }
        let (resumed, wrong) = job.with(|state| {
            if !state.resumed {
                state.wrong_fetches += 1;
            }
            state.has_wrong_start = true;
            (state.resumed, state.wrong_fetches)
        });
        if wrong >= MAX_WRONG_STARTS {
            return Err(TransferError::UnsteadyHeader { path: path(), fetches: wrong, why });
        }
        let cause = if resumed { "the bytes that were here are damaged" } else { "wrong bytes" };
        let cause = format!(
            "{cause} (not valid safetensors: {why}; a second read of its start returned different bytes)"
        );
        self.screen.tell(&Said::FetchingAgain { path: path(), cause });
        Ok(())
    }

    /// Whether the source sends the first `len` bytes as they are in the file.
    async fn is_same(
        &self,
        worker: &Worker<'_>,
        job: &Job<'_>,
        staged: &StagedFile,
        len: u64,
    ) -> Result<SecondRead, SourceError> {
        let mut body = self.source.read(&worker.client, job.file, 0..len).await?;
        let (mut at, mut ours) = (0, Vec::new());
        while let Some(piece) = body.next().await? {
            ours.resize(piece.len(), 0);
            if let Err(error) = staged.read_at(&mut ours, at) {
                return Ok(SecondRead::Unreadable(error));
            }
            if ours != piece {
                return Ok(SecondRead::Other);
            }
            at += piece.len() as u64;
        }
        Ok(SecondRead::Same)
    }
}
