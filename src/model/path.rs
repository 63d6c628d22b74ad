//! Paths that cannot leave their directory, and cannot reach what weightlift keeps for itself.

use std::fmt;
use std::sync::Arc;

use super::{SENTINEL, STATE_DIR, text};

/// Longest path of a file below its family, in bytes; with the root in front it stays below the
/// kernel's `PATH_MAX` of 4096.
const MAX_PATH_BYTES: usize = 3072;
/// Deeper than any model, and little enough that a walk through all levels holds few descriptors.
const MAX_PARTS: usize = 100;
/// `NAME_MAX` of every common Linux filesystem.
const MAX_NAME_BYTES: usize = 255;

/// A relative UTF-8 path, `/` between its parts, that stays inside the directory it is joined to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelPath(Arc<str>);

/// Why a name from a repo or a bucket is not used as a path. Exit code 13.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the source names a file `{name}`, which {why}; nothing was fetched")]
pub struct UnsafePath {
    /// The name, made inert for a terminal.
    pub name: String,
    /// Completes the sentence "a file which …".
    pub why: &'static str,
}

impl RelPath {
    /// Accepts `path` as it is, or says why it is not safe to create a file of that name.
    pub fn parse(path: &str) -> Result<Self, UnsafePath> {
        let refuse = |why| Err(UnsafePath { name: text::inert(path, 200), why });
        if path.is_empty() {
            return refuse("is empty");
        }
        if path.starts_with('/') {
            return refuse("is an absolute path");
        }
        if path.len() > MAX_PATH_BYTES {
            return refuse("is longer than 3072 bytes");
        }
        if path.contains('\\') {
            return refuse("contains a backslash");
        }
        if path.chars().any(text::is_control) {
            return refuse("contains control characters");
        }
        if path.split('/').count() > MAX_PARTS {
            return refuse("is nested more than 100 directories deep");
        }
        for part in path.split('/') {
            match part {
                "" => return refuse("has an empty part"),
                "." | ".." => return refuse("leaves its directory"),
                _ if part.len() > MAX_NAME_BYTES => {
                    return refuse("has a part longer than 255 bytes");
                }
                _ => {}
            }
        }
        // Compared without case: some volumes (SMB, ext4 casefold) do not know the difference.
        let first = path.split('/').next().unwrap_or_default();
        if first.eq_ignore_ascii_case(STATE_DIR) || path.eq_ignore_ascii_case(SENTINEL) {
            return refuse("is reserved for weightlift itself");
        }
        Ok(Self(path.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same text, not copied.
    pub fn shared(&self) -> Arc<str> {
        self.0.clone()
    }

    /// The parts from the top; never empty.
    pub fn parts(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }

    /// The last part.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// The directory part, if the path has one.
    pub fn parent(&self) -> Option<&str> {
        self.0.rsplit_once('/').map(|(parent, _)| parent)
    }
}

impl std::borrow::Borrow<str> for RelPath {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// The directory that a model is published at, relative to the root: `llama-3-8b`,
/// `embeddings/bge-large`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ModelDir(RelPath);

impl ModelDir {
    /// What to do where one is refused.
    pub const HINT: &str = "name a directory below the root, such as `chat/llama`";

    /// Accepts a relative directory name; the reason of a refusal completes "DEST `…` …".
    pub fn parse(dest: &str) -> Result<Self, &'static str> {
        let trimmed = dest.trim_end_matches('/');
        match RelPath::parse(trimmed) {
            Ok(path) if path.parts().any(|part| part.eq_ignore_ascii_case(STATE_DIR)) => {
                Err("is reserved for weightlift itself")
            }
            Ok(path) => Ok(Self(path)),
            Err(refused) if refused.why == "leaves its directory" => Err("leaves the root"),
            Err(refused) => Err(refused.why),
        }
    }

    pub fn path(&self) -> &RelPath {
        &self.0
    }

    /// One file name that stands for the family in the lock and heartbeat directories. `/` becomes
    /// `%2F` (and `%` `%25`), so no two families share a name; a name too long for the
    /// filesystem is cut and told apart by a checksum of the whole.
    pub fn file_name(&self) -> String {
        let name = self.0.as_str().replace('%', "%25").replace('/', "%2F");
        if name.len() <= 180 {
            return name;
        }
        let checksum = super::Checksum::Crc64Nvme.of(name.as_bytes());
        let cut = (0..=150).rev().find(|at| name.is_char_boundary(*at)).unwrap_or(0);
        format!("{}~{checksum:016x}", &name[..cut])
    }
}

impl ModelDir {
    /// The family that a file name stands for, unless the name was cut, or looks so.
    pub fn of_file_name(name: &str) -> Option<Self> {
        let end = name.rsplit_once('~').map(|(_, end)| end);
        if end.is_some_and(|end| end.len() == 16 && u64::from_str_radix(end, 16).is_ok()) {
            return None;
        }
        let family = Self::parse(&name.replace("%2F", "/").replace("%25", "%")).ok()?;
        (family.file_name() == name).then_some(family)
    }
}

impl fmt::Display for ModelDir {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_are_kept_as_they_are() {
        for name in ["config.json", "1_Pooling/config.json", ".gitattributes", "a b/ü%.bin", "a..b"]
        {
            assert_eq!(RelPath::parse(name).expect(name).as_str(), name);
        }
    }

    #[test]
    fn names_that_leave_the_directory_or_reach_for_us_are_refused() {
        for name in [
            "",
            "/etc/passwd",
            "../x",
            "a/../x",
            "a/..",
            "./a",
            "a//b",
            "a/",
            "a\\b",
            "C:\\x",
            "a\nb",
            "a\u{1b}[2J",
            "a\u{202e}b",
            "a\0b",
            ".weightlift/locks/x",
            ".Weightlift",
            ".weightlift-complete.json",
            ".WEIGHTLIFT-complete.json",
        ] {
            assert!(RelPath::parse(name).is_err(), "{name:?} was accepted");
        }
        assert!(RelPath::parse(&"a".repeat(256)).is_err());
        assert!(RelPath::parse(&"a/".repeat(2000)).is_err());
        assert!(RelPath::parse(&("a/".repeat(99) + "a")).is_ok());
        assert!(RelPath::parse(&("a/".repeat(100) + "a")).is_err());
    }

    #[test]
    fn a_refused_name_is_shown_without_its_control_characters() {
        let refused = RelPath::parse("a\u{1b}[2Jb").expect_err("has ESC");
        assert!(!refused.to_string().contains('\u{1b}'));
    }

    #[test]
    fn families_have_file_names_of_their_own() {
        let name = |dest: &str| ModelDir::parse(dest).expect(dest).file_name();
        assert_eq!(name("embeddings/bge-large/"), "embeddings%2Fbge-large");
        assert_ne!(name("a/b"), name("a%2Fb"));
        for dest in ["a", "a/b", "a%2Fb", "a%/b%25", "ü~x"] {
            let family = ModelDir::of_file_name(&name(dest)).expect(dest);
            assert_eq!(family.path().as_str(), dest);
        }
        assert!(ModelDir::of_file_name(&name(&"x".repeat(250))).is_none());
        assert!(name(&format!("{}/{}", "x".repeat(250), "y".repeat(250))).len() < 200);
        assert!(ModelDir::parse("../x").is_err() && ModelDir::parse("a/.weightlift").is_err());
    }
}
