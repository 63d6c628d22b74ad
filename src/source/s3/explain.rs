//! What a person can do about a refusal of S3.

use std::fmt;

use super::errors::{Asked, Refusal, shown};
use crate::model::ErrorFields;
use crate::net::{Problem, SourceError};

/// A refusal by S3 of a question about a bucket.
#[derive(Debug)]
struct Refused {
    refusal: Refusal,
    bucket: String,
    subject: Subject,
    why: Why,
}

/// What was asked for. Inert.
#[derive(Debug)]
enum Subject {
    Below(String),
    Object(String),
    New(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Clock,
    NoBucket,
    Archived,
    BadCredentials,
    Expired,
    /// The bucket is at another endpoint or in another region.
    Misplaced,
    NotPaid,
    /// In the words of S3.
    Denied,
    /// S3 says no more than that; probably this permission is missing.
    Lacks(&'static str),
    NotListed,
    Gone,
    Changed,
    NotAccepted,
    ReadOnly,
    Words,
}

impl Refusal {
    pub fn explain(&self, bucket: &str, asked: Asked<'_>) -> SourceError {
        let why = self.why(asked);
        let class = match why {
            Why::Clock => SourceError::Unusable,
            Why::NoBucket | Why::Archived | Why::NotListed => SourceError::NotFound,
            Why::Misplaced => SourceError::Settings,
            Why::Gone | Why::Changed => SourceError::Stale,
            Why::Words if self.may_pass() => SourceError::Unreachable,
            Why::Words => SourceError::Protocol,
            Why::BadCredentials
            | Why::Expired
            | Why::NotPaid
            | Why::Denied
            | Why::Lacks(_)
            | Why::ReadOnly
            | Why::NotAccepted => SourceError::Access,
        };
        let subject = match asked {
            Asked::List(prefix) => Subject::Below(shown(prefix)),
            Asked::Object(key) => Subject::Object(shown(key)),
            Asked::Write(key) => Subject::New(shown(key)),
        };
        class(Refused { refusal: self.clone(), bucket: bucket.to_owned(), subject, why }.into())
    }

    fn why(&self, asked: Asked<'_>) -> Why {
        if self.message.contains("Request is not yet valid") {
            return Why::Clock;
        }
        match self.code.as_str() {
            "NoSuchBucket" => Why::NoBucket,
            "InvalidObjectState" => Why::Archived,
            "RequestTimeTooSkewed" => Why::Clock,
            "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "InvalidToken" | "AccountProblem" => {
                Why::BadCredentials
            }
            "PermanentRedirect" | "AuthorizationHeaderMalformed" => Why::Misplaced,
            "RequestTimeout" | "OperationAborted" => Why::Words,
            _ if self.status == 403 && self.is_about_payment() => Why::NotPaid,
            _ if matches!(asked, Asked::Write(_)) && matches!(self.status, 405 | 501) => {
                Why::ReadOnly
            }
            "NotImplemented" => Why::Words,
            _ if self.is_slow_down() => Why::Words,
            _ if self.is_expired() && !self.code.is_empty() => Why::Expired,
            _ => self.why_by_status(asked),
        }
    }

    fn why_by_status(&self, asked: Asked<'_>) -> Why {
        match (self.status, asked) {
            (401 | 403, _) => self.why_denied(asked),
            (404, Asked::List(_)) => Why::NotListed,
            (404, Asked::Object(_)) => Why::Gone,
            (412, Asked::Object(_) | Asked::Write(_)) | (416, Asked::Object(_)) => Why::Changed,
            (400, _) if !self.code.is_empty() => Why::NotAccepted,
            _ => Why::Words,
        }
    }

    /// Only where S3 says no more than that it is not allowed, what is probably missing.
    fn why_denied(&self, asked: Asked<'_>) -> Why {
        match asked {
            _ if self.code != "AccessDenied" => Why::Denied,
            Asked::List(_) => Why::Lacks("`s3:ListBucket` on the bucket"),
            Asked::Object(_) if self.message.to_ascii_lowercase().contains("kms") => {
                Why::Lacks("`kms:Decrypt` on its key")
            }
            Asked::Object(_) => Why::Lacks("`s3:GetObject`"),
            Asked::Write(_) if self.message.to_ascii_lowercase().contains("kms") => {
                Why::Lacks("`kms:GenerateDataKey` on its key")
            }
            Asked::Write(_) => Why::Lacks("`s3:PutObject`"),
        }
    }

    /// Whether the same question may be answered later, of one that is told in the words of S3.
    fn may_pass(&self) -> bool {
        match self.code.as_str() {
            "RequestTimeout" | "OperationAborted" => true,
            "NotImplemented" => false,
            _ => {
                self.is_slow_down()
                    || matches!(self.status, 301 | 302 | 307 | 408 | 409 | 429 | 500..)
            }
        }
    }

    /// Whether it says that the reader has to say who pays; mostly it does not.
    fn is_about_payment(&self) -> bool {
        let message = self.message.to_ascii_lowercase();
        ["requester pay", "request-payer", "requester-pay"].iter().any(|it| message.contains(it))
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bucket, told) = (&self.bucket, self.refusal.told());
        let (doing, what) = match &self.subject {
            Subject::Below(prefix) => {
                ("listing", format!("the keys below `{prefix}` in bucket `{bucket}`"))
            }
            Subject::Object(key) => ("reading", format!("object `{key}` in bucket `{bucket}`")),
            Subject::New(key) => ("writing", format!("object `{key}` in bucket `{bucket}`")),
        };
        match self.why {
            Why::Clock => write!(out, "the clock of this machine is wrong: {told}"),
            Why::NoBucket => write!(out, "bucket `{bucket}` does not exist"),
            Why::Archived => write!(out, "{what} is archived and cannot be read"),
            Why::BadCredentials => {
                write!(out, "the credentials for bucket `{bucket}` are not accepted ({told})")
            }
            Why::Expired => write!(
                out,
                "the credentials for {what} have expired, and no newer ones were found ({told})"
            ),
            Why::Misplaced => {
                write!(
                    out,
                    "bucket `{bucket}` is in another region or at another endpoint ({told})"
                )
            }
            Why::Denied => write!(out, "{doing} {what} is not allowed ({told})"),
            Why::Lacks(permission) => write!(
                out,
                "{doing} {what} is not allowed ({told}): probably {permission} is missing"
            ),
            Why::NotListed => write!(out, "bucket `{bucket}` cannot be listed ({told})"),
            Why::Gone => write!(out, "{what} was removed after it was listed ({told})"),
            Why::Changed if doing == "writing" => {
                write!(out, "{what} was written by another program at the same time")
            }
            Why::Changed => write!(out, "{what} changed while it was fetched"),
            Why::ReadOnly => write!(out, "{what} cannot be written: {told}"),
            Why::NotAccepted => write!(out, "S3 does not accept the request for {what}: {told}"),
            Why::NotPaid | Why::Words => write!(out, "{what}: {told}"),
        }
    }
}

