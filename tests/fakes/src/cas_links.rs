//! The transfer host of the chunk store: signed links, and the ranges of xorbs behind them.
//!
//! Knows xorbs only through the links it was asked to make.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::cas_lies::{Lies, Part};
use crate::cas_store::Xorb;
use crate::cas_terms::{FetchRange, Span};
use crate::date::unix_seconds;
use crate::http::{RangeAsked, Request, Response};
use crate::hub_cdn::refusal;
use crate::text::{hex, percent_encode};

pub(crate) struct Links {
    rules: LinkRules,
    lies: Arc<Lies>,
    signed: Mutex<HashMap<String, Signed>>,
    minted: AtomicU64,
}

#[derive(Clone, Copy)]
pub(crate) struct LinkRules {
    pub lifetime: Duration,
    /// A link answers 403 once it has been asked so often for each of its ranges.
    pub requests_per_range: Option<usize>,
    /// A part of a signed range is refused.
    pub whole_ranges: bool,
}

/// What one signature is good for.
struct Signed {
    xorb: Arc<Xorb>,
    path: String,
    /// As the query has it.
    range: String,
    /// With their last bytes.
    spans: Vec<Span>,
    since: Instant,
    served: usize,
}

impl Links {
    pub fn new(rules: LinkRules, lies: Arc<Lies>) -> Self {
        Self { rules, lies, signed: Mutex::default(), minted: AtomicU64::new(0) }
    }

    /// Path and query of a new link, good for each of these ranges.
    pub fn mint(&self, xorb: &Arc<Xorb>, ranges: &[FetchRange]) -> String {
        let number = self.minted.fetch_add(1, Ordering::Relaxed);
        let signature = hex(&Sha256::digest(format!("link {number}")));
        let path = format!("/xorbs/default/{}", xorb.hash);
        let spans: Vec<Span> = ranges.iter().map(|range| range.bytes).collect();
        let written: Vec<String> =
            spans.iter().map(|span| format!("{}-{}", span.start, span.end)).collect();
        let range = format!("bytes={}", written.join(","));
        let expires = unix_seconds(SystemTime::now()) + self.rules.lifetime.as_secs();
        let condition = json!({"DateLessThan": {"AWS:EpochTime": expires}});
        let policy =
            json!({"Statement": [{"Resource": format!("{path}*"), "Condition": condition}]});
        let target = format!(
            "{path}?X-Xet-Signed-Range={}&Expires={expires}&Policy={}&Signature={signature}\
             &Key-Pair-Id=K2L8F4GPSG1IFC",
            percent_encode(&range, ""),
            percent_encode(&STANDARD.encode(policy.to_string()), ""),
        );
        let (xorb, since) = (Arc::clone(xorb), Instant::now());
        let signed = Signed { xorb, path, range, spans, since, served: 0 };
        self.signed.lock().unwrap_or_else(PoisonError::into_inner).insert(signature, signed);
        target
    }

    pub fn serve(&self, request: &Request) -> Response {
        if request.header("authorization").is_some() {
            return refusal(400, "InvalidArgument", "Only one auth mechanism allowed");
        }
        let mut table = self.signed.lock().unwrap_or_else(PoisonError::into_inner);
        let signature = request.query_value("Signature").unwrap_or_default();
        let range = request.query_value("X-Xet-Signed-Range");
        let Some(signed) = table
            .get_mut(&signature)
            .filter(|it| it.path == request.path && Some(&it.range) == range.as_ref())
            .filter(|_| request.method == "GET")
        else {
            return refusal(403, "SignatureDoesNotMatch", "The signature is not of this request");
        };
        let limit = self.rules.requests_per_range.map(|limit| limit * signed.spans.len());
        if signed.since.elapsed() > self.rules.lifetime
            || limit.is_some_and(|limit| signed.served >= limit)
        {
            return refusal(403, "AccessDenied", "Request has expired");
        }
        let Some(span) = signed.span_for(request, self.rules.whole_ranges) else {
            return refusal(403, "AccessDenied", "The range is not the signed one");
        };
        signed.served += 1;
        let xorb = Arc::clone(&signed.xorb);
        drop(table);
        let lie = self.lies.tell(Part::Chunk).map(|lie| (lie, middle_chunk(&xorb, span)));
        Response::blob(request, &xorb.blob(lie)).header("Content-Type", "application/octet-stream")
    }
}

impl Signed {
    /// The signed range in which the requested one lies.
    fn span_for(&self, request: &Request, whole_only: bool) -> Option<Span> {
        let size = self.xorb.size();
        let RangeAsked::Part(asked) = request.range_for(size) else {
            return None;
        };
        let fits = |span: &&Span| {
            let signed = span.start..span.end.saturating_add(1).min(size);
            let within = signed.start <= asked.start && asked.end <= signed.end;
            within && (!whole_only || signed == asked)
        };
        self.spans.iter().find(fits).copied()
    }
}

fn middle_chunk(xorb: &Xorb, span: Span) -> usize {
    let last = xorb.size().saturating_sub(1);
    usize::midpoint(xorb.chunk_at(span.start), xorb.chunk_at(span.end.min(last)))
}
