//! Who asks Azure Blob Storage, in the terms of the SDK.

use std::sync::Arc;
use std::time::Duration;

use object_store::azure::{AzureCredential, MicrosoftAzureBuilder, split_sas};

use super::settings::{Proof, Who};
use crate::model::text;
use crate::source::cloud::{Clients, Connector, Identity, Origin, Provider, no_retries};

/// The service of the node answers at once, or is not there.
const IDENTITY_TIMEOUT: Duration = Duration::from_secs(2);

type Made = object_store::Result<Provider<AzureCredential>>;

/// The identity that `who` has at `container` of `account`.
pub fn identity(
    who: Who,
    account: &str,
    container: &str,
    clients: &Clients,
) -> Identity<AzureCredential> {
    let (account, container) = (account.to_owned(), container.to_owned());
    let builder = move |connector: Connector| {
        MicrosoftAzureBuilder::new()
            .with_account(account.clone())
            .with_container_name(container.clone())
            .with_retry(no_retries())
            .with_http_connector(connector)
    };
    let clients = clients.clone();
    let mut may_be_missing = false;
    let (by, make): (String, Box<dyn Fn() -> Made + Send + Sync>) = match who {
        Who::Nobody => return Identity::of(None),
        Who::Key { key, by } => {
            let make = move || {
                built(builder(Connector::new(clients.clone())).with_access_key(key.clone()))
            };
            (format!("with the key of {by}"), Box::new(make))
        }
        Who::Signature { query, by } => {
            let make = move || {
                let pairs = split_sas(&query)?;
                built(builder(Connector::new(clients.clone())).with_sas_authorization(pairs))
            };
            (format!("with the signature of {by}"), Box::new(make))
        }
        Who::Application { client, tenant, proof, authority } => {
            let named = text::inert(&client, 60);
            let by = match &proof {
                Proof::Secret(_) => format!("as `{named}` (AZURE_CLIENT_SECRET)"),
                Proof::TokenFile(_) => format!("as `{named}` (AZURE_FEDERATED_TOKEN_FILE)"),
            };
            let make = move || {
                let builder = builder(Connector::new(clients.clone()))
                    .with_client_id(client.clone())
                    .with_tenant_id(tenant.clone())
                    .with_authority_host(authority.clone());
                built(match &proof {
                    Proof::Secret(secret) => builder.with_client_secret(secret.clone()),
                    Proof::TokenFile(path) => builder.with_federated_token_file(path.clone()),
                })
            };
            (by, Box::new(make))
        }
        Who::Managed { client, endpoint } => {
            may_be_missing = client.is_none() && endpoint.is_none();
            let by = match &client {
                Some(client) => format!("as the managed identity `{}`", text::inert(client, 60)),
                None => "as the managed identity of the node".to_owned(),
            };
            let make = move || {
                let mut builder = builder(Connector::of_node(clients.clone(), IDENTITY_TIMEOUT));
                if let Some(client) = &client {
                    builder = builder.with_client_id(client.clone());
                }
                if let Some(endpoint) = &endpoint {
                    builder = builder.with_msi_endpoint(endpoint.clone());
                }
                built(builder)
            };
            (by, Box::new(make))
        }
    };
    Identity::of(Some(Origin { by, make, may_be_missing }))
}

fn built(builder: MicrosoftAzureBuilder) -> Made {
    Ok(Arc::clone(builder.build()?.credentials()))
}
