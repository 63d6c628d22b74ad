//! One file on its way: what of it is written, how far it is hashed, and what proves it.

use std::ops::{Deref, DerefMut, Range};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::header;
use super::ranges::Ranges;
use crate::model::RemoteFile;
use crate::report::ActiveFile;
use crate::verify::{FileHasher, Structure};
use crate::volume::StagedFile;

/// A file of the plan. Bytes arrive in any order; they are hashed in order, either by the worker
/// that happens to hold the next ones or by a thread that follows behind.
pub struct Job<'a> {
    pub n: usize,
    pub file: &'a RemoteFile,
    slot: Mutex<Slot>,
}

/// What there is of a file in memory: a plan may have a hundred thousand.
enum Slot {
    /// Nothing has happened yet.
    Fresh,
    /// All of it is there, and nothing has happened to it yet.
    Whole,
    Open(Box<State>),
    /// Nothing more will happen: it is complete, or for another transfer.
    Proved,
}

pub struct State {
    pub written: Ranges,
    hasher: Hasher,
    /// Bytes from the start that are hashed.
    hashed: u64,
    /// Counts the new beginnings, so that nobody brings back what belongs to an earlier one.
    pub generation: u32,
    /// The file waits for a hashing thread, or has one.
    queued: bool,
    /// Workers that are writing to it.
    pub active: usize,
    /// It must begin anew once nobody writes to it, in one stream if true.
    pub restart: Option<bool>,
    /// How often it was complete and wrong. A first fetch that used bytes of an earlier attempt
    /// does not count.
    pub wrong_fetches: u32,
    /// The digest of the last of those.
    pub last_wrong: Option<String>,
    pub resumed: bool,
    /// How often it began anew because the server sends no ranges.
    pub streams: u32,
    /// Open for those who write; the queue has counted it.
    pub staged: Option<Arc<StagedFile>>,
    pub shown: Option<Arc<ActiveFile>>,
    pub proved: bool,
    /// So many bytes from the start must be there for the next look at the header.
    pub look_at: u64,
    /// The start is no safetensors, and is being read once more.
    pub is_suspected: bool,
    /// What the header says, if it has been looked at.
    pub structure: Option<Structure>,
}

impl State {
    fn new(file: &RemoteFile, written: Ranges, proved: bool) -> Self {
        Self {
            resumed: written.total() > 0,
            written,
            hasher: if proved { Hasher::Taken } else { Hasher::Fresh },
            hashed: 0,
            generation: 0,
            queued: false,
            active: 0,
            restart: None,
            wrong_fetches: 0,
            last_wrong: None,
            streams: 0,
            staged: None,
            shown: None,
            proved,
            look_at: header::first_look(file),
            is_suspected: false,
            structure: None,
        }
    }
}

/// The state of a job, locked.
pub struct Guard<'a>(MutexGuard<'a, Slot>);

impl Deref for Guard<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        match &*self.0 {
            Slot::Open(state) => state,
            _ => unreachable!("`state` has opened it"),
        }
    }
}

impl DerefMut for Guard<'_> {
    fn deref_mut(&mut self) -> &mut State {
        match &mut *self.0 {
            Slot::Open(state) => state,
            _ => unreachable!("`state` has opened it"),
        }
    }
}

/// Where the running hash of a file is.
enum Hasher {
    /// Not made yet.
    Fresh,
    Idle(Box<FileHasher>),
    /// Somebody is hashing, or the file is done.
    Taken,
}

impl Hasher {
    fn take(&mut self, file: &RemoteFile) -> Option<Box<FileHasher>> {
        match std::mem::replace(self, Self::Taken) {
            Self::Fresh => Some(Box::new(FileHasher::new(file.size, file.digest.as_ref()))),
            Self::Idle(hasher) => Some(hasher),
            Self::Taken => None,
        }
    }
}

/// The right to hash the bytes from `at` on; whoever has it gives it back.
pub struct Frontier {
    pub hasher: Box<FileHasher>,
    pub at: u64,
    pub generation: u32,
}

