//! `weightlift fetch`: is it there? may I? what is missing? get it, prove it, publish it.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use super::acquire::Turn;
use super::ask::is_outage;
use super::{Outcome, announce, completeness};
use crate::Error;
use crate::cli::{FetchArgs, Model};
use crate::content::Source;
use crate::engine::{self, Proof, Stop};
use crate::error::Class;
use crate::lock::Report;
use crate::model::{
    RemoteFile, Selected, Sentinel, SentinelFile, Sha256, Snapshot, is_index, is_pickle, text,
};
use crate::net::http::{Deadlines, Http};
use crate::report::{Progress, Screen};
use crate::volume::{Existing, Published, Staging, Store, Surroundings};

/// A source is given this long in all before a complete copy of an earlier revision is used.
const PATIENCE_WITH_A_COPY: Duration = Duration::from_secs(50);

/// What all models of one run share.
pub struct Fetch<'a> {
    pub(super) args: &'a FetchArgs,
    deadlines: Deadlines,
    /// Made when a source is first asked: a warm start needs no roots and no client.
    http: OnceLock<Http>,
    pub(super) screen: &'a Screen,
    pub(super) stop: &'a Stop,
}

impl<'a> Fetch<'a> {
    pub fn new(args: &'a FetchArgs, screen: &'a Screen, stop: &'a Stop) -> Self {
        let usual = Deadlines::default();
        // One silent server must leave room for a second try.
        let first_byte = usual.first_byte.min(args.retry_timeout / 2).max(usual.connect / 10);
        let deadlines = Deadlines { stall: args.stall_timeout, first_byte, ..usual };
        Self { args, deadlines, http: OnceLock::new(), screen, stop }
    }

    pub(super) fn http(&self) -> Result<&Http, Error> {
        if let Some(http) = self.http.get() {
            return Ok(http);
        }
        let http = Http::new(self.deadlines)?;
        Ok(self.http.get_or_init(|| http))
    }

    /// Makes sure that `model` is on the volume.
    pub async fn model(&self, model: &Model) -> Result<Outcome, Error> {
        let started = Instant::now();
        let store = Store::open(model.destination.clone())?;
        let existing = store.existing()?;
        let known = match &existing {
            Existing::Complete(sentinel) if sentinel.is_for(&model.uri, &self.args.selection()) => {
                Some(sentinel.as_ref())
            }
            _ => None,
        };
        // A pinned revision that is complete: nobody needs to be asked.
        if let (Some(sentinel), Some(commit)) = (known, model.uri.pinned_commit())
            && sentinel.revision == commit
        {
            return self.present(model, &store, sentinel, started);
        }
        if let Some(variable) = self.offline_by(&model.uri) {
            return self.offline(variable, model, &store, known, started);
        }
        let mut source = self.source(&model.uri)?;
        let mut revision = None;
        if let Some(sentinel) = known {
            let patience = PATIENCE_WITH_A_COPY.min(self.args.retry_timeout);
            match self.ask_revision(source.as_ref(), patience, patience).await {
                Ok(current) if current == sentinel.revision => {
                    return self.present(model, &store, sentinel, started);
                }
                Ok(current) => revision = Some(current),
                Err(error) if is_outage(&error) && model.uri.pinned_commit().is_none() => {
                    self.screen.warn(&format!("{error}; using the last complete copy"));
                    return self.present(model, &store, sentinel, started);
                }
                Err(error) => return Err(error),
            }
        }
        let is_known = known.is_some();
        // Not kept while it is replaced: with very many files it is large.
        let before = match existing {
            Existing::Complete(sentinel) | Existing::Damaged(sentinel, _) => {
                Some(Sentinel { files: Vec::new(), left_out: Vec::new(), ..*sentinel })
            }
            Existing::Nothing => None,
        };
        let (mut may_take_over, mut has_waited) = (true, false);
        loop {
            let store = Store::open(model.destination.clone())?;
            let progress = Arc::new(Progress::default());
            let turn = self.turn(
                model,
                store,
                before.as_ref(),
                revision.as_deref(),
                may_take_over,
                &progress,
            );
            let (store, is_extra, _locks) = match turn.await? {
                Turn::Ours { store, is_extra, has_waited: now, lock, lease } => {
                    has_waited |= now;
                    (store, is_extra, (lock, lease))
                }
                Turn::DoneByOther { store, sentinel } => {
                    return self.present(model, &store, &sentinel, started);
                }
            };
            if has_waited {
                // It knows what it has once been told, which can be hours ago.
                source = self.source(&model.uri)?;
            }
            let filled = self.fill(model, &store, source.as_ref(), has_waited, progress, started);
            let error = match filled.await {
                Ok(outcome) => return Ok(outcome),
                Err(error) => self.with_what_is_held(error, &store),
            };
            if is_extra && error.class() == Class::NoSpace {
                // There is no room for two: the one who was first may still make it.
                self.screen.warn(&format!("{error}; waiting on"));
                may_take_over = false;
                continue;
            }
            // An outage in the middle of an update takes the copy away as little.
            if is_known
                && is_outage(&error)
                && model.uri.pinned_commit().is_none()
                && let Ok(Existing::Complete(sentinel)) = store.existing()
                && sentinel.is_for(&model.uri, &self.args.selection())
            {
                self.screen.warn(&format!("{error}; using the last complete copy"));
                return self.present(model, &store, &sentinel, started);
            }
            return Err(error);
        }
    }

