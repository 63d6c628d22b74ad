//! What is told of a family: what it shows, what is kept, who is at work. Reads only, and one thing at a time.

use std::cmp::Reverse;
use std::fmt;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::attempts::{Sign, attempt_parts, open_attempt};
use super::existing::with_sentinel;
use super::held::shown;
use super::journal;
use super::layout::{CACHE_SENTINELS, REVISIONS};
use super::staging::{ATTEMPTS, OWNER};
use super::survey::{FoundFamily, Survey};
use super::sweep::GONE;
use super::{Store, StoreError};
use crate::fs::{Dir, Kind, NodeIdentity, space};
use crate::lock::heartbeat::{Owner, STOPPED_AFTER};
use crate::model::abandoned::silence;
use crate::model::{SENTINEL, STATE_DIR, Summary, text};

const MAX_CHARS: usize = 80;
/// So much that could not be read is told of one family.
const MAX_PROBLEMS: usize = 20;

/// One family on the volume. The fields are an interface; sizes are bytes, ages seconds.
#[derive(Debug, Serialize)]
pub struct FamilyReport {
    /// Its directory, relative to the root that was asked about.
    pub family: String,
    pub path: String,
    pub status: FamilyStatus,
    #[serde(flatten)]
    pub shown: Option<Summary>,
    /// Where the revision lies that it shows, if that has a path of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision_path: Option<String>,
    /// Since it was published.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_seconds: Option<u64>,
    /// Whole revisions that it does not show, the one that was replaced last first.
    pub kept: Vec<KeptReport>,
    pub attempts: Vec<AttemptReport>,
    /// Free on its filesystem, where that tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free_bytes: Option<u64>,
    /// What could not be read, or is not what it should be.
    pub problems: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FamilyStatus {
    /// It shows a revision, as its sentinel says.
    Published,
    /// It shows nothing.
    Absent,
    /// What it shows cannot be told.
    Unreadable,
}

#[derive(Debug, Serialize)]
pub struct KeptReport {
    pub id: String,
    pub path: String,
    #[serde(flatten)]
    pub summary: Summary,
    /// What its removal alone would free: other revisions may share its files.
    pub frees_bytes: u64,
    /// Since it was replaced.
    pub age_seconds: u64,
}

#[derive(Debug, Serialize)]
pub struct AttemptReport {
    pub id: String,
    pub state: AttemptState,
    /// What it takes on the volume.
    pub bytes: u64,
    /// Since its last sign.
    pub age_seconds: u64,
    #[serde(flatten)]
    pub owner: Option<OwnerReport>,
}

/// Who has written an attempt, and how far it is.
#[derive(Debug, Serialize)]
pub struct OwnerReport {
    #[serde(rename = "pod")]
    pub host: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub node: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub phase: String,
    pub done_bytes: u64,
    pub total_bytes: u64,
}

impl fmt::Display for OwnerReport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, node, phase, done_bytes, total_bytes } = self;
        write!(out, "pod {host}")?;
        if !node.is_empty() {
            write!(out, " on node {node}")?;
        }
        match (u128::from(*done_bytes) * 100).checked_div(u128::from(*total_bytes)) {
            Some(percent) => {
                let (percent, total) = (percent.min(100), text::size(*total_bytes));
                write!(out, ", {phase} {percent} % of {total}")
            }
            None => Ok(()),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AttemptState {
    /// It has given a sign a moment ago.
    Working,
    /// It has given none for a while.
    Silent,
    /// Its process is gone.
    Gone,
    /// It is being removed, or that was cut off.
    Removing,
}

impl Survey {
    /// Hands over what there is to tell of each family; one that has nothing is left out.
    pub fn each_family<E>(
        &self,
        each: &mut dyn FnMut(FamilyReport) -> Result<(), E>,
    ) -> Result<(), E> {
        for family in self.families() {
            let report = self.report(&family);
            if !report.is_empty() {
                each(report)?;
            }
        }
        Ok(())
    }

    /// Bytes that are free on the filesystem of the root, where it tells.
    pub fn free_bytes(&self) -> Option<u64> {
        free_bytes(&Dir::open(&self.root).ok()??)
    }

    fn report(&self, family: &FoundFamily) -> FamilyReport {
        let mut report = FamilyReport {
            family: self.name_of(family),
            path: self.path_of(family),
            status: FamilyStatus::Absent,
            shown: None,
            revision_path: None,
            age_seconds: None,
            kept: Vec::new(),
            attempts: Vec::new(),
            free_bytes: None,
            problems: Vec::new(),
        };
        let area = &self.areas[family.area];
        if let Ok(Some(base)) = area.at.open_inner() {
            report.free_bytes = free_bytes(&base);
        }
        match &family.store {
            Some(store) => {
                if let Err(error) = report.look_at_shown(store) {
                    report.status = FamilyStatus::Unreadable;
                    report.note(error);
                }
                if let Err(error) = report.look_at_kept(store) {
                    report.note(error);
                }
            }
            None => {
                report.status = FamilyStatus::Unreadable;
                report.note("its name is too long for the working area, and no link shows it");
            }
        }
        let looked = self.state(family.area).and_then(|state| match state {
            Some(state) => report.look_at_attempts(&state, &family.state_name),
            None => Ok(()),
        });
        if let Err(error) = looked {
            report.note(error);
        }
        report
    }

    /// The family relative to the root that was asked about.
    pub(super) fn name_of(&self, family: &FoundFamily) -> String {
        let Some(store) = &family.store else { return shown(&family.state_name) };
        let path = store.destination.path();
        match path.strip_prefix(&self.root) {
            Ok(below) if !below.as_os_str().is_empty() => below.display().to_string(),
            _ => ".".into(),
        }
    }

    fn path_of(&self, family: &FoundFamily) -> String {
        match &family.store {
            Some(store) => store.destination.path().display().to_string(),
            None => {
                let base = self.areas[family.area].at.path();
                let own = base.join(STATE_DIR).join(REVISIONS).join(&family.state_name);
                own.display().to_string()
            }
        }
    }
}

impl FamilyReport {
    fn is_empty(&self) -> bool {
        self.status == FamilyStatus::Absent
            && self.kept.is_empty()
            && self.attempts.is_empty()
            && self.problems.is_empty()
    }

    fn note(&mut self, problem: impl ToString) {
        match self.problems.len() {
            0..MAX_PROBLEMS => self.problems.push(problem.to_string()),
            MAX_PROBLEMS => self.problems.push("and more".into()),
            _ => {}
        }
    }

    fn look_at_shown(&mut self, store: &Store) -> Result<(), StoreError> {
        let Some(dir) = store.family_dir()? else { return Ok(()) };
        if dir.kind(CACHE_SENTINELS)? == Some(Kind::Directory) {
            return self.look_at_cached(store);
        }
        let Some(summary) = with_sentinel(&dir, Summary::read)? else { return Ok(()) };
        self.status = FamilyStatus::Published;
        self.age_seconds = dir.modified_of(SENTINEL)?.map(since);
        self.shown = Some(summary);
        self.revision_path = store.revision_path()?.map(|path| path.display().to_string());
        Ok(())
    }

    /// Of a repo in a cache: what `main` leads to, or what was published last.
    fn look_at_cached(&mut self, store: &Store) -> Result<(), StoreError> {
        let Some(repo) = store.cached_repo()? else { return Ok(()) };
        let commits = repo.commits()?;
        let main = repo.named("main")?.filter(|commit| commits.contains(commit));
        let Some(commit) = main.as_ref().or(commits.first()) else { return Ok(()) };
        let Some(summary) = repo.with_sentinel(commit, Summary::read)? else { return Ok(()) };
        self.status = FamilyStatus::Published;
        self.age_seconds = repo.published(commit)?.map(since);
        self.shown = Some(summary);
        self.revision_path = Some(repo.snapshot_path(commit).display().to_string());
        Ok(())
    }

    fn look_at_kept(&mut self, store: &Store) -> Result<(), StoreError> {
        if store.in_place {
            return Ok(());
        }
        let Some(own) = store.revisions()? else { return Ok(()) };
        let mut kept = Vec::new();
        for tree in store.kept_trees()? {
            let path = store.path_of_kept(&tree.id).display().to_string();
            let read = match own.child(&tree.id) {
                Ok(Some(dir)) => with_sentinel(&dir, Summary::read)
                    .and_then(|summary| Ok((summary, dir.modified_of(SENTINEL)?))),
                Ok(None) => continue,
                Err(error) => Err(error.into()),
            };
            match read {
                Ok((Some(summary), published)) => kept.push((
                    (tree.since, published),
                    KeptReport {
                        path,
                        summary,
                        frees_bytes: own.bytes_below(&tree.id),
                        age_seconds: since(tree.since),
                        id: tree.id,
                    },
                )),
                Ok((None, _)) => self.note(format!("`{path}` holds no revision")),
                Err(error) => self.note(error),
            }
        }
        kept.sort_by_key(|(when, _)| Reverse(*when));
        self.kept = kept.into_iter().map(|(_, report)| report).collect();
        Ok(())
    }

    fn look_at_attempts(&mut self, state: &Dir, state_name: &str) -> Result<(), StoreError> {
        if let Some(own) = state.descend([REVISIONS, state_name].into_iter())? {
            let gone = own.names()?.into_iter().filter(|name| name.ends_with(GONE));
            for name in gone {
                let bytes = own.bytes_below(&name);
                self.attempts.push(AttemptReport::removing(name, bytes));
            }
        }
        let Some(attempts) = state.child(ATTEMPTS)? else { return Ok(()) };
        let us = NodeIdentity::current();
        for name in attempts.names()? {
            let attempt = name.strip_suffix(GONE).unwrap_or(&name);
            if attempt_parts(attempt).is_none_or(|(of, _)| of != state_name) {
                continue;
            }
            match AttemptReport::of(&attempts, &name, &us) {
                Ok(report) => self.attempts.extend(report),
                Err(error) => self.note(error),
            }
        }
        Ok(())
    }
}

impl AttemptReport {
    fn removing(id: String, bytes: u64) -> Self {
        Self { id, state: AttemptState::Removing, bytes, age_seconds: 0, owner: None }
    }

    fn of(attempts: &Dir, name: &str, us: &NodeIdentity) -> Result<Option<Self>, StoreError> {
        let bytes = attempts.bytes_below(name);
        if name.ends_with(GONE) {
            return Ok(Some(Self::removing(name.to_owned(), bytes)));
        }
        let Some(old) = open_attempt(attempts, name)? else { return Ok(None) };
        let sign = Sign::of(&old)?;
        let beat = Owner::read(&old, OWNER);
        let header = journal::header(&old)?;
        let writer = match (&beat, header) {
            (Some(beat), _) => Some(beat.writer.clone()),
            (None, header) => header.map(|header| header.writer),
        };
        let silence = silence(now(), sign.last);
        let is_gone = writer.as_ref().is_some_and(|it| us.same_boot(it) && us.sees_gone(it));
        let state = match silence {
            _ if is_gone => AttemptState::Gone,
            silence if silence < STOPPED_AFTER * 2 => AttemptState::Working,
            _ => AttemptState::Silent,
        };
        let owner = writer.map(|writer| OwnerReport {
            host: text::inert(&writer.host, MAX_CHARS),
            node: text::inert(&writer.node, MAX_CHARS),
            phase: beat.as_ref().map(|it| text::inert(&it.phase, MAX_CHARS)).unwrap_or_default(),
            done_bytes: beat.as_ref().map_or(0, |it| it.done_bytes),
            total_bytes: beat.as_ref().map_or(0, |it| it.total_bytes),
        });
        let (id, age_seconds) = (name.to_owned(), silence.as_secs());
        Ok(Some(Self { id, state, bytes, age_seconds, owner }))
    }
}

fn free_bytes(dir: &Dir) -> Option<u64> {
    space::free_bytes(dir).ok().filter(|free| *free < u64::MAX)
}

/// Nothing is written to ask the filesystem for its clock.
fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// What is from the future is as new as can be.
fn since(then: Duration) -> u64 {
    now().saturating_sub(then).as_secs()
}
