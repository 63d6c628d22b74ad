//! What the store answers when it is asked what a file is made of: terms, and links to the bytes of their
//! chunks. Each number in it is checked before it is used.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer};
use url::Url;

use super::chunk::MAX_CHUNK_BYTES;
use crate::content::Term;
use crate::model::hex;
use crate::net::SourceError;
use crate::net::http::safe_target;

/// A xorb has 64 MiB; a range of it that is longer is none.
const MAX_FETCH_BYTES: u64 = 128 << 20;

/// A part of a file: its terms, and where their bytes are.
#[derive(Clone, Debug)]
pub struct Window {
    pub terms: Vec<Term>,
    /// Bytes of the first term that lie before the part.
    pub skip: u64,
    fetches: Arc<[Fetch]>,
}

/// Chunks that are had by one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    pub block: [u8; 32],
    pub chunks: Range<u32>,
    /// Bytes of the xorb.
    pub bytes: Range<u64>,
    /// Signed for these bytes. Secret: its query is a credential.
    pub url: Arc<Url>,
}

/// A link is used for so long whatever it says of its end: this machine's clock may be wrong.
const SURELY_GOOD: Duration = Duration::from_secs(10);

impl Fetch {
    /// How long after it came the link can be used, by the end that it names; without one, for ever.
    pub fn lifetime(&self) -> Duration {
        let expires = self.url.query_pairs().find(|(name, _)| name == "Expires");
        let Some(end) = expires.and_then(|(_, seconds)| seconds.parse().ok()) else {
            return Duration::MAX;
        };
        let end = UNIX_EPOCH.checked_add(Duration::from_secs(end));
        let left = end.and_then(|end| end.duration_since(SystemTime::now()).ok());
        if left.is_some_and(|left| left > Duration::ZERO) { Duration::MAX } else { SURELY_GOOD }
    }
}

/// Why an answer cannot be used.
pub enum Bad {
    Form(serde_json::Error),
    What(&'static str),
    /// A link that must not be followed.
    Link(SourceError),
}

impl Window {
    /// Bytes of the file, without those before the part.
    pub fn len(&self) -> u64 {
        self.total().saturating_sub(self.skip)
    }

    /// Bytes of all terms.
    pub fn total(&self) -> u64 {
        self.terms.iter().map(|term| u64::from(term.len)).sum()
    }

    /// The request that brings the chunks of `term`: of several the smallest.
    pub fn fetch_of(&self, term: &Term) -> Option<&Fetch> {
        let has_all = |fetch: &&Fetch| {
            fetch.block == term.block
                && fetch.chunks.start <= term.chunks.start
                && term.chunks.end <= fetch.chunks.end
        };
        self.fetches.iter().filter(has_all).min_by_key(|fetch| fetch.chunks.len())
    }

    /// The answer of `/v2/` or of `/v1/` for one file; links are safe to follow from `store`.
    pub fn read(json: &[u8], store: &Url) -> Result<Self, Bad> {
        let answer: Answer = serde_json::from_slice(json).map_err(Bad::Form)?;
        let fetches = fetches(answer.xorbs, answer.fetch_info, store)?;
        let terms = answer.terms.into_iter().map(Listed::check).collect::<Result<_, _>>()?;
        let skip = answer.offset_into_first_range;
        let window = Self { terms, skip, fetches: fetches.into() };
        match window.terms.first() {
            Some(_) if window.skip >= window.total() => {
                Err(Bad::What("it leaves out more than it has"))
            }
            Some(_) => Ok(window),
            None => Err(Bad::What("it has no terms")),
        }
    }

