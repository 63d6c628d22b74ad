//! All digests of one file in one pass, in the order of its bytes.

use md5::Md5;
use sha1::Digest as _;
use sha1::Sha1;

use super::sha256::Sha256;
use crate::model::{Checksum, Digest};

/// Computes our own SHA-256 of a file and, beside it, the digest that its source published.
pub struct FileHasher {
    sha256: Sha256,
    published: Option<Digest>,
    other: Option<Other>,
}

/// The published digest, where it is not a plain SHA-256 of the content.
enum Other {
    Plain(Hash),
    Composite(Composite),
}

/// One running checksum of any kind.
enum Hash {
    Sha256(Box<Sha256>),
    Sha1(Box<Sha1>),
    Md5(Box<Md5>),
    Crc(Box<crc_fast::Digest>, usize),
}

/// A checksum over the checksums of parts.
struct Composite {
    checksum: Checksum,
    part_sizes: std::vec::IntoIter<u64>,
    part: Hash,
    part_left: u64,
    whole: Hash,
    /// The parts did not add up to the file.
    is_broken: bool,
}

/// The bytes are not what the source published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("digest {found}, published {expected}")]
pub struct Mismatch {
    pub expected: String,
    pub found: String,
    /// Our own of the bytes that came.
    pub sha256: [u8; 32],
}

impl FileHasher {
    /// For a file of `size` bytes.
    pub fn new(size: u64, published: Option<&Digest>) -> Self {
        let other = match published {
            None | Some(Digest::Sha256(_)) => None,
            Some(Digest::Full { checksum: Checksum::Sha256, .. }) => None,
            Some(Digest::GitSha1(_)) => {
                let mut sha1 = Sha1::new();
                sha1.update(format!("blob {size}\0"));
                Some(Other::Plain(Hash::Sha1(Box::new(sha1))))
            }
            Some(Digest::Full { checksum, .. }) => Some(Other::Plain(Hash::new(*checksum))),
            Some(Digest::Md5Etag { .. } | Digest::Md5(_)) => {
                Some(Other::Plain(Hash::Md5(Box::default())))
            }
            Some(Digest::Crc32c(_)) => Some(Other::Plain(Hash::new(Checksum::Crc32c))),
            Some(Digest::Composite { checksum, part_sizes, .. }) => {
                Some(Other::Composite(Composite::new(*checksum, part_sizes.clone())))
            }
        };
        Self { sha256: Sha256::default(), published: published.cloned(), other }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        match &mut self.other {
            None => {}
            Some(Other::Plain(hash)) => hash.update(bytes),
            Some(Other::Composite(composite)) => composite.update(bytes),
        }
    }

    /// The SHA-256 of all bytes, if they are what the source published.
    pub fn finish(self) -> Result<[u8; 32], Mismatch> {
        let sha256 = self.sha256.finish();
        let Some(published) = self.published else {
            return Ok(sha256);
        };
        let found = match (&published, self.other) {
            (Digest::Sha256(_), _) => Digest::Sha256(sha256),
            (Digest::GitSha1(_), Some(Other::Plain(hash))) => {
                Digest::GitSha1(hash.finish().try_into().unwrap_or_default())
            }
            (Digest::Md5Etag { told_by, .. }, Some(Other::Plain(hash))) => Digest::Md5Etag {
                md5: hash.finish().try_into().unwrap_or_default(),
                told_by: *told_by,
            },
            (Digest::Md5(_), Some(Other::Plain(hash))) => {
                Digest::Md5(hash.finish().try_into().unwrap_or_default())
            }
            (Digest::Crc32c(_), Some(Other::Plain(hash))) => {
                Digest::Crc32c(hash.finish().try_into().unwrap_or_default())
            }
            (Digest::Full { checksum, .. }, Some(Other::Plain(hash))) => {
                Digest::Full { checksum: *checksum, value: hash.finish() }
            }
            (Digest::Full { checksum, .. }, _) => {
                Digest::Full { checksum: *checksum, value: sha256.to_vec() }
            }
            (Digest::Composite { checksum, part_sizes, .. }, Some(Other::Composite(composite))) => {
                Digest::Composite {
                    checksum: *checksum,
                    part_sizes: part_sizes.clone(),
                    value: composite.finish(),
                }
            }
            (
                Digest::GitSha1(_)
                | Digest::Composite { .. }
                | Digest::Md5Etag { .. }
                | Digest::Crc32c(_)
                | Digest::Md5(_),
                _,
            ) => {
                unreachable!("`new` made the hash that the published digest needs")
            }
        };
        if found == published {
            Ok(sha256)
        } else {
            Err(Mismatch { expected: published.to_string(), found: found.to_string(), sha256 })
        }
    }
}

