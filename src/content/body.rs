//! The bytes of one range, as they arrive, and how that ends.

use bytes::Bytes;

use super::FilePart;
use crate::net::{self, SourceError};

/// Exactly the bytes of the range that was asked for, or an error.
pub struct Body {
    pieces: Pieces,
    watch: Watched,
}

/// Where they come from.
enum Pieces {
    Http(Box<net::Body>),
    File(FilePart),
}

/// How a body has ended, if not by an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All bytes have come.
    Whole,
    /// The reader has dropped it before: it was too slow, or the run ends.
    GivenUp,
}

/// Is told once how a body ends.
pub trait Watch: Send {
    fn ended(&mut self, ending: Ending);
    /// `error` has ended it; the reader gets what is returned.
    fn failed(&mut self, error: SourceError) -> SourceError;
}

/// Nobody, or who is still to be told.
#[derive(Default)]
struct Watched(Option<Box<dyn Watch>>);

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(mut watch) = self.0.take() {
            watch.ended(Ending::GivenUp);
        }
    }
}

impl From<net::Body> for Body {
    fn from(pieces: net::Body) -> Self {
        Self { pieces: Pieces::Http(Box::new(pieces)), watch: Watched::default() }
    }
}

impl From<FilePart> for Body {
    fn from(part: FilePart) -> Self {
        Self { pieces: Pieces::File(part), watch: Watched::default() }
    }
}

impl Body {
    /// Has `watch` told how the body ends, in place of whoever was to be told before.
    pub fn watched(mut self, watch: impl Watch + 'static) -> Self {
        self.watch.0 = Some(Box::new(watch));
        self
    }

    /// Where they come from, if that is an address of the network.
    pub fn peer(&self) -> Option<net::Peer> {
        match &self.pieces {
            Pieces::Http(body) => body.peer(),
            Pieces::File(_) => None,
        }
    }

    /// The next bytes, as they have arrived and not copied, or `None` once the range is complete.
    pub async fn next(&mut self) -> Result<Option<Bytes>, SourceError> {
        let next = match &mut self.pieces {
            Pieces::Http(body) => body.next().await,
            Pieces::File(part) => part.next().await,
        };
        match next {
            Ok(Some(piece)) => Ok(Some(piece)),
            Ok(None) => {
                if let Some(mut watch) = self.watch.0.take() {
                    watch.ended(Ending::Whole);
                }
                Ok(None)
            }
            Err(error) => Err(match self.watch.0.take() {
                Some(mut watch) => watch.failed(error),
                None => error,
            }),
        }
    }
}
