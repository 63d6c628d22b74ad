//! `weightlift wait`: for servers whose volume another pod fills. Reads, and nothing else.

use std::path::Path;
use std::time::{Duration, Instant};

use super::run_state::{Doing, RunState};
use super::{Outcome, announce};
use crate::Error;
use crate::cli::WaitArgs;
use crate::engine::Stop;
use crate::fs::Dir;
use crate::model::{SENTINEL, Sentinel, text};
use crate::report::Screen;
use crate::volume::{self, StoreError};

/// How often it is looked: rarely enough for a thousand pods on one file server.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often it says what is missing.
const LINE_EVERY: Duration = Duration::from_secs(30);

/// Waits until `path` holds a complete model, and the expected revision of it if there is one.
pub async fn for_model(
    path: &Path,
    args: &WaitArgs,
    expected: Option<&str>,
    deadline: Instant,
    screen: &Screen,
    stop: &Stop,
    state: &RunState,
) -> Result<Outcome, Error> {
    let started = Instant::now();
    let mut last_line: Option<Instant> = None;
    loop {
        state.reads(path);
        let missing = match look(path, expected) {
            Ok(Look::Complete(sentinel)) => {
                let mut outcome = Outcome::of("ready", path, &sentinel);
                outcome.seconds = started.elapsed().as_secs_f64();
                outcome.summary = announce::end(&outcome, started.elapsed());
                return Ok(outcome);
            }
            Ok(Look::Missing(why)) => why,
            // The file server may be away for a while, and so may a directory above.
            Err(error) if can_pass(&error) => error.to_string(),
            Err(error) => return Err(error),
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::Deadline(format!(
                "waited {}: {missing}; look at the Job or pod that fetches it",
                text::duration(args.timeout),
            )));
        }
        state.enter(Doing::Waiting(format!("a model: {missing}")));
        if last_line.is_none_or(|last| last.elapsed() >= LINE_EVERY) {
            last_line = Some(Instant::now());
            screen.say(&format!("waiting up to {}: {missing}", text::duration(left)));
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY.min(left)) => {}
            () = stop.wait() => return Err(Error::Stopped),
        }
    }
}

enum Look {
    Complete(Box<Sentinel>),
    Missing(String),
}

fn look(path: &Path, expected: Option<&str>) -> Result<Look, Error> {
    // Opened again each time: the family may be a link that is replaced, and on NFS a bare look for a
    // missing name is answered from a negative cache.
    let Some(dir) = Dir::open_anew(path)? else {
        return Ok(Look::Missing(format!("`{}` does not exist", path.display())));
    };
    let Some(sentinel) = volume::read_sentinel(&dir)? else {
        return Ok(Look::Missing(format!("`{}` holds no {SENTINEL}", path.display())));
    };
    if let Some(difference) = volume::first_difference(&dir, &sentinel)? {
        return Ok(Look::Missing(format!("`{}` is damaged ({difference})", path.display())));
    }
    match expected {
        Some(expected) if expected != sentinel.revision => Ok(Look::Missing(format!(
            "`{}` holds revision {}, not {}",
            path.display(),
            sentinel.revision,
            text::inert(expected, 64)
        ))),
        _ => Ok(Look::Complete(Box::new(sentinel))),
    }
}

/// Whether waiting can help: not with a volume that may not be read, or a sentinel of a later
/// version.
fn can_pass(error: &Error) -> bool {
    match error {
        Error::Store(StoreError::Sentinel { .. }) => false,
        Error::Store(error) => !matches!(
            error.errno(),
            Some(rustix::io::Errno::ACCESS | rustix::io::Errno::PERM | rustix::io::Errno::NOTDIR)
        ),
        _ => false,
    }
}
