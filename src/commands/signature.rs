//! Carries out `--verify-signature`: reads the keys, and the signature where it lies, and compares what it names with
//! what there is. What a signature is, is known in `verify/signature`.

use std::collections::HashSet;
use std::io::Read;
use std::time::SystemTime;

use super::ask::Asker;
use super::shared::{Fetch, Wanted};
use crate::Error;
use crate::content::Source;
use crate::engine::Proof;
use crate::model::{
    LeftOut, Message, RelPath, RemoteFile, Selected, Selection, Sentinel, Sha256, Signed, SignedBy,
    text,
};
use crate::report::rfc3339;
use crate::verify::FileHasher;
use crate::verify::signature::{
    MAX_SIGNATURE_BYTES, Manifest, Opened, SignatureProblem, Trust, TrustProblem,
};
use crate::volume::{Existing, PublishedFiles, Store, StoreError};

/// Of a file of keys or certificates.
const MAX_PEM_BYTES: u64 = 4 << 20;
const PEM: &str = "-----BEGIN ";

/// Reads whom `signed_by` names.
pub fn trust(signed_by: &SignedBy) -> Result<Trust, Error> {
    let given = signed_by.signer.given();
    let refuse = |message: Message| {
        let method = signed_by.signer.method();
        // A key that is given as such is not repeated: it may be the wrong half of a pair.
        let named = match given.contains(PEM) {
            true => "the text".to_owned(),
            false => format!("`{}`", text::inert(given, 300)),
        };
        Error::Usage(message.after(format!("{named}, by whose {method} a model must be signed, ")))
    };
    let pem = match given.contains(PEM) {
        true => given.as_bytes().to_vec(),
        false => {
            let read = std::fs::File::open(given).and_then(|file| up_to(file, MAX_PEM_BYTES));
            let pem = read.map_err(|error| {
                let what = Message::new(format!("cannot be read: {error}"));
                refuse(what.hint("check the path and the mounts of the pod"))
            })?;
            pem.ok_or_else(|| {
                refuse(format!("is larger than {}", text::size(MAX_PEM_BYTES)).into())
            })?
        }
    };
    Trust::new(signed_by, &pem).map_err(|problem: TrustProblem| refuse(problem.message()))
}

/// The signature among `files`, which a source has.
pub(super) fn listed(
    trust: &Trust,
    source_name: &str,
    files: &[RemoteFile],
) -> Result<RemoteFile, Error> {
    let path = &trust.accepted().file;
    match files.iter().find(|file| file.path == *path) {
        Some(file) if file.size <= MAX_SIGNATURE_BYTES => Ok(file.clone()),
        Some(file) => Err(Error::Integrity(
            format!(
                "`{path}` of {source_name} has {}, more than the {} that a signature may have",
                text::size(file.size),
                text::size(MAX_SIGNATURE_BYTES)
            )
            .into(),
        )),
        None => Err(Error::Integrity(
            Message::new(format!(
                "{source_name} has no `{path}`, so nothing says who has signed it"
            ))
            .hint("sign the model with `model_signing`, or name the file with --signature-file"),
        )),
    }
}

/// Takes the signature with the model, whatever the patterns say.
pub(super) fn take(selected: &mut Selected, signature: RemoteFile) {
    if selected.files.iter().any(|file| file.path == signature.path) {
        return;
    }
    selected.left_out.retain(|file| file.path != signature.path.as_str());
    selected.files.push(signature);
    selected.files.sort_by(|a, b| a.path.parts().cmp(b.path.parts()));
}

/// What there is of a model beside what a signature says of it.
pub(super) struct Listing<'a> {
    pub source_name: &'a str,
    /// Path and size of each file.
    pub files: Vec<(&'a str, u64)>,
    pub left_out: &'a [LeftOut],
    pub selection: &'a Selection,
}

