//! Why `--lock kubernetes` cannot be had.

use crate::model::ErrorFields;

const RUN_IN_A_POD: &str = "run it in a pod with a service account token \
                            (automountServiceAccountToken or a projected volume)";
const GRANT: &str = "grant the service account get, create and update on leases of \
                     coordination.k8s.io in that namespace";
const NAMES: &str = "use lower-case letters, digits, `-` and `.`";

#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// Exit code 14.
    #[error("--lock kubernetes finds no cluster: {0}; {RUN_IN_A_POD}")]
    NoCluster(String),
    /// Exit code 11.
    #[error("the Kubernetes API refuses the Lease `{lease}`: {}; {GRANT}", refusal.why)]
    Refused { host: String, lease: String, refusal: Refusal },
    /// Exit code 2.
    #[error("`{0}` is not a valid name for a Lease; {NAMES}")]
    Name(String),
}

/// An answer of the API server that no retry will change.
#[derive(Debug)]
pub struct Refusal {
    /// Absent where the question could not be asked.
    pub status: Option<u16>,
    pub why: String,
}

impl ClusterError {
    /// What a program can read of it.
    pub fn fields(&self) -> ErrorFields {
        match self {
            Self::NoCluster(_) => ErrorFields::of_setting("--lock").hint(RUN_IN_A_POD),
            Self::Refused { host, refusal, .. } => {
                let fields = ErrorFields::of_host(host).said(&refusal.why).hint(GRANT);
                ErrorFields { http_status: refusal.status, ..fields }
            }
            Self::Name(_) => ErrorFields::of_setting("--lease-name").hint(NAMES),
        }
    }
}
