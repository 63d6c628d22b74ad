//! Waiting for another fetcher of the same family, without trusting that it is alive.

use std::time::{Duration, Instant};

use crate::Error;
use crate::engine::Stop;
use crate::lock::{Lock, Owner, STOPPED_AFTER, TryLock};
use crate::model::text;
use crate::report::Screen;
use crate::volume::{Store, StoreError};

/// How often a waiter says what it waits for.
const LINE_EVERY: Duration = Duration::from_secs(30);
/// Names of the locks under which waiters fetch beside a holder that makes no progress: at most so
/// many, however many wait.
const EXTRA_SLOTS: [&str; 2] = [".extra-1", ".extra-2"];

/// One wait, as long as it lasts.
pub struct Rest {
    lock_timeout: Duration,
    takeover_after: Duration,
    started: Instant,
    last_line: Option<Instant>,
    /// The holder's progress as last seen, and since when it has not moved by our own clock.
    seen: Option<(u64, u64, String, String)>,
    unmoved_since: Instant,
    /// The last heartbeat that was seen, and since when there has been no other.
    beat: Option<(String, u64)>,
    silent_since: Instant,
    holder: String,
    /// What the holder of a Lease tells of its progress.
    told: Option<(String, String)>,
}

impl Rest {
    pub fn new(lock_timeout: Duration, takeover_after: Duration) -> Self {
        let now = Instant::now();
        Self {
            lock_timeout,
            takeover_after,
            started: now,
            last_line: None,
            seen: None,
            unmoved_since: now,
            beat: None,
            silent_since: now,
            holder: "another fetcher of this model".into(),
            told: None,
        }
    }

    /// Says whom we wait for, then waits for about a second. Many waiters do not come at once.
    pub async fn wait(&mut self, store: &Store, screen: &Screen, stop: &Stop) -> Result<(), Error> {
        self.look(store)?;
        let waited = self.started.elapsed();
        if waited >= self.lock_timeout {
            return Err(StoreError::LockTimeout { waited, holder: self.holder.clone() }.into());
        }
        if self.last_line.is_none_or(|last| last.elapsed() >= LINE_EVERY) {
            self.last_line = Some(Instant::now());
            let left = text::duration(self.lock_timeout - waited);
            screen.say(&format!("waiting up to {left} for {}", self.holder));
        }
        let pause =
            Duration::from_millis(fastrand::u64(300..1_200)).min(self.lock_timeout - waited);
        tokio::select! {
            () = tokio::time::sleep(pause) => Ok(()),
            () = stop.wait() => Err(Error::Signal(0)),
        }
    }

    /// Whether nobody else is at work, for somebody who has got the lock, or finds that there is
    /// none: the heartbeat of another node must have been silent for a while.
    pub fn is_alone(&mut self, store: &Store, has_lock: bool) -> Result<bool, Error> {
        let Some(owner) = self.look(store)? else { return Ok(true) };
        Ok(self.silent_since.elapsed() >= STOPPED_AFTER
            || !owner.may_be_at_work(&store.make_state()?, has_lock)?)
    }

    /// The right to fetch beside a holder that has made no progress for too long, with a lock if the
    /// volume has any.
    pub fn take_over(
        &mut self,
        store: &Store,
        screen: &Screen,
    ) -> Result<Option<Option<Lock>>, Error> {
        self.look(store)?;
        if self.unmoved_since.elapsed() < self.takeover_after {
            return Ok(None);
        }
        for slot in EXTRA_SLOTS {
            let lock = match Lock::try_acquire(&store.make_state()?, &store.state_name(), slot)? {
                TryLock::Held(lock) => Some(lock),
                TryLock::Unsupported(_) => None,
                TryLock::Busy => continue,
            };
            screen.warn(&format!(
                "{} has made no progress for {}; fetching as well",
                self.holder,
                text::duration(self.takeover_after)
            ));
            return Ok(Some(lock));
        }
        Ok(None)
    }

    /// Somebody has the Lease, whose heartbeat may not be seen on this volume.
    pub fn hears_of(&mut self, holder: String, progress: String) {
        let told = Some((holder, progress));
        if self.told != told {
            self.told = told;
            self.unmoved_since = Instant::now();
        }
    }

    fn look(&mut self, store: &Store) -> Result<Option<Owner>, Error> {
        let Some(owner) = Owner::of(&store.make_state()?, &store.state_name())? else {
            if let Some((holder, _)) = &self.told {
                self.holder.clone_from(holder);
            }
            return Ok(None);
        };
        let beat = Some((owner.staging.clone(), owner.sequence));
        if self.beat != beat {
            self.beat = beat;
            self.silent_since = Instant::now();
        }
        let (bytes, worked, phase, staging) = owner.progress();
        let now = (bytes, worked, phase.to_owned(), staging.to_owned());
        if self.seen.as_ref() != Some(&now) {
            self.seen = Some(now);
            self.unmoved_since = Instant::now();
        }
        self.holder = owner.describe();
        Ok(Some(owner))
    }
}
