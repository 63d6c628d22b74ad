//! The link that the name of a family is, and the revision that it shows.

use rustix::io::Errno;

use super::StoreError;
use super::layout::{KEPT_PREFIX, LINK, REVISIONS};
use super::staging::{ID_SEPARATOR, Staging, TREE};
use crate::fs::{Dir, Kind};
use crate::model::{ModelDir, STATE_DIR};

impl Staging {
    /// Moves the tree to `revisions/`, and lets the family name be a link to it.
    pub(super) fn link_to_revision(
        &self,
        parent: &Dir,
        family: &ModelDir,
        there: Option<Kind>,
    ) -> Result<(), StoreError> {
        let revisions = self.revisions(family)?;
        let id = self.random_part();
        // First of all: where there are no links, nothing has been touched.
        self.make_link(family, id)?;
        if self.dir.kind(TREE)?.is_some() {
            self.dir.rename(TREE, &revisions, id)?;
            // It is dated by when it was shown: what it replaces is not the newer one.
            let _ = revisions.touch(id);
            revisions.sync()?;
        }
        self.show_link(parent, family, there)
    }

    /// A relative link to a revision, in the attempt's own directory.
    pub(super) fn make_link(&self, family: &ModelDir, id: &str) -> Result<(), StoreError> {
        let up = "../".repeat(family.path().parts().count() - 1);
        let target = format!("{up}{STATE_DIR}/{REVISIONS}/{}/{id}", family.file_name());
        self.dir.remove_file(LINK)?;
        Ok(self.dir.link(&target, LINK)?)
    }

    /// Gives that link the name of the family, where `there` is now. A directory of an earlier version
    /// goes to `revisions/`.
    pub(super) fn show_link(
        &self,
        parent: &Dir,
        family: &ModelDir,
        there: Option<Kind>,
    ) -> Result<(), StoreError> {
        let name = family.path().name();
        let exchange_works = self.exchange_works()?;
        match there {
            None if exchange_works => self.dir.rename_new(LINK, parent, name)?,
            Some(Kind::Directory) => {
                let revisions = self.revisions(family)?;
                let kept = self.kept_name();
                if exchange_works {
                    self.dir.exchange(LINK, parent, name)?;
                    match self.dir.kind(LINK)? {
                        // Another process was faster, and its tree has a name there already.
                        Some(Kind::Link) => self.dir.remove_file(LINK)?,
                        _ => self.dir.rename(LINK, &revisions, &kept)?,
                    }
                } else {
                    // For an instant there is no model: this filesystem offers nothing better.
                    parent.rename(name, &revisions, &kept)?;
                    self.dir.rename(LINK, parent, name)?;
                }
            }
            None | Some(Kind::Link | Kind::File | Kind::Other) => {
                self.dir.rename(LINK, parent, name)?;
            }
        }
        Ok(())
    }

    /// Whether the filesystem has no links, and the tree is where it was.
    pub(super) fn cannot_be_linked(&self, error: &StoreError) -> Result<bool, StoreError> {
        Ok(cannot_link(error) && self.dir.kind(TREE)?.is_some())
    }

    /// What the revision is called that this one replaces, if it has no name of its own yet.
    pub(super) fn kept_name(&self) -> String {
        format!("{KEPT_PREFIX}{}", self.random_part())
    }

    pub(super) fn revisions(&self, family: &ModelDir) -> Result<Dir, StoreError> {
        let revisions = self.state.make_child(REVISIONS)?;
        let own = revisions.make_child(&family.file_name())?;
        revisions.sync()?;
        self.state.sync()?;
        Ok(own)
    }

    pub(super) fn random_part(&self) -> &str {
        self.id.rsplit(ID_SEPARATOR).next().unwrap_or(&self.id)
    }

    /// Asks the filesystem, once, whether it exchanges directories.
    pub(super) fn exchange_works(&self) -> Result<bool, StoreError> {
        if let Some(abilities) = self.abilities.get() {
            return Ok(abilities.exchanges);
        }
        self.dir.make_child("probe-a")?;
        self.dir.make_child("probe-b")?;
        let works = match self.dir.exchange("probe-a", &self.dir, "probe-b") {
            Ok(()) => true,
            Err(error) => match error.errno() {
                Some(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => false,
                _ => return Err(error.into()),
            },
        };
        self.dir.remove_dir("probe-a")?;
        self.dir.remove_dir("probe-b")?;
        Ok(works)
    }
}

/// Whether this filesystem just cannot do what was asked, rather than having failed.
pub(super) fn cannot_link(error: &StoreError) -> bool {
    matches!(
        error.errno(),
        Some(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::XDEV)
    )
}
