//! What lies in `attempts/`: how the names are made, and what can be told of one by a look.

use std::time::Duration;

use rustix::io::Errno;

use super::StoreError;
use super::journal::JOURNAL;
use super::staging::{ID_SEPARATOR, OWNER};
use crate::fs::{Dir, FsError};
use crate::lock::heartbeat::Owner;

/// Hexadecimal digits that end the name of an attempt.
const ID_DIGITS: usize = 16;

/// The family and the random part in the name of an attempt.
pub(super) fn attempt_parts(name: &str) -> Option<(&str, &str)> {
    let (state_name, id) = name.rsplit_once(ID_SEPARATOR)?;
    let is_id = id.len() == ID_DIGITS
        && id.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    (is_id && !state_name.is_empty()).then_some((state_name, id))
}

/// Opens an attempt; what is no directory is none.
pub(super) fn open_attempt(attempts: &Dir, name: &str) -> Result<Option<Dir>, FsError> {
    match attempts.child(name) {
        Err(error) if matches!(error.errno(), Some(Errno::NOTDIR | Errno::LOOP)) => Ok(None),
        opened => opened,
    }
}

/// All that a writer changes again and again.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sign {
    pub last: Duration,
    journal_bytes: Option<u64>,
    beat: Option<(String, u64)>,
}

impl Sign {
    pub fn of(old: &Dir) -> Result<Self, StoreError> {
        let (journal, owner) = (old.modified_of(JOURNAL)?, old.modified_of(OWNER)?);
        let last = match journal.max(owner) {
            Some(last) => last,
            None => old.modified()?,
        };
        let beat = Owner::read(old, OWNER).map(|owner| (owner.staging, owner.sequence));
        Ok(Self { last, journal_bytes: old.file_size(JOURNAL)?, beat })
    }
}
