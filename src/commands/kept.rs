//! What becomes of a revision that lies on the volume and is not what the model directory shows; and the path
//! that a server is led to.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::Outcome;
use super::acquire::Acquired;
use super::link::ServerLink;
use super::shared::{Fetch, Wanted};
use super::verify;
use crate::Error;
use crate::cli::Model;
use crate::lock::{Lock, TryLock};
use crate::model::{Decision, Known, Sentinel, There, decide_with_kept, is_wanted_revision};
use crate::report::{Event, Progress};
use crate::volume::{Kept, Staging, Store, StoreError};

/// So long the lock is waited for to give a path to a directory of an earlier version.
const PATIENCE_WITH_THE_LOCK: Duration = Duration::from_secs(10);

impl Fetch<'_> {
    /// The link that `--link` asks for, if it can be made.
    pub(super) fn server_link(&self, model: &Model) -> Result<Option<ServerLink>, Error> {
        let Some(path) = &self.args.link else { return Ok(None) };
        let root = &model.destination.root;
        let volume = self.args.is_shared_root(root).then_some(root.as_path());
        let seen = self.args.link_root()?.unwrap_or_else(|| root.clone());
        let roots = vec![root.clone(), seen];
        ServerLink::open(path, &model.destination.path(), volume, roots).map(Some)
    }

    /// A pinned revision that is kept, without a request.
    pub(super) async fn pinned_and_kept(
        &self,
        wanted: Wanted<'_>,
        store: &Store,
        there: There<'_>,
    ) -> Result<Option<Outcome>, Error> {
        match self.kept_by_name(wanted, store, there, Known::Nothing)? {
            None => return Ok(None),
            Some((Decision::Beside, kept)) => {
                if !self.may_be_used(store, there, &kept)? {
                    return Ok(None);
                }
                if let Some(outcome) = self.beside(wanted, store, &kept)? {
                    return Ok(Some(outcome));
                }
            }
            // Under the lock, and looked at once more.
            Some(_) => {}
        }
        let progress = Arc::new(Progress::default());
        let store = wanted.store()?;
        match self.acquire(wanted, store, None, None, false, &progress).await? {
            Acquired::ToFetch { store, locks: _locks, .. } => {
                self.restored(wanted, &store, Known::Nothing)
            }
            Acquired::DoneByOther { store, sentinel } => {
                self.present(wanted, &store, &sentinel).map(Some)
            }
        }
    }

    /// Lets the directory show what is kept, if that is what is wanted. Under the lock.
    pub(super) fn restored(
        &self,
        wanted: Wanted<'_>,
        store: &Store,
        known: Known<'_>,
    ) -> Result<Option<Outcome>, Error> {
        let existing = store.existing()?;
        let Some((decided, kept)) = self.kept(wanted, store, existing.there(), known)? else {
            return Ok(None);
        };
        drop(existing);
        if decided == Decision::Beside {
            return self.beside(wanted, store, &kept);
        }
        self.check_expectation(wanted.model, &kept.sentinel.revision)?;
        if !store.show_again(&kept, &|staging| self.remove_kept(staging, store))? {
            return Ok(None);
        }
        let outcome = Outcome::of("restored", &store.path_to_load(&kept.sentinel), &kept.sentinel);
        let path = Some(store.path_of_kept(&kept.id));
        self.led_to(wanted, store, path, outcome).map(|outcome| Some(outcome.ended(wanted.started)))
    }

    /// The kept revision that is wanted, and what follows, if it may be used.
    pub(super) fn kept(
        &self,
        wanted: Wanted<'_>,
        store: &Store,
        there: There<'_>,
        known: Known<'_>,
    ) -> Result<Option<(Decision, Kept)>, Error> {
        let found = self.kept_by_name(wanted, store, there, known)?;
        match found {
            Some((_, kept)) if !self.may_be_used(store, there, &kept)? => Ok(None),
            found => Ok(found),
        }
    }

    /// Whether the bytes of a kept revision are right, where that is asked for, or where what was shown is gone
    /// or damaged: somebody may have removed what was wrong.
    fn may_be_used(&self, store: &Store, there: There<'_>, kept: &Kept) -> Result<bool, Error> {
        let is_trusted = matches!(there, There::Whole(_)) && !self.args.recheck;
        let at = store.path_of_kept(&kept.id);
        // Once: what was hashed before the lock is not hashed under it, where others wait.
        let sound = || self.sound.lock().unwrap_or_else(PoisonError::into_inner);
        if is_trusted || sound().contains(&at) {
            return Ok(true);
        }
        let is_sound = self.is_sound(store, kept)?;
        if is_sound {
            sound().push(at);
        }
        Ok(is_sound)
    }

    /// The same by what its sentinel says.
    pub(super) fn kept_by_name(
        &self,
        wanted: Wanted<'_>,
        store: &Store,
        there: There<'_>,
        known: Known<'_>,
    ) -> Result<Option<(Decision, Kept)>, Error> {
        let goal = wanted.goal;
        let mut decided = Decision::Ask;
        let kept = store.kept(
            &|head| is_wanted_revision(goal, &head.revision, known),
            &mut |kept: &Sentinel| {
                decided = decide_with_kept(goal, there, kept, known);
                matches!(decided, Decision::Beside | Decision::Restore)
            },
        )?;
        Ok(kept.map(|kept| (decided, kept)))
    }

    /// Whether the bytes of a kept revision are what its sentinel says.
    fn is_sound(&self, store: &Store, kept: &Kept) -> Result<bool, Error> {
        let at = store.path_of_kept(&kept.id);
        let (path, bytes) = (at.display().to_string(), kept.sentinel.total_bytes);
        self.screen.tell(&Event::Rechecking { path: path.clone(), bytes });
        let Some(files) = store.kept_files(&kept.id)? else { return Ok(false) };
        let bad = verify::damaged(&at, &files, &kept.sentinel, self.screen, self.stop, self.state)?;
        let Some((file, why)) = bad.first() else { return Ok(true) };
        self.screen.warn(&format!("`{path}` is damaged (`{file}`: {why}), and is not used"));
        Ok(false)
    }

    /// Leads the server to a kept revision; `None` if somebody has removed that meanwhile.
    fn beside(
        &self,
        wanted: Wanted<'_>,
        store: &Store,
        kept: &Kept,
    ) -> Result<Option<Outcome>, Error> {
        self.check_expectation(wanted.model, &kept.sentinel.revision)?;
        store.renew_kept(&kept.id)?;
        let outcome = Outcome::of("present", &store.path_to_load(&kept.sentinel), &kept.sentinel);
        let path = Some(store.path_of_kept(&kept.id));
        let outcome = self.led_to(wanted, store, path, outcome)?;
        if store.kept_dir(&kept.id)?.is_none() {
            return Ok(None);
        }
        Ok(Some(outcome.ended(wanted.started)))
    }

    /// Says where the revision of `sentinel` lies, which the directory shows, and leads the server there.
    pub(super) fn led(
        &self,
        wanted: Wanted<'_>,
        store: &Store,
        sentinel: &Sentinel,
        outcome: Outcome,
    ) -> Result<Outcome, Error> {
        let mut path = store.path_of_publication(sentinel)?;
        if path.is_none() && wanted.link.is_some() {
            path = self.made_path(wanted, store, sentinel);
        }
        self.led_to(wanted, store, path, outcome)
    }

    fn led_to(
        &self,
        wanted: Wanted<'_>,
        store: &Store,
        revision_path: Option<PathBuf>,
        mut outcome: Outcome,
    ) -> Result<Outcome, Error> {
        // Whoever asks for no signature is told of none: the record of another run can be forged.
        outcome.signed = outcome.signed.filter(|_| wanted.trust.is_some());
        if let Some(link) = wanted.link {
            let target = revision_path.clone().unwrap_or_else(|| store.family_path());
            let target = match self.args.link_root()? {
                Some(root) => store.seen_from(&root, &target),
                None => target,
            };
            link.lead_to(&target)?;
            outcome.link = Some(link.path().display().to_string());
            self.screen.tell(&Event::Linked {
                link: link.path().display().to_string(),
                target: target.display().to_string(),
            });
        }
        outcome.revision_path = revision_path.map(|path| path.display().to_string());
        Ok(outcome)
    }

    /// Gives a directory of an earlier version a path that never changes, if that can be.
    fn made_path(&self, wanted: Wanted<'_>, store: &Store, sentinel: &Sentinel) -> Option<PathBuf> {
        let made = if store.in_place { Ok(None) } else { self.try_to_make_path(wanted, sentinel) };
        let why = match made {
            Ok(Some(path)) => return Some(path),
            Ok(None) if store.in_place => "it is filled in place".to_owned(),
            Ok(None) => "this volume cannot give it one".to_owned(),
            Err(error) => error.to_string(),
        };
        self.screen.warn(&format!(
            "`{}` has no path that never changes ({why}), so the link leads to the directory itself, whose \
             content changes with the next update",
            store.family_path().display()
        ));
        None
    }

    fn try_to_make_path(
        &self,
        wanted: Wanted<'_>,
        sentinel: &Sentinel,
    ) -> Result<Option<PathBuf>, StoreError> {
        let started = Instant::now();
        loop {
            let store = wanted.store()?;
            self.beside.umask.settle(&store, self.screen);
            if let Some(path) = store.path_of_publication(sentinel)? {
                return Ok(Some(path));
            }
            match Lock::try_acquire(&store.make_state()?, &store.state_name(), "")? {
                TryLock::Busy if started.elapsed() < PATIENCE_WITH_THE_LOCK => {
                    std::thread::sleep(Duration::from_millis(200));
                }
                TryLock::Busy => return Ok(None),
                TryLock::Held(_) | TryLock::Unsupported(_) => {
                    store.become_link(sentinel)?;
                    return store.path_of_publication(sentinel);
                }
            }
        }
    }

    /// Removes the kept revisions that the user lets go. What cannot be removed is no failure of this run.
    pub(super) fn remove_kept(&self, staging: &Staging, store: &Store) {
        let Some(keep) = self.args.keep() else { return };
        match staging.remove_kept(store, keep) {
            Ok(removed) if removed.ids.is_empty() => {}
            Ok(removed) => self.screen.tell(&Event::RemovedRevisions {
                path: store.family_path().display().to_string(),
                revisions: removed.ids,
                bytes: removed.bytes,
            }),
            Err(error) => {
                self.screen.warn(&format!("kept revisions could not be removed: {error}"));
            }
        }
    }
}
