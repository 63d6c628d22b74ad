//! The lists of SHA-256 sums that lie in the prefix itself, read from there.

use super::client::Bucket;
use super::errors::shown;
use super::listing::Listing;
use super::problem::ObjectProblem;
use super::stamp::Stamp;
use super::transport::MAX_OBJECT_BYTES;
use crate::model::{SENTINEL, Selection};
use crate::net::SourceError;
use crate::source::beside::{Beside, MAX_SUMS_BYTES, SHA256SUMS};

/// What the lists in the prefix say.
pub async fn read(
    bucket: &Bucket,
    listing: &Listing,
    selection: &Selection,
) -> Result<Beside, SourceError> {
    let mut beside = Beside::default();
    let size_of = |path: &str| listing.find(path).map(|object| object.stamp.size);
    if let Some(object) = listing.find(SHA256SUMS)
        && beside.is_wanted(SHA256SUMS, selection)
        && beside.is_short(SHA256SUMS, object.stamp.size, MAX_SUMS_BYTES)
    {
        let content = content(bucket, listing, SHA256SUMS, &object.stamp).await?;
        beside.add_sums(&size_of, selection, &String::from_utf8_lossy(&content));
    }
    if let Some(stamp) = &listing.sentinel
        && beside.is_wanted(SENTINEL, selection)
        && beside.is_short(SENTINEL, stamp.size, MAX_OBJECT_BYTES as u64)
    {
        let content = content(bucket, listing, SENTINEL, stamp).await?;
        let place = format!("s3://{}/{}", bucket.name, listing.base);
        beside.add_sentinel(&size_of, selection, &content, place)?;
    }
    Ok(beside)
}

/// The version that was listed of the object that names digests.
async fn content(
    bucket: &Bucket,
    listing: &Listing,
    name: &str,
    stamp: &Stamp,
) -> Result<Vec<u8>, SourceError> {
    let key = listing.key(name);
    let content = bucket.small_object(&key, stamp).await?;
    if content.len() as u64 != stamp.size {
        return Err(SourceError::Stale(
            ObjectProblem::Length {
                key: shown(&key),
                bucket: bucket.name.clone(),
                found: content.len(),
                listed: stamp.size,
                name: name.to_owned(),
            }
            .into(),
        ));
    }
    Ok(content)
}
