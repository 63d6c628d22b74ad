//! A prefix, or one object, of an S3 bucket.
//!
//! The listing is pinned once, and every later read is of the version that was listed. The bytes come
//! over the callers' clients by requests that the SDK has signed; a signature is a secret and is in no
//! message.

mod ask;
mod checksums;
mod client;
mod credentials;
mod endpoint;
mod env;
mod errors;
mod failures;
pub(crate) mod fuzz;
mod listing;
mod locate;
mod look;
mod page;
mod pages;
mod parts;
mod payer;
mod profile;
mod reads;
mod settings;
mod sign;
mod skipped;
pub(crate) mod sums;
mod transport;
mod ways;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use reqwest::Client;
use tokio::sync::OnceCell;
use tokio::task::JoinSet;

pub use settings::S3Settings;

use crate::content::Source;
use crate::model::{
    Digest, RelPath, RemoteFile, S3Location, Selection, Snapshot, looks_like_weights, text,
};
use crate::net::http::Http;
use crate::net::{Body, SourceError};
use checksums::Published;
use client::Bucket;
use listing::{Listed, Listing, Stamp};
use sums::Beside;
use ways::Way;

/// Checksums that are asked for at the same time.
const MAX_HEADS: usize = 16;
/// Where more objects than this are listed without a checksum, small ones that are no weights are
/// not asked for theirs.
const MAX_UNLISTED: usize = 1_000;
const SMALL_BYTES: u64 = 1 << 20;

/// A location in a bucket.
pub struct S3 {
    location: S3Location,
    /// What will be fetched: nothing else needs to be known.
    selection: Selection,
    bucket: Arc<Bucket>,
    http: Http,
    pinned: OnceCell<Listing>,
    /// What S3 told about the objects of the listing, by their place in it: a snapshot that failed
    /// half-way does not ask again.
    published: Mutex<BTreeMap<usize, Published>>,
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
            published: Mutex::default(),
            lists: Mutex::default(),
            warnings: Mutex::new(warnings),
        })
    }

    /// Leaves alone what `selection` does not name.
    pub fn selecting(self, selection: Selection) -> Self {
        Self { selection, ..self }
    }

    async fn pinned(&self) -> Result<&Listing, SourceError> {
        // In a box: the futures of the SDK are large, and nest deeply.
        let listing = || Box::pin(Listing::of(&self.bucket, &self.location));
        self.pinned.get_or_try_init(listing).await
    }

    /// Asks for the checksums of all objects that `is_known` does not cover.
    async fn ask_for_checksums(
        &self,
        listing: &Listing,
        is_known: impl Fn(&str) -> bool,
    ) -> Result<(), SourceError> {
        let asked: Vec<usize> = self.published().keys().copied().collect();
        let is_open = |(n, object): &(usize, &Listed)| {
            let path = object.path.as_str();
            !is_known(path) && self.selection.names(path) && asked.binary_search(n).is_err()
        };
        let open = listing.objects.iter().enumerate().filter(is_open);
        let (mut open, mut unlisted): (Vec<_>, Vec<_>) =
            open.map(|(n, _)| n).partition(|n| listing.objects[*n].has_checksum);
        if unlisted.len() > MAX_UNLISTED {
            let count = unlisted.len();
            unlisted.retain(|n| {
                let Listed { path, stamp, .. } = &listing.objects[*n];
                stamp.size >= SMALL_BYTES || looks_like_weights(path.as_str())
            });
            if count > unlisted.len() {
                let small = text::files(count - unlisted.len());
                self.warn(format!("{small} of less than 1 MiB are not asked for their checksums"));
            }
        }
        // Some servers have checksums and do not list them; some have none, which the first shows.
        if open.is_empty() && !unlisted.is_empty() {
            self.ask_at_once(listing, vec![unlisted.remove(0)]).await?;
        }
        open.append(&mut unlisted);
        self.ask_at_once(listing, open).await
    }

    async fn ask_at_once(&self, listing: &Listing, wanted: Vec<usize>) -> Result<(), SourceError> {
        let mut wanted = wanted.into_iter();
        let mut asking = JoinSet::new();
        loop {
            let ways = &self.bucket.ways;
            while asking.len() < MAX_HEADS
                && !(ways.know(Way::NoChecksumMode) || ways.know(Way::NoHead))
                && let Some(n) = wanted.next()
            {
                let object = &listing.objects[n];
                let (key, stamp) = (listing.key(object.path.as_str()), object.stamp.clone());
                let bucket = Arc::clone(&self.bucket);
                asking.spawn(async move { (n, checksums::published(&bucket, &key, &stamp).await) });
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

    fn source_name(&self) -> String {
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
        listing.skipped.warnings().for_each(|warning| self.warn(warning));
        let beside = Beside::read(&self.bucket, listing, &self.selection).await?;
        beside.warnings.into_iter().for_each(|warning| self.warn(warning));
        let sums = beside.sums;
        let mut lists: Vec<_> = sums.iter().map(|(path, sum)| (hash(path), sum.list)).collect();
        lists.sort_unstable();
        *self.lists.lock().unwrap_or_else(PoisonError::into_inner) = lists;
        self.ask_for_checksums(listing, |path| sums.contains_key(path)).await?;
        self.warn_of_unproven(listing);
        let published = self.published();
        let file = |(n, object): (usize, &Listed)| RemoteFile {
            path: object.path.clone(),
            size: object.stamp.size,
            digest: match (sums.get(object.path.as_str()), published.get(&n)) {
                (Some(sum), _) => Some(Digest::Sha256(sum.sha256)),
                (None, Some(Published::Digest(digest))) => Some(digest.clone()),
                (None, _) => None,
            },
            validator: self
                .bucket
                .ways
                .pin(&listing.key(object.path.as_str()))
                .or_else(|| object.stamp.etag.clone()),
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
        let listed = Stamp { size: file.size, etag: file.validator.clone() };
        let response = self.bucket.get(client, &key, &listed, Some(&range)).await?;
        Body::open(response, file, range, self.http.deadlines.stall).map_err(|error| match error {
            // Of another size than was listed.
            SourceError::Changed(what) => SourceError::Stale(what),
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
