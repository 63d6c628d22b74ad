//! Removing what other runs have left and nobody will go on with, of any family in the same working
//! area. A fetch does it that has something to fetch, before it asks for space.

use std::time::Duration;

use super::area::Area;
use super::attempts::attempt_parts;
use super::held::{Removed, Told, shown};
use super::leftover::{Found, Look, finish, is_still, remove, watch};
use super::staging::{ATTEMPTS, Staging};
use super::{Store, StoreError, Surroundings};
use crate::fs::Dir;
use crate::lock::heartbeat::Owner;
use crate::model::STATE_DIR;
use crate::model::abandoned::{Facts, Limits, Verdict, Writer, silence, verdict};

impl Staging {
    /// Removes attempts that nobody will continue, and says how much that was. What cannot be removed
    /// stays, and is no failure of this run.
    pub fn clear_abandoned(&self, store: &Store, outside: &Surroundings<'_>) {
        let mut removed = Vec::new();
        let mut failed = None;
        for area in self.areas(store) {
            if let Err(error) = self.clear(&area, outside, &mut removed) {
                failed = Some(error);
            }
        }
        let (own, others): (Vec<Told>, Vec<Told>) =
            removed.into_iter().partition(|told| told.family == shown(&self.state_name));
        for (told, whose) in [(own, "of this model"), (others, "of other models")] {
            if !told.is_empty() {
                (outside.say)(format!("removed {}", Removed { told: &told, whose }));
            }
        }
        if let Some(error) = failed {
            (outside.say)(format!(
                "warning: what an earlier run has left could not be removed: {error}"
            ));
        }
    }

    /// Our own working area; and that of the root, where a directory below it is filled in place. On
    /// another filesystem its clock would be another one.
    fn areas(&self, store: &Store) -> Vec<Area> {
        let mut areas = Vec::new();
        if store.in_place
            && let Ok(Some(above)) = store.root()
            && let Ok(Some(state)) = above.child(STATE_DIR)
            && let (Ok(theirs), Ok(ours)) = (state.identity(), self.state.identity())
            && theirs.0 == ours.0
            && theirs != ours
        {
            areas.push(Area::above(store, state));
        }
        if let Ok(state) = self.state.again() {
            areas.push(Area::of(store, state));
        }
        areas
    }

    fn clear(
        &self,
        area: &Area,
        outside: &Surroundings<'_>,
        removed: &mut Vec<Told>,
    ) -> Result<(), StoreError> {
        let Some(attempts) = area.state.child(ATTEMPTS)? else { return Ok(()) };
        let now = self.dir.modified()?;
        let mut failed = None;
        let mut note = |done: Result<Option<Told>, StoreError>| match done {
            Ok(told) => removed.extend(told),
            Err(error) => failed = Some(error),
        };
        let mut to_watch = Vec::new();
        let with =
            Look { area, attempts: &attempts, us: &self.writer, limits: Limits::OF_FETCH, now };
        for name in attempts.names()? {
            if name == self.id || !(outside.go_on)() {
                continue;
            }
            match with.at(&name) {
                // What we may not look at is somebody else's.
                Ok(Found::NotOurs) | Err(_) => {}
                Ok(Found::Gone) => note(finish(&attempts, &name)),
                Ok(Found::Staging { facts, sign, store }) => match verdict(facts, with.limits) {
                    Verdict::Keep => {}
                    Verdict::Remove => {
                        note(remove(area, &attempts, &name, &facts, store.as_deref()))
                    }
                    Verdict::RemoveIfStill => to_watch.push((name, facts, sign, store)),
                },
            }
        }
        if watch(&mut to_watch, outside, |(name, _, sign, _)| is_still(&attempts, name, sign)) {
            for (name, facts, _, store) in to_watch {
                note(remove(area, &attempts, &name, &facts, store.as_deref()));
            }
        }
        self.clear_heartbeats(area, &attempts, now)?;
        failed.map_or(Ok(()), Err)
    }

    /// Removes heartbeats that have stopped long ago and whose attempts are gone.
    fn clear_heartbeats(
        &self,
        area: &Area,
        attempts: &Dir,
        now: Duration,
    ) -> Result<(), StoreError> {
        let Some(owners) = area.state.child("owners")? else { return Ok(()) };
        for name in owners.names()? {
            let Some(family) = name.strip_suffix(".json") else { continue };
            let Some(owner) = Owner::read(&owners, &name) else { continue };
            let is_of_family = attempt_parts(&owner.staging).is_some_and(|(of, _)| of == family);
            if !is_of_family || owner.staging == self.id {
                continue;
            }
            let Some(last) = owners.modified_of(&name)? else { continue };
            let facts =
                Facts { writer: Writer::Gone, silence: silence(now, last), is_superseded: false };
            if verdict(facts, Limits::OF_FETCH) == Verdict::Remove
                && attempts.kind(&owner.staging)?.is_none()
            {
                owners.remove_file(&name)?;
            }
        }
        Ok(())
    }
}
