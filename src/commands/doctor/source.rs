//! Asks sources: who asks them, what they list, and whether they send a part of a file.

use std::time::Duration;

use super::asking::{TIME_FOR_A_QUESTION, TIME_FOR_MUCH, Teller};
use super::verdict::source::{Listed, Read, listed, note, offline, read};
use super::verdict::{Failure, Question, identity};
use crate::content::Source;
use crate::error::Error;
use crate::model::{RemoteFile, Selection, SourceUri};
use crate::net::http::{Http, no_answer};
use crate::net::{Exchange, SourceError, Witness};
use crate::source::{SourceSettings, hub_identity, registry, s3_identity};

/// A request for so many bytes shows whether a source sends parts.
const PART_BYTES: u64 = 1_024;
/// A question that the source itself wants to be asked again.
const TRIES: usize = 3;
/// Until the thread is given up, whose question has had its time.
const SLACK: Duration = Duration::from_secs(1);

/// One place that is to be asked.
#[derive(Clone)]
pub struct Asked {
    pub uri: SourceUri,
    pub selection: Selection,
    pub settings: SourceSettings,
}

impl Asked {
    /// Whether it is one for which there is the token of the Hub, and may be asked.
    pub fn is_of_hub(&self) -> bool {
        matches!(self.uri, SourceUri::Hub(_)) && registry::offline_by(&self.uri).is_none()
    }
}

/// What a source has listed.
struct Contents {
    listed: Listed,
    /// The largest file: where that lies is what matters. None where files lie in archives.
    file: Option<RemoteFile>,
    warnings: Vec<String>,
}

/// Asks whose the token of the Hub is.
pub async fn check_token(teller: &Teller, http: &Http) {
    let question = Question::of_source("token", "hf://");
    teller.asks_for(question.clone(), TIME_FOR_A_QUESTION + SLACK);
    let found = within(TIME_FOR_A_QUESTION, "the Hub", hub_identity(http)).await;
    teller.tell(match found {
        Ok((host, found)) => identity::hub(&host, &found),
        Err(error) => question.failed(failure(error)),
    });
}

/// Asks one source; what was asked of which host.
pub async fn check(
    teller: &Teller,
    asked: &Asked,
    http: &Http,
    witness: &Witness,
) -> Vec<Exchange> {
    let name = asked.uri.to_string();
    let mut seen = Vec::new();
    if let Some(variable) = registry::offline_by(&asked.uri) {
        teller.tell(offline(&name, variable));
        return seen;
    }
    if let SourceUri::S3(location) = &asked.uri {
        let question = Question::of_source("credentials", &name);
        teller.asks_for(question.clone(), TIME_FOR_MUCH + SLACK);
        let asking = s3_identity(location, &asked.settings.s3, http);
        match within(TIME_FOR_MUCH, &name, asking).await {
            Ok(found) => teller.tell(identity::s3(&name, &found)),
            Err(error) => teller.tell(question.failed(failure(error))),
        }
    }
    let question = Question::of_source("list", &name);
    teller.asks_for(question.clone(), TIME_FOR_MUCH + SLACK);
    let source = match registry::open(&asked.uri, &asked.settings, http) {
        Ok(source) => source,
        Err(error) => {
            teller.tell(question.failed(failure(error)));
            return seen;
        }
    };
    let files = within(TIME_FOR_MUCH, &name, list(source.as_ref(), asked)).await;
    seen.append(&mut witness.take());
    source.warnings().iter().for_each(|warning| teller.tell(note(&name, warning)));
    let contents = match files {
        Ok(contents) => contents,
        Err(error) => {
            teller.tell(question.failed(Failure::of(&error)));
            return seen;
        }
    };
    teller.tell(listed(&name, &contents.listed));
    contents.warnings.iter().for_each(|warning| teller.tell(note(&name, warning)));
    if let Some(file) = contents.file {
        let question = Question::of_source("read", &name);
        teller.asks_for(question.clone(), TIME_FOR_A_QUESTION + SLACK);
        let answer =
            within(TIME_FOR_A_QUESTION, &name, part_of(source.as_ref(), &file, http)).await;
        let exchanges = witness.take();
        seen.extend(exchanges.iter().cloned());
        let found = |bytes, has_no_ranges| Read {
            file: file.path.to_string(),
            size: file.size,
            bytes,
            has_no_ranges,
            exchanges: exchanges.clone(),
        };
        teller.tell(match answer {
            Ok(bytes) => read(&name, &found(bytes, false)),
            Err(SourceError::NoRanges { .. }) => read(&name, &found(0, true)),
            Err(error) => question.failed(failure(error)),
        });
    }
    seen
}

/// What would be fetched.
async fn list(source: &dyn Source, asked: &Asked) -> Result<Contents, Error> {
    let revision = again(async || source.revision().await).await?;
    if let Some(archives) = source.archives() {
        let bytes = again(async || archives.packed_bytes().await).await?;
        if bytes > 0 {
            let listed = Listed { revision, files: 0, bytes, left_out: 0, is_packed: true };
            return Ok(Contents { listed, file: None, warnings: Vec::new() });
        }
    }
    let snapshot = again(async || source.snapshot().await).await?;
    let selected = asked.selection.apply(snapshot.files, snapshot.refused)?;
    let files = &selected.files;
    let listed = Listed {
        revision,
        files: files.len(),
        bytes: files.iter().map(|file| file.size).sum(),
        left_out: selected.left_out.len(),
        is_packed: false,
    };
    let file = files.iter().max_by_key(|file| file.size).cloned();
    Ok(Contents { listed, file, warnings: selected.warnings })
}

/// Reads a small part from the middle of `file`; how many bytes that were.
async fn part_of(
    source: &dyn Source,
    file: &RemoteFile,
    http: &Http,
) -> Result<usize, SourceError> {
    let client = http.client()?;
    let start = file.size / 2;
    let range = start..file.size.min(start + PART_BYTES);
    again(async || {
        let mut body = source.read(&client, file, range.clone()).await?;
        let mut bytes = 0;
        while let Some(piece) = body.next().await? {
            bytes += piece.len();
        }
        Ok(bytes)
    })
    .await
}

/// Asks once more where the source itself says that this makes sense.
async fn again<T>(call: impl AsyncFn() -> Result<T, SourceError>) -> Result<T, SourceError> {
    let mut tries = 1;
    loop {
        match call().await {
            Err(SourceError::Again(_)) if tries < TRIES => tries += 1,
            answer => return answer,
        }
    }
}

async fn within<T, E: From<SourceError>>(
    time: Duration,
    host: &str,
    asking: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let asking = Box::pin(asking);
    tokio::time::timeout(time, asking)
        .await
        .unwrap_or_else(|_| Err(no_answer(host.to_owned(), time).into()))
}

fn failure(error: SourceError) -> Failure {
    Failure::of(&Error::from(error))
}
