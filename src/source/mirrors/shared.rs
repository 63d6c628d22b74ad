//! What is known of several places of the same bytes while files are read from them, and what follows from
//! how each read ends. What is next, `standing` decides.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::standing::{self, News, Reads, Record, Way};
use crate::content::{Blob, Ending, Locator, Source, Watch};
use crate::model::{RelPath, RemoteFile};
use crate::net::{Failures, SourceError};

/// A source among several, and what to call it.
#[derive(Clone)]
pub struct Place {
    /// As the user wrote it; it may be shown.
    pub name: String,
    pub source: Arc<dyn Source>,
}

pub struct Shared {
    /// In the order of preference.
    pub places: Vec<Place>,
    /// Number of the one that is pinned.
    pub pinned: usize,
    /// What lies at each of them as the pinned one lists it, where nothing has to be looked for.
    pub is_everywhere: Option<fn(&RemoteFile) -> bool>,
    pub state: Mutex<State>,
}

#[derive(Default)]
pub struct State {
    pub records: Vec<Record>,
    /// The ways to each file that more than the pinned source has.
    pub files: HashMap<RelPath, Vec<Way>>,
    /// Of files whose ways were forgotten, by a hash of the path: a bit for each way that has brought bytes.
    served: HashMap<u64, u8>,
    /// Why a place serves nothing.
    pub unlisted: HashMap<usize, Arc<SourceError>>,
    /// Places of which it has been said that another one took over.
    pub is_told: Vec<bool>,
    pub reads: Reads,
    pub warnings: Vec<String>,
}

/// One read that has begun.
pub struct Begun {
    pub way: usize,
    pub read: u64,
    pub locator: Locator,
}

/// What follows from a failure.
pub struct Failed {
    /// Another place is to be asked: its name.
    pub elsewhere: Option<String>,
    /// It has not been said before that another place takes over from this one.
    pub is_news: bool,
    /// For the reader, if it is told.
    pub error: SourceError,
}

impl Shared {
    pub fn new(
        places: Vec<Place>,
        pinned: usize,
        is_everywhere: Option<fn(&RemoteFile) -> bool>,
    ) -> Self {
        let state = State {
            records: places.iter().map(|_| Record::default()).collect(),
            is_told: vec![false; places.len()],
            ..State::default()
        };
        Self { places, pinned, is_everywhere, state: Mutex::new(state) }
    }

    pub fn pinned(&self) -> &Place {
        &self.places[self.pinned]
    }

    /// The places beside the pinned one, with their numbers.
    pub fn others(&self) -> impl Iterator<Item = (usize, &Place)> {
        self.places.iter().enumerate().filter(|(n, _)| *n != self.pinned)
    }

    /// The state, with the ways to `file`. Where it is everywhere they are kept from its first read on.
    fn knowing(&self, file: &RemoteFile) -> MutexGuard<'_, State> {
        let mut state = self.state();
        if self.is_everywhere.is_some_and(|is_everywhere| is_everywhere(file))
            && !state.files.contains_key(&file.path)
        {
            let served = state.served.remove(&hash_of(&file.path)).unwrap_or_default();
            let way = |place| {
                let mut way = Way::new(Locator { place, file: file.clone() }, place == self.pinned);
                if served & (1 << place) != 0 {
                    way.serves();
                }
                way
            };
            let ways = (0..self.places.len()).map(way).collect();
            state.files.insert(file.path.clone(), ways);
        }
        state
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The way to read `file` now; none where only the pinned source has it.
    pub fn begin(&self, file: &RemoteFile) -> Option<Begun> {
        let state = &mut *self.knowing(file);
        let ways = state.files.get(&file.path)?;
        // Where each has refused, the pinned source says so once more.
        let pinned = || ways.iter().position(|way| way.is_pinned).unwrap_or_default();
        let way = standing::next(ways, &state.records).unwrap_or_else(pinned);
        let locator = ways[way].locator.clone();
        Some(Begun { way, read: state.reads.begin(), locator })
    }

    pub fn serves(&self, file: &RemoteFile, way: usize) {
        if let Some(ways) = self.knowing(file).files.get_mut(&file.path) {
            ways[way].serves();
        }
    }

