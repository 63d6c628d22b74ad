//! What has failed of several things, and the sentences that name it: as much of each as there is room for.

use std::fmt;

use crate::exit::Class;
use crate::model::text;

/// So long may a sentence be that is the last line of a run.
pub const MAX_CHARS: usize = 2_000;
/// So much of each name is said.
const MAX_NAME_CHARS: usize = 120;

/// What has failed of several things, by name, as a sentence has it.
#[derive(Clone, Debug, Default)]
pub struct Failures(Vec<(String, Class)>);

impl Failures {
    pub fn new<'a>(failed: impl Iterator<Item = (&'a str, Class)>) -> Self {
        let mut failures = Self::default();
        failed.for_each(|(name, class)| failures.add(name, class));
        failures
    }

    pub fn add(&mut self, name: &str, class: Class) {
        self.0.push((cut(&text::name(name, MAX_NAME_CHARS), MAX_NAME_CHARS), class));
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The class of the first failure that `is_wanted`.
    pub fn first(&self, is_wanted: impl Fn(Class) -> bool) -> Option<Class> {
        self.0.iter().map(|(_, class)| *class).find(|class| is_wanted(*class))
    }

    /// `` `a` (not_found), `b` (unreachable) and 14 more ``: as many as `max_chars` have room for. The first is
    /// always among them, if need be without the end of its name.
    pub fn within(&self, max_chars: usize) -> String {
        let named = |name: &str, class: Class| format!("`{name}` ({})", class.name());
        let behind = |count: usize| match self.0.len() - count {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let (mut said, mut best) = (String::new(), String::new());
        for (n, (name, class)) in self.0.iter().enumerate() {
            said += if n == 0 { "" } else { ", " };
            said += &named(name, *class);
            let chars = said.chars().count();
            if chars > max_chars {
                break;
            }
            let behind = behind(n + 1);
            if chars + behind.len() <= max_chars {
                best = said.clone() + &behind;
            }
        }
        match self.0.first() {
            Some((name, class)) if best.is_empty() => {
                let around = named("", *class).len() + behind(1).len();
                named(&cut(name, max_chars.saturating_sub(around)), *class) + &behind(1)
            }
            _ => best,
        }
    }
}

impl fmt::Display for Failures {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.within(MAX_CHARS))
    }
}

/// A sentence of at most `max_chars`: what is the matter, and behind `lead` what has failed, then `tail`. Where there
/// is no room for all of it, the names have two thirds and what is the matter has the rest, or more of what
/// the other leaves.
pub fn sentence(
    max_chars: usize,
    matter: &str,
    lead: &str,
    failures: &Failures,
    tail: &str,
) -> String {
    let matter = text::inert(matter, usize::MAX);
    let (lead, names) = match failures.count() {
        0 => ("", String::new()),
        _ => {
            let room = max_chars.saturating_sub(lead.chars().count() + tail.chars().count());
            let left = room.saturating_sub(matter.chars().count());
            (lead, failures.within(left.max(room * 2 / 3)))
        }
    };
    let others = [lead, &names, tail].iter().map(|part| part.chars().count()).sum();
    let matter = cut(&matter, max_chars.saturating_sub(others));
    format!("{matter}{lead}{names}{tail}")
}

/// The first `max_chars` of `text`, the last of them `…` if there was more.
fn cut(text: &str, max_chars: usize) -> String {
    if text.chars().nth(max_chars).is_none() {
        return text.to_owned();
    }
    match max_chars.checked_sub(1) {
        None => String::new(),
        Some(chars) => format!("{}…", text::prefix(text, chars)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failures(count: usize, chars: usize) -> Failures {
        let name = |n: usize| format!("{n:02}{}", "x".repeat(chars - 2));
        let names: Vec<String> = (0..count).map(name).collect();
        Failures::new(names.iter().map(|name| (name.as_str(), Class::NotFound)))
    }

    #[test]
    fn names_are_told_as_far_as_there_is_room_and_the_others_counted() {
        for (count, chars, room, expected) in [
            (0, 2, 100, ""),
            (1, 2, 100, "`00` (not_found)"),
            (2, 2, 34, "`00` (not_found), `01` (not_found)"),
            (2, 2, 33, "`00` (not_found) and 1 more"),
            (3, 2, 34, "`00` (not_found) and 2 more"),
            (3, 2, 45, "`00` (not_found), `01` (not_found) and 1 more"),
            (30, 9, 30, "`00x…` (not_found) and 29 more"),
            // No room at all: that something failed is said all the same.
            (2, 2, 0, "`` (not_found) and 1 more"),
        ] {
            assert_eq!(failures(count, chars).within(room), expected, "{count} {chars} {room}");
        }
        assert!(failures(1, 500).to_string().chars().count() < 150);
    }

    #[test]
    fn neither_a_long_error_nor_many_names_push_the_other_out() {
        let (short, long) = ("no such repo", "e".repeat(5_000));
        for matter in [short, &long] {
            for (count, chars) in [(1, 5), (3, 20), (30, 110), (500, 4), (20, 400)] {
                for room in [200, 600, MAX_CHARS] {
                    let failures = failures(count, chars);
                    let told = sentence(room, matter, "; failed: ", &failures, "; run it again");
                    let seen = format!("{count} {chars} {room}: {told}");
                    assert!(told.chars().count() <= room, "{seen}");
                    assert!(told.starts_with(&matter[..matter.len().min(room / 4)]), "{seen}");
                    assert!(told.contains("; failed: `00"), "{seen}");
                    assert!(told.ends_with("; run it again"), "{seen}");
                    let named = told.matches("(not_found)").count();
                    let more = told.split(" and ").nth(1).and_then(|it| it.split(' ').next());
                    let more = more.map_or(0, |more| more.parse().expect("a number"));
                    assert_eq!(named + more, count, "{seen}");
                }
            }
        }
        let all = sentence(600, short, "; failed: ", &failures(2, 3), "");
        assert_eq!(all, "no such repo; failed: `00x` (not_found), `01x` (not_found)");
        assert_eq!(
            sentence(600, short, "; failed: ", &Failures::default(), "; x"),
            "no such repo; x"
        );
    }
}
