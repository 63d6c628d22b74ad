//! What other places have of the blobs that a source lists, by digest and size.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::Place;
use crate::content::{Blob, Locator};
use crate::model::{RemoteFile, Snapshot, text};
use crate::net::{Problem, SourceError};

/// Tries to list a place. It is one of several: nothing waits long for it.
const TRIES: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(250);

#[derive(Debug, thiserror::Error)]
#[error("it was not listed within {}", text::duration(*.0))]
struct NotListed(Duration);

impl Problem for NotListed {}

/// What there is to list: files with bytes, which another place can have.
pub fn portable(files: &[RemoteFile]) -> impl Iterator<Item = (&RemoteFile, Blob)> {
    let blobs = files.iter().filter(|file| file.size > 0).map(|file| (file, Blob::of(file)));
    blobs.filter(|(_, blob)| blob.is_portable())
}

/// Lists all `places` at the same time, each within `patience`; in their order.
pub async fn list_all(places: &[Place], patience: Duration) -> Vec<Result<Snapshot, SourceError>> {
    let mut asking = JoinSet::new();
    for (n, place) in places.iter().enumerate() {
        let source = Arc::clone(&place.source);
        asking.spawn(async move {
            let listed = tokio::time::timeout(patience, list(source.as_ref())).await;
            let late = |_| Err(SourceError::Unreachable(NotListed(patience).into()));
            (n, listed.unwrap_or_else(late))
        });
    }
    let lost = || Err(SourceError::Unreachable("listing it was cut off".into()));
    let mut all: Vec<_> = places.iter().map(|_| lost()).collect();
    while let Some(answered) = asking.join_next().await {
        if let Ok((n, listed)) = answered {
            all[n] = listed;
        }
    }
    all
}

async fn list(source: &dyn crate::content::Source) -> Result<Snapshot, SourceError> {
    let mut pause = FIRST_PAUSE;
    for _ in 1..TRIES {
        match source.snapshot().await {
            Err(error) if error.is_transient() => {}
            listed => return listed,
        }
        tokio::time::sleep(pause).await;
        pause *= 4;
    }
    source.snapshot().await
}

/// Where in `listed`, the files of place number `place`, each of the `wanted` blobs is. A file of the
/// same path comes before others of the same content.
pub fn locate<'a>(
    wanted: &'a [(&'a RemoteFile, Blob)],
    place: usize,
    listed: Vec<RemoteFile>,
) -> impl Iterator<Item = (&'a RemoteFile, Locator)> {
    let blobs: HashSet<&Blob> = wanted.iter().map(|(_, blob)| blob).collect();
    let mut there: HashMap<Blob, Vec<RemoteFile>> = HashMap::new();
    for file in listed {
        let blob = Blob::of(&file);
        if blobs.contains(&blob) {
            there.entry(blob).or_default().push(file);
        }
    }
    wanted.iter().filter_map(move |(file, blob)| {
        let candidates = there.get(blob)?;
        let same_path = candidates.iter().find(|other| other.path == file.path);
        let other = same_path.or(candidates.first())?;
        Some((*file, Locator { place, file: other.clone() }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Digest, RelPath};

    fn file(path: &str, size: u64, byte: u8) -> RemoteFile {
        let path = RelPath::parse(path).expect(path);
        RemoteFile {
            path,
            size,
            digest: Some(Digest::Sha256([byte; 32])),
            validator: None,
            xet_hash: None,
        }
    }

    #[test]
    fn a_blob_is_found_by_its_digest_and_best_at_its_own_path() {
        let files = [file("a", 9, 1), file("b", 9, 1), file("c", 9, 2), file("empty", 0, 3)];
        let wanted: Vec<_> = portable(&files).collect();
        let there = vec![file("x/y", 9, 1), file("b", 9, 1), file("c", 8, 2), file("other", 9, 9)];
        let found: Vec<_> = locate(&wanted, 1, there)
            .map(|(file, at)| (file.path.as_str(), at.file.path.as_str().to_owned()))
            .collect();
        assert_eq!(found, [("a", "x/y".to_owned()), ("b", "b".to_owned())]);
    }
}
