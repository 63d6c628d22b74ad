//! Content: what makes bytes the same bytes, the ways to read them, and what a source must do.
//!
//! A file of a model is a [`Blob`]. A [`Locator`] is one way to read it. A [`Source`] is a place that is
//! read from, and a [`Body`] brings the bytes of one range.
//!
//! Imports `model` and `net`; knows no source and no volume.

mod archives;
mod blob;
mod body;
mod chunked;
mod part;
mod source;

pub use archives::Archives;
pub use blob::{Blob, Identity, Locator};
pub use body::{Body, Ending, Pieces, Watch};
pub use chunked::{ChunkStore, ChunkedFile, ChunkedId, ChunkedPath, Recipe, Term};
pub use part::{FilePart, PartProblem};
pub use source::Source;
