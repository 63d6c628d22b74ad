//! Who is waited for, and how far they are, as one line at the bottom of a terminal.

use std::time::{Duration, Instant};

use super::bars::{Bar, Bars};
use super::layout::{self, Wait, Whole};
use super::pace::{Left, Pace};
use super::screen::Screen;

/// A holder that has shown nothing new for so long is one that a person should look at: it tells how far it is every
/// five seconds.
const MOVES_WITHIN: Duration = Duration::from_secs(15);

/// What a waiter knows of the holder.
#[derive(Clone, Debug, Default)]
pub struct Holder<'a> {
    /// `pod web-7 on node n2`, if one is known.
    pub name: Option<&'a str>,
    /// What is not there yet.
    pub missing: &'a str,
    /// What it is doing.
    pub phase: &'a str,
    pub done_bytes: u64,
    /// Nothing where the holder does not tell.
    pub total_bytes: u64,
    pub without_progress: Duration,
    pub gives_up_in: Duration,
}

/// One wait; the line goes when this is dropped. Nothing where there is no terminal.
pub struct Waiting {
    started: Instant,
    pace: Pace,
    /// As of the last heartbeat: between two of them nothing is known.
    seen: Option<(u64, u64)>,
    line: Option<(Bars, Bar)>,
}

impl Screen {
    pub fn waiting(&self) -> Waiting {
        let line = self.bars().map(|bars| (bars.clone(), bars.add(None)));
        Waiting { started: Instant::now(), pace: Pace::default(), seen: None, line }
    }
}

impl Waiting {
    pub fn show(&mut self, holder: &Holder<'_>) {
        let Some((bars, bar)) = &mut self.line else { return };
        let Holder { name, phase, done_bytes, total_bytes, without_progress, .. } = *holder;
        let Holder { missing, gives_up_in, .. } = *holder;
        if self.seen != Some((done_bytes, total_bytes)) {
            self.seen = Some((done_bytes, total_bytes));
            self.pace.sees(self.started.elapsed(), done_bytes, total_bytes);
        }
        let (columns, _) = bars.room();
        let left = match without_progress {
            long if long >= MOVES_WITHIN => Left::Silent(long),
            _ => self.pace.left(),
        };
        let holder = Whole {
            name,
            name_columns: 0,
            phase,
            done_bytes,
            total_bytes,
            done_files: 0,
            total_files: 0,
            bytes_per_second: self.pace.rate(),
            left,
        };
        let wait = Wait { waited: self.started.elapsed(), gives_up_in, missing };
        let line = layout::waiting(columns, &wait, &holder);
        bars.set(bar, line, done_bytes, total_bytes);
        bars.show();
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some((bars, bar)) = &self.line {
            bars.remove(bar);
            bars.show();
        }
    }
}
