//! `weightlift prune`: removes what nothing on the volume needs any more, or says what that would be.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Serialize;

use super::list;
use super::run_state::RunState;
use super::several::{self, Named};
use super::umask;
use crate::Error;
use crate::cli::PruneArgs;
use crate::engine::Stop;
use crate::model::text;
use crate::report::{Event, Screen};
use crate::volume::{Candidate, Prunable, Pruned, Pruner, Surroundings, Survey, Weighed};

/// One thing that was removed, or would be. The fields are an interface.
#[derive(Debug, Serialize)]
pub struct PrunedReport {
    pub family: String,
    /// `family` (a model that the models file does not name), `revision`, `attempt`, `removal` (one that was
    /// cut off).
    pub what: &'static str,
    pub id: String,
    pub path: String,
    /// `removed`, or `removable` where nothing is removed.
    pub status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    pub bytes: u64,
    pub age_seconds: u64,
}

/// Who is told what came of each thing.
pub struct Told<'a> {
    pub each: &'a mut dyn FnMut(&PrunedReport) -> Result<(), Error>,
    /// The path of one that could not be removed.
    pub failed: &'a mut dyn FnMut(&str, &Error) -> Result<(), Error>,
}

/// Removes what the arguments let go below `root`; returns the last line.
pub fn root(
    root: &Path,
    args: &PruneArgs,
    told: &mut Told<'_>,
    screen: &Screen,
    stop: &Stop,
    state: &RunState,
) -> Result<String, Error> {
    let survey = list::survey(root, screen, state)?;
    let outside = Surroundings {
        say: &|line| screen.say(&line),
        go_on: &|| !stop.is_set(),
        reads: &|_| (),
        worked: &|_| (),
        copied: &|_| (),
    };
    let pruner = Pruner::new(&survey, args.rules()?, &outside);
    let mut candidates = pruner.candidates();
    candidates.problems.iter().for_each(|problem| screen.warn(problem));
    for family in pruner.unremovable() {
        let family = text::name(&family, 200);
        screen.warn(&format!(
            "no model of the models file is `{family}`, which is a directory, not a link to a revision, so \
             it stays; remove that directory by hand"
        ));
    }
    let mut run =
        Run { args, screen, skipped: BTreeSet::new(), free: BTreeMap::new(), sums: [(0, 0); 4] };
    for (family, who) in candidates.busy {
        run.skip(family, &format!("it is in use: {who}"));
    }
    if args.yes && !pruner.watch(&mut candidates.found) || stop.is_set() {
        return Err(Error::Stopped);
    }
    if args.yes {
        umask::choose(args.permissions.umask, &survey.places(), screen);
    }
    let mut weighed = Weighed::default();
    let (mut failed, mut removed) = (Vec::new(), Vec::new());
    for candidate in candidates.found {
        if stop.is_set() {
            return Err(Error::Stopped);
        }
        if run.has_enough(&pruner, &candidate) || run.skipped.contains(&candidate.family) {
            continue;
        }
        let bytes = match args.yes {
            false => Some(pruner.weigh(&candidate, &mut weighed)),
            true => match run.remove(&pruner, &candidate) {
                Ok(bytes) => bytes,
                Err(error) => {
                    screen.warn(&format!("`{}` could not be removed: {error}", candidate.path));
                    state.has_failed(&candidate.path, &error);
                    (told.failed)(&candidate.path, &error)?;
                    failed.push((Named::at(Path::new(&candidate.path)), error));
                    None
                }
            },
        };
        if let Some(bytes) = bytes {
            run.count(&pruner, &candidate, bytes);
            removed.push((candidate.path.clone(), "removed"));
            (told.each)(&run.report(candidate, bytes))?;
        }
    }
    match several::error_of("removals", failed, removed) {
        Some(error) => Err(error),
        None => Ok(run.summary(root, &survey)),
    }
}

/// For people: what it is, and where.
pub fn text(pruned: &PrunedReport) -> String {
    let PrunedReport { family, what, status, path, revision, bytes, age_seconds, .. } = pruned;
    let family = text::name(family, 200);
    let doing = if *status == "removed" { "removed" } else { "would remove" };
    let age = text::age(std::time::Duration::from_secs(*age_seconds));
    let what = match (*what, revision) {
        ("revision", Some(revision)) => {
            let revision = text::prefix(revision, 12);
            format!("revision {revision} of {family}, replaced {age} ago")
        }
        ("family", revision) => {
            let revision = text::prefix(revision.as_deref().unwrap_or_default(), 12);
            format!("{family} at {revision}, published {age} ago")
        }
        ("attempt", _) => format!("unfinished attempt of {family}, last sign {age} ago"),
        _ => format!("half removed of {family}"),
    };
    format!("{doing} {what}, {}: {}", text::size(*bytes), text::name(path, 1000))
}

