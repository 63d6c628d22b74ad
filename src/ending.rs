//! How the process says goodbye: the last line, the termination message, the exit code.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};

use crate::commands::{Outcome, announce};
use crate::error::{Class, Error, MAX_CHARS};
use crate::model::{ErrorFields, text};
use crate::monitor::Monitor;
use crate::output::Lines;
use crate::report::{CompleteModel, Event, Screen, Subject};
use crate::sandbox::Sandbox;

/// Bound of the termination message; the kubelet shares 12 KiB among the containers of a pod.
const MAX_MESSAGE_BYTES: usize = 1024;

/// How long a last line may take when time is up.
const TIME_TO_TELL: Duration = Duration::from_secs(1);

/// How the process says goodbye.
#[derive(Clone)]
pub struct Ending {
    pub sandbox: Arc<Sandbox>,
    pub termination_log: PathBuf,
    pub lines: Lines,
    pub screen: Screen,
    pub monitor: Monitor,
}

impl Ending {
    /// The last line on standard error, the termination message, and the exit code.
    pub fn report(&self, result: &Result<Done, Error>) -> u8 {
        let done = match result {
            Ok(done) => done,
            Err(error) => {
                let sentence = |chars| error.within(chars);
                self.write_termination_message(error.class(), sentence, Facts::of(error));
                self.suspect_the_sandbox(error);
                self.screen.tell(&failed(&self.lines.subject(), error));
                self.monitor.end(error.class(), &error.to_string());
                self.lines.end(error);
                return error.class().exit_code();
            }
        };
        let message = text::inert(&done.message, MAX_CHARS);
        let sentence = |chars| text::inert(&message, chars);
        self.write_termination_message(Class::Complete, sentence, done.facts());
        self.monitor.end(Class::Complete, &message);
        if !message.is_empty() {
            let model = done.model.clone();
            self.screen.tell(&Event::Complete { message, model });
        }
        Class::Complete.exit_code()
    }

    /// Says that we ourselves may have refused what the run has failed with.
    fn suspect_the_sandbox(&self, error: &Error) {
        let sentence = error.to_string();
        let is_refused = matches!(
            error.class(),
            Class::Unusable | Class::LocalIo | Class::Access | Class::Usage
        ) && sentence.contains("Permission denied");
        // Not every error has the file as a field; every sentence quotes it.
        let file = error.fields().file;
        let mut files = file.as_deref().into_iter().chain(sentence.split('`').skip(1).step_by(2));
        let suspect = files.find(|file| self.sandbox.may_have_refused(Path::new(file)));
        if let Some(file) = suspect.filter(|_| is_refused) {
            self.screen.warn(&format!(
                "`{}` is not one of the places that this run was to touch, so weightlift's own sandbox may have \
                 refused it; if so, set --sandbox off and report it",
                text::inert(file, 200)
            ));
        }
    }

    /// `sentence` is told how many characters it may have: fewer, where they take more bytes.
    fn write_termination_message(
        &self,
        class: Class,
        sentence: impl Fn(usize) -> String,
        more: Facts,
    ) {
        let mut chars: usize = 600;
        let json = loop {
            let message = text::inert(&sentence(chars), chars);
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
            chars = chars.saturating_sub(20);
        };
        // Only an existing file, and never through a link: the kubelet has made it.
        let flags =
            OFlags::WRONLY | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        if let Ok(fd) = rustix::fs::open(&self.termination_log, flags, Mode::empty()) {
            let _ = std::fs::File::from(fd).write_all(json.as_bytes());
        }
    }

    /// A panic on any thread is reported like every other end, with exit code 70.
    pub fn catch_panics(&self) {
        let ending = self.clone();
        std::panic::set_hook(Box::new(move |panic| {
            let at = panic.location().map(|at| format!(" at {at}")).unwrap_or_default();
            // What is not a literal may quote a URL or a header.
            let what = text::without_secrets(panic.payload_as_str().unwrap_or_default());
            ending.leave(Error::Bug(format!("panicked{at}: {what}")));
        }));
    }

