//! What a worker does with a part, and with a file whose parts are all there.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use md5::{Digest as _, Md5};
use reqwest::Client;

use super::job::{Job, Proved};
use super::relay::Shared;
use crate::Error;
use crate::engine::{Retry, TransferError};
use crate::model::{Checksum, Digest, ErrorFields, Mark, Message, Sha256, hex};
use crate::net::{Problem, SourceError};
use crate::report::Event;
use crate::source::Sink;
use crate::source::s3::upload::{Before, Part, Seen, Upload, Written, Wrote};

/// Complete tries of one file, all of whose bytes were wrong.
const MAX_TRIES: u32 = 3;

impl Shared<'_> {
    /// Reads, hashes and sends one part; whether the file has no others.
    pub(super) async fn move_part(
        &self,
        client: &Client,
        job: &Job,
        part: u32,
    ) -> Result<bool, Error> {
        let bytes = self.read(client, job, part).await?;
        let _ = job.hashed.subscribe().wait_for(|hashed| *hashed == part).await;
        job.hash(part, &bytes);
        if let Some(sink) = self.relay.sink {
            if job.is_small() {
                job.state().whole = Some(bytes);
            } else {
                self.send(client, sink, job, part, bytes).await?;
            }
        }
        Ok(job.part_is_done(part, self.relay.progress))
    }

    /// The bytes of a part, going on after the last that has come.
    async fn read(&self, client: &Client, job: &Job, part: u32) -> Result<Bytes, Error> {
        let (file, range) = (&job.task.file, job.range(part));
        let len = (range.end - range.start) as usize;
        let mut bytes = Vec::with_capacity(len);
        let mut retry = Retry::new(self.relay.retry, self.relay.http.pace.clone());
        let mut has_ranges = true;
        while bytes.len() < len {
            let before = bytes.len();
            let from = range.start + before as u64;
            // A server without ranges sends all that is before as well.
            let (start, mut skip) = if has_ranges { (from, 0) } else { (0, from) };
            let reading = async {
                let mut body = self.relay.source.read(client, file, start..range.end).await?;
                while let Some(mut piece) = body.next().await? {
                    let skipped = skip.min(piece.len() as u64);
                    skip -= skipped;
                    self.relay.progress.fetched_bytes.fetch_add(piece.len() as u64, Relaxed);
                    bytes.extend_from_slice(&piece.split_off(skipped as usize));
                }
                Ok::<(), SourceError>(())
            };
            let Err(error) = reading.await else { break };
            if bytes.len() == len {
                break;
            }
            if let SourceError::NoRanges { host, file } = &error
                && has_ranges
            {
                let (host, file) = (host.clone(), file.clone());
                self.say_sometimes(|| Event::NoRanges { host, file });
                has_ranges = false;
                continue;
            }
            retry.progressed((bytes.len() - before) as u64);
            let path = || file.path.to_string();
            let (delay, error) = retry.after(error).map_err(|source| {
                if source.is_transient() {
                    let tried_for = retry.tried_for();
                    return TransferError::GaveUp { path: path(), tried_for, source };
                }
                TransferError::Source { path: path(), source }
            })?;
            let from_byte = Some(range.start + bytes.len() as u64);
            self.retrying(Some(path()), from_byte, &error, delay);
            tokio::time::sleep(delay).await;
        }
        Ok(bytes.into())
    }

    /// Sends a part, unless the store has it.
    async fn send(
        &self,
        client: &Client,
        sink: &Sink,
        job: &Job,
        part: u32,
        bytes: Bytes,
    ) -> Result<(), Error> {
        let crc64nvme = Checksum::Crc64Nvme.of(&bytes);
        job.state().crcs.insert(part, crc64nvme);
        let number = part + 1;
        for _ in 0..=MAX_TRIES {
            let upload = self.upload(sink, job).await?;
            let there = job.state().parts.get(&number).cloned();
            if there.is_some_and(|there| is_same(&there, &bytes, crc64nvme)) {
                return Ok(());
            }
            let sent = self
                .stored(|| {
                    let bytes = bytes.clone();
                    sink.part(client, job.path(), &upload, number, bytes, crc64nvme)
                })
                .await?;
            match sent {
                Some(sent) => {
                    self.relay.progress.sent_bytes.fetch_add(bytes.len() as u64, Relaxed);
                    job.state().parts.insert(number, sent);
                    return Ok(());
                }
                None => self.forget(job, &upload).await,
            }
        }
        let key = sink.shown(job.path());
        Err(SourceError::Stale(UploadsVanish { key }.into()).into())
    }

    /// The upload of a file: the one of an earlier run, or a new one.
    async fn upload(&self, sink: &Sink, job: &Job) -> Result<Upload, Error> {
        let mut upload = job.upload.lock().await;
        if let Some(upload) = &*upload {
            return Ok(upload.clone());
        }
        let unfinished = job.state().unfinished.take();
        if let Some(id) = &unfinished
            && let Some((found, parts)) = self.stored(|| sink.resume(job.path(), id)).await?
        {
            job.state().parts = parts;
            return Ok(upload.insert(found).clone());
        }
        let mark = mark(job, None);
        let begun = self.stored(|| sink.begin(job.path(), &mark)).await?;
        Ok(upload.insert(begun).clone())
    }

    /// The upload is gone, and its parts with it.
    async fn forget(&self, job: &Job, gone: &Upload) {
        let mut upload = job.upload.lock().await;
        // Another worker may have begun a new one.
        if upload.as_ref() == Some(gone) {
            *upload = None;
            job.state().parts.clear();
        }
    }

    /// The file is hashed and sent: makes an object of it, if it is what was published. None where it is to
    /// begin again.
    pub(super) async fn finish(&self, job: &Job) -> Result<Option<Proved>, Error> {
        let (sha256, is_compared) = match job.proof() {
            Ok(proof) => proof,
            Err(wrong) => {
                let source = self.relay.source;
                if !source.is_detour_to_blame(&job.task.file) {
                    source.distrust(&job.task.file);
                }
                return self.wrong(job, wrong.to_string()).await;
            }
        };
        let proved = |Written { etag, crc64nvme }| Proved { sha256, is_compared, etag, crc64nvme };
        let Some(sink) = self.relay.sink else { return Ok(Some(proved(Written::default()))) };
        let made = match job.is_small() {
            true => self.put(sink, job, sha256).await?,
            false => self.complete(sink, job, sha256).await?,
        };
        match made {
            Made::Object(written) => Ok(Some(proved(written))),
            Made::Other(why) => self.wrong(job, why).await,
        }
    }

    async fn put(&self, sink: &Sink, job: &Job, sha256: Sha256) -> Result<Made, Error> {
        let (body, before) = {
            let mut state = job.state();
            (state.whole.take().unwrap_or_default(), state.before.clone())
        };
        let (mark, crc64nvme) = (mark(job, Some(sha256)), Checksum::Crc64Nvme.of(&body));
        let client = self.relay.http.client()?;
        let wrote =
            self.stored(|| sink.put(&client, job.path(), body.clone(), &mark, &before)).await?;
        self.relay.progress.sent_bytes.fetch_add(body.len() as u64, Relaxed);
        match wrote {
            Wrote::Done(written) if written.crc64nvme.is_none_or(|told| told == crc64nvme) => {
                Ok(Made::Object(written))
            }
            Wrote::Done(written) => {
                job.state().before = Before::This(written.etag);
                Ok(Made::Other("the store reports another checksum than was sent".into()))
            }
            Wrote::Taken | Wrote::Gone | Wrote::OtherParts => {
                self.made_by_other(sink, job, sha256, crc64nvme).await
            }
        }
    }

    /// Completes the upload, and looks at what the store has made of it.
    async fn complete(&self, sink: &Sink, job: &Job, sha256: Sha256) -> Result<Made, Error> {
        let upload = self.upload(sink, job).await?;
        let (parts, before) = {
            let state = job.state();
            let of_file = state.parts.range(1..=job.count());
            let parts: BTreeMap<u32, Part> =
                of_file.map(|(number, part)| (*number, part.clone())).collect();
            (parts, state.before.clone())
        };
        if parts.len() != job.count() as usize {
            return Ok(Made::Other("the upload was lost while it was under way".into()));
        }
        let crc64nvme = job.crc64nvme();
        let completing =
            self.stored(|| sink.complete(job.path(), &upload, &parts, crc64nvme, &before));
        let written = match completing.await? {
            Wrote::Done(written) => written,
            Wrote::Taken | Wrote::Gone => {
                let made = self.made_by_other(sink, job, sha256, crc64nvme).await?;
                if let Made::Other(_) = made {
                    self.forget(job, &upload).await;
                }
                return Ok(made);
            }
            Wrote::OtherParts => {
                // What is there is asked for anew, and the rest is sent again.
                let there = self.stored(|| sink.resume(job.path(), upload.id())).await?;
                match there {
                    Some((_, parts)) => job.state().parts = parts,
                    None => self.forget(job, &upload).await,
                }
                return Ok(Made::Other("the store does not have the parts that were sent".into()));
            }
        };
        let seen = self.stored(|| sink.look(job.path())).await?;
        let Some(seen) = seen else {
            return Ok(Made::Other("the store does not have the object that it took".into()));
        };
        self.forget(job, &upload).await;
        // An upload that was resumed may have been begun for another revision.
        let has_other_mark = seen.mark.as_ref().is_some_and(|it| *it != mark(job, None));
        let other_mark = has_other_mark.then(|| "it is marked as another content".to_owned());
        if let Some(why) = differs(job, &seen, crc64nvme).or(other_mark) {
            job.state().before = Before::This(seen.etag);
            return Ok(Made::Other(why));
        }
        let etag = seen.etag.or(written.etag);
        Ok(Made::Object(Written { etag, crc64nvme: seen.crc64nvme.or(written.crc64nvme) }))
    }

    /// A write found something else than it should: our own, whose answer was lost, that of another process
    /// with the same content, or a conflict.
    async fn made_by_other(
        &self,
        sink: &Sink,
        job: &Job,
        sha256: Sha256,
        crc64nvme: u64,
    ) -> Result<Made, Error> {
        let Some(seen) = self.stored(|| sink.look(job.path())).await? else {
            job.state().before = Before::Nothing;
            return Ok(Made::Other("the upload is gone".into()));
        };
        let mark = seen.mark.clone().unwrap_or_default();
        let published = job.task.file.digest.as_ref().filter(|digest| digest.identifies());
        let same_published = published.is_some_and(|it| mark.published == Some(it.to_string()));
        // A checksum is no proof, but here it tells that a lost answer was to our own write.
        let is_told = seen.crc64nvme == Some(crc64nvme);
        let is_same = (mark.sha256 == Some(sha256) || same_published || is_told)
            && differs(job, &seen, crc64nvme).is_none();
        if is_same {
            return Ok(Made::Object(Written { etag: seen.etag, crc64nvme: seen.crc64nvme }));
        }
        if self.stored(|| sink.sha256(job.path(), &seen)).await? == Some(sha256) {
            return Ok(Made::Object(Written { etag: seen.etag, crc64nvme: seen.crc64nvme }));
        }
        Err(Error::Conflict(
            Message::new(format!(
                "object `{}` was written by another program at the same time, and is left as it is",
                sink.shown(job.path())
            ))
            .hint("stop the other program, then run again"),
        ))
    }

    /// A complete try has failed: once more, or never.
    async fn wrong(&self, job: &Job, why: String) -> Result<Option<Proved>, Error> {
        let tries = {
            let mut state = job.state();
            state.failed += 1;
            state.failed
        };
        let path = job.path().to_owned();
        if tries < MAX_TRIES {
            self.relay.screen.tell(&Event::FetchingAgain { path, cause: why });
            return Ok(None);
        }
        let upload = job.upload.lock().await.take();
        if let (Some(sink), Some(upload)) = (self.relay.sink, upload) {
            sink.abort(job.path(), &upload).await;
        }
        Err(Error::Integrity(
            format!("`{path}` is still wrong after {tries} complete tries: {why}").into(),
        ))
    }

    /// Asks the store, as often as that makes sense.
    async fn stored<T, Call>(&self, call: impl Fn() -> Call) -> Result<T, Error>
    where
        Call: Future<Output = Result<T, SourceError>>,
    {
        let mut retry = Retry::new(self.relay.retry, self.relay.http.pace.clone());
        loop {
            // In a box: the futures of the SDK are large.
            let error = match Box::pin(call()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let (delay, error) = retry.after(error)?;
            self.retrying(None, None, &error, delay);
            tokio::time::sleep(delay).await;
        }
    }

    fn retrying(
        &self,
        path: Option<String>,
        from_byte: Option<u64>,
        error: &SourceError,
        delay: Duration,
    ) {
        self.relay.progress.retries.fetch_add(1, Relaxed);
        let warnings = self.relay.source.warnings();
        warnings.iter().for_each(|warning| self.relay.screen.warn(warning));
        let (error, fields) = (error.to_string(), Box::new(error.fields()));
        self.say_sometimes(|| Event::Retrying { path, from_byte, error, delay, fields });
    }
}

