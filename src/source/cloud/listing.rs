//! What a prefix, or one key, of a store holds: pinned once, by the versions of all objects.

use std::collections::HashSet;

use sha2::{Digest as _, Sha256};

use super::problem::CloudProblem;
use super::refusal::{Asked, shown};
use super::store::{Found, Page, Store};
use crate::model::{Digest, Locked, RefusedFile, RefusedFiles, RelPath, SENTINEL, hex};
use crate::net::SourceError;
use crate::source::s3::skipped::{Skipped, Why};

/// More objects than this is no model; it bounds memory and disk.
const MAX_OBJECTS: usize = 1_000_000;
/// Pages in a row that bring nothing, and say that there are more.
const MAX_EMPTY_PAGES: usize = 100;

/// The objects of a location at one moment.
#[derive(Debug)]
pub struct Listing {
    /// What stands before the path of every object in its key: `models/llama/`, or nothing.
    pub base: String,
    /// In the order of their keys.
    pub objects: Vec<Listed>,
    /// Those whose keys cannot become paths.
    pub refused: Vec<RefusedFile>,
    /// Those that are nothing of a model.
    pub skipped: Skipped,
    /// The sentinel of a family that was copied here, which is no file of the model.
    pub sentinel: Option<Stamp>,
    /// SHA-256 over all keys, sizes and versions.
    pub revision: String,
}

/// One object that becomes a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub path: RelPath,
    pub size: u64,
    pub version: String,
    pub digest: Option<Digest>,
}

/// Which version of an object was listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub size: u64,
    pub version: String,
}

/// The keys of a store that begin with `base`, page by page.
pub struct Pages<'a, S> {
    store: &'a S,
    base: &'a str,
    /// Of the next page; `None` for the first one.
    token: Option<String>,
    is_over: bool,
    /// Hostile pages go in circles.
    seen: HashSet<String>,
    empty: usize,
}

impl<'a, S: Store> Pages<'a, S> {
    pub fn of(store: &'a S, base: &'a str) -> Self {
        Self { store, base, token: None, is_over: false, seen: HashSet::new(), empty: 0 }
    }

    /// The next page, or `None` after the last one.
    pub async fn next(&mut self) -> Result<Option<Page>, SourceError> {
        if self.is_over {
            return Ok(None);
        }
        let page = self.store.page(self.base, self.token.as_deref()).await;
        let page = page.map_err(|failed| failed.explain(self.store, Asked::List(self.base)))?;
        self.empty = if page.objects.is_empty() { self.empty + 1 } else { 0 };
        let goes_on = page.next.as_ref().is_none_or(|token| self.seen.insert(token.clone()));
        if !goes_on || self.empty > MAX_EMPTY_PAGES {
            let place = self.store.called().to_owned();
            return Err(SourceError::Protocol(CloudProblem::Cut { place }.into()));
        }
        self.is_over = page.next.is_none();
        self.token = page.next.clone();
        Ok(Some(page))
    }
}

impl Listing {
    /// Of the one object `key`.
    pub fn of_one(store: &impl Store, key: &str, found: Found) -> Result<Self, SourceError> {
        let (base, name) = key.split_at(key.rfind('/').map_or(0, |at| at + 1));
        let Stamp { size, version } = stamp(store, &found)?;
        let object = Listed { path: RelPath::parse(name)?, size, version, digest: found.digest };
        Self::new(store, base.to_owned(), vec![object], Vec::new(), None, Skipped::default())
    }

    /// Of what a lock file names at `key`, where the objects themselves are not asked for. A prefix may be
    /// written without the `/`, and one object by its key.
    pub fn of_lock(key: &str, locked: &Locked) -> Self {
        let base = match locked.files.as_slice() {
            _ if key.is_empty() || key.ends_with('/') => Some(key),
            [one] => {
                key.strip_suffix(one.path.as_str()).filter(|it| it.is_empty() || it.ends_with('/'))
            }
            _ => None,
        };
        Self {
            base: base.map_or_else(|| format!("{key}/"), str::to_owned),
            objects: Vec::new(),
            refused: Vec::new(),
            skipped: Skipped::default(),
            sentinel: None,
            revision: locked.revision.clone(),
        }
    }

