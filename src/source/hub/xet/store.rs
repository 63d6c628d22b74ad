//! The store's answers: asked with its own token, in the version that it has.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Client, Method, Response, StatusCode};
use url::Url;

use super::answer::{Bad, Window};
use super::problem::{What, XetProblem};
use super::token::{Token, Tokens};
use crate::content::ChunkedFile;
use crate::model::{RelPath, hex};
use crate::net::SourceError;
use crate::net::http;
use crate::source::hub::Hub;
use crate::source::hub::refusals::Refusal;
use crate::source::status::is_trouble;

/// The longest answer that is read: a worker has one at a time. For a longer one a smaller part is asked for.
const MAX_ANSWER_BYTES: usize = 256 << 10;
/// For several small files at once.
const MAX_BATCH_BYTES: usize = 2 << 20;
/// A smaller part of a file has an answer of that length only if it means no good.
const LEAST_WINDOW: u64 = 1 << 20;

/// A chunk store, asked for one Hub.
#[derive(Default)]
pub struct Store {
    tokens: Tokens,
    /// It knows nothing of the second version.
    is_v1: AtomicBool,
}

/// Who is asked for what.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    pub hub: &'a Hub,
    pub client: &'a Client,
    pub file: &'a ChunkedFile,
    /// For messages.
    pub path: &'a RelPath,
}

impl Store {
    /// What `range` of the file is made of, or a part of it from its start: the answer to a question for all
    /// may be too long.
    pub async fn window(
        &self,
        question: Question<'_>,
        mut range: Range<u64>,
    ) -> Result<Window, SourceError> {
        loop {
            if let Some(window) = self.window_of(question, range.clone()).await? {
                return Ok(window);
            }
            range.end = range.start + (range.end - range.start) / 4;
        }
    }

    /// None where the answer is too long.
    async fn window_of(
        &self,
        question: Question<'_>,
        range: Range<u64>,
    ) -> Result<Option<Window>, SourceError> {
        let Question { hub, file, .. } = question;
        let is_whole = range == (0..file.size);
        let mut headers = HeaderMap::new();
        if !is_whole && let Some(value) = http::range_header(&range) {
            headers.insert(reqwest::header::RANGE, value);
        }
        let id = hex::encode(&file.id);
        let ask = |version| {
            let path = format!("{version}/reconstructions/{id}");
            self.ask(question, path, headers.clone(), None)
        };
        let mut answered = if self.is_v1.load(Relaxed) { None } else { Some(ask("v2").await?) };
        if let Some((response, _)) = answered.take_if(|(response, _)| is_unknown(response.status()))
        {
            http::read_off(response, hub.stall()).await;
        }
        let (response, token) = match answered {
            Some(answered) => answered,
            None => {
                let answered = ask("v1").await?;
                if answered.0.status().is_success() {
                    self.is_v1.store(true, Relaxed);
                }
                answered
            }
        };
        let host = http::origin(response.url());
        let response = accepted(question, response).await?;
        let body = match http::small_body(response, MAX_ANSWER_BYTES, hub.stall()).await {
            Err(SourceError::Unsafe(_)) if range.end - range.start > LEAST_WINDOW => {
                return Ok(None);
            }
            body => body?,
        };
        let mut window =
            Window::read(&body, &token.store).map_err(|bad| misread(question, &host, bad))?;
        // A store that does not know parts answers for all.
        if range.start > 0 && window.skip == 0 && window.total() == file.size {
            window.skip = range.start;
        }
        Ok(Some(window))
    }

