//! Whose signature a model must have, as the user says it, and what a sentinel says of the one that was verified.
//! Words alone: how a signature is made is known in `verify/signature`.

use serde::{Deserialize, Serialize};

use super::{Message, RelPath, fnmatch, text};

/// The file that `model_signing` writes, if nobody says otherwise.
pub const SIGNATURE_FILE: &str = "model.sig";

/// What the reference implementation leaves out of every signature.
const OF_GIT: [&str; 4] = [".git", ".gitattributes", ".github", ".gitignore"];

/// The signature that a model must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedBy {
    pub signer: Signer,
    /// Where the signature lies in the model.
    pub file: RelPath,
    /// Patterns of files that need not be signed.
    pub ignored: Vec<String>,
}

/// Who must have signed: PEM, or the path of a file that holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signer {
    /// Any of these public keys.
    Key(String),
    /// A certificate below any of these roots.
    Certificate(String),
}

impl SignedBy {
    /// By what the user gives: `file` is the name of the signature, if it has another one.
    pub fn new(
        signer: Signer,
        file: Option<&str>,
        ignored: Vec<String>,
    ) -> Result<Self, super::UnsafePath> {
        let file = RelPath::parse(file.unwrap_or(SIGNATURE_FILE))?;
        Ok(Self { signer, file, ignored })
    }
}

impl Signer {
    /// Reads `key=FILE` or `certificate=FILE`.
    pub fn parse(text: &str) -> Result<Self, Message> {
        // What was given is not repeated: it may be a key.
        let refused =
            |what: &str| Err(Message::new(what).hint("write key=FILE or certificate=FILE"));
        let (method, of) = text.split_once('=').unwrap_or((text, ""));
        let of = of.trim();
        match method.trim() {
            "key" | "certificate" if of.is_empty() => refused("no file is named"),
            "key" => Ok(Self::Key(of.into())),
            "certificate" => Ok(Self::Certificate(of.into())),
            "sigstore" => refused("keyless signatures (sigstore) are not supported"),
            _ => refused("the kind of the signer is not known"),
        }
    }

    /// As a sentinel and a models file name it.
    pub fn method(&self) -> &'static str {
        match self {
            Self::Key(_) => "key",
            Self::Certificate(_) => "certificate",
        }
    }

    /// What was given.
    pub fn given(&self) -> &str {
        match self {
            Self::Key(given) | Self::Certificate(given) => given,
        }
    }
}

/// What a sentinel says of a signature that was verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// `key` or `certificate`.
    pub method: String,
    /// The SHA-256 of the public key as PEM, or of the root certificate as DER.
    pub by: String,
    /// The SHA-256 of the certificate that has signed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub certificate: Option<String>,
    /// Where the signature lies in the model.
    pub file: String,
    /// Files that match these need not be signed.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub ignored: Vec<String>,
    /// RFC 3339, by the clock of the node that verified; for people only.
    pub verified_at: String,
}

impl Signed {
    /// `key SHA256:3f2a…`, for messages. A sentinel can have been written by another program.
    pub fn signer(&self) -> String {
        format!("{} SHA256:{}", text::inert(&self.method, 20), text::inert(&self.by, 12))
    }
}

/// What must have been verified for a copy to count as signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    pub method: &'static str,
    /// The signers, any of which will do, in the form of [`Signed::by`].
    pub by: Vec<String>,
    pub file: RelPath,
    pub ignored: Vec<String>,
}

impl Accepted {
    /// Whether that was verified of a copy whose sentinel says `signed`.
    pub fn has(&self, signed: Option<&Signed>) -> bool {
        signed.is_some_and(|signed| {
            signed.method == self.method
                && self.by.contains(&signed.by)
                && signed.file == self.file.as_str()
                && signed.ignored == self.ignored
        })
    }

    /// Whether the file at `path` need not be signed: it is the signature, Git's own, ignored by the signature
    /// itself (`by_signature`), or by the user.
    pub fn ignores(&self, path: &str, by_signature: &[String]) -> bool {
        let is_below = |place: &str| {
            let place = place.trim_end_matches('/');
            path.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        path == self.file.as_str()
            || OF_GIT.into_iter().any(is_below)
            || by_signature.iter().any(|place| is_below(place))
            || self.ignored.iter().any(|pattern| fnmatch::matches(pattern, path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted() -> Accepted {
        Accepted {
            method: "key",
            by: vec!["aa".into(), "bb".into()],
            file: RelPath::parse(SIGNATURE_FILE).expect("a path"),
            ignored: vec!["*.md".into()],
        }
    }

    #[test]
    fn a_signer_is_a_method_and_what_it_needs() {
        assert_eq!(Signer::parse("key=/k.pub"), Ok(Signer::Key("/k.pub".into())));
        assert_eq!(Signer::parse("certificate=a=b"), Ok(Signer::Certificate("a=b".into())));
        for text in ["", "key", "key=", "keys=/k", "/k.pub", "certificate= ", "sigstore=me"] {
            assert!(Signer::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_record_counts_for_the_policy_that_it_was_verified_by_and_for_no_other() {
        let signed = Signed {
            method: "key".into(),
            by: "bb".into(),
            certificate: None,
            file: "model.sig".into(),
            ignored: vec!["*.md".into()],
            verified_at: "now".into(),
        };
        assert!(accepted().has(Some(&signed)));
        assert!(!accepted().has(None));
        for other in [
            Signed { method: "certificate".into(), ..signed.clone() },
            Signed { by: "cc".into(), ..signed.clone() },
            Signed { file: "other.sig".into(), ..signed.clone() },
            Signed { ignored: Vec::new(), ..signed.clone() },
        ] {
            assert!(!accepted().has(Some(&other)), "{other:?}");
        }
    }

    #[test]
    fn files_that_need_no_signature_are_few() {
        let by_signature = ["logs/".to_owned(), "notes".to_owned()];
        for (path, is_ignored) in [
            ("model.sig", true),
            ("sub/model.sig", false),
            (".gitattributes", true),
            (".github/workflows/ci.yml", true),
            (".gitlab.yml", false),
            ("sub/.gitattributes", false),
            ("logs/a", true),
            ("logs2/a", false),
            ("notes", true),
            ("README.md", true),
            ("config.json", false),
        ] {
            assert_eq!(accepted().ignores(path, &by_signature), is_ignored, "{path}");
        }
        // A place that is empty is not everything.
        assert!(!accepted().ignores("config.json", &[String::new(), "/".into(), ".".into()]));
    }
}
