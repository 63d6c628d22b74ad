//! One file on its way: its descriptor, its hash, and what has been wrong with it. How far it is, and who may
//! do what with it, the schedule knows.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use super::written::first_look;
use crate::model::RemoteFile;
use crate::report::ActiveFile;
use crate::verify::{FileHasher, Structure};
use crate::volume::StagedFile;

/// A file of the plan.
pub struct Job<'a> {
    pub n: usize,
    pub file: &'a RemoteFile,
    /// Bytes that were on the volume before.
    present: u64,
    /// Only while something happens to the file: a plan may have a hundred thousand.
    state: Mutex<Option<Box<State>>>,
}

pub struct State {
    hasher: Hasher,
    /// How often it was complete and wrong. A first fetch that used bytes of an earlier run does not
    /// count.
    pub wrong_fetches: u32,
    /// The digest of the last of those.
    pub last_wrong: Option<String>,
    /// It has bytes of an earlier run.
    pub resumed: bool,
    /// How often it began again because the server sends no ranges.
    pub streams: u32,
    /// Open for those who write; the schedule has counted it.
    pub staged: Option<Arc<StagedFile>>,
    pub shown: Option<Arc<ActiveFile>>,
    /// So many bytes from the start must be there for the next look at the header.
    pub look_at: u64,
    /// The start is no safetensors, and is being read once more.
    pub is_suspected: bool,
    /// A second read of the start has brought other bytes: the file begins again.
    pub has_wrong_start: bool,
    /// What the header says, if it has been looked at.
    pub structure: Option<Structure>,
}

/// Where the running hash of a file is.
enum Hasher {
    /// Not made yet.
    Fresh,
    Idle(Box<FileHasher>),
    /// Somebody is hashing.
    Taken,
}

impl State {
    fn new(file: &RemoteFile, resumed: bool) -> Self {
        Self {
            hasher: Hasher::Fresh,
            wrong_fetches: 0,
            last_wrong: None,
            resumed,
            streams: 0,
            staged: None,
            shown: None,
            look_at: first_look(file),
            is_suspected: false,
            has_wrong_start: false,
            structure: None,
        }
    }
}

impl<'a> Job<'a> {
    /// `missing` are the ranges that are not on the volume yet.
    pub fn new<'m>(
        n: usize,
        file: &'a RemoteFile,
        missing: impl Iterator<Item = &'m Range<u64>>,
    ) -> Self {
        let missing: u64 = missing.map(|range| range.end - range.start).sum();
        Self { n, file, present: file.size - missing, state: Mutex::default() }
    }

    /// Looks at the state of the file, or changes it.
    pub fn with<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let make = || Box::new(State::new(self.file, self.present > 0));
        change(state.get_or_insert_with(make))
    }

    /// Bytes of an earlier run, while it has them.
    pub fn present(&self) -> u64 {
        if self.with(|state| state.resumed) { self.present } else { 0 }
    }

    /// The file, if it is open at the moment.
    pub fn staged(&self) -> Option<Arc<StagedFile>> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.as_ref().and_then(|state| state.staged.clone())
    }

    /// The running hash. The schedule has given the right to hash to the caller, who puts it back.
    pub fn take_hasher(&self) -> Box<FileHasher> {
        let taken = self.with(|state| std::mem::replace(&mut state.hasher, Hasher::Taken));
        match taken {
            Hasher::Idle(hasher) => hasher,
            Hasher::Fresh => Box::new(FileHasher::new(self.file.size, self.file.digest.as_ref())),
            Hasher::Taken => panic!("two threads hash `{}`", self.file.path),
        }
    }

    pub fn put_hasher(&self, hasher: Box<FileHasher>) {
        self.with(|state| state.hasher = Hasher::Idle(hasher));
    }

    /// The file is finished: it is closed, and its bar, if it has one, returned.
    pub fn close(&self) -> Option<Arc<ActiveFile>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.take().and_then(|state| state.shown)
    }

    /// Forgets what is there of the file. Nobody uses it.
    pub fn reset(&self) {
        self.with(|state| {
            state.hasher = Hasher::Fresh;
            state.resumed = false;
            state.staged = None;
            state.look_at = first_look(self.file);
            state.is_suspected = false;
            state.has_wrong_start = false;
            state.structure = None;
        });
    }
}
