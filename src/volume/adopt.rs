//! Taking over what earlier attempts for a family have left: a killed run is continued.
//!
//! An inode is taken over only if its writer is certainly gone. What a process on another node
//! wrote is copied, chunk by chunk, against the recorded checksums: its kernel may still write to
//! that inode.

use std::cmp::Reverse;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::adopt_dir::AdoptedDir;
use super::attempts::open_attempt;
use super::closed::{Closed, unless_closed};
use super::fill::{Publishing, PublishingFile};
use super::journal::{self, Header, JournalFile, WrittenChunk};
use super::recheck::{Surroundings, bytes_of, copy_range, crc_of, intact_chunks};
use super::scratch::UNPACKED;
use super::settle::settle;
use super::staging::{ATTEMPTS, ID_SEPARATOR, OWNER, Presence, Staging, TREE};
use super::sweep::{remove_attempt, remove_gone};
use super::wanted::Wanted;
use super::{Store, StoreError};
use crate::fs::{Dir, NodeIdentity, filesystem, node, space};
use crate::lock::heartbeat::{BEAT, Owner, STOPPED_AT_AGE};
use crate::model::{Digest, RelPath, SENTINEL, STATE_DIR, gaps};

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

impl Staging {
    /// Takes over what lies on the volume already, the cheapest first: of other revisions of this family, of
    /// its other attempts what can be trusted, of other families, and of `directories`. Returns the bytes
    /// that need not be fetched.
    pub fn adopt(
        &mut self,
        store: &Store,
        directories: &[AdoptedDir],
        outside: &Surroundings<'_>,
    ) -> Result<u64, StoreError> {
        let mut wanted = Wanted::of(self);
        self.reuse(store, &mut wanted, outside)?;
        if store.cache.is_some() {
            self.adopt_from_cache(store, &mut wanted, outside)?;
        }
        self.adopt_attempts(store, &mut wanted, outside)?;
        // What is there in part may be whole elsewhere.
        let has = |chunks: &[WrittenChunk], n: usize| is_whole(self.files[n].size, chunks);
        self.present
            .iter()
            .filter(|(n, chunks)| !has(chunks, **n))
            .for_each(|(n, _)| wanted.want(*n));
        self.reuse_others(store, &mut wanted, outside)?;
        for directory in directories {
            self.adopt_directory(directory, &mut wanted, outside)?;
        }
        Ok(self.present.values().flatten().map(|chunk| chunk.range.end - chunk.range.start).sum())
    }

    fn adopt_attempts(
        &mut self,
        store: &Store,
        wanted: &mut Wanted,
        outside: &Surroundings<'_>,
    ) -> Result<(), StoreError> {
        self.adopt_unfinished_publication(store, wanted, outside)?;
        let attempts = self.state.make_child(ATTEMPTS)?;
        // One wait for all of them together.
        let give_up_at = Instant::now() + STOPPED_AT_AGE + BEAT;
        let mut names = self.other_attempts(&attempts)?;
        // Of a file that several have begun the first is used.
        names.sort_by_cached_key(|name| Reverse(journalled_bytes(&attempts, name)));
        for name in names {
            if !(outside.go_on)() {
                break;
            }
            if let Err(error) =
                self.adopt_attempt(store, &attempts, &name, give_up_at, wanted, outside)
            {
                if !error.is_closed() {
                    return Err(error);
                }
                (outside.say)(format!("warning: an earlier attempt is not reused: {error}"));
            }
        }
        Ok(())
    }

    /// Takes over what one attempt has.
    fn adopt_attempt(
        &mut self,
        store: &Store,
        attempts: &Dir,
        name: &str,
        give_up_at: Instant,
        wanted: &mut Wanted,
        outside: &Surroundings<'_>,
    ) -> Result<(), StoreError> {
        let Some(old) = open_attempt(attempts, name)? else { return Ok(()) };
        let Some((header, files)) = journal::read(&old)? else {
            return self.remove_forgotten(attempts, name, &old);
        };
        if header.family != self.state_name || self.is_unpacking(&old, &header)? {
            return Ok(());
        }
        let trust = match self.trust(&old, &header, give_up_at, outside)? {
            // Another user's, which we may read and not take apart.
            _ if old.is_closed(".") || old.is_closed(TREE) => Trust::Copy,
            trust => trust,
        };
        if trust != Trust::Copy {
            settle(&self.state, store, &old, name, &header)?;
        }
        let mut closed = Closed::default();
        if let Some(tree) = old.child(TREE)? {
            for file in files {
                closed.pass_over(self.adopt_file(&tree, &file, trust, wanted, outside))?;
            }
        }
        closed.say("an earlier attempt", outside);
        if trust != Trust::Copy
            && closed.is_empty()
            && (outside.go_on)()
            && let Err(error) = remove_attempt(attempts, name)
        {
            (outside.say)(format!("warning: an earlier attempt could not be removed: {error}"));
        }
        Ok(())
    }

