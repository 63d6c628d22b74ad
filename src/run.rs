//! From arguments to an exit code: the last line, the termination message, and nothing lost
//! between.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use clap::error::ErrorKind;
use rustix::fs::{Mode, OFlags};

use crate::cli::{Cli, Command, LogKind, Output};
use crate::commands::run_state::{RunState, TimeAllowed};
use crate::commands::shared::Fetch;
use crate::commands::{Outcome, verify, wait};
use crate::engine::{Stop, TransferError};
use crate::environment;
use crate::error::{Class, Error};
use crate::model::{ErrorFields, text};
use crate::process;
use crate::report::{Event, Screen};
use crate::signals::{self, StopReason, TIME_TO_STOP, TimeLimit};

/// Bound of the termination message; the kubelet shares 12 KiB among the containers of a pod.
const MAX_MESSAGE_BYTES: usize = 1024;

/// Bound of the sentence of a last line.
const MAX_CHARS: usize = 2_000;

/// How long a last line may take when time is up.
const TIME_TO_TELL: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
/// How much later than it should a `wait` may end.
const SLACK: Duration = Duration::from_secs(2);
/// As much as the main thread usually has.
const STACK_BYTES: usize = 8 << 20;

/// Runs the command line `arguments`, the program's name first.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let started = Instant::now();
    process::settle();
    let cli = match Cli::parse_from_outside(arguments) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let ending = Ending {
        termination_log: cli.global.termination_log.clone(),
        screen: Screen::new(cli.global.log_format.into()),
    };
    ending.catch_panics();
    let stop = Stop::default();
    let allowed = time_allowed(&cli.command);
    let state = RunState::new(started, allowed);
    let limit = allowed.and_then(|allowed| time_limit(&cli.command, started, allowed));
    let (last, of_run) = (ending.clone(), state.clone());
    let give_up = move |reason| last.leave(&stopped(reason, &of_run));
    let told = match signals::listen(stop.clone(), limit, give_up) {
        Ok(told) => told,
        Err(error) => return ExitCode::from(ending.report(&Err(no_thread(error)))),
    };
    let result = beside_signals(|| command(&cli, &ending.screen, &stop, &state));
    let result = match (result, told.reason()) {
        // It says more of its end than the run does.
        (Err(Error::Deadline(why)), Some(StopReason::OutOfTime)) => Err(Error::Deadline(why)),
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
        StopReason::Signal(signal) => Error::Signal(signal),
        StopReason::OutOfTime => state.out_of_time(),
    }
}

/// How long the run may take in all, if that has an end.
fn time_allowed(command: &Command) -> Option<TimeAllowed> {
    let (flag, time) = match command {
        Command::Fetch(args) => ("--deadline", args.deadline.deadline),
        Command::Verify(args) => ("--deadline", args.deadline.deadline),
        Command::Wait(args) => ("--timeout", Some(args.timeout)),
    };
    time.map(|time| TimeAllowed { flag, time })
}

