//! A container of Azure Blob Storage.
//!
//! Every read is on condition of the ETag that was listed. What is signed, and a shared access signature most
//! of all, goes to the origin of the account only: a redirect is not followed, and no message has a query.

mod connection_string;
mod credentials;
pub(crate) mod fuzz;
mod page;
mod refusals;
mod settings;

use std::ops::Range;
use std::time::Instant;

use async_trait::async_trait;
use object_store::azure::{AzureAuthorizer, AzureCredential};
use object_store::client::{HttpRequest, HttpRequestBody};
use reqwest::header::{ETAG, HeaderMap, HeaderName, HeaderValue, IF_MATCH, RANGE};
use reqwest::{Client, Method, Response};
use url::Url;

use super::cloud::{
    Asked, Clients, Cloud, CloudProblem, Failed, Found, Identity, Page, Refusal, Store, Why,
    add_query, reason,
};
use super::s3::stamp::strong;
use crate::model::{AzLocation, Locked, Selection};
use crate::net::http::{self, Http};
use crate::net::{SourceError, Via};
use settings::Settings;

/// A location in a container.
pub type Az = Cloud<Container>;

/// Blobs on one page of a listing.
const PAGE_BLOBS: usize = 1_000;
/// Names of 1 kB, escaped, and some 2 kB about each.
const MAX_PAGE_BYTES: usize = 16 << 20;

const VERSION: HeaderName = HeaderName::from_static("x-ms-version");
const SPOKEN: HeaderValue = HeaderValue::from_static("2023-11-03");

/// A container and who asks for it.
pub struct Container {
    account: String,
    name: String,
    place: String,
    called: String,
    http: Http,
    clients: Clients,
    endpoint: Url,
    identity: Identity<AzureCredential>,
}

/// What lies at `location`; what `selection` does not name is left alone.
pub fn open(location: &AzLocation, selection: &Selection, http: &Http) -> Result<Az, SourceError> {
    let container = Container::new(location, Settings::read(location)?, http)?;
    Ok(Cloud::new(container, &location.key, selection.clone(), http.clone()))
}

/// The same where a lock file says what lies there.
pub fn open_at(location: &AzLocation, locked: &Locked, http: &Http) -> Result<Az, SourceError> {
    let container = Container::new(location, Settings::read(location)?, http)?;
    Ok(Cloud::of_lock(container, &location.key, locked, http.clone()))
}

/// The same at an emulator, without credentials and whatever the variables say.
pub fn emulated(location: &AzLocation, url: &str, http: &Http) -> Result<Az, SourceError> {
    let container = Container::new(location, Settings::of_emulator(location, url)?, http)?;
    Ok(Cloud::new(container, &location.key, Selection::default(), http.clone()))
}

impl Container {
    fn new(location: &AzLocation, settings: Settings, http: &Http) -> Result<Self, SourceError> {
        let clients = Clients::new(http.clone())?;
        let AzLocation { account, container, .. } = location;
        let identity = credentials::identity(settings.who, account, container, &clients);
        let bare = AzLocation { key: String::new(), ..location.clone() };
        Ok(Self {
            account: account.clone(),
            name: container.clone(),
            place: crate::model::SourceUri::Az(bare).source_name(),
            called: format!("container `{container}` of account `{account}`"),
            http: http.clone(),
            clients,
            endpoint: settings.endpoint,
            identity,
        })
    }

    /// The URL of the container, or of one of its blobs.
    fn url(&self, key: Option<&str>) -> Result<Url, SourceError> {
        let wrong = || {
            let key = super::cloud::shown(key.unwrap_or_default());
            let problem = CloudProblem::Url { place: self.called.clone(), key };
            SourceError::Settings(problem.into())
        };
        let mut url = self.endpoint.clone();
        url.path_segments_mut()
            .map_err(|()| wrong())?
            .pop_if_empty()
            .push(&self.name)
            .extend(key.into_iter().flat_map(|key| key.split('/')));
        Ok(url)
    }

    async fn ask(
        &self,
        via: impl Into<Via<'_>>,
        method: Method,
        url: &Url,
        plain: &HeaderMap,
    ) -> Result<Response, Failed> {
        let (mut via, mut is_renewed) = (via.into(), false);
        loop {
            // A signature is good for a quarter of an hour.
            self.http.pace.wait(&http::origin(url)).await;
            let asked = Instant::now();
            let credential = self.identity.credential().await?;
            if credential.is_some() {
                // A shared access signature is a credential, and stands in the URL.
                via = Via::from(via.client);
            }
            let (url, headers) = self.signed(credential.as_deref(), &method, url, plain)?;
            let response = self.http.send(via.clone(), method.clone(), &url, headers).await?;
            if response.status().is_success() {
                return Ok(response);
            }
            let stall = self.http.deadlines.stall;
            let refusal = Refusal::read(response, stall, refusals::parse).await;
            let is_expired = refusals::is_expired(&refusal);
            if !is_expired || is_renewed || !self.identity.renew(asked).await {
                return Err(self.identity.refused(refusal));
            }
            is_renewed = true;
        }
    }

