//! What the schedule is told, and what it tells the engine to do.

use std::ops::Range;
use std::time::Duration;

/// How a transfer begins.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most bytes of one request.
    pub chunk_size: u64,
    /// The most workers.
    pub workers: usize,
    /// So many of them fetch until a tick says otherwise.
    pub at_first: usize,
    /// Files that may be open for writing at the same time.
    pub open_files: usize,
    /// Threads that hash what is on the volume.
    pub hashers: usize,
    /// Files up to this size are hashed and proved by the worker that fetched them.
    pub small_bytes: u64,
    /// A connection that brings too little for this long is replaced.
    pub low_speed_after: Duration,
    /// The least rate of the whole transfer.
    pub min_rate: Option<MinRate>,
}

/// The transfer fails if it brings less than this, on average over the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MinRate {
    pub bytes_per_second: u64,
    pub window: Duration,
}

/// A thread of the transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Party {
    Worker(usize),
    Hasher(usize),
}

/// A byte range of one file that one worker fetches, by one request if all goes well. The schedule may
/// shorten or recall it meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Its number; each is given once.
    pub lease: u64,
    pub file: usize,
    pub range: Range<u64>,
    /// The worker hashes what it writes: the hash of the file stands at the start of the range.
    pub hashes: bool,
    /// Bytes from the start of the file that are written.
    pub from_start: u64,
}

/// What a thread is to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    Fetch(Chunk),
    /// Hash these bytes, which are written. `is_old`: they were on the volume before the transfer.
    Hash {
        file: usize,
        range: Range<u64>,
        is_old: bool,
    },
    /// All bytes are hashed: compare the digest, make the file durable, close it.
    Finish {
        file: usize,
    },
    /// Throw the file away. Nobody else uses it.
    Restart {
        file: usize,
        how: Restart,
    },
    /// There is nothing left to do.
    End,
}

/// How a file is fetched again from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// In ranges, as before.
    InRanges,
    /// In one stream: the server sends no ranges.
    InOneStream,
}

/// How a worker ended its chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All of it is written, or what was left of it after it was shortened or recalled.
    Written,
    /// The file has to be fetched again.
    Restart(Restart),
}

#[derive(Clone, Debug)]
pub enum Event {
    /// A thread has started.
    Started(Party),
    /// A thread has ended, or could not be started.
    Gone(Party),
    /// A worker is done with its chunk: everything before `at` is written.
    Fetched {
        worker: usize,
        at: u64,
        ending: Ending,
    },
    /// A hasher is done with its range.
    Hashed {
        hasher: usize,
    },
    /// The file of the party is proved, durable and closed.
    Finished(Party),
    /// The file of the party is not what the source has published.
    Wrong(Party),
    /// The file of the party is thrown away.
    Restarted(Party),
    Tick(Tick),
    /// The transfer ends here.
    Close,
}

/// What there is to see now and then.
#[derive(Clone, Debug, Default)]
pub struct Tick {
    /// Bytes that have come over the network so far.
    pub fetched_bytes: u64,
    /// The part of the processors that fetching has used since the last tick, 0 to 1. What hashing of
    /// old bytes has used is left out.
    pub cpu: f64,
    /// A host has asked to be left alone until later.
    pub is_paused: bool,
    /// So many workers may fetch: the part of this transfer, where there are several.
    pub most: usize,
    /// Of each worker.
    pub readings: Vec<Reading>,
}

/// How far a worker is with its chunk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Everything of the chunk before is written.
    pub at: u64,
    pub phase: Phase,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// It waits for the head of an answer, the connection included.
    Head,
    /// It waits for bytes.
    Body,
    /// It waits before it asks again, or does something else.
    #[default]
    Other,
}

/// What the engine is to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Give(Party, Task),
    /// The chunk ends earlier: somebody else fetches what follows.
    Shorten {
        worker: usize,
        lease: u64,
        end: u64,
    },
    /// The worker gives its chunk back as far as it is, and closes its connection.
    Recall {
        worker: usize,
        lease: u64,
        why: Recall,
    },
    /// The worker closes its connection, which brought this many bytes per second, and asks again.
    Reconnect {
        worker: usize,
        lease: u64,
        rate: u64,
    },
    /// Start a thread for another worker.
    StartWorker(usize),
    /// The transfer is too slow: it fails.
    GiveUp(TooSlow),
    /// Everything is done, or closed.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Recall {
    /// Others are faster, and wait for this one or will do so; in bytes per second.
    Slow { rate: u64, usual: u64 },
    /// The file begins again.
    Restart,
}

/// What a transfer brought that brought too little.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooSlow {
    pub bytes: u64,
    pub over: Duration,
    pub min_rate: u64,
}
