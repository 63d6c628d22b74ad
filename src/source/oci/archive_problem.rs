//! What can be wrong with an archive.

use crate::model::{ErrorFields, UnsafePath, text};
use crate::net::Problem;

/// How often more than it takes packed an archive may hold.
pub const MAX_RATIO: u64 = 200;

/// Why an archive is not used. Names are inert.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveProblem {
    #[error("it is not packed as its type says: {why}")]
    Packed { why: String },
    #[error("it ends in the middle of a file")]
    Short,
    #[error("it has a header that is not of a tar archive, or is too long")]
    Header,
    #[error("it holds a sparse file, which weightlift does not read")]
    Sparse,
    #[error("it holds more than {most} entries")]
    Entries { most: usize },
    #[error("the names of its files take more than {}", text::size(*most as u64))]
    Names { most: usize },
    #[error("it holds more than {}, {MAX_RATIO} times what it takes packed", text::size(*most))]
    Bomb { most: u64 },
    #[error("{0}")]
    Path(UnsafePath),
    #[error("`{name}` in it is {what}")]
    Entry { name: String, what: &'static str },
    #[error("`{name}` in it is a link to `{target}`, which is not a file of the same archive")]
    Link { name: String, target: String },
    #[error("the registry serves no ranges of it and closed the connection early each time")]
    Restarts,
    #[error("cannot write an unpacked file: {0}")]
    Write(String),
    #[error("the unpacking was given up")]
    GivenUp,
}

impl Problem for ArchiveProblem {
    fn fields(&self) -> ErrorFields {
        match self {
            Self::Path(refused) => ErrorFields::of_file(&refused.name),
            Self::Entry { name, .. } | Self::Link { name, .. } => ErrorFields::of_file(name),
            _ => ErrorFields::default(),
        }
    }
}

impl From<UnsafePath> for ArchiveProblem {
    fn from(refused: UnsafePath) -> Self {
        Self::Path(refused)
    }
}
