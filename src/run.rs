//! From arguments to an exit code, and nothing lost between.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cli::{
    self, Cli, Command, GenerateArgs, Generated, Given, Global, LogKind, Output, SandboxKind,
    screen_with,
};
use crate::commands::run_state::{RunState, TimeAllowed};
use crate::commands::several::{self, no_thread};
use crate::commands::{doctor, list, pin, pin_report, prune, signature, verify, wait};
use crate::each::{self, Several};
use crate::ending::{Done, Ending};
use crate::engine::Stop;
use crate::error::{Class, Error};
use crate::exit::Retry;
use crate::model::SourceUri;
use crate::monitor::{Monitor, Outlets};
use crate::output::Lines;
use crate::process;
use crate::report::{Screen, Subject};
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
    let Global { progress_file, metrics_file, metrics_listen, metrics_label, .. } = &cli.global;
    let outlets = Outlets {
        progress_file: progress_file.clone(),
        metrics_file: metrics_file.clone(),
        metrics_listen: *metrics_listen,
        labels: metrics_label.clone(),
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
        Command::Plan(args) => return each::plan(args, lines, screen, stop, state),
        Command::Fetch(args) if args.dry_run => {
            return each::plan(args, lines, screen, stop, state);
        }
        Command::Fetch(args) => {
            let models = args.models()?;
            state.has_models(models.len());
            each::fetch(args, &models, lines, screen, stop, state)?
        }
        Command::Mirror(args) => {
            let models = args.models()?;
            state.has_models(models.len());
            each::mirror(args, &models, lines, screen, stop, state)?
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
            let mut each = |model: &_| lines.print(&pin_report::text(model), model);
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
    let message = cli::mistake(error, given.command());
    let log_format = given.choice("log-format").unwrap_or(LogKind::Text);
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
        && log_format == LogKind::Text
        && !given.is_quiet()
    {
        let _ = error.print();
    }
    let screen = screen_with(log_format, given.is_quiet());
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
