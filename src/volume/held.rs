//! What unfinished attempts take on the volume, in words.

use std::fmt;
use std::time::{Duration, SystemTime};

use super::attempts::{Sign, attempt_parts, open_attempt};
use super::staging::ATTEMPTS;
use super::sweep::GONE;
use super::{Store, journal};
use crate::fs::Dir;
use crate::lock::heartbeat::STOPPED_AFTER;
use crate::model::abandoned::silence;
use crate::model::{ModelDir, STATE_DIR, text};

/// So many models are told by their names.
const SHOWN: usize = 3;

/// An attempt that is told.
pub(super) struct Told {
    pub family: String,
    bytes: u64,
    silence: Option<Duration>,
}

/// The family of a working area's name as people know it.
pub(super) fn shown(state_name: &str) -> String {
    let family = ModelDir::of_file_name(state_name).map(|family| family.to_string());
    text::name(family.as_deref().unwrap_or(state_name), 80)
}

impl Told {
    pub fn of(attempts: &Dir, name: &str, silence: Option<Duration>) -> Self {
        let attempt = name.strip_suffix(GONE).unwrap_or(name);
        let family = attempt_parts(attempt).map_or(attempt, |(state_name, _)| state_name);
        Self { family: shown(family), bytes: attempts.bytes_below(name), silence }
    }
}

/// What was removed, in one line.
pub(super) struct Removed<'a> {
    pub told: &'a [Told],
    pub whose: &'a str,
}

impl fmt::Display for Removed<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.told.iter().fold(0_u64, |sum, told| sum.saturating_add(told.bytes));
        let oldest = self.told.iter().filter_map(|told| told.silence).max();
        let count = self.told.len();
        let attempts = if count == 1 { "attempt" } else { "attempts" };
        write!(out, "{count} unfinished {attempts} {} ({}", self.whose, text::size(bytes))?;
        if let Some(oldest) = oldest {
            let up_to = if count == 1 { "" } else { "up to " };
            write!(out, ", {up_to}{} old", text::age(oldest))?;
        }
        write!(out, "): {}", named(self.told, |told| format!("`{}`", told.family)))
    }
}

/// The first of them, and how many more.
fn named(told: &[Told], name: impl Fn(&Told) -> String) -> String {
    let first: Vec<String> = told.iter().take(SHOWN).map(name).collect();
    let more = told.len() - first.len();
    first.join(", ") + &if more > 0 { format!(" and {more} more") } else { String::new() }
}

impl Store {
    /// How much unfinished attempts of other families take in the working area, in words; `None` if there
    /// are none. For a volume that is full, so it may take a while.
    pub fn held_by_others(&self) -> Option<String> {
        let attempts = self.base().ok()??.descend([STATE_DIR, ATTEMPTS].into_iter()).ok()??;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut told = Vec::new();
        for name in attempts.names().ok()? {
            let attempt = name.strip_suffix(GONE).unwrap_or(&name);
            let is_other = |(of, _): (&str, &str)| of != self.state_name();
            if attempt_parts(attempt).is_some_and(is_other)
                && let Ok(Some(old)) = open_attempt(&attempts, &name)
                && let Ok(sign) = Sign::of(&old)
            {
                let is_held = journal::is_held(&old).unwrap_or(false);
                let silence = if is_held { Duration::ZERO } else { silence(now, sign.last) };
                told.push(Told::of(&attempts, &name, Some(silence)));
            }
        }
        told.retain(|told| told.bytes > 0);
        told.sort_by_key(|told| std::cmp::Reverse(told.bytes));
        let bytes = told.iter().fold(0_u64, |sum, told| sum.saturating_add(told.bytes));
        let one = |told: &Told| {
            let silence = told.silence.unwrap_or_default();
            let state = if silence < STOPPED_AFTER * 2 {
                "being fetched".into()
            } else {
                format!("left {} ago", text::age(silence))
            };
            format!("`{}` ({}, {state})", told.family, text::size(told.bytes))
        };
        (!told.is_empty()).then(|| {
            format!(
                "unfinished attempts of other models take {}: {}; a fetch of these models resumes them",
                text::size(bytes),
                named(&told, one)
            )
        })
    }
}
