//! What lies in the directory of one repo.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;

use super::super::StoreError;
use super::super::existing::{Existing, with_sentinel_at};
use super::super::files::{Blobs, PublishedFiles};
use super::super::layout::CACHE_SENTINELS;
use crate::fs::{Dir, FsError, Kind};
use crate::model::hf_cache::{BLOBS, REFS, SNAPSHOTS, TREES, commit_in};
use crate::model::{Sentinel, SentinelHead, SentinelProblem};

/// A commit and a line end.
const MAX_REF_BYTES: u64 = 64;

/// `models--org--name` in a cache.
#[derive(Debug)]
pub(in super::super) struct CachedRepo {
    /// Where repos lie beside each other. Links of blobs may lead to what they have in common.
    pub hub: Dir,
    pub dir: Dir,
    folder: String,
}

/// One commit of a repo that weightlift has published in a cache.
#[derive(Debug)]
pub struct CachedSnapshot {
    repo: CachedRepo,
    pub commit: String,
}

impl CachedRepo {
    pub fn open(hub: Dir, folder: &str) -> Result<Option<Self>, FsError> {
        let Some(dir) = hub.child(folder)? else { return Ok(None) };
        Ok(Some(Self { hub, dir, folder: folder.to_owned() }))
    }

    /// The commit that the name `at` leads to. What cannot be one is none.
    pub fn named(&self, at: &str) -> Result<Option<String>, StoreError> {
        let (above, name) = at.rsplit_once('/').unwrap_or(("", at));
        let above = above.split('/').filter(|part| !part.is_empty());
        let read = self.dir.descend([REFS].into_iter().chain(above)).and_then(|dir| {
            let text = dir.map(|dir| dir.read(name, MAX_REF_BYTES)).transpose()?.flatten();
            Ok(text.and_then(|text| commit_in(&text)))
        });
        match read {
            Err(error) if is_other_kind(&error) => Ok(None),
            read => Ok(read?),
        }
    }

    /// The commits that have a sentinel, the newest first.
    pub fn commits(&self) -> Result<Vec<String>, StoreError> {
        let Some(sentinels) = self.dir.child(CACHE_SENTINELS)? else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for name in sentinels.names()? {
            let commit = name.strip_suffix(".json").and_then(|it| commit_in(it.as_bytes()));
            if let Some(commit) = commit {
                found.push((sentinels.modified_of(&name)?, commit));
            }
        }
        found.sort_by(|one, other| other.cmp(one));
        Ok(found.into_iter().map(|(_, commit)| commit).collect())
    }

    pub fn head(&self, commit: &str) -> Result<Option<SentinelHead>, StoreError> {
        self.with_sentinel(commit, SentinelHead::read)
    }

    pub fn sentinel(&self, commit: &str) -> Result<Option<Sentinel>, StoreError> {
        self.with_sentinel(commit, Sentinel::read)
    }

    /// When the sentinel of `commit` was written, since 1970.
    pub fn published(&self, commit: &str) -> Result<Option<Duration>, StoreError> {
        let Some(sentinels) = self.dir.child(CACHE_SENTINELS)? else { return Ok(None) };
        Ok(sentinels.modified_of(&sentinel_name(commit))?)
    }

    pub fn snapshot_path(&self, commit: &str) -> PathBuf {
        self.dir.path().join(SNAPSHOTS).join(commit)
    }

    /// Whether a client has noted what all the commit lists: without the network it wants all of that.
    pub fn is_listed(&self, commit: &str) -> Result<bool, StoreError> {
        let Some(trees) = self.dir.child(TREES)? else { return Ok(false) };
        Ok(trees.kind(&sentinel_name(commit))?.is_some())
    }

    pub fn with_sentinel<T>(
        &self,
        commit: &str,
        read: impl FnOnce(std::fs::File) -> Result<T, SentinelProblem>,
    ) -> Result<Option<T>, StoreError> {
        let Some(sentinels) = self.dir.child(CACHE_SENTINELS)? else { return Ok(None) };
        with_sentinel_at(&sentinels, &sentinel_name(commit), read)
    }

