//! The layers that are archives: each is read once from its first byte, and unpacked as it comes. A
//! connection that breaks is continued at the byte that was reached. Nothing of a layer is used before its
//! digest is right.

use std::path::Path;
use std::sync::{Arc, PoisonError};

use async_trait::async_trait;
use aws_lc_rs::digest::{self, SHA256};

use super::Oci;
use super::archive::{Changes, MAX_HELD_BYTES};
use super::archive_problem::ArchiveProblem;
use super::inflate::Stream;
use super::layers::{Packed, Root};
use super::manifest::shown;
use super::problem::OciProblem;
use super::unpacked::{Current, Unpacked, Unpacking, prefix, unusable};
use crate::content::{Archives, FilePart};
use crate::fs::Dir;
use crate::model::{Digest, RelPath, RemoteFile};
use crate::net::{Problem, SourceError};

/// Clean reads of a layer whose bytes are wrong, before that is what the registry has.
const MAX_DAMAGED: u32 = 3;
/// A layer is begun anew so often where the registry serves no ranges.
const MAX_RESTARTS: u32 = 4;

impl Oci {
    /// What the archives hold; without a `scratch` directory their files are only hashed.
    pub(super) async fn unpacked_into(
        &self,
        scratch: Option<&Path>,
        worked: &(dyn Fn(u64) + Sync),
    ) -> Result<Arc<Unpacked>, SourceError> {
        let layers = self.layers().await?;
        let mut state = self.unpacking.lock().await;
        if let Some(done) = self.all_unpacked()
            && (scratch.is_none() || done.scratch.as_deref() == scratch)
        {
            return Ok(done);
        }
        if state.scratch.as_deref() != scratch {
            *state = Unpacking { scratch: scratch.map(Path::to_owned), ..Unpacking::default() };
        }
        while let Some(packed) = layers.packed.get(state.done.len()) {
            let changes = self.unpack_layer(&mut state, packed, worked).await?;
            let held = |all: &[Changes]| all.iter().map(|it| it.held).sum::<usize>();
            if held(&state.done) + changes.held > MAX_HELD_BYTES {
                let problem = ArchiveProblem::Names { most: MAX_HELD_BYTES };
                return Err(self.bad_archive(packed, problem));
            }
            state.done.push(changes);
        }
        let done = std::mem::take(&mut state.done);
        let unpacked = Unpacked::of(&layers.packed, done, scratch);
        let is_image = layers.packed.iter().any(|it| it.root == Root::Models);
        if is_image && unpacked.files.is_empty() && layers.files.is_empty() {
            let found = "an image without a file below `/models`".to_owned();
            let name = self.shown();
            return Err(SourceError::NotFound(OciProblem::NoModel { name, found }.into()));
        }
        let unpacked = Arc::new(unpacked);
        *self.unpacked.lock().unwrap_or_else(PoisonError::into_inner) = Some(unpacked.clone());
        Ok(unpacked)
    }

