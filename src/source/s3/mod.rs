//! A prefix, or one object, of an S3 bucket.
//!
//! The listing is pinned once, and every later read is of the version that was listed. The bytes come
//! over the callers' clients by requests that the SDK has signed; a signature is a secret and is in no
//! message.

mod ask;
mod caught;
mod checksums;
mod client;
mod credentials;
mod digests;
mod endpoint;
mod env;
mod errors;
mod explain;
mod failures;
pub(crate) mod fuzz;
mod identity;
mod listing;
mod locate;
mod look;
mod marked;
pub(super) mod page;
mod pages;
mod parts;
mod payer;
mod problem;
mod profile;
mod reads;
mod settings;
mod sign;
mod single;
pub(super) mod skipped;
pub(super) mod stamp;
mod sums;
mod transport;
pub(crate) mod upload;
mod ways;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use reqwest::Client;
use tokio::sync::OnceCell;

pub use identity::{S3Identity, S3Key, identity};
pub use settings::S3Settings;
pub use upload::Sink;

use crate::content::{Body, Source};
use crate::model::{Digest, Locked, RelPath, RemoteFile, S3Location, Selection, Snapshot};
use crate::net::http::Http;
use crate::net::{self, SourceError, Via};
use crate::source::beside;
use client::Bucket;
use digests::{Choice, Digests};
use listing::{Listed, Listing};
use stamp::Stamp;

/// A location in a bucket.
pub struct S3 {
    location: S3Location,
    /// What will be fetched: nothing else needs to be known.
    selection: Selection,
    bucket: Arc<Bucket>,
    http: Http,
    pinned: OnceCell<Listing>,
    choice: Choice,
    digests: Digests,
    /// Which list beside the files has the digest of a path, by the path's hash, sorted.
    lists: Mutex<Vec<(u64, &'static str)>>,
    warnings: Mutex<Vec<String>>,
}

impl S3 {
    pub fn new(
        location: S3Location,
        settings: S3Settings,
        http: Http,
    ) -> Result<Self, SourceError> {
        let bucket = Arc::new(Bucket::new(location.bucket.clone(), settings, http.clone())?);
        let warnings = bucket.warnings();
        Ok(Self {
            location,
            selection: Selection::default(),
            bucket,
            http,
            pinned: OnceCell::new(),
            choice: Choice::default(),
            digests: Digests::default(),
            lists: Mutex::default(),
            warnings: Mutex::new(warnings),
        })
    }

    /// Leaves alone what `selection` does not name.
    pub(super) fn open(
        location: &S3Location,
        settings: &S3Settings,
        selection: &Selection,
        http: &Http,
    ) -> Result<Self, SourceError> {
        let s3 = Self::new(location.clone(), settings.clone(), http.clone())?;
        let choice = if settings.all_checksums { Choice::All } else { s3.choice };
        Ok(Self { selection: selection.clone(), choice, ..s3 })
    }

    /// The same where a lock file says what lies there.
    pub(super) fn open_at(
        location: &S3Location,
        settings: &S3Settings,
        locked: &Locked,
        http: &Http,
    ) -> Result<Self, SourceError> {
        let mut s3 = Self::new(location.clone(), settings.clone(), http.clone())?;
        let listing = Listing::of_lock(&location.key, locked);
        s3.pinned = OnceCell::new_with(Some(listing));
        Ok(s3)
    }

    async fn pinned(&self) -> Result<&Listing, SourceError> {
        // In a box: the futures of the SDK are large, and nest deeply.
        let believes = beside::believes_sentinel(&self.selection);
        let listing = || Box::pin(locate::listing(&self.bucket, &self.location, believes));
        self.pinned.get_or_try_init(listing).await
    }

    fn source_name(&self) -> String {
        format!("s3://{}/{}", self.location.bucket, self.location.key)
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
        if let Some(mirrored) = &listing.mirrored {
            let files = mirrored.clone();
            let (name, revision) = (self.source_name(), listing.revision.clone());
            return Ok(Snapshot::new(name, revision, files, Vec::new()));
        }
        listing.skipped.warnings().for_each(|warning| self.warn(warning));
        let beside = sums::read(&self.bucket, listing, &self.selection).await?;
        beside.warnings.into_iter().for_each(|warning| self.warn(warning));
        let sums = beside.sums;
        let mut lists: Vec<_> = sums.iter().map(|(path, sum)| (hash(path), sum.list)).collect();
        lists.sort_unstable();
        *self.lists.lock().unwrap_or_else(PoisonError::into_inner) = lists;
        let is_wanted = |path: &str| !sums.contains_key(path) && self.selection.names(path);
        let asked = self.digests.ask(&self.bucket, listing, self.choice, is_wanted).await?;
        asked.into_iter().chain(self.digests.warnings(listing)).for_each(|it| self.warn(it));
        let file = |(n, object): (usize, &Listed)| RemoteFile {
            path: object.path.clone(),
            size: object.stamp.size,
            digest: match sums.get(object.path.as_str()) {
                Some(sum) => Some(Digest::Sha256(sum.sha256)),
                None => self.digests.of(n, object, &self.bucket),
            },
            validator: self
                .bucket
                .ways
                .pin(&listing.key(object.path.as_str()))
                .or_else(|| object.stamp.etag.clone()),
            xet_hash: None,
        };
        let files = listing.objects.iter().enumerate().map(file).collect();
        Ok(Snapshot::new(
            self.source_name(),
            listing.revision.clone(),
            files,
            listing.refused.clone(),
        ))
    }

    async fn read(
        &self,
        client: &Client,
        file: &RemoteFile,
        range: Range<u64>,
    ) -> Result<Body, SourceError> {
        let key = self.pinned().await?.key(file.path.as_str());
        let listed = Stamp::by_etag(file.size, file.validator.clone());
        let via = Via::bytes(client, file, &range);
        let response = self.bucket.get(via, &key, &listed, Some(&range)).await?;
        let body = net::Body::open(&self.http, response, file, range);
        body.map(Body::from).map_err(|error| match error {
            // Of another size than was listed.
            SourceError::Changed(cause) => SourceError::Stale(cause),
            error => error,
        })
    }

    fn list_with_digest(&self, path: &RelPath) -> Option<&'static str> {
        let lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        let hash = hash(path.as_str());
        let at = lists.binary_search_by_key(&hash, |(hash, _)| *hash).ok()?;
        Some(lists[at].1)
    }

    fn warnings(&self) -> Vec<String> {
        let warnings = &mut *self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        let mut warnings = std::mem::take(warnings);
        warnings.append(&mut self.bucket.ways.warnings());
        warnings
    }
}

fn hash(path: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    hasher.finish()
}
