//! The rules of HTTP that every source shares: one way to make a client, to send a request within
//! its deadlines, and to name what went wrong.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use reqwest::header::{ACCEPT_ENCODING, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Client, Response, StatusCode};
use url::Url;

use super::asking::{Asking, Told};
use super::connecting::Watch;
use super::dns::Lookup;
use super::failures::chain;
pub use super::failures::transport_error;
use super::outgoing::Outgoing;
use super::peers::{Peer, Peers};
use super::problem::SetupProblem;
use super::proxy::Proxies;
use super::roots::Roots;
use super::{BadSetting, Bandwidth, Detour, HttpProblem, Pace, SourceError, Via, pace};
use crate::model::text;

/// Longest part of an error body that is read and shown.
const ERROR_BODY_BYTES: usize = 2_048;
/// Redirects that are followed for one request.
pub const MAX_REDIRECTS: usize = 5;

/// How long one step of a request may take.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    pub connect: Duration,
    /// From the request to the head of the answer.
    pub first_byte: Duration,
    /// A body that brings nothing for this long is given up.
    pub stall: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { connect: seconds(10), first_byte: seconds(30), stall: seconds(20) }
    }
}

/// Makes clients that share TLS settings and deadlines, and nothing else.
#[derive(Clone)]
pub struct Http {
    tls: Arc<rustls::ClientConfig>,
    proxies: Proxies,
    peers: Peers,
    pub deadlines: Deadlines,
    pub pace: Arc<Pace>,
    /// What the bodies of files that are read may take together, and what those that are sent may.
    pub reads: Option<Arc<Bandwidth>>,
    pub writes: Option<Arc<Bandwidth>>,
    /// Who may have the bytes of files whose SHA-256 is known.
    pub p2p: Option<Arc<dyn Detour>>,
    /// Who wants to know what is asked, and what comes of it.
    told: Option<Told>,
}

impl Http {
    /// Trusts the built-in roots, and what `SSL_CERT_FILE`, `SSL_CERT_DIR` and, as for other clients of
    /// S3, `AWS_CA_BUNDLE` name in addition; in place of the last also what KServe mounts.
    pub fn new(deadlines: Deadlines) -> Result<Self, SourceError> {
        Self::trusting(Roots::from_environment()?.store, deadlines)
    }

