//! `weightlift plan`, and `fetch --dry-run`: what a fetch would do. Nothing is written, and no byte of a model
//! is read.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::Instant;

use serde::Serialize;

use super::run_state::Doing;
use super::shared::{Fetch, Wanted, conflict};
use super::{announce, signature};
use crate::Error;
use crate::cli::Model;
use crate::content::Source;
use crate::error::Class;
use crate::model::{Decision, Known, LeftOut, Plan, RemoteFile, Sentinel, There, decide, text};
use crate::volume::{Existing, Foreseen, Store, StoreError};

/// What would be done for one model. The fields are an interface.
#[derive(Debug, Serialize)]
pub struct PlanReport {
    pub path: String,
    /// `present`, `stale`, `restore` (it is kept on the volume), `fetch`, `extend`, `repair`,
    /// `update`, `replace`.
    pub status: &'static str,
    pub source: String,
    pub revision: String,
    pub files: usize,
    pub total_bytes: u64,
    pub fetch_files: usize,
    /// At most: a fetch may find chunks of these files on the volume.
    pub fetch_bytes: u64,
    pub reuse_files: usize,
    /// Parts of files that an attempt has left included.
    pub reuse_bytes: u64,
    /// Absent where the filesystem does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free_bytes: Option<u64>,
    /// After this model, and those before it on the same volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free_bytes_after: Option<u64>,
    pub fits: bool,
    /// Each file that is not there as it is wanted.
    pub plan: Vec<Step>,
    pub left_out: Vec<LeftOut>,
    /// For people.
    #[serde(skip)]
    lack: Option<StoreError>,
}

/// What would be done for one file.
#[derive(Debug, Serialize)]
pub struct Step {
    pub path: String,
    pub size: u64,
    /// `fetch`, `continue` (a part of it is there), `reuse`.
    pub action: &'static str,
    /// The place that it is read from, or the model that has it.
    pub from: String,
    pub fetch_bytes: u64,
}

/// What the models before have claimed of each volume.
pub type Claimed = HashMap<PathBuf, u64>;

impl Fetch<'_> {
    pub async fn plan(&self, model: &Model, claimed: &mut Claimed) -> Result<PlanReport, Error> {
        let trust = model.signed_by.as_ref().map(signature::trust).transpose()?;
        let goal = self.goal(model, trust.as_ref());
        let wanted = Wanted {
            model,
            selection: &model.selection,
            goal,
            trust: trust.as_ref(),
            link: None,
            adopt: &[],
            started: Instant::now(),
        };
        self.state.reads(&model.destination.path());
        let store = wanted.store()?;
        let existing = self.existing(wanted, &store)?;
        let there = existing.there();
        match (decide(goal, there, Known::Nothing), there) {
            (Decision::Present, There::Whole(sentinel)) => {
                return Ok(self.at_rest("present", &store, sentinel));
            }
            (Decision::Conflict, there) => return Err(conflict(model, &store, there)),
            _ => {}
        }
        if goal.pin().is_some()
            && let Some((_, kept)) = self.kept(wanted, &store, there, Known::Nothing)?
        {
            return Ok(self.at_rest("restore", &store, &kept.sentinel));
        }
        if let Some(error) = self.offline(wanted, &store, there) {
            return match there {
                There::Whole(sentinel)
                    if decide(goal, there, Known::Refusal) == Decision::Stale =>
                {
                    Ok(self.at_rest("stale", &store, sentinel))
                }
                _ => Err(error),
            };
        }
        self.state.enter(Doing::Resolving(model.uri.to_string()));
        let source = self.ask.source(model)?;
        let (budget, bound) = (self.ask.budget(), self.ask.bound());
        let revision = self.ask.ask_revision(source.as_ref(), budget, bound).await?;
        self.check_expectation(model, &revision)?;
        let known = Known::Revision(&revision);
        let decided = decide(goal, there, known);
        if let (Decision::Present, There::Whole(sentinel)) = (decided, there) {
            return Ok(self.at_rest("present", &store, sentinel));
        }
        if let Some((_, kept)) = self.kept(wanted, &store, there, known)? {
            return Ok(self.at_rest("restore", &store, &kept.sentinel));
        }
        let status = status(decided, &existing, model);
        let snapshot = self.ask.retried(budget, bound, || source.snapshot()).await?;
        self.ask.pass_on(source.as_ref());
        let (chosen, files) = self.choose(wanted, &store, snapshot)?;
        let (name, revision) = (&chosen.snapshot.source_name, &chosen.snapshot.revision);
        if let Some(trust) = &trust {
            let listing = signature::Listing {
                source_name: name,
                files: files.iter().map(|file| (file.path.as_str(), file.size)).collect(),
                left_out: &chosen.left_out,
                selection: &model.selection,
            };
            self.open_listed(trust, source.as_ref(), &files, &listing).await?;
        }
        let found = store.foresee(name, revision, &files, &|| !self.stop.is_set())?;
        let plan = steps(model, source.as_ref(), &files, &found);
        let all = Plan::new(files.into(), |_| Vec::new());
        let (fetched, reused): (Vec<_>, Vec<_>) =
            plan.iter().partition(|step| step.action != "reuse");
        let fetch_bytes = fetched.iter().map(|step| step.fetch_bytes).sum();
        let before = claimed.entry(model.destination.root.clone()).or_default();
        let (free, room) = store.has_room(before.saturating_add(fetch_bytes), all.inodes())?;
        let free_bytes = (free < u64::MAX).then(|| free.saturating_sub(*before));
        *before = before.saturating_add(fetch_bytes);
        Ok(PlanReport {
            path: store.family_path().display().to_string(),
            status,
            source: name.clone(),
            revision: revision.clone(),
            files: all.files.len(),
            total_bytes: all.total_bytes(),
            fetch_files: fetched.len(),
            fetch_bytes,
            reuse_files: reused.len(),
            reuse_bytes: all.total_bytes() - fetch_bytes,
            free_bytes,
            free_bytes_after: free_bytes.map(|free| free.saturating_sub(fetch_bytes)),
            fits: room.is_ok(),
            lack: room.err(),
            plan,
            left_out: chosen.left_out,
        })
    }

    /// Nothing has to be fetched.
    fn at_rest(&self, status: &'static str, store: &Store, sentinel: &Sentinel) -> PlanReport {
        let free = store.has_room(0, 0).map_or(u64::MAX, |(free, _)| free);
        let free_bytes = (free < u64::MAX).then_some(free);
        PlanReport {
            path: store.family_path().display().to_string(),
            status,
            source: sentinel.source.clone(),
            revision: sentinel.revision.clone(),
            files: sentinel.files.len(),
            total_bytes: sentinel.total_bytes,
            fetch_files: 0,
            fetch_bytes: 0,
            reuse_files: 0,
            reuse_bytes: 0,
            free_bytes,
            free_bytes_after: free_bytes,
            fits: true,
            plan: Vec::new(),
            left_out: sentinel.left_out.clone(),
            lack: None,
        }
    }
}

