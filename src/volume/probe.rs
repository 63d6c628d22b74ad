//! Finds out what a volume can do, before the first byte of a model is asked for. What has to be tried is
//! tried in the attempt's own directory, which is removed with all that a kill leaves in it; about the
//! place of the model questions are asked that change nothing there, with one exception: [`TRIAL`].

use std::collections::BTreeSet;
use std::path::Path;

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use super::abilities::{Abilities, Aim, Lack, Obstacle, way};
use super::layout::{CACHE_SENTINELS, REVISIONS};
use super::staging::Staging;
use super::{Store, StoreError};
use crate::fs::access::Owned;
use crate::fs::{Dir, FsError, access};
use crate::model::SENTINEL;
use crate::model::hf_cache::{BLOBS, REFS, SNAPSHOTS};

/// Starts the name of an empty directory that goes into the directory above the model and back, where that
/// is another than the one that holds the working area: some filesystems (quotas by directory on ext4, xfs
/// and CephFS) tell in no other way that nothing can be renamed there.
pub(super) const TRIAL: &str = ".weightlift-probe~";

/// Names in the attempt's own directory; all begin like this.
pub(super) const OWN: &str = "probe-";

impl Staging {
    /// What the volume can do. Fails if the model could not be published on it.
    pub fn probe(&self, store: &Store, allow_degraded: bool) -> Result<(), StoreError> {
        let aim = self.aim(store, allow_degraded)?;
        let abilities = self.try_out(&aim)?;
        let obstacle = self.obstacle(store, &aim)?;
        let abilities = Abilities { obstacle, ..abilities };
        let decided = way(&abilities, &aim);
        self.abilities.get_or_init(|| abilities);
        decided.map(|_| ()).map_err(|lack| match lack {
            Lack::OneStep => StoreError::NoAtomicPublication(store.family_path()),
            Lack::Obstacle { ref path, .. } => {
                StoreError::Lacks { path: path.clone(), lack: Box::new(lack) }
            }
            lack => StoreError::Lacks { path: store.base_path(), lack: Box::new(lack) },
        })
    }

    fn aim(&self, store: &Store, allow_degraded: bool) -> Result<Aim, StoreError> {
        let family = store.destination.family.path();
        // In a cache it is a directory of the commit's own.
        let there = match store.parent()? {
            Some(parent) if store.cache.is_none() => parent.kind(family.name())?,
            Some(_) | None => None,
        };
        let names = self.files.iter().flat_map(|file| file.path.parts()).chain(family.parts());
        Ok(Aim {
            in_place: store.in_place,
            allow_degraded,
            there,
            longest_name: names.max_by_key(|name| name.len()).unwrap_or_default().to_owned(),
            largest_file: self
                .files
                .iter()
                .max_by_key(|file| file.size)
                .map(|file| (file.path.to_string(), file.size))
                .unwrap_or_default(),
        })
    }

    fn try_out(&self, aim: &Aim) -> Result<Abilities, StoreError> {
        try_in(&self.dir, aim.largest_file.1, self.journal.is_locked())
    }

    /// What keeps a finished tree from getting to its place.
    fn obstacle(&self, store: &Store, aim: &Aim) -> Result<Found, StoreError> {
        if aim.in_place {
            let Some(family) = store.family_dir()? else { return Ok(None) };
            let found = self.obstacle_at(&family, Some(SENTINEL))?;
            return if found.is_some() { Ok(found) } else { self.obstacle_below(&family) };
        }
        if store.cache.is_some() {
            return self.obstacle_in_cache(store);
        }
        if let Some(found) = self.obstacle_to_revisions(store)? {
            return Ok(Some(found));
        }
        let (at, is_parent) = store.nearest_to_parent()?;
        let name = store.destination.family.path().name();
        let found = self.obstacle_at(&at, (is_parent && aim.there.is_some()).then_some(name))?;
        if found.is_some() || !is_parent || !store.is_nested() {
            return Ok(found);
        }
        // It would never come back.
        if at.owned(".")?.is_some_and(|at| at.is_append_only) {
            return Ok(None);
        }
        self.trial(&at)
    }

