//! How a finished attempt becomes the family directory: the only place that knows.

use std::collections::BTreeSet;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use rustix::io::Errno;

use super::existing::with_sentinel;
use super::layout::owned_parts;
use super::show::cannot_link;
use super::staging::{ATTEMPTS, CACHE_SENTINEL, Staging, TREE};
use super::sweep::remove_attempt;
use super::{Existing, Store, StoreError};
use crate::fs::{Dir, Kind, filesystem};
use crate::model::{SENTINEL, Sentinel, SentinelHead};

/// What publishing has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Published {
    New,
    /// The family held another revision before, which is kept here.
    Replaced {
        previous: PathBuf,
    },
    /// What somebody had put there, as the user knows, lies here now.
    TookOver {
        aside: PathBuf,
    },
    /// As `Replaced`, in a directory that had to be filled file by file.
    Refilled,
    /// Another process has published the same in the meantime; ours was dropped.
    ByOther,
}

/// How a tree is published.
#[derive(Clone, Copy, Debug, Default)]
pub struct Publication<'a> {
    /// Where nothing else works: file by file.
    pub allow_degraded: bool,
    /// What lies there may be of another source.
    pub replace: bool,
    /// The copy that lies there and has wrong bytes: that it says of itself what we would say is no reason
    /// to leave it.
    pub distrusted: Option<&'a Sentinel>,
}

/// A tree that is whole and durable, and not published yet.
pub struct Sealed<'a> {
    staging: &'a Staging,
    sentinel: &'a Sentinel,
}

impl Sealed<'_> {
    /// Makes the tree the family directory and returns when that is durable.
    pub fn publish(
        self,
        store: &Store,
        publication: Publication<'_>,
    ) -> Result<Published, StoreError> {
        let Self { staging, sentinel } = self;
        if let Some(cache) = &store.cache {
            return staging.publish_in_cache(store, cache, sentinel, publication);
        }
        let published = if store.in_place {
            staging.fill_in_place(store, sentinel, publication)?
        } else {
            staging.publish_beside(store, sentinel, publication)?
        };
        if published == Published::ByOther {
            // The other process may not have come so far yet.
            store.sync_above()?;
        }
        Ok(published)
    }

    /// The same where the family is a directory that says of itself what this tree does.
    pub(super) fn publish_again(self, store: &Store, parent: &Dir) -> Result<(), StoreError> {
        let Self { staging, .. } = self;
        staging.replace(store, parent, Kind::Directory)?;
        staging.dir.sync()?;
        store.sync_above()?;
        staging.check_published(store)
    }
}

impl Staging {
    /// Writes the sentinel, into the tree or beside it, and makes all names in it durable. What is left is to publish.
    ///
    /// Every file must have been synced by whoever wrote it.
    pub fn seal<'a>(&'a self, sentinel: &'a Sentinel) -> Result<Sealed<'a>, StoreError> {
        self.write_sentinel(sentinel)?;
        Ok(Sealed { staging: self, sentinel })
    }

    /// Drops the attempt: nothing of it is needed.
    pub fn end(self, store: &Store) -> Result<(), StoreError> {
        self.sweep(store)?;
        let Self { id, state, journal, .. } = self;
        // NFS keeps a file that is removed while it is open, under another name.
        drop(journal);
        remove_attempt(&state.make_child(ATTEMPTS)?, &id)
    }

    fn write_sentinel(&self, sentinel: &Sentinel) -> Result<(), StoreError> {
        let (dir, name) = match self.is_for_cache {
            true => (&self.dir, CACHE_SENTINEL),
            false => (&self.tree, SENTINEL),
        };
        let path = dir.path_of(name);
        let file = dir.create_file(name)?;
        // In pieces: with very many files it would be the largest thing in memory.
        let mut out = BufWriter::new(&file);
        sentinel
            .write(&mut out)
            .and_then(|()| out.flush())
            .map_err(|error| StoreError::io("write", &path, error))?;
        drop(out);
        rustix::fs::fsync(&file).map_err(|error| StoreError::io("sync", &path, error))?;
        // The names have to be looked at anyway: somebody may have cleaned up under us.
        let expected = self.files.len() + usize::from(!self.is_for_cache);
        if sync_tree(&self.tree, "", &self.files_with_owned_names())? == expected {
            return Ok(());
        }
        Err(StoreError::Disturbed(self.tree.path().to_owned()))
    }

    /// Fails if what lies at the family path now is neither our tree nor a complete model: somebody
    /// has put something else in the place of the tree that was renamed.
    fn check_published(&self, store: &Store) -> Result<(), StoreError> {
        let there = store.family_dir()?.map(|dir| dir.identity()).transpose()?;
        if there == Some(self.tree.identity()?)
            || matches!(store.existing()?, Existing::Complete(_))
        {
            return Ok(());
        }
        Err(StoreError::Disturbed(store.family_path()))
    }

    fn rename_into(&self, parent: &Dir, name: &str) -> Result<Published, StoreError> {
        self.dir.rename(TREE, parent, name)?;
        Ok(Published::New)
    }

