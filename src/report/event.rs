//! Everything that is said while weightlift runs, as one enum. A person gets the sentence, a program the
//! fields.

use std::time::Duration;

use serde::Serialize;

use crate::model::{ErrorFields, SourceUri};

/// How much attention an event deserves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Only with `--verbose`.
    Debug,
    Info,
    Warning,
    Error,
}

/// Something that has happened. The `Display` (`sentence.rs`) is the line for people; names and fields are an interface.
/// Sizes are bytes, times seconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// What is published is hashed before it is believed.
    Rechecking {
        path: String,
        #[serde(rename = "total_bytes")]
        bytes: u64,
    },
    /// A model is complete on the volume as far as its names go, and its bytes are not.
    Damaged {
        path: String,
        source: String,
        #[serde(rename = "why")]
        damage: String,
    },
    /// Another model will be replaced, as asked.
    Replacing { path: String, source: String },
    /// An older copy is used.
    Stale {
        path: String,
        source: String,
        /// Of the copy that is used.
        revision: String,
        why: String,
    },
    /// The transfer begins.
    Fetching {
        source: String,
        revision: String,
        path: String,
        files: usize,
        #[serde(rename = "total_bytes")]
        bytes: u64,
        reused_bytes: u64,
        left_out: Vec<LeftOutFiles>,
        /// Absent where the filesystem does not tell.
        #[serde(skip_serializing_if = "Option::is_none")]
        free_bytes: Option<u64>,
    },
    /// A copy into a bucket begins.
    Mirroring {
        source: String,
        revision: String,
        target: String,
        files: usize,
        #[serde(rename = "total_bytes")]
        bytes: u64,
        /// What is there already.
        kept_files: usize,
        kept_bytes: u64,
        left_out: Vec<LeftOutFiles>,
    },
    /// A bucket is compared with the sentinel in it.
    Checking {
        target: String,
        files: usize,
        #[serde(rename = "total_bytes")]
        bytes: u64,
        deep: bool,
    },
    /// An object is not what the sentinel beside it says.
    WrongObject { path: String, why: String },
    /// Files of one reason that are left out, the largest by name.
    LeftOut { why: String, named: Vec<NamedFile>, more: usize },
    /// How far the transfer is.
    Progress {
        phase: String,
        done_bytes: u64,
        total_bytes: u64,
        done_files: u64,
        total_files: u64,
        bytes_per_second: u64,
        #[serde(skip)]
        left: String,
    },
    /// A request failed and is made again; `path` is absent for questions about the model as a whole.
    Retrying {
        #[serde(skip_serializing_if = "Option::is_none")]
        path: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        from_byte: Option<u64>,
        error: String,
        /// Until it is made again.
        #[serde(rename = "delay_seconds", serialize_with = "seconds")]
        delay: Duration,
        #[serde(flatten)]
        fields: Box<ErrorFields>,
    },
    /// A file was complete and wrong.
    FetchingAgain {
        path: String,
        #[serde(rename = "why")]
        cause: String,
    },
    /// A connection is far below the others; rates in bytes per second.
    ReplacingConnection { path: String, bytes_per_second: u64, usual_bytes_per_second: u64 },
    /// There are as many connections as the memory of the container has room for, and fewer than there may be.
    MemoryLimit {
        connections: usize,
        #[serde(rename = "asked_connections")]
        asked: usize,
        #[serde(rename = "limit_bytes")]
        memory_limit: u64,
    },
    /// The processors are busy with the transfer; `limit` is how many of them the container may use.
    ProcessorLimit {
        #[serde(rename = "used_cpus")]
        used: f64,
        #[serde(rename = "limit_cpus", skip_serializing_if = "Option::is_none")]
        limit: Option<f64>,
    },
    /// A server sends whole files in place of ranges.
    NoRanges { host: String, file: String },
    /// Another process fetches what is wanted.
    Waiting {
        holder: String,
        #[serde(rename = "without_progress_seconds", serialize_with = "seconds")]
        without_progress: Duration,
        #[serde(rename = "gives_up_in_seconds", serialize_with = "seconds")]
        gives_up_in: Duration,
        /// What is left of the time for the whole run.
        #[serde(
            rename = "deadline_in_seconds",
            skip_serializing_if = "Option::is_none",
            serialize_with = "some_seconds"
        )]
        deadline_in: Option<Duration>,
    },
    /// What the run goes by: flags and variables, each with where it comes from. Secrets are named and not shown.
    Settings { command: &'static str, settings: Vec<Setting>, variables: Vec<String> },
    /// A request was answered, or failed. Its query is left out, which may be a signature.
    Request {
        method: String,
        url: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        range: Option<String>,
        /// Whether it said who asks.
        has_credentials: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        status: Option<u16>,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
        /// Until the head of the answer.
        #[serde(rename = "took_seconds", serialize_with = "seconds")]
        took: Duration,
    },
    /// The run may write to the model directory; `lock` is what it holds.
    Locked { path: String, lock: String },
    /// A file is complete, hashed and on the disk.
    FileDone {
        path: String,
        #[serde(rename = "size")]
        bytes: u64,
        /// That were on the volume before.
        reused_bytes: u64,
        /// Of several places, the one that the rest came from.
        #[serde(skip_serializing_if = "Option::is_none")]
        from: Option<String>,
        /// Since its first request in this run.
        #[serde(rename = "took_seconds", serialize_with = "seconds")]
        took: Duration,
        is_compared: bool,
    },
    /// A server is led to one revision.
    Linked { link: String, target: String },
    /// Kept revisions of the model were removed, as old and as many as the user lets go.
    RemovedRevisions { path: String, revisions: Vec<String>, bytes: u64 },
    /// Nothing of a family is removed, because it is in use.
    Skipped { family: String, why: String },
    /// The volume, the cluster or the source is less than it could be, or holds what the user may not have
    /// meant: what it is, and what comes of it.
    Warning {
        #[serde(skip)]
        message: String,
    },
    /// The same that is no warning.
    Note {
        #[serde(skip)]
        message: String,
    },
    /// A model, or the run, is done.
    Complete {
        #[serde(skip)]
        message: String,
        /// Absent where a run for several, or without a model, is done.
        #[serde(flatten)]
        model: Option<Box<CompleteModel>>,
    },
    /// A model, or the run, has ended without success.
    Failed {
        #[serde(skip)]
        message: String,
        #[serde(flatten)]
        subject: Box<Subject>,
        code: u8,
        class: &'static str,
        #[serde(flatten)]
        fields: Box<ErrorFields>,
    },
}

