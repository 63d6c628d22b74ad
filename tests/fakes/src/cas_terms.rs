//! What a reconstruction answers: the terms of a file, and what to fetch for them.
//!
//! Knows nothing of who asks. Numbers are as wide as JSON has them, so that lies fit.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::cas_store::{Piece, Store, Xorb};

pub(crate) struct Reconstruction {
    pub offset_into_first_range: u64,
    /// One, or several in the answer to a batch; by id.
    pub files: Vec<(String, Vec<Term>)>,
    /// By the name of the xorb.
    pub fetches: BTreeMap<String, Fetch>,
}

/// Chunks of a xorb that follow each other in a file.
#[derive(Clone)]
pub(crate) struct Term {
    pub xorb: String,
    pub chunks: Span,
    pub unpacked_length: u64,
}

/// What is to be fetched of one xorb.
pub(crate) struct Fetch {
    pub xorb: Arc<Xorb>,
    /// By their position, with gaps between them.
    pub ranges: Vec<FetchRange>,
}

#[derive(Clone)]
pub(crate) struct FetchRange {
    /// The end is not part of it.
    pub chunks: Span,
    /// The end is part of it.
    pub bytes: Span,
}

#[derive(Clone, Copy)]
pub(crate) struct Span {
    pub start: u64,
    pub end: u64,
}

/// Makes the link to some ranges of a xorb.
pub(crate) type Signer<'a> = dyn Fn(&Arc<Xorb>, &[FetchRange]) -> String + 'a;

impl Reconstruction {
    /// The part of a file that is asked for, and the rest of the chunks at its ends.
    pub fn of_range(store: &Store, id: &str, pieces: &[Piece], asked: &Range<u64>) -> Self {
        let mut wanted = Vec::new();
        let mut offset_into_first_range = 0;
        let mut start = 0;
        for piece in pieces {
            let end = start + piece.length;
            if start < asked.end && asked.start < end {
                if wanted.is_empty() {
                    offset_into_first_range = asked.start - start;
                }
                wanted.push(*piece);
            }
            start = end;
        }
        let files = vec![(id.to_owned(), terms(store, &wanted))];
        Self { offset_into_first_range, files, fetches: fetches(store, &wanted) }
    }

    /// Several whole files.
    pub fn of_files(store: &Store, files: &[(String, Arc<Vec<Piece>>)]) -> Self {
        let all: Vec<Piece> = files.iter().flat_map(|(_, pieces)| pieces.iter().copied()).collect();
        Self {
            offset_into_first_range: 0,
            files: files.iter().map(|(id, pieces)| (id.clone(), terms(store, pieces))).collect(),
            fetches: fetches(store, &all),
        }
    }

    /// A link for every so many ranges of a xorb.
    pub fn version_2(&self, ranges_per_link: usize, sign: &Signer) -> Value {
        let entry = |xorb: &Arc<Xorb>, ranges: &[FetchRange]| {
            let described: Vec<Value> = ranges
                .iter()
                .map(|it| json!({"chunks": it.chunks.json(), "bytes": it.bytes.json()}))
                .collect();
            json!({"url": sign(xorb, ranges), "ranges": described})
        };
        let xorbs: Map<String, Value> = self
            .fetches
            .iter()
            .map(|(name, fetch)| {
                let groups = fetch.ranges.chunks(ranges_per_link);
                (name.clone(), groups.map(|ranges| entry(&fetch.xorb, ranges)).collect())
            })
            .collect();
        json!({
            "offset_into_first_range": self.offset_into_first_range,
            "terms": self.first_terms(),
            "xorbs": xorbs,
        })
    }

    /// A link for every range.
    pub fn version_1(&self, sign: &Signer) -> Value {
        json!({
            "offset_into_first_range": self.offset_into_first_range,
            "terms": self.first_terms(),
            "fetch_info": self.fetch_info(sign),
        })
    }

    pub fn batch(&self, sign: &Signer) -> Value {
        let files: Map<String, Value> =
            self.files.iter().map(|(id, terms)| (id.clone(), described(terms))).collect();
        json!({"files": files, "fetch_info": self.fetch_info(sign)})
    }

    fn first_terms(&self) -> Value {
        self.files.first().map_or(json!([]), |(_, terms)| described(terms))
    }

    fn fetch_info(&self, sign: &Signer) -> Map<String, Value> {
        let described = |fetch: &Fetch| {
            let entry = |range: &FetchRange| {
                json!({
                    "range": range.chunks.json(),
                    "url": sign(&fetch.xorb, std::slice::from_ref(range)),
                    "url_range": range.bytes.json(),
                })
            };
            fetch.ranges.iter().map(entry).collect()
        };
        self.fetches.iter().map(|(name, fetch)| (name.clone(), described(fetch))).collect()
    }
}

impl FetchRange {
    pub fn of(xorb: &Xorb, chunks: Range<usize>) -> Self {
        let bytes = xorb.bytes_of(chunks.clone());
        Self {
            chunks: Span { start: chunks.start as u64, end: chunks.end as u64 },
            bytes: Span { start: bytes.start, end: bytes.end - 1 },
        }
    }
}

impl Span {
    fn json(self) -> Value {
        json!({"start": self.start, "end": self.end})
    }
}

fn described(terms: &[Term]) -> Value {
    let term = |term: &Term| {
        json!({
            "hash": term.xorb,
            "unpacked_length": term.unpacked_length,
            "range": term.chunks.json(),
        })
    };
    terms.iter().map(term).collect()
}

/// Pieces that follow each other in their xorb as well are one term.
fn terms(store: &Store, pieces: &[Piece]) -> Vec<Term> {
    let follow = |a: &Piece, b: &Piece| a.xorb == b.xorb && a.index + 1 == b.index;
    let term = |run: &[Piece]| Term {
        xorb: store.xorb(run[0].xorb).hash.clone(),
        chunks: Span { start: run[0].index as u64, end: (run[0].index + run.len()) as u64 },
        unpacked_length: run.iter().map(|piece| piece.length).sum(),
    };
    pieces.chunk_by(follow).map(term).collect()
}

/// Each chunk once, those beside each other in one range, whatever terms they belong to.
fn fetches(store: &Store, pieces: &[Piece]) -> BTreeMap<String, Fetch> {
    let mut wanted: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    for piece in pieces {
        wanted.entry(piece.xorb).or_default().insert(piece.index);
    }
    let fetch = |(number, chunks): (usize, BTreeSet<usize>)| {
        let xorb = store.xorb(number);
        let chunks: Vec<usize> = chunks.into_iter().collect();
        let runs = chunks.chunk_by(|a, b| a + 1 == *b);
        let ranges = runs.map(|run| FetchRange::of(&xorb, run[0]..run[0] + run.len())).collect();
        (xorb.hash.clone(), Fetch { xorb, ranges })
    };
    wanted.into_iter().map(fetch).collect()
}
