//! Files as sequences of chunks: what two files have in common, where a store of chunks tells.

use std::ops::Range;

use async_trait::async_trait;

use crate::model::RelPath;
use crate::net::SourceError;

/// The name of a file's content at a store of chunks (its Xet hash).
pub type ChunkedId = [u8; 32];

/// A file at a store of chunks: who may read it is told by the repo and the revision that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkedFile {
    /// `org/name`, `datasets/org/name`.
    pub repo: String,
    /// The commit.
    pub revision: String,
    pub id: ChunkedId,
    /// Bytes.
    pub size: u64,
}

/// A file of another revision, as it was listed then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkedPath {
    pub path: RelPath,
    /// Bytes.
    pub size: u64,
    pub id: ChunkedId,
}

/// A run of chunks that lie behind one another in a block of the store (a xorb): equal block and chunk numbers
/// mean equal bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    pub block: [u8; 32],
    /// Numbers in the block.
    pub chunks: Range<u32>,
    /// Bytes of the file.
    pub len: u32,
}

/// A file as its store puts it together: the terms in the order of the file, without gaps. Their lengths are
/// together the size of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recipe {
    pub terms: Vec<Term>,
}

/// A store that tells what files are made of.
#[async_trait]
pub trait ChunkStore: Send + Sync {
    /// The Hub that it belongs to: an origin.
    fn hub(&self) -> String;

    /// The recipe of each of `files`, in their order; none for a file that the store does not tell of, or
    /// whose recipe is too long to be kept in memory. An error is about all of them, and no reason not to
    /// fetch.
    async fn recipes(&self, files: &[ChunkedFile]) -> Result<Vec<Option<Recipe>>, SourceError>;

    /// The files that a revision of a repo had in the store: for a copy whose sentinel does not say so.
    async fn listed(&self, repo: &str, revision: &str) -> Result<Vec<ChunkedPath>, SourceError>;
}
