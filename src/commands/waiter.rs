//! Watches the holder of a model directory, without trusting that it is alive. What follows from what is
//! seen is decided in `lock::waiter`.

use std::time::{Duration, Instant};

use super::run_state::Doing;
use super::shared::Fetch;
use crate::Error;
use crate::lock::cluster::Busy;
use crate::lock::waiter::{Beat, Next, Patience, Waiter, Why};
use crate::lock::{Lock, Owner, TryLock};
use crate::model::text;
use crate::report::{Event, Holder, Waiting};
use crate::volume::Store;

/// How often a waiter says what it waits for.
const LINE_EVERY: Duration = Duration::from_secs(30);
/// Names of the locks under which waiters fetch beside a holder that is stuck or slow: at most as many as
/// these, however many wait.
const EXTRA_SLOTS: [&str; 2] = [".extra-1", ".extra-2"];

/// What keeps other processes out of a model directory as long as it is there.
pub(super) enum VolumeLock {
    Held {
        _lock: Lock,
    },
    /// The volume has no usable locks.
    Unsupported,
}

impl VolumeLock {
    pub fn is_held(&self) -> bool {
        matches!(self, Self::Held { .. })
    }
}

/// One wait for one model directory.
pub(super) struct HolderWatch<'a> {
    fetch: &'a Fetch<'a>,
    waiter: Waiter,
    holder: String,
    last_line: Option<Instant>,
    /// What a person at a terminal sees of the wait, once there is one.
    shown: Option<Waiting>,
}

impl<'a> HolderWatch<'a> {
    pub fn new(fetch: &'a Fetch<'a>) -> Self {
        let patience = Patience {
            lock_timeout: fetch.args.lock_timeout,
            takeover_after: fetch.args.takeover_after,
            takeover_rate: fetch.args.takeover_rate(),
        };
        Self {
            fetch,
            waiter: Waiter::new(Instant::now(), patience, fastrand::f64()),
            holder: "another fetcher of this model".into(),
            last_line: None,
            shown: None,
        }
    }

    /// Says for whom we wait, then waits for about a second. Many waiters do not come at once.
    pub async fn wait(&mut self, store: &Store) -> Result<(), Error> {
        let owner = self.look(store)?;
        let now = Instant::now();
        let unmoved = self.waiter.unmoved(now);
        if self.waiter.next_without_takeover(now) == Next::GiveUp {
            let holder = self.holder.clone();
            return Err(if self.fetch.args.lock_timeout.is_zero() {
                Error::Locked(holder)
            } else {
                Error::LockTimeout { holder, unmoved }
            });
        }
        self.fetch.state.enter(Doing::Waiting(self.holder.clone()));
        let left = self.waiter.gives_up_in(now);
        let has_bars = self.fetch.screen.has_bars();
        if self.last_line.is_none_or(|last| !has_bars && last.elapsed() >= LINE_EVERY) {
            self.last_line = Some(now);
            self.fetch.screen.tell(&Event::Waiting {
                holder: self.holder.clone(),
                without_progress: unmoved,
                gives_up_in: left,
                deadline_in: self.fetch.state.time_left(),
            });
        }
        let deadline_in = self.fetch.state.time_left().unwrap_or(left);
        self.show(owner.as_ref(), unmoved, left.min(deadline_in));
        let pause = Duration::from_millis(fastrand::u64(300..1_200)).min(left);
        tokio::select! {
            () = tokio::time::sleep(pause) => Ok(()),
            () = self.fetch.stop.wait() => Err(Error::Stopped),
        }
    }

    fn show(&mut self, owner: Option<&Owner>, without_progress: Duration, gives_up_in: Duration) {
        let name = owner.map_or_else(|| self.holder.clone(), Owner::name);
        let name = Some(&*name);
        let mut holder = Holder { name, without_progress, gives_up_in, ..Holder::default() };
        if let Some(owner) = owner {
            holder.phase = &owner.phase;
            (holder.done_bytes, holder.total_bytes) = (owner.done_bytes, owner.total_bytes);
        }
        self.shown.get_or_insert_with(|| self.fetch.screen.waiting()).show(&holder);
    }

    /// Whether no other process is at work, for one that has acquired `lock`: the heartbeat of another
    /// node must have been silent for a while.
    pub fn is_alone(&mut self, store: &Store, lock: &VolumeLock) -> Result<bool, Error> {
        let Some(owner) = self.look(store)? else { return Ok(true) };
        Ok(self.waiter.is_silent(Instant::now())
            || !owner.may_be_at_work(&store.make_state()?, lock.is_held())?)
    }

    /// The right to fetch beside a holder that is stuck or slow, if that is so.
    pub fn take_over(&mut self, store: &Store) -> Result<Option<VolumeLock>, Error> {
        self.look(store)?;
        let Next::FetchAsWell { why, extra_attempts } = self.waiter.next(Instant::now()) else {
            return Ok(None);
        };
        for slot in EXTRA_SLOTS.iter().take(extra_attempts) {
            let lock = match Lock::try_acquire(&store.make_state()?, &store.state_name(), slot)? {
                TryLock::Held(lock) => VolumeLock::Held { _lock: lock },
                TryLock::Unsupported(_) => VolumeLock::Unsupported,
                TryLock::Busy => continue,
            };
            self.fetch.screen.warn(&match why {
                Why::Stuck => format!(
                    "{} has made no progress for {}; fetching as well",
                    self.holder,
                    text::duration(self.fetch.args.takeover_after)
                ),
                Why::Slow { rate, left } => format!(
                    "{} fetches {}/s, {} left; fetching as well",
                    self.holder,
                    text::size(rate),
                    text::duration(left)
                ),
            });
            return Ok(Some(lock));
        }
        Ok(None)
    }

    /// Another pod has the Lease; its heartbeat may not be seen on this volume.
    pub fn hears_of(&mut self, busy: &Busy) {
        self.waiter.hears(Instant::now(), &busy.holder, &busy.progress);
    }

    fn look(&mut self, store: &Store) -> Result<Option<Owner>, Error> {
        let Some(owner) = Owner::of(&store.make_state()?, &store.state_name())? else {
            if let Some(holder) = self.waiter.lease_holder() {
                holder.clone_into(&mut self.holder);
            }
            return Ok(None);
        };
        self.waiter.sees(Instant::now(), &Beat::from(&owner));
        self.holder = owner.describe();
        Ok(Some(owner))
    }
}
