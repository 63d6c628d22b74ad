//! Who fetches, when several want the same model: the lock of the volume, the Lease, and patience.

use std::sync::Arc;

use super::fetch::{Fetch, report};
use super::waiter;
use crate::Error;
use crate::cli::{LockKind, Model};
use crate::lock::cluster::{self, Busy, Lease, Leases, TryLease};
use crate::lock::{Lock, Report, TryLock};
use crate::model::Sentinel;
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
        lease: Option<Lease>,
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
        model: &Model,
        mut store: Store,
        before: Option<&Sentinel>,
        wanted: Option<&str>,
        may_take_over: bool,
        progress: &Arc<Progress>,
    ) -> Result<Turn, Error> {
        let selection = self.args.selection();
        if let Existing::Damaged(sentinel, difference) = &store.existing()? {
            self.screen.warn(&format!(
                "`{}` is damaged ({difference}); fetching {} again",
                store.family_path().display(),
                sentinel.source
            ));
        } else if let Some(sentinel) = before.filter(|s| s.source != model.uri.source_name()) {
            self.screen.warn(&format!(
                "`{}` holds {} and will be replaced",
                store.family_path().display(),
                sentinel.source
            ));
        }
        let mut leases = match self.args.lock {
            LockKind::File => None,
            LockKind::Kubernetes => {
                let name = self.args.lease_name.as_deref();
                Some(Leases::new(&model.destination.family, name, &self.args.service_account)?)
            }
        };
        let mut rest = waiter::Rest::new(self.args.lock_timeout, self.args.takeover_after);
        let mut is_told = false;
        let mut has_waited = false;
        let finished = |store: &Store| -> Result<Option<Box<Sentinel>>, Error> {
            let Existing::Complete(sentinel) = store.existing()? else { return Ok(None) };
            if model.expect_revision.as_ref().is_some_and(|it| *it != sentinel.revision) {
                return Ok(None);
            }
            let is_news = before.is_none_or(|it| !it.is_same_publication(&sentinel));
            let is_wanted = match (model.uri.pinned_commit(), wanted) {
                (Some(commit), _) => sentinel.revision == commit,
                (None, Some(wanted)) => sentinel.revision == wanted,
                // Published while we waited: as fresh as an answer of the source would be.
                (None, None) => is_news,
            };
            Ok((is_wanted && sentinel.is_for(&model.uri, &selection)).then_some(sentinel))
        };
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

    /// The Lease, if one is asked for and can be had; or who has it.
    async fn lease(
        &self,
        leases: Option<&mut Leases>,
        progress: &Arc<Progress>,
    ) -> Result<Result<Option<Lease>, Busy>, Error> {
        let Some(leases) = leases else { return Ok(Ok(None)) };
        let progress = progress.clone();
        let report: cluster::Report = Arc::new(move || {
            let Report { phase, done_bytes, worked_bytes, .. } = report(&progress);
            format!("{done_bytes} bytes done, {worked_bytes} looked at, {phase}")
        });
        Ok(match leases.try_acquire(&report, self.screen).await? {
            TryLease::Held(lease) => Ok(Some(lease)),
            TryLease::Busy(busy) => Err(busy),
            TryLease::Unavailable(why) => {
                self.screen.warn(&format!(
                    "the Kubernetes API gives no Lease ({why}); going on with the lock of the volume"
                ));
                Ok(None)
            }
        })
    }
}
