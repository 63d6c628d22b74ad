//! Which files of a new attempt are still to be found on the volume.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::staging::Staging;

/// The files that nobody has found yet, by their content.
pub(super) struct Wanted {
    /// A hash of the content and the number of the file, sorted: there may be very many.
    by_content: Vec<(u64, usize)>,
    is_found: Vec<bool>,
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

    pub fn take(&mut self, n: usize) {
        self.is_found[n] = true;
    }
}

fn content_hash(identity: &str, size: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    (identity, size).hash(&mut hasher);
    hasher.finish()
}
