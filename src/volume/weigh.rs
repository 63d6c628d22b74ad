//! How many bytes a removal frees. Revisions share files by hard links, and a file is free only when its last
//! name is gone.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;
use rustix::path::Arg;

use super::remove::{MAX_LEVELS, is_owned, names};
use crate::fs::dir::DIRECTORY;
use crate::fs::{Dir, Kind};

/// So many files with several names are remembered; what more there are counts for nothing.
const MAX_FILES: usize = 100_000;

/// What is removed together, as if each tree that was weighed were gone by now.
#[derive(Debug, Default)]
pub struct Weighed {
    /// How many names of a file, by device and inode, are gone.
    names: HashMap<(u64, u64), usize>,
}

impl Weighed {
    fn is_last_name(&mut self, stat: &rustix::fs::Stat) -> bool {
        let links = usize::try_from(stat.st_nlink).unwrap_or(usize::MAX);
        if links <= 1 {
            return true;
        }
        let is_known = self.names.len() < MAX_FILES;
        let file = (stat.st_dev, stat.st_ino);
        match self.names.get_mut(&file) {
            Some(gone) => {
                *gone += 1;
                *gone == links
            }
            None if is_known => {
                self.names.insert(file, 1);
                false
            }
            None => false,
        }
    }
}

impl Dir {
    /// Bytes that the files below `name` take and that its removal alone would free. What cannot be looked
    /// at counts for nothing.
    pub fn bytes_below(&self, name: &str) -> u64 {
        self.weigh(name, &mut Weighed::default())
    }

    /// The same, after the removal of all that `weighed` has seen.
    pub fn weigh(&self, name: &str, weighed: &mut Weighed) -> u64 {
        match self.kind(name) {
            Ok(Some(Kind::Directory)) => {
                below(self.as_fd(), name, MAX_LEVELS, weighed).unwrap_or(0)
            }
            _ => 0,
        }
    }
}

fn below(
    dir: BorrowedFd<'_>,
    name: impl Arg + Copy,
    levels: usize,
    weighed: &mut Weighed,
) -> Result<u64, Errno> {
    let child = rustix::fs::openat(dir, name, DIRECTORY, Mode::empty())?;
    let levels = levels.checked_sub(1).ok_or(Errno::NAMETOOLONG)?;
    let mut bytes = 0_u64;
    for name in names(child.as_fd())?.iter().filter(|name| !is_owned(name)) {
        let name = name.as_c_str();
        let Ok(stat) = rustix::fs::statat(&child, name, AtFlags::SYMLINK_NOFOLLOW) else {
            continue;
        };
        bytes = bytes.saturating_add(match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => below(child.as_fd(), name, levels, weighed).unwrap_or(0),
            FileType::RegularFile if weighed.is_last_name(&stat) => {
                (stat.st_blocks.max(0) as u64).saturating_mul(512)
            }
            _ => 0,
        });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_free_when_the_last_of_its_names_is_gone() {
        let at = tempfile::tempdir().expect("a directory");
        let dir = Dir::open(at.path()).expect("opens").expect("is there");
        for name in ["a", "b", "c"] {
            std::fs::create_dir(at.path().join(name)).expect("is new");
        }
        std::fs::write(at.path().join("a/x"), vec![1; 8192]).expect("written");
        for other in ["b/x", "c/x", "c/y"] {
            std::fs::hard_link(at.path().join("a/x"), at.path().join(other)).expect("linked");
        }
        assert_eq!(dir.bytes_below("c"), 0, "others have it");
        let mut weighed = Weighed::default();
        let weights = ["a", "b", "c"].map(|name| dir.weigh(name, &mut weighed));
        assert!(weights[0] + weights[1] == 0 && weights[2] >= 8192, "{weights:?}");
    }
}