    /// Ends the process now, whatever its other threads are doing.
    pub fn leave(&self, error: Error) -> ! {
        static IS_LEAVING: AtomicBool = AtomicBool::new(false);
        let class = error.class();
        let started = Instant::now();
        if !IS_LEAVING.swap(true, SeqCst) {
            let sentence = |chars| error.within(chars);
            self.write_termination_message(class, sentence, Facts::of(&error));
            // Somebody may hold the screen for ever, and whoever should read it may not.
            let ending = self.clone();
            let tell = move || {
                ending.screen.tell(&failed(&ending.lines.subject(), &error));
                ending.monitor.end(class, &error.to_string());
                // Last: a pipe that nobody reads holds it for ever.
                ending.lines.end(&error);
            };
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

/// A run that has done what it was asked for.
#[derive(Debug, Default)]
pub struct Done {
    /// The last line.
    pub message: String,
    status: Option<&'static str>,
    path: Option<String>,
    /// What came of each, where there were several.
    models: Facts,
    /// What came of the only one.
    model: Option<Box<CompleteModel>>,
}

impl Done {
    pub fn of_message(message: String) -> Self {
        Self { message, ..Self::default() }
    }

    /// Of all models; of the one that somebody should know of, where there is one.
    pub fn of_models(done: &[Outcome]) -> Self {
        let stale = done.iter().rev().find(|outcome| outcome.stale.is_some());
        let Some(outcome) = stale.or(done.last()) else { return Self::default() };
        if let [_, _, ..] = done {
            let ends = done.iter().map(|it| (it.path.as_str(), it.status));
            let message = stale.map_or_else(|| announce::all(done), |it| it.summary.clone());
            let models = Facts::of_models(ends);
            return Self { message, status: Some(outcome.status), models, ..Self::default() };
        }
        Self {
            models: Facts::default(),
            model: Some(outcome.complete()),
            message: outcome.summary.clone(),
            status: Some(outcome.status),
            // A path that leaves no room for the message is dropped: the log has it.
            path: Some(outcome.path.clone()).filter(|path| path.len() < MAX_MESSAGE_BYTES / 2),
        }
    }

    fn facts(&self) -> Facts {
        let status = self.status.map(|status| ("status", status.into()));
        let path = self.path.as_ref().map(|path| ("path", path.as_str().into()));
        Facts(status.into_iter().chain(path).chain(self.models.0.clone()).collect())
    }
}

/// The last thing that is said of a model or of a run that has failed.
pub fn failed(subject: &Subject, error: &Error) -> Event {
    let class = error.class();
    Event::Failed {
        message: text::inert(&error.within(MAX_CHARS), MAX_CHARS),
        subject: Box::new(subject.clone()),
        code: class.exit_code(),
        class: class.name(),
        fields: Box::new(error.fields()),
    }
}

/// What the termination message has beside class and sentence.
#[derive(Debug, Default)]
struct Facts(Vec<(&'static str, serde_json::Value)>);

impl Facts {
    /// The short ones; the others are in the log.
    fn of(error: &Error) -> Self {
        let ErrorFields { host, http_status, file, holder, .. } = error.fields();
        let short = |text: Option<String>| text.filter(|text| text.len() < MAX_MESSAGE_BYTES / 5);
        let facts = [
            ("host", short(host).map(Into::into)),
            ("http_status", http_status.map(Into::into)),
            ("file", short(file).map(Into::into)),
            ("holder", short(holder).map(Into::into)),
        ];
        let mut facts: Vec<_> =
            facts.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        if let Error::OfSeveral { ends, .. } = error {
            let ends = ends.iter().map(|(path, end)| (path.as_str(), *end));
            facts.extend(Self::of_models(ends).0);
        }
        Self(facts)
    }
    /// What came of each model, by its path, as far as there is room, and how many more there are.
    fn of_models<'a>(ends: impl Iterator<Item = (&'a str, &'static str)>) -> Self {
        let (mut models, mut more) = (serde_json::Map::new(), 0);
        let mut room = MAX_MESSAGE_BYTES / 3;
        for (path, end) in ends {
            // Quotes, colon and comma.
            match room.checked_sub(path.len() + end.len() + 6) {
                Some(left) => {
                    room = left;
                    models.insert(path.to_owned(), end.into());
                }
                None => more += 1,
            }
        }
        let more = (more > 0).then(|| ("more_models", more.into()));
        Self([("models", models.into())].into_iter().chain(more).collect())
    }
}
