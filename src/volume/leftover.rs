//! One attempt that another run has left: what it is, whether somebody writes to it, and its removal.

use std::time::{Duration, Instant};

use super::adopt::is_gone;
use super::area::Area;
use super::attempts::{Sign, attempt_parts, open_attempt};
use super::existing::with_sentinel;
use super::held::Told;
use super::journal::{self, JOURNAL};
use super::layout::LINK;
use super::probe;
use super::settle::settle;
use super::staging::{OWNER, TREE};
use super::sweep::{GONE, remove_attempt, remove_renamed};
use super::{Existing, Store, StoreError, Surroundings};
use crate::fs::{Dir, NodeIdentity, filesystem};
use crate::lock::heartbeat::{Owner, STOPPED_AFTER, file_name};
use crate::model::abandoned::{Facts, Limits, Verdict, Writer, silence, verdict};
use crate::model::{SENTINEL, SentinelHead};

/// What lies under the name of an attempt.
pub(super) enum Found {
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

/// Looks at attempts of one working area.
pub(super) struct Look<'a> {
    pub area: &'a Area,
    pub attempts: &'a Dir,
    pub us: &'a NodeIdentity,
    pub limits: Limits,
    /// By the clock of the filesystem, if that could be asked.
    pub now: Duration,
}

impl Look<'_> {
    /// What `name` is, and what is known of it.
    pub fn at(&self, name: &str) -> Result<Found, StoreError> {
        let (staging, is_gone) = match name.strip_suffix(GONE) {
            Some(staging) => (staging, true),
            None => (name, false),
        };
        let Some((state_name, _)) = attempt_parts(staging) else { return Ok(Found::NotOurs) };
        let Some(old) = open_attempt(self.attempts, name)? else { return Ok(Found::NotOurs) };
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
        let own = self.area.own.as_ref().filter(|own| state_name == own.state_name());
        let is_own = own.is_some();
        let store = own.cloned().or_else(|| self.area.store_of(state_name));
        let sign = Sign::of(&old)?;
        let silence = silence(self.now, sign.last);
        let is_superseded = header.is_some()
            && !is_own
            && store.as_ref().is_some_and(|store| is_published_since(store, sign.last));
        let mut facts = Facts { writer: Writer::Gone, silence, is_superseded };
        // Whose lock is taken for a look only, and by nobody who has just begun.
        if verdict(facts, self.limits) == Verdict::Remove {
            facts.writer = self.writer_of(&old, header.as_ref(), silence)?;
        }
        Ok(Found::Staging { facts, sign, store: store.map(Box::new) })
    }

    fn writer_of(
        &self,
        old: &Dir,
        header: Option<&journal::Header>,
        silence: Duration,
    ) -> Result<Writer, StoreError> {
        if journal::is_held(old)? {
            return Ok(Writer::AtWork);
        }
        let is_gone = match header {
            Some(header) => is_gone(self.us, old, header)? == Some(true),
            // It has been without a line in its journal all the time.
            None => filesystem::is_local(old) && silence >= self.limits.unknown,
        };
        Ok(if is_gone { Writer::Gone } else { Writer::Unknown })
    }
}

/// Whether the family has a complete revision that was written after `last_sign`.
fn is_published_since(store: &Store, last_sign: Duration) -> bool {
    let Ok(Some(family)) = store.family_dir() else { return false };
    let sealed = family.modified_of(SENTINEL).ok().flatten();
    sealed.is_some_and(|sealed| sealed > last_sign)
        && matches!(store.existing(), Ok(Existing::Complete(_)))
}

/// Removes those from `suspects` that are not still while we look; whether that could be done to the end.
pub(super) fn watch<T>(
    suspects: &mut Vec<T>,
    outside: &Surroundings<'_>,
    is_still: impl Fn(&T) -> bool,
) -> bool {
    if suspects.is_empty() {
        return false;
    }
    (outside.say)(format!(
        "waiting {}s to be sure that no other node still uses what it has left",
        STOPPED_AFTER.as_secs()
    ));
    let started = Instant::now();
    while started.elapsed() < STOPPED_AFTER && (outside.go_on)() {
        std::thread::sleep(Duration::from_millis(500));
    }
    suspects.retain(is_still);
    (outside.go_on)()
}

/// Whether an attempt has not given a sign since `sign`.
pub(super) fn is_still(attempts: &Dir, name: &str, sign: &Sign) -> bool {
    let old = open_attempt(attempts, name).ok().flatten();
    old.is_some_and(|old| Sign::of(&old).is_ok_and(|now| now == *sign))
}

/// Removes an attempt with its heartbeat. It stays where it may hold a finished revision and nobody can
/// tell which.
pub(super) fn remove(
    area: &Area,
    attempts: &Dir,
    name: &str,
    facts: &Facts,
    store: Option<&Store>,
) -> Result<Option<Told>, StoreError> {
    let Some(old) = open_attempt(attempts, name)? else { return Ok(None) };
    // Another user's could be renamed, and not removed.
    if old.is_closed(".") {
        return Ok(None);
    }
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
    // First: once the attempt is gone, nobody knows any more whose heartbeat that is.
    if let Some((state_name, _)) = attempt_parts(name)
        && let Some(owners) = area.state.child("owners")?
    {
        let heartbeat = file_name(state_name);
        if Owner::read(&owners, &heartbeat).is_some_and(|owner| owner.staging == name) {
            owners.remove_file(&heartbeat)?;
        }
    }
    remove_attempt(attempts, name)?;
    Ok(Some(told))
}

/// Goes on with a removal that was cut off.
pub(super) fn finish(attempts: &Dir, name: &str) -> Result<Option<Told>, StoreError> {
    if attempts.is_closed(name) {
        return Ok(None);
    }
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
            || name.starts_with("cache-")
            || name.starts_with("owner.json.")
            || name.starts_with("publishing.json.")
            || filesystem::owns(name)
    };
    Ok(old.names()?.iter().all(is_ours))
}
