//! The counters of a fetch.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// The counters of one fetch. Raised with relaxed atomics: they are for people.
#[derive(Debug, Default)]
pub struct Progress {
    pub total_bytes: AtomicU64,
    /// Bytes on the volume, taken over ones included.
    pub done_bytes: AtomicU64,
    /// Bytes that came over the network, thrown away ones included.
    pub fetched_bytes: AtomicU64,
    /// Bytes that were on the volume before and were not thrown away since.
    pub reused_bytes: AtomicU64,
    /// Bytes that were sent to a bucket.
    pub sent_bytes: AtomicU64,
    /// Bytes that were read back: hashed, re-checked, copied. A sign of life for those who wait.
    pub worked_bytes: AtomicU64,
    /// Of files that are hashed to their end.
    pub hashed_bytes: AtomicU64,
    pub total_files: AtomicU64,
    pub done_files: AtomicU64,
    /// Requests that were made again.
    pub retries: AtomicU64,
    phase: Mutex<&'static str>,
    /// What is read back in this phase.
    reading: Mutex<Option<Reading>>,
    active: Mutex<Vec<Arc<ActiveFile>>>,
}

/// Bytes that are read back before the transfer begins, which has counters of its own.
#[derive(Clone, Copy, Debug)]
struct Reading {
    total_bytes: u64,
    /// What `worked_bytes` was at its start.
    worked_before: u64,
}

/// How far a person is shown that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    pub phase: &'static str,
    pub done_bytes: u64,
    pub total_bytes: u64,
    pub done_files: u64,
    pub total_files: u64,
}

/// A file that something happens to.
#[derive(Debug)]
pub struct ActiveFile {
    pub name: String,
    pub size: u64,
    pub started: Instant,
    pub done: AtomicU64,
    /// How far it is hashed.
    pub hashed: AtomicU64,
    /// A thread that does nothing else is hashing it.
    pub is_being_hashed: AtomicBool,
}

/// What happens to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileState {
    Fetching {
        done: u64,
    },
    ToBeHashed,
    Hashing {
        done: u64,
    },
    /// All that is left is to have it on the disk.
    Finishing,
}

impl ActiveFile {
    pub fn state(&self) -> FileState {
        let (done, hashed) = (self.done.load(Relaxed), self.hashed.load(Relaxed));
        match done >= self.size {
            false => FileState::Fetching { done },
            true if hashed >= self.size => FileState::Finishing,
            true if self.is_being_hashed.load(Relaxed) => FileState::Hashing { done: hashed },
            true => FileState::ToBeHashed,
        }
    }
}

impl Progress {
    /// What is going on: `resolving`, `fetching`, `publishing`, …
    pub fn enter(&self, phase: &'static str) {
        *self.reading.lock().unwrap_or_else(PoisonError::into_inner) = None;
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
    }

    /// `bytes` more are going to be read back, and counted in `worked_bytes`, until the next phase.
    pub fn reads(&self, bytes: u64) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = "reading what is here";
        let mut reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let worked_before = self.worked_bytes.load(Relaxed);
        reading.get_or_insert(Reading { total_bytes: 0, worked_before }).total_bytes += bytes;
    }

    /// The counts of what goes on: of what is read back, of hashing where that alone is left, or of the transfer.
    pub(super) fn shown(&self) -> Shown {
        let shown = Shown {
            phase: self.phase(),
            done_bytes: self.done_bytes.load(Relaxed),
            total_bytes: self.total_bytes.load(Relaxed),
            done_files: self.done_files.load(Relaxed),
            total_files: self.total_files.load(Relaxed),
        };
        let reading = *self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Reading { total_bytes, worked_before }) = reading {
            let done = self.worked_bytes.load(Relaxed).saturating_sub(worked_before);
            let done_bytes = done.min(total_bytes);
            return Shown { done_bytes, total_bytes, done_files: 0, total_files: 0, ..shown };
        }
        if shown.phase == "fetching" && shown.done_bytes >= shown.total_bytes {
            let of_active: u64 = self.active().iter().map(|file| file.hashed.load(Relaxed)).sum();
            let hashed = self.hashed_bytes.load(Relaxed).saturating_add(of_active);
            return Shown { phase: "hashing", done_bytes: hashed.min(shown.total_bytes), ..shown };
        }
        shown
    }

    pub fn phase(&self) -> &'static str {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A file of which `done` bytes are there, and none is hashed.
    pub fn start_file(&self, name: &str, size: u64, done: u64) -> Arc<ActiveFile> {
        let file = Arc::new(ActiveFile {
            name: name.into(),
            size,
            started: Instant::now(),
            done: AtomicU64::new(done),
            hashed: AtomicU64::new(0),
            is_being_hashed: AtomicBool::new(false),
        });
        self.active().push(file.clone());
        file
    }

    pub fn end_file(&self, file: &Arc<ActiveFile>) {
        self.active().retain(|active| !Arc::ptr_eq(active, file));
    }

    pub(super) fn active(&self) -> std::sync::MutexGuard<'_, Vec<Arc<ActiveFile>>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_fetched_then_hashed_then_synced() {
        let progress = Progress::default();
        let file = progress.start_file("a", 10, 4);
        assert_eq!(file.state(), FileState::Fetching { done: 4 });
        file.done.store(10, Relaxed);
        assert_eq!(file.state(), FileState::ToBeHashed);
        file.is_being_hashed.store(true, Relaxed);
        file.hashed.store(7, Relaxed);
        assert_eq!(file.state(), FileState::Hashing { done: 7 });
        file.hashed.store(10, Relaxed);
        assert_eq!(file.state(), FileState::Finishing);
        progress.end_file(&file);
        assert!(progress.active().is_empty());
    }

    #[test]
    fn what_is_shown_is_read_then_fetched_then_hashed() {
        let progress = Progress::default();
        let is = |phase, done_bytes, total_bytes| {
            let shown = progress.shown();
            assert_eq!(
                (shown.phase, shown.done_bytes, shown.total_bytes),
                (phase, done_bytes, total_bytes)
            );
        };
        progress.worked_bytes.store(100, Relaxed);
        progress.reads(30);
        progress.worked_bytes.store(110, Relaxed);
        is("reading what is here", 10, 30);
        progress.reads(10);
        is("reading what is here", 10, 40);
        progress.worked_bytes.store(900, Relaxed);
        is("reading what is here", 40, 40);
        progress.total_bytes.store(50, Relaxed);
        progress.done_bytes.store(20, Relaxed);
        progress.enter("fetching");
        is("fetching", 20, 50);
        progress.hashed_bytes.store(15, Relaxed);
        let file = progress.start_file("a", 35, 35);
        file.hashed.store(5, Relaxed);
        progress.done_bytes.store(50, Relaxed);
        is("hashing", 20, 50);
        progress.enter("publishing");
        is("publishing", 50, 50);
    }
}