    /// What lies there of `commit`.
    pub fn existing(&self, commit: &str) -> Result<Existing, StoreError> {
        let Some(sentinel) = self.sentinel(commit)? else { return Ok(Existing::Nothing) };
        let difference = match self.files(commit)? {
            Some(files) => files.first_difference(&sentinel)?,
            None => Some(format!("`{SNAPSHOTS}/{commit}` is missing")),
        };
        Ok(match difference {
            None => Existing::Complete(Box::new(sentinel)),
            Some(difference) => Existing::Damaged(Box::new(sentinel), difference),
        })
    }

    /// The files of `commit`, if its directory is there.
    pub fn files(&self, commit: &str) -> Result<Option<PublishedFiles>, StoreError> {
        let Some(dir) = self.snapshot(commit)? else { return Ok(None) };
        Ok(Some(PublishedFiles::of_cache(dir, self.blobs()?)))
    }

    pub fn snapshot(&self, commit: &str) -> Result<Option<Dir>, StoreError> {
        Ok(self.dir.descend([SNAPSHOTS, commit].into_iter())?)
    }

    pub fn blobs(&self) -> Result<Option<Blobs>, StoreError> {
        let Some(dir) = self.dir.child(BLOBS)? else { return Ok(None) };
        Ok(Some(Blobs { hub: self.hub.again()?, repo: self.folder.clone(), dir }))
    }
}

/// The file about a commit, in a directory of such files.
pub(super) fn sentinel_name(commit: &str) -> String {
    format!("{commit}.json")
}

/// Something else than was looked for has the name.
pub(super) fn is_other_kind(error: &FsError) -> bool {
    matches!(error.errno(), Some(Errno::NOTDIR | Errno::LOOP | Errno::INVAL | Errno::ISDIR))
}

impl CachedSnapshot {
    /// The commit that `path` is of, if it lies in a cache: that of `snapshots/<commit>`, or of a whole repo
    /// the one that `main` names, or that alone has a sentinel.
    pub fn at(path: &Path) -> Result<Option<Self>, StoreError> {
        let Ok(real) = std::fs::canonicalize(path) else { return Ok(None) };
        let name = |path: &Path| path.file_name().and_then(|it| it.to_str()).map(str::to_owned);
        let named = real.parent().filter(|above| above.ends_with(SNAPSHOTS));
        let commit = named.and_then(|_| commit_in(name(&real)?.as_bytes()));
        let repo = match (&commit, named.and_then(Path::parent)) {
            (Some(_), Some(repo)) => repo,
            _ => real.as_path(),
        };
        let (Some(hub), Some(folder)) = (repo.parent(), name(repo)) else { return Ok(None) };
        // Whoever may not look there may still read a model that is no cache.
        let Ok(Some(hub)) = Dir::open(hub) else { return Ok(None) };
        let Ok(Some(repo)) = CachedRepo::open(hub, &folder) else { return Ok(None) };
        if !matches!(repo.dir.kind(CACHE_SENTINELS), Ok(Some(Kind::Directory))) {
            return Ok(None);
        }
        let commits = repo.commits()?;
        if let Some(commit) = commit {
            return Ok(commits.contains(&commit).then_some(Self { repo, commit }));
        }
        let main = repo.named("main")?.filter(|commit| commits.contains(commit));
        let commit = main.or_else(|| (commits.len() == 1).then(|| commits[0].clone()));
        Ok(commit.map(|commit| Self { repo, commit }))
    }

    /// Another commit of the repo, if weightlift has published it; else the same.
    pub fn of_commit(mut self, commit: &str) -> Result<Self, StoreError> {
        if self.repo.commits()?.iter().any(|other| other == commit) {
            commit.clone_into(&mut self.commit);
        }
        Ok(self)
    }

    pub fn sentinel(&self) -> Result<Option<Sentinel>, StoreError> {
        self.repo.sentinel(&self.commit)
    }

    /// Its files, if the directory is there.
    pub fn files(&self) -> Result<Option<PublishedFiles>, StoreError> {
        self.repo.files(&self.commit)
    }

    pub fn path(&self) -> PathBuf {
        self.repo.snapshot_path(&self.commit)
    }
}
