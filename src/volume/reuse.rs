//! Files that a published revision on this volume has already are not fetched: an update takes what has not
//! changed from the revision that it replaces, or from one that is kept; a fine-tune, a copy of a repo or one
//! with a new name what another model has.
//!
//! A published file is quiet: it was synced before it was published, and nobody opens it for writing
//! again. So it can have a second name.

use std::ops::ControlFlow;

use super::existing::{each_listed_file, with_sentinel};
use super::recheck::Surroundings;
use super::staging::{Staging, version_identity};
use super::take::Offer;
use super::wanted::{Taken, Wanted};
use super::{Store, StoreError};
use crate::fs::Dir;
use crate::model::{Digest, Giver, RelPath, SentinelFile, SentinelHead};

impl Staging {
    /// Takes over what the published revision has of the new one, and what kept ones have.
    pub(super) fn reuse(
        &mut self,
        store: &Store,
        wanted: &mut Wanted,
        outside: &Surroundings<'_>,
    ) -> Result<(), StoreError> {
        if let Some(family) = store.family_dir()? {
            self.reuse_from(&family, Giver::SameModel, wanted, outside)?;
        }
        if wanted.is_found() {
            return Ok(());
        }
        for kept in store.kept_trees()? {
            let Ok(Some(dir)) = store.kept_dir(&kept.id) else { continue };
            self.reuse_from(&dir, Giver::SameModel, wanted, outside)?;
        }
        Ok(())
    }

    /// Takes over what other models on the volume have, and says of which.
    pub(super) fn reuse_others(
        &mut self,
        store: &Store,
        wanted: &mut Wanted,
        outside: &Surroundings<'_>,
    ) -> Result<(), StoreError> {
        if !self.is_known_elsewhere(wanted) {
            return Ok(());
        }
        let mut ours = Ok(());
        store.each_other_revision(&mut |path, dir| {
            let done = self.reuse_from(dir, Giver::OtherModel, wanted, outside);
            let is_over = done.is_err() || wanted.is_found() || !(outside.go_on)();
            match done {
                Ok(taken) => taken.say("reusing", path, outside),
                Err(error) => ours = Err(error),
            }
            if is_over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        ours
    }

    /// Takes what the revision in `dir` has. What cannot be read there is not there: it is no reason not to
    /// fetch.
    fn reuse_from(
        &mut self,
        dir: &Dir,
        giver: Giver,
        wanted: &mut Wanted,
        outside: &Surroundings<'_>,
    ) -> Result<Taken, StoreError> {
        let needs_place =
            self.files.iter().any(|file| file.digest.as_ref().is_some_and(Digest::is_checksum));
        let head =
            if needs_place { with_sentinel(dir, SentinelHead::read).ok().flatten() } else { None };
        let source_name = head.map(|head| head.source).unwrap_or_default();
        let mut taken = Taken::default();
        let mut ours = Ok(());
        let _ = each_listed_file(dir, giver, &mut |file| {
            if !(outside.go_on)() {
                return ControlFlow::Break(());
            }
            match self.reuse_file(dir, giver, &source_name, &file, wanted, outside) {
                Ok(of_file) => taken.add(of_file),
                Err(error) => {
                    ours = Err(error);
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        });
        ours.map(|()| taken)
    }

    fn reuse_file(
        &mut self,
        dir: &Dir,
        giver: Giver,
        source_name: &str,
        file: &SentinelFile,
        wanted: &mut Wanted,
        outside: &Surroundings<'_>,
    ) -> Result<Taken, StoreError> {
        let mut taken = Taken::default();
        if file.size == 0 {
            return Ok(taken);
        }
        for identity in identities(source_name, file) {
            while let Some(n) = wanted.find(self, &identity, file.size) {
                if !self.take_listed(n, dir, giver, file, outside)? {
                    break;
                }
                wanted.take(n);
                taken.add(Taken { files: 1, bytes: file.size });
            }
        }
        Ok(taken)
    }

    /// Whether file `n` could be had from the published `file`.
    fn take_listed(
        &mut self,
        n: usize,
        dir: &Dir,
        giver: Giver,
        file: &SentinelFile,
        outside: &Surroundings<'_>,
    ) -> Result<bool, StoreError> {
        let Ok(path) = RelPath::parse(&file.path) else { return Ok(false) };
        let parent = path.parent().into_iter().flat_map(|parent| parent.split('/'));
        let Ok(Some(from)) = dir.descend(parent) else { return Ok(false) };
        let offer = Offer { dir: &from, name: path.name(), size: file.size, giver };
        self.take(n, &offer, outside)
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
            self.set_presence(n, super::staging::Presence::Whole);
        }
        Ok(true)
    }

    /// Whether something is missing that another model could be known to have.
    fn is_known_elsewhere(&self, wanted: &Wanted) -> bool {
        wanted.missing().map(|n| &self.files[n]).any(|file| {
            let digest = file.digest.as_ref();
            file.size > 0
                && digest.is_some_and(|digest| digest.identifies() || digest.is_checksum())
        })
    }
}

/// What the file can be wanted as: its SHA-256, and the digest that its source had published. Where
/// that is a CRC, which another file may have as well, only as the same version at the same place.
pub(super) fn identities(source_name: &str, file: &SentinelFile) -> impl Iterator<Item = String> {
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
            xet_hash: None,
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