    /// In a cache names are added to directories that others may have made.
    fn obstacle_in_cache(&self, store: &Store) -> Result<Found, StoreError> {
        let (hub, is_hub) = store.nearest_to_parent()?;
        let name = store.destination.family.path().name();
        let repo = if is_hub { hub.child(name)? } else { None };
        let Some(repo) = repo else {
            let found = self.obstacle_at(&hub, None)?;
            return if found.is_some() { Ok(found) } else { self.trial(&hub) };
        };
        let inside = [BLOBS, SNAPSHOTS, REFS, CACHE_SENTINELS];
        let inside = inside.map(|name| repo.child(name)).into_iter();
        for dir in inside.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().chain([repo]) {
            let found = self.obstacle_at(&dir, None)?;
            if found.is_some() {
                return Ok(found);
            }
            let found = self.trial(&dir)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// `name` is what would be replaced in `at`.
    fn obstacle_at(&self, at: &Dir, name: Option<&str>) -> Result<Found, StoreError> {
        if let Some(obstacle) = self.obstacle_on_the_way(at)? {
            return Ok(Some((at.path().to_owned(), obstacle)));
        }
        if let Some(obstacle) = refusal(at, ".")? {
            return Ok(Some((at.path().to_owned(), obstacle)));
        }
        let Some(name) = name else { return Ok(None) };
        let (Some(above), Some(owned)) = (at.owned(".")?, at.owned(name)?) else {
            return Ok(None);
        };
        if above.is_append_only {
            return Ok(Some((at.path().to_owned(), Obstacle::AppendOnly)));
        }
        let user = access::user();
        let found = |obstacle| Ok(Some((at.path_of(name), obstacle)));
        if owned.is_immutable {
            return found(Obstacle::Immutable);
        }
        if owned.is_append_only {
            return found(Obstacle::AppendOnly);
        }
        if above.is_sticky && ![owned.uid, above.uid].contains(&user) && !access::overrides_owners()
        {
            return found(Obstacle::Sticky { user, owner: owned.uid });
        }
        // A directory that changes the one that it is in has a name of that in it, `..`.
        match owned.is_directory.then(|| refusal(at, name)).transpose()?.flatten() {
            Some(obstacle) => found(obstacle),
            None => Ok(None),
        }
    }

    /// Moves a name that is not there: before they look for it, kernels compare the mounts, and whether
    /// they can be written.
    fn obstacle_on_the_way(&self, to: &Dir) -> Result<Option<Obstacle>, StoreError> {
        match self.dir.rename("probe-none", to, &format!("{TRIAL}none")) {
            Err(error) if error.errno() == Some(Errno::XDEV) => Ok(Some(Obstacle::Elsewhere)),
            Err(error) if error.errno() == Some(Errno::ROFS) => Ok(Some(Obstacle::ReadOnly)),
            // Whatever else it is will be seen where something is moved.
            Ok(()) | Err(_) => Ok(None),
        }
    }

    /// Directories of the model that are there already may be mounts of their own.
    fn obstacle_below(&self, family: &Dir) -> Result<Found, StoreError> {
        let above: BTreeSet<&str> =
            self.files.iter().filter_map(|file| file.path.parent()).collect();
        for directory in above {
            if let Some(dir) = family.descend(directory.split('/'))?
                && let found @ Some(_) = self.obstacle_at(&dir, None)?
            {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Where a tree that is replaced goes, or one that a link points to. Another user may have made it.
    fn obstacle_to_revisions(&self, store: &Store) -> Result<Found, StoreError> {
        let own = format!("{REVISIONS}/{}", store.destination.family.file_name());
        for path in [own.as_str(), REVISIONS, "."] {
            match self.state.may_change(path) {
                Err(Errno::NOENT) => {}
                Err(error) => {
                    let at = self.state.path_of(path);
                    return Ok(obstacle_of(error, &at)
                        .map_err(|error| FsError::io("look at", &at, error))?
                        .map(|obstacle| (at, obstacle)));
                }
                Ok(()) => return Ok(None),
            }
        }
        Ok(None)
    }

    /// An empty directory of ours goes there and comes back.
    fn trial(&self, at: &Dir) -> Result<Found, StoreError> {
        for left in at.names()?.iter().filter(|name| name.starts_with(TRIAL)) {
            // Of a run that was killed in between; it is empty, or it is not ours.
            let _ = at.remove_dir(left);
        }
        self.dir.create_dir("probe-trial")?;
        let name = format!("{TRIAL}{}", self.random_part());
        let gone = self.dir.rename("probe-trial", at, &name);
        let found = match &gone {
            Ok(()) => {
                at.remove_dir(&name)?;
                return Ok(None);
            }
            Err(error) => match error.errno() {
                Some(Errno::XDEV) => Some(Obstacle::Elsewhere),
                Some(errno) => obstacle_of(errno, at.path()).unwrap_or_default(),
                None => None,
            },
        };
        self.dir.remove_dir("probe-trial")?;
        Ok(found.map(|obstacle| (at.path().to_owned(), obstacle)))
    }
}

/// Tries what a filesystem can do in `dir`, where nobody else is. All that it makes is removed again, where that is
/// possible. Whether it has locks is known already.
pub(super) fn try_in(dir: &Dir, largest_file: u64, locks: bool) -> Result<Abilities, StoreError> {
    dir.create_dir("probe-a")?;
    dir.create_dir("probe-b")?;
    let exchanges = works(dir.exchange("probe-a", dir, "probe-b"))?;
    let renames_directories = exchanges || works(dir.rename("probe-b", dir, "probe-c"))?;
    let symbolic_links = works(dir.link("probe-a", "probe-link"))?;

    let file = dir.create_file("probe-file")?;
    let is_allowed = getrlimit(Resource::Fsize).current.is_none_or(|limit| limit >= largest_file);
    let holds_largest_file =
        is_allowed && rustix::fs::ftruncate(&file, largest_file) != Err(Errno::FBIG);
    let path = dir.path_of("probe-file");
    let synced = rustix::fs::fsync(&file).map_err(|error| FsError::io("sync", &path, error));
    let syncs = works(synced)? && works(dir.sync())?;
    drop(file);
    let renames_files = works(dir.rename("probe-file", dir, "probe-renamed"))?;
    let hard_links = renames_files && works(dir.hard_link("probe-renamed", dir, "probe-hard"))?;

    let mut removes = true;
    let is_c = renames_directories && !exchanges;
    for name in ["probe-a", if is_c { "probe-c" } else { "probe-b" }] {
        removes &= works(dir.remove_dir(name))?;
    }
    let file = if renames_files { "probe-renamed" } else { "probe-file" };
    for (name, is_there) in
        [(file, true), ("probe-hard", hard_links), ("probe-link", symbolic_links)]
    {
        removes &= !is_there || works(dir.remove_file(name))?;
    }
    Ok(Abilities {
        renames_files,
        renames_directories,
        exchanges,
        symbolic_links,
        hard_links,
        syncs,
        removes,
        locks,
        longest_name: dir.longest_name(),
        holds_largest_file,
        obstacle: None,
    })
}

/// What is in the way, and where.
type Found = Option<(std::path::PathBuf, Obstacle)>;

/// Why names cannot be added to `path` in `dir`, or removed from it.
pub(super) fn refusal(dir: &Dir, path: &str) -> Result<Option<Obstacle>, StoreError> {
    match dir.may_change(path) {
        Ok(()) => Ok(None),
        Err(error) => {
            let at = dir.path_of(path);
            Ok(obstacle_of(error, &at).map_err(|error| FsError::io("look at", &at, error))?)
        }
    }
}

fn obstacle_of(error: Errno, at: &Path) -> Result<Option<Obstacle>, Errno> {
    match error {
        Errno::ACCESS => Ok(Some(Obstacle::Closed { user: access::user(), owned: Owned::at(at) })),
        Errno::PERM => Ok(Some(Obstacle::Immutable)),
        Errno::ROFS => Ok(Some(Obstacle::ReadOnly)),
        // It cannot be asked.
        Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOENT => Ok(None),
        error => Err(error),
    }
}

/// Whether a filesystem can do what was tried, rather than having failed at it.
fn works(tried: Result<(), FsError>) -> Result<bool, FsError> {
    match tried {
        Ok(()) => Ok(true),
        Err(error) => match error.errno() {
            Some(
                Errno::PERM
                | Errno::ACCESS
                | Errno::OPNOTSUPP
                | Errno::NOSYS
                | Errno::INVAL
                | Errno::XDEV
                | Errno::MLINK,
            ) => Ok(false),
            _ => Err(error),
        },
    }
}
