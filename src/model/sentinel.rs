//! The file that vouches for a published family.

use std::borrow::Cow;
use std::fmt;
use std::io::{BufReader, Cursor, Read, Seek, Write};
use std::ops::ControlFlow;
use std::sync::Arc;

use serde::de::{
    DeserializeOwned, DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde::{Deserialize, Deserializer, Serialize};

use super::{
    Digest, LeftOut, MD5_ETAG, RelPath, RemoteFile, Selection, Sha256, Signed, SourceUri, text,
};

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
    /// What other runs had asked for of the same source: the files are the union.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub also: Vec<Selection>,
    /// The SHA-256 of the lock file that named these files.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lock: Option<String>,
    /// Whose signature of these files was verified.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub signed: Option<Signed>,
    /// RFC 3339, by the clock of the node that fetched; for people only.
    pub completed_at: String,
    /// Where `mirror` has written it, beside the objects that it lists.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mirror: Option<MirrorMark>,
    /// The Hub that was asked, if its store of chunks could be: no other one is told of this model.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hub: Option<String>,
    pub total_bytes: u64,
    /// What the run that published this has fetched, thrown away bytes included.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fetched_bytes: Option<u64>,
    /// What it found on the volume and used.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reused_bytes: Option<u64>,
    pub files: Vec<SentinelFile>,
    pub left_out: Vec<LeftOut>,
}

/// Makes a sentinel in a bucket the listing of its prefix: each file has the ETag of its object as
/// `validator`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorMark {
    /// `s3://bucket/prefix/`: somewhere else it is a copy, whose objects may have other ETags.
    pub at: String,
    pub state: MirrorState,
    /// The ETag of the `SHA256SUMS` beside it, if mirror has written one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sums: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MirrorState {
    /// Objects are being written: those of files without a validator may be of any revision.
    Writing,
    Complete,
}

/// There can be very many: what few files have is a word of memory for all others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentinelFile {
    pub path: Arc<str>,
    pub size: u64,
    /// Of all bytes, computed here.
    pub sha256: Sha256,
    /// The kind of published digest that the bytes were compared with, or `unpublished`.
    #[serde(deserialize_with = "common")]
    pub verified_by: Cow<'static, str>,
    /// That digest, where it is not the SHA-256 above: an update finds unchanged files by it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub published: Option<Box<str>>,
    /// Which version of the object at this place that was, where the digest does not identify the
    /// content. Beside a mirror's objects: the ETag of this one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub validator: Option<Box<str>>,
    /// The checksum that the store of a mirror keeps of the object, such as `s3-crc64nvme:…`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stored: Option<Box<Box<str>>>,
    /// What the Hub's store of chunks calls the content, for updates that fetch chunks. As long as a SHA-256, and none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub xet_hash: Option<Box<Sha256>>,
    /// `valid` for a safetensors file whose header was checked, or why it was not.
    #[serde(skip_serializing_if = "Option::is_none", default, deserialize_with = "maybe_common")]
    pub structure: Option<Box<Cow<'static, str>>>,
}

/// A sentinel without its files, of which there can be very many.
#[derive(Debug, Deserialize)]
pub struct SentinelHead {
    format: u32,
    pub source: String,
    #[serde(default)]
    renamed_to: Option<String>,
    #[serde(default)]
    pub hub: Option<String>,
    pub revision: String,
    selection: Selection,
    #[serde(default)]
    also: Vec<Selection>,
}

const USE_NEWER: &str = "use a newer weightlift";

