//! `models.lock`: exactly what the models are. JSON, made to be reviewed: one line a file, in order.

use std::collections::HashSet;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use super::models_file::{FileProblem, check_name, of_version};
use super::signed_by::RawSignedBy;
use crate::model::{
    LeftOut, Locked, LockedFile, Message, RelPath, Selection, Sha256, SignedBy, SourceUri, hex,
    text,
};

/// What is read of a file: some hundred thousand files of models.
pub const MAX_BYTES: u64 = 32 << 20;

/// The only version that there is.
const VERSION: u32 = 1;

/// What a lock file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockFile {
    pub models: Vec<LockedModel>,
}

/// One model, as it was asked for and what that was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockedModel {
    /// DEST.
    pub name: String,
    /// As asked for, with the branch.
    pub source: SourceUri,
    pub also: Vec<SourceUri>,
    pub selection: Selection,
    /// Whose signature it must have.
    pub signed_by: Option<SignedBy>,
    pub content: Locked,
}

/// All that is read of a file before its version is known.
#[derive(Deserialize)]
struct Versioned {
    version: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    /// Is what this program reads.
    #[serde(rename = "version")]
    _version: u32,
    models: Vec<RawModel>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawModel {
    name: String,
    source: String,
    renamed_to: Option<String>,
    revision: String,
    #[serde(default)]
    also: Vec<String>,
    #[serde(default)]
    selection: Selection,
    signed_by: Option<RawSignedBy>,
    files: Vec<RawFile>,
    #[serde(default)]
    left_out: Vec<LeftOut>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    path: String,
    size: u64,
    sha256: Sha256,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    published: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    etag: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    xet_hash: Option<Sha256>,
}

impl LockFile {
    pub fn parse(json: &str) -> Result<Self, FileProblem> {
        let refuse = |error: serde_json::Error| FileProblem {
            line: error.line() as u64,
            column: error.column() as u64,
            message: words(&error).into(),
        };
        // Before the fields: another version has others.
        let Versioned { version } = serde_json::from_str(json).map_err(refuse)?;
        if version != u64::from(VERSION) {
            return Err(of_model(None, of_version(version)));
        }
        let raw: Raw = serde_json::from_str(json).map_err(refuse)?;
        if raw.models.is_empty() {
            return Err(of_model(None, "there are no models"));
        }
        let lock = hex::encode(&sha2::Sha256::digest(json));
        let mut names = HashSet::new();
        let mut models = Vec::with_capacity(raw.models.len());
        for model in raw.models {
            if !names.insert(model.name.clone()) {
                return Err(of_model(Some(&model.name), "is there twice"));
            }
            models.push(model.checked(&lock)?);
        }
        Ok(Self { models })
    }

