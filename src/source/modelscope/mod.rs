//! A model of ModelScope, by the API that its own client uses.
//!
//! Nothing there resolves a branch to a commit: the revision is a digest over what is listed, unless the user
//! names a commit. Bytes are asked for by that name, and their SHA-256, which is listed of every file, decides.
//!
//! Imports `environment`, `model`, `content` and `net`; knows no other source.

pub(super) mod answer;
mod api;
mod list;
mod problem;
mod settings;

use std::ops::Range;

use async_trait::async_trait;
use reqwest::Client;
use tokio::sync::OnceCell;

use crate::content::{Body, Source};
use crate::model::{ModelScopeRepo, RemoteFile, Snapshot};
use crate::net::http::Http;
use crate::net::{self, SourceError, Via};
use api::Api;
use list::Listing;
use settings::Settings;

/// A model, and who asks for it.
pub struct ModelScope {
    api: Api,
    listed: OnceCell<Listing>,
}

impl ModelScope {
    /// At `endpoint`, without a token.
    pub fn new(repo: &ModelScopeRepo, endpoint: &str, http: Http) -> Result<Self, SourceError> {
        Self::with(repo, Settings::new(endpoint, None)?, &http)
    }

    /// What the variables say of the endpoint and of the token.
    pub(super) fn open(repo: &ModelScopeRepo, http: &Http) -> Result<Self, SourceError> {
        Self::with(repo, Settings::from_environment()?, http)
    }

    fn with(repo: &ModelScopeRepo, settings: Settings, http: &Http) -> Result<Self, SourceError> {
        let api = Api::new(repo.clone(), settings, http.clone())?;
        Ok(Self { api, listed: OnceCell::new() })
    }

    async fn listed(&self) -> Result<&Listing, SourceError> {
        self.listed.get_or_try_init(|| list::list(&self.api)).await
    }
}

#[async_trait]
impl Source for ModelScope {
    async fn revision(&self) -> Result<String, SourceError> {
        match self.api.commit() {
            Some(commit) => Ok(commit.to_owned()),
            None => Ok(self.listed().await?.revision.clone()),
        }
    }

    async fn snapshot(&self) -> Result<Snapshot, SourceError> {
        let revision = self.revision().await?;
        let Listing { files, refused, .. } = self.listed().await?;
        let name = format!("ms://{}", self.api.repo.id);
        Ok(Snapshot::new(name, revision, files.clone(), refused.clone()))
    }

    async fn read(
        &self,
        client: &Client,
        file: &RemoteFile,
        range: Range<u64>,
    ) -> Result<Body, SourceError> {
        let part = (range != (0..file.size)).then_some(&range);
        let via = Via::bytes(client, file, &range);
        let response = self.api.file(via, &file.path, part).await?;
        let body = net::Body::open(&self.api.http, response, file, range);
        body.map(Body::from).map_err(|error| match error {
            // Of another size than was listed: the branch has moved.
            SourceError::Changed(cause) if self.api.commit().is_none() => SourceError::Stale(cause),
            error => error,
        })
    }

    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }
}
