//! A reader of tar archives: ustar, the extensions of pax and GNU that name long paths and large sizes.
//! Everything that is held in memory has a bound.

use std::io::{self, ErrorKind, Read};

use super::archive_problem::ArchiveProblem;

const BLOCK: usize = 512;
/// A header of pax, or a long name of GNU. No path of a model is that long.
const MAX_HEADER_BYTES: u64 = 64 << 10;
const MAX_ENTRIES: usize = 200_000;
/// What is read in one go.
const PIECE_BYTES: usize = 256 << 10;

/// What an entry is, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    File,
    Directory,
    HardLink,
    SymbolicLink,
    /// A device, a pipe, or what nobody knows.
    Other,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    pub path: Vec<u8>,
    pub kind: Kind,
    pub size: u64,
    pub target: Vec<u8>,
}

/// What to do with the content of entries.
pub trait Visit {
    /// Whether the content is wanted.
    fn begin(&mut self, entry: Entry) -> Result<bool, ArchiveProblem>;
    fn piece(&mut self, piece: &[u8]) -> Result<(), ArchiveProblem>;
    fn end(&mut self) -> Result<(), ArchiveProblem>;
}

/// Shows `visit` each entry of the archive. What follows its end is not looked at.
pub fn read(mut from: impl Read, visit: &mut impl Visit) -> Result<(), ArchiveProblem> {
    let mut named = Named::default();
    let mut buffer = vec![0; PIECE_BYTES];
    let mut entries = 0;
    while let Some(header) = block(&mut from)? {
        // A block of zeros ends the archive; another one should follow.
        if header.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        entries += 1;
        if entries > MAX_ENTRIES {
            return Err(ArchiveProblem::Entries { most: MAX_ENTRIES });
        }
        check(&header)?;
        let size = number(&header[124..136])?;
        let flag = header[156];
        match flag {
            b'L' | b'K' | b'x' | b'g' => {
                let text = held(&mut from, size)?;
                match flag {
                    b'L' => named.path = Some(until_zero(&text)),
                    b'K' => named.target = Some(until_zero(&text)),
                    b'x' => named.pax(&text)?,
                    // Of the whole archive: no path and no size.
                    _ => {}
                }
                continue;
            }
            b'S' => return Err(ArchiveProblem::Sparse),
            _ => {}
        }
        let named = std::mem::take(&mut named);
        let path = named.path.unwrap_or_else(|| path_of(&header));
        let kind = match flag {
            // Before ustar a directory was a file whose name ends so.
            b'0' | 0 | b'7' if path.ends_with(b"/") => Kind::Directory,
            b'0' | 0 | b'7' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::SymbolicLink,
            b'5' => Kind::Directory,
            _ => Kind::Other,
        };
        // Links and directories have no content, whatever their size says.
        let size = match kind {
            Kind::File | Kind::Other => named.size.unwrap_or(size),
            Kind::Directory | Kind::HardLink | Kind::SymbolicLink => 0,
        };
        let target = named.target.unwrap_or_else(|| until_zero(&header[157..257]));
        let is_wanted = visit.begin(Entry { path, kind, size, target })?;
        let mut left = size;
        while left > 0 {
            let len = left.min(PIECE_BYTES as u64) as usize;
            exactly(&mut from, &mut buffer[..len])?;
            if is_wanted {
                visit.piece(&buffer[..len])?;
            }
            left -= len as u64;
        }
        if is_wanted {
            visit.end()?;
        }
        skip_padding(&mut from, size)?;
    }
    Ok(())
}

/// What headers before an entry say of it.
#[derive(Default)]
struct Named {
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    size: Option<u64>,
}

impl Named {
    /// Lines of `length key=value`.
    fn pax(&mut self, mut text: &[u8]) -> Result<(), ArchiveProblem> {
        while !text.is_empty() {
            let space = text.iter().position(|byte| *byte == b' ').ok_or(ArchiveProblem::Header)?;
            let length = std::str::from_utf8(&text[..space]).ok();
            let length = length.and_then(|length| length.parse::<usize>().ok());
            let line = length
                .and_then(|length| text.get(space + 1..length))
                .and_then(|line| line.strip_suffix(b"\n"))
                .ok_or(ArchiveProblem::Header)?;
            let equals =
                line.iter().position(|byte| *byte == b'=').ok_or(ArchiveProblem::Header)?;
            let (key, value) = (&line[..equals], &line[equals + 1..]);
            match key {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.target = Some(value.to_vec()),
                b"size" => {
                    let value = std::str::from_utf8(value).ok().and_then(|it| it.parse().ok());
                    self.size = Some(value.ok_or(ArchiveProblem::Header)?);
                }
                key if key.starts_with(b"GNU.sparse.") => return Err(ArchiveProblem::Sparse),
                _ => {}
            }
            text = &text[length.unwrap_or_default()..];
        }
        Ok(())
    }
}

