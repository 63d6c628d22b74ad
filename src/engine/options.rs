//! How a transfer is done, and what it may have at the same time.

use std::time::Duration;

use super::retry::RetryPolicy;
use super::share::Share;

/// Files that are open for writing at the same time, those that wait to be hashed and synced
/// included.
const MAX_OPEN_FILES: usize = 128;

/// What a worker has open beside its file: its runtime's four, and a connection to each of two hosts.
pub(super) const DESCRIPTORS_OF_A_WORKER: usize = 6;
/// For a moment, or for somebody else: directories, heartbeats, name servers, files that are hashed.
pub(super) const SPARE_DESCRIPTORS: usize = 12;

/// A file that only it reads, and for a moment the directory of that.
pub(super) const DESCRIPTORS_OF_A_HASHER: usize = 3;
/// A further thread that hashes is worth it where so many more can be open.
const FREE_FOR_A_HASHER: usize = 16;

/// Threads that hash what is on the volume already, as many as there are processors up to this.
const MAX_HASHERS: usize = 16;

/// The rate of a whole run is looked at over as long as a host may be silent, but not longer or shorter
/// than this.
const LONGEST_RATE_WINDOW: Duration = Duration::from_secs(60);
const SHORTEST_RATE_WINDOW: Duration = Duration::from_secs(2);

/// How a transfer is done.
#[derive(Clone, Debug)]
pub struct Options {
    /// The most workers, each with one connection, of all transfers that `share` is of.
    pub connections: usize,
    pub share: Share,
    /// The most bytes asked for in one request.
    pub chunk_size: u64,
    pub retry: RetryPolicy,
    /// The least bytes per second of the whole transfer; with less it fails.
    pub min_rate: Option<u64>,
    /// Descriptors that the process can still open.
    pub descriptors: usize,
    /// Each file must be what its source published, whatever sort of digest that is.
    pub require_digests: bool,
}

/// What a transfer may have at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shares {
    pub workers: usize,
    pub open_files: usize,
    pub hashers: usize,
}

impl Options {
    /// As much of each as the descriptors allow; there is always one of each.
    pub(super) fn shares(&self, cores: usize) -> Shares {
        let free = self.descriptors.saturating_sub(SPARE_DESCRIPTORS);
        let most = cores.min(MAX_HASHERS).min(1 + free / FREE_FOR_A_HASHER);
        let hashers = most.max(1);
        // The first one is among those that are spared.
        let free = free.saturating_sub((hashers - 1) * DESCRIPTORS_OF_A_HASHER);
        // A worker needs a file as well.
        let workers = (free / (DESCRIPTORS_OF_A_WORKER + 1)).clamp(1, self.connections.max(1));
        let files = free.saturating_sub(workers * DESCRIPTORS_OF_A_WORKER);
        Shares { workers, open_files: files.clamp(1, MAX_OPEN_FILES), hashers }
    }

    /// How long a run may bring less than its least rate.
    pub(super) fn rate_window(&self) -> Duration {
        self.retry.budget.clamp(SHORTEST_RATE_WINDOW, LONGEST_RATE_WINDOW)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_descriptors_leave_one_of_each_and_all_fit() {
        let options = |descriptors, connections| Options {
            share: Share::default(),
            connections,
            chunk_size: 64 << 20,
            retry: RetryPolicy::default(),
            min_rate: None,
            descriptors,
            require_digests: false,
        };
        for descriptors in 0..600 {
            for (connections, cores) in [(1, 1), (16, 2), (256, 64), (0, 0)] {
                let shares = options(descriptors, connections).shares(cores);
                let Shares { workers, open_files, hashers } = shares;
                assert!(workers >= 1 && open_files >= 1 && hashers >= 1, "{shares:?}");
                assert!(workers <= connections.max(1) && hashers <= cores.max(1), "{shares:?}");
                let used = workers * DESCRIPTORS_OF_A_WORKER
                    + open_files
                    + (hashers - 1) * DESCRIPTORS_OF_A_HASHER;
                let least = SPARE_DESCRIPTORS + DESCRIPTORS_OF_A_WORKER + 1;
                let fits = used + SPARE_DESCRIPTORS <= descriptors;
                assert!(descriptors < least || fits, "{descriptors}: {shares:?}");
            }
        }
        let plenty = Shares { workers: 16, open_files: MAX_OPEN_FILES, hashers: 16 };
        assert_eq!(options(4_096, 16).shares(64), plenty);
    }
}