impl<'a> Job<'a> {
    /// `missing` are the ranges that are not on the volume yet.
    pub fn new<'m>(
        n: usize,
        file: &'a RemoteFile,
        missing: impl Iterator<Item = &'m Range<u64>>,
    ) -> Self {
        let mut written = Ranges::default();
        let mut at = 0;
        for range in missing {
            written.insert(at..range.start);
            at = range.end;
        }
        written.insert(at..file.size);
        let slot = match written.total() {
            0 => Slot::Fresh,
            all if all == file.size => Slot::Whole,
            _ => Slot::Open(Box::new(State::new(file, written, false))),
        };
        Self { n, file, slot: Mutex::new(slot) }
    }

    /// Of a file that this transfer is not about.
    pub fn for_later(n: usize, file: &'a RemoteFile) -> Self {
        Self { n, file, slot: Mutex::new(Slot::Proved) }
    }

    pub fn state(&self) -> Guard<'_> {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        let mut written = Ranges::default();
        match &*slot {
            Slot::Open(_) => return Guard(slot),
            Slot::Fresh | Slot::Proved => {}
            Slot::Whole => written.insert(0..self.file.size),
        };
        let proved = matches!(*slot, Slot::Proved);
        *slot = Slot::Open(Box::new(State::new(self.file, written, proved)));
        Guard(slot)
    }

    /// For the beginning of a transfer: whether a hashing thread should look at what is there
    /// already.
    pub fn begins_with_hashing(&self) -> bool {
        match &*self.slot.lock().unwrap_or_else(PoisonError::into_inner) {
            Slot::Whole => return true,
            Slot::Fresh => return self.file.size == 0,
            Slot::Proved => return false,
            Slot::Open(_) => {}
        }
        self.is_ready_to_hash()
    }

    /// The file, if it is open at the moment.
    pub fn staged(&self) -> Option<Arc<StagedFile>> {
        match &*self.slot.lock().unwrap_or_else(PoisonError::into_inner) {
            Slot::Open(state) => state.staged.clone(),
            _ => None,
        }
    }

    /// The file is proved: it is closed, and its bar, if it has one, returned.
    pub fn close(&self) -> Option<Arc<ActiveFile>> {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *slot, Slot::Proved) {
            Slot::Open(mut state) => state.shown.take(),
            _ => None,
        }
    }

    /// Whether a hashing thread should look at the file; the caller must then tell one.
    pub fn is_ready_to_hash(&self) -> bool {
        let mut state = self.state();
        let is_there = !matches!(state.hasher, Hasher::Taken);
        let idle = is_there && !state.queued && state.restart.is_none();
        let behind = state.written.end_of(state.hashed) > state.hashed;
        let complete = state.hashed == self.file.size && !state.proved;
        let ready = idle && (behind || complete);
        state.queued |= ready;
        ready
    }

    /// Lets a worker hash on its own, if the next byte to hash is the first that it will write.
    pub fn frontier_at(&self, start: u64) -> Option<Frontier> {
        let mut state = self.state();
        if state.hashed != start || state.queued {
            return None;
        }
        let generation = state.generation;
        state.hasher.take(self.file).map(|hasher| Frontier { hasher, at: start, generation })
    }

    /// For a hashing thread: the next bytes to hash, or `None` when there are none for now.
    pub fn next_to_hash(&self) -> Option<(Frontier, Range<u64>)> {
        let mut state = self.state();
        let range = state.hashed..state.written.end_of(state.hashed);
        if range.is_empty() || state.restart.is_some() {
            state.queued = false;
            return None;
        }
        let (at, generation) = (state.hashed, state.generation);
        let hasher = state.hasher.take(self.file)?;
        Some((Frontier { hasher, at, generation }, range))
    }

    /// Gives the right to hash back.
    pub fn return_frontier(&self, frontier: Frontier) {
        let mut state = self.state();
        if state.generation == frontier.generation {
            state.hashed = frontier.at;
            state.hasher = Hasher::Idle(frontier.hasher);
        }
    }

    /// The hasher of a file whose last byte is hashed; only once.
    pub fn take_complete(&self) -> Option<Box<FileHasher>> {
        let mut state = self.state();
        let complete = state.hashed == self.file.size && !state.proved;
        if complete && state.restart.is_none() { state.hasher.take(self.file) } else { None }
    }

    /// Forgets everything, for a new beginning, whose number is returned. Nobody may be writing.
    pub fn reset(&self) -> u32 {
        let mut state = self.state();
        state.written = Ranges::default();
        state.hasher = Hasher::Fresh;
        state.hashed = 0;
        state.generation += 1;
        state.queued = false;
        state.restart = None;
        state.resumed = false;
        state.staged = None;
        state.look_at = header::first_look(self.file);
        state.is_suspected = false;
        state.structure = None;
        state.generation
    }
}
