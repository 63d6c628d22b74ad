//! A model in a cache of the Hub's own clients: what they read are blobs and links to them; beside these lies
//! our sentinel, one for each commit.

mod publish;
mod repo;
mod store;

pub use repo::CachedSnapshot;
