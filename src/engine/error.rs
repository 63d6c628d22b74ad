//! How a transfer fails.

use std::time::Duration;

use super::schedule::event::TooSlow;
use crate::model::{exclude_flag, literal_pattern, text};
use crate::net::SourceError;
use crate::verify::Mismatch;
use crate::volume::StoreError;

#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    #[error("`{path}`: {source}")]
    Source { path: String, source: SourceError },
    #[error("`{path}`: no byte arrived for {}: {source}", text::duration(*tried_for))]
    GaveUp { path: String, tried_for: Duration, source: SourceError },
    #[error("`{path}` is still wrong after {fetches} complete fetches: {mismatch}{hint}")]
    Integrity { path: String, fetches: u32, mismatch: Box<Mismatch>, hint: &'static str },
    #[error(
        "`{path}` is what the source published, but no valid safetensors: {why}; to do without it \
         add {}", exclude_flag(&literal_pattern(path))
    )]
    Structure { path: String, why: String },
    #[error(
        "`{path}` is no valid safetensors at the source: {why} (two reads of its first {len} bytes \
         agree); to do without it add {}", exclude_flag(&literal_pattern(path))
    )]
    Header { path: String, why: String, len: u64 },
    #[error(
        "`{path}` is still wrong after {fetches} tries: no valid safetensors ({why}), and each read \
         of its start brings other bytes"
    )]
    UnsteadyHeader { path: String, fetches: u32, why: String },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    #[error(transparent)]
    Setup(SourceError),
    #[error("no byte arrived and none was hashed for {}; waited for: {waits}", text::duration(*silent))]
    Silent { silent: Duration, waits: String },
    #[error(
        "the transfer is too slow: {} arrived in {}, {}/s on average, and --min-rate is {}/s; \
         the next run continues from here",
        text::size(.0.bytes), text::duration(.0.over), text::size(average(.0)),
        text::size(.0.min_rate)
    )]
    TooSlow(TooSlow),
    #[error("stopped")]
    Stopped,
}

fn average(too_slow: &TooSlow) -> u64 {
    (too_slow.bytes as f64 / too_slow.over.as_secs_f64().max(0.001)) as u64
}
