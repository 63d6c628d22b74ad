//! What a publisher that was killed after its last rename has left to do.

use rustix::io::Errno;

use super::layout::IN_PLACE;
use super::staging::{ATTEMPTS, ID_SEPARATOR};
use super::{Store, StoreError};
use crate::fs::Dir;
use crate::model::STATE_DIR;

impl Store {
    /// Makes a family that was found complete durable, if its publisher may not have come so far: it
    /// is still at it, or was killed between the rename that shows the family and the syncs after it.
    /// An attempt is removed after those only; where there is none, a look is all that this costs.
    pub fn finish_publication(&self) -> Result<(), StoreError> {
        if self.cache.is_some() {
            return self.finish_in_cache();
        }
        let Some(family) = self.family_dir()? else { return Ok(()) };
        let root = self.root()?;
        // A publication file by file has its attempt beside the family, or inside.
        let beside =
            root.is_some_and(|root| has_attempt(&root, &self.destination.family.file_name()));
        if !beside && !has_attempt(&family, IN_PLACE) {
            return Ok(());
        }
        unless_read_only(family.sync().map_err(StoreError::from).and_then(|()| self.sync_above()))
    }

    /// The same of a commit in a cache.
    fn finish_in_cache(&self) -> Result<(), StoreError> {
        let Some(root) = self.root()? else { return Ok(()) };
        if !has_attempt(&root, &self.destination.family.file_name()) {
            return Ok(());
        }
        match (self.cached_repo()?, self.head()?) {
            (Some(repo), Some(head)) => unless_read_only(self.sync_cached(&repo, &head.revision)),
            _ => Ok(()),
        }
    }
}

/// Where nothing can be written, nothing of ours can be waiting for it.
fn unless_read_only(synced: Result<(), StoreError>) -> Result<(), StoreError> {
    match synced {
        Err(error) if error.errno() == Some(Errno::ROFS) => Ok(()),
        done => done,
    }
}

/// Whether there is an attempt of `state_name` in the working area of `base`. Where nobody lets us
/// look there is none of ours.
fn has_attempt(base: &Dir, state_name: &str) -> bool {
    let attempts = base.descend([STATE_DIR, ATTEMPTS].into_iter()).ok().flatten();
    let names = attempts.and_then(|attempts| attempts.names().ok()).unwrap_or_default();
    let prefix = format!("{state_name}{ID_SEPARATOR}");
    names.iter().any(|name| name.starts_with(&prefix))
}
