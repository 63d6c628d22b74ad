//! A Hugging Face Hub, or a mirror of it.
//!
//! The revision is resolved once to a commit, and every later request names that commit. Large
//! files are read from the storage behind the Hub, by links that [`Links`] keeps.
//!
//! Imports `model`, `content` and `net`; knows no other source.

pub(crate) mod answers;
pub mod credentials;
mod endpoint;
mod identity;
pub(crate) mod pages;
mod problem;
mod reads;
mod refusals;
mod tree;
pub(crate) mod xet;

pub use endpoint::HubSettings;
pub use identity::{Account, HubIdentity, identity};
pub use xet::{Xet, XetMode};

use std::ops::Range;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{AUTHORIZATION, HeaderMap, RANGE};
use reqwest::{Client, Method, Response};
use serde::Deserialize;
use url::Url;

use crate::content::{Body, ChunkedId, Source};
use crate::environment;
use crate::model::{Digest, HubRepo, Locked, RelPath, RemoteFile, Snapshot, text};
use crate::net::http::{self, Http, MAX_REDIRECTS};
use crate::net::{HttpProblem, SourceError, Via, body, encoding};
use crate::source::links::{Links, Route};
use credentials::{Token, is_true};
use problem::HubProblem;
use refusals::{Asked, Context, Refusal};

const MAX_INFO_BYTES: usize = 64 << 20;
/// Python's `quote(…, safe="")`.
const QUOTED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// Python's `quote(…)`, which keeps `/`.
pub(super) const QUOTED_PATH: &AsciiSet = &QUOTED.remove(b'/');

/// A repo on a Hub.
pub struct Hub {
    settings: HubSettings,
    repo: HubRepo,
    /// What the repo is called, before renames.
    name: String,
    http: Http,
    /// For the calls about the repo; the bytes of files go over the callers' clients.
    client: Client,
    pinned: OnceLock<Pinned>,
    pub(super) links: Links,
    /// Small files that the listing has a Xet hash of, in its order, with their sizes.
    small_chunked: OnceLock<Vec<(ChunkedId, u64)>>,
    warnings: Mutex<Vec<String>>,
}

pub(super) struct Pinned {
    /// After renames; with the kind of the repo, as in the addresses of its pages.
    pub name: String,
    pub commit: String,
}

/// How an answer was reached.
pub(super) struct Followed {
    pub response: Response,
    /// The last same-origin URL that was asked: where a renamed repo lives.
    pub at: Url,
}

/// For the registry: what `HF_ENDPOINT` and the token say.
pub(super) fn open(repo: &HubRepo, http: &Http) -> Result<Hub, SourceError> {
    Hub::new(repo.clone(), HubSettings::from_environment(Token::find()?)?, http.clone())
}

/// The same at the revision that a lock file names, whose name and commit need not be asked for.
pub(super) fn open_at(repo: &HubRepo, locked: &Locked, http: &Http) -> Result<Hub, SourceError> {
    let commit = locked.revision.clone();
    let hub = open(&HubRepo { revision: commit.clone(), ..repo.clone() }, http)?;
    let name = locked.source_name.strip_prefix("hf://").map_or_else(|| repo.name(), str::to_owned);
    hub.learn_chunked(locked.files.iter().map(|it| (it.xet_hash.as_deref(), it.size)));
    hub.pinned.get_or_init(|| Pinned { name, commit });
    Ok(hub)
}

/// The variable that forbids to ask the Hub. As for `hf`, the first one that is set decides.
pub(super) fn offline_by() -> Option<&'static str> {
    let variables = ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"];
    let first = variables.into_iter().find(|name| environment::text(name).is_some())?;
    is_true(first).then_some(first)
}

/// Which way is taken where no flag says so: as for `hf`, a variable can forbid Xet.
pub(super) fn xet_mode() -> XetMode {
    if is_true("HF_HUB_DISABLE_XET") { XetMode::Never } else { XetMode::Auto }
}

impl Hub {
    pub fn new(repo: HubRepo, settings: HubSettings, http: Http) -> Result<Self, SourceError> {
        let client = http.client()?;
        let warnings = Mutex::new(settings.warning.clone().into_iter().collect());
        Ok(Self {
            settings,
            name: repo.name(),
            repo,
            http,
            client,
            pinned: OnceLock::new(),
            links: Links::default(),
            small_chunked: OnceLock::new(),
            warnings,
        })
    }

    /// The same Hub, for another revision of this repo or of another one.
    fn at(&self, name: &str, revision: &str) -> Result<Self, SourceError> {
        let repo = HubRepo::named(name, revision);
        let (name, commit) = (name.to_owned(), revision.to_owned());
        let settings = HubSettings { warning: None, ..self.settings.clone() };
        let hub = Self::new(repo, settings, self.http.clone())?;
        hub.pinned.get_or_init(|| Pinned { name, commit });
        Ok(hub)
    }

    fn small_chunked(&self) -> &[(ChunkedId, u64)] {
        self.small_chunked.get().map_or(&[], Vec::as_slice)
    }

