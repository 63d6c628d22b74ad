//! Tokens of the chunk store: who may read a repo at one revision. The Hub gives them out, by its own token,
//! which never goes to the store.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use percent_encoding::utf8_percent_encode;
use reqwest::Client;
use reqwest::header::{HeaderMap, HeaderValue};
use serde::Deserialize;
use url::Url;

use super::problem::{What, XetProblem};
use crate::model::{HubRepo, text};
use crate::net::http::{self, safe_target};
use crate::net::{SourceError, encoding};
use crate::source::hub::refusals::{Asked, Context, Refusal};
use crate::source::hub::{Hub, QUOTED};

const MAX_ANSWER_BYTES: usize = 64 << 10;
/// A new one is asked for so long before the end of the old one.
const MARGIN: Duration = Duration::from_secs(30);
/// One that has just come is used whatever it says: this machine's clock may be wrong.
const AT_LEAST: Duration = Duration::from_secs(30);

/// May read the files of one repo at one revision.
#[derive(Clone)]
pub struct Token {
    /// Marked as sensitive.
    pub header: HeaderValue,
    /// Where the store is.
    pub store: Url,
    expires: SystemTime,
    since: Instant,
}

/// Repo and revision.
type Key = (String, String);

/// The tokens of a run: each is asked for once, by one of those who need it.
#[derive(Default)]
pub struct Tokens(tokio::sync::Mutex<HashMap<Key, Answered>>);

/// What the Hub has answered, and when.
struct Answered {
    token: Result<Token, SourceError>,
    at: Instant,
}

impl Token {
    fn is_fresh(&self) -> bool {
        self.since.elapsed() < AT_LEAST || SystemTime::now() + MARGIN < self.expires
    }
}

impl Tokens {
    /// The token for `repo` at `revision`; another one than `refused`, which the store has not accepted.
    pub async fn get(
        &self,
        hub: &Hub,
        client: &Client,
        (repo, revision): (&str, &str),
        refused: Option<&HeaderValue>,
    ) -> Result<Token, SourceError> {
        let key = (repo.to_owned(), revision.to_owned());
        let since = Instant::now();
        let mut known = self.0.lock().await;
        match known.get(&key) {
            Some(Answered { token: Ok(token), .. })
                if token.is_fresh() && refused != Some(&token.header) =>
            {
                return Ok(token.clone());
            }
            // It will be the same in this run; or somebody has just asked while we waited.
            Some(Answered { token: Err(error), at }) if !error.is_transient() || *at >= since => {
                return Err(error.clone());
            }
            _ => {}
        }
        let token = ask(hub, client, repo, revision).await;
        known.insert(key, Answered { token: token.clone(), at: Instant::now() });
        token
    }
}

/// What the Hub tells: in its headers, which are all that its own client reads, and in the body.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    access_token: String,
    exp: u64,
    cas_url: String,
}

impl Answer {
    fn in_headers(headers: &HeaderMap) -> Option<Self> {
        let text = |name: &str| headers.get(name)?.to_str().ok();
        Some(Self {
            access_token: text("x-xet-access-token")?.to_owned(),
            exp: text("x-xet-token-expiration")?.trim().parse().ok()?,
            cas_url: text("x-xet-cas-url")?.to_owned(),
        })
    }
}

async fn ask(hub: &Hub, client: &Client, repo: &str, revision: &str) -> Result<Token, SourceError> {
    let quoted = utf8_percent_encode(revision, QUOTED);
    let url = hub.url(&format!("{}/xet-read-token/{quoted}", HubRepo::api_of(repo)))?;
    let response = hub.follow_unpinned(client, url).await?;
    let host = http::origin(response.url());
    let status = response.status();
    let problem = |what| {
        let (host, status) = (host.clone(), Some(status.as_u16()));
        XetProblem { host, file: None, status, what }
    };
    if matches!(status.as_u16(), 404 | 405 | 410 | 501) {
        http::read_off(response, hub.stall()).await;
        return Err(SourceError::NotFound(problem(What::NoStore).into()));
    }
    if !status.is_success() {
        let refused = Refusal::read(response, hub.stall()).await;
        // It may be about another repo than the one that is fetched.
        let context = Context { repo, revision, ..hub.context() };
        return Err(refused.of_hub(&Asked::XetToken, &context));
    }
    let claimed = encoding::claimed(response.headers());
    let in_headers = Answer::in_headers(response.headers());
    let body = http::small_body(response, MAX_ANSWER_BYTES, hub.stall()).await?;
    let answer = match (in_headers, serde_json::from_slice::<Answer>(&body)) {
        (Some(answer), _) | (None, Ok(answer)) => answer,
        (None, Err(error)) => {
            return Err(hub.misunderstood(&error, &body, claimed, "the token for Xet"));
        }
    };
    let odd = |what: &str| SourceError::Protocol(problem(What::Answer(what.into())).into());
    let header = HeaderValue::from_str(&format!("Bearer {}", answer.access_token)).ok();
    let mut header = header
        .filter(|_| answer.access_token.bytes().all(|byte| byte.is_ascii_graphic()))
        .ok_or_else(|| odd("the token has blanks or control characters"))?;
    header.set_sensitive(true);
    let store = Url::parse(&answer.cas_url).ok().filter(is_plain).ok_or_else(|| {
        odd(&format!(
            "`{}` is not the address of a store",
            text::inert(&showable(&answer.cas_url), 80)
        ))
    })?;
    Ok(Token {
        header,
        store: safe_target(hub.endpoint(), store)?,
        expires: UNIX_EPOCH.checked_add(Duration::from_secs(answer.exp)).unwrap_or(UNIX_EPOCH),
        since: Instant::now(),
    })
}

fn is_plain(url: &Url) -> bool {
    url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none()
}

/// Of an address that cannot be used what may be shown: no user, no query.
fn showable(text: &str) -> String {
    let after = text.rsplit_once('@').map_or(text, |(_, after)| after);
    after.split(['?', '#']).next().unwrap_or_default().to_owned()
}
