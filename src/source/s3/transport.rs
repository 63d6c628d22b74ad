//! Carries the requests of the AWS SDK over the HTTP client that everything else uses, so that
//! proxies, trust, deadlines and pace are the same. Knows nothing of S3 but how it says "slow down".

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::ThreadId;
use std::time::Duration;

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, StatusCode};
use url::Url;

use super::problem::CallProblem;
use crate::net::http::{self, Http};
use crate::net::{HttpProblem, SourceError};

/// Longest object that is read into memory.
pub const MAX_OBJECT_BYTES: usize = 32 << 20;
/// Longest answer of another kind. A page of a listing has 1000 keys of at most 1 kB, three times
/// that encoded, and less than 800 bytes about each of them.
const MAX_ANSWER_BYTES: usize = 4 << 20;
/// An element of an answer may be seven bytes there and some hundred in memory. Those of a page are
/// some thirty for each of its keys.
const MAX_TAGS: usize = 128 << 10;
/// How long everybody leaves a host alone that asks to slow down without saying for how long, the
/// first time.
pub const SLOW_DOWN: Duration = Duration::from_secs(1);

/// The header in which an answer tells the SDK's caller who was asked.
pub const ASKED_HOST: &str = "x-weightlift-asked";

/// Makes the connectors of the SDK.
#[derive(Clone)]
pub struct Transport {
    http: Http,
    /// One pair for each thread that asks: a connection lives on the runtime of the thread that has
    /// opened it, and that of the main thread stands still while the workers are at work.
    clients: Arc<Mutex<HashMap<ThreadId, Clients>>>,
}

#[derive(Clone)]
struct Clients {
    usual: Client,
    /// For the metadata services of the node, which no proxy can reach.
    direct: Client,
}

/// A transport with the deadline that one part of the SDK asks for.
struct Connector {
    transport: Transport,
    deadline: Option<Duration>,
}

impl Transport {
    pub fn new(http: Http) -> Result<Self, SourceError> {
        let transport = Self { http, clients: Arc::default() };
        transport.clients()?;
        Ok(transport)
    }

    /// The client of this thread.
    pub fn client(&self) -> Result<Client, SourceError> {
        Ok(self.clients()?.usual)
    }

    fn clients(&self) -> Result<Clients, SourceError> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let thread = std::thread::current().id();
        if let Some(known) = clients.get(&thread) {
            return Ok(known.clone());
        }
        let made = Clients { usual: self.http.client()?, direct: self.http.direct_client()? };
        clients.insert(thread, made.clone());
        Ok(made)
    }

    async fn carry(
        self,
        request: HttpRequest,
        deadline: Option<Duration>,
    ) -> Result<HttpResponse, SourceError> {
        let broken = |what| SourceError::Protocol(CallProblem::Request(what).into());
        let url = Url::parse(request.uri())
            .map_err(|_| SourceError::Settings(CallProblem::Url.into()))?;
        let method =
            Method::from_bytes(request.method().as_bytes()).map_err(|_| broken("method"))?;
        let mut headers = HeaderMap::new();
        for (name, value) in request.headers() {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| broken("header"))?;
            headers.append(name, HeaderValue::from_str(value).map_err(|_| broken("header"))?);
        }
        let body = request.body().bytes().unwrap_or_default().to_vec();
        let Clients { usual, direct } = self.clients()?;
        let client = if http::is_link_local(&url) { &direct } else { &usual };
        let answering = self.answer(client, method, &url, headers, body);
        let response = match deadline {
            Some(deadline) => tokio::time::timeout(deadline, answering)
                .await
                .map_err(|_| http::no_answer(http::origin(&url), deadline))??,
            None => answering.await?,
        };
        self.receive(&url, response).await
    }

    async fn answer(
        &self,
        client: &Client,
        method: Method,
        url: &Url,
        headers: HeaderMap,
        body: Vec<u8>,
    ) -> Result<reqwest::Response, SourceError> {
        if body.is_empty() {
            return self.http.send(client, method, url, headers).await;
        }
        // Only token services, asked once in an hour, and the ends of uploads are sent a body.
        let asking = self.http.asking(&method, url, &headers);
        let sending = client.request(method, url.clone()).headers(headers).body(body).send();
        let origin = http::origin(url);
        let first_byte = self.http.deadlines.first_byte;
        let answer = match tokio::time::timeout(first_byte, sending).await {
            Ok(answer) => answer.map_err(|error| http::transport_error(&origin, &error)),
            Err(_) => Err(http::no_answer(origin.clone(), first_byte)),
        };
        asking.end(&answer);
        let response = answer?;
        if response.status().is_server_error() && response.status() != StatusCode::NOT_IMPLEMENTED {
            // The SDK would tell it from bad credentials no more.
            let (host, status) = (origin, response.status().as_u16());
            return Err(SourceError::Unreachable(HttpProblem::Status { host, status }.into()));
        }
        Ok(response)
    }

    /// Reads the whole answer: what the SDK asks for is small.
    async fn receive(
        &self,
        url: &Url,
        response: reqwest::Response,
    ) -> Result<HttpResponse, SourceError> {
        let status = response.status();
        let headers = response.headers().clone();
        // How the SDK names the call that reads an object; all others are answered with XML or less.
        let is_object = status.is_success()
            && url.query_pairs().any(|(name, value)| name == "x-id" && value == "GetObject");
        let most = if is_object { MAX_OBJECT_BYTES } else { MAX_ANSWER_BYTES };
        let body = http::small_body(response, most, self.http.deadlines.stall).await?;
        if !is_object && body.iter().filter(|byte| **byte == b'<').count() > MAX_TAGS {
            let (host, most) = (http::origin(url), MAX_TAGS);
            return Err(SourceError::Unsafe(CallProblem::ManyTags { host, most }.into()));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE && contains(&body, b"SlowDown") {
            let host = http::origin(url);
            let wait = self.http.pace.slow_down(&host, SLOW_DOWN);
            return Err(SourceError::RateLimited { host, wait });
        }
        let status = status.as_u16().try_into().map_err(|_| {
            let host = http::origin(url);
            SourceError::Protocol(HttpProblem::ImpossibleStatus { host }.into())
        })?;
        let mut answer = HttpResponse::new(status, SdkBody::from(body));
        for (name, value) in &headers {
            // What is no text means nothing to the SDK either.
            if let Ok(value) = value.to_str() {
                let _ = answer.headers_mut().try_append(name.as_str().to_owned(), value.to_owned());
            }
        }
        let _ = answer.headers_mut().try_insert(ASKED_HOST, http::origin(url));
        Ok(answer)
    }
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (transport, deadline) = (self.transport.clone(), self.deadline);
        HttpConnectorFuture::new(async move {
            // The error comes back whole at the other end of the SDK, see `failures::failure`.
            transport
                .carry(request, deadline)
                .await
                .map_err(|error| ConnectorError::io(error.into()))
        })
    }
}

impl HttpClient for Transport {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        _: &RuntimeComponents,
    ) -> SharedHttpConnector {
        // The connect timeout of S3 is the one of the client; the metadata services, which may be a
        // black hole, set a read timeout of a second, and it counts from the start of the request.
        let deadline = settings.read_timeout();
        SharedHttpConnector::new(Connector { transport: self.clone(), deadline })
    }
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Transport")
    }
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Connector")
    }
}

fn contains(body: &[u8], word: &[u8]) -> bool {
    body.windows(word.len()).any(|window| window == word)
}
