//! What nothing on the volume needs any more: dead attempts, and kept revisions that the user lets go. What may go
//! is decided in `model`; here it is found and weighed, and nothing is changed.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use super::area::Area;
use super::attempts::{Sign, attempt_parts};
use super::existing::with_sentinel;
use super::layout::REVISIONS;
use super::leftover::{Found, Look, is_still, watch};
use super::staging::ATTEMPTS;
use super::survey::{FoundFamily, Survey};
use super::sweep::GONE;
use super::weigh::Weighed;
use super::{Store, StoreError, Surroundings};
use crate::fs::{Dir, NodeIdentity, filesystem, space};
use crate::lock::Owner;
use crate::lock::heartbeat::{STOPPED_AFTER, file_name};
use crate::model::abandoned::{Limits, Verdict, silence, verdict};
use crate::model::{Keep, LedBy, RevisionFacts, SENTINEL, Summary, is_pruned};

/// A heartbeat that was written less than this ago may be that of a fetch.
const HEARD_WITHIN: Duration = STOPPED_AFTER.saturating_mul(4);

/// What the user lets go.
#[derive(Clone, Debug)]
pub struct PruneRules {
    pub keep_revisions: usize,
    /// Only what has been of no use for so long.
    pub older_than: Option<Duration>,
    /// The families that are wanted, by their names below the root; `None` are all.
    pub named: Option<BTreeSet<String>>,
}

impl Default for PruneRules {
    fn default() -> Self {
        Self { keep_revisions: 1, older_than: None, named: None }
    }
}

impl PruneRules {
    fn keep(&self) -> Keep {
        Keep { revisions: self.keep_revisions, time: self.older_than.unwrap_or_default() }
    }
}

/// What a candidate is, in the order in which they go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Prunable {
    /// A removal that was cut off.
    Removal,
    Attempt,
    Revision,
    /// What a family shows that nobody wants any more, and its name with it.
    Family,
}

/// Something that may be removed.
#[derive(Debug)]
pub struct Candidate {
    pub what: Prunable,
    /// Its family, relative to the root.
    pub family: String,
    /// Its name in `revisions/` or `attempts/`.
    pub id: String,
    pub path: String,
    /// Of a revision, what its sentinel says.
    pub revision: Option<String>,
    /// Since it was replaced, or gave its last sign.
    pub age: Duration,
    pub(super) found: FoundFamily,
    /// `revisions` or `attempts`.
    pub(super) part: &'static str,
    /// Where nobody can tell whether somebody writes to it: how it looked.
    pub(super) sign: Option<Sign>,
}

/// Finds what may go, and removes it.
pub struct Pruner<'a> {
    pub survey: &'a Survey,
    pub rules: PruneRules,
    pub outside: &'a Surroundings<'a>,
    us: NodeIdentity,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Candidates {
    pub found: Vec<Candidate>,
    /// Families that are in use, and by whom.
    pub busy: Vec<(String, String)>,
    pub problems: Vec<String>,
}

impl<'a> Pruner<'a> {
    pub fn new(survey: &'a Survey, rules: PruneRules, outside: &'a Surroundings<'a>) -> Self {
        Self { survey, rules, outside, us: NodeIdentity::current() }
    }

    /// What may go, what is of least use first, then the oldest. Changes nothing.
    pub fn candidates(&self) -> Candidates {
        let mut all = Candidates::default();
        for family in self.survey.families() {
            if !(self.outside.go_on)() {
                break;
            }
            let mut found = Vec::new();
            if let Err(error) = self.of_family(&family, &mut found, &mut all.problems) {
                all.problems.push(error.to_string());
            }
            let busy = match self.survey.state(family.area) {
                Ok(Some(state)) if !found.is_empty() => {
                    self.busy(&state, &family.state_name, now()).unwrap_or_default()
                }
                _ => None,
            };
            match busy {
                Some(who) => all.busy.push((self.survey.name_of(&family), who)),
                None => all.found.extend(found),
            }
        }
        all.found.sort_by_key(|it| (it.what, Reverse(it.age)));
        all
    }

