//! The other models on a volume: every revision below the root, whoever published it and when.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;

use super::Store;
use super::layout::REVISIONS;
use super::sweep::GONE;
use crate::fs::{Dir, Kind, filesystem};
use crate::model::{ModelDir, SENTINEL, STATE_DIR};

/// How far below the root a directory is looked at; a model lies two levels deep at most, as a rule.
const MAX_DEPTH: usize = 4;
/// So many names are looked at in all: what lies below a root can be anything.
const MAX_NAMES: usize = 20_000;

/// Told of each revision, with the path that it is called by.
type Each<'a> = &'a mut dyn FnMut(&Path, &Dir) -> ControlFlow<()>;

/// A look around.
struct Search<'a> {
    each: Each<'a>,
    names_left: usize,
    /// Directories that were looked at, and those of our own model.
    known: BTreeSet<(u64, u64)>,
}

impl Store {
    /// Hands over each directory below the root that has a sentinel, but for those of this model. Those that
    /// links show come first: they are found without a search. What cannot be read is passed over.
    pub(super) fn each_other_revision(&self, each: Each<'_>) {
        let Ok(Some(root)) = self.root() else { return };
        let mut search = Search { each, names_left: MAX_NAMES, known: BTreeSet::new() };
        if let Ok(Some(family)) = self.family_dir() {
            search.known.extend(family.identity().ok());
        }
        if let Ok(Some(own)) = self.revisions() {
            search.known.extend(own.identity().ok());
        }
        if search.revisions(&root).is_break() {
            return;
        }
        // The root of the pod holds anything but models.
        if root.path() != Path::new("/") {
            let _ = search.below(&root, MAX_DEPTH);
        }
    }
}

impl Search<'_> {
    /// What lies in the working area of `base`.
    fn revisions(&mut self, base: &Dir) -> ControlFlow<()> {
        let path = [STATE_DIR, REVISIONS];
        let Ok(Some(revisions)) = base.descend(path.into_iter()) else {
            return ControlFlow::Continue(());
        };
        if !self.is_new(&revisions) {
            return ControlFlow::Continue(());
        }
        self.each_directory(&revisions, &mut |search, name, own| {
            let path = match ModelDir::of_file_name(name) {
                Some(family) => base.path().join(family.path().as_str()),
                None => own.path().to_owned(),
            };
            search.each_directory(own, &mut |search, id, dir| {
                if id.ends_with(GONE) {
                    ControlFlow::Continue(())
                } else {
                    search.offer(&path, dir)
                }
            })
        })
    }

    /// Models that are directories of their own, and mounts with a working area of their own.
    fn below(&mut self, dir: &Dir, depth: usize) -> ControlFlow<()> {
        self.each_directory(dir, &mut |search, name, child| {
            if name == STATE_DIR {
                return ControlFlow::Continue(());
            }
            if matches!(child.kind(SENTINEL), Ok(Some(Kind::File))) {
                return search.offer(child.path(), child);
            }
            search.revisions(child)?;
            if depth > 1 { search.below(child, depth - 1) } else { ControlFlow::Continue(()) }
        })
    }

    fn offer(&mut self, path: &Path, dir: &Dir) -> ControlFlow<()> {
        if self.is_new(dir) { (self.each)(path, dir) } else { ControlFlow::Continue(()) }
    }

    /// Links are not followed: a family that is one lies in a working area.
    fn each_directory(
        &mut self,
        dir: &Dir,
        each: &mut dyn FnMut(&mut Self, &str, &Dir) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let listed = dir.each_name(&mut |name, kind| {
            if self.names_left == 0 {
                return ControlFlow::Break(());
            }
            self.names_left -= 1;
            // What the filesystem keeps may be mounted by a look, as snapshots are.
            if kind != Kind::Directory || filesystem::owns(name) {
                return ControlFlow::Continue(());
            }
            match dir.child(name) {
                Ok(Some(child)) if self.is_unknown(&child) => each(self, name, &child),
                // Gone, not ours to look at, or our own.
                Ok(_) | Err(_) => ControlFlow::Continue(()),
            }
        });
        listed.unwrap_or(ControlFlow::Continue(()))
    }

    fn is_unknown(&self, dir: &Dir) -> bool {
        dir.identity().is_ok_and(|identity| !self.known.contains(&identity))
    }

    fn is_new(&mut self, dir: &Dir) -> bool {
        dir.identity().is_ok_and(|identity| self.known.insert(identity))
    }
}
