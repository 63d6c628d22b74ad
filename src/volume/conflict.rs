//! Refusals of a place where something lies already that weightlift did not put there, or that is not for it.

use std::collections::BTreeSet;

use super::fill::{Publishing, PublishingFile};
use super::foreign::{Foreign, description};
use super::{Store, StoreError};
use crate::fs::{Dir, filesystem};
use crate::model::{SENTINEL, STATE_DIR};

impl Store {
    /// Something lies at the family path, in `parent`, that is no directory of ours.
    pub(super) fn in_the_way(&self, parent: &Dir) -> StoreError {
        let what = description(parent, self.destination.family.path().name());
        StoreError::InTheWay { path: self.family_path(), what }
    }

    /// The family directory holds what is not ours.
    pub(super) fn foreign(&self) -> StoreError {
        let family = self.family_dir().ok().flatten();
        if let Some(Err(error)) = family.as_ref().map(|family| self.refuse_models_below(family)) {
            return error;
        }
        let names = family.as_ref().map(|family| self.foreign_names(family));
        let found = names.and_then(Result::ok).unwrap_or_default();
        StoreError::Foreign { path: self.family_path(), found }
    }

    /// What a filesystem keeps is nobody's DEST, however empty it looks.
    pub(super) fn refuse_reserved(&self) -> Result<(), StoreError> {
        match self.destination.family.path().parts().find(|part| filesystem::owns(part)) {
            None => Ok(()),
            Some(name) => {
                Err(StoreError::Reserved { path: self.family_path(), name: name.to_owned() })
            }
        }
    }

    pub(super) fn refuse_foreign(&self, family: &Dir) -> Result<(), StoreError> {
        let found = self.foreign_names(family)?;
        if found == Foreign::default() {
            return Ok(());
        }
        self.refuse_models_below(family)?;
        Err(StoreError::Foreign { path: family.path().to_owned(), found })
    }

    /// What lies in `family` that neither we nor the filesystem have put there.
    fn foreign_names(&self, family: &Dir) -> Result<Foreign, StoreError> {
        let mut names = family.names()?;
        let publishing = Publishing::read(family)?.map(|list| list.files).unwrap_or_default();
        let top = |file: &PublishingFile| file.path.split('/').next().map(str::to_owned);
        let ours: BTreeSet<String> = publishing.iter().filter_map(top).collect();
        names.retain(|name| {
            name != STATE_DIR && name != SENTINEL && !filesystem::owns(name) && !ours.contains(name)
        });
        Ok(Foreign::of(family, &names))
    }
}
