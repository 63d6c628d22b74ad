//! Copies bytes of files that lie here into a file of an attempt, and notes each piece, so that a killed run
//! goes on behind it. A piece is trusted as little as any other that was here before: the hash of the whole
//! file decides.

use std::fs::File;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use super::super::StoreError;
use super::super::journal::WrittenChunk;
use super::super::recheck::Surroundings;
use super::super::staging::{Presence, StagedFile, Staging};
use super::chunker::chunk_lengths;
use super::local::LocalFiles;
use super::overlap::{Copy, LocalTerm};
use crate::fs::space;
use crate::model::gaps;

/// A piece has one line in the journal.
const PIECE_BYTES: u64 = 64 << 20;
const BUFFER_BYTES: u64 = 1 << 20;
/// Filesystems share blocks of this size, or none.
const BLOCK_BYTES: u64 = 4096;
/// What is shorter costs a request less than the one that it makes of two.
pub(super) const MIN_COPY_BYTES: u64 = 128 << 10;
/// Each copy leaves a gap behind it, which is a request of its own: of more copies in a file the longest are made.
const MAX_COPIES: usize = 4_096;

/// Reads files that lie here, the last one kept open.
pub(super) struct Reader<'a> {
    local: &'a LocalFiles,
    outside: &'a Surroundings<'a>,
    /// The file of this number; none if it cannot be read.
    open: Option<(usize, Option<File>)>,
    /// Bytes that may still be read to find where chunks end.
    may_read: u64,
}

impl<'a> Reader<'a> {
    /// No more than `may_read` bytes are read to find where chunks end.
    pub fn new(local: &'a LocalFiles, may_read: u64, outside: &'a Surroundings<'a>) -> Self {
        Self { local, outside, open: None, may_read }
    }

    fn file(&mut self, n: usize) -> Option<&File> {
        if self.open.as_ref().is_none_or(|(open, _)| *open != n) {
            self.open = Some((n, self.local.open(n)));
        }
        self.open.as_ref()?.1.as_ref()
    }

    /// What cannot be read is not there.
    fn give_up(&mut self, n: usize) {
        self.open = Some((n, None));
    }

    /// The lengths of the chunks of `term`, by its bytes.
    pub fn lengths(&mut self, term: &LocalTerm) -> Option<Vec<u32>> {
        self.may_read = self.may_read.checked_sub(term.len.into())?;
        let outside = self.outside;
        let n = term.file as usize;
        let file = self.file(n)?;
        let mut at = term.at;
        let read = &mut |buffer: &mut [u8]| {
            if !(outside.go_on)() {
                return Err(std::io::ErrorKind::Interrupted.into());
            }
            file.read_exact_at(buffer, at)?;
            at += buffer.len() as u64;
            (outside.worked)(buffer.len() as u64);
            Ok(())
        };
        let found = chunk_lengths(term.len.into(), term.chunks.len(), read);
        found.unwrap_or_else(|_| {
            self.give_up(n);
            None
        })
    }
}

impl Staging {
    /// Makes `copies` in file `n`, except over what is there already. Returns the bytes that are new.
    pub(super) fn copy_all(
        &mut self,
        n: usize,
        copies: &[Copy],
        reader: &mut Reader<'_>,
    ) -> Result<u64, StoreError> {
        let missing = self.missing_of(n);
        let mut copies: Vec<Copy> = copies.iter().flat_map(|copy| within(copy, &missing)).collect();
        keep_longest(&mut copies);
        if copies.is_empty() || !self.has_room_for(n)? {
            return Ok(0);
        }
        let target = self.open(n)?;
        let mut copied = 0;
        for copy in copies.iter().flat_map(pieces) {
            if !(reader.outside.go_on)() {
                break;
            }
            if let Some(crc64) = copy_piece(&copy, reader, &target, &mut self.shares_ranges)? {
                let chunk = WrittenChunk { range: copy.to..copy.to + copy.len, crc64 };
                self.journal.chunk(n, &chunk)?;
                self.present.entry(n).or_default().push(chunk);
                copied += copy.len;
                (reader.outside.copied)(copy.len);
            }
        }
        Ok(copied)
    }

    /// The parts of file `n` that are not here yet.
    fn missing_of(&self, n: usize) -> Vec<Range<u64>> {
        let present = self.present.get(&n).into_iter().flatten();
        let present: Vec<_> = present.map(|chunk| chunk.range.clone()).collect();
        gaps(self.files[n].size, &present)
    }

    pub(super) fn missing_bytes_of(&self, n: usize) -> u64 {
        self.missing_of(n).iter().map(|gap| gap.end - gap.start).sum()
    }

