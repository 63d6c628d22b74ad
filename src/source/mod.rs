//! Places that hold models, one folder each; the registry, which knows them all; and several places of
//! the same bytes as one source.
//!
//! Imports `environment`, `model`, `content`, `net` and `fs`; knows nothing of the volume, of workers or of retries.

pub(crate) mod az;
pub(crate) mod beside;
pub(crate) mod cloud;
pub(crate) mod fuzz;
pub(crate) mod gs;
pub(crate) mod hub;
mod listed;
pub(crate) mod mirrors;
pub mod registry;
pub(crate) mod s3;
pub(crate) mod volume;

pub use az::{Az, emulated as emulated_az};
pub use gs::{Gs, emulated as emulated_gs};
pub use hub::{Hub, HubSettings, Xet, XetMode};
pub use mirrors::{Mirrors, Place};
pub use registry::SourceSettings;
pub use s3::{S3, S3Settings, Sink};
pub use volume::Published;
