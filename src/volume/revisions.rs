//! The revisions of a family that lie beside each other, each at a path that never changes its content: the
//! one that the family is a link to, and those that were replaced.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::existing::{first_difference, read_sentinel, with_sentinel};
use super::layout::{LINK, REVISIONS};
use super::owner::MAX_ABOVE;
use super::show::cannot_link;
use super::staging::{ATTEMPTS, ID_SEPARATOR, Staging};
use super::sweep::GONE;
use super::{Destination, PublishedFiles, Store, StoreError};
use crate::fs::{Dir, Kind};
use crate::model::{ModelDir, RelPath, RemoteFile, STATE_DIR, Sentinel, SentinelHead, Snapshot};

/// A whole revision that the family does not show.
#[derive(Debug)]
pub struct Kept {
    /// Its name in `revisions/`.
    pub id: String,
    pub sentinel: Box<Sentinel>,
}

/// A tree that is kept, and since when, by the clock of the filesystem.
pub(super) struct KeptTree {
    pub id: String,
    pub since: Duration,
}

impl Store {
    /// The path of what the family shows that never changes its content, where it has one.
    pub fn revision_path(&self) -> Result<Option<PathBuf>, StoreError> {
        Ok(self.revision_id()?.map(|id| self.path_of_kept(&id)))
    }

    pub fn path_of_kept(&self, id: &str) -> PathBuf {
        if let Some(cache) = &self.cache {
            return self.cached_path(cache, id);
        }
        let Self { destination, .. } = self;
        let own = destination.root.join(STATE_DIR).join(REVISIONS);
        own.join(destination.family.file_name()).join(id)
    }

    /// The path of the revision of `sentinel`, which was found in the family: another process may show the
    /// next one by now.
    pub fn path_of_publication(&self, sentinel: &Sentinel) -> Result<Option<PathBuf>, StoreError> {
        if self.cache.is_some() {
            return Ok(Some(self.path_of_kept(&sentinel.revision)));
        }
        let is_it = |head: &SentinelHead| head.is_of(sentinel);
        if let Some(id) = self.revision_id()?
            && let Some(dir) = self.kept_dir(&id)?
            && with_sentinel(&dir, SentinelHead::read)?.as_ref().is_some_and(is_it)
        {
            return Ok(Some(self.path_of_kept(&id)));
        }
        let same = &mut |it: &Sentinel| it.is_same_publication(sentinel);
        let shows_it = self.revision_id()?.is_none();
        let kept = if shows_it { None } else { self.kept(&is_it, same)? };
        Ok(kept.map(|kept| self.path_of_kept(&kept.id)))
    }

    /// `path`, which is below the root, as somebody sees it who has the root that the user named at `root`.
    pub fn seen_from(&self, root: &Path, path: &Path) -> PathBuf {
        let named = self.outer.as_ref().map_or(&self.destination.root, |outer| &outer.root);
        path.strip_prefix(named).map_or_else(|_| path.to_owned(), |below| root.join(below))
    }

    /// The store, and the path, of the revision that `path` leads to, if it does.
    pub fn of_revision(path: &Path) -> Option<(Self, PathBuf)> {
        let real = std::fs::canonicalize(path).ok()?;
        let own = real.parent()?;
        let (state_name, revisions) = (own.file_name()?.to_str()?, own.parent()?);
        let state = revisions.parent()?;
        let is_ours = revisions.ends_with(REVISIONS) && state.ends_with(STATE_DIR);
        let family = ModelDir::of_file_name(state_name).filter(|_| is_ours)?;
        let root = state.parent()?.to_owned();
        Some((Self::of(Destination { root, family }), real))
    }

    /// The store of the model at `path` where no name shows it any more, if it has revisions.
    pub fn of_gone(path: &Path) -> Option<Self> {
        let path = std::path::absolute(path).ok()?;
        let above = path.ancestors().skip(1).take(MAX_ABOVE);
        let mut stores = above.filter_map(|root| {
            let family = ModelDir::parse(path.strip_prefix(root).ok()?.to_str()?).ok()?;
            Some(Self::of(Destination { root: root.to_owned(), family }))
        });
        stores.find(|store| matches!(store.revisions(), Ok(Some(_))))
    }

