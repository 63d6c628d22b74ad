//! A directory for what is unpacked, in an attempt of its own: a later run knows it by its name and removes it
//! as it does every other.

use super::StoreError;
use super::journal::{self, Header};
use super::recheck::Surroundings;
use super::staging::Staging;
use super::take::Offer;
use crate::fs::{Dir, space};
use crate::model::{Giver, RemoteFile};

/// In an attempt: the files of archives, under names that their source has given them.
pub(super) const UNPACKED: &str = "unpacked";

impl Staging {
    /// The directory for what is unpacked in this attempt.
    pub fn scratch(&self) -> Result<Dir, StoreError> {
        Ok(self.dir.make_child(UNPACKED)?)
    }

    /// Whether this process unpacks in `old`. It gives no sign of life any more once all is unpacked, and where
    /// there are no locks, nothing else tells.
    pub(super) fn is_unpacking(&self, old: &Dir, header: &Header) -> Result<bool, StoreError> {
        Ok(header.writer == self.writer
            && old.child(UNPACKED)?.is_some()
            && (!header.locked || journal::is_held(old)?))
    }

    /// Fails if the volume cannot take so many bytes.
    pub fn check_bytes(&self, bytes: u64) -> Result<(), StoreError> {
        Ok(space::check(&self.dir, bytes, 0)?)
    }

    /// Gives the files that are not here yet a second name for what another attempt has unpacked, or the same
    /// blocks, or a copy; how many bytes that were.
    pub fn take_unpacked(
        &mut self,
        scratch: &Dir,
        name_of: impl Fn(&RemoteFile) -> Option<String>,
        outside: &Surroundings<'_>,
    ) -> Result<u64, StoreError> {
        let files = self.files.clone();
        let mut taken = 0;
        for (n, file) in files.iter().enumerate() {
            let is_here = self.present.get(&n).is_some_and(|chunks| {
                chunks.iter().map(|it| it.range.end - it.range.start).sum::<u64>() == file.size
            });
            let Some(name) = name_of(file).filter(|_| !is_here) else { continue };
            let giver = Giver::SameModel;
            let offer = Offer { dir: scratch, name: &name, size: file.size, giver };
            if self.take(n, &offer, outside)? {
                taken += file.size;
            }
        }
        Ok(taken)
    }
}
