//! Signatures by a bare key: ECDSA with P-256, P-384 or P-521, each with the hash of its size.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ECDSA_P521_SHA512_ASN1,
    EcdsaVerificationAlgorithm, ParsedPublicKey,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::{PemObject, SectionKind};
use sha2::{Digest, Sha256};

use super::bundle::Bundle;
use super::{SignatureProblem, TrustProblem};
use crate::model::{hex, text};

const CURVES: [&EcdsaVerificationAlgorithm; 3] =
    [&ECDSA_P256_SHA256_ASN1, &ECDSA_P384_SHA384_ASN1, &ECDSA_P521_SHA512_ASN1];

/// Columns of a line of PEM.
const PEM_COLUMNS: usize = 64;

/// A public key that the user believes.
#[derive(Debug)]
pub struct Key {
    key: ParsedPublicKey,
    /// The SHA-256 of its PEM: what `model_signing` writes into a signature, and `sha256sum` shows of the file.
    pub fingerprint: String,
}

impl Key {
    /// Every key in `pem`.
    pub fn all(pem: &[u8]) -> Result<Vec<Self>, TrustProblem> {
        let mut keys = Vec::new();
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
            let (kind, der) = section
                .map_err(|error| TrustProblem::Pem(text::inert(&format!("{error:?}"), 100)))?;
            match kind {
                SectionKind::PublicKey => {
                    keys.push(Self::new(&SubjectPublicKeyInfoDer::from(der))?)
                }
                SectionKind::PrivateKey
                | SectionKind::EcPrivateKey
                | SectionKind::RsaPrivateKey => {
                    return Err(TrustProblem::PrivateKey);
                }
                _ => {}
            }
        }
        if keys.is_empty() { Err(TrustProblem::NoKey) } else { Ok(keys) }
    }

    fn new(der: &[u8]) -> Result<Self, TrustProblem> {
        let parsed = CURVES.iter().find_map(|curve| ParsedPublicKey::new(*curve, der).ok());
        let key = parsed.ok_or(TrustProblem::KeyKind)?;
        Ok(Self { key, fingerprint: hex::encode(&Sha256::digest(pem(der))) })
    }
}

/// The fingerprint of the key among `keys` that has signed `bundle`, which names one by `hint`.
pub fn verify(
    keys: &[Key],
    hint: Option<&str>,
    bundle: &Bundle,
) -> Result<String, SignatureProblem> {
    let all = || keys.iter().map(|key| key.fingerprint.clone()).collect();
    let is_right = |key: &&Key| key.key.verify_sig(bundle.signed(), &bundle.signature).is_ok();
    match hint {
        // Only a name: a message that says more than that nothing fits.
        Some(hint) if !keys.iter().any(|key| key.fingerprint == *hint) => {
            let found = text::inert(hint, 64);
            Err(SignatureProblem::OtherKey { found, wanted: all() })
        }
        _ => match keys.iter().find(is_right) {
            Some(key) => Ok(key.fingerprint.clone()),
            None => Err(SignatureProblem::WrongKey(all())),
        },
    }
}

/// A public key as `openssl` and Python write it.
fn pem(der: &[u8]) -> String {
    let base64 = STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN PUBLIC KEY-----\n");
    for line in base64.as_bytes().chunks(PEM_COLUMNS) {
        pem.extend(line.iter().copied().map(char::from));
        pem.push('\n');
    }
    pem + "-----END PUBLIC KEY-----\n"
}
