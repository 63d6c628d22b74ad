//! Models that lie below a directory: whoever takes that directory for a model of its own takes them from their
//! servers.

use super::foreign::SHOWN;
use super::survey::revision_in;
use super::{Store, StoreError};
use crate::fs::{Dir, Kind, filesystem};
use crate::model::{SENTINEL, STATE_DIR};

/// So many names are looked at, level by level: a directory that somebody else has filled may hold anything. What is
/// adopted is hashed afterwards, which takes far longer than this.
const MAX_NAMES: usize = 1_000_000;
/// No DEST that people choose lies deeper.
const MAX_LEVELS: usize = 12;
/// One more than are named.
const MAX_MODELS: usize = SHOWN + 1;

impl Store {
    /// Fails if models of their own lie below `family`, which holds none itself.
    pub(super) fn refuse_models_below(&self, family: &Dir) -> Result<(), StoreError> {
        let mut below = Below { models: Vec::new(), looked_at: 0 };
        let path = self.destination.family.path().as_str().to_owned();
        let mut level = below.look(family, &path);
        for _ in 0..MAX_LEVELS {
            let dirs = std::mem::take(&mut level);
            for (dir, path) in &dirs {
                level.extend(below.look(dir, path));
            }
        }
        if below.models.is_empty() {
            return Ok(());
        }
        Err(StoreError::HoldsModels { path: family.path().to_owned(), models: below.models })
    }
}

struct Below {
    /// Relative to the root.
    models: Vec<String>,
    looked_at: usize,
}

impl Below {
    /// The directories in `dir` that are no models. What cannot be read holds none.
    fn look(&mut self, dir: &Dir, path: &str) -> Vec<(Dir, String)> {
        let mut dirs = Vec::new();
        let mut names = dir.names().unwrap_or_default();
        names.sort();
        for name in names.iter().filter(|name| *name != STATE_DIR && !filesystem::owns(name)) {
            self.looked_at += 1;
            if self.looked_at > MAX_NAMES || self.models.len() >= MAX_MODELS {
                break;
            }
            let below = format!("{path}/{name}");
            match dir.kind(name) {
                // One of ours, whatever it is called: nobody else has a reason to lead there.
                Ok(Some(Kind::Link))
                    if dir.link_target(name).is_ok_and(|it| revision_in(&it).is_some()) =>
                {
                    self.models.push(below);
                }
                Ok(Some(Kind::Directory)) => {
                    let Ok(Some(child)) = dir.child(name) else { continue };
                    if matches!(child.kind(SENTINEL), Ok(Some(_))) {
                        self.models.push(below);
                    } else {
                        dirs.push((child, below));
                    }
                }
                _ => {}
            }
        }
        dirs
    }
}
