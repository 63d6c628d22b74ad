//! Removing what `prunable` has found, one by one, under the lock of its family: each is looked at again first.

use std::time::Duration;

use super::StoreError;
use super::keep::give_up;
use super::leftover::{Found, finish, is_still, remove};
use super::prunable::{Candidate, Prunable, Pruner, now, revisions};
use super::staging::ATTEMPTS;
use crate::fs::Dir;
use crate::lock::{Lock, TryLock};
use crate::model::SENTINEL;
use crate::model::abandoned::{Verdict, verdict};

/// What has become of a candidate.
#[derive(Debug)]
pub enum Pruned {
    /// So many bytes are free.
    Removed(u64),
    /// Its family is in use, by whom.
    Busy(String),
    /// It is not what it was: it stays, or somebody else has removed it.
    Stays,
    /// This user may not remove it.
    OfAnotherUser,
}

impl Pruner<'_> {
    /// Removes it, unless its family is in use or it must stay by now.
    pub fn remove(&self, candidate: &Candidate) -> Result<Pruned, StoreError> {
        let Candidate { found: family, id, .. } = candidate;
        let Some(state) = self.survey.state(family.area)? else { return Ok(Pruned::Stays) };
        let lock = Lock::try_acquire(&state, &family.state_name, "")?;
        if matches!(lock, TryLock::Busy) {
            return Ok(Pruned::Busy("another process has its lock".into()));
        }
        let now = clock(&state, &family.state_name).unwrap_or_else(now);
        if let Some(who) = self.busy(&state, &family.state_name, now)? {
            return Ok(Pruned::Busy(who));
        }
        let Some(dir) = self.dir_of(candidate)? else { return Ok(Pruned::Stays) };
        // It could be renamed, and not removed.
        if dir.is_closed(id) {
            return Ok(Pruned::OfAnotherUser);
        }
        let bytes = dir.bytes_below(id);
        let is_done = match (candidate.what, candidate.part) {
            (Prunable::Removal, ATTEMPTS) => finish(&dir, id)?.is_some(),
            (Prunable::Removal, _) => dir.remove_tree(id).map(|_| true)?,
            (Prunable::Attempt, _) => self.remove_attempt(candidate, state, &dir, now)?,
            (Prunable::Revision, _) => self.remove_revision(candidate, &dir, now)?,
            (Prunable::Family, _) => self.remove_family(candidate, &dir, now)?,
        };
        drop(lock);
        Ok(if is_done { Pruned::Removed(bytes) } else { Pruned::Stays })
    }

    fn remove_attempt(
        &self,
        candidate: &Candidate,
        state: Dir,
        attempts: &Dir,
        now: Duration,
    ) -> Result<bool, StoreError> {
        let area = self.area(&candidate.found, state);
        let look = self.look(&area, attempts, now);
        let Found::Staging { facts, store, .. } = look.at(&candidate.id)? else {
            return Ok(false);
        };
        let may_go = match (verdict(facts, look.limits), &candidate.sign) {
            (Verdict::Remove, _) => true,
            (Verdict::RemoveIfStill, Some(sign)) => is_still(attempts, &candidate.id, sign),
            (Verdict::RemoveIfStill, None) | (Verdict::Keep, _) => false,
        };
        Ok(may_go && remove(&area, attempts, &candidate.id, &facts, store.as_deref())?.is_some())
    }

    fn remove_revision(
        &self,
        candidate: &Candidate,
        own: &Dir,
        now: Duration,
    ) -> Result<bool, StoreError> {
        let Candidate { found: family, id, .. } = candidate;
        let Some(store) = &family.store else { return Ok(false) };
        let kept = revisions(store, own)?;
        let Some(newer) = kept.iter().position(|(kept, ..)| kept == id) else { return Ok(false) };
        let age = now.saturating_sub(kept[newer].1);
        if !self.may_go(family, own, id, newer, age) {
            return Ok(false);
        }
        let gone = give_up(own, id)?;
        // Where no lock keeps others out, they may show it since we have looked.
        if store.revision_id()?.as_ref() == Some(id) {
            own.rename(&gone, own, id)?;
            return Ok(false);
        }
        own.remove_tree(&gone)?;
        Ok(true)
    }

    /// First the name, so that nobody finds a model that is half there. What is killed between is a kept
    /// revision of a family that nobody wants: the next one removes it.
    fn remove_family(
        &self,
        candidate: &Candidate,
        own: &Dir,
        now: Duration,
    ) -> Result<bool, StoreError> {
        let Candidate { found: family, id, .. } = candidate;
        let Some(store) = &family.store else { return Ok(false) };
        let Some(dir) = own.child(id)? else { return Ok(false) };
        let age = now.saturating_sub(dir.modified_of(SENTINEL)?.unwrap_or_default());
        if store.revision_id()?.as_ref() != Some(id) || !self.may_go_as_shown(family, own, id, age)
        {
            return Ok(false);
        }
        let Some(parent) = store.parent()? else { return Ok(false) };
        parent.remove_file(store.destination.family.path().name())?;
        parent.sync()?;
        let gone = give_up(own, id)?;
        own.remove_tree(&gone)?;
        Ok(true)
    }
}

/// The time on the filesystem: its clock may differ from ours, and its files are dated by it.
fn clock(state: &Dir, state_name: &str) -> Option<Duration> {
    let locks = state.child("locks").ok()??;
    let name = format!("{state_name}.lock");
    locks.touch(&name).ok()?;
    locks.modified_of(&name).ok()?
}
