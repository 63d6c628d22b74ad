//! How many of several models are done, as a line above those of the models.

use unicode_width::UnicodeWidthStr;

use super::bars::{Bar, Bars};
use super::layout::Line;
use super::screen::Screen;

/// The line goes when this is dropped. Nothing where there is no terminal, or one model.
pub struct ModelCount {
    all: usize,
    complete: usize,
    failed: usize,
    line: Option<(Bars, Bar)>,
}

impl Screen {
    /// The same standard error for a run with models of these `names`, and the count of them.
    pub fn of_several<'a>(&self, names: impl Iterator<Item = &'a str>) -> (Self, ModelCount) {
        let widths: Vec<usize> = names.map(UnicodeWidthStr::width).collect();
        let columns = widths.iter().copied().max().unwrap_or_default();
        (self.with_name_columns(columns), self.count_models(widths.len()))
    }

    /// The count of `all` models, none of which is done.
    pub fn count_models(&self, all: usize) -> ModelCount {
        let bars = self.bars().filter(|_| all > 1);
        let line = bars.map(|bars| (bars.clone(), bars.add(None)));
        let mut count = ModelCount { all, complete: 0, failed: 0, line };
        count.draw();
        count
    }
}

impl ModelCount {
    /// One more has come to its end.
    pub fn ended(&mut self, is_complete: bool) {
        match is_complete {
            true => self.complete += 1,
            false => self.failed += 1,
        }
        self.draw();
    }

    fn draw(&mut self) {
        let before = words(self.complete, self.failed, self.all);
        if let Some((bars, bar)) = &mut self.line {
            bars.set(bar, Line { before, track: 0, behind: String::new() }, 0, 0);
            bars.show();
        }
    }
}

impl Drop for ModelCount {
    fn drop(&mut self) {
        if let Some((bars, bar)) = &self.line {
            bars.remove(bar);
            bars.show();
        }
    }
}

/// `4 of 20 models complete, 1 failed`
fn words(complete: usize, failed: usize, all: usize) -> String {
    let failed = if failed > 0 { format!(", {failed} failed") } else { String::new() };
    format!("{complete} of {all} models complete{failed}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_failed_is_not_complete() {
        assert_eq!(words(0, 0, 20), "0 of 20 models complete");
        assert_eq!(words(4, 1, 20), "4 of 20 models complete, 1 failed");
    }
}
