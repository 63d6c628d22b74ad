//! Writes objects below a prefix of a bucket: small ones at once, large ones in parts.
//!
//! Each call is one attempt, as those of a source are. It overwrites nothing but what the caller has seen and
//! named by its ETag, where the store can hold to that. Bytes go over the callers' clients.

mod listing;
mod multipart;
mod object;
mod roots;
mod write;

use std::sync::Arc;

use bytes::Bytes;
use reqwest::Client;

pub use listing::StoredObject;
pub use multipart::{Part, Upload};
pub use object::{Before, Seen, Written, Wrote};

use super::checksums::{self, Published};
use super::client::Bucket;
use super::errors::{Asked, shown};
use super::failures::Failed;
use super::look::is_refused_as_such;
use super::marked::{self, Found};
use super::settings::S3Settings;
use super::stamp::Stamp;
use super::ways::Way;
use crate::model::{Checksum, Digest, Mark, S3Location, SENTINEL, Sha256};
use crate::net::SourceError;
use crate::net::http::Http;
use object::{is_taken, seen, written};
use write::Ask;

/// A prefix that is written to.
pub struct Sink {
    bucket: Arc<Bucket>,
    /// Ends in `/`, or is empty.
    base: String,
}

impl Sink {
    pub fn open(
        location: &S3Location,
        settings: &S3Settings,
        http: &Http,
    ) -> Result<Self, SourceError> {
        let bucket = Bucket::new(location.bucket.clone(), settings.clone(), http.clone())?;
        let mut base = location.key.clone();
        if !(base.is_empty() || base.ends_with('/')) {
            base.push('/');
        }
        Ok(Self { bucket: Arc::new(bucket), base })
    }

    /// `s3://bucket/prefix/`
    pub fn place(&self) -> String {
        format!("s3://{}/{}", self.bucket.name, self.base)
    }

    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.bucket.warnings();
        warnings.append(&mut self.bucket.ways.warnings());
        warnings
    }

    /// The sentinel that lies there.
    pub async fn sentinel(&self) -> Result<Option<Found>, SourceError> {
        let found = marked::find(&self.bucket, &self.base).await;
        found
            .map_err(|failed| failed.explain(&self.bucket.name, Asked::Object(&self.key(SENTINEL))))
    }

    /// What is known of the object of `path`, if there is one.
    pub async fn look(&self, path: &str) -> Result<Option<Seen>, SourceError> {
        let key = self.key(path);
        let ways = &self.bucket.ways;
        let mut checksum = !ways.know(Way::NoChecksumMode);
        loop {
            match self.bucket.head(&key, checksum, None).await {
                Ok(head) => return Ok(Some(seen(&head))),
                Err(Failed::Refused(refusal)) if refusal.status == 404 => return Ok(None),
                Err(Failed::Refused(refusal))
                    if checksum && (refusal.status == 400 || is_refused_as_such(&refusal)) =>
                {
                    checksum = false;
                }
                Err(failed) => return Err(failed.explain(&self.bucket.name, Asked::Object(&key))),
            }
        }
    }

    /// The SHA-256 that the store has computed of the object of `path`.
    pub async fn sha256(&self, path: &str, seen: &Seen) -> Result<Option<Sha256>, SourceError> {
        let stamp = Stamp::by_etag(seen.size, seen.etag.clone());
        match checksums::published(&self.bucket, &self.key(path), &stamp).await? {
            Published::Digest(Digest::Sha256(sha256)) => Ok(Some(Sha256(sha256))),
            _ => Ok(None),
        }
    }

    /// Writes a whole object.
    pub async fn put(
        &self,
        client: &Client,
        path: &str,
        body: Bytes,
        mark: &Mark,
        before: &Before,
    ) -> Result<Wrote, SourceError> {
        let key = self.key(path);
        let crc64nvme = Checksum::Crc64Nvme.of(&body);
        let ask = Ask::Object { body, crc64nvme, mark, before };
        loop {
            match self.bucket.write(client, &key, &ask).await {
                Ok(headers) => return Ok(Wrote::Done(written(&headers))),
                Err(Failed::Refused(refusal)) if is_taken(&refusal, before) => {
                    if !self.refuses_what_matches(path, before).await? {
                        return Ok(Wrote::Taken);
                    }
                }
                Err(failed) => return Err(self.not_written(failed, &key)),
            }
        }
    }

    /// Whether a write was refused although what it replaces is there, which is said and known from here on.
    /// Older gateways of Ceph compare the ETag with its quotes.
    async fn refuses_what_matches(&self, path: &str, before: &Before) -> Result<bool, SourceError> {
        let Before::This(Some(etag)) = before else { return Ok(false) };
        if self.bucket.ways.know(Way::NoReplacing) {
            return Ok(false);
        }
        let seen = self.look(path).await?;
        if seen.and_then(|seen| seen.etag).as_ref() != Some(etag) {
            return Ok(false);
        }
        self.bucket.ways.learn(Way::NoReplacing, || {
            "the store refuses `If-Match` of writes although it matches; continuing without it: what \
             another program writes to the same key at the same moment may be overwritten"
                .to_owned()
        });
        Ok(true)
    }

    fn key(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn not_written(&self, failed: Failed, key: &str) -> SourceError {
        failed.explain(&self.bucket.name, Asked::Write(key))
    }

    /// The key of `path`, for messages.
    pub fn shown(&self, path: &str) -> String {
        shown(&self.key(path))
    }
}
