//! Several models in one run: some at the same time, each to its own end.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::channel;

use super::Outcome;
use super::beside::Beside;
use super::run_state::RunState;
use super::shared::Fetch;
use super::umask::RunUmask;
use crate::Error;
use crate::cli::{FetchArgs, Model};
use crate::engine::{Stop, TransferError};
use crate::error::Failures;
use crate::exit::Retry;
use crate::model::text;
use crate::report::Screen;

/// So many models are fetched at the same time: while one is published the next one comes, and small ones do
/// not wait behind two large ones.
const LANES: usize = 3;

/// So much of a name is shown.
const MAX_NAME_CHARS: usize = 120;

/// What came of one model.
pub type Ended = Result<Outcome, Error>;

/// Fetches `models`; `ended` is told of each, by its number, as it ends, with the screen for lines about it.
pub fn fetch(
    args: &FetchArgs,
    models: &[Model],
    screen: &Screen,
    stop: &Stop,
    state: &RunState,
    mut ended: impl FnMut(usize, Ended, &Screen) -> Result<(), Error>,
) -> Result<(), Error> {
    let umask = RunUmask::new(args.permissions.umask, models);
    if let [model] = models {
        let fetch = Fetch::new(args, screen, stop, state, Beside::publishing(1, umask));
        return ended(0, runtime()?.block_on(fetch.model(model)), screen);
    }
    let lanes = LANES.min(models.len()).min(usize::from(args.connections));
    let (beside, next) = (Beside::publishing(lanes, umask), AtomicUsize::new(0));
    let (screen, mut count) = screen.of_several(models.iter().map(Model::name));
    let (told, of_lanes) = channel();
    std::thread::scope(|scope| {
        let work = || {
            let told = told.clone();
            let (screen, beside, next) = (&screen, &beside, &next);
            move || loop {
                let n = next.fetch_add(1, SeqCst);
                let Some(model) = models.get(n) else { return };
                if stop.is_set() {
                    return;
                }
                let screen = screen.of_model(model.name());
                let state = state.of_model(model.name());
                let fetch = Fetch::new(args, &screen, stop, &state, beside.clone());
                let result = runtime().and_then(|runtime| runtime.block_on(fetch.model(model)));
                drop(fetch);
                if !matches!(result, Err(Error::Stopped)) {
                    state.has_ended();
                }
                if told.send((n, result, screen)).is_err() {
                    return;
                }
            }
        };
        let mut started = Err(Error::Stopped);
        for lane in 0..lanes {
            let thread = std::thread::Builder::new().name(format!("model-{lane}"));
            match thread.spawn_scoped(scope, work()) {
                Ok(_) => started = Ok(()),
                // Fewer are slower, not wrong; none at all is the end.
                Err(error) if started.is_err() => started = Err(no_thread(error)),
                Err(_) => break,
            }
        }
        drop(told);
        started?;
        for (n, result, screen) in of_lanes {
            if !matches!(result, Err(Error::Stopped)) {
                count.ended(result.is_ok());
            }
            ended(n, result, &screen)?;
        }
        if stop.is_set() { Err(Error::Stopped) } else { Ok(()) }
    })
}

/// A model of several, as the last line names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    pub name: String,
    pub path: String,
}

impl Named {
    pub fn of(model: &Model) -> Self {
        let path = model.destination.path().display().to_string();
        Self { name: model.name().to_owned(), path }
    }

    /// A directory that an argument names.
    pub fn at(path: &Path) -> Self {
        let path = path.display().to_string();
        Self { name: path.clone(), path }
    }

    /// One that has a name and no directory.
    pub fn only(name: &str) -> Self {
        Self { name: name.to_owned(), path: name.to_owned() }
    }
}

/// The error of a run in which models have failed: the one that most needs a person, with the names of all
/// that have failed.
pub fn error_of_all(
    failed: Vec<(Named, Error)>,
    complete: Vec<(String, &'static str)>,
) -> Option<Error> {
    error_of("models", failed, complete)
}

/// The same of other things than models; `what` they are.
pub fn error_of(
    what: &'static str,
    failed: Vec<(Named, Error)>,
    complete: Vec<(String, &'static str)>,
) -> Option<Error> {
    let all = failed.len() + complete.len();
    let ends_of = |(of, error): &(Named, Error)| (of.path.clone(), error.class().name());
    let ends = failed.iter().map(ends_of).chain(complete).collect();
    let names = failed.iter().map(|(of, error)| (of.name.as_str(), error.class()));
    let failures = Failures::new(names);
    let worst = position(failed.iter().map(|(_, error)| error));
    let (of, error) = failed.into_iter().nth(worst)?;
    if all == 1 {
        return Some(error);
    }
    let name = text::name(&of.name, MAX_NAME_CHARS);
    Some(Error::OfSeveral {
        name,
        error: Box::new(error),
        what,
        failures,
        all,
        aside: Box::default(),
        ends,
    })
}

/// Of two errors of one run the one that decides.
pub fn worse_of(first: Error, second: Error) -> Error {
    match position([&first, &second].into_iter()) {
        0 => first,
        _ => second,
    }
}

/// Which of several errors decides: the first that another try does not mend, or else the first. The one order
/// for all commands.
fn position<'a>(mut errors: impl Iterator<Item = &'a Error>) -> usize {
    errors.position(|error| error.class().facts().retry == Retry::Never).unwrap_or_default()
}

pub fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(no_thread)
}

/// The process may have no more threads or descriptors.
pub fn no_thread(error: std::io::Error) -> Error {
    TransferError::Thread(error).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(name: &str) -> Named {
        Named { name: name.into(), path: format!("/m/{name}") }
    }

    #[test]
    fn what_most_needs_a_person_decides() {
        let models = ["a", "b", "c"].map(model);
        let later = || Error::Deadline("too slow".into());
        let never = || Error::NotFound("no such repo".into());
        for (failed, expected) in [
            (vec![later()], "too slow"),
            (
                vec![later(), never(), never()],
                "`b`: no such repo; 3 of 3 models failed: `a` (deadline), `b` (not_found), `c` (not_found)",
            ),
            (
                vec![never(), later()],
                "`a`: no such repo; 2 of 2 models failed: `a` (not_found), `b` (deadline)",
            ),
            (
                vec![later(), later()],
                "`a`: too slow; 2 of 2 models failed: `a` (deadline), `b` (deadline)",
            ),
        ] {
            let failed: Vec<(Named, Error)> = models.iter().cloned().zip(failed).collect();
            let error = error_of_all(failed, Vec::new()).expect("has failed");
            assert_eq!(error.to_string(), expected);
        }
        let one = vec![(model("a"), never())];
        let complete = vec![("/m/b".into(), "fetched")];
        let error = error_of_all(one, complete).expect("has failed");
        assert_eq!(error.to_string(), "`a`: no such repo; 1 of 2 models failed: `a` (not_found)");
        let many = (0..200).map(|n| (model(&format!("m{n}")), later()));
        let error = error_of_all(many.collect(), Vec::new()).expect("has failed").to_string();
        let named = error.matches("` (deadline)").count();
        assert!(named > 100 && error.ends_with(&format!(" and {} more", 200 - named)), "{error}");
        assert!(error_of_all(Vec::new(), Vec::new()).is_none());
    }
}