    /// Removes attempts for this family whose writers are certainly gone.
    pub(super) fn sweep(&self, store: &Store) -> Result<(), StoreError> {
        let Some(attempts) = self.state.child(ATTEMPTS)? else { return Ok(()) };
        for name in self.other_attempts(&attempts)? {
            unless_closed(self.sweep_attempt(store, &attempts, &name))?;
        }
        Ok(())
    }

    fn sweep_attempt(&self, store: &Store, attempts: &Dir, name: &str) -> Result<(), StoreError> {
        let Some(old) = open_attempt(attempts, name)? else { return Ok(()) };
        let Some((header, _)) = journal::read(&old)? else {
            return self.remove_forgotten(attempts, name, &old);
        };
        if header.family == self.state_name
            && !self.is_unpacking(&old, &header)?
            && self.is_gone(&old, &header)? == Some(true)
            // It can be renamed by whoever may not look into it, and not removed.
            && !old.is_closed(".")
        {
            settle(&self.state, store, &old, name, &header)?;
            remove_attempt(attempts, name)?;
        }
        Ok(())
    }

    /// Removes what killed runs of this family have unpacked: nobody can go on with it, and it can be as much as
    /// the model.
    pub fn clear_unpacked(&self) -> Result<(), StoreError> {
        let Some(attempts) = self.state.child(ATTEMPTS)? else { return Ok(()) };
        for name in self.other_attempts(&attempts)? {
            unless_closed(self.clear_unpacked_of(&attempts, &name))?;
        }
        Ok(())
    }

    fn clear_unpacked_of(&self, attempts: &Dir, name: &str) -> Result<(), StoreError> {
        let Some(old) = open_attempt(attempts, name)? else { return Ok(()) };
        let Some((header, _)) = journal::read(&old)? else { return Ok(()) };
        if header.family == self.state_name
            && !self.is_unpacking(&old, &header)?
            && self.is_gone(&old, &header)? == Some(true)
        {
            old.remove_tree(UNPACKED)?;
        }
        Ok(())
    }

    fn other_attempts(&self, attempts: &Dir) -> Result<Vec<String>, StoreError> {
        let prefix = format!("{}{ID_SEPARATOR}", self.state_name);
        let mut names = attempts.names()?;
        names.retain(|name| name.starts_with(&prefix) && *name != self.id);
        remove_gone(attempts, &mut names)?;
        Ok(names)
    }

    fn is_gone(&self, old: &Dir, header: &Header) -> Result<Option<bool>, StoreError> {
        is_gone(&self.writer, old, header)
    }

    fn trust(
        &self,
        old: &Dir,
        header: &Header,
        give_up_at: Instant,
        outside: &Surroundings<'_>,
    ) -> Result<Trust, StoreError> {
        if !self.writer.same_boot(&header.writer) {
            let is_gone = self.is_gone(old, header)? == Some(true);
            return Ok(if is_gone { Trust::MoveChecked } else { Trust::Copy });
        }
        let mut told = false;
        while self.is_gone(old, header)? != Some(true) {
            if journal::is_held(old)? || Instant::now() > give_up_at || !(outside.go_on)() {
                return Ok(Trust::Copy);
            }
            if !std::mem::replace(&mut told, true) {
                (outside.say)(format!(
                    "waiting up to {}s to be sure that the earlier attempt of `{}` has ended",
                    STOPPED_AT_AGE.as_secs(),
                    header.writer.host
                ));
            }
            std::thread::sleep(Duration::from_millis(500));
        }
        Ok(Trust::Move)
    }

