//! How far a fetch is: counters that the workers raise, and the ways to show them.
//!
//! Imports `model` only: everything that wants to say something passes it on to here.

use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::model::text;

/// How often a log gets a line, and a terminal a picture.
const LINE_EVERY: Duration = Duration::from_secs(10);
const DRAW_EVERY: Duration = Duration::from_millis(200);
const MAX_LINE_CHARS: usize = 4_000;
/// Files that are shown one by one.
const MAX_FILE_BARS: usize = 8;

/// The counters of one fetch. Raised with relaxed atomics: they are for people.
#[derive(Debug, Default)]
pub struct Progress {
    pub total_bytes: AtomicU64,
    /// Bytes on the volume, taken over ones included.
    pub done_bytes: AtomicU64,
    /// Bytes that came over the network, thrown away ones included.
    pub fetched_bytes: AtomicU64,
    /// Bytes that were read back: hashed, re-checked, copied. A sign of life for those who wait.
    pub worked_bytes: AtomicU64,
    pub total_files: AtomicU64,
    pub done_files: AtomicU64,
    phase: Mutex<&'static str>,
    active: Mutex<Vec<Arc<ActiveFile>>>,
}

/// A file that is being transferred.
#[derive(Debug)]
pub struct ActiveFile {
    pub name: String,
    pub size: u64,
    pub done: AtomicU64,
}

impl Progress {
    /// What is going on: `resolving`, `fetching`, `publishing`, …
    pub fn enter(&self, phase: &'static str) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
    }

    pub fn phase(&self) -> &'static str {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn start_file(&self, name: &str, size: u64, done: u64) -> Arc<ActiveFile> {
        let file = Arc::new(ActiveFile { name: name.into(), size, done: AtomicU64::new(done) });
        self.active().push(file.clone());
        file
    }

    pub fn end_file(&self, file: &Arc<ActiveFile>) {
        self.active().retain(|active| !Arc::ptr_eq(active, file));
    }

    fn active(&self) -> std::sync::MutexGuard<'_, Vec<Arc<ActiveFile>>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long a line may wait for whoever reads standard error.
const PATIENCE: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };

/// Standard error, shared by messages and bars.
#[derive(Clone, Default)]
pub struct Screen {
    bars: Option<MultiProgress>,
    /// Nobody reads: the last line found no room in time.
    is_stuck: Arc<AtomicBool>,
}

impl Screen {
    /// Bars on a terminal; plain lines elsewhere.
    pub fn new() -> Self {
        let bars = std::io::stderr().is_terminal().then(MultiProgress::new);
        Self { bars, is_stuck: Arc::default() }
    }

    /// One line for the user, inert whatever is in it. Whoever has closed our standard error, or
    /// does not read it, loses lines and does not stop the work.
    pub fn say(&self, line: &str) {
        let line = text::inert(line, MAX_LINE_CHARS) + "\n";
        let write = || {
            let mut out = std::io::stderr().lock();
            if self.has_room(&out) {
                let _ = out.write_all(line.as_bytes());
            }
        };
        match &self.bars {
            Some(bars) => bars.suspend(write),
            None => write(),
        }
    }

    fn has_room(&self, out: &impl AsFd) -> bool {
        let patience = if self.is_stuck.load(Relaxed) { Timespec::default() } else { PATIENCE };
        let ready = poll(&mut [PollFd::new(out, PollFlags::OUT)], Some(&patience));
        self.is_stuck.store(ready == Ok(0), Relaxed);
        ready != Ok(0)
    }

    pub fn warn(&self, line: &str) {
        self.say(&format!("warning: {line}"));
    }

    /// Shows `progress` until the result is dropped.
    pub fn follow(&self, progress: Arc<Progress>) -> Follower {
        let (stop, stopped) = channel::<()>();
        let screen = self.clone();
        let thread = std::thread::Builder::new().name("progress".into()).spawn(move || {
            let mut view = View::new(&screen, &progress);
            let every = if screen.bars.is_some() { DRAW_EVERY } else { LINE_EVERY };
            while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                view.draw();
            }
            view.clear();
        });
        Follower { stop: Some(stop), thread: thread.ok() }
    }
}

