//! What `pin` tells of each model.

use serde::Serialize;

use super::read_once::amount;
use crate::fleet::{Entry, LockedModel};
use crate::model::text;

/// What came of one model. The fields are an interface.
#[derive(Debug, Serialize)]
pub struct PinReport {
    pub name: String,
    pub source: String,
    pub revision: String,
    /// `pinned`, `kept`, `resolved` (known, but no lock file was written), `current`, `moved`, `unlocked` (asked for
    /// and not in the lock file), `unasked`.
    pub status: &'static str,
    pub files: usize,
    pub total_bytes: u64,
    /// What is different, a line each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<String>,
}

pub(super) fn bytes_of(model: &LockedModel) -> u64 {
    model.content.files.iter().map(|file| file.size).fold(0, u64::saturating_add)
}

pub(super) fn report(model: &LockedModel, status: &'static str, changes: Vec<String>) -> PinReport {
    PinReport {
        name: model.name.clone(),
        source: model.source.to_string(),
        revision: model.content.revision.clone(),
        status,
        files: model.content.files.len(),
        total_bytes: bytes_of(model),
        changes,
    }
}

pub(super) fn absent(entry: &Entry, status: &'static str) -> PinReport {
    PinReport {
        name: entry.name.clone(),
        source: entry.source.to_string(),
        revision: String::new(),
        status,
        files: 0,
        total_bytes: 0,
        changes: vec!["it is not in the lock file".into()],
    }
}

/// What standard output gets of one model.
pub fn text(report: &PinReport) -> String {
    let name = text::inert(&report.name, 200);
    let revision = text::revision(&report.revision);
    let mut out = match report.status {
        "unlocked" | "unasked" => format!("{name}: {}", report.status),
        status => {
            format!("{name}: {status} at {revision}, {}", amount(report.files, report.total_bytes))
        }
    };
    for change in &report.changes {
        out.push_str("\n  ");
        out.push_str(&text::inert(change, 1_000));
    }
    out
}

pub(super) const RESOLVED: &str = "resolved";

/// The same of a run that writes no lock file. What was kept is in the one that is there.
pub(super) fn resolved(reports: Vec<PinReport>) -> Vec<PinReport> {
    let resolved = |report: PinReport| match report.status {
        "pinned" => PinReport { status: RESOLVED, ..report },
        _ => report,
    };
    reports.into_iter().map(resolved).collect()
}
