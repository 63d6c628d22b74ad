//! Places that hold models, one folder each.
//!
//! Imports `model`, `content`, `net` and `fs`; knows nothing of the volume, of workers or of retries.

pub(crate) mod fuzz;
pub(crate) mod hub;
pub(crate) mod s3;

pub use hub::{Hub, HubSettings};
pub use s3::{S3, S3Settings};
