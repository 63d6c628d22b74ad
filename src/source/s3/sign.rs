//! Requests about one object, signed and not yet sent.
//!
//! The SDK knows endpoints, credentials and how to sign; here its request is taken from it just
//! before it would send it. The signature is in the `Authorization` header, which every S3 knows,
//! and is made anew for each request: a server accepts it for a quarter of an hour. The range is
//! added later and is no part of it.

use std::error::Error;
use std::sync::Arc;

use aws_sdk_s3::types::ChecksumMode;
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use url::Url;

use super::caught::Request;
use super::client::{Bucket, Connection};
use super::errors::shown;
use super::failures;
use super::problem::ObjectProblem;
use crate::net::SourceError;

/// What is asked of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// What is known about it; with its checksum, or about one of its parts.
    Head { checksum: bool, part: Option<i32> },
    /// Its bytes, while its ETag is this one.
    Get { if_match: Option<String> },
}

/// A request that lacks nothing but the range, and may be sent as it is. Its headers are secret.
pub struct Signed {
    pub method: Method,
    pub url: Url,
    pub headers: HeaderMap,
    /// Who signed it.
    pub by: Arc<Connection>,
}

impl Bucket {
    pub async fn sign(&self, key: &str, ask: &Ask) -> Result<Signed, SourceError> {
        let by = self.connection().await?;
        // Nothing is sent: the request comes back as an error.
        let stopped: Option<Box<dyn Error>> = match ask.clone() {
            Ask::Head { checksum, part } => {
                let request = by.signer.head_object().bucket(&self.name).key(key);
                let mode = checksum.then_some(ChecksumMode::Enabled);
                let sent = request.set_checksum_mode(mode).set_part_number(part).send().await;
                sent.err().map(Into::into)
            }
            Ask::Get { if_match } => {
                let request = by.signer.get_object().bucket(&self.name).key(key);
                request.set_if_match(if_match).send().await.err().map(Into::into)
            }
        };
        let method = match ask {
            Ask::Head { .. } => Method::HEAD,
            Ask::Get { .. } => Method::GET,
        };
        Signed::caught(method, key, stopped, by)
    }
}

impl Signed {
    /// What `stopped` the SDK before it sent the request.
    pub fn caught(
        method: Method,
        key: &str,
        stopped: Option<Box<dyn Error>>,
        by: Arc<Connection>,
    ) -> Result<Self, SourceError> {
        let broken = || SourceError::Settings(ObjectProblem::Request { key: shown(key) }.into());
        let stopped = stopped.ok_or_else(broken)?;
        let Some(request) = Request::carried_by(stopped.as_ref()) else {
            return Err(failures::failure(stopped.as_ref()));
        };
        let url = Url::parse(&request.url).map_err(|_| broken())?;
        let mut headers = HeaderMap::new();
        for (name, value) in &request.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| broken())?;
            let mut value = HeaderValue::from_str(value).map_err(|_| broken())?;
            value.set_sensitive(matches!(name.as_str(), "authorization" | "x-amz-security-token"));
            headers.append(name, value);
        }
        Ok(Self { method, url, headers, by })
    }
}
