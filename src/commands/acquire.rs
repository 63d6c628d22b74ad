//! Who fetches, when several want the same model: acquires the lock of the volume and the Lease, or waits
//! for their holder.

use std::sync::Arc;

use super::shared::{Before, Fetch, Wanted, conflict, holder_status};
use super::waiter::{HolderWatch, VolumeLock};
use crate::Error;
use crate::cli::LockKind;
use crate::lock::cluster::{Busy, Candidate, DescribeProgress, HeldLease, TryLease};
use crate::lock::{HolderStatus, Lock, TryLock};
use crate::model::{Decision, Known, Sentinel, There, decide};
use crate::report::{Event, Progress};
use crate::volume::{Existing, Store};

/// What came of waiting for the lock.
pub(super) enum Acquired {
    /// We fetch: as the holder, or extra, beside one that is stuck or slow.
    ToFetch {
        store: Store,
        is_extra: bool,
        /// What was known of the source before may have changed since.
        has_waited: bool,
        locks: Locks,
    },
    /// Another process has published what is wanted.
    DoneByOther { store: Store, sentinel: Box<Sentinel> },
}

/// Released when dropped.
pub(super) struct Locks {
    _volume: VolumeLock,
    _lease: Option<HeldLease>,
}

/// What came of trying to acquire the Lease.
enum LeaseAnswer {
    /// No Lease is asked for, or the API server cannot be reached.
    WithoutLease,
    Held(HeldLease),
    Busy(Busy),
}

