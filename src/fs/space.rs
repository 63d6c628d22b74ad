//! Whether the volume can take what is planned, asked before the first byte.

use rustix::io::Errno;

use super::Dir;
use crate::fs::FsError;

/// Metadata, journal and sentinel need a little as well.
const SLACK_BYTES: u64 = 1 << 20;
const SLACK_INODES: u64 = 16;

/// What a filesystem has in all, and what this user can still use of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    pub free_bytes: u64,
    pub total_bytes: u64,
    /// Free, and in all; where the filesystem has a fixed number of them.
    pub inodes: Option<(u64, u64)>,
    pub is_read_only: bool,
}

impl Space {
    /// That of the filesystem of `dir`, where it tells.
    pub fn of(dir: &Dir) -> Result<Option<Self>, FsError> {
        match rustix::fs::fstatvfs(dir) {
            Ok(stat) => Ok(Some(Self {
                free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
                total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
                inodes: (stat.f_files > 0).then_some((stat.f_favail, stat.f_files)),
                is_read_only: stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY),
            })),
            Err(Errno::NOSYS | Errno::NOTSUP) => Ok(None),
            Err(error) => Err(FsError::io("ask for the free space of", dir.path(), error)),
        }
    }
}

/// Bytes that this user can still write below `dir`.
pub fn free_bytes(dir: &Dir) -> Result<u64, FsError> {
    Ok(statvfs(dir)?.0)
}

/// Fails if `bytes` or `inodes` do not fit.
pub fn check(dir: &Dir, bytes: u64, inodes: u64) -> Result<(), FsError> {
    let (free, free_inodes) = statvfs(dir)?;
    let need = bytes.saturating_add(if bytes == 0 { 0 } else { SLACK_BYTES });
    if need > free {
        let (path, held) = (dir.path().to_owned(), String::new());
        return Err(FsError::NoSpace { path, free, need, held });
    }
    // Filesystems without a fixed number of inodes (btrfs, many network ones) report none at all.
    let need = inodes.saturating_add(SLACK_INODES);
    match free_inodes {
        Some(free) if need > free => {
            let (path, held) = (dir.path().to_owned(), String::new());
            Err(FsError::NoInodes { path, free, need, held })
        }
        _ => Ok(()),
    }
}

fn statvfs(dir: &Dir) -> Result<(u64, Option<u64>), FsError> {
    match rustix::fs::fstatvfs(dir) {
        Ok(stat) => {
            let inodes = (stat.f_files > 0).then_some(stat.f_favail);
            Ok((stat.f_bavail.saturating_mul(stat.f_frsize), inodes))
        }
        // Some FUSE filesystems do not tell; then the write itself will.
        Err(Errno::NOSYS | Errno::NOTSUP) => Ok((u64::MAX, None)),
        Err(error) => Err(FsError::io("ask for the free space of", dir.path(), error)),
    }
}
