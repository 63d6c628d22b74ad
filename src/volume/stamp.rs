//! Whether what is published has changed since a look before, for a few system calls.

use super::{Store, StoreError};
use crate::model::SENTINEL;

/// What a look has seen. Equal stamps are the same publication.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// The directory that is shown, by device and inode.
    directory: Option<(u64, u64)>,
    /// Its sentinel: inode, modification time, size.
    sentinel: Option<(u64, i64, i64, u64)>,
    /// What the name in a cache leads to.
    commit: Option<String>,
}

impl Store {
    /// What is published now, whatever it is.
    pub fn stamp(&self) -> Result<Stamp, StoreError> {
        if let Some(cache) = &self.cache {
            return self.cached_stamp(cache);
        }
        let Some(family) = self.family_dir()? else { return Ok(Stamp::default()) };
        let sentinel = family.read_file(SENTINEL)?;
        Ok(Stamp::new(Some(family.identity()?), sentinel.as_ref(), None))
    }
}

impl Stamp {
    pub(super) fn new(
        directory: Option<(u64, u64)>,
        sentinel: Option<&std::fs::File>,
        commit: Option<String>,
    ) -> Self {
        use std::os::unix::fs::MetadataExt;
        let meta = sentinel.and_then(|file| file.metadata().ok());
        let sentinel = meta.map(|it| (it.ino(), it.mtime(), it.mtime_nsec(), it.len()));
        Self { directory, sentinel, commit }
    }
}
