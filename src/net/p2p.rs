//! Bytes through a node's dfdaemon, the proxy of Dragonfly: whichever of its peers has them gives them, so
//! that the origin sends one copy to a cluster.
//!
//! It is asked for content, not for a place: the task has the SHA-256 for its name, whatever signed link leads
//! to the bytes. Neither the daemon nor a peer is believed. An answer that is not exactly the range that was
//! asked for is none, and the origin is asked at once; who has brought wrong bytes twice is left alone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use reqwest::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, COOKIE, HeaderMap, HeaderName, HeaderValue, RANGE,
};
use reqwest::{Client, Response, StatusCode};
use url::Url;

use super::body::check_content_range;
use super::via::{BrokeOff, Content, Detour, MakeClient};
use super::{SourceError, http};
use crate::model::{Message, RemoteFile, hex, text};

const USE_P2P: HeaderName = HeaderName::from_static("x-dragonfly-use-p2p");
/// The first range that anybody asks for makes the daemon fetch the file for its peers.
const PREFETCH: HeaderName = HeaderName::from_static("x-dragonfly-prefetch");
const TASK: HeaderName = HeaderName::from_static("x-dragonfly-content-for-calculating-task-id");
/// Says that an answer is an error, and whose: `proxy`, `dfdaemon` or `backend`.
const ERROR_TYPE: HeaderName = HeaderName::from_static("x-dragonfly-error-type");

/// A daemon that could not be used is left alone for this long.
const PAUSE: Duration = Duration::from_secs(30);
/// Failures of one file, whether answers or wrong bytes, after which it is read directly.
const MAX_FAILURES: u32 = 2;

/// Where a node's daemon is reached, and how it is to be spoken to.
#[derive(Clone, PartialEq, Eq)]
pub struct Dragonfly {
    /// Of its proxy. It can hold a password: there is no `Debug` but one without.
    pub proxy: Url,
    /// Links to `https` are handed to it as `http`: a rule of its own (`useTLS`) makes them `https` again, and
    /// nobody needs its certificate.
    pub is_plain: bool,
}

impl std::fmt::Debug for Dragonfly {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (proxy, is_plain) = (http::origin(&self.proxy), self.is_plain);
        out.debug_struct("Dragonfly").field("proxy", &proxy).field("is_plain", &is_plain).finish()
    }
}

/// A daemon, and what has been learnt of it. Clones of `Http` share it.
pub struct P2p {
    dragonfly: Dragonfly,
    /// One for each thread: a worker's connections live on its own.
    clients: Mutex<HashMap<ThreadId, Client>>,
    known: Arc<Known>,
}

/// What bodies that are still on their way report to.
struct Known {
    proxy: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The daemon as a whole is left alone until then.
    paused_until: Option<Instant>,
    files: HashMap<[u8; 32], Standing>,
    warnings: Vec<String>,
    said: Said,
}

/// Each is said once.
#[derive(Default)]
struct Said {
    fallback: bool,
    secret: bool,
    wrong: bool,
}

/// How a file has fared.
#[derive(Default)]
struct Standing {
    failures: u32,
    /// Bytes of it have come since it was last found to be wrong.
    has_served: bool,
}

/// Why an answer of the daemon is none.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    #[error("{0}")]
    Sending(SourceError),
    #[error("it answered {status}{}", of_whom(.whose))]
    Refused { status: u16, whose: Option<String> },
    #[error("it did not answer with the requested range")]
    OtherRange,
    #[error("it closed the connection early")]
    BrokeOff,
}

fn of_whom(whose: &Option<String>) -> String {
    whose.as_ref().map(|whose| format!(" (an error of `{whose}`)")).unwrap_or_default()
}

