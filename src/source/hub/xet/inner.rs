//! What the readers of one Hub's chunk store share.

use std::ops::Range;
use std::sync::Arc;

use reqwest::Client;

use super::answer::Window;
use super::batch::Batches;
use super::problem::{What, XetProblem};
use super::store::{Question, Store};
use crate::content::ChunkedFile;
use crate::model::{RelPath, RemoteFile};
use crate::net::SourceError;
use crate::net::http::{self, Http};
use crate::source::hub::Hub;

pub struct Inner {
    pub hub: Arc<Hub>,
    pub http: Http,
    pub store: Store,
    pub batches: Batches,
}

impl Inner {
    pub fn new(hub: Arc<Hub>) -> Self {
        let (http, store, batches) = (hub.http().clone(), Store::default(), Batches::default());
        Self { hub, http, store, batches }
    }

    /// What a part of the file is made of.
    pub async fn window(
        &self,
        client: &Client,
        file: &ChunkedFile,
        path: &RelPath,
        part: Range<u64>,
    ) -> Result<Window, SourceError> {
        let question = Question { hub: &self.hub, client, file, path };
        self.store.window(question, part).await
    }

    /// The pinned revision's `file`, as the store knows it.
    pub async fn chunked(&self, file: &RemoteFile) -> Result<ChunkedFile, SourceError> {
        let pinned = self.hub.pinned().await?;
        let Some(id) = file.xet_hash.as_deref() else {
            let problem = self.problem(&file.path, What::NoName);
            return Err(SourceError::NotFound(problem.into()));
        };
        Ok(ChunkedFile {
            repo: pinned.name.clone(),
            revision: pinned.commit.clone(),
            id: *id,
            size: file.size,
        })
    }

    fn problem(&self, path: &RelPath, what: What) -> XetProblem {
        let host = http::origin(self.hub.endpoint());
        XetProblem { host, file: Some(path.clone()), status: None, what }
    }

    /// An answer that contradicts itself.
    pub fn odd(&self, path: &RelPath, why: &str) -> SourceError {
        SourceError::Protocol(self.problem(path, What::Answer(why.to_owned())).into())
    }
}
