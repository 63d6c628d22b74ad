//! What S3 means by its refusals: of what kind they are, and which region they name.

use std::time::Duration;

use reqwest::Response;

use crate::model::text;
use crate::net::http;

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
    /// To make an object.
    Write(&'a str),
}

/// An answer of S3 that is not what was asked for.
#[derive(Clone, Debug, Default)]
pub struct Refusal {
    /// The origin that was asked, where that is known.
    pub host: Option<String>,
    pub status: u16,
    /// `AccessDenied`; empty where the answer has no body, as after HEAD.
    pub code: String,
    pub message: String,
    /// Where the bucket is, as far as the answer says so; the best first.
    regions: Vec<String>,
}

impl Refusal {
    pub fn new(status: u16, code: &str, message: &str, region: Option<&str>, body: &str) -> Self {
        let (code, message) = (text::inert(code, 60), text::inert(message, 300));
        let told = region.map(str::to_owned).or_else(|| tag(body, "Region"));
        let endpoint = tag(body, "Endpoint");
        let told = [told, region_in(&message), endpoint.as_deref().and_then(region_of_host)];
        let regions = told.into_iter().flatten().collect();
        Self { host: None, status, code, message, regions }
    }

    pub fn at(self, host: Option<&str>) -> Self {
        Self { host: host.map(str::to_owned), ..self }
    }

    /// Reads the refusal of a request that the SDK only signed.
    pub async fn read(response: Response, stall: Duration) -> Self {
        let (status, host) = (response.status().as_u16(), http::origin(response.url()));
        let header = response.headers().get(BUCKET_REGION).and_then(|value| value.to_str().ok());
        let region = header.map(str::to_owned);
        let body = http::small_body(response, MAX_ERROR_BYTES, stall).await.unwrap_or_default();
        let body = String::from_utf8_lossy(&body);
        let [code, message] = ["Code", "Message"].map(|name| tag(&body, name).unwrap_or_default());
        Self::new(status, &code, &message, region.as_deref(), &body).at(Some(&host))
    }

    /// The region to ask instead of `current`, if the refusal is about the region.
    pub fn region_instead_of(&self, current: &str) -> Option<&str> {
        // A 403 names the region too, and mostly means something else.
        let about_region = matches!(self.status, 301 | 302 | 307 | 400) || self.is_about_region();
        // It becomes part of a host name that is sent signatures.
        let plausible = |region: &&str| {
            (1..=40).contains(&region.len())
                && region.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        let mut told = self.regions.iter().map(String::as_str).filter(plausible);
        told.find(|region| *region != current).filter(|_| about_region)
    }

    /// Whether the server is in trouble, and says nothing about what was asked.
    pub fn is_passing(&self) -> bool {
        self.is_slow_down() || matches!(self.status, 408 | 409 | 429 | 500 | 502..)
    }

    /// Whether the server may not know what it was asked to do.
    pub fn is_unknown_call(&self) -> bool {
        match self.status {
            405 | 501 => true,
            400 => matches!(
                self.code.as_str(),
                "" | "BadRequest"
                    | "InvalidArgument"
                    | "InvalidRequest"
                    | "InvalidQueryParameter"
                    | "MethodNotAllowed"
                    | "NotImplemented"
                    | "UnsupportedArgument"
                    | "UnsupportedOperation"
            ),
            _ => false,
        }
    }

    fn is_about_region(&self) -> bool {
        matches!(
            self.code.as_str(),
            "AuthorizationHeaderMalformed"
                | "PermanentRedirect"
                | "TemporaryRedirect"
                | "IllegalLocationConstraintException"
                | "IncorrectEndpoint"
                | "InvalidRegion"
        )
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

/// `… the region 'us-east-1' is wrong; expecting 'eu-west-1'`, `The eu-west-1 location constraint is
/// incompatible …`
fn region_in(message: &str) -> Option<String> {
    if let Some((_, rest)) = message.split_once("expecting '") {
        return rest.split('\'').next().map(str::to_owned);
    }
    let (before, _) = message.split_once(" location constraint is incompatible")?;
    let region = before.rsplit(' ').next()?;
    (region != "unspecified").then(|| region.to_owned())
}

/// `bucket.s3.eu-west-1.amazonaws.com`, `bucket.s3-eu-west-1.amazonaws.com`
fn region_of_host(host: &str) -> Option<String> {
    let (before, _) = host.split_once(".amazonaws.com")?;
    let last = before.rsplit('.').next()?;
    let region = last.strip_prefix("s3-").unwrap_or(last);
    match region {
        // `s3.amazonaws.com` is in the first of all regions.
        "s3" => Some("us-east-1".into()),
        _ if region.ends_with(|c: char| c.is_ascii_digit()) => Some(region.to_owned()),
        _ => None,
    }
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
        Refusal { status, code: code.into(), message: message.into(), ..Refusal::default() }
    }

    #[test]
    fn a_region_is_followed_only_where_it_is_the_reason_and_looks_like_one() {
        let at = |status, region: &str| Refusal {
            regions: vec![region.into()],
            ..refusal(status, "", "")
        };
        assert_eq!(at(301, "eu-west-1").region_instead_of("us-east-1"), Some("eu-west-1"));
        assert_eq!(at(301, "eu-west-1").region_instead_of("eu-west-1"), None);
        assert_eq!(at(403, "eu-west-1").region_instead_of("us-east-1"), None);
        for forged in ["", "evil.example/", "a@b", "x y"] {
            assert_eq!(at(301, forged).region_instead_of("us-east-1"), None, "{forged}");
        }
    }

    #[test]
    fn a_region_is_found_wherever_an_answer_tells_it() {
        let body = |inside: &str| format!("<Error><Code>x</Code>{inside}</Error>");
        let malformed = "The authorization header is malformed; the region 'us-east-1' is wrong; \
                         expecting 'eu-west-1'";
        let illegal = "The eu-west-1 location constraint is incompatible for the region specific \
                       endpoint this request was sent to.";
        let endpoint = |host: &str| body(&format!("<Endpoint>{host}</Endpoint>"));
        for (status, code, message, header, body) in [
            (301, "", "", Some("eu-west-1"), String::new()),
            (400, "AuthorizationHeaderMalformed", "", None, body("<Region>eu-west-1</Region>")),
            (400, "AuthorizationHeaderMalformed", malformed, None, body("")),
            (403, "AuthorizationHeaderMalformed", malformed, None, body("")),
            (400, "IllegalLocationConstraintException", illegal, None, body("")),
            (301, "PermanentRedirect", "", None, endpoint("b.s3-eu-west-1.amazonaws.com")),
            (301, "PermanentRedirect", "", None, endpoint("b.s3.eu-west-1.amazonaws.com")),
            (307, "TemporaryRedirect", "", None, endpoint("s3.eu-west-1.amazonaws.com.cn")),
        ] {
            let refusal = Refusal::new(status, code, message, header, &body);
            let found = refusal.region_instead_of("us-east-1");
            assert_eq!(found, Some("eu-west-1"), "{status} {code} {message}");
        }
        let denied = Refusal::new(403, "AccessDenied", "", Some("eu-west-1"), "");
        assert_eq!(denied.region_instead_of("us-east-1"), None);
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
