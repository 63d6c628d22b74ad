//! How far a fetch is, as bars on a terminal and as lines elsewhere.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::bars::{Bar, Bars};
use super::event::Event;
use super::layout::{self, Line, Whole};
use super::pace::Pace;
use super::progress::{ActiveFile, FileState, Progress, Shown};
use super::screen::Screen;
use crate::model::text;

/// How often a terminal gets a picture, and a log a line.
const DRAW_EVERY: Duration = Duration::from_millis(200);
const LINE_EVERY: Duration = Duration::from_secs(10);
/// How soon it is seen that another phase has begun.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A rate is measured over so much at least.
const LEAST_TIME: Duration = Duration::from_secs(2);
/// Files that are shown one by one; of each of several models.
const MAX_FILES: usize = 8;
const MAX_FILES_OF_SEVERAL: usize = 2;

pub(super) struct View<'a> {
    screen: &'a Screen,
    progress: &'a Progress,
    shown: Way<'a>,
}

enum Way<'a> {
    Picture(Picture<'a>),
    Lines(Lines),
}

/// The lines of one transfer in a log.
struct Lines {
    told: Instant,
    /// What the next rate is measured from: the last line, or the begin of a phase, whose bytes are its own.
    since: Instant,
    phase: &'static str,
    done_bytes: u64,
}

/// The lines of one transfer on a terminal.
struct Picture<'a> {
    bars: &'a Bars,
    started: Instant,
    /// Of the phase, whose bytes are its own.
    pace: (&'static str, Pace),
    whole: Bar,
    files: Vec<(Arc<ActiveFile>, Bar)>,
    /// What is not shown one by one.
    rest: Option<Bar>,
}

impl<'a> View<'a> {
    pub fn new(screen: &'a Screen, progress: &'a Progress) -> Self {
        let now = Instant::now();
        let shown = match screen.bars() {
            Some(bars) => Way::Picture(Picture {
                bars,
                started: now,
                pace: Default::default(),
                whole: bars.add(None),
                files: Vec::new(),
                rest: None,
            }),
            None => {
                let Shown { phase, done_bytes, .. } = progress.shown();
                Way::Lines(Lines { told: now, since: now, phase, done_bytes })
            }
        };
        Self { screen, progress, shown }
    }

    /// How often it wants to look.
    pub fn every(&self) -> Duration {
        match self.shown {
            Way::Picture(_) => DRAW_EVERY,
            Way::Lines(_) => LOOK_EVERY,
        }
    }

    pub fn look(&mut self) {
        match &mut self.shown {
            Way::Picture(picture) => picture.draw(self.screen, self.progress),
            Way::Lines(lines) => {
                if let Some(line) = lines.next(Instant::now(), self.progress.shown()) {
                    self.screen.tell(&line);
                }
            }
        }
    }

    pub fn clear(self) {
        if let Way::Picture(picture) = self.shown {
            picture.clear();
        }
    }
}

impl Lines {
    /// `fetching: 43 %, 6.9 GB of 16.1 GB, 12 of 40 files, 612.3 MB/s, 15s left`, if it is time for it and known how
    /// much there is to do.
    fn next(&mut self, now: Instant, shown: Shown) -> Option<Event> {
        let Shown { phase, done_bytes, total_bytes, done_files, total_files } = shown;
        if self.phase != phase {
            (self.phase, self.since, self.done_bytes) = (phase, now, done_bytes);
        }
        let time = now.duration_since(self.since);
        let is_due = now.duration_since(self.told) >= LINE_EVERY && time >= LEAST_TIME;
        if !is_due || total_bytes == 0 {
            return None;
        }
        let rate = done_bytes.saturating_sub(self.done_bytes) as f64 / time.as_secs_f64();
        (self.told, self.since, self.done_bytes) = (now, now, done_bytes);
        Some(Event::Progress {
            phase: phase.to_owned(),
            done_bytes,
            total_bytes,
            done_files,
            total_files,
            bytes_per_second: rate as u64,
            left: time_left(total_bytes.saturating_sub(done_bytes), rate),
        })
    }
}

