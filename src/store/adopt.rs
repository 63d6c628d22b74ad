//! Taking over what earlier attempts for a family have left: a killed run is continued.
//!
//! An inode is taken over only if its writer is certainly gone. What a process on another node
//! wrote is copied, chunk by chunk, against the recorded checksums: its kernel may still write to
//! that inode.

use std::collections::HashMap;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use rustix::fs::OFlags;

use super::journal::{self, JournalFile, WrittenChunk};
use super::owner::{BEAT, Owner};
use super::place::PUBLISHING;
use super::publish::PublishingFile;
use super::staging::{Attempt, ID_SEPARATOR, OWNER, TREE};
use super::{Dir, Store, StoreError, node};
use crate::model::{Checksum, RelPath};

/// A writer of this boot whose heartbeat is older than this is gone.
const SILENT: Duration = BEAT.saturating_mul(2).saturating_add(Duration::from_secs(2));
const BUFFER_BYTES: usize = 256 << 10;

/// How another attempt's bytes may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    /// The writer is gone and its page cache is ours: the files as they are.
    Move,
    /// The writer is gone, but so is what had not reached the disk: the files, re-checked.
    MoveChecked,
    /// The writer may still be there: re-checked copies.
    Copy,
}

impl Attempt {
    /// Takes over what can be trusted of other attempts for this family; returns the bytes that
    /// need not be fetched again. `say` tells the user what is waited for.
    pub fn adopt(&mut self, store: &Store, say: &dyn Fn(String)) -> Result<u64, StoreError> {
        self.adopt_unfinished_publication(store)?;
        let attempts = self.state.make_child("attempts")?;
        for name in self.other_attempts(&attempts)? {
            let Some(old) = attempts.child(&name)? else {
                continue;
            };
            let Some((header, files)) = journal::read(&old)? else {
                continue;
            };
            if header.family != self.state_name {
                continue;
            }
            let trust = self.trust(&old, &header, say)?;
            if let Some(tree) = old.child(TREE)? {
                for file in files {
                    self.adopt_file(&tree, &file, trust)?;
                }
            }
            if trust != Trust::Copy {
                attempts.remove_tree(&name)?;
            }
        }
        Ok(self.present.iter().flatten().map(|chunk| chunk.range.end - chunk.range.start).sum())
    }

    /// Removes attempts for this family whose writers are certainly gone.
    pub(super) fn sweep(&self) -> Result<(), StoreError> {
        let Some(attempts) = self.state.child("attempts")? else {
            return Ok(());
        };
        for name in self.other_attempts(&attempts)? {
            let Some(old) = attempts.child(&name)? else {
                continue;
            };
            // Without a readable journal nobody can tell whose it is; it is small, and stays.
            let Some((header, _)) = journal::read(&old)? else {
                continue;
            };
            let gone = if self.writer.same_boot(&header.writer) {
                !journal::is_held(&old)? && self.is_silent(&old, &header)
            } else {
                is_local(&old)
            };
            if header.family == self.state_name && gone {
                attempts.remove_tree(&name)?;
            }
        }
        Ok(())
    }

    fn other_attempts(&self, attempts: &Dir) -> Result<Vec<String>, StoreError> {
        let prefix = format!("{}{ID_SEPARATOR}", self.state_name);
        let mut names = attempts.names()?;
        names.retain(|name| name.starts_with(&prefix) && *name != self.id);
        Ok(names)
    }

    fn trust(
        &self,
        old: &Dir,
        header: &journal::Header,
        say: &dyn Fn(String),
    ) -> Result<Trust, StoreError> {
        if !self.writer.same_boot(&header.writer) {
            return Ok(if is_local(old) { Trust::MoveChecked } else { Trust::Copy });
        }
        if journal::is_held(old)? {
            return Ok(Trust::Copy);
        }
        // The lock is free, but locks may lie: the process must be gone or silent as well.
        let mut told = false;
        let started = std::time::Instant::now();
        while !self.is_silent(old, header) {
            if !std::mem::replace(&mut told, true) {
                say(format!(
                    "waiting up to {}s to be sure that the earlier attempt of `{}` has ended",
                    SILENT.as_secs(),
                    header.writer.host
                ));
            }
            if started.elapsed() > SILENT + BEAT {
                return Ok(Trust::Copy);
            }
            std::thread::sleep(Duration::from_millis(500));
        }
        Ok(Trust::Move)
    }

    /// Whether the writer of `old`, of this boot, is gone or has not given a sign for long enough.
    fn is_silent(&self, old: &Dir, header: &journal::Header) -> bool {
        if self.writer.sees_gone(&header.writer) {
            return true;
        }
        let Some(owner) = Owner::read(old, OWNER) else {
            return false;
        };
        let age = node::since_boot().saturating_sub(Duration::from_millis(owner.since_boot_ms));
        age > SILENT
    }

    fn adopt_file(
        &mut self,
        tree: &Dir,
        file: &JournalFile,
        trust: Trust,
    ) -> Result<(), StoreError> {
        let Some(n) = self.wanted(&file.identity, file.size) else {
            return Ok(());
        };
        let Ok(path) = RelPath::parse(&file.path) else {
            return Ok(());
        };
        if file.chunks.is_empty() {
            return Ok(());
        }
        let parent = path.parent().into_iter().flat_map(|parent| parent.split('/'));
        let Some(from) = tree.descend(parent)? else {
            return Ok(());
        };
        if from.file_size(path.name())? != Some(file.size) {
            return Ok(());
        }
        if trust == Trust::Copy {
            return self.copy_chunks(n, &from, path.name(), &file.chunks);
        }
        let chunks = match trust {
            Trust::MoveChecked => intact_chunks(&from, path.name(), &file.chunks)?,
            _ => file.chunks.clone(),
        };
        self.take_over(n, &from, path.name(), chunks)
    }

