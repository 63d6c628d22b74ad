//! How far one chunk is: written, noted in the journal, on its way to the disk, hashed.

use std::ops::Range;
use std::time::Instant;

use super::header;
use super::job::Frontier;
use crate::volume::StagedFile;

/// What of a chunk is in the file.
pub struct Written {
    /// Everything before is written.
    pub at: u64,
    /// Everything before is in the journal as well.
    pub noted: u64,
    pub noted_at: Instant,
    /// Everything before is on its way to the disk.
    sent: u64,
    /// Of the bytes between the two places.
    pub crc: crc_fast::Digest,
    /// The right to hash, if this chunk began where the hash stood.
    pub frontier: Option<Frontier>,
    /// From here on the header can be looked at.
    pub look_at: u64,
}

impl Written {
    pub fn new(start: u64, frontier: Option<Frontier>) -> Self {
        let (noted_at, look_at) = (Instant::now(), header::NEVER);
        Self { at: start, noted: start, noted_at, sent: start, crc: new_crc(), frontier, look_at }
    }

    /// Whether nothing of `range` is missing, and something was fetched.
    pub fn is_all_of(&self, range: &Range<u64>) -> bool {
        self.at == range.end && !range.is_empty()
    }

    /// Lets the disk begin with what has come since the last time, if that is `least` bytes or more.
    pub fn write_back(&mut self, staged: &StagedFile, least: u64) {
        if self.at - self.sent >= least {
            staged.begin_writeback(self.sent..self.at);
            self.sent = self.at;
        }
    }

    pub fn add(&mut self, piece: &[u8]) {
        self.crc.update(piece);
        self.at += piece.len() as u64;
        if let Some(frontier) = &mut self.frontier {
            frontier.hasher.update(piece);
            frontier.at = self.at;
        }
    }
}

/// The checksum that the journal keeps of each piece.
pub fn new_crc() -> crc_fast::Digest {
    crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc64Nvme)
}
