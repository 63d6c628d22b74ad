//! What is still to fetch, and which piece of it is next.
//!
//! Each large file is one stream for as long as there are as many files as workers, so that its bytes
//! arrive, and are hashed, in order; then workers join the files that are left, and the chunks become
//! smaller towards the end.

use std::collections::VecDeque;
use std::ops::Range;

use super::frontier::Frontier;
use super::permits::Permits;
use crate::model::Plan;

/// The last chunks of a transfer are not smaller than this: each costs a round trip.
const MIN_CHUNK: u64 = 8 << 20;
/// But where a connection takes more than this many seconds for as much, what it brings in that time,
/// down to `ALIGNMENT`: the last one is waited for by all.
const LAST_SECONDS: f64 = 0.5;
/// Where workers share a file, a request should take so many seconds: each costs a round trip, and the
/// hash of the file follows behind all that are on their way.
const SHARED_SECONDS: f64 = 4.0;
/// However slow the connections are; and as long as nothing is known of them.
const MIN_SHARED_CHUNK: u64 = 16 << 20;
const FIRST_SHARED_CHUNK: u64 = 64 << 20;
/// Where a file is cut, if chunks are that large: direct I/O writes whole blocks.
pub const ALIGNMENT: u64 = 1 << 20;

/// A range of a file that nobody has begun with.
#[derive(Clone, Debug)]
struct Missing {
    file: usize,
    range: Range<u64>,
    /// As one chunk, however long: the server sends no ranges.
    in_one: bool,
}

/// A range of an open file that is not given out to its end yet.
#[derive(Clone, Debug)]
struct Span {
    id: u64,
    missing: Missing,
    /// Where it began.
    start: u64,
    /// A worker has given it back: the hash of its file may wait for it.
    is_rest: bool,
    /// How often it was taken from a slow connection.
    recalls: u32,
}

/// A piece that was cut off for a worker.
#[derive(Clone, Debug)]
pub struct Piece {
    pub file: usize,
    pub range: Range<u64>,
    pub in_one: bool,
    /// Nobody else is on the file, or will be soon.
    pub alone: bool,
    pub recalls: u32,
}

#[derive(Clone, Debug)]
pub struct Spans {
    waiting: VecDeque<Missing>,
    begun: Vec<Span>,
    count: u64,
    /// Bytes that nobody has been given.
    bytes: u64,
    chunk_size: u64,
    /// The smallest chunk that is cut; of a file that workers share, the largest.
    least: u64,
    shared: u64,
}

/// What the choice depends on beside the spans.
pub struct Around<'a> {
    /// Workers that may fetch.
    pub workers: usize,
    pub permits: &'a mut Permits,
    /// How far each file is.
    pub frontier: &'a Frontier,
}

