//! How ModelScope is asked, and what it means that it refuses.

use std::ops::Range;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Client, Method, Response, StatusCode};
use url::Url;

use super::problem::ModelScopeProblem;
use super::settings::Settings;
use crate::model::{Digest, ModelScopeRepo, RelPath};
use crate::net::http::{self, Http};
use crate::net::{SourceError, Via};
use crate::source::follow::{Ask, follow};

/// What is written as it is in a query.
const QUOTED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The API, for one model at one revision.
pub struct Api {
    pub repo: ModelScopeRepo,
    settings: Settings,
    pub http: Http,
    /// For listings; the bytes of files go over the callers' clients.
    client: Client,
}

/// What a request was about.
enum Asked<'a> {
    Listing,
    File(&'a RelPath),
}

impl Api {
    pub fn new(repo: ModelScopeRepo, settings: Settings, http: Http) -> Result<Self, SourceError> {
        let client = http.client()?;
        Ok(Self { repo, settings, http, client })
    }

    /// The commit that the user has named, if it is one.
    pub fn commit(&self) -> Option<&str> {
        let revision = &self.repo.revision;
        Digest::git_sha1_from_hex(revision).map(|_| revision.as_str())
    }

    /// The listing of the model, or of one directory of it.
    pub async fn files(
        &self,
        directory: Option<&str>,
        recursive: &str,
    ) -> Result<Response, SourceError> {
        let mut query = vec![("Revision", self.repo.revision.as_str()), ("Recursive", recursive)];
        query.extend(directory.map(|directory| ("Root", directory)));
        self.ask(&self.client, self.url("repo/files", &query), None, &Asked::Listing).await
    }

    /// The bytes of a file, or a part of them.
    pub async fn file(
        &self,
        via: impl Into<Via<'_>>,
        path: &RelPath,
        range: Option<&Range<u64>>,
    ) -> Result<Response, SourceError> {
        let query = [("Revision", self.repo.revision.as_str()), ("FilePath", path.as_str())];
        self.ask(via, self.url("repo", &query), range, &Asked::File(path)).await
    }

    /// `{endpoint}/api/v1/models/{id}/{rest}?{query}`
    fn url(&self, rest: &str, query: &[(&str, &str)]) -> Url {
        let mut url = self.settings.endpoint.clone();
        let base = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{base}/api/v1/models/{}/{rest}", self.repo.id));
        let quoted = |text: &str| utf8_percent_encode(text, QUOTED).to_string();
        let query = query.iter().map(|(name, value)| format!("{name}={}", quoted(value)));
        url.set_query(Some(&query.collect::<Vec<_>>().join("&")));
        url
    }

    async fn ask(
        &self,
        via: impl Into<Via<'_>>,
        url: Url,
        range: Option<&Range<u64>>,
        asked: &Asked<'_>,
    ) -> Result<Response, SourceError> {
        let (own, home) = (&self.settings.own, &self.settings.endpoint);
        let ask = Ask { method: Method::GET, url, range, own, home };
        let response = follow(&self.http, via, ask).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(self.refused(response, asked).await)
    }

    /// What a status that is none of success means.
    async fn refused(&self, response: Response, asked: &Asked<'_>) -> SourceError {
        let (status, host) = (response.status(), http::origin(response.url()));
        let is_own = host == http::origin(&self.settings.endpoint);
        let said = http::error_body(response, self.http.deadlines.stall).await;
        let class = match (status, asked) {
            // The branch has moved since it was listed.
            (StatusCode::NOT_FOUND | StatusCode::GONE, Asked::File(_))
                if self.commit().is_none() =>
            {
                SourceError::Stale
            }
            (StatusCode::NOT_FOUND | StatusCode::GONE, _) => SourceError::NotFound,
            (StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY, _) => SourceError::Unreachable,
            (StatusCode::RANGE_NOT_SATISFIABLE, _) => SourceError::Protocol,
            (status, _) if status.is_client_error() => SourceError::Access,
            (status, _) if status.is_server_error() => SourceError::Unreachable,
            _ => SourceError::Protocol,
        };
        let is_login = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        let hint = match (is_own && is_login, self.settings.has_token()) {
            (true, false) => Some("give a token in MODELSCOPE_API_TOKEN, or check the name"),
            (true, true) => Some("check the token in MODELSCOPE_API_TOKEN"),
            (false, _) => None,
        };
        let what = match asked {
            Asked::Listing => format!("the listing of `{}`", self.repo.id),
            Asked::File(path) => format!("`{path}`"),
        };
        class(ModelScopeProblem::Refused { host, status: status.as_u16(), what, said, hint }.into())
    }

    /// A refusal in the words of the API, in an answer of success.
    pub fn told(&self, host: String, code: i64, said: String) -> SourceError {
        let class = match code {
            401 | 403 => SourceError::Access,
            500..=599 => SourceError::Unreachable,
            _ => SourceError::NotFound,
        };
        let (id, revision) = (self.repo.id.clone(), self.repo.revision.clone());
        class(ModelScopeProblem::Told { host, id, revision, code, said }.into())
    }
}
