//! Signatures of models by OpenSSF Model Signing 1.0: a Sigstore bundle whose payload names every file with its
//! SHA-256. [`Trust`] is whom the user believes, [`Manifest`] what one of them has signed.
//!
//! Reads no file and asks no network: the bundle, the keys and the digests of the files are given.

mod bundle;
mod certificate;
mod der;
mod key;
mod manifest;
mod problem;

pub use manifest::Manifest;
pub use problem::{SignatureProblem, TrustProblem};

use crate::model::{Accepted, Signed, SignedBy, Signer};
use bundle::{Bundle, Material};
use certificate::Roots;
use key::Key;

/// What is read of a signature: 100,000 files need about 30 MB.
pub const MAX_SIGNATURE_BYTES: u64 = 48 << 20;

/// The signers that the user believes, any of which will do.
#[derive(Debug)]
pub struct Trust {
    signers: Signers,
    accepted: Accepted,
}

#[derive(Debug)]
enum Signers {
    Keys(Vec<Key>),
    Roots(Roots),
}

/// What was signed, and by whom.
#[derive(Debug)]
pub struct Opened {
    pub manifest: Manifest,
    /// As [`Signed::by`].
    by: String,
    certificate: Option<String>,
}

impl Trust {
    /// Those that `pem` holds, by the method of `signed_by`.
    pub fn new(signed_by: &SignedBy, pem: &[u8]) -> Result<Self, TrustProblem> {
        let (signers, by) = match &signed_by.signer {
            Signer::Key(_) => {
                let keys = Key::all(pem)?;
                let by = keys.iter().map(|key| key.fingerprint.clone()).collect();
                (Signers::Keys(keys), by)
            }
            Signer::Certificate(_) => {
                let roots = Roots::new(pem)?;
                let by = roots.fingerprints().collect();
                (Signers::Roots(roots), by)
            }
        };
        let accepted = Accepted {
            method: signed_by.signer.method(),
            by,
            file: signed_by.file.clone(),
            ignored: signed_by.ignored.clone(),
        };
        Ok(Self { signers, accepted })
    }

    /// What a copy must say of itself to count as signed.
    pub fn accepted(&self) -> &Accepted {
        &self.accepted
    }

    /// Verifies the signature that `json` is. Nothing of what it says is read before that.
    pub fn open(&self, json: &[u8]) -> Result<Opened, SignatureProblem> {
        let bundle = Bundle::read(json)?;
        let (by, certificate) = match (&self.signers, &bundle.material) {
            (Signers::Keys(keys), Material::Key { hint }) => {
                (key::verify(keys, hint.as_deref(), &bundle)?, None)
            }
            (Signers::Roots(roots), Material::Chain(chain)) => {
                let (root, leaf) = roots.verify(chain, &bundle)?;
                (root, Some(leaf))
            }
            (_, found) => {
                let (wanted, found) = (self.accepted.method, found.method());
                return Err(SignatureProblem::OtherMethod { wanted, found });
            }
        };
        let payload = bundle.into_payload();
        Ok(Opened { manifest: Manifest::read(&payload)?, by, certificate })
    }

    /// What the sentinel of a model says that `opened` was verified of.
    pub fn signed(&self, opened: &Opened, verified_at: String) -> Signed {
        Signed {
            method: self.accepted.method.to_owned(),
            by: opened.by.clone(),
            certificate: opened.certificate.clone(),
            file: self.accepted.file.to_string(),
            ignored: self.accepted.ignored.clone(),
            verified_at,
        }
    }
}

/// For fuzzers: reads `data` as each of the things that are read here, and tells of what is wrong.
pub(super) fn read_everything(data: &[u8], wrong: &mut dyn FnMut(SignatureProblem)) {
    let payload = match Bundle::read(data) {
        Ok(bundle) => bundle.into_payload(),
        Err(problem) => {
            wrong(problem);
            data.to_vec()
        }
    };
    if let Err(problem) = Manifest::read(&payload) {
        wrong(problem);
    }
    let _ = der::facts(data);
}

#[cfg(test)]
mod tests;
