//! How a web server is asked: redirects, the login, and how large a file is.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, HeaderName, LAST_MODIFIED};
use reqwest::{Client, Method, Response, StatusCode};
use url::Url;

use super::login::Login;
use super::problem::{self, Asked, WebProblem};
use crate::model::{RelPath, WebLocation, text};
use crate::net::http::{self, Http};
use crate::net::{SourceError, Via, encoding};
use crate::source::follow::{self, Ask};

/// What is written as it is in a path.
const QUOTED_PATH: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');
/// A longer date is none.
const MAX_DATE_BYTES: usize = 64;
const MAX_ETAG_BYTES: usize = 512;

/// A web server, and who asks it.
pub struct Site {
    pub location: WebLocation,
    login: Login,
    http: Http,
    /// For lists and sizes; the bytes of files go over the callers' clients.
    client: Client,
    /// It does not know HEAD.
    has_no_head: AtomicBool,
}

/// A file at one moment.
#[derive(Debug)]
pub struct Look {
    pub size: u64,
    pub validator: Option<String>,
}

impl Site {
    pub fn new(location: WebLocation, login: Login, http: Http) -> Result<Self, SourceError> {
        let client = http.client()?;
        Ok(Self { location, login, http, client, has_no_head: AtomicBool::new(false) })
    }

    /// `scheme://host:port`.
    pub fn host(&self) -> String {
        http::origin(&self.location.url)
    }

    /// Where a file of the directory is; one file has its address from the user.
    pub fn url_of(&self, path: &RelPath) -> Url {
        self.below(path.as_str())
    }

    fn below(&self, path: &str) -> Url {
        let mut url = self.location.url.clone();
        if self.location.is_directory() {
            let path = utf8_percent_encode(path, QUOTED_PATH);
            url.set_path(&format!("{}{path}", self.location.url.path()));
        }
        url
    }

    /// Sends a request and follows its redirects, with the login at the own origin only.
    pub async fn follow(
        &self,
        via: impl Into<Via<'_>>,
        method: Method,
        url: Url,
        range: Option<&Range<u64>>,
    ) -> Result<Response, SourceError> {
        let (own, home) = (self.login.headers(), &self.location.url);
        follow::follow(&self.http, via, Ask { method, url, range, own: &own, home }).await
    }

    /// Passes a successful answer on, and names any other.
    pub async fn accepted(
        &self,
        response: Response,
        asked: &Asked<'_>,
    ) -> Result<Response, SourceError> {
        if response.status().is_success() {
            return Ok(response);
        }
        Err(self.refused(response, asked).await)
    }

    pub async fn refused(&self, response: Response, asked: &Asked<'_>) -> SourceError {
        let (status, host) = (response.status(), http::origin(response.url()));
        let is_elsewhere = host != self.host();
        let said = http::error_body(response, self.http.deadlines.stall).await;
        problem::refused(status, host, said, asked, &self.login, is_elsewhere)
    }