    fn adopt_file(
        &mut self,
        tree: &Dir,
        file: &JournalFile,
        trust: Trust,
        wanted: &mut Wanted,
        outside: &Surroundings<'_>,
    ) -> Result<(), StoreError> {
        let Some(n) = wanted.find(self, &file.identity, file.size) else { return Ok(()) };
        let Ok(path) = RelPath::parse(&file.path) else { return Ok(()) };
        if file.chunks.is_empty() {
            return Ok(());
        }
        let parent = path.parent().into_iter().flat_map(|parent| parent.split('/'));
        let Some(from) = tree.descend(parent)? else { return Ok(()) };
        let name = path.name();
        if from.file_size(name)? != Some(file.size) {
            return Ok(());
        }
        // Where no published digest could refute it, nobody would see later what is wrong now.
        let is_provable = self.files[n].digest.as_ref().is_some_and(Digest::refutes);
        let chunks = match trust {
            Trust::Move if is_provable => file.chunks.clone(),
            Trust::Move | Trust::MoveChecked => intact_chunks(&from, name, &file.chunks, outside)?,
            Trust::Copy => return self.copy_chunks(n, &from, name, &file.chunks, wanted, outside),
        };
        let Some(has_other_names) = from.has_other_names(name)? else { return Ok(()) };
        let is_whole = is_whole(file.size, &chunks);
        let access = if is_whole { OFlags::RDONLY } else { OFlags::RDWR };
        let is_closed = from.open_file(name, access).is_err_and(|error| error.is_closed());
        if is_closed || !is_whole && has_other_names {
            // It can be renamed by whoever may not open it, and be of no use. Or there is another name for it, which
            // we did not make: what we write would be seen there.
            return self.copy_chunks(n, &from, name, &chunks, wanted, outside);
        }
        // Stopped in the middle, it leaves what nobody has looked at where it is.
        if !chunks.is_empty() && (outside.go_on)() {
            self.take_over(n, &from, name, chunks, wanted)?;
        }
        Ok(())
    }

    /// Moves a file into this attempt, unless another process was faster. The journal comes first:
    /// a record without its file is ignored, a file without its record is lost.
    fn take_over(
        &mut self,
        n: usize,
        from: &Dir,
        name: &str,
        chunks: Vec<WrittenChunk>,
        wanted: &mut Wanted,
    ) -> Result<(), StoreError> {
        self.journal.file(n, &self.files[n], &self.identity(n))?;
        for chunk in &chunks {
            self.journal.chunk(n, chunk)?;
        }
        match from.rename(name, &self.directory_of(n)?, self.files[n].path.name()) {
            Err(error) if error.errno() == Some(Errno::NOENT) => return self.journal.discard(n),
            renamed => renamed?,
        }
        wanted.take(n);
        let is_whole = is_whole(self.files[n].size, &chunks);
        self.set_presence(n, if is_whole { Presence::Whole } else { Presence::Ours });
        self.present.insert(n, chunks);
        Ok(())
    }

    fn copy_chunks(
        &mut self,
        n: usize,
        from: &Dir,
        name: &str,
        chunks: &[WrittenChunk],
        wanted: &mut Wanted,
        outside: &Surroundings<'_>,
    ) -> Result<(), StoreError> {
        // Beside a writer that may still live, there must be room for all of both.
        let all: u64 = self.files.iter().map(|file| file.size).sum();
        if space::free_bytes(&self.dir)? < all {
            return Ok(());
        }
        let target = self.open(n)?;
        (outside.reads)(bytes_of(chunks));
        for chunk in chunks {
            if copy_range(from, name, &chunk.range, &target, outside)? == Some(chunk.crc64) {
                self.journal.chunk(n, chunk)?;
                // Without any, it may lie elsewhere.
                wanted.take(n);
                self.present.entry(n).or_default().push(chunk.clone());
            }
        }
        Ok(())
    }

    /// A publication file by file was cut off: what it had moved already is taken back.
    fn adopt_unfinished_publication(
        &mut self,
        store: &Store,
        wanted: &mut Wanted,
        outside: &Surroundings<'_>,
    ) -> Result<(), StoreError> {
        if store.cache.is_some() {
            return Ok(());
        }
        let Some(family) = store.family_dir()? else { return Ok(()) };
        let Some(list) = Publishing::read(&family)? else { return Ok(()) };
        if family.kind(SENTINEL)?.is_some() {
            // It was finished but for this: the files belong to the family.
            return Publishing::remove(&family);
        }
        if self.may_still_publish(store, &list.staging)? {
            return Ok(());
        }
        let mut closed = Closed::default();
        for file in list.files {
            closed.pass_over(self.take_back(&family, &file, wanted, outside))?;
        }
        closed.say("a publication that was cut off", outside);
        Ok(())
    }