    /// The first kept revision that `is_wanted`, the one that was replaced last first. What cannot be read
    /// is not kept.
    pub fn kept(
        &self,
        is_candidate: &dyn Fn(&SentinelHead) -> bool,
        is_wanted: &mut dyn FnMut(&Sentinel) -> bool,
    ) -> Result<Option<Kept>, StoreError> {
        if let Some(cache) = &self.cache {
            return self.cached_kept(cache, is_candidate, is_wanted);
        }
        for KeptTree { id, .. } in self.kept_trees()? {
            let Ok(Some(dir)) = self.kept_dir(&id) else { continue };
            let Ok(Some(head)) = with_sentinel(&dir, SentinelHead::read) else { continue };
            if !is_candidate(&head) {
                continue;
            }
            let Ok(Some(sentinel)) = read_sentinel(&dir) else { continue };
            if is_wanted(&sentinel) && matches!(first_difference(&dir, &sentinel), Ok(None)) {
                return Ok(Some(Kept { id, sentinel: Box::new(sentinel) }));
            }
        }
        Ok(None)
    }

    /// The directory of a kept revision, if it is still there.
    pub fn kept_dir(&self, id: &str) -> Result<Option<Dir>, StoreError> {
        if self.cache.is_some() {
            return self.cached_dir(id);
        }
        Ok(self.revisions()?.map(|own| own.child(id)).transpose()?.flatten())
    }

    /// The files of a kept revision, if it is still there.
    pub fn kept_files(&self, id: &str) -> Result<Option<PublishedFiles>, StoreError> {
        match self.cache {
            Some(_) => self.cached_files(id),
            None => Ok(self.kept_dir(id)?.map(PublishedFiles::plain)),
        }
    }

    /// The files of what is shown, as its sentinel says it.
    pub fn shown_files(&self, sentinel: &Sentinel) -> Result<Option<PublishedFiles>, StoreError> {
        match self.cache {
            Some(_) => self.cached_files(&sentinel.revision),
            None => Ok(self.family_dir()?.map(PublishedFiles::plain)),
        }
    }

    /// What a server should load of what is shown.
    pub fn path_to_load(&self, sentinel: &Sentinel) -> PathBuf {
        match self.cache {
            Some(_) => self.path_of_kept(&sentinel.revision),
            None => self.family_path(),
        }
    }

    /// Lets a kept revision count as one that was in use until now, if we may.
    pub fn renew_kept(&self, id: &str) -> Result<(), StoreError> {
        if let Some(own) = self.revisions()? {
            let _ = own.touch(id);
        }
        Ok(())
    }

    /// Published trees that the family does not show, the one that was replaced last first.
    pub(super) fn kept_trees(&self) -> Result<Vec<KeptTree>, StoreError> {
        let Some(own) = self.revisions()? else { return Ok(Vec::new()) };
        let shown = self.revision_id()?;
        let attempts = self.state()?.map(|state| state.child(ATTEMPTS)).transpose()?.flatten();
        let mut trees = Vec::new();
        for id in own.names()? {
            if shown.as_ref() == Some(&id)
                || id.ends_with(GONE)
                || own.kind(&id)? != Some(Kind::Directory)
                || self.is_unpublished(attempts.as_ref(), &id)?
            {
                continue;
            }
            let since = own.modified_of(&id)?.unwrap_or_default();
            trees.push(KeptTree { id, since });
        }
        trees.sort_by_key(|tree| std::cmp::Reverse(tree.since));
        Ok(trees)
    }

    /// Whether a tree has its name in `revisions/` and nobody was ever led to it: its attempt still has the
    /// link, and whoever cleans up after that takes the tree back.
    fn is_unpublished(&self, attempts: Option<&Dir>, id: &str) -> Result<bool, StoreError> {
        let Some(attempts) = attempts else { return Ok(false) };
        let attempt = format!("{}{ID_SEPARATOR}{id}", self.state_name());
        let attempt = attempts.child(&attempt).ok().flatten();
        Ok(match attempt {
            Some(attempt) => attempt.kind(LINK)? == Some(Kind::Link),
            None => false,
        })
    }

    pub(super) fn state(&self) -> Result<Option<Dir>, StoreError> {
        let root = if self.in_place { None } else { self.root()? };
        Ok(root.map(|root| root.child(STATE_DIR)).transpose()?.flatten())
    }

