//! What a run is doing at the moment, and until when it may: for its last words when the time is over.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::Error;
use crate::error::{Class, Failures};
use crate::model::{Message, text};
use crate::report::Progress;

/// How long a whole run may take, by the flag that says so.
#[derive(Clone, Copy, Debug)]
pub struct TimeAllowed {
    pub flag: &'static str,
    pub time: Duration,
    /// Whether a failure of this class, of one of several, decides the end of the run although its time is over.
    pub decides: fn(Class) -> bool,
}

/// Shared by all who work on one run; a copy is the same.
#[derive(Clone)]
pub struct RunState {
    started: Instant,
    allowed: Option<TimeAllowed>,
    models: Arc<Models>,
    doing: Arc<Work>,
    /// Of the models that are worked on at the same time, or that were when the run was stopped.
    models_doing: Arc<Mutex<Vec<Arc<Work>>>>,
    /// All transfers of the run, by their source; what is done stays for those who count.
    transfers: Arc<Mutex<Vec<Transfer>>>,
}

/// A source, and how far its transfer is.
type Transfer = (String, Arc<Progress>);

/// What is done for one model, or for the run as a whole.
struct Work {
    model: Option<String>,
    /// Held for a moment only, and never during a call to the volume.
    doing: Mutex<Doing>,
}

/// What a run does at a moment, for monitoring.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Which of several models.
    pub model: Option<String>,
    /// `resolving`, `waiting`, `fetching`, `hashing`, `publishing`, …
    pub phase: String,
    /// The source that is resolved or fetched, the path that is read, or who is waited for.
    pub what: Option<String>,
    pub progress: Option<Arc<Progress>>,
}

#[derive(Default)]
struct Models {
    complete: AtomicUsize,
    all: AtomicUsize,
    failures: Mutex<Failures>,
}

#[derive(Clone)]
pub enum Doing {
    Starting,
    /// Looks at a directory of a volume.
    Reading(String),
    Resolving(String),
    /// One of the questions of `doctor`.
    Checking(String),
    /// For another fetcher, or for a model.
    Waiting(String),
    Filling {
        source: String,
        progress: Arc<Progress>,
    },
    Verifying {
        path: String,
        source: String,
        progress: Arc<Progress>,
    },
}

impl RunState {
    pub fn new(started: Instant, allowed: Option<TimeAllowed>) -> Self {
        Self {
            started,
            allowed,
            models: Arc::default(),
            doing: Work::of(None),
            models_doing: Arc::default(),
            transfers: Arc::default(),
        }
    }

    /// For one of several models of the run.
    pub fn of_model(&self, name: &str) -> Self {
        let doing = Work::of(Some(name.to_owned()));
        let mut all = self.models_doing.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(doing.clone());
        Self { doing, ..self.clone() }
    }

