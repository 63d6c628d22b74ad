//! How a transfer is done, and what it may have at the same time.

use std::time::Duration;

use super::direct::DirectIo;
use super::retry::RetryPolicy;
use super::schedule::concurrency;
use super::share::Share;

/// What a connection needs of the memory that the container may use: its thread, its buffers, and what the kernel
/// holds of what has come. Measured (docs/performance.md): 0.3 MiB of it are the process's own, 0.4 over TLS.
const BYTES_OF_A_CONNECTION: u64 = 1 << 20;
/// So much of the memory that is left is for them; the rest is for what grows meanwhile, and the page cache.
const PART_FOR_CONNECTIONS: u64 = 2;
/// Fewer than this are not worth what they save.
const LEAST_CONNECTIONS: usize = 4;

/// Files that are open for writing at the same time, those that wait to be hashed and synced
/// included.
const MAX_OPEN_FILES: usize = 128;

/// What a worker has open beside its file: its runtime's four, a connection to each of two hosts, and the file once
/// more, where it is written past the page cache.
pub(super) const DESCRIPTORS_OF_A_WORKER: usize = 7;
/// For a moment, or for somebody else: directories, heartbeats, name servers, files that are hashed, and four of whoever
/// looks whether another process has published the model.
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
    /// Bytes of memory and processors that the container may use, if that has a limit.
    pub memory_limit: Option<u64>,
    pub processor_limit: Option<f64>,
    /// Bytes of memory that the process has already: a listing of a hundred thousand files needs some.
    pub memory_used: u64,
    pub direct_io: DirectIo,
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
    /// As many connections as may be and fit into the memory.
    pub(super) fn most_connections(&self) -> usize {
        let with_block = self.direct_io == DirectIo::On;
        self.connections.min(self.fit(with_block).max(LEAST_CONNECTIONS))
    }

    /// Whether there is memory for writes past the page cache, should they turn out to be better.
    pub(super) fn may_try_direct(&self) -> bool {
        self.fit(true) >= self.most_connections()
    }

    /// Connections for which there is memory, each `with_block` of what is written past the page cache.
    fn fit(&self, with_block: bool) -> usize {
        let each = BYTES_OF_A_CONNECTION << u32::from(with_block);
        self.memory_limit.map_or(usize::MAX, |bytes| {
            let left = bytes.saturating_sub(self.memory_used);
            usize::try_from(left / PART_FOR_CONNECTIONS / each).unwrap_or(usize::MAX)
        })
    }

    /// How many connections there are until it is known what they bring. Where there is hardly more than one
    /// processor, a file is hashed at the least cost if it is one stream: more connections have to show first that
    /// the network is what it waits for.
    pub(super) fn at_first(&self, cores: usize, files: usize) -> usize {
        let is_narrow = self.processors(cores) < 2.0 && files < concurrency::FIRST;
        if is_narrow { 1 } else { concurrency::FIRST }
    }

    /// Processors that there are for this process, `cores` of the machine at most.
    pub(super) fn processors(&self, cores: usize) -> f64 {
        self.processor_limit.unwrap_or(f64::INFINITY).min(cores as f64)
    }

    /// As much of each as the descriptors allow; there is always one of each.
    pub(super) fn shares(&self, cores: usize) -> Shares {
        let free = self.descriptors.saturating_sub(SPARE_DESCRIPTORS);
        let most = cores.min(MAX_HASHERS).min(1 + free / FREE_FOR_A_HASHER);
        let hashers = most.max(1);
        // The first one is among those that are spared.
        let free = free.saturating_sub((hashers - 1) * DESCRIPTORS_OF_A_HASHER);
        // A worker needs a file as well.
        let workers =
            (free / (DESCRIPTORS_OF_A_WORKER + 1)).clamp(1, self.most_connections().max(1));
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
            memory_limit: None,
            memory_used: 8 << 20,
            processor_limit: None,
            direct_io: DirectIo::Off,
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
        let of =
            |memory: Option<u64>, asked| Options { memory_limit: memory, ..options(4_096, asked) };
        let mib = |mib: u64| Some(mib << 20);
        for (memory, asked, most) in [
            (None, 64, 64),
            (mib(1_024), 64, 64),
            (mib(136), 64, 64),
            (mib(64), 64, 28),
            (mib(64), 16, 16),
            (mib(4), 64, 4),
            (mib(4), 2, 2),
            (Some(0), 64, 4),
            (Some(u64::MAX), 256, 256),
        ] {
            assert_eq!(of(memory, asked).most_connections(), most, "{memory:?} {asked}");
            assert_eq!(of(memory, asked).shares(64).workers, most, "{memory:?} {asked}");
        }
        let direct = Options { direct_io: DirectIo::On, ..of(mib(64), 64) };
        assert_eq!(direct.most_connections(), 14);
        assert!(!of(mib(64), 64).may_try_direct() && of(mib(64), 14).may_try_direct());
        assert!(of(None, 256).may_try_direct());
        let quota = |limit| Options { processor_limit: limit, ..options(4_096, 64) };
        for (limit, cores, files, first) in [
            (None, 2, 1, 4),
            (None, 1, 1, 1),
            (None, 1, 4, 4),
            (Some(1.0), 64, 1, 1),
            (Some(0.5), 64, 3, 1),
            (Some(2.0), 64, 1, 4),
        ] {
            assert_eq!(quota(limit).at_first(cores, files), first, "{limit:?} {cores} {files}");
        }
        let plenty = Shares { workers: 16, open_files: MAX_OPEN_FILES, hashers: 16 };
        assert_eq!(options(4_096, 16).shares(64), plenty);
    }
}