impl Picture<'_> {
    fn draw(&mut self, screen: &Screen, progress: &Progress) {
        let (columns, rows) = self.bars.room();
        let Shown { phase, done_bytes, total_bytes, done_files, total_files } = progress.shown();
        if self.pace.0 != phase {
            self.pace = (phase, Pace::default());
        }
        self.pace.1.sees(self.started.elapsed(), done_bytes, total_bytes);
        let whole = Whole {
            name: screen.model(),
            name_columns: screen.name_columns(),
            phase,
            done_bytes,
            total_bytes,
            done_files,
            total_files,
            bytes_per_second: self.pace.1.rate(),
            left: self.pace.1.left(),
        };
        self.bars.set(&mut self.whole, layout::whole(columns, &whole), done_bytes, total_bytes);
        let most = if whole.name.is_some() { MAX_FILES_OF_SEVERAL } else { MAX_FILES };
        // One line for the whole, and one for what is not shown.
        self.draw_files(progress, columns, most.min(rows.saturating_sub(2)));
        let more = total_files.saturating_sub(done_files + self.files.len() as u64);
        self.draw_rest(layout::rest(more, progress.retries.load(Relaxed)));
        self.bars.show();
    }

    fn draw_files(&mut self, progress: &Progress, columns: usize, most: usize) {
        let active = progress.active().clone();
        let bars = self.bars;
        let mut kept = 0;
        self.files.retain(|(file, bar)| {
            let keep = kept < most && active.iter().any(|active| Arc::ptr_eq(active, file));
            if keep {
                kept += 1;
            } else {
                bars.remove(bar);
            }
            keep
        });
        for file in active {
            if self.files.len() >= most {
                break;
            }
            if !self.files.iter().any(|(known, _)| Arc::ptr_eq(known, &file)) {
                let above = self.files.last().map_or(&self.whole, |(_, bar)| bar);
                let bar = bars.add(Some(above));
                self.files.push((file, bar));
            }
        }
        for (file, bar) in &mut self.files {
            let state = file.state();
            let done = match state {
                FileState::Fetching { done } => done,
                _ => file.size,
            };
            let line = layout::file(columns, &file.name, file.size, state);
            bars.set(bar, line, done, file.size);
        }
    }

    fn draw_rest(&mut self, words: Option<String>) {
        let Some(before) = words else {
            if let Some(bar) = self.rest.take() {
                self.bars.remove(&bar);
            }
            return;
        };
        let above = self.files.last().map_or(&self.whole, |(_, bar)| bar);
        let bar = self.rest.get_or_insert_with(|| self.bars.add(Some(above)));
        let line = Line { before, track: 0, behind: String::new() };
        self.bars.set(bar, line, 0, 0);
    }

    fn clear(self) {
        let Self { bars, whole, files, rest, .. } = self;
        let files = files.iter().map(|(_, bar)| bar);
        [&whole].into_iter().chain(files).chain(&rest).for_each(|bar| bars.remove(bar));
        bars.show();
    }
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
    fn a_line_comes_every_ten_seconds_and_measures_one_phase() {
        let start = Instant::now();
        let mut lines = Lines { told: start, since: start, phase: "", done_bytes: 0 };
        let mut said = |second: u64, phase, done_bytes, total_bytes| {
            let shown = Shown { phase, done_bytes, total_bytes, done_files: 1, total_files: 2 };
            let line = lines.next(start + Duration::from_secs(second), shown);
            line.map(|line| line.to_string())
        };
        assert_eq!(said(0, "", 0, 0), None);
        assert_eq!(said(9, "reading what is here", 0, 0), None, "nothing is known yet");
        assert_eq!(said(12, "fetching", 5_000_000, 9_000_000), None, "no time for a rate");
        assert_eq!(
            said(14, "fetching", 7_000_000, 9_000_000).as_deref(),
            Some("fetching: 77 %, 7.0 MB of 9.0 MB, 1 of 2 files, 1.0 MB/s, 2.0s left")
        );
        assert_eq!(said(23, "hashing", 1_000_000, 9_000_000), None);
        assert_eq!(
            said(25, "hashing", 3_000_000, 9_000_000).as_deref(),
            Some("hashing: 33 %, 3.0 MB of 9.0 MB, 1 of 2 files, 1.0 MB/s, 6.0s left")
        );
    }

    #[test]
    fn a_guess_of_weeks_is_not_made() {
        assert_eq!(time_left(6_000, 1_000.0), "6.0s left");
        assert_eq!(time_left(6_000, 0.0), "no bytes in the last 10s");
        assert_eq!(time_left(0, 0.0), "no bytes in the last 10s");
        assert_eq!(time_left(16_000_000_000, 300.0), "almost no bytes in the last 10s");
    }
}
