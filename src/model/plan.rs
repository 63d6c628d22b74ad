//! What is still to fetch, as byte ranges.

use std::ops::Range;
use std::sync::Arc;

use super::RemoteFile;

/// The files of an attempt and the ranges of them that are missing.
#[derive(Clone, Debug)]
pub struct Plan {
    pub files: Arc<[RemoteFile]>,
    /// The missing ranges, each with the number of its file: sorted, those of one file not touching
    /// each other.
    pub missing: Vec<(usize, Range<u64>)>,
}

impl Plan {
    /// `present` tells the ranges of a file that are on the volume already, in any order.
    pub fn new(files: Arc<[RemoteFile]>, present: impl Fn(usize) -> Vec<Range<u64>>) -> Self {
        let mut missing = Vec::with_capacity(files.len());
        for (n, file) in files.iter().enumerate() {
            missing.extend(gaps(file.size, &present(n)).into_iter().map(|range| (n, range)));
        }
        Self { files, missing }
    }

    /// Bytes to fetch.
    pub fn missing_bytes(&self) -> u64 {
        self.missing.iter().map(|(_, range)| range.end - range.start).sum()
    }

    /// Bytes of the finished tree.
    pub fn total_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// Inodes of the finished tree: its files and its directories.
    pub fn inodes(&self) -> u64 {
        let mut directories = std::collections::BTreeSet::new();
        for file in self.files.iter() {
            let mut parent = file.path.parent();
            while let Some(directory) = parent {
                directories.insert(directory);
                parent = directory.rsplit_once('/').map(|(above, _)| above);
            }
        }
        (self.files.len() + directories.len()) as u64
    }
}

/// The parts of `0..size` that `present` does not cover.
pub fn gaps(size: u64, present: &[Range<u64>]) -> Vec<Range<u64>> {
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
    fn what_is_present_is_not_planned_again() {
        assert_eq!(gaps(10, &[]), [0..10]);
        assert_eq!(gaps(10, &[3..5, 0..1, 4..6]), [1..3, 6..10]);
        assert_eq!(gaps(10, &[0..10]), []);
        assert_eq!(gaps(10, &[2..99]), [0..2]);
        assert_eq!(gaps(0, &[]), []);
    }
}
