//! A sentinel in a few words, read in bounded memory whatever somebody has written there.

use std::io::{BufReader, Error, ErrorKind, Read, Seek, SeekFrom};

use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::SentinelProblem;
use super::sentinel::read;
use super::text;

/// No text in a sentinel of ours is as long.
const MAX_STRING_BYTES: usize = 64 << 10;
const MAX_LEVELS: usize = 32;
/// So much of a text is told.
const MAX_CHARS: usize = 300;

/// What a sentinel says of a model, without its files.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Summary {
    #[serde(skip_serializing)]
    format: u32,
    pub source: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_revision: Option<String>,
    pub revision: String,
    #[serde(deserialize_with = "count")]
    pub files: usize,
    pub total_bytes: u64,
    pub completed_at: String,
}

impl Summary {
    pub fn read(json: impl Read + Seek) -> Result<Self, SentinelProblem> {
        let mut summary: Self = read(Bounded::new(json), |it: &Self| it.format)?;
        let texts = [&mut summary.source, &mut summary.revision, &mut summary.completed_at];
        for told in texts.into_iter().chain(&mut summary.requested_revision) {
            *told = text::inert(told, MAX_CHARS);
        }
        Ok(summary)
    }
}

/// How many elements an array has.
fn count<'de, D: Deserializer<'de>>(files: D) -> Result<usize, D::Error> {
    struct Count;
    impl<'de> Visitor<'de> for Count {
        type Value = usize;

        fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            out.write_str("a list of files")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut files: A) -> Result<usize, A::Error> {
            let mut count = 0;
            while files.next_element::<IgnoredAny>()?.is_some() {
                count += 1;
            }
            Ok(count)
        }
    }
    files.deserialize_seq(Count)
}

/// JSON as it is read, which fails at a text or a nesting that would have to be kept in memory.
struct Bounded<R> {
    json: BufReader<R>,
    in_string: bool,
    is_escaped: bool,
    /// Since the last quotation mark that counts.
    run: usize,
    levels: usize,
}

impl<R: Read> Bounded<R> {
    fn new(json: R) -> Self {
        let json = BufReader::new(json);
        Self { json, in_string: false, is_escaped: false, run: 0, levels: 0 }
    }

    fn take(&mut self, byte: u8) -> Result<(), Error> {
        self.run += 1;
        match byte {
            _ if self.is_escaped => self.is_escaped = false,
            b'\\' if self.in_string => self.is_escaped = true,
            b'"' => (self.in_string, self.run) = (!self.in_string, 0),
            b'[' | b'{' if !self.in_string => self.levels += 1,
            b']' | b'}' if !self.in_string => self.levels = self.levels.saturating_sub(1),
            _ => {}
        }
        if self.run > MAX_STRING_BYTES || self.levels > MAX_LEVELS {
            return Err(Error::new(ErrorKind::InvalidData, "it is not a sentinel of weightlift"));
        }
        Ok(())
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let len = self.json.read(buffer)?;
        buffer[..len].iter().try_for_each(|byte| self.take(*byte))?;
        Ok(len)
    }
}

impl<R: Read + Seek> Seek for Bounded<R> {
    fn seek(&mut self, to: SeekFrom) -> Result<u64, Error> {
        (self.in_string, self.is_escaped, self.run, self.levels) = (false, false, 0, 0);
        self.json.seek(to)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn sentinel(source: &str, files: &str) -> String {
        format!(
            r#"{{"format":1,"tool":"x","source":{source},"revision":"c","selection":{{}},
                "completed_at":"now","total_bytes":7,"files":[{files}],"left_out":[]}}"#
        )
    }

    #[test]
    fn files_are_counted_and_texts_are_inert() {
        let files = r#"{"path":"a \" [ {","size":3},{"path":"b","size":4}"#;
        let json = sentinel(r#""hf://a\u001b[2J""#, files);
        let summary = Summary::read(Cursor::new(json)).expect("reads");
        assert_eq!((summary.files, summary.total_bytes), (2, 7));
        assert_eq!(summary.source, r"hf://a\u{1b}[2J");
    }

    #[test]
    fn what_would_need_much_memory_is_refused_and_what_is_of_a_later_format_is_named() {
        let long = "x".repeat(MAX_STRING_BYTES + 1);
        let escaped = r#"\""#.repeat(MAX_STRING_BYTES);
        let deep = "[".repeat(MAX_LEVELS);
        for json in [
            sentinel(&format!("\"{long}\""), ""),
            sentinel(&format!("\"{escaped}\""), ""),
            sentinel("\"a\"", &format!("\"{long}\"")),
            sentinel("\"a\"", &deep),
            sentinel(&"1".repeat(MAX_STRING_BYTES + 1), ""),
            String::new(),
        ] {
            let error = Summary::read(Cursor::new(json)).expect_err("is refused");
            assert!(matches!(error, SentinelProblem::Unreadable(_)), "{error}");
        }
        let later = Summary::read(Cursor::new(r#"{"format":7,"files":3}"#));
        assert!(matches!(later, Err(SentinelProblem::UnknownFormat(7))));
    }
}
