//! Removing a tree in which somebody else may have left anything.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;
use rustix::path::Arg;

use super::StoreError;
use crate::fs::dir::DIRECTORY;
use crate::fs::{Dir, Kind, filesystem};

/// No tree of ours has as many levels of directories. Each that is walked holds a descriptor.
const MAX_LEVELS: usize = 120;

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

    /// Bytes that the files below `name` take and that its removal would free. What cannot be looked at
    /// counts for nothing.
    pub fn bytes_below(&self, name: &str) -> u64 {
        match self.kind(name) {
            Ok(Some(Kind::Directory)) => bytes_below(self.as_fd(), name, MAX_LEVELS).unwrap_or(0),
            _ => 0,
        }
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

fn bytes_below(dir: BorrowedFd<'_>, name: impl Arg + Copy, levels: usize) -> Result<u64, Errno> {
    let child = rustix::fs::openat(dir, name, DIRECTORY, Mode::empty())?;
    let levels = levels.checked_sub(1).ok_or(Errno::NAMETOOLONG)?;
    let mut bytes = 0_u64;
    for name in names(child.as_fd())?.iter().filter(|name| !is_owned(name)) {
        let name = name.as_c_str();
        let Ok(stat) = rustix::fs::statat(&child, name, AtFlags::SYMLINK_NOFOLLOW) else {
            continue;
        };
        bytes = bytes.saturating_add(match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => bytes_below(child.as_fd(), name, levels).unwrap_or(0),
            // A file with another name elsewhere keeps its blocks.
            FileType::RegularFile if stat.st_nlink == 1 => {
                (stat.st_blocks.max(0) as u64).saturating_mul(512)
            }
            _ => 0,
        });
    }
    Ok(bytes)
}

/// The names in a directory: bytes, and not text, since they need not be UTF-8.
fn names(dir: BorrowedFd<'_>) -> Result<Vec<std::ffi::CString>, Errno> {
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

fn is_owned(name: &std::ffi::CString) -> bool {
    filesystem::owns(&name.to_string_lossy())
}

/// NFS calls a directory stale that another node has removed.
fn is_gone(error: Errno) -> bool {
    matches!(error, Errno::NOENT | Errno::STALE)
}