impl P2p {
    pub fn new(dragonfly: Dragonfly) -> Self {
        let known = Known { proxy: http::origin(&dragonfly.proxy), state: Mutex::default() };
        Self { dragonfly, clients: Mutex::default(), known: Arc::new(known) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.known.state()
    }

    fn may_be_asked(&self, headers: &HeaderMap, content: &Content) -> bool {
        let mut state = self.state();
        if state.files.get(&content.sha256).is_some_and(|file| file.failures >= MAX_FAILURES) {
            return false;
        }
        if state.paused_until.is_some_and(|until| Instant::now() < until) {
            return false;
        }
        if !holds_token(headers) {
            return true;
        }
        if !std::mem::replace(&mut state.said.secret, true) {
            state.warnings.push(
                "files that need a token are not read through Dragonfly: its daemon would see and log the token"
                    .into(),
            );
        }
        false
    }

    async fn answer(
        &self,
        make: MakeClient<'_>,
        url: &Url,
        headers: &HeaderMap,
        content: &Content,
        deadline: Duration,
    ) -> Result<Response, NoAnswer> {
        let client = self.client(make).map_err(NoAnswer::Sending)?;
        let mut headers = headers.clone();
        headers.insert(USE_P2P, HeaderValue::from_static("true"));
        let task = format!("sha256:{}", hex::encode(&content.sha256));
        headers.insert(TASK, HeaderValue::from_str(&task).map_err(|_| NoAnswer::OtherRange)?);
        let is_part = headers.contains_key(RANGE);
        if is_part {
            headers.insert(PREFETCH, HeaderValue::from_static("true"));
        }
        let url = self.url(url);
        let sending = client.get(url).headers(headers).send();
        let origin = http::origin(&self.dragonfly.proxy);
        let response = match tokio::time::timeout(deadline, sending).await {
            Err(_) => return Err(NoAnswer::Sending(http::no_answer(origin, deadline))),
            Ok(Err(error)) => {
                return Err(NoAnswer::Sending(http::transport_error(&origin, &error)));
            }
            Ok(Ok(response)) => response,
        };
        let mut response = response;
        let text_of = |name: &HeaderName| response.headers().get(name)?.to_str().ok();
        let status = response.status();
        let whose = text_of(&ERROR_TYPE).map(|whose| text::inert(whose, 20));
        if whose.is_some() || !matches!(status, StatusCode::OK | StatusCode::PARTIAL_CONTENT) {
            return Err(NoAnswer::Refused { status: status.as_u16(), whose });
        }
        let length = text_of(&CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
        let Content { size, range, .. } = content;
        let is_right = match status {
            StatusCode::PARTIAL_CONTENT => {
                check_content_range(text_of(&CONTENT_RANGE), range, Some(*size)).is_ok()
                    && length.is_none_or(|length| length == range.end - range.start)
            }
            // Daemons of before June 2026 answer so to a range, of which nothing can be told.
            _ => !is_part && length.is_none_or(|length| length == *size),
        };
        if !is_right {
            return Err(NoAnswer::OtherRange);
        }
        // All others are of whichever place the task was first read from.
        let kept = [CONTENT_RANGE, CONTENT_LENGTH];
        let gone: Vec<HeaderName> =
            response.headers().keys().filter(|name| !kept.contains(name)).cloned().collect();
        gone.iter().for_each(|name| _ = response.headers_mut().remove(name));
        Ok(response)
    }

    fn url(&self, url: &Url) -> Url {
        let mut url = url.clone();
        if self.dragonfly.is_plain && url.scheme() == "https" {
            let port = url.port();
            // Between schemes of the web this always works. A port that is not the usual one stays.
            let _ = url.set_scheme("http");
            let _ = url.set_port(port);
        }
        url
    }

    fn client(&self, make: MakeClient<'_>) -> Result<Client, SourceError> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let thread = std::thread::current().id();
        if let Some(client) = clients.get(&thread) {
            return Ok(client.clone());
        }
        let client = make(&self.dragonfly.proxy)?;
        clients.insert(thread, client.clone());
        Ok(client)
    }
}

impl Known {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, sha256: &[u8; 32], why: &NoAnswer) {
        let is_of_file = matches!(why, NoAnswer::BrokeOff | NoAnswer::OtherRange);
        match why {
            // It is the origin's word, about a link that has expired, say: the direct way hears it too.
            NoAnswer::Refused { whose: Some(whose), .. } if whose == "backend" => return,
            // So is what a proxy passes on that is no daemon for this request.
            NoAnswer::Refused { whose: None, status } if *status < 500 => return,
            _ => {}
        }
        let mut state = self.state();
        if is_of_file {
            state.files.entry(*sha256).or_default().failures += 1;
        } else {
            state.paused_until = Some(Instant::now() + PAUSE);
        }
        if !std::mem::replace(&mut state.said.fallback, true) {
            let proxy = &self.proxy;
            state.warnings.push(format!(
                "Dragonfly at `{proxy}` could not be used: {why}; continuing without it, and trying it again later"
            ));
        }
    }
}

#[async_trait]
impl Detour for P2p {
    async fn ask(
        &self,
        make: MakeClient<'_>,
        url: &Url,
        headers: &HeaderMap,
        content: &Content,
        deadline: Duration,
    ) -> Option<Response> {
        if !self.may_be_asked(headers, content) {
            return None;
        }
        let sha256 = content.sha256;
        let mut response = match self.answer(make, url, headers, content, deadline).await {
            Ok(response) => response,
            Err(why) => {
                self.known.failed(&sha256, &why);
                return None;
            }
        };
        self.state().files.entry(sha256).or_default().has_served = true;
        let known = self.known.clone();
        let broke_off = move || known.failed(&sha256, &NoAnswer::BrokeOff);
        response.extensions_mut().insert(BrokeOff(Arc::new(broke_off)));
        Some(response)
    }

