//! A body that is sent: piece by piece, so that it shows how far it is.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

/// Handed over at once; the connection takes no more than it has room for.
const PIECE_BYTES: usize = 64 << 10;

pub struct Outgoing {
    bytes: Bytes,
    sent: Arc<AtomicU64>,
}

impl Outgoing {
    /// `sent` counts the bytes that the connection has taken.
    pub fn new(bytes: Bytes, sent: Arc<AtomicU64>) -> Self {
        Self { bytes, sent }
    }
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.bytes.is_empty() {
            return Poll::Ready(None);
        }
        let len = self.bytes.len().min(PIECE_BYTES);
        let piece = self.bytes.split_to(len);
        self.sent.fetch_add(len as u64, Relaxed);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.len() as u64)
    }
}
