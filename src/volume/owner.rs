//! Who fetches a model, for those who only read the volume and know its path alone.

use std::path::Path;

use crate::fs::Dir;
use crate::lock::{Owner, owner_file};
use crate::model::{ModelDir, STATE_DIR};

use super::layout::IN_PLACE;

/// The root of a model is looked for so many directories above it.
const MAX_ABOVE: usize = 5;

/// The heartbeat of whoever fetches the model at `path`. What cannot be read is not there.
pub fn owner_of(path: &Path) -> Option<Owner> {
    let path = std::path::absolute(path).ok()?;
    let above = path.ancestors().skip(1).take(MAX_ABOVE).filter_map(|root| {
        let family = ModelDir::parse(path.strip_prefix(root).ok()?.to_str()?).ok()?;
        read(root, &family.file_name())
    });
    read(&path, IN_PLACE).into_iter().chain(above).next()
}

fn read(root: &Path, state_name: &str) -> Option<Owner> {
    let owners = Dir::open(&root.join(STATE_DIR).join("owners")).ok()??;
    Owner::read(&owners, &owner_file(state_name))
}
