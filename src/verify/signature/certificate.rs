//! Signatures by a certificate: a chain up to a root that the user believes, at the time when the certificate was
//! issued. The signature holds no time of its own that could be believed, so a certificate that has expired since
//! counts, as with `model_signing`.

use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use sha2::{Digest, Sha256};
use webpki::aws_lc_rs::{ECDSA_P256_SHA256, ECDSA_P384_SHA384, ECDSA_P521_SHA512};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use super::bundle::Bundle;
use super::der::{self, Facts};
use super::{SignatureProblem, TrustProblem};
use crate::model::{hex, text};

/// 1.3.6.1.5.5.7.3.3
const CODE_SIGNING: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x03];

/// The certificates that the user believes.
#[derive(Debug)]
pub struct Roots {
    anchors: Vec<TrustAnchor<'static>>,
    /// The SHA-256 of each, as DER.
    fingerprints: Vec<String>,
}

impl Roots {
    pub fn new(pem: &[u8]) -> Result<Self, TrustProblem> {
        let shown = |what: String| text::inert(&what, 100);
        let (mut anchors, mut fingerprints) = (Vec::new(), Vec::new());
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let der =
                certificate.map_err(|error| TrustProblem::Pem(shown(format!("{error:?}"))))?;
            let anchor = anchor_from_trusted_cert(&der)
                .map_err(|error| TrustProblem::Certificate(shown(error.to_string())))?;
            anchors.push(anchor.to_owned());
            fingerprints.push(fingerprint(&der));
        }
        if anchors.is_empty() {
            return Err(TrustProblem::NoCertificate);
        }
        Ok(Self { anchors, fingerprints })
    }

    pub fn fingerprints(&self) -> impl Iterator<Item = String> {
        self.fingerprints.iter().cloned()
    }

    /// The fingerprints of the root that vouches for the first of `chain`, and of that one, which has signed `bundle`.
    pub fn verify(
        &self,
        chain: &[Vec<u8>],
        bundle: &Bundle,
    ) -> Result<(String, String), SignatureProblem> {
        let Some((leaf, above)) = chain.split_first() else {
            return Err(SignatureProblem::Certificate("there is none"));
        };
        let der = CertificateDer::from(leaf.as_slice());
        let above: Vec<CertificateDer<'_>> =
            above.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
        let of_chain =
            |error: webpki::Error| SignatureProblem::Chain(text::inert(&error.to_string(), 200));
        let certificate = EndEntityCert::try_from(&der).map_err(of_chain)?;
        let Facts { not_before, is_for_signatures } =
            der::facts(leaf).ok_or(SignatureProblem::Certificate("it is no X.509"))?;
        let issued = UnixTime::since_unix_epoch(Duration::from_secs(not_before));
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        // What is made for servers or mail, of which a company has very many, signs no models.
        let usage = KeyUsage::required_if_present(CODE_SIGNING);
        let path = certificate
            .verify_for_usage(algorithms.all, &self.anchors, &above, issued, usage, None, None)
            .map_err(of_chain)?;
        if !is_for_signatures {
            return Err(SignatureProblem::Usage);
        }
        let root = self.anchors.iter().position(|anchor| anchor == path.anchor());
        let root = root.and_then(|n| self.fingerprints.get(n).cloned()).unwrap_or_default();
        let is_right =
            [ECDSA_P256_SHA256, ECDSA_P384_SHA384, ECDSA_P521_SHA512].iter().any(|curve| {
                certificate.verify_signature(*curve, bundle.signed(), &bundle.signature).is_ok()
            });
        if is_right { Ok((root, fingerprint(&der))) } else { Err(SignatureProblem::WrongSignature) }
    }
}

fn fingerprint(der: &[u8]) -> String {
    hex::encode(&Sha256::digest(der))
}
