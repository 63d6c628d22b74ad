//! Removing what other runs have left and nobody will go on with, of any family in the same working
//! area. A fetch does it that has something to fetch, before it asks for space.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::abandoned::{Facts, Verdict, Writer, silence, verdict};
use super::adopt::is_gone;
use super::attempts::{Sign, attempt_parts, open_attempt};
use super::existing::with_sentinel;
use super::held::{Removed, Told, shown};
use super::journal::{self, JOURNAL};
use super::layout::{Destination, IN_PLACE, LINK};
use super::probe;
use super::settle::settle;
use super::staging::{ATTEMPTS, OWNER, Staging, TREE};
use super::sweep::{GONE, remove_attempt, remove_renamed};
use super::{Existing, Store, StoreError, Surroundings};
use crate::fs::{Dir, NodeIdentity, filesystem};
use crate::lock::heartbeat::{Owner, STOPPED_AFTER, file_name};
use crate::model::{ModelDir, SENTINEL, STATE_DIR, SentinelHead};

/// A working area, and the directory that it is for.
struct Area {
    state: Dir,
    base: PathBuf,
}

/// What lies under the name of an attempt.
enum Found {
    /// Half removed.
    Gone,
    Staging {
        facts: Facts,
        sign: Sign,
        /// Where it would be published, if that can be told.
        store: Option<Box<Store>>,
    },
    NotOurs,
}

