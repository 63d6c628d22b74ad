//! What the files are compared with: before the weights, for those who want nothing unproved, and at the
//! end, when it is known.

use std::collections::BTreeMap;

use super::Outcome;
use super::shared::Fetch;
use crate::Error;
use crate::engine::Proof;
use crate::model::{MD5_ETAG, Message, RemoteFile, SentinelFile, Sha256, text};

/// Files that a message names.
const MAX_NAMED: usize = 5;
/// Kinds of digests that are counted apart; there are a dozen.
const MAX_KINDS: usize = 16;

impl Fetch<'_> {
    /// Refuses, before a byte is fetched, what the source has published no digest of, if the user wants
    /// that.
    pub(super) fn check_digests(
        &self,
        source_name: &str,
        files: &[RemoteFile],
    ) -> Result<(), Error> {
        let without = files.iter().filter(|file| file.digest.is_none());
        let without: Vec<&str> = without.map(|file| file.path.as_str()).collect();
        if without.is_empty() || !self.args.require_digests {
            return Ok(());
        }
        let what_to_do = if source_name.starts_with("s3://") {
            "upload them with checksums (as `aws s3 cp --checksum-algorithm SHA256` does) or put a \
             `SHA256SUMS` next to them"
        } else {
            "fetch from a Hub that publishes them"
        };
        Err(Error::Integrity(
            Message::new(format!(
                "{source_name} publishes no digest of {} of {}: {}, and --require-digests is set",
                without.len(),
                text::files(files.len()),
                named(&without)
            ))
            .hint(format!(
                "{what_to_do}, leave them out with --exclude, or do without --require-digests"
            )),
        ))
    }
}

/// What could not be compared, if anything: said before the model is used.
pub(super) fn uncompared(
    source_name: &str,
    files: &[RemoteFile],
    proofs: &[Option<Proof>],
) -> Option<String> {
    let is_compared = |proof: &Option<Proof>| proof.as_ref().is_some_and(|it| it.is_compared);
    let all = files.iter().zip(proofs);
    let without: Vec<_> =
        all.filter(|(_, proof)| !is_compared(proof)).map(|(file, _)| file).collect();
    let first = without.first()?;
    // The source has named something that has the form of a digest.
    let etags = without.iter().filter(|file| file.digest.is_some()).count();
    let why = match etags {
        0 => String::new(),
        1 => {
            "; the ETag of one of them looks like an MD5 and is not that of the content".to_owned()
        }
        etags => format!(
            "; the ETags of {etags} of them look like MD5s and are not those of the content"
        ),
    };
    let hint = "--require-digests refuses such files";
    Some(if without.len() == files.len() {
        format!(
            "nothing could be compared with a published digest: {source_name} has none of its {}{why}; \
             {hint}",
            text::files(files.len())
        )
    } else {
        format!(
            "no published digest to compare with for {} of {}, such as `{}`{why}; {hint}",
            without.len(),
            text::files(files.len()),
            first.path
        )
    })
}

/// How many of `files` were compared with which kind of digest.
pub(super) fn kinds(files: &[SentinelFile]) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for file in files {
        let kind = file.verified_by.as_ref();
        // Somebody else may have written the sentinel.
        let is_plain = kind.len() <= 40 && kind.bytes().all(|byte| byte.is_ascii_graphic());
        let is_room = kinds.len() < MAX_KINDS || kinds.contains_key(kind);
        let kind = if is_plain && is_room { kind } else { "other" };
        // Nearly all have the same one.
        match kinds.get_mut(kind) {
            Some(count) => *count += 1,
            None => _ = kinds.insert(kind.to_owned(), 1),
        }
    }
    kinds
}

/// What the last line says of it, if not all was compared with a digest that would refute other bytes, or it is signed.
pub(super) fn aside(outcome: &Outcome) -> Option<String> {
    let by_md5 = outcome.verified_by.get(MD5_ETAG).copied().unwrap_or_default();
    let none = match outcome.unpublished {
        0 => None,
        count => {
            Some(format!("{} could not be compared with a published digest", text::files(count)))
        }
    };
    let md5 = (by_md5 > 0).then(|| format!("{} by the MD5 in the ETag only", text::files(by_md5)));
    let signed = outcome.signed.as_ref().map(|signed| format!("signed by {}", signed.signer()));
    let told: Vec<String> = [none, md5, signed].into_iter().flatten().collect();
    (!told.is_empty()).then(|| told.join(", "))
}

/// What the sentinel says of each file. The memory of the proofs is given back on the way: there can be very
/// many.
pub(super) fn finished_files(
    files: &[RemoteFile],
    mut proofs: Vec<Option<Proof>>,
) -> Vec<SentinelFile> {
    let mut finished = Vec::with_capacity(files.len());
    for file in files.iter().rev() {
        let proof = proofs.pop().flatten().expect("without failure all files are proved");
        if proofs.len().is_multiple_of(4_096) {
            proofs.shrink_to_fit();
        }
        let compared_with = file.digest.as_ref().filter(|_| proof.is_compared);
        finished.push(SentinelFile::new(
            file,
            Sha256(proof.sha256),
            compared_with,
            proof.structure,
        ));
    }
    finished.reverse();
    finished
}

/// The first of `paths`, and how many more there are.
fn named(paths: &[&str]) -> String {
    let mut named: Vec<String> =
        paths.iter().take(MAX_NAMED).map(|path| format!("`{}`", text::inert(path, 100))).collect();
    if paths.len() > MAX_NAMED {
        named.push(format!("and {} more", paths.len() - MAX_NAMED));
    }
    named.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Digest, Md5Told, RelPath};

    #[test]
    fn what_could_not_be_compared_is_told_with_its_number() {
        let file = |name: &str, digest| RemoteFile {
            path: RelPath::parse(name).expect("a path"),
            size: 1,
            digest,
            validator: None,
            xet_hash: None,
        };
        let md5 = Digest::Md5Etag { md5: [0; 16], told_by: Md5Told::ByItsForm };
        let files = [
            file("a", None),
            file("b", Some(Digest::Sha256([0; 32]))),
            file("c", Some(md5.clone())),
            file("d", Some(md5)),
        ];
        let proof = |is_compared| Some(Proof { sha256: [0; 32], is_compared, structure: None });
        let told = |files: &[RemoteFile], compared: &[bool]| {
            let proofs: Vec<_> = compared.iter().map(|it| proof(*it)).collect();
            uncompared("s3://b/m/", files, &proofs).unwrap_or_default()
        };
        assert_eq!(told(&files[1..2], &[true]), "");
        assert_eq!(told(&[], &[]), "");
        for (files, compared, words) in [
            (
                &files[..1],
                &[false][..],
                "nothing could be compared with a published digest: s3://b/m/ has none of its 1 file; ",
            ),
            (&files[..2], &[false, true], "for 1 of 2 files, such as `a`; "),
            (
                &files[1..3],
                &[true, false],
                "for 1 of 2 files, such as `c`; the ETag of one of them",
            ),
            (&files[2..], &[false, false], "has none of its 2 files; the ETags of 2 of them"),
        ] {
            let told = told(files, compared);
            assert!(told.contains(words), "{told}");
        }
    }

    #[test]
    fn a_handful_of_names_is_enough() {
        assert_eq!(named(&["a"]), "`a`");
        assert_eq!(
            named(&["a", "b", "c", "d", "e", "f", "g"]),
            "`a`, `b`, `c`, `d`, `e`, and 2 more"
        );
    }
}
