//! `weightlift pin`: resolves what is asked for, and writes down exactly what that is.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};

use super::ask::{Asker, SharedHttp};
use super::completeness;
use super::pin_report::{PinReport, RESOLVED, absent, bytes_of, report, resolved};
use super::read_once::amount;
use super::run_state::{Doing, RunState};
use super::several::{Named, error_of_all, runtime, worse_of};
use super::shared::unexpected;
use super::signature;
use crate::Error;
use crate::cli::PinArgs;
use crate::content::Source;
use crate::engine::Stop;
use crate::error::Failures;
use crate::fleet::{Drift, Entry, LockFile, LockedModel, difference};
use crate::fs::Replaceable;
use crate::model::{
    LeftOut, Locked, LockedFile, Message, RemoteFile, Selected, Sha256, Snapshot, SourceUri, text,
};
use crate::report::{Event, Progress, Screen};
use crate::verify::signature::{Opened, Trust};
use crate::volume::StoreError;

/// Files that are read at the same time, each by a thread of its own.
const READERS: usize = 4;

/// Who is told what came of each model.
pub struct Told<'a> {
    pub each: &'a mut dyn FnMut(&PinReport) -> Result<(), Error>,
    /// Where there are several: the name of one that has failed, and its source.
    pub failed: &'a mut dyn FnMut(&str, &SourceUri, &Error) -> Result<(), Error>,
    /// Where there is one: its name, and its source.
    pub only: &'a dyn Fn(&str, &SourceUri),
}

/// The names of the first of `entries`.
fn named(entries: &[Entry]) -> String {
    let names: Vec<&str> = entries.iter().map(|it| it.name.as_str()).take(20).collect();
    names.join(", ")
}

/// Pins, or checks what was pinned; returns the last line.
pub fn run(
    args: &PinArgs,
    told: &mut Told<'_>,
    screen: &Screen,
    stop: &Stop,
    state: &RunState,
) -> Result<String, Error> {
    let place = if args.check { None } else { Some(place(args.lock_path())?) };
    let before = args.before()?;
    let entries = args.entries(before.as_ref())?;
    if let Some(name) = args.upgrade.iter().find(|name| !entries.iter().any(|it| it.name == **name))
    {
        let name = text::inert(name, 200);
        return Err(Error::Usage(
            Message::new(format!("--upgrade names `{name}`, but there is no such model"))
                .hint(format!("choose among these: {}", named(&entries))),
        ));
    }
    state.has_models(entries.len());
    if let [entry] = entries.as_slice() {
        (told.only)(&entry.name, &entry.source);
    }
    let is_alone = entries.len() == 1;
    let ask = Asker::new(&args.source, false, SharedHttp::default(), screen, stop, state);
    let pin = Pin { args, is_alone, ask };
    match (place, before) {
        (Some(place), before) => pin.write(entries, before.unwrap_or_default(), &place, told),
        (None, Some(before)) => pin.check(&entries, &before, told),
        (None, None) => Err(Error::Usage(
            Message::new(format!(
                "--check compares with `{}`, which does not exist",
                args.lock_path().display()
            ))
            .hint("run `weightlift pin` without --check to make it"),
        )),
    }
}

/// Where the lock file is written, known before anybody is asked for anything: a pipe would be waited for.
fn place(path: &Path) -> Result<Replaceable, Error> {
    Replaceable::at(path).map_err(|error| {
        Error::Usage(
            Message::new(format!("`{}` cannot be written: {error}", path.display()))
                .hint("name a regular file, or a new one, with --locked"),
        )
    })
}

struct Pin<'a> {
    args: &'a PinArgs,
    /// There is one model, and no line need say which.
    is_alone: bool,
    ask: Asker<'a>,
}

/// What a source holds of a model now.
struct Resolved {
    source: Box<dyn Source>,
    /// Without files.
    snapshot: Snapshot,
    selected: Selected,
}

