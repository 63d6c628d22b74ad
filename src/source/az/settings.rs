//! Where an account of Azure Blob Storage is, and who is to ask it, as variables say.
//!
//! A key and a signature are those of one account: where variables name another account than SOURCE, they are
//! not sent there.

use url::Url;

use super::connection_string::ConnectionString;
use crate::environment;
use crate::model::AzLocation;
use crate::net::{BadSetting, SourceError, http};

const CONNECTION_STRING: &str = "AZURE_STORAGE_CONNECTION_STRING";
const ENDPOINT: &str = "AZURE_STORAGE_ENDPOINT";
const SIGNATURE: &str = "AZURE_STORAGE_SAS_TOKEN";
const AUTHORITY: &str = "AZURE_AUTHORITY_HOST";
const SKIP: &str = "AZURE_SKIP_SIGNATURE";
const USUAL_AUTHORITY: &str = "https://login.microsoftonline.com";

pub struct Settings {
    /// Of the account.
    pub endpoint: Url,
    pub who: Who,
}

/// Who asks. `by` is for messages.
pub enum Who {
    Key {
        key: String,
        by: &'static str,
    },
    Signature {
        query: String,
        by: &'static str,
    },
    /// An application, by a secret or by the token that Kubernetes gives the pod.
    Application {
        client: String,
        tenant: String,
        proof: Proof,
        authority: String,
    },
    /// The identity of the node or of the service that runs this; of a certain application, if one is named.
    Managed {
        client: Option<String>,
        endpoint: Option<String>,
    },
    Nobody,
}

pub enum Proof {
    Secret(String),
    TokenFile(String),
}

impl Settings {
    pub fn read(location: &AzLocation) -> Result<Self, SourceError> {
        let text = environment::text;
        let AzLocation { account, domain, .. } = location;
        let connection = text(CONNECTION_STRING).map(|it| ConnectionString::parse(&it));
        let connection = connection.filter(|it| it.account.as_ref().is_none_or(|it| it == account));
        let named = text(ENDPOINT).map(|url| (url, ENDPOINT));
        let connected = connection.as_ref().and_then(|it| it.endpoint.clone());
        let endpoint = match named.or(connected.map(|url| (url, CONNECTION_STRING))) {
            Some((url, name)) => of_account(http::endpoint(&url, name)?, account),
            None => http::endpoint(&format!("https://{account}.blob.core.{domain}"), "")?,
        };
        Ok(Self { endpoint, who: Who::read(account, connection)? })
    }

    /// Those for an emulator, which nobody is named to.
    pub fn of_emulator(location: &AzLocation, url: &str) -> Result<Self, SourceError> {
        let endpoint = of_account(http::endpoint(url, ENDPOINT)?, &location.account);
        Ok(Self { endpoint, who: Who::Nobody })
    }
}

impl Who {
    fn read(account: &str, connection: Option<ConnectionString>) -> Result<Self, SourceError> {
        let text = environment::text;
        if text(SKIP).is_some_and(|it| it == "1" || it.eq_ignore_ascii_case("true")) {
            return Ok(Self::Nobody);
        }
        if let Some(ConnectionString { key, signature, .. }) = connection {
            let by = CONNECTION_STRING;
            match (key, signature) {
                (Some(key), _) => return Ok(Self::Key { key, by }),
                (None, Some(query)) => return Ok(Self::Signature { query, by }),
                (None, None) => {}
            }
        }
        let named = ["AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME"].into_iter();
        let is_ours = named.filter_map(text).next().is_none_or(|named| named == account);
        for by in ["AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCOUNT_KEY"] {
            if let Some(key) = text(by).filter(|_| is_ours) {
                return Ok(Self::Key { key, by });
            }
        }
        if let Some(query) = text(SIGNATURE).filter(|_| is_ours) {
            return Ok(Self::Signature { query, by: SIGNATURE });
        }
        let client = text("AZURE_CLIENT_ID");
        let secret = text("AZURE_CLIENT_SECRET").map(Proof::Secret);
        let proof = secret.or_else(|| text("AZURE_FEDERATED_TOKEN_FILE").map(Proof::TokenFile));
        let Some(proof) = proof else {
            return Ok(Self::Managed { client, endpoint: text("IDENTITY_ENDPOINT") });
        };
        let name = match proof {
            Proof::Secret(_) => "AZURE_CLIENT_SECRET",
            Proof::TokenFile(_) => "AZURE_FEDERATED_TOKEN_FILE",
        };
        let (Some(client), Some(tenant)) = (client, text("AZURE_TENANT_ID")) else {
            let why = "is set, and AZURE_CLIENT_ID or AZURE_TENANT_ID is not";
            return Err(SourceError::Settings(
                BadSetting::new(name, why).hint("set all three of them").into(),
            ));
        };
        let is_plain = |it: &str| it.chars().all(|c| c.is_ascii_alphanumeric() || "-.".contains(c));
        if !is_plain(&tenant) {
            let why = "is not the name of a tenant";
            return Err(SourceError::Settings(
                BadSetting::new("AZURE_TENANT_ID", why).hint("write its ID or its domain").into(),
            ));
        }
        let authority = text(AUTHORITY).unwrap_or_else(|| USUAL_AUTHORITY.to_owned());
        let authority = http::endpoint(&authority, AUTHORITY)?;
        let authority = authority.as_str().trim_end_matches('/').to_owned();
        Ok(Self::Application { client, tenant, proof, authority })
    }
}

/// The endpoint of `account` at `url`, which may be that of a whole emulator.
fn of_account(url: Url, account: &str) -> Url {
    let in_host = url.domain().is_some_and(|host| host.split('.').next() == Some(account));
    let in_path = url.path_segments().is_some_and(|mut it| it.any(|part| part == account));
    let mut url = url;
    if !in_host
        && !in_path
        && let Ok(mut path) = url.path_segments_mut()
    {
        path.pop_if_empty().push(account);
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_is_in_the_host_or_in_the_path() {
        for (url, expected) in [
            ("https://models.blob.core.windows.net", "https://models.blob.core.windows.net/"),
            ("https://models.privatelink.example/", "https://models.privatelink.example/"),
            ("http://127.0.0.1:10000", "http://127.0.0.1:10000/models"),
            ("http://127.0.0.1:10000/models/", "http://127.0.0.1:10000/models/"),
            ("https://blobs.example", "https://blobs.example/models"),
        ] {
            let parsed = Url::parse(url).expect(url);
            assert_eq!(of_account(parsed, "models").as_str(), expected);
        }
    }
}
