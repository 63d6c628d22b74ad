//! Places that hold models, one folder each; the registry, which knows them all; and several places of
//! the same bytes as one source.
//!
//! Imports `environment`, `model`, `content`, `net` and `fs`; knows nothing of the volume, of workers or of retries.

pub(crate) mod beside;
mod follow;
pub(crate) mod fuzz;
pub(crate) mod hub;
mod listed;
pub(crate) mod mirrors;
pub(crate) mod modelscope;
pub mod registry;
pub(crate) mod s3;
pub(crate) mod volume;
pub(crate) mod web;

pub use hub::{Hub, HubSettings, Xet, XetMode};
pub use mirrors::{Mirrors, Place};
pub use modelscope::ModelScope;
pub use registry::SourceSettings;
pub use s3::{S3, S3Settings, Sink};
pub use volume::Published;
pub use web::Web;
