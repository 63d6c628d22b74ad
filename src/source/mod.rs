//! Places that hold models. A [`Source`] pins and lists, and reads byte ranges; it knows nothing of
//! the volume, of workers or of retries.

mod body;
pub mod credentials;
mod dns;
mod encoding;
mod error;
pub(crate) mod fuzz;
pub(crate) mod fuzz_s3;
pub mod http;
mod http_failures;
mod hub;
mod hub_answers;
mod hub_endpoint;
mod hub_links;
mod hub_pages;
mod hub_reads;
mod hub_refusals;
mod hub_tree;
mod no_proxy;
mod pace;
mod proxy;
mod s3;
mod s3_ask;
mod s3_checksums;
mod s3_client;
mod s3_credentials;
mod s3_endpoint;
mod s3_env;
mod s3_errors;
mod s3_failures;
mod s3_listing;
mod s3_locate;
mod s3_look;
mod s3_page;
mod s3_pages;
mod s3_parts;
mod s3_payer;
mod s3_profile;
mod s3_reads;
mod s3_settings;
mod s3_sign;
mod s3_skipped;
mod s3_sums;
mod s3_transport;
mod s3_ways;

use std::ops::Range;

use async_trait::async_trait;

pub use body::Body;
pub use error::SourceError;
pub use hub::Hub;
pub use hub_endpoint::HubSettings;
pub use pace::Pace;
pub use s3::{S3, S3Settings};

use crate::model::{RelPath, RemoteFile, Snapshot};

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
