//! Removing a tree in which somebody else may have left anything.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;
use rustix::path::Arg;

use super::StoreError;
use crate::fs::dir::DIRECTORY;
use crate::fs::{Dir, filesystem};

/// No tree of ours has as many levels of directories. Each that is walked holds a descriptor.
pub(super) const MAX_LEVELS: usize = 120;

/// What has become of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    Done,
    /// Nothing is left but what the filesystem has put there, and the directories around it. A file that a
    /// process has open on NFS goes when it is closed.
    Held,
}

impl Dir {
    /// Removes `name` and all below it, whatever the names; links are removed, not followed. What is
    /// the filesystem's own is not touched.
    pub fn remove_tree(&self, name: &str) -> Result<Removal, StoreError> {
        remove(self.as_fd(), name, MAX_LEVELS)
            .map_err(|error| StoreError::io("remove", &self.path_of(name), error))
    }
}

fn remove(dir: BorrowedFd<'_>, name: impl Arg + Copy, levels: usize) -> Result<Removal, Errno> {
    let unlink = |flags| match rustix::fs::unlinkat(dir, name, flags) {
        Ok(()) => Ok(Removal::Done),
        Err(error) if is_gone(error) => Ok(Removal::Done),
        Err(error) => Err(error),
    };
    let child = match rustix::fs::openat(dir, name, DIRECTORY, Mode::empty()) {
        Ok(child) => child,
        Err(error) if is_gone(error) => return Ok(Removal::Done),
        // Something else than a directory.
        Err(Errno::NOTDIR | Errno::LOOP) => return unlink(AtFlags::empty()),
        Err(error) => return Err(error),
    };
    let levels = levels.checked_sub(1).ok_or(Errno::NAMETOOLONG)?;
    let mut is_held = false;
    for name in names(child.as_fd())? {
        is_held |=
            is_owned(&name) || remove(child.as_fd(), name.as_c_str(), levels)? == Removal::Held;
    }
    match unlink(AtFlags::REMOVEDIR) {
        Err(Errno::NOTEMPTY | Errno::EXIST | Errno::BUSY) if is_held => Ok(Removal::Held),
        // A file that was removed while a process has it open has just got its other name.
        Err(Errno::NOTEMPTY | Errno::EXIST) if names(child.as_fd())?.iter().all(is_owned) => {
            Ok(Removal::Held)
        }
        done => done,
    }
}

/// The names in a directory: bytes, and not text, since they need not be UTF-8.
pub(super) fn names(dir: BorrowedFd<'_>) -> Result<Vec<std::ffi::CString>, Errno> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir)? {
        match entry {
            Ok(entry) => {
                let name = entry.file_name().to_owned();
                if !matches!(name.to_bytes(), b"." | b"..") {
                    names.push(name);
                }
            }
            // Another process removes the same tree.
            Err(error) if is_gone(error) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(names)
}

pub(super) fn is_owned(name: &std::ffi::CString) -> bool {
    filesystem::owns(&name.to_string_lossy())
}

/// NFS calls a directory stale that another node has removed.
fn is_gone(error: Errno) -> bool {
    matches!(error, Errno::NOENT | Errno::STALE)
}
