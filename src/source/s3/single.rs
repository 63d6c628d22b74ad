//! Whether there is an object of exactly one key.
//!
//! Only a 404 proves that an object is not there. Another refusal may be about anything, and one to
//! HEAD does not even say about what: then the first byte is asked for, which is answered in words.

use super::client::Bucket;
use super::errors::{Asked, Refusal, shown};
use super::failures::Failed;
use super::look::Look;
use super::problem::{ListingProblem, ObjectProblem};
use super::stamp::Stamp;
use crate::net::SourceError;

/// What S3 says about one key.
pub enum Found {
    Here(Stamp),
    /// 404.
    Absent,
    Refused(Refusal),
}

/// The size of an object that was listed without one.
pub async fn size(bucket: &Bucket, key: &str) -> Result<u64, SourceError> {
    match find(bucket, key).await? {
        Found::Here(stamp) => Ok(stamp.size),
        Found::Absent => {
            Err(SourceError::Protocol(ListingProblem::Ghost { key: shown(key) }.into()))
        }
        Found::Refused(refusal) => Err(refusal.explain(&bucket.name, Asked::Object(key))),
    }
}

/// Looks for the object of exactly this key.
pub async fn find(bucket: &Bucket, key: &str) -> Result<Found, SourceError> {
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
        Ok(Look { size: Some(size), etag, modified, .. }) => {
            Ok(Found::Here(Stamp::of(size, etag.as_deref(), modified.as_deref())))
        }
        Ok(_) => Err(SourceError::Protocol(ObjectProblem::NoSize { key: shown(key) }.into())),
        Err(Failed::Refused(refusal)) if refusal.status == 404 => Ok(Found::Absent),
        Err(Failed::Refused(refusal)) if !refusal.is_passing() => Ok(Found::Refused(refusal)),
        Err(failed) => Err(failed.explain(&bucket.name, Asked::Object(key))),
    }
}
