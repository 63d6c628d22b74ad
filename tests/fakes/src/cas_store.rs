//! What the chunk store holds: each different chunk once, packed into xorbs.
//!
//! Knows files by their id. A file is cut when it is first asked for, and the bytes of a xorb are
//! made from the files again whenever they are read, so that large files cost little memory.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};

use crate::blob::{Blob, ReadAt};
use crate::cas_chunks::{Scheme, for_each_chunk, serialised, smallest};
use crate::cas_lies::XetLie;
use crate::text::hex;

pub(crate) struct Store {
    packing: Packing,
    kept: Mutex<Kept>,
}

/// How chunks become xorbs.
#[derive(Clone, Copy)]
pub(crate) struct Packing {
    /// At most so many in a xorb.
    pub xorb_chunks: usize,
    /// For every chunk, in place of the smallest.
    pub scheme: Option<Scheme>,
}

/// One chunk of a file, by where it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Number of the xorb in this store.
    pub xorb: usize,
    /// Number of the chunk in the xorb.
    pub index: usize,
    /// Of the file's bytes.
    pub length: u64,
}

pub(crate) struct Xorb {
    pub hash: String,
    chunks: Vec<Stored>,
}

impl Store {
    pub fn new(packing: Packing) -> Self {
        Self { packing, kept: Mutex::default() }
    }

    /// Makes a file known; the first one of an id stays.
    pub fn register(&self, id: &str, blob: &Blob) {
        self.kept().files.entry(id.to_owned()).or_insert_with(|| blob.clone());
    }

    pub fn file(&self, id: &str) -> Option<Blob> {
        self.kept().files.get(id).cloned()
    }

    /// The chunks of a file in order. `None` when no file has this id.
    pub fn pieces(&self, id: &str) -> Option<Arc<Vec<Piece>>> {
        let mut kept = self.kept();
        if let Some(pieces) = kept.pieces.get(id) {
            return Some(Arc::clone(pieces));
        }
        let blob = kept.files.get(id)?.clone();
        let pieces = Arc::new(kept.pack(&blob, self.packing));
        kept.pieces.insert(id.to_owned(), Arc::clone(&pieces));
        Some(pieces)
    }

    /// # Panics
    /// When no piece has told this number.
    pub fn xorb(&self, number: usize) -> Arc<Xorb> {
        Arc::clone(&self.kept().xorbs[number])
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Xorb {
    /// Of all serialised chunks.
    pub fn size(&self) -> u64 {
        self.chunks.last().map_or(0, |chunk| chunk.end)
    }

    /// How many chunks it has.
    pub fn count(&self) -> usize {
        self.chunks.len()
    }

    /// Where these chunks lie in the serialised xorb.
    pub fn bytes_of(&self, chunks: Range<usize>) -> Range<u64> {
        let start = chunks.start.checked_sub(1).map_or(0, |before| self.chunks[before].end);
        start..self.chunks[chunks.end - 1].end
    }

    /// Number of the chunk to which the byte at this offset belongs.
    pub fn chunk_at(&self, offset: u64) -> usize {
        self.chunks.partition_point(|chunk| chunk.end <= offset)
    }

    /// The serialised xorb. With a lie, the chunk of that number is not as it should be.
    pub fn blob(self: &Arc<Self>, lie: Option<(XetLie, usize)>) -> Blob {
        Blob::made(self.size(), Serialised { xorb: Arc::clone(self), lie })
    }
}

struct Stored {
    file: Blob,
    offset: u64,
    length: usize,
    scheme: Scheme,
    /// Where it ends in the serialised xorb.
    end: u64,
}

#[derive(Default)]
struct Kept {
    files: HashMap<String, Blob>,
    pieces: HashMap<String, Arc<Vec<Piece>>>,
    /// By SHA-256.
    chunks: HashMap<[u8; 32], Piece>,
    xorbs: Vec<Arc<Xorb>>,
}

impl Kept {
    fn pack(&mut self, file: &Blob, packing: Packing) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut open = OpenXorb::default();
        for_each_chunk(file, |offset, chunk| {
            let digest: [u8; 32] = Sha256::digest(chunk).into();
            let known = self.chunks.get(&digest).copied();
            pieces.push(known.unwrap_or_else(|| {
                let (scheme, bytes) = match packing.scheme {
                    Some(scheme) => (scheme, serialised(scheme, chunk)),
                    None => smallest(chunk),
                };
                if open.is_full(packing.xorb_chunks, bytes.len()) {
                    self.xorbs.push(std::mem::take(&mut open).closed());
                }
                let (xorb, index) = (self.xorbs.len(), open.chunks.len());
                let piece = Piece { xorb, index, length: chunk.len() as u64 };
                self.chunks.insert(digest, piece);
                let end = open.size() + bytes.len() as u64;
                let (file, length) = (file.clone(), chunk.len());
                open.chunks.push(Stored { file, offset, length, scheme, end });
                open.name.update(digest);
                piece
            }));
        });
        if !open.chunks.is_empty() {
            self.xorbs.push(open.closed());
        }
        pieces
    }
}

/// A xorb to which chunks are still added.
#[derive(Default)]
struct OpenXorb {
    chunks: Vec<Stored>,
    /// No reader can check the name of a xorb, so it only has to look like one.
    name: Sha256,
}

impl OpenXorb {
    fn size(&self) -> u64 {
        self.chunks.last().map_or(0, |chunk| chunk.end)
    }

    fn is_full(&self, chunks: usize, next_bytes: usize) -> bool {
        self.chunks.len() >= chunks || self.size() + next_bytes as u64 > LARGEST_XORB_BYTES
    }

    fn closed(self) -> Arc<Xorb> {
        Arc::new(Xorb { hash: hex(&self.name.finalize()), chunks: self.chunks })
    }
}

/// Reads a xorb by making its chunks again.
struct Serialised {
    xorb: Arc<Xorb>,
    lie: Option<(XetLie, usize)>,
}

impl ReadAt for Serialised {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) {
        let mut filled = 0;
        while filled < buffer.len() {
            let at = offset + filled as u64;
            let index = self.xorb.chunk_at(at);
            let bytes = self.chunk(index);
            let start = self.xorb.bytes_of(index..index + 1).start;
            let rest = &bytes[(at - start) as usize..];
            let count = rest.len().min(buffer.len() - filled);
            buffer[filled..filled + count].copy_from_slice(&rest[..count]);
            filled += count;
        }
    }
}

impl Serialised {
    fn chunk(&self, index: usize) -> Vec<u8> {
        let stored = &self.xorb.chunks[index];
        let mut chunk = vec![0; stored.length];
        stored.file.read_at(stored.offset, &mut chunk);
        let mut bytes = serialised(stored.scheme, &chunk);
        if let Some((lie, of)) = &self.lie
            && *of == index
        {
            lie.change_chunk(&mut bytes);
        }
        bytes
    }
}

const LARGEST_XORB_BYTES: u64 = 64 << 20;
