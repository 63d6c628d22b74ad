//! What lies below the prefix, what is kept of it, and what is sent.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinSet;

use super::job::{Proved, Task};
use super::shared::Mirror;
use crate::Error;
use crate::model::{
    Lies, MirrorState, RemoteFile, SENTINEL, Sentinel, SentinelFile, Sha256, Step, part_size, step,
    text,
};
use crate::net::SourceError;
use crate::source::Sink;
use crate::source::s3::upload::{Before, Seen, StoredObject};

/// Objects that are looked at at the same time.
const MAX_LOOKS: usize = 16;
/// Keys that a message names.
const MAX_NAMED: usize = 5;

pub(super) struct Plan {
    /// The sentinel of a mirror that lies there.
    pub previous: Option<Sentinel>,
    /// It lists what is wanted, and nothing else is needed.
    pub is_complete: bool,
    /// What is sent, by its number.
    pub tasks: Vec<(usize, Task)>,
    /// What is there, by its number.
    pub kept: BTreeMap<usize, Proved>,
    pub kept_bytes: u64,
    /// What the sentinel says while the rest is written.
    pub awaited: Vec<SentinelFile>,
    /// What lies at the key of the sentinel.
    pub guard: Before,
    /// Objects that are no file of the model.
    pub others: usize,
}

/// What is known of an object that the sentinel does not vouch for.
#[derive(Clone, Default)]
struct Looked {
    seen: Seen,
    sha256: Option<Sha256>,
}

impl Plan {
    pub async fn make(
        mirror: &Mirror<'_>,
        sink: &Arc<Sink>,
        files: &[RemoteFile],
    ) -> Result<Self, Error> {
        let (previous, guard) = previous(mirror, sink).await?;
        let is_whole = previous
            .as_ref()
            .is_some_and(|it| it.mirrored_at(&sink.place()) == Some(MirrorState::Complete));
        let by_path: HashMap<&str, &SentinelFile> =
            previous.iter().flat_map(|it| &it.files).map(|file| (&*file.path, file)).collect();
        let numbers: HashMap<&str, usize> =
            files.iter().enumerate().map(|(n, file)| (file.path.as_str(), n)).collect();
        let listing = mirror.retried(|| sink.objects(|path| numbers.contains_key(path)));
        let (objects, others) = listing.await?;
        let unknown: Vec<String> = objects
            .iter()
            .filter(|(path, object)| !is_vouched(object, by_path.get(path.as_str()).copied()))
            .map(|(path, _)| path.clone())
            .collect();
        let looked = Mutex::default();
        mirror.retried(|| look(sink, &unknown, &looked)).await?;
        let looked = looked.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut unfinished = match is_whole {
            // What was begun for another revision is none of ours.
            false if previous.is_some() => mirror.retried(|| sink.unfinished()).await?,
            _ => HashMap::new(),
        };
        let mut plan = Self {
            is_complete: is_whole && by_path.len() == files.len(),
            tasks: Vec::new(),
            kept: BTreeMap::new(),
            kept_bytes: 0,
            awaited: Vec::with_capacity(files.len()),
            guard,
            others,
            previous: None,
        };
        let mut conflicts = Vec::new();
        for (n, file) in files.iter().enumerate() {
            let path = file.path.as_str();
            let listed = by_path.get(path).copied();
            let lies = objects.get(path).and_then(|object| lies(object, looked.get(path), listed));
            let etag = lies.as_ref().and_then(|lies| lies.etag.map(str::to_owned));
            let before = match step(file, lies.as_ref()) {
                Step::Keep(sha256) => {
                    plan.keep(n, file, sha256, looked.get(path), listed, etag);
                    continue;
                }
                Step::Send => Before::Nothing,
                Step::Replace => Before::This(etag),
                Step::Conflict => {
                    conflicts.push(sink.shown(path));
                    continue;
                }
            };
            let Some(part_size) = part_size(file.size) else {
                let size = text::size(file.size);
                return Err(Error::Policy(format!(
                    "`{path}` has {size}: more than 10,000 parts that fit into memory; leave it out \
                     with --exclude"
                )));
            };
            // Only what was begun for the same content: the sentinel says which that was.
            let is_same = listed.is_some_and(|it| it.size == file.size && known(file) == it.sha256);
            let unfinished = unfinished.remove(path).filter(|_| is_same);
            let awaited = SentinelFile::new(file, known(file), file.digest.as_ref(), None);
            // Without a validator: it is not there yet.
            plan.awaited.push(SentinelFile { validator: None, ..awaited });
            plan.tasks.push((n, Task { file: file.clone(), part_size, before, unfinished }));
        }
        if !conflicts.is_empty() {
            return Err(Error::Conflict(foreign(&conflicts)));
        }
        drop(by_path);
        plan.previous = previous;
        Ok(plan)
    }

    fn keep(
        &mut self,
        n: usize,
        file: &RemoteFile,
        sha256: Sha256,
        looked: Option<&Looked>,
        listed: Option<&SentinelFile>,
        etag: Option<String>,
    ) {
        let crc64nvme = match looked {
            Some(looked) => looked.seen.crc64nvme,
            None => listed.and_then(|file| crc_of(file.stored.as_deref()?)),
        };
        // Of an object that the sentinel does not list, another run has compared the content.
        self.is_complete &= looked.is_none();
        self.kept_bytes += file.size;
        let proved = Proved { sha256, is_compared: true, etag, crc64nvme };
        let awaited = SentinelFile::new(file, sha256, file.digest.as_ref(), None);
        self.awaited.push(proved.listed(awaited));
        self.kept.insert(n, proved);
    }
}

