//! What lies below the prefix, what is kept of it, and what is sent.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::job::{Proved, Task};
use super::looks::{Looked, Looks, Proof};
use super::shared::Mirror;
use crate::Error;
use crate::model::{
    ErrorFields, Lies, Message, MirrorState, RemoteFile, SENTINEL, Sentinel, SentinelFile, Sha256,
    Step, part_size, step, text,
};
use crate::net::{Problem, SourceError};
use crate::source::Sink;
use crate::source::beside::SHA256SUMS;
use crate::source::s3::upload::{Before, Seen, StoredObject};

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
    /// What lies at the key of the sums; none where a file of the model has it.
    pub sums: Option<Before>,
    /// Objects that are no file of the model.
    pub others: usize,
}

impl Plan {
    /// `is_same_revision` tells of a sentinel whether it is of what is to be copied.
    pub async fn make(
        mirror: &Mirror<'_>,
        sink: &Arc<Sink>,
        files: &[RemoteFile],
        is_same_revision: impl Fn(&Sentinel) -> bool,
    ) -> Result<Self, Error> {
        let (previous, guard) = previous(mirror, sink).await?;
        let is_whole = previous
            .as_ref()
            .is_some_and(|it| it.mirrored_at(&sink.place()) == Some(MirrorState::Complete));
        let is_same = previous.as_ref().is_some_and(is_same_revision);
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
        let looks = Looks::default();
        mirror.retried(|| looks.ask(sink, &unknown, Proof::IfUnmarked)).await?;
        let looked = looks.found();
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
            sums: None,
            others,
            previous: None,
        };
        let mut conflicts = Vec::new();
        if !numbers.contains_key(SHA256SUMS) {
            let seen = mirror.retried(|| sink.look(SHA256SUMS)).await?;
            plan.others -= usize::from(seen.is_some() && plan.others > 0);
            match sums(seen, previous.as_ref(), is_whole) {
                Ok(before) => plan.sums = Some(before),
                Err(()) => conflicts.push(sink.shown(SHA256SUMS)),
            }
        }
        for (n, file) in files.iter().enumerate() {
            let path = file.path.as_str();
            let listed = by_path.get(path).copied();
            let lies = objects
                .get(path)
                .and_then(|object| lies(object, looked.get(path), listed, is_same));
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
                return Err(Error::Policy(
                    Message::new(format!(
                        "`{path}` has {size}: more than 10,000 parts that fit into memory"
                    ))
                    .hint("leave it out with --exclude"),
                ));
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
        let listed = previous.as_ref().and_then(|it| it.mirror.as_ref()?.sums.clone());
        plan.is_complete &= match &plan.sums {
            None => true,
            Some(Before::This(etag)) => listed.is_none() || *etag == listed,
            Some(Before::Nothing) => false,
        };
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

/// What the list of sums replaces, if it may.
fn sums(seen: Option<Seen>, previous: Option<&Sentinel>, is_whole: bool) -> Result<Before, ()> {
    let Some(seen) = seen else { return Ok(Before::Nothing) };
    let listed = previous.and_then(|it| it.mirror.as_ref()?.sums.as_ref());
    // Before a mirror says that it writes, it has looked.
    let is_awaited = previous.is_some() && !is_whole;
    let is_ours =
        seen.mark.is_some() || is_awaited || (listed.is_some() && listed == seen.etag.as_ref());
    if is_ours { Ok(Before::This(seen.etag)) } else { Err(()) }
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
        Ok(_) => "`weightlift mirror` did not write it".to_owned(),
        Err(problem) => problem.to_string(),
    };
    Err(Error::Conflict(
        Message::new(format!("`{}` is in the way: {why}", sink.shown(SENTINEL)))
            .hint("choose another prefix, or remove that object"),
    ))
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
    is_same_revision: bool,
) -> Option<Lies<'a>> {
    Some(match looked {
        Some(Looked { seen, sha256 }) => Lies {
            size: seen.size,
            etag: seen.etag.as_deref(),
            listed,
            is_same_revision,
            mark: seen.mark.as_ref(),
            sha256: *sha256,
        },
        // Gone since it was listed.
        None if !is_vouched(object, listed) => return None,
        None => Lies {
            size: object.size.unwrap_or_default(),
            etag: object.etag.as_deref(),
            listed,
            is_same_revision,
            mark: None,
            sha256: None,
        },
    })
}

/// An object is not what was written.
#[derive(Debug, thiserror::Error)]
#[error("`{key}` {found} after it was written")]
struct Lost {
    key: String,
    found: String,
}

impl Problem for Lost {
    fn fields(&self) -> ErrorFields {
        ErrorFields::of_file(&self.key)
            .hint("check whether another program writes there, and run again")
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
            let key = sink.shown(path);
            return Err(SourceError::Stale(Lost { key, found }.into()).into());
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

fn foreign(keys: &[String]) -> Message {
    let named: Vec<String> = keys.iter().take(MAX_NAMED).map(|key| format!("`{key}`")).collect();
    let more = match keys.len().saturating_sub(MAX_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let (are, them) = if keys.len() == 1 { ("is", "it") } else { ("are", "them") };
    let what = format!(
        "{}{more} {are} in the way: mirror has not written {them}, and nothing proves that the content \
         is the same",
        named.join(", ")
    );
    Message::new(what).hint(format!("choose another prefix, or remove {them}"))
}

/// `s3-crc64nvme:…`
pub(super) fn crc_of(stored: &str) -> Option<u64> {
    u64::from_str_radix(stored.strip_prefix("s3-crc64nvme:")?, 16).ok()
}
