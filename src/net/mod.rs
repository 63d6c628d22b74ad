//! How a source is spoken to: the HTTP client, its deadlines and redirects, proxies, addresses, the pace
//! of each host, and bodies that are exactly the range that was asked for.
//!
//! Imports `environment` and `model`; knows nothing of hubs, buckets or volumes.

mod addresses;
mod asking;
mod bandwidth;
pub(crate) mod body;
mod connecting;
mod dns;
pub(crate) mod encoding;
mod error;
mod failures;
pub mod http;
mod no_proxy;
mod outgoing;
pub mod p2p;
pub(crate) mod pace;
mod peers;
mod problem;
mod proxy;
mod roots;
pub mod tally;
mod via;

pub use asking::{Answer, Asking, Exchange, Told, Witness};
pub use bandwidth::Bandwidth;
pub use body::{Body, Part};
pub use dns::addresses_of;
pub use error::{Cause, Failures, Problem, SourceError};
pub use p2p::P2p;
pub use pace::Pace;
pub use peers::Peer;
pub use problem::{BadSetting, CHECK_DNS, CHECK_EGRESS, CHECK_PROXY, HttpProblem};
pub use roots::{NamedRoots, Roots};
pub use via::{Detour, Via};