    /// Leaves out what gives a sign while we look; whether that could be done to the end.
    pub fn watch(&self, found: &mut Vec<Candidate>) -> bool {
        let (mut suspects, known) =
            std::mem::take(found).into_iter().partition(|it: &Candidate| it.sign.is_some());
        *found = known;
        let is_quiet = |it: &Candidate| match (self.dir_of(it), &it.sign) {
            (Ok(Some(dir)), Some(sign)) => is_still(&dir, &it.id, sign),
            _ => false,
        };
        let is_over = watch(&mut suspects, self.outside, is_quiet);
        let was_empty = suspects.is_empty();
        if is_over {
            found.append(&mut suspects);
            found.sort_by_key(|it| (it.what, Reverse(it.age)));
        }
        is_over || was_empty
    }

    /// Bytes that the removal of `candidate` frees, after that of all that were weighed before.
    pub fn weigh(&self, candidate: &Candidate, weighed: &mut Weighed) -> u64 {
        match self.dir_of(candidate) {
            Ok(Some(dir)) => dir.weigh(&candidate.id, weighed),
            _ => 0,
        }
    }

    /// Bytes that are free on its filesystem, where that tells.
    pub fn free_bytes(&self, candidate: &Candidate) -> Option<u64> {
        let base = self.survey.areas[candidate.found.area].at.open_inner().ok()??;
        space::free_bytes(&base).ok().filter(|free| *free < u64::MAX)
    }

    /// Number of the filesystem that it lies on.
    pub fn filesystem(&self, candidate: &Candidate) -> u64 {
        let base = self.survey.areas[candidate.found.area].at.open_inner();
        base.ok().flatten().and_then(|base| base.identity().ok()).map_or(0, |(device, _)| device)
    }

    fn of_family(
        &self,
        family: &FoundFamily,
        found: &mut Vec<Candidate>,
        problems: &mut Vec<String>,
    ) -> Result<(), StoreError> {
        let Some(state) = self.survey.state(family.area)? else { return Ok(()) };
        if let Some(own) = state.descend([REVISIONS, family.state_name.as_str()].into_iter())? {
            for name in own.names()?.into_iter().filter(|name| name.ends_with(GONE)) {
                let of = (Prunable::Removal, REVISIONS);
                found.push(self.candidate(family, of, &own, name, Duration::ZERO));
            }
            let store = family.store.as_ref().filter(|store| !store.in_place);
            if let Some(store) = store {
                self.revisions(family, store, &own, found)?;
                self.shown(family, store, &own, found)?;
            }
        }
        if let Some(attempts) = state.child(ATTEMPTS)? {
            self.attempts(family, state, &attempts, found, problems)?;
        }
        Ok(())
    }

    fn revisions(
        &self,
        family: &FoundFamily,
        store: &Store,
        own: &Dir,
        found: &mut Vec<Candidate>,
    ) -> Result<(), StoreError> {
        let now = now();
        for (newer, (id, since, summary)) in revisions(store, own)?.into_iter().enumerate() {
            let age = now.saturating_sub(since);
            if self.may_go(family, own, &id, newer, age) {
                let of = (Prunable::Revision, REVISIONS);
                let mut candidate = self.candidate(family, of, own, id, age);
                candidate.revision = Some(summary.revision);
                found.push(candidate);
            }
        }
        Ok(())
    }

