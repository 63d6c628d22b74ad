//! Threads that follow behind the workers: they hash what has been written out of order, while it is still
//! in the page cache, and what was on the volume before; and they finish each file that is complete.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::activity::{Doing, Post};
use super::error::TransferError;
use super::schedule::event::{Event, Party, Task};
use super::shared::Shared;
use crate::volume::StagedFile;

/// Fits into a core's own cache beside the hash.
const BUFFER_BYTES: usize = 256 << 10;

/// Hashes until everything is finished.
pub fn follow<'a>(
    shared: &'a Shared<'_>,
    number: usize,
    post: Post<'a>,
) -> Result<(), TransferError> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let party = Party::Hasher(number);
    // The file that it has opened itself. Only here from an earlier run, it does not count as open, and
    // there may be very many.
    let mut opened: Option<(usize, Arc<StagedFile>)> = None;
    shared.desk.tell(Event::Started(party));
    loop {
        post.tell(Doing::WaitsForFile);
        let task = shared.desk.next_to_hash(number);
        let file = match &task {
            Task::Hash { file, .. } | Task::Finish { file } | Task::Restart { file, .. } => *file,
            Task::End | Task::Fetch(_) => return Ok(()),
        };
        post.tell(Doing::Finishes(file));
        let own = opened.take().filter(|(of, _)| *of == file).map(|(_, staged)| staged);
        if let Task::Hash { range, is_old, .. } = task {
            let before = is_old.then(thread_nanos);
            let staged = shared.hash(file, range, own, &mut buffer)?;
            opened = Some((file, staged));
            let used = before.map_or(0, |before| thread_nanos().saturating_sub(before));
            shared.old_hash_nanos.fetch_add(used, Relaxed);
            shared.desk.tell(Event::Hashed { hasher: number });
        } else {
            shared.serve(party, &task, own)?;
        }
    }
}

impl Shared<'_> {
    /// Hashes `range` of a file; returns the file, which it has opened for that if it had to.
    fn hash(
        &self,
        file: usize,
        range: Range<u64>,
        opened: Option<Arc<StagedFile>>,
        buffer: &mut [u8],
    ) -> Result<Arc<StagedFile>, TransferError> {
        let job = &self.jobs[file];
        let staged = self.staged_for_reading(job, opened)?;
        let shown = self.shown(job);
        let mut hasher = job.take_hasher();
        shown.is_being_hashed.store(true, Relaxed);
        let mut at = range.start;
        while at < range.end {
            if self.stop.is_set() {
                return Err(TransferError::Stopped);
            }
            let len = buffer.len().min((range.end - at) as usize);
            staged.read_at(&mut buffer[..len], at)?;
            hasher.update(&buffer[..len]);
            at += len as u64;
            shown.hashed.store(at, Relaxed);
            self.progress.worked_bytes.fetch_add(len as u64, Relaxed);
        }
        shown.is_being_hashed.store(false, Relaxed);
        job.put_hasher(hasher);
        Ok(staged)
    }
}

/// Processor time of this thread.
fn thread_nanos() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
