//! Looks at many objects at the same time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::JoinSet;

use crate::model::Sha256;
use crate::net::SourceError;
use crate::source::Sink;
use crate::source::s3::upload::Seen;

/// Objects that are looked at at the same time.
const MAX_LOOKS: usize = 16;

/// What is known of an object.
#[derive(Clone, Debug, Default)]
pub struct Looked {
    pub seen: Seen,
    /// By the store itself.
    pub sha256: Option<Sha256>,
}

/// Whether the store is asked for a SHA-256 as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Of our own the mark tells more than the store does.
    IfUnmarked,
    Never,
}

/// What was found, by path; nothing for what is not there. A round that failed half-way does not ask again.
#[derive(Debug, Default)]
pub struct Looks(Mutex<HashMap<String, Option<Looked>>>);

impl Looks {
    /// Looks at the objects of `paths` that were not looked at yet.
    pub async fn ask(
        &self,
        sink: &Arc<Sink>,
        paths: &[String],
        proof: Proof,
    ) -> Result<(), SourceError> {
        let mut open = self.open(paths);
        let mut asking = JoinSet::new();
        loop {
            while asking.len() < MAX_LOOKS
                && let Some(path) = open.pop()
            {
                let sink = Arc::clone(sink);
                asking.spawn(async move {
                    let looked = look(&sink, &path, proof).await?;
                    Ok::<_, SourceError>((path, looked))
                });
            }
            let Some(answered) = asking.join_next().await else { return Ok(()) };
            let (path, looked) = answered
                .map_err(|_| SourceError::Unreachable("looking at objects was cut off".into()))??;
            self.known().insert(path, looked);
        }
    }

    /// What is there.
    pub fn found(self) -> HashMap<String, Looked> {
        let known = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        known.into_iter().filter_map(|(path, looked)| Some((path, looked?))).collect()
    }

    /// Those of `paths` that were not looked at.
    fn open(&self, paths: &[String]) -> Vec<String> {
        let known = self.known();
        paths.iter().filter(|path| !known.contains_key(*path)).cloned().collect()
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Option<Looked>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn look(sink: &Sink, path: &str, proof: Proof) -> Result<Option<Looked>, SourceError> {
    let Some(seen) = sink.look(path).await? else { return Ok(None) };
    let sha256 = match proof {
        Proof::IfUnmarked if seen.mark.is_none() => sink.sha256(path, &seen).await?,
        Proof::IfUnmarked | Proof::Never => None,
    };
    Ok(Some(Looked { seen, sha256 }))
}
