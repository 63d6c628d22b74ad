//! What this process may do with a name, asked without doing it.

use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, Statx, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::thread::CapabilitySet;

use super::{Dir, FsError};
use crate::model::Place;

/// Bits of a file's mode.
const GROUP_WRITES: u16 = 0o020;
const OTHERS_WRITE: u16 = 0o002;
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

/// Who may change a file, but for root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writers {
    Owner(u32),
    Group(u32),
    Everybody,
    /// The owner, and all but the group.
    AllButGroup {
        owner: u32,
        group: u32,
    },
}

impl Owned {
    fn of(stat: &Statx) -> Self {
        let has = |attribute| stat.stx_attributes.contains(attribute);
        let kind = FileType::from_raw_mode(u32::from(stat.stx_mode));
        Self {
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            mode: stat.stx_mode & 0o777,
            is_directory: kind == FileType::Directory,
            is_sticky: stat.stx_mode & STICKY != 0,
            is_immutable: has(StatxAttributes::IMMUTABLE),
            is_append_only: has(StatxAttributes::APPEND),
        }
    }

    /// That of what `path` leads to, where it is told.
    pub fn at(path: &Path) -> Option<Self> {
        let stat = rustix::fs::statx(CWD, path, AtFlags::empty(), StatxFlags::BASIC_STATS);
        stat.ok().map(|stat| Self::of(&stat))
    }

    /// Whether those who may change `other`, but for root, are the ones who may change this. Who has made a file for
    /// a group is taken for one of it.
    pub fn is_changed_by_those_of(&self, other: &Self) -> bool {
        self.writers() == other.writers()
    }

    /// The owner can give the right to write back, so it is always one of them.
    fn writers(&self) -> Writers {
        match (self.mode & OTHERS_WRITE != 0, self.mode & GROUP_WRITES != 0) {
            (true, true) => Writers::Everybody,
            (true, false) => Writers::AllButGroup { owner: self.uid, group: self.gid },
            (false, true) => Writers::Group(self.gid),
            (false, false) => Writers::Owner(self.uid),
        }
    }
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

    /// Whether this user may not add names below `path`, nor remove any: it is another user's.
    pub fn is_closed(&self, path: &str) -> bool {
        matches!(self.may_change(path), Err(Errno::ACCESS | Errno::PERM))
    }

    /// Owner and attributes of `name`, if it is there; of a link, the link's own.
    pub fn owned(&self, name: &str) -> Result<Option<Owned>, FsError> {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        match rustix::fs::statx(self, name, flags, StatxFlags::BASIC_STATS) {
            Ok(stat) => Ok(Some(Owned::of(&stat))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(FsError::io("look at", &self.path_of(name), error)),
        }
    }

    /// What the mode of this directory says of those who share it.
    pub fn place(&self) -> Result<Place, FsError> {
        let stat =
            rustix::fs::fstat(self).map_err(|error| FsError::io("look at", self.path(), error))?;
        let ours = rustix::process::getegid().as_raw();
        Ok(Place { mode: stat.st_mode & 0o7777, is_of_our_group: stat.st_gid == ours })
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

/// Lets `choose` replace the umask of the process; returns what it has chosen.
pub fn replace_umask(choose: impl FnOnce(u32) -> u32) -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let inherited = told_umask(&status).unwrap_or_else(|| {
        // Else it can only be read by setting it; whatever another thread creates meanwhile is ours alone.
        rustix::process::umask(Mode::RWXG | Mode::RWXO).as_raw_mode()
    });
    let chosen = choose(inherited);
    rustix::process::umask(Mode::from_raw_mode(chosen));
    chosen
}

/// The umask in `/proc/self/status`; not every kernel writes it there.
fn told_umask(status: &str) -> Option<u32> {
    let digits = status.lines().find_map(|line| line.strip_prefix("Umask:"))?;
    u32::from_str_radix(digits.trim(), 8).ok().filter(|umask| *umask <= 0o777)
}

/// Whether this process may replace what belongs to others in a sticky directory.
pub fn overrides_owners() -> bool {
    rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(CapabilitySet::FOWNER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_as_good_as_ours_if_the_same_users_may_change_it() {
        let of = |uid, gid, mode| Owned { uid, gid, mode, ..Owned::default() };
        for (one, other, expected) in [
            // The owner alone, whichever bits of its own are set.
            ((1, 1, 0o644), (1, 1, 0o644), true),
            ((1, 1, 0o444), (1, 2, 0o600), true),
            ((1, 1, 0o644), (2, 1, 0o644), false),
            // A group.
            ((1, 7, 0o664), (2, 7, 0o664), true),
            ((1, 7, 0o664), (1, 7, 0o660), true),
            ((1, 7, 0o664), (1, 8, 0o664), false),
            ((1, 7, 0o664), (1, 7, 0o644), false),
            ((1, 7, 0o664), (2, 7, 0o644), false),
            // Everybody, and no group in common.
            ((1, 1, 0o666), (2, 2, 0o666), true),
            ((1, 1, 0o666), (1, 1, 0o664), false),
            ((1, 1, 0o666), (1, 1, 0o644), false),
            // Those of a group have its bits and no others.
            ((1, 7, 0o646), (1, 7, 0o646), true),
            ((1, 7, 0o646), (1, 7, 0o666), false),
            ((1, 7, 0o646), (1, 8, 0o646), false),
        ] {
            let (one, other) = (of(one.0, one.1, one.2), of(other.0, other.1, other.2));
            assert_eq!(one.is_changed_by_those_of(&other), expected, "{one:?} {other:?}");
            assert_eq!(other.is_changed_by_those_of(&one), expected, "{one:?} {other:?}");
        }
    }

    #[test]
    fn the_umask_is_read_where_the_kernel_tells_it() {
        for (status, expected) in [
            ("Name:\tweightlift\nUmask:\t0022\nState:\tR (running)\n", Some(0o022)),
            ("Umask:\t0000\n", Some(0)),
            ("Umask:\t0777\n", Some(0o777)),
            ("Umask:\t1777\n", None),
            ("Umask:\t\n", None),
            ("Umask:\t9\n", None),
            // Before Linux 4.7, and in gVisor.
            ("Name:\tUmask: 0022\nState:\tR (running)\n", None),
            ("", None),
        ] {
            assert_eq!(told_umask(status), expected, "{status:?}");
        }
    }
}
