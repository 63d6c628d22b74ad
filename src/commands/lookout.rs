//! Whether another process publishes what this one fetches: whoever was frozen, has lost its Lease or has taken
//! over beside a holder that goes on need not fetch what is there.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::shared::{Before, Fetch, Wanted};
use crate::Error;
use crate::engine::Stop;
use crate::model::{Decision, Known};
use crate::volume::{Stamp, Store};

/// A look costs a dozen system calls.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// So often what has changed is looked at in full again: this node's view of a volume may lag behind.
const IN_FULL_EVERY: u32 = 30;

/// Looks while one model is fetched.
pub(super) struct Lookout<'a> {
    fetch: &'a Fetch<'a>,
    pub wanted: Wanted<'a>,
    pub before: Option<&'a Before>,
    /// What the source holds, once it has said so: an older publication is not what is wanted.
    revision: OnceLock<String>,
    /// What lay there at first, and when it was looked last.
    first: Stamp,
    seen: Mutex<Stamp>,
    looks: AtomicU32,
    has_found: AtomicBool,
    /// What appears from now on may be ours, and not yet durable.
    is_over: AtomicBool,
}

impl<'a> Lookout<'a> {
    /// From now on; what is there in `store` does not do.
    pub fn new(
        fetch: &'a Fetch<'a>,
        wanted: Wanted<'a>,
        store: &Store,
        before: Option<&'a Before>,
    ) -> Self {
        let first = store.stamp().unwrap_or_default();
        Self {
            fetch,
            wanted,
            before,
            revision: OnceLock::new(),
            seen: Mutex::new(first.clone()),
            first,
            looks: AtomicU32::new(0),
            has_found: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
        }
    }

    /// Looks no more: from now on this process publishes by itself.
    pub fn end(&self) {
        self.is_over.store(true, SeqCst);
    }

    /// It has published nothing.
    pub fn go_on(&self) {
        self.is_over.store(false, SeqCst);
    }

    /// The source is at this revision.
    pub fn knows(&self, revision: &str) {
        let _ = self.revision.set(revision.to_owned());
    }

    /// The revision of the source, as far as it is known.
    pub fn revision(&self) -> Option<&str> {
        self.revision.get().map(String::as_str)
    }

    /// Whether another process has published what is wanted.
    pub fn has_found(&self) -> bool {
        self.has_found.load(SeqCst)
    }

    /// Does `work` unless another process publishes what is wanted; then the end is [`Error::Stopped`].
    pub async fn unless_published<T>(
        &self,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        tokio::select! {
            // First: after a pause both may be ready.
            biased;
            () = self.published() => Err(Error::Stopped),
            done = work => done,
        }
    }

    /// Returns when another process has published what is wanted.
    pub async fn published(&self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if self.look() {
                return;
            }
        }
    }

    /// The same for work that blocks this thread, which is to end when the stop that it is given is set.
    pub fn beside<T>(&self, work: impl FnOnce(&Stop) -> T) -> T {
        let stop = self.fetch.stop.part();
        // A pause of hours may lie behind us.
        if self.look() {
            stop.set();
        }
        std::thread::scope(|scope| {
            let (end, ended) = channel::<()>();
            let looks = {
                let stop = stop.clone();
                move || {
                    while ended.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
                        if self.look() {
                            stop.set();
                            return;
                        }
                    }
                }
            };
            // Where there can be no more threads, what another has published is found at the end.
            let _thread =
                std::thread::Builder::new().name("lookout".into()).spawn_scoped(scope, looks);
            let done = work(&stop);
            drop(end);
            done
        })
    }

    /// What cannot be looked at now has not been published now.
    pub fn look(&self) -> bool {
        if !self.has_found() && !self.is_over.load(SeqCst) && self.finds().unwrap_or_default() {
            self.has_found.store(true, SeqCst);
        }
        self.has_found()
    }

    /// Looks once more, in full: what was found may be gone again.
    pub fn finds_still(&self) -> bool {
        self.wanted.store().is_ok_and(|store| self.finds_in(&store).unwrap_or_default())
    }

    fn finds(&self) -> Result<bool, Error> {
        let store = self.wanted.store()?;
        let stamp = store.stamp()?;
        // To read a sentinel takes memory, and what lay there at first does not do.
        let is_in_full = stamp != self.first
            && self.looks.fetch_add(1, SeqCst) % IN_FULL_EVERY == IN_FULL_EVERY - 1;
        if !is_in_full && *self.seen.lock().unwrap_or_else(PoisonError::into_inner) == stamp {
            return Ok(false);
        }
        let found = self.finds_in(&store)?;
        // Only now: what could not be read is read again.
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = stamp;
        Ok(found)
    }

    fn finds_in(&self, store: &Store) -> Result<bool, Error> {
        let revision = self.revision();
        if self.fetch.finished_by_other(self.wanted, store, self.before, revision)?.is_some() {
            return Ok(true);
        }
        if self.wanted.goal.pin().is_none() {
            return Ok(false);
        }
        // Another pin may be shown by now, and ours be kept.
        let existing = store.existing()?;
        let kept = self.fetch.kept_by_name(self.wanted, store, existing.there(), Known::Nothing)?;
        Ok(kept.is_some_and(|(decided, _)| decided == Decision::Beside))
    }
}