    /// The request as `credential` lets it through.
    fn signed(
        &self,
        credential: Option<&AzureCredential>,
        method: &Method,
        url: &Url,
        plain: &HeaderMap,
    ) -> Result<(Url, HeaderMap), SourceError> {
        let mut headers = plain.clone();
        headers.insert(VERSION, SPOKEN);
        let Some(credential) = credential else { return Ok((url.clone(), headers)) };
        let wrong = || {
            let problem = CloudProblem::Url { place: self.called.clone(), key: String::new() };
            SourceError::Settings(problem.into())
        };
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.method_mut() = method.clone();
        *request.uri_mut() = url.as_str().parse().map_err(|_| wrong())?;
        *request.headers_mut() = headers;
        AzureAuthorizer::new(credential, &self.account)
            .try_authorize(&mut request)
            .map_err(|error| reason(&error, &self.identity.by()))?;
        let url = Url::parse(&request.uri().to_string()).map_err(|_| wrong())?;
        let mut headers = std::mem::take(request.headers_mut());
        if let Some(value) = headers.get_mut(reqwest::header::AUTHORIZATION) {
            value.set_sensitive(true);
        }
        Ok((url, headers))
    }
}

#[async_trait]
impl Store for Container {
    fn place(&self) -> &str {
        &self.place
    }

    fn called(&self) -> &str {
        &self.called
    }

    async fn page(&self, base: &str, token: Option<&str>) -> Result<Page, Failed> {
        let mut url = self.url(None)?;
        let most = PAGE_BLOBS.to_string();
        let pairs = [
            ("restype", "container"),
            ("comp", "list"),
            ("prefix", base),
            ("maxresults", &most),
            // What says which blobs are directories.
            ("include", "metadata"),
        ];
        add_query(&mut url, pairs.into_iter().chain(token.map(|token| ("marker", token))));
        let response = self.ask(&self.client()?, Method::GET, &url, &HeaderMap::new()).await?;
        let stall = self.http.deadlines.stall;
        let body = http::small_body(response, MAX_PAGE_BYTES, stall).await?;
        Ok(page::parse(&body, &http::origin(&url))?)
    }

    async fn look(&self, key: &str) -> Result<Option<Found>, Failed> {
        let url = self.url(Some(key))?;
        match self.ask(&self.client()?, Method::HEAD, &url, &HeaderMap::new()).await {
            Ok(response) => Ok(Some(page::of_headers(key, response.headers()))),
            Err(Failed::Refused(refusal)) if refusal.status == 404 => Ok(None),
            Err(failed) => Err(failed),
        }
    }

    async fn get(
        &self,
        via: Via<'_>,
        key: &str,
        version: Option<&str>,
        range: Option<&Range<u64>>,
    ) -> Result<Response, Failed> {
        let mut headers = HeaderMap::new();
        if let Some(value) = range.and_then(http::range_header) {
            headers.insert(RANGE, value);
        }
        if let Some(etag) = version.and_then(|etag| HeaderValue::from_str(etag).ok()) {
            headers.insert(IF_MATCH, etag);
        }
        let response = self.ask(via, Method::GET, &self.url(Some(key))?, &headers).await?;
        let told = response.headers().get(ETAG).and_then(|it| strong(it.to_str().ok()?));
        if let (Some(told), Some(listed)) = (told, version)
            && told != listed
        {
            let (place, key) = (self.called.clone(), super::cloud::shown(key));
            return Err(SourceError::Stale(CloudProblem::Changed { place, key }.into()).into());
        }
        Ok(response)
    }

    fn client(&self) -> Result<Client, SourceError> {
        self.clients.client()
    }

    fn why(&self, refusal: &Refusal, asked: Asked<'_>) -> Why {
        refusals::why(refusal, asked, self.identity.is_anonymous())
    }

    fn hint(&self, why: Why, asked: Asked<'_>) -> Option<String> {
        refusals::hint(why, asked)
    }

    fn asked_by(&self) -> String {
        self.identity.by()
    }
}