    fn publish_beside(
        &self,
        store: &Store,
        sentinel: &Sentinel,
        publication: Publication<'_>,
    ) -> Result<Published, StoreError> {
        let parent = store.make_parent()?;
        let family = &store.destination.family;
        let name = family.path().name();
        // Twice: what is there can change between the look and the step.
        for _ in 0..2 {
            let done = match parent.kind(name)? {
                None => match self.link_to_revision(&parent, family, None) {
                    Err(error) if self.cannot_be_linked(&error)? => self.rename_into(&parent, name),
                    done => done.map(|()| Published::New),
                },
                Some(kind) => {
                    if is_published(store, sentinel, publication)? {
                        return Ok(Published::ByOther);
                    }
                    self.replace(store, &parent, kind)
                }
            };
            match done {
                Ok(published) => {
                    self.dir.sync()?;
                    store.sync_above()?;
                    self.check_published(store)?;
                    return Ok(published);
                }
                Err(error) => match error.errno() {
                    // xfs says EEXIST where others say ENOTEMPTY; EISDIR is for links.
                    Some(Errno::NOTEMPTY | Errno::EXIST | Errno::ISDIR | Errno::NOENT) => {}
                    Some(Errno::BUSY) => {
                        return self.fill_in_place(store, sentinel, publication);
                    }
                    _ if publication.allow_degraded && cannot_link(&error) => {
                        return self.fill_in_place(store, sentinel, publication);
                    }
                    _ if cannot_link(&error) => {
                        return Err(StoreError::NoAtomicPublication(store.family_path()));
                    }
                    _ => return Err(error),
                },
            }
        }
        if is_published(store, sentinel, publication)? {
            return Ok(Published::ByOther);
        }
        Err(store.foreign())
    }

    /// Puts the tree in the place of an older one, which is kept: readers may have it mapped, and
    /// on NFS removing a mapped file kills them.
    pub(super) fn replace(
        &self,
        store: &Store,
        parent: &Dir,
        kind: Kind,
    ) -> Result<Published, StoreError> {
        let family = &store.destination.family;
        let revisions = self.revisions(family)?;
        match kind {
            Kind::Link => {
                let previous = store.revision_id()?;
                if let Some(previous) = &previous {
                    // Its age is the time since it was replaced. Another user's stays as it is.
                    let _ = revisions.touch(previous);
                }
                self.link_to_revision(parent, family, Some(kind))?;
                let previous = previous.map(|id| revisions.path_of(&id));
                Ok(previous.map_or(Published::New, |previous| Published::Replaced { previous }))
            }
            Kind::Directory => {
                let there = store.family_dir()?;
                let is_taken_over = there.as_ref().is_some_and(|dir| store.takes_over(dir));
                let head =
                    there.as_ref().map(|dir| with_sentinel(dir, SentinelHead::read)).transpose()?;
                if head.flatten().is_none() && !is_taken_over {
                    return Err(store.foreign());
                }
                // One may have come since it was looked at.
                if let Some(there) = there.as_ref().filter(|_| is_taken_over) {
                    store.refuse_models_below(there)?;
                }
                let _ = parent.touch(family.path().name());
                match self.link_to_revision(parent, family, Some(kind)) {
                    // Nobody could tell a directory without a sentinel from a tree of ours.
                    Err(error)
                        if !is_taken_over
                            && self.cannot_be_linked(&error)?
                            && self.exchange_works()? =>
                    {
                        self.dir.exchange(TREE, parent, family.path().name())?;
                        self.dir.rename(TREE, &revisions, &self.kept_name())?;
                    }
                    done => done?,
                }
                revisions.sync()?;
                let kept = revisions.path_of(&self.kept_name());
                Ok(if is_taken_over {
                    Published::TookOver { aside: kept }
                } else {
                    Published::Replaced { previous: kept }
                })
            }
            Kind::File | Kind::Other => Err(store.in_the_way(parent)),
        }
    }

    /// Files and directories of the model whose names a filesystem could have as well.
    fn files_with_owned_names(&self) -> BTreeSet<&str> {
        self.files.iter().flat_map(|file| owned_parts(file.path.as_str())).collect()
    }
}

/// Whether the family is complete with the same content already, whoever fetched it and when. Fails where
/// another model has appeared there, unless that may be replaced.
pub(super) fn is_published(
    store: &Store,
    ours: &Sentinel,
    publication: Publication<'_>,
) -> Result<bool, StoreError> {
    let Some(family) = store.family_dir()? else { return Ok(false) };
    // Without its files first: an update needs no more.
    let Some(head) = with_sentinel(&family, SentinelHead::read)? else { return Ok(false) };
    if !publication.replace && !head.is_same_source(ours) {
        return Err(StoreError::AnotherModel {
            path: store.family_path(),
            source_name: head.source,
        });
    }
    if !head.is_of(ours) {
        return Ok(false);
    }
    let Existing::Complete(there) = store.existing()? else { return Ok(false) };
    let is_distrusted = publication.distrusted.is_some_and(|it| it.is_same_publication(&there));
    Ok(!is_distrusted && there.files == ours.files)
}

/// Makes the names in a tree durable, the deepest first; returns how many files there are. What a
/// filesystem has put there is left out, unless a file of the model has that name or lies below it.
pub(super) fn sync_tree(
    dir: &Dir,
    above: &str,
    ours: &BTreeSet<&str>,
) -> Result<usize, StoreError> {
    let mut files = 0;
    for name in dir.names()? {
        let path = || format!("{above}{name}");
        if filesystem::owns(&name) && !ours.contains(path().as_str()) {
            continue;
        }
        match dir.kind(&name)? {
            Some(Kind::File) => files += 1,
            Some(Kind::Directory) => {
                if let Some(child) = dir.child(&name)? {
                    files += sync_tree(&child, &(path() + "/"), ours)?;
                }
            }
            Some(Kind::Link | Kind::Other) | None => {}
        }
    }
    dir.sync()?;
    Ok(files)
}
