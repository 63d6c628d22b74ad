//! Which chunk is next, and how many files may be open: the decisions of the queue, without its waits.
//!
//! Each large file is one stream for as long as there are as many files as workers, so that its bytes
//! arrive, and are hashed, in order; then workers join the files that are left, and the chunks become
//! smaller towards the end, so that all end together.
//!
//! A file counts as open from its first chunk until it is proved or begins anew. Whoever is given a
//! chunk may open its file and waits for nobody; whoever cannot be given one holds nothing.

use std::collections::{HashSet, VecDeque};
use std::ops::Range;

use super::queue::Limits;
use crate::model::Plan;

/// The last chunks of a transfer are not smaller than this: each costs a round trip.
const MIN_CHUNK: u64 = 8 << 20;
/// But where a connection takes more than this many seconds for as much, what it brings in that time,
/// down to `ALIGNMENT`: the last one is waited for by all.
const LAST_SECONDS: f64 = 0.5;
/// Workers that share a file get no further ahead of its hash than this for each worker there is: the
/// hash of one file runs on one core, and is what they would wait for in the end; and what is ahead of
/// it is in the page cache still.
pub(super) const AHEAD_EACH: u64 = 32 << 20;
/// Where a file is cut, if chunks are that large: direct I/O writes whole blocks.
const ALIGNMENT: u64 = 1 << 20;

/// A byte range of one file: one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    pub file: usize,
    pub range: Range<u64>,
    /// Which beginning of the file it belongs to.
    pub generation: u32,
    /// Nobody else is on the file, or will be soon.
    pub alone: bool,
    /// What it was cut from.
    pub span: u64,
}

/// What a worker is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    Take(Chunk),
    /// There is nothing that it may do now.
    Wait,
    /// Everything is done.
    End,
}

/// Whether workers that were told to wait should ask again.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    ForThoseWhoWait,
    Nothing,
}

impl News {
    fn if_so(is_so: bool) -> Self {
        if is_so { Self::ForThoseWhoWait } else { Self::Nothing }
    }
}

#[derive(Clone, Debug)]
pub struct Schedule {
    /// Nobody has begun with these, in the order of the files.
    waiting: VecDeque<Missing>,
    /// Of open files; not given out to their end yet.
    begun: Vec<Span>,
    spans: u64,
    /// Bytes that are not given out yet.
    bytes: u64,
    chunk_size: u64,
    /// Workers that may take chunks.
    workers: usize,
    /// The smallest chunk that is cut.
    least: u64,
    /// Files that are not proved yet; while there are any, one may come back.
    unproved: usize,
    /// Files that are being fetched, or wait to be hashed and synced; and how many there may be.
    open: HashSet<usize>,
    may_be_open: usize,
    /// Somebody who may work was told to wait.
    is_awaited: bool,
    is_closed: bool,
}

#[derive(Clone, Debug)]
struct Missing {
    file: usize,
    range: Range<u64>,
    generation: u32,
    /// As one chunk, however long: the server sends no ranges.
    in_one: bool,
}

#[derive(Clone, Debug)]
struct Span {
    id: u64,
    missing: Missing,
    /// Where it began.
    start: u64,
    /// Bytes of the file, from its start, that are hashed.
    hashed: u64,
    /// Those whose last chunk is of it.
    workers: usize,
}

impl Span {
    /// Bytes between the hash and the next chunk, if the hash has come to this span at all.
    fn ahead(&self) -> u64 {
        let ahead = self.missing.range.start.saturating_sub(self.hashed);
        if self.hashed < self.start { 0 } else { ahead }
    }
}

impl Schedule {
    pub fn new(plan: &Plan, limits: Limits) -> Self {
        let missing = plan.missing.iter().map(|(file, range)| Missing {
            file: *file,
            range: range.clone(),
            generation: 0,
            in_one: false,
        });
        Self {
            waiting: missing.collect(),
            begun: Vec::new(),
            spans: 0,
            bytes: plan.missing_bytes(),
            chunk_size: limits.chunk_size,
            workers: limits.workers,
            least: least_chunk(limits.chunk_size),
            unproved: plan.files.len(),
            open: HashSet::new(),
            // One that is never opened is never done.
            may_be_open: limits.open_files.max(1),
            is_awaited: false,
            is_closed: false,
        }
    }

    /// Only so many files of the plan are to be proved.
    pub fn until_proved(&mut self, files: usize) {
        self.unproved = files;
    }

    /// What worker number `worker` does next, and whether others should ask again. `own` is the span of
    /// its last chunk, which it keeps over a wait.
    pub fn turn(&mut self, worker: usize, own: Option<u64>) -> (Turn, News) {
        if self.is_closed || self.unproved == 0 {
            return (Turn::End, News::Nothing);
        }
        let was_awaited = self.is_awaited;
        let chunk = if worker < self.workers { self.take(own) } else { None };
        // Nobody who may work waits while a span has no worker, however far its hash is behind.
        let is_left = was_awaited && self.begun.iter().any(|span| span.workers == 0);
        self.is_awaited = worker < self.workers && chunk.is_none() || was_awaited && !is_left;
        (chunk.map_or(Turn::Wait, Turn::Take), News::if_so(is_left))
    }

    /// A worker is done with its chunk of the span `id`, and will ask for another one.
    pub fn leave(&mut self, id: u64) {
        if let Some(span) = self.begun.iter_mut().find(|span| span.id == id) {
            span.workers -= 1;
        }
    }

    /// How many workers may take chunks from now on; and how many bytes per second each has brought.
    pub fn let_work(&mut self, workers: usize, rate_each: f64) -> News {
        // Nothing at all is a pause, and says nothing of the connections.
        if rate_each > 0.0 {
            let brings = (rate_each * LAST_SECONDS) as u64;
            self.least = brings.max(ALIGNMENT).min(least_chunk(self.chunk_size));
        }
        News::if_so(std::mem::replace(&mut self.workers, workers) < workers)
    }

