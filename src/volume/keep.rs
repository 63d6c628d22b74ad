//! How kept revisions are removed: by age and count alone, since a server may read any of them.

use super::revisions::KeptTree;
use super::settle::is_complete;
use super::staging::Staging;
use super::sweep::GONE;
use super::{Store, StoreError};
use crate::fs::Dir;
use crate::model::Keep;

/// Kept revisions that were removed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RemovedRevisions {
    pub ids: Vec<String>,
    /// What their removal has freed.
    pub bytes: u64,
}

impl Staging {
    /// Removes kept revisions that `keep` lets go, and goes on with removals that were cut off. After a
    /// publication that is durable.
    pub fn remove_kept(&self, store: &Store, keep: Keep) -> Result<RemovedRevisions, StoreError> {
        let mut removed = RemovedRevisions::default();
        let Some(own) = store.revisions()? else { return Ok(removed) };
        for name in own.names()?.iter().filter(|name| name.ends_with(GONE)) {
            own.remove_tree(name)?;
        }
        let now = self.dir.modified()?;
        // What has no sentinel is no revision: it neither counts nor goes.
        let is_revision = |tree: &KeptTree| matches!(store.kept_dir(&tree.id), Ok(Some(dir)) if is_complete(&dir));
        let trees = store.kept_trees()?.into_iter().filter(is_revision);
        for (n, KeptTree { id, since }) in trees.enumerate() {
            // One of another user could be renamed, and not removed.
            // One from the future is as new as can be.
            if keep.keeps(n, now.saturating_sub(since)) || own.may_change(&id).is_err() {
                continue;
            }
            let bytes = own.bytes_below(&id);
            let gone = give_up(&own, &id)?;
            removed.ids.push(id);
            removed.bytes = removed.bytes.saturating_add(bytes);
            own.remove_tree(&gone)?;
        }
        Ok(removed)
    }
}

/// Gives a revision its last name: whoever sees that goes on with the removal, and nobody takes half of it for
/// a revision.
pub(super) fn give_up(own: &Dir, id: &str) -> Result<String, StoreError> {
    let gone = format!("{id}{GONE}");
    own.rename(id, own, &gone)?;
    own.sync()?;
    Ok(gone)
}
