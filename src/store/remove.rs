//! Removing a tree in which somebody else may have left anything.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;
use rustix::path::Arg;

use super::dir::DIRECTORY;
use super::{Dir, StoreError};

/// No tree of ours has as many levels of directories. Each that is walked holds a descriptor.
const MAX_LEVELS: usize = 120;

impl Dir {
    /// Removes `name` and all below it, whatever the names; links are removed, not followed.
    pub fn remove_tree(&self, name: &str) -> Result<(), StoreError> {
        remove(self.as_fd(), name, MAX_LEVELS)
            .map_err(|error| StoreError::io("remove", &self.path_of(name), error))
    }
}

fn remove(dir: BorrowedFd<'_>, name: impl Arg + Copy, levels: usize) -> Result<(), Errno> {
    let unlink = |flags| match rustix::fs::unlinkat(dir, name, flags) {
        Err(Errno::NOENT) => Ok(()),
        done => done,
    };
    let child = match rustix::fs::openat(dir, name, DIRECTORY, Mode::empty()) {
        Ok(child) => child,
        Err(Errno::NOENT) => return Ok(()),
        // Something else than a directory.
        Err(Errno::NOTDIR | Errno::LOOP) => return unlink(AtFlags::empty()),
        Err(error) => return Err(error),
    };
    let levels = levels.checked_sub(1).ok_or(Errno::NAMETOOLONG)?;
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(&child)? {
        // Bytes, and not text: they need not be UTF-8.
        let name = entry?.file_name().to_owned();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name);
        }
    }
    names.iter().try_for_each(|name| remove(child.as_fd(), name.as_c_str(), levels))?;
    unlink(AtFlags::REMOVEDIR)
}
