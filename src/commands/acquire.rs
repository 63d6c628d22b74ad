//! Who fetches, when several want the same model: the lock of the volume, the Lease, and patience.

use std::sync::Arc;

use super::fetch::{Before, Fetch, Wanted, conflict, report};
use super::waiter;
use crate::Error;
use crate::cli::LockKind;
use crate::lock::cluster::{Busy, Candidate, DescribeProgress, HeldLease, TryLease};
use crate::lock::{HolderStatus, Lock, TryLock};
use crate::model::{Decision, Known, Sentinel, There, decide};
use crate::report::Progress;
use crate::volume::{Existing, Store};

/// Whose turn it is.
pub(super) enum Turn {
    /// Ours, with the lock if the volume has any; extra, if beside somebody who has it.
    Ours {
        store: Store,
        is_extra: bool,
        /// What was known of the source before may have changed since.
        has_waited: bool,
        lock: Option<Lock>,
        lease: Option<HeldLease>,
    },
    DoneByOther {
        store: Store,
        sentinel: Box<Sentinel>,
    },
}

impl Fetch<'_> {
    /// Waits for the lock of the family, or for somebody else to finish.
    pub(super) async fn turn(
        &self,
        wanted: Wanted<'_>,
        mut store: Store,
        before: Option<&Before>,
        revision: Option<&str>,
        may_take_over: bool,
        progress: &Arc<Progress>,
    ) -> Result<Turn, Error> {
        let model = wanted.model;
        self.warn_of_what_is_replaced(wanted, &store, before)?;
        let mut leases = match self.args.lock {
            LockKind::File => None,
            LockKind::Kubernetes => {
                let name = self.args.lease_name.as_deref();
                Some(Candidate::new(&model.destination.family, name, &self.args.service_account)?)
            }
        };
        let mut rest = waiter::Rest::new(self.args.lock_timeout, self.args.takeover_after);
        let mut is_told = false;
        let mut has_waited = false;
        let finished = |store: &Store| self.finished_by_other(wanted, store, before, revision);
        loop {
            let lock = match Lock::try_acquire(&store.make_state()?, &store.state_name(), "")? {
                TryLock::Held(lock) => Some(Some(lock)),
                TryLock::Unsupported(why) => {
                    if !std::mem::replace(&mut is_told, true) {
                        self.screen.warn(&format!(
                            "this volume has no usable locks ({why}); replicas may fetch the same \
                             bytes"
                        ));
                    }
                    Some(None)
                }
                TryLock::Busy => None,
            };
            // Looked at after the lock: whoever held it before may have finished.
            store = Store::open(model.destination.clone())?;
            if let Some(sentinel) = finished(&store)? {
                return Ok(Turn::DoneByOther { store, sentinel });
            }
            if let Some(lock) = lock
                && rest.is_alone(&store, lock.is_some())?
            {
                match self.lease(leases.as_mut(), progress).await? {
                    Ok(lease) => {
                        // And after the Lease, which has its own holder before us.
                        if lease.is_some() {
                            store = Store::open(model.destination.clone())?;
                            if let Some(sentinel) = finished(&store)? {
                                return Ok(Turn::DoneByOther { store, sentinel });
                            }
                        }
                        return Ok(Turn::Ours { store, is_extra: false, has_waited, lock, lease });
                    }
                    Err(Busy { holder, progress }) => rest.hears_of(holder, progress),
                }
            }
            if may_take_over && let Some(lock) = rest.take_over(&store, self.screen)? {
                return Ok(Turn::Ours { store, is_extra: true, has_waited, lock, lease: None });
            }
            rest.wait(&store, self.screen, self.stop).await?;
            has_waited = true;
        }
    }

    fn warn_of_what_is_replaced(
        &self,
        wanted: Wanted<'_>,
        store: &Store,
        before: Option<&Before>,
    ) -> Result<(), Error> {
        let path = store.family_path().display().to_string();
        let existing = store.existing()?;
        let damage = match (before.and_then(|before| before.damage.as_ref()), &existing) {
            (Some(damage), _) | (None, Existing::Damaged(_, damage)) => Some(damage),
            _ => None,
        };
        let (There::Whole(sentinel) | There::Damaged(sentinel)) = existing.there() else {
            return Ok(());
        };
        let holds = &sentinel.source;
        if !sentinel.is_of(&wanted.model.uri) {
            self.screen.warn(&format!("`{path}` holds {holds} and will be replaced"));
        } else if let Some(damage) = damage {
            self.screen.warn(&format!("`{path}` is damaged ({damage}); fetching {holds} again"));
        }
        Ok(())
    }

    /// What is wanted, if another process has published it.
    fn finished_by_other(
        &self,
        wanted: Wanted<'_>,
        store: &Store,
        before: Option<&Before>,
        revision: Option<&str>,
    ) -> Result<Option<Box<Sentinel>>, Error> {
        let existing = store.existing()?;
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

    /// The Lease, if one is asked for and can be had; or who has it.
    async fn lease(
        &self,
        leases: Option<&mut Candidate>,
        progress: &Arc<Progress>,
    ) -> Result<Result<Option<HeldLease>, Busy>, Error> {
        let Some(leases) = leases else { return Ok(Ok(None)) };
        let progress = progress.clone();
        let describe: DescribeProgress = Arc::new(move || {
            let HolderStatus { phase, done_bytes, worked_bytes, .. } = report(&progress);
            format!("{done_bytes} bytes done, {worked_bytes} looked at, {phase}")
        });
        Ok(match leases.try_acquire(&describe, self.screen).await? {
            TryLease::Held(lease) => Ok(Some(lease)),
            TryLease::Busy(busy) => Err(busy),
            TryLease::Unavailable(why) => {
                self.screen.warn(&format!(
                    "could not acquire the Kubernetes Lease ({why}); continuing with the volume lock only"
                ));
                Ok(None)
            }
        })
    }
}
