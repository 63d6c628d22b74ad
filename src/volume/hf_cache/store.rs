//! A repo in a cache as a place for one model: what a name of it shows, and what lies there beside that.

use std::path::PathBuf;

use super::super::existing::Existing;
use super::super::files::PublishedFiles;
use super::super::layout::CACHE_SENTINELS;
use super::super::{Kept, Stamp, Store, StoreError};
use super::repo::CachedRepo;
use crate::fs::Dir;
use crate::model::hf_cache::{BLOBS, CachedModel, SNAPSHOTS};
use crate::model::{Sentinel, SentinelHead};

impl Store {
    /// The directory of the repo, if it is there.
    pub(in super::super) fn cached_repo(&self) -> Result<Option<CachedRepo>, StoreError> {
        let Some(hub) = self.parent()? else { return Ok(None) };
        Ok(CachedRepo::open(hub, self.destination.family.path().name())?)
    }

    /// The commit that counts as shown: the one that is asked for, if weightlift has published it, else what
    /// the name leads to.
    fn shown(&self, cache: &CachedModel, repo: &CachedRepo) -> Result<Option<String>, StoreError> {
        if let Some(pin) = &cache.pin
            && repo.head(pin)?.is_some()
        {
            return Ok(Some(pin.clone()));
        }
        repo.named(cache.ref_name())
    }

    pub(in super::super) fn cached_head(
        &self,
        cache: &CachedModel,
    ) -> Result<Option<SentinelHead>, StoreError> {
        let Some(repo) = self.cached_repo()? else { return Ok(None) };
        let Some(commit) = self.shown(cache, &repo)? else { return Ok(None) };
        repo.head(&commit)
    }

    pub(in super::super) fn cached_existing(
        &self,
        cache: &CachedModel,
    ) -> Result<Existing, StoreError> {
        let Some(repo) = self.cached_repo()? else { return Ok(Existing::Nothing) };
        match self.shown(cache, &repo)? {
            Some(commit) => repo.existing(&commit),
            None => Ok(Existing::Nothing),
        }
    }

    pub(in super::super) fn cached_stamp(&self, cache: &CachedModel) -> Result<Stamp, StoreError> {
        let Some(repo) = self.cached_repo()? else { return Ok(Stamp::default()) };
        let Some(commit) = self.shown(cache, &repo)? else { return Ok(Stamp::default()) };
        let sentinel = repo.with_sentinel(&commit, Ok)?;
        let directory = repo.snapshot(&commit)?.map(|dir| dir.identity()).transpose()?;
        Ok(Stamp::new(directory, sentinel.as_ref(), Some(commit)))
    }

    /// Commits beside the one that is shown.
    pub(in super::super) fn cached_kept(
        &self,
        cache: &CachedModel,
        is_candidate: &dyn Fn(&SentinelHead) -> bool,
        is_wanted: &mut dyn FnMut(&Sentinel) -> bool,
    ) -> Result<Option<Kept>, StoreError> {
        let Some(repo) = self.cached_repo()? else { return Ok(None) };
        let shown = self.shown(cache, &repo)?;
        for id in repo.commits()? {
            if shown.as_ref() == Some(&id) {
                continue;
            }
            let Ok(Some(head)) = repo.head(&id) else { continue };
            if !is_candidate(&head) {
                continue;
            }
            if let Ok(Existing::Complete(sentinel)) = repo.existing(&id)
                && is_wanted(&sentinel)
            {
                return Ok(Some(Kept { id, sentinel }));
            }
        }
        Ok(None)
    }

    pub(in super::super) fn cached_dir(&self, commit: &str) -> Result<Option<Dir>, StoreError> {
        self.cached_repo()?.map(|repo| repo.snapshot(commit)).transpose().map(Option::flatten)
    }

    pub(in super::super) fn cached_files(
        &self,
        commit: &str,
    ) -> Result<Option<PublishedFiles>, StoreError> {
        self.cached_repo()?.map(|repo| repo.files(commit)).transpose().map(Option::flatten)
    }

    /// Where the files of a commit are.
    pub(in super::super) fn cached_path(&self, cache: &CachedModel, commit: &str) -> PathBuf {
        let family = self.family_path();
        cache.snapshot_path(family.parent().unwrap_or(&family), commit)
    }

    /// Makes the names durable that a publication of `commit` adds to the cache.
    pub(in super::super) fn sync_cached(
        &self,
        repo: &CachedRepo,
        commit: &str,
    ) -> Result<(), StoreError> {
        if let Some(snapshot) = repo.snapshot(commit)? {
            snapshot.sync()?;
        }
        for name in [BLOBS, SNAPSHOTS, CACHE_SENTINELS] {
            if let Some(dir) = repo.dir.child(name)? {
                dir.sync()?;
            }
        }
        repo.dir.sync()?;
        self.sync_above()
    }

    /// Lets the name that was asked for lead to the commit of `sentinel`, unless it does. A file is written
    /// only then.
    pub fn show_commit(&self, sentinel: &Sentinel) -> Result<(), StoreError> {
        let Some((repo, cache)) = self.lacking_name(sentinel)? else { return Ok(()) };
        let staging = self.begin_without_bytes(sentinel, Vec::new())?;
        staging.write_ref(&repo, cache, &sentinel.revision)?;
        staging.end(self)
    }

    /// Whether [`Store::show_commit`] has something to write.
    pub fn cache_lacks_name(&self, sentinel: &Sentinel) -> Result<bool, StoreError> {
        Ok(self.lacking_name(sentinel)?.is_some())
    }

    fn lacking_name(
        &self,
        sentinel: &Sentinel,
    ) -> Result<Option<(CachedRepo, &CachedModel)>, StoreError> {
        let Some(cache) = &self.cache else { return Ok(None) };
        let Some(repo) = self.cached_repo()? else { return Ok(None) };
        let named = repo.named(cache.ref_name())?;
        let is_missing = cache.must_be_named(named.as_deref(), &sentinel.revision);
        Ok(is_missing.then_some((repo, cache)))
    }

    /// Whether a client of the Hub will miss files of `sentinel` that were left out.
    pub fn lists_more(&self, sentinel: &Sentinel) -> Result<bool, StoreError> {
        if self.cache.is_none() || sentinel.left_out.is_empty() {
            return Ok(false);
        }
        let repo = self.cached_repo()?;
        Ok(repo.map(|repo| repo.is_listed(&sentinel.revision)).transpose()?.unwrap_or_default())
    }

    /// Everything that was published of the model which a publication of `revision` must not take away.
    pub fn heads(&self, revision: &str) -> Result<Vec<SentinelHead>, StoreError> {
        let there = match &self.cache {
            Some(_) => self.cached_repo()?.map(|repo| repo.head(revision)).transpose()?.flatten(),
            None => None,
        };
        Ok(self.head()?.into_iter().chain(there).collect())
    }
}
