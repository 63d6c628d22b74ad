//! One file on its way: which parts are taken, hashed and sent.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;

use crate::model::{Checksum, RemoteFile, Sha256};
use crate::report::{ActiveFile, Progress};
use crate::source::s3::upload::{Before, Part, Upload};
use crate::verify::{FileHasher, Mismatch};

/// A file to be moved.
pub struct Task {
    pub file: RemoteFile,
    /// Bytes of each part but the last.
    pub part_size: u64,
    /// What is at its key.
    pub before: Before,
    /// An upload that an earlier run has begun.
    pub unfinished: Option<String>,
}

/// A file that has been moved.
#[derive(Clone, Debug)]
pub struct Proved {
    pub sha256: Sha256,
    /// With what its source had published.
    pub is_compared: bool,
    /// With its quotes.
    pub etag: Option<String>,
    /// That the store has of it.
    pub crc64nvme: Option<u64>,
}

pub struct Job {
    pub n: usize,
    pub task: Task,
    /// How many parts are hashed.
    pub hashed: watch::Sender<u32>,
    /// Begun by whoever is first to need it.
    pub upload: tokio::sync::Mutex<Option<Upload>>,
    state: Mutex<State>,
}

pub struct State {
    hasher: Option<FileHasher>,
    next: u32,
    left: u32,
    /// The part of a file that is sent at once.
    pub whole: Option<Bytes>,
    /// What the store has of the upload.
    pub parts: BTreeMap<u32, Part>,
    /// Of the bytes that have come, by part.
    pub crcs: BTreeMap<u32, u64>,
    pub before: Before,
    /// Not looked at yet.
    pub unfinished: Option<String>,
    /// Complete tries that have failed.
    pub failed: u32,
    shown: Option<Arc<ActiveFile>>,
    done_bytes: u64,
}

impl Job {
    pub fn new(n: usize, task: Task) -> Self {
        let state = State {
            hasher: None,
            next: 0,
            left: 0,
            whole: None,
            parts: BTreeMap::new(),
            crcs: BTreeMap::new(),
            before: task.before.clone(),
            unfinished: task.unfinished.clone(),
            failed: 0,
            shown: None,
            done_bytes: 0,
        };
        let job = Self {
            n,
            task,
            hashed: watch::Sender::new(0),
            upload: tokio::sync::Mutex::default(),
            state: Mutex::new(state),
        };
        job.reset(&mut job.state());
        job
    }

    pub fn path(&self) -> &str {
        self.task.file.path.as_str()
    }

    pub fn count(&self) -> u32 {
        let parts = self.task.file.size.div_ceil(self.task.part_size).max(1);
        u32::try_from(parts).unwrap_or(u32::MAX)
    }

    /// Whether it is sent by one request.
    pub fn is_small(&self) -> bool {
        self.count() == 1
    }

    pub fn range(&self, part: u32) -> Range<u64> {
        let Task { file, part_size, .. } = &self.task;
        let start = u64::from(part) * part_size;
        start..(start + part_size).min(file.size)
    }

    /// The next part, and whether there are more.
    pub fn take_part(&self) -> (u32, bool) {
        let mut state = self.state();
        state.next += 1;
        (state.next - 1, state.next < self.count())
    }

    /// Hashes `part`, which is the next one.
    pub fn hash(&self, part: u32, bytes: &Bytes) {
        let mut state = self.state();
        if let Some(hasher) = &mut state.hasher {
            hasher.update(bytes);
        }
        drop(state);
        self.hashed.send_replace(part + 1);
    }

    /// What came of the hash. An ETag that only looks like an MD5 is no digest.
    pub fn proof(&self) -> Result<(Sha256, bool), Mismatch> {
        let published = self.task.file.digest.as_ref();
        let hasher = self.state().hasher.take();
        let hasher = hasher.unwrap_or_else(|| FileHasher::new(self.task.file.size, None));
        match hasher.finish() {
            Ok(sha256) => Ok((Sha256(sha256), published.is_some())),
            Err(wrong) if published.is_some_and(|digest| !digest.refutes()) => {
                Ok((Sha256(wrong.sha256), false))
            }
            Err(wrong) => Err(wrong),
        }
    }

    /// A part is done; whether it was the last one.
    pub fn part_is_done(&self, part: u32, progress: &Progress) -> bool {
        let range = self.range(part);
        let mut state = self.state();
        state.left -= 1;
        state.done_bytes += range.end - range.start;
        progress.done_bytes.fetch_add(range.end - range.start, Relaxed);
        if let Some(shown) = &state.shown {
            shown.done.store(state.done_bytes, Relaxed);
        }
        state.left == 0
    }

    /// The CRC64NVME of the whole.
    pub fn crc64nvme(&self) -> u64 {
        let state = self.state();
        let each = state.crcs.iter().map(|(part, crc)| {
            let range = self.range(*part);
            (*crc, range.end - range.start)
        });
        each.fold(Checksum::Crc64Nvme.of(&[]), |whole, (crc, len)| {
            crc_fast::checksum_combine(crc_fast::CrcAlgorithm::Crc64Nvme, whole, crc, len)
        })
    }

    pub fn shows(&self, progress: &Progress) {
        let mut state = self.state();
        if state.shown.is_none() {
            let shown = progress.start_file(self.path(), self.task.file.size, 0);
            // A part is hashed before it is sent, and counts when it is there.
            shown.hashed.store(shown.size, Relaxed);
            state.shown = Some(shown);
        }
    }

    pub fn is_over(&self, progress: &Progress) {
        if let Some(shown) = self.state().shown.take() {
            progress.end_file(&shown);
        }
        progress.done_files.fetch_add(1, Relaxed);
    }

    /// From the first byte; parts that are sent are known, and are compared with what comes.
    pub fn begin_again(&self, progress: &Progress) {
        let mut state = self.state();
        progress.done_bytes.fetch_sub(state.done_bytes, Relaxed);
        self.reset(&mut state);
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reset(&self, state: &mut State) {
        let file = &self.task.file;
        state.hasher = Some(FileHasher::new(file.size, file.digest.as_ref()));
        (state.next, state.left, state.done_bytes) = (0, self.count(), 0);
        state.whole = None;
        state.crcs.clear();
        self.hashed.send_replace(0);
    }
}