    /// What several files are made of, in one question; those that the store knows.
    pub async fn windows(
        &self,
        question: Question<'_>,
        files: &[ChunkedFile],
    ) -> Result<Vec<([u8; 32], Window)>, SourceError> {
        let list: Vec<_> = files
            .iter()
            .map(|file| serde_json::json!({"prefix": "default", "hash": hex::encode(&file.id)}))
            .collect();
        let body = serde_json::Value::from(list).to_string();
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let path = "v1/reconstructions";
        let posted = self.ask(question, path.into(), headers, Some(body)).await?;
        let (response, token) = if is_unknown(posted.0.status()) {
            // As the reference client asks.
            http::read_off(posted.0, question.hub.stall()).await;
            let ids: Vec<String> =
                files.iter().map(|file| format!("file_id={}", hex::encode(&file.id))).collect();
            let path = format!("{path}?{}", ids.join("&"));
            self.ask(question, path, HeaderMap::new(), None).await?
        } else {
            posted
        };
        let host = http::origin(response.url());
        let response = accepted(question, response).await?;
        let body = http::small_body(response, MAX_BATCH_BYTES, question.hub.stall()).await?;
        let is_asked = |id: &[u8; 32]| files.iter().any(|file| file.id == *id);
        Window::read_several(&body, &token.store, is_asked)
            .map_err(|bad| misread(question, &host, bad))
    }

    /// Asks, a second time with a new token if the first one is not accepted.
    async fn ask(
        &self,
        question: Question<'_>,
        path: String,
        headers: HeaderMap,
        body: Option<String>,
    ) -> Result<(Response, Token), SourceError> {
        let Question { hub, client, file, .. } = question;
        let mut refused: Option<HeaderValue> = None;
        loop {
            let of = (file.repo.as_str(), file.revision.as_str());
            let token = self.tokens.get(hub, client, of, refused.as_ref()).await?;
            let url = url_of(&token.store, &path)?;
            let mut headers = headers.clone();
            headers.insert(AUTHORIZATION, token.header.clone());
            let response = match &body {
                None => hub.http().send(client, Method::GET, &url, headers).await?,
                Some(body) => {
                    let body = body.clone().into();
                    hub.http().send_body(client, Method::POST, &url, headers, body).await?
                }
            };
            if response.status() == StatusCode::UNAUTHORIZED && refused.is_none() {
                http::read_off(response, hub.stall()).await;
                refused = Some(token.header);
                continue;
            }
            return Ok((response, token));
        }
    }
}

fn url_of(store: &Url, path: &str) -> Result<Url, SourceError> {
    let base = store.as_str().trim_end_matches('/');
    Url::parse(&format!("{base}/{path}"))
        .map_err(|_| SourceError::Protocol("the address of the Xet store is not a URL".into()))
}

/// What a server says of a question that it does not know.
fn is_unknown(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::NOT_FOUND | StatusCode::NOT_IMPLEMENTED | StatusCode::METHOD_NOT_ALLOWED
    )
}

/// A successful answer, or what another one means.
async fn accepted(question: Question<'_>, response: Response) -> Result<Response, SourceError> {
    let status = response.status();
    if status == StatusCode::OK {
        return Ok(response);
    }
    let refused = Refusal::read(response, question.hub.stall()).await;
    let problem = |what: fn(String) -> What| XetProblem {
        host: refused.origin.clone(),
        file: Some(question.path.clone()),
        status: Some(status.as_u16()),
        what: what(refused.told()),
    };
    let class = match status {
        status if is_unknown(status) || status == StatusCode::GONE => {
            return Err(SourceError::NotFound(problem(What::Unknown).into()));
        }
        status if is_trouble(status) => SourceError::Unreachable,
        // It does not have so many bytes of the file as were listed.
        StatusCode::RANGE_NOT_SATISFIABLE => SourceError::Contradiction,
        status if status.is_client_error() => SourceError::Access,
        _ => SourceError::Protocol,
    };
    Err(class(problem(What::Refused).into()))
}

fn misread(question: Question<'_>, host: &str, bad: Bad) -> SourceError {
    let why = match bad {
        Bad::Link(error) => return error,
        // Not in its own words: they can repeat a link.
        Bad::Form(error) => {
            let (kind, line, column) = (error.classify(), error.line(), error.column());
            format!("{kind:?} in line {line}, column {column}")
        }
        Bad::What(what) => what.to_owned(),
    };
    let file = Some(question.path.clone());
    let problem = XetProblem { host: host.to_owned(), file, status: None, what: What::Answer(why) };
    SourceError::Protocol(problem.into())
}
