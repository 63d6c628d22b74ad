//! The files on a volume of which a store of chunks may tell what they are made of: those of the Hub's models
//! below the root. They are opened for reading only, and no link is followed that reuse does not follow.

use std::collections::HashSet;
use std::fs::File;
use std::ops::ControlFlow;

use super::super::existing::{each_listed_file, with_sentinel};
use super::super::recheck::Surroundings;
use super::super::staging::Staging;
use super::super::{PublishedFiles, Store, StoreError};
use crate::content::{ChunkedFile, ChunkedPath};
use crate::fs::Dir;
use crate::model::{
    Giver, RelPath, SentinelFile, SentinelHead, SentinelProblem, each_sentinel_file,
};

/// Smaller files are fetched as quickly as they are asked about.
pub(super) const MIN_FILE_BYTES: u64 = 256 << 10;
/// Files that are remembered: what is known of them is some 64 KiB.
const MAX_FILES: usize = 256;
/// Revisions that are kept open, up to three descriptors each.
const MAX_REVISIONS: usize = 8;

/// Files that lie on the volume, the likeliest to have something in common with what is fetched first.
#[derive(Debug, Default)]
pub struct LocalFiles {
    /// Of the files that are fetched.
    paths: HashSet<RelPath>,
    /// The Hub that is asked: it is told of no model that came from another one.
    hub: String,
    revisions: Vec<LocalRevision>,
    files: Vec<LocalFile>,
}

#[derive(Debug)]
struct LocalRevision {
    files: PublishedFiles,
    repo: String,
    revision: String,
    giver: Giver,
}

#[derive(Debug)]
struct LocalFile {
    /// The number of the revision that it is of.
    of: usize,
    path: RelPath,
    chunked: ChunkedFile,
    is_same_path: bool,
}

/// How likely it is that a file has something in common with what is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Likeness {
    /// It has the path of one that is fetched, in another revision of the model.
    SamePath,
    SameModel,
    OtherModel,
}

impl Likeness {
    /// The likeliest first.
    pub const ALL: [Self; 3] = [Self::SamePath, Self::SameModel, Self::OtherModel];
}

/// A published revision whose sentinel does not tell what the store calls its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unnamed {
    of: usize,
    pub repo: String,
    pub revision: String,
}

