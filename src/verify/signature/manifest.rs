//! What a signature says: an in-toto statement that names every file of a model with its SHA-256.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;
use sha2::Digest;

use super::SignatureProblem;
use crate::model::{Accepted, Sha256, hex, text};

const STATEMENT: &str = "https://in-toto.io/Statement/v1";
const PREDICATE: &str = "https://model_signing/signature/v1.0";
/// What version 0.2 of `model_signing` wrote.
const PREDICATE_BEFORE_1: &str = "https://model_signing/Digests/v0.1";

/// The files that are signed.
#[derive(Debug, PartialEq, Eq)]
pub struct Manifest {
    digests: HashMap<Box<str>, Sha256>,
    /// Files and directories that the signer has left out.
    ignored: Vec<String>,
}

/// What a statement is about, whatever else it says.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct About {
    #[serde(rename = "_type")]
    kind: String,
    predicate_type: String,
}

#[derive(Deserialize)]
struct Statement<'a> {
    subject: Vec<Subject>,
    #[serde(borrow)]
    predicate: Predicate<'a>,
}

#[derive(Deserialize)]
struct Subject {
    digest: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Predicate<'a> {
    serialization: Serialization,
    #[serde(borrow, default)]
    resources: Vec<Resource<'a>>,
}

#[derive(Deserialize)]
struct Serialization {
    method: String,
    hash_type: String,
    #[serde(default)]
    ignore_paths: Vec<String>,
}

#[derive(Deserialize)]
struct Resource<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    algorithm: Cow<'a, str>,
    #[serde(borrow)]
    digest: Cow<'a, str>,
}

impl Manifest {
    /// Reads what was signed.
    pub fn read(payload: &[u8]) -> Result<Self, SignatureProblem> {
        let unreadable = |error: serde_json::Error| {
            SignatureProblem::Statement(text::inert(&error.to_string(), 200))
        };
        let about: About = serde_json::from_slice(payload).map_err(unreadable)?;
        match (about.kind.as_str(), about.predicate_type.as_str()) {
            (STATEMENT, PREDICATE) => {}
            (STATEMENT, PREDICATE_BEFORE_1) => return Err(SignatureProblem::Before1),
            (STATEMENT, _) => return Err(SignatureProblem::Predicate(about.predicate_type)),
            _ => return Err(SignatureProblem::Predicate(about.kind)),
        }
        let statement: Statement<'_> = serde_json::from_slice(payload).map_err(unreadable)?;
        let Predicate { serialization, resources } = statement.predicate;
        let Serialization { method, hash_type, ignore_paths } = serialization;
        let unsupported =
            |what: String| Err(SignatureProblem::Serialization { what: text::inert(&what, 100) });
        if method != "files" {
            return unsupported(format!("`{method}` in place of whole files"));
        }
        let mut overall = sha2::Sha256::new();
        let mut digests = HashMap::with_capacity(resources.len());
        for Resource { name, algorithm, digest } in resources {
            if algorithm != "sha256" {
                return unsupported(format!("digests of kind `{algorithm}`"));
            }
            let Some(digest) = hex::decode(&digest).map(Sha256) else {
                let what = format!("`{name}` has no SHA-256 of 64 hexadecimal digits");
                return Err(SignatureProblem::Statement(text::inert(&what, 200)));
            };
            overall.update(digest.0);
            if digests.insert(name.as_ref().into(), digest).is_some() {
                return Err(SignatureProblem::Twice(name.into_owned()));
            }
        }
        if hash_type != "sha256" {
            return unsupported(format!("digests of kind `{hash_type}`"));
        }
        let overall = hex::encode(&overall.finalize());
        match statement.subject.as_slice() {
            [subject] if subject.digest.get("sha256") == Some(&overall) => {}
            _ => return Err(SignatureProblem::Inconsistent),
        }
        Ok(Self { digests, ignored: ignore_paths })
    }

    /// Fails unless each of `files` is signed, or need not be.
    pub fn check_signed<'a>(
        &self,
        accepted: &Accepted,
        files: impl Iterator<Item = &'a str>,
    ) -> Result<(), SignatureProblem> {
        let is_unsigned = |path: &&str| {
            !self.digests.contains_key(*path) && !accepted.ignores(path, &self.ignored)
        };
        let unsigned: Vec<String> = files.filter(is_unsigned).map(str::to_owned).collect();
        if unsigned.is_empty() { Ok(()) } else { Err(SignatureProblem::Unsigned(unsigned)) }
    }

    /// The files that are signed and none of those that `is_known`, in order.
    pub fn others(&self, is_known: impl Fn(&str) -> bool) -> Vec<&str> {
        let others = self.digests.keys().map(|name| &**name).filter(|name| !is_known(name));
        let mut others: Vec<&str> = others.collect();
        others.sort_unstable();
        others
    }

    /// Fails if the file at `path` is signed and has another SHA-256 than was signed.
    pub fn check(&self, path: &str, found: Sha256) -> Result<(), SignatureProblem> {
        match self.digests.get(path) {
            Some(&signed) if signed != found => {
                Err(SignatureProblem::Differs { path: path.to_owned(), signed, found })
            }
            _ => Ok(()),
        }
    }

    /// How many files are signed.
    pub fn count(&self) -> usize {
        self.digests.len()
    }
}