impl Fetch<'_> {
    /// Waits for the lock of the model directory, or for another process to publish the model.
    pub(super) async fn acquire(
        &self,
        wanted: Wanted<'_>,
        mut store: Store,
        before: Option<&Before>,
        revision: Option<&str>,
        may_take_over: bool,
        progress: &Arc<Progress>,
    ) -> Result<Acquired, Error> {
        let model = wanted.model;
        self.state.reads(&store.family_path());
        self.beside.umask.settle(&store, self.screen);
        self.warn_of_what_is_replaced(wanted, &store, before)?;
        let mut candidate = match self.args.lock {
            LockKind::File => None,
            LockKind::Kubernetes => {
                let name = self.args.lease_name.as_deref();
                let account = &self.args.service_account;
                Some(Candidate::new(&model.destination.family, name, account)?)
            }
        };
        let mut watch = HolderWatch::new(self);
        let mut is_told = false;
        let mut has_waited = false;
        let finished = |store: &Store| self.finished_by_other(wanted, store, before, revision);
        loop {
            let volume = self.try_volume_lock(&store, &mut is_told)?;
            // Looked at after the lock: the holder before us may have finished.
            store = wanted.store()?;
            if let Some(sentinel) = finished(&store)? {
                return Ok(Acquired::DoneByOther { store, sentinel });
            }
            if let Some(volume) = volume
                && watch.is_alone(&store, &volume)?
            {
                match self.try_lease(candidate.as_mut(), progress).await? {
                    LeaseAnswer::WithoutLease => {
                        self.tell_lock(&store, &volume, false);
                        let locks = Locks { _volume: volume, _lease: None };
                        return Ok(Acquired::ToFetch { store, is_extra: false, has_waited, locks });
                    }
                    LeaseAnswer::Held(lease) => {
                        // And after the Lease, which has its own holder before us.
                        store = wanted.store()?;
                        if let Some(sentinel) = finished(&store)? {
                            return Ok(Acquired::DoneByOther { store, sentinel });
                        }
                        self.tell_lock(&store, &volume, true);
                        let locks = Locks { _volume: volume, _lease: Some(lease) };
                        return Ok(Acquired::ToFetch { store, is_extra: false, has_waited, locks });
                    }
                    LeaseAnswer::Busy(busy) => watch.hears_of(&busy),
                }
            }
            if may_take_over && let Some(volume) = watch.take_over(&store)? {
                let locks = Locks { _volume: volume, _lease: None };
                return Ok(Acquired::ToFetch { store, is_extra: true, has_waited, locks });
            }
            watch.wait(&store).await?;
            has_waited = true;
        }
    }

    fn tell_lock(&self, store: &Store, volume: &VolumeLock, has_lease: bool) {
        let lock = match (volume.is_held(), has_lease) {
            (true, true) => "the lock of the volume and the Kubernetes Lease",
            (true, false) => "the lock of the volume",
            (false, true) => "the Kubernetes Lease, and no lock of the volume,",
            // Which was warned of.
            (false, false) => return,
        };
        let path = store.family_path().display().to_string();
        self.screen.tell(&Event::Locked { path, lock: lock.to_owned() });
    }

    fn warn_of_what_is_replaced(
        &self,
        wanted: Wanted<'_>,
        store: &Store,
        before: Option<&Before>,
    ) -> Result<(), Error> {
        let existing = store.existing()?;
        let damage = match (before.and_then(|before| before.damage.as_ref()), &existing) {
            (Some(damage), _) | (None, Existing::Damaged(_, damage)) => Some(damage),
            _ => None,
        };
        let (There::Whole(sentinel) | There::Damaged(sentinel)) = existing.there() else {
            return Ok(());
        };
        let path = store.family_path().display().to_string();
        let source = sentinel.source.clone();
        if !sentinel.is_of(&wanted.model.uri) {
            self.screen.tell(&Event::Replacing { path, source });
        } else if let Some(damage) = damage.cloned() {
            self.screen.tell(&Event::Damaged { path, source, damage });
        }
        Ok(())
    }

    /// What is wanted, if another process has published it.
    pub(super) fn finished_by_other(
        &self,
        wanted: Wanted<'_>,
        store: &Store,
        before: Option<&Before>,
        revision: Option<&str>,
    ) -> Result<Option<Box<Sentinel>>, Error> {
        let existing = self.existing(wanted, store)?;
        let There::Whole(sentinel) = existing.there() else { return Ok(None) };
        let expected = &wanted.model.expect_revision;
        if expected.as_ref().is_some_and(|it| *it != sentinel.revision)
            || before.is_some_and(|before| before.distrusts(sentinel))
        {
            return Ok(None);
        }
        let is_news = before.is_none_or(|it| !it.sentinel.is_same_publication(sentinel));
        let known = match revision {
            Some(revision) => Known::Revision(revision),
            // Published while we waited: as fresh as an answer of the source would be.
            None if is_news => Known::Revision(&sentinel.revision),
            None => Known::Nothing,
        };
        match (decide(wanted.goal, existing.there(), known), existing) {
            (Decision::Present, Existing::Complete(sentinel)) => Ok(Some(sentinel)),
            (Decision::Conflict, existing) => Err(conflict(wanted.model, store, existing.there())),
            _ => Ok(None),
        }
    }

    /// Tries once; `None` if another process has it.
    fn try_volume_lock(
        &self,
        store: &Store,
        is_told: &mut bool,
    ) -> Result<Option<VolumeLock>, Error> {
        let tried = store
            .make_state()
            .and_then(|state| Ok(Lock::try_acquire(&state, &store.state_name(), "")?));
        Ok(match tried? {
            TryLock::Held(lock) => Some(VolumeLock::Held { _lock: lock }),
            TryLock::Unsupported(why) => {
                if !std::mem::replace(is_told, true) {
                    self.screen.warn(&format!(
                        "this volume has no usable locks ({why}); replicas may fetch the same bytes"
                    ));
                }
                Some(VolumeLock::Unsupported)
            }
            TryLock::Busy => None,
        })
    }

    /// The Lease, if one is asked for and can be had; or who has it.
    async fn try_lease(
        &self,
        candidate: Option<&mut Candidate>,
        progress: &Arc<Progress>,
    ) -> Result<LeaseAnswer, Error> {
        let Some(candidate) = candidate else { return Ok(LeaseAnswer::WithoutLease) };
        let progress = progress.clone();
        let describe: DescribeProgress = Arc::new(move || {
            let HolderStatus { phase, done_bytes, worked_bytes, .. } = holder_status(&progress);
            format!("{done_bytes} bytes done, {worked_bytes} looked at, {phase}")
        });
        Ok(match candidate.try_acquire(&describe, self.screen).await? {
            TryLease::Held(lease) => LeaseAnswer::Held(lease),
            TryLease::Busy(busy) => LeaseAnswer::Busy(busy),
            TryLease::Unavailable(why) => {
                self.screen.warn(&format!(
                    "could not acquire the Kubernetes Lease ({why}); continuing with the volume \
                     lock only"
                ));
                LeaseAnswer::WithoutLease
            }
        })
    }
}