    pub(super) fn all_unpacked(&self) -> Option<Arc<Unpacked>> {
        self.unpacked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn unpack_layer(
        &self,
        state: &mut Unpacking,
        packed: &Packed,
        worked: &(dyn Fn(u64) + Sync),
    ) -> Result<Changes, SourceError> {
        if state.current.is_none() {
            state.begun += 1;
            let scratch = state.scratch.as_deref().map(|path| opened(path, state.begun));
            let stream = Stream::start(packed, scratch.transpose()?)?;
            let hash = digest::Context::new(&SHA256);
            state.current = Some(Current { stream, hash, at: 0, failed: None });
        }
        let read = match &mut state.current {
            Some(current) => self.read_layer(current, packed, worked).await,
            None => Ok(()),
        };
        match read {
            // What was unpacked lies behind what the registry is willing to send.
            Err(error @ SourceError::NoRanges { .. }) => {
                state.drop_current()?;
                state.restarts += 1;
                return Err(match state.restarts {
                    MAX_RESTARTS.. => self.bad_archive(packed, ArchiveProblem::Restarts),
                    _ => error,
                });
            }
            Err(error) if !error.is_transient() => {
                state.drop_current()?;
                return Err(error);
            }
            read => read?,
        }
        let Some(Current { stream, hash, failed, .. }) = state.current.take() else {
            return Err(self.bad_archive(packed, ArchiveProblem::GivenUp));
        };
        let found: Option<[u8; 32]> = hash.finish().as_ref().try_into().ok();
        if found != Some(packed.sha256) {
            let found = found.as_ref().map(shown).unwrap_or_default();
            let (name, asked) = (self.shown(), shown(&packed.sha256));
            let problem = OciProblem::OtherLayer { name, found, asked };
            state.clear()?;
            let came_by_peers = match &self.http.p2p {
                Some(p2p) => p2p.is_to_blame(&self.layer_file(packed)?),
                None => false,
            };
            // Twice at most: then they are read directly.
            state.damaged += u32::from(!came_by_peers);
            return Err(match state.damaged {
                MAX_DAMAGED.. => SourceError::Contradiction(problem.into()),
                _ => SourceError::Protocol(problem.into()),
            });
        }
        let unpacked = match failed {
            Some(problem) => Err(problem),
            None => stream.finish().await,
        };
        unpacked.map_err(|problem| self.bad_archive(packed, problem))
    }

    async fn read_layer(
        &self,
        current: &mut Current,
        packed: &Packed,
        worked: &(dyn Fn(u64) + Sync),
    ) -> Result<(), SourceError> {
        if current.at == packed.size {
            return Ok(());
        }
        let file = self.layer_file(packed)?;
        let mut body = self.read_blob(&self.client, &file, current.at..packed.size).await?;
        while let Some(piece) = body.next().await? {
            if current.failed.is_none()
                && let Err(problem) = current.stream.push(piece.clone()).await
            {
                // More bytes would change nothing.
                if matches!(problem, ArchiveProblem::Write(_)) {
                    return Err(self.bad_archive(packed, problem));
                }
                current.failed = Some(problem);
            }
            current.hash.update(&piece);
            current.at += piece.len() as u64;
            worked(piece.len() as u64);
        }
        Ok(())
    }

    /// The layer itself, as a file.
    fn layer_file(&self, packed: &Packed) -> Result<RemoteFile, SourceError> {
        let path = RelPath::parse(&format!("layer {}", shown(&packed.sha256)))?;
        let digest = Some(Digest::Sha256(packed.sha256));
        Ok(RemoteFile { path, size: packed.size, digest, validator: None, xet_hash: None })
    }

    fn bad_archive(&self, packed: &Packed, problem: ArchiveProblem) -> SourceError {
        let class = match &problem {
            ArchiveProblem::Path(refused) => return SourceError::UnsafePath(refused.clone()),
            ArchiveProblem::Packed { .. } | ArchiveProblem::Short | ArchiveProblem::Header => {
                SourceError::Contradiction
            }
            ArchiveProblem::Sparse
            | ArchiveProblem::Entries { .. }
            | ArchiveProblem::Names { .. }
            | ArchiveProblem::Bomb { .. }
            | ArchiveProblem::Entry { .. }
            | ArchiveProblem::Link { .. } => SourceError::Unsafe,
            ArchiveProblem::Write(_) => SourceError::Unusable,
            ArchiveProblem::GivenUp => SourceError::Unreachable,
            // More tries in this run would each begin at the first byte.
            ArchiveProblem::Restarts => SourceError::Stale,
        };
        class(BadLayer { name: self.shown(), layer: shown(&packed.sha256), problem }.into())
    }

    /// A part of a file that was unpacked, if this is one.
    pub(super) fn read_unpacked(
        &self,
        file: &RemoteFile,
        range: std::ops::Range<u64>,
    ) -> Result<Option<FilePart>, SourceError> {
        let Some(unpacked) = self.all_unpacked() else { return Ok(None) };
        let Some(name) = unpacked.names.get(&file.path) else { return Ok(None) };
        let (Some(scratch), Some(name)) = (&unpacked.scratch, name) else {
            return Err(SourceError::Unusable(
                OciProblem::OnlyListed { name: self.shown(), file: file.path.to_string() }.into(),
            ));
        };
        let dir = Dir::open(scratch).map_err(unusable)?;
        let opened = dir.map(|dir| dir.read_file(name)).transpose().map_err(unusable)?.flatten();
        match opened {
            Some(opened) => Ok(Some(FilePart::new(opened, file.path.to_string(), range))),
            None => Err(SourceError::Unreachable("the unpacked files were removed".into())),
        }
    }
}

#[async_trait]
impl Archives for Oci {
    async fn packed_bytes(&self) -> Result<u64, SourceError> {
        let packed = &self.layers().await?.packed;
        Ok(packed.iter().fold(0, |sum: u64, layer| sum.saturating_add(layer.size)))
    }

    async fn unpack(
        &self,
        scratch: &Path,
        worked: &(dyn Fn(u64) + Sync),
    ) -> Result<(), SourceError> {
        self.unpacked_into(Some(scratch), worked).await.map(|_| ())
    }

    fn unpacked(&self, file: &RemoteFile) -> Option<String> {
        self.all_unpacked()?.names.get(&file.path).cloned().flatten()
    }
}

/// A layer that is not used.
#[derive(Debug, thiserror::Error)]
#[error("the layer {layer} of `{name}` is not used: {problem}")]
struct BadLayer {
    name: String,
    layer: String,
    problem: ArchiveProblem,
}

impl Problem for BadLayer {
    fn fields(&self) -> crate::model::ErrorFields {
        self.problem.fields()
    }
}

fn opened(scratch: &Path, begun: u32) -> Result<(Dir, String), SourceError> {
    match Dir::open(scratch).map_err(unusable)? {
        Some(dir) => Ok((dir, prefix(begun))),
        None => Err(SourceError::Unreachable("the directory to unpack into was removed".into())),
    }
}