impl Listing<'_> {
    pub fn of_sentinel(sentinel: &Sentinel) -> Listing<'_> {
        Listing {
            source_name: &sentinel.source,
            files: sentinel.files.iter().map(|file| (&*file.path, file.size)).collect(),
            left_out: &sentinel.left_out,
            selection: &sentinel.selection,
        }
    }

    /// Fails unless each file is signed, and each file that is signed is there or left out. Returns how many that
    /// are signed are left out.
    fn check(&self, trust: &Trust, manifest: &Manifest) -> Result<usize, SignatureProblem> {
        let paths = || self.files.iter().map(|(path, _)| *path);
        manifest.check_signed(trust.accepted(), paths())?;
        let there: HashSet<&str> = paths().collect();
        let others = manifest.others(|path| there.contains(path));
        let left_out: HashSet<&str> = self.left_out.iter().map(|it| it.path.as_str()).collect();
        let absent: Vec<&str> =
            others.iter().copied().filter(|path| !left_out.contains(path)).collect();
        let left_out = self.left_out.iter().map(|file| (file.path.as_str(), file.size));
        let known = self.files.iter().copied().chain(left_out);
        // A mirror holds what was selected for it, and the signature is that of all.
        let missing = self.selection.lacks(known, &absent);
        if missing.is_empty() {
            return Ok(others.len());
        }
        Err(SignatureProblem::Missing(missing.into_iter().map(str::to_owned).collect()))
    }
}

/// Opens the signature `json` of a model, and compares the names.
pub(super) fn opened(
    trust: &Trust,
    json: impl Read,
    listing: &Listing<'_>,
) -> Result<(Opened, usize), Error> {
    let refuse = |problem| refused(trust, listing.source_name, &problem);
    let json = up_to(json, MAX_SIGNATURE_BYTES).map_err(|error| {
        Error::Store(StoreError::io(
            "read",
            std::path::Path::new(trust.accepted().file.as_str()),
            error,
        ))
    })?;
    let too_large = || refuse(SignatureProblem::NoBundle("it is too large".into()));
    let opened = trust.open(&json.ok_or_else(too_large)?).map_err(refuse)?;
    let left_out = listing.check(trust, &opened.manifest).map_err(refuse)?;
    Ok((opened, left_out))
}

/// Fails if a file among those that are proved is not what was signed.
pub(super) fn check_proofs(
    trust: &Trust,
    manifest: &Manifest,
    source_name: &str,
    files: &[RemoteFile],
    proofs: &[Option<Proof>],
) -> Result<(), Error> {
    let known = |(file, proof): (&RemoteFile, &Option<Proof>)| {
        // What the source publishes is as good as proved: nothing else will be taken.
        let published = || file.digest.as_ref().and_then(|digest| digest.sha256());
        proof.as_ref().map(|proof| proof.sha256).or_else(published).map(Sha256)
    };
    let digests: Vec<_> = files.iter().zip(proofs).map(known).collect();
    check_digests(trust, manifest, source_name, files, &digests)
}

/// The same where all digests are known.
pub(super) fn check_digests(
    trust: &Trust,
    manifest: &Manifest,
    source_name: &str,
    files: &[RemoteFile],
    digests: &[Option<Sha256>],
) -> Result<(), Error> {
    for (file, sha256) in files.iter().zip(digests) {
        if let Some(sha256) = *sha256 {
            let checked = manifest.check(file.path.as_str(), sha256);
            checked.map_err(|problem| refused(trust, source_name, &problem))?;
        }
    }
    Ok(())
}

/// What is verified of the signature of a published model, by its sentinel: the bytes of its files are not read.
pub(super) fn of_published(
    trust: &Trust,
    files: &PublishedFiles,
    sentinel: &Sentinel,
) -> Result<Signed, Error> {
    let path = &trust.accepted().file;
    let refuse = |what: &str| {
        Error::Integrity(
            format!("`{}` {what}", files.dir().path_of(path.as_str()).display()).into(),
        )
    };
    let missing = || refuse("is missing, so nothing says who has signed the model");
    let listed = sentinel.files.iter().find(|file| *file.path == *path.as_str());
    let listed = listed.ok_or_else(missing)?;
    let (dir, name) = files.find(path)?.ok_or_else(missing)?;
    let file = dir.read_file(&name)?.ok_or_else(missing)?;
    let read = up_to(file, MAX_SIGNATURE_BYTES)
        .map_err(|error| Error::Store(StoreError::io("read", &dir.path_of(&name), error)))?;
    let json = read.ok_or_else(|| refuse("is larger than a signature may be"))?;
    let mut hasher = FileHasher::new(json.len() as u64, None);
    hasher.update(&json);
    if hasher.finish().ok() != Some(listed.sha256.0) {
        return Err(refuse("is not what its sentinel says"));
    }
    let listing = Listing::of_sentinel(sentinel);
    let (opened, _) = opened(trust, json.as_slice(), &listing)?;
    for file in &sentinel.files {
        let checked = opened.manifest.check(&file.path, file.sha256);
        checked.map_err(|problem| refused(trust, &sentinel.source, &problem))?;
    }
    Ok(trust.signed(&opened, rfc3339(SystemTime::now())))
}

