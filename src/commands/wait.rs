//! `weightlift wait`: for servers whose volume another pod fills. Reads, and nothing else.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::link::ServerLink;
use super::run_state::{Doing, RunState};
use super::{Outcome, announce};
use crate::Error;
use crate::cli::WaitArgs;
use crate::engine::Stop;
use crate::fs::{Dir, NodeIdentity, node};
use crate::lock::{BEAT, Owner, STOPPED_AFTER, STOPPED_AT_AGE};
use crate::model::{Message, SENTINEL, Sentinel, text};
use crate::report::{Event, Holder, Screen, Waiting};
use crate::volume::{self, CachedSnapshot, Store, StoreError};

/// How often it is looked: rarely enough for a thousand pods on one file server.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often it is asked who fetches: a heartbeat is not written more often.
const ASK_EVERY: Duration = BEAT;
/// How often it says what is missing.
const LINE_EVERY: Duration = Duration::from_secs(30);

/// Waits until `path` holds a complete model, and the expected revision of it if there is one.
pub async fn for_model(
    path: &Path,
    args: &WaitArgs,
    expected: Option<&str>,
    deadline: Instant,
    screen: &Screen,
    stop: &Stop,
    state: &RunState,
) -> Result<Outcome, Error> {
    let started = Instant::now();
    let mut last_line: Option<Instant> = None;
    let link = server_link(path, args)?;
    let (mut holders, mut shown) = (Holders::default(), screen.waiting());
    loop {
        // The last looks at the PATHs before have taken what there was.
        if stop.is_set() {
            return Err(match deadline.saturating_duration_since(Instant::now()).is_zero() {
                true => Error::Deadline(
                    Message::new(format!(
                        "waited {}: no time was left for a last look at `{}`",
                        text::duration(args.timeout),
                        path.display()
                    ))
                    .hint("raise --timeout"),
                ),
                false => Error::Stopped,
            });
        }
        state.reads(path);
        let missing = match look(path, expected, link.is_some()) {
            Ok(Look::Complete { sentinel, revision_path }) => {
                let mut outcome = Outcome::of("ready", path, &sentinel);
                // A record that nobody here has asked for, or verified.
                outcome.signed = None;
                if let Some(link) = &link {
                    lead(link, path, revision_path.as_deref(), screen)?;
                    outcome.link = Some(link.path().display().to_string());
                }
                outcome.revision_path = revision_path.map(|path| path.display().to_string());
                outcome.seconds = started.elapsed().as_secs_f64();
                outcome.summary = announce::end(&outcome, started.elapsed());
                return Ok(outcome);
            }
            Ok(Look::Missing(why)) => why,
            // The file server may be away for a while, and so may a directory above.
            Err(error) if can_pass(&error) => error.to_string(),
            Err(error) => return Err(error),
        };
        let left = deadline.saturating_duration_since(Instant::now());
        let is_line_due = last_line.is_none_or(|last| last.elapsed() >= LINE_EVERY);
        holders.look(path, left.is_zero() || is_line_due);
        let told = holders.told.as_ref().map(|holder| format!("; {holder}")).unwrap_or_default();
        if left.is_zero() {
            return Err(Error::Deadline(
                Message::new(format!("waited {}: {missing}{told}", text::duration(args.timeout)))
                    .hint("look at the Job or pod that fetches it"),
            ));
        }
        state.enter(Doing::Waiting(format!("a model: {missing}")));
        if last_line.is_none() || is_line_due && !screen.has_bars() {
            last_line = Some(Instant::now());
            screen.say(&format!("waiting up to {}: {missing}{told}", text::duration(left)));
        }
        holders.show(&mut shown, &missing, left);
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY.min(left)) => {}
            () = stop.wait() => return Err(Error::Stopped),
        }
    }
}

/// The link that `--link` asks for, if it can be made.
fn server_link(path: &Path, args: &WaitArgs) -> Result<Option<ServerLink>, Error> {
    let Some(link) = &args.link else { return Ok(None) };
    let family = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let above = family.parent().map(Path::to_owned);
    ServerLink::open(link, &family, None, above.into_iter().collect()).map(Some)
}