    /// The text of it: one line a file.
    pub fn text(&self) -> String {
        let mut out = format!("{{\n  \"version\": {VERSION},\n  \"models\": [");
        for (n, model) in self.models.iter().enumerate() {
            out.push_str(if n == 0 { "\n" } else { ",\n" });
            model.write(&mut out);
        }
        out.push_str("\n  ]\n}\n");
        out
    }
}

impl RawModel {
    fn checked(self, lock: &str) -> Result<LockedModel, FileProblem> {
        let name = self.name;
        let refuse = |message: Message| of_model(Some(&name), message);
        let shown = |text: &str| text::inert(text, 200);
        check_name(&name).map_err(|why| refuse(why.into()))?;
        let uri = |uri: &str| SourceUri::parse(uri).map_err(|error| refuse(error.into()));
        let source = uri(&self.source)?;
        let is_plain = |revision: &str| {
            // A digest has its algorithm before a colon.
            let is_known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b':';
            !revision.is_empty() && revision.bytes().all(is_known)
        };
        if !is_plain(&self.revision) {
            return Err(refuse(format!("`{}` is not a revision", shown(&self.revision)).into()));
        }
        let source_name = match self.renamed_to {
            None => source.source_name(),
            Some(renamed) => uri(&renamed)?.source_name(),
        };
        let file = |file: RawFile| {
            let path =
                RelPath::parse(&file.path).map_err(|error| refuse(error.to_string().into()))?;
            let strange = [&file.published, &file.etag].into_iter().flatten();
            if strange.into_iter().any(|text| text.chars().any(text::is_control)) {
                return Err(refuse(format!("`{path}` has control characters in its line").into()));
            }
            Ok(LockedFile {
                path,
                size: file.size,
                sha256: file.sha256,
                published: file.published,
                validator: file.etag,
                xet_hash: file.xet_hash.map(|hash| Box::new(hash.0)),
            })
        };
        let mut files =
            self.files.into_iter().map(file).collect::<Result<Vec<_>, FileProblem>>()?;
        if files.is_empty() {
            return Err(refuse("has no files".into()));
        }
        files.sort_by(|a, b| a.path.parts().cmp(b.path.parts()));
        if let Some(pair) = files.windows(2).find(|pair| pair[0].path == pair[1].path) {
            return Err(refuse(format!("`{}` is there twice", pair[0].path).into()));
        }
        let also = self.also.iter().map(|also| uri(also)).collect::<Result<_, FileProblem>>()?;
        let signed_by = self.signed_by.map(RawSignedBy::read).transpose();
        let signed_by = signed_by.map_err(|why| refuse(why.into()))?;
        let content = Locked {
            source_name,
            revision: self.revision.to_ascii_lowercase(),
            files,
            left_out: self.left_out,
            lock: lock.to_owned(),
        };
        Ok(LockedModel { name, source, also, selection: self.selection, signed_by, content })
    }
}

impl LockedModel {
    fn write(&self, out: &mut String) {
        let Locked { source_name, revision, files, left_out, .. } = &self.content;
        let renamed = (*source_name != self.source.source_name()).then_some(source_name);
        let selection = (self.selection != Selection::default()).then_some(&self.selection);
        let also: Vec<String> = self.also.iter().map(ToString::to_string).collect();
        let also = (!also.is_empty()).then_some(also);
        out.push_str("    {\n");
        let mut field = |key: &str, value: Option<String>| {
            if let Some(value) = value {
                let _ = writeln!(out, "      \"{key}\": {value},");
            }
        };
        field("name", Some(json(&self.name)));
        field("source", Some(json(self.source.to_string())));
        field("renamed_to", renamed.map(json));
        field("revision", Some(json(revision)));
        field("also", also.map(json));
        field("selection", selection.map(json));
        field("signed_by", self.signed_by.as_ref().map(RawSignedBy::of).map(json));
        let lines = |out: &mut String, key: &str, lines: Vec<String>| {
            let _ = write!(out, "      \"{key}\": [");
            for (n, line) in lines.iter().enumerate() {
                let _ = write!(out, "{}\n        {line}", if n == 0 { "" } else { "," });
            }
            out.push_str(if lines.is_empty() { "]" } else { "\n      ]" });
        };
        let line = |file: &LockedFile| {
            let raw = RawFile {
                path: file.path.to_string(),
                size: file.size,
                sha256: file.sha256,
                published: file.published.clone(),
                etag: file.validator.clone(),
                xet_hash: file.xet_hash.as_deref().map(|hash| Sha256(*hash)),
            };
            json(raw)
        };
        lines(out, "files", files.iter().map(line).collect());
        out.push_str(",\n");
        lines(out, "left_out", left_out.iter().map(json).collect());
        out.push_str("\n    }");
    }
}

fn json(value: impl Serialize) -> String {
    serde_json::to_string(&value).expect("strings and numbers always serialise")
}

/// A problem whose place is a model.
fn of_model(name: Option<&str>, message: impl Into<Message>) -> FileProblem {
    let Message { what, hint } = message.into();
    let message = Message { what: text::inert(&what, 300), hint };
    let message = match name {
        Some(name) => message.after(format!("model `{}`: ", text::inert(name, 200))),
        None => message,
    };
    FileProblem { line: 0, column: 0, message }
}

/// The sentence of the parser without the place, which is said first.
fn words(error: &serde_json::Error) -> String {
    let all = error.to_string();
    let end = all.rfind(" at line ").unwrap_or(all.len());
    text::inert(&all[..end], 300)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Digest, RemoteFile, Signer};

    const SHA256: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    fn file(path: &str, digest: Option<Digest>, validator: Option<&str>) -> LockedFile {
        let path = RelPath::parse(path).expect("a path");
        let validator = validator.map(str::to_owned);
        LockedFile::new(
            &RemoteFile { path, size: 3, digest, validator, xet_hash: None },
            Sha256([0xab; 32]),
        )
    }

