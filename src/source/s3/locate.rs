//! What a key without a `/` at its end names: the object of exactly this key, or what lies below it.

use super::client::Bucket;
use super::errors::{Asked, shown};
use super::failures::Failed;
use super::listing::{Entry, Listing, entry};
use super::marked;
use super::pages::Pages;
use super::problem::ListingProblem;
use super::single::{Found, find};
use crate::model::{MirrorState, S3Location, Sentinel};
use crate::net::SourceError;
use crate::source::beside::is_being_written;

/// Lists what `location` names: a prefix, or the one object of exactly this key. A sentinel that mirror has
/// written there is the listing, unless it is not to be believed.
pub async fn listing(
    bucket: &Bucket,
    location: &S3Location,
    believes_sentinel: bool,
) -> Result<Listing, SourceError> {
    let key = &location.key;
    if key.is_empty() || key.ends_with('/') {
        below(bucket, key.clone(), believes_sentinel).await
    } else {
        of_key(bucket, key, believes_sentinel).await
    }
}

/// What lies below `base`: what mirror says, or what the store lists.
async fn below(
    bucket: &Bucket,
    base: String,
    believes_sentinel: bool,
) -> Result<Listing, SourceError> {
    if believes_sentinel && let Some(sentinel) = sentinel(bucket, &base).await? {
        let place = format!("s3://{}/{base}", bucket.name);
        match sentinel.mirrored_at(&place) {
            Some(MirrorState::Complete) => return Listing::of_mirror(base, &sentinel),
            Some(MirrorState::Writing) => {
                return Err(is_being_written(&place));
            }
            // It gives digests to a listing.
            None => {}
        }
    }
    Listing::below(bucket, base).await
}

/// The sentinel below `base`, if there is one that can be read. Where the question is refused, the listing
/// will say more.
async fn sentinel(bucket: &Bucket, base: &str) -> Result<Option<Sentinel>, SourceError> {
    match marked::find(bucket, base).await {
        Ok(found) => Ok(found.and_then(|found| found.sentinel.ok())),
        Err(Failed::Refused(refusal)) if !refusal.is_passing() => Ok(None),
        Err(Failed::Otherwise(
            SourceError::Protocol(_) | SourceError::Unsafe(_) | SourceError::Settings(_),
        )) => Ok(None),
        Err(failed) => Err(failed.explain(&bucket.name, Asked::List(base))),
    }
}

/// The listing that `key` names.
async fn of_key(
    bucket: &Bucket,
    key: &str,
    believes_sentinel: bool,
) -> Result<Listing, SourceError> {
    // A prefix is a directory: `llama` is `llama/`, and never `llama-70b/`.
    let prefix = format!("{key}/");
    match find(bucket, key).await? {
        Found::Absent => below(bucket, prefix, believes_sentinel).await,
        Found::Here(stamp) => match (stamp.size, holds_objects(bucket, &prefix).await) {
            // The empty object only says that there is a directory.
            (0, Ok(true)) => below(bucket, prefix, believes_sentinel).await,
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
                return below(bucket, prefix, believes_sentinel).await.map_err(
                    |error| match error {
                        SourceError::NotFound(_) => refused(),
                        error => error,
                    },
                );
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