impl Staging {
    /// Looks for files that may share bytes with those of `numbers`; and the published revision, if the store
    /// must be asked for the names of its files. What cannot be read is not there.
    pub fn local_files(
        &self,
        store: &Store,
        numbers: &[usize],
        hub: String,
        outside: &Surroundings<'_>,
    ) -> (LocalFiles, Option<Unnamed>) {
        let paths = numbers.iter().map(|n| self.files[*n].path.clone()).collect();
        let mut local = LocalFiles { paths, hub, ..LocalFiles::default() };
        let unnamed = match store.cache {
            Some(_) => local.look_at_cache(store),
            None => local.look_at_family(store, outside),
        };
        store.each_other_revision(&mut |_, dir| {
            let _ = dir.again().map(|dir| local.look_at(dir, Giver::OtherModel));
            if local.is_full() || !(outside.go_on)() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        let unnamed = unnamed.ok().flatten().map(|of| {
            let LocalRevision { repo, revision, .. } = &local.revisions[of];
            Unnamed { of, repo: repo.clone(), revision: revision.clone() }
        });
        (local, unnamed)
    }
}

impl LocalFiles {
    /// Looks at what the family shows, and at what is kept of it; only of the first it is told whether its files
    /// have names.
    fn look_at_family(
        &mut self,
        store: &Store,
        outside: &Surroundings<'_>,
    ) -> Result<Option<usize>, StoreError> {
        let shown = store.family_dir()?.map(|dir| self.look_at(dir, Giver::SameModel));
        for kept in store.kept_trees()? {
            if self.is_full() || !(outside.go_on)() {
                break;
            }
            if let Ok(Some(dir)) = store.kept_dir(&kept.id) {
                let _ = self.look_at(dir, Giver::SameModel);
            }
        }
        shown.unwrap_or(Ok(None))
    }

    /// Remembers what the sentinel in `dir` lists. Returns the number of the revision if its files have no
    /// names at the store.
    fn look_at(&mut self, dir: Dir, giver: Giver) -> Result<Option<usize>, StoreError> {
        let Some(head) = with_sentinel(&dir, SentinelHead::read)? else { return Ok(None) };
        if giver != Giver::SameModel && head.hub.as_ref() != Some(&self.hub) {
            return Ok(None);
        }
        let Some(of) = self.add_revision(&head, giver, PublishedFiles::plain(dir.again()?)) else {
            return Ok(None);
        };
        let mut has_names = false;
        each_listed_file(&dir, giver, &mut |file| {
            has_names |= file.xet_hash.is_some();
            self.remember(of, &file);
            ControlFlow::Continue(())
        })?;
        Ok((!has_names).then_some(of))
    }

    /// The same of the commits in a cache, the newest first; of that one it is told whether its files have names.
    fn look_at_cache(&mut self, store: &Store) -> Result<Option<usize>, StoreError> {
        let Some(repo) = store.cached_repo()? else { return Ok(None) };
        let mut unnamed = None;
        for (n, commit) in repo.commits()?.iter().enumerate() {
            let (Some(head), Some(files)) = (repo.head(commit)?, repo.files(commit)?) else {
                continue;
            };
            let Some(of) = self.add_revision(&head, Giver::SameModel, files) else { continue };
            let mut has_names = false;
            let mut each = |file: SentinelFile| {
                has_names |= file.xet_hash.is_some();
                self.remember(of, &file);
                ControlFlow::Continue(())
            };
            let read =
                |json| -> Result<(), SentinelProblem> { each_sentinel_file(json, &mut each) };
            repo.with_sentinel(commit, read)?;
            if n == 0 && !has_names {
                unnamed = Some(of);
            }
        }
        Ok(unnamed)
    }

    fn remember(&mut self, of: usize, file: &SentinelFile) {
        if let (Some(id), Ok(path)) = (&file.xet_hash, RelPath::parse(&file.path)) {
            let found = ChunkedPath { path, size: file.size, id: id.0 };
            self.remember_chunked(of, found);
        }
    }

    fn remember_chunked(&mut self, of: usize, ChunkedPath { path, size, id }: ChunkedPath) {
        if size < MIN_FILE_BYTES {
            return;
        }
        let is_same_path = self.paths.contains(&path);
        let LocalRevision { repo, revision, .. } = &self.revisions[of];
        let (repo, revision) = (repo.clone(), revision.clone());
        let chunked = ChunkedFile { repo, revision, id, size };
        self.add(LocalFile { of, path, chunked, is_same_path });
    }

    /// Remembers what the store has told of the files of a revision.
    pub fn add_listed(&mut self, unnamed: &Unnamed, listed: Vec<ChunkedPath>) {
        for file in listed {
            self.remember_chunked(unnamed.of, file);
        }
    }

    fn add_revision(
        &mut self,
        head: &SentinelHead,
        giver: Giver,
        files: PublishedFiles,
    ) -> Option<usize> {
        let repo = head.hub_repo()?;
        if self.revisions.len() == MAX_REVISIONS {
            return None;
        }
        let revision = head.revision.clone();
        self.revisions.push(LocalRevision { files, repo, revision, giver });
        Some(self.revisions.len() - 1)
    }

    /// In the order of preference; what is over is forgotten. The same content is asked for once.
    fn add(&mut self, file: LocalFile) {
        let likeness = self.likeness_of(&file);
        let same_content = self.files.iter().position(|known| known.chunked.id == file.chunked.id);
        match same_content {
            Some(known) if self.likeness_of(&self.files[known]) <= likeness => return,
            Some(known) => drop(self.files.remove(known)),
            None => {}
        }
        let rank = (likeness, file.of);
        let at = self.files.partition_point(|known| (self.likeness_of(known), known.of) <= rank);
        self.files.insert(at, file);
        self.files.truncate(MAX_FILES);
    }

    fn is_full(&self) -> bool {
        self.files.len() == MAX_FILES || self.revisions.len() == MAX_REVISIONS
    }

    fn likeness_of(&self, file: &LocalFile) -> Likeness {
        match (self.revisions[file.of].giver, file.is_same_path) {
            (Giver::SameModel, true) => Likeness::SamePath,
            (Giver::SameModel, false) => Likeness::SameModel,
            _ => Likeness::OtherModel,
        }
    }

    /// The numbers of the files that are so alike, in the order of preference, those of each revision
    /// together.
    pub fn alike(&self, likeness: Likeness) -> Vec<Vec<usize>> {
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for (n, file) in self.files.iter().enumerate() {
            if self.likeness_of(file) != likeness {
                continue;
            }
            match groups.last_mut() {
                Some(group) if self.files[group[0]].of == file.of => group.push(n),
                _ => groups.push(vec![n]),
            }
        }
        groups
    }

    /// What the store is asked of file `n`.
    pub fn chunked(&self, n: usize) -> &ChunkedFile {
        &self.files[n].chunked
    }

    /// Opens file `n`, if it lies there with the size that was listed.
    pub(super) fn open(&self, n: usize) -> Option<File> {
        let LocalFile { of, path, chunked, .. } = self.files.get(n)?;
        let (dir, name) = self.revisions[*of].files.find(path).ok().flatten()?;
        let file = dir.read_file(&name).ok().flatten()?;
        (file.metadata().ok()?.len() == chunked.size).then_some(file)
    }
}
