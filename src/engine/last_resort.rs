//! What the wrong MD5 in an ETag means. It may be that of the object, and the bytes are wrong; or the ETag
//! is no MD5 at all, as at S3 Express and many a gateway, and says nothing.

use std::sync::atomic::Ordering::Relaxed;

use super::job::Job;
use super::shared::{Proof, Shared};
use crate::model::{Digest, Md5Told, RemoteFile};
use crate::verify::Mismatch;

/// Why a file failed by its ETag alone.
pub const HINT: &str =
    "fetch without --require-digests to accept the file unverified: its ETag may not be an MD5";

/// Whether an ETag was the MD5 of one of `files` that are proved.
pub fn has_proved(files: &[RemoteFile], proofs: &[Option<Proof>]) -> bool {
    files.iter().zip(proofs).any(|(file, proof)| {
        told_by(file).is_some() && proof.as_ref().is_some_and(|proof| proof.is_compared)
    })
}

impl Shared<'_> {
    /// `file` has the digest that its source published.
    pub fn has_matched(&self, file: &RemoteFile) {
        if told_by(file).is_some() {
            self.has_md5_etags.store(true, Relaxed);
        }
    }

    /// Whether a file that has not the MD5 in its ETag is taken as one without a published digest.
    pub fn is_no_digest(&self, job: &Job<'_>, mismatch: &Mismatch) -> bool {
        let Some(told_by) = told_by(job.file) else { return false };
        let comes_alike = job.with(|state| {
            let last = state.last_wrong.as_ref();
            job.file.size == 0 || (!state.resumed && last == Some(&mismatch.found))
        });
        let seen = Seen {
            told_by,
            is_required: self.options.require_digests,
            has_md5_etags: self.has_md5_etags.load(Relaxed),
            comes_alike,
        };
        seen.is_no_digest()
    }
}

/// What is known when the MD5 of a file is not in its ETag.
#[derive(Clone, Copy, Debug)]
struct Seen {
    told_by: Md5Told,
    /// The user wants nothing that has not the published digest.
    is_required: bool,
    /// Of another file it was.
    has_md5_etags: bool,
    /// Two complete fetches have brought the same bytes, or there are none to fetch.
    comes_alike: bool,
}

impl Seen {
    /// Where nothing but its form speaks for an MD5, it is none. Where the store or another file does,
    /// wrong bytes are as likely, and these do not come twice alike.
    fn is_no_digest(self) -> bool {
        let may_be_md5 = self.has_md5_etags || self.told_by == Md5Told::ByTheStore;
        !self.is_required && (self.comes_alike || !may_be_md5)
    }
}

fn told_by(file: &RemoteFile) -> Option<Md5Told> {
    match file.digest {
        Some(Digest::Md5Etag { told_by, .. }) => Some(told_by),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_etag_that_only_looks_like_an_md5_fails_no_file() {
        let seen = |told_by, has_md5_etags, comes_alike, is_required| {
            Seen { told_by, is_required, has_md5_etags, comes_alike }.is_no_digest()
        };
        for (told_by, has_md5_etags, comes_alike, is_no_digest) in [
            (Md5Told::ByItsForm, false, false, true),
            (Md5Told::ByItsForm, false, true, true),
            (Md5Told::ByItsForm, true, false, false),
            (Md5Told::ByItsForm, true, true, true),
            (Md5Told::ByTheStore, false, false, false),
            (Md5Told::ByTheStore, false, true, true),
            (Md5Told::ByTheStore, true, false, false),
        ] {
            let told = (told_by, has_md5_etags, comes_alike);
            assert_eq!(seen(told_by, has_md5_etags, comes_alike, false), is_no_digest, "{told:?}");
            assert!(!seen(told_by, has_md5_etags, comes_alike, true), "{told:?}");
        }
    }
}
