//! What buckets of Google Cloud Storage and containers of Azure have in common: a listing that is pinned
//! once, prefixes that are directories, lists of digests beside the objects, and reads of the version that
//! was listed.
//!
//! A [`Store`] knows how one of them is asked; nothing here knows which it is.

mod explain;
mod identity;
mod listing;
mod locate;
mod problem;
mod refusal;
mod store;
mod sums;
mod token;
mod transport;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use reqwest::Client;
use tokio::sync::OnceCell;
use url::Url;

pub(super) use identity::{Identity, Origin, Provider};
pub(super) use problem::CloudProblem;
pub(super) use refusal::{Asked, Failed, Refusal, Why, shown};
pub(super) use store::{Found, Page, Store};
pub(super) use transport::{Clients, Connector, no_retries, reason};

use crate::content::{Body, Source};
use crate::model::{Digest, Locked, RelPath, RemoteFile, Selection, Snapshot};
use crate::net::http::Http;
use crate::net::{self, SourceError, Via};
use listing::{Listed, Listing};

/// A prefix, or one object, of a store.
pub struct Cloud<S> {
    store: S,
    /// Ends in `/` (or is empty) where the user wrote a directory.
    key: String,
    /// What will be fetched: nothing else needs to be known.
    selection: Selection,
    http: Http,
    pinned: OnceCell<Listing>,
    /// Which list beside the files has the digest of a path, by the path's hash, sorted.
    lists: Mutex<Vec<(u64, &'static str)>>,
    warnings: Mutex<Vec<String>>,
}

impl<S: Store> Cloud<S> {
    pub(super) fn new(store: S, key: &str, selection: Selection, http: Http) -> Self {
        Self {
            store,
            key: key.to_owned(),
            selection,
            http,
            pinned: OnceCell::new(),
            lists: Mutex::default(),
            warnings: Mutex::default(),
        }
    }

    /// The same where a lock file says what lies there.
    pub(super) fn of_lock(store: S, key: &str, locked: &Locked, http: Http) -> Self {
        let pinned = OnceCell::new_with(Some(Listing::of_lock(key, locked)));
        Self { pinned, ..Self::new(store, key, Selection::default(), http) }
    }

    async fn pinned(&self) -> Result<&Listing, SourceError> {
        let listing = || Box::pin(locate::listing(&self.store, &self.key));
        self.pinned.get_or_try_init(listing).await
    }

    fn warn(&self, warning: String) {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).push(warning);
    }
}

#[async_trait]
impl<S: Store> Source for Cloud<S> {
    async fn revision(&self) -> Result<String, SourceError> {
        Ok(self.pinned().await?.revision.clone())
    }

    async fn snapshot(&self) -> Result<Snapshot, SourceError> {
        let listing = self.pinned().await?;
        listing.skipped.warnings().for_each(|warning| self.warn(warning));
        let beside = sums::read(&self.store, &self.http, listing, &self.selection).await?;
        beside.warnings.into_iter().for_each(|warning| self.warn(warning));
        let sums = beside.sums;
        let mut lists: Vec<_> = sums.iter().map(|(path, sum)| (hash(path), sum.list)).collect();
        lists.sort_unstable();
        *self.lists.lock().unwrap_or_else(PoisonError::into_inner) = lists;
        let file = |object: &Listed| RemoteFile {
            path: object.path.clone(),
            size: object.size,
            digest: match sums.get(object.path.as_str()) {
                Some(sum) => Some(Digest::Sha256(sum.sha256)),
                None => object.digest.clone(),
            },
            validator: Some(object.version.clone()),
            xet_hash: None,
        };
        let files = listing.objects.iter().map(file).collect();
        let name = format!("{}{}", self.store.place(), self.key);
        Ok(Snapshot::new(name, listing.revision.clone(), files, listing.refused.clone()))
    }

    async fn read(
        &self,
        client: &Client,
        file: &RemoteFile,
        range: Range<u64>,
    ) -> Result<Body, SourceError> {
        let key = self.pinned().await?.key(file.path.as_str());
        let version = file.validator.as_deref();
        let response =
            self.store.get(Via::bytes(client, file, &range), &key, version, Some(&range)).await;
        let response =
            response.map_err(|failed| failed.explain(&self.store, Asked::Object(&key)))?;
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
        std::mem::take(warnings)
    }
}

/// Adds to the query of `url`, with `%20` for a blank: what a `+` means there is not the same to everybody.
pub(super) fn add_query<'a>(url: &mut Url, pairs: impl IntoIterator<Item = (&'a str, &'a str)>) {
    url.query_pairs_mut().extend_pairs(pairs);
    let query = url.query().unwrap_or_default().replace('+', "%20");
    url.set_query(Some(&query));
}

fn hash(path: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    hasher.finish()
}
