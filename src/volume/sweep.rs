//! Removing attempts so that a kill in the middle leaves nothing that nobody can name.

use std::time::{Duration, SystemTime};

use rustix::io::Errno;

use super::StoreError;
use super::attempts::open_attempt;
use super::journal::{self, JOURNAL};
use super::layout::{IN_PLACE, REVISIONS, owned_parts};
use super::remove::Removal;
use super::settle::keep_replaced;
use super::staging::{ID_SEPARATOR, Staging, TREE};
use crate::fs::{Dir, filesystem, node};
use crate::model::RelPath;

/// Ends the name of an attempt that is being removed: whoever sees it may go on with that.
pub(super) const GONE: &str = "~gone";

/// Removes an attempt whose writer is gone, or our own. It is renamed first: once its journal is
/// removed, nobody could know any more what it was.
pub(super) fn remove_attempt(attempts: &Dir, name: &str) -> Result<(), StoreError> {
    let gone = format!("{name}{GONE}");
    match attempts.rename(name, attempts, &gone) {
        // Another process was faster.
        Err(error) if error.errno() == Some(Errno::NOENT) => return Ok(()),
        // As on a volume where nothing can be renamed, which the probe has just found out.
        Err(_) => return remove_as_it_is(attempts, name),
        Ok(()) => {}
    }
    remove_renamed(attempts, &gone)
}

/// Removes an attempt under its own name, its journal last.
fn remove_as_it_is(attempts: &Dir, name: &str) -> Result<(), StoreError> {
    if let Some(dir) = open_attempt(attempts, name)? {
        for part in dir.names()?.iter().filter(|part| *part != JOURNAL) {
            dir.remove_tree(part)?;
        }
    }
    attempts.remove_tree(name).map(|_| ())
}

/// Removes an attempt that has got its last name. What is of the model in it goes also where a
/// filesystem could have put it there; the journal tells.
pub(super) fn remove_renamed(attempts: &Dir, gone: &str) -> Result<(), StoreError> {
    if let Some(dir) = open_attempt(attempts, gone)?
        && dir.remove_tree(TREE)? == Removal::Held
        && let Some(tree) = dir.child(TREE)?
    {
        let files = journal::read(&dir)?.map(|(_, files)| files).unwrap_or_default();
        for path in files.iter().filter_map(|file| RelPath::parse(&file.path).ok()) {
            if owned_parts(path.as_str()).next().is_some() {
                remove_listed(&tree, &path)?;
            }
        }
    }
    attempts.remove_tree(gone).map(|_| ())
}

/// Removes a file, and the directories above it that are empty then.
fn remove_listed(tree: &Dir, path: &RelPath) -> Result<(), StoreError> {
    let mut above = vec![tree.again()?];
    for part in path.parent().into_iter().flat_map(|parent| parent.split('/')) {
        let Some(child) = above[above.len() - 1].child(part)? else { return Ok(()) };
        above.push(child);
    }
    above[above.len() - 1].remove_file(path.name())?;
    for (part, dir) in path.parts().rev().skip(1).zip(above.iter().rev().skip(1)) {
        if dir.remove_dir(part).is_err() {
            // There is more in it.
            break;
        }
    }
    Ok(())
}

/// Removes those of `names` whose removal was cut off, and leaves the others.
pub(super) fn remove_gone(attempts: &Dir, names: &mut Vec<String>) -> Result<(), StoreError> {
    for gone in names.extract_if(.., |name| name.ends_with(GONE)) {
        match remove_renamed(attempts, &gone) {
            // Another user's, who goes on with it.
            Err(error) if error.is_closed() => {}
            removed => removed?,
        }
    }
    Ok(())
}

impl Staging {
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
        if self.state_name != IN_PLACE {
            let own = self.state.make_child(REVISIONS)?.make_child(&self.state_name)?;
            keep_replaced(old, &own, id)?;
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
