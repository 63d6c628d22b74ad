//! What a key without a `/` at its end names: the object of exactly this key, or what lies below it.

use super::listing::{Entry, Listing, Pages, entry};
use super::problem::CloudProblem;
use super::refusal::{Asked, Failed, shown};
use super::store::Store;
use crate::net::SourceError;

/// Lists what `key` names: a prefix, or the one object of exactly this key.
pub async fn listing(store: &impl Store, key: &str) -> Result<Listing, SourceError> {
    if key.is_empty() || key.ends_with('/') {
        return Listing::below(store, key.to_owned()).await;
    }
    // A prefix is a directory: `llama` is `llama/`, and never `llama-70b/`.
    let prefix = format!("{key}/");
    let refusal = match store.look(key).await {
        Ok(None) => return Listing::below(store, prefix).await,
        Ok(Some(found)) if found.is_directory => return Listing::below(store, prefix).await,
        Ok(Some(found)) => {
            return match (found.size, holds_objects(store, &prefix).await) {
                // The empty object only says that there is a directory.
                (Some(0), Ok(true)) => Listing::below(store, prefix).await,
                (_, Ok(true)) => {
                    let (place, key) = (store.called().to_owned(), shown(key));
                    Err(SourceError::Changed(CloudProblem::Ambiguous { place, key }.into()))
                }
                // Who may not list can name one object only.
                (_, Ok(false) | Err(SourceError::Access(_) | SourceError::NotFound(_))) => {
                    Listing::of_one(store, key, found)
                }
                (_, Err(error)) => Err(error),
            };
        }
        Err(Failed::Refused(refusal)) => refusal,
        Err(Failed::Otherwise(error)) => return Err(error),
    };
    // The listing tells what is there without a right to read.
    if refusal.is_denial() && matches!(is_listed(store, key).await, Ok(false)) {
        return match Listing::below(store, prefix).await {
            Err(SourceError::NotFound(_)) => Err(refusal.explain(store, Asked::Object(key))),
            listing => listing,
        };
    }
    Err(refusal.explain(store, Asked::Object(key)))
}

/// Whether anything that could be of a model lies below `prefix`.
async fn holds_objects(store: &impl Store, prefix: &str) -> Result<bool, SourceError> {
    let mut pages = Pages::of(store, prefix);
    while let Some(page) = pages.next().await? {
        for found in page.objects {
            match entry(store, prefix, found)? {
                Entry::File(_) | Entry::Refused(_) | Entry::Sentinel(_) => return Ok(true),
                Entry::Marker | Entry::Skipped(..) => {}
            }
        }
    }
    Ok(false)
}

/// Whether the listing has an object of exactly this key, which is then the first with this prefix.
async fn is_listed(store: &impl Store, key: &str) -> Result<bool, SourceError> {
    let mut pages = Pages::of(store, key);
    while let Some(page) = pages.next().await? {
        if !page.objects.is_empty() {
            return Ok(page.objects.iter().any(|found| found.key == key && !found.is_directory));
        }
    }
    Ok(false)
}
