//! A body that is sent: piece by piece, so that it shows how far it is, and no faster than it may be.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::Sleep;

use super::Bandwidth;

/// Handed over at once; the connection takes no more than it has room for.
const PIECE_BYTES: usize = 64 << 10;

pub struct Outgoing {
    bytes: Bytes,
    sent: Arc<AtomicU64>,
    bandwidth: Option<Arc<Bandwidth>>,
    /// The next piece has been taken from `bandwidth`, and may have to wait.
    turn: Option<Turn>,
}

struct Turn {
    len: usize,
    wait: Option<Pin<Box<Sleep>>>,
}

impl Outgoing {
    /// `sent` counts the bytes that the connection has taken.
    pub fn new(bytes: Bytes, sent: Arc<AtomicU64>, bandwidth: Option<Arc<Bandwidth>>) -> Self {
        Self { bytes, sent, bandwidth, turn: None }
    }

    /// How many bytes are next, and what they wait for.
    fn turn(&mut self) -> &mut Turn {
        let most = self.bytes.len().min(PIECE_BYTES);
        self.turn.get_or_insert_with(|| match &self.bandwidth {
            None => Turn { len: most, wait: None },
            Some(bandwidth) => {
                let len = most.min(bandwidth.burst());
                Turn { len, wait: bandwidth.take(len).map(Box::pin) }
            }
        })
    }
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.bytes.is_empty() {
            return Poll::Ready(None);
        }
        let turn = self.turn();
        let len = turn.len;
        if let Some(wait) = &mut turn.wait {
            ready!(wait.as_mut().poll(context));
        }
        self.turn = None;
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
