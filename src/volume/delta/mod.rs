//! What a new file has in common with files that lie on the volume is copied, so that only the rest is
//! fetched: by what a store of chunks tells of both. Equal bytes are looked for nowhere else.
//!
//! Knows nothing of how the store is asked.

mod chunker;
mod copying;
mod local;
mod overlap;

pub use local::{Likeness, LocalFiles, Unnamed};
pub use overlap::LocalTerms;

use copying::Reader;
use local::MIN_FILE_BYTES;
use overlap::makes;

use super::StoreError;
use super::recheck::Surroundings;
use super::staging::Staging;
use crate::content::{ChunkedFile, Recipe};
use crate::model::Digest;

/// So much may be read of local files for any file.
const LEAST_READ: u64 = 256 << 20;
/// The Hub's own name of a repo begins so in the name of a source.
const HUB: &str = "hf://";

impl Staging {
    /// The numbers of the files that a store of chunks could tell of, and that are not all here. Only those
    /// whose published digest proves the whole: bytes of other files are not trusted otherwise.
    pub fn divisible(&self) -> Vec<usize> {
        let is_divisible = |n: &usize| {
            let file = &self.files[*n];
            file.xet_hash.is_some()
                && file.digest.as_ref().is_some_and(Digest::identifies)
                && self.missing_bytes_of(*n) >= MIN_FILE_BYTES
        };
        (0..self.files.len()).filter(is_divisible).collect()
    }

    /// Bytes of file `n` that are not here.
    pub fn lacks(&self, n: usize) -> u64 {
        self.missing_bytes_of(n)
    }

    /// What the store is asked of file `n`, which is divisible.
    pub fn chunked(&self, n: usize) -> Option<ChunkedFile> {
        let file = &self.files[n];
        Some(ChunkedFile {
            repo: self.source_name().strip_prefix(HUB)?.to_owned(),
            revision: self.revision().to_owned(),
            id: *file.xet_hash.as_deref()?,
            size: file.size,
        })
    }

    /// Copies what file `n`, which is made by `recipe`, has in common with files that lie here. Returns the
    /// bytes that were copied. What cannot be read is not there; what cannot be written is an error.
    pub fn copy_common(
        &mut self,
        n: usize,
        recipe: &Recipe,
        terms: &LocalTerms,
        local: &LocalFiles,
        outside: &Surroundings<'_>,
    ) -> Result<u64, StoreError> {
        if !makes(recipe, self.files[n].size) {
            return Ok(0);
        }
        // What it costs to find them must not be more than what they save.
        let may_read = self.missing_bytes_of(n).saturating_mul(4);
        let mut reader = Reader::new(local, may_read.max(LEAST_READ), outside);
        let copies = terms.copies(recipe, &mut |term| reader.lengths(term));
        self.copy_all(n, &copies, &mut reader)
    }
}
