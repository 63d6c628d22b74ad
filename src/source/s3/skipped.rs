//! Objects below a prefix that are nothing of a model: they are left out, and that is said.

use super::errors::shown;
use crate::model::{SENTINEL, STATE_DIR};

/// Why an object is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its key ends in `/`, and it has content: consoles and copiers leave such.
    Directory,
    /// Its key holds `//`: a directory without a name.
    EmptyPart,
    /// It belongs to weightlift's working area, copied from a volume as it was.
    OurOwn,
}

/// How many there are of each, and the first of them.
#[derive(Debug, Default)]
pub struct Skipped {
    found: Vec<(Why, usize, String)>,
}

impl Why {
    /// Whether `path`, below the prefix, is none of a model's.
    pub fn of(path: &str) -> Option<Self> {
        let is_own = |part: &str| {
            part.eq_ignore_ascii_case(STATE_DIR) || part.eq_ignore_ascii_case(SENTINEL)
        };
        let (first, last) = (path.split('/').next(), path.rsplit('/').next());
        if first.is_some_and(is_own) || last.is_some_and(|last| last.eq_ignore_ascii_case(SENTINEL))
        {
            return Some(Self::OurOwn);
        }
        (path.starts_with('/') || path.contains("//")).then_some(Self::EmptyPart)
    }
}

impl Skipped {
    pub fn add(&mut self, why: Why, key: &str) {
        match self.found.iter_mut().find(|(known, ..)| *known == why) {
            Some((_, count, _)) => *count += 1,
            None => self.found.push((why, 1, shown(key))),
        }
    }

    /// One line for each kind.
    pub fn warnings(&self) -> impl Iterator<Item = String> + '_ {
        self.found.iter().map(|(why, count, first)| {
            let objects = match count {
                1 => format!("object `{first}` is skipped"),
                count => format!("{count} objects, such as `{first}`, are skipped"),
            };
            let why = match why {
                Why::Directory => "content under the name of a directory (`…/`)",
                Why::EmptyPart => "a key with an empty part (`//`)",
                Why::OurOwn => "weightlift's own working files",
            };
            format!("{objects}: {why}")
        })
    }
}
