//! How stores that call themselves S3 differ from it.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::blob::Blob;
use crate::http::{Request, Response};
use crate::s3_object::Object;
use crate::s3_xml::S3Error;

/// The ways of one store; those of S3 where nothing else is said.
#[derive(Debug, Default)]
pub struct Habits {
    /// The status for HEAD with `x-amz-checksum-mode`.
    pub refuses_checksum_mode: Option<u16>,
    /// The status for HEAD.
    pub refuses_head: Option<u16>,
    /// The status for signatures in the query.
    pub refuses_query_signatures: Option<u16>,
    /// 412 to every `If-Match`.
    pub refuses_if_match: bool,
    /// Does not know `If-Match`.
    pub ignores_if_match: bool,
    /// Other ETags in listings than of objects.
    pub has_own_listing: bool,
    /// The status, and the origin that reads are sent on to.
    pub sends_on: Option<(u16, String)>,
    /// Not for an SDK of AWS, which is answered here.
    pub serves_sdks: bool,
    /// Objects with [`crate::ObjectOptions::unpacked`] are unpacked on the way …
    pub unpacks: Unpacks,
    /// 403 without `x-amz-request-payer`.
    pub requester_pays: bool,
    /// Links that were handed out.
    pub links: AtomicUsize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unpacks {
    #[default]
    Never,
    /// … unless `Accept-Encoding` allows the stored bytes.
    UnlessAccepted,
    Always,
}

impl Habits {
    /// What is refused by habit.
    pub(crate) fn refuse(&self, request: &Request) -> Result<(), S3Error> {
        let is_head = request.method == "HEAD";
        let asks_checksum = request.header("x-amz-checksum-mode").is_some();
        let is_query_signed = request.query_value("X-Amz-Signature").is_some();
        let by_status = [
            self.refuses_checksum_mode.filter(|_| is_head && asks_checksum),
            self.refuses_head.filter(|_| is_head),
            self.refuses_query_signatures.filter(|_| is_query_signed),
        ];
        if let Some(status) = by_status.into_iter().flatten().next() {
            return Err(S3Error::new(status, "NotImplemented", "This is not implemented."));
        }
        let pays = request.header("x-amz-request-payer") == Some("requester");
        if self.requester_pays && !pays {
            return Err(S3Error::access_denied());
        }
        if self.refuses_if_match && request.header("if-match").is_some() {
            return Err(S3Error::precondition_failed());
        }
        Ok(())
    }

    /// The request as the store sees it.
    pub(crate) fn seen(&self, request: &Request) -> Request {
        let mut seen = request.clone();
        if self.ignores_if_match {
            seen.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("if-match"));
        }
        seen
    }

    /// What a read is answered with in place of the object.
    pub(crate) fn replace(&self, request: &Request, object: &Object) -> Option<Response> {
        if request.method != "GET" {
            return None;
        }
        let agent = request.header("user-agent").unwrap_or_default();
        let is_sdk = ["aws-cli", "aws-sdk-", "Botocore"].iter().any(|name| agent.contains(name));
        if let Some((status, origin)) =
            self.sends_on.as_ref().filter(|_| !(self.serves_sdks && is_sdk))
        {
            let link = self.links.fetch_add(1, Ordering::Relaxed);
            let location = format!("{origin}{}?link={link}", request.path);
            return Some(Response::new(*status).header("Location", &location));
        }
        let unpacked = object.unpacked()?;
        let accepts = request.header("accept-encoding").is_some_and(|it| it.contains("gzip"));
        let is_unpacked = match self.unpacks {
            Unpacks::Never => false,
            Unpacks::UnlessAccepted => !accepts,
            Unpacks::Always => true,
        };
        is_unpacked.then(|| whole(unpacked).header("ETag", &object.etag))
    }

    pub(crate) fn listed_etag(&self, object: &Object) -> String {
        if self.has_own_listing {
            format!("\"listed{}\"", &object.etag.trim_matches('"')[..8])
        } else {
            object.etag.clone()
        }
    }
}

/// All of `blob`, whatever the range.
fn whole(blob: &Blob) -> Response {
    let request = Request { method: "GET".into(), ..Request::default() };
    Response::blob(&request, blob).without_header("Accept-Ranges")
}
