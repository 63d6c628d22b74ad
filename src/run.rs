//! From arguments to an exit code, and nothing lost between.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cli::{
    self, Cli, Command, FetchArgs, GenerateArgs, Generated, Given, Global, LogKind, MirrorArgs,
    MirrorModel, Model, Output, SandboxKind, screen_with,
};
use crate::commands::ask::SharedHttp;
use crate::commands::beside::Beside;
use crate::commands::mirror::Mirror;
use crate::commands::plan::{self, Claimed};
use crate::commands::run_state::{RunState, TimeAllowed};
use crate::commands::several::{self, Ended, Named, no_thread};
use crate::commands::shared::Fetch;
use crate::commands::{Outcome, doctor, list, pin, prune, signature, verify, wait};
use crate::ending::{Done, Ending, failed as failed_event};
use crate::engine::Stop;
use crate::error::{Class, Error};
use crate::exit::Retry;
use crate::model::{SourceUri, text};
use crate::monitor::{Monitor, Outlets};
use crate::output::{Lines, Subject};
use crate::process;
use crate::report::{Event, Screen};
use crate::sandbox::{self, Sandbox};
use crate::signals::{self, StopReason, TIME_TO_STOP, TimeLimit};
use crate::volume::StoreError;
use clap::error::ErrorKind;

const HOUR: Duration = Duration::from_secs(3_600);
/// How much later than it should a `wait` may end for each PATH, each of which has a last look.
const SLACK: Duration = Duration::from_secs(2);
/// The same for all of them.
const MAX_SLACK: Duration = Duration::from_secs(10);
/// As much as the main thread usually has.
const STACK_BYTES: usize = 8 << 20;

/// Runs the command line `arguments`, the program's name first.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let started = Instant::now();
    process::settle();
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let cli = match Cli::parse_from_outside(&arguments) {
        Ok(cli) => cli,
        Err(error) => return usage(&error, &Given::of(&arguments)),
    };
    let cli = Arc::new(cli);
    // Before there are threads: they inherit it.
    let sandbox = Arc::new(match cli.global.sandbox {
        SandboxKind::Off => Sandbox::off(),
        SandboxKind::Privileges => sandbox::settle(),
        SandboxKind::Files => {
            let cli = cli.clone();
            sandbox::confine(move || cli.reach())
        }
    });
    let screen = cli.logging.screen();
    let lines = Lines::new(cli.global.output, screen.clone());
    let mut ending = Ending {
        sandbox: sandbox.clone(),
        termination_log: cli.global.termination_log.clone(),
        lines: lines.clone(),
        screen,
        monitor: Monitor::default(),
    };
    if let Err(error) = cli.logging.check() {
        return ExitCode::from(ending.report(&Err(error)));
    }
    if let Some(settings) = &cli.settings {
        ending.screen.tell(settings);
    }
    let stop = Stop::default();
    let allowed = time_allowed(&cli.command);
    let state = RunState::new(started, allowed);
    let Global { progress_file, metrics_file, metrics_listen, .. } = &cli.global;
    let outlets = Outlets {
        progress_file: progress_file.clone(),
        metrics_file: metrics_file.clone(),
        metrics_listen: *metrics_listen,
    };
    match Monitor::start(&outlets, cli.command.name(), &state, &ending.screen) {
        Ok(monitor) => ending.monitor = monitor,
        Err(error) => return ExitCode::from(ending.report(&Err(error))),
    }
    ending.catch_panics();
    let limit = allowed.and_then(|allowed| time_limit(&cli.command, started, allowed));
    let (last, of_run) = (ending.clone(), state.clone());
    let give_up = move |reason| last.leave(stopped(reason, &of_run));
    let told = match signals::listen(stop.clone(), limit, give_up) {
        Ok(told) => told,
        Err(error) => return ExitCode::from(ending.report(&Err(no_thread(error)))),
    };
    let result = beside_signals(|| command(&cli, &sandbox, &lines, &ending.screen, &stop, &state));
    let result = match (result, told.reason()) {
        // It says more of its end than the run does.
        (Err(Error::Deadline(why)), Some(StopReason::OutOfTime)) => Err(Error::Deadline(why)),
        // Each PATH has come to its end, if only to that of the time.
        (Err(error @ Error::OfSeveral { .. }), Some(StopReason::OutOfTime))
            if matches!(cli.command, Command::Wait(_)) =>
        {
            Err(error)
        }
        // Damage that was found does not depend on the time.
        (Err(error), Some(StopReason::OutOfTime)) if error.class() == Class::Integrity => {
            ending.screen.warn(&state.out_of_time().to_string());
            Err(error)
        }
        // Whatever failed after that failed because of it.
        (Err(_), Some(reason)) => Err(stopped(reason, &state)),
        (result, _) => result,
    };
    ExitCode::from(ending.report(&result))
}

