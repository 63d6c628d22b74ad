//! What a place must do to be fetched from.

use std::ops::Range;

use async_trait::async_trait;

use super::{Archives, Body, ChunkStore};
use crate::model::{RelPath, RemoteFile, Snapshot};
use crate::net::SourceError;

/// A place that can be pinned to one immutable revision and then read.
///
/// Each call is one attempt. It fails fast, it says by its error whether another attempt makes sense
/// ([`SourceError::is_transient`]), and it may be dropped at any await. Nothing is written anywhere but
/// in the source's own memory, so a call that failed can be made again.
#[async_trait]
pub trait Source: Send + Sync {
    /// Pins the request to one immutable revision: the cheap question whether anything is new.
    ///
    /// On error nothing is pinned, and the next call asks again. Once it has succeeded, every call
    /// gives the same answer without a request.
    async fn revision(&self) -> Result<String, SourceError>;

    /// Lists the files at the revision that [`revision`](Source::revision) pins, which need not have
    /// been called before.
    ///
    /// On error there is no listing; what was learnt on the way may be kept, so that the next call
    /// costs less. A listing is whole or an error.
    async fn snapshot(&self) -> Result<Snapshot, SourceError>;

    /// Streams exactly `range` of `file`, which the snapshot lists, at the pinned revision. It uses a
    /// connection of `client`'s pool: the client is the caller's, so that the connections of a worker
    /// live on its own thread.
    ///
    /// The body fails rather than ending short or running long. Bytes that came before an error are
    /// right as far as anybody can know then, and stay with the caller, who asks for the rest. The
    /// source may remember the error: the next call may go another way, to another link or place.
    async fn read(
        &self,
        client: &reqwest::Client,
        file: &RemoteFile,
        range: Range<u64>,
    ) -> Result<Body, SourceError>;

    /// Is told that the bytes of `file`, as they came, cannot be what was published. Later reads of
    /// that file come from another place, if there is one.
    fn distrust(&self, _file: &RemoteFile) {}

    /// Is asked before that: whether the bytes came by a detour, which then is to blame in place of any
    /// publisher. It is taken no more than a few times for one file.
    fn is_detour_to_blame(&self, _file: &RemoteFile) -> bool {
        false
    }

    /// The list beside the files that says which digest `path` has, if it is one of those: it may be
    /// older than the file.
    fn list_with_digest(&self, _path: &RelPath) -> Option<&'static str> {
        None
    }

    /// What the place is called that `file` would be read from now, where there are several.
    fn place_of(&self, _file: &RemoteFile) -> Option<String> {
        None
    }

    /// Where it is told what files are made of, if it is: what two of them have in common is fetched once.
    fn chunk_store(&self) -> Option<&dyn ChunkStore> {
        None
    }

    /// Its archives, if it may have some: they are unpacked before they are listed.
    fn archives(&self) -> Option<&dyn Archives> {
        None
    }

    /// Warnings for the user that have come up since the last call, each a line.
    fn warnings(&self) -> Vec<String>;
}