    fn worked(&self, file: &RemoteFile, way: usize) {
        let state = &mut *self.knowing(file);
        let Some(ways) = state.files.get_mut(&file.path) else { return };
        let place = ways[way].locator.place;
        ways[way].worked(&mut state.records[place]);
        // Of very many files little is kept: who is to blame if one is wrong.
        if self.is_everywhere.is_some() && standing::is_as_if_new(ways, &state.records, way) {
            let served =
                ways.iter().enumerate().map(|(n, way)| u8::from(way.has_served) << n).sum();
            state.served.insert(hash_of(&file.path), served);
            state.files.remove(&file.path);
        }
    }

    fn given_up(&self, file: &RemoteFile, way: usize, read: u64) {
        let state = &mut *self.knowing(file);
        if let Some(ways) = state.files.get_mut(&file.path) {
            ways[way].given_up(read, &state.reads);
        }
    }

    /// Read number `read` has failed; says so once for each place that another one takes over from.
    pub fn failed(&self, file: &RemoteFile, way: usize, read: u64, error: SourceError) -> Failed {
        let (state, path) = (&mut *self.knowing(file), &file.path);
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
            state
                .warnings
                .push(format!("{from} fails for `{path}` ({error}); continuing with {to}"));
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
    pub fn alone(&self, file: &RemoteFile, error: SourceError) -> SourceError {
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

    pub fn distrust(&self, file: &RemoteFile) {
        let state = &mut *self.knowing(file);
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
                "`{}` does not match what {} publishes when read from {}; continuing with {}",
                file.path,
                self.pinned().name,
                from.join(" and "),
                name(&next)
            ));
        }
    }
}

fn hash_of(path: &RelPath) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    hasher.finish()
}

/// Follows a body, for the way that it came by.
pub struct Watching {
    pub shared: Arc<Shared>,
    pub file: RemoteFile,
    pub way: usize,
    pub read: u64,
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

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use async_trait::async_trait;

    use super::*;
    use crate::content::Body;
    use crate::model::Snapshot;

    /// Is never asked here.
    struct Nowhere;

    #[async_trait]
    impl Source for Nowhere {
        async fn revision(&self) -> Result<String, SourceError> {
            Err(SourceError::Unreachable("nowhere".into()))
        }

        async fn snapshot(&self) -> Result<Snapshot, SourceError> {
            Err(SourceError::Unreachable("nowhere".into()))
        }

        async fn read(
            &self,
            _: &reqwest::Client,
            _: &RemoteFile,
            _: Range<u64>,
        ) -> Result<Body, SourceError> {
            Err(SourceError::Unreachable("nowhere".into()))
        }

        fn warnings(&self) -> Vec<String> {
            Vec::new()
        }
    }

    fn file(name: &str) -> RemoteFile {
        let path = RelPath::parse(name).expect("a path");
        RemoteFile { path, size: 1, digest: None, validator: None, xet_hash: None }
    }

    /// A way that brought a whole file and was asked last from then on is to blame when that file is wrong, not the
    /// one that would be asked now.
    #[test]
    fn who_has_served_is_remembered_when_all_else_of_a_file_is_forgotten() {
        let place = |name: &str| Place { name: name.into(), source: Arc::new(Nowhere) };
        let places = vec![place("store"), place("bridge")];
        let shared = Shared::new(places, 1, Some(|_| true));
        let served = file("served");
        let begun = shared.begin(&served).expect("is everywhere");
        assert_eq!(begun.way, 0);
        shared.serves(&served, begun.way);
        shared.worked(&served, begun.way);
        assert!(shared.state().files.is_empty(), "all but who has served");
        for n in 0..4 {
            let other = file(&format!("other-{n}"));
            let begun = shared.begin(&other).expect("is everywhere");
            shared.failed(&other, begun.way, begun.read, SourceError::Protocol("odd".into()));
        }
        assert_eq!(shared.begin(&file("new")).expect("is everywhere").way, 1, "the store is last");
        shared.distrust(&served);
        assert_eq!(
            shared.begin(&served).expect("is everywhere").way,
            1,
            "the bridge is not blamed"
        );
    }
}
