//! What a root is like: asked, and tried in a directory that is removed again. For a report; a fetch finds out by
//! itself what it needs to know.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{FallocateFlags, FlockOperation};
use rustix::io::Errno;

use super::StoreError;
use super::abilities::{Abilities, Aim, Lack, Obstacle, Way, way};
use super::probe::{TRIAL, refusal, try_in};
use super::staging::{ATTEMPTS, ID_SEPARATOR};
use crate::fs::access::Owned;
use crate::fs::nature::Nature;
use crate::fs::space::Space;
use crate::fs::{Dir, FsError, node};
use crate::model::STATE_DIR;

/// The family of the attempt that a killed trial has left. There is none of that name; `prune` removes it as well.
const NOBODYS: &str = "weightlift-doctor";
/// No trial takes as long.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3_600);

/// What was found by asking.
#[derive(Clone, Debug)]
pub struct Condition {
    pub nature: Nature,
    /// Where the filesystem tells.
    pub space: Option<Space>,
    pub owned: Owned,
    /// Why no names can be added to it.
    pub obstacle: Option<Obstacle>,
    /// The same of the working area, if there is one.
    pub state: Option<(PathBuf, Owned, Option<Obstacle>)>,
}

/// What was found by trying.
#[derive(Clone, Debug)]
pub struct Trial {
    pub abilities: Abilities,
    /// How a model would appear, or why it cannot.
    pub way: Result<Way, Lack>,
    /// Files can have blocks in common.
    pub shares_blocks: bool,
    /// Room for a file can be taken before its bytes come.
    pub allocates: bool,
}

impl Condition {
    /// That of the directory `root`; `None` if there is none.
    pub fn of(root: &Path) -> Result<Option<Self>, StoreError> {
        let Some(dir) = Dir::open(root)? else { return Ok(None) };
        let state = match dir.child(STATE_DIR)? {
            Some(state) => Some((
                state.path().to_owned(),
                state.owned(".")?.unwrap_or_default(),
                refusal(&state, ".")?,
            )),
            None => None,
        };
        Ok(Some(Self {
            nature: Nature::of(&dir)?,
            space: Space::of(&dir)?,
            owned: dir.owned(".")?.unwrap_or_default(),
            obstacle: refusal(&dir, ".")?,
            state,
        }))
    }
}

impl Trial {
    /// Tries what can be done below `root`.
    pub fn at(root: &Path) -> Result<Self, StoreError> {
        let missing = || StoreError::io("open the directory", root, Errno::NOENT);
        let root = Dir::open(root)?.ok_or_else(missing)?;
        let place = Place::make(root)?;
        let trial = place.dir.child(&place.name).map_err(StoreError::from);
        let trial = trial.and_then(|dir| match dir {
            Some(dir) => Self::inside(&dir),
            None => Err(StoreError::Disturbed(place.dir.path_of(&place.name))),
        });
        place.remove()?;
        trial
    }

    fn inside(dir: &Dir) -> Result<Self, StoreError> {
        let file = dir.create_file("probe-lock")?;
        let locks = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
        let copy = dir.create_file("probe-copy")?;
        let shares_blocks = rustix::fs::ioctl_ficlone(&copy, &file).is_ok();
        let room = rustix::fs::fallocate(&copy, FallocateFlags::empty(), 0, 4_096);
        match room {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {}
            Err(error) => {
                let path = dir.path_of("probe-copy");
                return Err(FsError::io("take room for", &path, error).into());
            }
        }
        let abilities = try_in(dir, 0, locks)?;
        let way = way(&abilities, &nothing());
        Ok(Self { abilities, way, shares_blocks, allocates: room.is_ok() })
    }
}

/// No model in particular.
fn nothing() -> Aim {
    Aim {
        in_place: false,
        allow_degraded: false,
        there: None,
        longest_name: String::new(),
        largest_file: (String::new(), 0),
    }
}

/// A directory of our own, which is removed whatever happens in it.
struct Place {
    dir: Dir,
    name: String,
}

impl Place {
    /// Among the attempts, where there are some. A working area is not made for this: its owner would be
    /// whoever looks, and a fetch by another user could not use it any more.
    fn make(root: Dir) -> Result<Self, StoreError> {
        let state = root.child(STATE_DIR)?;
        let attempts = state.map(|state| state.child(ATTEMPTS)).transpose()?.flatten();
        let (dir, start) = match attempts {
            Some(attempts) => (attempts, format!("{NOBODYS}{ID_SEPARATOR}")),
            None => (root, TRIAL.to_owned()),
        };
        remove_forgotten(&dir, &start)?;
        let name = start + &node::random_id();
        dir.create_dir(&name)?;
        Ok(Self { dir, name })
    }

    fn remove(&self) -> Result<(), StoreError> {
        self.dir.remove_tree(&self.name).map(|_| ())
    }
}

/// Removes what killed trials have left, and nothing of one that may still run.
fn remove_forgotten(dir: &Dir, start: &str) -> Result<(), StoreError> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    for name in dir.names()?.iter().filter(|name| name.starts_with(start)) {
        let Some(left) = dir.child(name)? else { continue };
        if now.saturating_sub(left.modified()?) > FORGOTTEN_AFTER {
            dir.remove_tree(name)?;
        }
    }
    Ok(())
}
