//! What S3 means by its refusals, and what a person can do about them.

use std::time::Duration;

use reqwest::Response;

use super::{SourceError, http};
use crate::model::text;

pub const BUCKET_REGION: &str = "x-amz-bucket-region";
/// An error of S3 is a few hundred bytes of XML.
const MAX_ERROR_BYTES: usize = 64 << 10;

/// What was asked for when S3 refused.
#[derive(Clone, Copy, Debug)]
pub enum Asked<'a> {
    /// The keys below a prefix.
    List(&'a str),
    /// An object that was listed.
    Object(&'a str),
}

/// An answer of S3 that is not what was asked for.
#[derive(Clone, Debug, Default)]
pub struct Refusal {
    pub status: u16,
    /// `AccessDenied`; empty where the answer has no body, as after HEAD.
    pub code: String,
    message: String,
    /// Where the bucket is, if the answer says so.
    region: Option<String>,
}

impl Refusal {
    pub fn new(status: u16, code: &str, message: &str, region: Option<&str>, body: &str) -> Self {
        Self {
            status,
            code: text::inert(code, 60),
            message: text::inert(message, 300),
            region: region.map(str::to_owned).or_else(|| tag(body, "Region")),
        }
    }

    /// Reads the refusal of a request that the SDK only signed.
    pub async fn read(response: Response, stall: Duration) -> Self {
        let status = response.status().as_u16();
        let header = response.headers().get(BUCKET_REGION).and_then(|value| value.to_str().ok());
        let region = header.map(str::to_owned);
        let body = http::small_body(response, MAX_ERROR_BYTES, stall).await.unwrap_or_default();
        let body = String::from_utf8_lossy(&body);
        let [code, message] = ["Code", "Message"].map(|name| tag(&body, name).unwrap_or_default());
        Self::new(status, &code, &message, region.as_deref(), &body)
    }

    /// The region to ask instead of `current`, if the refusal is about the region.
    pub fn region_instead_of(&self, current: &str) -> Option<&str> {
        // A 403 names the region too, and means something else.
        let about_region = matches!(self.status, 301 | 307 | 400);
        // It becomes part of a host name that is sent signatures.
        let plausible = |region: &&str| {
            (1..=40).contains(&region.len())
                && region.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        self.region.as_deref().filter(|region| about_region && *region != current).filter(plausible)
    }

    /// Whether other credentials would have been accepted.
    pub fn is_expired(&self) -> bool {
        match self.code.as_str() {
            "ExpiredToken"
            | "ExpiredTokenException"
            | "RequestExpired"
            | "TokenRefreshRequired" => true,
            // How S3 refuses a signed link that is too old.
            "AccessDenied" => self.message.contains("Request has expired"),
            // HEAD has no body that could say more.
            "" | "BadRequest" => self.status == 400,
            _ => false,
        }
    }

    pub fn is_slow_down(&self) -> bool {
        matches!(
            self.code.as_str(),
            "SlowDown"
                | "Throttling"
                | "ThrottlingException"
                | "RequestLimitExceeded"
                | "KMS.ThrottlingException"
        )
    }

    /// Whether it says that the reader has to say who pays; mostly it does not.
    fn is_about_payment(&self) -> bool {
        let message = self.message.to_ascii_lowercase();
        ["requester pay", "request-payer", "requester-pay"].iter().any(|it| message.contains(it))
    }

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
            (401 | 403, Asked::List(_)) => SourceError::Access(format!(
                "listing {what} is not allowed ({told}): `s3:ListBucket` on the bucket is missing; \
                 to fetch one object, name its whole key and allow `s3:GetObject`"
            )),
            (401 | 403, Asked::Object(_)) if self.message.to_ascii_lowercase().contains("kms") => {
                SourceError::Access(format!(
                    "reading {what} is not allowed ({told}): `kms:Decrypt` on its key is missing"
                ))
            }
            (401 | 403, Asked::Object(_)) => SourceError::Access(format!(
                "reading {what} is not allowed ({told}): `s3:GetObject` is missing"
            )),
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

    /// `S3 answered 403 AccessDenied: Access Denied`
    pub fn told(&self) -> String {
        let Self { status, code, message, .. } = self;
        match (code.is_empty(), message.is_empty()) {
            (true, _) => format!("S3 answered {status}"),
            (false, true) => format!("S3 answered {status} {code}"),
            (false, false) => format!("S3 answered {status} {code}: {message}"),
        }
    }
}

/// A key as a message may show it.
pub fn shown(key: &str) -> String {
    text::inert(key, 200)
}

fn clock(told: &str) -> SourceError {
    SourceError::Unusable(format!("the clock of this machine is wrong: {told}"))
}

/// The text between `<name>` and `</name>`.
fn tag(xml: &str, name: &str) -> Option<String> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (value, _) = rest.split_once(&format!("</{name}>"))?;
    let value = value.replace("&lt;", "<").replace("&gt;", ">");
    Some(value.replace("&quot;", "\"").replace("&apos;", "'").replace("&amp;", "&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, code: &str, message: &str) -> Refusal {
        Refusal { status, code: code.into(), message: message.into(), region: None }
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
    fn a_region_is_followed_only_where_it_is_the_reason_and_looks_like_one() {
        let at = |status, region: &str| Refusal {
            region: Some(region.into()),
            ..refusal(status, "PermanentRedirect", "")
        };
        assert_eq!(at(301, "eu-west-1").region_instead_of("us-east-1"), Some("eu-west-1"));
        assert_eq!(at(301, "eu-west-1").region_instead_of("eu-west-1"), None);
        assert_eq!(at(403, "eu-west-1").region_instead_of("us-east-1"), None);
        for forged in ["", "evil.example/", "a@b", "x y"] {
            assert_eq!(at(301, forged).region_instead_of("us-east-1"), None, "{forged}");
        }
    }

    #[test]
    fn text_of_an_error_is_read_and_made_harmless() {
        let xml =
            "<?xml?><Error><Code>AccessDenied</Code><Message>a &amp; b\u{1b}[2J</Message></Error>";
        assert_eq!(tag(xml, "Code").as_deref(), Some("AccessDenied"));
        assert_eq!(text::inert(&tag(xml, "Message").expect("there"), 99), "a & b\\u{1b}[2J");
        assert_eq!(tag("<Code>half", "Code"), None);
    }
}
