//! Why a call of the AWS SDK brought no answer: the error that it wraps in many others.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_http::endpoint::ResolveEndpointError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use super::credentials::NONE_FOUND;
use super::errors::{Asked, BUCKET_REGION, Refusal};
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
            let cause = text::inert(&causes(error), 120);
            return Self::Otherwise(SourceError::Protocol(format!(
                "S3 sent an answer in a wrong form: {cause}"
            )));
        }
        let (code, message) = match error {
            SdkError::ServiceError(context) => (context.err().code(), context.err().message()),
            _ => (None, None),
        };
        Self::Refused(Refusal::new(
            raw.status().as_u16(),
            code.unwrap_or_default(),
            message.unwrap_or_default(),
            raw.headers().get(BUCKET_REGION),
            &String::from_utf8_lossy(raw.body().bytes().unwrap_or_default()),
        ))
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
        return SourceError::Settings(format!("S3 cannot be reached as it is set: {rule}"));
    }
    match (carried, credentials) {
        // What the chain of credentials has said in plain words.
        (Some(SourceError::Access(what)), Some(_)) => SourceError::Access(what.clone()),
        // Then this: that no metadata service answers is part of having none.
        (_, Some(CredentialsError::CredentialsNotLoaded(_))) => {
            SourceError::Access(NONE_FOUND.into())
        }
        // What the transport had to say.
        (Some(SourceError::RateLimited { host, wait }), _) => {
            SourceError::RateLimited { host: host.clone(), wait: *wait }
        }
        (Some(SourceError::Trust(what)), _) => SourceError::Trust(what.clone()),
        (Some(SourceError::Unsafe(what)), _) => SourceError::Unsafe(what.clone()),
        (Some(SourceError::Settings(what)), None) => SourceError::Settings(what.clone()),
        (Some(SourceError::Protocol(what)), None) => SourceError::Protocol(what.clone()),
        (Some(what), None) => SourceError::Unreachable(what.to_string()),
        (Some(what), Some(_)) => {
            SourceError::Unreachable(format!("no AWS credentials could be fetched: {what}"))
        }
        (None, Some(CredentialsError::ProviderTimedOut(_))) => SourceError::Unreachable(format!(
            "no AWS credentials could be fetched: {}",
            causes(error)
        )),
        (None, Some(_)) => SourceError::Access(format!(
            "no usable AWS credentials: {}; for a public bucket use `--s3-anonymous`",
            causes(error)
        )),
        (None, None) if causes(error).contains("timeout") => {
            SourceError::Unreachable(format!("S3 did not answer in time: {}", causes(error)))
        }
        (None, None) => SourceError::Protocol(format!("S3 could not be asked: {}", causes(error))),
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
        let SourceError::Access(what) = &missing else { panic!("{missing:?}") };
        assert!(what.contains("`--s3-anonymous`"), "{what}");
    }

    /// As the SDK wraps what its connector has said.
    #[derive(Debug, thiserror::Error)]
    #[error("dispatch failure")]
    struct Carrying(#[source] SourceError);

    #[test]
    fn what_the_transport_said_survives_the_sdk() {
        let refused = || SourceError::Unreachable("`https://sts`: connection refused".into());
        let sts = failure(&CredentialsError::provider_error(refused()));
        assert!(matches!(&sts, SourceError::Unreachable(what) if what.contains("https://sts")));
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
