//! `weightlift verify`: is what was published still what the sentinel vouches for?

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use rustix::fs::Advice;
use rustix::io::Errno;

use super::run_state::RunState;
use super::{Outcome, digests, signature};
use crate::Error;
use crate::engine::Stop;
use crate::fs::{self, Dir, FsError, Kind};
use crate::model::{
    Message, RelPath, SENTINEL, STATE_DIR, Sentinel, SentinelFile, SentinelProblem, Sha256, text,
};
use crate::report::{ActiveFile, Progress, Screen};
use crate::verify::signature::Trust;
use crate::verify::{self, FileHasher, Structure};
use crate::volume::{self, CachedSnapshot, PublishedFiles, StoreError};

const BUFFER_BYTES: usize = 256 << 10;
/// Files that are not in the sentinel are named up to here, then counted.
const MAX_EXTRA_LINES: usize = 20;
/// Damaged files that the last line names.
const MAX_NAMED: usize = 5;
/// What is wrong with a file that is not there.
const MISSING: &str = "missing";

/// Reads every byte of the model at `path` and compares it with the sentinel, and that with a signature, if one is
/// asked for.
pub fn family(
    path: &Path,
    trust: Option<&Trust>,
    screen: &Screen,
    stop: &Stop,
    state: &RunState,
) -> Result<Outcome, Error> {
    let started = Instant::now();
    state.reads(path);
    let shown = path.display();
    let Some(dir) = Dir::open_anew(path)? else {
        return Err(Error::NotFound(
            Message::new(format!("`{shown}` does not exist")).hint("check the path"),
        ));
    };
    let problem = without_sentinel(&dir, path);
    let missing = || Error::NotFound(problem.clone());
    let cached = CachedSnapshot::at(path)?;
    let read = match &cached {
        Some(cached) => cached.sentinel(),
        None => volume::read_sentinel(&dir),
    };
    let read = read.map_err(|error| match error {
        StoreError::Sentinel { problem: SentinelProblem::UnknownFormat(_), .. } => error.into(),
        StoreError::Sentinel { path, problem } => Error::Integrity(
            Message::new(format!("`{}`: {problem}", path.display()))
                .hint(format!("remove the directory `{shown}` and fetch again")),
        ),
        error => error.into(),
    });
    let mut sentinel = read?.ok_or_else(missing)?;
    let files = match &cached {
        Some(cached) => cached.files()?.ok_or_else(missing)?,
        None => PublishedFiles::plain(dir),
    };
    let bad = damaged(path, &files, &sentinel, screen, stop, state)?;
    let dir = files.dir();
    for (file, why) in &bad {
        screen.say(&format!("bad: `{}`: {why}", dir.path_of(file).display()));
    }
    let extra = unlisted(dir, &sentinel)?;
    for extra in extra.iter().take(MAX_EXTRA_LINES) {
        screen.warn(&format!("`{}` is not in the sentinel", dir.path_of(extra).display()));
    }
    if let Some(more) = extra.len().checked_sub(MAX_EXTRA_LINES).filter(|more| *more > 0) {
        screen.warn(&format!("{more} more in `{}` are not in the sentinel", path.display()));
    }
    if !bad.is_empty() {
        let names: Vec<String> =
            bad.iter().take(MAX_NAMED).map(|(file, _)| format!("`{file}`")).collect();
        let more = match bad.len().saturating_sub(MAX_NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let (count, all) = (bad.len(), text::files(sentinel.files.len()));
        let hint = match bad.as_slice() {
            // Its name leads to what other snapshots may have as well.
            _ if cached.is_some() => "fetch with --recheck to replace what is damaged".to_owned(),
            [(file, why)] if why != MISSING => {
                let file = dir.path_of(file);
                format!(
                    "remove the file `{}` and fetch again, or fetch with --recheck",
                    file.display()
                )
            }
            all if all.iter().all(|(_, why)| why == MISSING) => {
                let it = if all.len() == 1 { "it" } else { "them" };
                format!("fetch again, which fetches {it} and nothing else")
            }
            _ => "remove these files and fetch again, or fetch with --recheck".to_owned(),
        };
        return Err(Error::Integrity(
            Message::new(format!(
                "`{shown}` is damaged in {count} of {all}: {}{more}",
                names.join(", ")
            ))
            .hint(hint),
        ));
    }
    // What the sentinel records of a signature is not what was verified here.
    sentinel.signed = match trust {
        Some(trust) => {
            let signed = signature::of_published(trust, &files, &sentinel)?;
            signature::check_unlisted(trust, &extra, &shown.to_string())?;
            Some(signed)
        }
        None => None,
    };
    let mut outcome = Outcome::of("verified", path, &sentinel);
    outcome.seconds = started.elapsed().as_secs_f64();
    let aside = digests::aside(&outcome).map(|told| format!("; {told}")).unwrap_or_default();
    outcome.summary = format!(
        "complete: `{}` holds {} at {} ({}, {}; every byte verified in {}{aside})",
        path.display(),
        sentinel.source,
        text::revision(&sentinel.revision),
        text::files(sentinel.files.len()),
        text::size(sentinel.total_bytes),
        text::duration(started.elapsed())
    );
    Ok(outcome)
}

/// What to do about a directory without a sentinel: nobody knows whether it is a model at all, so nothing is said that
/// would do harm where the path is wrong.
fn without_sentinel(dir: &Dir, path: &Path) -> Message {
    let path = path.display();
    let what = format!("`{path}` holds no complete model: there is no {SENTINEL}");
    if volume::is_root(dir).unwrap_or(false) {
        return Message::new(format!("{what}, it is a root that holds models"))
            .hint(format!("run `weightlift list --root {path}` to see them"));
    }
    let is_foreign = |name: &String| name != STATE_DIR && !fs::owns(name);
    Message::new(what).hint(match dir.names() {
        // What lies beside a working area is a model that is just being filled in, or was.
        Ok(names) if names.iter().any(|name| name == STATE_DIR) => "fetch it",
        Ok(names) if !names.iter().any(is_foreign) => "check the path, or fetch it",
        Ok(_) => {
            "check the path, or fetch with --adopt and this path if these are the files of a model: that keeps \
             what is whole"
        }
        Err(_) => "check the path",
    })
}

/// The files at `path` that differ, in the sentinel's order, and how. As many at once as there are cores.
pub(super) fn damaged(
    path: &Path,
    files: &PublishedFiles,
    sentinel: &Sentinel,
    screen: &Screen,
    stop: &Stop,
    state: &RunState,
) -> Result<Vec<(String, String)>, Error> {
    let progress = Arc::new(Progress::default());
    progress.enter("verifying");
    let total = sentinel.files.iter().fold(0_u64, |sum, file| sum.saturating_add(file.size));
    progress.total_bytes.store(total, Relaxed);
    progress.total_files.store(sentinel.files.len() as u64, Relaxed);
    state.verifies(path, &sentinel.source, &progress);
    let _follower = screen.follow(progress.clone());
    let next = AtomicUsize::new(0);
    let found: Mutex<Vec<(usize, String)>> = Mutex::default();
    let failed: Mutex<Option<Error>> = Mutex::default();
    let threads =
        std::thread::available_parallelism().map_or(1, usize::from).min(sentinel.files.len());
    let work = || {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let n = next.fetch_add(1, Relaxed);
            let Some(file) = sentinel.files.get(n) else {
                return;
            };
            let shown = progress.start_file(&file.path, file.size, 0);
            let found_wrong = check(files, file, &mut buffer, stop, &progress, &shown);
            // What is missing, or has another size, is not read; what a stop leaves would have been.
            if !stop.is_set() {
                let unread = file.size.saturating_sub(shown.hashed.load(Relaxed));
                progress.total_bytes.fetch_sub(unread, Relaxed);
            }
            progress.end_file(&shown);
            match found_wrong {
                Ok(None) => _ = progress.done_files.fetch_add(1, Relaxed),
                Ok(Some(why)) => lock(&found).push((n, why)),
                Err(error) => {
                    lock(&failed).get_or_insert(error);
                    return;
                }
            }
            if stop.is_set() || lock(&failed).is_some() {
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        // This thread works as well, and alone if it can have no other.
        for _ in 1..threads {
            if std::thread::Builder::new().spawn_scoped(scope, work).is_err() {
                break;
            }
        }
        work();
    });
    if let Some(error) = lock(&failed).take() {
        return Err(error);
    }
    if stop.is_set() {
        return Err(Error::Stopped);
    }
    let mut found = std::mem::take(&mut *lock(&found));
    found.sort();
    let name = |(n, why): (usize, String)| (sentinel.files[n].path.to_string(), why);
    Ok(found.into_iter().map(name).collect())
}

/// What is wrong with one file, if anything.
fn check(
    files: &PublishedFiles,
    listed: &SentinelFile,
    buffer: &mut [u8],
    stop: &Stop,
    progress: &Progress,
    shown: &ActiveFile,
) -> Result<Option<String>, Error> {
    let Ok(path) = RelPath::parse(&listed.path) else {
        return Ok(Some("not a safe path".into()));
    };
    let gone = || Ok(Some(MISSING.to_owned()));
    let (parent, name) = match files.find(&path) {
        Ok(Some(found)) => found,
        Ok(None) => return gone(),
        Err(error) => return other_kind(error),
    };
    let file = match parent.read_file(&name) {
        Ok(Some(file)) => file,
        Ok(None) => return gone(),
        Err(error) => return other_kind(error),
    };
    let fail = |error| Error::Store(StoreError::io("read", &parent.path_of(&name), error));
    let size = file.metadata().map_err(fail)?.len();
    if size != listed.size {
        return Ok(Some(format!("{size} bytes instead of {}", listed.size)));
    }
    // What the disk holds is asked, not what the page cache remembers.
    let _ = rustix::fs::fadvise(&file, 0, None, Advice::DontNeed);
    let sha256 = hash(&file, buffer, stop, progress, shown).map_err(fail)?;
    if stop.is_set() {
        return Err(Error::Stopped);
    }
    if sha256 != listed.sha256 {
        return Ok(Some(format!("sha256 {sha256} instead of {}", listed.sha256)));
    }
    if listed.structure.as_deref().is_some_and(|it| it == "valid")
        && let Structure::Invalid(why) = verify::check_safetensors(&file, size).map_err(fail)?
    {
        return Ok(Some(format!("not valid safetensors: {why}")));
    }
    Ok(None)
}

/// Something of another kind at the place of a file is damage; not being able to look is not.
fn other_kind(error: FsError) -> Result<Option<String>, Error> {
    match error.errno() {
        Some(Errno::NOTDIR | Errno::LOOP | Errno::INVAL | Errno::NXIO) => {
            Ok(Some("not a regular file".to_owned()))
        }
        _ => Err(error.into()),
    }
}

fn hash(
    file: &File,
    buffer: &mut [u8],
    stop: &Stop,
    progress: &Progress,
    shown: &ActiveFile,
) -> std::io::Result<Sha256> {
    let size = shown.size;
    let mut hasher = FileHasher::new(size, None);
    let mut at = 0;
    while at < size && !stop.is_set() {
        // Never all of it: a file that is read ends at once, and waits for no hash.
        shown.done.store(at, Relaxed);
        let len = buffer.len().min((size - at) as usize);
        file.read_exact_at(&mut buffer[..len], at)?;
        hasher.update(&buffer[..len]);
        at += len as u64;
        shown.hashed.store(at, Relaxed);
        progress.done_bytes.fetch_add(len as u64, Relaxed);
        progress.worked_bytes.fetch_add(len as u64, Relaxed);
    }
    Ok(Sha256(hasher.finish().unwrap_or_default()))
}

/// Files in the directory that the sentinel does not list, and directories that nobody lets us look
/// into. What the filesystem keeps there is left alone.
fn unlisted(dir: &Dir, sentinel: &Sentinel) -> Result<Vec<String>, Error> {
    let listed: HashSet<&str> = sentinel.files.iter().map(|file| &*file.path).collect();
    let directories = directories_with_owned_names(sentinel);
    let mut found = Vec::new();
    let mut to_see = vec![String::new()];
    while let Some(above) = to_see.pop() {
        let names = match dir.descend(above.split('/').filter(|part| !part.is_empty())) {
            Ok(Some(at)) => at.names().map(|names| (at, names)),
            Ok(None) => continue,
            Err(error) => Err(error),
        };
        let (at, names) = match names {
            Ok(seen) => seen,
            Err(error) if matches!(error.errno(), Some(Errno::ACCESS | Errno::PERM)) => {
                found.push(text::name(&above, 200) + "/");
                continue;
            }
            // Removed or replaced while we look.
            Err(error) if matches!(error.errno(), Some(Errno::NOTDIR | Errno::LOOP)) => continue,
            Err(error) => return Err(error.into()),
        };
        for name in names {
            let path = if above.is_empty() { name.clone() } else { format!("{above}/{name}") };
            let is_listed = listed.contains(path.as_str());
            if path == SENTINEL
                || path == STATE_DIR
                || fs::owns(&name) && !is_listed && !directories.contains(path.as_str())
            {
                continue;
            }
            match at.kind(&name)? {
                Some(Kind::Directory) => to_see.push(path),
                Some(_) if is_listed => {}
                // A name that is no UTF-8 is not found again by how it is shown.
                None if !name.contains(char::REPLACEMENT_CHARACTER) => {}
                Some(_) | None => found.push(text::inert(&path, 200)),
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Directories of the model that are called as a filesystem calls its own.
fn directories_with_owned_names(sentinel: &Sentinel) -> HashSet<&str> {
    let mut directories = HashSet::new();
    for file in &sentinel.files {
        for (at, _) in file.path.match_indices('/') {
            let directory = &file.path[..at];
            if fs::owns(directory.rsplit('/').next().unwrap_or(directory)) {
                directories.insert(directory);
            }
        }
    }
    directories
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
