//! Why `--lock kubernetes` cannot be had.

#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// Exit code 14.
    #[error(
        "--lock kubernetes finds no cluster: {0}; run it in a pod with a service account token \
         (automountServiceAccountToken or a projected volume)"
    )]
    NoCluster(String),
    /// Exit code 11.
    #[error(
        "the Kubernetes API refuses the Lease `{lease}`: {why}; grant the service account get, \
         create and update on leases of coordination.k8s.io in that namespace"
    )]
    Refused { lease: String, why: String },
    /// Exit code 2.
    #[error("`{0}` is not a valid name for a Lease; use lower-case letters, digits, `-` and `.`")]
    Name(String),
}
