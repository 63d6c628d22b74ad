//! How a finished attempt becomes a snapshot in a cache: blobs, then the directory of links by one rename, then
//! our sentinel, then the name that a server asks for. Each step is durable before the next, so that whatever
//! a name leads to is whole. What others have put there is replaced only where it is wrong.

use std::collections::HashSet;
use std::os::unix::fs::{FileExt, MetadataExt};

use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;

use super::super::existing::Existing;
use super::super::files::Blobs;
use super::super::layout::CACHE_SENTINELS;
use super::super::publish::{Publication, Published, sync_tree};
use super::super::show::cannot_link;
use super::super::staging::{CACHE_SENTINEL, CACHE_SNAPSHOT, Staging, TREE};
use super::super::{Store, StoreError};
use super::repo::{CachedRepo, sentinel_name};
use crate::fs::{Dir, Kind};
use crate::model::hf_cache::{BLOBS, CachedModel, REFS, SNAPSHOTS, blob_name, link_target};
use crate::model::{RelPath, Sentinel, SentinelFile, Sha256};
use crate::verify::FileHasher;

const BUFFER_BYTES: usize = 256 << 10;
/// In the attempt: the file that becomes the name.
const NEW_REF: &str = "cache-ref";

impl Staging {
    /// Publishes the sealed tree in the cache that `store` is in.
    pub(in super::super) fn publish_in_cache(
        &self,
        store: &Store,
        cache: &CachedModel,
        sentinel: &Sentinel,
        publication: Publication<'_>,
    ) -> Result<Published, StoreError> {
        let hub = store.make_parent()?;
        let folder = store.destination.family.path().name();
        hub.make_child(folder)?;
        let missing = || StoreError::Disturbed(store.family_path());
        let repo = CachedRepo::open(hub, folder)?.ok_or_else(missing)?;
        let commit = sentinel.revision.as_str();
        let there = repo.head(commit)?;
        if let Some(there) = there.as_ref().filter(|there| !there.is_same_source(sentinel)) {
            let path = store.cached_path(cache, commit);
            return Err(StoreError::AnotherModel { path, source_name: there.source.clone() });
        }
        let published = if is_published(&repo, sentinel, publication)? {
            Published::ByOther
        } else {
            let before = store.head()?;
            self.add_snapshot(&repo, sentinel, publication.allow_degraded)?;
            repo.dir.make_child(REFS)?;
            store.sync_cached(&repo, commit)?;
            self.add_sentinel(&repo, commit)?;
            if before.or(there).is_some() { Published::Refilled } else { Published::New }
        };
        store.sync_cached(&repo, commit)?;
        if !matches!(repo.existing(commit)?, Existing::Complete(_)) {
            return Err(StoreError::Disturbed(store.cached_path(cache, commit)));
        }
        if cache.must_be_named(repo.named(cache.ref_name())?.as_deref(), commit) {
            self.write_ref(&repo, cache, commit)?;
        }
        Ok(published)
    }

    /// Blobs, and the directory that links to them; where there are no links, a directory of files.
    fn add_snapshot(
        &self,
        repo: &CachedRepo,
        sentinel: &Sentinel,
        allow_degraded: bool,
    ) -> Result<(), StoreError> {
        let has_links = self.abilities.get().is_none_or(|abilities| abilities.symbolic_links);
        let tree = if has_links {
            self.link_blobs(repo, sentinel)?;
            CACHE_SNAPSHOT
        } else {
            each(sentinel, &mut |path, _| self.protect(&self.staged(TREE, path)?, path.name()))?;
            TREE
        };
        let snapshots = repo.dir.make_child(SNAPSHOTS)?;
        let commit = &sentinel.revision;
        if snapshots.kind(commit)?.is_none() {
            match self.dir.rename(tree, &snapshots, commit) {
                Ok(()) => return Ok(self.dir.sync()?),
                // Another process has begun it: what it lacks is added.
                Err(error) if matches!(error.errno(), Some(Errno::NOTEMPTY | Errno::EXIST)) => {}
                Err(error) => match StoreError::from(error) {
                    error if allow_degraded && cannot_link(&error) => {}
                    error => return Err(error),
                },
            }
        }
        let snapshot = snapshots.make_child(commit)?;
        each(sentinel, &mut |path, file| self.add_path(tree, &snapshot, path, file))?;
        sync_tree(&snapshot, "", &Default::default())?;
        Ok(())
    }

