//! The bytes of a range of a file, put together from chunks as they come: in the order of the file, so that
//! nothing is kept but the chunk at hand.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::Client;
use tokio::task::JoinHandle;

use super::answer::{Fetch, Window};
use super::chunk::Unpacker;
use super::fetching::Fetching;
use super::inner::Inner;
use crate::content::{ChunkedFile, Pieces, Term};
use crate::model::RelPath;
use crate::net::{Peer, SourceError};

/// So much of a file is asked for at once: a worker keeps the terms and links of this.
const WINDOW_BYTES: u64 = 64 << 20;
/// The next part is asked for when so much of this one is left.
const AHEAD_BYTES: u64 = 24 << 20;
/// Chunks that come with a term and are not wanted now: one, and one for so many of its own. More of them are
/// worth a question for the term alone, whose links bring no more than it has.
const CHUNKS_FOR_ONE: u32 = 8;
/// What is kept of a term that comes again at once, such as a run of zeros.
const MAX_REPEATED_BYTES: u32 = 256 << 10;
const MAX_REPEATED_CHUNKS: usize = 32;

/// A range that is being read.
pub struct Reading {
    of: Of,
    /// What is still to come.
    left: Range<u64>,
    known: Option<Known>,
    /// The next part, which is being asked for.
    ahead: Option<Ahead>,
    term: Option<AtHand>,
    fetching: Option<Fetching>,
    /// A term that comes again at once, with its bytes; and those of them that come next.
    repeated: Option<(Term, Vec<Bytes>)>,
    again: VecDeque<Bytes>,
    /// Where the links were last made anew because they were refused.
    renewed_at: Option<u64>,
    unpacker: Unpacker,
    peer: Option<Peer>,
}

/// What is read, and by whom.
#[derive(Clone)]
pub struct Of {
    pub inner: Arc<Inner>,
    pub client: Client,
    pub file: ChunkedFile,
    /// For messages.
    pub path: RelPath,
}

/// The terms that come next, and the links to their bytes.
struct Known {
    window: Window,
    /// Number of the next one.
    next: usize,
    /// Bytes of the next one that are not wanted.
    skip: u64,
    /// Where in the file all of them end.
    end: u64,
    since: Instant,
}

/// The term that is being read.
struct AtHand {
    term: Term,
    /// Its next chunk.
    chunk: u32,
    /// Bytes that it has still to yield, and those of them that are not wanted.
    left: u32,
    skip: u64,
    /// What it has yielded, if it comes again.
    kept: Option<Vec<Bytes>>,
}

/// A question that another task asks meanwhile.
struct Ahead(JoinHandle<Result<Window, SourceError>>);

impl Drop for Ahead {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Known {
    /// Terms that are still to come.
    fn rest(&self) -> &[Term] {
        &self.window.terms[self.next..]
    }
}

impl Of {
    async fn window(&self, part: Range<u64>) -> Result<Window, SourceError> {
        self.inner.window(&self.client, &self.file, &self.path, part).await
    }

    fn odd(&self, why: &str) -> SourceError {
        self.inner.odd(&self.path, why)
    }
}

impl Reading {
    /// Begins with the request for the first bytes, so that a refusal is an answer to the question. `window`
    /// is what is known of the range already.
    pub async fn begin(
        of: Of,
        range: Range<u64>,
        window: Option<Window>,
    ) -> Result<Self, SourceError> {
        let mut reading = Self {
            of,
            left: range,
            known: None,
            ahead: None,
            term: None,
            fetching: None,
            repeated: None,
            again: VecDeque::new(),
            renewed_at: None,
            unpacker: Unpacker::default(),
            peer: None,
        };
        if let Some(window) = window {
            reading.keep(window)?;
        }
        reading.prepare().await?;
        Ok(reading)
    }

    /// Sees to a term at hand and to a request that brings its chunks.
    async fn prepare(&mut self) -> Result<(), SourceError> {
        loop {
            while self.term.is_none() && self.again.is_empty() {
                if self.known.as_ref().is_none_or(|known| known.rest().is_empty()) {
                    self.learn().await?;
                }
                self.next_term();
            }
            let Some(at_hand) = &self.term else { return Ok(()) };
            let (term, chunk) = (&at_hand.term, at_hand.chunk);
            if let Some(fetching) = &self.fetching
                && fetching.brings(&term.block, chunk, waste(term))
            {
                return Ok(());
            }
            if let Some(done) = self.fetching.take() {
                done.end().await;
            }
            self.fetch().await?;
            // However much else it brings: the store has no better.
            if self.fetching.is_some() {
                return Ok(());
            }
        }
    }

    /// Asks for the next part, or takes what another task has asked for.
    async fn learn(&mut self) -> Result<(), SourceError> {
        let window = match self.ahead.take() {
            // Whatever went wrong there: it is asked once more, here.
            Some(mut ahead) => (&mut ahead.0).await.ok().and_then(Result::ok),
            None => None,
        };
        let part = self.left.start..self.left.end.min(self.left.start + WINDOW_BYTES);
        let window = match window {
            Some(window) => window,
            None => self.of.window(part).await?,
        };
        self.keep(window)
    }

    /// Takes `window` for what comes from here on.
    fn keep(&mut self, window: Window) -> Result<(), SourceError> {
        if window.len() == 0 {
            return Err(self.of.odd("it has no bytes of the part"));
        }
        if window.skip > self.left.start {
            return Err(self.of.odd("it begins before the file does"));
        }
        let (skip, end) = (window.skip, self.left.start.saturating_add(window.len()));
        self.known = Some(Known { window, next: 0, skip, end, since: Instant::now() });
        Ok(())
    }

