//! Why a call of the AWS SDK brought no answer: the error that it wraps in many others.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_http::endpoint::ResolveEndpointError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use super::credentials::CredentialsProblem;
use super::errors::{Asked, BUCKET_REGION, Refusal};
use super::problem::CallProblem;
use super::transport::ASKED_HOST;
use crate::model::text;
use crate::net::SourceError;

/// Why a call of the SDK brought nothing.
#[derive(Debug)]
pub enum Failed {
    Refused(Refusal),
    /// There was no answer, or none that could be understood.
    Otherwise(SourceError),
}

impl Failed {
    pub fn of<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let Some(raw) = error.raw_response() else {
            return Self::Otherwise(failure(error));
        };
        if raw.status().is_success() {
            let why = text::inert(&causes(error), 120);
            return Self::Otherwise(SourceError::Protocol(CallProblem::Form(why).into()));
        }
        let (code, message) = match error {
            SdkError::ServiceError(context) => (context.err().code(), context.err().message()),
            _ => (None, None),
        };
        let refusal = Refusal::new(
            raw.status().as_u16(),
            code.unwrap_or_default(),
            message.unwrap_or_default(),
            raw.headers().get(BUCKET_REGION),
            &String::from_utf8_lossy(raw.body().bytes().unwrap_or_default()),
        );
        Self::Refused(refusal.at(raw.headers().get(ASKED_HOST)))
    }

    pub fn explain(self, bucket: &str, asked: Asked<'_>) -> SourceError {
        match self {
            Self::Refused(refusal) => refusal.explain(bucket, asked),
            Self::Otherwise(error) => error,
        }
    }
}

/// What kept a request from being answered at all: no credentials, no connection, no time.
pub fn failure(error: &(dyn Error + 'static)) -> SourceError {
    let mut carried = None;
    let mut credentials = None;
    let mut no_place = None;
    let mut cause = Some(error);
    while let Some(error) = cause {
        carried = carried.or_else(|| error.downcast_ref::<SourceError>());
        credentials = credentials.or_else(|| error.downcast_ref::<CredentialsError>());
        no_place = no_place.or_else(|| error.downcast_ref::<ResolveEndpointError>());
        cause = error.source();
    }
    if let Some(rule) = no_place {
        // What was set does not go together, and never will.
        let rule = text::inert(&rule.to_string(), 200);
        return SourceError::Settings(CallProblem::Rules(rule).into());
    }
    match (carried, credentials) {
        // What the chain of credentials has said in plain words.
        (Some(error @ SourceError::Access(_)), Some(_)) => error.clone(),
        // Then this: that no metadata service answers is part of having none.
        (_, Some(CredentialsError::CredentialsNotLoaded(_))) => {
            SourceError::Access(CredentialsProblem::None { half: None }.into())
        }
        // What the transport had to say.
        (
            Some(
                error @ (SourceError::RateLimited { .. }
                | SourceError::Trust(_)
                | SourceError::Unsafe(_)),
            ),
            _,
        )
        | (
            Some(
                error @ (SourceError::Settings(_)
                | SourceError::Protocol(_)
                | SourceError::Unreachable(_)),
            ),
            None,
        ) => error.clone(),
        (Some(error), None) => SourceError::Unreachable(error.clone().into_cause()),
        (Some(error), Some(_)) => {
            let cause = error.clone().into_cause();
            SourceError::Unreachable(CredentialsProblem::NotFetched(cause).into())
        }
        (None, Some(CredentialsError::ProviderTimedOut(_))) => {
            SourceError::Unreachable(CredentialsProblem::Late(causes(error)).into())
        }
        (None, Some(_)) => SourceError::Access(CredentialsProblem::Unusable(causes(error)).into()),
        (None, None) if causes(error).contains("timeout") => {
            SourceError::Unreachable(CallProblem::Late(causes(error)).into())
        }
        (None, None) => SourceError::Protocol(CallProblem::NotAsked(causes(error)).into()),
    }
}

/// The causes of `error` in one inert line.
fn causes(error: &(dyn Error + 'static)) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut cause = error.source().or(Some(error));
    while let Some(error) = cause {
        let part = error.to_string();
        if !parts.iter().any(|known| known.contains(&part)) {
            parts.push(part);
        }
        cause = error.source();
    }
    text::inert(&parts.join(": "), 400)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn having_no_credentials_is_said_before_what_was_tried_last() {
        let last = SourceError::Unreachable("`http://169.254.169.254` did not answer".into());
        let missing = failure(&CredentialsError::not_loaded(last));
        assert!(matches!(missing, SourceError::Access(_)), "{missing:?}");
        assert!(missing.to_string().contains("`--s3-anonymous`"), "{missing}");
    }

    /// As the SDK wraps what its connector has said.
    #[derive(Debug, thiserror::Error)]
    #[error("dispatch failure")]
    struct Carrying(#[source] SourceError);

    #[test]
    fn what_the_transport_said_survives_the_sdk() {
        let refused = || SourceError::Unreachable("`https://sts`: connection refused".into());
        let sts = failure(&CredentialsError::provider_error(refused()));
        assert!(matches!(sts, SourceError::Unreachable(_)), "{sts:?}");
        assert!(sts.to_string().contains("https://sts"), "{sts}");
        let trust = failure(&CredentialsError::provider_error(SourceError::Trust("x".into())));
        assert!(matches!(trust, SourceError::Trust(_)));
        assert!(matches!(
            failure(&Carrying(SourceError::Settings("x".into()))),
            SourceError::Settings(_)
        ));
        let rejected = failure(&CredentialsError::provider_error("InvalidIdentityToken"));
        assert!(matches!(rejected, SourceError::Access(_)));
    }
}