/// Why the content of a sentinel file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SentinelProblem {
    #[error("the sentinel is not valid JSON of the expected form")]
    Unreadable(#[source] serde_json::Error),
    #[error("the sentinel has format {0}, which this version does not know")]
    UnknownFormat(u64),
    #[error("the sentinel has {0} bytes, more than weightlift reads")]
    TooLarge(u64),
    #[error("the sentinel holds control characters, which weightlift does not write")]
    ControlCharacters,
    #[error("the sentinel names an unsafe path")]
    UnsafePath(#[source] super::UnsafePath),
}

impl SentinelProblem {
    /// What the user can do about it; its sentence does not say it.
    pub fn hint(&self) -> Option<&'static str> {
        matches!(self, Self::UnknownFormat(_)).then_some(USE_NEWER)
    }
}

impl Sentinel {
    pub fn new(
        uri: &SourceUri,
        source_name: String,
        revision: String,
        selection: Selection,
        completed_at: String,
        files: Vec<SentinelFile>,
        left_out: Vec<LeftOut>,
    ) -> Self {
        Self {
            format: FORMAT,
            tool: format!("weightlift {}", env!("CARGO_PKG_VERSION")),
            renamed_to: (source_name != uri.source_name()).then_some(source_name),
            source: uri.source_name(),
            requested_revision: match uri {
                SourceUri::Hub(repo) => Some(repo.revision.clone()),
                SourceUri::ModelScope(repo) => Some(repo.revision.clone()),
                SourceUri::Oci(artifact) => Some(artifact.reference().to_owned()),
                _ => None,
            },
            revision,
            selection,
            also: Vec::new(),
            lock: None,
            signed: None,
            completed_at,
            mirror: None,
            hub: None,
            total_bytes: files.iter().map(|file| file.size).sum(),
            fetched_bytes: None,
            reused_bytes: None,
            files,
            left_out,
        }
    }

    pub fn parse(json: &[u8]) -> Result<Self, SentinelProblem> {
        Self::read(Cursor::new(json))
    }

    /// Reads it piece by piece: with very many files the text is larger than what it says.
    pub fn read(json: impl Read + Seek) -> Result<Self, SentinelProblem> {
        let sentinel: Self = read(json, |sentinel: &Self| sentinel.format)?;
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

    /// What a mirror that writes to `place` says of it. What was copied from another place is no mirror's.
    pub fn mirrored_at(&self, place: &str) -> Option<MirrorState> {
        self.mirror.as_ref().filter(|mark| mark.at == place).map(|mark| mark.state)
    }

    /// Whether both were written by the same run. Does not look at the files.
    pub fn is_same_publication(&self, other: &Self) -> bool {
        let told = |it: &Self| (it.source.clone(), it.revision.clone(), it.completed_at.clone());
        told(self) == told(other) && self.selection == other.selection && self.also == other.also
    }

    /// Whether the model directory was filled from this source, at whatever revision.
    pub fn is_of(&self, uri: &SourceUri) -> bool {
        let name = uri.source_name();
        self.source == name || self.renamed_to.as_ref() == Some(&name)
    }

    /// Whether it was filled with this selection and no other.
    pub fn is_exactly(&self, selection: &Selection) -> bool {
        self.selection == *selection && self.also.is_empty()
    }

    /// Whether all that `selection` would take of this revision is there. What an earlier version left
    /// out by its own rule, asked in the same words, counts as there.
    pub fn has(&self, selection: &Selection) -> bool {
        self.asked().any(|asked| asked == selection)
            || selection.takes_only(&self.files, &self.left_out)
    }

    /// Every selection whose files are here.
    pub fn asked(&self) -> impl Iterator<Item = &Selection> {
        std::iter::once(&self.selection).chain(&self.also)
    }
}

impl Sentinel {
    /// Whether every file was compared with something that the source had published.
    pub fn is_compared(&self) -> bool {
        self.files.iter().all(SentinelFile::is_compared)
    }
}

impl SentinelFile {
    /// Whether the bytes were compared with something that the source had published.
    pub fn is_compared(&self) -> bool {
        self.verified_by != UNPUBLISHED
    }