    /// Trusts those and no others.
    pub fn trusting(
        roots: rustls::RootCertStore,
        deadlines: Deadlines,
    ) -> Result<Self, SourceError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| SourceError::Settings(SetupProblem::Tls(error).into()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            tls: Arc::new(tls),
            proxies: Proxies::from_environment()?,
            peers: Peers::default(),
            deadlines,
            pace: Arc::default(),
            reads: None,
            writes: None,
            p2p: None,
            told: None,
        })
    }

    /// Lets the files that are read take no more than this in a second, and those that are sent as much.
    pub fn limited_to(self, bytes_per_second: Option<u64>) -> Self {
        let limit = || bytes_per_second.map(Bandwidth::of).map(Arc::new);
        Self { reads: limit(), writes: limit(), ..self }
    }

    /// Reads the bytes of files whose SHA-256 is known by this detour.
    pub fn through_peers(self, p2p: Option<Arc<dyn Detour>>) -> Self {
        Self { p2p, ..self }
    }

    /// Tells of each request what came of it.
    pub fn telling(self, told: Option<Told>) -> Self {
        Self { told, ..self }
    }

    /// A request that is about to be sent by other means than [`Self::send`].
    pub fn asking(&self, method: &reqwest::Method, url: &Url, headers: &HeaderMap) -> Asking<'_> {
        Asking::of(self.told.as_ref(), method, url, headers)
    }

    /// The proxy for requests to the origin of `url`, without its user and password.
    pub fn proxy_for(&self, url: &Url) -> Option<Url> {
        self.proxies.shown_for(url)
    }

    /// Where this answer has come from.
    pub fn peer_of(&self, response: &Response) -> Option<Peer> {
        response.remote_addr().map(|address| self.peers.peer(address))
    }

    /// Whether it is the limit on reads that makes them slow.
    pub fn is_limited(&self) -> bool {
        self.reads.as_ref().is_some_and(|reads| reads.is_used_up())
    }

    /// A client with a connection pool of its own.
    ///
    /// HTTP/1.1 only: with HTTP/2 all ranges would share one TCP connection.
    pub fn client(&self) -> Result<Client, SourceError> {
        self.proxies
            .apply(self.builder())
            .build()
            .map_err(|error| SourceError::Settings(SetupProblem::Client(chain(&error)).into()))
    }

    /// A client that ignores proxy variables, for addresses of the node itself.
    pub fn direct_client(&self) -> Result<Client, SourceError> {
        self.builder()
            .no_proxy()
            .build()
            .map_err(|error| SourceError::Settings(SetupProblem::Client(chain(&error)).into()))
    }

    /// A client that sends everything through `proxy`.
    fn client_through(&self, proxy: &Url) -> Result<Client, SourceError> {
        let set_up = |error| SourceError::Settings(SetupProblem::Client(chain(&error)).into());
        let proxy = reqwest::Proxy::all(proxy.clone()).map_err(set_up)?;
        self.builder().no_proxy().proxy(proxy).build().map_err(set_up)
    }

    fn builder(&self) -> reqwest::ClientBuilder {
        Client::builder()
            .tls_backend_preconfigured((*self.tls).clone())
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(self.deadlines.connect)
            .pool_idle_timeout(Duration::from_secs(30))
            .referer(false)
            .dns_resolver(Lookup(self.peers.clone()))
            .connector_layer(Watch(self.peers.clone()))
            .user_agent(concat!("weightlift/", env!("CARGO_PKG_VERSION")))
    }

    /// Sends one request and returns the head of whatever answer comes, when the host's pace
    /// allows it. An answer that asks to slow down is an error, and slows everybody down.
    pub async fn send(
        &self,
        via: impl Into<Via<'_>>,
        method: reqwest::Method,
        url: &Url,
        mut headers: HeaderMap,
    ) -> Result<Response, SourceError> {
        let (via, origin) = (via.into(), origin(url));
        headers.entry(ACCEPT_ENCODING).or_insert(HeaderValue::from_static("identity"));
        if let (Some(p2p), Some(content)) = (&self.p2p, via.content())
            && method == reqwest::Method::GET
        {
            let make = |proxy: &Url| self.client_through(proxy);
            let first_byte = self.deadlines.first_byte;
            let asking = self.asking(&method, url, &headers);
            let answer = p2p.ask(&make, url, &headers, content, first_byte).await;
            if let Some(response) = answer {
                let answer = Ok(response);
                asking.end(&answer);
                return answer;
            }
            asking.fails("the peer did not serve it, so its origin is asked");
        }
        self.pace.wait(&origin).await;
        let asking = self.asking(&method, url, &headers);
        let sending = via.client.request(method, url.clone()).headers(headers).send();
        let answer = tokio::time::timeout(self.deadlines.first_byte, sending).await;
        let answer = match answer {
            Ok(answer) => answer.map_err(|error| transport_error(&origin, &error)),
            Err(_) => Err(no_answer(origin.clone(), self.deadlines.first_byte)),
        };
        asking.end(&answer);
        self.heeded(origin, answer?)
    }

    /// The same with a body. It has no deadline as a whole, and fails when the host takes none of it, or does
    /// not answer, for the time that it may be silent.
    pub async fn send_body(
        &self,
        client: &Client,
        method: reqwest::Method,
        url: &Url,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response, SourceError> {
        let origin = origin(url);
        self.pace.wait(&origin).await;
        let asking = self.asking(&method, url, &headers);
        let sent = Arc::new(AtomicU64::new(0));
        let body = reqwest::Body::wrap(Outgoing::new(body, sent.clone(), self.writes.clone()));
        let sending = client.request(method, url.clone()).headers(headers).body(body).send();
        tokio::pin!(sending);
        let patience = self.deadlines.stall + self.deadlines.first_byte;
        let answer = loop {
            let before = sent.load(Relaxed);
            match tokio::time::timeout(patience, &mut sending).await {
                Ok(answer) => break answer.map_err(|error| transport_error(&origin, &error)),
                Err(_) if sent.load(Relaxed) > before => {}
                Err(_) => break Err(no_answer(origin.clone(), patience)),
            }
        };
        asking.end(&answer);
        self.heeded(origin, answer?)
    }

    /// An answer, unless it asks to slow down.
    fn heeded(&self, origin: String, response: Response) -> Result<Response, SourceError> {
        let status = response.status();
        let asked = pace::asked_wait(response.headers(), SystemTime::now());
        if status == StatusCode::TOO_MANY_REQUESTS
            || (status == StatusCode::SERVICE_UNAVAILABLE && asked.is_some())
        {
            let wait = match asked {
                Some(wait) => self.pace.pause(&origin, wait),
                None => self.pace.slow_down(&origin, Duration::from_secs(5)),
            };
            return Err(SourceError::RateLimited { host: origin, wait });
        }
        if status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
            return Err(SourceError::Protocol(HttpProblem::ProxyLogin { host: origin }.into()));
        }
        if status.is_success() {
            self.pace.goes_well(&origin);
        }
        Ok(response)
    }
}

