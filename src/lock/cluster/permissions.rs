//! Whether the service account may do what `--lock kubernetes` does: for a report. Nothing is written.

use std::path::Path;

use super::api::{Api, Trouble};
use super::error::{ClusterError, Refusal};

/// What a Lease needs.
const VERBS: [&str; 3] = ["get", "create", "update"];

/// What the API server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permissions {
    pub server: String,
    pub namespace: String,
    /// Each verb that is not allowed, and why, in the words of the server.
    pub denied: Vec<(&'static str, String)>,
    /// Why it could not be asked.
    pub away: Option<String>,
}

impl Permissions {
    /// Those of the service account below `account`; `lease` is the name of the Lease, where one is named.
    pub async fn of(account: &Path, lease: Option<&str>) -> Result<Self, ClusterError> {
        let api = Api::of_this_pod(account)?;
        let (server, namespace) = (api.url.clone(), api.namespace.clone());
        let mut found = Self { server, namespace, denied: Vec::new(), away: None };
        match found.ask(&api, lease).await {
            Ok(()) => Ok(found),
            Err(Trouble::Away(why)) => Ok(Self { away: Some(why), ..found }),
            Err(trouble) => {
                let refusal = match trouble {
                    Trouble::Refused(refusal) => refusal,
                    Trouble::NotFound | Trouble::Conflict | Trouble::Away(_) => {
                        let why = "the API server does not know SelfSubjectAccessReview".into();
                        Refusal { status: Some(404), why }
                    }
                };
                let lease = format!("{}/{}", found.namespace, lease.unwrap_or("*"));
                Err(ClusterError::Refused { host: found.server, lease, refusal })
            }
        }
    }

    async fn ask(&mut self, api: &Api, lease: Option<&str>) -> Result<(), Trouble> {
        let client = api.client()?;
        for verb in VERBS {
            // What is made has no name yet, for a rule that knows names.
            let name = lease.filter(|_| verb != "create");
            if let Some(why) = api.review(&client, verb, name).await? {
                self.denied.push((verb, why));
            }
        }
        Ok(())
    }
}
