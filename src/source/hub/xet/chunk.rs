//! Chunks as they lie in a xorb: eight bytes of head, then the data, one behind the other.

use bytes::{Bytes, BytesMut};

use super::lz4;

pub const HEAD_BYTES: usize = 8;
/// The most that a chunk has, unpacked.
pub const MAX_CHUNK_BYTES: u32 = 128 << 10;
/// The most that the data of one may have: what does not get smaller is stored as it is.
const MAX_PACKED_BYTES: u32 = 2 * MAX_CHUNK_BYTES;
/// What the list of chunks at the end of a stored xorb begins with; no range leads there.
const FOOTER: &[u8] = b"XETBLOB";

/// How the data of a chunk is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    Plain,
    Lz4,
    /// First all first bytes of every four, then all second ones, and so on; then LZ4.
    Grouped,
}

/// What stands before the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    scheme: Scheme,
    /// Bytes of the data.
    pub packed: u32,
    /// Bytes of the chunk.
    pub len: u32,
}

impl Head {
    pub fn read(head: [u8; HEAD_BYTES]) -> Result<Self, &'static str> {
        if head.starts_with(FOOTER) {
            return Err("the xorb ends before the range does");
        }
        let [version, p0, p1, p2, scheme, l0, l1, l2] = head;
        if version != 0 {
            return Err("a chunk has an unknown version");
        }
        let scheme = match scheme {
            0 => Scheme::Plain,
            1 => Scheme::Lz4,
            2 => Scheme::Grouped,
            _ => return Err("a chunk is packed in an unknown way"),
        };
        let packed = u32::from_le_bytes([p0, p1, p2, 0]);
        let len = u32::from_le_bytes([l0, l1, l2, 0]);
        if len == 0 || len > MAX_CHUNK_BYTES || packed > MAX_PACKED_BYTES {
            return Err("a chunk has an impossible length");
        }
        if scheme == Scheme::Plain && packed != len {
            return Err("a chunk that is not packed has two lengths");
        }
        Ok(Self { scheme, packed, len })
    }
}

/// The memory that unpacking takes, used again for each chunk.
#[derive(Default)]
pub struct Unpacker {
    out: BytesMut,
    grouped: Vec<u8>,
}

impl Unpacker {
    /// The chunk whose head is `head`, of its `data`.
    pub fn unpack(&mut self, head: Head, data: Bytes) -> Result<Bytes, &'static str> {
        let len = head.len as usize;
        match head.scheme {
            Scheme::Plain => return Ok(data),
            Scheme::Lz4 => {
                // The same memory again, once whoever had the chunk before has let go of it.
                self.out.resize(len, 0);
                lz4::unpack(&data, &mut self.out)?;
            }
            Scheme::Grouped => {
                self.grouped.resize(len, 0);
                lz4::unpack(&data, &mut self.grouped)?;
                self.out.resize(len, 0);
                ungroup(&self.grouped, &mut self.out);
            }
        }
        Ok(self.out.split().freeze())
    }
}

/// Puts the four groups of `from` together: byte 4k + i is byte k of group i.
fn ungroup(from: &[u8], out: &mut [u8]) {
    let (whole, rest) = (from.len() / 4, from.len() % 4);
    let (first, from) = from.split_at(whole + usize::from(rest > 0));
    let (second, from) = from.split_at(whole + usize::from(rest > 1));
    let (third, fourth) = from.split_at(whole + usize::from(rest > 2));
    let (fours, last) = out.as_chunks_mut::<4>();
    for ((((out, a), b), c), d) in fours.iter_mut().zip(first).zip(second).zip(third).zip(fourth) {
        *out = [*a, *b, *c, *d];
    }
    for (out, group) in last.iter_mut().zip([first, second, third]) {
        *out = group[whole];
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use lz4_flex::frame::FrameEncoder;

    use super::*;

    fn head(version: u8, packed: u32, scheme: u8, len: u32) -> [u8; HEAD_BYTES] {
        let (p, l) = (packed.to_le_bytes(), len.to_le_bytes());
        [version, p[0], p[1], p[2], scheme, l[0], l[1], l[2]]
    }

    #[test]
    fn a_head_is_read_and_one_that_cannot_be_is_refused() {
        let read = |version, packed, scheme, len| Head::read(head(version, packed, scheme, len));
        let good = read(0, 77, 2, 131_072).expect("is good");
        assert_eq!(good, Head { scheme: Scheme::Grouped, packed: 77, len: 131_072 });
        assert!(read(0, 9, 0, 9).is_ok() && read(0, 262_144, 1, 1).is_ok());
        for (name, bad) in [
            ("version", read(1, 9, 0, 9)),
            ("scheme", read(0, 9, 3, 9)),
            ("an empty chunk", read(0, 0, 1, 0)),
            ("a long chunk", read(0, 9, 1, 131_073)),
            ("long data", read(0, 262_145, 1, 9)),
            ("16 MiB", read(0, 0xff_ffff, 2, 0xff_ffff)),
            ("two lengths", read(0, 8, 0, 9)),
            ("a footer", Head::read(*b"XETBLOB\x01")),
        ] {
            assert!(bad.is_err(), "{name}");
        }
    }

    #[test]
    fn grouped_bytes_are_put_in_their_order_whatever_the_length() {
        for len in (1..40).chain([65_535, 131_072]) {
            let content: Vec<u8> = (0..len as u32).map(|n| (n * 7 % 251) as u8).collect();
            let grouped: Vec<u8> =
                (0..4).flat_map(|i| content.iter().skip(i).step_by(4).copied()).collect();
            let mut encoder = FrameEncoder::new(Vec::new());
            encoder.write_all(&grouped).expect("to memory");
            let data = encoder.finish().expect("to memory");
            let head = Head::read(head(0, data.len() as u32, 2, len as u32)).expect("is good");
            let mut unpacker = Unpacker::default();
            // Twice, with the memory of the first time.
            for _ in 0..2 {
                let out = unpacker.unpack(head, data.clone().into()).expect("is whole");
                assert!(out == content, "{len}");
            }
        }
    }
}
