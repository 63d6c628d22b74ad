//! A prefix, or one object, of an S3 bucket.
//!
//! The listing is pinned once, and every later read names the ETag that was listed. The bytes come
//! over the callers' clients by requests that the SDK has signed; a signed URL is a secret and is
//! in no message.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use reqwest::header::{ETAG, HeaderValue, RANGE};
use reqwest::{Client, Method};
use tokio::sync::OnceCell;
use tokio::task::JoinSet;

pub use super::s3_client::S3Settings;

use super::http::{self, Http};
use super::s3_checksums::{self, Published};
use super::s3_client::{Bucket, Signed};
use super::s3_errors::{Asked, Refusal, shown};
use super::s3_listing::{Listed, Listing, strong};
use super::s3_sums::Beside;
use super::s3_transport::SLOW_DOWN;
use super::{Body, Source, SourceError};
use crate::model::{Digest, RemoteFile, S3Location, Snapshot, text};

/// Checksums that are asked for at the same time.
const MAX_HEADS: usize = 16;

/// A location in a bucket.
pub struct S3 {
    location: S3Location,
    bucket: Arc<Bucket>,
    http: Http,
    pinned: OnceCell<Listing>,
    /// What S3 told about the objects of the listing, by their place in it: a snapshot that failed
    /// half-way does not ask again.
    published: Mutex<BTreeMap<usize, Published>>,
    warnings: Mutex<Vec<String>>,
}

impl S3 {
    pub fn new(
        location: S3Location,
        settings: S3Settings,
        http: Http,
    ) -> Result<Self, SourceError> {
        let bucket = Arc::new(Bucket::new(location.bucket.clone(), settings, http.clone())?);
        Ok(Self {
            location,
            bucket,
            http,
            pinned: OnceCell::new(),
            published: Mutex::default(),
            warnings: Mutex::default(),
        })
    }

    async fn pinned(&self) -> Result<&Listing, SourceError> {
        self.pinned.get_or_try_init(|| Listing::of(&self.bucket, &self.location)).await
    }

    /// Asks for the checksums of all objects that `sums` does not cover.
    async fn ask_for_checksums(
        &self,
        listing: &Listing,
        sums: &BTreeMap<String, [u8; 32]>,
    ) -> Result<(), SourceError> {
        let known: Vec<usize> = self.published().keys().copied().collect();
        let open = listing.objects.iter().enumerate().filter(|(n, object)| {
            !sums.contains_key(object.path.as_str()) && known.binary_search(n).is_err()
        });
        let mut open: Vec<usize> = open.map(|(n, _)| n).collect();
        if listing.objects.iter().any(|object| object.has_checksum) {
            open.retain(|n| listing.objects[*n].has_checksum);
        } else if known.is_empty() && !open.is_empty() {
            // Some servers have checksums and do not list them: the first object shows it.
            let first = open.remove(0);
            self.ask_at_once(listing, vec![first]).await?;
        }
        let no_checksums = matches!(
            self.published().first_key_value(),
            Some((n, Published::Nothing | Published::Denied)) if !listing.objects[*n].has_checksum
        );
        if no_checksums { Ok(()) } else { self.ask_at_once(listing, open).await }
    }

    async fn ask_at_once(&self, listing: &Listing, wanted: Vec<usize>) -> Result<(), SourceError> {
        let mut wanted = wanted.into_iter();
        let mut asking = JoinSet::new();
        loop {
            while asking.len() < MAX_HEADS
                && let Some(n) = wanted.next()
            {
                let object = &listing.objects[n];
                let (key, stamp) = (listing.key(object.path.as_str()), object.stamp.clone());
                let bucket = Arc::clone(&self.bucket);
                asking.spawn(
                    async move { (n, s3_checksums::published(&bucket, &key, &stamp).await) },
                );
            }
            let Some(answered) = asking.join_next().await else {
                return Ok(());
            };
            let (n, published) = answered
                .map_err(|_| SourceError::Unreachable("asking for checksums was cut off".into()))?;
            self.published().insert(n, published?);
        }
    }