    /// What the family shows, if nobody wants the family.
    fn shown(
        &self,
        family: &FoundFamily,
        store: &Store,
        own: &Dir,
        found: &mut Vec<Candidate>,
    ) -> Result<(), StoreError> {
        if self.is_named(family) {
            return Ok(());
        }
        let Some(id) = store.revision_id()? else { return Ok(()) };
        let Some(dir) = own.child(&id)? else { return Ok(()) };
        let age = now().saturating_sub(dir.modified_of(SENTINEL)?.unwrap_or_default());
        if self.may_go_as_shown(family, own, &id, age) {
            let mut candidate = self.candidate(family, (Prunable::Family, REVISIONS), own, id, age);
            let summary = with_sentinel(&dir, Summary::read).ok().flatten();
            candidate.revision = summary.map(|summary| summary.revision);
            found.push(candidate);
        }
        Ok(())
    }

    /// Whether the user wants the family. One whose name was cut may be one of those.
    fn is_named(&self, family: &FoundFamily) -> bool {
        let Some(named) = &self.rules.named else { return true };
        family.store.is_none() || named.contains(&self.survey.name_of(family))
    }

    /// A family that nobody wants and that is a directory of its own, or filled in place: it has no revision
    /// that could go by itself.
    pub fn unremovable(&self) -> Vec<String> {
        let is_directory = |family: &FoundFamily| {
            let store = family.store.as_ref().filter(|_| !self.is_named(family))?;
            let is_shown = store.in_place || !matches!(store.revision_id(), Ok(Some(_)));
            let dir = is_shown.then(|| store.family_dir().ok()).flatten().flatten()?;
            matches!(dir.kind(SENTINEL), Ok(Some(_))).then(|| self.survey.name_of(family))
        };
        self.survey.families().filter_map(|family| is_directory(&family)).collect()
    }

    pub(super) fn may_go_as_shown(
        &self,
        family: &FoundFamily,
        own: &Dir,
        id: &str,
        age: Duration,
    ) -> bool {
        let is_linked = self.survey.is_linked_by_others(&family.state_name, id);
        let led_by = if is_linked { LedBy::Link } else { LedBy::Family };
        let (is_shared, is_named) = (!filesystem::is_local(own), self.is_named(family));
        is_pruned(RevisionFacts { led_by, newer: 0, age, is_shared, is_named }, self.rules.keep())
    }

