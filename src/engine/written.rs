//! How far one chunk is: written, noted in the journal, on its way to the disk, hashed.

use std::time::{Duration, Instant};

use super::direct::{self, Block, Trial, WINDOW, Way};
use crate::model::{Digest, RemoteFile};
use crate::net::Peer;
use crate::verify::{self, FileHasher};
use crate::volume::{StagedFile, StoreError};

/// Files up to this size are finished by the worker that fetched them.
pub const SMALL_BYTES: u64 = 8 << 20;
/// Nothing of a header is to be looked at, or not any more.
pub const NEVER: u64 = u64::MAX;

/// How many bytes from the start of `file` are worth a first look at its header.
pub fn first_look(file: &RemoteFile) -> u64 {
    // One that comes in a single piece has its digest soon, which proves more than a second read.
    let is_proved_soon =
        file.size <= SMALL_BYTES && file.digest.as_ref().is_some_and(Digest::refutes);
    if verify::is_safetensors(file.path.as_str()) && !is_proved_soon {
        file.size.min(8)
    } else {
        NEVER
    }
}

/// What of a chunk is in the file.
pub struct Written {
    /// Everything before has come; what of it is not in the file is in `block`.
    pub at: u64,
    /// Everything before is in the journal as well.
    pub noted: u64,
    pub noted_at: Instant,
    /// Everything before is on its way to the disk.
    sent: u64,
    /// What of it is not in the file yet, where it is written past the page cache.
    block: Option<Block>,
    /// Bytes since the way of writing was last judged, and the time that writing them took; if it is judged.
    window: Option<(u64, Duration)>,
    /// Of the bytes between the two places.
    pub crc: crc_fast::Digest,
    /// The hash of the file, if this chunk began where it stood.
    pub hasher: Option<Box<FileHasher>>,
    /// From here on the header can be looked at.
    pub look_at: u64,
    /// Bytes that the counters do not have yet, and since when.
    uncounted: u64,
    counted_at: Instant,
    /// Where the bytes come from at the moment.
    pub from: Option<Peer>,
}

/// A killed run loses at most this much of each connection, and what came in this time: each note is
/// one small write.
const NOTE_BYTES: u64 = 4 << 20;
pub const NOTE_EVERY: Duration = Duration::from_secs(1);
/// The counters are raised after so many bytes, or so long: they are shared by all workers.
const COUNT_BYTES: u64 = 1 << 20;
const COUNT_EVERY: Duration = Duration::from_millis(100);

impl Written {
    pub fn new(start: u64, hasher: Option<Box<FileHasher>>) -> Self {
        let (noted_at, look_at) = (Instant::now(), NEVER);
        let (crc, counted_at) = (new_crc(), noted_at);
        Self {
            at: start,
            noted: start,
            noted_at,
            sent: start,
            crc,
            hasher,
            look_at,
            block: None,
            window: None,
            uncounted: 0,
            counted_at,
            from: None,
        }
    }

    /// Whether the counters should have what has come.
    pub fn is_to_be_counted(&self, now: Instant) -> bool {
        self.uncounted >= COUNT_BYTES
            || now.saturating_duration_since(self.counted_at) >= COUNT_EVERY
    }

    pub fn take_uncounted(&mut self) -> u64 {
        self.counted_at = Instant::now();
        std::mem::take(&mut self.uncounted)
    }

    /// The chunk is one stream of a large file: it may be written past the page cache.
    pub fn may_be_direct(&mut self, way: Way) {
        self.window = Some((0, Duration::ZERO));
        self.go(way);
    }

    fn go(&mut self, way: Way) {
        match way {
            Way::Cached => self.block = None,
            Way::Direct => _ = self.block.get_or_insert_default(),
        }
    }

    /// Writes `piece` where it belongs, in the way that `trial` finds better.
    pub fn write(
        &mut self,
        staged: &StagedFile,
        piece: &[u8],
        worker: usize,
        trial: &Trial,
    ) -> Result<(), StoreError> {
        let Some((bytes, took)) = &mut self.window else {
            return staged.write_at(piece, self.at);
        };
        let before = Instant::now();
        let way = match &mut self.block {
            None => {
                staged.write_at(piece, self.at)?;
                Way::Cached
            }
            Some(block) => {
                block.write(staged, piece, self.at)?;
                Way::Direct
            }
        };
        *took += before.elapsed();
        *bytes += piece.len() as u64;
        if *bytes >= WINDOW {
            let took = std::mem::take(took);
            *bytes = 0;
            let next = trial.look(worker, way, took);
            if next != way {
                self.flush(staged)?;
                self.go(next);
            }
        }
        Ok(())
    }

    /// So much of a piece of `len` bytes is written before the next look: not beyond a whole block.
    pub fn part(&self, len: usize) -> usize {
        self.block.as_ref().map_or(len, |_| direct::to_next_block(self.at).min(len))
    }

    /// Whether something of what has come should be noted now. A block that is about to be complete is waited for.
    pub fn is_to_be_noted(&self, now: Instant) -> bool {
        let is_whole = self.block.as_ref().is_none_or(Block::is_empty);
        (self.at - self.noted >= NOTE_BYTES && is_whole)
            || now.saturating_duration_since(self.noted_at) >= NOTE_EVERY
    }

    /// Lets the file have all that has come.
    pub fn flush(&mut self, staged: &StagedFile) -> Result<(), StoreError> {
        self.block.as_mut().map_or(Ok(()), |block| block.flush(staged))
    }

    /// Lets the disk begin with what has come since the last time, if that is `least` bytes or more.
    pub fn write_back(&mut self, staged: &StagedFile, least: u64) {
        if self.at - self.sent >= least {
            staged.begin_writeback(self.sent..self.at);
            self.sent = self.at;
        }
    }

    /// The connection is replaced because it is slow: by one to elsewhere, if that can be.
    pub fn avoid_peer(&self) {
        self.from.iter().for_each(Peer::avoid);
    }

    pub fn add(&mut self, piece: &[u8]) {
        self.crc.update(piece);
        self.at += piece.len() as u64;
        self.uncounted += piece.len() as u64;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(piece);
        }
    }
}

/// The checksum that the journal keeps of each piece.
pub fn new_crc() -> crc_fast::Digest {
    crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc64Nvme)
}
