//! What is behind an error number of the system: a volume that is read-only, or closed to this user. Looked up when
//! the error has ended the work, and only then.

use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD};
use rustix::io::Errno;

use super::{Lack, Obstacle, StoreError};
use crate::fs::access::Owned;
use crate::fs::{FsError, access};
use crate::model::STATE_DIR;

impl StoreError {
    /// The same in words that say what to do, if that can be found out.
    #[must_use]
    pub fn explained(self) -> Self {
        let Self::Fs(FsError::Io { doing, ref path, .. }) = self else { return self };
        let found = match self.errno() {
            Some(Errno::ROFS) => Some((nearest(path).to_owned(), Obstacle::ReadOnly)),
            Some(Errno::ACCESS) => closed(path, is_read(doing)),
            _ => None,
        };
        let Some((path, obstacle)) = found else { return self };
        let lack = Lack::Obstacle { path: path.clone(), obstacle };
        Self::Lacks { path, lack: Box::new(lack) }
    }
}

/// Whether nothing was to be changed.
fn is_read(doing: &str) -> bool {
    ["open", "read", "list", "look"].iter().any(|read| doing.starts_with(read))
}

/// The directory that has the working area which `path` lies in; or the nearest one to it that is there.
fn nearest(path: &Path) -> &Path {
    let is_state = |above: &&Path| above.ends_with(STATE_DIR);
    let from = path.ancestors().filter(is_state).last().and_then(Path::parent).unwrap_or(path);
    from.ancestors().find(|above| above.is_dir()).unwrap_or(from)
}

/// What keeps this user out, from the top: a directory on the way, the file itself, or the directory that it is in.
fn closed(path: &Path, is_read: bool) -> Option<(PathBuf, Obstacle)> {
    let path = std::path::absolute(path).ok()?;
    let mut above: Vec<&Path> = path.ancestors().skip(1).collect();
    above.reverse();
    if let Some(dir) = above.iter().find(|dir| is_refused(dir, Access::EXEC_OK)) {
        return Some((dir.to_path_buf(), obstacle(dir, false)));
    }
    let parent = path.parent()?;
    if is_read && is_refused(&path, Access::READ_OK) {
        return Some((path.clone(), obstacle(&path, false)));
    }
    // Readable by owner and mode: something else forbids it.
    if is_read && path.exists() {
        return None;
    }
    // A directory that is not there was to be made.
    let dir = parent.ancestors().find(|dir| dir.is_dir())?;
    let is_own = |path: &Path| is_refused(path, Access::WRITE_OK);
    let at = [path.as_path(), dir].into_iter().find(|at| is_own(at))?;
    Some((at.to_owned(), obstacle(at, true)))
}

fn is_refused(path: &Path, wanted: Access) -> bool {
    rustix::fs::accessat(CWD, path, wanted, AtFlags::EACCESS) == Err(Errno::ACCESS)
}

fn obstacle(path: &Path, is_write: bool) -> Obstacle {
    let user = access::user();
    let owned = Owned::at(path);
    match is_write {
        true => Obstacle::Closed { user, owned },
        false => Obstacle::Unreadable { user, owned },
    }
}
