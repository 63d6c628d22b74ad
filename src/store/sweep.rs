//! Removing attempts so that a kill in the middle leaves nothing that nobody can name.

use std::time::{Duration, SystemTime};

use rustix::io::Errno;

use super::place::{IN_PLACE, with_sentinel};
use super::publish::KEPT_PREFIX;
use super::staging::{Attempt, ID_SEPARATOR, TREE};
use super::{Dir, StoreError, filesystem, node};
use crate::model::SentinelHead;

/// Ends the name of an attempt that is being removed: whoever sees it may go on with that.
const GONE: &str = "~gone";

/// Removes an attempt whose writer is gone, or our own. It is renamed first: once its journal is
/// removed, nobody could know any more what it was.
pub(super) fn remove_attempt(attempts: &Dir, name: &str) -> Result<(), StoreError> {
    let gone = format!("{name}{GONE}");
    match attempts.rename(name, attempts, &gone) {
        // Another process was faster.
        Err(error) if error.errno() == Some(Errno::NOENT) => return Ok(()),
        renamed => renamed?,
    }
    attempts.remove_tree(&gone)
}

/// Removes those of `names` whose removal was cut off, and leaves the others.
pub(super) fn remove_gone(attempts: &Dir, names: &mut Vec<String>) -> Result<(), StoreError> {
    for gone in names.extract_if(.., |name| name.ends_with(GONE)) {
        attempts.remove_tree(&gone)?;
    }
    Ok(())
}

impl Attempt {
    /// Removes another attempt that has no journal to be read, if a power cut has taken it: its bytes
    /// may still be there. One of this boot is small, and may be about to begin; it stays.
    pub(super) fn remove_forgotten(
        &self,
        attempts: &Dir,
        name: &str,
        old: &Dir,
    ) -> Result<(), StoreError> {
        let id = name.strip_prefix(&self.state_name).and_then(|id| id.strip_prefix(ID_SEPARATOR));
        // `a~b~1` is an attempt of the family `a~b`, not of `a`.
        let Some(id) = id.filter(|id| !id.contains(ID_SEPARATOR)) else { return Ok(()) };
        if !filesystem::is_local(old) || !is_of_an_earlier_boot(old)? {
            return Ok(());
        }
        // A complete tree is the revision that it had just replaced.
        if self.state_name != IN_PLACE
            && let Some(tree) = old.child(TREE)?
            && with_sentinel(&tree, SentinelHead::read).is_ok_and(|sentinel| sentinel.is_some())
        {
            let own = self.state.make_child("revisions")?.make_child(&self.state_name)?;
            old.rename(TREE, &own, &format!("{KEPT_PREFIX}{id}"))?;
        }
        remove_attempt(attempts, name)
    }
}

/// Whether nothing has changed in `dir` since this kernel was started. A clock that jumps can only
/// make a difference to an attempt that is without a journal for an instant.
fn is_of_an_earlier_boot(dir: &Dir) -> Result<bool, StoreError> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let booted = now.saturating_sub(node::since_boot());
    Ok(dir.modified()? + Duration::from_secs(1) < booted)
}
