//! How a registry is asked, with a token once it wants one, and what its refusals mean.

use std::ops::Range;
use std::sync::atomic::Ordering;

use aws_lc_rs::digest;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, RANGE};
use reqwest::{Method, Response, StatusCode};
use url::Url;

use super::Oci;
use super::auth::For;
use super::challenge::Challenge;
use super::manifest::{sha256, shown};
use super::problem::{OciProblem, Refused, words};
use crate::model::text;
use crate::net::http::{self, MAX_REDIRECTS};
use crate::net::{BadSetting, HttpProblem, SourceError, Via};
use crate::source::status::{is_no, is_trouble};

/// Clean reads of a manifest whose bytes are wrong, before that is what the registry has.
const MAX_DAMAGED: u32 = 3;

impl Oci {
    pub(super) fn manifest_url(&self, reference: &str) -> Result<Url, SourceError> {
        self.url(&format!("v2/{}/manifests/{reference}", self.artifact.name))
    }

    pub(super) fn blob_url(&self, sha256: &[u8; 32]) -> Result<Url, SourceError> {
        self.url(&format!("v2/{}/blobs/{}", self.artifact.name, shown(sha256)))
    }

    fn url(&self, path: &str) -> Result<Url, SourceError> {
        self.registry.join(path).map_err(|error| {
            let why = format!("cannot become a URL: {error}");
            SourceError::Settings(BadSetting::new("SOURCE", why).into())
        })
    }

    /// Sends a request, which carries what the registry has granted to its own origin only. Where the registry
    /// asks who we are, it is told, and asked once more.
    pub(super) async fn ask(
        &self,
        via: impl Into<Via<'_>>,
        method: Method,
        url: &Url,
        range: Option<&Range<u64>>,
        accept: Option<&'static str>,
    ) -> Result<Response, SourceError> {
        let via = via.into();
        let is_own = url.origin() == self.registry.origin();
        let mut headers = HeaderMap::new();
        if let Some(value) = range.and_then(http::range_header) {
            headers.insert(RANGE, value);
        }
        if let Some(accept) = accept {
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
        }
        let grant = self.auth.grant();
        // What needs a login is no matter for peers; the storage that it leads to is.
        let via = if is_own && grant.header.is_some() { Via::from(via.client) } else { via };
        let mut first = headers.clone();
        if let Some(header) = grant.header.clone().filter(|_| is_own) {
            first.insert(AUTHORIZATION, header);
        }
        let response = self.http.send(via.clone(), method.clone(), url, first).await?;
        if !is_own || response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let Some(challenge) = Challenge::of(response.headers()) else { return Ok(response) };
        let to = For { registry: &self.registry, name: &self.artifact.name };
        let renewed = self.auth.renewed(&self.http, via.client, &challenge, &grant, &to).await?;
        let Some(header) = renewed else { return Ok(response) };
        http::read_off(response, self.http.deadlines.stall).await;
        headers.insert(AUTHORIZATION, header);
        self.http.send(via.client, method, url, headers).await
    }

    /// The same through redirects.
    pub(super) async fn follow(
        &self,
        via: impl Into<Via<'_>>,
        url: &Url,
        range: Option<&Range<u64>>,
        accept: Option<&'static str>,
    ) -> Result<Response, SourceError> {
        let via = via.into();
        let mut url = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.ask(via.clone(), Method::GET, &url, range, accept).await?;
            let Some(target) = http::redirect_target(&url, &response)? else {
                return Ok(response);
            };
            http::read_off(response, self.http.deadlines.stall).await;
            url = target;
        }
        let (host, most) = (http::origin(&url), MAX_REDIRECTS);
        Err(SourceError::Protocol(HttpProblem::ManyRedirects { host, most }.into()))
    }

    /// What it means that a registry does not give what was `asked` for.
    pub(super) async fn refusal(&self, response: Response, asked: String) -> SourceError {
        let (status, url) = (response.status(), response.url().clone());
        let said = words(&http::error_body(response, self.http.deadlines.stall).await);
        let is_own = url.origin() == self.registry.origin();
        let refused = Refused {
            host: http::origin(&url),
            status: status.as_u16(),
            asked,
            said,
            hint: self.auth.hint(status).filter(|_| is_own),
        };
        match status {
            StatusCode::NOT_FOUND | StatusCode::GONE => SourceError::NotFound(refused.into()),
            status if is_trouble(status) => SourceError::Unreachable(refused.into()),
            status if is_no(status) => SourceError::Access(refused.into()),
            _ => SourceError::Protocol(refused.into()),
        }
    }

    /// The bytes of a manifest are not those of its digest: on the way, or at the registry.
    pub(super) fn damaged(&self, found: String, asked: String) -> SourceError {
        let (host, name) = (http::origin(&self.registry), self.shown());
        let problem = OciProblem::OtherManifest { host, name, found, asked };
        match self.damaged.fetch_add(1, Ordering::Relaxed) + 1 {
            MAX_DAMAGED.. => SourceError::Contradiction(problem.into()),
            _ => SourceError::Protocol(problem.into()),
        }
    }
}

/// The digest that the registry tells of what it answers.
pub(super) fn told_digest(headers: &HeaderMap) -> Option<String> {
    let told = headers.get("docker-content-digest")?.to_str().ok()?.trim().to_ascii_lowercase();
    sha256(&told).is_ok().then_some(told)
}

pub(super) fn digest_of(body: &[u8]) -> String {
    let found = digest::digest(&digest::SHA256, body);
    format!("sha256:{}", crate::model::hex::encode(found.as_ref()))
}

/// A file for messages.
pub(super) fn named(file: &str) -> String {
    format!("`{}`", text::inert(file, 200))
}
