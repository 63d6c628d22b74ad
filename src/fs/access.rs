//! What this process may do with a name, asked without doing it.

use rustix::fs::{Access, AtFlags, FileType, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::thread::CapabilitySet;

use super::{Dir, FsError};

/// Bit of a directory's mode: only the owner of a name in it may remove or replace it.
const STICKY: u16 = 0o1000;

/// What is known of one name for the question who may replace it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owned {
    pub uid: u32,
    pub gid: u32,
    /// Permission bits.
    pub mode: u16,
    pub is_directory: bool,
    pub is_sticky: bool,
    /// `chattr +i`.
    pub is_immutable: bool,
    /// `chattr +a`.
    pub is_append_only: bool,
}

impl Dir {
    /// Fails if this process may not add names below `path`, which is relative to this directory. The
    /// filesystem is asked, which may be a server: modes alone do not tell.
    pub fn may_change(&self, path: &str) -> Result<(), Errno> {
        let wanted = Access::WRITE_OK | Access::EXEC_OK;
        match rustix::fs::accessat(self, path, wanted, AtFlags::EACCESS) {
            // Container runtimes that do not know `faccessat2` answer EPERM, as an immutable directory
            // does; the older call they know.
            Err(Errno::PERM) => rustix::fs::accessat(self, path, wanted, AtFlags::empty()),
            answer => answer,
        }
    }

    /// Owner and attributes of `name`, if it is there; of a link, the link's own.
    pub fn owned(&self, name: &str) -> Result<Option<Owned>, FsError> {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        match rustix::fs::statx(self, name, flags, StatxFlags::BASIC_STATS) {
            Ok(stat) => {
                let has = |attribute| stat.stx_attributes.contains(attribute);
                let kind = FileType::from_raw_mode(u32::from(stat.stx_mode));
                Ok(Some(Owned {
                    uid: stat.stx_uid,
                    gid: stat.stx_gid,
                    mode: stat.stx_mode & 0o777,
                    is_directory: kind == FileType::Directory,
                    is_sticky: stat.stx_mode & STICKY != 0,
                    is_immutable: has(StatxAttributes::IMMUTABLE),
                    is_append_only: has(StatxAttributes::APPEND),
                }))
            }
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(FsError::io("look at", &self.path_of(name), error)),
        }
    }

    /// Longest name in bytes, where the filesystem tells.
    pub fn longest_name(&self) -> Option<u64> {
        rustix::fs::fstatvfs(self).ok().map(|stat| stat.f_namemax).filter(|longest| *longest > 0)
    }
}

/// The user that this process is for the filesystem.
pub fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Whether this process may replace what belongs to others in a sticky directory.
pub fn overrides_owners() -> bool {
    rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(CapabilitySet::FOWNER))
}