    /// Fetches under the lock.
    async fn fill(
        &self,
        model: &Model,
        store: &Store,
        source: &dyn Source,
        has_waited: bool,
        progress: Arc<Progress>,
        started: Instant,
    ) -> Result<Outcome, Error> {
        let budget = self.args.retry_timeout;
        let bound = budget.saturating_mul(4) + Duration::from_secs(30);
        let revision = self.ask_revision(source, budget, bound).await?;
        self.check_expectation(model, &revision)?;
        if has_waited
            && let Existing::Complete(there) = store.existing()?
            && there.revision == revision
            && there.is_for(&model.uri, &self.args.selection())
        {
            return self.present(model, store, &there, started);
        }
        let snapshot = self.retried(budget, bound, || source.snapshot()).await?;
        for warning in source.warnings() {
            self.screen.warn(&warning);
        }
        let Snapshot { source_name, revision, files, refused } = snapshot;
        let selection = self.args.selection();
        let Selected { files, left_out, warnings, hint } = selection.apply(files, refused)?;
        warnings.iter().for_each(|warning| self.screen.warn(warning));
        // Who names one object wants that one.
        let is_part = completeness::is_one_object(&model.uri, &files);
        if !is_part && !completeness::has_index(&files) {
            self.check_names(&files, &left_out, &selection)?;
        }
        let pickles = self.check_pickles(&files)?;
        let snapshot = Snapshot::new(source_name, revision, Vec::new(), Vec::new());
        let mut staging = Staging::begin(store, &snapshot, files)?;
        progress.enter("looking at earlier attempts");
        let heartbeat = staging.heartbeat({
            let progress = progress.clone();
            Arc::new(move || report(&progress))
        })?;
        let outside = Surroundings {
            say: &|line| self.screen.say(&line),
            go_on: &|| !self.stop.is_set(),
            worked: &|bytes| _ = progress.worked_bytes.fetch_add(bytes, Relaxed),
        };
        let reused = staging.adopt(store, &outside)?;
        staging.clear_abandoned(store, &outside);
        let plan = staging.plan();
        if let Err(error) = staging.check_space(&plan) {
            drop(heartbeat);
            if reused == 0 {
                self.end(staging, store);
            }
            return Err(error.into());
        }
        self.screen.say(&announce::start(
            model,
            &snapshot,
            &plan,
            &left_out,
            staging.free_bytes()?,
        ));
        for line in announce::left_out(&left_out).into_iter().chain(hint) {
            self.screen.say(&line);
        }
        if let Some(pickles) = pickles {
            self.screen.warn(&pickles);
        }
        progress.enter("fetching");
        progress.total_bytes.store(plan.total_bytes(), Relaxed);
        progress.done_bytes.store(plan.total_bytes() - plan.missing_bytes(), Relaxed);
        progress.total_files.store(plan.files.len() as u64, Relaxed);
        let follower = self.screen.follow(progress.clone());
        let options = self.args.transfer_options();
        let http = self.http()?;
        // Blocks this thread: the transfer has threads of its own, signals have theirs.
        let run = |proofs, wanted: &dyn Fn(&RemoteFile) -> bool| {
            let (screen, stop) = (self.screen, self.stop);
            let (staging, plan) = (&staging, &plan);
            engine::run(
                source, http, staging, plan, &options, &progress, screen, stop, proofs, wanted,
            )
        };
        let mut proofs = vec![None; plan.files.len()];
        if !is_part && completeness::has_index(&plan.files) {
            proofs = run(proofs, &|file| is_index(file.path.as_str()))?;
            if let Err(error) = self.check_indexes(&staging, &plan.files, &left_out, &selection) {
                drop((follower, heartbeat));
                if reused == 0 {
                    self.end(staging, store);
                }
                return Err(error);
            }
        }
        let proofs = run(proofs, &|_| true)?;
        progress.enter("publishing");
        let files = finished_files(&plan.files, proofs);
        let sentinel = Sentinel::new(
            &model.uri,
            snapshot.source_name,
            snapshot.revision,
            selection,
            rfc3339(SystemTime::now()),
            files,
            left_out,
        );
        let fetched = progress.fetched_bytes.load(Relaxed);
        let published = staging.publish(store, &sentinel, self.args.allow_degraded)?;
        drop(heartbeat);
        drop(follower);
        self.end(staging, store);
        for warning in source.warnings() {
            self.screen.warn(&warning);
        }
        if let Published::Replaced { previous } = &published {
            self.screen.say(&format!(
                "the previous revision is kept at `{}`; remove it when no server reads it any more",
                previous.display()
            ));
        }
        let status = match published {
            Published::New | Published::ByOther => "fetched",
            Published::Replaced { .. } | Published::Refilled => "updated",
        };
        let mut outcome = Outcome::of(status, &store.family_path(), &sentinel);
        outcome.fetched_bytes = fetched;
        outcome.seconds = started.elapsed().as_secs_f64();
        outcome.summary = announce::end(&outcome, started.elapsed());
        Ok(outcome)
    }

