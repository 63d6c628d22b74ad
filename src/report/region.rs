//! The lines at the bottom of a terminal that are drawn again and again: what indicatif draws on.
//!
//! The cursor waits at the start of the first of them. Some terminals wrap long lines again when they are made
//! narrower, and some cut them. In both, everything from the cursor on is ours, and is written over or erased: a
//! resize takes no line of the log away. indicatif's own way, the cursor behind the last line and as many steps up as it
//! has written lines, is wrong after a resize.
//!
//! What a resize can leave: a terminal that wraps lines again has more of them, and moves the first ones to what can be
//! scrolled back to. Those are lines of the log, as long as the picture ends at the last row and has half of the rows at
//! most. Otherwise (empty rows below it, which tmux keeps, or less than half of the width at once) first lines of the picture
//! are among them, and appear above the next picture when the terminal is made wider. No terminal lets us erase them
//! alone.

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use indicatif::TermLike;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::tcgetwinsize;

use super::layout::fitted;

/// What a terminal has that does not tell.
const USUAL_SIZE: (u16, u16) = (80, 24);

/// How long a line may wait for whoever reads standard error.
const PATIENCE: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };

/// Standard error of this process.
#[derive(Debug, Default)]
pub(super) struct Out {
    /// Nobody reads: the last line found no room in time.
    is_stuck: AtomicBool,
}

impl Out {
    /// Writes a line, if there is room for it in time.
    pub fn write(&self, line: &str) {
        let patience = if self.is_stuck.load(Relaxed) { Timespec::default() } else { PATIENCE };
        self.is_stuck.store(!Self::write_within(line, patience), Relaxed);
    }

    /// Writes what the next picture replaces, if there is room for it now; returns whether there was.
    fn write_now(picture: &str) -> bool {
        Self::write_within(picture, Timespec::default())
    }

    fn write_within(text: &str, patience: Timespec) -> bool {
        let mut out = std::io::stderr().lock();
        let ready = poll(&mut [PollFd::new(&out, PollFlags::OUT)], Some(&patience));
        let has_room = ready != Ok(0);
        if has_room {
            // Whoever has closed it loses lines and does not stop the work.
            let _ = out.write_all(text.as_bytes());
        }
        has_room
    }
}

/// What indicatif draws is kept; [`Region::show`] writes the last picture, in one piece.
#[derive(Debug)]
pub(super) struct Region {
    /// Columns and rows, as of the last look.
    size: AtomicU32,
    lines: Mutex<Lines>,
}

#[derive(Debug, Default)]
struct Lines {
    /// Of the picture that is being drawn.
    drawing: Vec<String>,
    drawn: Vec<String>,
    /// The bytes that have made what is below the cursor; none where nothing of ours is.
    shown: Option<String>,
}

impl Region {
    pub fn new() -> Arc<Self> {
        let region = Self { size: AtomicU32::new(0), lines: Mutex::default() };
        region.look();
        Arc::new(region)
    }

    /// Asks how large the terminal is; returns columns and rows.
    pub fn look(&self) -> (u16, u16) {
        let size = tcgetwinsize(std::io::stderr()).map(|size| (size.ws_col, size.ws_row));
        let (columns, rows) =
            size.ok().filter(|(columns, rows)| *columns > 0 && *rows > 0).unwrap_or(USUAL_SIZE);
        self.size.store(u32::from(columns) << 16 | u32::from(rows), Relaxed);
        (columns, rows)
    }

    fn size(&self) -> (u16, u16) {
        let size = self.size.load(Relaxed);
        ((size >> 16) as u16, (size & 0xffff) as u16)
    }

    /// Writes the last picture, unless it is there already or nobody reads: the next one will do.
    pub fn show(&self) {
        let mut lines = self.lines();
        let picture = painted(&lines.drawn, self.size());
        let is_there = match &lines.shown {
            None => lines.drawn.is_empty(),
            Some(shown) => *shown == picture,
        };
        if !is_there && Out::write_now(&picture) {
            lines.shown = (!lines.drawn.is_empty()).then_some(picture);
        }
    }