/// When the run is stopped from outside. `wait` ends in time by itself and has nothing to save: only a
/// volume that does not answer keeps it.
fn time_limit(command: &Command, started: Instant, allowed: TimeAllowed) -> Option<TimeLimit> {
    let (later, time_to_stop) = match command {
        Command::Wait(_) => (SLACK, SLACK),
        Command::Fetch(_) | Command::Verify(_) => (Duration::ZERO, TIME_TO_STOP),
    };
    let at = started.checked_add(allowed.time)?.checked_add(later)?;
    Some(TimeLimit { at, time_to_stop })
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
    screen: &Screen,
    stop: &Stop,
    state: &RunState,
) -> Result<Vec<Outcome>, Error> {
    let mut done = Vec::new();
    let mut finish = |outcome: Outcome, is_last: bool| {
        print(&outcome, cli.global.output)?;
        if !is_last {
            screen.tell(&Event::Complete { message: outcome.summary.clone() });
        }
        done.push(outcome);
        state.has_completed_one();
        Ok::<(), Error>(())
    };
    match &cli.command {
        Command::Fetch(args) => {
            let runtime = runtime()?;
            let models = args.models()?;
            state.has_models(models.len());
            let fetch = Fetch::new(args, screen, stop, state);
            for (n, model) in models.iter().enumerate() {
                finish(runtime.block_on(fetch.model(model))?, n + 1 == models.len())?;
            }
        }
        Command::Wait(args) => {
            let runtime = runtime()?;
            let now = Instant::now();
            let deadline = now.checked_add(args.timeout).unwrap_or(now + 365 * 24 * HOUR);
            let models = args.models()?;
            state.has_models(models.len());
            for (n, (path, expected)) in models.iter().enumerate() {
                let expected = expected.as_deref();
                let waited = wait::for_model(path, args, expected, deadline, screen, stop, state);
                finish(runtime.block_on(waited)?, n + 1 == models.len())?;
            }
        }
        Command::Verify(args) => {
            let mut first_error = None;
            state.has_models(args.paths.len());
            for (n, path) in args.paths.iter().enumerate() {
                match verify::family(path, screen, stop, state) {
                    Ok(outcome) => {
                        finish(outcome, n + 1 == args.paths.len() && first_error.is_none())?;
                    }
                    Err(error @ Error::Stopped) => return Err(first_error.unwrap_or(error)),
                    // All of them are looked at; the first finding decides.
                    Err(error) => {
                        if n + 1 < args.paths.len() {
                            screen.tell(&failed(&error));
                        }
                        first_error.get_or_insert(error);
                    }
                }
            }
            if let Some(error) = first_error {
                return Err(error);
            }
        }
    }
    Ok(done)
}

fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(no_thread)
}

/// The process may have no more threads or descriptors.
fn no_thread(error: std::io::Error) -> Error {
    TransferError::Thread(error).into()
}

/// The one line on standard output.
fn print(outcome: &Outcome, output: Output) -> Result<(), Error> {
    let line = match output {
        Output::Text => outcome.to_load().to_owned(),
        Output::Json => text::inert_json(
            &serde_json::to_string(outcome).map_err(|error| Error::Bug(error.to_string()))?,
        ),
    };
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        // Nobody listens: the model is there all the same.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Error::Store(crate::volume::StoreError::io(
            "write to",
            Path::new("standard output"),
            error,
        ))),
        Ok(()) => Ok(()),
    }
}

/// How the process says goodbye.
#[derive(Clone)]
struct Ending {
    termination_log: PathBuf,
    screen: Screen,
}

impl Ending {
    /// The last line on standard error, the termination message, and the exit code.
    fn report(&self, result: &Result<Vec<Outcome>, Error>) -> u8 {
        let done = match result {
            Ok(done) => done,
            Err(error) => {
                self.write_termination_message(error.class(), &error.to_string(), Facts::of(error));
                self.screen.tell(&failed(error));
                return error.class().exit_code();
            }
        };
        // The one that somebody should know of, or else the last.
        let stale = done.iter().rev().find(|outcome| outcome.stale.is_some());
        let outcome = stale.or(done.last());
        let message = outcome.map(|outcome| outcome.summary.clone()).unwrap_or_default();
        let message = text::inert(&message, MAX_CHARS);
        let facts = outcome.map(Facts::of_outcome).unwrap_or_default();
        self.write_termination_message(Class::Complete, &message, facts);
        self.screen.tell(&Event::Complete { message });
        Class::Complete.exit_code()
    }

    fn write_termination_message(&self, class: Class, message: &str, more: Facts) {
        let mut chars = 600;
        let json = loop {
            let message = text::inert(message, chars);
            let mut facts = serde_json::json!({
                "v": 1, "code": class.exit_code(), "class": class.name(), "message": message,
            });
            for (name, value) in &more.0 {
                facts[*name] = value.clone();
            }
            let json = text::inert_json(&facts.to_string()) + "\n";
            if json.len() <= MAX_MESSAGE_BYTES || chars == 0 {
                break json;
            }
            chars /= 2;
        };
        // Only an existing file, and never through a link: the kubelet has made it.
        let flags =
            OFlags::WRONLY | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        if let Ok(fd) = rustix::fs::open(&self.termination_log, flags, Mode::empty()) {
            let _ = std::fs::File::from(fd).write_all(json.as_bytes());
        }
    }

