//! Reading back what another process wrote, against the checksums that its journal holds.

use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::StoreError;
use super::journal::WrittenChunk;
use super::staging::StagedFile;
use crate::fs::Dir;

const BUFFER_BYTES: usize = 256 << 10;

/// What reading back needs from the outside.
pub struct Surroundings<'a> {
    /// Tells the user what is waited for.
    pub say: &'a dyn Fn(String),
    /// Whether to go on; asked often.
    pub go_on: &'a dyn Fn() -> bool,
    /// Told how many bytes are going to be read back.
    pub reads: &'a dyn Fn(u64),
    /// Told about every byte that was read back.
    pub worked: &'a dyn Fn(u64),
    /// Told about bytes of new files that were made of what is here.
    pub copied: &'a dyn Fn(u64),
}

/// Those of `chunks` whose bytes are still what the journal says.
pub(super) fn intact_chunks(
    from: &Dir,
    name: &str,
    chunks: &[WrittenChunk],
    outside: &Surroundings<'_>,
) -> Result<Vec<WrittenChunk>, StoreError> {
    let mut intact = Vec::new();
    (outside.reads)(bytes_of(chunks));
    for chunk in chunks {
        if crc_of(from, name, &chunk.range, outside)? == Some(chunk.crc64) {
            intact.push(chunk.clone());
        }
    }
    Ok(intact)
}

pub(super) fn bytes_of(chunks: &[WrittenChunk]) -> u64 {
    chunks.iter().map(|chunk| chunk.range.end - chunk.range.start).sum()
}

/// The CRC64NVME of a range, or `None` if it cannot be read to its end.
pub(super) fn crc_of(
    from: &Dir,
    name: &str,
    range: &Range<u64>,
    outside: &Surroundings<'_>,
) -> Result<Option<u64>, StoreError> {
    read_back(from, name, range, outside, |_, _| Ok(()))
}

/// Copies a range into `target` and returns its CRC64NVME, or `None` if it cannot be read.
pub(super) fn copy_range(
    from: &Dir,
    name: &str,
    range: &Range<u64>,
    target: &StagedFile,
    outside: &Surroundings<'_>,
) -> Result<Option<u64>, StoreError> {
    read_back(from, name, range, outside, |bytes, at| target.write_at(bytes, at))
}

fn read_back(
    from: &Dir,
    name: &str,
    range: &Range<u64>,
    outside: &Surroundings<'_>,
    mut each: impl FnMut(&[u8], u64) -> Result<(), StoreError>,
) -> Result<Option<u64>, StoreError> {
    let Some(file) = from.read_file(name)? else { return Ok(None) };
    let mut crc = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc64Nvme);
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut at = range.start;
    while at < range.end {
        let len = buffer.len().min((range.end - at) as usize);
        // A file that shrinks under us is simply not what the journal says.
        if !(outside.go_on)() || file.read_exact_at(&mut buffer[..len], at).is_err() {
            return Ok(None);
        }
        crc.update(&buffer[..len]);
        each(&buffer[..len], at)?;
        at += len as u64;
        (outside.worked)(len as u64);
    }
    Ok(Some(crc.finalize()))
}
