//! Files that lie in archives, which can be read from their beginning only.

use std::path::Path;

use async_trait::async_trait;

use crate::model::RemoteFile;
use crate::net::SourceError;

/// A source that holds archives. Once they are unpacked, it lists and gives what is in them like any other
/// file.
#[async_trait]
pub trait Archives: Send + Sync {
    /// Bytes of the archives as they are fetched; none where no file lies in one.
    async fn packed_bytes(&self) -> Result<u64, SourceError>;

    /// Reads every archive once, compares it with its digest, and puts its files into the directory `scratch`,
    /// under names of its own. `worked` is told of bytes as they come. It is one attempt: what was read before
    /// an error stays read.
    async fn unpack(
        &self,
        scratch: &Path,
        worked: &(dyn Fn(u64) + Sync),
    ) -> Result<(), SourceError>;

    /// The name in the scratch directory of a file that was unpacked.
    fn unpacked(&self, file: &RemoteFile) -> Option<String>;
}
