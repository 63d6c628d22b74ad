//! Whether another process publishes what this one fetches: whoever was frozen, has lost its Lease or has taken
//! over beside a holder that goes on need not fetch what is there.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::shared::{Before, Fetch, Wanted};
use crate::Error;
use crate::engine::{Stop, Vigil};
use crate::model::{Decision, Known};
use crate::volume::{Stamp, Store};

/// A look costs a dozen system calls.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Looks while one model is fetched.
pub(super) struct Lookout<'a> {
    fetch: &'a Fetch<'a>,
    wanted: Wanted<'a>,
    before: Option<&'a Before>,
    /// What lay there when it was looked last.
    seen: Mutex<Stamp>,
    has_found: AtomicBool,
}

impl<'a> Lookout<'a> {
    /// From now on; what is there in `store` does not do.
    pub fn new(
        fetch: &'a Fetch<'a>,
        wanted: Wanted<'a>,
        store: &Store,
        before: Option<&'a Before>,
    ) -> Self {
        let seen = Mutex::new(store.stamp().unwrap_or_default());
        Self { fetch, wanted, before, seen, has_found: AtomicBool::new(false) }
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
        let (stop, vigil) = self.fetch.stop.watched_part();
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
                        self.look_at(&vigil, &stop);
                    }
                }
            };
            let thread = std::thread::Builder::new().name("lookout".into());
            let done = match thread.spawn_scoped(scope, looks) {
                Ok(_) => work(&stop),
                // There can be no more threads: what another has published is found at the end.
                Err(_) => work(self.fetch.stop),
            };
            drop(end);
            done
        })
    }

    fn look_at(&self, vigil: &Vigil, stop: &Stop) {
        let look = || {
            if self.look() {
                stop.set();
            }
            Instant::now()
        };
        // Twice at most: what is not late is no routine.
        if vigil.look(Instant::now(), look) {
            vigil.look(Instant::now(), look);
        }
    }

    /// What cannot be looked at now has not been published now.
    fn look(&self) -> bool {
        if !self.has_found() && self.finds().unwrap_or_default() {
            self.has_found.store(true, SeqCst);
        }
        self.has_found()
    }

    fn finds(&self) -> Result<bool, Error> {
        let store = self.wanted.store()?;
        let stamp = store.stamp()?;
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if *seen == stamp {
                return Ok(false);
            }
            *seen = stamp;
        }
        if self.fetch.finished_by_other(self.wanted, &store, self.before, None)?.is_some() {
            return Ok(true);
        }
        if self.wanted.goal.pin().is_none() {
            return Ok(false);
        }
        // Another pin may be shown by now, and ours be kept.
        let existing = store.existing()?;
        let kept = self.fetch.kept(self.wanted, &store, existing.there(), Known::Nothing)?;
        Ok(kept.is_some_and(|(decided, _)| decided == Decision::Beside))
    }
}
