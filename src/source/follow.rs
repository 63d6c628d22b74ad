//! Requests that follow redirects, with what a source sends to its own origin kept from every other.
//!
//! Imports `net`; knows no source.

use std::ops::Range;

use reqwest::header::{HeaderMap, RANGE};
use reqwest::{Method, Response};
use url::Url;

use crate::net::http::{self, Http, MAX_REDIRECTS};
use crate::net::{HttpProblem, SourceError, Via};

/// A question, and what goes with it to one origin only.
pub(super) struct Ask<'a> {
    pub method: Method,
    pub url: Url,
    /// None: all of it.
    pub range: Option<&'a Range<u64>>,
    /// For the origin of `home`, and for nobody else.
    pub own: &'a HeaderMap,
    pub home: &'a Url,
}

/// Sends it, and again to wherever it is redirected, by [`http::redirect_target`]'s rules.
pub(super) async fn follow(
    http: &Http,
    via: impl Into<Via<'_>>,
    ask: Ask<'_>,
) -> Result<Response, SourceError> {
    let via = via.into();
    let Ask { method, mut url, range, own, home } = ask;
    for _ in 0..=MAX_REDIRECTS {
        let mut headers = match url.origin() == home.origin() {
            true => own.clone(),
            false => HeaderMap::new(),
        };
        if let Some(value) = range.and_then(http::range_header) {
            headers.insert(RANGE, value);
        }
        let response = http.send(via.clone(), method.clone(), &url, headers).await?;
        let Some(target) = http::redirect_target(&url, &response)? else {
            return Ok(response);
        };
        http::read_off(response, http.deadlines.stall).await;
        url = target;
    }
    let (host, most) = (http::origin(&url), MAX_REDIRECTS);
    Err(SourceError::Protocol(HttpProblem::ManyRedirects { host, most }.into()))
}
