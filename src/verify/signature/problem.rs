//! Why a model does not count as signed, and why a file of keys cannot be used. Sentences about the signature, which
//! who shows them has named.

use std::borrow::Cow;

use crate::model::{Message, Sha256, literal_pattern, text};

/// The one kind of bundle that `model_signing` writes and reads.
pub const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// What is wrong with a signature. Its sentence continues that the signature …
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureProblem {
    #[error("is no Sigstore bundle ({0})")]
    NoBundle(String),
    #[error(
        "is a bundle of type `{}`, and only `{}` is known",
        text::inert(.0, 100), MEDIA_TYPE
    )]
    MediaType(String),
    #[error("has a payload of type `{}`, and no in-toto statement", text::inert(.0, 100))]
    PayloadType(String),
    #[error("was made with a {found}, not with a {wanted}")]
    OtherMethod { wanted: &'static str, found: &'static str },
    #[error("was made without a key of its own (keyless, by Sigstore), which is not supported")]
    Keyless,
    #[error("is signed by key SHA256:{found}, not by SHA256:{}", wanted.join(", SHA256:"))]
    OtherKey { found: String, wanted: Vec<String> },
    #[error("does not match its content under key SHA256:{}; it was changed, or signed by another key", .0.join(", SHA256:"))]
    WrongKey(Vec<String>),
    #[error("has a certificate that no given root vouches for ({0})")]
    Chain(String),
    #[error(
        "has a certificate that is not for signatures: no digital signature in its key usage, no code signing"
    )]
    Usage,
    #[error("has a certificate that cannot be read ({0})")]
    Certificate(&'static str),
    #[error("does not match its content under its certificate; it was changed")]
    WrongSignature,
    #[error("holds a payload that cannot be read ({0})")]
    Statement(String),
    #[error("is of a version before 1.0 of Model Signing")]
    Before1,
    #[error("signs something else than a model: `{}`", text::inert(.0, 100))]
    Predicate(String),
    #[error("signs {what}, which needs another read of all files and is not supported")]
    Serialization { what: String },
    #[error("names files whose digests are not what its own digest over all of them says")]
    Inconsistent,
    #[error("names `{}` twice", text::inert(.0, 200))]
    Twice(String),
    /// Files that are there and not signed.
    #[error("does not name {}", named(.0))]
    Unsigned(Vec<String>),
    /// Files that are signed and not there.
    #[error("names {}, which the source does not have", named(.0))]
    Missing(Vec<String>),
    #[error("says that `{}` has SHA-256 {signed}, and it has {found}", text::inert(path, 200))]
    Differs { path: String, signed: Sha256, found: Sha256 },
}

/// Why a file of keys or certificates cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustProblem {
    #[error("holds no public key: a PEM section `PUBLIC KEY` is expected")]
    NoKey,
    #[error("holds a private key")]
    PrivateKey,
    #[error("holds a key that is none of ECDSA with P-256, P-384 or P-521")]
    KeyKind,
    #[error("holds no certificate: a PEM section `CERTIFICATE` is expected")]
    NoCertificate,
    #[error("holds a certificate that cannot be read ({0})")]
    Certificate(String),
    #[error("is no PEM ({0})")]
    Pem(String),
}

impl SignatureProblem {
    /// Its sentence with what the user can do about it.
    pub fn message(&self) -> Message {
        let hint: Cow<'static, str> = match self {
            Self::NoBundle(_) => "sign the model with `model_signing`".into(),
            Self::MediaType(_) => "sign the model with a newer `model_signing`".into(),
            Self::OtherMethod { found, .. } => format!("use --verify-signature {found}=…").into(),
            Self::Keyless => "sign with a key or a certificate".into(),
            Self::OtherKey { .. } => "check which key the publisher names".into(),
            Self::Chain(_) => "check the roots".into(),
            Self::Before1 => "sign the model again with a newer `model_signing`".into(),
            Self::Serialization { .. } => {
                "sign the model again by whole files with SHA-256 (the default of `model_signing`)"
                    .into()
            }
            Self::Unsigned(paths) => {
                format!("sign the model again, or ignore such files with {}", ignore(paths)).into()
            }
            Self::Missing(_) => {
                "leave such files out with --exclude only if nothing needs them".into()
            }
            Self::Differs { .. } => "do not use this copy, ask the publisher".into(),
            _ => return Message::new(self.to_string()),
        };
        Message::new(self.to_string()).hint(hint)
    }
}

impl TrustProblem {
    /// Its sentence with what the user can do about it.
    pub fn message(&self) -> Message {
        let hint: Cow<'static, str> = match self {
            Self::PrivateKey => "give the public key only".into(),
            _ => return Message::new(self.to_string()),
        };
        Message::new(self.to_string()).hint(hint)
    }
}

/// Files that a message names; the others are counted.
const MAX_NAMED: usize = 3;

fn named(paths: &[String]) -> String {
    let shown = paths.iter().take(MAX_NAMED).map(|path| format!("`{}`", text::inert(path, 200)));
    let shown = shown.collect::<Vec<_>>().join(", ");
    match paths.len().saturating_sub(MAX_NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// The flag that ignores the first of `paths`.
fn ignore(paths: &[String]) -> String {
    let first = paths.first().map_or("…", String::as_str);
    let pattern = text::inert(&literal_pattern(first), 200);
    // One word of a shell, whatever the name is.
    format!("--ignore-unsigned '{}'", pattern.replace('\'', "'\\''"))
}
