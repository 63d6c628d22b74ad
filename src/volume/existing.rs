//! What lies in a directory, as its sentinel says it.

use std::fs::File;

use rustix::io::Errno;

use super::StoreError;
use crate::fs::Dir;
use crate::model::{RelPath, SENTINEL, Sentinel, SentinelProblem, There};

/// Bound on what is read as a sentinel: 100,000 files need about 25 MB.
const MAX_SENTINEL_BYTES: u64 = 256 << 20;

/// What is at the family path.
#[derive(Debug)]
pub enum Existing {
    Nothing,
    /// Every file of the sentinel is there with its size.
    Complete(Box<Sentinel>),
    /// A sentinel, but not all that it lists.
    Damaged(Box<Sentinel>, String),
}

impl Existing {
    pub fn there(&self) -> There<'_> {
        match self {
            Self::Nothing => There::Nothing,
            Self::Complete(sentinel) => There::Whole(sentinel),
            Self::Damaged(sentinel, _) => There::Damaged(sentinel),
        }
    }

    /// The sentinel without its files, of which there can be very many.
    pub fn into_head(self) -> Option<Sentinel> {
        match self {
            Self::Nothing => None,
            Self::Complete(sentinel) | Self::Damaged(sentinel, _) => {
                Some(Sentinel { files: Vec::new(), left_out: Vec::new(), ..*sentinel })
            }
        }
    }
}

/// The sentinel in a family directory, if there is one.
pub fn read_sentinel(family: &Dir) -> Result<Option<Sentinel>, StoreError> {
    with_sentinel(family, Sentinel::read)
}

/// What the sentinel in a family directory says of it, if there is one.
pub(super) fn sealed(family: &Dir) -> Result<Option<Existing>, StoreError> {
    let Some(sentinel) = read_sentinel(family)? else { return Ok(None) };
    Ok(Some(match first_difference(family, &sentinel)? {
        None => Existing::Complete(Box::new(sentinel)),
        Some(difference) => Existing::Damaged(Box::new(sentinel), difference),
    }))
}

/// What `read` makes of the sentinel in a family directory, if there is one.
pub(super) fn with_sentinel<T>(
    family: &Dir,
    read: impl FnOnce(File) -> Result<T, SentinelProblem>,
) -> Result<Option<T>, StoreError> {
    // The directory has been opened: on NFS a bare look for a missing name is answered from a
    // negative cache for many seconds after it has appeared.
    let Some(file) = family.read_file(SENTINEL)? else {
        return Ok(None);
    };
    let path = || family.path_of(SENTINEL);
    let unreadable = |error| StoreError::io("read", &path(), error);
    let bytes = file.metadata().map_err(unreadable)?.len();
    let read = match bytes {
        0..=MAX_SENTINEL_BYTES => read(file),
        _ => Err(SentinelProblem::TooLarge(bytes)),
    };
    read.map(Some).map_err(|problem| match problem {
        SentinelProblem::Unreadable(error) if error.is_io() => unreadable(error.into()),
        problem => StoreError::Sentinel { path: path(), problem },
    })
}

/// The first file that is missing or has another size than the sentinel says.
pub fn first_difference(family: &Dir, sentinel: &Sentinel) -> Result<Option<String>, StoreError> {
    let mut parent: Option<(String, Dir)> = None;
    for file in &sentinel.files {
        let Ok(path) = RelPath::parse(&file.path) else {
            return Ok(Some(format!("`{}` is no safe path", file.path)));
        };
        let above = path.parent().unwrap_or_default();
        if parent.as_ref().is_none_or(|(known, _)| known != above) {
            let parts = above.split('/').filter(|part| !part.is_empty());
            match family.descend(parts) {
                Ok(Some(dir)) => parent = Some((above.to_owned(), dir)),
                Ok(None) => return Ok(Some(format!("`{path}` is missing"))),
                Err(error) if matches!(error.errno(), Some(Errno::NOTDIR | Errno::LOOP)) => {
                    return Ok(Some(format!("`{path}` is missing")));
                }
                Err(error) => return Err(error.into()),
            }
        }
        let size = match &parent {
            Some((_, dir)) => dir.file_size(path.name())?,
            None => None,
        };
        match size {
            Some(size) if size == file.size => {}
            Some(size) => {
                return Ok(Some(format!("`{path}` has {size} bytes instead of {}", file.size)));
            }
            None => return Ok(Some(format!("`{path}` is missing"))),
        }
    }
    Ok(None)
}
