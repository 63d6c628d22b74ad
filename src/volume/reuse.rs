//! An update takes the files that have not changed from the revision that it replaces, or from one that is
//! kept.
//!
//! A published file is quiet: it was synced before it was published, and nobody opens it for writing
//! again. So it can have a second name. It is hashed like every other file before it counts.

use std::ops::ControlFlow;

use super::existing::with_sentinel;
use super::journal::WrittenChunk;
use super::recheck::{Surroundings, copy_range};
use super::staging::{Presence, Staging, version_identity};
use super::wanted::Wanted;
use super::{Store, StoreError};
use crate::fs::{Dir, Kind, space};
use crate::model::{Digest, RelPath, SentinelFile, SentinelHead, each_sentinel_file};

impl Staging {
    /// Takes over what the published revision has of the new one, and what kept ones have: by a hard link,
    /// or else by a reflink or a copy.
    pub(super) fn reuse(
        &mut self,
        store: &Store,
        wanted: &mut Wanted,
        outside: &Surroundings<'_>,
    ) -> Result<(), StoreError> {
        if let Some(family) = store.family_dir()? {
            self.reuse_from(&family, wanted, outside)?;
        }
        if wanted.is_found() {
            return Ok(());
        }
        for kept in store.kept_trees()? {
            let Ok(Some(dir)) = store.kept_dir(&kept.id) else { continue };
            // One that cannot be used is no reason not to fetch.
            match self.reuse_from(&dir, wanted, outside) {
                Err(StoreError::Sentinel { .. }) => {}
                done => done?,
            }
        }
        Ok(())
    }

    fn reuse_from(
        &mut self,
        family: &Dir,
        wanted: &mut Wanted,
        outside: &Surroundings<'_>,
    ) -> Result<(), StoreError> {
        let needs_place =
            self.files.iter().any(|file| file.digest.as_ref().is_some_and(Digest::is_crc));
        let head = if needs_place { with_sentinel(family, SentinelHead::read)? } else { None };
        let source_name = head.map(|head| head.source).unwrap_or_default();
        let mut result = Ok(());
        with_sentinel(family, |json| {
            each_sentinel_file(json, &mut |file| {
                if !(outside.go_on)() {
                    return ControlFlow::Break(());
                }
                result = self.reuse_file(family, &source_name, &file, wanted, outside);
                if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })
        })?;
        result
    }

    /// Gives every file of this attempt a second name for what `family` has at its path; whether that could
    /// be done.
    pub(super) fn link_all(&mut self, family: &Dir) -> Result<bool, StoreError> {
        for n in 0..self.files.len() {
            let path = self.files[n].path.clone();
            let above = path.parent().into_iter().flat_map(|parent| parent.split('/'));
            let Ok(Some(from)) = family.descend(above) else { return Ok(false) };
            let to = self.directory_of(n)?;
            if from.file_size(path.name())? != Some(self.files[n].size)
                || from.hard_link(path.name(), &to, path.name()).is_err()
            {
                return Ok(false);
            }
            self.set_presence(n, Presence::Whole);
        }
        Ok(true)
    }

    fn reuse_file(
        &mut self,
        family: &Dir,
        source_name: &str,
        file: &SentinelFile,
        wanted: &mut Wanted,
        outside: &Surroundings<'_>,
    ) -> Result<(), StoreError> {
        if file.size == 0 {
            return Ok(());
        }
        for identity in identities(source_name, file) {
            while let Some(n) = wanted.find(self, &identity, file.size) {
                if !self.take_published(n, family, file, outside)? {
                    break;
                }
                wanted.take(n);
            }
        }
        Ok(())
    }

