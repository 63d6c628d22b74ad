//! `mirror --check`: whether a bucket still holds what the sentinel in it says.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

const WRITE_IT: &str =
    "check the prefix, or write the mirror with `weightlift mirror SOURCE PREFIX`";

use super::job::Task;
use super::looks::{Looks, Proof};
use super::plan::crc_of;
use super::shared::Mirror;
use crate::Error;
use crate::cli::MirrorModel;
use crate::commands::Outcome;
use crate::commands::run_state::Doing;
use crate::commands::several::runtime;
use crate::model::{
    Digest, Message, MirrorState, RelPath, RemoteFile, SENTINEL, Selection, Sentinel, SentinelFile,
    SourceUri, part_size,
};
use crate::report::{Event, Progress};
use crate::source::Sink;
use crate::source::beside::SHA256SUMS;
use crate::source::s3::upload::{Before, Seen};

impl Mirror<'_> {
    pub(super) fn check(&self, model: &MirrorModel, sink: &Arc<Sink>) -> Result<Outcome, Error> {
        let runtime = runtime()?;
        let place = sink.place();
        let found = runtime.block_on(self.retried(|| sink.sentinel()))?;
        let sentinel = match found.map(|found| found.sentinel) {
            None => {
                return Err(Error::NotFound(
                    Message::new(format!("`{place}` is not a mirror: it has no `{SENTINEL}`"))
                        .hint(WRITE_IT),
                ));
            }
            Some(Err(problem)) => {
                return Err(Error::Integrity(
                    Message::new(format!("`{}`: {problem}", sink.shown(SENTINEL))).hint(
                        problem.hint().unwrap_or("remove that object and mirror the model again"),
                    ),
                ));
            }
            Some(Ok(sentinel)) => sentinel,
        };
        match sentinel.mirrored_at(&place) {
            Some(MirrorState::Complete) => {}
            Some(MirrorState::Writing) => {
                return Err(crate::source::beside::is_being_written(&place).into());
            }
            None => {
                return Err(Error::NotFound(Message::new(format!(
                    "`{place}` is not a mirror: `weightlift mirror` did not write its `{SENTINEL}`"
                )).hint(WRITE_IT)));
            }
        }
        let (files, bytes) = (sentinel.files.len(), sentinel.total_bytes);
        let deep = self.args.deep;
        self.screen.tell(&Event::Checking { target: place.clone(), files, bytes, deep });
        let mut bad = Vec::new();
        let mut paths: Vec<String> = sentinel.files.iter().map(|it| it.path.to_string()).collect();
        let sums = sentinel.mirror.as_ref().and_then(|mark| mark.sums.as_ref());
        paths.extend(sums.map(|_| SHA256SUMS.to_owned()));
        let looks = Looks::default();
        runtime.block_on(self.retried(|| looks.ask(sink, &paths, Proof::Never)))?;
        let looked = looks.found();
        for file in &sentinel.files {
            if let Some(why) = wrong(file, looked.get(&*file.path).map(|looked| &looked.seen)) {
                bad.push((file.path.to_string(), why));
            }
        }
        let of_sums = looked.get(SHA256SUMS).and_then(|looked| looked.seen.etag.as_ref());
        if sums.is_some() && of_sums != sums {
            bad.push((SHA256SUMS.into(), "is not what was written".into()));
        }
        if deep {
            self.read_all(model, &sentinel, &mut bad)?;
        }
        for (path, why) in &bad {
            self.screen.tell(&Event::WrongObject { path: path.clone(), why: why.clone() });
        }
        match bad.as_slice() {
            [] => Ok(Outcome::of("verified", Path::new(&place), &sentinel)),
            [(path, why), more @ ..] => {
                let more = match more.len() {
                    0 => String::new(),
                    count => format!("; {count} more"),
                };
                Err(Error::Integrity(
                    Message::new(format!(
                        "`{place}` does not hold what its sentinel says: `{path}` {why}{more}"
                    ))
                    .hint("mirror it again after removing what is wrong"),
                ))
            }
        }
    }

    /// Hashes every object that is not known to be wrong.
    fn read_all(
        &self,
        model: &MirrorModel,
        sentinel: &Sentinel,
        bad: &mut Vec<(String, String)>,
    ) -> Result<(), Error> {
        let uri = SourceUri::S3(model.target.clone());
        let source = self.ask.source_of(&uri, &Selection::default())?;
        let tasks = sentinel
            .files
            .iter()
            .filter(|file| !bad.iter().any(|(path, _)| **path == *file.path))
            .map(task);
        let tasks = tasks.collect::<Result<Vec<Task>, Error>>()?;
        let paths: Vec<String> = tasks.iter().map(|task| task.file.path.to_string()).collect();
        let progress = Arc::new(Progress::default());
        progress.enter("reading");
        let bytes = tasks.iter().map(|task| task.file.size).fold(0, u64::saturating_add);
        progress.total_bytes.store(bytes, Relaxed);
        progress.total_files.store(tasks.len() as u64, Relaxed);
        self.state.enter(Doing::Filling { source: uri.to_string(), progress: progress.clone() });
        let _follower = self.screen.follow(progress.clone());
        let read = self.relay(source.as_ref(), None, &progress).run(tasks)?;
        for (path, result) in paths.into_iter().zip(read) {
            match result {
                Ok(_) => {}
                Err(Error::Integrity(_)) => bad.push((path, "has other bytes".into())),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn task(file: &SentinelFile) -> Result<Task, Error> {
    let path = RelPath::parse(&file.path).map_err(crate::net::SourceError::from)?;
    Ok(Task {
        part_size: part_size(file.size).unwrap_or(16 << 20),
        file: RemoteFile {
            path,
            size: file.size,
            digest: Some(Digest::Sha256(file.sha256.0)),
            validator: file.validator.as_deref().map(str::to_owned),
            xet_hash: None,
        },
        before: Before::Nothing,
        unfinished: None,
    })
}

/// What is wrong with an object, as far as the store tells. Completes a sentence that begins with its path.
fn wrong(file: &SentinelFile, seen: Option<&Seen>) -> Option<String> {
    let Some(seen) = seen else { return Some("is not there".into()) };
    if seen.size != file.size {
        return Some(format!("has {} bytes, but {} were written", seen.size, file.size));
    }
    let stored = file.stored.as_deref().and_then(|it| crc_of(it));
    if let Some((there, written)) = seen.crc64nvme.zip(stored)
        && there != written
    {
        return Some(format!("has CRC64NVME {there:016x}, but {written:016x} was written"));
    }
    let written = file.validator.as_deref();
    let (there, written) = seen.etag.as_deref().zip(written)?;
    (there != written).then(|| format!("has ETag {there}, but {written} was written"))
}
