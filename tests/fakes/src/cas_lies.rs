//! What a chunk store says that is not true.
//!
//! A client must survive each of these: fail, or take the file another way, with no wrong byte kept.

use std::sync::{Mutex, MutexGuard, PoisonError};

use lz4_flex::frame::BlockSize;
use serde_json::Value;

use crate::cas_chunks::{HEADER_BYTES, Scheme, lz4_frame, three_bytes};
use crate::cas_terms::{FetchRange, Reconstruction, Term};

/// One way in which the store lies. Terms and chunks that are changed are the middle ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum XetLie {
    /// The token's answer names this as the store.
    CasAt(String),

    /// A term's `unpacked_length` is one byte more than its chunks have.
    LongerTerm,
    /// … one byte less.
    ShorterTerm,
    /// The last term comes twice.
    ExtraTerm,
    /// A term is left out.
    MissingTerm,
    /// A term ends before it begins.
    ReversedTerm,
    /// A term's chunks are numbers that the xorb does not have.
    TermBehindXorb,
    /// `offset_into_first_range` is one more than the first term has bytes.
    FarOffset,
    /// Every `unpacked_length` is `u32::MAX`.
    LongestTerms,
    /// Ends and lengths of terms and of fetch ranges are `u64::MAX`.
    HugestNumbers,
    /// Links begin with this, in place of the origin of the transfer host.
    LinksTo(String),
    /// There is nothing to fetch for the xorb of a term.
    MissingXorb,
    /// The last fetch range of each xorb ends one chunk early.
    UncoveredTerm,
    /// No lie, and a waste: what is to be fetched of a xorb is all of it, whatever was asked for.
    WideRanges,
    /// The last fetch range of each xorb ends before it begins.
    ReversedFetchRange,
    /// Every fetch range ends ten bytes before its last chunk does.
    CutChunk,
    /// The answer repeats a term until it has so many bytes.
    HugeAnswer(usize),

    /// A byte of a chunk's data is turned over. Under scheme 0 only the file's digest tells.
    FlippedByte,
    /// A chunk has version 1.
    ChunkVersion,
    /// A chunk has scheme 3.
    ChunkScheme,
    /// A chunk's compressed length is the largest that fits, a byte short of 16 MiB.
    LongestCompressed,
    /// A chunk's length after decompression is that.
    LongestUncompressed,
    /// A chunk's LZ4 frame yields 200 times its size, its header says what it said before. Needs
    /// content that does not compress as well as that.
    Bomb,
    /// A chunk's LZ4 frame declares blocks of 4 MiB; what is in them is right. Does nothing to
    /// chunks that are stored plain: see [`crate::FakeHubBuilder::xet_scheme`].
    LargeBlocks,
    /// A chunk's header is where the footer of the xorb begins.
    Footer,
}

/// The part of the service that tells a lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Token,
    Answer,
    Chunk,
}

/// The lie that is told now, and how often still.
#[derive(Default)]
pub(crate) struct Lies(Mutex<Telling>);

#[derive(Default)]
struct Telling {
    lie: Option<XetLie>,
    left: usize,
    told: usize,
}

impl Lies {
    pub fn start(&self, lie: XetLie, times: usize) {
        let mut telling = self.telling();
        (telling.lie, telling.left) = (Some(lie), times);
    }

    pub fn stop(&self) {
        self.telling().lie = None;
    }

    /// How many answers were lies.
    pub fn told(&self) -> usize {
        self.telling().told
    }

    /// The lie for one answer of this part, if there is one.
    pub fn tell(&self, part: Part) -> Option<XetLie> {
        let mut telling = self.telling();
        let lie = telling.lie.clone().filter(|lie| lie.part() == part)?;
        telling.left = telling.left.checked_sub(1)?;
        telling.told += 1;
        Some(lie)
    }

    fn telling(&self) -> MutexGuard<'_, Telling> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl XetLie {
    fn part(&self) -> Part {
        match self {
            Self::CasAt(_) => Part::Token,
            Self::FlippedByte
            | Self::ChunkVersion
            | Self::ChunkScheme
            | Self::LongestCompressed
            | Self::LongestUncompressed
            | Self::Bomb
            | Self::LargeBlocks
            | Self::Footer => Part::Chunk,
            _ => Part::Answer,
        }
    }

