//! The lists of SHA-256 sums that lie in the prefix itself, read from there.

use super::listing::{Listing, Stamp};
use super::problem::CloudProblem;
use super::refusal::{Asked, shown};
use super::store::Store;
use crate::model::{SENTINEL, Selection};
use crate::net::SourceError;
use crate::net::http::{self, Http};
use crate::source::beside::{Beside, MAX_SUMS_BYTES, SHA256SUMS};

/// No sentinel is longer.
const MAX_SENTINEL_BYTES: u64 = 32 << 20;

/// What the lists in the prefix say.
pub async fn read(
    store: &impl Store,
    http: &Http,
    listing: &Listing,
    selection: &Selection,
) -> Result<Beside, SourceError> {
    let mut beside = Beside::default();
    let size_of = |path: &str| listing.find(path).map(|object| object.size);
    if let Some(object) = listing.find(SHA256SUMS)
        && beside.is_wanted(SHA256SUMS, selection)
        && beside.is_short(SHA256SUMS, object.size, MAX_SUMS_BYTES)
    {
        let stamp = Stamp { size: object.size, version: object.version.clone() };
        let content = content(store, http, listing, SHA256SUMS, &stamp).await?;
        beside.add_sums(&size_of, selection, &String::from_utf8_lossy(&content));
    }
    if let Some(stamp) = &listing.sentinel
        && beside.is_wanted(SENTINEL, selection)
        && beside.is_short(SENTINEL, stamp.size, MAX_SENTINEL_BYTES)
    {
        let content = content(store, http, listing, SENTINEL, stamp).await?;
        let place = store.mirrored_place(&listing.base);
        beside.add_sentinel(&size_of, selection, &content, place)?;
    }
    Ok(beside)
}

/// The version that was listed of the object that names digests.
async fn content(
    store: &impl Store,
    http: &Http,
    listing: &Listing,
    name: &'static str,
    stamp: &Stamp,
) -> Result<Vec<u8>, SourceError> {
    let key = listing.key(name);
    let response = store.get((&store.client()?).into(), &key, Some(&stamp.version), None).await;
    let response = response.map_err(|failed| failed.explain(store, Asked::Object(&key)))?;
    let content =
        http::small_body(response, MAX_SENTINEL_BYTES as usize, http.deadlines.stall).await?;
    if content.len() as u64 != stamp.size {
        let (place, key) = (store.called().to_owned(), shown(&key));
        let (found, listed) = (content.len(), stamp.size);
        let problem = CloudProblem::Length { place, key, found, listed, name };
        return Err(SourceError::Stale(problem.into()));
    }
    Ok(content)
}
