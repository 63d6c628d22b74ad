//! A set of byte ranges that grows together.

use std::collections::BTreeMap;
use std::ops::Range;

/// Non-empty ranges that neither overlap nor touch: start → end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    pub fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let Range { mut start, mut end } = range;
        while let Some((&known_start, &known_end)) = self.0.range(..=end).next_back() {
            if known_end < start {
                break;
            }
            start = start.min(known_start);
            end = end.max(known_end);
            self.0.remove(&known_start);
        }
        self.0.insert(start, end);
    }

    /// The end of what follows `at` without a gap; `at` itself if nothing does.
    pub fn end_of(&self, at: u64) -> u64 {
        match self.0.range(..=at).next_back() {
            Some((_, &end)) if end > at => end,
            _ => at,
        }
    }

    /// Bytes in the set.
    pub fn total(&self) -> u64 {
        self.0.iter().map(|(start, end)| end - start).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_join_in_whatever_order_they_come() {
        let pieces = [0..3, 3..5, 8..9, 5..8, 20..30, 12..14];
        // All rotations and the reverse of each.
        for rotation in 0..pieces.len() {
            let mut order = pieces.to_vec();
            order.rotate_left(rotation);
            for order in [order.clone(), order.into_iter().rev().collect()] {
                let mut set = Ranges::default();
                order.into_iter().for_each(|range| set.insert(range));
                assert_eq!(set.end_of(0), 9);
                assert_eq!((set.end_of(9), set.end_of(12), set.end_of(31)), (9, 14, 31));
                assert_eq!(set.total(), 9 + 2 + 10);
            }
        }
    }

    #[test]
    fn overlaps_count_once() {
        let mut set = Ranges::default();
        for range in [5..10, 0..6, 3..4, 9..9, 2..12] {
            set.insert(range);
        }
        assert_eq!((set.end_of(0), set.total()), (12, 12));
    }
}
