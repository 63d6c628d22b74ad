//! What stands in a Lease, and how long it counts.

use std::time::{Duration, SystemTime};

pub(super) use k8s_openapi::api::coordination::v1::Lease as ApiLease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;

/// A Lease counts this long after its last renewal, and its holder renews it this often: what
/// `client-go` does by default.
pub(super) const LEASE_SECONDS: i32 = 15;
pub(super) const RENEW_EVERY: Duration = Duration::from_secs(5);
/// Annotation with what the holder has done so far: a waiter sees by it that the holder moves.
pub(super) const PROGRESS: &str = "weightlift.io/progress";
/// Annotation with the node of the holder, for those who wait for it.
pub(super) const NODE: &str = "weightlift.io/node";

/// For people: what counts is whether a Lease changes, by the clock of the candidate that looks.
pub(super) fn now() -> MicroTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let micros = i64::try_from(since.as_micros()).unwrap_or_default();
    MicroTime(Timestamp::from_microsecond(micros).unwrap_or_default())
}

/// Whether it can be the name of an object of the API, and so a part of a URL.
pub(super) fn is_name(name: &str) -> bool {
    let is_inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.len() <= 253
        && name.starts_with(is_inner)
        && name.ends_with(is_inner)
        && name.chars().all(|c| is_inner(c) || matches!(c, '-' | '.'))
}