/// What to do about an endpoint that is none.
pub const PLAIN_URL: &str = "write a URL such as https://host.example:8443";

/// An endpoint such as `https://hub.example:8443/mirror`, which may hold no secrets; `named` is where
/// it was given.
pub fn endpoint(text: &str, named: &str) -> Result<Url, SourceError> {
    let is_plain = |url: &Url| {
        matches!(url.scheme(), "https" | "http")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    };
    Url::parse(text).ok().filter(is_plain).ok_or_else(|| {
        // A user, a password or a query in it may be a secret.
        let why = "is not a plain URL: no user, no password, no query";
        SourceError::Settings(BadSetting::new(named, why).hint(PLAIN_URL).into())
    })
}

/// No head of an answer has come within the time for it.
pub fn no_answer(host: String, within: Duration) -> SourceError {
    SourceError::Unreachable(HttpProblem::NoAnswer { host, within }.into())
}

/// `scheme://host:port`, the unit of trust; never a path or a query, which may hold secrets.
pub fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// `bytes=0-99`; an empty range cannot be asked for.
pub fn range_header(range: &Range<u64>) -> Option<HeaderValue> {
    let last = range.end.checked_sub(1).filter(|_| !range.is_empty())?;
    HeaderValue::from_str(&format!("bytes={}-{last}", range.start)).ok()
}

/// Where a redirect leads, with the rules that hold for every one of them.
pub fn redirect_target(from: &Url, response: &Response) -> Result<Option<Url>, SourceError> {
    let status = response.status();
    if !status.is_redirection() {
        return Ok(None);
    }
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    match location.and_then(|location| from.join(location).ok()) {
        Some(target) => safe_target(from, target).map(Some),
        None => {
            let (host, status) = (origin(from), status.as_u16());
            Err(SourceError::Protocol(HttpProblem::NoLocation { host, status }.into()))
        }
    }
}

/// Never from https to anything else, never to a file or to the services of a node.
pub(crate) fn safe_target(from: &Url, target: Url) -> Result<Url, SourceError> {
    let is_safe_scheme = match target.scheme() {
        "https" => true,
        "http" => from.scheme() == "http",
        _ => false,
    };
    let (host, to) = (origin(from), text::inert(&origin(&target), 100));
    if !is_safe_scheme || target.host().is_none() {
        return Err(SourceError::Unsafe(HttpProblem::LessSafe { host, to }.into()));
    }
    if is_link_local(&target) {
        return Err(SourceError::Unsafe(HttpProblem::LinkLocal { host, to }.into()));
    }
    Ok(target)
}

