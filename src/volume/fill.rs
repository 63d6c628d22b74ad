//! Publication file by file, into a family directory that must stay the directory it is: a mount
//! point, or one that was handed to us empty. The sentinel goes first and comes last.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fs2::FileExt;
use serde::{Deserialize, Serialize};

use super::existing::read_sentinel;
use super::layout::{IN_PLACE, REVISIONS};
use super::publish::{Publication, is_published};
use super::staging::Staging;
use super::{Foreign, Published, Store, StoreError};
use crate::fs::{Dir, filesystem};
use crate::lock::open_lock;
use crate::model::{RelPath, RemoteFile, SENTINEL, STATE_DIR, Sentinel};

/// The list of files that an unfinished publication has begun to move.
const PUBLISHING: &str = "publishing.json";
const MAX_LIST_BYTES: u64 = 256 << 20;
/// Two publications into one directory would mix; but a frozen one must not stop the other.
const LOCK_WAIT: Duration = Duration::from_secs(20);

/// What [`PUBLISHING`] holds.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Publishing {
    #[serde(rename = "attempt")]
    pub staging: String,
    pub files: Vec<PublishingFile>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PublishingFile {
    pub path: Arc<str>,
    /// Empty for a file of an earlier revision, which is on its way out.
    pub identity: String,
    /// Of the new file, wherever it is. Until it has been moved an older one can lie at its path.
    pub inode: Option<u64>,
}

impl Publishing {
    /// The unfinished publication into `family`, if there is one.
    pub fn read(family: &Dir) -> Result<Option<Self>, StoreError> {
        let Some(state) = family.child(STATE_DIR)? else { return Ok(None) };
        let list = state.read(PUBLISHING, MAX_LIST_BYTES)?;
        Ok(list.and_then(|list| serde_json::from_slice(&list).ok()))
    }

    /// Forgets it.
    pub fn remove(family: &Dir) -> Result<(), StoreError> {
        let Some(state) = family.child(STATE_DIR)? else { return Ok(()) };
        state.remove_file(PUBLISHING)?;
        Ok(state.sync()?)
    }
}

impl Store {
    /// Fails, before the first byte, if a file of the model has a name at the top of a directory that
    /// is filled in place, and the filesystem has taken that for itself.
    pub(super) fn refuse_owned_names(&self, files: &[RemoteFile]) -> Result<(), StoreError> {
        let tops = files.iter().filter_map(|file| file.path.parts().next());
        let names: BTreeSet<&str> = tops.filter(|name| filesystem::owns(name)).collect();
        if names.is_empty() || !self.in_place {
            return Ok(());
        }
        let Some(family) = self.family_dir()? else { return Ok(()) };
        let ours = listed(&family, read_sentinel(&family)?.as_ref())?;
        let is_ours = |name: &str| ours.iter().any(|path| path.parts().next() == Some(name));
        for name in names {
            if family.kind(name)?.is_some() && !is_ours(name) {
                let path = family.path_of(name);
                return Err(StoreError::OwnedName { path, name: name.to_owned() });
            }
        }
        Ok(())
    }
}

impl Staging {
    pub(super) fn fill_in_place(
        &self,
        store: &Store,
        sentinel: &Sentinel,
        publication: Publication<'_>,
    ) -> Result<Published, StoreError> {
        let family = store.make_parent()?.make_child(store.destination.family.path().name())?;
        let state = family.make_child(STATE_DIR)?;
        let _alone = lock(&state)?;
        if is_published(store, sentinel, publication)? {
            return Ok(Published::ByOther);
        }
        let old = read_sentinel(&family)?;
        let Others { left_over, in_the_way } = self.others(store, &family, old.as_ref())?;
        // Before the list: whatever lies at a path that it names counts as ours from then on.
        let aside = self.put_aside(&family, &state, &in_the_way)?;
        let list = Publishing { staging: self.id.clone(), files: self.list(&left_over)? };
        let json = serde_json::to_vec(&list).expect("strings always serialise");
        self.dir.replace_durably_in(&state, PUBLISHING, &json)?;
        // Whoever publishes after us, because we were frozen for too long, replaces this file.
        let ours = state.inode(PUBLISHING)?;
        let still_ours = || {
            if state.inode(PUBLISHING)? == ours {
                return Ok(());
            }
            Err(StoreError::Overtaken(family.path().to_owned()))
        };

        family.remove_file(SENTINEL)?;
        family.sync()?;
        for path in &left_over {
            still_ours()?;
            if let Some(dir) = family.descend(above(path))? {
                dir.remove_file(path.name())?;
            }
        }
        for (n, file) in self.files.iter().enumerate() {
            let (from, to) = (self.directory_of(n)?, family.make_path(above(&file.path))?);
            let name = file.path.name();
            still_ours()?;
            from.rename(name, &to, name)?;
        }
        let moved = self.files.iter().map(|file| &file.path);
        sync_directories_of(&family, moved.chain(&left_over))?;
        // The sentinel vouches for what is there, so it is looked at once more.
        for (file, listed) in self.files.iter().zip(&list.files) {
            let dir = family.descend(above(&file.path))?;
            let there = dir.map(|dir| dir.inode(file.path.name())).transpose()?.flatten();
            if there != listed.inode {
                return Err(StoreError::Overtaken(family.path().to_owned()));
            }
        }
        still_ours()?;
        self.tree.rename(SENTINEL, &family, SENTINEL)?;
        family.sync()?;
        Publishing::remove(&family)?;
        Ok(match aside {
            Some(aside) => Published::TookOver { aside },
            None if old.is_some() => Published::Refilled,
            None => Published::New,
        })
    }

