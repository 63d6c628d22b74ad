//! What is asked of which host and what comes of it, for whoever wants a line about each request.

use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::header::{AUTHORIZATION, HeaderMap, RANGE};
use reqwest::{Method, Response, Url};

use super::error::SourceError;

/// One request and its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub method: String,
    /// Without a query, which may be a signature.
    pub url: String,
    /// Such as `bytes=0-99`.
    pub range: Option<String>,
    /// Whether it said who asks, by a header or by a signature in its query.
    pub has_credentials: bool,
    /// The status, or why none came.
    pub answer: Result<u16, String>,
    /// Until the head of the answer.
    pub took: Duration,
}

/// Is told of each request when the head of its answer is there.
pub type Told = Arc<dyn Fn(Asked) + Send + Sync>;

/// A request on its way. Costs nothing where nobody wants to know.
pub struct Asking<'a>(Option<Open<'a>>);

struct Open<'a> {
    told: &'a Told,
    asked: Asked,
    since: Instant,
}

/// Whether the query says who asks, as in links of S3, CloudFront and Azure.
fn is_signed(url: &Url) -> bool {
    let names = ["X-Amz-Signature", "Signature", "sig"];
    url.query_pairs().any(|(name, _)| names.contains(&&*name))
}

impl<'a> Asking<'a> {
    pub(super) fn of(
        told: Option<&'a Told>,
        method: &Method,
        url: &Url,
        headers: &HeaderMap,
    ) -> Self {
        Self(told.map(|told| {
            let asked = Asked {
                method: method.to_string(),
                url: format!("{}{}", url.origin().ascii_serialization(), url.path()),
                range: headers.get(RANGE).and_then(|it| it.to_str().ok()).map(str::to_owned),
                has_credentials: headers.contains_key(AUTHORIZATION) || is_signed(url),
                answer: Ok(0),
                took: Duration::ZERO,
            };
            Open { told, asked, since: Instant::now() }
        }))
    }

    pub fn end(self, answer: &Result<Response, SourceError>) {
        let Some(Open { told, asked, since }) = self.0 else { return };
        let answer = match answer {
            Ok(response) => Ok(response.status().as_u16()),
            Err(error) => Err(error.to_string()),
        };
        told(Asked { answer, took: since.elapsed(), ..asked });
    }
}
