//! What can be expected of the filesystem below a directory, by its kind; and what it keeps there
//! itself.

use rustix::fs::fstatfs;

use super::Dir;

pub(super) const EXT: u64 = 0xef53;
pub(super) const XFS: u64 = 0x5846_5342;
pub(super) const BTRFS: u64 = 0x9123_683e;
pub(super) const TMPFS: u64 = 0x0102_1994;
pub(super) const OVERLAY: u64 = 0x794c_7630;

/// Since this version of Linux `syncfs` fails if anything could not be written.
const SYNCFS_REPORTS_SINCE: (u32, u32) = (5, 8);

/// Names of files and directories that a filesystem or a file server puts beside those of its users,
/// compared without case, as SMB does.
const OF_FILESYSTEMS: [&str; 29] = [
    // ext2, ext3, ext4, OCFS2, JFS: where `fsck` puts what has lost its name; 0700 and root's.
    "lost+found",
    // Quota files of ext4 that are no hidden inodes, of both formats.
    "aquota.user",
    "aquota.group",
    "quota.user",
    "quota.group",
    // Snapshots: NetApp ONTAP (FSx, Azure NetApp Files), PowerScale, Qumulo, VAST, Filestore.
    ".snapshot",
    "~snapshot",
    // IBM Storage Scale (GPFS), WEKA, snapper on btrfs.
    ".snapshots",
    // CephFS; UFS.
    ".snap",
    // Dell Unity and VNX, with their own settings in `.etc`; Sun NAS.
    ".ckpt",
    ".chkpnt",
    ".etc",
    // OpenZFS with `snapdir=visible`.
    ".zfs",
    // GlusterFS: the root of a brick, and where its trash translator puts what is removed.
    ".glusterfs",
    ".trashcan",
    // Lustre: files by their identifiers.
    ".lustre",
    // JuiceFS: virtual files in the root of a mount, and its trash.
    ".accesslog",
    ".config",
    ".control",
    ".stats",
    ".trash",
    // NTFS and exFAT: the root of a Windows server's share.
    "System Volume Information",
    "$RECYCLE.BIN",
    // Synology DSM: snapshots, removed files, and indexes in every directory.
    "#snapshot",
    "#recycle",
    "@eaDir",
    // QNAP QTS: the same three.
    "@Recently-Snapshot",
    "@Recycle",
    ".@__thumb",
];
/// Starts the name of what a person's desktop has removed from a volume, whose root it keeps it in; the number of the
/// user follows.
const OF_DESKTOPS: &str = ".Trash-";
/// Starts the name that a file gets which is removed while a process has it open. It is gone when
/// that process has closed it; until then its directory cannot be removed.
const OF_OPEN_FILES: [&str; 5] = [
    // NFS clients.
    ".nfs",
    // libfuse.
    ".fuse_hidden",
    // The SMB client of Linux, since 6.17 and before.
    ".__smbfile_silly",
    ".smb0",
    // The AFS client of Linux.
    ".__afs",
];

/// Whether `name` is one that a filesystem keeps for itself: nobody's file, so never foreign, and
/// never opened, moved or removed. A file of a model can have such a name nevertheless, so where a
/// list says what belongs to a model, the list counts.
pub fn owns(name: &str) -> bool {
    is_of_open_file(name)
        || is_trash(name)
        || OF_FILESYSTEMS.iter().any(|own| own.eq_ignore_ascii_case(name))
}

fn is_trash(name: &str) -> bool {
    let user = name.strip_prefix(OF_DESKTOPS).unwrap_or_default();
    !user.is_empty() && user.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_of_open_file(name: &str) -> bool {
    OF_OPEN_FILES.iter().any(|start| name.len() > start.len() && name.starts_with(start))
}

/// Whether only one node at a time can have this filesystem mounted, so that a writer of an earlier
/// boot cannot exist any more.
pub fn is_local(dir: &Dir) -> bool {
    is_one_of(dir, &[EXT, XFS, BTRFS, TMPFS, OVERLAY])
}

/// Whether one `syncfs` makes all files durable, and tells if it could not.
pub fn syncs_as_a_whole(dir: &Dir) -> bool {
    is_one_of(dir, &[EXT, XFS, BTRFS, TMPFS]) && kernel() >= Some(SYNCFS_REPORTS_SINCE)
}

/// Whether writes past the page cache go to a disk of this node, with nobody in between who keeps copies.
pub fn is_on_disk(dir: &Dir) -> bool {
    is_one_of(dir, &[EXT, XFS])
}

fn is_one_of(dir: &Dir, kinds: &[u64]) -> bool {
    fstatfs(dir).is_ok_and(|stat| kinds.contains(&(stat.f_type as u64)))
}

/// Version of the kernel that runs: `6.18.44-generic` is `(6, 18)`.
fn kernel() -> Option<(u32, u32)> {
    let uname = rustix::system::uname();
    version(uname.release().to_str().ok()?)
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_of_a_filesystem_is_known_by_its_name() {
        for name in [
            "lost+found",
            ".snapshot",
            ".snap",
            ".zfs",
            ".glusterfs",
            ".nfs000000000000abcd00000001",
            ".fuse_hidden0000000500000001",
            "$Recycle.Bin",
            ".Trash",
            ".Trash-1000",
        ] {
            assert!(owns(name), "{name}");
        }
        // What people make.
        for name in [
            "",
            ".nfs",
            "nfs",
            "snapshot",
            "lost+found.txt",
            ".cache",
            ".Trash-",
            ".Trash-bin",
            ".git",
            "...",
        ] {
            assert!(!owns(name), "{name}");
        }
    }

    #[test]
    fn releases_of_kernels_are_read() {
        assert_eq!(version("6.18.44-fc-v657"), Some((6, 18)));
        assert_eq!(version("5.4.0-1100-aws"), Some((5, 4)));
        assert_eq!(version("5.15+"), Some((5, 15)));
        assert_eq!(version("unknown"), None);
        assert!(version("5.4.0") < Some(SYNCFS_REPORTS_SINCE));
        assert!(version("5.10.0") > Some(SYNCFS_REPORTS_SINCE));
        assert!(kernel().is_some());
    }
}
