//! How far a fetch is, as bars on a terminal and as lines elsewhere.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::event::Event;
use super::progress::{ActiveFile, Progress};
use super::screen::Screen;
use crate::model::text;

/// Files that are shown one by one.
const MAX_FILE_BARS: usize = 8;

pub(super) struct View<'a> {
    screen: &'a Screen,
    progress: &'a Progress,
    total: Option<ProgressBar>,
    files: Vec<(Arc<ActiveFile>, ProgressBar)>,
    last: (Instant, u64),
}

impl<'a> View<'a> {
    pub fn new(screen: &'a Screen, progress: &'a Progress) -> Self {
        let total = screen.bars().map(|bars| bars.add(bar(
            "{bar:30} {percent:>3}% {decimal_bytes:>9}/{decimal_total_bytes} {decimal_bytes_per_sec:>11} eta {eta} {msg}",
        )));
        let last = (Instant::now(), progress.done_bytes.load(Relaxed));
        Self { screen, progress, total, files: Vec::new(), last }
    }

    pub fn draw(&mut self) {
        match &self.total {
            Some(_) => self.draw_bars(),
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

    fn draw_bars(&mut self) {
        let (Some(total), Some(bars)) = (&self.total, self.screen.bars()) else {
            return;
        };
        total.set_length(self.progress.total_bytes.load(Relaxed));
        total.set_position(self.progress.done_bytes.load(Relaxed));
        let phase = self.progress.phase();
        total.set_message(match self.screen.model() {
            Some(model) => format!("{model}: {phase}"),
            None => phase.to_owned(),
        });
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

    pub fn clear(&mut self) {
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
