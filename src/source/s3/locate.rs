//! What a key without a `/` at its end names: the object of exactly this key, or what lies below it.
//!
//! Only a 404 proves that an object is not there. Another refusal may be about anything, and one to
//! HEAD does not even say about what: then the first byte is asked for, which is answered in words.

use super::client::Bucket;
use super::errors::{Asked, Refusal, shown};
use super::failures::Failed;
use super::listing::{Entry, Listing, Stamp, entry};
use super::look::Look;
use super::pages::Pages;
use crate::net::SourceError;

/// What S3 says about one key.
enum Found {
    Here(Stamp),
    /// 404.
    Absent,
    Refused(Refusal),
}

/// The listing that `key` names.
pub async fn listing(bucket: &Bucket, key: &str) -> Result<Listing, SourceError> {
    // A prefix is a directory: `llama` is `llama/`, and never `llama-70b/`.
    let prefix = format!("{key}/");
    match find(bucket, key).await? {
        Found::Absent => Listing::below(bucket, prefix).await,
        Found::Here(stamp) => match (stamp.size, holds_objects(bucket, &prefix).await) {
            // The empty object only says that there is a directory.
            (0, Ok(true)) => Listing::below(bucket, prefix).await,
            (_, Ok(true)) => Err(SourceError::Changed(format!(
                "both exist in bucket `{}`: object `{key}` and objects below `{prefix}`; write a \
                 trailing slash (`{prefix}`) for those, or name the object by its prefix and \
                 `--include`",
                bucket.name,
                key = shown(key),
                prefix = shown(&prefix)
            ))),
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

/// The size of an object that was listed without one.
pub async fn size(bucket: &Bucket, key: &str) -> Result<u64, SourceError> {
    match find(bucket, key).await? {
        Found::Here(stamp) => Ok(stamp.size),
        Found::Absent => Err(SourceError::Protocol(format!(
            "S3 lists `{}` without a size, and does not have it",
            shown(key)
        ))),
        Found::Refused(refusal) => Err(refusal.explain(&bucket.name, Asked::Object(key))),
    }
}

async fn find(bucket: &Bucket, key: &str) -> Result<Found, SourceError> {
    let refusal = match found(bucket.look(key).await, bucket, key)? {
        Found::Refused(refusal) => refusal,
        found => return Ok(found),
    };
    // Where HEAD is refused, it does not even say why.
    match refusal.code.as_str() {
        "" => found(bucket.first_byte(key).await, bucket, key),
        _ => Ok(Found::Refused(refusal)),
    }
}

fn found(look: Result<Look, Failed>, bucket: &Bucket, key: &str) -> Result<Found, SourceError> {
    match look {
        Ok(Look { size: Some(size), etag, .. }) => {
            Ok(Found::Here(Stamp::of(size, etag.as_deref())))
        }
        Ok(_) => Err(SourceError::Protocol(format!("S3 tells no size of `{}`", shown(key)))),
        Err(Failed::Refused(refusal)) if refusal.status == 404 => Ok(Found::Absent),
        Err(Failed::Refused(refusal)) if !refusal.is_passing() => Ok(Found::Refused(refusal)),
        Err(failed) => Err(failed.explain(&bucket.name, Asked::Object(key))),
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