    /// Where there is no space, says also what unfinished attempts of other models take.
    fn with_what_is_held(&self, mut error: Error, store: &Store) -> Error {
        if error.class() == Class::NoSpace
            && let Some(held) = store.held_by_others()
        {
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

    /// Drops the attempt. What is left over is swept by a later run.
    fn end(&self, staging: Staging, store: &Store) {
        if let Err(error) = staging.end(store) {
            self.screen.warn(&format!("the working area could not be cleaned up: {error}"));
        }
    }

    fn present(
        &self,
        model: &Model,
        store: &Store,
        sentinel: &Sentinel,
        started: Instant,
    ) -> Result<Outcome, Error> {
        self.check_expectation(model, &sentinel.revision)?;
        store.finish_publication()?;
        let mut outcome = Outcome::of("present", &store.family_path(), sentinel);
        let missed = sentinel.selection.missed(&sentinel.files, &sentinel.left_out);
        if let Some(warning) = announce::missed(&outcome.path, &missed) {
            self.screen.warn(&warning);
        }
        outcome.seconds = started.elapsed().as_secs_f64();
        outcome.summary = announce::end(&outcome, started.elapsed());
        Ok(outcome)
    }

    fn offline(
        &self,
        variable: &str,
        model: &Model,
        store: &Store,
        known: Option<&Sentinel>,
        started: Instant,
    ) -> Result<Outcome, Error> {
        let path = store.family_path();
        match known {
            Some(sentinel) if model.uri.pinned_commit().is_none() => {
                self.screen.warn(&format!("{variable} is set: using the last complete copy"));
                self.present(model, store, sentinel, started)
            }
            Some(sentinel) => Err(Error::NotFound(format!(
                "{variable} is set, and `{}` holds commit {} instead",
                path.display(),
                sentinel.revision
            ))),
            None => Err(Error::NotFound(format!(
                "{variable} is set, and `{}` holds no complete copy of {}",
                path.display(),
                model.uri
            ))),
        }
    }

    fn check_expectation(&self, model: &Model, revision: &str) -> Result<(), Error> {
        match &model.expect_revision {
            Some(expected) if expected != revision => Err(Error::Conflict(format!(
                "{} is at revision {revision}, --expect-revision says {}",
                model.uri,
                text::inert(expected, 64)
            ))),
            _ => Ok(()),
        }
    }

    /// The warning about files that can run code, if there are any and they are not refused.
    fn check_pickles(&self, files: &[RemoteFile]) -> Result<Option<String>, Error> {
        let pickles: Vec<&str> =
            files.iter().map(|file| file.path.as_str()).filter(|path| is_pickle(path)).collect();
        let Some(first) = pickles.first() else {
            return Ok(None);
        };
        let named = match pickles.len() {
            1 => format!("`{first}`"),
            count => format!("`{first}` and {} more", count - 1),
        };
        if self.args.deny_pickle {
            return Err(Error::Policy(format!(
                "{named} can run code when loaded, and --deny-pickle is set; leave out with --exclude"
            )));
        }
        Ok(Some(format!("{named} can run code when loaded; --deny-pickle refuses such files")))
    }
}

/// What the sentinel says of each file.
fn finished_files(files: &[RemoteFile], proofs: Vec<Option<Proof>>) -> Vec<SentinelFile> {
    let proofs = proofs.into_iter().map(|it| it.expect("without failure all files are proved"));
    let proved = files.iter().zip(proofs);
    proved
        .map(|(file, proof)| SentinelFile::new(file, Sha256(proof.sha256), proof.structure))
        .collect()
}

/// What those who wait are told about us.
pub(super) fn report(progress: &Progress) -> Report {
    Report {
        phase: progress.phase(),
        done_bytes: progress.done_bytes.load(Relaxed),
        total_bytes: progress.total_bytes.load(Relaxed),
        worked_bytes: progress.worked_bytes.load(Relaxed),
    }
}

fn rfc3339(time: SystemTime) -> String {
    let time = aws_smithy_types::DateTime::from(time);
    let seconds = aws_smithy_types::DateTime::from_secs(time.secs());
    seconds.fmt(aws_smithy_types::date_time::Format::DateTime).unwrap_or_default()
}
