//! How far a lock file is from what is asked for, and from what the sources hold.

use super::{Entry, LockedModel};
use crate::model::{LockedFile, RemoteFile, text};

/// Files that are named; the others are counted.
const MAX_NAMED: usize = 5;

/// What has become of the files of a model since it was pinned.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Drift {
    pub changed: Vec<String>,
    pub added: Vec<String>,
    pub removed: Vec<String>,
}

impl Drift {
    /// Between what was `locked` and the `files` that would be fetched now, both in the order of their paths.
    /// What nothing tells to be the same counts as changed.
    pub fn between(locked: &[LockedFile], files: &[RemoteFile]) -> Self {
        let mut drift = Self::default();
        let mut before = locked.iter().peekable();
        let earlier = |a: &LockedFile, b: &RemoteFile| a.path.parts().lt(b.path.parts());
        for file in files {
            while let Some(gone) = before.next_if(|it| earlier(it, file)) {
                drift.removed.push(gone.path.to_string());
            }
            match before.next_if(|it| it.path == file.path) {
                None => drift.added.push(file.path.to_string()),
                Some(it) if LockedFile::sha256_of(file, Some(it)) == Some(it.sha256) => {}
                Some(_) => drift.changed.push(file.path.to_string()),
            }
        }
        drift.removed.extend(before.map(|gone| gone.path.to_string()));
        drift
    }

    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.added.is_empty() && self.removed.is_empty()
    }

    /// A line for each kind: `changed: a, b and 3 more`.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        let kinds =
            [("changed", &self.changed), ("added", &self.added), ("removed", &self.removed)];
        kinds.into_iter().filter(|(_, files)| !files.is_empty()).map(|(kind, files)| {
            let named: Vec<&str> = files.iter().take(MAX_NAMED).map(String::as_str).collect();
            let more = match files.len() - named.len() {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            format!("{kind}: {}{more}", named.join(", "))
        })
    }
}

/// What a models file asks for otherwise than the lock file has it, if anything.
pub fn difference(entry: &Entry, locked: &LockedModel) -> Option<String> {
    if entry.source != locked.source {
        return Some(format!("it was pinned for {}, not for {}", locked.source, entry.source));
    }
    if entry.also != locked.also {
        return Some("`also` names other places than it was pinned with".into());
    }
    if entry.signed_by != locked.signed_by {
        return Some("`signed_by` names another signature than it was pinned with".into());
    }
    if entry.selection != locked.selection {
        return Some("it was pinned with another selection of files".into());
    }
    match &entry.expect {
        Some(expected) if *expected != locked.content.revision => Some(format!(
            "`expect` says {}, pinned is {}",
            text::inert(expected, 64),
            locked.content.revision
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Digest, RelPath, Sha256};

    fn remote(path: &str, digest: Option<Digest>) -> RemoteFile {
        let path = RelPath::parse(path).expect("a path");
        RemoteFile { path, size: 3, digest, validator: None, xet_hash: None }
    }

    fn sha256(n: u8) -> Option<Digest> {
        Some(Digest::Sha256([n; 32]))
    }

    #[test]
    fn what_has_changed_is_told_by_kind() {
        let locked = |path, n| LockedFile::new(&remote(path, sha256(n)), Sha256([n; 32]));
        let before = [locked("a", 1), locked("b/c", 2), locked("b.d", 3), locked("z", 4)];
        let same =
            [("a", 1), ("b/c", 2), ("b.d", 3), ("z", 4)].map(|(at, n)| remote(at, sha256(n)));
        assert!(Drift::between(&before, &same).is_empty());
        let now = [
            remote("a", sha256(9)),
            remote("b/c", None),
            remote("b.d", sha256(3)),
            remote("x", sha256(5)),
        ];
        let drift = Drift::between(&before, &now);
        assert_eq!(
            drift.lines().collect::<Vec<_>>(),
            ["changed: a, b/c", "added: x", "removed: z"]
        );
        let many = (0..7).map(|n| remote(&format!("{n}"), sha256(1))).collect::<Vec<_>>();
        let lines: Vec<_> = Drift::between(&[], &many).lines().collect();
        assert_eq!(lines, ["added: 0, 1, 2, 3, 4 and 2 more"]);
    }
}
