//! A run for several models: each comes to its own end, which is told when it is known, and all of them make one result.

use std::path::{Path, PathBuf};

use crate::cli::{FetchArgs, MirrorArgs, MirrorModel, Model};
use crate::commands::Outcome;
use crate::commands::ask::SharedHttp;
use crate::commands::beside::Beside;
use crate::commands::mirror::Mirror;
use crate::commands::plan::{self, Claimed};
use crate::commands::run_state::RunState;
use crate::commands::several::{self, Ended, Named};
use crate::commands::shared::Fetch;
use crate::ending::{Done, failed as failed_event};
use crate::engine::Stop;
use crate::error::{Class, Error};
use crate::model::{SourceUri, text};
use crate::output::{Lines, Subject};
use crate::report::{Event, ModelCount, Screen};

/// Directories that a command looks at one after the other, each to its own end.
pub struct Several<'a> {
    is_alone: bool,
    lines: &'a Lines,
    screen: &'a Screen,
    state: &'a RunState,
    count: ModelCount,
    done: Vec<Outcome>,
    failed: Vec<(Named, Error)>,
}

impl<'a> Several<'a> {
    pub fn new(
        paths: &[PathBuf],
        lines: &'a Lines,
        screen: &'a Screen,
        state: &'a RunState,
    ) -> Self {
        if let [path] = paths {
            lines.are_about(Subject::at(&path.display().to_string(), None));
        }
        let (is_alone, count) = (paths.len() == 1, screen.count_models(paths.len()));
        Self { is_alone, lines, screen, state, count, done: Vec::new(), failed: Vec::new() }
    }

    /// Tells what came of the model at `path`. Fails if the run is to stop.
    pub fn ended(&mut self, path: &Path, ended: Ended) -> Result<(), Error> {
        if !matches!(ended, Err(Error::Stopped)) {
            self.count.ended(ended.is_ok());
        }
        match ended {
            Ok(outcome) => {
                self.lines.print(outcome.to_load(), &outcome)?;
                if !self.is_alone {
                    self.screen.tell(&Event::Complete { message: outcome.summary.clone() });
                }
                self.done.push(outcome);
                self.state.has_completed_one();
            }
            // Damage that was found is told, whatever ends the run.
            Err(Error::Stopped) => {
                let is_damage = |(_, error): &(Named, Error)| error.class() == Class::Integrity;
                let failed = std::mem::take(&mut self.failed);
                let damaged = failed.into_iter().find(is_damage).map(|(_, error)| error);
                return Err(damaged.unwrap_or(Error::Stopped));
            }
            Err(error) => {
                let named = Named::at(path);
                if !self.is_alone {
                    let subject = Subject::at(&named.path, None);
                    tell_failed(&named, &subject, &error, self.lines, self.screen, self.state)?;
                }
                self.failed.push((named, error));
            }
        }
        Ok(())
    }

    /// What came of all of them.
    pub fn done(self) -> Result<Vec<Outcome>, Error> {
        let complete = self.done.iter().map(|it| (it.path.clone(), it.status)).collect();
        several::error_of_all(self.failed, complete).map_or(Ok(self.done), Err)
    }
}

/// Says that one of several has failed, while the others go on.
fn tell_failed(
    named: &Named,
    subject: &Subject,
    error: &Error,
    lines: &Lines,
    screen: &Screen,
    state: &RunState,
) -> Result<(), Error> {
    state.has_failed(&named.name, error);
    screen.tell(&failed_event(error));
    lines.failed(subject, error)
}

/// What a line is about that is about `model`.
fn subject_of(model: &Model) -> Subject {
    Subject::at(&Named::of(model).path, Some(&model.uri))
}