    /// The answer for several files, those that `is_asked` is true of; they share the links.
    pub fn read_several(
        json: &[u8],
        store: &Url,
        is_asked: impl Fn(&[u8; 32]) -> bool,
    ) -> Result<Vec<([u8; 32], Self)>, Bad> {
        let answer: Several = serde_json::from_slice(json).map_err(Bad::Form)?;
        let all: Arc<[Fetch]> = fetches(BTreeMap::new(), answer.fetch_info, store)?.into();
        let of_file = |(id, terms): (Hash, Vec<Listed>)| {
            let terms = terms.into_iter().map(Listed::check).collect::<Result<Vec<_>, _>>()?;
            Ok((id.0, Self { terms, skip: 0, fetches: all.clone() }))
        };
        answer.files.into_iter().filter(|(id, _)| is_asked(&id.0)).map(of_file).collect()
    }
}

/// One form for both versions: what the other one has is not there.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    offset_into_first_range: u64,
    terms: Vec<Listed>,
    #[serde(default)]
    xorbs: BTreeMap<Hash, Vec<Entry>>,
    #[serde(default)]
    fetch_info: BTreeMap<Hash, Vec<EntryV1>>,
}

#[derive(Deserialize)]
struct Several {
    files: BTreeMap<Hash, Vec<Listed>>,
    #[serde(default)]
    fetch_info: BTreeMap<Hash, Vec<EntryV1>>,
}

#[derive(Deserialize)]
struct Listed {
    hash: Hash,
    unpacked_length: u32,
    range: Span<u32>,
}

#[derive(Deserialize)]
struct Entry {
    url: String,
    ranges: Vec<Ranges>,
}

#[derive(Deserialize)]
struct Ranges {
    chunks: Span<u32>,
    /// The end is part of it.
    bytes: Span<u64>,
}

#[derive(Deserialize)]
struct EntryV1 {
    range: Span<u32>,
    url: String,
    /// The end is part of it.
    url_range: Span<u64>,
}

#[derive(Deserialize)]
struct Span<T> {
    start: T,
    end: T,
}

/// The name of a xorb or of a file: 64 hexadecimal digits.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Hash([u8; 32]);

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        let bytes = hex::decode(&text).map(Self);
        bytes.ok_or_else(|| {
            serde::de::Error::custom("a hash that does not have 64 hexadecimal digits")
        })
    }
}

impl Listed {
    fn check(self) -> Result<Term, Bad> {
        let Span { start, end } = self.range;
        let chunks = start..end;
        let most = chunks.len() as u64 * u64::from(MAX_CHUNK_BYTES);
        if chunks.is_empty() {
            return Err(Bad::What("a term has no chunks"));
        }
        if u64::from(self.unpacked_length) < chunks.len() as u64
            || u64::from(self.unpacked_length) > most
        {
            return Err(Bad::What("a term has a length that its chunks cannot have"));
        }
        Ok(Term { block: self.hash.0, chunks, len: self.unpacked_length })
    }
}

fn fetches(
    xorbs: BTreeMap<Hash, Vec<Entry>>,
    v1: BTreeMap<Hash, Vec<EntryV1>>,
    store: &Url,
) -> Result<Vec<Fetch>, Bad> {
    let mut fetches = Vec::new();
    let mut last: Option<(String, Arc<Url>)> = None;
    let mut add = |block: &Hash, url: String, chunks: Span<u32>, bytes: Span<u64>| {
        let end = bytes.end.checked_add(1).filter(|end| {
            *end > bytes.start && end - bytes.start <= MAX_FETCH_BYTES && chunks.end > chunks.start
        });
        let end = end.ok_or(Bad::What("a range of a xorb is not a range"))?;
        let url = match &last {
            Some((text, known)) if *text == url => known.clone(),
            _ => {
                let parsed = Url::parse(&url).map_err(|_| Bad::What("a link is not a URL"))?;
                let safe = Arc::new(safe_target(store, parsed).map_err(Bad::Link)?);
                last = Some((url, safe.clone()));
                safe
            }
        };
        let (block, chunks) = (block.0, chunks.start..chunks.end);
        fetches.push(Fetch { block, chunks, bytes: bytes.start..end, url });
        Ok(())
    };
    for (block, entries) in xorbs {
        for Entry { url, ranges } in entries {
            for Ranges { chunks, bytes } in ranges {
                add(&block, url.clone(), chunks, bytes)?;
            }
        }
    }
    for (block, entries) in v1 {
        for EntryV1 { range, url, url_range } in entries {
            add(&block, url, range, url_range)?;
        }
    }
    Ok(fetches)
}
