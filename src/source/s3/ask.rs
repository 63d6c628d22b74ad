//! Sends a request about one object: over the client of whoever asks, and to where the store says.

use std::time::{Duration, Instant};

use reqwest::header::{ACCEPT_ENCODING, ETAG, HeaderMap, RANGE};
use reqwest::{Method, Response, StatusCode};
use url::Url;

use super::client::Bucket;
use super::errors::Refusal;
use super::failures::Failed;
use super::problem::ObjectProblem;
use super::sign::{Ask, Signed};
use super::stamp::strong;
use super::transport::SLOW_DOWN;
use super::ways::Way;
use crate::net::http::{self, MAX_REDIRECTS, error_body};
use crate::net::{HttpProblem, SourceError, Via};

/// A signature that has waited longer for its turn than this is made anew.
const SIGNATURE_WAITS: Duration = Duration::from_secs(60);
/// Fresh redirects in a row that lead to a refusal, after which there is no access.
const MAX_STRIKES: u32 = 4;

/// An answer with what was asked for.
pub struct Answer {
    pub response: Response,
    /// The ETag that the store itself told.
    pub etag: Option<String>,
    /// The store has sent us on to another place, whose ETags are its own.
    pub is_elsewhere: bool,
}

impl Bucket {
    /// Sends `ask` with `plain`, which is not signed, and once more where a refusal says what to do
    /// better.
    pub async fn ask(
        &self,
        via: impl Into<Via<'_>>,
        key: &str,
        ask: &Ask,
        plain: &HeaderMap,
    ) -> Result<Answer, Failed> {
        let via = via.into();
        let mut amendments = 0;
        loop {
            let signed = self.signed_when_due(|| self.sign(key, ask)).await;
            let signed = signed.map_err(Failed::Otherwise)?;
            let mut headers = signed.headers.clone();
            headers.extend(plain.iter().map(|(name, value)| (name.clone(), value.clone())));
            let sent =
                self.http.send(via.clone(), signed.method.clone(), &signed.url, headers).await;
            let response = sent.map_err(Failed::Otherwise)?;
            let etag = etag(&response);
            if response.status().is_success() {
                return Ok(Answer { response, etag, is_elsewhere: false });
            }
            let target = http::redirect_target(&signed.url, &response);
            let refusal = Refusal::read(response, self.http.deadlines.stall).await;
            match target {
                Ok(Some(target)) if is_sent_on(ask, &refusal, &signed) => {
                    let response = self.follow(via, &signed.url, target, plain).await?;
                    return Ok(Answer { response, etag, is_elsewhere: true });
                }
                Err(error @ SourceError::Unsafe(_)) if is_sent_on(ask, &refusal, &signed) => {
                    return Err(Failed::Otherwise(error));
                }
                _ => {}
            }
            if refusal.is_slow_down() {
                let host = http::origin(&signed.url);
                let wait = self.http.pace.slow_down(&host, SLOW_DOWN);
                return Err(Failed::Otherwise(SourceError::RateLimited { host, wait }));
            }
            if amendments == 2 || !self.amend(&signed.by, &refusal).await {
                return Err(Failed::Refused(refusal));
            }
            amendments += 1;
        }
    }

    /// Signs when the host may be called: a pause that it asked for can outlast a signature.
    pub async fn signed_when_due<Signing>(
        &self,
        sign: impl Fn() -> Signing,
    ) -> Result<Signed, SourceError>
    where
        Signing: Future<Output = Result<Signed, SourceError>>,
    {
        loop {
            let signed = sign().await?;
            let began = Instant::now();
            self.http.pace.wait(&http::origin(&signed.url)).await;
            if began.elapsed() < SIGNATURE_WAITS {
                return Ok(signed);
            }
        }
    }

    /// Follows a redirect of a read. Nothing that was signed goes along, to whatever place.
    async fn follow(
        &self,
        via: Via<'_>,
        from: &Url,
        target: Url,
        plain: &HeaderMap,
    ) -> Result<Response, Failed> {
        self.ways.learn(Way::SendsOn, || {
            format!(
                "`{}` redirects reads to `{}`; they are sent there without credentials",
                http::origin(from),
                http::origin(&target)
            )
        });
        let mut headers = HeaderMap::new();
        for name in [RANGE, ACCEPT_ENCODING] {
            if let Some(value) = plain.get(&name) {
                headers.insert(name, value.clone());
            }
        }
        let mut url = target;
        for _ in 0..MAX_REDIRECTS {
            let sent = self.http.send(via.clone(), Method::GET, &url, headers.clone()).await;
            let response = sent.map_err(Failed::Otherwise)?;
            match http::redirect_target(&url, &response).map_err(Failed::Otherwise)? {
                Some(next) => {
                    http::read_off(response, self.http.deadlines.stall).await;
                    url = next;
                }
                None if response.status().is_success() => {
                    self.ways.sent_on_well();
                    return Ok(response);
                }
                None => return Err(Failed::Otherwise(self.refused_elsewhere(response).await)),
            }
        }
        Err(Failed::Otherwise(SourceError::Protocol(
            HttpProblem::ManyRedirects { host: http::origin(from), most: MAX_REDIRECTS }.into(),
        )))
    }

    async fn refused_elsewhere(&self, response: Response) -> SourceError {
        let (status, host) = (response.status(), http::origin(response.url()));
        let said = error_body(response, self.http.deadlines.stall).await;
        let what = ObjectProblem::Elsewhere { host, status: status.as_u16(), said }.into();
        match status {
            StatusCode::PRECONDITION_FAILED | StatusCode::RANGE_NOT_SATISFIABLE => {
                SourceError::Stale(what)
            }
            // A link may have expired before it was used: the next one is fresh.
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
                if self.ways.sent_on_badly() >= MAX_STRIKES =>
            {
                SourceError::Access(what)
            }
            status if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT => {
                SourceError::Unreachable(what)
            }
            _ => SourceError::Protocol(what),
        }
    }
}

/// Whether a redirect is a way to the bytes, rather than to the region that the bucket is in.
fn is_sent_on(ask: &Ask, refusal: &Refusal, signed: &Signed) -> bool {
    let about_region = refusal.region_instead_of(&signed.by.region).is_some()
        || matches!(refusal.code.as_str(), "TemporaryRedirect" | "PermanentRedirect");
    matches!(ask, Ask::Get { .. }) && !about_region
}

/// The ETag of an answer, if it can be matched.
pub fn etag(response: &Response) -> Option<String> {
    strong(response.headers().get(ETAG)?.to_str().ok()?)
}
