//! Where a family is, what is there already, and where its working area lies.

use std::path::PathBuf;

use rustix::io::Errno;

use super::StoreError;
use super::existing::{Existing, sealed, with_sentinel};
use super::foreign::description;
use super::mounts::{Outer, is_mount_point};
use crate::fs::{Dir, FsError, Kind, filesystem};
use crate::model::hf_cache::CachedModel;
use crate::model::{ModelDir, SENTINEL, STATE_DIR, SentinelHead};

/// Stands for the family in a working area that lies inside it.
pub(super) const IN_PLACE: &str = "self";

/// Starts the name of a revision that was replaced by the attempt named after it.
pub(super) const KEPT_PREFIX: &str = "before-";

/// Where published trees lie that the family name is a link to, and those that were replaced.
pub(super) const REVISIONS: &str = "revisions";

/// In an attempt: the link that becomes the family name. Once exchanged, the directory that had that name.
pub(super) const LINK: &str = "link";

/// In the directory of a repo in a cache of the Hub's clients, which pass it over: a sentinel for each commit.
pub(super) const CACHE_SENTINELS: &str = ".weightlift-complete";

/// Where a model is to be published.
#[derive(Clone, Debug)]
pub struct Destination {
    pub root: PathBuf,
    pub family: ModelDir,
}

impl Destination {
    /// The directory that a server should load.
    pub fn path(&self) -> PathBuf {
        self.root.join(self.family.path().as_str())
    }
}

/// A family and its surroundings, as found; opening changes nothing on the volume.
#[derive(Clone, Debug)]
pub struct Store {
    pub destination: Destination,
    /// The family directory is a mount point, or was given to us empty: it is filled and never
    /// replaced, and the working area lies inside it.
    pub in_place: bool,
    /// What lies at the family path and is not ours, by device and inode, if the user lets us take it over.
    pub(super) taken_over: Option<(u64, u64)>,
    /// Where another filesystem begins below the root that was named.
    pub(super) outer: Option<Outer>,
    /// The repo, where the family is its directory in a cache of the Hub's clients.
    pub(super) cache: Option<CachedModel>,
}

impl Store {
    pub fn open(destination: Destination) -> Result<Self, StoreError> {
        let mut store = Self::of(destination);
        store.refuse_reserved()?;
        store.refuse_inside_family()?;
        store.enter_mounts()?;
        let Some(parent) = store.parent()? else {
            return Ok(store);
        };
        let name = store.destination.family.path().name();
        match parent.kind(name)? {
            None => {}
            Some(Kind::Link) => {
                store.revision_of_link(&parent)?;
            }
            Some(Kind::Directory) => {
                let Some(family) = parent.child(name)? else {
                    return Ok(store);
                };
                let names = family.names()?;
                let has_state = names.iter().any(|name| name == STATE_DIR);
                let is_empty = names.iter().all(|name| filesystem::owns(name));
                store.in_place = has_state || is_empty || is_mount_point(&parent, &family, name)?;
            }
            Some(_) => return Err(store.in_the_way(&parent)),
        }
        Ok(store)
    }

    /// The directory of a repo in a cache of the Hub's clients, which others use as well.
    pub fn open_in_cache(destination: Destination, cache: CachedModel) -> Result<Self, StoreError> {
        let mut store = Self { cache: Some(cache), ..Self::of(destination) };
        store.refuse_reserved()?;
        store.refuse_inside_family()?;
        store.enter_mounts()?;
        let Some(parent) = store.parent()? else { return Ok(store) };
        match parent.kind(store.destination.family.path().name())? {
            None | Some(Kind::Directory) => Ok(store),
            Some(_) => Err(store.in_the_way(&parent)),
        }
    }

    /// Without a look.
    pub(super) fn of(destination: Destination) -> Self {
        Self { destination, in_place: false, taken_over: None, outer: None, cache: None }
    }

    pub fn family_path(&self) -> PathBuf {
        self.destination.path()
    }

