//! What `mirror` does with each object of a prefix, and into how many parts it cuts what it sends.

use sha2::{Digest as _, Sha256 as Hasher};

use super::{Digest, RemoteFile, SentinelFile, Sha256, hex};

/// The usual part of an upload. One is in memory as a whole.
const PART_BYTES: u64 = 16 << 20;
/// Larger ones do not fit into the memory that there is.
const MAX_PART_BYTES: u64 = 128 << 20;
/// S3 has no more parts in one object.
const MAX_PARTS: u64 = 10_000;

/// The size of the parts that a file of `size` bytes is sent in; `None` if it is too large. A power of two: it
/// depends on nothing else, so that another run finds the parts of this one.
pub fn part_size(size: u64) -> Option<u64> {
    let mut part = PART_BYTES;
    while size.div_ceil(part) > MAX_PARTS {
        part *= 2;
    }
    (part <= MAX_PART_BYTES).then_some(part)
}

/// The revision of a mirrored prefix: it changes when a file does, and not when the same is sent again.
pub fn content_revision(files: &[SentinelFile]) -> String {
    let mut lines: Vec<&SentinelFile> = files.iter().collect();
    lines.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    let mut hash = Hasher::new();
    for SentinelFile { path, size, sha256, .. } in lines {
        hash.update(format!("{path}\t{size}\t{sha256}\n"));
    }
    hex::encode(&hash.finalize())
}

/// What `mirror` writes beside an object, where the store keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Of the content; none where it was not known when the upload began.
    pub sha256: Option<Sha256>,
    /// What the source had published, such as `git-sha1:…`.
    pub published: Option<String>,
}

/// What lies at the key of a file.
#[derive(Clone, Debug, Default)]
pub struct Lies<'a> {
    /// Bytes.
    pub size: u64,
    /// With its quotes.
    pub etag: Option<&'a str>,
    /// What the sentinel of a mirror says of the file.
    pub listed: Option<&'a SentinelFile>,
    /// And it is of the revision that is wanted, of the same source.
    pub is_same_revision: bool,
    pub mark: Option<&'a Mark>,
    /// Of the content, by the store itself.
    pub sha256: Option<Sha256>,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing is there.
    Send,
    /// The same content, which has this SHA-256.
    Keep(Sha256),
    /// Ours, of another content, or of one that is not known.
    Replace,
    /// Not ours, and not known to be the same.
    Conflict,
}

/// What to do about `file`.
pub fn step(file: &RemoteFile, lies: Option<&Lies<'_>>) -> Step {
    let Some(lies) = lies else { return Step::Send };
    match lies.same_as(file) {
        Some(sha256) => Step::Keep(sha256),
        None if lies.is_ours() => Step::Replace,
        None => Step::Conflict,
    }
}

