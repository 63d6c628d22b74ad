//! Reads a file of a source once, for its digest or for what it says: nothing is kept, and no disk is needed.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use reqwest::Client;

use super::ask::Asker;
use crate::Error;
use crate::content::Source;
use crate::engine::{Retry, TransferError};
use crate::model::{Digest, RemoteFile, Sha256, text};
use crate::net::SourceError;
use crate::report::{Event, Progress};
use crate::verify::{FileHasher, Mismatch};

/// Complete reads with a wrong digest, after which the source is not believed.
const MAX_READS: u32 = 3;

impl Asker<'_> {
    /// The SHA-256 of `file`, whose bytes are what the source has published as far as it has.
    pub async fn sha256_of(
        &self,
        source: &dyn Source,
        client: &Client,
        file: &RemoteFile,
        progress: &Progress,
    ) -> Result<Sha256, Error> {
        self.read_with(source, client, file, progress, &mut |_, _| {}).await
    }

    /// All of `file`, which has a size that fits into memory.
    pub async fn bytes_of(&self, source: &dyn Source, file: &RemoteFile) -> Result<Vec<u8>, Error> {
        let (client, progress) = (self.http()?.client()?, Progress::default());
        let mut bytes = Vec::new();
        let mut keep = |at: u64, part: &[u8]| {
            // It begins again where the whole was wrong.
            bytes.truncate(usize::try_from(at).unwrap_or_default());
            bytes.extend_from_slice(part);
        };
        self.read_with(source, &client, file, &progress, &mut keep).await?;
        Ok(bytes)
    }

    /// Reads it until its digest is right, and tells `keep` of each part and where that lies.
    async fn read_with(
        &self,
        source: &dyn Source,
        client: &Client,
        file: &RemoteFile,
        progress: &Progress,
        keep: &mut (dyn FnMut(u64, &[u8]) + Send),
    ) -> Result<Sha256, Error> {
        let mut before: Option<[u8; 32]> = None;
        let mut reads = 0;
        loop {
            let mismatch = match self.hashed(source, client, file, progress, keep).await? {
                Ok(sha256) => return Ok(Sha256(sha256)),
                Err(mismatch) => mismatch,
            };
            reads += 1;
            // An ETag can be anything: the same bytes twice are what is there.
            let refutes = file.digest.as_ref().is_some_and(Digest::refutes);
            if !refutes && before == Some(mismatch.sha256) {
                return Ok(Sha256(mismatch.sha256));
            }
            if reads == MAX_READS {
                let path = &file.path;
                return Err(Error::Integrity(
                    format!("`{path}` is wrong after {reads} reads: {mismatch}").into(),
                ));
            }
            before = Some(mismatch.sha256);
            progress.done_bytes.fetch_sub(file.size, Relaxed);
            if !source.is_detour_to_blame(file) {
                source.distrust(file);
            }
            let path = file.path.to_string();
            self.screen.tell(&Event::FetchingAgain { path, cause: mismatch.to_string() });
        }
    }

    async fn hashed(
        &self,
        source: &dyn Source,
        client: &Client,
        file: &RemoteFile,
        progress: &Progress,
        keep: &mut (dyn FnMut(u64, &[u8]) + Send),
    ) -> Result<Result<[u8; 32], Mismatch>, Error> {
        let mut hasher = FileHasher::new(file.size, file.digest.as_ref());
        let mut retry = Retry::new(self.retry_of_bytes(), self.http()?.pace.clone());
        let mut at = 0;
        while at < file.size {
            let before = at;
            let mut each = |at: u64, bytes: &[u8]| {
                hasher.update(bytes);
                keep(at, bytes);
            };
            let read = self.read_from(source, client, file, &mut at, &mut each, progress);
            let read = tokio::select! {
                read = read => read,
                () = self.stop.wait() => return Err(Error::Stopped),
            };
            let Err(error) = read else { break };
            retry.progressed(at - before);
            let path = file.path.to_string();
            let (delay, error) =
                retry.after(error).map_err(|source| match source.is_transient() {
                    true => {
                        let tried_for = retry.tried_for();
                        Error::Transfer(TransferError::GaveUp {
                            path: path.clone(),
                            tried_for,
                            source,
                        })
                    }
                    false => Error::Transfer(TransferError::Source { path: path.clone(), source }),
                })?;
            self.pass_on(source);
            if retry.is_worth_a_line() || self.screen.is_verbose() {
                let (error, fields) = (error.to_string(), Box::new(error.fields()));
                let (path, from_byte) = (Some(path), Some(at));
                self.screen.tell(&Event::Retrying { path, from_byte, error, delay, fields });
            }
            self.pause(delay).await?;
        }
        Ok(hasher.finish())
    }

    async fn read_from(
        &self,
        source: &dyn Source,
        client: &Client,
        file: &RemoteFile,
        at: &mut u64,
        each: &mut (dyn FnMut(u64, &[u8]) + Send),
        progress: &Progress,
    ) -> Result<(), SourceError> {
        let mut body = source.read(client, file, *at..file.size).await?;
        while let Some(bytes) = body.next().await? {
            each(*at, &bytes);
            *at += bytes.len() as u64;
            progress.done_bytes.fetch_add(bytes.len() as u64, Relaxed);
            progress.fetched_bytes.fetch_add(bytes.len() as u64, Relaxed);
        }
        Ok(())
    }

    async fn pause(&self, delay: Duration) -> Result<(), Error> {
        tokio::select! {
            () = tokio::time::sleep(delay) => Ok(()),
            () = self.stop.wait() => Err(Error::Stopped),
        }
    }
}

/// `3 files, 12.0 MB`, for messages.
pub(super) fn amount(files: usize, bytes: u64) -> String {
    format!("{}, {}", text::files(files), text::size(bytes))
}
