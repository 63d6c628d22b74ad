//! Why there is no token.

use crate::model::ErrorFields;
use crate::net::Problem;

/// Texts are inert.
#[derive(Debug, thiserror::Error)]
pub enum TokenProblem {
    #[error("a request for a token has no valid {0}")]
    Request(&'static str),
    #[error("`{host}` gives no token: it answered {status}{}", after_colon(said))]
    Refused { host: String, status: u16, said: String },
    #[error("the clock of this machine is wrong: {0}")]
    Clock(Box<TokenProblem>),
    #[error("the credentials cannot be used ({by}): {why}")]
    Unusable { by: String, why: String },
}

impl Problem for TokenProblem {
    fn fields(&self) -> ErrorFields {
        match self {
            Self::Refused { host, status, said } => {
                ErrorFields::of_host(host).status(*status).said(said).hint(
                    "set GOOGLE_SKIP_SIGNATURE or AZURE_SKIP_SIGNATURE to `true` for what is public",
                )
            }
            Self::Clock(problem) => problem.fields(),
            Self::Request(_) | Self::Unusable { .. } => ErrorFields::default(),
        }
    }
}

fn after_colon(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(": {said}") }
}
