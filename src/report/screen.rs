//! Standard error: events become lines for people or for programs, beside the bars of a terminal.

use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::SystemTime;

use indicatif::MultiProgress;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;

use super::event::{Event, Level};
use crate::model::text;

const MAX_LINE_CHARS: usize = 4_000;
/// How long a line may wait for whoever reads standard error.
const PATIENCE: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };

/// What a line is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object, with the same sentence as `message` and its facts as fields.
    Json,
}

/// Standard error, shared by messages and bars.
#[derive(Clone, Default)]
pub struct Screen {
    format: LogFormat,
    bars: Option<MultiProgress>,
    /// Nobody reads: the last line found no room in time.
    is_stuck: Arc<AtomicBool>,
    /// Which of several models the lines are about.
    model: Option<Arc<str>>,
}

impl Screen {
    /// Bars on a terminal that a person reads; plain lines elsewhere.
    pub fn new(format: LogFormat) -> Self {
        let has_bars = format == LogFormat::Text && std::io::stderr().is_terminal();
        Self {
            format,
            bars: has_bars.then(MultiProgress::new),
            is_stuck: Arc::default(),
            model: None,
        }
    }

    /// The same standard error, for lines about one of several models.
    pub fn of_model(&self, name: &str) -> Self {
        Self { model: Some(name.into()), ..self.clone() }
    }

    pub(super) fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    pub(super) fn bars(&self) -> Option<&MultiProgress> {
        self.bars.as_ref()
    }

    /// One line, inert whatever is in it. Whoever has closed our standard error, or does not read it,
    /// loses lines and does not stop the work.
    pub fn tell(&self, event: &Event) {
        let line = match self.format {
            LogFormat::Text => {
                let start = match event.level() {
                    Level::Info => "",
                    Level::Warning => "warning: ",
                    Level::Error => "error: ",
                };
                let of_model = self.model().map(|name| format!("{name}: ")).unwrap_or_default();
                text::inert(&format!("{start}{of_model}{event}"), MAX_LINE_CHARS)
            }
            LogFormat::Json => json(event, self.model(), SystemTime::now()),
        };
        self.write(line + "\n");
    }

    pub fn say(&self, line: &str) {
        self.tell(&Event::note(line));
    }

    pub fn warn(&self, line: &str) {
        self.tell(&Event::warning(line));
    }

    fn write(&self, line: String) {
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
}

/// The line of a program: time, level, event, message, fields.
fn json(event: &Event, model: Option<&str>, now: SystemTime) -> String {
    #[derive(Serialize)]
    struct Line<'a> {
        time: String,
        level: Level,
        message: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        model: Option<&'a str>,
        #[serde(flatten)]
        event: &'a Event,
    }
    let message = text::inert(&event.to_string(), MAX_LINE_CHARS);
    let line = Line { time: rfc3339(now), level: event.level(), message, model, event };
    text::inert_json(&serde_json::to_string(&line).expect("strings and numbers always serialise"))
}

/// `2026-11-28T23:08:01Z`
pub fn rfc3339(time: SystemTime) -> String {
    let time = aws_smithy_types::DateTime::from(time);
    let seconds = aws_smithy_types::DateTime::from_secs(time.secs());
    seconds.fmt(aws_smithy_types::date_time::Format::DateTime).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_programs_has_the_sentence_and_the_facts() {
        let event = Event::FetchingAgain { path: "a\u{1b}[2J".into(), cause: "wrong bytes".into() };
        let line = json(&event, Some("a/b"), SystemTime::UNIX_EPOCH);
        let read: serde_json::Value = serde_json::from_str(&line).expect("is JSON");
        assert_eq!(
            (&read["time"], &read["model"]),
            (&"1970-01-01T00:00:00Z".into(), &"a/b".into())
        );
        assert_eq!((&read["level"], &read["event"]), (&"warning".into(), &"fetching_again".into()));
        assert!(read["message"].as_str().expect("a sentence").ends_with("from the start"));
        assert!(!line.contains('\u{1b}') && !line.contains('\n'), "{line}");
    }
}
