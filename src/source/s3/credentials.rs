//! Who asks: the chain of the AWS SDK, over variables and files that have been cleaned.
//!
//! The chain is made for each question, so that a token which the kubelet has replaced is seen.
//! The SDK keeps what it has been told until shortly before it expires.

use std::error::Error;

use aws_config::imds::credentials::ImdsCredentialsProvider;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{self, ProvideCredentials, future};
use aws_smithy_runtime_api::client::http::SharedHttpClient;

use super::env::{Environment, is_plain, trimmed};
use super::profile::Files;
use crate::model::{ErrorFields, text};
use crate::net::{Cause, Problem, SourceError};

const FOR_A_PUBLIC_BUCKET: &str = "use `--s3-anonymous` for a public bucket";

/// Why there are no credentials.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsProblem {
    #[error(
        "no AWS credentials were found in the environment, a profile, web identity (IRSA), Pod \
         Identity or the instance metadata"
    )]
    None {
        /// The variable that is set, and the one that belongs to it and is not.
        half: Option<(&'static str, &'static str)>,
    },
    #[error("no AWS credentials could be fetched: {0:#}")]
    NotFetched(Cause),
    #[error("no AWS credentials could be fetched: {0}")]
    Late(String),
    #[error("no usable AWS credentials: {0}")]
    Unusable(String),
    #[error("no usable AWS credentials: {0}")]
    Files(String),
    #[error("AWS_PROFILE names profile `{profile}`, but no profile file has it{problem}")]
    NoProfile { profile: String, problem: String },
    #[error("profile `{0}` uses SSO (IAM Identity Center), which weightlift cannot use")]
    Sso(String),
    #[error("profile `{0}` uses `aws login`, which weightlift cannot use")]
    Login(String),
    #[error(
        "`credential_process` of profile `{profile}` (`{program}`) returns no credentials: {why}"
    )]
    Process { profile: String, program: String, why: String },
    #[error("the AWS credentials that were found contain blanks or control characters")]
    Unsendable,
}

impl Problem for CredentialsProblem {
    fn fields(&self) -> ErrorFields {
        match self {
            Self::None { half } => ErrorFields::default().hint(match half {
                Some((one, other)) => {
                    format!("{FOR_A_PUBLIC_BUCKET} ({one} is set, {other} is not)")
                }
                None => FOR_A_PUBLIC_BUCKET.into(),
            }),
            Self::NotFetched(cause) => cause.fields(),
            Self::Unusable(_) => ErrorFields::default().hint(FOR_A_PUBLIC_BUCKET),
            Self::NoProfile { .. } => ErrorFields::of_setting("AWS_PROFILE"),
            Self::Sso(_) => ErrorFields::of_setting("AWS_PROFILE").hint(
                "use a role of the pod (IRSA, Pod Identity), or set the variables that `aws configure \
                 export-credentials` prints",
            ),
            Self::Login(_) => ErrorFields::of_setting("AWS_PROFILE")
                .hint("use a role of the pod (IRSA, Pod Identity), or keys in variables"),
            Self::Process { .. } => ErrorFields::of_setting("credential_process"),
            Self::Unsendable => ErrorFields::default()
                .hint("check the Secret, the profile or the service that they come from"),
            Self::Late(_) | Self::Files(_) => ErrorFields::default(),
        }
    }
}

/// Variables that mean something only together.
const PAIRS: [(&str, &str); 4] = [
    ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"),
    ("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN"),
    ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI"),
];

/// Finds credentials as the SDK does, and says in plain words why there are none.
#[derive(Debug)]
pub struct Chain {
    pub environment: Environment,
    pub http: SharedHttpClient,
    pub region: Region,
    pub timeouts: TimeoutConfig,
    /// Asked last. With deadlines of its own: the metadata service answers at once, or is not there.
    pub metadata: Option<ImdsCredentialsProvider>,
}

impl ProvideCredentials for Chain {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.find())
    }

    fn fallback_on_interrupt(&self) -> Option<Credentials> {
        self.metadata.as_ref()?.fallback_on_interrupt()
    }
}

impl Chain {
    async fn find(&self) -> provider::Result {
        let files = self.files().await;
        let loaded = aws_config::defaults(BehaviorVersion::latest())
            .env(files.env.clone())
            .fs(files.fs.clone())
            .http_client(self.http.clone())
            .region(self.region.clone())
            // A token that is missing for a moment would end the run; so these may try again.
            .retry_config(RetryConfig::standard())
            .timeout_config(self.timeouts.clone())
            .load()
            .await;
        let chain = loaded
            .credentials_provider()
            .ok_or_else(|| refused(CredentialsProblem::None { half: None }))?;
        let found = match (chain.provide_credentials().await, &self.metadata) {
            (Err(CredentialsError::CredentialsNotLoaded(_)), Some(metadata)) => {
                metadata.provide_credentials().await
            }
            (found, _) => found,
        };
        match found {
            Ok(credentials) => {
                cleaned(credentials).ok_or_else(|| refused(CredentialsProblem::Unsendable))
            }
            Err(error) => Err(self.explain(error, &files)),
        }
    }

