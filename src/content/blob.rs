//! What makes bytes the same bytes, wherever they are.

use crate::model::{Checksum, Digest, RelPath, RemoteFile};

/// The content of one file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Blob {
    /// Bytes.
    pub size: u64,
    pub identity: Identity,
}

/// What tells one content from another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// Every place that publishes this cryptographic digest has these bytes.
    Digest(Digest),
    /// No such digest is published. Only the source that was pinned can say which bytes these are: at
    /// this path of its revision, in this version.
    Pinned { path: RelPath, validator: Option<String> },
}

/// One way to read a blob: one place of several, and the file as that place lists it.
///
/// How the place reaches the bytes (an object, a layer, a link to a storage) is its own matter. A place
/// that has two ways, one of which can fail while the other works, is two places.
#[derive(Clone, Debug)]
pub struct Locator {
    /// The place's number in the order of preference.
    pub place: usize,
    /// Path, size and validator at that place.
    pub file: RemoteFile,
}

impl Blob {
    pub fn of(file: &RemoteFile) -> Self {
        let identity = match &file.digest {
            Some(digest) => match digest.sha256() {
                Some(sha256) => Identity::Digest(Digest::Sha256(sha256)),
                None if matches!(digest, Digest::Full { checksum: Checksum::Sha256, .. }) => {
                    Self::pinned(file)
                }
                None if digest.identifies() => Identity::Digest(digest.clone()),
                None => Self::pinned(file),
            },
            None => Self::pinned(file),
        };
        Self { size: file.size, identity }
    }

    /// Whether a place other than the pinned source can have it.
    pub fn is_portable(&self) -> bool {
        matches!(self.identity, Identity::Digest(_))
    }

    fn pinned(file: &RemoteFile) -> Identity {
        Identity::Pinned { path: file.path.clone(), validator: file.validator.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(path: &str, size: u64, digest: Option<Digest>) -> Blob {
        let path = RelPath::parse(path).expect(path);
        Blob::of(&RemoteFile {
            path,
            size,
            digest,
            validator: Some("\"etag\"".into()),
            xet_hash: None,
        })
    }

    #[test]
    fn a_cryptographic_digest_and_the_size_make_a_blob_whatever_its_path() {
        let sha256 = || Some(Digest::Sha256([7; 32]));
        let of_s3 = |checksum, len| Some(Digest::Full { checksum, value: vec![7; len] });
        let by_part = |sizes: &[u64]| {
            let (checksum, value) = (Checksum::Sha256, vec![7; 32]);
            Some(Digest::Composite { checksum, part_sizes: sizes.to_vec(), value })
        };
        for (name, first, second, is_same) in [
            ("another path", blob("a", 9, sha256()), blob("b", 9, sha256()), true),
            ("another size", blob("a", 9, sha256()), blob("a", 8, sha256()), false),
            (
                "SHA-256 as S3 names it",
                blob("a", 9, sha256()),
                blob("b", 9, of_s3(Checksum::Sha256, 32)),
                true,
            ),
            (
                "SHA-1 of Git and of the content",
                blob("a", 9, Some(Digest::GitSha1([7; 20]))),
                blob("a", 9, of_s3(Checksum::Sha1, 20)),
                false,
            ),
            (
                "the same parts",
                blob("a", 9, by_part(&[5, 4])),
                blob("b", 9, by_part(&[5, 4])),
                true,
            ),
            ("other parts", blob("a", 9, by_part(&[5, 4])), blob("b", 9, by_part(&[9])), false),
            (
                "a CRC, which can be forged",
                blob("a", 9, of_s3(Checksum::Crc64Nvme, 8)),
                blob("b", 9, of_s3(Checksum::Crc64Nvme, 8)),
                false,
            ),
            ("no digest", blob("a", 9, None), blob("b", 9, None), false),
        ] {
            assert_eq!(first == second, is_same, "{name}");
        }
        assert!(!blob("a", 9, of_s3(Checksum::Crc32c, 4)).is_portable());
        assert!(blob("a", 9, by_part(&[9])).is_portable());
    }
}