    /// Lets every file have its blob, and makes a tree of links to these.
    fn link_blobs(&self, repo: &CachedRepo, sentinel: &Sentinel) -> Result<(), StoreError> {
        repo.dir.make_child(BLOBS)?;
        let missing = || StoreError::Disturbed(repo.dir.path_of(BLOBS));
        let blobs = repo.blobs()?.ok_or_else(missing)?;
        let links = self.dir.make_child(CACHE_SNAPSHOT)?;
        let mut placed: HashSet<[u8; 32]> = HashSet::new();
        each(sentinel, &mut |path, file| {
            let name = blob_name(file);
            if placed.insert(file.sha256.0) {
                self.add_blob(&blobs, path, file, &name)?;
            }
            let above = path.parent().into_iter().flat_map(|parent| parent.split('/'));
            Ok(links.make_path(above)?.link(&link_target(path, &name), path.name())?)
        })?;
        blobs.dir.sync()?;
        sync_tree(&links, "", &Default::default())?;
        Ok(())
    }

    /// Moves a staged file to its blob. One that is there already is left if it is right: somebody may read it.
    fn add_blob(
        &self,
        blobs: &Blobs,
        path: &RelPath,
        file: &SentinelFile,
        name: &str,
    ) -> Result<(), StoreError> {
        let from = self.staged(TREE, path)?;
        match blobs.dir.kind(name)? {
            Some(Kind::Directory) => {
                let path = blobs.dir.path_of(name);
                return Err(StoreError::InTheWay { path, what: "a directory".into() });
            }
            Some(Kind::File | Kind::Link | Kind::Other) => {
                if let Some((dir, there)) = blobs.find(name)?
                    && is_right(&dir, &there, file, Some((&from, path.name())))
                {
                    return Ok(());
                }
            }
            None => {}
        }
        self.protect(&from, path.name())?;
        Ok(from.rename(path.name(), &blobs.dir, name)?)
    }

    /// Gives one path of a snapshot that is there already what it is to have.
    fn add_path(
        &self,
        tree: &str,
        snapshot: &Dir,
        path: &RelPath,
        file: &SentinelFile,
    ) -> Result<(), StoreError> {
        let above = path.parent().into_iter().flat_map(|parent| parent.split('/'));
        let (from, to) = (self.staged(tree, path)?, snapshot.make_path(above)?);
        let name = path.name();
        let is_there = match (to.kind(name)?, from.kind(name)?) {
            (Some(Kind::Link), Some(Kind::Link)) => {
                to.link_target(name)? == from.link_target(name)?
            }
            (Some(Kind::File), Some(Kind::File)) => is_right(&to, name, file, None),
            _ => false,
        };
        if is_there { Ok(()) } else { Ok(from.rename(name, &to, name)?) }
    }

    fn add_sentinel(&self, repo: &CachedRepo, commit: &str) -> Result<(), StoreError> {
        let sentinels = repo.dir.make_child(CACHE_SENTINELS)?;
        Ok(self.dir.rename(CACHE_SENTINEL, &sentinels, &sentinel_name(commit))?)
    }

