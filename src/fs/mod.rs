//! A filesystem as we need it: directories opened without following links, what the kind of a
//! filesystem promises, the free space, and who we are for others on the same volume.
//!
//! Imports `environment` and `model`; knows no name that weightlift keeps on a volume.

pub(crate) mod access;
pub(crate) mod dir;
mod error;
pub(crate) mod filesystem;
mod inside;
mod link;
pub(crate) mod nature;
pub(crate) mod node;
mod replace;
pub(crate) mod space;

pub use dir::{Dir, Kind};
pub use error::FsError;
pub use filesystem::owns;
pub use inside::Followed;
pub use link::LinkPath;
pub use node::NodeIdentity;
pub use replace::Replaceable;
