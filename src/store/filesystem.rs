//! What can be expected of the filesystem below a directory, by its kind.

use rustix::fs::fstatfs;

use super::Dir;

const EXT: u64 = 0xef53;
const XFS: u64 = 0x5846_5342;
const BTRFS: u64 = 0x9123_683e;
const TMPFS: u64 = 0x0102_1994;
const OVERLAY: u64 = 0x794c_7630;

/// Since this version of Linux `syncfs` fails if anything could not be written.
const SYNCFS_REPORTS_SINCE: (u32, u32) = (5, 8);

/// Whether only one node at a time can have this filesystem mounted, so that a writer of an earlier
/// boot cannot exist any more.
pub fn is_local(dir: &Dir) -> bool {
    is_one_of(dir, &[EXT, XFS, BTRFS, TMPFS, OVERLAY])
}

/// Whether one `syncfs` makes all files durable, and tells if it could not.
pub fn syncs_as_a_whole(dir: &Dir) -> bool {
    is_one_of(dir, &[EXT, XFS, BTRFS, TMPFS]) && kernel() >= Some(SYNCFS_REPORTS_SINCE)
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