    /// What is there beside the files of the new revision. Fails if that has a file where somebody else's
    /// is, unless the directory is taken over.
    fn others(
        &self,
        store: &Store,
        family: &Dir,
        old: Option<&Sentinel>,
    ) -> Result<Others, StoreError> {
        let mut ours = listed(family, old)?;
        let mut in_the_way = Vec::new();
        for (n, file) in self.files.iter().enumerate() {
            let is_ours = ours.remove(&file.path);
            let dir = if is_ours { None } else { family.descend(above(&file.path))? };
            if let Some(dir) = dir
                && dir.kind(file.path.name())?.is_some()
            {
                if store.takes_over(family) {
                    // A second name of the same file stays where it is.
                    let staged = self.directory_of(n)?.inode(file.path.name())?;
                    if dir.inode(file.path.name())? != staged {
                        in_the_way.push(file.path.clone());
                    }
                    continue;
                }
                let found = Foreign::of(&dir, &[file.path.name()]);
                let path = dir.path().to_owned();
                return Err(StoreError::Foreign { path, found });
            }
        }
        Ok(Others { left_over: ours, in_the_way })
    }

    /// Moves what is in the way to a directory of its own in the working area; where that is.
    fn put_aside(
        &self,
        family: &Dir,
        state: &Dir,
        in_the_way: &[RelPath],
    ) -> Result<Option<PathBuf>, StoreError> {
        if in_the_way.is_empty() {
            return Ok(None);
        }
        let kept = self.kept_name();
        let way = [REVISIONS, IN_PLACE, kept.as_str()];
        let aside = state.make_path(way.into_iter())?;
        for path in in_the_way {
            if let Some(from) = family.descend(above(path))? {
                let to = aside.make_path(above(path))?;
                from.rename(path.name(), &to, path.name())?;
            }
        }
        sync_directories_of(&aside, in_the_way.iter())?;
        for above in [&way[..2], &way[..1], &way[..0]] {
            state.make_path(above.iter().copied())?.sync()?;
        }
        Ok(Some(aside.path().to_owned()))
    }

    fn list(&self, left_over: &BTreeSet<RelPath>) -> Result<Vec<PublishingFile>, StoreError> {
        let mut list = Vec::with_capacity(self.files.len() + left_over.len());
        for (n, file) in self.files.iter().enumerate() {
            list.push(PublishingFile {
                path: file.path.shared(),
                identity: self.identity(n),
                inode: self.directory_of(n)?.inode(file.path.name())?,
            });
        }
        list.extend(left_over.iter().map(|path| PublishingFile {
            path: path.shared(),
            identity: String::new(),
            inode: None,
        }));
        Ok(list)
    }
}

/// What lies in a directory that is filled.
struct Others {
    /// Files of an earlier revision, or of an unfinished publication, that the new one has not.
    left_over: BTreeSet<RelPath>,
    /// Files of somebody else where the new revision has one of its own, in a directory that is taken over.
    in_the_way: Vec<RelPath>,
}

/// What is of a model in `family`: by its sentinel, or by an unfinished publication.
fn listed(family: &Dir, sentinel: Option<&Sentinel>) -> Result<BTreeSet<RelPath>, StoreError> {
    let interrupted = Publishing::read(family)?.map(|list| list.files).unwrap_or_default();
    let published = sentinel.iter().flat_map(|sentinel| &sentinel.files).map(|file| &file.path);
    let paths = published.chain(interrupted.iter().map(|file| &file.path));
    Ok(paths.filter_map(|path| RelPath::parse(path).ok()).collect())
}

/// Keeps other publications out as long as it lives, where locks work.
fn lock(state: &Dir) -> Result<Option<File>, StoreError> {
    let locks = state.make_child("locks")?;
    let Some(file) = open_lock(&locks, "publish.lock")? else { return Ok(None) };
    let started = Instant::now();
    loop {
        match FileExt::try_lock_exclusive(&file) {
            Ok(()) => return Ok(Some(file)),
            Err(error) if error.kind() != fs2::lock_contended_error().kind() => return Ok(None),
            Err(_) if started.elapsed() > LOCK_WAIT => return Ok(None),
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

fn above(path: &RelPath) -> impl Iterator<Item = &str> {
    path.parent().into_iter().flat_map(|parent| parent.split('/'))
}

/// Makes the names of `files` below a family durable, the deepest first. Others are not looked at: a
/// `lost+found` is root's, and nobody may open what somebody else has closed.
fn sync_directories_of<'a>(
    family: &Dir,
    files: impl Iterator<Item = &'a RelPath>,
) -> Result<(), StoreError> {
    let mut directories: BTreeSet<&str> = BTreeSet::new();
    for file in files {
        let mut above = file.parent();
        // Where one is known, so are those above it.
        while let Some(directory) = above.filter(|directory| directories.insert(directory)) {
            above = directory.rsplit_once('/').map(|(above, _)| above);
        }
    }
    // A name sorts before what it begins.
    for directory in directories.into_iter().rev() {
        if let Some(dir) = family.descend(directory.split('/'))? {
            dir.sync()?;
        }
    }
    Ok(family.sync()?)
}