    /// Bytes that nobody has been given yet.
    pub fn bytes_left(&self) -> u64 {
        self.bytes
    }

    /// The hash of beginning number `generation` of `file` has come to `at`.
    pub fn hashed(&mut self, file: usize, generation: u32, at: u64) -> News {
        // News of an earlier beginning would hold this one back for ever.
        let is_meant = |missing: &Missing| missing.file == file && missing.generation == generation;
        for span in self.begun.iter_mut().filter(|span| is_meant(&span.missing)) {
            span.hashed = at;
        }
        News::if_so(std::mem::take(&mut self.is_awaited))
    }

    /// Takes every range of `file` that is not given out back.
    pub fn withdraw(&mut self, file: usize) {
        self.waiting.retain(|missing| missing.file != file);
        self.begun.retain(|span| span.missing.file != file);
        let waiting = self.waiting.iter().map(|missing| &missing.range);
        let begun = self.begun.iter().map(|span| &span.missing.range);
        self.bytes = waiting.chain(begun).map(|range| range.end - range.start).sum();
    }

    /// `file` is closed, and the whole of it goes to the front, for its beginning number `generation`.
    pub fn again(&mut self, file: usize, size: u64, generation: u32, in_one: bool) -> News {
        self.withdraw(file);
        self.open.remove(&file);
        self.bytes += size;
        self.waiting.push_front(Missing { file, range: 0..size, generation, in_one });
        self.is_awaited = false;
        News::ForThoseWhoWait
    }

    /// `file` is proved and closed.
    pub fn finish(&mut self, file: usize) -> News {
        self.open.remove(&file);
        self.unproved -= 1;
        News::if_so(std::mem::take(&mut self.is_awaited) || self.unproved == 0)
    }

    pub fn is_done(&self) -> bool {
        self.unproved == 0
    }

    /// Ends the work of all.
    pub fn close(&mut self) -> News {
        self.is_closed = true;
        News::ForThoseWhoWait
    }

    /// Files that are open at the moment, as far as this knows.
    pub fn open_files(&self) -> usize {
        self.open.len()
    }

    /// The next chunk for somebody whose last one came from the span `own`.
    fn take(&mut self, own: Option<u64>) -> Option<Chunk> {
        let n = self.choose(own)?;
        let least = self.least;
        // One worker alone ends when it ends.
        let share = match self.workers {
            0 | 1 => u64::MAX,
            workers => self.bytes / (2 * workers as u64),
        };
        let mut size = share.clamp(least, self.chunk_size);
        let files_enough = self.begun.len() + self.waiting.len() >= self.workers;
        let span = &mut self.begun[n];
        span.workers += 1;
        let alone = span.workers == 1 && files_enough;
        if !alone {
            size = (AHEAD_EACH / 2).clamp(least, size);
        }
        let Range { start, end } = span.missing.range;
        // A file that was never larger than one chunk is not cut: where each request takes a round trip,
        // many small files make connections look slow.
        let is_small = start == span.start && end - start <= least_chunk(self.chunk_size);
        let cut = if span.missing.in_one || is_small || end - start <= size {
            end
        } else {
            let alignment = ALIGNMENT.min(size);
            (start + size) / alignment * alignment
        };
        span.missing.range.start = cut;
        self.bytes -= cut - start;
        let (file, generation) = (span.missing.file, span.missing.generation);
        let chunk = Chunk { file, range: start..cut, generation, alone, span: span.id };
        if cut == end {
            self.begun.swap_remove(n);
        }
        Some(chunk)
    }

    /// Which of `begun` to cut from: one's own, as long as one is alone there; one that somebody has
    /// left; a file that nobody has begun with, if there may be another one; the one with the fewest
    /// workers.
    fn choose(&mut self, own: Option<u64>) -> Option<usize> {
        let most_ahead = AHEAD_EACH * self.workers as u64;
        let is_near = |span: &Span| span.ahead() <= most_ahead;
        let left = |(_, span): &(usize, &Span)| span.workers == 0;
        let first = |(_, span): &(usize, &Span)| (Some(span.id) != own, !is_near(span), span.id);
        if let Some((n, _)) = self.begun.iter().enumerate().filter(left).min_by_key(first) {
            return Some(n);
        }
        if let Some(n) = self.begin_file() {
            return Some(n);
        }
        let fewest = |(_, span): &(usize, &Span)| (span.workers, Some(span.id) != own, span.id);
        let near = self.begun.iter().enumerate().filter(|(_, span)| is_near(span));
        near.min_by_key(fewest).map(|(n, _)| n)
    }

    /// Opens the next file if there may be another one: all that it lacks is to be had from now on.
    fn begin_file(&mut self) -> Option<usize> {
        let first = self.begun.len();
        while self.open.len() < self.may_be_open
            && let Some(Missing { file, .. }) = self.waiting.front()
        {
            let file = *file;
            while let Some(missing) = self.waiting.pop_front_if(|next| next.file == file) {
                if !missing.range.is_empty() {
                    self.spans += 1;
                    let start = missing.range.start;
                    self.begun.push(Span { id: self.spans, missing, start, hashed: 0, workers: 0 });
                }
            }
            if self.begun.len() > first {
                self.open.insert(file);
                return Some(first);
            }
        }
        None
    }
}

/// The smallest piece that a file is cut into where `chunk_size` is the largest.
pub fn least_chunk(chunk_size: u64) -> u64 {
    MIN_CHUNK.min(chunk_size)
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
