//! Part of a file that lies on this machine, as a body.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use bytes::Bytes;

use crate::model::ErrorFields;
use crate::net::{Problem, SourceError};

/// Brought at once; what a reader holds in memory of a file.
const PIECE_BYTES: u64 = 256 << 10;

/// What can go wrong with a file of this machine.
#[derive(Debug, thiserror::Error)]
pub enum PartProblem {
    #[error("`{file}` ended {left} bytes early")]
    Short { file: String, left: u64 },
    #[error("cannot read `{file}`: {why}")]
    Unreadable { file: String, why: std::io::Error },
}

impl Problem for PartProblem {
    fn fields(&self) -> ErrorFields {
        let (Self::Short { file, .. } | Self::Unreadable { file, .. }) = self;
        ErrorFields::of_file(file)
    }
}

/// Exactly the bytes of a range of an open file, or an error.
#[derive(Debug)]
pub struct FilePart {
    file: File,
    /// For messages; inert.
    name: String,
    range: Range<u64>,
}

impl FilePart {
    pub fn new(file: File, name: String, range: Range<u64>) -> Self {
        Self { file, name, range }
    }

    /// Blocks its thread for as long as the disk takes, as the writer of these bytes does: a worker has
    /// a thread of its own.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, SourceError> {
        // Nothing here ever waits, and whoever wants to stop the reader must have a turn.
        tokio::task::yield_now().await;
        let left = self.range.end - self.range.start;
        if left == 0 {
            return Ok(None);
        }
        let mut piece = vec![0; left.min(PIECE_BYTES) as usize];
        let len = loop {
            match self.file.read_at(&mut piece, self.range.start) {
                Ok(0) => {
                    let file = self.name.clone();
                    return Err(SourceError::Unreachable(PartProblem::Short { file, left }.into()));
                }
                Ok(len) => break len,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(why) => {
                    let file = self.name.clone();
                    return Err(SourceError::Unreachable(
                        PartProblem::Unreadable { file, why }.into(),
                    ));
                }
            }
        };
        piece.truncate(len);
        self.range.start += len as u64;
        Ok(Some(piece.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_exactly_its_range_or_an_error() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("file");
        let content: Vec<u8> = (0..600_000_u32).map(|n| n as u8).collect();
        std::fs::write(&path, &content).expect("written");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let read = |range: Range<u64>| {
            let file = File::open(&path).expect("opened");
            let mut part = FilePart::new(file, "file".into(), range);
            runtime.block_on(async {
                let mut bytes = Vec::new();
                while let Some(piece) = part.next().await? {
                    bytes.extend_from_slice(&piece);
                }
                Ok::<_, SourceError>(bytes)
            })
        };
        for range in [0..600_000, 0..1, 599_999..600_000, 5..300_000, 7..7] {
            let expected = &content[range.start as usize..range.end as usize];
            assert!(read(range.clone()).expect("is there") == expected, "{range:?}");
        }
        // Cut off by somebody meanwhile.
        assert!(matches!(read(0..600_001), Err(SourceError::Unreachable(_))));
    }
}
