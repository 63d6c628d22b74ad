//! The sentinel object: it says that a mirror is writing, and at last what is there.

use bytes::Bytes;

use super::job::Proved;
use super::shared::Mirror;
use crate::Error;
use crate::content::Source;
use crate::engine::Proof;
use crate::model::{
    Checksum, Mark, Message, MirrorMark, MirrorState, RemoteFile, SENTINEL, Sentinel, SentinelFile,
    text,
};
use crate::net::http::Http;
use crate::net::{Problem, SourceError};
use crate::source::Sink;
use crate::source::beside::SHA256SUMS;
use crate::source::s3::upload::{Before, Seen, Wrote};
use crate::verify::FileHasher;

/// What readers take of a sentinel.
const MAX_BYTES: usize = 32 << 20;

impl Proved {
    pub(super) fn proof(&self) -> Proof {
        Proof { sha256: self.sha256.0, is_compared: self.is_compared, structure: None }
    }

    /// `file` with what is known of its object.
    pub(super) fn listed(&self, file: SentinelFile) -> SentinelFile {
        SentinelFile {
            validator: self.etag.as_deref().map(Into::into),
            stored: self.crc64nvme.map(|crc| Box::new(format!("s3-crc64nvme:{crc:016x}").into())),
            ..file
        }
    }
}

/// Says that the prefix is being written; what lies at the key of the sentinel then.
pub(super) async fn announce(
    mirror: &Mirror<'_>,
    sink: &Sink,
    sentinel: Sentinel,
    before: Before,
) -> Result<Before, Error> {
    let mark = MirrorMark { at: sink.place(), state: MirrorState::Writing, sums: None };
    let sentinel = Sentinel { mirror: Some(mark), ..sentinel };
    let (etag, _) = write(mirror, sink, sentinel, &before).await?;
    Ok(Before::This(etag))
}

/// Writes the sums of all `files` for other programs (`sha256sum --check`), unless one of the files has this
/// name; the ETag of the list.
pub(super) async fn sums(
    mirror: &Mirror<'_>,
    sink: &Sink,
    files: &[SentinelFile],
    before: Option<Before>,
) -> Result<Option<String>, Error> {
    let Some(before) = before else { return Ok(None) };
    let lines = files.iter().map(|file| format!("{}  {}\n", file.sha256, file.path));
    let body = Bytes::from(lines.collect::<String>());
    let (mark, client) = (Mark::default(), mirror.http.client()?);
    let put = || sink.put(&client, SHA256SUMS, body.clone(), &mark, &before);
    if let Wrote::Done(written) = mirror.retried(put).await? {
        return Ok(written.etag);
    }
    // Our own, whose answer was lost; or that of another mirror of the same.
    let crc64nvme = Checksum::Crc64Nvme.of(&body);
    let seen = mirror.retried(|| sink.look(SHA256SUMS)).await?;
    let is_same = |seen: &Seen| {
        seen.size == body.len() as u64 && seen.crc64nvme.is_none_or(|it| it == crc64nvme)
    };
    match seen.filter(is_same) {
        Some(seen) => Ok(seen.etag),
        None => Err(SourceError::Stale(Interfered { place: sink.place() }.into()).into()),
    }
}

/// Says what is there.
pub(super) async fn publish(
    mirror: &Mirror<'_>,
    sink: &Sink,
    sentinel: Sentinel,
    sums: Option<String>,
    before: Before,
) -> Result<Sentinel, Error> {
    let mark = MirrorMark { at: sink.place(), state: MirrorState::Complete, sums };
    let sentinel = Sentinel { mirror: Some(mark), ..sentinel };
    Ok(write(mirror, sink, sentinel, &before).await?.1)
}

/// Writes `sentinel`, unless another mirror has written the same; its ETag.
async fn write(
    mirror: &Mirror<'_>,
    sink: &Sink,
    sentinel: Sentinel,
    before: &Before,
) -> Result<(Option<String>, Sentinel), Error> {
    let mut json = Vec::new();
    sentinel.write(&mut json).map_err(|error| Error::Bug(error.to_string()))?;
    if json.len() > MAX_BYTES {
        return Err(Error::Policy(
            Message::new(format!(
                "the list of {} has {}, more than readers take",
                text::files(sentinel.files.len()),
                text::size(json.len() as u64)
            ))
            .hint("leave some out with --exclude"),
        ));
    }
    let (body, mark, client) = (Bytes::from(json), Mark::default(), mirror.http.client()?);
    let put = || sink.put(&client, SENTINEL, body.clone(), &mark, before);
    match mirror.retried(put).await? {
        Wrote::Done(written) => Ok((written.etag, sentinel)),
        Wrote::Taken | Wrote::Gone | Wrote::OtherParts => {
            let found = mirror.retried(|| sink.sentinel()).await?;
            // Our own, whose answer was lost; or that of another mirror of the same.
            if let Some(found) = found
                && let Ok(there) = found.sentinel
                && is_same(&there, &sentinel)
            {
                return Ok((found.etag, there));
            }
            let place = sink.place();
            Err(SourceError::Stale(Interfered { place }.into()).into())
        }
    }
}

/// Whether both say the same but for the time.
fn is_same(there: &Sentinel, ours: &Sentinel) -> bool {
    let state = |it: &Sentinel| it.mirror.as_ref().map(|mark| mark.state);
    let without_time =
        |it: &Sentinel| Sentinel { completed_at: String::new(), mirror: None, ..it.clone() };
    state(there) == state(ours) && without_time(there) == without_time(ours)
}

#[derive(Debug, thiserror::Error)]
#[error("another mirror writes to `{place}` at the same time")]
struct Interfered {
    place: String,
}

impl Problem for Interfered {
    fn fields(&self) -> crate::model::ErrorFields {
        crate::model::ErrorFields::of_file(&self.place).hint("run again when it has ended")
    }
}

/// All bytes of a small file, if they are what was published.
pub(super) async fn whole_file(
    http: &Http,
    source: &dyn Source,
    file: &RemoteFile,
) -> Result<Vec<u8>, SourceError> {
    let mut bytes = Vec::new();
    if file.size > MAX_BYTES as u64 || file.size == 0 {
        return Ok(bytes);
    }
    let mut body = source.read(&http.client()?, file, 0..file.size).await?;
    while let Some(piece) = body.next().await? {
        bytes.extend_from_slice(&piece);
    }
    let mut hasher = FileHasher::new(file.size, file.digest.as_ref());
    hasher.update(&bytes);
    match hasher.finish() {
        Err(_) if file.digest.as_ref().is_some_and(|digest| digest.refutes()) => {
            Err(SourceError::Unreachable("an index came with wrong bytes".into()))
        }
        _ => Ok(bytes),
    }
}
