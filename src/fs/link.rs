//! A link that a pod keeps for itself, outside of the volume: what its server loads.

use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::{Dir, FsError, Kind, node};

/// Where a link is to be, in a directory that is there.
#[derive(Debug)]
pub struct LinkPath {
    dir: Dir,
    name: String,
}

impl LinkPath {
    /// Fails if the directory above is not there: nothing has been mounted.
    pub fn open(path: &Path) -> Result<Self, FsError> {
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(FsError::io("create the link", path, Errno::INVAL));
        };
        let dir = Dir::open(above)?
            .ok_or_else(|| FsError::io("open the directory", above, Errno::NOENT))?;
        Ok(Self { dir, name: name.to_string_lossy().into_owned() })
    }

    /// What is there now.
    pub fn kind(&self) -> Result<Option<Kind>, FsError> {
        self.dir.kind(&self.name)
    }

    /// Where the link that is there leads to.
    pub fn target(&self) -> Result<PathBuf, FsError> {
        self.dir.link_target(&self.name).map(PathBuf::from)
    }

    /// Lets it lead to `target`, in one step: whoever opens it sees the old one or the new one.
    pub fn lead_to(&self, target: &str) -> Result<(), FsError> {
        if self.kind()? == Some(Kind::Link) && self.dir.link_target(&self.name)? == target {
            return Ok(());
        }
        let temporary = format!(".{}~{}", self.name, node::random_id());
        self.dir.link(target, &temporary)?;
        let renamed = self.dir.rename(&temporary, &self.dir, &self.name);
        if renamed.is_err() {
            let _ = self.dir.remove_file(&temporary);
        }
        renamed
    }

    /// Fails if nothing can be added here.
    pub fn check_writable(&self) -> Result<(), FsError> {
        self.dir
            .may_change(".")
            .map_err(|error| FsError::io("create a link in", self.dir.path(), error))
    }
}
