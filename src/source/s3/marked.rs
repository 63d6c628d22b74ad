//! The sentinel beside the objects of a prefix, which may be their listing.

use reqwest::header::HeaderMap;

use super::client::Bucket;
use super::failures::Failed;
use super::sign::Ask;
use super::transport::MAX_OBJECT_BYTES;
use crate::model::{SENTINEL, Sentinel, SentinelProblem};
use crate::net::http;

/// A sentinel at one moment.
pub struct Found {
    pub sentinel: Result<Sentinel, SentinelProblem>,
    /// With its quotes.
    pub etag: Option<String>,
}

/// The sentinel below `base`, if there is one.
pub async fn find(bucket: &Bucket, base: &str) -> Result<Option<Found>, Failed> {
    let key = format!("{base}{SENTINEL}");
    let client = bucket.client().map_err(Failed::Otherwise)?;
    let ask = Ask::Get { if_match: None };
    let answer = match bucket.ask(&client, &key, &ask, &HeaderMap::new()).await {
        Ok(answer) => answer,
        Err(Failed::Refused(refusal))
            if refusal.status == 404 && refusal.code != "NoSuchBucket" =>
        {
            return Ok(None);
        }
        Err(failed) => return Err(failed),
    };
    let stall = bucket.http.deadlines.stall;
    let content = http::small_body(answer.response, MAX_OBJECT_BYTES, stall).await;
    let content = content.map_err(Failed::Otherwise)?;
    Ok(Some(Found { sentinel: Sentinel::parse(&content), etag: answer.etag }))
}
