//! What of an attempt is on the disk already: one line per finished chunk, appended.
//!
//! Each line carries its own checksum, so a torn or foreign line is seen and ignored; each chunk
//! carries one of its bytes, so it can be re-checked before it is trusted.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::fs::{Dir, NodeIdentity};
use crate::model::{Checksum, RemoteFile};

pub(super) const JOURNAL: &str = "journal";
/// Bumped when a line changes its meaning; another number is not read.
const FORMAT: u32 = 1;
const MAX_JOURNAL_BYTES: u64 = 1 << 30;
const MAX_FILES: usize = 1_000_000;
/// Longest line that is read; one of ours holds a path and an identity.
const MAX_LINE_BYTES: u64 = 64 << 10;

/// The first line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Header {
    pub format: u32,
    /// Name of the family in the working area.
    pub family: String,
    #[serde(rename = "place")]
    pub source_name: String,
    pub revision: String,
    pub writer: NodeIdentity,
    /// The writer holds the lock of this file as long as it lives, and locks work here: if it is
    /// free under the same kernel, the writer is gone.
    #[serde(default)]
    pub locked: bool,
    /// Inode of the attempt's own tree: another one in its place is what it has replaced.
    #[serde(default)]
    pub tree: u64,
}

/// Every further line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "is")]
enum Record {
    /// What file number `n` is, before its first chunk.
    #[serde(rename = "file")]
    File { n: usize, path: String, size: u64, identity: String },
    /// A chunk of it has been written; `crc64` is the CRC64NVME of its bytes.
    #[serde(rename = "chunk")]
    Chunk { n: usize, start: u64, end: u64, crc64: u64 },
    /// Nothing of it may be used any more.
    #[serde(rename = "discard")]
    Discard { n: usize },
}

/// A chunk that an attempt says it has written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenChunk {
    pub range: Range<u64>,
    pub crc64: u64,
}

/// A file as the journal of another attempt describes it.
#[derive(Clone, Debug)]
pub struct JournalFile {
    pub path: String,
    pub size: u64,
    pub identity: String,
    pub chunks: Vec<WrittenChunk>,
}

/// The open journal of this attempt. Its lock is held as long as the attempt lives.
#[derive(Debug)]
pub struct Journal {
    file: File,
    /// Held while a line is written.
    turn: Mutex<()>,
    path: std::path::PathBuf,
    is_locked: bool,
}

impl Journal {
    pub fn create(attempt: &Dir, mut header: Header) -> Result<Self, StoreError> {
        header.format = FORMAT;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::APPEND;
        let path = attempt.path_of(JOURNAL);
        let file = attempt
            .open_file(JOURNAL, flags)?
            .ok_or_else(|| StoreError::io("create", &path, rustix::io::Errno::NOENT))?;
        // Nobody else can hold it; a filesystem without locks just does not have this proof, and
        // one whose locks exclude nobody is seen by a second try.
        header.locked = fs2::FileExt::try_lock_exclusive(&file).is_ok() && is_held(attempt)?;
        let is_locked = header.locked;
        let journal = Self { file, turn: Mutex::default(), path, is_locked };
        journal.append(&header)?;
        Ok(journal)
    }

    /// Whether locks work here.
    pub fn is_locked(&self) -> bool {
        self.is_locked
    }

    pub fn file(&self, n: usize, file: &RemoteFile, identity: &str) -> Result<(), StoreError> {
        let (path, size) = (file.path.to_string(), file.size);
        self.append(&Record::File { n, path, size, identity: identity.to_owned() })
    }

    pub fn chunk(&self, n: usize, chunk: &WrittenChunk) -> Result<(), StoreError> {
        let Range { start, end } = chunk.range;
        self.append(&Record::Chunk { n, start, end, crc64: chunk.crc64 })
    }

    pub fn discard(&self, n: usize) -> Result<(), StoreError> {
        self.append(&Record::Discard { n })
    }

    /// Makes the records so far survive a power cut. Others go on appending meanwhile.
    pub fn sync(&self) -> Result<(), StoreError> {
        let synced = rustix::fs::fdatasync(&self.file);
        synced.map_err(|error| StoreError::io("sync", &self.path, error))
    }

    fn append(&self, record: &impl Serialize) -> Result<(), StoreError> {
        let json = serde_json::to_string(record).expect("strings and numbers always serialise");
        let line = format!("{:08x} {json}\n", Checksum::Crc32c.of(json.as_bytes()));
        // One write per line, so that a killed process leaves whole lines or a torn last one.
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        (&self.file)
            .write_all(line.as_bytes())
            .map_err(|error| StoreError::io("append to", &self.path, error))
    }
}

/// Whether the process that wrote the journal in `attempt` still holds it: its lock is taken, or
/// locks cannot tell. Another user's journal may be closed to us: to read it is enough for its lock on most
/// filesystems.
pub(super) fn is_held(attempt: &Dir) -> Result<bool, StoreError> {
    let opened = match attempt.open_file(JOURNAL, OFlags::RDWR) {
        Err(error) if error.is_closed() => attempt.read_file(JOURNAL),
        opened => opened,
    };
    let file = match opened {
        Err(error) if error.is_closed() => return Ok(true),
        opened => opened?,
    };
    let Some(file) = file else { return Ok(false) };
    Ok(fs2::FileExt::try_lock_exclusive(&file).is_err())
}

