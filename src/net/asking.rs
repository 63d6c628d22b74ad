//! What is asked of which host and what comes of it, for whoever wants to know: a line about each request, a report.
//! Nothing is decided by it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use reqwest::header::{AUTHORIZATION, DATE, HeaderMap, RANGE};
use reqwest::{Method, Response, Url};

use super::error::SourceError;

/// One request and its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    pub method: String,
    /// `scheme://host:port`
    pub origin: String,
    pub path: String,
    /// Such as `bytes=0-99`.
    pub range: Option<String>,
    /// Whether it said who asks, by a header or by a signature in its query.
    pub has_credentials: bool,
    /// The head of the answer, or why none came.
    pub answer: Result<Answer, String>,
    /// Until then.
    pub took: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// The clock of the other side, if it says so, and ours when its answer came.
    pub clocks: Option<(SystemTime, SystemTime)>,
}

/// Is told of each request when it has ended.
pub type Told = Arc<dyn Fn(Exchange) + Send + Sync>;

/// Remembers each request of an [`Http`](super::http::Http), in order. Clones share what was seen.
#[derive(Clone, Debug, Default)]
pub struct Witness(Arc<Mutex<Vec<Exchange>>>);

impl Witness {
    pub fn told(&self) -> Told {
        let witness = self.clone();
        Arc::new(move |exchange| witness.with(|all| all.push(exchange)))
    }

    /// What was seen until now; it is forgotten.
    pub fn take(&self) -> Vec<Exchange> {
        let mut taken = Vec::new();
        self.with(|all| taken = std::mem::take(all));
        taken
    }

    fn with(&self, act: impl FnOnce(&mut Vec<Exchange>)) {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// A request on its way. Costs nothing where nobody wants to know.
pub struct Asking<'a>(Option<Open<'a>>);

struct Open<'a> {
    told: &'a Told,
    exchange: Exchange,
    since: Instant,
}

impl<'a> Asking<'a> {
    pub(super) fn of(
        told: Option<&'a Told>,
        method: &Method,
        url: &Url,
        headers: &HeaderMap,
    ) -> Self {
        Self(told.map(|told| {
            let exchange = Exchange {
                method: method.to_string(),
                origin: url.origin().ascii_serialization(),
                path: url.path().to_owned(),
                range: headers.get(RANGE).and_then(|it| it.to_str().ok()).map(str::to_owned),
                has_credentials: headers.contains_key(AUTHORIZATION) || is_signed(url),
                answer: Err("it was not waited for".into()),
                took: Duration::ZERO,
            };
            Open { told, exchange, since: Instant::now() }
        }))
    }

    pub(super) fn fails(mut self, why: &str) {
        if let Some(open) = &mut self.0 {
            open.exchange.answer = Err(why.to_owned());
        }
    }

    pub fn end(mut self, answer: &Result<Response, SourceError>) {
        if let Some(open) = &mut self.0 {
            open.exchange.answer = answer.as_ref().map(Answer::of).map_err(ToString::to_string);
        }
    }
}

/// Also of a request that nobody waits for any more.
impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let Some(Open { told, exchange, since }) = self.0.take() else { return };
        told(Exchange { took: since.elapsed(), ..exchange });
    }
}

impl Answer {
    fn of(response: &Response) -> Self {
        let date = response.headers().get(DATE).and_then(|date| date.to_str().ok());
        let theirs = date.and_then(|date| httpdate::parse_http_date(date).ok());
        let clocks = theirs.map(|theirs| (theirs, SystemTime::now()));
        Self { status: response.status().as_u16(), clocks }
    }
}

/// Whether the query says who asks, as in links of S3, CloudFront and Azure.
fn is_signed(url: &Url) -> bool {
    let names = ["X-Amz-Signature", "Signature", "sig"];
    url.query_pairs().any(|(name, _)| names.contains(&&*name))
}
