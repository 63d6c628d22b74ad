//! What goes wrong, when and how often.
//!
//! A [`Script`] is a list of rules that grows while the server runs. For every request the first
//! rule that matches and still has turns left decides; the others do not see that request.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::http::{Body, Request, Response};
use crate::link::Link;
use crate::log::Log;
use crate::response::Stop;
use crate::text::percent_decode;

/// Which requests go wrong. Without [`Rule::times`] all that match do.
#[derive(Clone, Debug)]
pub struct Rule {
    method: String,
    substring: String,
    origin: Option<&'static str>,
    range_start: Option<u64>,
    header: Option<(&'static str, String)>,
    skip: usize,
    times: usize,
    faults: Vec<Fault>,
}

/// One way to go wrong. Offsets and counts are in bytes.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Answer this without looking at the request any further.
    Status {
        code: u16,
        headers: Vec<(String, String)>,
        body: Vec<u8>,
    },
    /// Answer late, but right.
    Delay(Duration),
    /// Stay silent, then close without an answer; a zero duration hangs up at once.
    HangBeforeHeaders(Duration),
    /// Close the connection in order after so many body bytes.
    CutAfter(u64),
    /// Reset the connection after so many body bytes.
    ResetAfter(u64),
    /// After so many body bytes stay silent with the connection open, then send the rest.
    StallAfter(u64, Duration),
    /// Send the body evenly at this speed.
    Drip {
        bytes_per_second: u64,
    },
    /// Send the body over this link, which others may use as well.
    Over(Link),
    /// 206 with another range than asked: one byte further, or back at the end of the file.
    WrongRange,
    /// 206 without `Content-Range`.
    NoContentRange,
    /// 206 that claims another size of the whole file.
    WrongTotal(u64),
    /// 200 with the whole file to a request for a range.
    IgnoreRange,
    /// Turn over all bits of the byte at this offset of the file.
    FlipByteAt(u64),
    /// More than asked; `Content-Length` and `Content-Range` say so.
    ExtraBytes(u64),
    /// Less than asked; `Content-Length` and `Content-Range` say so.
    ShortLength(u64),
    /// No `Content-Length`: the body ends with the connection.
    NoLength,
    /// In chunks, and the connection is closed where the last one, which says so, should be.
    NoLastChunk,
    DropHeaders(Vec<String>),
    /// Set these, in place of those of the same name.
    AddHeaders(Vec<(String, String)>),
    /// Same status and headers, but these bytes.
    ReplaceBody(Vec<u8>),
    /// Claim that the (plain) body is compressed.
    GzipHeader,
    /// Send these bytes in place of an answer, then close.
    Raw(Vec<u8>),
    /// Send these bytes behind the answer, which is right, and leave the connection open.
    StrayBytes(Vec<u8>),
}

/// Rules in order. Cloning shares them.
#[derive(Clone, Default)]
pub struct Script(Arc<Mutex<Played>>);

impl Rule {
    /// Requests with this method (`"*"` for any) and `substring` in their decoded `path?query`.
    ///
    /// CDN URLs carry the file name in their query, so a file name matches there as well; tell
    /// the two apart with [`Rule::at`].
    pub fn on(method: &str, substring: &str) -> Self {
        Self {
            method: method.to_owned(),
            substring: substring.to_owned(),
            origin: None,
            range_start: None,
            header: None,
            skip: 0,
            times: usize::MAX,
            faults: Vec::new(),
        }
    }

    /// Only at `"hub"`, `"cdn"`, `"cas"`, `"transfer"` or `"s3"`.
    #[must_use]
    pub fn at(self, origin: &'static str) -> Self {
        Self { origin: Some(origin), ..self }
    }

    /// Only requests whose `Range` starts here.
    #[must_use]
    pub fn when_range_starts_at(self, offset: u64) -> Self {
        Self { range_start: Some(offset), ..self }
    }

