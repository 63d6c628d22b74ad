//! The first and the last line of a fetch.

use std::time::Duration;

use super::{Outcome, Stale, digests};
use crate::cli::Model;
use crate::model::{LeftOut, Plan, Snapshot, text};
use crate::report::{Event, LeftOutFiles, NamedFile};

/// What will be fetched, what is left out and why, and the room there is.
pub fn start(
    model: &Model,
    snapshot: &Snapshot,
    plan: &Plan,
    left_out: &[LeftOut],
    free: u64,
) -> Event {
    Event::Fetching {
        source: snapshot.source_name.clone(),
        revision: snapshot.revision.clone(),
        path: model.destination.path().display().to_string(),
        files: plan.files.len(),
        bytes: plan.total_bytes(),
        reused_bytes: plan.total_bytes() - plan.missing_bytes(),
        left_out: by_reason(left_out),
        free_bytes: (free < u64::MAX).then_some(free),
    }
}

/// How much is left out for which reason.
pub fn by_reason(left_out: &[LeftOut]) -> Vec<LeftOutFiles> {
    let of_reason = |why: &&str| {
        let of_this_kind = left_out.iter().filter(|file| file.why == *why);
        let (files, bytes) =
            of_this_kind.fold((0, 0_u64), |(n, sum), file| (n + 1, sum.saturating_add(file.size)));
        let by_default = LeftOut::is_by_default(why);
        (files > 0).then(|| LeftOutFiles { why: (*why).to_owned(), files, bytes, by_default })
    };
    LeftOut::REASONS.iter().filter_map(of_reason).collect()
}

/// The files that are left out, by their names: an event for each reason.
pub fn left_out(left_out: &[LeftOut]) -> Vec<Event> {
    const NAMED: usize = 5;
    let of_reason = |why: &&str| {
        let mut files: Vec<&LeftOut> = left_out.iter().filter(|file| file.why == *why).collect();
        // The largest are what may be missed, or what nobody wants to wait for.
        files.sort_by_key(|file| std::cmp::Reverse(file.size));
        let named = |file: &&LeftOut| NamedFile { path: file.path.clone(), bytes: file.size };
        (!files.is_empty()).then(|| Event::LeftOut {
            why: (*why).to_owned(),
            named: files.iter().take(NAMED).map(named).collect(),
            more: files.len().saturating_sub(NAMED),
        })
    };
    LeftOut::REASONS.iter().filter_map(of_reason).collect()
}

/// A family that an earlier version has published, and a server may miss files in.
pub fn missed(path: &str, files: &[&LeftOut]) -> Option<String> {
    let first = named(files.first()?);
    let more = match files.len() {
        1 => String::new(),
        count => format!(" and {} more", count - 1),
    };
    Some(format!(
        "{first}{more} is missing in `{path}`: an earlier version took it for a duplicate, this one \
         fetches it; if the server needs it, remove that directory and fetch again"
    ))
}

fn named(file: &LeftOut) -> String {
    format!("`{}` ({})", text::inert(&file.path, 200), text::size(file.size))
}

/// What was done of several models.
pub fn all(done: &[Outcome]) -> String {
    let mut by_status: Vec<(&str, usize)> = Vec::new();
    for outcome in done {
        match by_status.iter_mut().find(|(status, _)| *status == outcome.status) {
            Some((_, count)) => *count += 1,
            None => by_status.push((outcome.status, 1)),
        }
    }
    let by_status: Vec<String> =
        by_status.iter().map(|(status, count)| format!("{count} {status}")).collect();
    let bytes = done.iter().map(|outcome| outcome.total_bytes).sum();
    let fetched = done.iter().map(|outcome| outcome.fetched_bytes).sum();
    let reused = done.iter().map(|outcome| outcome.reused_bytes).sum();
    format!(
        "complete: {} models, {} ({}; {})",
        done.len(),
        text::size(bytes),
        by_status.join(", "),
        moved(reused, bytes, fetched)
    )
}

/// What was done, in which time.
pub fn end(outcome: &Outcome, took: Duration) -> String {
    let what = format!("{}, {}", text::files(outcome.files), text::size(outcome.total_bytes));
    let revision = text::revision(&outcome.revision);
    let Outcome { source, status, fetched_bytes, reused_bytes, total_bytes, .. } = outcome;
    let path = outcome.to_load();
    let took = text::duration(took);
    let told = digests::aside(outcome);
    let aside = told.as_ref().map(|told| format!("; {told}")).unwrap_or_default();
    if *status == "present" && outcome.by_other {
        let vain = text::size(*fetched_bytes);
        return format!(
            "complete: `{path}` holds {source} at {revision} ({what}; another process published it first, \
             {vain} fetched but not needed, in {took}{aside})"
        );
    }
    if *status == "present" {
        return format!(
            "complete: `{path}` holds {source} at {revision} ({what}; nothing to do, in {took}{aside})"
        );
    }
    if let Some(Stale { why, since }) = &outcome.stale {
        return format!(
            "complete but stale: `{path}` holds {source} at {revision} of {since} ({what}; in {took}{aside}); \
             no update: {why}"
        );
    }
    if *status == "restored" {
        return format!(
            "complete: `{path}` holds {source} at {revision} again ({what}; kept on the volume, nothing \
             fetched, in {took}{aside})"
        );
    }
    if let Some(sent) = outcome.sent_bytes {
        let rate = text::size((sent as f64 / outcome.seconds.max(0.001)) as u64);
        let sent = text::size(sent);
        return format!(
            "complete: `{path}` mirrors {source} at {revision} ({what}; {sent} sent in {took}, {rate}/s{aside})"
        );
    }
    if *status == "ready" {
        return format!(
            "complete: `{path}` holds {source} at {revision} ({what}; waited {took}{aside})"
        );
    }
    let rate = *fetched_bytes as f64 / outcome.seconds.max(0.001);
    let verified = match (told, outcome.unpublished) {
        (None, _) => "all verified".to_owned(),
        (Some(told), 0) => format!("all verified, {told}"),
        (Some(told), _) => told,
    };
    format!(
        "complete: `{path}` {status} from {source} at {revision} ({what}; {} in {took}, {}/s; {verified})",
        moved(*reused_bytes, *total_bytes, *fetched_bytes),
        text::size(rate as u64),
    )
}

/// What was here before, if anything was, and what came over the network.
fn moved(reused: u64, total: u64, fetched: u64) -> String {
    let (reused, total, fetched) = match reused {
        0 => return format!("{} over the network", text::size(fetched)),
        _ => (text::size(reused), text::size(total), text::size(fetched)),
    };
    format!("reused {reused} of {total}, fetched {fetched}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_here_before_is_told_where_there_was_something() {
        assert_eq!(moved(0, 98_000_000_000, 98_000_000_000), "98.0 GB over the network");
        let told = moved(97_916_000_000, 98_000_000_000, 84_000_000);
        assert_eq!(told, "reused 97.9 GB of 98.0 GB, fetched 84.0 MB");
    }
}
