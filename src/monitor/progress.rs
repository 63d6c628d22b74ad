//! How far a run is, as one JSON object: `docs/progress.schema.json` describes it.

use serde::Serialize;

use super::counts::{AtWork, End, Reading};
use crate::model::text;
use crate::report::rfc3339;

const MAX_CHARS: usize = 2_000;

pub fn json(reading: &Reading) -> String {
    let Reading { at_work, end, .. } = reading;
    let inert = |it: &String| text::inert(it, MAX_CHARS);
    let (code, class, message) = match end {
        Some(End { class, message }) => {
            (Some(class.exit_code()), Some(class.name()), Some(inert(message)))
        }
        None => (None, None, None),
    };
    let sum = |of: fn(&super::counts::Sums) -> u64| reading.sources.values().map(of).sum();
    let progress = Progress {
        v: 1,
        time: rfc3339(reading.at),
        command: reading.command,
        state: if end.is_some() { "ended" } else { "running" },
        elapsed_seconds: (reading.elapsed.as_secs_f64() * 10.0).round() / 10.0,
        complete_models: reading.complete_models,
        all_models: reading.all_models,
        fetched_bytes: sum(|it| it.fetched_bytes),
        reused_bytes: sum(|it| it.reused_bytes),
        bytes_per_second: reading.bytes_per_second,
        models: at_work.iter().map(Model::of).collect(),
        code,
        class,
        message,
    };
    let json = serde_json::to_string(&progress).expect("strings and numbers always serialise");
    text::inert_json(&json) + "\n"
}

#[derive(Serialize)]
struct Progress<'a> {
    v: u8,
    time: String,
    command: &'a str,
    state: &'a str,
    elapsed_seconds: f64,
    complete_models: usize,
    all_models: usize,
    fetched_bytes: u64,
    reused_bytes: u64,
    bytes_per_second: u64,
    models: Vec<Model<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

/// What is worked on.
#[derive(Serialize)]
struct Model<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    phase: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    what: Option<String>,
    done_bytes: u64,
    total_bytes: u64,
    done_files: u64,
    total_files: u64,
}

impl<'a> Model<'a> {
    fn of(work: &'a AtWork) -> Self {
        Self {
            model: work.model.as_deref(),
            phase: &work.phase,
            what: work.what.as_ref().map(|what| text::inert(what, MAX_CHARS)),
            done_bytes: work.done_bytes,
            total_bytes: work.total_bytes,
            done_files: work.done_files,
            total_files: work.total_files,
        }
    }
}