    /// Whether file `n` may be written to, and gets its blocks.
    fn has_room_for(&self, n: usize) -> Result<bool, StoreError> {
        Ok(match self.presence(n) {
            Presence::Absent => space::free_bytes(&self.dir)? >= self.files[n].size,
            Presence::Ours => true,
            // The inode may be that of a published file.
            Presence::Whole => false,
        })
    }
}

/// The parts of `copy` that fill `gaps`, but for those that are not worth it.
fn within<'a>(copy: &'a Copy, gaps: &'a [Range<u64>]) -> impl Iterator<Item = Copy> + 'a {
    let end = copy.to + copy.len;
    let first = gaps.partition_point(|gap| gap.end <= copy.to);
    let of_copy = gaps[first..].iter().take_while(move |gap| gap.start < end);
    of_copy.filter_map(move |gap| {
        let to = gap.start.max(copy.to);
        let len = gap.end.min(end) - to;
        let is_worth_it = len >= MIN_COPY_BYTES || len == gap.end - gap.start;
        let at = copy.at + (to - copy.to);
        is_worth_it.then_some(Copy { to, len, at, ..*copy })
    })
}

fn keep_longest(copies: &mut Vec<Copy>) {
    if copies.len() > MAX_COPIES {
        copies.sort_unstable_by_key(|copy| std::cmp::Reverse(copy.len));
        copies.truncate(MAX_COPIES);
        copies.sort_unstable_by_key(|copy| copy.to);
    }
}

fn pieces(copy: &Copy) -> impl Iterator<Item = Copy> {
    let Copy { to, len, from, at } = *copy;
    (0..len.div_ceil(PIECE_BYTES)).map(move |n| {
        let begin = n * PIECE_BYTES;
        Copy { to: to + begin, len: PIECE_BYTES.min(len - begin), from, at: at + begin }
    })
}

/// Copies one piece and returns the CRC64NVME of the bytes, or `None` if they cannot be read.
fn copy_piece(
    copy: &Copy,
    reader: &mut Reader<'_>,
    target: &StagedFile,
    can_share: &mut bool,
) -> Result<Option<u64>, StoreError> {
    let outside = reader.outside;
    let Some(source) = reader.file(copy.from) else { return Ok(None) };
    let mut shared = blocks(copy);
    if !*can_share || shared.is_empty() {
        shared = 0..0;
    } else if !share(copy, &shared, source, target) {
        *can_share = false;
        shared = 0..0;
    }
    let mut crc = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc64Nvme);
    let mut buffer = vec![0; BUFFER_BYTES.min(copy.len) as usize];
    let mut done = 0;
    while done < copy.len {
        let buffer = &mut buffer[..BUFFER_BYTES.min(copy.len - done) as usize];
        if !(outside.go_on)() {
            return Ok(None);
        }
        if source.read_exact_at(buffer, copy.at + done).is_err() {
            reader.give_up(copy.from);
            return Ok(None);
        }
        crc.update(buffer);
        let end = done + buffer.len() as u64;
        for part in [done..end.min(shared.start.max(done)), done.max(shared.end.min(end))..end] {
            let bytes = &buffer[(part.start - done) as usize..(part.end - done) as usize];
            if !bytes.is_empty() {
                target.write_at(bytes, copy.to + part.start)?;
            }
        }
        done = end;
        (outside.worked)(buffer.len() as u64);
    }
    Ok(Some(crc.finalize()))
}

/// The whole blocks in `copy`, counted from its beginning; none where they lie otherwise in the two files.
fn blocks(copy: &Copy) -> Range<u64> {
    if copy.to % BLOCK_BYTES != copy.at % BLOCK_BYTES {
        return 0..0;
    }
    let start = copy.to.next_multiple_of(BLOCK_BYTES) - copy.to;
    let end = ((copy.to + copy.len) / BLOCK_BYTES * BLOCK_BYTES).saturating_sub(copy.to);
    if start < end { start..end } else { 0..0 }
}

/// Lets the kernel copy, or let both files have the same blocks; false where it does not.
fn share(copy: &Copy, part: &Range<u64>, source: &File, target: &StagedFile) -> bool {
    let (mut from, mut to) = (copy.at + part.start, copy.to + part.start);
    let end = copy.to + part.end;
    while to < end {
        let left = (end - to) as usize;
        let (source, target) = (source.as_fd(), target.file().as_fd());
        match rustix::fs::copy_file_range(source, Some(&mut from), target, Some(&mut to), left) {
            Ok(0) | Err(_) => return false,
            Ok(_) => {}
        }
    }
    true
}
