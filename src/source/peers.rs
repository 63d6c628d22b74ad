//! A source some of whose bytes come from peers: who has sent wrong ones is told from the source itself.
//!
//! Imports `model`, `content` and `net`; knows no kind of source.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use reqwest::Client;

use crate::content::{Archives, Body, ChunkStore, Source};
use crate::model::{RelPath, RemoteFile, Snapshot};
use crate::net::{Detour, SourceError};

pub(super) struct WithPeers {
    pub source: Box<dyn Source>,
    pub p2p: Arc<dyn Detour>,
}

#[async_trait]
impl Source for WithPeers {
    async fn revision(&self) -> Result<String, SourceError> {
        self.source.revision().await
    }

    async fn snapshot(&self) -> Result<Snapshot, SourceError> {
        self.source.snapshot().await
    }

    async fn read(
        &self,
        client: &Client,
        file: &RemoteFile,
        range: Range<u64>,
    ) -> Result<Body, SourceError> {
        self.source.read(client, file, range).await
    }

    fn distrust(&self, file: &RemoteFile) {
        self.source.distrust(file);
    }

    fn is_detour_to_blame(&self, file: &RemoteFile) -> bool {
        self.p2p.is_to_blame(file)
    }

    fn list_with_digest(&self, path: &RelPath) -> Option<&'static str> {
        self.source.list_with_digest(path)
    }

    fn place_of(&self, file: &RemoteFile) -> Option<String> {
        self.source.place_of(file)
    }

    fn chunk_store(&self) -> Option<&dyn ChunkStore> {
        self.source.chunk_store()
    }

    fn archives(&self) -> Option<&dyn Archives> {
        self.source.archives()
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = self.source.warnings();
        warnings.append(&mut self.p2p.warnings());
        warnings
    }
}