    /// Only requests with this header, and `substring` in it.
    #[must_use]
    pub fn when_header(self, name: &'static str, substring: &str) -> Self {
        Self { header: Some((name, substring.to_owned())), ..self }
    }

    /// Let the first `count` matching requests pass.
    #[must_use]
    pub fn skip(self, count: usize) -> Self {
        Self { skip: count, ..self }
    }

    /// Apply to so many requests, then never again.
    #[must_use]
    pub fn times(self, count: usize) -> Self {
        Self { times: count, ..self }
    }

    #[must_use]
    pub fn once(self) -> Self {
        self.times(1)
    }

    /// Adds a fault; several are applied one after the other to the same answer.
    #[must_use]
    pub fn then(mut self, fault: Fault) -> Self {
        self.faults.push(fault);
        self
    }

    fn matches(&self, origin: &str, request: &Request) -> bool {
        (self.method == "*" || self.method == request.method)
            && self.origin.is_none_or(|wanted| wanted == origin)
            && self.range_start.is_none_or(|offset| range_start(request) == Some(offset))
            && self.header.as_ref().is_none_or(|(name, substring)| {
                request.header(name).is_some_and(|value| value.contains(substring))
            })
            && percent_decode(&request.target()).contains(&self.substring)
    }
}

impl Fault {
    pub fn status(code: u16) -> Self {
        Self::status_with(code, &[], "")
    }

    pub fn status_with(code: u16, headers: &[(&str, &str)], body: &str) -> Self {
        Self::Status { code, headers: owned(headers), body: body.into() }
    }

    pub fn add_headers(headers: &[(&str, &str)]) -> Self {
        Self::AddHeaders(owned(headers))
    }

    pub fn drop_headers(names: &[&str]) -> Self {
        Self::DropHeaders(names.iter().map(|name| (*name).to_owned()).collect())
    }

    fn apply(self, mut response: Response) -> Response {
        match self {
            Self::Status { code, headers, body } => {
                response.status = code;
                response.headers = headers;
                response = response.body(body);
            }
            Self::Delay(duration) => response.delivery.delay += duration,
            Self::HangBeforeHeaders(duration) => {
                response.delivery.delay += duration;
                response.delivery.hang_up = true;
            }
            Self::CutAfter(count) => response.delivery.stop = Some((count, Stop::Close)),
            Self::ResetAfter(count) => response.delivery.stop = Some((count, Stop::Reset)),
            Self::StallAfter(count, duration) => {
                response.delivery.stop = Some((count, Stop::Stall(duration)));
            }
            Self::Drip { bytes_per_second } => {
                response.delivery.bytes_per_second = Some(bytes_per_second);
            }
            Self::Over(link) => response.delivery.link = Some(link),
            Self::WrongRange => response = wrong_range(response),
            Self::NoContentRange => response = response.without_header("Content-Range"),
            Self::WrongTotal(total) => response = wrong_total(response, total),
            Self::IgnoreRange => response = ignore_range(response),
            Self::FlipByteAt(offset) => response.delivery.flipped.push(offset),
            Self::ExtraBytes(count) => response = lengthen(response, count),
            Self::ShortLength(count) => response = shorten(response, count),
            Self::NoLength => response.delivery.close_delimited = true,
            Self::NoLastChunk => {
                response = response.header("Transfer-Encoding", "chunked");
                response.delivery.one_chunk = true;
            }
            Self::DropHeaders(names) => {
                for name in names {
                    response.delivery.close_delimited |=
                        name.eq_ignore_ascii_case("content-length");
                    response = response.without_header(&name);
                }
            }
            Self::AddHeaders(headers) => {
                for (name, value) in headers {
                    response = response.header(&name, &value);
                }
            }
            Self::ReplaceBody(bytes) => response = response.body(bytes),
            Self::GzipHeader => response = response.header("Content-Encoding", "gzip"),
            Self::Raw(bytes) => response.delivery.raw = Some(bytes),
            Self::StrayBytes(bytes) => response.delivery.stray = bytes,
        }
        response
    }
}

