//! Carries what the SDK asks of token services over our own HTTP client, with our deadlines, and says in our
//! words what they refuse. The bytes of a model, listings and objects do not come this way.

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::ThreadId;
use std::time::Duration;

use async_trait::async_trait;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
};
use object_store::{ClientOptions, RetryConfig};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::Value;
use url::Url;

use super::token::TokenProblem;
use crate::model::text;
use crate::net::http::{self, Http};
use crate::net::{HttpProblem, SourceError};

/// A token is a few kilobytes at most.
const MAX_ANSWER_BYTES: usize = 256 << 10;

/// One pair of clients for each thread that asks: a connection lives on the runtime of the thread that has
/// opened it, and that of the main thread stands still while the workers are at work.
#[derive(Clone)]
pub struct Clients {
    http: Http,
    of_threads: Arc<Mutex<HashMap<ThreadId, Pair>>>,
}

#[derive(Clone)]
struct Pair {
    usual: Client,
    /// For the services of the node, which no proxy can reach.
    direct: Client,
}

/// Makes the clients of the SDK.
#[derive(Clone)]
pub struct Connector {
    clients: Clients,
    /// For a service of the node: it answers at once, or is not there.
    node_deadline: Option<Duration>,
}

impl Clients {
    pub fn new(http: Http) -> Result<Self, SourceError> {
        let clients = Self { http, of_threads: Arc::default() };
        clients.pair()?;
        Ok(clients)
    }

    /// The client of this thread.
    pub fn client(&self) -> Result<Client, SourceError> {
        Ok(self.pair()?.usual)
    }

    fn pair(&self) -> Result<Pair, SourceError> {
        let mut known = self.of_threads.lock().unwrap_or_else(PoisonError::into_inner);
        let thread = std::thread::current().id();
        if let Some(pair) = known.get(&thread) {
            return Ok(pair.clone());
        }
        let pair = Pair { usual: self.http.client()?, direct: self.http.direct_client()? };
        known.insert(thread, pair.clone());
        Ok(pair)
    }
}

impl Connector {
    /// To a token service.
    pub fn new(clients: Clients) -> Self {
        Self { clients, node_deadline: None }
    }

    /// To a service of the node.
    pub fn of_node(clients: Clients, deadline: Duration) -> Self {
        Self { clients, node_deadline: Some(deadline) }
    }

    async fn carry(&self, request: HttpRequest) -> Result<HttpResponse, SourceError> {
        let wrong = |what| SourceError::Protocol(TokenProblem::Request(what).into());
        let url = Url::parse(&request.uri().to_string()).map_err(|_| wrong("URL"))?;
        let method = Method::from_bytes(request.method().as_str().as_bytes())
            .map_err(|_| wrong("method"))?;
        let mut headers = HeaderMap::new();
        for (name, value) in request.headers() {
            let name = HeaderName::from_bytes(name.as_str().as_bytes());
            let value = HeaderValue::from_bytes(value.as_bytes());
            headers.append(name.map_err(|_| wrong("header"))?, value.map_err(|_| wrong("header"))?);
        }
        let body = request.body().as_bytes().cloned().unwrap_or_default();
        let Pair { usual, direct } = self.clients.pair()?;
        let http = &self.clients.http;
        let sending = async {
            let client = if self.node_deadline.is_some() { &direct } else { &usual };
            match body.is_empty() {
                true => http.send(client, method, &url, headers).await,
                false => http.send_body(client, method, &url, headers, body).await,
            }
        };
        let response = match self.node_deadline {
            Some(deadline) => tokio::time::timeout(deadline, sending)
                .await
                .map_err(|_| http::no_answer(http::origin(&url), deadline))??,
            None => sending.await?,
        };
        let status = response.status();
        if !status.is_success() {
            return Err(self.refused(response).await);
        }
        let body = http::small_body(response, MAX_ANSWER_BYTES, http.deadlines.stall).await?;
        Ok(HttpResponse::new(body.into()))
    }

    /// What a refusal means: the SDK would tell it from other trouble no more.
    async fn refused(&self, response: Response) -> SourceError {
        let (status, host) = (response.status(), http::origin(response.url()));
        let stall = self.clients.http.deadlines.stall;
        let body = http::small_body(response, MAX_ANSWER_BYTES, stall).await.unwrap_or_default();
        let said = said(&body);
        // A service that has no identity for this pod, or is that of another cloud.
        let is_no_service = matches!(
            status,
            StatusCode::BAD_REQUEST
                | StatusCode::UNAUTHORIZED
                | StatusCode::NOT_FOUND
                | StatusCode::METHOD_NOT_ALLOWED
        );
        let status_code = status.as_u16();
        // A service of the node that is being updated says 410.
        let is_busy = matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::GONE);
        if status.is_server_error() || is_busy {
            let problem = HttpProblem::Status { host, status: status_code };
            // Somebody is there.
            return match self.node_deadline {
                Some(_) => SourceError::Protocol(problem.into()),
                None => SourceError::Unreachable(problem.into()),
            };
        }
        let is_about_time = said.contains("reasonable timeframe");
        let problem = TokenProblem::Refused { host, status: status_code, said };
        match self.node_deadline {
            Some(_) if is_no_service => SourceError::NotFound(problem.into()),
            _ if is_about_time => {
                SourceError::Unusable(TokenProblem::Clock(Box::new(problem)).into())
            }
            _ => SourceError::Access(problem.into()),
        }
    }
}

/// What an error of a token service says; inert.
fn said(body: &[u8]) -> String {
    let Ok(answer) = serde_json::from_slice::<Value>(body) else {
        return text::inert(&String::from_utf8_lossy(&body[..body.len().min(600)]), 200);
    };
    let error = &answer["error"];
    let words = [&answer["error_description"], &error["message"], error, &answer["message"]];
    let said = words.into_iter().find_map(Value::as_str).unwrap_or_default();
    // Azure adds lines of identifiers of the request.
    let first = said.lines().next().unwrap_or_default();
    text::inert(first.split(" Trace ID:").next().unwrap_or_default(), 300)
}

#[async_trait]
impl HttpService for Connector {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        // The error comes back whole at the other end of the SDK, see `reason`.
        self.carry(request).await.map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))
    }
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Connector")
    }
}

/// Whoever asks decides about another attempt.
pub fn no_retries() -> RetryConfig {
    RetryConfig { max_retries: 0, retry_timeout: Duration::ZERO, ..RetryConfig::default() }
}

/// What an error of the SDK means, which is about credentials; `by` says which.
pub fn reason(error: &object_store::Error, by: &str) -> SourceError {
    let mut last: &(dyn Error + 'static) = error;
    loop {
        if let Some(carried) = last.downcast_ref::<SourceError>() {
            return carried.clone();
        }
        match last.source() {
            Some(next) => last = next,
            None => break,
        }
    }
    let why = text::without_secrets(&text::inert(&last.to_string(), 300));
    SourceError::Access(TokenProblem::Unusable { by: by.to_owned(), why }.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_token_service_says_is_one_short_line() {
        for (body, expected) in [
            (&br#"{"error":"invalid_grant","error_description":"Invalid JWT"}"#[..], "Invalid JWT"),
            (
                br#"{"error":"invalid_client","error_description":"AADSTS1: no.\r\nTrace ID: x"}"#,
                "AADSTS1: no.",
            ),
            (br#"{"error":{"code":403,"message":"denied"}}"#, "denied"),
            (br#"{"error":"unauthorized_client"}"#, "unauthorized_client"),
            (b"no \x1bmetadata", "no \\u{1b}metadata"),
        ] {
            assert_eq!(said(body), expected);
        }
    }
}