/// Ends the display when dropped.
pub struct Follower {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Follower {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct View<'a> {
    screen: &'a Screen,
    progress: &'a Progress,
    total: Option<ProgressBar>,
    files: Vec<(Arc<ActiveFile>, ProgressBar)>,
    last: (Instant, u64),
}

impl<'a> View<'a> {
    fn new(screen: &'a Screen, progress: &'a Progress) -> Self {
        let total = screen.bars.as_ref().map(|bars| bars.add(bar(
            "{bar:30} {percent:>3}% {decimal_bytes:>9}/{decimal_total_bytes} {decimal_bytes_per_sec:>11} eta {eta} {msg}",
        )));
        let last = (Instant::now(), progress.done_bytes.load(Relaxed));
        Self { screen, progress, total, files: Vec::new(), last }
    }

    fn draw(&mut self) {
        match &self.total {
            Some(_) => self.draw_bars(),
            None => self.screen.say(&self.line()),
        }
    }

    /// `fetching: 43 %, 6.9 GB of 16.1 GB, 12 of 40 files, 612.3 MB/s, 15s left`
    fn line(&mut self) -> String {
        let done = self.progress.done_bytes.load(Relaxed);
        let total = self.progress.total_bytes.load(Relaxed);
        let (since, before) = std::mem::replace(&mut self.last, (Instant::now(), done));
        let rate = done.saturating_sub(before) as f64 / since.elapsed().as_secs_f64().max(0.001);
        let percent = (done * 100).checked_div(total).unwrap_or(0);
        let left = time_left(total.saturating_sub(done), rate);
        format!(
            "{}: {percent} %, {} of {}, {} of {} files, {}/s, {left}",
            self.progress.phase(),
            text::size(done),
            text::size(total),
            self.progress.done_files.load(Relaxed),
            self.progress.total_files.load(Relaxed),
            text::size(rate as u64),
        )
    }

    fn draw_bars(&mut self) {
        let (Some(total), Some(bars)) = (&self.total, &self.screen.bars) else {
            return;
        };
        total.set_length(self.progress.total_bytes.load(Relaxed));
        total.set_position(self.progress.done_bytes.load(Relaxed));
        total.set_message(self.progress.phase());
        let active = self.progress.active().clone();
        self.files.retain(|(file, bar)| {
            let keep = active.iter().any(|active| Arc::ptr_eq(active, file));
            if !keep {
                bar.finish_and_clear();
                bars.remove(bar);
            }
            keep
        });
        for file in active {
            if self.files.len() >= MAX_FILE_BARS {
                break;
            }
            if !self.files.iter().any(|(known, _)| Arc::ptr_eq(known, &file)) {
                let bar =
                    bars.add(bar("  {bar:28} {percent:>3}% {decimal_total_bytes:>9} {wide_msg}"));
                bar.set_length(file.size);
                bar.set_message(file.name.clone());
                self.files.push((file, bar));
            }
        }
        for (file, bar) in &self.files {
            bar.set_position(file.done.load(Relaxed));
        }
    }

    fn clear(&mut self) {
        for (_, bar) in self.files.drain(..) {
            bar.finish_and_clear();
        }
        if let Some(total) = self.total.take() {
            total.finish_and_clear();
        }
    }
}

fn bar(template: &str) -> ProgressBar {
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(0).with_style(style.progress_chars("=> "))
}

/// When the rest is there at this rate (bytes per second), if that says anything.
fn time_left(missing: u64, rate: f64) -> String {
    let seconds = missing as f64 / rate;
    if rate <= 0.0 {
        "no bytes in the last 10s".into()
    } else if seconds < 100.0 * 3_600.0 {
        format!("{} left", text::duration(Duration::from_secs_f64(seconds)))
    } else {
        "almost no bytes in the last 10s".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guess_of_weeks_is_not_made() {
        assert_eq!(time_left(6_000, 1_000.0), "6.0s left");
        assert_eq!(time_left(6_000, 0.0), "no bytes in the last 10s");
        assert_eq!(time_left(0, 0.0), "no bytes in the last 10s");
        assert_eq!(time_left(16_000_000_000, 300.0), "almost no bytes in the last 10s");
    }
}