    /// Of a `file` with this `sha256`, which was compared with `compared_with`.
    pub fn new(
        file: &RemoteFile,
        sha256: Sha256,
        compared_with: Option<&Digest>,
        structure: Option<Box<Cow<'static, str>>>,
    ) -> Self {
        let is_checksum = compared_with.is_some_and(Digest::is_checksum);
        Self {
            path: file.path.shared(),
            size: file.size,
            sha256,
            verified_by: compared_with.map_or_else(|| UNPUBLISHED.into(), Digest::kind),
            published: match compared_with {
                None | Some(Digest::Sha256(_)) => None,
                Some(digest) => Some(digest.to_string().into()),
            },
            validator: file.validator.as_deref().filter(|_| is_checksum).map(Into::into),
            xet_hash: file.xet_hash.as_deref().map(|hash| Box::new(Sha256(*hash))),
            stored: None,
            structure,
        }
    }
}

impl SentinelHead {
    /// What other runs have asked for of `uri`, and whose files are to stay where `selection` is fetched.
    pub fn asked_by_others(self, uri: &SourceUri, selection: &Selection) -> Vec<Selection> {
        let name = uri.source_name();
        if self.source != name && self.renamed_to.as_ref() != Some(&name) {
            return Vec::new();
        }
        let asked = std::iter::once(self.selection).chain(self.also);
        asked.filter(|asked| asked != selection).collect()
    }

    pub fn read(json: impl Read + Seek) -> Result<Self, SentinelProblem> {
        read(json, |head: &Self| head.format)
    }

    /// The repo of the Hub that it is of, by the name that the Hub answered with.
    pub fn hub_repo(&self) -> Option<String> {
        let name = self.renamed_to.as_ref().unwrap_or(&self.source);
        match SourceUri::parse(name) {
            Ok(SourceUri::Hub(repo)) => Some(repo.name()),
            Ok(_) | Err(_) => None,
        }
    }

    /// Whether it is of the same model as `other`, whatever the revision and the names of a repo.
    pub fn is_same_source(&self, other: &Sentinel) -> bool {
        let names = [Some(&self.source), self.renamed_to.as_ref()];
        let others = [Some(&other.source), other.renamed_to.as_ref()];
        names.into_iter().flatten().any(|name| others.contains(&Some(name)))
    }

    /// Whether it vouches for the same content as `other` as far as it tells.
    pub fn is_of(&self, other: &Sentinel) -> bool {
        self.source == other.source
            && self.revision == other.revision
            && self.selection == other.selection
            && self.also == other.also
    }
}

/// Reads all of `json`, which has the format that `format_of` tells.
pub(super) fn read<T: DeserializeOwned>(
    mut json: impl Read + Seek,
    format_of: impl Fn(&T) -> u32,
) -> Result<T, SentinelProblem> {
    #[derive(Deserialize)]
    struct Format {
        format: u64,
    }
    let known = u64::from(FORMAT);
    let (format, read) = match serde_json::from_reader::<_, T>(BufReader::new(&mut json)) {
        Ok(read) => (format_of(&read).into(), Ok(read)),
        Err(error) => {
            // Another format need not even have the same fields.
            let again = json.rewind().map(|()| BufReader::new(&mut json)).ok();
            let format = again.and_then(|json| serde_json::from_reader::<_, Format>(json).ok());
            (format.map_or(known, |it| it.format), Err(SentinelProblem::Unreadable(error)))
        }
    };
    if format == known { read } else { Err(SentinelProblem::UnknownFormat(format)) }
}

/// Hands over each file of a sentinel as it is read, for as long as `each` says so: all at once,
/// they would be most of the memory of an update of very many files.
pub fn each_sentinel_file(
    json: impl Read,
    each: &mut dyn FnMut(SentinelFile) -> ControlFlow<()>,
) -> Result<(), SentinelProblem> {
    let mut json = serde_json::Deserializer::from_reader(BufReader::new(json));
    let mut files = Files { each, is_over: false };
    match json.deserialize_map(&mut files) {
        Err(error) if !files.is_over => Err(SentinelProblem::Unreadable(error)),
        _ => Ok(()),
    }
}

struct Files<'a> {
    each: &'a mut dyn FnMut(SentinelFile) -> ControlFlow<()>,
    is_over: bool,
}