/// Why the run ends that was told to stop.
fn stopped(reason: StopReason, state: &RunState) -> Error {
    match reason {
        StopReason::Signal(signal) => Error::Signal { signal, failures: state.failures() },
        StopReason::OutOfTime => state.out_of_time(),
    }
}

/// How long the run may take in all, if that has an end.
fn time_allowed(command: &Command) -> Option<TimeAllowed> {
    let time = match command {
        Command::Fetch(args) | Command::Plan(args) => args.deadline.deadline,
        Command::Mirror(args) => args.deadline.deadline,
        Command::Verify(args) => args.deadline.deadline,
        Command::Wait(args) => Some(args.timeout),
        Command::List(args) => args.deadline.deadline,
        Command::Prune(args) => args.deadline.deadline,
        Command::Pin(args) => args.deadline.deadline,
        Command::Doctor(args) => args.deadline.deadline,
        Command::Generate(_) => None,
    };
    let (flag, decides): (_, fn(Class) -> bool) = match command {
        // No more time can mend what a retry does not.
        Command::Wait(_) => ("--timeout", |class| class.facts().retry == Retry::Never),
        // Damage that was found does not depend on the time.
        Command::Verify(_) => ("--deadline", |class| class == Class::Integrity),
        _ => ("--deadline", |_| false),
    };
    time.map(|time| TimeAllowed { flag, time, decides })
}

/// When the run is stopped from outside. `wait` ends in time by itself and has nothing to save: only a
/// volume that does not answer keeps it.
fn time_limit(command: &Command, started: Instant, allowed: TimeAllowed) -> Option<TimeLimit> {
    let (later, time_to_stop) = match command {
        Command::Wait(args) => (slack(args.paths.len()), SLACK),
        _ => (Duration::ZERO, TIME_TO_STOP),
    };
    let at = started.checked_add(allowed.time)?.checked_add(later)?;
    Some(TimeLimit { at, time_to_stop })
}

fn slack(paths: usize) -> Duration {
    SLACK.saturating_mul(u32::try_from(paths).unwrap_or(u32::MAX)).min(MAX_SLACK)
}

/// Runs `work` on a thread of its own. The kernel gives a signal to the main thread as long as that
/// one can take it, and it never can while it hangs in a filesystem that does not answer.
fn beside_signals<T: Send>(work: impl Fn() -> T + Sync) -> T {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("work".into());
        let thread = thread.stack_size(STACK_BYTES).spawn_scoped(scope, &work);
        match thread {
            Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            // There can be no more threads; as far as it goes without.
            Err(_) => work(),
        }
    })
}

fn command(
    cli: &Cli,
    sandbox: &Sandbox,
    lines: &Lines,
    screen: &Screen,
    stop: &Stop,
    state: &RunState,
) -> Result<Done, Error> {
    let done = match &cli.command {
        Command::Plan(args) => return plan(args, lines, screen, stop, state),
        Command::Fetch(args) if args.dry_run => return plan(args, lines, screen, stop, state),
        Command::Fetch(args) => {
            let models = args.models()?;
            state.has_models(models.len());
            fetch(args, &models, lines, screen, stop, state)?
        }
        Command::Mirror(args) => {
            let models = args.models()?;
            state.has_models(models.len());
            mirror(args, &models, lines, screen, stop, state)?
        }
        Command::Wait(args) => {
            let runtime = several::runtime()?;
            let now = Instant::now();
            let deadline = now.checked_add(args.timeout).unwrap_or(now + 365 * 24 * HOUR);
            let models = args.models()?;
            state.has_models(models.len());
            let mut several = Several::new(&args.paths, lines, screen, state);
            for (path, expected) in &models {
                let expected = expected.as_deref();
                let waited = wait::for_model(path, args, expected, deadline, screen, stop, state);
                several.ended(path, runtime.block_on(waited))?;
            }
            several.done()?
        }
        Command::Pin(args) => {
            let mut each = |model: &_| lines.print(&pin::text(model), model);
            let mut failed = |name: &str, source: &SourceUri, error: &Error| {
                lines.failed(&Subject::named(name, source), error)
            };
            let only = |name: &str, source: &_| lines.are_about(Subject::named(name, source));
            let mut told = pin::Told { each: &mut each, failed: &mut failed, only: &only };
            return pin::run(args, &mut told, screen, stop, state).map(Done::of_message);
        }
        Command::List(args) => {
            let root = args.root.path()?;
            let mut each = |family: &_| lines.print(&list::text(family), family);
            return list::root(&root, &mut each, screen, stop, state).map(Done::of_message);
        }
        Command::Prune(args) => {
            let root = args.root.path()?;
            let mut each = |pruned: &_| lines.print(&prune::text(pruned), pruned);
            let mut failed =
                |path: &str, error: &Error| lines.failed(&Subject::at(path, None), error);
            let mut told = prune::Told { each: &mut each, failed: &mut failed };
            return prune::root(&root, args, &mut told, screen, stop, state).map(Done::of_message);
        }
        Command::Doctor(args) => {
            let log = &cli.global.termination_log;
            let mut each = |check: &doctor::Check| lines.print(&check.text(), &check.fields());
            return doctor::run(args, log, sandbox, &mut each, stop, state).map(Done::of_message);
        }
        Command::Generate(args) => return generate(args, screen),
        Command::Verify(args) => {
            state.has_models(args.paths.len());
            let signed_by = args.signature.signed_by()?;
            let trust = signed_by.as_ref().map(signature::trust).transpose()?;
            let mut several = Several::new(&args.paths, lines, screen, state);
            for path in &args.paths {
                several.ended(path, verify::family(path, trust.as_ref(), screen, stop, state))?;
            }
            several.done()?
        }
    };
    Ok(Done::of_models(&done))
}