/// Leads the server to the revision; or to the directory, where that is all there is.
fn lead(
    link: &ServerLink,
    path: &Path,
    revision_path: Option<&Path>,
    screen: &Screen,
) -> Result<(), Error> {
    if revision_path.is_none() {
        screen.warn(&format!(
            "`{}` has no path that never changes, so the link leads to the directory itself, whose content \
             changes with the next update",
            path.display()
        ));
    }
    let target = std::path::absolute(revision_path.unwrap_or(path));
    let target = target.map_err(|_| {
        Error::Usage(
            Message::new("PATH is not a usable directory name")
                .hint("name a path of UTF-8 without control characters"),
        )
    })?;
    link.lead_to(&target)?;
    let (link, target) = (link.path().display().to_string(), target.display().to_string());
    screen.tell(&Event::Linked { link, target });
    Ok(())
}

enum Look {
    Complete {
        sentinel: Box<Sentinel>,
        /// Where it lies, whatever PATH leads to later.
        revision_path: Option<PathBuf>,
    },
    Missing(String),
}

fn look(path: &Path, expected: Option<&str>, is_linked: bool) -> Result<Look, Error> {
    if let Some(cached) = CachedSnapshot::at(path)? {
        // Whoever is led by a link is led to what is expected, whatever the name shows.
        let cached = match expected.filter(|_| is_linked) {
            Some(expected) => cached.of_commit(expected)?,
            None => cached,
        };
        return look_into_cache(path, &cached, expected);
    }
    // What is looked at is what the link leads to, whoever replaces it meanwhile.
    let shown = Store::of_revision(path);
    let at = shown.as_ref().map_or(path, |(_, at)| at);
    // Opened again each time: the family may be a link that is replaced, and on NFS a bare look for a
    // missing name is answered from a negative cache.
    let Some(dir) = Dir::open_anew(at)? else {
        // The name can have been removed, and what is expected be kept.
        if is_linked
            && let (Some(expected), Some(store)) = (expected, Store::of_gone(path))
            && let Some(kept) = store.kept(&|head| head.revision == expected, &mut |_| true)?
        {
            let revision_path = Some(store.path_of_kept(&kept.id));
            return Ok(Look::Complete { sentinel: kept.sentinel, revision_path });
        }
        return Ok(Look::Missing(format!("`{}` does not exist", path.display())));
    };
    let Some(sentinel) = volume::read_sentinel(&dir)? else {
        return Ok(Look::Missing(format!("`{}` holds no {SENTINEL}", path.display())));
    };
    let is_other = expected.filter(|expected| *expected != sentinel.revision);
    if is_linked
        && let (Some(expected), Some((store, _))) = (is_other, &shown)
        && let Some(kept) = store.kept(&|head| head.revision == expected, &mut |_| true)?
    {
        let revision_path = Some(store.path_of_kept(&kept.id));
        return Ok(Look::Complete { sentinel: kept.sentinel, revision_path });
    }
    if let Some(expected) = is_other {
        return Ok(Look::Missing(other_revision(path, &sentinel, expected)));
    }
    if let Some(difference) = volume::first_difference(&dir, &sentinel)? {
        return Ok(Look::Missing(format!("`{}` is damaged ({difference})", path.display())));
    }
    Ok(Look::Complete { sentinel: Box::new(sentinel), revision_path: shown.map(|(_, at)| at) })
}

/// The same of a model in a cache of the Hub's clients, of which PATH is a snapshot or the repo.
fn look_into_cache(
    path: &Path,
    cached: &CachedSnapshot,
    expected: Option<&str>,
) -> Result<Look, Error> {
    let shown = path.display();
    let (Some(sentinel), Some(files)) = (cached.sentinel()?, cached.files()?) else {
        return Ok(Look::Missing(format!("`{shown}` has no sentinel of commit {}", cached.commit)));
    };
    if let Some(expected) = expected.filter(|expected| *expected != sentinel.revision) {
        return Ok(Look::Missing(other_revision(path, &sentinel, expected)));
    }
    if let Some(difference) = files.first_difference(&sentinel)? {
        return Ok(Look::Missing(format!("`{shown}` is damaged ({difference})")));
    }
    Ok(Look::Complete { sentinel: Box::new(sentinel), revision_path: Some(cached.path()) })
}

