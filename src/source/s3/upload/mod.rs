//! Writes objects below a prefix of a bucket: small ones at once, large ones in parts.
//!
//! Each call is one attempt, as those of a source are. It overwrites nothing but what the caller has seen and
//! named by its ETag, where the store can hold to that. Bytes go over the callers' clients.

mod listing;
mod multipart;
mod write;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use reqwest::Client;
use reqwest::header::{HeaderMap, HeaderName};

pub use listing::StoredObject;
pub use multipart::{Part, Upload};

use super::checksums::{self, Published};
use super::client::Bucket;
use super::errors::{Asked, Refusal, shown};
use super::failures::Failed;
use super::look::{Look, is_refused_as_such, text as header};
use super::marked::{self, Found};
use super::settings::S3Settings;
use super::stamp::Stamp;
use super::ways::Way;
use crate::model::{Checksum, Digest, Mark, S3Location, SENTINEL, Sha256};
use crate::net::SourceError;
use crate::net::http::Http;
use write::Ask;

const MARK_SHA256: HeaderName = HeaderName::from_static("x-amz-meta-weightlift-sha256");
const MARK_PUBLISHED: HeaderName = HeaderName::from_static("x-amz-meta-weightlift-published");
const CRC64NVME: HeaderName = HeaderName::from_static("x-amz-checksum-crc64nvme");

/// A prefix that is written to.
pub struct Sink {
    bucket: Arc<Bucket>,
    /// Ends in `/`, or is empty.
    base: String,
}

/// What must be at a key for a write to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Before {
    Nothing,
    /// The object of this ETag; without one, any object.
    This(Option<String>),
}

/// How a write has ended that the store has not refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrote {
    /// The object is there.
    Done(Written),
    /// Something else than [`Before`] says is there.
    Taken,
    /// The upload is not known any more: it was completed or aborted, by us or by another process.
    Gone,
    /// The store has other parts than it was told of.
    OtherParts,
}

/// A new object, as the answer tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// With its quotes.
    pub etag: Option<String>,
    /// The CRC64NVME that the store has computed.
    pub crc64nvme: Option<u64>,
}

/// An object as HEAD tells it.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub size: u64,
    pub etag: Option<String>,
    pub mark: Option<Mark>,
    pub crc64nvme: Option<u64>,
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
            "the store refuses `If-Match` of writes although it matches; going on without: what another \
             program writes to the same key at the same moment may be overwritten"
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

/// Whether a write was refused because of its condition.
fn is_taken(refusal: &Refusal, before: &Before) -> bool {
    // That the object which is to be replaced is gone is told by a 404.
    let is_gone = refusal.status == 404 && refusal.code == "NoSuchKey";
    refusal.status == 412 || (is_gone && matches!(before, Before::This(Some(_))))
}

fn seen(head: &HeaderMap) -> Seen {
    let Look { size, etag, .. } = Look::of(head);
    let sha256 = header(head, &MARK_SHA256).and_then(Digest::sha256_from_hex);
    let published = header(head, &MARK_PUBLISHED).map(str::to_owned);
    let is_marked = head.contains_key(MARK_SHA256) || published.is_some();
    let sha256 = match sha256 {
        Some(Digest::Sha256(sha256)) => Some(Sha256(sha256)),
        _ => None,
    };
    Seen {
        size: size.unwrap_or_default(),
        etag,
        mark: is_marked.then_some(Mark { sha256, published }),
        crc64nvme: header(head, &CRC64NVME).and_then(crc_of),
    }
}

fn written(headers: &HeaderMap) -> Written {
    let Look { etag, .. } = Look::of(headers);
    Written { etag, crc64nvme: header(headers, &CRC64NVME).and_then(crc_of) }
}

/// As S3 writes it.
fn crc_text(crc64nvme: u64) -> String {
    STANDARD.encode(crc64nvme.to_be_bytes())
}

fn crc_of(text: &str) -> Option<u64> {
    // One by part, which S3 does not have of this algorithm, has another form.
    let bytes = STANDARD.decode(text).ok()?;
    bytes.try_into().ok().map(u64::from_be_bytes)
}

/// The metadata of an object that is ours.
fn metadata(mark: &Mark) -> Vec<(&'static str, String)> {
    // Never empty: by its name alone the object is known as ours.
    let sha256 = mark.sha256.map_or_else(|| "unknown".to_owned(), |sha256| sha256.to_string());
    let published = mark.published.clone().map(|published| ("weightlift-published", published));
    [("weightlift-sha256", sha256)].into_iter().chain(published).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_beside_an_object_is_read_back() {
        let head = |mark: &Mark| {
            let name = |name: &str| format!("x-amz-meta-{name}").parse::<HeaderName>();
            let pairs = metadata(mark)
                .into_iter()
                .map(|(key, value)| (name(key).expect("a name"), value.parse().expect("a value")));
            pairs.collect::<HeaderMap>()
        };
        for mark in [
            Mark { sha256: Some(Sha256([7; 32])), published: Some("git-sha1:00".into()) },
            Mark { sha256: Some(Sha256([7; 32])), published: None },
            Mark::default(),
        ] {
            assert_eq!(seen(&head(&mark)).mark, Some(mark));
        }
        assert_eq!(seen(&HeaderMap::new()).mark, None);
    }

    #[test]
    fn a_crc_is_spelled_as_s3_does() {
        assert_eq!(crc_text(0xae8b_1486_0a79_9888), "rosUhgp5mIg=");
        assert_eq!(crc_of("rosUhgp5mIg="), Some(0xae8b_1486_0a79_9888));
        for other in ["", "rosUhgp5mIg=-2", "AA=="] {
            assert_eq!(crc_of(other), None, "{other}");
        }
    }
}
