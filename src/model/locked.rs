//! What a model is, wherever its bytes come from: a list of paths, sizes and SHA-256.

use std::collections::HashMap;

use super::{
    Digest, LeftOut, RefusedFile, RelPath, RemoteFile, Selected, Selection, SelectionError,
    Sentinel, Sha256, Snapshot,
};

/// A model as a lock file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locked {
    /// What the source called itself, after renames.
    pub source_name: String,
    /// What the source resolved to: a commit, or the digest of a listing.
    pub revision: String,
    /// In the order of their paths.
    pub files: Vec<LockedFile>,
    pub left_out: Vec<LeftOut>,
    /// The SHA-256 of the lock file, for the sentinel.
    pub lock: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockedFile {
    pub path: RelPath,
    /// Bytes.
    pub size: u64,
    pub sha256: Sha256,
    /// What the source itself calls the content, where that is not its SHA-256: `git-sha1:…`.
    pub published: Option<String>,
    /// The ETag of an object.
    pub validator: Option<String>,
    /// What a store of chunks calls the content.
    pub xet_hash: Option<Box<[u8; 32]>>,
}

impl Locked {
    /// The listing that it stands for: nobody has to be asked.
    pub fn snapshot(&self) -> Snapshot {
        let file = |file: &LockedFile| RemoteFile {
            path: file.path.clone(),
            size: file.size,
            digest: Some(Digest::Sha256(file.sha256.0)),
            validator: file.validator.clone(),
            xet_hash: file.xet_hash.clone(),
        };
        let files = self.files.iter().map(file).collect();
        Snapshot::new(self.source_name.clone(), self.revision.clone(), files, Vec::new())
    }

    /// What was chosen when it was made: all of `files`, if they can lie in one tree.
    pub fn select(
        &self,
        files: Vec<RemoteFile>,
        refused: Vec<RefusedFile>,
    ) -> Result<Selected, SelectionError> {
        let everything = Selection { all: true, ..Selection::default() };
        let selected = everything.apply(files, refused)?;
        Ok(Selected { left_out: self.left_out.clone(), hint: None, ..selected })
    }

    /// Whether a published revision has each file, whichever source it came from.
    pub fn is_in(&self, sentinel: &Sentinel) -> bool {
        let there: HashMap<&str, (u64, Sha256)> =
            sentinel.files.iter().map(|it| (it.path.as_ref(), (it.size, it.sha256))).collect();
        let is_there =
            |file: &LockedFile| there.get(file.path.as_str()) == Some(&(file.size, file.sha256));
        self.files.iter().all(is_there)
    }

    /// Whether it has these and no others.
    pub fn is_exactly(&self, sentinel: &Sentinel) -> bool {
        sentinel.files.len() == self.files.len() && self.is_in(sentinel)
    }
}

impl LockedFile {
    /// Of a `file` whose bytes have this `sha256`.
    pub fn new(file: &RemoteFile, sha256: Sha256) -> Self {
        let published = file.digest.as_ref().filter(|it| !matches!(it, Digest::Sha256(_)));
        Self {
            path: file.path.clone(),
            size: file.size,
            sha256,
            published: published.map(ToString::to_string),
            validator: file.validator.clone(),
            xet_hash: file.xet_hash.clone(),
        }
    }

    /// The SHA-256 of `file` as far as it can be known without its bytes: it is published, or what the source
    /// calls the content is what it was when the bytes were read.
    pub fn sha256_of(file: &RemoteFile, before: Option<&Self>) -> Option<Sha256> {
        if let Some(Digest::Sha256(sha256)) = &file.digest {
            return Some(Sha256(*sha256));
        }
        let before = before.filter(|before| before.size == file.size)?;
        let published = file.digest.as_ref().map(ToString::to_string);
        let is_same_version = file.validator.is_some()
            && file.validator == before.validator
            && published == before.published;
        let identifies = file.digest.as_ref().is_some_and(Digest::identifies);
        let is_same = (identifies && published == before.published) || is_same_version;
        is_same.then_some(before.sha256)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Checksum, SentinelFile, SourceUri};

    fn remote(path: &str, digest: Option<Digest>, validator: Option<&str>) -> RemoteFile {
        let path = RelPath::parse(path).expect("a path");
        RemoteFile {
            path,
            size: 3,
            digest,
            validator: validator.map(str::to_owned),
            xet_hash: None,
        }
    }

    #[test]
    fn bytes_are_read_again_unless_their_name_says_that_they_are_the_same() {
        let (git, other) = (Digest::GitSha1([1; 20]), Digest::GitSha1([2; 20]));
        let crc = |n| Digest::Full { checksum: Checksum::Crc64Nvme, value: vec![n; 8] };
        for (name, now, before, is_known) in [
            ("git", (Some(git.clone()), None), (Some(git.clone()), None), true),
            ("another blob", (Some(other), None), (Some(git), None), false),
            ("one version", (Some(crc(1)), Some("e")), (Some(crc(1)), Some("e")), true),
            ("another version", (Some(crc(1)), Some("f")), (Some(crc(1)), Some("e")), false),
            ("one name, other bytes", (Some(crc(2)), Some("e")), (Some(crc(1)), Some("e")), false),
            ("a CRC alone", (Some(crc(1)), None), (Some(crc(1)), None), false),
            ("nothing published", (None, Some("e")), (None, Some("e")), true),
            ("nothing at all", (None, None), (None, None), false),
        ] {
            let before = LockedFile::new(&remote("a", before.0, before.1), Sha256([7; 32]));
            let sha256 = LockedFile::sha256_of(&remote("a", now.0, now.1), Some(&before));
            assert_eq!(sha256, is_known.then_some(Sha256([7; 32])), "{name}");
        }
        let published = remote("a", Some(Digest::Sha256([9; 32])), None);
        assert_eq!(LockedFile::sha256_of(&published, None), Some(Sha256([9; 32])));
    }

    #[test]
    fn a_revision_holds_what_is_locked_whatever_else_it_has() {
        let file = |path, n| LockedFile::new(&remote(path, None, None), Sha256([n; 32]));
        let locked = Locked {
            source_name: "hf://a/b".into(),
            revision: "r".into(),
            files: vec![file("a", 1), file("b", 2)],
            left_out: Vec::new(),
            lock: String::new(),
        };
        let published = |files: &[(&str, u8)]| {
            let file = |(path, n): &(&str, u8)| {
                SentinelFile::new(&remote(path, None, None), Sha256([*n; 32]), None, None)
            };
            Sentinel::new(
                &SourceUri::parse("s3://bucket/other/").expect("a source"),
                "s3://bucket/other/".into(),
                "another".into(),
                Selection::default(),
                "now".into(),
                files.iter().map(file).collect(),
                Vec::new(),
            )
        };
        for (files, is_in, is_exactly) in [
            (&[("a", 1), ("b", 2)][..], true, true),
            (&[("a", 1), ("b", 2), ("c", 3)], true, false),
            (&[("a", 1), ("b", 3)], false, false),
            (&[("a", 1), ("c", 2)], false, false),
            (&[], false, false),
        ] {
            let sentinel = published(files);
            assert_eq!(
                (locked.is_in(&sentinel), locked.is_exactly(&sentinel)),
                (is_in, is_exactly)
            );
        }
    }
}