    /// Moves a file into this attempt. The journal comes first: a record without its file is
    /// ignored, a file without its record is lost.
    fn take_over(
        &mut self,
        n: usize,
        from: &Dir,
        name: &str,
        chunks: Vec<WrittenChunk>,
    ) -> Result<(), StoreError> {
        if chunks.is_empty() {
            return Ok(());
        }
        self.journal.file(n, &self.files[n], &self.identities[n])?;
        for chunk in &chunks {
            self.journal.chunk(n, chunk)?;
        }
        from.rename(name, &self.directory_of(n)?, self.files[n].path.name())?;
        self.set_exists(n, true);
        self.present[n] = chunks;
        Ok(())
    }

    fn copy_chunks(
        &mut self,
        n: usize,
        from: &Dir,
        name: &str,
        chunks: &[WrittenChunk],
    ) -> Result<(), StoreError> {
        let Some(source) = from.read_file(name)? else {
            return Ok(());
        };
        let target = self.open(n)?;
        let mut buffer = vec![0; BUFFER_BYTES];
        for chunk in chunks {
            let mut crc = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc64Nvme);
            let mut at = chunk.range.start;
            while at < chunk.range.end {
                let len = buffer.len().min((chunk.range.end - at) as usize);
                // A file that shrinks under us is simply not what the journal says.
                if source.read_exact_at(&mut buffer[..len], at).is_err() {
                    break;
                }
                crc.update(&buffer[..len]);
                target.write_at(&buffer[..len], at)?;
                at += len as u64;
            }
            if at == chunk.range.end && crc.finalize() == chunk.crc64 {
                self.journal.chunk(n, chunk)?;
                self.present[n].push(chunk.clone());
            }
        }
        Ok(())
    }

    /// Which file of this attempt has this content and nothing of it yet.
    fn wanted(&self, identity: &str, size: u64) -> Option<usize> {
        (0..self.files.len()).find(|n| {
            self.identities[*n] == identity && self.files[*n].size == size && !self.exists(*n)
        })
    }

    /// A publication file by file was cut off: what it had moved already is taken back.
    fn adopt_unfinished_publication(&mut self, store: &Store) -> Result<(), StoreError> {
        if !store.in_place {
            return Ok(());
        }
        let Some(list) = self.state.read(PUBLISHING, 256 << 20)? else {
            return Ok(());
        };
        let Some(family) = store.family_dir()? else {
            return Ok(());
        };
        let list: Vec<PublishingFile> = serde_json::from_slice(&list).unwrap_or_default();
        let by_identity: HashMap<&str, &PublishingFile> =
            list.iter().map(|file| (file.identity.as_str(), file)).collect();
        for n in 0..self.files.len() {
            let Some(moved) = by_identity.get(self.identities[n].as_str()) else {
                continue;
            };
            let Ok(path) = RelPath::parse(&moved.path) else {
                continue;
            };
            let parent = path.parent().into_iter().flat_map(|parent| parent.split('/'));
            let Some(from) = family.descend(parent)? else {
                continue;
            };
            let size = self.files[n].size;
            if size == 0 || from.file_size(path.name())? != Some(size) {
                continue;
            }
            let range = 0..size;
            let crc64 = crc_of(&from, path.name(), &range)?.unwrap_or_default();
            self.take_over(n, &from, path.name(), vec![WrittenChunk { range, crc64 }])?;
        }
        Ok(())
    }
}

/// Those of `chunks` whose bytes are still what the journal says.
fn intact_chunks(
    from: &Dir,
    name: &str,
    chunks: &[WrittenChunk],
) -> Result<Vec<WrittenChunk>, StoreError> {
    let mut intact = Vec::new();
    for chunk in chunks {
        if crc_of(from, name, &chunk.range)? == Some(chunk.crc64) {
            intact.push(chunk.clone());
        }
    }
    Ok(intact)
}

fn crc_of(dir: &Dir, name: &str, range: &std::ops::Range<u64>) -> Result<Option<u64>, StoreError> {
    let Some(file) = dir.open_file(name, OFlags::RDONLY)? else {
        return Ok(None);
    };
    let Some(algorithm) = Checksum::Crc64Nvme.crc_algorithm() else {
        return Ok(None);
    };
    let mut crc = crc_fast::Digest::new(algorithm);
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut at = range.start;
    while at < range.end {
        let len = buffer.len().min((range.end - at) as usize);
        if file.read_exact_at(&mut buffer[..len], at).is_err() {
            return Ok(None);
        }
        crc.update(&buffer[..len]);
        at += len as u64;
    }
    Ok(Some(crc.finalize()))
}

/// Whether only one node at a time can have this filesystem mounted, so that a writer of an earlier
/// boot cannot exist any more.
fn is_local(dir: &Dir) -> bool {
    const EXT: u64 = 0xef53;
    const XFS: u64 = 0x5846_5342;
    const BTRFS: u64 = 0x9123_683e;
    const TMPFS: u64 = 0x0102_1994;
    const OVERLAY: u64 = 0x794c_7630;
    rustix::fs::fstatfs(dir)
        .is_ok_and(|stat| [EXT, XFS, BTRFS, TMPFS, OVERLAY].contains(&(stat.f_type as u64)))
}
