//! A bucket of Google Cloud Storage, by its JSON API.
//!
//! Every read names the generation that was listed. The token goes to the origin of the API only: a redirect
//! is not followed.

mod credentials;
pub(crate) mod fuzz;
mod page;
mod refusals;
mod settings;

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use object_store::gcp::GcpCredential;
use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap, HeaderName,
    HeaderValue, RANGE,
};
use reqwest::{Client, Method, Response, StatusCode};
use url::Url;

use super::cloud::{
    Asked, Clients, Cloud, CloudProblem, Failed, Found, Identity, Page, Refusal, Store, Why,
    add_query,
};
use crate::model::{GsLocation, Locked, Selection};
use crate::net::http::{self, Http};
use crate::net::{SourceError, Via};
use settings::Settings;

/// A location in a bucket.
pub type Gs = Cloud<Bucket>;

/// Objects on one page of a listing.
const PAGE_OBJECTS: usize = 1_000;
/// Names of 1 kB, escaped, and less than that about each.
const MAX_PAGE_BYTES: usize = 16 << 20;

const GENERATION: HeaderName = HeaderName::from_static("x-goog-generation");
const STORED_ENCODING: HeaderName = HeaderName::from_static("x-goog-stored-content-encoding");
const USER_PROJECT: HeaderName = HeaderName::from_static("x-goog-user-project");

/// A bucket and who asks for it.
pub struct Bucket {
    name: String,
    place: String,
    called: String,
    http: Http,
    clients: Clients,
    settings: Settings,
    identity: Identity<GcpCredential>,
    /// Objects, as hashes of their keys, that are stored packed, and unpacked on the way unless asked not to.
    packed: Mutex<HashSet<u64>>,
}

/// What lies at `location`; what `selection` does not name is left alone.
pub fn open(location: &GsLocation, selection: &Selection, http: &Http) -> Result<Gs, SourceError> {
    let bucket = Bucket::new(&location.bucket, http)?;
    Ok(Cloud::new(bucket, &location.key, selection.clone(), http.clone()))
}

/// The same where a lock file says what lies there.
pub fn open_at(location: &GsLocation, locked: &Locked, http: &Http) -> Result<Gs, SourceError> {
    let bucket = Bucket::new(&location.bucket, http)?;
    Ok(Cloud::of_lock(bucket, &location.key, locked, http.clone()))
}

/// The same at an emulator, whatever the variables say.
pub fn emulated(location: &GsLocation, url: &str, http: &Http) -> Result<Gs, SourceError> {
    let bucket = Bucket::with(Settings::of_emulator(url)?, &location.bucket, http)?;
    Ok(Cloud::new(bucket, &location.key, Selection::default(), http.clone()))
}

impl Bucket {
    fn new(name: &str, http: &Http) -> Result<Self, SourceError> {
        Self::with(Settings::read()?, name, http)
    }

    fn with(settings: Settings, name: &str, http: &Http) -> Result<Self, SourceError> {
        let clients = Clients::new(http.clone())?;
        let identity = credentials::identity(&settings, name, &clients)?;
        Ok(Self {
            name: name.to_owned(),
            place: format!("gs://{name}/"),
            called: format!("bucket `{name}`"),
            http: http.clone(),
            clients,
            settings,
            identity,
            packed: Mutex::default(),
        })
    }

    /// The URL of the bucket's objects, or of one of them.
    fn url(&self, before: &[&str], key: Option<&str>) -> Result<Url, SourceError> {
        let mut url = self.settings.endpoint.clone();
        let wrong = || {
            let key = super::cloud::shown(key.unwrap_or_default());
            let problem = CloudProblem::Url { place: self.called.clone(), key };
            SourceError::Settings(problem.into())
        };
        url.path_segments_mut()
            .map_err(|()| wrong())?
            .pop_if_empty()
            .extend(before)
            .extend(["storage", "v1", "b", &self.name, "o"])
            .extend(key);
        Ok(url)
    }

    async fn ask(
        &self,
        via: impl Into<Via<'_>>,
        url: &Url,
        plain: HeaderMap,
    ) -> Result<Response, Failed> {
        let (via, mut is_renewed) = (via.into(), false);
        loop {
            let mut headers = plain.clone();
            let asked = Instant::now();
            let credential = self.identity.credential().await?;
            if let Some(token) = credential.filter(|it| !it.bearer.is_empty()) {
                headers.insert(AUTHORIZATION, credentials::header(&token)?);
            }
            if let Some(project) = &self.settings.paying_project {
                headers.insert(USER_PROJECT, project.clone());
            }
            let response = self.http.send(via.clone(), Method::GET, url, headers).await?;
            if response.status().is_success() {
                return Ok(response);
            }
            let stall = self.http.deadlines.stall;
            let refusal = Refusal::read(response, stall, refusals::parse).await;
            if refusal.status != 401 || is_renewed || !self.identity.renew(asked).await {
                return Err(self.identity.refused(refusal));
            }
            is_renewed = true;
        }
    }

