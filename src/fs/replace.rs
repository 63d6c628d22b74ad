//! A file that the user has named, replaced as a whole: whoever reads it sees the old content or the new one.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Error, ErrorKind, Result, Write};
use std::path::{Path, PathBuf};

/// A path at which there is a file, or nothing yet.
#[derive(Clone, Debug)]
pub struct Replaceable(PathBuf);

impl Replaceable {
    /// Follows links. A device, a pipe, a socket or a directory is never replaced: as root, `/dev/stdout` would be a
    /// file from then on.
    pub fn at(path: &Path) -> Result<Self> {
        let refused = |why: &str| Err(Error::new(ErrorKind::InvalidInput, why));
        if path.file_name().is_none() {
            return refused("it is not the name of a file");
        }
        match std::fs::symlink_metadata(path) {
            Ok(about) if about.is_file() => Ok(Self(path.to_owned())),
            Ok(about) if about.is_symlink() => {
                let Ok(target) = std::fs::canonicalize(path) else {
                    return refused("it is a link that leads nowhere");
                };
                match std::fs::metadata(&target) {
                    Ok(about) if about.is_file() => Ok(Self(target)),
                    _ => refused("it leads to what is not a regular file"),
                }
            }
            Ok(_) => refused("it is not a regular file"),
            // Whether one can be made there is seen when it is.
            Err(_) => Ok(Self(path.to_owned())),
        }
    }

    /// Writes `bytes` to a new file beside it first. With `is_synced` they survive a power cut.
    pub fn replace(&self, bytes: &[u8], is_synced: bool) -> Result<()> {
        // Once more: it may have changed since.
        let Self(path) = Self::at(&self.0)?;
        let (mut file, beside) = beside(&path)?;
        let written = file.write_all(bytes).and_then(|()| {
            // It stays as readable as it was.
            if let Ok(about) = std::fs::metadata(&path) {
                let _ = file.set_permissions(about.permissions());
            }
            if is_synced {
                file.sync_all()?;
            }
            std::fs::rename(&beside, &path)
        });
        if written.is_err() {
            let _ = std::fs::remove_file(&beside);
        }
        written?;
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        // Some filesystems cannot sync a directory.
        if is_synced && let Ok(dir) = File::open(dir.unwrap_or(Path::new("."))) {
            let _ = dir.sync_all();
        }
        Ok(())
    }
}

/// A new file next to `path`. Another process may write to the same path, and in containers most have the same
/// process ID; nothing that is there already is opened. A collector of metrics reads `*.prom` only.
fn beside(path: &Path) -> Result<(File, PathBuf)> {
    for _ in 0..TRIES {
        let mut name = OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(format!(".{:016x}.tmp", fastrand::u64(..)));
        let beside = path.with_file_name(name);
        match File::options().write(true).create_new(true).open(&beside) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            made => return made.map(|file| (file, beside)),
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

const TRIES: usize = 8;
