//! What a listing of ModelScope says.

use serde::Deserialize;

use super::problem::ModelScopeProblem;
use crate::model::{Digest, RefusedFile, RelPath, RemoteFile, text};
use crate::net::SourceError;

/// The frame of every answer of the API.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Answer {
    /// Of HTTP, or of a list of its own.
    pub code: Option<i64>,
    pub success: Option<bool>,
    pub message: Option<String>,
    pub data: Option<Data>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Data {
    pub files: Option<Vec<Entry>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Entry {
    path: String,
    /// `tree` is a directory, everything else a file.
    #[serde(rename = "Type")]
    kind: Option<String>,
    size: Option<u64>,
    sha256: Option<String>,
}

/// An entry as it is used.
#[derive(Debug)]
pub enum Listed {
    File(RemoteFile),
    /// A file whose name cannot become a path.
    Refused(RefusedFile),
    Directory(String),
}

impl Answer {
    /// The entries, if it is no refusal in the words of the API.
    pub fn entries(self) -> Result<Vec<Entry>, (i64, String)> {
        let message = text::inert(&self.message.unwrap_or_default(), 200);
        let code = self.code.unwrap_or(200);
        let is_refusal = self.success == Some(false) || code != 200;
        match self.data.and_then(|data| data.files) {
            Some(files) if !is_refusal => Ok(files),
            _ => Err((code, message)),
        }
    }
}

impl Entry {
    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn read(self) -> Result<Listed, SourceError> {
        if self.kind.as_deref() == Some("tree") {
            return Ok(Listed::Directory(self.path));
        }
        let size = self.size;
        let path = match RelPath::parse(&self.path) {
            Ok(path) => path,
            Err(why) => {
                let size = size.unwrap_or_default();
                return Ok(Listed::Refused(RefusedFile { name: self.path, size, why }));
            }
        };
        let unusable = |what, value: &str| {
            let (file, value) = (path.clone(), text::inert(value, 80));
            SourceError::Protocol(ModelScopeProblem::Entry { file, what, value }.into())
        };
        let size = size.ok_or_else(|| unusable("size", "nothing"))?;
        let sha256 = self.sha256.as_deref().map(str::trim).filter(|it| !it.is_empty());
        let digest = sha256
            .map(|hex| Digest::sha256_from_hex(hex).ok_or_else(|| unusable("Sha256", hex)))
            .transpose()?;
        Ok(Listed::File(RemoteFile { path, size, digest, validator: None, xet_hash: None }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(json: &str) -> Result<Vec<Entry>, (i64, String)> {
        serde_json::from_str::<Answer>(json).expect("an answer").entries()
    }

    #[test]
    fn a_refusal_is_told_from_a_listing_whatever_the_status_was() {
        let listing =
            r#"{"Code":200,"Success":true,"Data":{"Files":[{"Path":"a","Type":"blob","Size":1}]}}"#;
        assert_eq!(entries(listing).map(|it| it.len()), Ok(1));
        for (json, code) in [
            (r#"{"Code":404,"Success":false,"Message":"no such model"}"#, 404),
            (r#"{"Code":10010205001,"Message":"x","Data":{"Files":[]}}"#, 10010205001),
            (r#"{"Success":false,"Data":{"Files":[]}}"#, 200),
            (r#"{"Code":200,"Success":true,"Data":{}}"#, 200),
            ("{}", 200),
        ] {
            assert_eq!(entries(json).map(|_| ()).map_err(|(code, _)| code), Err(code), "{json}");
        }
    }

    #[test]
    fn a_file_has_a_size_and_a_digest_that_is_one() {
        let read = |json: &str| serde_json::from_str::<Entry>(json).expect(json).read();
        let sha256 = "ab".repeat(32);
        let file = format!(r#"{{"Path":"d/a","Type":"blob","Size":1,"Sha256":"{sha256}"}}"#);
        let Ok(Listed::File(file)) = read(&file) else { panic!() };
        assert_eq!(file.digest, Digest::sha256_from_hex(&sha256));
        assert!(matches!(read(r#"{"Path":"d","Type":"tree"}"#), Ok(Listed::Directory(_))));
        assert!(matches!(read(r#"{"Path":"../d","Size":1}"#), Ok(Listed::Refused(_))));
        for broken in [r#"{"Path":"a"}"#, r#"{"Path":"a","Size":1,"Sha256":"xyz"}"#] {
            assert!(read(broken).is_err(), "{broken}");
        }
        let Ok(Listed::File(file)) = read(r#"{"Path":"a","Size":1,"Sha256":""}"#) else { panic!() };
        assert_eq!(file.digest, None);
    }
}
