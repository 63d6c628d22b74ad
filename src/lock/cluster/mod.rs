//! What the Kubernetes API can do for us: one Lease per family. Nothing depends on it but the number
//! of bytes fetched.

mod api;
mod lease;
mod leases;

pub use lease::{Lease, Report};
pub use leases::{Busy, Leases, TryLease};

use std::time::{Duration, SystemTime};

use k8s_openapi::api::coordination::v1::Lease as ApiLease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;

/// So long a Lease counts after it was last renewed, and so often it is renewed: what `client-go`
/// does by default.
const LEASE_SECONDS: i32 = 15;
const RENEW_EVERY: Duration = Duration::from_secs(5);
/// What the holder has done so far: whoever waits sees by it that the holder moves.
const PROGRESS: &str = "weightlift.io/progress";

#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// Exit code 14.
    #[error(
        "--lock kubernetes finds no cluster: {0}; it needs a pod with a service account token, by \
         automountServiceAccountToken or a projected volume"
    )]
    NoCluster(String),
    /// Exit code 11.
    #[error(
        "the Kubernetes API refuses the Lease `{lease}`: {why}; the service account needs get, \
         create and update on leases of coordination.k8s.io in that namespace"
    )]
    Refused { lease: String, why: String },
    /// Exit code 2.
    #[error("`{0}` is no name for a Lease: lower-case letters, digits, `-` and `.`")]
    Name(String),
}

/// For people: what counts is whether a Lease changes, by the clock of whoever looks.
fn now() -> MicroTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let micros = i64::try_from(since.as_micros()).unwrap_or_default();
    MicroTime(Timestamp::from_microsecond(micros).unwrap_or_default())
}

/// Whether it can be the name of an object of the API, and so a part of a URL.
fn is_name(name: &str) -> bool {
    let is_inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.len() <= 253
        && name.starts_with(is_inner)
        && name.ends_with(is_inner)
        && name.chars().all(|c| is_inner(c) || matches!(c, '-' | '.'))
}
