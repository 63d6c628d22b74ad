//! How the bytes of a file are read: through the Hub, or by a link to the storage behind it.

use std::ops::Range;

use reqwest::{Client, Method, Response, StatusCode};
use url::Url;

use super::problem::HubProblem;
use super::refusals::{Asked, Refusal};
use super::{Hub, Pinned};
use crate::model::RemoteFile;
use crate::net::http::{self, MAX_REDIRECTS};
use crate::net::{Body, SourceError, Via};
use crate::source::links::Route;
use crate::source::status::OfStorage;

impl Hub {
    /// Reads through `/resolve`, redirects included.
    pub(super) async fn read_resolved(
        &self,
        client: &Client,
        pinned: &Pinned,
        file: &RemoteFile,
        range: Range<u64>,
    ) -> Result<Body, SourceError> {
        let url = self.resolve_url(pinned, &file.path)?;
        let whole = range == (0..file.size);
        let via = Via::bytes(client, file, &range);
        let followed = self.follow(via, Method::GET, url, (!whole).then_some(&range)).await?;
        let final_url = followed.response.url().clone();
        if final_url.origin() == self.endpoint().origin() {
            let response = self.accepted(followed.response, &Asked::File(&file.path)).await?;
            return Body::open(&self.http, response, file, range);
        }
        if !followed.response.status().is_success() {
            return Err(self.storage_refusal(followed.response, file, None).await);
        }
        self.links.worked(&file.path);
        Body::open(&self.http, followed.response, file, range)
    }

    /// Reads from the storage directly, by a link that serves all ranges of the file.
    pub(super) async fn read_linked(
        &self,
        client: &Client,
        file: &RemoteFile,
        url: &Url,
        range: Range<u64>,
    ) -> Result<Body, SourceError> {
        // A mirror's link may be another Hub, which redirects once more.
        let via = Via::bytes(client, file, &range);
        let response = self.follow(via, Method::GET, url.clone(), Some(&range)).await?.response;
        if response.status().is_success() {
            self.links.worked(&file.path);
            return Body::open(&self.http, response, file, range);
        }
        Err(self.storage_refusal(response, file, Some(url)).await)
    }

    /// What a refusal by the storage means: a link that has expired, ranges that are signed one by
    /// one, or no access at all.
    async fn storage_refusal(
        &self,
        response: Response,
        file: &RemoteFile,
        link: Option<&Url>,
    ) -> SourceError {
        let refused = Refusal::read(response, self.stall()).await;
        if refused.wants_login() {
            return refused.elsewhere(&self.context());
        }
        let told = refused.of_storage(&file.path, self.context().repo).into();
        match OfStorage::of(refused.status) {
            OfStorage::Link if self.links.refused(&file.path, &refused.origin, link) => {
                SourceError::Again(told)
            }
            OfStorage::Link | OfStorage::No => SourceError::Access(told),
            OfStorage::Gone => {
                self.links.forget(&file.path);
                SourceError::Protocol(told)
            }
            OfStorage::Trouble => SourceError::Unreachable(told),
            OfStorage::Broken => SourceError::Protocol(told),
        }
    }

    /// Asks the Hub where the bytes of a large file are, without a range: a link that is signed
    /// for a range serves no other.
    pub(super) async fn mint(
        &self,
        client: &Client,
        pinned: &Pinned,
        file: &RemoteFile,
    ) -> Result<Route, SourceError> {
        let mut url = self.resolve_url(pinned, &file.path)?;
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send(client, Method::HEAD, &url, None).await?;
            let Some(target) = http::redirect_target(&url, &response)? else {
                // A mirror that serves the bytes itself, whether it knows HEAD or not; or a refusal.
                if matches!(
                    response.status(),
                    StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED
                ) {
                    return Ok(self.links.keep(&file.path, Route::Resolve));
                }
                self.accepted(response, &Asked::File(&file.path)).await?;
                return Ok(self.links.keep(&file.path, Route::Resolve));
            };
            if target.origin() != self.endpoint().origin() {
                return Ok(self.links.minted(&file.path, target));
            }
            url = target;
        }
        Err(SourceError::Protocol(
            HubProblem::ManyRedirects {
                endpoint: self.endpoint().clone(),
                file: file.path.clone(),
                most: MAX_REDIRECTS,
            }
            .into(),
        ))
    }
}