impl Pin<'_> {
    /// Does `work` with lines that say that they are about the model `name`.
    fn of_model<T>(&self, name: &str, work: impl FnOnce(&Pin<'_>) -> T) -> T {
        if self.is_alone {
            return work(self);
        }
        let screen = self.ask.screen.of_model(name);
        let ask = self.ask.with_screen(&screen);
        work(&Pin { args: self.args, is_alone: false, ask })
    }

    fn write(
        &self,
        entries: Vec<Entry>,
        before: LockFile,
        place: &Replaceable,
        told: &mut Told<'_>,
    ) -> Result<String, Error> {
        let shown = self.args.lock_path().display();
        let (mut pinned, mut failed, mut reports) = (Vec::new(), Vec::new(), Vec::new());
        let all = entries.len();
        for entry in &entries {
            let known = before.models.iter().find(|model| model.name == entry.name);
            let is_kept = |model: &&LockedModel| {
                !self.args.upgrade.is_empty()
                    && !self.args.upgrade.contains(&entry.name)
                    && difference(entry, model).is_none()
            };
            let (model, status) = match known.filter(is_kept) {
                Some(model) => (Ok(model.clone()), "kept"),
                None => (self.of_model(&entry.name, |it| it.pinned(entry, known)), "pinned"),
            };
            match model {
                Ok(model) => {
                    reports.push(report(&model, status, Vec::new()));
                    self.ask.state.has_completed_one();
                    pinned.push(model);
                }
                Err(Error::Stopped) => return Err(Error::Stopped),
                Err(error) if all == 1 => return Err(error),
                Err(error) => failed.push(self.failed(entry, "pinned", error, told)?),
            }
        }
        let count = failed.len();
        let ends = pinned.iter().map(|model| (model.name.clone(), RESOLVED)).collect();
        if let Some(error) = error_of_all(failed, ends) {
            tell(resolved(reports), told)?;
            self.ask.screen.say(&format!("{count} of {all} models failed; `{shown}` is as it was"));
            return Err(error);
        }
        if !self.args.is_all() {
            let others = before.models.into_iter();
            pinned.extend(others.filter(|model| !entries.iter().any(|it| it.name == model.name)));
        }
        pinned.sort_by(|a, b| a.name.cmp(&b.name));
        let lock = LockFile { models: pinned };
        if let Err(error) = place.replace(lock.text().as_bytes(), true) {
            tell(resolved(reports), told)?;
            return Err(StoreError::io("write", self.args.lock_path(), error).into());
        }
        // Not before: until then the lock file is as it was.
        tell(reports, told)?;
        let models = lock.models.len();
        let files = lock.models.iter().map(|it| it.content.files.len()).sum();
        let bytes = lock.models.iter().map(bytes_of).fold(0, u64::saturating_add);
        Ok(format!(
            "pinned: {}, {} in `{shown}`",
            text::count(models, "model"),
            amount(files, bytes)
        ))
    }

    /// One of several has failed: it is told, and the others go on.
    fn failed(
        &self,
        entry: &Entry,
        what: &str,
        error: Error,
        told: &mut Told<'_>,
    ) -> Result<(Named, Error), Error> {
        let name = text::inert(&entry.name, 200);
        self.ask.screen.warn(&format!("`{name}` cannot be {what}: {error}"));
        self.ask.state.has_failed(&name, &error);
        let named = Named::only(&name);
        (told.failed)(&name, &entry.source, &error)?;
        Ok((named, error))
    }

    /// What `entry` is now. What was known `before` need not be read again.
    fn pinned(&self, entry: &Entry, before: Option<&LockedModel>) -> Result<LockedModel, Error> {
        let trust = entry.signed_by.as_ref().map(signature::trust).transpose()?;
        let Resolved { source, snapshot, selected } = runtime()?.block_on(self.resolved(entry))?;
        let Selected { files, left_out, warnings, .. } = selected;
        warnings.iter().for_each(|warning| self.ask.screen.warn(warning));
        if !completeness::is_no_whole_model(&entry.source, &files)
            && !completeness::has_index(&files)
        {
            completeness::check_names(self.ask.screen, &files, &left_out, &entry.selection)?;
        }
        let opened = match &trust {
            Some(trust) => {
                self.opened(trust, source.as_ref(), &snapshot, &files, &left_out, entry)?
            }
            None => None,
        };
        let before =
            before.filter(|before| before.source.source_name() == entry.source.source_name());
        let before = before.into_iter().flat_map(|before| &before.content.files);
        let before: HashMap<_, _> = before.map(|file| (&file.path, file)).collect();
        let known =
            |file: &RemoteFile| LockedFile::sha256_of(file, before.get(&file.path).copied());
        let mut digests: Vec<Option<Sha256>> = files.iter().map(known).collect();
        self.read_missing(source.as_ref(), &files, &mut digests)?;
        self.ask.pass_on(source.as_ref());
        if let (Some(trust), Some(opened)) = (&trust, &opened) {
            let name = &snapshot.source_name;
            signature::check_digests(trust, &opened.manifest, name, &files, &digests)?;
        }
        let locked = |(file, sha256): (&RemoteFile, Option<Sha256>)| {
            LockedFile::new(file, sha256.expect("`read_missing` reads each that is not known"))
        };
        let Snapshot { source_name, revision, .. } = snapshot;
        let files = files.iter().zip(digests).map(locked).collect();
        Ok(LockedModel {
            name: entry.name.clone(),
            source: entry.source.clone(),
            also: entry.also.clone(),
            selection: entry.selection.clone(),
            signed_by: entry.signed_by.clone(),
            content: Locked { source_name, revision, files, left_out, lock: String::new() },
        })
    }

    /// The signature of `entry`, which names all of `files`.
    fn opened(
        &self,
        trust: &Trust,
        source: &dyn Source,
        snapshot: &Snapshot,
        files: &[RemoteFile],
        left_out: &[LeftOut],
        entry: &Entry,
    ) -> Result<Option<Opened>, Error> {
        let listing = signature::Listing {
            source_name: &snapshot.source_name,
            files: files.iter().map(|file| (file.path.as_str(), file.size)).collect(),
            left_out,
            selection: &entry.selection,
        };
        let opened = signature::open_listed(&self.ask, trust, source, files, &listing);
        Ok(runtime()?.block_on(opened)?.map(|(opened, _)| opened))
    }

    async fn resolved(&self, entry: &Entry) -> Result<Resolved, Error> {
        let ask = &self.ask;
        if let Some(variable) = crate::source::registry::offline_by(&entry.source) {
            let source = &entry.source;
            return Err(Error::NotFound(
                Message::new(format!("{variable} is set, but {source} must be contacted"))
                    .hint(format!("unset {variable}")),
            ));
        }
        ask.state.enter(Doing::Resolving(entry.source.to_string()));
        let source = ask.source_of(&entry.source, &entry.selection)?;
        let snapshot = ask.retried(ask.budget(), ask.bound(), || source.snapshot()).await?;
        ask.pass_on(source.as_ref());
        if let Some(expected) = entry.expect.as_ref().filter(|it| **it != snapshot.revision) {
            return Err(unexpected(&entry.source, &snapshot.revision, "`expect`", expected));
        }
        let Snapshot { source_name, revision, files, refused } = snapshot;
        let signature = entry.signed_by.as_ref().map(|it| &it.file);
        let signature =
            signature.and_then(|path| files.iter().find(|file| file.path == *path)).cloned();
        let mut selected = entry.selection.apply(files, refused)?;
        if let Some(signature) = signature {
            signature::take(&mut selected, signature);
        }
        let snapshot = Snapshot::new(source_name, revision, Vec::new(), Vec::new());
        Ok(Resolved { source, snapshot, selected })
    }

    /// Reads each of `files` whose digest is not known.
    fn read_missing(
        &self,
        source: &dyn Source,
        files: &[RemoteFile],
        digests: &mut [Option<Sha256>],
    ) -> Result<(), Error> {
        let missing: Vec<usize> = (0..files.len()).filter(|n| digests[*n].is_none()).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let bytes: u64 = missing.iter().map(|n| files[*n].size).sum();
        let progress = Arc::new(Progress::default());
        progress.enter("reading what has no published SHA-256");
        progress.total_bytes.store(bytes, Relaxed);
        progress.total_files.store(missing.len() as u64, Relaxed);
        let event = Event::note(format!(
            "{} without a published SHA-256: read once, and not kept",
            amount(missing.len(), bytes)
        ));
        self.ask.screen.tell(&event);
        let _follower = self.ask.screen.follow(progress.clone());
        let next = AtomicUsize::new(0);
        let ended = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            for _ in 0..READERS.min(missing.len()) {
                let (told, next, missing, progress) = (ended.0.clone(), &next, &missing, &progress);
                let read = move || -> Result<(), Error> {
                    let (runtime, client) = (runtime()?, self.ask.http()?.client()?);
                    while let Some(n) = missing.get(next.fetch_add(1, SeqCst)) {
                        let file = &files[*n];
                        let sha256 = self.ask.sha256_of(source, &client, file, progress);
                        let sha256 = runtime.block_on(sha256)?;
                        progress.done_files.fetch_add(1, Relaxed);
                        let _ = told.send(Ok((*n, sha256)));
                    }
                    Ok(())
                };
                let (failed, next) = (ended.0.clone(), next);
                scope.spawn(move || {
                    if let Err(error) = read() {
                        // The others need not begin another one.
                        next.store(missing.len(), SeqCst);
                        let _ = failed.send(Err(error));
                    }
                });
            }
            drop(ended.0);
            let mut first = Ok(());
            for read in ended.1 {
                match read {
                    Ok((n, sha256)) => digests[n] = Some(sha256),
                    Err(error) if first.is_ok() => first = Err(error),
                    Err(_) => {}
                }
            }
            first
        })
    }

    fn check(
        &self,
        entries: &[Entry],
        before: &LockFile,
        told: &mut Told<'_>,
    ) -> Result<String, Error> {
        let (mut moved, mut failed, mut ends) = (0, Vec::new(), Vec::new());
        let is_unasked = |model: &&LockedModel| {
            self.args.is_all() && !entries.iter().any(|entry| entry.name == model.name)
        };
        let unasked: Vec<&LockedModel> = before.models.iter().filter(is_unasked).collect();
        for entry in entries {
            let report = match before.models.iter().find(|model| model.name == entry.name) {
                None => absent(entry, "unlocked"),
                Some(model) => match self.of_model(&entry.name, |it| it.checked(entry, model)) {
                    Ok(report) => report,
                    Err(Error::Stopped) => return Err(Error::Stopped),
                    Err(error) if entries.len() == 1 && unasked.is_empty() => return Err(error),
                    Err(error) => {
                        failed.push(self.failed(entry, "checked", error, told)?);
                        continue;
                    }
                },
            };
            moved += usize::from(report.status != "current");
            ends.push((report.name.clone(), report.status));
            (told.each)(&report)?;
            self.ask.state.has_completed_one();
        }
        for model in unasked {
            moved += 1;
            let report = report(model, "unasked", vec!["no model of the models file".into()]);
            ends.push((report.name.clone(), report.status));
            (told.each)(&report)?;
        }
        let shown = self.args.lock_path().display();
        let names = failed.iter().map(|(of, error)| (of.name.as_str(), error.class()));
        let unchecked = Failures::new(names);
        let what = format!("`{shown}` is not up to date: {} moved", text::count(moved, "model"));
        let aside = format!("; {what}");
        let moved = (moved > 0).then_some(Error::Moved { what, unchecked });
        match (error_of_all(failed, ends), moved) {
            (Some(failed), Some(moved)) => Err(worse_of(failed.beside(aside), moved)),
            (Some(error), None) | (None, Some(error)) => Err(error),
            (None, None) => {
                Ok(format!("up to date: {} in `{shown}`", text::count(entries.len(), "model")))
            }
        }
    }

    fn checked(&self, entry: &Entry, model: &LockedModel) -> Result<PinReport, Error> {
        if let Some(difference) = difference(entry, model) {
            return Ok(report(model, "moved", vec![difference]));
        }
        let Resolved { snapshot, selected, .. } = runtime()?.block_on(self.resolved(entry))?;
        let drift = Drift::between(&model.content.files, &selected.files);
        if drift.is_empty() {
            return Ok(report(model, "current", Vec::new()));
        }
        let (was, is) =
            (text::revision(&model.content.revision), text::revision(&snapshot.revision));
        let moved = std::iter::once(format!("{} moved from {was} to {is}", entry.source));
        Ok(report(model, "moved", moved.chain(drift.lines()).collect()))
    }
}

fn tell(reports: Vec<PinReport>, told: &mut Told<'_>) -> Result<(), Error> {
    reports.iter().try_for_each(|report| (told.each)(report))
}
