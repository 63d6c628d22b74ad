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
mod shared;
mod standing;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::Client;

use crate::content::{Archives, Blob, Body, ChunkStore, Locator, Source};
use crate::model::{RelPath, RemoteFile, Snapshot};
use crate::net::{Problem, SourceError};
pub use shared::Place;
use shared::{Begun, Failed, Shared, Watching};
use standing::Way;

/// A source whose bytes other places have as well.
pub struct Mirrors {
    shared: Arc<Shared>,
    patience: Duration,
}

impl Mirrors {
    /// Reads the bytes of `pinned` from `also`, in order, where they can be had there. `patience` is
    /// how long the listing of one of these may take.
    pub fn new(also: Vec<Place>, pinned: Place, patience: Duration) -> Self {
        let mut places = also;
        places.push(pinned);
        let last = places.len() - 1;
        Self { shared: Arc::new(Shared::new(places, last, None)), patience }
    }

    /// Two ways to the same storage: the first one is taken as long as it works. Number `pinned` of them lists
    /// the files; those that `has_both` is true of are to be had by either.
    pub fn two_ways(ways: [Place; 2], pinned: usize, has_both: fn(&RemoteFile) -> bool) -> Self {
        let shared = Shared::new(ways.into(), pinned, Some(has_both));
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
                "{} publishes no digests, so no other place can be trusted; all of it is read from there",
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
                    state.warnings.push(format!("{name} is not used: {error}"));
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
        if shared.is_everywhere.is_some() {
            // Two ways to one place.
            return shared.pinned().source.place_of(file);
        }
        let place = shared.begin(file).map(|begun| &shared.places[begun.locator.place]);
        Some(place.unwrap_or(shared.pinned()).name.clone())
    }

    fn chunk_store(&self) -> Option<&dyn ChunkStore> {
        let pinned = self.shared.pinned().source.chunk_store();
        pinned.or_else(|| self.shared.others().find_map(|(_, place)| place.source.chunk_store()))
    }

    fn archives(&self) -> Option<&dyn Archives> {
        self.shared.pinned().source.archives()
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

/// Links and the like that a place may renew during one read.
const MAX_RENEWALS: u32 = 8;
