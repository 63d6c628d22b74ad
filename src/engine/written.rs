//! How far one chunk is: written, noted in the journal, on its way to the disk, hashed.

use std::time::Instant;

use crate::model::{Digest, RemoteFile};
use crate::net::Peer;
use crate::verify::{self, FileHasher};
use crate::volume::StagedFile;

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
    /// Everything before is written.
    pub at: u64,
    /// Everything before is in the journal as well.
    pub noted: u64,
    pub noted_at: Instant,
    /// Everything before is on its way to the disk.
    sent: u64,
    /// Of the bytes between the two places.
    pub crc: crc_fast::Digest,
    /// The hash of the file, if this chunk began where it stood.
    pub hasher: Option<Box<FileHasher>>,
    /// From here on the header can be looked at.
    pub look_at: u64,
    /// Where the bytes come from at the moment.
    pub from: Option<Peer>,
}

impl Written {
    pub fn new(start: u64, hasher: Option<Box<FileHasher>>) -> Self {
        let (noted_at, look_at) = (Instant::now(), NEVER);
        let (crc, from) = (new_crc(), None);
        Self { at: start, noted: start, noted_at, sent: start, crc, hasher, look_at, from }
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
        if let Some(hasher) = &mut self.hasher {
            hasher.update(piece);
        }
    }
}

/// The checksum that the journal keeps of each piece.
pub fn new_crc() -> crc_fast::Digest {
    crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc64Nvme)
}
