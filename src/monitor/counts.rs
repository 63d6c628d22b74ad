//! What has been counted of a run up to a moment.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime};

use crate::commands::run_state::{RunState, Seen};
use crate::exit::Class;
use crate::net::tally;

/// Counts from look to look.
pub struct Counts {
    command: &'static str,
    started_at: SystemTime,
    last: Instant,
    last_bytes: u64,
    bytes_per_second: u64,
    phases: BTreeMap<String, Duration>,
    /// What the metrics file said of the run before.
    before: Vec<(String, f64)>,
    has_warned: bool,
}

/// What monitoring is told at a moment.
#[derive(Clone, Debug)]
pub struct Reading {
    pub command: &'static str,
    pub started_at: SystemTime,
    pub at: SystemTime,
    pub elapsed: Duration,
    pub complete_models: usize,
    pub all_models: usize,
    pub at_work: Vec<AtWork>,
    /// By kind of source: `hf`, `s3`, …
    pub sources: BTreeMap<String, Sums>,
    /// How long models were in each phase; of two at the same time both count.
    pub phases: BTreeMap<String, Duration>,
    pub retries: Vec<(&'static str, u64)>,
    /// Answers that are being read at the moment.
    pub connections: u64,
    /// Over the last second.
    pub bytes_per_second: u64,
    pub end: Option<End>,
    pub before: Vec<(String, f64)>,
}

/// One model, or the run as a whole, at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AtWork {
    pub model: Option<String>,
    pub phase: String,
    pub what: Option<String>,
    pub done_bytes: u64,
    pub total_bytes: u64,
    pub done_files: u64,
    pub total_files: u64,
}

/// What was moved from one kind of source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    pub fetched_bytes: u64,
    pub reused_bytes: u64,
    pub sent_bytes: u64,
    /// Read again from the volume: hashed, re-checked, copied.
    pub read_bytes: u64,
    pub files: u64,
}

/// How a run has ended.
#[derive(Clone, Debug)]
pub struct End {
    pub class: Class,
    pub message: String,
}

impl Counts {
    pub fn new(command: &'static str, before: Vec<(String, f64)>) -> Self {
        Self {
            command,
            started_at: SystemTime::now(),
            last: Instant::now(),
            last_bytes: 0,
            bytes_per_second: 0,
            phases: BTreeMap::new(),
            before,
            has_warned: false,
        }
    }

    /// Whether nobody has been warned yet; true once.
    pub fn warns(&mut self) -> bool {
        !std::mem::replace(&mut self.has_warned, true)
    }

    pub fn look(&mut self, state: &RunState, end: Option<End>) -> Reading {
        let seen = state.seen();
        let since = self.last.elapsed();
        for work in &seen {
            *self.phases.entry(work.phase.clone()).or_default() += since;
        }
        let mut sources: BTreeMap<String, Sums> = BTreeMap::new();
        for (source, progress) in state.transfers() {
            let kind = source.split_once("://").map_or("", |(scheme, _)| scheme).to_owned();
            let sums = sources.entry(kind).or_default();
            sums.fetched_bytes += progress.fetched_bytes.load(Relaxed);
            sums.reused_bytes += progress.reused_bytes.load(Relaxed);
            sums.sent_bytes += progress.sent_bytes.load(Relaxed);
            sums.read_bytes += progress.worked_bytes.load(Relaxed);
            sums.files += progress.done_files.load(Relaxed);
        }
        let bytes: u64 = sources.values().map(|sums| sums.fetched_bytes).sum();
        // Two that look at almost the same time make no rate.
        if since >= Duration::from_millis(500) {
            let more = bytes.saturating_sub(self.last_bytes);
            self.bytes_per_second = (more as f64 / since.as_secs_f64()) as u64;
            self.last_bytes = bytes;
        }
        self.last += since;
        let (complete_models, all_models) = state.models();
        Reading {
            command: self.command,
            started_at: self.started_at,
            at: SystemTime::now(),
            elapsed: state.elapsed(),
            complete_models,
            all_models,
            at_work: if end.is_some() {
                Vec::new()
            } else {
                seen.into_iter().map(at_work).collect()
            },
            sources,
            phases: self.phases.clone(),
            retries: tally::retries().map(|(reason, count)| (reason.name(), count)).collect(),
            connections: tally::transfers(),
            bytes_per_second: self.bytes_per_second,
            end,
            before: self.before.clone(),
        }
    }
}

fn at_work(seen: Seen) -> AtWork {
    let Seen { model, phase, what, progress } = seen;
    let work = AtWork { model, phase, what, ..AtWork::default() };
    match progress {
        Some(progress) => AtWork {
            done_bytes: progress.done_bytes.load(Relaxed),
            total_bytes: progress.total_bytes.load(Relaxed),
            done_files: progress.done_files.load(Relaxed),
            total_files: progress.total_files.load(Relaxed),
            ..work
        },
        None => work,
    }
}