    fn lock() -> LockFile {
        let uri = |uri: &str| SourceUri::parse(uri).expect("a source");
        let content = |name: &str, files| Locked {
            source_name: name.into(),
            revision: "0e9e39f249a16976918f6564b8830bc894c89659".into(),
            files,
            left_out: Vec::new(),
            lock: String::new(),
        };
        let mut first = content(
            "hf://org/new",
            vec![
                file("a/b.json", Some(Digest::GitSha1([1; 20])), None),
                file("w.safetensors", Some(Digest::Sha256([0xab; 32])), None),
            ],
        );
        first.left_out.push(LeftOut { path: "x.bin".into(), size: 9, why: "excluded".into() });
        let signer = Signer::Key("/keys/a.pub".into());
        let signed_by = SignedBy::new(signer, Some("a.sig"), vec!["*.md".into()]).expect("a path");
        let only = Selection { include: vec!["*.json".into()], ..Selection::default() };
        LockFile {
            models: vec![
                LockedModel {
                    name: "chat/llama".into(),
                    source: uri("hf://org/old@main"),
                    also: vec![uri("s3://mirror/llama/")],
                    selection: Selection::default(),
                    signed_by: Some(signed_by),
                    content: first,
                },
                LockedModel {
                    name: "b".into(),
                    source: uri("s3://bucket/b/"),
                    also: Vec::new(),
                    selection: only,
                    signed_by: None,
                    content: content("s3://bucket/b/", vec![file("c", None, Some("\"e\""))]),
                },
            ],
        }
    }

    #[test]
    fn a_lock_file_has_a_line_for_each_file_and_says_the_same_when_it_is_read() {
        let text = lock().text();
        let of_file = text.lines().filter(|line| line.contains("\"sha256\":")).collect::<Vec<_>>();
        let ab = "ab".repeat(32);
        assert_eq!(
            of_file,
            [
                format!(
                    "        {{\"path\":\"a/b.json\",\"size\":3,\"sha256\":\"{ab}\",\"published\":\"git-sha1:{}\"}},",
                    "01".repeat(20)
                ),
                format!("        {{\"path\":\"w.safetensors\",\"size\":3,\"sha256\":\"{ab}\"}}"),
                format!(
                    "        {{\"path\":\"c\",\"size\":3,\"sha256\":\"{ab}\",\"etag\":\"\\\"e\\\"\"}}"
                ),
            ]
        );
        let mut read = LockFile::parse(&text).expect("is one");
        assert_eq!(read.text(), text);
        let digests: HashSet<String> =
            read.models.iter_mut().map(|it| std::mem::take(&mut it.content.lock)).collect();
        assert!(digests.len() == 1 && digests.iter().all(|it| it.len() == 64));
        assert_eq!(read, lock());
    }

    #[test]
    fn what_cannot_be_a_lock_file_is_refused_with_its_place() {
        let of = |models: &str| format!("{{\"version\": 1, \"models\": [{models}]}}");
        let model = |name: &str, path: &str| {
            format!(
                "{{\"name\": \"{name}\", \"source\": \"hf://a/b@main\", \"revision\": \"0e9e\", \
                 \"files\": [{{\"path\": \"{path}\", \"size\": 1, \"sha256\": \"{SHA256}\"}}]}}"
            )
        };
        assert!(LockFile::parse(&of(&model("a", "x"))).is_ok());
        for (json, expected) in [
            (String::new(), "line 1, column 0: EOF while parsing a value"),
            ("{\n\"version\": 2, \"models\": []}".into(), "version 2 is not known"),
            (of(""), "there are no models"),
            (of(&model("../a", "x")), "model `../a`: leaves the root"),
            (of(&model("a", "../x")), "model `a`: "),
            (of(&[model("a", "x"), model("a", "x")].join(",")), "model `a`: is there twice"),
            (
                of(&model("a", "x").replace("0e9e", "main..")),
                "model `a`: `main..` is not a revision",
            ),
            (
                of(&model("a", "x").replace("hf:", "ftp:")),
                "model `a`: SOURCE `ftp://a/b@main` has an unknown",
            ),
            (of(&model("a", "x").replace(SHA256, "00")), "a SHA-256 has 64 hexadecimal digits"),
            (of(&model("a", "x").replace("\"size\"", "\"sise\"")), "unknown field `sise`"),
        ] {
            let problem = LockFile::parse(&json).expect_err(&json).to_string();
            assert!(problem.contains(expected), "{problem}");
        }
    }
}
