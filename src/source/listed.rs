//! A source whose listing is known: what a lock file names is read from it, and nothing is asked first.
//!
//! Imports `model`, `content` and `net`; knows no kind of source.

use std::ops::Range;

use async_trait::async_trait;
use reqwest::Client;

use crate::content::{Archives, Body, ChunkStore, Source};
use crate::model::{ErrorFields, RemoteFile, Snapshot};
use crate::net::{Problem, SourceError};

/// A source that is to hold a snapshot.
pub(super) struct Listed {
    /// Or the variable that forbids to ask it.
    pub source: Result<Box<dyn Source>, &'static str>,
    pub snapshot: Snapshot,
}

#[derive(Debug, thiserror::Error)]
#[error("{variable} is set")]
struct Offline {
    variable: &'static str,
}

impl Problem for Offline {}

/// It has not what it had when the lock file was made.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
struct Moved {
    source_name: String,
    error: SourceError,
}

impl Problem for Moved {
    fn fields(&self) -> ErrorFields {
        self.error.fields().hint(format!(
            "run `weightlift pin` again, or name with --also a mirror that has what the lock file names and {} \
             no longer has",
            self.source_name
        ))
    }
}

#[async_trait]
impl Source for Listed {
    async fn revision(&self) -> Result<String, SourceError> {
        Ok(self.snapshot.revision.clone())
    }

    async fn snapshot(&self) -> Result<Snapshot, SourceError> {
        Ok(self.snapshot.clone())
    }

    async fn read(
        &self,
        client: &Client,
        file: &RemoteFile,
        range: Range<u64>,
    ) -> Result<Body, SourceError> {
        let source = match &self.source {
            Ok(source) => source,
            Err(variable) => return Err(SourceError::NotFound(Offline { variable }.into())),
        };
        source.read(client, file, range).await.map_err(|error| {
            let is_gone =
                |it: &SourceError| matches!(it, SourceError::NotFound(_) | SourceError::Stale(_));
            let is_moved = match &error {
                // Neither of two ways has it.
                SourceError::Everywhere(all) if all.is_final => all.decisive().is_some_and(is_gone),
                error => is_gone(error),
            };
            if !is_moved {
                return error;
            }
            let source_name = self.snapshot.source_name.clone();
            SourceError::Changed(Moved { source_name, error }.into())
        })
    }

    fn distrust(&self, file: &RemoteFile) {
        if let Ok(source) = &self.source {
            source.distrust(file);
        }
    }

    fn chunk_store(&self) -> Option<&dyn ChunkStore> {
        self.source.as_ref().ok()?.chunk_store()
    }

    fn archives(&self) -> Option<&dyn Archives> {
        self.source.as_ref().ok()?.archives()
    }

    fn warnings(&self) -> Vec<String> {
        self.source.as_ref().map(|source| source.warnings()).unwrap_or_default()
    }
}
