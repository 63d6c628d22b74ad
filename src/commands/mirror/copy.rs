//! A copy: what has the source, what lies in the bucket, and the rest.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Instant, SystemTime};

use tokio::runtime::Runtime;

use super::super::shared::unexpected;
use super::beside;
use super::job::{Proved, Task};
use super::plan::{self, Plan};
use super::shared::Mirror;
use crate::Error;
use crate::cli::MirrorModel;
use crate::commands::run_state::Doing;
use crate::commands::several::runtime;
use crate::commands::{Outcome, announce, completeness, digests};
use crate::content::Source;
use crate::engine::Proof;
use crate::model::{
    Completeness, LeftOut, Locked, Message, RemoteFile, Selected, Selection, Sentinel,
    SentinelFile, Snapshot, SourceUri, is_index,
};
use crate::report::{Event, Progress, rfc3339};
use crate::source::{Sink, registry};

/// What is to be in the bucket.
pub struct Resolved {
    /// Where it was asked for.
    pub uri: SourceUri,
    /// Has pinned `snapshot`, and is read from.
    pub source: Arc<dyn Source>,
    pub snapshot: Snapshot,
    pub selection: Selection,
    /// What a lock file says that it is.
    pub locked: Option<Arc<Locked>>,
}

impl Mirror<'_> {
    /// Makes the prefix of `model` hold what its source does, or checks what it holds.
    pub fn model(&self, model: &MirrorModel) -> Result<Outcome, Error> {
        let started = Instant::now();
        let sink = Arc::new(Sink::open(&model.target, &self.args.source.s3(false), &self.http)?);
        let place = sink.place();
        self.state
            .enter(Doing::Resolving(model.source.as_ref().map_or(place, |it| it.to_string())));
        let outcome = match &model.source {
            None => self.check(model, &sink),
            Some(uri) => self.resolve(uri, model).and_then(|what| self.copy(what, &sink)),
        };
        self.pass_on(&sink.warnings());
        Ok(outcome?.ended(started))
    }

    /// Pins the source and lists it.
    fn resolve(&self, uri: &SourceUri, model: &MirrorModel) -> Result<Resolved, Error> {
        let is_elsewhere = model.locked.is_some() && !model.also.is_empty();
        if let Some(variable) = registry::offline_by(uri)
            && !is_elsewhere
        {
            return Err(Error::NotFound(
                Message::new(format!("{variable} is set, but {uri} must be contacted"))
                    .hint(format!("unset {variable}")),
            ));
        }
        let source = self.ask.open(uri, &model.also, &model.selection, model.locked.as_deref())?;
        let runtime = runtime()?;
        let revision = runtime.block_on(self.retried(|| source.revision()))?;
        self.pass_on(&source.warnings());
        if let Some(expected) = model.expect_revision.as_ref().filter(|it| **it != revision) {
            return Err(unexpected(uri, &revision, "--expect-revision", expected));
        }
        let snapshot = runtime.block_on(self.retried(|| source.snapshot()))?;
        self.pass_on(&source.warnings());
        let source = Arc::from(source);
        let (selection, locked) = (model.selection.clone(), model.locked.clone());
        Ok(Resolved { uri: uri.clone(), source, snapshot, selection, locked })
    }

    /// Copies what is resolved.
    pub fn copy(&self, what: Resolved, sink: &Arc<Sink>) -> Result<Outcome, Error> {
        let Resolved { uri, source, snapshot, selection, locked } = what;
        let Snapshot { source_name, revision, files, refused } = snapshot;
        let Selected { files, left_out, warnings, hint } = match &locked {
            Some(locked) => locked.select(files, refused)?,
            None => selection.apply(files, refused)?,
        };
        self.pass_on(&warnings);
        let runtime = runtime()?;
        let at_last = |files: Vec<SentinelFile>, left_out: Vec<LeftOut>, at: String| {
            let (name, revision) = (source_name.clone(), revision.clone());
            let new = Sentinel::new(&uri, name, revision, selection.clone(), at, files, left_out);
            Sentinel { lock: locked.as_ref().map(|locked| locked.lock.clone()), ..new }
        };
        let now = at_last(Vec::new(), Vec::new(), String::new());
        let is_same_revision = |it: &Sentinel| {
            let names = (&it.source, &it.renamed_to, &it.revision);
            names == (&now.source, &now.renamed_to, &now.revision)
        };
        let plan = runtime.block_on(Plan::make(self, sink, &files, is_same_revision))?;
        if let Some(previous) = plan.previous.as_ref().filter(|_| plan.is_complete)
            && is_same_revision(previous)
            && previous.selection == selection
        {
            return Ok(Outcome::of("present", Path::new(&sink.place()), previous));
        }
        let is_part = completeness::is_no_whole_model(&uri, &files);
        let whole = Completeness::new(&files, &left_out, &selection);
        self.check_whole(source.as_ref(), whole, &files, is_part, &runtime)?;
        self.announce(&source_name, &revision, sink, &plan, &left_out);
        if let Some(hint) = hint {
            self.screen.tell(&Event::note(hint));
        }
        let progress = Arc::new(Progress::default());
        progress.enter("mirroring");
        progress.total_bytes.store(files.iter().map(|file| file.size).sum(), Relaxed);
        progress.total_files.store(files.len() as u64, Relaxed);
        progress.done_files.store(plan.kept.len() as u64, Relaxed);
        progress.done_bytes.store(plan.kept_bytes, Relaxed);
        self.state.enter(Doing::Filling { source: uri.to_string(), progress: progress.clone() });
        let follower = self.screen.follow(progress.clone());
        let Plan { tasks, kept, awaited, mut guard, sums, .. } = plan;
        if !tasks.is_empty() {
            let writing = at_last(awaited, left_out.clone(), "not yet".into());
            guard = runtime.block_on(beside::announce(self, sink, writing, guard))?;
        }
        let proved = self.send(source.as_ref(), sink, tasks, kept, &progress)?;
        self.pass_on(&source.warnings());
        progress.enter("checking what is in the bucket");
        runtime.block_on(plan::compare(self, sink, &files, &proved))?;
        let proofs: Vec<Option<Proof>> = proved.iter().map(|it| Some(it.proof())).collect();
        if let Some(warning) = digests::uncompared(&source_name, &files, &proofs) {
            self.screen.warn(&warning);
        }
        let listed = digests::finished_files(&files, proofs).into_iter().zip(&proved);
        let listed = listed.map(|(file, proved)| proved.listed(file)).collect();
        let complete = at_last(listed, left_out, rfc3339(SystemTime::now()));
        if self.stop.is_set() {
            return Err(Error::Stopped);
        }
        let sums = runtime.block_on(beside::sums(self, sink, &complete.files, sums))?;
        let complete = runtime.block_on(beside::publish(self, sink, complete, sums, guard))?;
        drop(follower);
        let mut outcome = Outcome::of("mirrored", Path::new(&sink.place()), &complete);
        outcome.fetched_bytes = progress.fetched_bytes.load(Relaxed);
        outcome.sent_bytes = Some(progress.sent_bytes.load(Relaxed));
        Ok(outcome)
    }

    /// Sends what is not there; what is known of every file then, in their order.
    fn send(
        &self,
        source: &dyn Source,
        sink: &Sink,
        tasks: Vec<(usize, Task)>,
        mut known: BTreeMap<usize, Proved>,
        progress: &Progress,
    ) -> Result<Vec<Proved>, Error> {
        let (numbers, tasks): (Vec<usize>, Vec<Task>) = tasks.into_iter().unzip();
        let sent = self.relay(source, Some(sink), progress).run(tasks)?;
        for (n, proved) in numbers.into_iter().zip(sent) {
            known.insert(n, proved?);
        }
        Ok(known.into_values().collect())
    }

    /// A model that lacks a shard ends before its weights.
    fn check_whole(
        &self,
        source: &dyn Source,
        mut whole: Completeness<'_>,
        files: &[RemoteFile],
        is_part: bool,
        runtime: &Runtime,
    ) -> Result<(), Error> {
        if is_part {
            return Ok(());
        }
        for file in files.iter().filter(|file| is_index(file.path.as_str())) {
            let read =
                runtime.block_on(self.retried(|| beside::whole_file(&self.http, source, file)))?;
            completeness::add_index(&mut whole, &file.path, read.as_slice())?;
        }
        completeness::conclude(whole, self.screen)
    }

    fn announce(
        &self,
        source: &str,
        revision: &str,
        sink: &Sink,
        plan: &Plan,
        left_out: &[LeftOut],
    ) {
        let of_tasks = plan.tasks.iter().map(|(_, task)| task.file.size);
        self.screen.tell(&Event::Mirroring {
            source: source.to_owned(),
            revision: revision.to_owned(),
            target: sink.place(),
            files: plan.tasks.len() + plan.kept.len(),
            bytes: of_tasks.sum::<u64>() + plan.kept_bytes,
            kept_files: plan.kept.len(),
            kept_bytes: plan.kept_bytes,
            left_out: announce::by_reason(left_out),
        });
        announce::left_out(left_out).iter().for_each(|event| self.screen.tell(event));
        match plan.others {
            0 => {}
            1 => self.screen.say("1 other object below the prefix is left as it is"),
            others => {
                self.screen
                    .say(&format!("{others} other objects below the prefix are left as they are"));
            }
        }
    }
}
