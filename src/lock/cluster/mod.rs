//! What the Kubernetes API can do for us: one Lease per model directory. Nothing depends on it but the
//! number of bytes fetched.
//!
//! `candidate` acquires it, `held` renews and releases it, `api` makes the calls, `record` says what stands
//! in it.

mod api;
mod candidate;
mod error;
mod held;
mod permissions;
mod record;

pub use candidate::{Busy, Candidate, TryLease};
pub use error::ClusterError;
pub use held::{DescribeProgress, HeldLease};
pub use permissions::Permissions;

/// Whether the kubelet has told this process of a cluster.
pub fn is_here() -> bool {
    crate::environment::text("KUBERNETES_SERVICE_HOST").is_some()
}