impl PlanReport {
    /// The error of a volume that cannot take it.
    pub fn lack(&mut self) -> Option<Error> {
        let error = Error::from(self.lack.take()?);
        debug_assert_eq!(error.class(), Class::NoSpace);
        Some(error)
    }
}

fn status(decided: Decision, existing: &Existing, model: &Model) -> &'static str {
    match existing.there() {
        There::Nothing => "fetch",
        There::Damaged(there) | There::Whole(there) if !there.is_of(&model.uri) => "replace",
        There::Damaged(_) => "repair",
        There::Whole(_) if decided == Decision::Extend => "extend",
        There::Whole(_) => "update",
    }
}

fn steps(
    model: &Model,
    source: &dyn Source,
    files: &[RemoteFile],
    found: &[Foreseen],
) -> Vec<Step> {
    let place = |file: &RemoteFile| source.place_of(file).unwrap_or_else(|| model.uri.to_string());
    let step = |(file, found): (&RemoteFile, &Foreseen)| {
        let (action, from, fetch_bytes) = match found {
            Foreseen::Nothing => ("fetch", place(file), file.size),
            Foreseen::Part(has) => ("continue", place(file), file.size - has),
            Foreseen::Model(path) => ("reuse", path.clone(), 0),
        };
        Step { path: file.path.to_string(), size: file.size, action, from, fetch_bytes }
    };
    files.iter().zip(found).map(step).collect()
}

/// What standard output gets of one model.
pub fn text(report: &PlanReport) -> String {
    let inert = |text: &str| text::inert(text, 300);
    let revision = text::revision(&report.revision);
    let mut lines = vec![format!(
        "{}: {}, {} at {revision} ({}, {})",
        inert(&report.path),
        report.status,
        inert(&report.source),
        text::files(report.files),
        text::size(report.total_bytes)
    )];
    let mut by_place: BTreeMap<(&str, &str), Vec<&Step>> = BTreeMap::new();
    for step in &report.plan {
        by_place.entry((step.action, &step.from)).or_default().push(step);
    }
    for ((action, from), mut steps) in by_place {
        steps.sort_by_key(|step| std::cmp::Reverse(step.size));
        let bytes = steps.iter().map(|it| if action == "reuse" { it.size } else { it.fetch_bytes });
        let named = steps.iter().take(3).map(|step| inert(&step.path)).collect::<Vec<_>>();
        let more = if steps.len() > named.len() { ", …" } else { "" };
        lines.push(format!(
            "  {action} {}, {} {} {}: {}{more}",
            text::files(steps.len()),
            text::size(bytes.sum()),
            if action == "reuse" { "of" } else { "from" },
            inert(from),
            named.join(", ")
        ));
    }
    lines.extend(announce::left_out(&report.left_out).iter().map(|event| format!("  {event}")));
    if let (Some(free), Some(after)) = (report.free_bytes, report.free_bytes_after) {
        lines.push(match report.fits {
            true => format!("  {} free, {} afterwards", text::size(free), text::size(after)),
            false => format!("  {} free: it does not fit", text::size(free)),
        });
    }
    lines.join("\n")
}