    fn learn_chunked<'a>(&self, files: impl Iterator<Item = (Option<&'a ChunkedId>, u64)>) {
        let small = files.filter(|(_, size)| *size <= xet::SMALL_BYTES);
        let chunked = small.filter_map(|(id, size)| Some((*id?, size)));
        self.small_chunked.get_or_init(|| chunked.collect());
    }

    fn http(&self) -> &Http {
        &self.http
    }

    pub(super) fn endpoint(&self) -> &Url {
        &self.settings.endpoint
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn stall(&self) -> Duration {
        self.http.deadlines.stall
    }

    async fn pinned(&self) -> Result<&Pinned, SourceError> {
        if let Some(pinned) = self.pinned.get() {
            return Ok(pinned);
        }
        let pinned = self.resolve_revision().await?;
        Ok(self.pinned.get_or_init(|| pinned))
    }

    async fn resolve_revision(&self) -> Result<Pinned, SourceError> {
        #[derive(Deserialize)]
        struct Info {
            sha: Option<String>,
            id: Option<String>,
        }
        let revision = utf8_percent_encode(&self.repo.revision, QUOTED);
        let url = self.url(&format!("{}/revision/{revision}", HubRepo::api_of(&self.name)))?;
        let followed = self.follow(&self.client, Method::GET, url, None).await?;
        let response = self.accepted(followed.response, &Asked::Revision).await?;
        let encoding = encoding::claimed(response.headers());
        let body = http::small_body(response, MAX_INFO_BYTES, self.http.deadlines.stall).await?;
        let info: Info = serde_json::from_slice(&body)
            .map_err(|error| self.misunderstood(&error, &body, encoding, "the revision"))?;
        let commit = info.sha.unwrap_or_default();
        if Digest::git_sha1_from_hex(&commit).is_none() {
            return Err(SourceError::Protocol(
                HubProblem::NoCommit {
                    endpoint: self.settings.endpoint.clone(),
                    revision: self.repo.revision.clone(),
                    repo: self.name.clone(),
                }
                .into(),
            ));
        }
        let commit = commit.to_ascii_lowercase();
        let pinned_by_user = Digest::git_sha1_from_hex(&self.repo.revision).is_some();
        if pinned_by_user && commit != self.repo.revision {
            return Err(SourceError::Changed(
                HubProblem::OtherCommit {
                    asked: self.repo.revision.clone(),
                    endpoint: self.settings.endpoint.clone(),
                    answered: commit,
                }
                .into(),
            ));
        }
        let name = self.name_after_renames(&followed.at, info.id);
        Ok(Pinned { name, commit })
    }

    /// The repo's name now. Only a redirect within the Hub renames; what a mirror writes into the
    /// JSON does not.
    fn name_after_renames(&self, at: &Url, answered: Option<String>) -> String {
        let base = self.settings.endpoint.path().trim_end_matches('/');
        let path = at.path().strip_prefix(base).unwrap_or(at.path());
        let kind = self.repo.kind;
        let from_path = path
            .strip_prefix(&format!("/api/{}/", kind.plural()))
            .and_then(|rest| rest.split_once("/revision/"))
            .map(|(id, _)| id.to_owned());
        let Some(id) = from_path.filter(|id| *id != self.repo.id) else {
            return self.name.clone();
        };
        // `/api/models/gpt2` may lead to `openai-community/gpt2`, or to a number; the answer knows.
        let id = answered.filter(|name| HubRepo::is_id(name)).unwrap_or(id);
        if !HubRepo::is_id(&id) || id == self.repo.id {
            return self.name.clone();
        }
        let name = kind.name_of(&id);
        self.warn(format!(
            "`{}` has been renamed to `{name}`; update the manifest, and pin a commit: another user can \
             take the old name",
            self.name
        ));
        name
    }

    /// Sends a request and follows its redirects, with the token at the Hub's own origin only.
    pub(super) async fn follow(
        &self,
        via: impl Into<Via<'_>>,
        method: Method,
        url: Url,
        range: Option<&Range<u64>>,
    ) -> Result<Followed, SourceError> {
        self.follow_by(via.into(), method, url, range, self.commit()).await
    }

    /// The same for a question about whatever revision the URL names.
    async fn follow_unpinned(&self, client: &Client, url: Url) -> Result<Response, SourceError> {
        Ok(self.follow_by(client.into(), Method::GET, url, None, None).await?.response)
    }

    async fn follow_by(
        &self,
        via: Via<'_>,
        method: Method,
        url: Url,
        range: Option<&Range<u64>>,
        commit: Option<&str>,
    ) -> Result<Followed, SourceError> {
        let (mut url, mut at) = (url.clone(), url);
        for _ in 0..=MAX_REDIRECTS {
            let response =
                self.send_about(via.clone(), method.clone(), &url, range, commit).await?;
            let Some(target) = http::redirect_target(&url, &response)? else {
                return Ok(Followed { response, at });
            };
            http::read_off(response, self.http.deadlines.stall).await;
            if target.origin() == url.origin() {
                at = target.clone();
            }
            url = target;
        }
        let (host, most) = (http::origin(&url), MAX_REDIRECTS);
        Err(SourceError::Protocol(HttpProblem::ManyRedirects { host, most }.into()))
    }

    pub(super) async fn send(
        &self,
        client: &Client,
        method: Method,
        url: &Url,
        range: Option<&Range<u64>>,
    ) -> Result<Response, SourceError> {
        self.send_about(client.into(), method, url, range, self.commit()).await
    }

    /// The commit that is pinned, if one is yet.
    fn commit(&self) -> Option<&str> {
        self.pinned.get().map(|pinned| pinned.commit.as_str())
    }

    /// An answer that names another commit than `commit` is none.
    async fn send_about(
        &self,
        via: Via<'_>,
        method: Method,
        url: &Url,
        range: Option<&Range<u64>>,
        commit: Option<&str>,
    ) -> Result<Response, SourceError> {
        let mut headers = HeaderMap::new();
        if url.origin() == self.settings.endpoint.origin()
            && let Some(token) = self.settings.login.token()
        {
            headers.insert(AUTHORIZATION, token.header());
        }
        if let Some(value) = range.and_then(http::range_header) {
            headers.insert(RANGE, value);
        }
        let response = self.http.send(via, method, url, headers).await?;
        match (commit, answers::commit_header(response.headers())) {
            (Some(pinned), Some(answered)) if answered != pinned => {
                let problem = HubProblem::CommitOfAnswer {
                    host: http::origin(url),
                    answered: text::inert(&answered, 40),
                    pinned: pinned.to_owned(),
                };
                Err(SourceError::Changed(problem.into()))
            }
            _ => Ok(response),
        }
    }

    /// Passes a successful answer on, and names any other.
    pub(super) async fn accepted(
        &self,
        response: Response,
        asked: &Asked<'_>,
    ) -> Result<Response, SourceError> {
        if response.status().is_success() {
            return Ok(response);
        }
        let refused = Refusal::read(response, self.http.deadlines.stall).await;
        Err(refused.of_hub(asked, &self.context()))
    }

    pub(super) fn context(&self) -> Context<'_> {
        Context {
            endpoint: &self.settings.endpoint,
            repo: self.pinned.get().map_or(&self.name, |pinned| &pinned.name),
            revision: &self.repo.revision,
            login: &self.settings.login,
        }
    }

    pub(super) fn misunderstood(
        &self,
        error: &serde_json::Error,
        body: &[u8],
        claimed: Option<String>,
        what: &'static str,
    ) -> SourceError {
        let encoding = claimed.or_else(|| encoding::seen(body));
        let is_web_page = body.trim_ascii_start().starts_with(b"<");
        SourceError::Protocol(
            HubProblem::Form {
                endpoint: self.settings.endpoint.clone(),
                what,
                why: text::inert(&error.to_string(), 120),
                hint: body::hint(is_web_page, encoding.as_deref()),
            }
            .into(),
        )
    }

    pub(super) fn url(&self, path: &str) -> Result<Url, SourceError> {
        let base = self.settings.endpoint.as_str().trim_end_matches('/');
        let no_url = |why| HubProblem::Url { path: path.to_owned(), why };
        Url::parse(&format!("{base}/{path}"))
            .map_err(|error| SourceError::Settings(no_url(error).into()))
    }

    pub(super) fn resolve_url(&self, pinned: &Pinned, path: &RelPath) -> Result<Url, SourceError> {
        let path = utf8_percent_encode(path.as_str(), QUOTED_PATH);
        self.url(&format!("{}/resolve/{}/{path}", pinned.name, pinned.commit))
    }

    fn warn(&self, warning: String) {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).push(warning);
    }
}

