//! Other filesystems on the way from the root to a model: a volume that is mounted at `/data/models/team-a`
//! below another one. The model `team-a/llama` lies on the inner one, and nothing can be renamed from one
//! to the other. So the inner one is the root for it, with a working area of its own; whoever mounts that
//! volume alone finds the same layout, and the same locks.

use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, StatxAttributes, StatxFlags};

use super::StoreError;
use crate::fs::Dir;
use crate::model::ModelDir;

/// The way to the root of a store that lies below the root that was named. It is gone part by part: a
/// co-tenant of the outer volume can put a link in the place of a mount that is gone.
#[derive(Clone, Debug)]
pub(super) struct Outer {
    pub root: PathBuf,
    pub parts: Vec<String>,
}

impl Outer {
    pub fn path(&self) -> PathBuf {
        self.parts.iter().fold(self.root.clone(), |at, part| at.join(part))
    }

    pub fn open_inner(&self) -> Result<Option<Dir>, StoreError> {
        let Some(root) = Dir::open(&self.root)? else { return Ok(None) };
        Ok(root.descend(self.parts.iter().map(String::as_str))?)
    }
}

/// How many of `parts`, one below the other, lie above the last that begins another filesystem, itself
/// included.
pub(super) fn entered<'a>(
    root: Dir,
    parts: impl Iterator<Item = &'a str>,
) -> Result<usize, StoreError> {
    let (mut at, mut entered) = (root, 0);
    for (n, part) in parts.enumerate() {
        let Some(child) = at.child(part)? else { break };
        // The second for subvolumes of btrfs, which are no mounts.
        if is_mount_point(&at, &child, part)? || at.identity()?.0 != child.identity()?.0 {
            entered = n + 1;
        }
        at = child;
    }
    Ok(entered)
}

/// `family` below `root`, with its first `entered` parts as a part of the root.
pub(super) fn split(
    root: &Path,
    family: &ModelDir,
    entered: usize,
) -> Option<(PathBuf, ModelDir, Outer)> {
    let parts: Vec<&str> = family.path().parts().collect();
    if entered == 0 || entered >= parts.len() {
        return None;
    }
    let (above, below) = parts.split_at(entered);
    let parts = above.iter().map(|part| (*part).to_owned()).collect();
    let outer = Outer { root: root.to_owned(), parts };
    let inner = above.iter().fold(root.to_owned(), |root, part| root.join(part));
    Some((inner, ModelDir::parse(&below.join("/")).ok()?, outer))
}

/// Whether `name` in `parent` is the root of another mount.
pub(super) fn is_mount_point(parent: &Dir, child: &Dir, name: &str) -> Result<bool, StoreError> {
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    if let Ok(stat) = rustix::fs::statx(parent, name, flags, StatxFlags::empty())
        && stat.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT)
    {
        return Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT));
    }
    Ok(parent.identity()?.0 != child.identity()?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_above_a_mount_go_to_the_root() {
        let family = |dest: &str| ModelDir::parse(dest).expect(dest);
        for (dest, entered, root, inner) in [
            ("a/b", 1, "/models/a", "b"),
            ("a/b/c", 1, "/models/a", "b/c"),
            ("a/b/c", 2, "/models/a/b", "c"),
        ] {
            let named = Path::new("/models");
            let split_at = |entered| split(named, &family(dest), entered);
            let (at, below, outer) = split_at(entered).expect(dest);
            assert_eq!((at.as_path(), below), (Path::new(root), family(inner)));
            assert_eq!(outer.root.join(outer.parts.join("/")), at);
            assert!(split_at(0).is_none());
        }
    }
}
