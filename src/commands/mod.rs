//! The stories, one a file: what happens from an argument to an exit code. No policy: what follows from
//! what is decided in `model`.
//!
//! Imports every layer; only `run` and `cli` are above.

mod acquire;
pub mod announce;
pub mod ask;
pub mod beside;
mod completeness;
mod delta;
mod digests;
pub mod doctor;
mod fetch;
mod fill;
mod kept;
mod link;
pub mod list;
mod lookout;
pub mod mirror;
pub mod pin;
pub mod pin_report;
mod places;
pub mod plan;
pub mod prune;
mod read_once;
pub mod run_state;
pub mod several;
pub mod shared;
pub mod signature;
mod umask;
mod unpack;
pub mod verify;
pub mod wait;
mod waiter;

use std::collections::BTreeMap;
use std::time::Instant;

use crate::model::{LeftOut, Sentinel, Signed};
use crate::report::{CompleteModel, Event};

/// What a command did for one model.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Outcome {
    /// The directory of the model, which shows the newest revision.
    pub path: String,
    /// Where this revision lies, a path that never changes its content, if the volume has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision_path: Option<String>,
    /// The link that leads there, if one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// `fetched`, `updated`, `extended`, `repaired`, `restored`, `present`, `stale`, `verified`, `ready`,
    /// `mirrored`.
    pub status: &'static str,
    pub source: String,
    pub revision: String,
    pub files: usize,
    pub total_bytes: u64,
    /// Files that could not be compared with a published digest.
    pub unpublished: usize,
    /// How many files were compared with what kind of published digest.
    pub verified_by: BTreeMap<String, usize>,
    pub fetched_bytes: u64,
    /// What a fetch found on the volume and used: whole files, parts that a killed run has left, chunks of other
    /// files. None where nothing was to do.
    pub reused_bytes: u64,
    /// What `mirror` has sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent_bytes: Option<u64>,
    pub seconds: f64,
    /// Why an older copy was used, where that is so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale: Option<Stale>,
    /// Another process has published it while it was fetched.
    #[serde(skip)]
    pub by_other: bool,
    /// The signature that was verified of it, now or when it was published.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signed: Option<Signed>,
    /// What the source has as well.
    pub left_out: Vec<LeftOut>,
    /// For people: the last line of the run.
    #[serde(skip)]
    pub summary: String,
}

/// A copy that may be older than what the source holds.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Stale {
    /// What kept it from being updated.
    pub why: String,
    /// When it was completed, RFC 3339, by the clock of the node that fetched it.
    pub since: String,
}

impl Outcome {
    fn of(status: &'static str, path: &std::path::Path, sentinel: &Sentinel) -> Self {
        Self {
            path: path.display().to_string(),
            revision_path: None,
            link: None,
            status,
            source: sentinel.source.clone(),
            revision: sentinel.revision.clone(),
            files: sentinel.files.len(),
            total_bytes: sentinel.total_bytes,
            unpublished: sentinel.files.iter().filter(|file| !file.is_compared()).count(),
            verified_by: digests::kinds(&sentinel.files),
            fetched_bytes: 0,
            reused_bytes: 0,
            sent_bytes: None,
            seconds: 0.0,
            stale: None,
            by_other: false,
            signed: sentinel.signed.clone(),
            left_out: sentinel.left_out.clone(),
            summary: String::new(),
        }
    }

    /// What the log says of it.
    pub fn complete(&self) -> Box<CompleteModel> {
        Box::new(CompleteModel {
            path: self.path.clone(),
            source: self.source.clone(),
            revision: self.revision.clone(),
            status: self.status,
            files: self.files,
            total_bytes: self.total_bytes,
            fetched_bytes: self.fetched_bytes,
            reused_bytes: self.reused_bytes,
            seconds: self.seconds,
        })
    }

    pub fn event(&self) -> Event {
        Event::Complete { message: self.summary.clone(), model: Some(self.complete()) }
    }

    /// What a server should load.
    pub fn to_load(&self) -> &str {
        self.link.as_ref().unwrap_or(&self.path)
    }

    /// The same with what is known at the end.
    pub(crate) fn ended(mut self, started: Instant) -> Self {
        let took = started.elapsed();
        self.seconds = took.as_secs_f64();
        self.summary = announce::end(&self, took);
        self
    }
}