#[async_trait]
impl Source for Hub {
    async fn revision(&self) -> Result<String, SourceError> {
        Ok(self.pinned().await?.commit.clone())
    }

    async fn snapshot(&self) -> Result<Snapshot, SourceError> {
        let pinned = self.pinned().await?;
        let (files, refused) = self.list(pinned).await?;
        self.learn_chunked(files.iter().map(|it| (it.xet_hash.as_deref(), it.size)));
        Ok(Snapshot::new(format!("hf://{}", pinned.name), pinned.commit.clone(), files, refused))
    }

    async fn read(
        &self,
        client: &Client,
        file: &RemoteFile,
        range: Range<u64>,
    ) -> Result<Body, SourceError> {
        let pinned = self.pinned().await?;
        // One request instead of two where one answer brings the whole file.
        let whole = range == (0..file.size);
        let route = match self.links.route(&file.path) {
            Some(route) => route,
            None if whole || matches!(file.digest, Some(Digest::GitSha1(_))) => Route::Resolve,
            None => self.mint(client, pinned, file).await?,
        };
        let body = match route {
            Route::Resolve => self.read_resolved(client, pinned, file, range).await,
            Route::Link(url) => self.read_linked(client, file, &url, range).await,
        };
        body.map(Body::from)
    }

    fn warnings(&self) -> Vec<String> {
        std::mem::take(&mut *self.warnings.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