/// Uploads are aborted as fast as they are begun.
#[derive(Debug, thiserror::Error)]
#[error("uploads of `{key}` vanish before they are complete")]
struct UploadsVanish {
    key: String,
}

impl Problem for UploadsVanish {
    fn fields(&self) -> ErrorFields {
        ErrorFields::of_file(&self.key)
            .hint("check whether another program aborts them, and run again")
    }
}

/// What a write has made.
enum Made {
    Object(Written),
    /// Something else, and why it is no use.
    Other(String),
}

/// Whether the store has these bytes as a part.
fn is_same(there: &Part, bytes: &Bytes, crc64nvme: u64) -> bool {
    if there.size != bytes.len() as u64 {
        return false;
    }
    match there.crc64nvme {
        Some(told) => told == crc64nvme,
        // The ETag of a part is its MD5, where it is not encrypted.
        None => there.etag.trim_matches('"') == hex::encode(&Md5::digest(bytes)),
    }
}

/// Why an object is not what was sent, if that can be told.
fn differs(job: &Job, seen: &Seen, crc64nvme: u64) -> Option<String> {
    let size = job.task.file.size;
    if seen.size != size {
        return Some(format!("the store made an object of {} bytes of {size} bytes", seen.size));
    }
    let told = seen.crc64nvme.filter(|told| *told != crc64nvme)?;
    Some(format!("the store has CRC64NVME {told:016x}, but {crc64nvme:016x} was sent"))
}

/// What is written beside the object. Its SHA-256 where that is known before it is sent.
fn mark(job: &Job, sha256: Option<Sha256>) -> Mark {
    let digest = job.task.file.digest.as_ref();
    let published = match digest {
        Some(Digest::Sha256(sha256)) => Some(Sha256(*sha256)),
        _ => None,
    };
    let others = digest.filter(|digest| published.is_none() && digest.identifies());
    Mark { sha256: sha256.or(published), published: others.map(Digest::to_string) }
}
