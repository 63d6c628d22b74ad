//! What a selection means of a revision that was published: of its files, and of what it left out.

use std::collections::BTreeSet;

use super::{LeftOut, Selection, reasons};
use crate::model::{RelPath, RemoteFile, SentinelFile, Snapshot};

impl Selection {
    /// Whether this selection takes nothing of `left_out`, and something of `files`: the two parts of a
    /// revision that was published.
    pub(in crate::model) fn takes_only(
        &self,
        files: &[SentinelFile],
        left_out: &[LeftOut],
    ) -> bool {
        let there: BTreeSet<&str> = files.iter().map(|file| &*file.path).collect();
        let known = files.iter().map(|file| (&*file.path, file.size));
        let known = known.chain(left_out.iter().map(|file| (file.path.as_str(), file.size)));
        self.taken_of(known)
            .is_some_and(|taken| taken.iter().all(|path| there.contains(path.as_str())))
    }

    /// Those of `absent` that this selection would take, if the source had them beside what it has: `there`.
    pub fn lacks<'a>(
        &self,
        there: impl Iterator<Item = (&'a str, u64)>,
        absent: &[&'a str],
    ) -> Vec<&'a str> {
        if absent.is_empty() {
            return Vec::new();
        }
        // Of one byte: a file of none would hold no weights.
        let all = there.chain(absent.iter().map(|path| (*path, 1)));
        match self.taken_of(all) {
            Some(taken) => {
                let is_taken =
                    |path: &&str| RelPath::parse(path).is_ok_and(|it| taken.contains(&it));
                absent.iter().copied().filter(is_taken).collect()
            }
            None => absent.to_vec(),
        }
    }

    /// What this selection takes of a listing; `None` where it would be refused.
    fn taken_of<'a>(
        &self,
        known: impl Iterator<Item = (&'a str, u64)>,
    ) -> Option<BTreeSet<RelPath>> {
        let mut listed = Vec::new();
        for (path, size) in known {
            match RelPath::parse(path) {
                Ok(path) => listed.push(RemoteFile {
                    path,
                    size,
                    digest: None,
                    validator: None,
                    xet_hash: None,
                }),
                // Such a name cannot be there; whoever asks for it shall be told so.
                Err(_) if self.names(path) => return None,
                Err(_) => {}
            }
        }
        let listing = Snapshot::new(String::new(), String::new(), listed, Vec::new());
        let selected = self.apply(listing.files, Vec::new()).ok()?;
        Some(selected.files.into_iter().map(|file| file.path).collect())
    }

    /// The files of a published family that an earlier version has left out and this one would fetch:
    /// those of `left_out` that have no counterpart in `files` by the rule of today.
    pub fn missed<'a>(&self, files: &[SentinelFile], left_out: &'a [LeftOut]) -> Vec<&'a LeftOut> {
        let by_default = || left_out.iter().filter(|file| LeftOut::is_by_default(&file.why));
        if self.all || !self.include.is_empty() || by_default().next().is_none() {
            return Vec::new();
        }
        let there = files.iter().map(|file| (&*file.path, file.size));
        let known = there.chain(by_default().map(|file| (file.path.as_str(), file.size)));
        let known = known.filter_map(|(path, size)| {
            let path = RelPath::parse(path).ok()?;
            Some(RemoteFile { path, size, digest: None, validator: None, xet_hash: None })
        });
        // In the order that the rule wants.
        let files = Snapshot::new(String::new(), String::new(), known.collect(), Vec::new()).files;
        let reasons = reasons(&files);
        if reasons.iter().all(Option::is_some) {
            return by_default().collect();
        }
        let wanted: BTreeSet<&str> = files
            .iter()
            .zip(reasons)
            .filter_map(|(file, why)| why.is_none().then_some(file.path.as_str()))
            .collect();
        by_default().filter(|file| wanted.contains(file.path.as_str())).collect()
    }
}
