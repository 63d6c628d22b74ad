//! What a source of content must do, for whoever fetches from it.
//!
//! Imports `model` and `net`; knows no source and no volume.

use std::ops::Range;

use async_trait::async_trait;

use crate::model::{RelPath, RemoteFile, Snapshot};
use crate::net::{Body, SourceError};

/// A place that can be pinned to one immutable revision and then read.
///
/// Each call is one attempt: it fails fast and says by its error whether trying again makes sense.
#[async_trait]
pub trait Source: Send + Sync {
    /// Pins the request to one immutable revision: the cheap question whether anything is new.
    async fn revision(&self) -> Result<String, SourceError>;

    /// Lists the files at the revision that [`revision`](Source::revision) pinned.
    async fn snapshot(&self) -> Result<Snapshot, SourceError>;

    /// Streams exactly `range` of `file` at the pinned revision, over a connection of `client`'s
    /// pool. The body fails rather than ending short or running long.
    ///
    /// The client is the caller's, so that a worker's connections live on its own thread.
    async fn read(
        &self,
        client: &reqwest::Client,
        file: &RemoteFile,
        range: Range<u64>,
    ) -> Result<Body, SourceError>;

    /// The list beside the files that says which digest `path` has, if it is one of those: it may be
    /// older than the file.
    fn list_with_digest(&self, _path: &RelPath) -> Option<&'static str> {
        None
    }

    /// Warnings for the user that have come up since the last call, each a line.
    fn warnings(&self) -> Vec<String>;
}