/// Addresses of cloud metadata services; nothing that holds models lives there.
pub fn is_link_local(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_link_local(),
        Some(url::Host::Ipv6(ip)) => {
            ip.is_unicast_link_local()
                // AWS's own range for the same services.
                || ip.segments()[..2] == [0xfd00, 0x0ec2]
                || ip.to_ipv4_mapped().is_some_and(|ip| ip.is_link_local())
        }
        _ => false,
    }
}

/// The beginning of an error body, inert, for a message.
pub async fn error_body(mut response: Response, deadline: Duration) -> String {
    let mut body = Vec::new();
    let reading = async {
        while body.len() < ERROR_BODY_BYTES {
            match response.chunk().await {
                Ok(Some(piece)) => body.extend_from_slice(&piece),
                _ => break,
            }
        }
    };
    let _ = tokio::time::timeout(deadline, reading).await;
    body.truncate(ERROR_BODY_BYTES);
    text::inert(&String::from_utf8_lossy(&body), 300)
}

/// Reads a short body that nobody wants, so that its connection can be used again.
pub async fn read_off(mut response: Response, stall: Duration) {
    let reading = async {
        let mut left = ERROR_BODY_BYTES;
        while let Ok(Some(piece)) = response.chunk().await {
            match left.checked_sub(piece.len()) {
                Some(less) => left = less,
                None => return,
            }
        }
    };
    let _ = tokio::time::timeout(stall, reading).await;
}

/// Reads a whole body of at most `max_bytes`.
pub async fn small_body(
    mut response: Response,
    max_bytes: usize,
    stall: Duration,
) -> Result<Vec<u8>, SourceError> {
    let origin = origin(response.url());
    let mut body = Vec::new();
    loop {
        match tokio::time::timeout(stall, response.chunk()).await {
            Err(_) => {
                return Err(SourceError::Unreachable(
                    HttpProblem::Silent { host: origin, stall }.into(),
                ));
            }
            Ok(Err(error)) => return Err(transport_error(&origin, &error)),
            Ok(Ok(None)) => return Ok(body),
            Ok(Ok(Some(piece))) if body.len() + piece.len() > max_bytes => {
                return Err(SourceError::Unsafe(
                    HttpProblem::LongAnswer { host: origin, most: max_bytes }.into(),
                ));
            }
            Ok(Ok(Some(piece))) => body.extend_from_slice(&piece),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_addresses_are_recognised_in_every_spelling() {
        for url in [
            "http://169.254.169.254/x",
            "http://[::ffff:169.254.169.254]/",
            "http://[fe80::1]/",
            "http://0xA9FEA9FE/",
            "http://[fd00:ec2::254]/",
        ] {
            assert!(is_link_local(&Url::parse(url).expect(url)), "{url}");
        }
        assert!(!is_link_local(&Url::parse("http://127.0.0.1:1/").expect("url")));
    }

    #[test]
    fn a_redirect_never_leads_to_less_safety() {
        let url = |url: &str| Url::parse(url).expect(url);
        let safe = |from: &str, to: &str| safe_target(&url(from), url(to)).is_ok();
        assert!(safe("https://a/", "https://b/"));
        assert!(safe("http://a/", "http://b/"));
        assert!(safe("http://a/", "https://b/"));
        assert!(!safe("https://a/", "http://a/"));
        assert!(!safe("http://a/", "file:///etc/passwd"));
        assert!(!safe("http://a/", "http://169.254.169.254/latest"));
    }

    #[test]
    fn an_endpoint_is_a_plain_url_and_a_bad_one_is_not_repeated() {
        for good in ["https://minio.example:9000", "http://127.0.0.1:9000/", "https://host/s3"] {
            assert!(endpoint(good, "x").is_ok(), "{good}");
        }
        for bad in ["minio:9000", "ftp://x", "https://user:hunter2@host", "https://host/?a=hunter2"]
        {
            let error = endpoint(bad, "x").expect_err(bad).to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn an_origin_has_no_path_and_no_query() {
        let url = Url::parse("https://user:pw@cdn.example:444/a?Signature=s").expect("url");
        assert_eq!(origin(&url), "https://cdn.example:444");
    }
}