    /// Before links are made, so that those are good for what the answer says.
    pub(crate) fn change_answer(&self, answer: &mut Reconstruction) {
        for (_, terms) in &mut answer.files {
            self.change_terms(terms);
        }
        let terms = answer.files.first().map(|(_, terms)| terms.as_slice()).unwrap_or_default();
        match self {
            Self::FarOffset => {
                let length = terms.first().map_or(0, |term| term.unpacked_length);
                answer.offset_into_first_range = length + 1;
            }
            Self::MissingXorb => {
                if let Some(term) = terms.get(terms.len() / 2) {
                    answer.fetches.remove(&term.xorb);
                }
            }
            _ => {}
        }
        for fetch in answer.fetches.values_mut() {
            match (self, fetch.ranges.last_mut()) {
                (Self::UncoveredTerm, Some(last)) => {
                    let (start, end) = (last.chunks.start as usize, last.chunks.end as usize - 1);
                    if start < end {
                        *last = FetchRange::of(&fetch.xorb, start..end);
                    } else {
                        fetch.ranges.pop();
                    }
                }
                (Self::WideRanges, _) => {
                    fetch.ranges = vec![FetchRange::of(&fetch.xorb, 0..fetch.xorb.count())];
                }
                (Self::ReversedFetchRange, Some(last)) => {
                    std::mem::swap(&mut last.bytes.start, &mut last.bytes.end);
                }
                (Self::CutChunk, _) => {
                    fetch.ranges.iter_mut().for_each(|range| range.bytes.end -= 10);
                }
                (Self::HugestNumbers, _) => {
                    for range in &mut fetch.ranges {
                        (range.chunks.end, range.bytes.end) = (u64::MAX, u64::MAX);
                    }
                }
                _ => {}
            }
        }
    }

    fn change_terms(&self, terms: &mut Vec<Term>) {
        let middle = terms.len() / 2;
        let Some(term) = terms.get_mut(middle) else {
            return;
        };
        match self {
            Self::LongerTerm => term.unpacked_length += 1,
            Self::ShorterTerm => term.unpacked_length -= 1,
            Self::ReversedTerm => std::mem::swap(&mut term.chunks.start, &mut term.chunks.end),
            Self::TermBehindXorb => {
                term.chunks.start += ABSENT_CHUNK;
                term.chunks.end += ABSENT_CHUNK;
            }
            Self::ExtraTerm => terms.extend(terms.last().cloned()),
            Self::MissingTerm => {
                terms.remove(middle);
            }
            Self::LongestTerms => {
                terms.iter_mut().for_each(|it| it.unpacked_length = u64::from(u32::MAX));
            }
            Self::HugestNumbers => {
                for term in terms {
                    (term.unpacked_length, term.chunks.end) = (u64::MAX, u64::MAX);
                }
            }
            _ => {}
        }
    }

    /// The origin of links.
    pub(crate) fn link_origin(&self) -> Option<&str> {
        match self {
            Self::LinksTo(origin) => Some(origin),
            _ => None,
        }
    }

    /// The answer as text, where that is what changes.
    pub(crate) fn change_text(&self, answer: &Value) -> Option<String> {
        let Self::HugeAnswer(bytes) = self else {
            return None;
        };
        let first_file = || answer["files"].as_object()?.values().next();
        let terms = answer.get("terms").or_else(first_file)?;
        let term = terms.get(0)?.to_string();
        let repeated = format!("{term},").repeat(bytes / term.len()) + &term;
        Some(answer.to_string().replacen(&term, &repeated, 1))
    }

    /// Header and data of a chunk, whose place and length stay as they are.
    pub(crate) fn change_chunk(&self, chunk: &mut [u8]) {
        match self {
            Self::FlippedByte => {
                let middle = usize::midpoint(HEADER_BYTES, chunk.len());
                chunk[middle] = !chunk[middle];
            }
            Self::ChunkVersion => chunk[0] = 1,
            Self::ChunkScheme => chunk[4] = 3,
            Self::LongestCompressed => chunk[1..4].copy_from_slice(&three_bytes(0xff_ffff)),
            Self::LongestUncompressed => chunk[5..8].copy_from_slice(&three_bytes(0xff_ffff)),
            Self::Bomb => {
                chunk[4] = Scheme::Lz4 as u8;
                let data = &mut chunk[HEADER_BYTES..];
                let frame = lz4_frame(&vec![0; data.len() * 200], BlockSize::Max64KB);
                // Behind the frame the data is filled up, so that the next chunk stays in place.
                let frame = frame.into_iter().chain(std::iter::repeat(0));
                data.iter_mut().zip(frame).for_each(|(byte, it)| *byte = it);
            }
            Self::LargeBlocks if chunk[4] != Scheme::Plain as u8 => {
                let frame = lz4_frame(&[], BlockSize::Max4MB);
                chunk[HEADER_BYTES..][..FRAME_HEADER_BYTES]
                    .copy_from_slice(&frame[..FRAME_HEADER_BYTES]);
            }
            Self::Footer => chunk[..HEADER_BYTES].copy_from_slice(b"XETBLOB\x01"),
            _ => {}
        }
    }
}

const ABSENT_CHUNK: u64 = 100_000;
const FRAME_HEADER_BYTES: usize = 7;
