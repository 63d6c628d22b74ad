//! Who fetches a model, for those who only read the volume and know its path alone.

use std::path::Path;

use crate::fs::Dir;
use crate::lock::{Owner, owner_file};
use crate::model::hf_cache::{SNAPSHOTS, commit_in};
use crate::model::{ModelDir, STATE_DIR};

use super::layout::IN_PLACE;

/// The root of a model is looked for so many directories above it.
pub(super) const MAX_ABOVE: usize = 5;

/// The heartbeat of whoever fetches the model at `path`. What cannot be read is not there.
pub fn owner_of(path: &Path) -> Option<Owner> {
    let path = std::path::absolute(path).ok()?;
    let path = repo_of_snapshot(&path).unwrap_or(&path);
    let above = path.ancestors().skip(1).take(MAX_ABOVE).filter_map(|root| {
        let family = ModelDir::parse(path.strip_prefix(root).ok()?.to_str()?).ok()?;
        read(root, &family.file_name())
    });
    read(path, IN_PLACE).into_iter().chain(above).next()
}

/// The directory of a repo in a cache of the Hub's clients, if `path` is that of one of its commits.
fn repo_of_snapshot(path: &Path) -> Option<&Path> {
    let above = path.parent().filter(|above| above.ends_with(SNAPSHOTS))?;
    commit_in(path.file_name()?.as_encoded_bytes())?;
    above.parent()
}

fn read(root: &Path, state_name: &str) -> Option<Owner> {
    let owners = Dir::open(&root.join(STATE_DIR).join("owners")).ok()??;
    Owner::read(&owners, &owner_file(state_name))
}
