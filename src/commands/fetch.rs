//! `weightlift fetch`: is it there? may I? what is missing? Get it, or use what is there.

use std::sync::Arc;
use std::time::Instant;

use super::acquire::Acquired;
use super::run_state::Doing;
use super::shared::{Before, Fetch, Wanted, conflict, unexpected};
use super::{Outcome, Stale, announce, signature, verify};
use crate::Error;
use crate::cli::{IfStale, Model};
use crate::error::Class;
use crate::model::{Decision, Goal, Known, Message, Sentinel, There, decide, text};
use crate::report::{Event, Progress};
use crate::source::registry;
use crate::verify::signature::Trust;
use crate::volume::{AdoptedDir, Existing, Store};

impl Fetch<'_> {
    pub(super) fn goal<'a>(&self, model: &'a Model, trust: Option<&'a Trust>) -> Goal<'a> {
        Goal {
            uri: &model.uri,
            selection: &model.selection,
            may_be_stale: self.args.if_stale == IfStale::Use,
            replace: self.args.replace,
            compared: self.args.require_digests,
            signed: trust.map(Trust::accepted),
            linked: self.args.link.is_some(),
            locked: model.locked.as_deref(),
        }
    }

    /// Makes sure that `model` is on the volume.
    pub async fn model(&self, model: &Model) -> Result<Outcome, Error> {
        let trust = model.signed_by.as_ref().map(signature::trust).transpose()?;
        let trust = trust.as_ref();
        let (selection, goal) = (&model.selection, self.goal(model, trust));
        let started = Instant::now();
        self.state.reads(&model.destination.path());
        let link = self.server_link(model)?;
        let (adopt, missing) = self.adopted();
        let (link, adopt) = (link.as_ref(), adopt.as_slice());
        let wanted = Wanted { model, selection, goal, trust, link, adopt, started };
        let store = wanted.store()?;
        let (mut existing, is_distrusted) = self.looked_at(&store)?;
        if let Err(error) = self.verify_there(wanted, &store, &mut existing) {
            self.screen.warn(&format!("the copy that lies here does not count: {error}"));
        }
        let decided = match decide(goal, existing.there(), Known::Nothing) {
            Decision::Present => return self.present_as(wanted, &store, existing),
            // Unless a server can be led to what is asked for, whatever the directory shows.
            Decision::Conflict => {
                let kept = self.pinned_and_kept(wanted, &store, existing.there()).await?;
                return kept.ok_or_else(|| conflict(model, &store, existing.there()));
            }
            decided => decided,
        };
        debug_assert_eq!(decided, Decision::Ask);
        match (missing, existing.there()) {
            (None, _) => {}
            // It can have been removed after it had served: whoever has a whole copy goes on.
            (Some(missing), There::Whole(_)) => self.screen.warn(&missing.to_string()),
            (Some(missing), There::Nothing | There::Damaged(_)) => return Err(missing),
        }
        if goal.pin().is_some()
            && let Some(outcome) = self.pinned_and_kept(wanted, &store, existing.there()).await?
        {
            return Ok(outcome);
        }
        if let Some(error) = self.offline(wanted, &store, existing.there()) {
            return self.stale_or(error, wanted, &store, existing);
        }
        self.state.enter(Doing::Resolving(model.uri.to_string()));
        let mut source = self.ask.source(model)?;
        let mut revision = None;
        if let (There::Whole(there), None) = (existing.there(), goal.pin())
            && there.is_of(&model.uri)
        {
            let is_useful = decide(goal, existing.there(), Known::Refusal) == Decision::Stale;
            let budget = self.ask.budget();
            let patience = self.ask.patience_with_a_copy();
            let (budget, bound) =
                if is_useful { (patience, patience) } else { (budget, self.ask.bound()) };
            match self.ask.ask_revision(source.as_ref(), budget, bound).await {
                Err(error) => return self.stale_or(error, wanted, &store, existing),
                Ok(current) => {
                    let known = Known::Revision(&current);
                    if decide(goal, existing.there(), known) == Decision::Present {
                        return self.present_as(wanted, &store, existing);
                    }
                    revision = Some(current);
                }
            }
        }
        let damage = match &existing {
            Existing::Damaged(_, difference) if is_distrusted => Some(difference.clone()),
            _ => None,
        };
        let before = existing.into_head().map(|sentinel| Before { sentinel, damage });
        let (mut may_take_over, mut has_waited) = (true, false);
        loop {
            let store = wanted.store()?;
            let progress = Arc::new(Progress::default());
            let revision = revision.as_deref();
            let acquired =
                self.acquire(wanted, store, before.as_ref(), revision, may_take_over, &progress);
            let (store, is_extra, _locks) = match acquired.await {
                // The volume may be read-only, or full.
                Err(error) => return self.older_copy_or(error, wanted, before.as_ref()),
                Ok(Acquired::ToFetch { store, is_extra, has_waited: now, locks }) => {
                    has_waited |= now;
                    (store, is_extra, locks)
                }
                Ok(Acquired::DoneByOther { store, sentinel }) => {
                    return self.present(wanted, &store, &sentinel);
                }
            };
            self.state.enter(Doing::Resolving(model.uri.to_string()));
            if has_waited {
                // It knows what it has once been told, which can be hours ago.
                source = self.ask.source(model)?;
            }
            let filled =
                self.fill(wanted, &store, source.as_ref(), before.as_ref(), has_waited, progress);
            let error = match filled.await {
                Ok(Some(outcome)) => return Ok(outcome),
                // Another process has published it and taken it away again.
                Ok(None) => continue,
                Err(error) => self.with_what_is_held(error, &store),
            };
            self.ask.pass_on(source.as_ref());
            if is_extra && error.class() == Class::NoSpace {
                // There is no room for two: the one who was first may still make it.
                self.screen.warn(&format!("{error}; still waiting"));
                may_take_over = false;
                continue;
            }
            return self.older_copy_or(error, wanted, before.as_ref());
        }
    }

    /// The end of a run that could not fetch: the copy that lay there `before`, or the error. Not another one: of
    /// a copy that has appeared since, as ours may have, it is not known whether the disk has it.
    fn older_copy_or(
        &self,
        error: Error,
        wanted: Wanted<'_>,
        before: Option<&Before>,
    ) -> Result<Outcome, Error> {
        if !error.is_refusal() {
            return Err(error);
        }
        let Ok(store) = wanted.store() else { return Err(error) };
        let is_old = |there: &Sentinel| {
            before.is_some_and(|before| {
                before.damage.is_none() && before.sentinel.is_same_publication(there)
            })
        };
        match self.existing(wanted, &store).unwrap_or(Existing::Nothing) {
            Existing::Complete(sentinel) if !is_old(&sentinel) => Err(error),
            there => self.stale_or(error, wanted, &store, there),
        }
    }

    /// The directories that `--adopt` names, and what is wrong with those that cannot be used.
    fn adopted(&self) -> (Vec<AdoptedDir>, Option<Error>) {
        let (mut found, mut missing, mut error) = (Vec::new(), Vec::new(), None);
        for path in self.args.adopt.iter().filter(|path| !path.as_os_str().is_empty()) {
            match AdoptedDir::open(path) {
                Ok(Some(dir)) => found.push(dir),
                Ok(None) => {
                    missing.push(format!("`{}`", text::inert(&path.to_string_lossy(), 200)));
                }
                Err(other) => _ = error.get_or_insert(other.into()),
            }
        }
        let missing = match missing.as_slice() {
            [] => None,
            [one] => Some(Error::Unusable(
                Message::new(format!("{one}, which --adopt names, does not exist"))
                    .hint("mount it, correct the path, or leave --adopt out"),
            )),
            all => Some(Error::Unusable(
                Message::new(format!("{}, which --adopt names, do not exist", all.join(", ")))
                    .hint("mount them, correct the paths, or leave --adopt out"),
            )),
        };
        (found, missing.or(error))
    }

    /// What is there; with `--recheck` by its bytes, and whether those were found to be wrong.
    fn looked_at(&self, store: &Store) -> Result<(Existing, bool), Error> {
        let existing = store.existing()?;
        let Existing::Complete(sentinel) = existing else { return Ok((existing, false)) };
        if !self.args.recheck {
            return Ok((Existing::Complete(sentinel), false));
        }
        let path = store.family_path().display().to_string();
        self.screen.tell(&Event::Rechecking { path, bytes: sentinel.total_bytes });
        let Some(files) = store.shown_files(&sentinel)? else {
            return Ok((Existing::Nothing, false));
        };
        let at = store.family_path();
        let bad = verify::damaged(&at, &files, &sentinel, self.screen, self.stop, self.state)?;
        let Some((first, why)) = bad.first() else {
            return Ok((Existing::Complete(sentinel), false));
        };
        let more = match bad.len() {
            1 => String::new(),
            count => format!(", and {} more", count - 1),
        };
        Ok((Existing::Damaged(sentinel, format!("`{first}`: {why}{more}")), true))
    }

    /// The end of a run that a source has refused: the copy that is there, or the error.
    fn stale_or(
        &self,
        error: Error,
        wanted: Wanted<'_>,
        store: &Store,
        existing: Existing,
    ) -> Result<Outcome, Error> {
        let is_stale = error.is_refusal()
            && decide(wanted.goal, existing.there(), Known::Refusal) == Decision::Stale;
        let Existing::Complete(sentinel) = existing else { return Err(error) };
        if !is_stale || self.check_expectation(wanted.model, &sentinel.revision).is_err() {
            return Err(error);
        }
        let why = error.without_hint();
        let path = store.path_to_load(&sentinel);
        self.screen.tell(&Event::Stale {
            path: path.display().to_string(),
            source: sentinel.source.clone(),
            revision: sentinel.revision.clone(),
            why: why.clone(),
        });
        store.finish_publication()?;
        let outcome = Outcome::of("stale", &path, &sentinel);
        let mut outcome = self.led(wanted, store, &sentinel, outcome)?;
        outcome.stale = Some(Stale { why, since: sentinel.completed_at.clone() });
        Ok(outcome.ended(wanted.started))
    }

    /// Where there is no space, says also what unfinished attempts of other models take, and what `prune` can
    /// free.
    fn with_what_is_held(&self, mut error: Error, store: &Store) -> Error {
        if error.class() != Class::NoSpace {
            return error;
        }
        let prunable = store.prunable_bytes().unwrap_or_default();
        let prune = (prunable > 0).then(|| {
            let root = store.destination.root.display();
            format!("`weightlift prune --root {root}` can free {}", text::size(prunable))
        });
        let held: Vec<String> = store.held_by_others().into_iter().chain(prune).collect();
        if !held.is_empty() {
            let held = held.join("; ");
            let is_told = match &mut error {
                Error::Store(error) => error.with_what_is_held(&held),
                _ => false,
            };
            if !is_told {
                self.screen.warn(&held);
            }
        }
        error
    }

    pub(super) fn present_as(
        &self,
        wanted: Wanted<'_>,
        store: &Store,
        existing: Existing,
    ) -> Result<Outcome, Error> {
        match existing.there() {
            There::Whole(sentinel) => self.present(wanted, store, sentinel),
            There::Nothing | There::Damaged(_) => {
                Err(Error::Bug("an incomplete model was taken for complete".into()))
            }
        }
    }

    pub(super) fn present(
        &self,
        wanted: Wanted<'_>,
        store: &Store,
        sentinel: &Sentinel,
    ) -> Result<Outcome, Error> {
        self.check_expectation(wanted.model, &sentinel.revision)?;
        store.finish_publication()?;
        self.show_commit(store, sentinel)?;
        let outcome = Outcome::of("present", &store.path_to_load(sentinel), sentinel);
        let outcome = self.led(wanted, store, sentinel, outcome)?;
        let missed = sentinel.selection.missed(&sentinel.files, &sentinel.left_out);
        if let Some(warning) = announce::missed(&outcome.path, &missed) {
            self.screen.warn(&warning);
        }
        Ok(outcome.ended(wanted.started))
    }

    /// Lets the name in a cache lead there that a server asks for; where the volume is read-only, a server is
    /// told what to ask for.
    fn show_commit(&self, store: &Store, sentinel: &Sentinel) -> Result<(), Error> {
        let shown = store.cache_lacks_name(sentinel).and_then(|is_lacking| {
            if !is_lacking {
                return Ok(());
            }
            self.beside.umask.settle(store, self.screen);
            store.show_commit(sentinel)
        });
        match shown.map_err(Error::from) {
            Err(error) if error.class() == Class::Unusable => {
                self.screen.warn(&format!(
                    "{error}: no name of the cache leads to commit {0}; start the server with --revision {0}",
                    sentinel.revision
                ));
                Ok(())
            }
            shown => shown,
        }
    }

    pub(super) fn check_expectation(&self, model: &Model, revision: &str) -> Result<(), Error> {
        match &model.expect_revision {
            Some(expected) if expected != revision => {
                Err(unexpected(&model.uri, revision, "--expect-revision", expected))
            }
            _ => Ok(()),
        }
    }

    /// Why the source may not be asked, if that is so. With a lock file other places may be.
    pub(super) fn offline(
        &self,
        wanted: Wanted<'_>,
        store: &Store,
        there: There<'_>,
    ) -> Option<Error> {
        let model = wanted.model;
        if wanted.goal.locked.is_some() && !model.also.is_empty() {
            return None;
        }
        let variable = registry::offline_by(&model.uri)?;
        let path = store.family_path();
        let lenient = Goal { may_be_stale: true, ..wanted.goal };
        let uri = &model.uri;
        let what = match there {
            _ if decide(lenient, there, Known::Refusal) == Decision::Stale => {
                // The reason why the older copy is used.
                return Some(Error::NotFound(format!("{variable} is set").into()));
            }
            There::Whole(sentinel)
                if wanted.goal.pin().is_some_and(|it| it != sentinel.revision) =>
            {
                let revision = &sentinel.revision;
                format!(
                    "{variable} is set, and `{}` holds commit {revision} instead",
                    path.display()
                )
            }
            There::Whole(sentinel) if wanted.goal.compared && !sentinel.is_compared() => format!(
                "{variable} is set, --require-digests too, and `{}` holds files that could not be compared \
                 with a published digest",
                path.display()
            ),
            There::Whole(_) if wanted.goal.signed.is_some() => format!(
                "{variable} is set, and `{}` holds no copy that is signed as asked with all files that are asked for",
                path.display()
            ),
            There::Whole(_) => {
                format!(
                    "{variable} is set, and `{}` does not have all requested files",
                    path.display()
                )
            }
            There::Nothing | There::Damaged(_) => {
                format!(
                    "{variable} is set, and `{}` holds no complete copy of {uri}",
                    path.display()
                )
            }
        };
        let hint = format!("unset {variable} to fetch from the source");
        Some(Error::NotFound(Message::new(what).hint(hint)))
    }
}
