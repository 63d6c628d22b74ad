//! The second way to the bytes of a file of the Hub: by the chunks that its Xet store keeps, in place of the
//! bridge, which makes plain files of them.
//!
//! A file is a list of terms, a term is a run of chunks of a xorb, and xorbs are read by links that are signed
//! for a range. Chunks are unpacked as they come and handed on in the order of the file, so this is a
//! [`Source`] like any other: the engine knows nothing of it. A store tells its readers no hash of a chunk;
//! the SHA-256 of the file is the proof, as ever.

mod answer;
mod batch;
mod chunk;
mod fetching;
pub(crate) mod fuzz;
mod inner;
mod lz4;
mod problem;
mod reading;
mod recipes;
mod store;
mod token;

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use reqwest::Client;

use super::Hub;
use crate::content::{Body, ChunkStore, ChunkedFile, ChunkedPath, Recipe, Source};
use crate::model::{RemoteFile, Snapshot};
use crate::net::SourceError;
use crate::net::http;
pub use batch::SMALL_BYTES;
use inner::Inner;
use reading::{Of, Reading};
use store::Question;

/// Which of the two ways to the bytes of a Hub is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XetMode {
    /// The bridge first, and the chunks where it fails; what changed alone, where an update can tell.
    #[default]
    Auto,
    /// The chunks first.
    Always,
    /// The bridge alone.
    Never,
}

/// The chunk store of a Hub.
pub struct Xet(Arc<Inner>);

impl Xet {
    pub fn new(hub: Arc<Hub>) -> Self {
        Self(Arc::new(Inner::new(hub)))
    }
}

#[async_trait]
impl Source for Xet {
    async fn revision(&self) -> Result<String, SourceError> {
        self.0.hub.revision().await
    }

    async fn snapshot(&self) -> Result<Snapshot, SourceError> {
        self.0.hub.snapshot().await
    }

    async fn read(
        &self,
        client: &Client,
        file: &RemoteFile,
        range: Range<u64>,
    ) -> Result<Body, SourceError> {
        let inner = &self.0;
        let chunked = inner.chunked(file).await?;
        let question = Question { hub: &inner.hub, client, file: &chunked, path: &file.path };
        let window = inner.batches.window(&inner.store, question, &range).await;
        let (inner, client, path) = (inner.clone(), client.clone(), file.path.clone());
        let of = Of { inner, client, file: chunked, path };
        Ok(Body::made(Reading::begin(of, range, window).await?))
    }

    fn chunk_store(&self) -> Option<&dyn ChunkStore> {
        Some(self)
    }

    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }
}

#[async_trait]
impl ChunkStore for Xet {
    fn hub(&self) -> String {
        http::origin(self.0.hub.endpoint())
    }

    async fn recipes(&self, files: &[ChunkedFile]) -> Result<Vec<Option<Recipe>>, SourceError> {
        recipes::of(&self.0, files).await
    }

    async fn listed(&self, repo: &str, revision: &str) -> Result<Vec<ChunkedPath>, SourceError> {
        let files = self.0.hub.at(repo, revision)?.snapshot().await?.files;
        let chunked = |file: RemoteFile| {
            let RemoteFile { path, size, xet_hash, .. } = file;
            Some(ChunkedPath { path, size, id: *xet_hash? })
        };
        Ok(files.into_iter().filter_map(chunked).collect())
    }
}