impl Staging {
    /// Removes attempts that nobody will continue, and says how much that was. What cannot be removed
    /// stays, and is no failure of this run.
    pub fn clear_abandoned(&self, store: &Store, outside: &Surroundings<'_>) {
        let mut removed = Vec::new();
        let mut failed = None;
        for area in self.areas(store) {
            if let Err(error) = self.clear(&area, store, outside, &mut removed) {
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
        let root = &store.destination.root;
        let base = store.base_path();
        let mut areas = Vec::new();
        if store.in_place
            && let Ok(Some(above)) = store.root()
            && let Ok(Some(state)) = above.child(STATE_DIR)
            && let (Ok(theirs), Ok(ours)) = (state.identity(), self.state.identity())
            && theirs.0 == ours.0
            && theirs != ours
        {
            areas.push(Area { state, base: root.clone() });
        }
        if let Ok(state) = self.state.again() {
            areas.push(Area { state, base });
        }
        areas
    }

    fn clear(
        &self,
        area: &Area,
        own_store: &Store,
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
        for name in attempts.names()? {
            if name == self.id || !(outside.go_on)() {
                continue;
            }
            match look(&attempts, &name, now, area, own_store, &self.writer) {
                // What we may not look at is somebody else's.
                Ok(Found::NotOurs) | Err(_) => {}
                Ok(Found::Gone) => note(finish(&attempts, &name)),
                Ok(Found::Staging { facts, sign, store }) => match verdict(facts) {
                    Verdict::Keep => {}
                    Verdict::Remove => {
                        note(remove(area, &attempts, &name, &facts, store.as_deref()))
                    }
                    Verdict::RemoveIfStill => to_watch.push((name, facts, sign, store)),
                },
            }
        }
        if watch(&attempts, &mut to_watch, outside) {
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
            if verdict(facts) == Verdict::Remove && attempts.kind(&owner.staging)?.is_none() {
                owners.remove_file(&name)?;
            }
        }
        Ok(())
    }
}

/// What `name` is, and what is known of it.
fn look(
    attempts: &Dir,
    name: &str,
    now: Duration,
    area: &Area,
    own_store: &Store,
    us: &NodeIdentity,
) -> Result<Found, StoreError> {
    let (staging, is_gone) = match name.strip_suffix(GONE) {
        Some(staging) => (staging, true),
        None => (name, false),
    };
    let Some((state_name, _)) = attempt_parts(staging) else { return Ok(Found::NotOurs) };
    let Some(old) = open_attempt(attempts, name)? else { return Ok(Found::NotOurs) };
    if is_gone {
        return Ok(Found::Gone);
    }
    let header = journal::header(&old)?;
    let is_ours = match &header {
        Some(header) => header.family == state_name,
        None => holds_only_ours(&old)?,
    };
    if !is_ours {
        return Ok(Found::NotOurs);
    }
    let is_own = area.base == own_store.base_path() && state_name == own_store.state_name();
    let store =
        if is_own { Some(own_store.to_owned()) } else { store_of(area, own_store, state_name) };
    let sign = Sign::of(&old)?;
    let silence = silence(now, sign.last);
    let is_superseded = header.is_some()
        && !is_own
        && store.as_ref().is_some_and(|store| is_published_since(store, sign.last));
    let mut facts = Facts { writer: Writer::Gone, silence, is_superseded };
    // Whose lock is taken for a look only, and by nobody who has just begun.
    if verdict(facts) == Verdict::Remove {
        facts.writer = writer_of(us, &old, header.as_ref())?;
    }
    Ok(Found::Staging { facts, sign, store: store.map(Box::new) })
}

fn writer_of(
    us: &NodeIdentity,
    old: &Dir,
    header: Option<&journal::Header>,
) -> Result<Writer, StoreError> {
    if journal::is_held(old)? {
        return Ok(Writer::AtWork);
    }
    let is_gone = match header {
        Some(header) => is_gone(us, old, header)? == Some(true),
        // It has been without a line in its journal all the time.
        None => filesystem::is_local(old),
    };
    Ok(if is_gone { Writer::Gone } else { Writer::Unknown })
}

/// Whether the family has a complete revision that was written after `last_sign`.
fn is_published_since(store: &Store, last_sign: Duration) -> bool {
    let Ok(Some(family)) = store.family_dir() else { return false };
    let sealed = family.modified_of(SENTINEL).ok().flatten();
    sealed.is_some_and(|sealed| sealed > last_sign)
        && matches!(store.existing(), Ok(Existing::Complete(_)))
}

/// Removes those from `suspects` that give a sign while we look; whether that could be done to the end.
fn watch(
    attempts: &Dir,
    suspects: &mut Vec<(String, Facts, Sign, Option<Box<Store>>)>,
    outside: &Surroundings<'_>,
) -> bool {
    if suspects.is_empty() {
        return false;
    }
    (outside.say)(format!(
        "waiting {}s to be sure that what another node has left is not in use any more",
        STOPPED_AFTER.as_secs()
    ));
    let started = Instant::now();
    while started.elapsed() < STOPPED_AFTER && !suspects.is_empty() && (outside.go_on)() {
        std::thread::sleep(Duration::from_millis(500));
    }
    suspects.retain(|(name, _, sign, _)| {
        let old = open_attempt(attempts, name).ok().flatten();
        old.is_some_and(|old| Sign::of(&old).is_ok_and(|now| now == *sign))
    });
    (outside.go_on)()
}

/// Removes an attempt with its heartbeat. It stays where it may hold a finished revision and nobody can
/// tell which.
fn remove(
    area: &Area,
    attempts: &Dir,
    name: &str,
    facts: &Facts,
    store: Option<&Store>,
) -> Result<Option<Told>, StoreError> {
    let Some(old) = open_attempt(attempts, name)? else { return Ok(None) };
    let header = journal::header(&old)?;
    match (&header, store) {
        (Some(header), Some(store)) => settle(&area.state, store, &old, name, header)?,
        _ if old.kind(LINK)?.is_some() || holds_revision(&old, header.as_ref())? => {
            return Ok(None);
        }
        _ => {}
    }
    drop(old);
    let told = Told::of(attempts, name, Some(facts.silence));
    remove_attempt(attempts, name)?;
    if let Some((state_name, _)) = attempt_parts(name)
        && let Some(owners) = area.state.child("owners")?
    {
        let heartbeat = file_name(state_name);
        if Owner::read(&owners, &heartbeat).is_some_and(|owner| owner.staging == name) {
            owners.remove_file(&heartbeat)?;
        }
    }
    Ok(Some(told))
}

/// Goes on with a removal that was cut off.
fn finish(attempts: &Dir, name: &str) -> Result<Option<Told>, StoreError> {
    let told = Told::of(attempts, name, None);
    remove_renamed(attempts, name)?;
    // Where the filesystem holds on to a file that somebody has open, little has been done.
    Ok(attempts.kind(name)?.is_none().then_some(told))
}

/// Whether the tree is a finished one, and not the attempt's own.
fn holds_revision(old: &Dir, header: Option<&journal::Header>) -> Result<bool, StoreError> {
    let Some(tree) = old.child(TREE)? else { return Ok(false) };
    let inode = tree.identity()?.1;
    let is_own = header.is_some_and(|header| header.tree == inode);
    let is_finished = with_sentinel(&tree, SentinelHead::read).map_or(true, |head| head.is_some());
    Ok(is_finished && !is_own)
}

/// Whether a directory without a readable journal has nothing in it that an attempt of ours has not.
fn holds_only_ours(old: &Dir) -> Result<bool, StoreError> {
    const OURS: [&str; 4] = [TREE, JOURNAL, OWNER, LINK];
    let is_ours = |name: &String| {
        OURS.contains(&name.as_str())
            || name.starts_with(probe::OWN)
            || name.starts_with("owner.json.")
            || name.starts_with("publishing.json.")
            || filesystem::owns(name)
    };
    Ok(old.names()?.iter().all(is_ours))
}

/// Where the attempts of `state_name` in `area` are published, if the name was not cut.
fn store_of(area: &Area, own_store: &Store, state_name: &str) -> Option<Store> {
    if state_name == IN_PLACE {
        // Of the directory itself, or of a family of that name: who knows.
        return None;
    }
    let family = ModelDir::of_file_name(state_name)?;
    if area.base == own_store.destination.root {
        return Some(own_store.beside(family));
    }
    let destination = Destination { root: area.base.clone(), family };
    Some(Store::of(destination))
}
