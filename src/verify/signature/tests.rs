//! What a signature must say, under keys that sign here.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::Digest;

use super::*;
use crate::model::{Sha256, hex};

const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

/// A statement that names `a` and `d/b`.
fn statement() -> Value {
    let digests = [[0xaa; 32], [0xbb; 32]].concat();
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "m", "digest": {"sha256": hex::encode(&sha2::Sha256::digest(digests))}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {
            "serialization": {
                "method": "files", "hash_type": "sha256", "allow_symlinks": false,
                "ignore_paths": ["logs", ".git"],
            },
            "resources": [
                {"name": "a", "algorithm": "sha256", "digest": A},
                {"name": "d/b", "algorithm": "sha256", "digest": B},
            ],
        },
    })
}

/// A new key, and whom to trust because of it.
fn signer() -> (EcdsaKeyPair, Trust) {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("a key");
    use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
    let der: PublicKeyX509Der<'_> = pair.public_key().as_der().expect("DER");
    let pem = format!(
        "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
        STANDARD.encode(der.as_ref())
    );
    let signed_by =
        SignedBy::new(Signer::Key("inline".into()), None, vec!["*.md".into()]).expect("a path");
    let trust = Trust::new(&signed_by, pem.as_bytes()).expect("a key");
    (pair, trust)
}

/// What `pair` signs of `payload`, with `prefix` before it.
fn bundle(pair: &EcdsaKeyPair, prefix: &str, payload: &str) -> Vec<u8> {
    let signed = format!("{prefix}{} {payload}", payload.len());
    let signature = pair.sign(&SystemRandom::new(), signed.as_bytes()).expect("signed");
    let bundle = json!({
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"publicKey": {"hint": ""}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": STANDARD.encode(payload),
            "payloadType": "application/vnd.in-toto+json",
            "signatures": [{"sig": STANDARD.encode(signature.as_ref()), "keyid": ""}],
        },
    });
    bundle.to_string().into_bytes()
}

const DSSE: &str = "DSSEv1 28 application/vnd.in-toto+json ";

fn opened(statement: &Value) -> Result<Manifest, SignatureProblem> {
    let (pair, trust) = signer();
    let bundle = bundle(&pair, DSSE, &statement.to_string());
    trust.open(&bundle).map(|opened| opened.manifest)
}

#[test]
fn a_statement_names_files_and_what_need_not_be_named() {
    let (pair, trust) = signer();
    let opened = trust.open(&bundle(&pair, DSSE, &statement().to_string())).expect("is signed");
    let (manifest, accepted) = (&opened.manifest, trust.accepted());
    assert_eq!(manifest.count(), 2);
    let signed = |paths: &[&str]| manifest.check_signed(accepted, paths.iter().copied());
    assert_eq!(signed(&["a", "d/b", "model.sig", ".gitattributes", "logs/x", "x.md"]), Ok(()));
    let unsigned = |names: &[&str]| {
        Err(SignatureProblem::Unsigned(names.iter().map(|it| (*it).to_owned()).collect()))
    };
    assert_eq!(signed(&["a", "b", "d/c"]), unsigned(&["b", "d/c"]));
    assert_eq!(manifest.others(|path| path == "a"), ["d/b"]);
    assert_eq!(manifest.check("a", Sha256([0xaa; 32])), Ok(()));
    assert_eq!(manifest.check("x.md", Sha256([0xcc; 32])), Ok(()));
    let found = Sha256([0xcc; 32]);
    let differs =
        SignatureProblem::Differs { path: "d/b".into(), signed: Sha256([0xbb; 32]), found };
    assert_eq!(manifest.check("d/b", found), Err(differs));
    let record = trust.signed(&opened, "now".into());
    assert!(accepted.has(Some(&record)));
}

#[test]
fn what_else_can_be_signed_is_no_model() {
    type Change = fn(&mut Value);
    let rows: [(&str, Change, &str); 14] = [
        ("type", |it| it["_type"] = "https://in-toto.io/Statement/v0.1".into(), "something else"),
        (
            "predicate",
            |it| it["predicateType"] = "https://slsa.dev/provenance/v1".into(),
            "slsa.dev",
        ),
        (
            "old",
            |it| it["predicateType"] = "https://model_signing/Digests/v0.1".into(),
            "before 1.0",
        ),
        ("subject", |it| it["subject"] = json!([]), "its own digest"),
        (
            "subjects",
            |it| it["subject"] = json!([it["subject"][0], it["subject"][0]]),
            "its own digest",
        ),
        ("overall", |it| it["subject"][0]["digest"]["sha256"] = A.into(), "its own digest"),
        (
            "order",
            |it| it["predicate"]["resources"].as_array_mut().expect("a list").reverse(),
            "its own digest",
        ),
        (
            "fewer",
            |it| _ = it["predicate"]["resources"].as_array_mut().expect("a list").pop(),
            "its own digest",
        ),
        ("twice", |it| it["predicate"]["resources"][1]["name"] = "a".into(), "names `a` twice"),
        (
            "shards",
            |it| it["predicate"]["serialization"]["method"] = "shards".into(),
            "signs `shards`",
        ),
        (
            "hash",
            |it| it["predicate"]["serialization"]["hash_type"] = "blake2b".into(),
            "`blake2b`",
        ),
        (
            "algorithm",
            |it| it["predicate"]["resources"][0]["algorithm"] = "blake3".into(),
            "`blake3`",
        ),
        ("digest", |it| it["predicate"]["resources"][0]["digest"] = "ab".into(), "64 hexadecimal"),
        ("nothing", |it| it["predicate"] = json!({}), "cannot be read"),
    ];
    for (name, change, words) in rows {
        let mut statement = statement();
        change(&mut statement);
        let problem = opened(&statement).expect_err(name).to_string();
        assert!(problem.contains(words), "{name}: {problem}");
    }
    assert!(opened(&statement()).is_ok());
}

