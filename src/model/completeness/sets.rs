//! Sets of files that are numbered together, and what is whole by its name alone.

use std::collections::BTreeMap;

use super::names::{Numbered, SetName, Weights, join};
use crate::model::RemoteFile;
use crate::model::fnmatch::literal;

/// Files that are numbered together, in one directory.
#[derive(Debug)]
pub(super) struct Set<'a> {
    pub directory: &'a str,
    pub name: SetName<'a>,
    /// Digits of a number.
    pub width: usize,
    pub first: u32,
    /// Numbers that are selected.
    pub present: Vec<u32>,
    /// An index names some of it, and knows better than the numbers.
    pub is_indexed: bool,
}

/// Weights of which nothing is missing by their own names.
#[derive(Debug)]
pub(super) struct Whole<'a> {
    pub weights: Weights<'a>,
    pub name: String,
    /// Number of the set.
    pub set: Option<usize>,
}

impl Set<'_> {
    fn numbers(&self) -> std::ops::Range<u32> {
        self.first..self.first + self.name.count().unwrap_or_default()
    }

    pub fn is_complete(&self) -> bool {
        self.numbers().all(|number| self.present.binary_search(&number).is_ok())
    }

    pub fn missing(&self) -> impl Iterator<Item = String> {
        let missing = self.numbers().filter(|number| self.present.binary_search(number).is_err());
        missing.map(|number| join(self.directory, &self.name.file(number, self.width)))
    }

    /// For people: `model-*-of-00003.safetensors`.
    pub fn shown(&self) -> String {
        let (before, after) = self.name.around_the_number();
        join(self.directory, &format!("{before}*{after}"))
    }

    /// What matches its files.
    pub fn pattern(&self) -> String {
        let (before, after) = self.name.around_the_number();
        format!("{}*{}", literal(&join(self.directory, before)), literal(&after))
    }
}

/// The numbered files of `files`, set by set.
pub(super) fn sets(files: &[RemoteFile]) -> Vec<Set<'_>> {
    let mut numbered: Vec<_> = files
        .iter()
        .filter_map(|file| {
            let numbered = Numbered::of(file.path.name())?;
            Some((file.path.parent().unwrap_or(""), numbered.set, numbered.number, numbered.width))
        })
        .collect();
    numbered.sort_unstable();
    let by_set = numbered.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1));
    let set = |same: &[(&'_ str, SetName<'_>, u32, usize)]| {
        let mut present: Vec<u32> = same.iter().map(|(_, _, number, _)| *number).collect();
        present.dedup();
        (present[0].min(1), present)
    };
    by_set
        .map(|same| {
            let (directory, name, _, width) = same[0];
            let (first, present) = set(same);
            Set { directory, name, width, first, present, is_indexed: false }
        })
        .collect()
}

/// Directory by directory, what is a whole model by its name alone.
pub(super) fn wholes<'a>(
    files: &'a [RemoteFile],
    sets: &[Set<'a>],
) -> BTreeMap<&'a str, Vec<Whole<'a>>> {
    let mut wholes = BTreeMap::<&str, Vec<Whole<'a>>>::new();
    for (n, set) in sets.iter().enumerate().filter(|(_, set)| set.is_complete()) {
        if let Some(weights) = set.name.weights().filter(|weights| !weights.is_a_part()) {
            let (before, after) = set.name.around_the_number();
            let name = format!("{before}*{after}");
            wholes.entry(set.directory).or_default().push(Whole { weights, name, set: Some(n) });
        }
    }
    for file in files.iter().filter(|file| file.size > 0) {
        let name = file.path.name();
        if Numbered::of(name).is_none()
            && let Some(weights) = Weights::of(name).filter(Weights::can_be_a_model)
        {
            let whole = Whole { weights, name: name.to_owned(), set: None };
            wholes.entry(file.path.parent().unwrap_or("")).or_default().push(whole);
        }
    }
    wholes
}