    fn attempts(
        &self,
        family: &FoundFamily,
        state: Dir,
        attempts: &Dir,
        found: &mut Vec<Candidate>,
        problems: &mut Vec<String>,
    ) -> Result<(), StoreError> {
        let area = self.area(family, state);
        let look = self.look(&area, attempts, now());
        for name in attempts.names()? {
            let attempt = name.strip_suffix(GONE).unwrap_or(&name);
            if attempt_parts(attempt).is_none_or(|(of, _)| of != family.state_name) {
                continue;
            }
            match look.at(&name) {
                Ok(Found::NotOurs) => {}
                Err(error) => problems.push(error.to_string()),
                Ok(Found::Gone) => {
                    let of = (Prunable::Removal, ATTEMPTS);
                    found.push(self.candidate(family, of, attempts, name, Duration::ZERO));
                }
                Ok(Found::Staging { facts, sign, .. }) => {
                    let verdict = verdict(facts, look.limits);
                    if verdict != Verdict::Keep {
                        let of = (Prunable::Attempt, ATTEMPTS);
                        let mut it = self.candidate(family, of, attempts, name, facts.silence);
                        it.sign = (verdict == Verdict::RemoveIfStill).then_some(sign);
                        found.push(it);
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) fn may_go(
        &self,
        family: &FoundFamily,
        own: &Dir,
        id: &str,
        newer: usize,
        age: Duration,
    ) -> bool {
        let is_linked = self.survey.is_linked(&family.state_name, id);
        let led_by = if is_linked { LedBy::Link } else { LedBy::Nothing };
        let is_shared = !filesystem::is_local(own);
        let is_named = self.is_named(family);
        let facts = RevisionFacts { led_by, newer, age, is_shared, is_named };
        is_pruned(facts, self.rules.keep())
    }

    /// Who fetches the family at the moment, if that can be. The lock is no proof: who fetches beside a holder
    /// that is stuck has another one.
    pub(super) fn busy(
        &self,
        state: &Dir,
        state_name: &str,
        now: Duration,
    ) -> Result<Option<String>, StoreError> {
        let Some(owners) = state.child("owners")? else { return Ok(None) };
        let heartbeat = file_name(state_name);
        let Some(owner) = Owner::read(&owners, &heartbeat) else { return Ok(None) };
        let last = owners.modified_of(&heartbeat)?.unwrap_or_default();
        let is_busy = silence(now, last) < HEARD_WITHIN && owner.may_be_at_work(state, false)?;
        Ok(is_busy.then(|| owner.describe()))
    }

    pub(super) fn area(&self, family: &FoundFamily, state: Dir) -> Area {
        let at = &self.survey.areas[family.area].at;
        let outer = (!at.parts.is_empty()).then(|| at.clone());
        Area { state, base: at.path(), outer, own: None }
    }

    pub(super) fn look<'b>(&'b self, area: &'b Area, attempts: &'b Dir, now: Duration) -> Look<'b> {
        let limits = Limits::of_prune(self.rules.older_than);
        Look { area, attempts, us: &self.us, limits, now }
    }

    fn candidate(
        &self,
        family: &FoundFamily,
        (what, part): (Prunable, &'static str),
        dir: &Dir,
        id: String,
        age: Duration,
    ) -> Candidate {
        Candidate {
            what,
            family: self.survey.name_of(family),
            path: dir.path_of(&id).display().to_string(),
            id,
            revision: None,
            age,
            found: family.clone(),
            part,
            sign: None,
        }
    }

    /// The directory that has the candidate in it.
    pub(super) fn dir_of(&self, candidate: &Candidate) -> Result<Option<Dir>, StoreError> {
        let family = &candidate.found;
        let Some(state) = self.survey.state(family.area)? else { return Ok(None) };
        let own = (candidate.part == REVISIONS).then_some(family.state_name.as_str());
        Ok(state.descend([candidate.part].into_iter().chain(own))?)
    }
}

impl Store {
    /// Bytes that `prune` would free in the working area of this store, as it is called without flags.
    pub fn prunable_bytes(&self) -> Result<u64, StoreError> {
        if self.in_place {
            return Ok(0);
        }
        let outside = Surroundings {
            say: &|_| (),
            go_on: &|| true,
            reads: &|_| (),
            worked: &|_| (),
            copied: &|_| (),
        };
        let survey = Survey::of_area(self)?;
        let pruner = Pruner::new(&survey, PruneRules::default(), &outside);
        let mut weighed = Weighed::default();
        let found = pruner.candidates().found;
        let bytes = found.iter().map(|it| pruner.weigh(it, &mut weighed));
        Ok(bytes.fold(0, u64::saturating_add))
    }
}

/// The whole revisions that a family does not show: name, since when, and what their sentinels say. What has
/// no sentinel is no revision: it neither counts nor goes.
pub(super) fn revisions(
    store: &Store,
    own: &Dir,
) -> Result<Vec<(String, Duration, Summary)>, StoreError> {
    let with_summary = |id: String, since| {
        let dir = own.child(&id).ok()??;
        let summary = with_sentinel(&dir, Summary::read).ok()??;
        let published = dir.modified_of(SENTINEL).ok()??;
        Some((published, (id, since, summary)))
    };
    let trees = store.kept_trees()?.into_iter();
    let mut found: Vec<_> = trees.filter_map(|tree| with_summary(tree.id, tree.since)).collect();
    // Clocks of filesystems are coarse: of two that were shown in one moment the later one was written later.
    found.sort_by_key(|(published, (_, since, _))| Reverse((*since, *published)));
    Ok(found.into_iter().map(|(_, revision)| revision).collect())
}

/// Where nothing may be written to ask.
pub(super) fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