impl Spans {
    /// `workers` is how many there may be at most.
    pub fn new(plan: &Plan, chunk_size: u64, workers: usize) -> Self {
        let missing = plan.missing.iter().map(|(file, range)| Missing {
            file: *file,
            range: range.clone(),
            in_one: false,
        });
        Self {
            waiting: missing.collect(),
            begun: Vec::new(),
            count: 0,
            bytes: plan.missing_bytes(),
            chunk_size,
            least: least_chunk(chunk_size),
            shared: first_shared(chunk_size).min(part_of_each(plan.missing_bytes(), workers)),
        }
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Nothing of the files that were begun is left to give.
    pub fn is_given_out(&self) -> bool {
        self.begun.is_empty()
    }

    /// So many bytes per second are usual for a connection.
    pub fn set_usual_rate(&mut self, rate: f64) {
        let brings = |seconds: f64| (rate * seconds) as u64;
        self.least = brings(LAST_SECONDS).max(ALIGNMENT).min(least_chunk(self.chunk_size));
        self.shared = brings(SHARED_SECONDS).max(MIN_SHARED_CHUNK).min(self.chunk_size) / ALIGNMENT
            * ALIGNMENT;
    }

    /// The smallest piece that is worth a request.
    pub fn least(&self) -> u64 {
        self.least
    }

    /// Workers that share a file get no further ahead of its hash than this: the hash of one file runs on
    /// one core and is what they would wait for in the end; and what is ahead of it is in the page cache
    /// still.
    pub fn most_ahead(&self, workers: usize) -> u64 {
        // Some may have been given as much as that before it was known how slow they are.
        let size = self.shared.max(first_shared(self.chunk_size)).max(MIN_SHARED_CHUNK);
        2 * size * workers as u64
    }

    /// Takes every range of `file` that is not given out back.
    pub fn withdraw(&mut self, file: usize) {
        self.waiting.retain(|missing| missing.file != file);
        self.begun.retain(|span| span.missing.file != file);
        let waiting = self.waiting.iter().map(|missing| &missing.range);
        let begun = self.begun.iter().map(|span| &span.missing.range);
        self.bytes = waiting.chain(begun).map(|range| range.end - range.start).sum();
    }

    /// The whole of `file`, of which nothing is left here, goes to the front.
    pub fn put_first(&mut self, file: usize, size: u64, in_one: bool) {
        self.bytes += size;
        self.waiting.push_front(Missing { file, range: 0..size, in_one });
    }

    /// The rest of a chunk, which a worker has given back; the file is open.
    pub fn put_back(&mut self, file: usize, range: Range<u64>, recalls: u32) {
        self.bytes += range.end - range.start;
        self.count += 1;
        let (id, start) = (self.count, range.start);
        let missing = Missing { file, range, in_one: false };
        self.begun.push(Span { id, missing, start, is_rest: true, recalls });
    }

    /// The next piece for a worker whose last one was of the file `own`.
    pub fn take(&mut self, own: Option<usize>, around: &mut Around<'_>) -> Option<Piece> {
        let n = self.choose(own, around)?;
        let (least, workers) = (self.least, around.workers);
        // One worker alone ends when it ends.
        let share = match workers {
            0 | 1 => u64::MAX,
            workers => self.bytes / (2 * workers as u64),
        };
        let mut size = share.clamp(least, self.chunk_size);
        let files_enough = self.begun.len() + self.waiting.len() >= workers;
        let span = &mut self.begun[n];
        // Where few files may be open, all workers share these.
        let crowd = around.permits.crowd(workers) as u64;
        let is_first = around.frontier.leases(span.missing.file) == 0;
        let alone = is_first && files_enough && crowd <= 1;
        if !alone {
            size = size.min(self.shared.max(least));
        }
        let Range { start, end } = span.missing.range;
        if crowd > 1 {
            size = size.min(((end - start) / (2 * crowd)).max(least));
        }
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
        let Missing { file, in_one, .. } = span.missing;
        let recalls = span.recalls;
        if cut == end {
            self.begun.swap_remove(n);
        }
        Some(Piece { file, range: start..cut, in_one, alone, recalls })
    }

    /// Which of `begun` to cut from: what a worker has given back; the worker's own file, as long as it is
    /// alone there; one that all have left; a file that nobody has begun with, if there may be another one;
    /// the one with the fewest workers, unless it is too far ahead of its hash. Of each file, what comes
    /// first in it: its hash comes there first.
    fn choose(&mut self, own: Option<usize>, around: &mut Around<'_>) -> Option<usize> {
        let most_ahead = self.most_ahead(around.workers);
        let frontier = around.frontier;
        let is_near = |span: &Span| {
            let hashed = frontier.hashed(span.missing.file);
            // Old bytes before it hold nobody back.
            hashed < span.start || span.missing.range.start - hashed <= most_ahead
        };
        let mut first: Vec<usize> = (0..self.begun.len()).collect();
        let place = |n: &usize| (self.begun[*n].missing.file, self.begun[*n].missing.range.start);
        first.sort_unstable_by_key(place);
        first.dedup_by_key(|n| self.begun[*n].missing.file);
        let spans = || first.iter().map(|n| (*n, &self.begun[*n]));
        let age = |(_, span): &(usize, &Span)| span.id;
        if let Some((n, _)) = spans().filter(|(_, span)| span.is_rest).min_by_key(age) {
            return Some(n);
        }
        let is_left = |(_, span): &(usize, &Span)| frontier.leases(span.missing.file) == 0;
        let is_others = |span: &Span| Some(span.missing.file) != own;
        let order = |(_, span): &(usize, &Span)| (is_others(span), !is_near(span), span.id);
        if let Some((n, _)) = spans().filter(is_left).min_by_key(order) {
            return Some(n);
        }
        let fewest = |(_, span): &(usize, &Span)| {
            (frontier.leases(span.missing.file), is_others(span), span.id)
        };
        let joined = spans().filter(|(_, span)| is_near(span)).min_by_key(fewest).map(|(n, _)| n);
        self.begin_file(around.permits).or(joined)
    }

    /// Opens the next file if there may be another one: all that it lacks is to be had from now on.
    fn begin_file(&mut self, permits: &mut Permits) -> Option<usize> {
        let first = self.begun.len();
        while permits.has_room()
            && let Some(Missing { file, .. }) = self.waiting.front()
        {
            let file = *file;
            while let Some(missing) = self.waiting.pop_front_if(|next| next.file == file) {
                if !missing.range.is_empty() {
                    self.count += 1;
                    let (id, start) = (self.count, missing.range.start);
                    let (is_rest, recalls) = (false, 0);
                    self.begun.push(Span { id, missing, start, is_rest, recalls });
                }
            }
            if self.begun.len() > first {
                permits.open(file);
                return Some(first);
            }
        }
        None
    }
}

#[cfg(test)]
impl Spans {
    /// A fault for the simulation: what a worker has left is not to be had any more.
    pub fn forget_what_is_left(&mut self, frontier: &Frontier) {
        self.begun.retain(|span| frontier.leases(span.missing.file) > 0);
    }

    pub fn begun(&self) -> usize {
        self.begun.len()
    }
}

/// The largest piece of a shared file while nothing is known of the connections.
fn first_shared(chunk_size: u64) -> u64 {
    FIRST_SHARED_CHUNK.min(chunk_size)
}

/// All who may come want a piece: of what the first ones take while nothing is known of the connections, none may be
/// long about.
fn part_of_each(bytes: u64, workers: usize) -> u64 {
    (bytes / (2 * workers.max(1) as u64) / ALIGNMENT * ALIGNMENT).max(MIN_SHARED_CHUNK)
}

/// The smallest piece that a file is cut into where `chunk_size` is the largest.
pub fn least_chunk(chunk_size: u64) -> u64 {
    MIN_CHUNK.min(chunk_size)
}
