//! What is still to fetch, as byte ranges.

use std::ops::Range;

use super::RemoteFile;

/// The files of an attempt and the ranges of them that are missing.
#[derive(Clone, Debug)]
pub struct Plan {
    pub files: Vec<RemoteFile>,
    /// For each file, in its order: the missing ranges, sorted, not touching each other.
    pub missing: Vec<Vec<Range<u64>>>,
}

impl Plan {
    /// `present[n]` are ranges of file `n` that are on the volume already, in any order.
    pub fn new(files: Vec<RemoteFile>, present: &[Vec<Range<u64>>]) -> Self {
        let missing = files
            .iter()
            .enumerate()
            .map(|(n, file)| gaps(file.size, present.get(n).map_or(&[], Vec::as_slice)))
            .collect();
        Self { files, missing }
    }

    /// Bytes to fetch.
    pub fn missing_bytes(&self) -> u64 {
        self.missing.iter().flatten().map(|range| range.end - range.start).sum()
    }

    /// Bytes of the finished tree.
    pub fn total_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// Inodes of the finished tree: its files and its directories.
    pub fn inodes(&self) -> u64 {
        let mut directories = std::collections::BTreeSet::new();
        for file in &self.files {
            let mut parent = file.path.parent();
            while let Some(directory) = parent {
                directories.insert(directory);
                parent = directory.rsplit_once('/').map(|(above, _)| above);
            }
        }
        (self.files.len() + directories.len()) as u64
    }
}

/// Splits `range` into pieces of `chunk_size` bytes that start at multiples of it; the first and
/// the last may be shorter.
pub fn chunks(range: Range<u64>, chunk_size: u64) -> impl Iterator<Item = Range<u64>> {
    let mut start = range.start;
    std::iter::from_fn(move || {
        if start >= range.end {
            return None;
        }
        let end = (start / chunk_size).saturating_add(1).saturating_mul(chunk_size).min(range.end);
        Some(std::mem::replace(&mut start, end)..end)
    })
}

/// The parts of `0..size` that `present` does not cover.
fn gaps(size: u64, present: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut present: Vec<&Range<u64>> = present.iter().filter(|range| !range.is_empty()).collect();
    present.sort_by_key(|range| range.start);
    let mut gaps = Vec::new();
    let mut at = 0;
    for range in present {
        if range.start > at {
            gaps.push(at..range.start.min(size));
        }
        at = at.max(range.end);
    }
    if at < size {
        gaps.push(at..size);
    }
    gaps.retain(|range| !range.is_empty());
    gaps
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)]
mod tests {
    use super::*;

    #[test]
    fn chunks_cover_a_range_without_gap_or_overlap() {
        for (range, size) in [(0..10, 3), (4..10, 3), (0..9, 3), (0..1, 100), (7..7, 3), (5..6, 1)]
        {
            let pieces: Vec<_> = chunks(range.clone(), size).collect();
            let mut at = range.start;
            for piece in &pieces {
                assert_eq!(piece.start, at);
                assert!(!piece.is_empty() && piece.end - piece.start <= size);
                at = piece.end;
            }
            assert_eq!(at, range.end.max(range.start));
        }
        assert_eq!(chunks(4..10, 3).collect::<Vec<_>>(), [4..6, 6..9, 9..10]);
        assert_eq!(chunks(u64::MAX - 1..u64::MAX, u64::MAX).count(), 1);
    }

    #[test]
    fn what_is_present_is_not_planned_again() {
        assert_eq!(gaps(10, &[]), [0..10]);
        assert_eq!(gaps(10, &[3..5, 0..1, 4..6]), [1..3, 6..10]);
        assert_eq!(gaps(10, &[0..10]), []);
        assert_eq!(gaps(10, &[2..99]), [0..2]);
        assert_eq!(gaps(0, &[]), []);
    }
}
