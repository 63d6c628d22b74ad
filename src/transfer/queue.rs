//! What is still to fetch. Each large file is one stream for as long as there are as many files as
//! workers, so that its bytes arrive, and are hashed, in order; then workers join the files that
//! are left, and the chunks become smaller towards the end, so that all end together.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::model::Plan;

/// The last chunks of a transfer are not smaller than this: each costs a round trip.
const MIN_CHUNK: u64 = 8 << 20;
/// But where a connection takes more than this many seconds for as much, what it brings in that time,
/// down to `ALIGNMENT`: the last one is waited for by all.
const LAST_SECONDS: f64 = 0.5;
/// Workers that share a file get no further ahead of its hash than this for each worker there is: the
/// hash of one file runs on one core, and is what they would wait for in the end; and what is ahead of
/// it is in the page cache still.
const AHEAD_EACH: u64 = 32 << 20;
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
    span: u64,
}

pub struct Queue {
    state: Mutex<State>,
    changed: Notify,
    chunk_size: u64,
}

struct State {
    /// Nobody has begun with these, in the order of the files.
    waiting: VecDeque<Missing>,
    /// These are being fetched, and are not given out to their end yet.
    begun: Vec<Span>,
    spans: u64,
    /// Bytes that are not given out yet.
    bytes: u64,
    /// Workers that may take chunks.
    workers: usize,
    /// The smallest chunk that is cut.
    least: u64,
    /// Files that are not proved yet; while there are any, one may come back.
    open_files: usize,
    /// Somebody waits for a hash to come nearer.
    held_back: bool,
    is_closed: bool,
}

struct Missing {
    file: usize,
    range: Range<u64>,
    generation: u32,
    /// As one chunk, however long: the server sends no ranges.
    in_one: bool,
}

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
        // Somebody may still tell of an earlier beginning of the file, further on than this one.
        let ahead = self.missing.range.start.saturating_sub(self.hashed);
        if self.hashed < self.start { 0 } else { ahead }
    }
}

impl Queue {
    pub fn new(plan: &Plan, chunk_size: u64, workers: usize) -> Self {
        let missing = plan.missing.iter().map(|(file, range)| Missing {
            file: *file,
            range: range.clone(),
            generation: 0,
            in_one: false,
        });
        let state = State {
            waiting: missing.collect(),
            begun: Vec::new(),
            spans: 0,
            bytes: plan.missing_bytes(),
            workers,
            least: least_chunk(chunk_size),
            open_files: plan.files.len(),
            held_back: false,
            is_closed: false,
        };
        Self { state: Mutex::new(state), changed: Notify::new(), chunk_size }
    }

    /// For a plan of which only so many files are to be proved.
    pub fn until_proved(mut self, files: usize) -> Self {
        self.state.get_mut().unwrap_or_else(PoisonError::into_inner).open_files = files;
        self
    }

