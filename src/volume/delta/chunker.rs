//! Where the chunks of a file end, by its content: the same bytes after a boundary have the same boundaries,
//! wherever they lie.

use std::io;

/// A chunk ends behind a byte where these bits of the hash are zero,
const MASK: u64 = 0xFFFF_0000_0000_0000;
/// if it has as many bytes as this,
const MIN_CHUNK: usize = 8 << 10;
/// and at the latest here.
const MAX_CHUNK: usize = 128 << 10;
/// A byte has left the hash after 64 others.
const WINDOW: usize = 64;
/// Bytes that are read at once.
const PIECE: usize = 1 << 20;

/// Reads what follows: all of the buffer.
pub type Read<'a> = dyn FnMut(&mut [u8]) -> io::Result<()> + 'a;

/// The lengths of the chunks in `len` bytes, which begin at a boundary and end at one. None if there are not
/// `count` of them: then these are not the bytes that they are said to be.
pub fn chunk_lengths(len: u64, count: usize, read: &mut Read<'_>) -> io::Result<Option<Vec<u32>>> {
    let most = len.div_ceil(MIN_CHUNK as u64).max(1);
    if count as u64 > most {
        return Ok(None);
    }
    let mut chunker = Chunker { hash: gearhash::Hasher::default(), chunk: 0, lengths: Vec::new() };
    let mut buffer = vec![0; PIECE.min(len as usize)];
    let mut left = len;
    while left > 0 && chunker.lengths.len() < count {
        let piece = PIECE.min(left as usize);
        read(&mut buffer[..piece])?;
        chunker.take(&buffer[..piece]);
        left -= piece as u64;
    }
    chunker.end();
    let is_all = left == 0 && chunker.lengths.len() == count;
    Ok(is_all.then_some(chunker.lengths))
}

struct Chunker {
    hash: gearhash::Hasher<'static>,
    /// Bytes of the chunk so far.
    chunk: usize,
    lengths: Vec<u32>,
}

impl Chunker {
    fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            // What leaves the hash before a boundary is possible need not be hashed.
            let skipped = (MIN_CHUNK - WINDOW - 1).saturating_sub(self.chunk).min(bytes.len());
            self.chunk += skipped;
            bytes = &bytes[skipped..];
            let short = (MIN_CHUNK - 1).saturating_sub(self.chunk).min(bytes.len());
            self.hash.update(&bytes[..short]);
            self.chunk += short;
            bytes = &bytes[short..];
            if bytes.is_empty() {
                return;
            }
            let room = (MAX_CHUNK - self.chunk).min(bytes.len());
            let matched = self.hash.next_match(&bytes[..room], MASK);
            let taken = matched.unwrap_or(room);
            self.chunk += taken;
            bytes = &bytes[taken..];
            if matched.is_some() || self.chunk == MAX_CHUNK {
                self.end();
            }
        }
    }

    fn end(&mut self) {
        if self.chunk > 0 {
            self.lengths.push(self.chunk as u32);
        }
        self.chunk = 0;
        self.hash.set_hash(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Byte by byte, as the protocol says it.
    fn naive(bytes: &[u8]) -> Vec<u32> {
        let (mut lengths, mut hash, mut chunk) = (Vec::new(), 0_u64, 0_usize);
        for byte in bytes {
            hash = (hash << 1).wrapping_add(gearhash::DEFAULT_TABLE[*byte as usize]);
            chunk += 1;
            if (chunk >= MIN_CHUNK && hash & MASK == 0) || chunk == MAX_CHUNK {
                lengths.push(chunk as u32);
                (hash, chunk) = (0, 0);
            }
        }
        lengths.extend((chunk > 0).then_some(chunk as u32));
        lengths
    }

    fn lengths(bytes: &[u8], count: usize) -> Option<Vec<u32>> {
        let mut rest = bytes;
        let read = &mut |buffer: &mut [u8]| io::Read::read_exact(&mut rest, buffer);
        chunk_lengths(bytes.len() as u64, count, read).expect("read from memory")
    }

    fn noise(seed: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        fastrand::Rng::with_seed(seed).fill(&mut bytes);
        bytes
    }

    #[test]
    fn boundaries_are_those_of_a_loop_over_each_byte() {
        let mut all = Vec::new();
        // Noise; what never matches; the two in turns; and what is as long as a piece or a chunk.
        let mut mixed = noise(1, 900_000);
        mixed.extend(vec![0; 500_001]);
        mixed.extend(noise(2, 1_300_007));
        let exact = [0, 1, MIN_CHUNK - 1, MIN_CHUNK, MAX_CHUNK, MAX_CHUNK + 1, PIECE];
        let cases = exact.map(|len| vec![0; len]).into_iter().chain([noise(3, 6 << 20), mixed]);
        for bytes in cases {
            let expected = naive(&bytes);
            assert_eq!(lengths(&bytes, expected.len()), Some(expected.clone()), "{}", bytes.len());
            all.extend(expected);
        }
        assert!(all.iter().any(|len| *len as usize == MAX_CHUNK) && all.len() > 100);
        assert!(all.iter().all(|len| *len as usize <= MAX_CHUNK));
    }

    #[test]
    fn the_same_bytes_after_a_boundary_have_the_same_boundaries() {
        let bytes = noise(4, 3 << 20);
        let whole = naive(&bytes);
        let first: usize = whole[..5].iter().map(|len| *len as usize).sum();
        assert_eq!(lengths(&bytes[first..], whole.len() - 5).as_deref(), Some(&whole[5..]));
    }

    #[test]
    fn a_boundary_at_the_first_byte_where_one_may_be_is_seen() {
        let mut random = fastrand::Rng::with_seed(6);
        let mut ends = 0;
        while ends < 8 {
            let mut window = [0; WINDOW];
            random.fill(&mut window);
            let mut hash = gearhash::Hasher::default();
            hash.update(&window);
            if !hash.is_match(MASK) {
                continue;
            }
            ends += 1;
            // One byte earlier a chunk is too short to end.
            for (before, is_end) in [(MIN_CHUNK - WINDOW, true), (MIN_CHUNK - WINDOW - 1, false)] {
                let mut bytes = noise(7, before);
                bytes.extend(window);
                bytes.extend(noise(8, 500));
                let expected = naive(&bytes);
                assert_eq!(expected[0] as usize == before + WINDOW, is_end);
                assert_eq!(lengths(&bytes, expected.len()), Some(expected));
            }
        }
    }

    #[test]
    fn another_number_of_chunks_than_expected_is_no_answer() {
        let bytes = noise(5, 1 << 20);
        let count = naive(&bytes).len();
        assert!(lengths(&bytes, count).is_some());
        for other in [0, count - 1, count + 1, 1_000_000] {
            assert_eq!(lengths(&bytes, other), None, "{other}");
        }
    }
}
