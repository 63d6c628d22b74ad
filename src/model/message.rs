//! What failed, and what to do about it: the two halves of an error's sentence, apart, because a program reads
//! each of them.

use std::borrow::Cow;
use std::fmt;

/// The sentence of an error: `what; hint`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub what: String,
    /// What the user can do: an imperative. A name from a source is in it only inside of quotes that it cannot end.
    pub hint: Option<Cow<'static, str>>,
}

impl Message {
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), hint: None }
    }

    pub fn hint(self, hint: impl Into<Cow<'static, str>>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// The same after `lead`: what it is about.
    pub fn after(self, lead: impl fmt::Display) -> Self {
        Self { what: format!("{lead}{}", self.what), ..self }
    }
}

impl From<String> for Message {
    fn from(what: String) -> Self {
        Self::new(what)
    }
}

impl From<&str> for Message {
    fn from(what: &str) -> Self {
        Self::new(what)
    }
}

impl fmt::Display for Message {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.what)?;
        self.hint.iter().try_for_each(|hint| write!(out, "; {hint}"))
    }
}

/// A parser of a flag's value may fail with it.
impl std::error::Error for Message {}
