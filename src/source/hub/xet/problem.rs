//! How the chunk store of a Hub can fail, in words and fields.

use std::fmt;

use crate::model::{ErrorFields, RelPath};
use crate::net::Problem;

/// What the chunk store of a Hub, or what has come from it, is not.
#[derive(Debug)]
pub struct XetProblem {
    pub host: String,
    pub file: Option<RelPath>,
    pub status: Option<u16>,
    pub what: What,
}

#[derive(Debug)]
pub enum What {
    /// The Hub has none, or not for this repo.
    NoStore,
    /// The file has none of the names that the store knows.
    NoName,
    /// An answer without what is needed, or one that contradicts itself.
    Answer(String),
    /// What has come of a xorb.
    Chunk(&'static str),
    /// A refusal in the words of the store; inert.
    Refused(String),
    /// It does not know the file.
    Unknown(String),
}

impl fmt::Display for XetProblem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, .. } = self;
        let file = self.file.as_ref().map(RelPath::as_str).unwrap_or_default();
        let status = self.status.unwrap_or_default();
        match &self.what {
            What::NoStore => write!(out, "`{host}` names no Xet store for this repo ({status})"),
            What::NoName => write!(out, "`{file}` is not in a Xet store"),
            What::Answer(why) => write!(
                out,
                "the Xet store `{host}` sent an answer for `{file}` that is not valid: {why}"
            ),
            What::Chunk(why) => {
                write!(out, "what `{host}` sent of `{file}` cannot be unpacked: {why}")
            }
            What::Refused(said) => {
                write!(out, "the Xet store `{host}` answered {status} for `{file}`: {said}")
            }
            What::Unknown(said) => {
                write!(out, "the Xet store `{host}` does not know `{file}` ({status}): {said}")
            }
        }
    }
}

impl std::error::Error for XetProblem {}

impl Problem for XetProblem {
    fn fields(&self) -> ErrorFields {
        let said = match &self.what {
            What::Refused(said) | What::Unknown(said) => Some(said.as_str()),
            _ => None,
        };
        let mut fields = ErrorFields::of_host(&self.host);
        if let Some(status) = self.status {
            fields = fields.status(status);
        }
        if let Some(said) = said {
            fields = fields.said(said);
        }
        ErrorFields { file: self.file.as_ref().map(ToString::to_string), ..fields }
    }
}