/// Directories that a command looks at one after the other, each to its own end.
struct Several<'a> {
    is_alone: bool,
    lines: &'a Lines,
    screen: &'a Screen,
    state: &'a RunState,
    done: Vec<Outcome>,
    failed: Vec<(Named, Error)>,
}

impl<'a> Several<'a> {
    fn new(paths: &[PathBuf], lines: &'a Lines, screen: &'a Screen, state: &'a RunState) -> Self {
        if let [path] = paths {
            lines.are_about(Subject::at(&path.display().to_string(), None));
        }
        let is_alone = paths.len() == 1;
        Self { is_alone, lines, screen, state, done: Vec::new(), failed: Vec::new() }
    }

    /// Tells what came of the model at `path`. Fails if the run is to stop.
    fn ended(&mut self, path: &Path, ended: Ended) -> Result<(), Error> {
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
    fn done(self) -> Result<Vec<Outcome>, Error> {
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
fn fetch(
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
fn plan(
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
fn mirror(
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
    for model in models {
        let path = SourceUri::S3(model.target.clone()).source_name();
        let subject = Subject::at(&path, model.source.as_ref());
        if is_alone {
            lines.are_about(subject.clone());
        }
        let screen = if is_alone { screen.clone() } else { screen.of_model(&model.name) };
        let mirror = Mirror::new(args, http.clone(), &screen, stop, state)?;
        match mirror.model(model) {
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

/// What packages and docs have of the command line, on standard output or in a directory.
fn generate(args: &GenerateArgs, screen: &Screen) -> Result<Done, Error> {
    let failed = |path: &Path, error| Error::Store(StoreError::io("write", path, error));
    match args.generated()? {
        Generated::Text(text) => {
            Lines::new(Output::Text, screen.clone()).print(text.trim_end(), &())?;
            // A shell that reads it at its start need not be told.
            Ok(Done::default())
        }
        Generated::Files(dir, files) => {
            std::fs::create_dir_all(dir).map_err(|error| failed(dir, error))?;
            for (name, content) in &files {
                let path = dir.join(name);
                std::fs::write(&path, content).map_err(|error| failed(&path, error))?;
            }
            Ok(Done::of_message(format!("generated: {} files in `{}`", files.len(), dir.display())))
        }
    }
}

/// What clap has to say: help and version on standard output, mistakes as exit code 2.
fn usage(error: &clap::Error, given: &Given) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let (message, rest) = cli::mistake(error);
    let log_format = given.choice("log-format").unwrap_or(LogKind::Text);
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
        && log_format == LogKind::Text
    {
        let _ = error.print();
    }
    let screen = screen_with(log_format);
    rest.lines().filter(|line| !line.is_empty()).for_each(|line| screen.say(line));
    let lines = Lines::new(given.choice("output").unwrap_or(Output::Text), screen.clone());
    let log = given.text("termination-log").unwrap_or("/dev/termination-log".into());
    let ending = Ending {
        sandbox: Arc::new(Sandbox::off()),
        termination_log: log.into(),
        lines,
        screen,
        monitor: Monitor::default(),
    };
    ExitCode::from(ending.report(&Err(Error::Usage(message))))
}
