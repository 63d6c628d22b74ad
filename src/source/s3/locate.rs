//! What a key without a `/` at its end names: the object of exactly this key, or what lies below it.

use super::client::Bucket;
use super::errors::{Asked, shown};
use super::listing::{Entry, Listing, entry};
use super::pages::Pages;
use super::problem::ListingProblem;
use super::single::{Found, find};
use crate::model::S3Location;
use crate::net::SourceError;

/// Lists what `location` names: a prefix, or the one object of exactly this key.
pub async fn listing(bucket: &Bucket, location: &S3Location) -> Result<Listing, SourceError> {
    let key = &location.key;
    if key.is_empty() || key.ends_with('/') {
        Listing::below(bucket, key.clone()).await
    } else {
        of_key(bucket, key).await
    }
}

/// The listing that `key` names.
async fn of_key(bucket: &Bucket, key: &str) -> Result<Listing, SourceError> {
    // A prefix is a directory: `llama` is `llama/`, and never `llama-70b/`.
    let prefix = format!("{key}/");
    match find(bucket, key).await? {
        Found::Absent => Listing::below(bucket, prefix).await,
        Found::Here(stamp) => match (stamp.size, holds_objects(bucket, &prefix).await) {
            // The empty object only says that there is a directory.
            (0, Ok(true)) => Listing::below(bucket, prefix).await,
            (_, Ok(true)) => {
                let (bucket, key) = (bucket.name.clone(), shown(key));
                Err(SourceError::Changed(ListingProblem::Ambiguous { bucket, key }.into()))
            }
            // Who may not list can name one object only.
            (_, Ok(false) | Err(SourceError::Access(_) | SourceError::NotFound(_))) => {
                Listing::of_one(key, stamp)
            }
            (_, Err(error)) => Err(error),
        },
        Found::Refused(refusal) => {
            let denied = matches!(refusal.status, 401 | 403);
            let refused = || refusal.explain(&bucket.name, Asked::Object(key));
            // The listing tells what is there without a right to read.
            if denied && matches!(is_listed(bucket, key).await, Ok(false)) {
                return Listing::below(bucket, prefix).await.map_err(|error| match error {
                    SourceError::NotFound(_) => refused(),
                    error => error,
                });
            }
            Err(refused())
        }
    }
}

/// Whether anything that could be of a model lies below `prefix`.
async fn holds_objects(bucket: &Bucket, prefix: &str) -> Result<bool, SourceError> {
    let mut pages = Pages::of(bucket, prefix);
    while let Some(page) = pages.next().await? {
        for found in &page.objects {
            match entry(prefix, found, found.size.unwrap_or(1))? {
                Entry::File(_) | Entry::Refused(_) | Entry::Sentinel(_) => return Ok(true),
                Entry::Marker | Entry::Skipped(_) => {}
            }
        }
    }
    Ok(false)
}

/// Whether the listing has an object of exactly this key, which is then the first with this prefix.
async fn is_listed(bucket: &Bucket, key: &str) -> Result<bool, SourceError> {
    let mut pages = Pages::of(bucket, key);
    while let Some(page) = pages.next().await? {
        if !page.objects.is_empty() {
            return Ok(page.objects.iter().any(|found| found.key == key));
        }
    }
    Ok(false)
}
