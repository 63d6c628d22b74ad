//! The immutable listing that a source pins before the first byte.

use super::{Digest, RelPath};

/// What a source holds at one revision.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// `hf://org/name`, `s3://bucket/prefix/`: after renames, without the revision.
    pub place: String,
    /// The Hub's commit, or for S3 a SHA-256 over the listing (keys, sizes, ETags).
    pub revision: String,
    /// In the order of their paths.
    pub files: Vec<RemoteFile>,
}

/// One file at the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteFile {
    pub path: RelPath,
    /// Bytes.
    pub size: u64,
    /// What the source published to prove the content, if it did.
    pub digest: Option<Digest>,
    /// What a ranged read must match: the ETag of an S3 object. The Hub's commit needs none.
    pub validator: Option<String>,
}

/// A listing that cannot become a directory tree. Exit code 13.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    #[error("the source lists `{0}` twice")]
    Duplicate(RelPath),
    #[error("the source lists `{0}` both as a file and as a directory")]
    FileAndDirectory(RelPath),
    #[error("the source lists files that are larger together than any filesystem")]
    TooLarge,
}

impl Snapshot {
    /// Sorts `files` by path and makes sure that they fit into one tree.
    pub fn new(
        place: String,
        revision: String,
        mut files: Vec<RemoteFile>,
    ) -> Result<Self, SnapshotError> {
        // By parts, so that everything in a directory follows it without a gap: `a`, `a/b`, `a.b`.
        files.sort_by(|a, b| a.path.parts().cmp(b.path.parts()));
        for pair in files.windows(2) {
            let (first, second) = (&pair[0].path, &pair[1].path);
            if first == second {
                return Err(SnapshotError::Duplicate(first.clone()));
            }
            if second
                .as_str()
                .strip_prefix(first.as_str())
                .is_some_and(|rest| rest.starts_with('/'))
            {
                return Err(SnapshotError::FileAndDirectory(first.clone()));
            }
        }
        // Whoever adds up sizes later need not think of this.
        if files.iter().try_fold(0, |sum: u64, file| sum.checked_add(file.size)).is_none() {
            return Err(SnapshotError::TooLarge);
        }
        Ok(Self { place, revision, files })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str) -> RemoteFile {
        let path = RelPath::parse(path).expect(path);
        RemoteFile { path, size: 1, digest: None, validator: None }
    }

    fn snapshot(paths: &[&str]) -> Result<Snapshot, SnapshotError> {
        let files = paths.iter().map(|path| file(path)).collect();
        Snapshot::new("hf://a/b".into(), "c".into(), files)
    }

    #[test]
    fn a_listing_that_is_no_tree_is_refused() {
        assert!(matches!(snapshot(&["a", "b", "a"]), Err(SnapshotError::Duplicate(_))));
        assert!(matches!(snapshot(&["a/b", "a.b", "a"]), Err(SnapshotError::FileAndDirectory(_))));
        assert!(snapshot(&["a.b", "a/b", "a/c", "ab"]).is_ok());
    }

    #[test]
    fn sizes_that_cannot_be_added_up_are_refused() {
        let of_size = |path, size| RemoteFile { size, ..file(path) };
        let files = vec![of_size("a", u64::MAX - 1), of_size("b", 1), of_size("c", 1)];
        let refused = Snapshot::new("hf://a/b".into(), "c".into(), files);
        assert!(matches!(refused, Err(SnapshotError::TooLarge)));
    }
}
