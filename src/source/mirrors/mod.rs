//! Several places of the same bytes, as one source.
//!
//! One of them is pinned: it alone lists the files, and gives what the others lack. The others come
//! first, in order, for each blob that they publish the same cryptographic digest of. When a place fails
//! in the middle of a file, the next one goes on at the byte that was reached: the engine asks for the
//! rest, and gets it from there. What came from where makes no difference to the proof: the digest is
//! the pinned source's.
//!
//! Two ways to one storage, which can fail at different times, are two places as well: what the one lists
//! the other has, and there is nothing to compare.
//!
//! Imports `model`, `content` and `net`; knows no kind of source.

mod listing;
mod standing;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use reqwest::Client;

use crate::content::{Blob, Body, ChunkStore, Ending, Locator, Source, Watch};
use crate::model::{RelPath, RemoteFile, Snapshot};
use crate::net::{Failures, Problem, SourceError};
use standing::{News, Reads, Record, Way};

/// A source among several, and what to call it.
#[derive(Clone)]
pub struct Place {
    /// As the user wrote it; it may be shown.
    pub name: String,
    pub source: Arc<dyn Source>,
}

/// A source whose bytes other places have as well.
pub struct Mirrors {
    shared: Arc<Shared>,
    patience: Duration,
}

struct Shared {
    /// In the order of preference.
    places: Vec<Place>,
    /// Number of the one that is pinned.
    pinned: usize,
    /// What lies at each of them as the pinned one lists it, where nothing has to be looked for.
    is_everywhere: Option<fn(&RemoteFile) -> bool>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    records: Vec<Record>,
    /// The ways to each file that more than the pinned source has.
    files: HashMap<RelPath, Vec<Way>>,
    /// Why a place serves nothing.
    unlisted: HashMap<usize, Arc<SourceError>>,
    /// Places of which it has been said that another one took over.
    is_told: Vec<bool>,
    reads: Reads,
    warnings: Vec<String>,
}

/// One read that has begun.
struct Begun {
    way: usize,
    read: u64,
    locator: Locator,
}

impl Mirrors {
    /// Reads the bytes of `pinned` from `also`, in order, where they can be had there. `patience` is
    /// how long the listing of one of these may take.
    pub fn new(also: Vec<Place>, pinned: Place, patience: Duration) -> Self {
        let mut places = also;
        places.push(pinned);
        let shared = Shared::new(places, |places| places.len() - 1, None);
        Self { shared: Arc::new(shared), patience }
    }

    /// Two ways to the same storage: the first one is gone as long as it works. Number `pinned` of them lists
    /// the files; those that `has_both` is true of are to be had by either.
    pub fn two_ways(ways: [Place; 2], pinned: usize, has_both: fn(&RemoteFile) -> bool) -> Self {
        let shared = Shared::new(ways.into(), |_| pinned, Some(has_both));
        Self { shared: Arc::new(shared), patience: Duration::ZERO }
    }