    /// The files, with the metadata service left to [`metadata`](Self::metadata), unless a profile
    /// names it as the source of a role.
    async fn files(&self) -> Files {
        let without_metadata = [("AWS_EC2_METADATA_DISABLED", Some("true"))];
        let files = Files::read(&self.environment, &without_metadata).await;
        let names_it = files.profiles.profiles().any(|name| {
            let profile = files.profiles.get_profile(name);
            profile.is_some_and(|profile| profile.get("credential_source").is_some())
        });
        if names_it && self.metadata.is_some() {
            return Files::read(&self.environment, &[]).await;
        }
        files
    }

    fn explain(&self, error: CredentialsError, files: &Files) -> CredentialsError {
        if is_of_transport(&error) {
            return error;
        }
        let profile = files.selected();
        let is_missing = |name| files.profiles.get_profile(name).is_none();
        let not_loaded = matches!(error, CredentialsError::CredentialsNotLoaded(_));
        let why = causes(&error);
        if (not_loaded || why.contains("was not defined"))
            && self.environment.get("AWS_PROFILE").is_some_and(is_missing)
        {
            let problems =
                files.problems.first().map(|first| format!(": {}", text::inert(first, 300)));
            let problem = problems.unwrap_or_default();
            return refused(CredentialsProblem::NoProfile { profile, problem });
        }
        // The SDK has nothing but words for it.
        if why.contains("feature(s) enabled: sso") {
            return refused(CredentialsProblem::Sso(profile));
        }
        if why.contains("feature(s) enabled: credentials-login") {
            return refused(CredentialsProblem::Login(profile));
        }
        if let Some(process) =
            files.get("credential_process").filter(|_| why.contains("external process"))
        {
            let program = text::inert(process.split_whitespace().next().unwrap_or_default(), 100);
            let why = text::without_secrets(&text::inert(&why, 300));
            return refused(CredentialsProblem::Process { profile, program, why });
        }
        if let [first, ..] = files.problems.as_slice() {
            return refused(CredentialsProblem::Files(text::inert(first, 300)));
        }
        if !not_loaded {
            return error;
        }
        let is_set = |name: &str| self.environment.get(name).is_some();
        let half = PAIRS.iter().find(|(one, other)| is_set(one) && !is_set(other));
        refused(CredentialsProblem::None { half: half.copied() })
    }
}

/// The same credentials, trimmed; `None` if they cannot be sent.
fn cleaned(found: Credentials) -> Option<Credentials> {
    let [key, secret] = [found.access_key_id(), found.secret_access_key()].map(trimmed);
    let token = found.session_token().map(trimmed).filter(|token| !token.is_empty());
    if ![Some(key), Some(secret), token].into_iter().flatten().all(is_plain) {
        return None;
    }
    let is_clean = key == found.access_key_id()
        && secret == found.secret_access_key()
        && token == found.session_token();
    if is_clean {
        return Some(found);
    }
    let token = token.map(str::to_owned);
    Some(Credentials::new(key, secret, token, found.expiry(), "cleaned"))
}

fn refused(problem: CredentialsProblem) -> CredentialsError {
    CredentialsError::invalid_configuration(SourceError::Access(problem.into()))
}

/// Whether there was no answer: that passes, and is told elsewhere.
fn is_of_transport(error: &CredentialsError) -> bool {
    let not_there = matches!(error, CredentialsError::CredentialsNotLoaded(_));
    matches!(error, CredentialsError::ProviderTimedOut(_))
        || (!not_there && cause::<SourceError>(error).is_some())
}

fn cause<T: Error + 'static>(error: &CredentialsError) -> Option<&T> {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// The last of the causes, which says most.
fn causes(error: &CredentialsError) -> String {
    let mut last: &(dyn Error + 'static) = error;
    while let Some(next) = last.source() {
        last = next;
    }
    last.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_trimmed_and_those_that_cannot_be_sent_are_refused() {
        let found = |key: &str, token: Option<&str>| {
            let token = token.map(str::to_owned);
            cleaned(Credentials::new(key, "secret\n", token, None, "test"))
        };
        let clean = found(" AKID\r\n", Some("token\n")).expect("usable");
        assert_eq!(clean.access_key_id(), "AKID");
        assert_eq!(clean.secret_access_key(), "secret");
        assert_eq!(clean.session_token(), Some("token"));
        assert_eq!(found("AKID", Some(" ")).expect("usable").session_token(), None);
        assert!(found("AK\nID", None).is_none());
        assert!(found("AKID", Some("to ken")).is_none());
    }
}