impl Hash {
    fn new(checksum: Checksum) -> Self {
        match checksum.crc_algorithm() {
            Some(algorithm) => {
                Self::Crc(Box::new(crc_fast::Digest::new(algorithm)), checksum.len_bytes())
            }
            None if checksum == Checksum::Sha1 => Self::Sha1(Box::new(Sha1::new())),
            None => Self::Sha256(Box::default()),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Sha1(hash) => hash.update(bytes),
            Self::Md5(hash) => hash.update(bytes),
            Self::Crc(hash, _) => hash.update(bytes),
        }
    }

    fn finish(self) -> Vec<u8> {
        match self {
            Self::Sha256(hash) => hash.finish().to_vec(),
            Self::Sha1(hash) => hash.finalize().to_vec(),
            Self::Md5(hash) => hash.finalize().to_vec(),
            Self::Crc(hash, len) => hash.finalize().to_be_bytes()[8 - len..].to_vec(),
        }
    }
}

impl Composite {
    fn new(checksum: Checksum, part_sizes: Vec<u64>) -> Self {
        let mut part_sizes = part_sizes.into_iter();
        Self {
            checksum,
            part: Hash::new(checksum),
            part_left: part_sizes.next().unwrap_or(0),
            part_sizes,
            whole: Hash::new(checksum),
            is_broken: false,
        }
    }

    fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.part_left == 0 && !self.next_part() {
                self.is_broken = true;
                return;
            }
            let len = bytes.len().min(usize::try_from(self.part_left).unwrap_or(usize::MAX));
            self.part.update(&bytes[..len]);
            self.part_left -= len as u64;
            bytes = &bytes[len..];
        }
    }

    fn next_part(&mut self) -> bool {
        let Some(size) = self.part_sizes.next() else {
            return false;
        };
        let done = std::mem::replace(&mut self.part, Hash::new(self.checksum));
        self.whole.update(&done.finish());
        self.part_left = size;
        true
    }

    fn finish(mut self) -> Vec<u8> {
        if self.is_broken || self.part_left != 0 || self.part_sizes.next().is_some() {
            return Vec::new();
        }
        self.whole.update(&self.part.finish());
        self.whole.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Md5Told;

    fn run(size: u64, published: Option<Digest>, pieces: &[&[u8]]) -> Result<[u8; 32], Mismatch> {
        let mut hasher = FileHasher::new(size, published.as_ref());
        pieces.iter().for_each(|piece| hasher.update(piece));
        hasher.finish()
    }

    #[test]
    fn each_kind_of_digest_accepts_the_right_bytes_and_no_others() {
        let sha256: [u8; 32] = sha2::Sha256::digest(b"hello").into();
        let full = |checksum, value: &[u8]| Digest::Full { checksum, value: value.to_vec() };
        for published in [
            Digest::Sha256(sha256),
            // `printf hello | git hash-object --stdin`
            Digest::git_sha1_from_hex("b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0").expect("hex"),
            full(Checksum::Sha256, &sha256),
            full(Checksum::Crc32, &Checksum::Crc32.of(b"hello").to_be_bytes()[4..]),
            full(Checksum::Crc32c, &Checksum::Crc32c.of(b"hello").to_be_bytes()[4..]),
            full(Checksum::Crc64Nvme, &Checksum::Crc64Nvme.of(b"hello").to_be_bytes()),
            full(Checksum::Sha1, &Sha1::digest(b"hello")),
            // `printf hello | md5sum`
            Digest::md5_from_etag("5d41402abc4b2a76b9719d911017c592", Md5Told::ByItsForm)
                .expect("hex"),
        ] {
            assert_eq!(
                run(5, Some(published.clone()), &[b"he", b"llo"]),
                Ok(sha256),
                "{published}"
            );
            assert!(run(5, Some(published.clone()), &[b"hellp"]).is_err(), "{published}");
        }
        assert_eq!(run(5, None, &[b"hello"]), Ok(sha256));
    }

    #[test]
    fn a_composite_checksum_is_one_over_the_checksums_of_the_parts() {
        for checksum in [Checksum::Sha256, Checksum::Crc32c, Checksum::Sha1, Checksum::Crc64Nvme] {
            let mut whole = Hash::new(checksum);
            for part in [b"abc".as_slice(), b"def", b"g"] {
                let mut hash = Hash::new(checksum);
                hash.update(part);
                whole.update(&hash.finish());
            }
            let digest =
                Digest::Composite { checksum, part_sizes: vec![3, 3, 1], value: whole.finish() };
            // Cut differently on the way: the parts are found all the same.
            assert!(run(7, Some(digest.clone()), &[b"a", b"bcdef", b"g"]).is_ok());
            assert!(run(7, Some(digest.clone()), &[b"abcdefx"]).is_err());
            assert!(run(7, Some(digest.clone()), &[b"abcdef"]).is_err());
            assert!(run(7, Some(digest), &[b"abcdefgh"]).is_err());
        }
    }
}
