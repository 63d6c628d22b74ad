//! A directory of a web server that has a list of digests beside its files, or one file of it.
//!
//! What is there is known from a sentinel or a `SHA256SUMS` alone: pages that list a directory are for people.
//! Each read asks the address that the list stands at, and follows its redirects; a login goes to that origin
//! only.
//!
//! Imports `environment`, `model`, `content` and `net`, and the lists that lie beside files; knows no other source.

mod listing;
mod login;
pub(super) mod netrc;
mod problem;
mod site;

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use reqwest::{Client, Method};
use tokio::sync::OnceCell;

use crate::content::{Body, Source};
use crate::model::{RemoteFile, Selection, Snapshot, WebLocation};
use crate::net::http::Http;
use crate::net::{self, SourceError, Via};
use listing::{Listing, Sizes};
use problem::{Asked, WebProblem};
use site::{Site, validator};

/// A location at a web server.
pub struct Web {
    location: WebLocation,
    /// What will be fetched: the sizes of other files are not asked for.
    selection: Selection,
    site: Arc<Site>,
    http: Http,
    pinned: OnceCell<Listing>,
    sizes: Sizes,
    warnings: Mutex<Vec<String>>,
}

impl Web {
    pub fn open(
        location: &WebLocation,
        selection: &Selection,
        http: &Http,
    ) -> Result<Self, SourceError> {
        let login = login::find(&location.url)?;
        let warnings = login.warning(&location.url).into_iter().collect();
        Ok(Self {
            site: Arc::new(Site::new(location.clone(), login, http.clone())?),
            location: location.clone(),
            selection: selection.clone(),
            http: http.clone(),
            pinned: OnceCell::new(),
            sizes: Sizes::default(),
            warnings: Mutex::new(warnings),
        })
    }

    async fn pinned(&self) -> Result<&Listing, SourceError> {
        let listing = || async {
            let (listing, warnings) = listing::pin(&self.site, &self.selection).await?;
            self.warnings().extend(warnings);
            Ok(listing)
        };
        self.pinned.get_or_try_init(listing).await
    }

    fn warnings(&self) -> MutexGuard<'_, Vec<String>> {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Source for Web {
    async fn revision(&self) -> Result<String, SourceError> {
        Ok(self.pinned().await?.revision.clone())
    }

    async fn snapshot(&self) -> Result<Snapshot, SourceError> {
        let listing = self.pinned().await?;
        let files = self.sizes.add(&self.site, listing, &self.selection).await?;
        let (name, refused) = (self.location.url.to_string(), listing.refused.clone());
        Ok(Snapshot::new(name, listing.revision.clone(), files, refused))
    }

    async fn read(
        &self,
        client: &Client,
        file: &RemoteFile,
        range: Range<u64>,
    ) -> Result<Body, SourceError> {
        let url = self.site.url_of(&file.path);
        // An empty file has no range that could be asked for.
        let part = (range != (0..file.size)).then_some(&range);
        let via = Via::bytes(client, file, &range);
        let response = self.site.follow(via, Method::GET, url, part).await?;
        let asked = Asked::File(&file.path);
        let response = self.site.accepted(response, &asked).await?;
        // Where a digest is published, that decides, whichever of several servers answers.
        if let (None, Some(listed)) = (&file.digest, &file.validator)
            && validator(response.headers()).as_ref() != Some(listed)
        {
            let problem = WebProblem::Changed { host: self.site.host(), file: file.path.clone() };
            return Err(SourceError::Stale(problem.into()));
        }
        let body = net::Body::open(&self.http, response, file, range);
        body.map(Body::from).map_err(|error| match error {
            // Of another size than was listed.
            SourceError::Changed(cause) => SourceError::Stale(cause),
            error => error,
        })
    }

    fn warnings(&self) -> Vec<String> {
        std::mem::take(&mut *Web::warnings(self))
    }
}
