//! How a transfer fails.

use std::time::Duration;

use super::schedule::event::TooSlow;
use crate::model::{ErrorFields, exclude_flag, literal_pattern, text};
use crate::net::{Problem, SourceError};
use crate::verify::Mismatch;
use crate::volume::StoreError;

const RESUME: &str = "run again to resume";

#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    #[error("`{path}`: {source}")]
    Source { path: String, source: SourceError },
    #[error("`{path}`: no byte arrived for {}: {source}", text::duration(*tried_for))]
    GaveUp { path: String, tried_for: Duration, source: SourceError },
    #[error(
        "`{path}` is still wrong after {fetches} complete fetches: {mismatch}{}", after(*hint)
    )]
    Integrity { path: String, fetches: u32, mismatch: Box<Mismatch>, hint: Option<&'static str> },
    #[error(
        "`{path}` is what the source published, but it is not valid safetensors: {why}; {}",
        without(path)
    )]
    Structure { path: String, why: String },
    #[error(
        "`{path}` is not valid safetensors at the source: {why} (two reads of its first {len} bytes \
         agree); {}",
        without(path)
    )]
    Header { path: String, why: String, len: u64 },
    #[error(
        "`{path}` is still wrong after {fetches} tries: it is not valid safetensors ({why}), and each read \
         of its start returns different bytes"
    )]
    UnsteadyHeader { path: String, fetches: u32, why: String },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    #[error(transparent)]
    Setup(SourceError),
    #[error("no byte arrived and none was hashed for {}; waited for: {waits}", text::duration(*silent))]
    Silent { silent: Duration, waits: String },
    #[error(
        "the transfer is too slow: {} arrived in {}, {}/s on average, but --min-rate is {}/s; {RESUME}",
        text::size(.0.bytes), text::duration(.0.over), text::size(average(.0)),
        text::size(.0.min_rate)
    )]
    TooSlow(TooSlow),
    #[error("stopped")]
    Stopped,
}

impl TransferError {
    /// What a program can read of it.
    pub fn fields(&self) -> ErrorFields {
        match self {
            // The key of an object says more than the path in the model.
            Self::Source { path, source } | Self::GaveUp { path, source, .. } => {
                let fields = source.fields();
                if fields.file.is_some() { fields } else { fields.file(path) }
            }
            Self::Integrity { path, hint, .. } => {
                ErrorFields { hint: hint.map(String::from), ..ErrorFields::of_file(path) }
            }
            Self::Structure { path, .. } | Self::Header { path, .. } => {
                ErrorFields::of_file(path).hint(without(path))
            }
            Self::UnsteadyHeader { path, .. } => ErrorFields::of_file(path),
            Self::Setup(source) => source.fields(),
            Self::Store(error) => error.fields(),
            Self::TooSlow(_) => ErrorFields::default().hint(RESUME),
            Self::Thread(_) | Self::Silent { .. } | Self::Stopped => ErrorFields::default(),
        }
    }
}

/// The advice of those who cannot have a file as it is.
fn without(path: &str) -> String {
    format!("add {} to do without it", exclude_flag(&literal_pattern(path)))
}

fn after(hint: Option<&str>) -> String {
    hint.map(|hint| format!("; {hint}")).unwrap_or_default()
}

/// What the engine itself finds wrong with a source.
#[derive(Debug, thiserror::Error)]
pub enum EngineProblem {
    #[error("the connection brought only {}/s", text::size(*.0))]
    Slow(u64),
    #[error("the server sends no ranges and closed the connection early {0} times")]
    BrokeOff(u32),
    /// A list of digests beside a file is older than the file, or is about another one.
    #[error("`{list}` next to it says {expected}, but each fetch returns {found}")]
    List { list: String, expected: String, found: String },
}

impl Problem for EngineProblem {
    fn fields(&self) -> ErrorFields {
        match self {
            Self::Slow(_) | Self::BrokeOff(_) => ErrorFields::default(),
            Self::List { list, .. } => ErrorFields::default().hint(format!(
                "upload the list or the file again, or ignore the list with `--exclude {list}`"
            )),
        }
    }
}

fn average(too_slow: &TooSlow) -> u64 {
    (too_slow.bytes as f64 / too_slow.over.as_secs_f64().max(0.001)) as u64
}
