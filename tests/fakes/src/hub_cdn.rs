//! The CDN: signed URLs and the large files behind them.
//!
//! Knows files only through the URLs it was asked to make.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::blob::Blob;
use crate::date::{amazon_date, unix_seconds};
use crate::http::{Request, Response};
use crate::text::{hex, percent_encode};

pub(crate) struct Cdn {
    rules: UrlRules,
    signed: Mutex<HashMap<String, Signed>>,
    minted: AtomicU64,
}

#[derive(Clone, Copy, Default)]
pub(crate) struct UrlRules {
    pub requests_per_url: Option<usize>,
    pub lifetime: Option<Duration>,
    pub sign_ranges: bool,
    /// What a URL that has expired is answered with: a status, a code, a message.
    pub expired: Option<(u16, &'static str, &'static str)>,
}

/// What one signature is good for.
struct Signed {
    path: String,
    blob: Blob,
    range: Option<String>,
    since: Instant,
    served: usize,
}

impl Cdn {
    pub fn new(rules: UrlRules) -> Self {
        Self { rules, signed: Mutex::default(), minted: AtomicU64::new(0) }
    }

    /// Path and query of a new URL for a file, as redirected to by an answer to `request`.
    pub fn mint(
        &self,
        request: &Request,
        repo: &str,
        path: &str,
        sha256: &str,
        blob: &Blob,
    ) -> String {
        let number = self.minted.fetch_add(1, Ordering::Relaxed);
        let signature = hex(&Sha256::digest(format!("signature {number}")));
        let range = request.header("range").map(str::to_owned);
        let lifetime = self.rules.lifetime.map_or(3600, |lifetime| lifetime.as_secs());
        let now = SystemTime::now();
        let expires = unix_seconds(now) + lifetime;
        let target = format!("/xet-bridge-us/{}/{sha256}", &hex(&Sha256::digest(repo))[..24]);
        let mut condition = json!({"DateLessThan": {"AWS:EpochTime": expires}});
        if self.rules.sign_ranges {
            condition["ByteRange"] = json!(range);
        }
        let policy =
            json!({"Statement": [{"Resource": format!("{target}*"), "Condition": condition}]});
        let name = path.rsplit('/').next().unwrap_or(path);
        let disposition = format!("inline; filename*=UTF-8''{name}; filename=\"{name}\";");
        let query = format!(
            "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Expires={lifetime}&X-Amz-Date={}\
             &response-content-disposition={}&path={}&Expires={expires}&Policy={}\
             &Signature={signature}",
            amazon_date(now),
            percent_encode(&disposition, ""),
            // Not in real URLs; lets rules and logs tell files apart.
            percent_encode(path, "/"),
            percent_encode(&STANDARD.encode(policy.to_string()), ""),
        );
        let signed = Signed {
            path: target.clone(),
            blob: blob.clone(),
            range,
            since: Instant::now(),
            served: 0,
        };
        self.signed.lock().unwrap_or_else(PoisonError::into_inner).insert(signature, signed);
        format!("{target}?{query}")
    }

    pub fn serve(&self, request: &Request) -> Response {
        if request.header("authorization").is_some() {
            return refusal(400, "InvalidArgument", "Only one auth mechanism allowed");
        }
        if request.method != "GET" {
            return refusal(403, "SignatureDoesNotMatch", "This URL is signed for GET");
        }
        let mut table = self.signed.lock().unwrap_or_else(PoisonError::into_inner);
        let signature = request.query_value("Signature").unwrap_or_default();
        let Some(signed) = table.get_mut(&signature).filter(|it| it.path == request.path) else {
            return refusal(403, "AccessDenied", "Access Denied");
        };
        if self.rules.sign_ranges && signed.range.as_deref() != request.header("range") {
            return Response::text(403, "Auth failed: invalid range");
        }
        let outlived =
            self.rules.lifetime.is_some_and(|lifetime| signed.since.elapsed() > lifetime);
        let used_up = self.rules.requests_per_url.is_some_and(|limit| signed.served >= limit);
        if outlived || used_up {
            let usual = (403, "AccessDenied", "Request has expired");
            let (status, code, message) = self.rules.expired.unwrap_or(usual);
            return refusal(status, code, message);
        }
        signed.served += 1;
        Response::blob(request, &signed.blob)
            .header("Content-Type", "application/octet-stream")
            // Entity tags of the CDN are not the hub's, nor anything else a client could use.
            .header("ETag", &format!("\"{}\"", &signature[..32]))
            .header("X-Amz-Cf-Id", &signature[32..])
    }
}

pub(crate) fn refusal(status: u16, code: &str, message: &str) -> Response {
    Response::new(status).header("Content-Type", "application/xml").body(format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <Error><Code>{code}</Code><Message>{message}</Message></Error>"
    ))
}
