//! The archives of a source are unpacked before they are listed: what is in them, and its digests, nobody
//! knows earlier.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::lookout::Lookout;
use super::run_state::Doing;
use super::shared::{Fetch, Wanted, holder_status};
use crate::Error;
use crate::content::Archives;
use crate::content::Source;
use crate::engine::Retry;
use crate::fs::Dir;
use crate::model::{RemoteFile, Snapshot};
use crate::net::SourceError;
use crate::report::{Event, Progress};
use crate::volume::{Staging, Store, Surroundings};

/// What was unpacked, in an attempt of its own.
pub(super) struct Unpacked<'a> {
    pub staging: Staging,
    scratch: Dir,
    archives: &'a dyn Archives,
}

impl Unpacked<'_> {
    /// Takes what `staging` lacks; how many bytes that were.
    pub fn give(&self, staging: &mut Staging, outside: &Surroundings<'_>) -> Result<u64, Error> {
        let name_of = |file: &RemoteFile| self.archives.unpacked(file);
        Ok(staging.take_unpacked(&self.scratch, name_of, outside)?)
    }
}

impl Fetch<'_> {
    /// Unpacks the archives of `source`, if it has some.
    pub(super) async fn unpacked<'a>(
        &self,
        store: &Store,
        source: &'a dyn Source,
        revision: &str,
        progress: &Arc<Progress>,
        lookout: &Lookout<'_>,
    ) -> Result<Option<Unpacked<'a>>, Error> {
        let wanted = lookout.wanted;
        let Some(archives) = source.archives() else { return Ok(None) };
        let (budget, bound) = (self.ask.budget(), self.ask.bound());
        let bytes = self.ask.retried(budget, bound, || archives.packed_bytes()).await?;
        if bytes == 0 {
            return Ok(None);
        }
        let name = wanted.model.uri.source_name();
        let snapshot = Snapshot::new(name, revision.to_owned(), Vec::new(), Vec::new());
        let staging = Staging::begin(store, &snapshot, Vec::new())?;
        let unpacking = self.unpack_into(wanted, &staging, archives, bytes, progress);
        match lookout.unless_published(unpacking).await {
            Ok(scratch) => Ok(Some(Unpacked { staging, scratch, archives })),
            Err(error) => {
                self.end(staging, store);
                Err(error)
            }
        }
    }

    async fn unpack_into(
        &self,
        wanted: Wanted<'_>,
        staging: &Staging,
        archives: &dyn Archives,
        bytes: u64,
        progress: &Arc<Progress>,
    ) -> Result<Dir, Error> {
        staging.clear_unpacked()?;
        // At least as much as it takes packed.
        staging.check_bytes(bytes)?;
        let scratch = staging.scratch()?;
        let source = wanted.model.uri.to_string();
        self.state.enter(Doing::Filling { source, progress: progress.clone() });
        progress.enter("unpacking");
        progress.total_bytes.store(bytes, Relaxed);
        let _heartbeat = staging.heartbeat({
            let progress = progress.clone();
            Arc::new(move || holder_status(&progress))
        })?;
        let _follower = self.screen.follow(progress.clone());
        let worked = |bytes: u64| {
            progress.fetched_bytes.fetch_add(bytes, Relaxed);
            progress.done_bytes.fetch_add(bytes, Relaxed);
        };
        let mut retry = Retry::new(self.ask.retry_of_bytes(), self.ask.http()?.pace.clone());
        loop {
            let before = progress.fetched_bytes.load(Relaxed);
            let unpacked = tokio::select! {
                unpacked = archives.unpack(scratch.path(), &worked) => unpacked,
                () = self.stop.wait() => return Err(Error::Stopped),
            };
            let error = match unpacked {
                Ok(()) => return Ok(scratch),
                Err(error) => error,
            };
            // What it was written for may be that the volume is full.
            if matches!(error, SourceError::Unusable(_)) {
                staging.check_bytes(ROOM_BYTES)?;
            }
            retry.progressed(progress.fetched_bytes.load(Relaxed) - before);
            let (delay, error) = retry.after(error)?;
            if retry.is_worth_a_line() || self.screen.is_verbose() {
                let (error, fields) = (error.to_string(), Box::new(error.fields()));
                let retrying =
                    Event::Retrying { path: None, from_byte: None, error, delay, fields };
                self.screen.tell(&retrying);
            }
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = self.stop.wait() => return Err(Error::Stopped),
            }
        }
    }
}

/// A volume that has no more than this is full.
const ROOM_BYTES: u64 = 4 << 20;
