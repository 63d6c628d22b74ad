//! Which files of a new attempt are still to be found on the volume.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use super::recheck::Surroundings;
use super::staging::Staging;
use crate::model::text;

/// The files that nobody has found yet, by their content.
pub(super) struct Wanted {
    /// A hash of the content and the number of the file, sorted: there may be very many.
    by_content: Vec<(u64, usize)>,
    is_found: Vec<bool>,
}

/// What was found in one place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    pub files: usize,
    pub bytes: u64,
}

impl Wanted {
    pub fn of(attempt: &Staging) -> Self {
        let files = attempt.files.iter().enumerate();
        let hashed = files.map(|(n, file)| (content_hash(&attempt.identity(n), file.size), n));
        let mut by_content: Vec<(u64, usize)> = hashed.collect();
        by_content.sort_unstable();
        Self { by_content, is_found: vec![false; attempt.files.len()] }
    }

    pub fn find(&self, attempt: &Staging, identity: &str, size: u64) -> Option<usize> {
        let hash = content_hash(identity, size);
        let first = self.by_content.partition_point(|(other, _)| *other < hash);
        let same = self.by_content[first..].iter().take_while(|(other, _)| *other == hash);
        same.map(|(_, n)| *n).find(|n| {
            !self.is_found[*n] && attempt.files[*n].size == size && attempt.identity(*n) == identity
        })
    }

    /// Whether nothing is wanted any more.
    pub fn is_found(&self) -> bool {
        self.is_found.iter().all(|is_found| *is_found)
    }

    /// The numbers of the files that are wanted.
    pub fn missing(&self) -> impl Iterator<Item = usize> {
        self.is_found.iter().enumerate().filter(|(_, is_found)| !**is_found).map(|(n, _)| n)
    }

    pub fn take(&mut self, n: usize) {
        self.is_found[n] = true;
    }

    /// Wants a file again of which only a part was found.
    pub fn want(&mut self, n: usize) {
        self.is_found[n] = false;
    }
}

impl Taken {
    pub fn add(&mut self, other: Self) {
        self.files += other.files;
        self.bytes = self.bytes.saturating_add(other.bytes);
    }

    /// `reusing 3 files (15.0 GB) of …`, unless there are none.
    pub fn say(&self, doing: &str, path: &Path, outside: &Surroundings<'_>) {
        if self.files > 0 {
            let (files, size) = (text::files(self.files), text::size(self.bytes));
            let path = text::inert(&path.to_string_lossy(), 200);
            (outside.say)(format!("{doing} {files} ({size}) of `{path}`"));
        }
    }
}

fn content_hash(identity: &str, size: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    (identity, size).hash(&mut hasher);
    hasher.finish()
}