/// Reads the journal of an attempt as far as it makes sense.
pub(super) fn read(attempt: &Dir) -> Result<Option<(Header, Vec<JournalFile>)>, StoreError> {
    let Some(file) = attempt.read_file(JOURNAL)? else {
        return Ok(None);
    };
    Ok(parse(BufReader::new(file.take(MAX_JOURNAL_BYTES))))
}

/// The first line of the journal of an attempt, if it makes sense.
pub(super) fn header(attempt: &Dir) -> Result<Option<Header>, StoreError> {
    let Some(file) = attempt.read_file(JOURNAL)? else {
        return Ok(None);
    };
    let mut line = Vec::new();
    let read = BufReader::new(file.take(MAX_LINE_BYTES)).read_until(b'\n', &mut line);
    read.map_err(|error| StoreError::io("read", &attempt.path_of(JOURNAL), error))?;
    Ok(parse(line.as_slice()).map(|(header, _)| header))
}

pub(super) fn parse(mut content: impl BufRead) -> Option<(Header, Vec<JournalFile>)> {
    // Line by line: of a plan with very many files it is long. A line without its end was torn; it
    // fails its checksum like any other damage.
    let mut lines = std::iter::from_fn(|| {
        let mut line = String::new();
        content.by_ref().take(MAX_LINE_BYTES).read_line(&mut line).ok()?;
        checked(line.strip_suffix('\n').unwrap_or(&line)).map(str::to_owned)
    });
    let header: Header = serde_json::from_str(&lines.next()?).ok()?;
    if header.format != FORMAT {
        return None;
    }
    // By number, and not a list: a single forged line with a high number would make it long.
    let mut files: BTreeMap<usize, JournalFile> = BTreeMap::new();
    for record in lines.map_while(|line| serde_json::from_str::<Record>(&line).ok()) {
        match record {
            Record::File { n, path, size, identity } if n <= MAX_FILES => {
                files.insert(n, JournalFile { path, size, identity, chunks: Vec::new() });
            }
            Record::Chunk { n, start, end, crc64 } => {
                if let Some(file) = files.get_mut(&n)
                    && start < end
                    && end <= file.size
                {
                    file.chunks.push(WrittenChunk { range: start..end, crc64 });
                }
            }
            Record::Discard { n } => {
                if let Some(file) = files.get_mut(&n) {
                    file.chunks.clear();
                }
            }
            Record::File { .. } => break,
        }
    }
    Some((header, files.into_values().collect()))
}

/// The JSON of a line whose checksum is right.
fn checked(line: &str) -> Option<&str> {
    let (checksum, json) = line.split_once(' ')?;
    let checksum = u64::from_str_radix(checksum, 16).ok()?;
    (checksum == Checksum::Crc32c.of(json.as_bytes())).then_some(json)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(json: &str) -> String {
        format!("{:08x} {json}\n", Checksum::Crc32c.of(json.as_bytes()))
    }

    fn header(format: u32) -> String {
        line(&format!(
            r#"{{"format":{format},"family":"f","place":"hf://a/b","revision":"c","writer":{{"boot_id":"","host":"","node":"","pid":1,"pid_namespace":""}}}}"#
        ))
    }

    fn whole() -> String {
        [
            header(1),
            line(r#"{"is":"file","n":0,"path":"a","size":10,"identity":"sha256:x"}"#),
            line(r#"{"is":"chunk","n":0,"start":0,"end":4,"crc64":7}"#),
            line(r#"{"is":"chunk","n":0,"start":4,"end":10,"crc64":8}"#),
        ]
        .concat()
    }

    fn ranges(content: &[u8]) -> Option<Vec<Range<u64>>> {
        let (_, files) = parse(content)?;
        Some(files.into_iter().flat_map(|file| file.chunks).map(|chunk| chunk.range).collect())
    }

    #[test]
    fn whatever_is_cut_off_the_end_the_rest_counts() {
        let content = whole();
        for cut in 0..=content.len() {
            let found = ranges(&content.as_bytes()[..cut]).unwrap_or_default();
            assert!(found.len() <= 2 && found.iter().all(|r| *r == (0..4) || *r == (4..10)));
        }
        assert_eq!(ranges(content.as_bytes()), Some(vec![0..4, 4..10]));
    }

    #[test]
    fn no_flipped_byte_is_believed() {
        let content = whole().into_bytes();
        for at in 0..content.len() {
            let mut damaged = content.clone();
            damaged[at] ^= 0x01;
            let found = ranges(&damaged).unwrap_or_default();
            assert!(found.iter().all(|r| *r == (0..4) || *r == (4..10)), "byte {at}: {found:?}");
        }
    }

    #[test]
    fn another_format_and_nonsense_are_not_read() {
        assert_eq!(ranges(header(2).as_bytes()), None);
        let nonsense = header(1) + &line(r#"{"is":"chunk","n":5,"start":9,"end":3,"crc64":0}"#);
        assert_eq!(ranges(nonsense.as_bytes()), Some(vec![]));
    }

    #[test]
    fn a_discarded_file_has_no_chunks() {
        let content = whole() + &line(r#"{"is":"discard","n":0}"#);
        assert_eq!(ranges(content.as_bytes()), Some(vec![]));
    }
}