impl Script {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn add(&self, rule: Rule) {
        self.played().rules.push((rule, 0));
    }

    pub fn clear(&self) {
        self.played().rules.clear();
    }

    /// How many requests a rule was applied to.
    pub fn applied(&self) -> usize {
        self.played().applied
    }

    /// Wraps a handler for [`crate::Server::start`] so that it follows the script and is logged.
    pub fn observed(
        &self,
        origin: &'static str,
        log: &Log,
        handler: impl Fn(&Request) -> Response + Send + Sync + 'static,
    ) -> impl Fn(&Request) -> Response + Send + Sync + 'static {
        let (script, log) = (self.clone(), log.clone());
        move |request| {
            let entry = log.arrived(origin, request);
            let faults = script.faults_for(origin, request);
            // A scripted status must not use up a signed URL or a token.
            let replaced = faults.iter().any(|fault| matches!(fault, Fault::Status { .. }));
            let response = if replaced { Response::new(200) } else { handler(request) };
            let mut response = faults.into_iter().fold(response, |it, fault| fault.apply(it));
            entry.answered(&mut response);
            response
        }
    }

    fn faults_for(&self, origin: &str, request: &Request) -> Vec<Fault> {
        let mut played = self.played();
        for (rule, seen) in &mut played.rules {
            if *seen == rule.skip.saturating_add(rule.times) || !rule.matches(origin, request) {
                continue;
            }
            *seen += 1;
            if *seen > rule.skip {
                let faults = rule.faults.clone();
                played.applied += 1;
                return faults;
            }
        }
        Vec::new()
    }

    fn played(&self) -> MutexGuard<'_, Played> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
struct Played {
    /// Each with the number of matching requests it has seen.
    rules: Vec<(Rule, usize)>,
    applied: usize,
}

fn wrong_range(mut response: Response) -> Response {
    if let Body::Blob { ref blob, ref mut start, ref mut end } = response.body
        && response.status == 206
    {
        if *end < blob.len() {
            (*start, *end) = (*start + 1, *end + 1);
        } else if *start > 0 {
            (*start, *end) = (*start - 1, *end - 1);
        } else {
            *start = 1.min(*end);
        }
        response = response.with_content_range();
    }
    response
}

fn wrong_total(response: Response, total: u64) -> Response {
    let Some(value) = response.header_value("Content-Range") else {
        return response;
    };
    let range = value.split('/').next().unwrap_or_default();
    let value = format!("{range}/{total}");
    response.header("Content-Range", &value)
}

fn ignore_range(mut response: Response) -> Response {
    if let Body::Blob { ref blob, ref mut start, ref mut end } = response.body {
        (*start, *end) = (0, blob.len());
        response.status = 200;
        response = response.without_header("Content-Range");
    }
    response
}

fn lengthen(mut response: Response, count: u64) -> Response {
    match response.body {
        Body::Blob { ref mut end, .. } => *end += count,
        Body::Empty | Body::Bytes(_) => response.delivery.padding_bytes += count,
    }
    if response.status == 206 { response.with_content_range() } else { response }
}

fn shorten(mut response: Response, count: u64) -> Response {
    match response.body {
        Body::Empty => {}
        Body::Bytes(ref mut bytes) => {
            let length = bytes.len().saturating_sub(count as usize);
            *bytes = Arc::new(bytes[..length].to_vec());
        }
        Body::Blob { start, ref mut end, .. } => *end = end.saturating_sub(count).max(start),
    }
    if response.status == 206 { response.with_content_range() } else { response }
}

fn range_start(request: &Request) -> Option<u64> {
    request.header("range")?.strip_prefix("bytes=")?.split_once('-')?.0.parse().ok()
}

fn owned(headers: &[(&str, &str)]) -> Vec<(String, String)> {
    headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}