    /// Of everything below `base`.
    pub async fn below(store: &impl Store, base: String) -> Result<Self, SourceError> {
        let (mut objects, mut refused) = (Vec::new(), RefusedFiles::default());
        let (mut sentinel, mut skipped) = (None, Skipped::default());
        let mut listed = 0;
        let mut pages = Pages::of(store, &base);
        while let Some(page) = pages.next().await? {
            listed += page.objects.len();
            if listed > MAX_OBJECTS {
                let (place, prefix) = (store.called().to_owned(), shown(&base));
                let problem = CloudProblem::ManyObjects { place, most: MAX_OBJECTS, prefix };
                return Err(SourceError::Unsafe(problem.into()));
            }
            for found in page.objects {
                match entry(store, &base, found)? {
                    Entry::File(object) => objects.push(object),
                    Entry::Refused(file) => refused.push(file)?,
                    Entry::Sentinel(stamp) => sentinel = Some(stamp),
                    Entry::Skipped(why, key) => skipped.add(why, &key),
                    Entry::Marker => {}
                }
            }
        }
        if objects.is_empty() && refused.is_empty() {
            let (place, prefix) = (store.called().to_owned(), shown(&base));
            return Err(SourceError::NotFound(CloudProblem::Empty { place, prefix }.into()));
        }
        Self::new(store, base, objects, refused.into_files(), sentinel, skipped)
    }

    fn new(
        store: &impl Store,
        base: String,
        mut objects: Vec<Listed>,
        refused: Vec<RefusedFile>,
        sentinel: Option<Stamp>,
        skipped: Skipped,
    ) -> Result<Self, SourceError> {
        objects.sort_by(|a, b| a.path.cmp(&b.path));
        // Pages that overlap list an object twice.
        objects.dedup();
        if let Some(pair) = objects.windows(2).find(|pair| pair[0].path == pair[1].path) {
            // It was written meanwhile: another look shows which of them it is.
            let (place, key) = (store.called().to_owned(), format!("{base}{}", pair[0].path));
            return Err(SourceError::Protocol(CloudProblem::Twice { place, key }.into()));
        }
        let line = |object: &Listed| (object.path.to_string(), object.size, object.version.clone());
        let mut lines: Vec<_> = objects.iter().map(line).collect();
        if let Some(Stamp { size, version }) = &sentinel {
            let at = lines.partition_point(|(path, ..)| path.as_str() < SENTINEL);
            lines.insert(at, (SENTINEL.to_owned(), *size, version.clone()));
        }
        let mut hash = Sha256::new();
        for (path, size, version) in lines {
            hash.update(format!("{base}{path}\t{size}\t{}\n", version.trim_matches('"')));
        }
        let revision = hex::encode(&hash.finalize());
        Ok(Self { base, objects, refused, skipped, sentinel, revision })
    }

    pub fn find(&self, path: &str) -> Option<&Listed> {
        let at = self.objects.binary_search_by(|object| object.path.as_str().cmp(path)).ok()?;
        self.objects.get(at)
    }

    pub fn key(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }
}

#[derive(Debug)]
pub enum Entry {
    File(Listed),
    /// An object whose key cannot become a path.
    Refused(RefusedFile),
    Sentinel(Stamp),
    /// An object that stands for a directory.
    Marker,
    Skipped(Why, String),
}

/// What an object of a listing stands for.
pub fn entry(store: &impl Store, base: &str, found: Found) -> Result<Entry, SourceError> {
    let Some(path) = found.key.strip_prefix(base) else {
        let (place, key) = (store.called().to_owned(), shown(&found.key));
        let problem = CloudProblem::NotBelow { place, key, prefix: shown(base) };
        return Err(SourceError::Protocol(problem.into()));
    };
    if found.is_directory {
        return Ok(Entry::Marker);
    }
    if path.is_empty() || path.ends_with('/') {
        let is_marker = found.size == Some(0);
        let skipped = || Entry::Skipped(Why::Directory, found.key.clone());
        return Ok(if is_marker { Entry::Marker } else { skipped() });
    }
    if let Some(why) = Why::of(path).filter(|_| path != SENTINEL) {
        return Ok(Entry::Skipped(why, found.key.clone()));
    }
    let Stamp { size, version } = stamp(store, &found)?;
    if path == SENTINEL {
        return Ok(Entry::Sentinel(Stamp { size, version }));
    }
    Ok(match RelPath::parse(path) {
        Ok(path) => Entry::File(Listed { path, size, version, digest: found.digest }),
        Err(why) => Entry::Refused(RefusedFile { name: path.to_owned(), size, why }),
    })
}

/// Without both of them nothing can be read that is sure to be what was listed.
fn stamp(store: &impl Store, found: &Found) -> Result<Stamp, SourceError> {
    let untold = |what| {
        let (place, key) = (store.called().to_owned(), shown(&found.key));
        SourceError::Protocol(CloudProblem::Untold { place, key, what }.into())
    };
    let size = found.size.ok_or_else(|| untold("a size"))?;
    let version = found.version.clone().ok_or_else(|| untold("a version"))?;
    Ok(Stamp { size, version })
}