    /// The next chunk for worker number `worker`, whose last one was `last`. Waits while files may
    /// still come back, and while there are too many workers; `None` when all are done.
    pub async fn next(&self, worker: usize, mut last: Option<Chunk>) -> Option<Chunk> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // From here on no change is missed.
            changed.as_mut().enable();
            {
                let mut state = self.state();
                if state.is_closed || state.open_files == 0 {
                    return None;
                }
                let own = last.take().map(|chunk| state.leave(chunk.span));
                if worker < state.workers
                    && let Some(chunk) = state.take(own, self.chunk_size)
                {
                    return Some(chunk);
                }
            }
            changed.await;
        }
    }

    /// How many workers may take chunks from now on; and how many bytes per second each has brought.
    pub fn let_work(&self, workers: usize, rate_each: f64) {
        let before = {
            let mut state = self.state();
            // Nothing at all is a pause, and says nothing of the connections.
            if rate_each > 0.0 {
                let brings = (rate_each * LAST_SECONDS) as u64;
                state.least = brings.max(ALIGNMENT).min(least_chunk(self.chunk_size));
            }
            std::mem::replace(&mut state.workers, workers)
        };
        if before < workers {
            self.changed.notify_waiters();
        }
    }

    /// Bytes that nobody has been given yet.
    pub fn bytes_left(&self) -> u64 {
        self.state().bytes
    }

    /// The hash of `file` has come to `at`.
    pub fn hashed(&self, file: usize, at: u64) {
        let go_on = {
            let mut state = self.state();
            for span in state.begun.iter_mut().filter(|span| span.missing.file == file) {
                span.hashed = at;
            }
            std::mem::take(&mut state.held_back)
        };
        if go_on {
            self.changed.notify_waiters();
        }
    }

    /// Takes every waiting range of `file` back.
    pub fn withdraw(&self, file: usize) {
        self.state().withdraw(file);
    }

    /// Puts the whole of `file` to the front, for its beginning number `generation`.
    pub fn again(&self, file: usize, size: u64, generation: u32, in_one: bool) {
        {
            let mut state = self.state();
            state.withdraw(file);
            state.bytes += size;
            state.waiting.push_front(Missing { file, range: 0..size, generation, in_one });
        }
        self.changed.notify_waiters();
    }

    /// A file is proved.
    pub fn finish_file(&self) -> bool {
        let all_done = {
            let mut state = self.state();
            state.open_files -= 1;
            state.open_files == 0
        };
        if all_done {
            self.changed.notify_waiters();
        }
        all_done
    }

    /// Ends the waits of all workers.
    pub fn wake_all(&self) {
        self.state().is_closed = true;
        self.changed.notify_waiters();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The next chunk for somebody whose last one came from the span `own`.
    fn take(&mut self, own: Option<u64>, chunk_size: u64) -> Option<Chunk> {
        let n = self.choose(own)?;
        let least = self.least;
        // One worker alone ends when it ends.
        let share = match self.workers {
            0 | 1 => u64::MAX,
            workers => self.bytes / (2 * workers as u64),
        };
        let mut size = share.clamp(least, chunk_size);
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
        let is_small = start == span.start && end - start <= least_chunk(chunk_size);
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

    /// Which of `begun` to cut from: one's own, as long as one is alone there; a file that nobody
    /// has begun with; the one with the fewest workers.
    fn choose(&mut self, own: Option<u64>) -> Option<usize> {
        let mine = self.begun.iter().position(|span| Some(span.id) == own);
        if let Some(n) = mine.filter(|n| self.begun[*n].workers == 0) {
            return Some(n);
        }
        while let Some(missing) = self.waiting.pop_front() {
            if !missing.range.is_empty() {
                self.spans += 1;
                let start = missing.range.start;
                self.begun.push(Span { id: self.spans, missing, start, hashed: 0, workers: 0 });
                return Some(self.begun.len() - 1);
            }
        }
        let key = |span: &Span| (span.workers, Some(span.id) != own, span.id);
        let most_ahead = AHEAD_EACH * self.workers as u64;
        let may_go_on = |n: &usize| self.begun[*n].ahead() <= most_ahead;
        let next = (0..self.begun.len()).filter(may_go_on).min_by_key(|n| key(&self.begun[*n]));
        self.held_back |= next.is_none() && !self.begun.is_empty();
        next
    }

    /// A worker is done with its chunk of the span `id`.
    fn leave(&mut self, id: u64) -> u64 {
        if let Some(span) = self.begun.iter_mut().find(|span| span.id == id) {
            span.workers -= 1;
        }
        id
    }

    fn withdraw(&mut self, file: usize) {
        self.waiting.retain(|missing| missing.file != file);
        self.begun.retain(|span| span.missing.file != file);
        let waiting = self.waiting.iter().map(|missing| &missing.range);
        let begun = self.begun.iter().map(|span| &span.missing.range);
        self.bytes = waiting.chain(begun).map(|range| range.end - range.start).sum();
    }
}

/// The smallest piece that a file is cut into where `chunk_size` is the largest.
pub fn least_chunk(chunk_size: u64) -> u64 {
    MIN_CHUNK.min(chunk_size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{RelPath, RemoteFile};

    fn queue(sizes: &[u64], workers: usize) -> Queue {
        queue_of(sizes, 4, workers)
    }

    fn queue_of(sizes: &[u64], chunk_size: u64, workers: usize) -> Queue {
        let file = |(n, size): (usize, &u64)| RemoteFile {
            path: RelPath::parse(&format!("f{n}")).expect("path"),
            size: *size,
            digest: None,
            validator: None,
        };
        let files: Vec<_> = sizes.iter().enumerate().map(file).collect();
        Queue::new(&Plan::new(files.into(), |_| Vec::new()), chunk_size, workers)
    }

    /// What worker after worker takes, each coming back with its last chunk in its turn.
    fn take_all(queue: &Queue, workers: usize) -> Vec<(usize, Range<u64>)> {
        let mut state = queue.state();
        let mut own = vec![None; workers];
        let mut taken = Vec::new();
        for turn in 0.. {
            let last: &mut Option<u64> = &mut own[turn % workers];
            if let Some(id) = *last {
                state.leave(id);
            }
            let Some(chunk) = state.take(*last, 4) else { break };
            *last = Some(chunk.span);
            taken.push((chunk.file, chunk.range));
        }
        assert_eq!(state.bytes, 0);
        taken
    }

    #[test]
    fn one_worker_goes_file_by_file_and_in_order() {
        assert_eq!(take_all(&queue(&[5, 0, 4], 1), 1), [(0, 0..4), (0, 4..5), (2, 0..4)]);
    }

    #[test]
    fn each_worker_stays_with_its_file_and_then_joins_the_others() {
        let taken = take_all(&queue(&[8, 16], 2), 2);
        let expected = [(0, 0..4), (1, 0..4), (0, 4..8), (1, 4..8), (1, 8..12), (1, 12..16)];
        assert_eq!(taken, expected);
        let queue = queue(&[8, 16], 2);
        assert!(queue.state().take(None, 4).is_some_and(|chunk| chunk.alone));
    }

    #[test]
    fn workers_spread_evenly_over_few_files() {
        let queue = queue(&[1 << 20, 1 << 20], 6);
        let mut state = queue.state();
        let taken: Vec<_> = (0..6).filter_map(|_| state.take(None, 4)).collect();
        let files: Vec<_> = taken.iter().map(|chunk| chunk.file).collect();
        assert_eq!(files, [0, 1, 0, 1, 0, 1]);
        assert!(taken.iter().all(|chunk| !chunk.alone));
    }

    #[test]
    fn workers_that_share_a_file_wait_for_its_hash() {
        let queue = queue(&[4 << 30], 4);
        let take = || queue.state().take(None, 64 << 20);
        let ahead: Vec<Chunk> = std::iter::from_fn(take).collect();
        let at = ahead.last().expect("some").range.end;
        assert!(at > 4 * AHEAD_EACH && at <= 5 * AHEAD_EACH, "{at}");
        assert!(!ahead[0].alone);
        queue.hashed(0, AHEAD_EACH);
        assert_eq!(take().expect("goes on").range.start, at);
    }

    #[test]
    fn news_of_an_earlier_beginning_is_no_harm() {
        let queue = queue(&[4 << 30], 2);
        let first = queue.state().take(None, 64 << 20).expect("a chunk");
        queue.again(first.file, 4 << 30, 1, false);
        assert_eq!(queue.state().take(None, 64 << 20).map(|chunk| chunk.range.start), Some(0));
        queue.hashed(first.file, 1 << 30);
        let next = queue.state().take(None, 64 << 20).expect("goes on");
        assert_eq!((next.range.start, next.generation), (AHEAD_EACH / 2, 1));
    }

    #[test]
    fn what_was_there_before_holds_nobody_back() {
        let queue = queue(&[4 << 30], 4);
        queue.state().waiting[0].range.start = 1 << 30;
        let taken = std::iter::from_fn(|| queue.state().take(None, 64 << 20)).count();
        assert!(taken > 40, "{taken}");
    }

    #[test]
    fn chunks_become_smaller_towards_the_end_and_are_cut_at_whole_blocks() {
        let (size, chunk_size) = (1_000_000_007, 64 << 20);
        let queue = queue_of(&[size], chunk_size, 4);
        let mut state = queue.state();
        let mut at = 0;
        let mut lengths = Vec::new();
        while let Some(chunk) = state.take(None, chunk_size) {
            state.begun.iter_mut().for_each(|span| span.hashed = chunk.range.end);
            assert!(chunk.range.start == at && at % ALIGNMENT == 0);
            at = chunk.range.end;
            lengths.push(chunk.range.end - chunk.range.start);
        }
        assert_eq!(at, size);
        assert_eq!(lengths[0], AHEAD_EACH / 2);
        assert!(lengths.iter().rev().skip(1).all(|len| *len >= MIN_CHUNK), "{lengths:?}");
        assert!(lengths.iter().rev().take(4).all(|len| *len <= 2 * MIN_CHUNK), "{lengths:?}");
    }

    #[test]
    fn the_last_chunks_of_slow_connections_are_smaller_still() {
        let last = |rate_each: f64| {
            let queue = queue_of(&[256 << 20], 64 << 20, 4);
            queue.let_work(4, rate_each);
            let mut state = queue.state();
            let (mut last, mut before_it) = (0, 0);
            while let Some(chunk) = state.take(None, 64 << 20) {
                state.begun.iter_mut().for_each(|span| span.hashed = chunk.range.end);
                (before_it, last) = (last, chunk.range.end - chunk.range.start);
            }
            assert!(last <= before_it);
            before_it
        };
        assert_eq!([last(1e9), last(4.5e6), last(1e3)], [8 << 20, 2 << 20, 1 << 20]);
    }

    #[test]
    fn a_small_file_is_one_chunk_however_slow_the_connections_are() {
        let sizes = [7 << 20; 20];
        let queue = queue_of(&sizes, 64 << 20, 16);
        queue.let_work(16, 1e3);
        let mut state = queue.state();
        let count = std::iter::from_fn(|| state.take(None, 64 << 20)).count();
        assert_eq!(count, sizes.len());
    }

    #[test]
    fn an_empty_range_does_not_block_the_others() {
        let queue = queue(&[5], 1);
        queue.again(7, 0, 1, false);
        assert_eq!(take_all(&queue, 1), [(0, 0..4), (0, 4..5)]);
    }

    #[test]
    fn a_file_that_begins_anew_comes_first_and_only_once() {
        let queue = queue(&[5, 9], 1);
        queue.again(1, 9, 1, true);
        assert_eq!(take_all(&queue, 1), [(1, 0..9), (0, 0..4), (0, 4..5)]);
    }
}
