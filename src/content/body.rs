//! The bytes of one range, as they arrive, and how that ends.

use async_trait::async_trait;
use bytes::Bytes;

use super::FilePart;
use crate::net::{self, SourceError};

/// Exactly the bytes of the range that was asked for, or an error.
pub struct Body {
    origin: Origin,
    watch: Watched,
}

/// Where they come from.
enum Origin {
    Http(Box<net::Body>),
    File(FilePart),
    Made(Box<dyn Pieces>),
}

/// Bytes that a source makes of what it reads: exactly those of a range, or an error.
#[async_trait]
pub trait Pieces: Send {
    /// The next bytes, or `None` once the range is complete.
    async fn next(&mut self) -> Result<Option<Bytes>, SourceError>;

    /// Where they come from at the moment.
    fn peer(&self) -> Option<net::Peer>;
}

/// How a body has ended, if not by an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All bytes have come.
    Whole,
    /// The reader has dropped it while it waited for bytes: it was too slow, or the run ends.
    GivenUp,
    /// The reader wanted no more of it.
    CutShort,
}

/// Is told once how a body ends.
pub trait Watch: Send {
    fn ended(&mut self, ending: Ending);
    /// `error` has ended it; the reader gets what is returned.
    fn failed(&mut self, error: SourceError) -> SourceError;
}

/// Nobody, or who is still to be told.
#[derive(Default)]
struct Watched {
    by: Option<Box<dyn Watch>>,
    /// Bytes are waited for.
    is_waiting: bool,
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(mut watch) = self.by.take() {
            watch.ended(if self.is_waiting { Ending::GivenUp } else { Ending::CutShort });
        }
    }
}

impl From<net::Body> for Body {
    fn from(body: net::Body) -> Self {
        Self { origin: Origin::Http(Box::new(body)), watch: Watched::default() }
    }
}

impl From<FilePart> for Body {
    fn from(part: FilePart) -> Self {
        Self { origin: Origin::File(part), watch: Watched::default() }
    }
}

impl Body {
    pub fn made(pieces: impl Pieces + 'static) -> Self {
        Self { origin: Origin::Made(Box::new(pieces)), watch: Watched::default() }
    }

    /// Has `watch` told how the body ends, in place of whoever was to be told before.
    pub fn watched(mut self, watch: impl Watch + 'static) -> Self {
        self.watch.by = Some(Box::new(watch));
        self
    }

    /// Where they come from, if that is an address of the network.
    pub fn peer(&self) -> Option<net::Peer> {
        match &self.origin {
            Origin::Http(body) => body.peer(),
            Origin::File(_) => None,
            Origin::Made(pieces) => pieces.peer(),
        }
    }

    /// The next bytes, as they have arrived and not copied, or `None` once the range is complete.
    pub async fn next(&mut self) -> Result<Option<Bytes>, SourceError> {
        self.watch.is_waiting = true;
        let next = match &mut self.origin {
            Origin::Http(body) => body.next().await,
            Origin::File(part) => part.next().await,
            Origin::Made(pieces) => pieces.next().await,
        };
        self.watch.is_waiting = false;
        match next {
            Ok(Some(piece)) => Ok(Some(piece)),
            Ok(None) => {
                if let Some(mut watch) = self.watch.by.take() {
                    watch.ended(Ending::Whole);
                }
                Ok(None)
            }
            Err(error) => Err(match self.watch.by.take() {
                Some(mut watch) => watch.failed(error),
                None => error,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::task::{Context, Poll, Waker};

    use super::*;

    /// One piece, and then nothing.
    struct Stalls(Option<Bytes>);

    #[async_trait]
    impl Pieces for Stalls {
        async fn next(&mut self) -> Result<Option<Bytes>, SourceError> {
            match self.0.take() {
                Some(piece) => Ok(Some(piece)),
                None => std::future::pending().await,
            }
        }

        fn peer(&self) -> Option<net::Peer> {
            None
        }
    }

    struct Told(Arc<Mutex<Vec<Ending>>>);

    impl Watch for Told {
        fn ended(&mut self, ending: Ending) {
            self.0.lock().expect("unpoisoned").push(ending);
        }

        fn failed(&mut self, error: SourceError) -> SourceError {
            error
        }
    }

    /// Whoever has enough blames nobody; whoever waits in vain does.
    #[test]
    fn a_body_that_is_dropped_was_given_up_only_if_it_was_waited_for() {
        for (polls, expected) in
            [(0, Ending::CutShort), (1, Ending::CutShort), (2, Ending::GivenUp)]
        {
            let told = Arc::new(Mutex::new(Vec::new()));
            let piece = Some(Bytes::from_static(b"piece"));
            let mut body = Body::made(Stalls(piece)).watched(Told(told.clone()));
            for n in 0..polls {
                let mut next = Box::pin(body.next());
                let polled = next.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                assert_eq!(matches!(polled, Poll::Ready(Ok(Some(_)))), n == 0);
            }
            drop(body);
            assert_eq!(*told.lock().expect("unpoisoned"), [expected], "{polls}");
        }
    }
}
