//! What a person can do about a refusal of S3.

use super::errors::{Asked, Refusal, shown};
use crate::net::SourceError;

impl Refusal {
    pub fn explain(&self, bucket: &str, asked: Asked<'_>) -> SourceError {
        let what = match asked {
            Asked::List(prefix) => {
                format!("the keys below `{}` in bucket `{bucket}`", shown(prefix))
            }
            Asked::Object(key) => format!("object `{}` in bucket `{bucket}`", shown(key)),
        };
        let told = self.told();
        if self.message.contains("Request is not yet valid") {
            return clock(&told);
        }
        match self.code.as_str() {
            "NoSuchBucket" => SourceError::NotFound(format!("bucket `{bucket}` does not exist")),
            "InvalidObjectState" => SourceError::NotFound(format!(
                "{what} is archived and cannot be read; restore it first"
            )),
            "RequestTimeTooSkewed" => clock(&told),
            "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "InvalidToken" | "AccountProblem" => {
                SourceError::Access(format!(
                    "the credentials for bucket `{bucket}` are not accepted ({told})"
                ))
            }
            "PermanentRedirect" | "AuthorizationHeaderMalformed" => SourceError::Settings(format!(
                "bucket `{bucket}` is not where it was looked for ({told}); check `--s3-endpoint` and AWS_REGION"
            )),
            "RequestTimeout" | "OperationAborted" => {
                SourceError::Unreachable(format!("{what}: {told}"))
            }
            _ if self.status == 403 && self.is_about_payment() => SourceError::Access(format!(
                "{what}: {told}; `--s3-requester-pays` says that you pay"
            )),
            "NotImplemented" => SourceError::Protocol(format!("{what}: {told}")),
            _ if self.is_slow_down() => SourceError::Unreachable(format!("{what}: {told}")),
            _ if self.is_expired() && !self.code.is_empty() => SourceError::Access(format!(
                "the credentials for {what} have expired, and no newer ones were found ({told})"
            )),
            _ => self.explain_status(&what, &told, bucket, asked),
        }
    }

    fn explain_status(
        &self,
        what: &str,
        told: &str,
        bucket: &str,
        asked: Asked<'_>,
    ) -> SourceError {
        match (self.status, asked) {
            (401 | 403, _) => SourceError::Access(self.explain_denial(what, told, asked)),
            (404, Asked::List(_)) => {
                SourceError::NotFound(format!("bucket `{bucket}` cannot be listed ({told})"))
            }
            (404, Asked::Object(_)) => {
                SourceError::Stale(format!("{what} is gone since it was listed ({told})"))
            }
            (412 | 416, Asked::Object(_)) => {
                SourceError::Stale(format!("{what} changed while it was fetched; run again"))
            }
            (400, _) if !self.code.is_empty() => {
                SourceError::Access(format!("S3 does not accept the request for {what}: {told}"))
            }
            (408 | 409 | 429 | 500.., _) | (301 | 302 | 307, _) => {
                SourceError::Unreachable(format!("{what}: {told}"))
            }
            _ => SourceError::Protocol(format!("{what}: {told}")),
        }
    }

    /// What is not allowed; and only where S3 says no more than that, what is probably missing.
    fn explain_denial(&self, what: &str, told: &str, asked: Asked<'_>) -> String {
        let denied = match asked {
            Asked::List(_) => format!("listing {what} is not allowed ({told})"),
            Asked::Object(_) => format!("reading {what} is not allowed ({told})"),
        };
        let about_key = self.message.to_ascii_lowercase().contains("kms");
        match asked {
            _ if self.code != "AccessDenied" => denied,
            Asked::List(_) => format!(
                "{denied}: probably `s3:ListBucket` on the bucket is missing; \
                 to fetch one object, name its whole key and allow `s3:GetObject`"
            ),
            Asked::Object(_) if about_key => {
                format!("{denied}: probably `kms:Decrypt` on its key is missing")
            }
            Asked::Object(_) => format!("{denied}: probably `s3:GetObject` is missing"),
        }
    }

    /// Whether it says that the reader has to say who pays; mostly it does not.
    fn is_about_payment(&self) -> bool {
        let message = self.message.to_ascii_lowercase();
        ["requester pay", "request-payer", "requester-pay"].iter().any(|it| message.contains(it))
    }
}

fn clock(told: &str) -> SourceError {
    SourceError::Unusable(format!("the clock of this machine is wrong: {told}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, code: &str, message: &str) -> Refusal {
        Refusal::new(status, code, message, None, "")
    }

    #[test]
    fn a_missing_permission_is_named() {
        let denied = refusal(403, "AccessDenied", "Access Denied");
        let list = denied.explain("b", Asked::List("llama/"));
        assert!(
            matches!(&list, SourceError::Access(what) if what.contains("`s3:ListBucket`")),
            "{list}"
        );
        let read = denied.explain("b", Asked::Object("llama/a"));
        assert!(
            matches!(&read, SourceError::Access(what) if what.contains("`s3:GetObject`")),
            "{read}"
        );
    }

    #[test]
    fn each_refusal_has_its_class() {
        let explain =
            |status, code, message| refusal(status, code, message).explain("b", Asked::Object("k"));
        assert!(matches!(explain(412, "PreconditionFailed", ""), SourceError::Stale(_)));
        assert!(matches!(explain(404, "NoSuchKey", ""), SourceError::Stale(_)));
        assert!(matches!(explain(404, "NoSuchBucket", ""), SourceError::NotFound(_)));
        assert!(matches!(explain(403, "InvalidObjectState", ""), SourceError::NotFound(_)));
        assert!(matches!(explain(403, "RequestTimeTooSkewed", ""), SourceError::Unusable(_)));
        assert!(matches!(explain(400, "ExpiredToken", ""), SourceError::Access(_)));
        assert!(matches!(explain(400, "RequestTimeout", ""), SourceError::Unreachable(_)));
        assert!(matches!(explain(503, "SlowDown", ""), SourceError::Unreachable(_)));
        assert!(matches!(explain(500, "InternalError", ""), SourceError::Unreachable(_)));
        assert!(matches!(explain(400, "", ""), SourceError::Protocol(_)));
        let unknown = explain(403, "InvalidAccessKeyId", "");
        assert!(!unknown.to_string().contains("is missing"), "{unknown}");
    }

    #[test]
    fn what_is_not_a_denial_is_told_in_its_own_words() {
        let blocked = refusal(403, "QuotaExceeded", "Pay your bill");
        for asked in [Asked::List("llama/"), Asked::Object("llama/a")] {
            let error = blocked.explain("b", asked);
            let said = error.to_string();
            assert!(matches!(error, SourceError::Access(_)), "{said}");
            assert!(said.contains("QuotaExceeded: Pay your bill"), "{said}");
            assert!(!said.contains("missing"), "{said}");
        }
        let denied = refusal(403, "AccessDenied", "").explain("b", Asked::Object("k")).to_string();
        assert!(denied.contains("probably `s3:GetObject` is missing"), "{denied}");
    }
}