fn other_revision(path: &Path, sentinel: &Sentinel, expected: &str) -> String {
    let expected = text::inert(expected, 64);
    format!("`{}` holds revision {}, waiting for {expected}", path.display(), sentinel.revision)
}

/// Who fetches the model, as far as the volume tells.
#[derive(Default)]
struct Holders {
    /// The heartbeat that was seen last, and when it was seen first.
    seen: Option<(Owner, Instant)>,
    looked: Option<Instant>,
    /// The pod that fetches the model, or since when it has given no sign of life.
    told: Option<String>,
}

impl Holders {
    /// Looks who fetches the model at `path`, if it `is_due` or nobody has looked for a while.
    fn look(&mut self, path: &Path, is_due: bool) {
        if !is_due && self.looked.is_some_and(|looked| looked.elapsed() < ASK_EVERY) {
            return;
        }
        let now = Instant::now();
        self.looked = Some(now);
        let Some(owner) = volume::owner_of(path) else {
            (self.seen, self.told) = (None, None);
            return;
        };
        let since = match &self.seen {
            Some((seen, since)) if *seen == owner => *since,
            _ => now,
        };
        let of_this_boot = NodeIdentity::current().same_boot(&owner.writer);
        let written = of_this_boot.then(|| Duration::from_millis(owner.since_boot_ms));
        let age = written.map(|written| node::since_boot().saturating_sub(written));
        let shown = owner.describe();
        self.told = Some(match silence(now.duration_since(since), age) {
            Some(silent) => {
                format!("{shown}, shows no sign of life for {}", text::duration(silent))
            }
            None => format!("being fetched by {shown}"),
        });
        self.seen = Some((owner, since));
    }

    /// Shows a person for whom we wait, or what is `missing` where no one is known.
    fn show(&self, shown: &mut Waiting, missing: &str, gives_up_in: Duration) {
        let Some((owner, since)) = &self.seen else {
            shown.show(&Holder { missing, gives_up_in, ..Holder::default() });
            return;
        };
        shown.show(&Holder {
            name: Some(&owner.name()),
            missing,
            gives_up_in,
            phase: &owner.phase,
            done_bytes: owner.done_bytes,
            total_bytes: owner.total_bytes,
            without_progress: since.elapsed(),
        });
    }
}

/// For how long a holder has given no sign of life, if that is too long: its heartbeat has been `unchanged` before our
/// eyes, and where it was written by the clock of our own boot it is of this `age`.
fn silence(unchanged: Duration, age: Option<Duration>) -> Option<Duration> {
    let age = age.filter(|age| *age >= STOPPED_AT_AGE);
    let unchanged = Some(unchanged).filter(|unchanged| *unchanged >= STOPPED_AFTER);
    age.max(unchanged)
}

/// Whether waiting can help: not with a volume that may not be read, or a sentinel of a later
/// version.
fn can_pass(error: &Error) -> bool {
    match error {
        Error::Store(StoreError::Sentinel { .. } | StoreError::Lacks { .. }) => false,
        Error::Store(error) => may_come_back(error.errno()),
        Error::Fs(error) => may_come_back(error.errno()),
        _ => false,
    }
}

/// Whether a file server that is away for a while says so.
fn may_come_back(errno: Option<rustix::io::Errno>) -> bool {
    use rustix::io::Errno;
    !matches!(errno, Some(Errno::ACCESS | Errno::PERM | Errno::NOTDIR))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_that_is_old_or_stands_still_is_no_sign_of_life() {
        let seconds = Duration::from_secs;
        for (unchanged, age, expected) in [
            (0, None, None),
            (10, None, None),
            (11, None, Some(11)),
            (0, Some(5), None),
            // A beat late, on a slow disk.
            (10, Some(11), None),
            (0, Some(12), Some(12)),
            (11, Some(22), Some(22)),
        ] {
            let found = silence(seconds(unchanged), age.map(seconds));
            assert_eq!(found, expected.map(seconds), "{unchanged} {age:?}");
        }
    }
}