    /// What is below the cursor now is not ours.
    pub fn forget(&self) {
        self.lines().shown = None;
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Columns and rows that a picture may take of a terminal.
pub(super) fn usable((columns, rows): (u16, u16)) -> (usize, usize) {
    // A line that fills the last column is at its end in some terminals, and in the next line in others. Half of the
    // rows, so that a picture whose lines are wrapped once still begins on the screen.
    (usize::from(columns.max(2)) - 1, usize::from(rows / 2).max(1))
}

/// The bytes that make a picture of `lines` from the cursor on, where it is again afterwards.
fn painted(lines: &[String], (columns, rows): (u16, u16)) -> String {
    let (columns, rows) = usable((columns, rows));
    let lines: Vec<String> =
        lines.iter().take(rows).map(|line| fitted(line, columns).trim_end().to_owned()).collect();
    let up = match lines.len() {
        0 | 1 => String::new(),
        count => format!("\x1b[{}A", count - 1),
    };
    // Written over, and not erased first: that flickers. Lines do not wrap: the terminal may be narrower by the time
    // that it reads this, and its cursor must come back to where it was.
    format!("\r\x1b[?7l{}\x1b[J\x1b[?7h{up}\r", lines.join("\x1b[K\r\n"))
}

/// The same as indicatif wants it.
#[derive(Debug)]
pub(super) struct Canvas(pub Arc<Region>);

/// Every picture begins at the cursor, so steps of the cursor and erased lines mean nothing.
impl TermLike for Canvas {
    fn width(&self) -> u16 {
        usable(self.0.size()).0 as u16
    }

    fn height(&self) -> u16 {
        usable(self.0.size()).1 as u16
    }

    fn move_cursor_up(&self, _: usize) -> std::io::Result<()> {
        Ok(())
    }

    fn move_cursor_down(&self, _: usize) -> std::io::Result<()> {
        Ok(())
    }

    fn move_cursor_right(&self, _: usize) -> std::io::Result<()> {
        Ok(())
    }

    fn move_cursor_left(&self, _: usize) -> std::io::Result<()> {
        Ok(())
    }

    fn write_line(&self, line: &str) -> std::io::Result<()> {
        self.write_str(line)
    }

    /// A line, or the white space with which indicatif fills it up to the last column.
    fn write_str(&self, text: &str) -> std::io::Result<()> {
        if !text.trim().is_empty() {
            self.0.lines().drawing.push(text.to_owned());
        }
        Ok(())
    }

    fn clear_line(&self) -> std::io::Result<()> {
        Ok(())
    }

    /// The picture is complete.
    fn flush(&self) -> std::io::Result<()> {
        let mut lines = self.0.lines();
        lines.drawn = std::mem::take(&mut lines.drawing);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(lines: &[&str]) -> Vec<String> {
        lines.iter().map(|line| (*line).to_owned()).collect()
    }

    #[test]
    fn a_picture_begins_and_ends_at_the_same_place() {
        assert_eq!(painted(&[], (80, 24)), "\r\x1b[?7l\x1b[J\x1b[?7h\r");
        assert_eq!(painted(&lines(&["a"]), (80, 24)), "\r\x1b[?7la\x1b[J\x1b[?7h\r");
        assert_eq!(
            painted(&lines(&["a", "b", "c"]), (80, 24)),
            "\r\x1b[?7la\x1b[K\r\nb\x1b[K\r\nc\x1b[J\x1b[?7h\x1b[2A\r"
        );
    }

    #[test]
    fn a_picture_fits_whatever_the_terminal() {
        let all = lines(&["abcdefghij", "权重权重权重", "c", "d"]);
        for (columns, rows) in [(1, 1), (2, 2), (5, 3), (10, 4), (200, 50)] {
            let picture = painted(&all, (columns, rows));
            let shown: Vec<&str> = picture.split("\r\n").collect();
            assert!(shown.len() <= usize::from(rows / 2).max(1), "{picture:?}");
            for line in shown {
                let line = line.trim_start_matches("\r\x1b[?7l");
                let line = line.split('\x1b').next().expect("has a start");
                let width = unicode_width::UnicodeWidthStr::width(line);
                assert!(width < usize::from(columns.max(2)), "{columns}: {line}");
            }
        }
    }
}
