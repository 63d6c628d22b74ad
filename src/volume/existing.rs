//! What lies in a directory, as its sentinel says it.

use std::fs::File;
use std::io::{self, Read};
use std::ops::ControlFlow;

use rustix::io::Errno;

use super::StoreError;
use crate::fs::Dir;
use crate::model::{
    Giver, RelPath, SENTINEL, Sentinel, SentinelFile, SentinelProblem, There, each_sentinel_file,
};

/// Bound on what is read as a sentinel: 100,000 files need about 25 MB.
const MAX_SENTINEL_BYTES: u64 = 256 << 20;

/// Bound on a line of a sentinel that another tenant may have written: a path and what is around it need
/// far less.
const MAX_LINE_BYTES: usize = 64 << 10;

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
    with_sentinel_at(family, SENTINEL, read)
}

/// The same of the sentinel that has this name in `dir`.
pub(super) fn with_sentinel_at<T>(
    dir: &Dir,
    name: &str,
    read: impl FnOnce(File) -> Result<T, SentinelProblem>,
) -> Result<Option<T>, StoreError> {
    // The directory has been opened: on NFS a bare look for a missing name is answered from a
    // negative cache for many seconds after it has appeared.
    let Some(file) = dir.read_file(name)? else {
        return Ok(None);
    };
    let path = || dir.path_of(name);
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

/// Hands over each file that the sentinel in `dir` lists. What another model says is read with a bound on
/// its lines, since each value is held in memory.
pub(super) fn each_listed_file(
    dir: &Dir,
    giver: Giver,
    each: &mut dyn FnMut(SentinelFile) -> ControlFlow<()>,
) -> Result<(), StoreError> {
    let max_line = if giver == Giver::SameModel { usize::MAX } else { MAX_LINE_BYTES };
    let read = |json| each_sentinel_file(ShortLines { json, line: 0, max_line }, each);
    with_sentinel(dir, read).map(|_| ())
}

/// A text that ends where a line is too long.
struct ShortLines<R> {
    json: R,
    /// Bytes of the line so far.
    line: usize,
    max_line: usize,
}

impl<R: Read> Read for ShortLines<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.json.read(buffer)?;
        for part in buffer[..count].split_inclusive(|byte| *byte == b'\n') {
            self.line += part.len();
            if self.line > self.max_line {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is too long"));
            }
            if part.ends_with(b"\n") {
                self.line = 0;
            }
        }
        Ok(count)
    }
}

/// The first file that is missing or has another size than the sentinel says.
pub fn first_difference(family: &Dir, sentinel: &Sentinel) -> Result<Option<String>, StoreError> {
    let mut parent: Option<(String, Dir)> = None;
    for file in &sentinel.files {
        let Ok(path) = RelPath::parse(&file.path) else {
            return Ok(Some(format!("`{}` is not a safe path", file.path)));
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