    /// The sentinel that is there now, without its files.
    pub fn head(&self) -> Result<Option<SentinelHead>, StoreError> {
        if let Some(cache) = &self.cache {
            return self.cached_head(cache);
        }
        let Some(family) = self.family_dir()? else { return Ok(None) };
        with_sentinel(&family, SentinelHead::read)
    }

    /// What is there now. Costs a few system calls and writes nothing.
    pub fn existing(&self) -> Result<Existing, StoreError> {
        if let Some(cache) = &self.cache {
            return self.cached_existing(cache);
        }
        let mut refused = None;
        // More than once before it is called foreign: while somebody publishes into it file by
        // file, what is listed may be newer than what was read. And on NFS a file is stale as soon as
        // another node has replaced it.
        for _ in 0..3 {
            let Some(family) = self.family_dir()? else { return Ok(Existing::Nothing) };
            match sealed(&family) {
                Ok(Some(existing)) => return Ok(existing),
                Ok(None) if self.takes_over(&family) => {
                    self.refuse_models_below(&family)?;
                    return Ok(Existing::Nothing);
                }
                Ok(None) => match self.refuse_foreign(&family) {
                    Ok(()) => return Ok(Existing::Nothing),
                    Err(error) => refused = Some(error),
                },
                Err(error) if error.errno() == Some(Errno::STALE) => refused = Some(error),
                Err(error) => return Err(error),
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        refused.map_or(Ok(Existing::Nothing), Err)
    }

    /// Whether `family` is the directory that the user lets us take over.
    pub(super) fn takes_over(&self, family: &Dir) -> bool {
        self.taken_over.is_some() && family.identity().ok() == self.taken_over
    }

    pub(super) fn root(&self) -> Result<Option<Dir>, StoreError> {
        match &self.outer {
            Some(outer) => outer.open_inner(),
            None => Ok(Dir::open(&self.destination.root)?),
        }
    }

    /// The directory above the family, if it exists.
    pub(super) fn parent(&self) -> Result<Option<Dir>, StoreError> {
        let Some(root) = self.root()? else {
            return Ok(None);
        };
        root.descend(self.parent_parts()).map_err(|error| self.blocked_above(error))
    }

    /// The same, made where it is missing.
    pub(super) fn make_parent(&self) -> Result<Dir, StoreError> {
        let root = self.make_root()?;
        root.make_path(self.parent_parts()).map_err(|error| self.blocked_above(error))
    }

    /// Makes the name of the family durable, and those of the directories above it up to the root,
    /// which may be as new.
    pub(super) fn sync_above(&self) -> Result<(), StoreError> {
        let Some(mut at) = self.root()? else { return Ok(()) };
        if let Some(above) = self.destination.root.parent()
            && let Ok(Some(above)) = Dir::open(above)
        {
            // The root may lie in a directory that is not ours to sync.
            let _ = above.sync();
        }
        at.sync()?;
        for part in self.parent_parts() {
            let Some(child) = at.child(part)? else { return Ok(()) };
            child.sync()?;
            at = child;
        }
        Ok(())
    }

    /// The directory that a server is given, if there is one.
    pub fn family_dir(&self) -> Result<Option<Dir>, StoreError> {
        let Some(parent) = self.parent()? else {
            return Ok(None);
        };
        let name = self.destination.family.path().name();
        match parent.kind(name)? {
            None => Ok(None),
            Some(Kind::Directory) => Ok(parent.child(name)?),
            Some(Kind::Link) => {
                let revision = self.revision_of_link(&parent)?;
                let Some(root) = self.root()? else {
                    return Ok(None);
                };
                Ok(root.descend(revision.split('/'))?)
            }
            Some(_) => Err(self.in_the_way(&parent)),
        }
    }

    /// The working area, made if it is missing.
    pub fn make_state(&self) -> Result<Dir, StoreError> {
        let base = if self.in_place {
            self.make_parent()?.make_child(self.destination.family.path().name())?
        } else {
            self.make_root()?
        };
        Ok(base.make_child(STATE_DIR)?)
    }

    /// Name of the family inside the working area.
    pub fn state_name(&self) -> String {
        if self.in_place { IN_PLACE.into() } else { self.destination.family.file_name() }
    }

    pub(super) fn make_root(&self) -> Result<Dir, StoreError> {
        let root = &self.destination.root;
        if let Some(dir) = self.root()? {
            return Ok(dir);
        }
        if self.outer.is_some() {
            // A mount that has gone is not made up for.
            return Err(StoreError::io("open the directory", root, Errno::NOENT));
        }
        std::fs::create_dir_all(root)
            .map_err(|error| StoreError::io("create the directory", root, error))?;
        Dir::open(root)?.ok_or_else(|| StoreError::io("open the directory", root, Errno::NOENT))
    }

    pub(super) fn parent_parts(&self) -> impl Iterator<Item = &str> {
        let parent = self.destination.family.path().parent();
        parent.into_iter().flat_map(|parent| parent.split('/'))
    }

    /// Where the family points to, if it is a link.
    fn link_target(&self) -> Result<Option<String>, StoreError> {
        let Some(parent) = self.parent()? else { return Ok(None) };
        match parent.kind(self.destination.family.path().name())? {
            Some(Kind::Link) => self.revision_of_link(&parent).map(Some),
            _ => Ok(None),
        }
    }

    /// The name in `revisions/` of what the family shows, if it is a link.
    pub(super) fn revision_id(&self) -> Result<Option<String>, StoreError> {
        let target = self.link_target()?;
        Ok(target.and_then(|target| target.rsplit('/').next().map(str::to_owned)))
    }

    /// Where a family that is a link of ours points to, relative to the root.
    fn revision_of_link(&self, parent: &Dir) -> Result<String, StoreError> {
        let family = self.destination.family.path();
        let target = parent.link_target(family.name())?;
        let mut inside = target.as_str();
        for _ in self.parent_parts() {
            inside = inside.strip_prefix("../").unwrap_or("");
        }
        let expected = format!("{STATE_DIR}/{REVISIONS}/{}/", self.destination.family.file_name());
        match inside.strip_prefix(&expected) {
            Some(id) if !id.is_empty() && !id.contains('/') && !id.starts_with('.') => {
                Ok(inside.to_owned())
            }
            _ => Err(self.in_the_way(parent)),
        }
    }

    /// A file or a link where a directory above the family should be.
    fn blocked_above(&self, error: FsError) -> StoreError {
        if !matches!(error.errno(), Some(Errno::NOTDIR | Errno::LOOP)) {
            return error.into();
        }
        let Ok(Some(mut at)) = self.root() else { return error.into() };
        for part in self.parent_parts() {
            match at.child(part) {
                Ok(Some(child)) => at = child,
                Ok(None) => break,
                Err(_) => {
                    let what = description(&at, part);
                    return StoreError::InTheWay { path: at.path_of(part), what };
                }
            }
        }
        error.into()
    }

    /// `a/b` must not be published into the model `a`.
    fn refuse_inside_family(&self) -> Result<(), StoreError> {
        let Some(mut at) = self.root()? else {
            return Ok(());
        };
        for part in self.parent_parts() {
            if at.kind(part)? == Some(Kind::Link)
                && at.link_target(part)?.contains(&format!("{STATE_DIR}/{REVISIONS}/"))
            {
                let outer = at.path_of(part);
                return Err(StoreError::InsideFamily { inner: self.family_path(), outer });
            }
            match at.child(part).map_err(|error| self.blocked_above(error))? {
                Some(child) => at = child,
                None => return Ok(()),
            }
            if at.kind(SENTINEL)?.is_some() {
                return Err(StoreError::InsideFamily {
                    inner: self.family_path(),
                    outer: at.path().to_owned(),
                });
            }
        }
        Ok(())
    }
}

/// Each part of `path` that has a name of a filesystem, with what is above it.
pub(super) fn owned_parts(path: &str) -> impl Iterator<Item = &str> {
    let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
    let upto = ends.map(|end| &path[..end]);
    upto.filter(|path| filesystem::owns(path.rsplit('/').next().unwrap_or(path)))
}
