//! Who asks S3: for a report. A fetch has the same credentials, found in the same way.

use aws_credential_types::provider::ProvideCredentials;

use super::client::Bucket;
use super::failures::failure;
use super::settings::S3Settings;
use crate::model::S3Location;
use crate::net::SourceError;
use crate::net::http::Http;

/// What may be shown of credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Identity {
    pub region: String,
    /// None where nothing is signed.
    pub key: Option<S3Key>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Key {
    /// The end of the access key id.
    pub last_four: String,
    /// As the SDK calls where it is from.
    pub provider: String,
    pub account: Option<String>,
    pub is_temporary: bool,
}

/// The credentials for the bucket of `location`.
pub async fn identity(
    location: &S3Location,
    settings: &S3Settings,
    http: &Http,
) -> Result<S3Identity, SourceError> {
    let bucket = Bucket::new(location.bucket.clone(), settings.clone(), http.clone())?;
    let connection = bucket.connection().await?;
    let region = connection.region.clone();
    let Some(chain) = bucket.chain(&region)? else {
        return Ok(S3Identity { region, key: None });
    };
    let found = Box::pin(chain.provide_credentials()).await;
    let found = found.map_err(|error| failure(&error))?;
    let id = found.access_key_id();
    let last_four = id.get(id.len().saturating_sub(4)..).unwrap_or_default().to_owned();
    Ok(S3Identity {
        region,
        key: Some(S3Key {
            last_four,
            provider: provider_of(&format!("{found:?}")),
            account: found.account_id().map(|account| account.as_str().to_owned()),
            is_temporary: found.session_token().is_some(),
        }),
    })
}

/// Where credentials are from: the SDK tells it in their `Debug` alone, which shows no secret.
fn provider_of(debug: &str) -> String {
    let named = debug.split("provider_name: \"").nth(1).and_then(|rest| rest.split('"').next());
    let plain = match named.unwrap_or_default() {
        "EnvironmentVariable" => "AWS_ACCESS_KEY_ID",
        "ProfileFile" => "a profile file",
        "CredentialProcess" => "the credential_process of a profile",
        "WebIdentityToken" => "a web identity token (IRSA)",
        "AssumeRoleProvider" => "an assumed role",
        "EcsContainer" => "the container's credentials endpoint (EKS Pod Identity, ECS)",
        "IMDSv2" => "the instance's role (metadata service)",
        "SSO" => "SSO",
        "Login" => "`aws login`",
        "" => "unknown origin",
        other => other,
    };
    plain.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_credential_types::Credentials;

    #[test]
    fn the_sdk_says_where_credentials_are_from_and_shows_none() {
        let found = Credentials::new("AKID", "hunter2hunter2", None, None, "WebIdentityToken");
        let debug = format!("{found:?}");
        assert_eq!(provider_of(&debug), "a web identity token (IRSA)");
        assert!(!debug.contains("hunter2"), "{debug}");
        assert_eq!(provider_of(""), "unknown origin");
        assert_eq!(provider_of("provider_name: \"Later\""), "Later");
    }
}