/// Fails if a file that no sentinel lists lies in a directory of a signed model.
pub(super) fn check_unlisted(trust: &Trust, extra: &[String], shown: &str) -> Result<(), Error> {
    let is_unsigned = |path: &&String| !trust.accepted().ignores(path, &[]);
    match extra.iter().find(is_unsigned) {
        None => Ok(()),
        Some(path) => Err(Error::Integrity(
            Message::new(format!("`{path}` lies in `{shown}` and is not signed"))
                .hint("remove it, or ignore such files with --ignore-unsigned"),
        )),
    }
}

impl Fetch<'_> {
    /// What lies there. A copy of which no signature as asked was verified is asked for its own: it may have been
    /// published by a run that did not care.
    pub(super) fn existing(&self, wanted: Wanted<'_>, store: &Store) -> Result<Existing, Error> {
        let mut existing = store.existing()?;
        let _ = self.verify_there(wanted, store, &mut existing);
        Ok(existing)
    }

    /// Says of a copy that is signed as asked that it is; fails if it is not.
    pub(super) fn verify_there(
        &self,
        wanted: Wanted<'_>,
        store: &Store,
        existing: &mut Existing,
    ) -> Result<(), Error> {
        let (Some(trust), Existing::Complete(sentinel)) = (wanted.trust, existing) else {
            return Ok(());
        };
        // With a lock file it counts whichever source it came from.
        let counts = wanted.goal.locked.is_some() || sentinel.is_of(&wanted.model.uri);
        if !counts || trust.accepted().has(sentinel.signed.as_ref()) {
            return Ok(());
        }
        if let Some(files) = store.shown_files(sentinel)? {
            sentinel.signed = Some(of_published(trust, &files, sentinel)?);
        }
        Ok(())
    }

    /// The same of a listing alone, without a volume. What lies in archives cannot be read here.
    pub(super) async fn open_listed(
        &self,
        trust: &Trust,
        source: &dyn Source,
        files: &[RemoteFile],
        listing: &Listing<'_>,
    ) -> Result<(), Error> {
        let opened = open_listed(&self.ask, trust, source, files, listing).await?;
        if let Some((opened, left_out)) = opened {
            let (name, unproved) = (listing.source_name, vec![None; files.len()]);
            check_proofs(trust, &opened.manifest, name, files, &unproved)?;
            self.tell_signed(trust, &opened, left_out);
        }
        Ok(())
    }

    /// The line about a signature that was verified.
    pub(super) fn tell_signed(&self, trust: &Trust, opened: &Opened, left_out: usize) {
        let signer = trust.signed(opened, String::new()).signer();
        let names = text::files(opened.manifest.count());
        let aside = match left_out {
            0 => String::new(),
            count => format!(", {count} of them not fetched: the selection leaves them out"),
        };
        self.screen.say(&format!(
            "`{}` is signed by {signer} and names {names}{aside}",
            trust.accepted().file
        ));
    }
}

/// Reads and opens the signature among `files`, which a source lists; `None` where it lies in an archive, which only a
/// fetch unpacks.
pub(super) async fn open_listed(
    ask: &Asker<'_>,
    trust: &Trust,
    source: &dyn Source,
    files: &[RemoteFile],
    listing: &Listing<'_>,
) -> Result<Option<(Opened, usize)>, Error> {
    let file = listed(trust, listing.source_name, files)?;
    if source.archives().is_some_and(|archives| archives.unpacked(&file).is_some()) {
        ask.screen.warn(&format!(
            "`{}` lies in an archive; only a fetch unpacks that and verifies the signature",
            file.path
        ));
        return Ok(None);
    }
    let json = ask.bytes_of(source, &file).await?;
    opened(trust, json.as_slice(), listing).map(Some)
}

/// Whether the file at `path` is the signature that `trust` asks for.
pub(super) fn is_signature(trust: &Trust, path: &RelPath) -> bool {
    trust.accepted().file == *path
}

fn refused(trust: &Trust, source_name: &str, problem: &SignatureProblem) -> Error {
    let lead = format!("`{}` of {source_name} ", trust.accepted().file);
    Error::Integrity(problem.message().after(lead))
}

/// All of `file`, if it has no more than `most` bytes.
fn up_to(file: impl Read, most: u64) -> std::io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= most).then_some(bytes))
}