/// The next block; nothing where the archive ends without one of zeros.
fn block(from: &mut impl Read) -> Result<Option<[u8; BLOCK]>, ArchiveProblem> {
    let mut block = [0; BLOCK];
    let mut filled = 0;
    while filled < BLOCK {
        match from.read(&mut block[filled..]) {
            Ok(0) if filled == 0 => return Ok(None),
            Ok(0) => return Err(ArchiveProblem::Short),
            Ok(len) => filled += len,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Some(block))
}

fn exactly(from: &mut impl Read, into: &mut [u8]) -> Result<(), ArchiveProblem> {
    from.read_exact(into).map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof => ArchiveProblem::Short,
        _ => error.into(),
    })
}

fn held(from: &mut impl Read, size: u64) -> Result<Vec<u8>, ArchiveProblem> {
    if size > MAX_HEADER_BYTES {
        return Err(ArchiveProblem::Header);
    }
    let mut text = vec![0; size as usize];
    exactly(from, &mut text)?;
    skip_padding(from, size)?;
    Ok(text)
}

fn skip_padding(from: &mut impl Read, size: u64) -> Result<(), ArchiveProblem> {
    let rest = (size % BLOCK as u64) as usize;
    let mut padding = [0; BLOCK];
    if rest > 0 { exactly(from, &mut padding[rest..]) } else { Ok(()) }
}

/// The sum of a header's bytes, its own field as blanks; some old writers have added them up with signs.
fn check(header: &[u8; BLOCK]) -> Result<(), ArchiveProblem> {
    let own = 148..156;
    let byte = |at: usize| if own.contains(&at) { b' ' } else { header[at] };
    let sum: u64 = (0..BLOCK).map(|at| u64::from(byte(at))).sum();
    let signed: i64 = (0..BLOCK).map(|at| i64::from(byte(at) as i8)).sum();
    let told = number(&header[own.clone()])?;
    let is_right = told == sum || i64::try_from(told).is_ok_and(|told| told == signed);
    if is_right { Ok(()) } else { Err(ArchiveProblem::Header) }
}

/// Octal digits, or, as GNU writes what is too large for them, binary.
fn number(field: &[u8]) -> Result<u64, ArchiveProblem> {
    if field[0] & 0x80 != 0 {
        let (high, low) = field.split_at(field.len().saturating_sub(8));
        let is_small = high.iter().enumerate().all(
            |(n, byte)| {
                if n == 0 { *byte == 0x80 } else { *byte == 0 }
            },
        );
        let low = low.try_into().map(u64::from_be_bytes);
        return low.ok().filter(|_| is_small).ok_or(ArchiveProblem::Header);
    }
    let digits = field.iter().filter(|byte| !matches!(**byte, b' ' | 0));
    digits
        .into_iter()
        .try_fold(0_u64, |sum, digit| match digit {
            b'0'..=b'7' => sum.checked_mul(8).map(|sum| sum + u64::from(digit - b'0')),
            _ => None,
        })
        .ok_or(ArchiveProblem::Header)
}

fn until_zero(field: &[u8]) -> Vec<u8> {
    field.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()
}

fn path_of(header: &[u8; BLOCK]) -> Vec<u8> {
    let name = until_zero(&header[..100]);
    // GNU has other things where ustar has the prefix.
    let prefix = match &header[257..263] {
        b"ustar\0" => until_zero(&header[345..500]),
        _ => Vec::new(),
    };
    if prefix.is_empty() { name } else { [prefix.as_slice(), b"/", &name].concat() }
}

impl From<io::Error> for ArchiveProblem {
    fn from(error: io::Error) -> Self {
        Self::Packed { why: error.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_binary_and_never_too_large() {
        for (field, expected) in [
            (&b"00000000017\0"[..], Some(15)),
            (b"      17 \0\0\0", Some(15)),
            (b"\0\0\0\0\0\0\0\0\0\0\0\0", Some(0)),
            (b"77777777777\0", Some((1 << 33) - 1)),
            (b"777777777777", Some((1 << 36) - 1)),
            (b"\x80\0\0\0\0\0\0\x02\0\0\0\0", Some(2 << 32)),
            (b"\x80\0\0\x01\0\0\0\0\0\0\0\0", None),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"0000000008\0\0", None),
            (b"-0000000001\0", None),
        ] {
            assert_eq!(number(field).ok(), expected, "{field:?}");
        }
    }

    #[test]
    fn headers_of_pax_are_read_line_by_line() {
        let read = |text: &[u8]| {
            let mut named = Named::default();
            named.pax(text).map(|()| named).ok()
        };
        let named = read(b"16 path=a=b\nc/d\n9 size=7\n13 linkpath=\n").expect("is pax");
        assert_eq!(named.path.as_deref(), Some(&b"a=b\nc/d"[..]));
        assert_eq!((named.size, named.target.as_deref()), (Some(7), Some(&b""[..])));
        for text in [
            &b"x"[..],
            b"9 size=x\n",
            b"9 size=7",
            b"8 size=7\n",
            b"99 size=7\n",
            b"0 size=7\n",
            b"18446744073709551616 a=b\n",
            b"5 ab\n",
            b"22 GNU.sparse.major=1\n",
        ] {
            assert!(read(text).is_none(), "{:?}", String::from_utf8_lossy(text));
        }
    }
}
