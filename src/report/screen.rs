//! Standard error: events become lines for people or for programs, above the bars of a terminal.

use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;

use super::bars::Bars;
use super::event::{Event, Level};
use super::region::Out;
use crate::model::text;

const MAX_LINE_CHARS: usize = 4_000;

/// What a line is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object, with the same sentence as `message` and its facts as fields.
    Json,
}

/// How much is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Detail {
    /// Warnings and errors.
    Quiet,
    #[default]
    Usual,
    /// Each file, each retry, and what the run goes by.
    Verbose,
}

/// What standard error can show.
#[derive(Clone, Copy, Debug, Default)]
pub struct Terminal {
    /// It is one that a person looks at, and can move its cursor.
    pub has_bars: bool,
    pub has_colours: bool,
    /// Its characters are those of Unicode.
    pub has_unicode: bool,
}

/// Standard error, shared by messages and bars.
#[derive(Clone, Default)]
pub struct Screen {
    format: LogFormat,
    detail: Detail,
    has_colours: bool,
    bars: Option<Bars>,
    out: Arc<Out>,
    /// Which of several models the lines are about.
    model: Option<Arc<str>>,
    /// How wide the widest of their names is.
    name_columns: usize,
}

impl Screen {
    /// Bars on a terminal that a person looks at; plain lines elsewhere.
    pub fn new(format: LogFormat, detail: Detail, terminal: Terminal) -> Self {
        let is_text = format == LogFormat::Text;
        let has_bars = is_text && terminal.has_bars && detail != Detail::Quiet;
        Self {
            format,
            detail,
            has_colours: is_text && terminal.has_colours,
            bars: has_bars.then(|| Bars::new(terminal.has_unicode)),
            ..Self::default()
        }
    }

    /// The same standard error, for lines about one of several models.
    pub fn of_model(&self, name: &str) -> Self {
        Self { model: Some(name.into()), ..self.clone() }
    }

    pub(super) fn with_name_columns(&self, name_columns: usize) -> Self {
        Self { name_columns, ..self.clone() }
    }

    pub(super) fn name_columns(&self) -> usize {
        self.name_columns
    }

    pub(super) fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    pub(super) fn bars(&self) -> Option<&Bars> {
        self.bars.as_ref()
    }

    /// Whether a person sees bars, which say how far everything is.
    pub fn has_bars(&self) -> bool {
        self.bars.is_some()
    }

    /// Whether nothing is left out because there are many of it.
    pub fn is_verbose(&self) -> bool {
        self.detail == Detail::Verbose
    }

    /// One line, inert whatever is in it. Whoever has closed our standard error, or does not read it,
    /// loses lines and does not stop the work.
    pub fn tell(&self, event: &Event) {
        let level = event.level();
        let is_wanted = match self.detail {
            Detail::Quiet => level >= Level::Warning,
            Detail::Usual => level >= Level::Info,
            Detail::Verbose => true,
        };
        if !is_wanted {
            return;
        }
        let line = match self.format {
            LogFormat::Text => self.text(event, level),
            LogFormat::Json => json(event, self.model(), SystemTime::now()),
        } + "\n";
        match &self.bars {
            Some(bars) => bars.write_above(&self.out, &line),
            None => self.out.write(&line),
        }
    }

    /// The line of a person.
    fn text(&self, event: &Event, level: Level) -> String {
        let start = match level {
            Level::Debug | Level::Info => "",
            Level::Warning => "warning: ",
            Level::Error => "error: ",
        };
        let of_model = self.model().map(|name| format!("{name}: ")).unwrap_or_default();
        let line = text::inert(&format!("{start}{of_model}{event}"), MAX_LINE_CHARS);
        let (word, colour) = match (level, event) {
            (Level::Warning, _) => ("warning:", YELLOW),
            (Level::Error, _) => ("error:", RED),
            (_, Event::Complete { .. }) => ("complete:", GREEN),
            _ => return line,
        };
        match line.strip_prefix(word) {
            Some(rest) if self.has_colours => format!("{colour}{word}{PLAIN}{rest}"),
            _ => line,
        }
    }

    /// Writes to the same terminal by another way, above the bars.
    pub fn above_bars<T>(&self, write: impl FnOnce() -> T) -> T {
        match &self.bars {
            Some(bars) => bars.without(write),
            None => write(),
        }
    }

    pub fn say(&self, line: &str) {
        self.tell(&Event::note(line));
    }

    pub fn warn(&self, line: &str) {
        self.tell(&Event::warning(line));
    }
}

const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const PLAIN: &str = "\x1b[0m";

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
