//! Checks AWS signatures, version 4, of requests signed in a header or in the query.
//!
//! Written from the algorithm's description and against requests of other programs, not against
//! the code that makes the signatures under test.

use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

use crate::date::{amazon_date, parse_amazon_date};
use crate::http::Request;
use crate::s3_xml::S3Error;
use crate::text::{hex, percent_decode, percent_encode, query_pairs};

#[derive(Clone, Default)]
pub(crate) struct Credentials {
    pub access_key: String,
    pub secret_key: String,
    pub session_token: Option<String>,
}

/// The region a request is signed for.
pub(crate) fn region(request: &Request) -> Option<String> {
    Some(Claim::of(request)?.region)
}

pub(crate) fn check(
    request: &Request,
    credentials: &Credentials,
    now: SystemTime,
) -> Result<(), S3Error> {
    let claim = Claim::of(request).ok_or_else(S3Error::access_denied)?;
    if claim.access_key != credentials.access_key {
        let message = "The AWS Access Key Id you provided does not exist in our records.";
        return Err(S3Error::new(403, "InvalidAccessKeyId", message));
    }
    if claim.session_token != credentials.session_token {
        let message = "The provided token is malformed or otherwise invalid.";
        return Err(S3Error::new(400, "InvalidToken", message));
    }
    claim.check_time(now)?;
    if claim.signature == claim.expected_signature(request, &credentials.secret_key) {
        return Ok(());
    }
    let message = "The request signature we calculated does not match the signature you \
                   provided. Check your key and signing method.";
    Err(S3Error::new(403, "SignatureDoesNotMatch", message))
}

/// What a request says about its own signature.
struct Claim {
    access_key: String,
    /// `date/region/service/aws4_request`
    scope: String,
    region: String,
    signed_headers: Vec<String>,
    signature: String,
    time: String,
    payload: String,
    session_token: Option<String>,
    /// Only requests signed in the query have one.
    expires: Option<u64>,
}

impl Claim {
    fn of(request: &Request) -> Option<Self> {
        match request.header("authorization") {
            Some(header) => Self::in_header(request, header),
            None => Self::in_query(request),
        }
    }

    fn in_header(request: &Request, header: &str) -> Option<Self> {
        let fields = header.strip_prefix(ALGORITHM)?;
        let field = |name: &str| {
            let mut fields = fields.split(',').map(str::trim);
            fields.find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
        };
        Self::new(
            field("Credential")?,
            field("SignedHeaders")?,
            field("Signature")?,
            request.header("x-amz-date")?,
            request.header("x-amz-content-sha256")?,
            request.header("x-amz-security-token").map(str::to_owned),
            None,
        )
    }

    fn in_query(request: &Request) -> Option<Self> {
        let value = |name: &str| request.query_value(name);
        Self::new(
            &value("X-Amz-Credential")?,
            &value("X-Amz-SignedHeaders")?,
            &value("X-Amz-Signature")?,
            &value("X-Amz-Date")?,
            request.header("x-amz-content-sha256").unwrap_or("UNSIGNED-PAYLOAD"),
            value("X-Amz-Security-Token"),
            Some(value("X-Amz-Expires")?.parse().ok()?),
        )
    }

    fn new(
        credential: &str,
        signed_headers: &str,
        signature: &str,
        time: &str,
        payload: &str,
        session_token: Option<String>,
        expires: Option<u64>,
    ) -> Option<Self> {
        let (access_key, scope) = credential.split_once('/')?;
        Some(Self {
            access_key: access_key.to_owned(),
            region: scope.split('/').nth(1)?.to_owned(),
            scope: scope.to_owned(),
            signed_headers: signed_headers.split(';').map(str::to_owned).collect(),
            signature: signature.to_owned(),
            time: time.to_owned(),
            payload: payload.to_owned(),
            session_token,
            expires,
        })
    }

    fn check_time(&self, now: SystemTime) -> Result<(), S3Error> {
        let signed_at = parse_amazon_date(&self.time).ok_or_else(S3Error::access_denied)?;
        let lifetime = self.expires.map_or(ALLOWED_SKEW, Duration::from_secs);
        let too_old = now > signed_at + lifetime;
        let too_new = signed_at > now + ALLOWED_SKEW;
        match (too_old, too_new, self.expires) {
            (false, false, _) => Ok(()),
            (true, _, Some(_)) => Err(S3Error::new(403, "AccessDenied", "Request has expired")),
            _ => {
                let message =
                    "The difference between the request time and the current time is too large.";
                let server_time = amazon_date(now);
                Err(S3Error::new(403, "RequestTimeTooSkewed", message)
                    .with("RequestTime", &self.time)
                    .with("ServerTime", &server_time))
            }
        }
    }

    fn expected_signature(&self, request: &Request, secret_key: &str) -> String {
        let canonical = hex(&Sha256::digest(self.canonical_request(request)));
        let to_sign = format!("{ALGORITHM}\n{}\n{}\n{canonical}", self.time, self.scope);
        let secret = format!("AWS4{secret_key}").into_bytes();
        let key = self.scope.split('/').fold(secret, |key, part| hmac(&key, part.as_bytes()));
        hex(&hmac(&key, to_sign.as_bytes()))
    }