    /// Lets another task ask for what follows, once little is left of what is known.
    fn look_ahead(&mut self) {
        let Some(end) = self.known.as_ref().map(|known| known.end) else { return };
        if self.ahead.is_some() || end >= self.left.end || end > self.left.start + AHEAD_BYTES {
            return;
        }
        let (of, part) = (self.of.clone(), end..self.left.end.min(end + WINDOW_BYTES));
        self.ahead = Some(Ahead(tokio::spawn(async move { of.window(part).await })));
    }

    fn next_term(&mut self) {
        let Some(known) = &mut self.known else { return };
        while let Some(term) = known.rest().first().cloned() {
            known.next += 1;
            let len = u64::from(term.len);
            if known.skip >= len {
                known.skip -= len;
                continue;
            }
            let skip = std::mem::take(&mut known.skip);
            match self.repeated.take() {
                Some((same, pieces)) if same == term && skip == 0 => {
                    self.again.extend(pieces.iter().cloned());
                    self.repeated = Some((same, pieces));
                    return;
                }
                _ => {}
            }
            let is_short =
                term.len <= MAX_REPEATED_BYTES && term.chunks.len() <= MAX_REPEATED_CHUNKS;
            let comes_again = is_short && skip == 0 && known.rest().first() == Some(&term);
            let (chunk, left) = (term.chunks.start, term.len);
            let kept = comes_again.then(Vec::new);
            self.term = Some(AtHand { term, chunk, left, skip, kept });
            return;
        }
    }

    /// Requests what has the chunks of the term at hand.
    async fn fetch(&mut self) -> Result<(), SourceError> {
        let (Some(at_hand), Some(known)) = (&self.term, &self.known) else { return Ok(()) };
        let term = at_hand.term.clone();
        let Some(mut fetch) = known.window.fetch_of(&term).cloned() else {
            return Err(self.of.odd("no link has the chunks of a term"));
        };
        if known.window.terms.len() > 1 && self.wastes(&term, &fetch) {
            // Of a range whose bytes are signed as a whole nobody can ask for a part; but the links for a part
            // of the file bring no more than that.
            let start = self.left.start - at_hand.skip;
            let alone = self.of.window(start..start + u64::from(term.len)).await?;
            if let Some(smaller) = alone.fetch_of(&term) {
                fetch = smaller.clone();
            }
        } else if known.since.elapsed() > fetch.lifetime() {
            return self.ask_again().await;
        }
        match Fetching::open(&self.of.inner.http, &self.of.client, &self.of.path, fetch).await {
            Ok(fetching) => {
                self.peer = fetching.peer();
                self.fetching = Some(fetching);
                Ok(())
            }
            // It has expired, or no link is good: a second one at the same place tells.
            Err(SourceError::Again(told)) => {
                if self.renewed_at.replace(self.left.start) == Some(self.left.start) {
                    return Err(SourceError::Access(told));
                }
                self.ask_again().await
            }
            Err(error) => Err(error),
        }
    }

    /// Whether `fetch` brings much that is not wanted now.
    fn wastes(&self, term: &Term, fetch: &Fetch) -> bool {
        let before = term.chunks.start - fetch.chunks.start;
        let mut end = term.chunks.end;
        for next in self.known.iter().flat_map(Known::rest) {
            if next.block != fetch.block || next.chunks.start != end {
                break;
            }
            end = next.chunks.end;
        }
        before + fetch.chunks.end.saturating_sub(end) > waste(term)
    }

    /// New links, from the byte that is wanted next.
    async fn ask_again(&mut self) -> Result<(), SourceError> {
        (self.term, self.known, self.ahead) = (None, None, None);
        self.learn().await
    }

    /// The next chunk of the term at hand.
    async fn chunk(&mut self) -> Result<Bytes, SourceError> {
        let (Some(at_hand), Some(fetching)) = (&mut self.term, &mut self.fetching) else {
            return Ok(Bytes::new());
        };
        let mut piece = fetching.chunk(at_hand.chunk, &mut self.unpacker).await?;
        let len = piece.len() as u32;
        at_hand.chunk += 1;
        let is_last = at_hand.chunk == at_hand.term.chunks.end;
        at_hand.left = match at_hand.left.checked_sub(len) {
            Some(left) if (left == 0) == is_last => left,
            _ => return Err(fetching.odd("a term does not have the announced length")),
        };
        if let Some(kept) = &mut at_hand.kept {
            kept.push(piece.clone());
        }
        let skip = at_hand.skip.min(u64::from(len));
        at_hand.skip -= skip;
        bytes::Buf::advance(&mut piece, skip as usize);
        if is_last {
            let done = self.term.take();
            self.repeated = done.and_then(|it| it.kept.map(|pieces| (it.term, pieces)));
        }
        Ok(piece)
    }
}

/// So many chunks may come with `term` that are not wanted.
fn waste(term: &Term) -> u32 {
    1 + (term.chunks.end - term.chunks.start) / CHUNKS_FOR_ONE
}

#[async_trait]
impl Pieces for Reading {
    async fn next(&mut self) -> Result<Option<Bytes>, SourceError> {
        while !self.left.is_empty() {
            self.prepare().await?;
            let mut piece = match self.again.pop_front() {
                Some(piece) => piece,
                None => self.chunk().await?,
            };
            piece.truncate((self.left.end - self.left.start).min(piece.len() as u64) as usize);
            self.left.start += piece.len() as u64;
            self.look_ahead();
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
        }
        if let Some(done) = self.fetching.take() {
            done.end().await;
        }
        Ok(None)
    }

    fn peer(&self) -> Option<Peer> {
        self.peer.clone()
    }
}
