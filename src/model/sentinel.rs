//! The file that vouches for a published family.

use std::borrow::Cow;
use std::io::Write;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Digest, LeftOut, RelPath, RemoteFile, Selection, Sha256, SourceUri, text};

/// Name of the sentinel inside a family directory.
pub const SENTINEL: &str = ".weightlift-complete.json";
/// The format that this version writes, and the only one that it reads.
const FORMAT: u32 = 1;

/// What `verified_by` says where there was nothing to compare with.
const UNPUBLISHED: &str = "unpublished";

/// The snapshot that a family directory holds, complete and verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sentinel {
    pub format: u32,
    /// `weightlift 0.1.0`
    pub tool: String,
    /// As asked for: `hf://org/name`, `s3://bucket/prefix/`
    pub source: String,
    /// The name that the source answered with, where a repo was renamed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub renamed_to: Option<String>,
    /// What was asked for: `main`, a tag, a commit. Absent for S3.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub requested_revision: Option<String>,
    /// What that was: the commit, or for S3 the SHA-256 over the listing.
    pub revision: String,
    pub selection: Selection,
    /// RFC 3339, by the clock of the node that fetched; for people only.
    pub completed_at: String,
    pub total_bytes: u64,
    pub files: Vec<SentinelFile>,
    pub left_out: Vec<LeftOut>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentinelFile {
    pub path: Arc<str>,
    pub size: u64,
    /// Of all bytes, computed here.
    pub sha256: Sha256,
    /// The kind of published digest that the bytes were compared with, or `unpublished`.
    pub verified_by: Cow<'static, str>,
    /// That digest, where it is not the SHA-256 above: an update finds unchanged files by it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub published: Option<Box<str>>,
    /// `valid` for a safetensors file whose header was checked, or why it was not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub structure: Option<Cow<'static, str>>,
}

/// Why the content of a sentinel file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SentinelProblem {
    #[error("the sentinel is not valid JSON of the expected form")]
    Unreadable(#[source] serde_json::Error),
    #[error(
        "the sentinel has format {0}, which this version does not know; use a newer weightlift"
    )]
    UnknownFormat(u64),
    #[error("the sentinel holds control characters, which weightlift does not write")]
    ControlCharacters,
    #[error("the sentinel names an unsafe path")]
    UnsafePath(#[source] super::UnsafePath),
}

impl Sentinel {
    pub fn new(
        uri: &SourceUri,
        place: String,
        revision: String,
        selection: Selection,
        completed_at: String,
        files: Vec<SentinelFile>,
        left_out: Vec<LeftOut>,
    ) -> Self {
        Self {
            format: FORMAT,
            tool: format!("weightlift {}", env!("CARGO_PKG_VERSION")),
            renamed_to: (place != uri.place()).then_some(place),
            source: uri.place(),
            requested_revision: match uri {
                SourceUri::Hub(repo) => Some(repo.revision.clone()),
                SourceUri::S3(_) => None,
            },
            revision,
            selection,
            completed_at,
            total_bytes: files.iter().map(|file| file.size).sum(),
            files,
            left_out,
        }
    }

    pub fn parse(json: &[u8]) -> Result<Self, SentinelProblem> {
        #[derive(Deserialize)]
        struct Head {
            format: u64,
        }
        let head: Head = serde_json::from_slice(json).map_err(SentinelProblem::Unreadable)?;
        if head.format != u64::from(FORMAT) {
            return Err(SentinelProblem::UnknownFormat(head.format));
        }
        let sentinel: Self = serde_json::from_slice(json).map_err(SentinelProblem::Unreadable)?;
        let told = [&sentinel.source, &sentinel.revision, &sentinel.tool];
        if told
            .into_iter()
            .chain(&sentinel.renamed_to)
            .any(|text| text.chars().any(text::is_control))
        {
            return Err(SentinelProblem::ControlCharacters);
        }
        for file in &sentinel.files {
            RelPath::parse(&file.path).map_err(SentinelProblem::UnsafePath)?;
        }
        Ok(sentinel)
    }

    /// Writes it as JSON that people can read too.
    pub fn write(&self, mut out: impl Write) -> std::io::Result<()> {
        serde_json::to_writer_pretty(&mut out, self)?;
        out.write_all(b"\n")
    }

    /// Whether the family was filled from this place with this selection, at whatever revision.
    pub fn is_for(&self, uri: &SourceUri, selection: &Selection) -> bool {
        self.source == uri.place() && self.selection == *selection
    }
}

impl SentinelFile {
    /// Whether the bytes were compared with something that the source had published.
    pub fn is_proved(&self) -> bool {
        self.verified_by != UNPUBLISHED
    }

    pub fn new(file: &RemoteFile, sha256: Sha256, structure: Option<Cow<'static, str>>) -> Self {
        Self {
            path: file.path.shared(),
            size: file.size,
            sha256,
            verified_by: file.digest.as_ref().map_or_else(|| UNPUBLISHED.into(), Digest::kind),
            published: match &file.digest {
                None | Some(Digest::Sha256(_)) => None,
                Some(digest) => Some(digest.to_string().into()),
            },
            structure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(sentinel: &Sentinel) -> Vec<u8> {
        let mut json = Vec::new();
        sentinel.write(&mut json).expect("written to memory");
        json
    }

    fn sentinel() -> Sentinel {
        let uri = SourceUri::parse("hf://org/name").expect("uri");
        let file = SentinelFile {
            path: "a".into(),
            size: 3,
            sha256: Sha256([0; 32]),
            verified_by: "sha256".into(),
            published: None,
            structure: None,
        };
        let place = uri.place();
        Sentinel::new(
            &uri,
            place,
            "c".repeat(40),
            Selection::default(),
            "now".into(),
            vec![file],
            vec![],
        )
    }

    #[test]
    fn a_sentinel_reads_back_as_it_was_written() {
        let written = sentinel();
        assert_eq!(Sentinel::parse(&json(&written)).expect("parses"), written);
    }

    #[test]
    fn a_later_format_is_refused_and_not_misread() {
        let mut later = sentinel();
        later.format = 2;
        assert!(matches!(Sentinel::parse(&json(&later)), Err(SentinelProblem::UnknownFormat(2))));
        assert!(matches!(Sentinel::parse(b"{\"format\":1"), Err(SentinelProblem::Unreadable(_))));
        assert!(matches!(Sentinel::parse(b""), Err(SentinelProblem::Unreadable(_))));
    }

    #[test]
    fn a_forged_name_that_could_draw_on_a_terminal_is_refused() {
        let mut forged = sentinel();
        forged.source = "hf://a\u{1b}[2J\u{202e}".into();
        assert!(matches!(Sentinel::parse(&json(&forged)), Err(SentinelProblem::ControlCharacters)));
    }

    #[test]
    fn a_forged_path_in_a_sentinel_is_refused() {
        let mut forged = sentinel();
        forged.files[0].path = "../../etc/passwd".into();
        assert!(matches!(Sentinel::parse(&json(&forged)), Err(SentinelProblem::UnsafePath(_))));
    }
}