    fn canonical_request(&self, request: &Request) -> String {
        let path = percent_encode(&percent_decode(&request.path), "/");
        let mut query: Vec<String> = query_pairs(&request.query)
            .into_iter()
            .filter(|(name, _)| name != "X-Amz-Signature")
            .map(|(name, value)| {
                format!("{}={}", percent_encode(&name, ""), percent_encode(&value, ""))
            })
            .collect();
        query.sort_unstable();
        let headers: String = self
            .signed_headers
            .iter()
            .map(|name| format!("{name}:{}\n", canonical_value(request, name)))
            .collect();
        format!(
            "{}\n{path}\n{}\n{headers}\n{}\n{}",
            request.method,
            query.join("&"),
            self.signed_headers.join(";"),
            self.payload
        )
    }
}

/// Values of one name joined by commas, runs of blanks made one.
fn canonical_value(request: &Request, name: &str) -> String {
    let values = request.headers.iter().filter(|(found, _)| found.eq_ignore_ascii_case(name));
    let values: Vec<String> = values
        .map(|(_, value)| value.split_ascii_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    values.join(",")
}

/// HMAC-SHA256 (RFC 2104).
pub(crate) fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut block = [0; 64];
    if key.len() > block.len() {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let inner = Sha256::new_with_prefix(block.map(|byte| byte ^ 0x36)).chain_update(message);
    let outer = Sha256::new_with_prefix(block.map(|byte| byte ^ 0x5c));
    outer.chain_update(inner.finalize()).finalize().to_vec()
}

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const ALLOWED_SKEW: Duration = Duration::from_secs(15 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hmac_gives_the_values_of_rfc_4231() {
        assert_eq!(
            hex(&hmac(b"Jefe", b"what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_eq!(
            hex(&hmac(&[0xaa; 131], b"Test Using Larger Than Block-Size Key - Hash Key First")),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
    }

    /// Another example of the S3 documentation: a range that is not signed may be any.
    #[test]
    fn what_is_not_signed_may_be_added_to_a_request_that_is_signed_in_a_header() {
        let credentials = Credentials {
            access_key: "AKIAIOSFODNN7EXAMPLE".into(),
            secret_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into(),
            session_token: None,
        };
        let now = parse_amazon_date("20130524T000100Z").expect("a date");
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let mut signed = Request {
            method: "GET".into(),
            path: "/".into(),
            query: "lifecycle".into(),
            headers: vec![
                ("Host".into(), "examplebucket.s3.amazonaws.com".into()),
                ("x-amz-content-sha256".into(), empty.into()),
                ("x-amz-date".into(), "20130524T000000Z".into()),
                ("Authorization".into(), "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,SignedHeaders=host;x-amz-content-sha256;x-amz-date,Signature=fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543".into()),
            ],
            ..Request::default()
        };
        assert!(check(&signed, &credentials, now).is_ok());
        signed.headers.push(("Range".into(), "bytes=0-9".into()));
        assert!(check(&signed, &credentials, now).is_ok());
        // A quarter of an hour later it is too old.
        assert!(check(&signed, &credentials, now + Duration::from_secs(901)).is_err());
        signed.headers[2].1 = "20130524T000001Z".into();
        assert!(check(&signed, &credentials, now).is_err());
    }

    /// The examples in the S3 documentation, with its public example key.
    #[test]
    fn documented_examples_of_both_kinds_are_accepted_and_changes_are_not() {
        let credentials = Credentials {
            access_key: "AKIAIOSFODNN7EXAMPLE".into(),
            secret_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into(),
            session_token: None,
        };
        let now = parse_amazon_date("20130524T000100Z").expect("a date");
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let mut signed = Request {
            method: "GET".into(),
            path: "/test.txt".into(),
            headers: vec![
                ("Host".into(), "examplebucket.s3.amazonaws.com".into()),
                ("Range".into(), "bytes=0-9".into()),
                ("x-amz-content-sha256".into(), empty.into()),
                ("x-amz-date".into(), "20130524T000000Z".into()),
                ("Authorization".into(), "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41".into()),
            ],
            ..Request::default()
        };
        assert!(check(&signed, &credentials, now).is_ok());
        assert_eq!(region(&signed).as_deref(), Some("us-east-1"));
        signed.headers[1].1 = "bytes=0-8".into();
        assert!(check(&signed, &credentials, now).is_err());

        let mut presigned = Request {
            method: "GET".into(),
            path: "/test.txt".into(),
            query: "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404".into(),
            headers: vec![
                ("Host".into(), "examplebucket.s3.amazonaws.com".into()),
                ("Range".into(), "bytes=5-".into()),
            ],
            ..Request::default()
        };
        assert!(check(&presigned, &credentials, now).is_ok());
        assert!(check(&presigned, &credentials, now + Duration::from_secs(86_401)).is_err());
        presigned.path = "/other.txt".into();
        assert!(check(&presigned, &credentials, now).is_err());
    }
}
