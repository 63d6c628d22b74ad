//! Where the working area of a model lies, and its way there.

use std::path::PathBuf;

use super::layout::IN_PLACE;
use super::mounts::{self, Outer};
use super::{Destination, Store, StoreError};
use crate::fs::Dir;
use crate::model::{ModelDir, Place};

/// A working area, and the directory that it is for.
pub(super) struct Area {
    pub state: Dir,
    pub base: PathBuf,
    /// The way to that directory, if it is not a root that was named.
    pub outer: Option<Outer>,
    /// The model in it that is fetched at the moment.
    pub own: Option<Store>,
}

impl Area {
    /// That of `store`, opened as `state`.
    pub fn of(store: &Store, state: Dir) -> Self {
        let outer = if store.in_place { None } else { store.outer.clone() };
        Self { state, base: store.base_path(), outer, own: Some(store.clone()) }
    }

    /// That of the root which `store` is below.
    pub fn above(store: &Store, state: Dir) -> Self {
        let (base, outer) = (store.destination.root.clone(), store.outer.clone());
        Self { state, base, outer, own: None }
    }

    /// Where the attempts of `state_name` are published, if the name was not cut.
    pub fn store_of(&self, state_name: &str) -> Option<Store> {
        if state_name == IN_PLACE {
            // Of the directory itself, or of a family of that name: who knows.
            return None;
        }
        let family = ModelDir::of_file_name(state_name)?;
        let destination = Destination { root: self.base.clone(), family };
        Some(Store { outer: self.outer.clone(), ..Store::of(destination) })
    }
}

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
    pub fn base_path(&self) -> PathBuf {
        if self.in_place { self.family_path() } else { self.destination.root.clone() }
    }

    /// The directory of [`Store::base_path`], if it is there.
    pub(super) fn base(&self) -> Result<Option<Dir>, StoreError> {
        if self.in_place { self.family_dir() } else { self.root() }
    }

    /// What the directory of [`Store::base_path`] says of those who share it; where it is missing, the nearest one
    /// above it, in which it will be made. `None` if that cannot be told.
    pub fn place(&self) -> Option<Place> {
        let base = self.base().ok()?;
        let nearest = || self.base_path().ancestors().find_map(|dir| Dir::open(dir).ok()?);
        base.or_else(nearest)?.place().ok()
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