    fn is_to_blame(&self, file: &RemoteFile) -> bool {
        let Some(sha256) = file.digest.as_ref().and_then(|digest| digest.sha256()) else {
            return false;
        };
        let mut state = self.state();
        let Some(standing) = state.files.get_mut(&sha256) else { return false };
        if !std::mem::take(&mut standing.has_served) {
            return false;
        }
        standing.failures += 1;
        let is_over = standing.failures >= MAX_FAILURES;
        if is_over && !std::mem::replace(&mut state.said.wrong, true) {
            let path = text::inert(file.path.as_str(), 100);
            state.warnings.push(format!(
                "peers of Dragonfly have wrong bytes of `{path}`; reading it directly (remove the task on the \
                 nodes: `dfctl task rm`)"
            ));
        }
        true
    }

    fn warnings(&self) -> Vec<String> {
        std::mem::take(&mut self.state().warnings)
    }
}

/// Whether a request has a credential in it. A signature of one request (`AWS4-HMAC-SHA256`) is none: it is
/// for these bytes, for a quarter of an hour.
fn holds_token(headers: &HeaderMap) -> bool {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    headers.contains_key(COOKIE)
        || all.any(|value| !value.as_bytes().starts_with(b"AWS4-HMAC-SHA256 "))
}

/// Reads `dragonfly=http://127.0.0.1:4001`, or `dragonfly-plain=…`.
pub fn parse(given: &str) -> Result<Dragonfly, Message> {
    const FORM: &str =
        "write dragonfly=http://127.0.0.1:4001, or dragonfly-plain=http://127.0.0.1:4001";
    let no_kind = || Message::new("no kind of daemon is named").hint(FORM);
    let (kind, proxy) = given.trim().split_once('=').ok_or_else(no_kind)?;
    let is_plain = match kind {
        "dragonfly" => false,
        "dragonfly-plain" => true,
        _ => return Err(no_kind()),
    };
    let is_usable = |url: &Url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && matches!(url.path(), "" | "/")
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none()
    };
    // What was given may hold a password: it is not repeated.
    let proxy = Url::parse(proxy.trim()).ok().filter(is_usable);
    let proxy = proxy.ok_or_else(|| {
        Message::new("the proxy is not a plain URL without a user")
            .hint("write dragonfly=http://127.0.0.1:4001")
    })?;
    Ok(Dragonfly { proxy, is_plain })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_is_named_by_its_proxy_and_shows_no_password() {
        for (given, proxy, is_plain) in [
            ("dragonfly=http://127.0.0.1:4001", "http://127.0.0.1:4001/", false),
            (" dragonfly-plain=http://10.0.0.1:4001/ ", "http://10.0.0.1:4001/", true),
        ] {
            let parsed = parse(given).expect(given);
            assert_eq!((parsed.proxy.as_str(), parsed.is_plain), (proxy, is_plain));
            assert!(!format!("{parsed:?}").contains("hunter2"));
        }
        for given in [
            "",
            "dragonfly",
            "dragonfly=x:1",
            "dragonfly=ftp://u:hunter2@h",
            "dragonfly=http://u:hunter2@h",
            "kraken=http://h",
        ] {
            assert!(!parse(given).expect_err(given).to_string().contains("hunter2"), "{given}");
        }
    }

    #[test]
    fn plain_links_keep_a_port_of_their_own() {
        let url = |is_plain, url: &str| {
            let proxy = Url::parse("http://127.0.0.1:4001").expect("a proxy");
            let p2p = P2p::new(Dragonfly { proxy, is_plain });
            p2p.url(&Url::parse(url).expect(url)).to_string()
        };
        assert_eq!(url(true, "https://cdn/x?Signature=1"), "http://cdn/x?Signature=1");
        assert_eq!(url(true, "https://cdn:8443/x"), "http://cdn:8443/x");
        assert_eq!(url(true, "http://cdn/x"), "http://cdn/x");
        assert_eq!(url(false, "https://cdn/x"), "https://cdn/x");
    }

    #[test]
    fn a_signature_of_one_request_is_no_token() {
        let holds = |value: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            if let Some(value) = value {
                headers.insert(AUTHORIZATION, HeaderValue::from_static(value));
            }
            holds_token(&headers)
        };
        assert!(!holds(None) && !holds(Some("AWS4-HMAC-SHA256 Credential=x")));
        assert!(holds(Some("Bearer x")) && holds(Some("Basic x")) && holds(Some("SharedKey a:b")));
    }
}
