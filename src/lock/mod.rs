//! Who may fetch a model: the file lock, the heartbeat of its holder, the Kubernetes Lease, and what a
//! waiter does.
//!
//! Imports `environment`, `model`, `fs`, `net` and `report`. No promise of a volume depends on a lock, only the number
//! of bytes that are fetched.

pub mod cluster;
mod file;
pub(crate) mod heartbeat;
pub mod waiter;

pub use file::{Lock, TryLock, open as open_lock};
pub use heartbeat::{
    BEAT, Heartbeat, HolderStatus, Owner, STOPPED_AFTER, STOPPED_AT_AGE, file_name as owner_file,
};
