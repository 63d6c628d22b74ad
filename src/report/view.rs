//! How far a fetch is, as bars on a terminal and as lines elsewhere.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::bars::{Bar, Bars};
use super::event::Event;
use super::layout::{self, Line, Whole};
use super::pace::Pace;
use super::progress::{ActiveFile, FileState, Progress};
use super::screen::Screen;
use crate::model::text;

/// Files that are shown one by one; of each of several models.
const MAX_FILES: usize = 8;
const MAX_FILES_OF_SEVERAL: usize = 2;

pub(super) struct View<'a> {
    screen: &'a Screen,
    progress: &'a Progress,
    picture: Option<Picture<'a>>,
    last: (Instant, u64),
}

/// The lines of one transfer on a terminal.
struct Picture<'a> {
    bars: &'a Bars,
    started: Instant,
    pace: Pace,
    whole: Bar,
    files: Vec<(Arc<ActiveFile>, Bar)>,
    /// What is not shown one by one.
    rest: Option<Bar>,
}

impl<'a> View<'a> {
    pub fn new(screen: &'a Screen, progress: &'a Progress) -> Self {
        let picture = screen.bars().map(|bars| Picture {
            bars,
            started: Instant::now(),
            pace: Pace::default(),
            whole: bars.add(None),
            files: Vec::new(),
            rest: None,
        });
        let last = (Instant::now(), progress.done_bytes.load(Relaxed));
        Self { screen, progress, picture, last }
    }

    pub fn draw(&mut self) {
        match &mut self.picture {
            Some(picture) => picture.draw(self.screen.model(), self.progress),
            None => self.screen.tell(&self.line()),
        }
    }

    /// `fetching: 43 %, 6.9 GB of 16.1 GB, 12 of 40 files, 612.3 MB/s, 15s left`
    fn line(&mut self) -> Event {
        let done = self.progress.done_bytes.load(Relaxed);
        let total = self.progress.total_bytes.load(Relaxed);
        let (since, before) = std::mem::replace(&mut self.last, (Instant::now(), done));
        let rate = done.saturating_sub(before) as f64 / since.elapsed().as_secs_f64().max(0.001);
        Event::Progress {
            phase: self.progress.phase().to_owned(),
            done_bytes: done,
            total_bytes: total,
            done_files: self.progress.done_files.load(Relaxed),
            total_files: self.progress.total_files.load(Relaxed),
            bytes_per_second: rate as u64,
            left: time_left(total.saturating_sub(done), rate),
        }
    }

    pub fn clear(self) {
        if let Some(picture) = self.picture {
            picture.clear();
        }
    }
}

impl Picture<'_> {
    fn draw(&mut self, model: Option<&str>, progress: &Progress) {
        let (columns, rows) = self.bars.room();
        let (done, total) = (progress.done_bytes.load(Relaxed), progress.total_bytes.load(Relaxed));
        self.pace.sees(self.started.elapsed(), done, total);
        let (done_files, total_files) =
            (progress.done_files.load(Relaxed), progress.total_files.load(Relaxed));
        let whole = Whole {
            name: model,
            phase: progress.phase(),
            done_bytes: done,
            total_bytes: total,
            done_files,
            total_files,
            bytes_per_second: self.pace.rate(),
            left: self.pace.left(),
        };
        self.bars.set(&mut self.whole, layout::whole(columns, &whole), done, total);
        let most = if model.is_some() { MAX_FILES_OF_SEVERAL } else { MAX_FILES };
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
    fn a_guess_of_weeks_is_not_made() {
        assert_eq!(time_left(6_000, 1_000.0), "6.0s left");
        assert_eq!(time_left(6_000, 0.0), "no bytes in the last 10s");
        assert_eq!(time_left(0, 0.0), "no bytes in the last 10s");
        assert_eq!(time_left(16_000_000_000, 300.0), "almost no bytes in the last 10s");
    }
}
