//! Places that hold models, one folder each; the registry, which knows them all; and several places of
//! the same bytes as one source.
//!
//! Imports `environment`, `model`, `content`, `net` and `fs`; knows nothing of the volume, of workers or of retries.

pub(crate) mod az;
pub(crate) mod beside;
pub(crate) mod cloud;
mod follow;
pub(crate) mod fuzz;
pub(crate) mod gs;
pub(crate) mod hub;
mod links;
mod listed;
pub(crate) mod mirrors;
pub(crate) mod modelscope;
pub(crate) mod oci;
mod peers;
pub mod registry;
pub(crate) mod s3;
mod status;
pub(crate) mod volume;
pub(crate) mod web;

pub use crate::net::p2p::{Dragonfly, parse as parse_p2p};
pub use az::{Az, emulated as emulated_az};
pub use gs::{Gs, emulated as emulated_gs};
pub use hub::{Account, Hub, HubIdentity, HubSettings, Xet, XetMode, identity as hub_identity};
pub use mirrors::{Mirrors, Place};
pub use modelscope::ModelScope;
pub use oci::{Oci, OciSettings};
pub use registry::SourceSettings;
pub use s3::{S3, S3Identity, S3Key, S3Settings, Sink, identity as s3_identity};
pub use volume::Published;
pub use web::Web;
