//! The header of a safetensors file is looked at as soon as its bytes are there, so that a broken
//! one costs the start of a file, and not the file and the model.
//!
//! The digest of the file proves nothing at that time: what is wrong may have become so on the way.
//! So the first bytes are asked for once more before the publisher is blamed.

use std::time::Duration;

use reqwest::Client;

use super::job::Job;
use super::worker::{Failure, SMALL_BYTES};
use super::{Retry, Shared, TransferError};
use crate::model::{Digest, RemoteFile};
use crate::verify::{self, Start, Structure};
use crate::volume::{StagedFile, StoreError};

/// Times that the start of a file may be wrong in another way.
const MAX_WRONG_STARTS: u32 = 3;
/// How often those look who wait for a second read by another worker.
const WAIT: Duration = Duration::from_millis(50);
/// Nothing is to be looked at, or not any more.
pub const NEVER: u64 = u64::MAX;

/// The start of a file that is no safetensors.
pub struct BadStart {
    why: String,
    /// Bytes that show it.
    len: u64,
}

/// How many bytes from the start of `file` are worth a first look.
pub fn first_look(file: &RemoteFile) -> u64 {
    // One that comes in a single piece has its digest soon, which proves more than a second read.
    let is_proved_soon =
        file.size <= SMALL_BYTES && file.digest.as_ref().is_some_and(Digest::refutes);
    if verify::is_safetensors(file.path.as_str()) && !is_proved_soon {
        file.size.min(8)
    } else {
        NEVER
    }
}

impl Shared<'_> {
    /// Looks at what is there before the bytes from `at` on are asked for; returns how many there must
    /// be for the next look.
    pub fn look_before(&self, job: &Job<'_>, staged: &StagedFile, at: u64) -> Result<u64, Failure> {
        let (there, mut look_at) = {
            let state = job.state();
            (state.written.end_of(0), state.look_at)
        };
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
    ) -> Result<u64, Failure> {
        let path = job.file.path.as_str();
        let fail = |error| StoreError::io("read back", std::path::Path::new(path), error);
        let start = verify::check_safetensors_start(staged.file(), job.file.size, there);
        let mut state = job.state();
        match start.map_err(fail)? {
            Start::Needs(len) => state.look_at = len,
            Start::Known { structure: Structure::Invalid(why), len } => {
                return Err(Failure::Start(BadStart { why, len }));
            }
            Start::Known { structure, .. } => {
                state.look_at = NEVER;
                state.structure = Some(structure);
            }
        }
        Ok(state.look_at)
    }

    /// Whether the file must begin anew, because its start has been wrong on the way only.
    pub async fn suspect(
        &self,
        client: &Client,
        job: &Job<'_>,
        staged: &StagedFile,
        bad: BadStart,
    ) -> Result<(), TransferError> {
        // One of those who have found it asks; the others wait for what comes out.
        loop {
            {
                let mut state = job.state();
                if state.restart.is_some() {
                    return Ok(());
                }
                if !std::mem::replace(&mut state.is_suspected, true) {
                    break;
                }
            }
            tokio::time::sleep(WAIT).await;
        }
        let path = || job.file.path.to_string();
        // The second read should come from elsewhere, if it can.
        self.source.distrust(job.file);
        let BadStart { why, len } = bad;
        let mut retry = Retry::new(self.options.retry, self.http.pace.clone());
        let is_same = loop {
            let error = match self.is_same(client, job, staged, len).await {
                Ok(is_same) => break is_same,
                Err(Failure::Source(error)) => error,
                Err(Failure::Transfer(error)) => return Err(error),
                Err(Failure::Start(_)) => unreachable!("only the bytes are compared"),
            };
            let tried_for = retry.tried_for();
            let (delay, error) = retry.after(error).map_err(|source| {
                if source.is_transient() {
                    TransferError::GaveUp { path: path(), tried_for, source }
                } else {
                    TransferError::Source { path: path(), source }
                }
            })?;
            self.say_sometimes(|| format!("retrying the start of `{}`: {error}", job.file.path));
            tokio::time::sleep(delay).await;
        };
        if is_same {
            return Err(TransferError::Header { path: path(), why, len });
        }
        let (resumed, wrong) = {
            let mut state = job.state();
            if !state.resumed {
                state.wrong_fetches += 1;
            }
            state.restart.get_or_insert(false);
            (state.resumed, state.wrong_fetches)
        };
        if wrong >= MAX_WRONG_STARTS {
            return Err(TransferError::UnsteadyHeader { path: path(), fetches: wrong, why });
        }
        let cause = if resumed { "what was here already is damaged" } else { "wrong bytes" };
        self.screen.warn(&format!(
            "`{}`: {cause} (no valid safetensors: {why}; a second read of its start brought other \
             bytes); fetching it again from the start",
            job.file.path
        ));
        Ok(())
    }

    /// Whether the source sends the first `len` bytes as they are in the file.
    async fn is_same(
        &self,
        client: &Client,
        job: &Job<'_>,
        staged: &StagedFile,
        len: u64,
    ) -> Result<bool, Failure> {
        let mut body = self.source.read(client, job.file, 0..len).await?;
        let (mut at, mut ours) = (0, Vec::new());
        while let Some(piece) = body.next().await? {
            ours.resize(piece.len(), 0);
            staged.read_at(&mut ours, at)?;
            if ours != piece {
                return Ok(false);
            }
            at += piece.len() as u64;
        }
        Ok(true)
    }
}
