//! What a fetch would find on the volume: the same looks as reuse and adoption take, without a write.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;

use super::attempts::open_attempt;
use super::existing::{each_listed_file, with_sentinel};
use super::files::Blobs;
use super::reuse::identities;
use super::staging::{ATTEMPTS, ID_SEPARATOR, content_identity};
use super::{Store, StoreError, journal};
use crate::fs::{Dir, space};
use crate::model::{Digest, Giver, RelPath, RemoteFile, SentinelHead, content_named, gaps};

/// What is there of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Foreseen {
    /// It has to be fetched.
    Nothing,
    /// A model below the root has the content: the one at this path.
    Model(String),
    /// An attempt that was cut off has so many bytes of it.
    Part(u64),
}

struct Search<'a> {
    files: &'a [RemoteFile],
    /// The numbers of the files with this content.
    wanted: HashMap<(String, u64), Vec<usize>>,
    found: Vec<Foreseen>,
    missing: usize,
}

impl Store {
    /// What of `files`, which `source_name` lists at `revision`, is on the volume. Chunks that other files have are
    /// not looked for, so that what is left is the most that a fetch needs. `go_on` is asked now and then.
    pub fn foresee(
        &self,
        source_name: &str,
        revision: &str,
        files: &[RemoteFile],
        go_on: &dyn Fn() -> bool,
    ) -> Result<Vec<Foreseen>, StoreError> {
        let mut wanted: HashMap<(String, u64), Vec<usize>> = HashMap::new();
        for (n, file) in files.iter().enumerate().filter(|(_, file)| file.size > 0) {
            let identity = content_identity(file, source_name, revision);
            wanted.entry((identity, file.size)).or_default().push(n);
        }
        let missing = wanted.values().map(Vec::len).sum();
        let found = vec![Foreseen::Nothing; files.len()];
        let mut search = Search { files, wanted, found, missing };
        if self.cache.is_some()
            && let Some(blobs) = self.cached_repo()?.map(|repo| repo.blobs()).transpose()?.flatten()
        {
            search.look_at_blobs(&blobs);
        }
        if let Some(family) = self.family_dir()? {
            search.look_in(&self.family_path(), &family, Giver::SameModel);
        }
        for kept in self.kept_trees()? {
            if let (true, Ok(Some(dir))) = (go_on(), self.kept_dir(&kept.id)) {
                search.look_in(&self.path_of_kept(&kept.id), &dir, Giver::SameModel);
            }
        }
        self.parts(&mut search)?;
        if search.missing > 0 {
            self.each_other_revision(&mut |path, dir| {
                search.look_in(path, dir, Giver::OtherModel);
                match search.missing > 0 && go_on() {
                    true => ControlFlow::Continue(()),
                    false => ControlFlow::Break(()),
                }
            });
        }
        Ok(search.found)
    }

    /// What attempts that were cut off have. Whether it will be trusted is seen when it is taken over.
    fn parts(&self, search: &mut Search<'_>) -> Result<(), StoreError> {
        let Some(attempts) =
            self.state()?.map(|state| state.child(ATTEMPTS)).transpose()?.flatten()
        else {
            return Ok(());
        };
        let prefix = format!("{}{ID_SEPARATOR}", self.state_name());
        for name in attempts.names()?.iter().filter(|name| name.starts_with(&prefix)) {
            let Some(old) = open_attempt(&attempts, name).ok().flatten() else { continue };
            let Ok(Some((header, files))) = journal::read(&old) else { continue };
            if header.family != self.state_name() {
                continue;
            }
            for file in files {
                let ranges: Vec<_> = file.chunks.iter().map(|chunk| chunk.range.clone()).collect();
                let left: u64 =
                    gaps(file.size, &ranges).iter().map(|gap| gap.end - gap.start).sum();
                let key = (file.identity, file.size);
                let Some(numbers) = search.wanted.get(&key) else { continue };
                let is_nothing = |n: &&usize| search.found[**n] == Foreseen::Nothing;
                if let (true, Some(n)) = (left < file.size, numbers.iter().find(is_nothing)) {
                    search.found[*n] = Foreseen::Part(file.size - left);
                }
            }
        }
        Ok(())
    }

    /// Bytes that are free where the model would lie, and whether `bytes` in `inodes` files fit there.
    pub fn has_room(
        &self,
        bytes: u64,
        inodes: u64,
    ) -> Result<(u64, Result<(), StoreError>), StoreError> {
        // A directory that stays the one it is may be a volume of its own.
        let path = self.family_path();
        for above in path.ancestors().skip(usize::from(!self.in_place)) {
            if let Some(dir) = Dir::open(above)? {
                let room = space::check(&dir, bytes, inodes).map_err(StoreError::from);
                return Ok((space::free_bytes(&dir)?, room));
            }
        }
        Ok((u64::MAX, Ok(())))
    }
}

impl Search<'_> {
    /// Blobs of the repo in a cache, by their names.
    fn look_at_blobs(&mut self, blobs: &Blobs) {
        let shown = blobs.dir.path().display().to_string();
        let identities: Vec<_> = self.wanted.keys().cloned().collect();
        for (identity, size) in identities {
            let name = identity.rsplit(':').next().unwrap_or_default();
            if content_named(name).is_none_or(|named| named != identity) {
                continue;
            }
            let found = blobs.find(name).ok().flatten();
            let is_there = found.is_some_and(
                |(dir, name)| matches!(dir.file_size(&name), Ok(Some(there)) if there == size),
            );
            for n in self
                .wanted
                .get(&(identity, size))
                .cloned()
                .filter(|_| is_there)
                .into_iter()
                .flatten()
            {
                self.found[n] = Foreseen::Model(shown.clone());
                self.missing -= 1;
            }
        }
    }

    /// What cannot be read is not there.
    fn look_in(&mut self, path: &Path, dir: &Dir, giver: Giver) {
        let needs_place =
            self.files.iter().any(|file| file.digest.as_ref().is_some_and(Digest::is_checksum));
        let head =
            if needs_place { with_sentinel(dir, SentinelHead::read).ok().flatten() } else { None };
        let source_name = head.map(|head| head.source).unwrap_or_default();
        let shown = path.display().to_string();
        let _ = each_listed_file(dir, giver, &mut |file| {
            for identity in identities(&source_name, &file) {
                let Some(numbers) = self.wanted.get(&(identity, file.size)) else { continue };
                if !has(dir, &file.path, file.size) {
                    break;
                }
                for n in numbers.clone() {
                    if !matches!(self.found[n], Foreseen::Model(_)) {
                        self.found[n] = Foreseen::Model(shown.clone());
                        self.missing -= 1;
                    }
                }
            }
            if self.missing > 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
    }
}

/// Whether a listed file is there as far as its size tells.
fn has(dir: &Dir, path: &str, size: u64) -> bool {
    let Ok(path) = RelPath::parse(path) else { return false };
    let above = path.parent().into_iter().flat_map(|parent| parent.split('/'));
    let Ok(Some(from)) = dir.descend(above) else { return false };
    matches!(from.file_size(path.name()), Ok(Some(there)) if there == size)
}
