//! File contents that need not exist: bytes in memory, a file on disk, zeros, or computed.
//!
//! Knows nothing of names. A synthetic blob of a terabyte costs nothing until it is read, and
//! any part of it can be made at once, so ranges are cheap everywhere.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use crc_fast::{CrcAlgorithm, Digest as Crc};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::text::{hex, unhex};

/// Immutable contents of one file; cloning shares them, and the digests computed so far.
#[derive(Clone)]
pub struct Blob(Arc<Inner>);

/// Makes any part of some bytes on demand.
pub(crate) trait ReadAt: Send + Sync {
    /// Fills `buffer`, which ends at or before the end of the bytes.
    fn read_at(&self, offset: u64, buffer: &mut [u8]);
}

/// The object checksums S3 knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    Sha256,
    Sha1,
    Crc64Nvme,
    Crc32c,
    Crc32,
}

impl Blob {
    pub fn bytes(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self::new(bytes.len() as u64, Source::Bytes(Arc::new(bytes)))
    }

    /// Incompressible bytes; the one at offset `o` depends on `seed` and `o` only.
    pub fn synthetic(size: u64, seed: u64) -> Self {
        Self::new(size, Source::Synthetic { seed })
    }

    pub fn zeros(size: u64) -> Self {
        Self::new(size, Source::Zeros)
    }

    /// Bytes that `reader` makes whenever they are read.
    pub(crate) fn made(size: u64, reader: impl ReadAt + 'static) -> Self {
        Self::new(size, Source::Made(Arc::new(reader)))
    }

    /// Reads from disk on every request, so the file must stay as it is.
    pub fn file(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        Ok(Self::new(file.metadata()?.len(), Source::File(Arc::new(file))))
    }

    /// The same contents, of which the fakes say that they have this SHA-256.
    ///
    /// For wrong digests, and for sizes nobody wants to hash.
    ///
    /// # Panics
    /// When `digest` is not 64 hex digits.
    #[must_use]
    pub fn announcing_sha256(self, digest: &str) -> Self {
        let bytes = unhex(digest).filter(|bytes| bytes.len() == 32);
        let blob = Self::new(self.len(), self.0.source.clone());
        let bytes = bytes.expect("a SHA-256 is 64 hex digits");
        blob.0.digests[Checksum::Sha256 as usize].get_or_init(|| bytes);
        blob
    }

    /// The same of a CRC64NVME.
    #[must_use]
    pub fn announcing_crc64nvme(self, crc: u64) -> Self {
        let blob = Self::new(self.len(), self.0.source.clone());
        let bytes = crc.to_be_bytes().to_vec();
        blob.0.digests[Checksum::Crc64Nvme as usize].get_or_init(|| bytes);
        blob
    }

