//! What a filesystem is called, and which nodes its locks reach: for a person.

use rustix::fs::{AtFlags, StatxFlags, fstatfs, statx};

use super::filesystem::{BTRFS, EXT, OVERLAY, TMPFS, XFS};
use super::{Dir, FsError};

/// Where a lock that one process holds is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockReach {
    /// No other node can have the filesystem mounted.
    OneNode,
    /// By every node that has it mounted: its server keeps them.
    EveryNode,
    /// Other nodes may have it mounted, and may not see the locks of this one.
    Unknown,
}

/// What is known of a filesystem by its kind and its mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nature {
    pub name: String,
    pub reach: LockReach,
}

/// Kinds of filesystems by the number that `statfs` gives.
const KINDS: [(u64, &str, LockReach); 23] = [
    (EXT, "ext4", LockReach::OneNode),
    (XFS, "xfs", LockReach::OneNode),
    (BTRFS, "btrfs", LockReach::OneNode),
    (TMPFS, "tmpfs", LockReach::OneNode),
    (OVERLAY, "overlay", LockReach::OneNode),
    (0x2fc1_2fc1, "zfs", LockReach::OneNode),
    (0xf2f5_2010, "f2fs", LockReach::OneNode),
    (0xca45_1a4e, "bcachefs", LockReach::OneNode),
    (0x8584_58f6, "ramfs", LockReach::OneNode),
    (0x6969, "nfs", LockReach::EveryNode),
    (0x00c3_6400, "cephfs", LockReach::EveryNode),
    (0x4750_4653, "gpfs", LockReach::EveryNode),
    (0x0116_1970, "gfs2", LockReach::EveryNode),
    (0x7461_636f, "ocfs2", LockReach::EveryNode),
    // By `mount -o flock` only.
    (0x0bd0_0bd0, "lustre", LockReach::Unknown),
    (0xfe53_4d42, "smb", LockReach::Unknown),
    (0xff53_4d42, "cifs", LockReach::Unknown),
    (0x6573_5546, "fuse", LockReach::Unknown),
    (0x0102_1997, "9p", LockReach::Unknown),
    (0x1983_0326, "beegfs", LockReach::Unknown),
    (0x5346_414f, "afs", LockReach::Unknown),
    (0x7371_7368, "squashfs", LockReach::OneNode),
    (0x9660, "iso9660", LockReach::OneNode),
];

impl Nature {
    /// That of the filesystem of `dir`.
    pub fn of(dir: &Dir) -> Result<Self, FsError> {
        let stat = fstatfs(dir).map_err(|error| FsError::io("look at", dir.path(), error))?;
        let number = stat.f_type as u64 & 0xffff_ffff;
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let device = statx(dir, "", AtFlags::EMPTY_PATH, StatxFlags::empty())
            .map(|stat| format!("{}:{}", stat.stx_dev_major, stat.stx_dev_minor));
        Ok(nature(number, mount_of(&mounts, &device.unwrap_or_default())))
    }
}

/// The kind and the options of the filesystem of this device, from the lines of `mountinfo`.
fn mount_of<'a>(mounts: &'a str, device: &str) -> Option<(&'a str, &'a str)> {
    let line = mounts.lines().find(|line| line.split(' ').nth(2) == Some(device))?;
    let (_, filesystem) = line.split_once(" - ")?;
    let mut fields = filesystem.split(' ');
    Some((fields.next()?, fields.nth(1).unwrap_or_default()))
}

fn nature(number: u64, mount: Option<(&str, &str)>) -> Nature {
    let known = KINDS.iter().find(|(of, ..)| *of == number);
    let (name, reach) = match known {
        Some((_, name, reach)) => ((*name).to_owned(), *reach),
        None => (format!("of type {number:#x}"), LockReach::Unknown),
    };
    match mount {
        // `fuse.juicefs` says more than `fuse`, `nfs4` more than `nfs`.
        Some((kind, options)) => {
            let keeps_to_itself = |option: &str| {
                matches!(option, "nolock" | "local_lock=all" | "local_lock=flock" | "localflock")
            };
            let is_local = options.split(',').any(keeps_to_itself);
            let has_flock = name == "lustre" && options.split(',').any(|it| it == "flock");
            let reach = match reach {
                LockReach::EveryNode if is_local => LockReach::Unknown,
                LockReach::Unknown if has_flock => LockReach::EveryNode,
                reach => reach,
            };
            let more = kind.starts_with(name.as_str()) || known.is_none() || name == "ext4";
            Nature { name: if more { kind.to_owned() } else { name }, reach }
        }
        None => Nature { name, reach },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_and_the_options_of_the_mount_say_whom_locks_reach() {
        use LockReach::{EveryNode, OneNode, Unknown};
        for (number, mount, name, reach) in [
            (EXT, Some(("ext2", "rw")), "ext2", OneNode),
            (EXT, None, "ext4", OneNode),
            (0x6969, None, "nfs", EveryNode),
            (0x6969, Some(("nfs4", "rw,vers=4.2,local_lock=none")), "nfs4", EveryNode),
            (0x6969, Some(("nfs", "rw,vers=3,nolock")), "nfs", Unknown),
            (0x6969, Some(("nfs", "rw,local_lock=flock")), "nfs", Unknown),
            (0x6573_5546, Some(("fuse.juicefs", "rw")), "fuse.juicefs", Unknown),
            (0x0bd0_0bd0, Some(("lustre", "rw,flock")), "lustre", EveryNode),
            (0x0bd0_0bd0, Some(("lustre", "rw,localflock")), "lustre", Unknown),
            (0x00c3_6400, Some(("ceph", "rw")), "cephfs", EveryNode),
            (7, Some(("weka", "rw")), "weka", Unknown),
            (7, None, "of type 0x7", Unknown),
        ] {
            let expected = Nature { name: name.into(), reach };
            assert_eq!(nature(number, mount), expected, "{number:#x} {mount:?}");
        }
    }

    #[test]
    fn a_mount_is_found_by_its_device() {
        let mounts = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
                      31 22 0:44 / /data rw,relatime shared:9 - nfs4 server:/x rw,local_lock=none\n\
                      32 22 0:45\n";
        assert_eq!(mount_of(mounts, "0:44"), Some(("nfs4", "rw,local_lock=none")));
        assert_eq!(mount_of(mounts, "8:1"), Some(("ext4", "rw")));
        assert_eq!(mount_of(mounts, "0:45"), None);
        assert_eq!(mount_of(mounts, "0:46"), None);
        assert_eq!(mount_of("", ""), None);
    }
}