/// How far it is.
struct Run<'a> {
    args: &'a PruneArgs,
    screen: &'a Screen,
    /// Families that are in use.
    skipped: BTreeSet<String>,
    /// In a dry run, what would be freed by filesystem.
    free: BTreeMap<u64, u64>,
    /// How many were removed and how large they were: removals, attempts, revisions,
    /// models.
    sums: [(usize, u64); 4],
}

impl Run<'_> {
    /// Whether as much is free as is asked for.
    fn has_enough(&self, pruner: &Pruner<'_>, candidate: &Candidate) -> bool {
        let Some(wanted) = self.args.until_free else { return false };
        let freed = self.free.get(&pruner.filesystem(candidate)).copied().unwrap_or_default();
        pruner.free_bytes(candidate).is_some_and(|free| free.saturating_add(freed) >= wanted)
    }

    /// Removes one; the bytes that are free then, unless it stays.
    fn remove(&mut self, pruner: &Pruner<'_>, candidate: &Candidate) -> Result<Option<u64>, Error> {
        match pruner.remove(candidate)? {
            Pruned::Removed(bytes) => return Ok(Some(bytes)),
            Pruned::Busy(who) => {
                self.skip(candidate.family.clone(), &format!("it is in use: {who}"))
            }
            Pruned::OfAnotherUser => {
                self.screen
                    .warn(&format!("`{}` belongs to another user, and stays", candidate.path));
            }
            Pruned::Stays => {}
        }
        Ok(None)
    }

    fn skip(&mut self, family: String, why: &str) {
        let why = why.to_owned();
        self.screen.tell(&Event::Skipped { family: family.clone(), why });
        self.skipped.insert(family);
    }

    fn count(&mut self, pruner: &Pruner<'_>, candidate: &Candidate, bytes: u64) {
        let (count, sum) = &mut self.sums[candidate.what as usize];
        *count += 1;
        *sum = sum.saturating_add(bytes);
        if !self.args.yes {
            let freed = self.free.entry(pruner.filesystem(candidate)).or_default();
            *freed = freed.saturating_add(bytes);
        }
    }

    fn report(&self, candidate: Candidate, bytes: u64) -> PrunedReport {
        PrunedReport {
            what: match candidate.what {
                Prunable::Removal => "removal",
                Prunable::Attempt => "attempt",
                Prunable::Revision => "revision",
                Prunable::Family => "family",
            },
            status: if self.args.yes { "removed" } else { "removable" },
            family: candidate.family,
            id: candidate.id,
            path: candidate.path,
            revision: candidate.revision,
            bytes,
            age_seconds: candidate.age.as_secs(),
        }
    }

    fn summary(&self, root: &Path, survey: &Survey) -> String {
        let [removals, attempts, revisions, families] = self.sums;
        let told = |(count, _): (usize, u64), what: &str| {
            let plural = if count == 1 { "" } else { "s" };
            (count > 0).then(|| format!("{count} {what}{plural}"))
        };
        let parts = [
            told(families, "model"),
            told(revisions, "kept revision"),
            told(attempts, "unfinished attempt"),
            told(removals, "half removed tree"),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        let bytes = self.sums.iter().fold(0_u64, |sum, (_, bytes)| sum.saturating_add(*bytes));
        let free = survey.free_bytes();
        let free = free.map(|free| format!("; {} free", text::size(free))).unwrap_or_default();
        let busy = match self.skipped.len() {
            0 => String::new(),
            count => format!("; skipped what is in use ({count})"),
        };
        let root = root.display();
        if parts.is_empty() {
            return format!("complete: nothing to remove below `{root}`{busy}{free}");
        }
        let (parts, bytes) = (parts.join(", "), text::size(bytes));
        match self.args.yes {
            true => format!("complete: removed {parts} ({bytes}) below `{root}`{busy}{free}"),
            false => format!(
                "complete: would remove {parts} ({bytes}) below `{root}`{busy}{free}; nothing was \
                 removed, --yes removes them"
            ),
        }
    }
}