    /// Finds out what the other places have of `files`.
    async fn locate(&self, files: &[RemoteFile]) -> Result<(), SourceError> {
        if self.shared.is_everywhere.is_some() {
            return Ok(());
        }
        let pinned = self.shared.pinned();
        let also = &self.shared.places[..self.shared.pinned];
        let wanted: Vec<(&RemoteFile, Blob)> = listing::portable(files).collect();
        if wanted.is_empty() {
            self.shared.state().warnings.push(format!(
                "{} publishes no digest by which another place could be trusted; all of it is read \
                 from there",
                pinned.name
            ));
            return Ok(());
        }
        let listed = listing::list_all(also, self.patience).await;
        let mut state = self.shared.state();
        state.files.clear();
        state.unlisted.clear();
        for (n, listed) in listed.into_iter().enumerate() {
            let name = &also[n].name;
            let files = match listed {
                Ok(snapshot) => snapshot.files,
                // Nothing that happens elsewhere: somebody has to mend it here.
                Err(error @ SourceError::Settings(_)) => return Err(error),
                Err(error) => {
                    state.warnings.push(format!("{name} is left alone: {error}"));
                    state.unlisted.insert(n, Arc::new(error));
                    continue;
                }
            };
            let mut found = 0;
            for (file, locator) in listing::locate(&wanted, n, files) {
                let ways = state.files.entry(file.path.clone()).or_default();
                ways.push(Way::new(locator, false));
                found += 1;
            }
            if found == 0 {
                state.warnings.push(format!(
                    "{name} has no file with a digest that {} publishes; nothing is read from there",
                    pinned.name
                ));
            }
        }
        for (file, _) in &wanted {
            if let Some(ways) = state.files.get_mut(&file.path) {
                let locator = Locator { place: self.shared.pinned, file: (*file).clone() };
                ways.push(Way::new(locator, true));
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Source for Mirrors {
    async fn revision(&self) -> Result<String, SourceError> {
        self.shared.pinned().source.revision().await
    }

    async fn snapshot(&self) -> Result<Snapshot, SourceError> {
        let snapshot = self.shared.pinned().source.snapshot().await?;
        self.locate(&snapshot.files).await?;
        Ok(snapshot)
    }

    async fn read(
        &self,
        client: &Client,
        file: &RemoteFile,
        range: Range<u64>,
    ) -> Result<Body, SourceError> {
        let shared = &self.shared;
        let (mut moves, mut renewals) = (0, 0);
        loop {
            let Some(begun) = shared.begin(file) else {
                let read = shared.pinned().source.read(client, file, range).await;
                return match shared.is_everywhere {
                    Some(_) => read,
                    None => read.map_err(|error| shared.alone(file, error)),
                };
            };
            let Begun { locator, read, way } = begun;
            let source = &shared.places[locator.place].source;
            let error = match source.read(client, &locator.file, range.clone()).await {
                Ok(body) => {
                    shared.serves(file, way);
                    let (shared, file) = (Arc::clone(shared), file.clone());
                    return Ok(body.watched(Watching { shared, file, way, read }));
                }
                // Not a failure of the place yet: it knows another way of its own.
                Err(SourceError::Again(_)) if renewals < MAX_RENEWALS => {
                    renewals += 1;
                    continue;
                }
                Err(error) => shared.failed(file, way, read, error),
            };
            match error {
                // The reader shows what there is to say, and asks again at once.
                Failed { elsewhere: Some(name), is_news: true, .. } => {
                    return Err(SourceError::Again(NextPlace(name).into()));
                }
                // All places in one call, and then the reader, who knows how to wait.
                Failed { elsewhere: Some(_), .. } if moves < shared.places.len() => moves += 1,
                Failed { error, .. } => return Err(error),
            }
        }
    }

    fn distrust(&self, file: &RemoteFile) {
        self.shared.distrust(file);
    }

    fn list_with_digest(&self, path: &RelPath) -> Option<&'static str> {
        self.shared.pinned().source.list_with_digest(path)
    }

    fn place_of(&self, file: &RemoteFile) -> Option<String> {
        let shared = &self.shared;
        // Of one storage it makes no difference.
        let begun = shared.is_everywhere.is_none().then(|| shared.begin(file)).flatten();
        let place = begun.map(|begun| &shared.places[begun.locator.place]);
        Some(place.unwrap_or(shared.pinned()).name.clone())
    }

    fn chunk_store(&self) -> Option<&dyn ChunkStore> {
        let pinned = self.shared.pinned().source.chunk_store();
        pinned.or_else(|| self.shared.others().find_map(|(_, place)| place.source.chunk_store()))
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = self.shared.pinned().source.warnings();
        for (_, place) in self.shared.others() {
            let of_place = place.source.warnings();
            warnings.extend(of_place.iter().map(|warning| format!("{}: {warning}", place.name)));
        }
        warnings.append(&mut self.shared.state().warnings);
        warnings
    }
}

/// Another place takes over.
#[derive(Debug, thiserror::Error)]
#[error("{0} is asked next")]
struct NextPlace(String);

impl Problem for NextPlace {}

/// What follows from a failure.
struct Failed {
    /// Another place is to be asked: its name.
    elsewhere: Option<String>,
    /// It has not been said before that another place takes over from this one.
    is_news: bool,
    /// For the reader, if it is told.
    error: SourceError,
}

/// Links and the like that a place may renew during one read.
const MAX_RENEWALS: u32 = 8;

impl Shared {
    fn new(
        places: Vec<Place>,
        pinned: impl FnOnce(&[Place]) -> usize,
        is_everywhere: Option<fn(&RemoteFile) -> bool>,
    ) -> Self {
        let pinned = pinned(&places);
        let state = State {
            records: places.iter().map(|_| Record::default()).collect(),
            is_told: vec![false; places.len()],
            ..State::default()
        };
        Self { places, pinned, is_everywhere, state: Mutex::new(state) }
    }

    fn pinned(&self) -> &Place {
        &self.places[self.pinned]
    }

    /// The places beside the pinned one, with their numbers.
    fn others(&self) -> impl Iterator<Item = (usize, &Place)> {
        self.places.iter().enumerate().filter(|(n, _)| *n != self.pinned)
    }

    /// The ways to `file`, and what is known of the places. Where a file is everywhere, its ways are kept from
    /// its first read on.
    fn ways<'a>(
        &self,
        state: &'a mut State,
        file: &RemoteFile,
    ) -> Option<(&'a mut Vec<Way>, &'a mut Vec<Record>)> {
        if self.is_everywhere.is_some_and(|is_everywhere| is_everywhere(file))
            && !state.files.contains_key(&file.path)
        {
            let way = |place| Way::new(Locator { place, file: file.clone() }, place == self.pinned);
            let ways = (0..self.places.len()).map(way).collect();
            state.files.insert(file.path.clone(), ways);
        }
        Some((state.files.get_mut(&file.path)?, &mut state.records))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The way to read `file` now; none where only the pinned source has it.
    fn begin(&self, file: &RemoteFile) -> Option<Begun> {
        let state = &mut *self.state();
        let (ways, records) = self.ways(state, file)?;
        // Where each has refused, the pinned source says so once more.
        let pinned = || ways.iter().position(|way| way.is_pinned).unwrap_or_default();
        let way = standing::next(ways, records).unwrap_or_else(pinned);
        let locator = ways[way].locator.clone();
        Some(Begun { way, read: state.reads.begin(), locator })
    }

    fn serves(&self, file: &RemoteFile, way: usize) {
        if let Some((ways, _)) = self.ways(&mut self.state(), file) {
            ways[way].serves();
        }
    }

    fn worked(&self, file: &RemoteFile, way: usize) {
        let state = &mut *self.state();
        let Some((ways, records)) = self.ways(state, file) else { return };
        let place = ways[way].locator.place;
        ways[way].worked(&mut records[place]);
        // Of very many files nothing is kept that says nothing.
        if self.is_everywhere.is_some() && standing::is_as_if_new(ways, records, way) {
            state.files.remove(&file.path);
        }
    }

    fn given_up(&self, file: &RemoteFile, way: usize, read: u64) {
        let state = &mut *self.state();
        self.ways(state, file);
        if let Some(ways) = state.files.get_mut(&file.path) {
            ways[way].given_up(read, &state.reads);
        }
    }

    /// Read number `read` has failed; says so once for each place that another one takes over from.
    fn failed(&self, file: &RemoteFile, way: usize, read: u64, error: SourceError) -> Failed {
        let (state, path) = (&mut *self.state(), &file.path);
        self.ways(state, file);
        let Some(ways) = state.files.get_mut(path) else {
            return Failed { elsewhere: None, is_news: false, error };
        };
        let error = Arc::new(error);
        let place = ways[way].locator.place;
        let news = ways[way].failed(&mut state.records[place], read, &state.reads, &error);
        let next = standing::next(ways, &state.records);
        let is_one_storage = self.is_everywhere.is_some();
        let is_final = next.is_none() || (is_one_storage && standing::is_refused(ways));
        let elsewhere = next.filter(|next| *next != way && !is_final);
        let name = |way: usize| &self.places[ways[way].locator.place].name;
        let is_news = elsewhere.is_some() && !std::mem::replace(&mut state.is_told[place], true);
        let elsewhere = elsewhere.map(|next| name(next).clone());
        if is_news && let Some(to) = &elsewhere {
            let from = name(way);
            state.warnings.push(format!("{from} fails for `{path}` ({error}); going on with {to}"));
        }
        if news == News::Demoted && !standing::is_only_one_left(ways) {
            let name = name(way);
            state.warnings.push(format!("{name} is asked last from now on: {error}"));
        }
        let is_exhausted = standing::all_had_their_turn(ways);
        let all = || Failures { each: self.failures(state, path, None), is_final, is_one_storage };
        let error = match error.as_ref() {
            // What the reader counts in its own way.
            limited @ SourceError::RateLimited { .. } => limited.clone(),
            no_ranges @ SourceError::NoRanges { .. } if is_exhausted => no_ranges.clone(),
            SourceError::Protocol(_) if is_exhausted && !is_final => {
                SourceError::Protocol(all().into())
            }
            _ => SourceError::Everywhere(all()),
        };
        Failed { elsewhere, is_news, error }
    }

    /// An error of the pinned source for a file that no other place has.
    fn alone(&self, file: &RemoteFile, error: SourceError) -> SourceError {
        let is_final = !error.is_transient();
        if !is_final && !matches!(error, SourceError::Unreachable(_)) {
            return error;
        }
        let each = self.failures(&self.state(), &file.path, Some((file, error)));
        SourceError::Everywhere(Failures { each, is_final, is_one_storage: false })
    }

    /// What each place has to say about `path`; the pinned source, where it is the only one that has
    /// it, says `alone`.
    fn failures(
        &self,
        state: &State,
        path: &RelPath,
        alone: Option<(&RemoteFile, SourceError)>,
    ) -> Vec<(String, Arc<SourceError>)> {
        let ways = state.files.get(path).map_or(&[][..], Vec::as_slice);
        let is_portable = alone.as_ref().is_none_or(|(file, _)| Blob::of(file).is_portable());
        let mut each = Vec::with_capacity(self.places.len());
        for (n, place) in self.others() {
            let way = ways.iter().find(|way| way.locator.place == n);
            let error = match (way, state.unlisted.get(&n)) {
                (Some(way), _) => way.error.clone(),
                (None, Some(error)) => Some(error.clone()),
                (None, None) => Some(Arc::new(SourceError::NotFound(match is_portable {
                    true => "has no file with its digest".into(),
                    false => "cannot be asked for a file without a published digest".into(),
                }))),
            };
            each.extend(error.map(|error| (place.name.clone(), error)));
        }
        let pinned = match alone {
            Some((_, error)) => Some(Arc::new(error)),
            None => ways.iter().find(|way| way.is_pinned).and_then(|way| way.error.clone()),
        };
        each.extend(pinned.map(|error| (self.pinned().name.clone(), error)));
        each
    }

    fn distrust(&self, file: &RemoteFile) {
        let state = &mut *self.state();
        self.ways(state, file);
        let pinned = &self.pinned().source;
        let Some(ways) = state.files.get_mut(&file.path) else { return pinned.distrust(file) };
        let blamed = standing::distrust(ways, &mut state.records);
        if blamed.iter().any(|way| ways[*way].is_pinned) {
            // It may have ways of its own.
            pinned.distrust(file);
        }
        let name = |way: &usize| self.places[ways[*way].locator.place].name.as_str();
        if let Some(next) = standing::next(ways, &state.records)
            && !blamed.contains(&next)
        {
            let from: Vec<&str> = blamed.iter().map(name).collect();
            state.warnings.push(format!(
                "`{}` is not what {} publishes as it came from {}; going on with {}",
                file.path,
                self.pinned().name,
                from.join(" and "),
                name(&next)
            ));
        }
    }
}

/// Follows a body, for the way that it came by.
struct Watching {
    shared: Arc<Shared>,
    file: RemoteFile,
    way: usize,
    read: u64,
}

impl Watch for Watching {
    fn ended(&mut self, ending: Ending) {
        match ending {
            Ending::Whole => self.shared.worked(&self.file, self.way),
            Ending::GivenUp => self.shared.given_up(&self.file, self.way, self.read),
            Ending::CutShort => {}
        }
    }

    fn failed(&mut self, error: SourceError) -> SourceError {
        self.shared.failed(&self.file, self.way, self.read, error).error
    }
}
