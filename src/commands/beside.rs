//! What the models that one run fetches at the same time have together: connections, descriptors, and the
//! room on a volume.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::ask::SharedHttp;
use super::umask::RunUmask;
use crate::engine::Share;
use crate::report::Progress;

/// Shared by the fetches of one run; a copy is the same.
#[derive(Clone, Default)]
pub struct Beside {
    pub share: Share,
    pub http: SharedHttp,
    /// How many models are fetched at the same time, at most.
    pub lanes: usize,
    pub umask: RunUmask,
    transfers: Arc<Mutex<Vec<Transfer>>>,
}

struct Transfer {
    root: PathBuf,
    progress: Weak<Progress>,
}

impl Beside {
    pub fn new(lanes: usize) -> Self {
        Self { lanes, ..Self::default() }
    }

    /// The same, for a run that publishes models.
    pub fn publishing(lanes: usize, umask: RunUmask) -> Self {
        Self { umask, ..Self::new(lanes) }
    }

    /// A transfer below `root` has begun, which lasts as long as `progress` is used; returns the bytes that
    /// the others below it have still to write.
    pub fn join(&self, root: &Path, progress: &Arc<Progress>) -> u64 {
        let mut transfers = self.transfers.lock().unwrap_or_else(PoisonError::into_inner);
        transfers.retain(|transfer| transfer.progress.strong_count() > 0);
        let of_root = transfers.iter().filter(|transfer| transfer.root == root);
        let progresses = of_root.filter_map(|transfer| transfer.progress.upgrade());
        let missing = progresses.map(|other| {
            other.total_bytes.load(Relaxed).saturating_sub(other.done_bytes.load(Relaxed))
        });
        let missing = missing.fold(0, u64::saturating_add);
        transfers.push(Transfer { root: root.to_owned(), progress: Arc::downgrade(progress) });
        missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_that_others_need_is_counted_where_they_need_it() {
        let beside = Beside::new(3);
        let (a, b) = (Path::new("/a"), Path::new("/b"));
        let progress = |done, total| {
            let progress = Progress::default();
            progress.done_bytes.store(done, Relaxed);
            progress.total_bytes.store(total, Relaxed);
            Arc::new(progress)
        };
        let first = progress(30, 100);
        assert_eq!(beside.join(a, &first), 0);
        assert_eq!(beside.join(b, &progress(0, 7)), 0);
        let second = progress(0, 5);
        assert_eq!(beside.clone().join(a, &second), 70);
        first.done_bytes.store(90, Relaxed);
        assert_eq!(beside.join(a, &progress(0, 0)), 15);
        drop(first);
        assert_eq!(beside.join(a, &progress(0, 0)), 5);
    }
}
