//! A file that is whole whenever somebody reads it.

use std::path::{Path, PathBuf};

use crate::Error;
use crate::fs::Replaceable;
use crate::model::Message;

/// What is read of a file of an earlier run; ours are smaller.
const MAX_BYTES: u64 = 1 << 20;

/// A file that is replaced as a whole.
pub struct Published {
    path: PathBuf,
    place: Replaceable,
    flag: &'static str,
}

impl Published {
    pub fn at(path: &Path, flag: &'static str) -> Result<Self, Error> {
        let refused = |error| cannot_write(path, flag, &error, "name a regular file, or a new one");
        let place = Replaceable::at(path).map_err(refused)?;
        Ok(Self { path: path.to_owned(), place, flag })
    }

    /// Readers see the old text or the new one. Nothing is synced: after a crash it is worth nothing.
    pub fn write(&self, text: &str) -> Result<(), Error> {
        let written = self.place.replace(text.as_bytes(), false);
        let hint = "name a file in a directory that this user may write";
        written.map_err(|error| cannot_write(&self.path, self.flag, &error, hint))
    }
}

fn cannot_write(path: &Path, flag: &str, error: &std::io::Error, hint: &'static str) -> Error {
    let what = format!("{flag}: cannot write `{}`: {error}", path.display());
    Error::Usage(Message::new(what).hint(hint))
}

/// What the file at `path` holds; nothing if it cannot be read.
pub fn read(path: &Path) -> String {
    // To open a pipe would wait for whoever writes to it.
    let is_ours =
        std::fs::metadata(path).is_ok_and(|about| about.is_file() && about.len() <= MAX_BYTES);
    let text = is_ours.then(|| std::fs::read_to_string(path).ok()).flatten();
    text.unwrap_or_default()
}