/// A model that is done.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CompleteModel {
    pub path: String,
    pub source: String,
    pub revision: String,
    /// As standard output has it.
    pub status: &'static str,
    pub files: usize,
    pub total_bytes: u64,
    pub fetched_bytes: u64,
    pub reused_bytes: u64,
    #[serde(rename = "took_seconds")]
    pub seconds: f64,
}

/// What a line is about. Nothing of it is known of a run for several, or of one that ends before it looks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Subject {
    /// As the models file has it, where nothing is said of a place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A directory, or the prefix of a bucket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

impl Subject {
    pub fn at(path: &str, source: Option<&SourceUri>) -> Self {
        let source = source.map(SourceUri::source_name);
        Self { name: None, path: Some(path.to_owned()), source }
    }

    pub fn named(name: &str, source: &SourceUri) -> Self {
        Self { name: Some(name.to_owned()), path: None, source: Some(source.to_string()) }
    }
}

/// A flag that somebody has set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    pub flag: String,
    pub value: String,
    /// The variable, where it was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variable: Option<String>,
}

/// Files that are left out for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LeftOutFiles {
    pub why: String,
    pub files: usize,
    pub bytes: u64,
    /// Whether `--all` takes them.
    pub by_default: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NamedFile {
    pub path: String,
    #[serde(rename = "size")]
    pub bytes: u64,
}

impl Event {
    pub fn warning(message: impl Into<String>) -> Self {
        Self::Warning { message: message.into() }
    }

    pub fn note(message: impl Into<String>) -> Self {
        Self::Note { message: message.into() }
    }

    pub fn level(&self) -> Level {
        match self {
            Self::Damaged { .. }
            | Self::Replacing { .. }
            | Self::Stale { .. }
            | Self::FetchingAgain { .. }
            | Self::Skipped { .. }
            | Self::WrongObject { .. }
            | Self::Warning { .. } => Level::Warning,
            Self::Failed { .. } => Level::Error,
            Self::Settings { .. }
            | Self::Request { .. }
            | Self::Locked { .. }
            | Self::FileDone { .. } => Level::Debug,
            Self::Rechecking { .. }
            | Self::Fetching { .. }
            | Self::Mirroring { .. }
            | Self::Checking { .. }
            | Self::LeftOut { .. }
            | Self::Progress { .. }
            | Self::Retrying { .. }
            | Self::ReplacingConnection { .. }
            | Self::MemoryLimit { .. }
            | Self::ProcessorLimit { .. }
            | Self::NoRanges { .. }
            | Self::Waiting { .. }
            | Self::Linked { .. }
            | Self::RemovedRevisions { .. }
            | Self::Note { .. }
            | Self::Complete { .. } => Level::Info,
        }
    }
}

fn some_seconds<S: serde::Serializer>(time: &Option<Duration>, out: S) -> Result<S::Ok, S::Error> {
    seconds(&time.unwrap_or_default(), out)
}

fn seconds<S: serde::Serializer>(time: &Duration, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_f64(time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_gets_the_name_and_the_fields() {
        let event = Event::Retrying {
            path: Some("a".into()),
            from_byte: Some(7),
            error: "`https://h`: reset".into(),
            delay: Duration::from_millis(1_500),
            fields: Box::new(ErrorFields::of_host("https://h")),
        };
        assert_eq!(
            serde_json::to_value(&event).expect("serialises"),
            serde_json::json!({"event": "retrying", "path": "a", "from_byte": 7, "error": "`https://h`: reset", "delay_seconds": 1.5, "host": "https://h"})
        );
        assert_eq!(event.to_string(), "retrying `a` from byte 7 in 1.5s: `https://h`: reset");
        let waiting = Event::Waiting {
            holder: "pod a".into(),
            without_progress: Duration::from_secs(4),
            gives_up_in: Duration::from_secs(90),
            deadline_in: None,
        };
        let json = serde_json::to_value(&waiting).expect("serialises");
        assert_eq!(json["without_progress_seconds"], 4.0, "{json}");
        assert_eq!(json["gives_up_in_seconds"], 90.0, "{json}");
        assert!(json.get("deadline_in_seconds").is_none(), "{json}");
        assert_eq!(Event::warning("w").level(), Level::Warning);
    }
}