    fn warn_of_unproven(&self, listing: &Listing) {
        let warn = |what: Published, why: &str| {
            let published = self.published();
            let mut such = published.iter().filter(|(_, published)| **published == what);
            let Some((first, _)) = such.next() else {
                return;
            };
            let (count, path) = (text::files(such.count() + 1), &listing.objects[*first].path);
            self.warn(format!("no published checksum for {count}, such as `{path}`: {why}"));
        };
        warn(Published::Denied, "S3 refuses HEAD");
        warn(Published::UnknownParts, "it is one by part, and S3 does not tell the parts' sizes");
    }

    /// What a refused read means, after what can be put right has been.
    async fn refused(&self, signed: &Signed, refusal: Refusal, key: &str) -> SourceError {
        if refusal.is_slow_down() {
            let host = http::origin(&signed.url);
            let wait = self.http.pace.slow_down(&host, SLOW_DOWN);
            return SourceError::RateLimited { host, wait };
        }
        if self.bucket.amend(&signed.by, &refusal).await {
            let (key, told) = (shown(key), refusal.told());
            return SourceError::Again(format!(
                "object `{key}` is asked for with a new signature: {told}"
            ));
        }
        refusal.explain(&self.bucket.name, Asked::Object(key))
    }

    fn place(&self) -> String {
        format!("s3://{}/{}", self.location.bucket, self.location.key)
    }

    fn published(&self) -> MutexGuard<'_, BTreeMap<usize, Published>> {
        self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn warn(&self, warning: String) {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).push(warning);
    }
}

#[async_trait]
impl Source for S3 {
    async fn revision(&self) -> Result<String, SourceError> {
        Ok(self.pinned().await?.revision.clone())
    }

    async fn snapshot(&self) -> Result<Snapshot, SourceError> {
        let listing = self.pinned().await?;
        let beside = Beside::read(&self.bucket, listing).await?;
        beside.warnings.into_iter().for_each(|warning| self.warn(warning));
        let sums = beside.sums;
        self.ask_for_checksums(listing, &sums).await?;
        self.warn_of_unproven(listing);
        let published = self.published();
        let file = |(n, object): (usize, &Listed)| RemoteFile {
            path: object.path.clone(),
            size: object.stamp.size,
            digest: match (sums.get(object.path.as_str()), published.get(&n)) {
                (Some(sum), _) => Some(Digest::Sha256(*sum)),
                (None, Some(Published::Digest(digest))) => Some(digest.clone()),
                (None, _) => None,
            },
            validator: object.stamp.etag.clone(),
        };
        let files = listing.objects.iter().enumerate().map(file).collect();
        Ok(Snapshot::new(self.place(), listing.revision.clone(), files, listing.refused.clone()))
    }

    async fn read(
        &self,
        client: &Client,
        file: &RemoteFile,
        range: Range<u64>,
    ) -> Result<Body, SourceError> {
        let key = self.pinned().await?.key(file.path.as_str());
        let signed = self.bucket.sign(&key, file.validator.as_deref()).await?;
        let mut headers = signed.headers.clone();
        // Not part of the signature. An empty object has no range that could be asked for.
        if !range.is_empty() {
            let value = format!("bytes={}-{}", range.start, range.end - 1);
            headers
                .insert(RANGE, HeaderValue::from_str(&value).expect("digits and a dash are ASCII"));
        }
        let response = self.http.send(client, Method::GET, &signed.url, headers).await?;
        if !response.status().is_success() {
            let refusal = Refusal::read(response, self.http.deadlines.stall).await;
            return Err(self.refused(&signed, refusal, &key).await);
        }
        // Some servers do not know If-Match.
        let found = response.headers().get(ETAG).and_then(|etag| strong(etag.to_str().ok()?));
        if found.zip(file.validator.as_ref()).is_some_and(|(found, listed)| found != *listed) {
            return Err(changed(&self.bucket.name, &key));
        }
        Body::open(response, file, range, self.http.deadlines.stall).map_err(|error| match error {
            // Of another size than was listed.
            SourceError::Changed(what) => SourceError::Stale(what),
            error => error,
        })
    }

    fn warnings(&self) -> Vec<String> {
        std::mem::take(&mut *self.warnings.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn changed(bucket: &str, key: &str) -> SourceError {
    SourceError::Stale(format!(
        "object `{}` in bucket `{bucket}` changed while it was fetched; run again",
        shown(key)
    ))
}
