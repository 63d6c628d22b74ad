//! One fetcher per family, where locks work. Nothing depends on it but the number of bytes fetched.

use std::fs::File;

use fs2::FileExt;
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::fs::{Dir, FsError};

/// The exclusive `flock` of a family, held until it is dropped. The file stays: removing it would
/// let two processes lock two files of one name.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// What came of trying.
#[derive(Debug)]
pub enum TryLock {
    Held(Lock),
    Busy,
    /// This volume has no locks; the reason.
    Unsupported(String),
}

impl Lock {
    /// Tries once, without waiting: a process that blocks in the kernel cannot be told to stop.
    /// `state` is the working area, `name` that of the family in it; `slot` tells apart the locks of one
    /// family.
    pub fn try_acquire(state: &Dir, name: &str, slot: &str) -> Result<TryLock, FsError> {
        let locks = state.make_child("locks")?;
        let name = format!("{name}{slot}.lock");
        let Some(file) = open(&locks, &name)? else {
            return Ok(TryLock::Unsupported(format!(
                "another user owns the lock file `{}`",
                locks.path_of(&name).display()
            )));
        };
        match FileExt::try_lock_exclusive(&file) {
            Ok(()) if is_still(&locks, &name, &file)? => Ok(TryLock::Held(Self { _file: file })),
            // The file was replaced: the next try opens the new one.
            Ok(()) => Ok(TryLock::Busy),
            Err(error) if error.kind() == fs2::lock_contended_error().kind() => Ok(TryLock::Busy),
            Err(error) => Ok(TryLock::Unsupported(error.to_string())),
        }
    }
}

/// Opens the lock file for writing, which NFS needs for an exclusive lock; `None` if it cannot be.
pub fn open(locks: &Dir, name: &str) -> Result<Option<File>, FsError> {
    match locks.open_file(name, OFlags::RDWR | OFlags::CREATE) {
        Ok(file) => Ok(file),
        Err(error) => match error.errno() {
            Some(Errno::ACCESS | Errno::PERM) => match locks.open_file(name, OFlags::RDONLY) {
                Ok(file) => Ok(file),
                Err(_) => Ok(None),
            },
            Some(Errno::LOOP | Errno::ISDIR | Errno::NXIO | Errno::INVAL) => Ok(None),
            _ => Err(error),
        },
    }
}

/// Whether `name` still is the file that we have locked.
fn is_still(locks: &Dir, name: &str, file: &File) -> Result<bool, FsError> {
    let fail = |error: Errno| FsError::io("look at", &locks.path_of(name), error);
    let ours = rustix::fs::fstat(file).map_err(fail)?;
    match rustix::fs::statat(locks, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW) {
        Ok(named) => Ok((ours.st_dev, ours.st_ino) == (named.st_dev, named.st_ino)),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(fail(error)),
    }
}
