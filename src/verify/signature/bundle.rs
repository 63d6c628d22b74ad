//! The file `model.sig`: a Sigstore bundle with a DSSE envelope. What is read here is not believed yet.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::problem::{MEDIA_TYPE, SignatureProblem};
use crate::model::text;

const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// A signature that nobody has verified.
#[derive(Debug)]
pub struct Bundle {
    pub material: Material,
    /// ECDSA, as ASN.1.
    pub signature: Vec<u8>,
    /// What was signed: the payload behind its own length and type.
    signed: Vec<u8>,
    /// Where the payload begins in that.
    payload_at: usize,
}

/// What it can be verified with.
#[derive(Debug)]
pub enum Material {
    /// A public key, by the SHA-256 of its PEM.
    Key { hint: Option<String> },
    /// Certificates as DER: the one that has signed, then those above it.
    Chain(Vec<Vec<u8>>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw<'a> {
    #[serde(default)]
    media_type: String,
    verification_material: RawMaterial,
    #[serde(borrow)]
    dsse_envelope: RawEnvelope<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawMaterial {
    public_key: Option<RawHint>,
    x509_certificate_chain: Option<RawChain>,
    certificate: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct RawHint {
    hint: Option<String>,
}

#[derive(Deserialize)]
struct RawChain {
    certificates: Vec<RawCertificate>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawCertificate {
    raw_bytes: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawEnvelope<'a> {
    // Most of the file: not copied before it is decoded.
    #[serde(borrow)]
    payload: Cow<'a, str>,
    payload_type: String,
    signatures: Vec<RawSignature>,
}

#[derive(Deserialize)]
struct RawSignature {
    sig: String,
}

impl Bundle {
    pub fn read(json: &[u8]) -> Result<Self, SignatureProblem> {
        let no_bundle = |why: &str| SignatureProblem::NoBundle(text::inert(why, 200));
        let raw: Raw<'_> =
            serde_json::from_slice(json).map_err(|error| no_bundle(&error.to_string()))?;
        if raw.media_type != MEDIA_TYPE {
            return Err(SignatureProblem::MediaType(raw.media_type));
        }
        let RawEnvelope { payload, payload_type, signatures } = raw.dsse_envelope;
        if payload_type != PAYLOAD_TYPE {
            return Err(SignatureProblem::PayloadType(payload_type));
        }
        let [signature] = signatures.as_slice() else {
            return Err(no_bundle("it must have one signature"));
        };
        let decoded = |text: &str, what| {
            STANDARD.decode(text).map_err(|_| no_bundle(&format!("its {what} is no base64")))
        };
        let signature = decoded(&signature.sig, "signature")?;
        let payload = decoded(&payload, "payload")?;
        let RawMaterial { public_key, x509_certificate_chain, certificate } =
            raw.verification_material;
        let material = match (public_key, x509_certificate_chain, certificate) {
            (Some(RawHint { hint }), None, None) => {
                Material::Key { hint: hint.filter(|hint| !hint.is_empty()) }
            }
            (None, Some(chain), None) => {
                let all = chain.certificates.iter();
                let all = all.map(|it| decoded(&it.raw_bytes, "certificate"));
                Material::Chain(all.collect::<Result<_, _>>()?)
            }
            (None, None, Some(_)) => return Err(SignatureProblem::Keyless),
            _ => return Err(no_bundle("it must have a public key or a certificate")),
        };
        let mut signed = pre_authentication(payload.len());
        let payload_at = signed.len();
        signed.extend_from_slice(&payload);
        Ok(Self { material, signature, signed, payload_at })
    }

    /// What the signature is over.
    pub fn signed(&self) -> &[u8] {
        &self.signed
    }

    /// What was signed, for whoever has verified it.
    pub fn into_payload(mut self) -> Vec<u8> {
        self.signed.split_off(self.payload_at)
    }
}

impl Material {
    /// As `--verify-signature` names it.
    pub fn method(&self) -> &'static str {
        match self {
            Self::Key { .. } => "key",
            Self::Chain(_) => "certificate",
        }
    }
}

/// What DSSE puts before a payload of so many bytes, so that its type is signed as well.
fn pre_authentication(len: usize) -> Vec<u8> {
    format!("DSSEv1 {} {PAYLOAD_TYPE} {len} ", PAYLOAD_TYPE.len()).into_bytes()
}