    pub fn len(&self) -> u64 {
        self.0.size
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buffer` from `offset` on and says how many bytes there were before the end.
    ///
    /// # Panics
    /// When a blob made of a file can no longer be read.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> usize {
        let count = (buffer.len() as u64).min(self.len().saturating_sub(offset)) as usize;
        let buffer = &mut buffer[..count];
        match &self.0.source {
            Source::Bytes(bytes) => {
                let from = offset.min(self.len()) as usize;
                buffer.copy_from_slice(&bytes[from..from + count]);
            }
            Source::File(file) => {
                file.read_exact_at(buffer, offset).expect("a served file must stay as it is");
            }
            Source::Synthetic { seed } => fill(*seed, offset, buffer),
            Source::Zeros => buffer.fill(0),
            Source::Made(reader) => reader.read_at(offset, buffer),
        }
        count
    }

    /// All of it; meant for small blobs.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len() as usize];
        self.read_at(0, &mut bytes);
        bytes
    }

    /// SHA-256 of the contents (or what [`Blob::announcing_sha256`] says) in hex.
    pub fn sha256(&self) -> String {
        hex(&self.checksum(Checksum::Sha256))
    }

    /// What `git hash-object` prints for these contents.
    pub fn git_sha1(&self) -> String {
        let digest = self.0.git_sha1.get_or_init(|| {
            let mut sha1 = Sha1::new_with_prefix(format!("blob {}\0", self.len()));
            self.pump(0..self.len(), |bytes| sha1.update(bytes));
            hex(&sha1.finalize())
        });
        digest.clone()
    }

    /// The MD5 of the contents in hex: what S3 has as the ETag of a simple upload.
    pub fn md5(&self) -> String {
        let mut md5 = md5::Md5::new();
        self.pump(0..self.len(), |bytes| md5.update(bytes));
        hex(&md5.finalize())
    }

    pub fn crc64nvme(&self) -> u64 {
        big_endian(&self.checksum(Checksum::Crc64Nvme))
    }

    pub fn crc32c(&self) -> u32 {
        big_endian(&self.checksum(Checksum::Crc32c)) as u32
    }

    pub fn crc32(&self) -> u32 {
        big_endian(&self.checksum(Checksum::Crc32)) as u32
    }

    /// Checksum of the whole, as S3 would put it into base64. Computed once.
    pub fn checksum(&self, kind: Checksum) -> Vec<u8> {
        self.0.digests[kind as usize].get_or_init(|| self.checksum_of(kind, 0..self.len())).clone()
    }

    /// Checksum of a part.
    pub fn checksum_of(&self, kind: Checksum, part: Range<u64>) -> Vec<u8> {
        match kind {
            Checksum::Sha256 => {
                let mut sha256 = Sha256::new();
                self.pump(part, |bytes| sha256.update(bytes));
                sha256.finalize().to_vec()
            }
            Checksum::Sha1 => {
                let mut sha1 = Sha1::new();
                self.pump(part, |bytes| sha1.update(bytes));
                sha1.finalize().to_vec()
            }
            Checksum::Crc64Nvme => self.crc(CrcAlgorithm::Crc64Nvme, part).to_be_bytes().to_vec(),
            Checksum::Crc32c => {
                self.crc(CrcAlgorithm::Crc32Iscsi, part).to_be_bytes()[4..].to_vec()
            }
            Checksum::Crc32 => {
                self.crc(CrcAlgorithm::Crc32IsoHdlc, part).to_be_bytes()[4..].to_vec()
            }
        }
    }

    fn new(size: u64, source: Source) -> Self {
        Self(Arc::new(Inner {
            size,
            source,
            digests: Default::default(),
            git_sha1: OnceLock::new(),
        }))
    }

    fn crc(&self, algorithm: CrcAlgorithm, part: Range<u64>) -> u64 {
        let mut crc = Crc::new(algorithm);
        self.pump(part, |bytes| crc.update(bytes));
        crc.finalize()
    }

    fn pump(&self, part: Range<u64>, mut sink: impl FnMut(&[u8])) {
        let mut buffer = vec![0; BLOCK.min((part.end - part.start) as usize)];
        let mut offset = part.start;
        while offset < part.end {
            let wanted = buffer.len().min((part.end - offset) as usize);
            let count = self.read_at(offset, &mut buffer[..wanted]);
            if count == 0 {
                break;
            }
            sink(&buffer[..count]);
            offset += count as u64;
        }
    }
}

impl std::fmt::Debug for Blob {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.0.source {
            Source::Bytes(_) => "bytes",
            Source::File(_) => "file",
            Source::Synthetic { .. } => "synthetic",
            Source::Zeros => "zeros",
            Source::Made(_) => "made",
        };
        write!(formatter, "Blob({kind}, {} bytes)", self.len())
    }
}

struct Inner {
    size: u64,
    source: Source,
    /// Indexed by [`Checksum`].
    digests: [OnceLock<Vec<u8>>; 5],
    git_sha1: OnceLock<String>,
}

#[derive(Clone)]
enum Source {
    Bytes(Arc<Vec<u8>>),
    File(Arc<File>),
    Synthetic { seed: u64 },
    Zeros,
    Made(Arc<dyn ReadAt>),
}

/// Writes the bytes from `offset` on, eight at a time once the position is even.
fn fill(seed: u64, offset: u64, buffer: &mut [u8]) {
    let key = mix(seed ^ 0x5851_f42d_4c95_7f2d);
    let skip = (offset % 8) as usize;
    let mut index = offset / 8;
    let mut rest = buffer;
    if skip != 0 {
        let count = rest.len().min(8 - skip);
        let (head, tail) = rest.split_at_mut(count);
        head.copy_from_slice(&word(key, index)[skip..skip + count]);
        index += 1;
        rest = tail;
    }
    let mut words = rest.chunks_exact_mut(8);
    for bytes in &mut words {
        bytes.copy_from_slice(&word(key, index));
        index += 1;
    }
    let tail = words.into_remainder();
    tail.copy_from_slice(&word(key, index)[..tail.len()]);
}

fn word(key: u64, index: u64) -> [u8; 8] {
    mix(key.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15))).to_le_bytes()
}

/// The output function of SplitMix64.
fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

fn big_endian(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

const BLOCK: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_match_those_other_programs_print() {
        let blob = Blob::bytes("123456789");
        assert_eq!(
            blob.sha256(),
            "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225"
        );
        assert_eq!(hex(&blob.checksum(Checksum::Sha1)), "f7c3bc1d808e04732adf679965ccc34ca7ae3441");
        assert_eq!(blob.crc32(), 0xcbf4_3926);
        assert_eq!(blob.crc32c(), 0xe306_9283);
        assert_eq!(blob.crc64nvme(), 0xae8b_1486_0a79_9888);
        assert_eq!(Blob::bytes("hello\n").git_sha1(), "ce013625030ba8dba906f756967f9e9ca394464a");
        assert_eq!(Blob::zeros(0).git_sha1(), "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
    }

    #[test]
    fn a_synthetic_blob_reads_the_same_at_any_offset_and_in_any_length() {
        let blob = Blob::synthetic(1_000, 42);
        let whole = blob.to_vec();
        for offset in [0, 1, 7, 8, 9, 500, 990, 999, 1_000, 1_001] {
            for length in [0, 1, 6, 7, 8, 9, 17, 64] {
                let mut part = vec![0; length];
                let count = blob.read_at(offset, &mut part);
                let from = (offset as usize).min(1_000);
                assert_eq!(part[..count], whole[from..(from + length).min(1_000)]);
            }
        }
        assert_ne!(whole, Blob::synthetic(1_000, 43).to_vec());
        assert_eq!(blob.sha256(), Blob::bytes(whole).sha256());
    }

    #[test]
    fn a_terabyte_can_be_read_at_its_end_without_making_the_rest() {
        let mut tail = [0; 16];
        assert_eq!(Blob::synthetic(1 << 40, 1).read_at((1 << 40) - 10, &mut tail), 10);
    }

    #[test]
    fn an_announced_digest_replaces_the_real_one() {
        let lie = "ab".repeat(32);
        assert_eq!(Blob::synthetic(1 << 40, 1).announcing_sha256(&lie).sha256(), lie);
    }
}