impl std::error::Error for Refused {}

impl Problem for Refused {
    fn fields(&self) -> ErrorFields {
        let Refusal { host, status, code, message, .. } = &self.refusal;
        let hint = match (self.why, &self.subject) {
            (Why::Archived, _) => Some("restore it first"),
            (Why::Misplaced, _) => Some("check `--s3-endpoint` and AWS_REGION"),
            (Why::NotPaid, _) => Some("add `--s3-requester-pays` to pay for the requests"),
            (Why::Changed, _) => Some("run again"),
            (Why::Lacks(_), Subject::Below(_)) => {
                Some("to fetch one object, name its whole key and allow `s3:GetObject`")
            }
            _ => None,
        };
        let said = match (code.as_str(), message.as_str()) {
            ("", message) => message.to_owned(),
            (code, "") => code.to_owned(),
            (code, message) => format!("{code}: {message}"),
        };
        let (Subject::Below(file) | Subject::Object(file) | Subject::New(file)) = &self.subject;
        let fields = ErrorFields::of_file(file).status(*status).said(&said);
        ErrorFields { host: host.clone(), hint: hint.map(String::from), ..fields }
    }
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
            matches!(&list, SourceError::Access(_)) && list.to_string().contains("`s3:ListBucket`"),
            "{list}"
        );
        let read = denied.explain("b", Asked::Object("llama/a"));
        assert!(
            matches!(&read, SourceError::Access(_)) && read.to_string().contains("`s3:GetObject`"),
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
