//! A file that is whole whenever somebody reads it.

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::model::Message;

/// What is read of a file of an earlier run; ours are smaller.
const MAX_BYTES: u64 = 1 << 20;

/// A file that is replaced as a whole.
pub struct Published {
    path: PathBuf,
    flag: &'static str,
}

impl Published {
    pub fn at(path: &Path, flag: &'static str) -> Result<Self, Error> {
        if path.file_name().is_none() {
            return Err(Error::Usage(
                Message::new(format!("{flag}: `{}` is not the name of a file", path.display()))
                    .hint("name a file, not a directory"),
            ));
        }
        Ok(Self { path: path.to_owned(), flag })
    }

    /// Readers see the old text or the new one. Nothing is synced: after a crash it is worth nothing.
    pub fn write(&self, text: &str) -> Result<(), Error> {
        let mut name = std::ffi::OsString::from(".");
        name.push(self.path.file_name().unwrap_or_default());
        // Another process may write to the same path; a collector reads `*.prom`.
        name.push(format!(".{}.tmp", std::process::id()));
        let beside = self.path.with_file_name(name);
        let written = std::fs::File::create(&beside)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .and_then(|()| std::fs::rename(&beside, &self.path));
        written.map_err(|error| {
            let _ = std::fs::remove_file(&beside);
            Error::Usage(
                Message::new(format!(
                    "{}: cannot write `{}`: {error}",
                    self.flag,
                    self.path.display()
                ))
                .hint("name a file in a directory that this user may write"),
            )
        })
    }
}

/// What the file at `path` holds; nothing if it cannot be read.
pub fn read(path: &Path) -> String {
    // To open a pipe would wait for whoever writes to it.
    let is_ours =
        std::fs::metadata(path).is_ok_and(|about| about.is_file() && about.len() <= MAX_BYTES);
    let text = is_ours.then(|| std::fs::read_to_string(path).ok()).flatten();
    text.unwrap_or_default()
}