    pub(super) fn revisions(&self) -> Result<Option<Dir>, StoreError> {
        let Some(state) = self.state()? else { return Ok(None) };
        let own = self.destination.family.file_name();
        Ok(state.descend([REVISIONS, own.as_str()].into_iter())?)
    }
}

impl Store {
    /// Lets the family show a kept revision again: no byte is written. Then `clean_up` is called, as after a
    /// publication. Returns whether that can be, which it cannot where there are no links.
    pub fn show_again(&self, kept: &Kept, clean_up: &dyn Fn(&Staging)) -> Result<bool, StoreError> {
        if self.cache.is_some() {
            return self.show_commit(&kept.sentinel).map(|()| true);
        }
        let staging = self.begin_without_bytes(&kept.sentinel, Vec::new())?;
        match staging.show_kept(self, &kept.id) {
            Err(error) if cannot_link(&error) => {
                staging.end(self)?;
                Ok(false)
            }
            // What is left is settled by the next run.
            Err(error) => Err(error),
            Ok(()) => {
                clean_up(&staging);
                staging.end(self)?;
                Ok(true)
            }
        }
    }

    /// Gives a family that is a directory, as an earlier version has published it, a path that never
    /// changes: the same files under second names, shown by a link. Returns whether that can be.
    pub fn become_link(&self, sentinel: &Sentinel) -> Result<bool, StoreError> {
        let (Some(family), Some(parent)) = (self.family_dir()?, self.parent()?) else {
            return Ok(false);
        };
        let mut staging = self.begin_without_bytes(sentinel, files_of(sentinel))?;
        let is_possible = match staging.make_link(&self.destination.family, "probe") {
            Err(error) if cannot_link(&error) => false,
            // Without an exchange there would be an instant without a model.
            made => made.and_then(|()| staging.exchange_works())? && staging.link_all(&family)?,
        };
        if !is_possible {
            staging.end(self)?;
            return Ok(false);
        }
        let sealed = staging.seal(sentinel)?;
        sealed.publish_again(self, &parent)?;
        staging.end(self)?;
        Ok(true)
    }

    pub(super) fn begin_without_bytes(
        &self,
        sentinel: &Sentinel,
        files: Vec<RemoteFile>,
    ) -> Result<Staging, StoreError> {
        let (source, revision) = (sentinel.source.clone(), sentinel.revision.clone());
        Staging::begin(self, &Snapshot::new(source, revision, Vec::new(), Vec::new()), files)
    }
}

impl Staging {
    fn show_kept(&self, store: &Store, id: &str) -> Result<(), StoreError> {
        let parent = store.make_parent()?;
        let family = &store.destination.family;
        let name = family.path().name();
        self.make_link(family, id)?;
        let revisions = self.revisions(family)?;
        revisions.sync()?;
        let there = parent.kind(name)?;
        match there {
            Some(Kind::Link) => {
                if let Some(shown) = store.revision_id()? {
                    let _ = revisions.touch(&shown);
                }
            }
            Some(Kind::Directory) => {
                // Nothing but a model of ours is put aside.
                if store.head()?.is_none() {
                    return Err(store.foreign());
                }
                let _ = parent.touch(name);
            }
            None | Some(Kind::File | Kind::Other) => {}
        }
        // Whoever removes old ones on another node does not see the link at once.
        let _ = revisions.touch(id);
        self.show_link(&parent, family, there)?;
        revisions.sync()?;
        self.dir.sync()?;
        store.sync_above()?;
        match revisions.kind(id)? {
            // Where no lock keeps others out, it may have been removed since it was found.
            None => Err(StoreError::Disturbed(revisions.path_of(id))),
            Some(_) => Ok(()),
        }
    }
}

/// What a sentinel lists, to be found again by its content.
fn files_of(sentinel: &Sentinel) -> Vec<RemoteFile> {
    let file = |file: &crate::model::SentinelFile| {
        Some(RemoteFile {
            path: RelPath::parse(&file.path).ok()?,
            size: file.size,
            digest: Some(crate::model::Digest::Sha256(file.sha256.0)),
            validator: None,
            xet_hash: None,
        })
    };
    sentinel.files.iter().filter_map(file).collect()
}
