//! What a handler answers, and by which detours it leaves.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use serde_json::Value;

use crate::blob::Blob;
use crate::http::{RangeAsked, Request, find_header};
use crate::link::Link;

/// An answer. `Content-Length` and `Date` are added when it is sent, and the body is left out
/// for `HEAD`, so one response does for both methods.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Body,
    pub(crate) delivery: Delivery,
}

#[derive(Clone, Debug)]
pub enum Body {
    Empty,
    Bytes(Arc<Vec<u8>>),
    /// `start..end` of a blob, streamed. Past the end of the blob come filler bytes.
    Blob {
        blob: Blob,
        start: u64,
        end: u64,
    },
}

impl Response {
    pub fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Body::Empty, delivery: Delivery::default() }
    }

    pub fn text(status: u16, text: &str) -> Self {
        Self::new(status).header("Content-Type", "text/plain; charset=utf-8").body(text)
    }

    pub fn json(status: u16, value: &Value) -> Self {
        Self::new(status)
            .header("Content-Type", "application/json; charset=utf-8")
            .body(value.to_string())
    }

    /// The blob, or the range of it that the request asks for: 200, 206 or 416.
    pub fn blob(request: &Request, blob: &Blob) -> Self {
        let size = blob.len();
        let part = |start, end| Body::Blob { blob: blob.clone(), start, end };
        let mut response = Self::new(200).header("Accept-Ranges", "bytes");
        match request.range_for(size) {
            RangeAsked::Whole => response.body = part(0, size),
            RangeAsked::Part(range) => {
                response.status = 206;
                response.body = part(range.start, range.end);
                response = response.with_content_range();
            }
            RangeAsked::Unsatisfiable => {
                response.status = 416;
                response = response.header("Content-Range", &format!("bytes */{size}"));
            }
        }
        response
    }

    /// Sets a header, in place of those of the same name.
    #[must_use]
    pub fn header(self, name: &str, value: &str) -> Self {
        let mut response = self.without_header(name);
        response.headers.push((name.to_owned(), value.to_owned()));
        response
    }

    #[must_use]
    pub fn without_header(mut self, name: &str) -> Self {
        self.headers.retain(|(found, _)| !found.eq_ignore_ascii_case(name));
        self
    }

    #[must_use]
    pub fn body(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.body = Body::Bytes(Arc::new(bytes.into()));
        self
    }

    pub(crate) fn header_value(&self, name: &str) -> Option<&str> {
        find_header(&self.headers, name)
    }

    /// Says where the body lies in its blob; nothing for other bodies.
    pub(crate) fn with_content_range(self) -> Self {
        let Body::Blob { ref blob, start, end } = self.body else {
            return self;
        };
        let value = format!("bytes {start}-{}/{}", end.saturating_sub(1), blob.len());
        self.header("Content-Range", &value)
    }
}

impl Body {
    pub fn len(&self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Blob { start, end, .. } => end.saturating_sub(*start),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Position in the file of the first byte of the body.
    pub(crate) fn file_offset(&self) -> u64 {
        match self {
            Self::Blob { start, .. } => *start,
            Self::Empty | Self::Bytes(_) => 0,
        }
    }

    /// Fills `buffer` from `position` in the body.
    pub(crate) fn read_at(&self, position: u64, buffer: &mut [u8]) {
        let count = match self {
            Self::Empty => 0,
            Self::Bytes(bytes) => {
                let rest = bytes.get(position as usize..).unwrap_or_default();
                let count = rest.len().min(buffer.len());
                buffer[..count].copy_from_slice(&rest[..count]);
                count
            }
            Self::Blob { blob, start, .. } => blob.read_at(start + position, buffer),
        };
        buffer[count..].fill(FILLER);
    }
}

/// How a response leaves the socket; by default: at once, whole and right.
#[derive(Clone, Debug, Default)]
pub(crate) struct Delivery {
    /// Silence before the first byte of the answer.
    pub delay: Duration,
    /// Close after the delay without any answer.
    pub hang_up: bool,
    /// Bytes to send instead of any answer.
    pub raw: Option<Vec<u8>>,
    /// What happens after so many body bytes.
    pub stop: Option<(u64, Stop)>,
    pub bytes_per_second: Option<u64>,
    /// What all its users together are as fast as.
    pub link: Option<Link>,
    /// Offsets in the file (not in the body) of bytes to turn over.
    pub flipped: Vec<u64>,
    /// Bytes behind the answer that belong to none.
    pub stray: Vec<u8>,
    /// Filler behind the body, announced as part of it.
    pub padding_bytes: u64,
    /// No `Content-Length`; the end of the connection ends the body.
    pub close_delimited: bool,
    /// The body is one chunk, and the last one, of no length, is left out.
    pub one_chunk: bool,
    /// Counts body bytes as they are handed to the socket.
    pub sent: Arc<AtomicU64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    Close,
    Reset,
    Stall(Duration),
}

const FILLER: u8 = 0xee;
