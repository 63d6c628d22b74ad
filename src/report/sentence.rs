//! An event as people read it in a log: one sentence, whatever it is about.

use std::fmt;

use super::event::{Event, LeftOutFiles, Setting};
use crate::model::text;

impl fmt::Display for Event {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rechecking { path, bytes } => {
                write!(out, "rechecking `{path}`: {}", text::size(*bytes))
            }
            Self::Damaged { path, source, damage } => {
                write!(out, "`{path}` is damaged ({damage}); fetching {source} again")
            }
            Self::Replacing { path, source } => {
                write!(out, "`{path}` holds {source} and will be replaced")
            }
            Self::Stale { path, why } => write!(
                out,
                "{why}; using the complete copy in `{path}` (--if-stale=fail makes this an error)"
            ),
            Self::Fetching { .. } | Self::Mirroring { .. } => self.begins(out),
            Self::Checking { target, files, bytes, deep } => {
                let how = if *deep { "reading every byte of" } else { "checking" };
                let what = format!("{}, {}", text::files(*files), text::size(*bytes));
                write!(out, "{how} `{target}`: {what}")
            }
            Self::WrongObject { path, why } => write!(out, "`{path}`: {why}"),
            Self::LeftOut { why, named, more } => {
                let names = named.iter().map(|file| {
                    format!("`{}` ({})", text::inert(&file.path, 200), text::size(file.bytes))
                });
                let more = (*more > 0).then(|| format!("and {more} more"));
                let names: Vec<String> = names.chain(more).collect();
                write!(out, "left out, {why}: {}", names.join(", "))
            }
            Self::Progress {
                phase,
                done_bytes,
                total_bytes,
                done_files,
                total_files,
                bytes_per_second,
                left,
            } => {
                let percent = u128::from(*done_bytes) * 100;
                let percent = percent.checked_div(u128::from(*total_bytes)).unwrap_or(0);
                let (done, total) = (text::size(*done_bytes), text::size(*total_bytes));
                write!(out, "{phase}: {percent} %, {done} of {total}, ")?;
                if *total_files > 0 {
                    write!(out, "{done_files} of {total_files} files, ")?;
                }
                write!(out, "{}/s, {left}", text::size(*bytes_per_second))
            }
            Self::Retrying { path, from_byte, error, .. } => {
                out.write_str("retrying")?;
                if let Some(path) = path {
                    write!(out, " `{path}`")?;
                }
                if let Some(at) = from_byte {
                    write!(out, " from byte {at}")?;
                }
                write!(out, ": {error}")
            }
            Self::FetchingAgain { path, cause } => {
                write!(out, "`{path}`: {cause}; fetching it again from the start")
            }
            Self::ReplacingConnection { path, bytes_per_second, usual_bytes_per_second } => {
                let (rate, usual) =
                    (text::size(*bytes_per_second), text::size(*usual_bytes_per_second));
                write!(
                    out,
                    "replacing a slow connection for `{path}`: it brought {rate}/s, others {usual}/s"
                )
            }
            Self::MemoryLimit { connections, asked, memory_limit } => write!(
                out,
                "using no more than {connections} of {asked} connections: the container's memory limit is {}; \
                 a higher limit allows more",
                text::size(*memory_limit)
            ),
            Self::ProcessorLimit { used, limit: Some(limit) } => write!(
                out,
                "limited by processor, not by network: the transfer uses {used:.2} of the {limit:.2} CPUs that \
                 the container may use; a higher CPU limit makes it faster"
            ),
            Self::ProcessorLimit { used, limit: None } => write!(
                out,
                "limited by processor, not by network: the transfer uses {used:.2} CPUs, all that there are"
            ),
            Self::NoRanges { host, file } => {
                write!(out, "`{host}` sends no ranges; streaming `{file}`")
            }
            Self::Waiting { holder, without_progress, gives_up_in, deadline_in } => {
                let (unmoved, left) =
                    (text::duration(*without_progress), text::duration(*gives_up_in));
                write!(
                    out,
                    "waiting for {holder}; no progress for {unmoved}, giving up in {left} unless it makes progress"
                )?;
                match deadline_in {
                    Some(left) => write!(out, "; --deadline in {}", text::duration(*left)),
                    None => Ok(()),
                }
            }
            Self::Settings { command, settings, variables } => {
                let set = settings.iter().map(|Setting { flag, value, variable }| match variable {
                    Some(variable) => format!("--{flag} {value} ({variable})"),
                    None => format!("--{flag} {value}"),
                });
                let set: Vec<String> = set.collect();
                let or_none = |all: String| if all.is_empty() { "none".to_owned() } else { all };
                write!(
                    out,
                    "weightlift {} {command}; flags that are set: {}; other variables that are set: {}",
                    env!("CARGO_PKG_VERSION"),
                    or_none(set.join(", ")),
                    or_none(variables.join(", ")),
                )
            }
            Self::Locked { path, lock } => write!(out, "acquired {lock} for `{path}`"),
            Self::FileDone { path, bytes, reused_bytes, from, took, is_compared } => {
                let verified = if *is_compared { "verified" } else { "hashed" };
                write!(out, "`{path}` is complete: {}", text::size(*bytes))?;
                if *reused_bytes > 0 {
                    write!(out, ", {} of them reused", text::size(*reused_bytes))?;
                }
                if let Some(from) = from {
                    write!(out, ", from {from}")?;
                }
                write!(out, ", {verified}, in {}", text::duration(*took))
            }
            Self::Linked { link, target } => write!(out, "`{link}` leads to `{target}`"),
            Self::RemovedRevisions { path, revisions, bytes } => {
                let (kept, bytes) = (revisions.len(), text::size(*bytes));
                let named: Vec<String> =
                    revisions.iter().map(|id| format!("`{}`", text::inert(id, 80))).collect();
                let revisions = if kept == 1 { "revision" } else { "revisions" };
                write!(
                    out,
                    "removed {kept} kept {revisions} of `{path}` ({bytes}): {}",
                    named.join(", ")
                )
            }
            Self::Skipped { family, why } => write!(out, "skipped `{family}`: {why}"),
            Self::Warning { message } | Self::Note { message } | Self::Complete { message } => {
                out.write_str(message)
            }
            Self::Failed { message, code, class, .. } => {
                write!(out, "{message} [exit {code}, {class}]")
            }
        }
    }
}

