//! What lies where a model should be, named for people who may have no other way to look: the image
//! has no shell.

use std::fmt;

use crate::fs::{Dir, Kind};
use crate::model::text;

/// So many names are told; there may be thousands.
pub(super) const SHOWN: usize = 3;
const MAX_NAME_CHARS: usize = 80;
const MAX_TARGET_CHARS: usize = 120;

/// Files and directories that weightlift did not put where they are.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Foreign {
    count: usize,
    /// The first of them, fit for a message.
    first: Vec<String>,
}

impl Foreign {
    /// `names` of `dir`.
    pub(super) fn of(dir: &Dir, names: &[impl AsRef<str>]) -> Self {
        let shown = |name: &str| {
            let text = text::name(name, MAX_NAME_CHARS);
            match dir.kind(name) {
                Ok(Some(Kind::Directory)) => format!("`{text}/`"),
                Ok(Some(Kind::Link | Kind::Other)) => {
                    format!("`{text}` ({})", description(dir, name))
                }
                Ok(Some(Kind::File) | None) | Err(_) => format!("`{text}`"),
            }
        };
        let first = names.iter().take(SHOWN).map(|name| shown(name.as_ref())).collect();
        Self { count: names.len(), first }
    }
}

impl fmt::Display for Foreign {
    /// `7 files that weightlift did not put there: …`
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.count == 0 {
            return write!(out, "files that weightlift did not put there");
        }
        let files = text::files(self.count);
        write!(out, "{files} that weightlift did not put there: {}", self.first.join(", "))?;
        match self.count - self.first.len() {
            0 => Ok(()),
            more => write!(out, " and {more} more"),
        }
    }
}

/// What `name` in `dir` is: `a file`, `a link to …`.
pub(super) fn description(dir: &Dir, name: &str) -> String {
    match dir.kind(name) {
        Ok(Some(Kind::File)) => "a file".into(),
        Ok(Some(Kind::Directory)) => "a directory".into(),
        Ok(Some(Kind::Link)) => match dir.link_target(name) {
            Ok(target) => format!("a link to `{}`", text::name(&target, MAX_TARGET_CHARS)),
            Err(_) => "a link".into(),
        },
        Ok(Some(Kind::Other)) => "a pipe, a socket or a device".into(),
        Ok(None) | Err(_) => "something other than a directory".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_three_are_named_and_the_others_counted() {
        let at = tempfile::tempdir().expect("a directory");
        let dir = Dir::open(at.path()).expect("it is there").expect("it is there");
        std::fs::create_dir(at.path().join("logs")).expect("it is new");
        let told = |names: &[&str]| Foreign::of(&dir, names).to_string();
        for (names, expected) in [
            (&["a"][..], "1 file that weightlift did not put there: `a`"),
            (&["a", "logs"], "2 files that weightlift did not put there: `a`, `logs/`"),
            (
                &["a\u{1b}[2J", "b", "c", "d", "e"],
                "5 files that weightlift did not put there: `a\\u{1b}[2J`, `b`, `c` and 2 more",
            ),
            (&[], "files that weightlift did not put there"),
        ] {
            assert_eq!(told(names), expected);
        }
    }
}
