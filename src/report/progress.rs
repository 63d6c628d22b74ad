//! The counters of a fetch.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

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
    phase: Mutex<&'static str>,
    active: Mutex<Vec<Arc<ActiveFile>>>,
}

/// A file that is being transferred.
#[derive(Debug)]
pub struct ActiveFile {
    pub name: String,
    pub size: u64,
    pub done: AtomicU64,
}

impl Progress {
    /// What is going on: `resolving`, `fetching`, `publishing`, …
    pub fn enter(&self, phase: &'static str) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
    }

    pub fn phase(&self) -> &'static str {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn start_file(&self, name: &str, size: u64, done: u64) -> Arc<ActiveFile> {
        let file = Arc::new(ActiveFile { name: name.into(), size, done: AtomicU64::new(done) });
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