impl Lies<'_> {
    /// What the sentinel says, if it is about this version of the object.
    fn vouched(&self) -> Option<&SentinelFile> {
        let listed = self.listed.filter(|file| file.size == self.size)?;
        let etag = listed.validator.as_deref()?;
        (self.etag == Some(etag)).then_some(listed)
    }

    fn is_ours(&self) -> bool {
        // Without a validator the sentinel says that it is about to be written.
        let is_awaited = self.listed.is_some_and(|file| file.validator.is_none());
        self.mark.is_some() || is_awaited || self.vouched().is_some()
    }

    /// The SHA-256 of the content, if that is proved to be the one that `file` has.
    fn same_as(&self, file: &RemoteFile) -> Option<Sha256> {
        if self.size != file.size {
            return None;
        }
        let vouched = self.vouched();
        if let Some(vouched) = vouched.filter(|_| self.is_same_revision) {
            return Some(vouched.sha256);
        }
        let digest = file.digest.as_ref().filter(|digest| digest.identifies())?;
        let marked = self.mark.and_then(|mark| mark.sha256);
        if let Digest::Sha256(wanted) = digest {
            let known = [self.sha256, vouched.map(|file| file.sha256), marked];
            return known.into_iter().flatten().find(|sha256| sha256.0 == *wanted);
        }
        let published = digest.to_string();
        let by_sentinel = vouched.filter(|file| file.published.as_deref() == Some(&published));
        let by_mark = self.mark.filter(|mark| mark.published.as_ref() == Some(&published));
        by_sentinel.map(|file| file.sha256).or(by_mark.and_then(|mark| mark.sha256))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Checksum, RelPath};

    const ETAG: &str = "\"e\"";
    const SHA: Sha256 = Sha256([7; 32]);
    const OTHER: Sha256 = Sha256([8; 32]);

    fn wanted(digest: Option<Digest>) -> RemoteFile {
        RemoteFile {
            path: RelPath::parse("a").expect("a path"),
            size: 9,
            digest,
            validator: None,
            xet_hash: None,
        }
    }

    fn listed(sha256: Sha256, validator: Option<&str>) -> SentinelFile {
        let git = Digest::GitSha1([1; 20]);
        let file = SentinelFile::new(&wanted(None), sha256, Some(&git), None);
        SentinelFile { validator: validator.map(Into::into), ..file }
    }

    #[test]
    fn an_object_is_kept_replaced_or_left_to_its_owner() {
        let sha = || Some(Digest::Sha256(SHA.0));
        let git = || Some(Digest::GitSha1([1; 20]));
        let crc = Some(Digest::Full { checksum: Checksum::Crc64Nvme, value: vec![0; 8] });
        let git_mark =
            Mark { sha256: Some(OTHER), published: Some(git().expect("git").to_string()) };
        let mark = |sha256| Mark { sha256, published: None };
        let (ours, others, awaited) =
            (listed(SHA, Some(ETAG)), listed(OTHER, Some(ETAG)), listed(SHA, None));
        let replaced = listed(SHA, Some("\"before\""));
        let base = Lies { size: 9, etag: Some(ETAG), ..Lies::default() };
        let marks = [mark(Some(SHA)), mark(Some(OTHER)), mark(None)];
        for (name, digest, lies, expected) in [
            ("nothing", sha(), None, Step::Send),
            ("foreign", sha(), Some(base.clone()), Step::Conflict),
            ("foreign, nothing published", None, Some(base.clone()), Step::Conflict),
            (
                "foreign, the same",
                sha(),
                Some(Lies { sha256: Some(SHA), ..base.clone() }),
                Step::Keep(SHA),
            ),
            (
                "foreign, another",
                sha(),
                Some(Lies { sha256: Some(OTHER), ..base.clone() }),
                Step::Conflict,
            ),
            (
                "foreign, of another size",
                sha(),
                Some(Lies { sha256: Some(SHA), size: 8, ..base.clone() }),
                Step::Conflict,
            ),
            (
                "by the sentinel",
                sha(),
                Some(Lies { listed: Some(&ours), ..base.clone() }),
                Step::Keep(SHA),
            ),
            (
                "by the sentinel, another",
                sha(),
                Some(Lies { listed: Some(&others), ..base.clone() }),
                Step::Replace,
            ),
            (
                "by the sentinel, by git",
                git(),
                Some(Lies { listed: Some(&others), ..base.clone() }),
                Step::Keep(OTHER),
            ),
            (
                "a CRC proves nothing",
                crc,
                Some(Lies { listed: Some(&ours), ..base.clone() }),
                Step::Replace,
            ),
            (
                "of the same revision",
                None,
                Some(Lies { listed: Some(&ours), is_same_revision: true, ..base.clone() }),
                Step::Keep(SHA),
            ),
            (
                "of the same revision, awaited",
                None,
                Some(Lies { listed: Some(&awaited), is_same_revision: true, ..base.clone() }),
                Step::Replace,
            ),
            (
                "of the same revision, another object",
                None,
                Some(Lies { listed: Some(&replaced), is_same_revision: true, ..base.clone() }),
                Step::Conflict,
            ),
            (
                "another version than the sentinel's",
                sha(),
                Some(Lies { listed: Some(&replaced), ..base.clone() }),
                Step::Conflict,
            ),
            (
                "no version is told",
                sha(),
                Some(Lies { listed: Some(&ours), etag: None, ..base.clone() }),
                Step::Conflict,
            ),
            (
                "awaited",
                sha(),
                Some(Lies { listed: Some(&awaited), ..base.clone() }),
                Step::Replace,
            ),
            (
                "awaited, the same",
                sha(),
                Some(Lies { listed: Some(&awaited), sha256: Some(SHA), ..base.clone() }),
                Step::Keep(SHA),
            ),
            (
                "marked",
                sha(),
                Some(Lies { mark: Some(&marks[0]), ..base.clone() }),
                Step::Keep(SHA),
            ),
            (
                "marked, another",
                sha(),
                Some(Lies { mark: Some(&marks[1]), ..base.clone() }),
                Step::Replace,
            ),
            (
                "marked, unknown",
                sha(),
                Some(Lies { mark: Some(&marks[2]), ..base.clone() }),
                Step::Replace,
            ),
            (
                "marked, cut",
                sha(),
                Some(Lies { mark: Some(&marks[0]), size: 8, ..base.clone() }),
                Step::Replace,
            ),
            (
                "marked, by git",
                git(),
                Some(Lies { mark: Some(&git_mark), ..base.clone() }),
                Step::Keep(OTHER),
            ),
            (
                "marked, not by git",
                git(),
                Some(Lies { mark: Some(&marks[0]), ..base.clone() }),
                Step::Replace,
            ),
        ] {
            assert_eq!(step(&wanted(digest), lies.as_ref()), expected, "{name}");
        }
    }

    #[test]
    fn no_upload_has_more_parts_than_s3_takes_or_larger_ones_than_fit() {
        const MIB: u64 = 1 << 20;
        for (size, expected) in [
            (0, Some(16)),
            (160_000 * MIB, Some(16)),
            (160_000 * MIB + 1, Some(32)),
            (320_000 * MIB + 1, Some(64)),
            (1_280_000 * MIB, Some(128)),
            (1_280_000 * MIB + 1, None),
            (u64::MAX, None),
        ] {
            assert_eq!(part_size(size).map(|part| part / MIB), expected, "{size}");
        }
    }

    #[test]
    fn a_revision_is_that_of_the_contents() {
        let file = |path: &str, sha256, etag: &str| SentinelFile {
            path: path.into(),
            ..listed(sha256, Some(etag))
        };
        let revision = content_revision(&[file("b", SHA, "1"), file("a", OTHER, "2")]);
        assert_eq!(revision, content_revision(&[file("a", OTHER, "3"), file("b", SHA, "4")]));
        assert_ne!(revision, content_revision(&[file("a", SHA, "2"), file("b", SHA, "1")]));
        assert_eq!(revision.len(), 64);
    }
}
