//! `models.yaml`: which models a volume is to hold. Published as a JSON Schema in
//! `docs/models.schema.json`, which a test holds to this.

use serde::Deserialize;
use serde_saphyr::{Location, Spanned};

use super::signed_by::RawSignedBy;
use super::variables::resolved;
use crate::model::{Message, ModelDir, Selection, SignedBy, SourceUri, text};

/// What is read of a file: a ConfigMap holds at most as much.
pub const MAX_BYTES: u64 = 1 << 20;

/// The only version that there is.
const VERSION: u32 = 1;

/// What a models file says, with its variables resolved and its defaults applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelsFile {
    pub models: Vec<Entry>,
}

/// One model, in the words of the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// DEST: where it is to lie.
    pub name: String,
    pub source: SourceUri,
    /// Other places of the same bytes, in order of preference.
    pub also: Vec<SourceUri>,
    pub selection: Selection,
    /// The revision that it must have.
    pub expect: Option<String>,
    /// Whose signature it must have.
    pub signed_by: Option<SignedBy>,
}

/// What is wrong with a models file, and where. Exit code 2.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", place(.line, .column))]
pub struct FileProblem {
    /// From 1; 0 where it is not known.
    pub line: u64,
    pub column: u64,
    pub message: Message,
}

fn place(line: &u64, column: &u64) -> String {
    match line {
        0 => String::new(),
        _ => format!("line {line}, column {column}: "),
    }
}

