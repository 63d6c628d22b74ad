//! A folder of blobs: what a repository holds at one commit.

use std::collections::BTreeMap;
use std::path::Path;
use std::{fs, io};

use crate::blob::Blob;

/// Paths (with `/`) and their contents, in order of the paths. Nothing about a path is checked,
/// so hostile ones can be served.
#[derive(Clone, Debug, Default)]
pub struct Tree(BTreeMap<String, Blob>);

impl Tree {
    pub fn new() -> Self {
        Self::default()
    }

    /// Every regular file below `root`, symbolic links followed. Small files are read now,
    /// large ones when they are asked for.
    pub fn from_dir(root: &Path) -> io::Result<Self> {
        let mut tree = Self::new();
        tree.add_dir(root, "")?;
        Ok(tree)
    }

    #[must_use]
    pub fn with(self, path: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self.with_blob(path, Blob::bytes(bytes))
    }

    #[must_use]
    pub fn with_blob(mut self, path: &str, blob: Blob) -> Self {
        self.0.insert(path.to_owned(), blob);
        self
    }

    #[must_use]
    pub fn without(mut self, path: &str) -> Self {
        self.0.remove(path);
        self
    }

    /// The same files, with the digests that `sums` (the output of `sha256sum`) has for them, so
    /// that nobody needs to hash them again. `None` when a line is not of that form.
    #[must_use]
    pub fn announcing_sha256(mut self, sums: &str) -> Option<Self> {
        for line in sums.lines() {
            let (digest, path) = line.split_once("  ")?;
            if digest.len() != 64 || !digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return None;
            }
            if let Some(blob) = self.0.remove(path) {
                self.0.insert(path.to_owned(), blob.announcing_sha256(digest));
            }
        }
        Some(self)
    }

    pub fn total_bytes(&self) -> u64 {
        self.0.values().map(Blob::len).sum()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn blob(&self, path: &str) -> Option<&Blob> {
        self.0.get(path)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Blob)> {
        self.0.iter().map(|(path, blob)| (path.as_str(), blob))
    }

    fn add_dir(&mut self, folder: &Path, prefix: &str) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name().into_string().map_err(|name| {
                io::Error::new(io::ErrorKind::InvalidData, format!("{name:?} is not UTF-8"))
            })?;
            let path = format!("{prefix}{name}");
            let kind = fs::metadata(entry.path())?;
            if kind.is_dir() {
                self.add_dir(&entry.path(), &format!("{path}/"))?;
            } else if kind.is_file() && kind.len() > READ_AT_ONCE_BYTES {
                self.0.insert(path, Blob::file(&entry.path())?);
            } else if kind.is_file() {
                self.0.insert(path, Blob::bytes(fs::read(entry.path())?));
            }
        }
        Ok(())
    }
}

const READ_AT_ONCE_BYTES: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_read_with_its_sub_folders() {
        let tree = Tree::from_dir(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
            .expect("the sources are here");
        assert!(tree.blob("tree.rs").is_some_and(|blob| !blob.is_empty()));
        assert!(tree.blob("bin/fake-hub.rs").is_some());
        assert_eq!(tree.total_bytes(), tree.iter().map(|(_, blob)| blob.len()).sum::<u64>());
        assert!(tree.without("tree.rs").blob("tree.rs").is_none());
    }

    #[test]
    fn known_digests_are_taken_from_the_output_of_sha256sum() {
        let digest = "ab".repeat(32);
        let sums = format!("{digest}  a/big.bin\n{digest}  not there\n");
        let tree = Tree::new().with("a/big.bin", "x").with("b", "y").announcing_sha256(&sums);
        let tree = tree.expect("well-formed sums");
        assert_eq!(tree.len(), 2);
        assert_eq!(tree.blob("a/big.bin").map(Blob::sha256), Some(digest));
        assert_eq!(tree.blob("b").map(Blob::sha256), Some(Blob::bytes("y").sha256()));
        assert!(Tree::new().announcing_sha256("abc  x").is_none());
    }
}
