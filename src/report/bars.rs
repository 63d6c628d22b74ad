//! The bars of a terminal: lines of words and a track, drawn by indicatif into our region.

use std::sync::Arc;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::layout::Line;
use super::region::{Canvas, Out, Region, usable};

/// Filled, half, empty.
const FINE_TRACK: &str = "━╾─";
const PLAIN_TRACK: &str = "=>-";

/// All lines that are drawn again and again; a copy is the same.
#[derive(Clone)]
pub(super) struct Bars {
    lines: MultiProgress,
    region: Arc<Region>,
    track: &'static str,
}

/// One of them.
pub(super) struct Bar {
    bar: ProgressBar,
    /// What its template was made for.
    track: Option<usize>,
}

impl Bars {
    pub fn new(has_unicode: bool) -> Self {
        let region = Region::new();
        let target = ProgressDrawTarget::term_like(Box::new(Canvas(region.clone())));
        let track = if has_unicode { FINE_TRACK } else { PLAIN_TRACK };
        Self { lines: MultiProgress::with_draw_target(target), region, track }
    }

    /// Columns and rows that may be used now.
    pub fn room(&self) -> (usize, usize) {
        usable(self.region.look())
    }

    /// A line below `above`, or below all.
    pub fn add(&self, above: Option<&Bar>) -> Bar {
        // Nothing is drawn before it has a place.
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        let bar = match above {
            Some(above) => self.lines.insert_after(&above.bar, bar),
            None => self.lines.add(bar),
        };
        Bar { bar, track: None }
    }

    /// Lets `bar` be `line`, with `done` of `total` in its track.
    pub fn set(&self, bar: &mut Bar, line: Line, done: u64, total: u64) {
        let Line { mut before, track, mut behind } = line;
        if self.track == PLAIN_TRACK {
            before = before.replace('…', "~");
            behind = behind.replace('…', "~");
        }
        if bar.track != Some(track) {
            bar.track = Some(track);
            let template = match track {
                0 => "{prefix}{msg}".to_owned(),
                _ => format!("{{prefix}}{{bar:{track}}}{{msg}}"),
            };
            let style = ProgressStyle::with_template(&template);
            let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.bar.set_style(style.progress_chars(self.track));
        }
        bar.bar.set_length(total.max(1));
        bar.bar.set_position(if total == 0 { 1 } else { done.min(total) });
        bar.bar.set_prefix(before);
        bar.bar.set_message(behind);
    }

    pub fn remove(&self, bar: &Bar) {
        bar.bar.finish_and_clear();
        self.lines.remove(&bar.bar);
    }

    /// Shows what was set.
    pub fn show(&self) {
        self.region.show();
    }

    /// Writes a line above all bars.
    pub fn write_above(&self, out: &Out, line: &str) {
        self.without(|| out.write(line));
    }

    /// Does what writes lines to the terminal, with the bars out of its way.
    pub fn without<T>(&self, write: impl FnOnce() -> T) -> T {
        let written = self.lines.suspend(|| {
            self.region.show();
            let written = write();
            self.region.forget();
            written
        });
        self.region.show();
        written
    }
}