    /// A panic on any thread is reported like every other end, with exit code 70.
    fn catch_panics(&self) {
        let ending = self.clone();
        std::panic::set_hook(Box::new(move |panic| {
            let at = panic.location().map(|at| format!(" at {at}")).unwrap_or_default();
            // What is not a literal may quote a URL or a header.
            let what = text::without_secrets(panic.payload_as_str().unwrap_or_default());
            ending.leave(&Error::Bug(format!("panicked{at}: {what}")));
        }));
    }

    /// Ends the process now, whatever its other threads are doing.
    fn leave(&self, error: &Error) -> ! {
        static IS_LEAVING: AtomicBool = AtomicBool::new(false);
        let class = error.class();
        let started = Instant::now();
        if !IS_LEAVING.swap(true, SeqCst) {
            self.write_termination_message(class, &error.to_string(), Facts::of(error));
            // Somebody may hold the screen for ever, and whoever should read it may not.
            let (screen, last) = (self.screen.clone(), failed(error));
            let tell = move || screen.tell(&last);
            let told = std::thread::Builder::new().spawn(tell);
            while told.as_ref().is_ok_and(|told| !told.is_finished())
                && started.elapsed() < TIME_TO_TELL
            {
                std::thread::sleep(Duration::from_millis(5));
            }
        } else {
            // Another thread is telling why.
            std::thread::sleep(TIME_TO_TELL);
        }
        std::process::exit(i32::from(class.exit_code()));
    }
}

/// The last thing that is said of a model or of a run that has failed.
fn failed(error: &Error) -> Event {
    let class = error.class();
    Event::Failed {
        message: text::inert(&error.to_string(), MAX_CHARS),
        code: class.exit_code(),
        class: class.name(),
        fields: Box::new(error.fields()),
    }
}

/// What the termination message has beside class and sentence.
#[derive(Default)]
struct Facts(Vec<(&'static str, serde_json::Value)>);

impl Facts {
    fn of_outcome(outcome: &Outcome) -> Self {
        let mut facts = vec![("status", outcome.status.into())];
        // A path that leaves no room for the message is dropped: the log has it.
        if outcome.path.len() < MAX_MESSAGE_BYTES / 2 {
            facts.push(("path", outcome.path.as_str().into()));
        }
        Self(facts)
    }

    /// The short ones; the others are in the log.
    fn of(error: &Error) -> Self {
        let ErrorFields { host, http_status, file, .. } = error.fields();
        let short = |text: Option<String>| text.filter(|text| text.len() < MAX_MESSAGE_BYTES / 5);
        let facts = [
            ("host", short(host).map(Into::into)),
            ("http_status", http_status.map(Into::into)),
            ("file", short(file).map(Into::into)),
        ];
        Self(facts.into_iter().filter_map(|(name, value)| Some((name, value?))).collect())
    }
}

/// What clap has to say: help and version on standard output, mistakes as exit code 2.
fn usage(error: &clap::Error) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let rendered = error.render().to_string();
    let (first, rest) = rendered.split_once('\n').unwrap_or((&rendered, ""));
    let screen = Screen::new(LogKind::of_environment().into());
    rest.trim().lines().for_each(|line| screen.say(line));
    let message = first.trim_start_matches("error: ").to_owned();
    // The flag could not be read; its variable can.
    let log =
        environment::os("WEIGHTLIFT_TERMINATION_LOG").unwrap_or("/dev/termination-log".into());
    let ending = Ending { termination_log: log.into(), screen };
    ExitCode::from(ending.report(&Err(Error::Usage(message))))
}