    /// Whether file `n` could be had from the published `file`.
    fn take_published(
        &mut self,
        n: usize,
        family: &Dir,
        file: &SentinelFile,
        outside: &Surroundings<'_>,
    ) -> Result<bool, StoreError> {
        let Ok(path) = RelPath::parse(&file.path) else { return Ok(false) };
        let parent = path.parent().into_iter().flat_map(|parent| parent.split('/'));
        let Ok(Some(from)) = family.descend(parent) else { return Ok(false) };
        let name = path.name();
        if from.kind(name)? != Some(Kind::File) || from.file_size(name)? != Some(file.size) {
            return Ok(false);
        }
        let to = self.directory_of(n)?;
        let crc64 = match from.hard_link(name, &to, self.files[n].path.name()) {
            Ok(()) => {
                self.set_presence(n, Presence::Whole);
                // Not journalled: if we are killed, the next run finds it where this one did.
                0
            }
            // Other links of our own are too many, or the file is another user's.
            Err(_) => match self.copy_published(n, &from, name, file.size, outside)? {
                Some(crc64) => crc64,
                None => return Ok(false),
            },
        };
        self.present.insert(n, vec![WrittenChunk { range: 0..file.size, crc64 }]);
        Ok(true)
    }

    /// Copies a published file, sharing its blocks if the filesystem can; returns the CRC64NVME of
    /// what was copied.
    fn copy_published(
        &mut self,
        n: usize,
        from: &Dir,
        name: &str,
        size: u64,
        outside: &Surroundings<'_>,
    ) -> Result<Option<u64>, StoreError> {
        let Some(source) = from.read_file(name)? else { return Ok(None) };
        if space::free_bytes(&self.dir)? < size {
            return Ok(None);
        }
        let target = self.open(n)?;
        if rustix::fs::ioctl_ficlone(target.file(), &source).is_ok() {
            return Ok(Some(0));
        }
        let range = 0..size;
        match copy_range(from, name, &range, &target, outside) {
            Ok(Some(crc64)) => {
                self.journal.chunk(n, &WrittenChunk { range, crc64 })?;
                Ok(Some(crc64))
            }
            other => {
                self.discard(n)?;
                other
            }
        }
    }
}

/// What the file can be wanted as: its SHA-256, and the digest that its source had published. Where
/// that is a CRC, which another file may have as well, only as the same version at the same place.
fn identities(source_name: &str, file: &SentinelFile) -> impl Iterator<Item = String> {
    let sha256 = Digest::Sha256(file.sha256.0).to_string();
    let other = file.published.as_deref().and_then(|digest| match &file.validator {
        Some(validator) => Some(version_identity(source_name, &file.path, validator, digest)),
        // One of an earlier version of weightlift has none.
        None => Digest::identifies_by_kind(digest).then(|| digest.to_owned()),
    });
    std::iter::once(sha256).chain(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Checksum, Md5Told, RemoteFile, Sha256};

    fn found_as(digest: &Digest, validator: Option<&str>) -> Vec<String> {
        let file = RemoteFile {
            path: RelPath::parse("a").expect("a path"),
            size: 1,
            digest: Some(digest.clone()),
            validator: validator.map(str::to_owned),
        };
        let file = SentinelFile::new(&file, Sha256([1; 32]), Some(digest), None);
        identities("s3://b/p/", &file).skip(1).collect()
    }

    #[test]
    fn a_published_file_is_found_by_what_identifies_its_content() {
        assert!(found_as(&Digest::Sha256([1; 32]), None).is_empty());
        // Its ETag is all that tells one version from another, and it is the MD5.
        let md5 = Digest::Md5Etag { md5: [1; 16], told_by: Md5Told::ByTheStore };
        assert!(found_as(&md5, Some("\"01\"")).is_empty());
        let git = Digest::GitSha1([1; 20]);
        assert_eq!(found_as(&git, None), [git.to_string()]);
        for checksum in [Checksum::Sha1, Checksum::Crc64Nvme, Checksum::Crc32c, Checksum::Crc32] {
            let value = vec![0; checksum.len_bytes()];
            let full = Digest::Full { checksum, value: value.clone() };
            let parts = Digest::Composite { checksum, part_sizes: vec![1], value };
            for digest in [full, parts] {
                let bare = [digest.to_string()];
                if digest.identifies() {
                    assert_eq!(found_as(&digest, Some("\"e\"")), bare);
                    continue;
                }
                assert!(found_as(&digest, None).is_empty(), "{digest}");
                let version = found_as(&digest, Some("\"e\""));
                assert_eq!(version.len(), 1);
                assert!(version[0] != bare[0] && version != found_as(&digest, Some("\"f\"")));
            }
        }
    }
}