    /// The model has come to its end.
    pub fn has_ended(&self) {
        let mut all = self.models_doing.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|other| !Arc::ptr_eq(other, &self.doing));
    }

    /// What is done at the moment, for each model that is worked on.
    fn doing(&self) -> Vec<Doing> {
        self.work().iter().map(|work| work.doing()).collect()
    }

    fn work(&self) -> Vec<Arc<Work>> {
        let models = self.models_doing.lock().unwrap_or_else(PoisonError::into_inner);
        if models.is_empty() { vec![self.doing.clone()] } else { models.clone() }
    }

    /// What is done at the moment, for each model that is worked on.
    pub fn seen(&self) -> Vec<Seen> {
        self.work().iter().map(|work| work.doing().seen(work.model.clone())).collect()
    }

    /// All transfers so far, each with its source.
    pub fn transfers(&self) -> Vec<Transfer> {
        self.transfers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many models are complete, and of how many.
    pub fn models(&self) -> (usize, usize) {
        (self.models.complete.load(Relaxed), self.models.all.load(Relaxed))
    }

    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    pub fn has_models(&self, count: usize) {
        self.models.all.store(count, Relaxed);
    }

    pub fn has_completed_one(&self) {
        self.models.complete.fetch_add(1, Relaxed);
    }

    /// One of several has failed, and the others go on.
    pub fn has_failed(&self, name: &str, error: &Error) {
        let mut failures = self.models.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.add(name, error.class());
    }

    /// What has failed by now.
    pub fn failures(&self) -> Failures {
        self.models.failures.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn enter(&self, doing: Doing) {
        if let Doing::Filling { source, progress } | Doing::Verifying { source, progress, .. } =
            &doing
        {
            let mut transfers = self.transfers.lock().unwrap_or_else(PoisonError::into_inner);
            if !transfers.iter().any(|(_, known)| Arc::ptr_eq(known, progress)) {
                transfers.push((source.clone(), progress.clone()));
            }
        }
        *self.doing.doing.lock().unwrap_or_else(PoisonError::into_inner) = doing;
    }

    pub fn reads(&self, path: &Path) {
        self.enter(Doing::Reading(path.display().to_string()));
    }

    pub fn verifies(&self, path: &Path, source: &str, progress: &Arc<Progress>) {
        let (path, source) = (path.display().to_string(), source.to_owned());
        self.enter(Doing::Verifying { path, source, progress: progress.clone() });
    }

    /// What is left of the time, if it has an end.
    pub fn time_left(&self) -> Option<Duration> {
        self.allowed.map(|it| it.time.saturating_sub(self.started.elapsed()))
    }

    /// The end of a run whose time is over.
    pub fn out_of_time(&self) -> Error {
        let doing = self.doing();
        let described: Vec<String> = doing.iter().map(Doing::describe).collect();
        let (complete, all) = (self.models.complete.load(Relaxed), self.models.all.load(Relaxed));
        let done = match all {
            0 | 1 => String::new(),
            _ => format!(" ({complete} of {all} models are complete)"),
        };
        let TimeAllowed { flag, time, decides } = self.allowed.unwrap_or(TimeAllowed {
            flag: "--deadline",
            time: self.started.elapsed(),
            decides: |_| false,
        });
        let failures = self.failures();
        let what = format!(
            "{flag} of {} expired while {}{done}",
            text::duration(time),
            described.join(", "),
        );
        let message = match doing.first() {
            Some(doing) => Message::new(what).hint(doing.hint()),
            None => what.into(),
        };
        let class = failures.first(decides).unwrap_or(Class::Deadline);
        Error::OutOfTime { class, message, failures }
    }
}

impl Work {
    fn of(model: Option<String>) -> Arc<Self> {
        Arc::new(Self { model, doing: Mutex::new(Doing::Starting) })
    }

    fn doing(&self) -> Doing {
        self.doing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Doing {
    fn seen(self, model: Option<String>) -> Seen {
        let (phase, what, progress) = match self {
            Self::Starting => ("starting".to_owned(), None, None),
            Self::Reading(path) => ("reading".into(), Some(path), None),
            Self::Resolving(source) => ("resolving".into(), Some(source), None),
            Self::Checking(what) => ("checking".into(), Some(what), None),
            Self::Waiting(holder) => ("waiting".into(), Some(holder), None),
            Self::Filling { source, progress } => {
                (phase_of(&progress), Some(source), Some(progress))
            }
            Self::Verifying { path, progress, .. } => {
                ("verifying".into(), Some(path), Some(progress))
            }
        };
        Seen { model, phase, what, progress }
    }

    fn describe(&self) -> String {
        match self {
            Self::Starting => "starting".into(),
            Self::Reading(path) => format!("looking at `{path}`"),
            Self::Resolving(source) => format!("resolving {source}"),
            Self::Checking(what) => format!("checking {what}"),
            Self::Waiting(holder) => format!("waiting for {holder}"),
            Self::Filling { source, progress } => describe_filling(source, progress),
            Self::Verifying { path, progress, .. } => {
                let (done, total) = (&progress.done_bytes, &progress.total_bytes);
                format!("verifying `{path}`, {}", share(done.load(Relaxed), total.load(Relaxed)))
            }
        }
    }

    fn hint(&self) -> &'static str {
        match self {
            Self::Checking(_) => "allow more time",
            Self::Verifying { .. } => "allow more time: each check starts from the beginning",
            _ => "run it again to resume, or allow more time",
        }
    }
}

/// The phase of a transfer as one word.
fn phase_of(progress: &Progress) -> String {
    let (done, total) = (progress.done_bytes.load(Relaxed), progress.total_bytes.load(Relaxed));
    match progress.phase() {
        "" => "preparing".into(),
        "fetching" if done >= total => "hashing".into(),
        phase => phase.replace(' ', "_"),
    }
}

fn describe_filling(source: &str, progress: &Progress) -> String {
    let (done, total) = (progress.done_bytes.load(Relaxed), progress.total_bytes.load(Relaxed));
    match progress.phase() {
        "" => format!("preparing to fetch {source}"),
        "fetching" if done < total => format!("fetching {source}, {}", share(done, total)),
        "fetching" => format!(
            "hashing and syncing {source}, {} of {} files are verified",
            progress.done_files.load(Relaxed),
            progress.total_files.load(Relaxed)
        ),
        phase => format!("{phase} ({source})"),
    }
}

/// `43 % of 16.1 GB`
fn share(done: u64, total: u64) -> String {
    let percent = (u128::from(done) * 100).checked_div(u128::from(total)).unwrap_or(0).min(100);
    format!("{percent} % of {}", text::size(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(state: &RunState, doing: Doing) -> String {
        state.enter(doing);
        state.out_of_time().to_string()
    }

    #[test]
    fn the_last_words_say_what_was_done_and_how_far() {
        let allowed = TimeAllowed {
            flag: "--deadline",
            time: Duration::from_secs(600),
            decides: |class| class == Class::NotFound,
        };
        let state = RunState::new(Instant::now(), Some(allowed));
        let progress = Arc::new(Progress::default());
        let filling = || Doing::Filling { source: "hf://a/b".into(), progress: progress.clone() };
        let begins = "--deadline of 10m00s expired while ";
        let resumes = "; run it again to resume, or allow more time";
        let checking = said(&state, Doing::Checking("volume space".into()));
        assert_eq!(checking, format!("{begins}checking volume space; allow more time"));
        let is = |found: String, expected: &str| {
            assert_eq!(found, format!("{begins}{expected}{resumes}"));
        };
        is(said(&state, Doing::Starting), "starting");
        is(said(&state, Doing::Reading("/m".into())), "looking at `/m`");
        is(said(&state, Doing::Waiting("pod x".into())), "waiting for pod x");
        is(said(&state, filling()), "preparing to fetch hf://a/b");
        progress.enter("fetching");
        progress.total_bytes.store(16_100_000_000, Relaxed);
        progress.done_bytes.store(6_923_000_000, Relaxed);
        is(said(&state, filling()), "fetching hf://a/b, 43 % of 16.1 GB");
        progress.done_bytes.store(16_100_000_000, Relaxed);
        progress.total_files.store(4, Relaxed);
        is(said(&state, filling()), "hashing and syncing hf://a/b, 0 of 4 files are verified");
        progress.enter("publishing");
        is(said(&state, filling()), "publishing (hf://a/b)");
        state.has_models(3);
        state.has_completed_one();
        is(
            said(&state, Doing::Resolving("hf://c/d".into())),
            "resolving hf://c/d (1 of 3 models are complete)",
        );
        assert_eq!(state.out_of_time().class(), Class::Deadline);
        state.has_failed("d", &Error::Integrity("damaged".into()));
        assert_eq!(state.out_of_time().class(), Class::Deadline);
        state.has_failed("e", &Error::NotFound("no such repo".into()));
        assert_eq!(state.out_of_time().class(), Class::NotFound);
        let told = state.out_of_time().to_string();
        assert!(
            told.ends_with(
                "or allow more time; failed before that: `d` (integrity), `e` (not_found)"
            ),
            "{told}"
        );
    }
}