#[test]
fn a_signature_is_over_the_type_and_the_length_of_its_payload() {
    let (pair, trust) = signer();
    let payload = statement().to_string();
    assert!(trust.open(&bundle(&pair, DSSE, &payload)).is_ok());
    for other in ["", "DSSEv1 10 text/plain ", "DSSEv2 28 application/vnd.in-toto+json "] {
        let problem = trust.open(&bundle(&pair, other, &payload)).expect_err(other);
        assert!(matches!(problem, SignatureProblem::WrongKey(_)), "{other}: {problem}");
    }
    // Not even what kind of thing it is counts before the signature is right.
    let problem = trust.open(&bundle(&pair, "", "{}")).expect_err("is not signed");
    assert!(matches!(problem, SignatureProblem::WrongKey(_)), "{problem}");
}

/// A file that `fixtures/sign.py` has made.
macro_rules! fixture {
    ($name:literal) => {
        include_bytes!(concat!("../../../fixtures/signed/", $name)).as_slice()
    };
}

#[test]
fn what_the_reference_signs_opens_under_its_signer_and_no_other() {
    let (p256, p384, p521) = (fixture!("p256.pub"), fixture!("p384.pub"), fixture!("p521.pub"));
    let (roots, other) = (fixture!("roots.pem"), fixture!("other-roots.pem"));
    let trust = |signer: &Signer, pem: &[u8]| {
        let signed_by = SignedBy::new(signer.clone(), None, Vec::new()).expect("a path");
        Trust::new(&signed_by, pem).expect("PEM")
    };
    let key = Signer::Key(String::new());
    let certificate = Signer::Certificate(String::new());
    let rows = [
        ("p256", fixture!("p256.sig"), &key, p256, ""),
        ("p384", fixture!("p384.sig"), &key, p384, ""),
        ("p521", fixture!("p521.sig"), &key, p521, ""),
        ("p256 by p384", fixture!("p256.sig"), &key, p384, "not by SHA256:"),
        ("p521 by p256", fixture!("p521.sig"), &key, p256, "not by SHA256:"),
        ("p256 by roots", fixture!("p256.sig"), &certificate, roots, "not with a certificate"),
        ("shards", fixture!("shards.sig"), &key, p256, "`shards`"),
        ("blake3", fixture!("blake3.sig"), &key, p256, "`blake3`"),
        ("certificate", fixture!("certificate.sig"), &certificate, roots, ""),
        ("p384 certificate", fixture!("certificate-p384.sig"), &certificate, roots, ""),
        ("other root", fixture!("certificate.sig"), &certificate, other, "no given root"),
        ("server", fixture!("certificate-server.sig"), &certificate, roots, "no given root"),
        ("no use", fixture!("certificate-no-use.sig"), &certificate, roots, "not for signatures"),
        ("early", fixture!("certificate-before-root.sig"), &certificate, roots, "no given root"),
        ("by key", fixture!("certificate.sig"), &key, p256, "not with a key"),
    ];
    for (name, signature, signer, pem, words) in rows {
        match trust(signer, pem).open(signature) {
            Ok(opened) => {
                assert_eq!(words, "", "{name} is accepted");
                assert_eq!(opened.manifest.count(), 15, "{name}");
                assert!(trust(signer, pem).accepted().by.contains(&opened.by), "{name}");
            }
            Err(problem) => {
                assert_ne!(words, "", "{name}: {problem}");
                assert!(problem.to_string().contains(words), "{name}: {problem}");
            }
        }
    }
    // Each of several will do.
    let both = [p384, p256].concat();
    let opened = trust(&key, &both).open(fixture!("p256.sig")).expect("the second one");
    assert_eq!(opened.by, hex::encode(&sha2::Sha256::digest(p256)));
}

#[test]
fn a_change_of_any_byte_of_a_signature_is_found_or_means_nothing() {
    let signed_by = SignedBy::new(Signer::Key(String::new()), None, Vec::new()).expect("a path");
    let trust = Trust::new(&signed_by, fixture!("p256.pub")).expect("a key");
    let whole = trust.open(fixture!("p256.sig")).expect("is signed").manifest;
    let mut opened = 0;
    for at in 0..fixture!("p256.sig").len() {
        let mut changed = fixture!("p256.sig").to_vec();
        changed[at] ^= 1;
        // Such as a letter of a field that nobody reads.
        if let Ok(other) = trust.open(&changed) {
            opened += 1;
            assert_eq!(other.manifest, whole, "byte {at}");
        }
    }
    assert!(opened < 40, "{opened}");
}
