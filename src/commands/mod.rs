//! The stories, one a file: what happens from an argument to an exit code. No policy: what follows from
//! what is decided in `model`.
//!
//! Imports every layer; only `run` and `cli` are above.

mod acquire;
mod announce;
mod ask;
mod completeness;
pub mod fetch;
pub mod verify;
pub mod wait;
mod waiter;

use crate::model::{LeftOut, Sentinel};

/// What a command did for one model.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Outcome {
    /// The directory that a server should load.
    pub path: String,
    /// `fetched`, `updated`, `present`, `verified`, `ready`.
    pub status: &'static str,
    pub source: String,
    pub revision: String,
    pub files: usize,
    pub total_bytes: u64,
    /// Files for which the source published no digest.
    pub unpublished: usize,
    pub fetched_bytes: u64,
    pub seconds: f64,
    /// What the source has as well.
    pub left_out: Vec<LeftOut>,
    /// For people: the last line of the run.
    #[serde(skip)]
    pub summary: String,
}

impl Outcome {
    fn of(status: &'static str, path: &std::path::Path, sentinel: &Sentinel) -> Self {
        Self {
            path: path.display().to_string(),
            status,
            source: sentinel.source.clone(),
            revision: sentinel.revision.clone(),
            files: sentinel.files.len(),
            total_bytes: sentinel.total_bytes,
            unpublished: sentinel.files.iter().filter(|file| !file.is_compared()).count(),
            fetched_bytes: 0,
            seconds: 0.0,
            left_out: sentinel.left_out.clone(),
            summary: String::new(),
        }
    }
}