    /// Lets the name lead to `commit`, in one step. Clients write into such a file, so that it stays writable.
    pub(super) fn write_ref(
        &self,
        repo: &CachedRepo,
        cache: &CachedModel,
        commit: &str,
    ) -> Result<(), StoreError> {
        let (above, name) = cache.ref_name().rsplit_once('/').unwrap_or(("", cache.ref_name()));
        let above = above.split('/').filter(|part| !part.is_empty());
        let mut at = repo.dir.make_child(REFS)?;
        let mut dirs = Vec::new();
        for part in above {
            let child = at.make_child(part)?;
            dirs.push(std::mem::replace(&mut at, child));
        }
        let path = self.dir.path_of(NEW_REF);
        let file = self.dir.create_file(NEW_REF)?;
        file.write_all_at(commit.as_bytes(), 0)
            .map_err(|error| StoreError::io("write", &path, error))?;
        rustix::fs::fsync(&file).map_err(|error| StoreError::io("sync", &path, error))?;
        self.dir.rename(NEW_REF, &at, name)?;
        for dir in [&at].into_iter().chain(dirs.iter().rev()).chain([&repo.dir]) {
            dir.sync()?;
        }
        Ok(())
    }

    /// The directory of a staged file.
    fn staged(&self, tree: &str, path: &RelPath) -> Result<Dir, StoreError> {
        let above = path.parent().into_iter().flat_map(|parent| parent.split('/'));
        let dir = self.dir.descend([tree].into_iter().chain(above))?;
        dir.ok_or_else(|| StoreError::Disturbed(self.dir.path_of(tree)))
    }

    /// Lets nobody write into a file that has no other name, by which it would be another model's.
    fn protect(&self, dir: &Dir, name: &str) -> Result<(), StoreError> {
        if dir.has_other_names(name)? == Some(false)
            && let Some(file) = dir.read_file(name)?
            && let Ok(stat) = file.metadata()
        {
            // Where there are no permissions it stays as it is.
            let _ = rustix::fs::fchmod(&file, Mode::from_raw_mode(stat.mode() & 0o555));
        }
        Ok(())
    }
}

/// Whether the same is published already, and not known to be wrong.
fn is_published(
    repo: &CachedRepo,
    ours: &Sentinel,
    publication: Publication<'_>,
) -> Result<bool, StoreError> {
    let Some(head) = repo.head(&ours.revision)? else { return Ok(false) };
    if !head.is_of(ours) {
        return Ok(false);
    }
    let Existing::Complete(there) = repo.existing(&ours.revision)? else { return Ok(false) };
    let is_distrusted = publication.distrusted.is_some_and(|it| it.is_same_publication(&there));
    Ok(!is_distrusted && there.files == ours.files)
}

/// Whether what lies there is `ours`, or has its bytes.
fn is_right(dir: &Dir, name: &str, file: &SentinelFile, ours: Option<(&Dir, &str)>) -> bool {
    let same = |(ours, our_name): (&Dir, &str)| {
        let look = |dir: &Dir, name: &str| {
            rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
                .map(|stat| (stat.st_dev, stat.st_ino))
        };
        matches!((look(dir, name), look(ours, our_name)), (Ok(one), Ok(other)) if one == other)
    };
    if ours.is_some_and(same) {
        return true;
    }
    let Ok(Some(there)) = dir.read_file(name) else { return false };
    if !there.metadata().is_ok_and(|stat| stat.len() == file.size) {
        return false;
    }
    let mut hasher = FileHasher::new(file.size, None);
    let (mut buffer, mut at) = (vec![0; BUFFER_BYTES], 0);
    while at < file.size {
        let len = buffer.len().min((file.size - at) as usize);
        if there.read_exact_at(&mut buffer[..len], at).is_err() {
            return false;
        }
        hasher.update(&buffer[..len]);
        at += len as u64;
    }
    hasher.finish().is_ok_and(|sha256| Sha256(sha256) == file.sha256)
}

fn each(
    sentinel: &Sentinel,
    act: &mut dyn FnMut(&RelPath, &SentinelFile) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    for file in &sentinel.files {
        if let Ok(path) = RelPath::parse(&file.path) {
            act(&path, file)?;
        }
    }
    Ok(())
}