    /// Reads a list beside the files, if it is there. A server that hides names with a dot says 403 of one.
    pub async fn list(&self, name: &'static str, most: usize) -> Result<Answered, SourceError> {
        let response = self.follow(&self.client, Method::GET, self.below(name), None).await?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND | StatusCode::GONE => {
                http::read_off(response, self.http.deadlines.stall).await;
                return Ok(Answered::Absent(None));
            }
            StatusCode::FORBIDDEN => {
                let refused = self.refused(response, &Asked::List(name)).await;
                return Ok(Answered::Absent(Some(refused)));
            }
            _ => return Err(self.refused(response, &Asked::List(name)).await),
        }
        let packed = encoding::claimed(response.headers());
        let host = http::origin(response.url());
        let content = http::small_body(response, most, self.http.deadlines.stall).await?;
        match packed.or_else(|| encoding::seen(&content)) {
            None => Ok(Answered::List(content)),
            Some(packed) => {
                let hint = encoding::hint(Some(&packed)).unwrap_or_default();
                Err(SourceError::Protocol(WebProblem::Packed { host, list: name, hint }.into()))
            }
        }
    }

    /// Looks at a file: by HEAD, or where that tells nothing, by its first byte.
    pub async fn look(&self, url: &Url, asked: &Asked<'_>) -> Result<Look, SourceError> {
        if !self.has_no_head.load(Relaxed) {
            let response = self.follow(&self.client, Method::HEAD, url.clone(), None).await?;
            self.check_file(url, &response)?;
            let (status, headers) = (response.status(), response.headers());
            let size = text_of(headers, &CONTENT_LENGTH).and_then(|length| length.parse().ok());
            let size = size.filter(|_| encoding::claimed(headers).is_none());
            match (status.is_success(), size) {
                (true, Some(size)) => return Ok(Look { size, validator: validator(headers) }),
                (true, None) | (false, _) if is_about_head(status) => {
                    self.has_no_head.fetch_or(!status.is_success(), Relaxed);
                }
                _ => return Err(self.refused(response, asked).await),
            }
        }
        let first = 0..1;
        let response = self.follow(&self.client, Method::GET, url.clone(), Some(&first)).await?;
        self.check_file(url, &response)?;
        let headers = response.headers();
        let total = text_of(headers, &CONTENT_RANGE).and_then(total);
        let size = match response.status() {
            StatusCode::PARTIAL_CONTENT => total,
            StatusCode::RANGE_NOT_SATISFIABLE => total.filter(|size| *size == 0),
            StatusCode::OK => text_of(headers, &CONTENT_LENGTH).and_then(|it| it.parse().ok()),
            _ => return Err(self.refused(response, asked).await),
        };
        let Some(size) = size else {
            let (host, name) = (http::origin(response.url()), asked.name());
            return Err(SourceError::Protocol(WebProblem::NoSize { host, name }.into()));
        };
        Ok(Look { size, validator: validator(headers) })
    }

    /// An address that leads to the same with a `/` behind it is that of a directory.
    fn check_file(&self, asked: &Url, response: &Response) -> Result<(), SourceError> {
        match response.url().path().strip_suffix('/') == Some(asked.path()) {
            true => {
                let place = text::inert(asked.as_str(), 200);
                Err(SourceError::NotFound(WebProblem::Directory { place }.into()))
            }
            false => Ok(()),
        }
    }
}

/// What came of the question for a list.
pub enum Answered {
    List(Vec<u8>),
    /// With what it was refused, where it may be there.
    Absent(Option<SourceError>),
}

/// Whether an answer may be about the way of asking: GET will say it in words.
fn is_about_head(status: StatusCode) -> bool {
    status.is_success()
        || matches!(
            status,
            StatusCode::FORBIDDEN | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED
        )
}

/// What tells one version of a file from another: a strong ETag, or the time of its last change.
pub fn validator(headers: &HeaderMap) -> Option<String> {
    let etag = text_of(headers, &ETAG).map(str::trim).filter(|it| it.len() <= MAX_ETAG_BYTES);
    let etag = etag.filter(|it| it.starts_with('"') && it.ends_with('"') && it.len() > 2);
    let date = || text_of(headers, &LAST_MODIFIED).filter(|it| it.len() <= MAX_DATE_BYTES);
    etag.or_else(date).map(|value| text::inert(value, MAX_ETAG_BYTES))
}

/// The size of the whole in `bytes 0-0/1000`.
fn total(content_range: &str) -> Option<u64> {
    content_range.rsplit_once('/')?.1.trim().parse().ok()
}

fn text_of<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value"))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn a_version_is_told_by_a_strong_etag_or_else_by_its_time() {
        const TIME: &str = "Wed, 21 Oct 2015 07:28:00 GMT";
        for (pairs, told) in [
            (&[("etag", "\"a\""), ("last-modified", TIME)][..], Some("\"a\"")),
            (&[("etag", "W/\"a\""), ("last-modified", TIME)], Some(TIME)),
            (&[("etag", "\"\"")], None),
            (&[("etag", "a")], None),
            (&[], None),
        ] {
            assert_eq!(validator(&headers(pairs)).as_deref(), told, "{pairs:?}");
        }
    }

    #[test]
    fn the_total_of_a_range_is_read() {
        assert_eq!(total("bytes 0-0/7"), Some(7));
        assert_eq!(total("bytes */0"), Some(0));
        assert_eq!((total("bytes 0-0/*"), total("0-0")), (None, None));
    }
}
