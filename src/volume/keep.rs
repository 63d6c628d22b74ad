//! Which kept revisions are removed, and how: by age and count alone, since a server may read any of them.

use std::time::Duration;

use super::revisions::KeptTree;
use super::settle::is_complete;
use super::staging::Staging;
use super::sweep::GONE;
use super::{Store, StoreError};

/// What is kept of the revisions that were replaced. A revision goes only if both let it go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// So many, the ones that were replaced last.
    pub revisions: usize,
    /// And those that were replaced less than this ago. Clocks of filesystems are coarse: what was replaced
    /// a moment ago has an age of nothing.
    pub time: Duration,
}

impl Keep {
    /// Whether the one that was replaced as the `n`th last, from 0, and `age` ago, is kept.
    fn keeps(self, n: usize, age: Duration) -> bool {
        n < self.revisions || age < self.time
    }
}

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
        let trees = store.kept_trees()?.into_iter().filter(|tree| is_complete(&tree.dir));
        for (n, KeptTree { id, since, dir }) in trees.enumerate() {
            drop(dir);
            // One of another user could be renamed, and not removed.
            // One from the future is as new as can be.
            if keep.keeps(n, now.saturating_sub(since)) || own.may_change(&id).is_err() {
                continue;
            }
            let gone = format!("{id}{GONE}");
            let bytes = own.bytes_below(&id);
            own.rename(&id, &own, &gone)?;
            own.sync()?;
            removed.ids.push(id);
            removed.bytes = removed.bytes.saturating_add(bytes);
            own.remove_tree(&gone)?;
        }
        Ok(removed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_goes_only_if_count_and_age_let_it_go() {
        let hours = |hours: u64| Duration::from_secs(hours * 3_600);
        for (revisions, time, n, age, is_kept) in [
            (2, hours(24), 0, hours(900), true),
            (2, hours(24), 1, hours(900), true),
            (2, hours(24), 2, hours(900), false),
            (2, hours(24), 2, hours(23), true),
            (2, hours(24), 9, hours(24), false),
            (2, hours(24), 9, hours(25), false),
            (0, hours(24), 0, hours(1), true),
            (0, hours(24), 0, hours(25), false),
            (2, hours(0), 1, hours(1), true),
            (2, hours(0), 2, hours(1), false),
            (0, hours(0), 0, hours(1), false),
            (0, hours(0), 0, hours(0), false),
        ] {
            let keep = Keep { revisions, time };
            assert_eq!(keep.keeps(n, age), is_kept, "{keep:?} {n} {age:?}");
        }
    }
}
