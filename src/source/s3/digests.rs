//! What S3 publishes of all objects of a listing: each is asked, many at the same time.
//!
//! Some servers have checksums and do not list them, some have none, and one object says nothing about
//! the others. Only how the store takes the question is found out once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::JoinSet;

use super::checksums::{self, Published};
use super::client::Bucket;
use super::listing::{Listed, Listing};
use super::ways::Way;
use crate::model::{Digest, Md5Told, looks_like_weights, text};
use crate::net::SourceError;

/// Checksums that are asked for at the same time.
const MAX_HEADS: usize = 16;
/// Where more objects than this are listed without a checksum, small ones that are no weights are
/// not asked for theirs.
const MAX_UNLISTED: usize = 1_000;
const SMALL_BYTES: u64 = 1 << 20;

/// What S3 told about the objects of a listing, by their place in it: a snapshot that failed half-way
/// does not ask again.
#[derive(Debug, Default)]
pub struct Digests(Mutex<BTreeMap<usize, Published>>);

/// Which objects are asked where there are very many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// Those that are large, or weights.
    #[default]
    Weights,
    All,
}

impl Digests {
    /// Asks for the checksums of all objects that `is_wanted` names; returns what is to be said of those
    /// that are not asked.
    pub async fn ask(
        &self,
        bucket: &Arc<Bucket>,
        listing: &Listing,
        choice: Choice,
        is_wanted: impl Fn(&str) -> bool,
    ) -> Result<Option<String>, SourceError> {
        let asked: Vec<usize> = self.published().keys().copied().collect();
        let is_open = |(n, object): &(usize, &Listed)| {
            is_wanted(object.path.as_str()) && asked.binary_search(n).is_err()
        };
        let open = listing.objects.iter().enumerate().filter(is_open);
        let (mut open, mut unlisted): (Vec<_>, Vec<_>) =
            open.map(|(n, _)| n).partition(|n| listing.objects[*n].has_checksum);
        let mut warning = None;
        if unlisted.len() > MAX_UNLISTED && choice == Choice::Weights {
            let count = unlisted.len();
            unlisted.retain(|n| {
                let Listed { path, stamp, .. } = &listing.objects[*n];
                stamp.size >= SMALL_BYTES || looks_like_weights(path.as_str())
            });
            if count > unlisted.len() {
                let small = text::files(count - unlisted.len());
                warning =
                    Some(format!("the checksums of {small} of less than 1 MiB are not requested"));
            }
        }
        // The first shows whether the store knows the question.
        if open.is_empty() && !unlisted.is_empty() {
            self.ask_at_once(bucket, listing, vec![unlisted.remove(0)]).await?;
        }
        open.append(&mut unlisted);
        self.ask_at_once(bucket, listing, open).await?;
        Ok(warning)
    }

    async fn ask_at_once(
        &self,
        bucket: &Arc<Bucket>,
        listing: &Listing,
        wanted: Vec<usize>,
    ) -> Result<(), SourceError> {
        let mut wanted = wanted.into_iter();
        let mut asking = JoinSet::new();
        loop {
            let ways = &bucket.ways;
            while asking.len() < MAX_HEADS
                && !(ways.know(Way::NoChecksumMode) || ways.know(Way::NoHead))
                && let Some(n) = wanted.next()
            {
                let object = &listing.objects[n];
                let (key, stamp) = (listing.key(object.path.as_str()), object.stamp.clone());
                let bucket = Arc::clone(bucket);
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

    /// What is published of object `n`, which is `object`.
    pub fn of(&self, n: usize, object: &Listed, bucket: &Bucket) -> Option<Digest> {
        let published = self.published();
        match published.get(&n) {
            Some(Published::Digest(digest)) => Some(digest.clone()),
            Some(_) => None,
            // Not asked; but others were, and have their ETags in the clear.
            None => {
                let answered = |it: &Published| !matches!(it, Published::Denied);
                let ways = &bucket.ways;
                let is_clear = published.values().any(answered)
                    && !ways.know(Way::Encrypts)
                    && !ways.know(Way::OwnListing);
                let etag = object.stamp.etag.as_deref().filter(|_| is_clear)?;
                Digest::md5_from_etag(etag, Md5Told::ByItsForm)
            }
        }
    }

    /// Lines about the objects that have a checksum which could not be had.
    pub fn warnings(&self, listing: &Listing) -> Vec<String> {
        let published = self.published();
        let warning = |what: Published, why: &str| {
            let mut such = published.iter().filter(|(_, published)| **published == what);
            let (first, _) = such.next()?;
            let (count, path) = (text::files(such.count() + 1), &listing.objects[*first].path);
            Some(format!("no published checksum for {count}, such as `{path}`: {why}"))
        };
        let parts = "it is a checksum of parts, and S3 does not report the sizes of the parts";
        let all = [
            warning(Published::Denied, "S3 refuses HEAD"),
            warning(Published::UnknownParts, parts),
        ];
        all.into_iter().flatten().collect()
    }

    fn published(&self) -> MutexGuard<'_, BTreeMap<usize, Published>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