    /// Takes back one file of a publication, if it is still the one that was moved.
    fn take_back(
        &mut self,
        family: &Dir,
        file: &PublishingFile,
        wanted: &mut Wanted,
        outside: &Surroundings<'_>,
    ) -> Result<(), StoreError> {
        let Ok(path) = RelPath::parse(&file.path) else { return Ok(()) };
        let parent = path.parent().into_iter().flat_map(|parent| parent.split('/'));
        let Some(from) = family.descend(parent)? else { return Ok(()) };
        let Some(size) = from.file_size(path.name())?.filter(|size| *size > 0) else {
            return Ok(());
        };
        if file.inode.is_none() || from.inode(path.name())? != file.inode {
            return Ok(());
        }
        let Some(n) = wanted.find(self, &file.identity, size) else { return Ok(()) };
        let range = 0..size;
        if let Some(crc64) = crc_of(&from, path.name(), &range, outside)? {
            let whole = vec![WrittenChunk { range, crc64 }];
            self.take_over(n, &from, path.name(), whole, wanted)?;
        }
        Ok(())
    }

    /// Whether the attempt `id`, which has begun to publish, may still be at it.
    fn may_still_publish(&self, store: &Store, id: &str) -> Result<bool, StoreError> {
        // One that was not begun in place has its attempt beside the family.
        let root = store.root()?;
        let beside = root.map(|root| root.child(STATE_DIR)).transpose()?.flatten();
        for state in [Some(self.state.again()?), beside].into_iter().flatten() {
            let Some(attempts) = state.child(ATTEMPTS)? else { continue };
            let opened = || -> Result<_, StoreError> {
                let Some(old) = open_attempt(&attempts, id)? else { return Ok(None) };
                let Some((header, _)) = journal::read(&old)? else { return Ok(None) };
                self.is_gone(&old, &header).map(Some)
            };
            match opened() {
                Ok(None) => {}
                Ok(Some(is_gone)) => return Ok(is_gone != Some(true)),
                // Nobody tells us.
                Err(error) if error.is_closed() => return Ok(true),
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }
}

/// Whether the writer of `old` is certainly gone; `None` if it is of another node or boot and nobody
/// can tell.
pub(super) fn is_gone(
    us: &NodeIdentity,
    old: &Dir,
    header: &Header,
) -> Result<Option<bool>, StoreError> {
    let held = journal::is_held(old)?;
    if us.same_boot(&header.writer) {
        // Where locks may lie, the process must be gone or silent as well.
        return Ok(Some(!held && (header.locked || is_silent(us, old, header))));
    }
    // Only one node at a time has a local filesystem, and its kernel was another then.
    Ok(if held { Some(false) } else { filesystem::is_local(old).then_some(true) })
}

/// Whether the writer of `old`, of this boot, is gone or has not given a sign for long enough.
fn is_silent(us: &NodeIdentity, old: &Dir, header: &Header) -> bool {
    if us.sees_gone(&header.writer) {
        return true;
    }
    let Some(owner) = Owner::read(old, OWNER) else { return false };
    let age = node::since_boot().saturating_sub(Duration::from_millis(owner.since_boot_ms));
    age > STOPPED_AT_AGE
}

/// Whether nothing is missing.
fn is_whole(size: u64, chunks: &[WrittenChunk]) -> bool {
    let ranges: Vec<_> = chunks.iter().map(|chunk| chunk.range.clone()).collect();
    gaps(size, &ranges).is_empty()
}

/// Bytes that an attempt says it has written.
fn journalled_bytes(attempts: &Dir, name: &str) -> u64 {
    let old = open_attempt(attempts, name).ok().flatten();
    let journal = old.and_then(|old| journal::read(&old).ok().flatten());
    let chunks = journal.iter().flat_map(|(_, files)| files).flat_map(|file| &file.chunks);
    chunks.fold(0, |sum, chunk| sum.saturating_add(chunk.range.end - chunk.range.start))
}
