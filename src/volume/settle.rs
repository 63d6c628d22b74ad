//! What a publisher that was killed between its renames has left to be put in its place.

use rustix::io::Errno;

use super::existing::with_sentinel;
use super::journal::Header;
use super::layout::{KEPT_PREFIX, LINK, REVISIONS};
use super::staging::{ID_SEPARATOR, TREE};
use super::{Store, StoreError};
use crate::fs::{Dir, FsError, Kind};
use crate::model::SentinelHead;

/// An attempt that was killed between the renames of its publication: its finished tree may lie in
/// `revisions/` with nothing that points to it, or what it replaced in its own directory.
pub(super) fn settle(
    state: &Dir,
    store: &Store,
    old: &Dir,
    name: &str,
    header: &Header,
) -> Result<(), StoreError> {
    if store.in_place {
        return Ok(());
    }
    let id = name.rsplit(ID_SEPARATOR).next().unwrap_or(name);
    let keep = |replaced: &str| {
        let own = state.make_child(REVISIONS)?.make_child(&header.family)?;
        unless_gone(old.rename(replaced, &own, &format!("{KEPT_PREFIX}{id}")))
    };
    let link = old.kind(LINK)?;
    if link == Some(Kind::Directory) {
        keep(LINK)?;
    }
    match old.child(TREE)? {
        // The link is the last to leave: without it the tree was published, whatever has become of
        // it since.
        None if link == Some(Kind::Link) => {
            let revisions = state.child(REVISIONS)?;
            let own = revisions.map(|dir| dir.child(&header.family)).transpose()?.flatten();
            let is_live = store.revision_id()?.is_some_and(|shown| shown == id);
            if let Some(own) = own.filter(|_| !is_live)
                && own.kind(id)? == Some(Kind::Directory)
            {
                unless_gone(own.rename(id, old, TREE))?;
            }
        }
        Some(tree) if is_complete(&tree) && tree.identity()?.1 != header.tree => keep(TREE)?,
        None | Some(_) => {}
    }
    Ok(())
}

/// Keeps what an attempt that nobody can read any more has replaced.
pub(super) fn keep_replaced(old: &Dir, own: &Dir, id: &str) -> Result<(), StoreError> {
    for name in [TREE, LINK] {
        // A directory in the place of the link had the family's name, whoever had put it there.
        let is_replaced = |tree: &Dir| name == LINK || is_complete(tree);
        if old.kind(name)? == Some(Kind::Directory)
            && old.child(name)?.is_some_and(|tree| is_replaced(&tree))
        {
            old.rename(name, own, &format!("{KEPT_PREFIX}{id}"))?;
        }
    }
    Ok(())
}

pub(super) fn is_complete(tree: &Dir) -> bool {
    with_sentinel(tree, SentinelHead::read).is_ok_and(|head| head.is_some())
}

/// Another process may have been faster.
fn unless_gone(renamed: Result<(), FsError>) -> Result<(), FsError> {
    renamed.or_else(|error| if error.errno() == Some(Errno::NOENT) { Ok(()) } else { Err(error) })
}
