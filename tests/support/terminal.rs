//! A terminal of any size: a pseudo-terminal as standard error, and what a person sees on it.

use std::fs::File;
use std::io::Read;
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::pty::openpty;
use rustix::termios::{Winsize, tcsetwinsize};

/// Lines that have left the screen and can be scrolled back to.
const SCROLLBACK: usize = 500;

/// A command whose standard error is a terminal; it is killed if the test ends first.
pub struct AtTerminal {
    child: Child,
    of_person: OwnedFd,
    seen: Arc<Mutex<Seen>>,
    reads: Option<JoinHandle<()>>,
}

struct Seen {
    terminal: vt100::Parser,
    bytes: Vec<u8>,
}

fn size(columns: u16, rows: u16) -> Winsize {
    Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 }
}

fn not_none(size: u16) -> NonZero<u16> {
    NonZero::new(size).unwrap()
}

impl AtTerminal {
    pub fn start(command: &mut Command, columns: u16, rows: u16) -> Self {
        let pty = openpty(None, None).unwrap();
        let of_person = pty.master;
        tcsetwinsize(&of_person, size(columns, rows)).unwrap();
        if !command.get_envs().any(|(name, _)| name == "TERM") {
            command.env("TERM", "xterm-256color");
        }
        command.stdout(Stdio::null()).stderr(pty.slave);
        let child = command.spawn().unwrap();
        // The command has the last copy of the other end: when it ends, so does what we read.
        command.stderr(Stdio::null());
        let terminal = vt100::Parser::new(not_none(rows), not_none(columns), SCROLLBACK);
        let seen = Arc::new(Mutex::new(Seen { terminal, bytes: Vec::new() }));
        let mut reader = File::from(of_person.try_clone().unwrap());
        let of_reader = seen.clone();
        let reads = std::thread::spawn(move || {
            let mut buffer = [0; 4_096];
            while let Ok(len @ 1..) = reader.read(&mut buffer) {
                let mut seen = of_reader.lock().unwrap();
                seen.terminal.process(&buffer[..len]);
                seen.bytes.extend(&buffer[..len]);
            }
        });
        Self { child, of_person, seen, reads: Some(reads) }
    }

    pub fn resize(&self, columns: u16, rows: u16) {
        let follow = || {
            let mut seen = self.seen.lock().unwrap();
            seen.terminal.screen_mut().set_size(not_none(rows), not_none(columns));
        };
        let is_wider = self.seen.lock().unwrap().terminal.screen().size().1.get() < columns;
        // This emulator always wraps lines, and what is on its way was drawn for the old size.
        if is_wider {
            follow();
        }
        tcsetwinsize(&self.of_person, size(columns, rows)).unwrap();
        std::thread::sleep(Duration::from_secs(1));
        if !is_wider {
            follow();
        }
    }

    /// The lines on the screen, without white space at their ends.
    pub fn lines(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        let screen = seen.terminal.screen();
        screen.rows(0, screen.size().1.get()).map(|row| row.trim_end().to_owned()).collect()
    }

    /// Lines on the screen that go on in the next one, among those that `are`.
    pub fn wrapped(&self, are: impl Fn(&str) -> bool) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        let screen = seen.terminal.screen();
        let rows: Vec<String> = screen.rows(0, screen.size().1.get()).collect();
        let is_wrapped = |row: usize| screen.row_wrapped(row as u16);
        let wrapped = rows.into_iter().enumerate().filter(|(n, row)| is_wrapped(*n) && are(row));
        wrapped.map(|(_, row)| row).collect()
    }

    /// Waits until a line on the screen is such a one, and returns it.
    #[track_caller]
    pub fn eventually(&self, what: &str, is: impl Fn(&str) -> bool) -> String {
        let started = Instant::now();
        loop {
            if let Some(line) = self.lines().into_iter().find(|line| is(line)) {
                return line;
            }
            let lines = self.lines().join("\n");
            assert!(started.elapsed() < Duration::from_secs(60), "never seen: {what}\n{lines}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for the end; returns the exit code, everything that can be scrolled to, and every byte.
    pub fn wait(mut self) -> (i32, String, String) {
        let code = self.child.wait().unwrap().code().unwrap_or(-1);
        self.reads.take().unwrap().join().unwrap();
        let mut seen = self.seen.lock().unwrap();
        let bytes = String::from_utf8_lossy(&seen.bytes).into_owned();
        let screen = seen.terminal.screen_mut();
        let mut lines = Vec::new();
        screen.set_scrollback(SCROLLBACK);
        for back in (0..=screen.scrollback()).rev() {
            screen.set_scrollback(back);
            let columns = screen.size().1.get();
            let rows = screen.rows(0, columns);
            match back {
                0 => lines.extend(rows),
                _ => lines.extend(rows.take(1)),
            }
        }
        (code, lines.join("\n").trim_end().to_owned(), bytes)
    }
}

impl Drop for AtTerminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
