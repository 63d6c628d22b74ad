//! Where the working area of a model lies, and its way there.

use std::path::PathBuf;

use super::{Destination, Store, StoreError, mounts};
use crate::fs::Dir;
use crate::model::ModelDir;

impl Store {
    /// Lets the last filesystem on the way to the directory above the family be the root.
    pub(super) fn enter_mounts(&mut self) -> Result<(), StoreError> {
        if !self.is_nested() {
            return Ok(());
        }
        let Some(root) = self.root()? else { return Ok(()) };
        let entered = mounts::entered(root, self.parent_parts())?;
        let Destination { root, family } = &self.destination;
        if let Some((root, family, outer)) = mounts::split(root, family, entered) {
            self.destination = Destination { root, family };
            self.outer = Some(outer);
        }
        Ok(())
    }

    /// Where the working area lies.
    pub(super) fn base_path(&self) -> PathBuf {
        if self.in_place { self.family_path() } else { self.destination.root.clone() }
    }

    /// The directory of [`Store::base_path`], if it is there.
    pub(super) fn base(&self) -> Result<Option<Dir>, StoreError> {
        if self.in_place { self.family_dir() } else { self.root() }
    }

    /// The store of another family of the same root.
    pub(super) fn beside(&self, family: ModelDir) -> Self {
        let destination = Destination { root: self.destination.root.clone(), family };
        Self { outer: self.outer.clone(), ..Self::of(destination) }
    }

    /// The directory above the family, or the lowest one above that is there; and which of them it is.
    pub(super) fn nearest_to_parent(&self) -> Result<(Dir, bool), StoreError> {
        let mut at = self.make_root()?;
        for part in self.parent_parts() {
            match at.child(part)? {
                Some(child) => at = child,
                None => return Ok((at, false)),
            }
        }
        Ok((at, true))
    }

    /// Whether there are directories between the root and the family.
    pub(super) fn is_nested(&self) -> bool {
        self.destination.family.path().parent().is_some()
    }
}
