//! The words of weightlift as types: what a source holds, what a model directory must hold, which bytes
//! to fetch; and the decisions about them. Pure: no files, no network, no clock, no async.
//!
//! Imports nothing.

pub mod abandoned;
mod adoption;
mod completeness;
mod decision;
mod digest;
mod fields;
mod fnmatch;
pub(crate) mod fuzz;
pub mod hf_cache;
mod keep;
mod locked;
mod message;
mod mirroring;
mod path;
mod plan;
mod selection;
mod sentinel;
mod signing;
mod snapshot;
mod summary;
pub mod text;
pub mod umask;
mod uri;

pub use adoption::{Giver, Share, Shares, content_named, shares};
pub use completeness::{Completeness, Findings, Shards, is_index, names_its_format};
pub use decision::{Decision, Goal, Known, There, decide, decide_with_kept, is_wanted_revision};
pub use digest::{Checksum, Digest, MD5_ETAG, Md5Told, Sha256, hex};
pub use fields::ErrorFields;
pub use fnmatch::{exclude_flag, literal as literal_pattern};
pub use keep::{Keep, LedBy, RevisionFacts, is_pruned};
pub use locked::{Locked, LockedFile};
pub use message::Message;
pub use mirroring::{Lies, Mark, Step, content_revision, part_size, step};
pub use path::{ModelDir, RelPath, UnsafePath};
pub use plan::{Plan, gaps};
pub use selection::{
    LeftOut, Selected, Selection, SelectionError, is_pickle, is_quantisation, looks_like_weights,
};
pub use sentinel::{
    MirrorMark, MirrorState, Sentinel, SentinelFile, SentinelHead, SentinelProblem,
    each_sentinel_file,
};
pub use signing::{Accepted, SIGNATURE_FILE, Signed, SignedBy, Signer};
pub use snapshot::{RefusedFile, RefusedFiles, RemoteFile, Snapshot, SnapshotError};
pub use summary::Summary;
pub use umask::{Place, ShutOut};
pub use uri::{
    AzLocation, FORMS, Form, GsLocation, HubRepo, ModelScopeRepo, OciArtifact, RepoKind,
    S3Location, SourceUri, SourceUriError, WebLocation,
};

/// Everything that weightlift keeps for itself on a volume lies in a directory of this name.
pub const STATE_DIR: &str = ".weightlift";

/// Name of the sentinel inside a family directory.
pub const SENTINEL: &str = ".weightlift-complete.json";