/// Fetches `models`, each to its own end. What came of each is printed in their order, as soon as it is
/// known of all before it.
pub fn fetch(
    args: &FetchArgs,
    models: &[Model],
    lines: &Lines,
    screen: &Screen,
    stop: &Stop,
    state: &RunState,
) -> Result<Vec<Outcome>, Error> {
    if let [model] = models {
        lines.are_about(subject_of(model));
    }
    let is_alone = models.len() == 1;
    let mut ends: Vec<Option<Ended>> = models.iter().map(|_| None).collect();
    let mut printed = 0;
    several::fetch(args, models, screen, stop, state, |n, ended, screen| {
        match &ended {
            Ok(outcome) => {
                state.has_completed_one();
                if !is_alone {
                    screen.tell(&Event::Complete { message: outcome.summary.clone() });
                }
            }
            Err(Error::Stopped) => {}
            Err(error) if !is_alone => {
                state.has_failed(models[n].name(), error);
                screen.tell(&failed_event(error));
            }
            Err(_) => {}
        }
        ends[n] = Some(ended);
        while let Some(Some(ended)) = ends.get(printed) {
            match ended {
                Ok(outcome) => lines.print(outcome.to_load(), outcome)?,
                Err(Error::Stopped) => {}
                Err(error) if !is_alone => lines.failed(&subject_of(&models[printed]), error)?,
                Err(_) => {}
            }
            printed += 1;
        }
        Ok(())
    })?;
    let (mut done, mut errors) = (Vec::new(), Vec::new());
    for (model, ended) in models.iter().zip(ends) {
        match ended {
            Some(Ok(outcome)) => done.push(outcome),
            Some(Err(error)) => errors.push((Named::of(model), error)),
            None => return Err(Error::Stopped),
        }
    }
    let complete = done.iter().map(|it: &Outcome| (it.path.clone(), it.status)).collect();
    several::error_of_all(errors, complete).map_or(Ok(done), Err)
}

/// Says of each model what fetching it would do.
pub fn plan(
    args: &FetchArgs,
    lines: &Lines,
    screen: &Screen,
    stop: &Stop,
    state: &RunState,
) -> Result<Done, Error> {
    let models = args.models()?;
    state.has_models(models.len());
    if let [model] = models.as_slice() {
        lines.are_about(subject_of(model));
    }
    let (runtime, beside) = (several::runtime()?, Beside::new(1));
    let (mut claimed, mut bytes) = (Claimed::new(), 0);
    let (mut failed, mut planned) = (Vec::new(), Vec::new());
    for model in &models {
        let of_model = (models.len() > 1).then(|| screen.of_model(model.name()));
        let screen = of_model.as_ref().unwrap_or(screen);
        let fetch = Fetch::new(args, screen, stop, state, beside.clone());
        let report = runtime.block_on(fetch.plan(model, &mut claimed));
        let ended = report.and_then(|mut report| {
            bytes = report.fetch_bytes.saturating_add(bytes);
            lines.print(&plan::text(&report), &report)?;
            report.lack().map_or(Ok((report.path, report.status)), Err)
        });
        match ended {
            Ok(report) => {
                planned.push(report);
                state.has_completed_one();
            }
            Err(error @ Error::Stopped) => return Err(error),
            Err(error) => {
                let named = Named::of(model);
                if models.len() > 1 {
                    tell_failed(&named, &subject_of(model), &error, lines, screen, state)?;
                }
                failed.push((named, error));
            }
        }
    }
    match several::error_of_all(failed, planned) {
        Some(error) => Err(error),
        None => Ok(Done::of_message(format!(
            "planned: {} to fetch, nothing written",
            text::size(bytes)
        ))),
    }
}

/// Copies `models` into a bucket, or checks them there, one after the other, each to its own end.
pub fn mirror(
    args: &MirrorArgs,
    models: &[MirrorModel],
    lines: &Lines,
    screen: &Screen,
    stop: &Stop,
    state: &RunState,
) -> Result<Vec<Outcome>, Error> {
    let is_alone = models.len() == 1;
    let (mut done, mut errors) = (Vec::new(), Vec::new());
    let http = SharedHttp::default();
    let (screen, mut count) = screen.of_several(models.iter().map(|it| &*it.name));
    for model in models {
        let path = SourceUri::S3(model.target.clone()).source_name();
        let subject = Subject::at(&path, model.source.as_ref());
        if is_alone {
            lines.are_about(subject.clone());
        }
        let screen = if is_alone { screen.clone() } else { screen.of_model(&model.name) };
        let mirror = Mirror::new(args, http.clone(), &screen, stop, state)?;
        let ended = mirror.model(model);
        if !matches!(ended, Err(Error::Stopped)) {
            count.ended(ended.is_ok());
        }
        match ended {
            Ok(outcome) => {
                lines.print(outcome.to_load(), &outcome)?;
                if !is_alone {
                    screen.tell(&Event::Complete { message: outcome.summary.clone() });
                }
                done.push(outcome);
                state.has_completed_one();
            }
            Err(Error::Stopped) => return Err(Error::Stopped),
            Err(error) => {
                let named = Named { name: model.name.clone(), path };
                if !is_alone {
                    tell_failed(&named, &subject, &error, lines, &screen, state)?;
                }
                errors.push((named, error));
            }
        }
    }
    let complete = done.iter().map(|it: &Outcome| (it.path.clone(), it.status)).collect();
    several::error_of_all(errors, complete).map_or(Ok(done), Err)
}
