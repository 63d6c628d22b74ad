//! What the Hub's answers mean: entries of its listing, and the commit that they belong to.

use std::fmt;

use reqwest::header::HeaderMap;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, SeqAccess, Visitor};

use super::problem::HubProblem;
use crate::model::{Digest, RefusedFile, RelPath, RemoteFile, text};
use crate::net::SourceError;

/// An entry of the recursive tree. In this answer the SHA-256 is `lfs.oid`, and `oid` is git's
/// name of a blob, which for an LFS file is only the pointer.
#[derive(Debug, Deserialize)]
pub struct TreeEntry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default)]
    oid: Option<String>,
    #[serde(default)]
    lfs: Option<Lfs>,
    /// Redacted for readers who may not have the file.
    #[serde(rename = "xetHash")]
    xet_hash: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Lfs {
    #[serde(default)]
    oid: Option<String>,
    /// Another spelling of the same, which the model info and some mirrors use.
    #[serde(default)]
    sha256: Option<String>,
    size: Option<u64>,
}

/// An entry as it is used.
#[derive(Debug)]
pub enum Listed {
    File(RemoteFile),
    /// A file whose name cannot become a path.
    Refused(RefusedFile),
    Directory(String),
    /// One of git's other kinds: a submodule.
    Other(String),
}

impl TreeEntry {
    /// What the entry describes.
    pub fn read(self) -> Result<Listed, SourceError> {
        match self.kind.as_str() {
            "file" => {}
            "directory" => return Ok(Listed::Directory(self.path)),
            _ => return Ok(Listed::Other(self.path)),
        }
        let path = match RelPath::parse(&self.path) {
            Ok(path) => path,
            Err(why) => {
                let size = self.lfs.and_then(|lfs| lfs.size).or(self.size).unwrap_or_default();
                return Ok(Listed::Refused(RefusedFile { name: self.path, size, why }));
            }
        };
        let unusable = |what: &'static str, value: &str| {
            let (file, value) = (path.clone(), text::inert(value, 80));
            SourceError::Protocol(HubProblem::Entry { file, what, value }.into())
        };
        let (size, digest) = match &self.lfs {
            Some(lfs) => {
                let oid = lfs.oid.as_deref().or(lfs.sha256.as_deref());
                let oid = oid.map(|oid| oid.strip_prefix("sha256:").unwrap_or(oid));
                let digest = oid
                    .map(|oid| Digest::sha256_from_hex(oid).ok_or_else(|| unusable("LFS oid", oid)))
                    .transpose()?;
                if let (Some(size), Some(other)) = (lfs.size, self.size)
                    && size != other
                {
                    return Err(unusable("sizes", &format!("{size}, {other}")));
                }
                (lfs.size.or(self.size), digest)
            }
            None => {
                let digest = self
                    .oid
                    .as_deref()
                    .map(|oid| Digest::git_sha1_from_hex(oid).ok_or_else(|| unusable("oid", oid)))
                    .transpose()?;
                (self.size, digest)
            }
        };
        let Some(size) = size else {
            return Err(unusable("size", "nothing"));
        };
        let xet_hash = self.xet_hash.as_deref().and_then(crate::model::hex::decode).map(Box::new);
        Ok(Listed::File(RemoteFile { path, size, digest, validator: None, xet_hash }))
    }
}

/// Hands each entry of a page of the tree to `take` until it refuses one. The entries are never in
/// memory together: a page may have millions that say nothing.
pub fn for_each_entry(
    page: &[u8],
    take: impl FnMut(TreeEntry) -> Result<(), SourceError>,
) -> serde_json::Result<Result<(), SourceError>> {
    let mut refused = None;
    let mut json = serde_json::Deserializer::from_slice(page);
    let entries = Entries { take, refused: &mut refused };
    let read = entries.deserialize(&mut json).and_then(|()| json.end());
    match refused {
        Some(refused) => Ok(Err(refused)),
        None => read.map(Ok),
    }
}

struct Entries<'a, F> {
    take: F,
    /// Why the reading has ended.
    refused: &'a mut Option<SourceError>,
}

impl<'de, F: FnMut(TreeEntry) -> Result<(), SourceError>> DeserializeSeed<'de> for Entries<'_, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, F: FnMut(TreeEntry) -> Result<(), SourceError>> Visitor<'de> for Entries<'_, F> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a list of entries")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut page: A) -> Result<(), A::Error> {
        while let Some(entry) = page.next_element()? {
            if let Err(refused) = (self.take)(entry) {
                *self.refused = Some(refused);
                return Err(A::Error::custom("refused"));
            }
        }
        Ok(())
    }
}

/// The commit that an answer belongs to; mirrors leave it out.
pub fn commit_header(headers: &HeaderMap) -> Option<String> {
    let value = headers.get("x-repo-commit")?.to_str().ok()?;
    Some(value.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(json: &str) -> Result<Option<RemoteFile>, SourceError> {
        match serde_json::from_str::<TreeEntry>(json).expect("is an entry").read()? {
            Listed::File(file) => Ok(Some(file)),
            Listed::Refused(file) => panic!("`{}` is refused", file.why),
            Listed::Directory(_) | Listed::Other(_) => Ok(None),
        }
    }

    #[test]
    fn the_sha256_of_a_large_file_is_its_lfs_oid() {
        let sha256 = "ab".repeat(32);
        let entry = file(&format!(
            r#"{{"type":"file","path":"m.safetensors","size":5,"oid":"{}","lfs":{{"oid":"{sha256}","size":5,"pointerSize":134}}}}"#,
            "cd".repeat(20)
        ));
        let entry = entry.expect("is valid").expect("is a file");
        assert_eq!(entry.digest, Digest::sha256_from_hex(&sha256));
    }

    #[test]
    fn a_digest_that_is_none_is_refused_and_not_ignored() {
        for json in [
            r#"{"type":"file","path":"a","size":5,"oid":"../../x"}"#,
            r#"{"type":"file","path":"a","size":5,"lfs":{"oid":"xyz","size":5}}"#,
            r#"{"type":"file","path":"a","size":5,"lfs":{"size":6}}"#,
            r#"{"type":"file","path":"a"}"#,
        ] {
            assert!(file(json).is_err(), "{json}");
        }
    }

    #[test]
    fn directories_and_submodules_are_no_files() {
        for kind in ["directory", "submodule", "unknown"] {
            let json = format!(r#"{{"type":"{kind}","path":"../x","oid":"0"}}"#);
            assert!(file(&json).expect("is skipped").is_none());
        }
    }
}