impl Event {
    /// `fetching SOURCE at REVISION to PATH: …`
    fn begins(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (verb, source, revision, place, files, bytes, there, left_out) = match self {
            Self::Fetching {
                source, revision, path, files, bytes, reused_bytes, left_out, ..
            } => ("fetching", source, revision, path, files, bytes, reused_bytes, left_out),
            Self::Mirroring {
                source,
                revision,
                target,
                files,
                bytes,
                kept_bytes,
                left_out,
                ..
            } => ("mirroring", source, revision, target, files, bytes, kept_bytes, left_out),
            _ => return Ok(()),
        };
        let revision = text::revision(revision);
        let what = format!("{}, {}", text::files(*files), text::size(*bytes));
        write!(out, "{verb} {source} at {revision} to `{place}`: {what}")?;
        if *there > 0 {
            write!(out, " ({} are {} already)", text::size(*there), self.here())?;
        }
        for LeftOutFiles { why, files, bytes, by_default } in left_out {
            let hint = if *by_default { ", --all takes them" } else { "" };
            let (files, bytes) = (text::files(*files), text::size(*bytes));
            write!(out, "; left out: {files} ({bytes}, {why}{hint})")?;
        }
        match self {
            Self::Fetching { free_bytes: Some(free), .. } => {
                write!(out, "; {} free", text::size(*free))
            }
            _ => Ok(()),
        }
    }

    fn here(&self) -> &'static str {
        if matches!(self, Self::Fetching { .. }) { "here" } else { "there" }
    }
}
