//! `weightlift list`: what lies on a volume. Reads, and nothing else.

use std::path::Path;
use std::time::Duration;

use super::run_state::RunState;
use crate::Error;
use crate::engine::Stop;
use crate::model::{Message, Summary, text};
use crate::report::{Event, Screen};
use crate::volume::{AttemptReport, AttemptState, FamilyReport, FamilyStatus, KeptReport, Survey};

/// Tells of each family below `root` through `each`; returns the last line.
pub fn root(
    root: &Path,
    each: &mut dyn FnMut(&FamilyReport) -> Result<(), Error>,
    screen: &Screen,
    stop: &Stop,
    state: &RunState,
) -> Result<String, Error> {
    let survey = survey(root, screen, state)?;
    let mut sum = Sum::default();
    survey.each_family(&mut |family: FamilyReport| {
        if stop.is_set() {
            return Err(Error::Stopped);
        }
        sum.add(&family);
        each(&family)
    })?;
    Ok(sum.summary(root, survey.free_bytes()))
}

/// What lies below `root`, with a warning for all that could not be read.
pub(super) fn survey(root: &Path, screen: &Screen, state: &RunState) -> Result<Survey, Error> {
    state.reads(root);
    let survey = Survey::of(root)?;
    let missing = || {
        Error::NotFound(
            Message::new(format!("`{}` does not exist", root.display()))
                .hint("check --root and the mounts of the pod"),
        )
    };
    let survey = survey.ok_or_else(missing)?;
    if survey.is_inside_model() {
        return Err(Error::Usage(
            Message::new(format!("`{}` is a model, not a root", root.display()))
                .hint("name the directory above it"),
        ));
    }
    survey.problems.iter().for_each(|problem| screen.tell(&Event::warning(problem)));
    Ok(survey)
}

/// What is told for people: a line for the family, one for each thing that it has besides.
pub fn text(family: &FamilyReport) -> String {
    let FamilyReport { kept, attempts, problems, .. } = family;
    let what = match (&family.shown, family.status) {
        (Some(summary), _) => {
            let age = family.age_seconds.map(|age| format!(", published {} ago", ago(age)));
            described(summary) + &age.unwrap_or_default()
        }
        (None, FamilyStatus::Unreadable) => "cannot be told".into(),
        (None, _) => "holds no model".into(),
    };
    let own = format!("{}: {what}", text::name(&family.family, 200));
    let kept = kept.iter().map(kept_line);
    let attempts = attempts.iter().map(attempt_line);
    let problems =
        problems.iter().map(|problem| format!("not read: {}", text::inert(problem, 500)));
    let more = kept.chain(attempts).chain(problems).map(|line| format!("\n  {line}"));
    own + &more.collect::<String>()
}

fn described(summary: &Summary) -> String {
    let revision = text::prefix(&summary.revision, 12);
    let (files, bytes) = (text::files(summary.files), text::size(summary.total_bytes));
    format!("{} at {revision}, {files}, {bytes}", summary.source)
}

fn kept_line(kept: &KeptReport) -> String {
    let (id, frees) = (text::name(&kept.id, 80), text::size(kept.frees_bytes));
    let replaced = ago(kept.age_seconds);
    format!("kept {id}: {}, frees {frees}, replaced {replaced} ago", described(&kept.summary))
}

fn attempt_line(attempt: &AttemptReport) -> String {
    let (id, bytes) = (text::name(&attempt.id, 80), text::size(attempt.bytes));
    let sign = format!("last sign {} ago", ago(attempt.age_seconds));
    let state = match attempt.state {
        AttemptState::Removing => return format!("half removed {id}: {bytes}"),
        AttemptState::Working => "at work".into(),
        AttemptState::Silent => sign,
        AttemptState::Gone => format!("its process is gone, {sign}"),
    };
    let owner = attempt.owner.as_ref().map(|owner| format!(", by {owner}")).unwrap_or_default();
    format!("attempt {id}: {bytes}{owner}, {state}")
}

fn ago(seconds: u64) -> String {
    text::age(Duration::from_secs(seconds))
}

/// What lies there in all.
#[derive(Default)]
struct Sum {
    models: (usize, u64),
    kept: (usize, u64),
    attempts: (usize, u64),
    problems: usize,
}

impl Sum {
    fn add(&mut self, family: &FamilyReport) {
        let add = |(count, sum): &mut (usize, u64), bytes: u64| {
            *count += 1;
            *sum = sum.saturating_add(bytes);
        };
        if let Some(shown) = &family.shown {
            add(&mut self.models, shown.total_bytes);
        }
        family.kept.iter().for_each(|kept| add(&mut self.kept, kept.summary.total_bytes));
        family.attempts.iter().for_each(|attempt| add(&mut self.attempts, attempt.bytes));
        self.problems += family.problems.len();
    }

    fn summary(&self, root: &Path, free: Option<u64>) -> String {
        let told = |(count, bytes): (usize, u64), what: &str| {
            let plural = if count == 1 { "" } else { "s" };
            format!("{count} {what}{plural} ({})", text::size(bytes))
        };
        let free = free.map(|free| format!("; {} free", text::size(free))).unwrap_or_default();
        let problems = match self.problems {
            0 => String::new(),
            count => format!("; {count} not read"),
        };
        format!(
            "complete: `{}` holds {}, {}, {}{free}{problems}",
            root.display(),
            told(self.models, "model"),
            told(self.kept, "kept revision"),
            told(self.attempts, "unfinished attempt"),
        )
    }
}
