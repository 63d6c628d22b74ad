//! The LZ4 frame of one chunk, unpacked into a buffer of the size that it has to have.
//!
//! `lz4_flex` unpacks the blocks. Its `FrameDecoder` makes two buffers for each frame, of up to 8 MiB as the
//! frame's own head says; a chunk has 128 KiB at most, and there is one every few dozen microseconds.
//! Checksums of a frame are not looked at: the SHA-256 of the file is what counts.

use lz4_flex::block::{decompress_into, decompress_into_with_dict};

const MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];
/// Blocks do not refer to what is before them.
const INDEPENDENT: u8 = 1 << 5;
const BLOCK_CHECKSUMS: u8 = 1 << 4;
const CONTENT_SIZE: u8 = 1 << 3;
const CONTENT_CHECKSUM: u8 = 1 << 2;
const DICTIONARY: u8 = 1;
/// In the size of a block: it is not packed.
const PLAIN: u32 = 1 << 31;

/// Fills `out` with what `frame` holds; what is wrong otherwise.
pub fn unpack(frame: &[u8], out: &mut [u8]) -> Result<(), &'static str> {
    let mut left = frame;
    let mut take = |len: usize| {
        let (taken, rest) = left.split_at_checked(len).ok_or("the LZ4 frame ends too early")?;
        left = rest;
        Ok::<_, &'static str>(taken)
    };
    if take(4)? != MAGIC {
        return Err("it is not an LZ4 frame");
    }
    let flags = take(2)?[0];
    if flags >> 6 != 1 {
        return Err("the LZ4 frame has another version");
    }
    if flags & DICTIONARY != 0 {
        return Err("the LZ4 frame needs a dictionary");
    }
    if flags & CONTENT_SIZE != 0 {
        take(8)?;
    }
    // The checksum of the head.
    take(1)?;
    let mut filled = 0;
    loop {
        let size = take(4)?;
        let size = u32::from_le_bytes([size[0], size[1], size[2], size[3]]);
        if size == 0 {
            break;
        }
        let block = take((size & !PLAIN) as usize)?;
        let (before, rest) = out.split_at_mut(filled);
        filled += if size & PLAIN != 0 {
            let to = rest.get_mut(..block.len()).ok_or("the LZ4 frame is longer than it says")?;
            to.copy_from_slice(block);
            block.len()
        } else if flags & INDEPENDENT != 0 || before.is_empty() {
            decompress_into(block, rest).map_err(|_| "an LZ4 block is damaged")?
        } else {
            decompress_into_with_dict(block, rest, before).map_err(|_| "an LZ4 block is damaged")?
        };
        if flags & BLOCK_CHECKSUMS != 0 {
            take(4)?;
        }
    }
    if flags & CONTENT_CHECKSUM != 0 {
        take(4)?;
    }
    match (filled == out.len(), left.is_empty()) {
        (true, true) => Ok(()),
        (false, _) => Err("the LZ4 frame is shorter than it says"),
        (_, false) => Err("something follows the LZ4 frame"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};

    use super::*;

    fn packed(content: &[u8], info: FrameInfo) -> Vec<u8> {
        let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
        encoder.write_all(content).expect("to memory");
        encoder.finish().expect("to memory")
    }

    /// Text that packs well, and bytes that do not.
    fn contents() -> Vec<Vec<u8>> {
        let text = |len: usize| b"weights and biases, ".iter().copied().cycle().take(len).collect();
        let mut random = fastrand::Rng::with_seed(7);
        let mut noise = |len: usize| std::iter::repeat_with(|| random.u8(..)).take(len).collect();
        let mut mixed: Vec<u8> = text(70_000);
        mixed.extend::<Vec<u8>>(noise(61_072));
        vec![text(1), text(20), text(65_536), text(131_072), noise(13), noise(131_072), mixed]
    }

    #[test]
    fn every_form_of_a_frame_is_unpacked() {
        for content in contents() {
            for size in [BlockSize::Auto, BlockSize::Max64KB, BlockSize::Max4MB] {
                for mode in [BlockMode::Independent, BlockMode::Linked] {
                    for sums in 0..8 {
                        let info = FrameInfo::new()
                            .block_size(size)
                            .block_mode(mode)
                            .block_checksums(sums & 1 != 0)
                            .content_checksum(sums & 2 != 0)
                            .content_size((sums & 4 != 0).then_some(content.len() as u64));
                        let frame = packed(&content, info);
                        let mut out = vec![0; content.len()];
                        assert_eq!(unpack(&frame, &mut out), Ok(()), "{size:?} {mode:?} {sums}");
                        assert!(out == content, "{size:?} {mode:?} {sums}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_frame_of_another_length_and_a_cut_one_are_refused() {
        for content in contents() {
            let frame = packed(&content, FrameInfo::new());
            for len in [content.len() - 1, content.len() + 1] {
                assert!(unpack(&frame, &mut vec![0; len]).is_err(), "{len}");
            }
            for len in 0..frame.len().min(200) {
                assert!(unpack(&frame[..len], &mut vec![0; content.len()]).is_err(), "{len}");
            }
            let longer = [&frame[..], &[0]].concat();
            assert!(unpack(&longer, &mut vec![0; content.len()]).is_err());
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        for content in contents() {
            let frame = packed(&content, FrameInfo::new().block_mode(BlockMode::Linked));
            for _ in 0..200 {
                let mut bad = frame.clone();
                let at = random.usize(..bad.len().min(64));
                bad[at] = random.u8(..);
                let mut out = vec![0; content.len()];
                // Right by chance, or refused: it must not write elsewhere, nor end the process.
                let done = std::panic::catch_unwind(move || unpack(&bad, &mut out).is_ok());
                assert!(done.is_ok(), "seed {seed}");
            }
        }
    }
}