/// The sentinel that lies there, and what the next one replaces.
async fn previous(
    mirror: &Mirror<'_>,
    sink: &Arc<Sink>,
) -> Result<(Option<Sentinel>, Before), Error> {
    let Some(found) = mirror.retried(|| sink.sentinel()).await? else {
        return Ok((None, Before::Nothing));
    };
    let before = Before::This(found.etag);
    let place = sink.place();
    let why = match found.sentinel {
        Ok(sentinel) if sentinel.mirrored_at(&place).is_some() => {
            return Ok((Some(sentinel), before));
        }
        Ok(_) => "mirror has not written it there".to_owned(),
        Err(problem) => problem.to_string(),
    };
    Err(Error::Conflict(format!(
        "`{}` is in the way: {why}; choose another prefix, or remove it",
        sink.shown(SENTINEL)
    )))
}

/// Whether the sentinel tells all about an object as it is listed.
fn is_vouched(object: &StoredObject, listed: Option<&SentinelFile>) -> bool {
    listed.is_some_and(|file| {
        object.size == Some(file.size)
            && object.etag.is_some()
            && object.etag.as_deref() == file.validator.as_deref()
    })
}

fn lies<'a>(
    object: &'a StoredObject,
    looked: Option<&'a Looked>,
    listed: Option<&'a SentinelFile>,
) -> Option<Lies<'a>> {
    Some(match looked {
        Some(Looked { seen, sha256 }) => Lies {
            size: seen.size,
            etag: seen.etag.as_deref(),
            listed,
            mark: seen.mark.as_ref(),
            sha256: *sha256,
        },
        // Gone since it was listed.
        None if !is_vouched(object, listed) => return None,
        None => Lies {
            size: object.size.unwrap_or_default(),
            etag: object.etag.as_deref(),
            listed,
            mark: None,
            sha256: None,
        },
    })
}

/// Looks at the objects of `paths`, those that are known already left out.
async fn look(
    sink: &Arc<Sink>,
    paths: &[String],
    known: &Mutex<HashMap<String, Looked>>,
) -> Result<(), SourceError> {
    let known = || known.lock().unwrap_or_else(PoisonError::into_inner);
    let mut open: Vec<String> =
        paths.iter().filter(|path| !known().contains_key(*path)).cloned().collect();
    let mut asking = JoinSet::new();
    loop {
        while asking.len() < MAX_LOOKS
            && let Some(path) = open.pop()
        {
            let sink = Arc::clone(sink);
            asking.spawn(async move {
                let Some(seen) = sink.look(&path).await? else { return Ok(None) };
                // Of our own the mark tells more than the store does.
                let sha256 = match seen.mark {
                    Some(_) => None,
                    None => sink.sha256(&path, &seen).await?,
                };
                Ok::<_, SourceError>(Some((path, Looked { seen, sha256 })))
            });
        }
        let Some(answered) = asking.join_next().await else { return Ok(()) };
        let answered = answered
            .map_err(|_| SourceError::Unreachable("looking at objects was cut off".into()))?;
        if let Some((path, looked)) = answered? {
            known().insert(path, looked);
        }
    }
}

/// Compares what is listed at the end with what was written and kept.
pub(super) async fn compare(
    mirror: &Mirror<'_>,
    sink: &Arc<Sink>,
    files: &[RemoteFile],
    proved: &[Proved],
) -> Result<(), Error> {
    let numbers: HashMap<&str, usize> =
        files.iter().enumerate().map(|(n, file)| (file.path.as_str(), n)).collect();
    let listing = mirror.retried(|| sink.objects(|path| numbers.contains_key(path)));
    let (objects, _) = listing.await?;
    for (file, proved) in files.iter().zip(proved) {
        let path = file.path.as_str();
        let object = objects.get(path).cloned();
        let is_listed = object.as_ref().is_some_and(|object| {
            object.size == Some(file.size) && (object.etag == proved.etag || proved.etag.is_none())
        });
        if is_listed {
            continue;
        }
        // Some stores list other ETags than their objects have, and some list late.
        let seen = mirror.retried(|| sink.look(path)).await?;
        let is_there = seen.as_ref().is_some_and(|seen| {
            seen.size == file.size && (seen.etag == proved.etag || proved.etag.is_none())
        });
        if !is_there {
            let found = match seen {
                None => "is not there".to_owned(),
                Some(seen) if seen.size != file.size => {
                    format!("has {} bytes of {}", seen.size, file.size)
                }
                Some(_) => "is another object".to_owned(),
            };
            return Err(Error::Integrity(format!(
                "`{}` {found} after it was written; does another program write there? run again",
                sink.shown(path)
            )));
        }
    }
    Ok(())
}

/// The SHA-256 of a file, as far as its source tells; zeros stand for none.
fn known(file: &RemoteFile) -> Sha256 {
    match &file.digest {
        Some(crate::model::Digest::Sha256(sha256)) => Sha256(*sha256),
        _ => Sha256([0; 32]),
    }
}

fn foreign(keys: &[String]) -> String {
    let named: Vec<String> = keys.iter().take(MAX_NAMED).map(|key| format!("`{key}`")).collect();
    let more = match keys.len().saturating_sub(MAX_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let (are, them) = if keys.len() == 1 { ("is", "it") } else { ("are", "them") };
    format!(
        "{}{more} {are} in the way: mirror has not written {them}, and nothing proves that the content \
         is the same; choose another prefix, or remove {them}",
        named.join(", ")
    )
}

/// `s3-crc64nvme:…`
pub(super) fn crc_of(stored: &str) -> Option<u64> {
    u64::from_str_radix(stored.strip_prefix("s3-crc64nvme:")?, 16).ok()
}
