//! Chunks: where a file is cut, and how a xorb spells what was cut.
//!
//! Knows nothing of xorbs as a whole, nor of who asks.

use std::io::Write;

use lz4_flex::frame::{BlockSize, FrameEncoder, FrameInfo};

use crate::blob::Blob;

/// How the data of a chunk is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Plain = 0,
    Lz4 = 1,
    /// LZ4 of the bytes grouped by their position modulo four.
    GroupedLz4 = 2,
}

impl Scheme {
    pub fn numbered(number: u8) -> Option<Self> {
        [Self::Plain, Self::Lz4, Self::GroupedLz4].into_iter().find(|it| *it as u8 == number)
    }
}

/// Cuts a blob by its content; `sink` gets each chunk with its offset.
pub(crate) fn for_each_chunk(blob: &Blob, mut sink: impl FnMut(u64, &[u8])) {
    let mut window = vec![0; WINDOW_BYTES.min(blob.len() as usize)];
    let mut offset = 0;
    while offset < blob.len() {
        let count = blob.read_at(offset, &mut window);
        let at_end = offset + count as u64 == blob.len();
        let mut rest = &window[..count];
        while rest.len() >= LONGEST_CHUNK_BYTES || (at_end && !rest.is_empty()) {
            let (chunk, behind) = rest.split_at(first_boundary(rest));
            sink(offset, chunk);
            offset += chunk.len() as u64;
            rest = behind;
        }
    }
}

/// The scheme that needs the fewest bytes, the simplest of several.
pub(crate) fn smallest(chunk: &[u8]) -> (Scheme, Vec<u8>) {
    let schemes = [Scheme::Plain, Scheme::Lz4, Scheme::GroupedLz4];
    let [plain, others @ ..] = schemes.map(|scheme| (scheme, serialised(scheme, chunk)));
    others.into_iter().fold(plain, |best, it| if it.1.len() < best.1.len() { it } else { best })
}

/// Header and data.
pub(crate) fn serialised(scheme: Scheme, chunk: &[u8]) -> Vec<u8> {
    let data = match scheme {
        Scheme::Plain => chunk.to_vec(),
        Scheme::Lz4 => lz4_frame(chunk, BlockSize::Auto),
        Scheme::GroupedLz4 => lz4_frame(&grouped(chunk), BlockSize::Auto),
    };
    let mut bytes = vec![VERSION];
    bytes.extend(three_bytes(data.len()));
    bytes.push(scheme as u8);
    bytes.extend(three_bytes(chunk.len()));
    bytes.extend(data);
    bytes
}

pub(crate) fn lz4_frame(data: &[u8], block_size: BlockSize) -> Vec<u8> {
    let info = FrameInfo::new().block_size(block_size);
    let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(data).expect("memory takes every byte");
    encoder.finish().expect("memory takes every byte")
}

pub(crate) fn three_bytes(length: usize) -> [u8; 3] {
    let [low, middle, high, ..] = length.to_le_bytes();
    [low, middle, high]
}

/// Bytes 0, 4, 8, … first, then 1, 5, 9, … and so on.
fn grouped(chunk: &[u8]) -> Vec<u8> {
    (0..4).flat_map(|group| chunk.iter().skip(group).step_by(4)).copied().collect()
}

/// Length of the first chunk of `bytes`, which reach to the end of the file or far enough.
fn first_boundary(bytes: &[u8]) -> usize {
    let longest = bytes.len().min(LONGEST_CHUNK_BYTES);
    let mut hash: u64 = 0;
    // No more than the last 64 bytes count.
    for (index, byte) in bytes[..longest].iter().enumerate().skip(SHORTEST_CHUNK_BYTES - 64) {
        hash = (hash << 1).wrapping_add(gearhash::DEFAULT_TABLE[usize::from(*byte)]);
        if index + 1 >= SHORTEST_CHUNK_BYTES && hash & BOUNDARY_MASK == 0 {
            return index + 1;
        }
    }
    longest
}

pub(crate) const HEADER_BYTES: usize = 8;
const VERSION: u8 = 0;
const SHORTEST_CHUNK_BYTES: usize = 8 << 10;
const LONGEST_CHUNK_BYTES: usize = 128 << 10;
const WINDOW_BYTES: usize = 2 << 20;
const BOUNDARY_MASK: u64 = 0xffff_0000_0000_0000;

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(blob: &Blob) -> Vec<usize> {
        let mut lengths = Vec::new();
        for_each_chunk(blob, |offset, chunk| {
            assert_eq!(offset, lengths.iter().sum::<usize>() as u64);
            lengths.push(chunk.len());
        });
        lengths
    }

    /// The rule as it is written down, byte by byte over the whole file.
    fn lengths_by_the_book(bytes: &[u8]) -> Vec<usize> {
        let (mut lengths, mut length, mut hash) = (Vec::new(), 0, 0_u64);
        for byte in bytes {
            hash = (hash << 1).wrapping_add(gearhash::DEFAULT_TABLE[usize::from(*byte)]);
            length += 1;
            if (length >= 8192 && hash & 0xffff_0000_0000_0000 == 0) || length == 131_072 {
                lengths.push(std::mem::take(&mut length));
                hash = 0;
            }
        }
        lengths.extend((length > 0).then_some(length));
        lengths
    }

    #[test]
    fn a_file_is_cut_as_the_rule_says_also_across_windows() {
        let blob = Blob::synthetic(9_000_001, 3);
        let found = lengths(&blob);
        assert_eq!(found, lengths_by_the_book(&blob.to_vec()));
        assert!(found.len() > 70, "{}", found.len());
        assert_eq!(lengths(&Blob::zeros(300_000)), [131_072, 131_072, 37_856]);
        assert_eq!(lengths(&Blob::bytes("short")), [5]);
        assert!(lengths(&Blob::zeros(0)).is_empty());
    }

    #[test]
    fn bytes_are_grouped_by_their_position_modulo_four() {
        assert_eq!(grouped(b"0123456789"), b"0481592637");
    }

    #[test]
    fn each_kind_of_data_has_a_scheme_that_is_smallest() {
        let floats: Vec<u8> = Blob::synthetic(20_000, 1).to_vec();
        let floats: Vec<u8> =
            floats.chunks_exact(3).flat_map(|it| [it[0], it[1], it[2], 63]).collect();
        assert_eq!(smallest(&Blob::synthetic(20_000, 1).to_vec()).0, Scheme::Plain);
        assert_eq!(smallest(&b"abcdefghijk".repeat(2_000)).0, Scheme::Lz4);
        assert_eq!(smallest(&floats).0, Scheme::GroupedLz4);
    }
}
