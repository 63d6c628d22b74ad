//! How the bytes of a blob are read: from the registry, or by a link to the storage behind it.

use std::ops::Range;

use reqwest::{Client, Method, Response};
use url::Url;

use super::Oci;
use super::ask::named;
use super::problem::{Refused, words};
use crate::model::{Digest, RemoteFile};
use crate::net::http;
use crate::net::{Body, SourceError, Via};
use crate::source::links::Route;
use crate::source::status::OfStorage;

impl Oci {
    /// A range of a blob, whose digest is the file's.
    pub(super) async fn read_blob(
        &self,
        client: &Client,
        file: &RemoteFile,
        range: Range<u64>,
    ) -> Result<Body, SourceError> {
        let Some(Digest::Sha256(sha256)) = &file.digest else {
            return Err(SourceError::NotFound("the registry names no blob for this file".into()));
        };
        let url = self.blob_url(sha256)?;
        match self.links.route(&file.path) {
            Some(Route::Link(link)) => self.read_linked(client, file, &link, range).await,
            route => self.read_redirected(client, file, &url, range, route.is_none()).await,
        }
    }

    /// Asks the registry, and keeps the link that it redirects to, if `may_keep`. It is signed for GET where
    /// the registry's storage is S3, so that it cannot be asked for by HEAD.
    async fn read_redirected(
        &self,
        client: &Client,
        file: &RemoteFile,
        url: &Url,
        range: Range<u64>,
        may_keep: bool,
    ) -> Result<Body, SourceError> {
        let whole = range == (0..file.size);
        let asked = (!whole).then_some(&range);
        let via = Via::bytes(client, file, &range);
        let response = self.ask(via.clone(), Method::GET, url, asked, None).await?;
        let Some(target) = http::redirect_target(url, &response)? else {
            if !response.status().is_success() {
                return Err(self.refusal(response, named(file.path.as_str())).await);
            }
            return Body::open(&self.http, response, file, range);
        };
        http::read_off(response, self.http.deadlines.stall).await;
        let is_storage = target.origin() != self.registry.origin();
        if is_storage && may_keep && self.links.minted(&file.path, target.clone()) != Route::Resolve
        {
            return self.read_linked(client, file, &target, range).await;
        }
        let response = self.follow(via, &target, asked, None).await?;
        let is_own = response.url().origin() == self.registry.origin();
        match (response.status().is_success(), is_own) {
            (true, _) => {
                self.links.worked(&file.path);
                Body::open(&self.http, response, file, range)
            }
            (false, true) => Err(self.refusal(response, named(file.path.as_str())).await),
            (false, false) => Err(self.storage_refusal(response, file, None).await),
        }
    }

    async fn read_linked(
        &self,
        client: &Client,
        file: &RemoteFile,
        link: &Url,
        range: Range<u64>,
    ) -> Result<Body, SourceError> {
        let via = Via::bytes(client, file, &range);
        let response = self.follow(via, link, Some(&range), None).await?;
        if !response.status().is_success() {
            return Err(self.storage_refusal(response, file, Some(link)).await);
        }
        self.links.worked(&file.path);
        Body::open(&self.http, response, file, range)
    }

    /// A link that has expired, ranges that are signed one by one, or no access at all.
    async fn storage_refusal(
        &self,
        response: Response,
        file: &RemoteFile,
        link: Option<&Url>,
    ) -> SourceError {
        let (status, host) = (response.status(), http::origin(response.url()));
        let said = words(&http::error_body(response, self.http.deadlines.stall).await);
        let asked = named(file.path.as_str());
        let refused = Refused { host, status: status.as_u16(), asked, said, hint: None };
        let host = refused.host.clone();
        match OfStorage::of(status) {
            OfStorage::Link if self.links.refused(&file.path, &host, link) => {
                SourceError::Again(refused.into())
            }
            OfStorage::Link | OfStorage::No => SourceError::Access(refused.into()),
            OfStorage::Gone => {
                self.links.forget(&file.path);
                SourceError::Protocol(refused.into())
            }
            OfStorage::Trouble => SourceError::Unreachable(refused.into()),
            OfStorage::Broken => SourceError::Protocol(refused.into()),
        }
    }
}