impl<'de> Visitor<'de> for &mut Files<'_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a sentinel with files")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            if key == "files" {
                map.next_value_seed(&mut *self)?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut files: A) -> Result<(), A::Error> {
        while let Some(file) = files.next_element()? {
            if (self.each)(file).is_break() {
                self.is_over = true;
                return Err(A::Error::custom("enough"));
            }
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for &mut Files<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, files: D) -> Result<(), D::Error> {
        files.deserialize_seq(self)
    }
}

/// The words that nearly every file has are not allocated for each.
fn common<'de, D: Deserializer<'de>>(text: D) -> Result<Cow<'static, str>, D::Error> {
    String::deserialize(text).map(shared)
}

fn maybe_common<'de, D: Deserializer<'de>>(
    text: D,
) -> Result<Option<Box<Cow<'static, str>>>, D::Error> {
    Option::<String>::deserialize(text).map(|text| text.map(|text| Box::new(shared(text))))
}

fn shared(text: String) -> Cow<'static, str> {
    let known = ["sha256", "git-sha1", MD5_ETAG, "crc32c", UNPUBLISHED, "valid"]
        .into_iter()
        .find(|it| *it == text);
    known.map_or(Cow::Owned(text), Cow::Borrowed)
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
            xet_hash: None,
            validator: None,
            stored: None,
            structure: None,
        };
        let source_name = uri.source_name();
        Sentinel::new(
            &uri,
            source_name,
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
    fn what_was_fetched_and_reused_is_told_where_it_is_known() {
        let unknown = json(&sentinel());
        assert!(!String::from_utf8_lossy(&unknown).contains("_bytes\": null"));
        let read = Sentinel::parse(&unknown).expect("as earlier versions have written it");
        assert_eq!((read.fetched_bytes, read.reused_bytes), (None, None));
        let known = Sentinel { fetched_bytes: Some(1), reused_bytes: Some(2), ..read };
        let read = Sentinel::parse(&json(&known)).expect("parses");
        assert_eq!((read.fetched_bytes, read.reused_bytes), (Some(1), Some(2)));
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
    fn a_later_format_with_other_fields_is_known_as_such() {
        let later = br#"{"files": 3, "format": 70000000000}"#;
        assert!(matches!(
            Sentinel::parse(later),
            Err(SentinelProblem::UnknownFormat(70_000_000_000))
        ));
        assert!(matches!(
            SentinelHead::read(Cursor::new(later)),
            Err(SentinelProblem::UnknownFormat(_))
        ));
    }

    #[test]
    fn files_are_handed_over_one_by_one_until_it_is_enough() {
        let mut many = sentinel();
        many.files = (0..9).map(|size| SentinelFile { size, ..many.files[0].clone() }).collect();
        let json = json(&many);
        let mut seen = Vec::new();
        let mut up_to = |last: u64, json: &[u8]| {
            seen.clear();
            let result = each_sentinel_file(json, &mut |file| {
                seen.push(file.clone());
                if file.size == last { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            (seen.clone(), result.is_ok())
        };
        assert_eq!(up_to(u64::MAX, &json), (many.files.clone(), true));
        assert_eq!(up_to(3, &json), (many.files[..=3].to_vec(), true));
        let (seen, is_ok) = up_to(u64::MAX, &json[..json.len() / 2]);
        assert!(!is_ok && !seen.is_empty() && many.files.starts_with(&seen));
        let head = SentinelHead::read(Cursor::new(&json)).expect("parses");
        assert!(head.is_of(&many));
        many.revision.push('0');
        assert!(!head.is_of(&many));
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
