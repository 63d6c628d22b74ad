//! Standard output: what each thing came to, as text or as one JSON object a line.
//!
//! For programs there is one rule more: a run that fails ends with an object that says why, whatever it has printed
//! before. docs/output.schema.json describes each object.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use serde::Serialize;

use crate::cli::Output;
use crate::error::{Error, MAX_CHARS};
use crate::model::{ErrorFields, text};
use crate::report::{Screen, Subject};
use crate::volume::StoreError;

/// Standard output in the form that was asked for. A copy is the same.
#[derive(Clone)]
pub struct Lines {
    format: Output,
    /// What the run is about, where that is one thing.
    only: Arc<OnceLock<Subject>>,
    /// Its bars may be on the same terminal.
    screen: Screen,
}

/// The object of what has failed.
#[derive(Serialize)]
struct Failed<'a> {
    #[serde(flatten)]
    subject: &'a Subject,
    status: &'static str,
    code: u8,
    class: &'static str,
    message: String,
    #[serde(flatten)]
    fields: ErrorFields,
}

impl Lines {
    pub fn new(format: Output, screen: Screen) -> Self {
        Self { format, only: Arc::default(), screen }
    }

    /// The run is about `subject` alone: if it fails, its last line says so.
    pub fn are_about(&self, subject: Subject) {
        let _ = self.only.set(subject);
    }

    /// One thing: a text, or the line of its fields.
    pub fn print(&self, text: &str, fields: &impl Serialize) -> Result<(), Error> {
        match self.format {
            Output::Text => self.write(text),
            Output::Json => self.write_json(fields),
        }
    }

    /// One of several has failed, and the run goes on.
    pub fn failed(&self, subject: &Subject, error: &Error) -> Result<(), Error> {
        match self.format {
            Output::Text => Ok(()),
            Output::Json => self.write_json(&Failed::new(subject, error)),
        }
    }

    /// What the run is about, as far as that is known.
    pub fn subject(&self) -> Subject {
        self.only.get().cloned().unwrap_or_default()
    }

    /// The run has failed.
    pub fn end(&self, error: &Error) {
        let subject = self.subject();
        // Where it cannot be written, the exit code and standard error say the same.
        let _ = self.failed(&subject, error);
    }

    fn write_json(&self, fields: &impl Serialize) -> Result<(), Error> {
        let json = serde_json::to_string(fields).map_err(|error| Error::Bug(error.to_string()))?;
        self.write(&text::inert_json(&json))
    }

    fn write(&self, line: &str) -> Result<(), Error> {
        let is_terminal = std::io::stdout().is_terminal();
        if is_terminal { self.screen.above_bars(|| write(line)) } else { write(line) }
    }
}

impl<'a> Failed<'a> {
    fn new(subject: &'a Subject, error: &Error) -> Self {
        let class = error.class();
        Self {
            subject,
            status: "failed",
            code: class.exit_code(),
            class: class.name(),
            message: text::inert(&error.within(MAX_CHARS), MAX_CHARS),
            fields: error.fields(),
        }
    }
}

fn write(line: &str) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        // Nobody listens: the model is there all the same.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => {
            let place = Path::new("standard output");
            Err(Error::Store(StoreError::io("write to", place, error)))
        }
        Ok(()) => Ok(()),
    }
}
