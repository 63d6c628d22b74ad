//! The immutable listing that a source pins before the first byte.

use super::{Digest, RelPath, UnsafePath};

/// What a source holds at one revision.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// `hf://org/name`, `s3://bucket/prefix/`: after renames, without the revision.
    pub source_name: String,
    /// The Hub's commit, or for S3 a SHA-256 over the listing (keys, sizes, ETags).
    pub revision: String,
    /// In the order of their paths.
    pub files: Vec<RemoteFile>,
    /// What the source lists as well, under names that cannot be used. Judged when it is selected.
    pub refused: Vec<RefusedFile>,
}

/// A file whose name cannot become a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedFile {
    /// As the source spells it: what patterns are compared with. Never shown as it is.
    pub name: String,
    /// Bytes.
    pub size: u64,
    pub why: UnsafePath,
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
    /// What a store of chunks (Xet) calls the content, where the Hub tells: other chunks, another name. No proof.
    pub xet_hash: Option<Box<[u8; 32]>>,
}

/// Refused files, with a bound on the memory that hostile names take.
#[derive(Debug, Default)]
pub struct RefusedFiles {
    files: Vec<RefusedFile>,
    bytes: usize,
}

/// Bytes of refused names that are kept. An honest repo has a handful of them.
const MAX_REFUSED_BYTES: usize = 4 << 20;

impl RefusedFiles {
    /// Keeps `file` for the selection to judge; one too many is refused at once.
    pub fn push(&mut self, file: RefusedFile) -> Result<(), UnsafePath> {
        self.bytes = self.bytes.saturating_add(file.name.len() + size_of::<RefusedFile>());
        if self.bytes > MAX_REFUSED_BYTES {
            return Err(file.why);
        }
        self.files.push(file);
        Ok(())
    }

    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    pub fn into_files(self) -> Vec<RefusedFile> {
        self.files
    }
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
    /// Sorts `files` by path. Whether they fit into one tree is asked of those that are selected.
    pub fn new(
        source_name: String,
        revision: String,
        mut files: Vec<RemoteFile>,
        refused: Vec<RefusedFile>,
    ) -> Self {
        // By parts, so that everything in a directory follows it without a gap: `a`, `a/b`, `a.b`.
        files.sort_by(|a, b| a.path.parts().cmp(b.path.parts()));
        // Listed twice in the same words, it is one file.
        files.dedup();
        Self { source_name, revision, files, refused }
    }
}

/// Whether `files`, sorted as in a snapshot, can lie in one directory tree.
pub(super) fn check_tree(files: &[RemoteFile]) -> Result<(), SnapshotError> {
    for pair in files.windows(2) {
        let (first, second) = (&pair[0].path, &pair[1].path);
        if first == second {
            return Err(SnapshotError::Duplicate(first.clone()));
        }
        if second.as_str().strip_prefix(first.as_str()).is_some_and(|rest| rest.starts_with('/')) {
            return Err(SnapshotError::FileAndDirectory(first.clone()));
        }
    }
    // Whoever adds up sizes later need not think of this.
    if files.iter().try_fold(0, |sum: u64, file| sum.checked_add(file.size)).is_none() {
        return Err(SnapshotError::TooLarge);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str) -> RemoteFile {
        let path = RelPath::parse(path).expect(path);
        RemoteFile { path, size: 1, digest: None, validator: None, xet_hash: None }
    }

    fn check(files: Vec<RemoteFile>) -> Result<(), SnapshotError> {
        check_tree(&Snapshot::new("hf://a/b".into(), "c".into(), files, Vec::new()).files)
    }

    #[test]
    fn a_listing_that_is_no_tree_is_refused() {
        let check = |paths: &[&str]| {
            // Of different sizes: the same file twice is one.
            let sized = paths.iter().zip(1..).map(|(path, size)| RemoteFile { size, ..file(path) });
            check(sized.collect())
        };
        assert!(matches!(check(&["a", "b", "a"]), Err(SnapshotError::Duplicate(_))));
        assert!(matches!(check(&["a/b", "a.b", "a"]), Err(SnapshotError::FileAndDirectory(_))));
        assert!(check(&["a.b", "a/b", "a/c", "ab"]).is_ok());
    }

    #[test]
    fn a_file_that_is_listed_twice_in_the_same_words_is_one() {
        let files = vec![file("b"), file("a"), file("b")];
        let snapshot = Snapshot::new("hf://a/b".into(), "c".into(), files, Vec::new());
        assert_eq!(snapshot.files, [file("a"), file("b")]);
    }

    #[test]
    fn names_that_are_refused_take_a_bounded_amount_of_memory() {
        let name = format!("../{}", "x".repeat(1 << 20));
        let why = RelPath::parse(&name).expect_err("leaves its directory");
        let mut refused = RefusedFiles::default();
        let kept = (0..9)
            .take_while(|_| {
                let file = RefusedFile { name: name.clone(), size: 1, why: why.clone() };
                refused.push(file).is_ok()
            })
            .count();
        assert_eq!(kept, 3);
    }

    #[test]
    fn sizes_that_cannot_be_added_up_are_refused() {
        let of_size = |path, size| RemoteFile { size, ..file(path) };
        let files = vec![of_size("a", u64::MAX - 1), of_size("b", 1), of_size("c", 1)];
        assert!(matches!(check(files), Err(SnapshotError::TooLarge)));
    }
}