/// All that is read of a file of another version.
#[derive(Deserialize)]
struct Versioned {
    version: Spanned<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    version: Spanned<u32>,
    #[serde(default)]
    defaults: Defaults,
    models: Spanned<Vec<RawModel>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Defaults {
    #[serde(default)]
    include: Vec<String>,
    #[serde(default)]
    exclude: Vec<String>,
    #[serde(default)]
    all: bool,
    signed_by: Option<Spanned<RawSignedBy>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawModel {
    name: Option<Spanned<String>>,
    source: Spanned<String>,
    #[serde(default)]
    also: Vec<Spanned<String>>,
    include: Option<Vec<String>>,
    exclude: Option<Vec<String>>,
    all: Option<bool>,
    expect: Option<Spanned<String>>,
    signed_by: Option<Spanned<RawSignedBy>>,
}

impl ModelsFile {
    /// Reads `yaml`. `value_of` gives the values of the variables that it names.
    pub fn parse(
        yaml: &str,
        value_of: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, FileProblem> {
        let options = serde_saphyr::options! {
            with_snippet: false,
            strict_booleans: true,
            no_schema: true,
        };
        let raw: Raw =
            serde_saphyr::from_str_with_options(yaml, options.clone()).map_err(|error| {
                // Another version has other fields: it is told first.
                match serde_saphyr::from_str_with_options(yaml, options) {
                    Ok(Versioned { version }) if version.value != VERSION => {
                        at(Some(version.referenced), of_version(version.value.into()))
                    }
                    _ => at(error.location(), words(&error)),
                }
            })?;
        if raw.version.value != VERSION {
            return Err(at(Some(raw.version.referenced), of_version(raw.version.value.into())));
        }
        if raw.models.value.is_empty() {
            return Err(at(Some(raw.models.referenced), "there are no models"));
        }
        let mut models: Vec<Entry> = Vec::with_capacity(raw.models.value.len());
        for model in raw.models.value {
            let place = model.name.as_ref().map_or(model.source.referenced, |name| name.referenced);
            let entry = model.entry(&raw.defaults, value_of)?;
            if models.iter().any(|other| other.name == entry.name) {
                let name = text::inert(&entry.name, 200);
                let what = Message::new(format!("a second model has the name `{name}`"));
                return Err(at(Some(place), what.hint("give each model a `name` of its own")));
            }
            models.push(entry);
        }
        Ok(Self { models })
    }
}

impl RawModel {
    fn entry(
        self,
        defaults: &Defaults,
        value_of: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Entry, FileProblem> {
        let value = |text: &Spanned<String>| {
            resolved(&text.value, value_of)
                .map_err(|error| at(Some(text.referenced), error.message()))
        };
        let uri = |text: &Spanned<String>| {
            SourceUri::parse(&value(text)?).map_err(|error| at(Some(text.referenced), error))
        };
        let source = uri(&self.source)?;
        let name = match &self.name {
            Some(name) => value(name)?,
            None => source.default_family(),
        };
        if let Err(why) = check_name(&name) {
            let place = self.name.as_ref().map_or(self.source.referenced, |name| name.referenced);
            let what = format!("name `{}` {why}", text::inert(&name, 200));
            return Err(at(Some(place), Message::new(what).hint(ModelDir::HINT)));
        }
        let mut also = Vec::new();
        for place in &self.also {
            let place = uri(place)?;
            if place != source && !also.contains(&place) {
                also.push(place);
            }
        }
        let expect = self.expect.map(|expect| {
            let value = expect.value.trim().to_ascii_lowercase();
            match value.is_empty()
                || value.chars().any(|c| c.is_whitespace() || text::is_control(c))
            {
                true => Err(at(
                    Some(expect.referenced),
                    Message::new("`expect` is not a revision").hint("write a commit or a digest"),
                )),
                false => Ok(value),
            }
        });
        let selection = Selection {
            include: self.include.unwrap_or_else(|| defaults.include.clone()),
            exclude: self.exclude.unwrap_or_else(|| defaults.exclude.clone()),
            all: self.all.unwrap_or(defaults.all),
        };
        let selection = selection.of(&source);
        let signed_by = self
            .signed_by
            .as_ref()
            .or(defaults.signed_by.as_ref())
            .map(|raw| raw.value.clone().read().map_err(|why| at(Some(raw.referenced), why)));
        let (expect, signed_by) = (expect.transpose()?, signed_by.transpose()?);
        Ok(Entry { name, source, also, selection, expect, signed_by })
    }
}

/// Whether a name can be a DEST; where it is to lie is the command line's to say.
pub(super) fn check_name(name: &str) -> Result<(), &'static str> {
    match name.strip_prefix('/') {
        Some(absolute) => ModelDir::parse(absolute).map(drop),
        None => ModelDir::parse(name).map(drop),
    }
}

/// A file of a version that this program does not know.
pub(super) fn of_version(version: u64) -> Message {
    let what = format!("version {version} is not known, this weightlift reads {VERSION}");
    Message::new(what).hint(match version {
        0 => "write `version: 1`",
        _ => "use a newer weightlift",
    })
}

impl From<FileProblem> for Message {
    fn from(FileProblem { line, column, message }: FileProblem) -> Self {
        message.after(place(&line, &column))
    }
}

fn at(location: Option<Location>, message: impl Into<Message>) -> FileProblem {
    let location = location.filter(|location| *location != Location::UNKNOWN);
    let (line, column) = location.map_or((0, 0), |place| (place.line(), place.column()));
    let Message { what, hint } = message.into();
    FileProblem { line, column, message: Message { what: text::inert(&what, 300), hint } }
}

/// The sentence of the parser without the place, which is said first, and without advice for programmers.
fn words(error: &serde_saphyr::Error) -> String {
    let all = error.without_snippet().to_string();
    let first = all.lines().next().unwrap_or_default();
    let end = first.rfind(" at line ").or_else(|| first.rfind(" (line ")).unwrap_or(first.len());
    let sentence = first[..end].trim_start_matches("error: ");
    let ends = [", set DuplicateKeyPolicy", "; use from_str_multiple"];
    let end = ends.iter().filter_map(|end| sentence.find(end)).min().unwrap_or(sentence.len());
    match &sentence[..end] {
        "expected sequence start" => "a list is expected: [one, two]".to_owned(),
        "invalid u32" => "a number is expected".to_owned(),
        "unexpected end of input" => "it is empty".to_owned(),
        sentence => sentence.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(yaml: &str) -> Result<ModelsFile, FileProblem> {
        ModelsFile::parse(yaml, &|name| (name == "BUCKET").then(|| "models".to_owned()))
    }

    fn of(line: u64, column: u64, sentence: &str) -> (u64, u64, String) {
        (line, column, sentence.to_owned())
    }

    #[test]
    fn what_is_said_of_each_model_comes_before_the_defaults() {
        let yaml = r#"
version: 1
defaults:
  include: ["*.safetensors", "*.json"]
models:
- name: chat/llama
  source: hf://meta/Llama@v1
  also: ["s3://${BUCKET}/llama/", hf://meta/Llama@v1, "s3://${BUCKET}/llama/"]
  expect: 0123456789ABCDEF0123456789abcdef01234567
- source: hf://org/BGE
  include: []
  exclude: [onnx/*]
  all: true
"#;
        let models = parse(yaml).expect("is one").models;
        let uri = |text: &str| SourceUri::parse(text).expect("a source");
        let strings = |all: &[&str]| all.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        let first = Entry {
            name: "chat/llama".into(),
            source: uri("hf://meta/Llama@v1"),
            also: vec![uri("s3://models/llama/")],
            selection: Selection {
                include: strings(&["*.safetensors", "*.json"]),
                exclude: Vec::new(),
                all: false,
            },
            expect: Some("0123456789abcdef0123456789abcdef01234567".into()),
            signed_by: None,
        };
        let second = Entry {
            name: "bge".into(),
            source: uri("hf://org/BGE"),
            also: Vec::new(),
            selection: Selection { include: Vec::new(), exclude: strings(&["onnx/*"]), all: true },
            expect: None,
            signed_by: None,
        };
        assert_eq!(models, [first, second]);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let with = |model: &str| format!("version: 1\nmodels:\n- source: hf://a/b\n{model}");
        for (yaml, expected) in [
            (
                with("  nme: x\n"),
                of(
                    4,
                    3,
                    "unknown field `nme`, expected one of name, source, also, include, exclude, all, expect, signed_by",
                ),
            ),
            (with("  source: hf://a/c\n"), of(4, 3, "duplicate mapping key: source")),
            (with("  all: yes\n"), of(4, 8, "invalid boolean (strict mode expects true/false)")),
            (with("  include: x\n"), of(4, 12, "a list is expected: [one, two]")),
            (
                with("  name: ../x\n"),
                of(
                    4,
                    9,
                    "name `../x` leaves the root; name a directory below the root, such as `chat/llama`",
                ),
            ),
            (
                with("  expect: \" \"\n"),
                of(4, 11, "`expect` is not a revision; write a commit or a digest"),
            ),
            (
                with("  also: [\"hf://a/${X}\"]\n"),
                of(
                    4,
                    10,
                    "the variable `X` is not set; set it in the environment of the container",
                ),
            ),
            (
                with("- source: hf://c/B\n"),
                of(4, 11, "a second model has the name `b`; give each model a `name` of its own"),
            ),
            (
                with("- &m {source: hf://c/d}\n- *m\n"),
                of(5, 3, "a second model has the name `d`; give each model a `name` of its own"),
            ),
            (with("---\nversion: 1\n"), of(5, 1, "multiple YAML documents detected")),
            ("version: one\nmodels: []\n".into(), of(1, 10, "a number is expected")),
            (
                "version: 2\nmodels: []\n".into(),
                of(
                    1,
                    10,
                    "version 2 is not known, this weightlift reads 1; use a newer weightlift",
                ),
            ),
            // The fields of another version are not what is wrong.
            (
                "version: 2\nfleet: []\n".into(),
                of(
                    1,
                    10,
                    "version 2 is not known, this weightlift reads 1; use a newer weightlift",
                ),
            ),
            ("version: 1\nmodels: []\n".into(), of(2, 9, "there are no models")),
            ("models: []\n".into(), of(1, 1, "missing field `version`")),
            ("".into(), of(1, 1, "it is empty")),
        ] {
            let problem = parse(&yaml).expect_err(&yaml);
            let found = (problem.line, problem.column, problem.message.to_string());
            assert_eq!(found, expected, "{yaml}");
        }
    }
}