    /// The answer to a small question.
    async fn small(&self, url: &Url) -> Result<Vec<u8>, Failed> {
        let response = self.ask(&self.client()?, url, HeaderMap::new()).await?;
        let stall = self.http.deadlines.stall;
        Ok(http::small_body(response, MAX_PAGE_BYTES, stall).await?)
    }

    fn packed(&self, key: &str) -> bool {
        self.packed.lock().unwrap_or_else(PoisonError::into_inner).contains(&hash(key))
    }

    fn keep_packed(&self, key: &str) {
        self.packed.lock().unwrap_or_else(PoisonError::into_inner).insert(hash(key));
    }

    fn changed(&self, key: &str) -> Failed {
        let (place, key) = (self.called.clone(), super::cloud::shown(key));
        SourceError::Stale(CloudProblem::Changed { place, key }.into()).into()
    }
}

#[async_trait]
impl Store for Bucket {
    fn place(&self) -> &str {
        &self.place
    }

    /// `mirror` writes by the API that is like S3's.
    fn mirrored_place(&self, base: &str) -> String {
        format!("s3://{}/{base}", self.name)
    }

    fn called(&self) -> &str {
        &self.called
    }

    async fn page(&self, base: &str, token: Option<&str>) -> Result<Page, Failed> {
        let mut url = self.url(&[], None)?;
        let most = PAGE_OBJECTS.to_string();
        let pairs = [("prefix", base), ("maxResults", &most), ("fields", page::PAGE_FIELDS)];
        add_query(&mut url, pairs.into_iter().chain(token.map(|token| ("pageToken", token))));
        let body = self.small(&url).await?;
        let page = page::parse(&body, &http::origin(&url))?;
        page.packed.iter().for_each(|key| self.keep_packed(key));
        Ok(page.page)
    }

    async fn look(&self, key: &str) -> Result<Option<Found>, Failed> {
        let mut url = self.url(&[], Some(key))?;
        add_query(&mut url, [("fields", page::OBJECT_FIELDS)]);
        let body = match self.small(&url).await {
            Ok(body) => body,
            Err(Failed::Refused(refusal)) if refusal.status == 404 => return Ok(None),
            Err(failed) => return Err(failed),
        };
        let object = page::parse_object(&body, &http::origin(&url))?;
        if object.is_packed {
            self.keep_packed(key);
        }
        Ok(Some(object.found))
    }

    async fn get(
        &self,
        via: Via<'_>,
        key: &str,
        version: Option<&str>,
        range: Option<&Range<u64>>,
    ) -> Result<Response, Failed> {
        let mut url = self.url(&["download"], Some(key))?;
        let generation = version.map(|generation| ("generation", generation));
        add_query(&mut url, std::iter::once(("alt", "media")).chain(generation));
        loop {
            let is_packed = self.packed(key);
            let mut headers = HeaderMap::new();
            if let Some(value) = range.and_then(http::range_header) {
                headers.insert(RANGE, value);
            }
            if is_packed {
                // As it is stored.
                headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
            }
            let mut response = self.ask(via.clone(), &url, headers).await?;
            let text = |name: &HeaderName| response.headers().get(name)?.to_str().ok();
            if let (Some(told), Some(listed)) = (text(&GENERATION), version)
                && told != listed
            {
                return Err(self.changed(key));
            }
            let is_stored_packed = text(&STORED_ENCODING).is_some_and(|it| it.contains("gzip"));
            let is_unpacked = is_stored_packed && text(&CONTENT_ENCODING).is_none();
            if is_unpacked && !is_packed {
                self.keep_packed(key);
                continue;
            }
            if is_unpacked {
                let key = super::cloud::shown(key);
                return Err(
                    SourceError::Contradiction(CloudProblem::Unpacked { key }.into()).into()
                );
            }
            if is_packed
                && response.status() == StatusCode::OK
                && !response.headers().contains_key(CONTENT_LENGTH)
            {
                // These are the stored bytes, and they are counted.
                response.headers_mut().remove(CONTENT_ENCODING);
            }
            return Ok(response);
        }
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

fn hash(key: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}
