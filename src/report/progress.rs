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
    pub total_files: AtomicU64,
    pub done_files: AtomicU64,
    /// Requests that were made again.
    pub retries: AtomicU64,
    phase: Mutex<&'static str>,
    active: Mutex<Vec<Arc<ActiveFile>>>,
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
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
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
}
