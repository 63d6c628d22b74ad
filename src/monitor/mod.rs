//! What monitoring reads of a run: a file with its progress, a file or an address with its metrics. Counts by
//! looking once a second at what the run says of itself; the work knows nothing of it.
//!
//! Imports `commands` for the state of the run, `net` for its counters, `fs`, `model`, `exit`, `error` and `report`.

mod counts;
mod file;
mod listen;
mod progress;
mod prometheus;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::Error;
use crate::commands::run_state::RunState;
use crate::exit::Class;
use crate::model::Message;
use crate::report::Screen;
use counts::{Counts, End, Reading};
use file::Published;

/// How often the run is looked at, and its progress is written.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often the metrics are written.
const METRICS_EVERY: Duration = Duration::from_secs(15);
/// How long the last writing may take: the file may lie on a volume that hangs.
const TIME_TO_END: Duration = Duration::from_secs(2);

/// Where monitoring reads.
#[derive(Clone, Debug, Default)]
pub struct Outlets {
    pub progress_file: Option<PathBuf>,
    pub metrics_file: Option<PathBuf>,
    pub metrics_listen: Option<SocketAddr>,
    /// What every metric has as well: names and values.
    pub labels: Vec<(String, String)>,
}

/// Follows a run until its end. A copy is the same; the default follows nothing.
#[derive(Clone, Default)]
pub struct Monitor(Option<Arc<Following>>);

struct Following {
    counts: Mutex<Counts>,
    state: RunState,
    labels: Vec<(String, String)>,
    screen: Screen,
    progress_file: Option<Published>,
    metrics_file: Option<Published>,
    /// Whoever holds it looks on; it is taken at the end.
    looks: Mutex<Option<Sender<()>>>,
    /// Whether the last numbers are written. Held while files are, so that nobody replaces them by older ones.
    has_ended: Mutex<bool>,
}

impl Monitor {
    /// Begins to follow `state`, if anybody wants to read of it.
    pub fn start(
        outlets: &Outlets,
        command: &'static str,
        state: &RunState,
        screen: &Screen,
    ) -> Result<Self, Error> {
        let Outlets { progress_file, metrics_file, metrics_listen, labels } = outlets;
        if progress_file.is_none() && metrics_file.is_none() && metrics_listen.is_none() {
            return Ok(Self::default());
        }
        let mut names = HashSet::new();
        if let Some((name, _)) = labels.iter().find(|(name, _)| !names.insert(name)) {
            let what = format!("--metrics-label: `{name}` is given twice");
            return Err(Error::Usage(Message::new(what).hint("give each label once")));
        }
        let before = metrics_file.as_deref().map(file::read).unwrap_or_default();
        let publish = |path: &Option<PathBuf>, flag| {
            path.as_deref().map(|path| Published::at(path, flag)).transpose()
        };
        let (stop, stopped) = channel::<()>();
        let following = Arc::new(Following {
            counts: Mutex::new(Counts::new(command, prometheus::last_of(&before))),
            labels: labels.clone(),
            state: state.clone(),
            screen: screen.clone(),
            progress_file: publish(progress_file, "--progress-file")?,
            metrics_file: publish(metrics_file, "--metrics-file")?,
            looks: Mutex::new(Some(stop)),
            has_ended: Mutex::default(),
        });
        following.write(&following.look(None), true)?;
        if let Some(address) = *metrics_listen {
            let following = following.clone();
            listen::serve(address, move || following.metrics(&following.look(None)))?;
        }
        let monitor = Self(Some(following.clone()));
        let look = move || {
            let mut metrics_at = Instant::now() + METRICS_EVERY;
            while stopped.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
                let is_due = Instant::now() >= metrics_at;
                if is_due {
                    metrics_at = Instant::now() + METRICS_EVERY;
                }
                following.write_or_warn(None, is_due);
            }
        };
        // Without it there are the first and the last numbers.
        let _ = std::thread::Builder::new().name("monitor".into()).spawn(look);
        Ok(monitor)
    }

    /// Writes the last numbers, with how the run has ended.
    pub fn end(&self, class: Class, message: &str) {
        let Some(following) = self.0.clone() else { return };
        // Another thread may be telling the same.
        let looks = following.looks.lock().unwrap_or_else(PoisonError::into_inner).take();
        if looks.is_none() {
            return;
        }
        let end = End { class, message: message.to_owned() };
        let started = Instant::now();
        let write = move || following.write_or_warn(Some(end), true);
        let thread = std::thread::Builder::new().name("monitor-end".into()).spawn(write);
        while thread.as_ref().is_ok_and(|thread| !thread.is_finished())
            && started.elapsed() < TIME_TO_END
        {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Following {
    fn look(&self, end: Option<End>) -> Reading {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).look(&self.state, end)
    }

    fn metrics(&self, reading: &Reading) -> String {
        prometheus::text(reading, &self.labels)
    }

    fn write(&self, reading: &Reading, with_metrics: bool) -> Result<(), Error> {
        if let Some(file) = &self.progress_file {
            file.write(&progress::json(reading))?;
        }
        if let (Some(file), true) = (&self.metrics_file, with_metrics) {
            file.write(&self.metrics(reading))?;
        }
        Ok(())
    }

    /// A model is worth more than its numbers.
    fn write_or_warn(&self, end: Option<End>, with_metrics: bool) {
        let mut has_ended = self.has_ended.lock().unwrap_or_else(PoisonError::into_inner);
        if *has_ended {
            return;
        }
        *has_ended = end.is_some();
        if let Err(error) = self.write(&self.look(end), with_metrics)
            && self.counts.lock().unwrap_or_else(PoisonError::into_inner).warns()
        {
            self.screen.warn(&format!("{error}; continuing without it"));
        }
    }
}
