//! One run's private tree on the volume. Nobody else ever writes into it.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustix::fs::{FallocateFlags, Mode, OFlags};
use rustix::io::Errno;

use super::journal::{Header, Journal, WrittenChunk};
use super::{Abilities, Store, StoreError};
use crate::fs::{Dir, NodeIdentity, filesystem, node, space};
use crate::lock::Heartbeat;
use crate::lock::heartbeat::{self, AskStatus};
use crate::model::{Checksum, Digest, Plan, RemoteFile, Snapshot, hex};

/// Separates the family from the random part in the name of an attempt.
pub(super) const ID_SEPARATOR: char = '~';
pub(super) const ATTEMPTS: &str = "attempts";
pub(super) const TREE: &str = "tree";
pub(super) const OWNER: &str = "owner.json";
/// Of a model that goes into a cache of the Hub's clients: its sentinel, and its directory of links.
pub(super) const CACHE_SENTINEL: &str = "cache-sentinel";
pub(super) const CACHE_SNAPSHOT: &str = "cache-snapshot";

/// Files up to this size are synced together, if there are many: each `fsync` of its own costs a
/// commit of the filesystem and a flush of the disk.
const SMALL_BYTES: u64 = 8 << 20;
const MANY_FILES: usize = 64;

/// A staging tree that is being filled.
#[derive(Debug)]
pub struct Staging {
    pub id: String,
    pub(super) state: Dir,
    pub(super) state_name: String,
    pub(super) dir: Dir,
    pub(super) tree: Dir,
    pub(super) journal: Journal,
    pub(super) writer: NodeIdentity,
    pub(super) files: Arc<[RemoteFile]>,
    source_name: String,
    revision: String,
    /// What other attempts had written and this one took over, by the number of the file.
    pub(super) present: BTreeMap<usize, Vec<WrittenChunk>>,
    /// Which files exist in the tree.
    presence: Mutex<Vec<Presence>>,
    /// Small files that `sync_rest` makes durable, all in one go, where that can be done.
    unsynced: Option<Mutex<Vec<usize>>>,
    /// Files cannot have blocks in common here.
    pub(super) shares_no_blocks: bool,
    /// The kernel copies from one file into another here, as far as is known.
    pub(super) shares_ranges: bool,
    /// What the volume can do, once that was found out.
    pub(super) abilities: OnceLock<Abilities>,
    /// It goes into a cache of the Hub's clients.
    pub(super) is_for_cache: bool,
}

/// What there is of a file in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    Absent,
    /// A file of our own, to be written.
    Ours,
    /// All of it. The inode may be that of a published file, which is never opened for writing.
    Whole,
}

/// A file of the tree, open for the time of its transfer. All threads share this descriptor: the
/// one that wrote is the one that must report a failed write-back.
#[derive(Debug)]
pub struct StagedFile {
    file: File,
    path: PathBuf,
    /// The same file for writes past the page cache, if the filesystem has them; opened when first used.
    direct: OnceLock<Option<File>>,
}

impl Staging {
    /// Begins an empty attempt for `files` of `snapshot`.
    pub fn begin(
        store: &Store,
        snapshot: &Snapshot,
        files: Vec<RemoteFile>,
    ) -> Result<Self, StoreError> {
        store.refuse_owned_names(&files)?;
        let state = store.make_state()?;
        let state_name = store.state_name();
        let id = format!("{state_name}{ID_SEPARATOR}{}", node::random_id());
        let dir = state.make_child(ATTEMPTS)?.make_child(&id)?;
        let tree = dir.make_child(TREE)?;
        let writer = NodeIdentity::current();
        let header = Header {
            format: 0,
            family: state_name.clone(),
            source_name: snapshot.source_name.clone(),
            revision: snapshot.revision.clone(),
            writer: writer.clone(),
            locked: false,
            tree: tree.identity()?.1,
        };
        let journal = Journal::create(&dir, header)?;
        let count = files.len();
        let small = files.iter().filter(|file| file.size <= SMALL_BYTES).count();
        let together = small >= MANY_FILES && filesystem::syncs_as_a_whole(&tree);
        Ok(Self {
            id,
            state,
            state_name,
            dir,
            tree,
            journal,
            writer,
            files: files.into(),
            source_name: snapshot.source_name.clone(),
            revision: snapshot.revision.clone(),
            present: BTreeMap::new(),
            presence: Mutex::new(vec![Presence::Absent; count]),
            unsynced: together.then(Mutex::default),
            shares_no_blocks: false,
            shares_ranges: true,
            abilities: OnceLock::new(),
            is_for_cache: store.cache.is_some(),
        })
    }

    /// What the source is called.
    pub(super) fn source_name(&self) -> &str {
        &self.source_name
    }

    pub(super) fn revision(&self) -> &str {
        &self.revision
    }

    /// What makes the content of file `n` the same elsewhere.
    pub(super) fn identity(&self, n: usize) -> String {
        content_identity(&self.files[n], &self.source_name, &self.revision)
    }

    /// What is still to fetch.
    pub fn plan(&self) -> Plan {
        Plan::new(self.files.clone(), |n| {
            let chunks = self.present.get(&n).into_iter().flatten();
            chunks.map(|chunk| chunk.range.clone()).collect()
        })
    }

    /// Fails if the volume cannot take what is missing, and so many bytes of others beside.
    pub fn check_space(&self, plan: &Plan, by_others: u64) -> Result<(), StoreError> {
        let mut bytes = by_others;
        let mut existing = 0_u64;
        for (n, file) in self.files.iter().enumerate() {
            let missing = match self.presence(n) {
                Presence::Absent => file.size,
                Presence::Ours => file.size.saturating_sub(self.allocated(n)?),
                // However few blocks a filesystem that compresses says it has.
                Presence::Whole => 0,
            };
            existing += u64::from(self.presence(n) != Presence::Absent);
            bytes = bytes.saturating_add(missing);
        }
        Ok(space::check(&self.dir, bytes, plan.inodes().saturating_sub(existing))?)
    }

    /// Whether writes past the page cache are worth a trial here.
    pub fn is_on_disk(&self) -> bool {
        filesystem::is_on_disk(&self.tree)
    }

    /// Bytes that are free on the volume now.
    pub fn free_bytes(&self) -> Result<u64, StoreError> {
        Ok(space::free_bytes(&self.dir)?)
    }

    /// Starts telling the others how far we are.
    pub fn heartbeat(&self, report: AskStatus) -> Result<Heartbeat, StoreError> {
        let owners = self.state.make_child("owners")?;
        let own = (self.dir.again()?, OWNER.to_owned());
        let shared = (owners, heartbeat::file_name(&self.state_name));
        Ok(Heartbeat::start(self.id.clone(), self.writer.clone(), own, shared, report)?)
    }

    /// Opens file number `n`, created with its full size if it is not there.
    pub fn open(&self, n: usize) -> Result<StagedFile, StoreError> {
        let file = &self.files[n];
        // Where it lies at the top no descriptor is needed for the way: there may be few.
        let below = file.path.parent().map(|_| self.directory_of(n)).transpose()?;
        let dir = below.as_ref().unwrap_or(&self.tree);
        let name = file.path.name();
        let path = dir.path_of(name);
        let access = match self.presence(n) {
            Presence::Absent => None,
            Presence::Ours => Some(OFlags::RDWR),
            Presence::Whole => Some(OFlags::RDONLY),
        };
        if let Some(access) = access {
            let opened = dir.open_file(name, access)?;
            let opened = opened.ok_or_else(|| StoreError::io("open", &path, Errno::NOENT))?;
            return Ok(StagedFile::new(opened, path));
        }
        let created = self.create_in(dir, n)?;
        allocate(&created.file, file.size)
            .map_err(|error| StoreError::io("allocate", &path, error))?;
        Ok(created)
    }

    /// Creates file number `n`, which is not there, without any blocks.
    pub(super) fn create(&self, n: usize) -> Result<StagedFile, StoreError> {
        self.create_in(&self.directory_of(n)?, n)
    }

    fn create_in(&self, dir: &Dir, n: usize) -> Result<StagedFile, StoreError> {
        let name = self.files[n].path.name();
        self.journal.file(n, &self.files[n], &self.identity(n))?;
        let file = dir.create_file(name)?;
        self.set_presence(n, Presence::Ours);
        Ok(StagedFile::new(file, dir.path_of(name)))
    }

    /// Records that a chunk of file `n` is written.
    pub fn wrote(&self, n: usize, range: Range<u64>, crc64: u64) -> Result<(), StoreError> {
        self.journal.chunk(n, &WrittenChunk { range, crc64 })
    }

    /// Throws file `n` away, so that the next `open` begins a new one. Whoever still holds the old
    /// one writes into a file without a name.
    pub fn discard(&self, n: usize) -> Result<(), StoreError> {
        // Removed also where the journal cannot be written: a record without a file is ignored.
        let noted = self.journal.discard(n);
        self.directory_of(n)?.remove_file(self.files[n].path.name())?;
        self.set_presence(n, Presence::Absent);
        noted
    }

    /// Makes file `n` durable: now, or with `sync_rest`. One whose bytes could not be written is
    /// thrown away.
    pub fn sync(&self, n: usize, staged: &StagedFile) -> Result<(), StoreError> {
        if let Some(unsynced) = &self.unsynced
            && self.files[n].size <= SMALL_BYTES
        {
            unsynced.lock().unwrap_or_else(PoisonError::into_inner).push(n);
            return Ok(());
        }
        let synced = rustix::fs::fsync(&staged.file);
        synced.or_else(|error| self.distrust(n, staged, error))
    }

    /// Makes what has arrived of a file survive a power cut; `keep_journal` must follow. Those who
    /// write to it go on.
    pub fn keep(&self, n: usize, staged: &StagedFile) -> Result<(), StoreError> {
        let synced = rustix::fs::fdatasync(&staged.file);
        synced.or_else(|error| self.distrust(n, staged, error))
    }

    /// Makes the records of the journal survive a power cut, after the bytes that they are about,
    /// and the names of both.
    pub fn keep_journal(&self) -> Result<(), StoreError> {
        self.journal.sync()?;
        self.tree.sync()?;
        self.dir.sync()?;
        self.state.make_child(ATTEMPTS)?.sync()?;
        Ok(self.state.sync()?)
    }

    /// The page cache lies about a file whose bytes could not be written, and tells nobody twice.
    fn distrust(&self, n: usize, staged: &StagedFile, error: Errno) -> Result<(), StoreError> {
        self.discard(n)?;
        Err(StoreError::io("sync", &staged.path, error))
    }

    /// Makes everything durable that `sync` has left for later.
    pub fn sync_rest(&self) -> Result<(), StoreError> {
        let Some(unsynced) = &self.unsynced else { return Ok(()) };
        let unsynced =
            std::mem::take(&mut *unsynced.lock().unwrap_or_else(PoisonError::into_inner));
        if unsynced.is_empty() {
            return Ok(());
        }
        // This descriptor is older than the first write, so it reports whatever went wrong since.
        rustix::fs::syncfs(&self.tree).or_else(|error| {
            for n in unsynced {
                self.discard(n)?;
            }
            Err(StoreError::io("sync the filesystem of", self.tree.path(), error))
        })
    }

    pub(super) fn directory_of(&self, n: usize) -> Result<Dir, StoreError> {
        let parent = self.files[n].path.parent();
        Ok(self.tree.make_path(parent.into_iter().flat_map(|parent| parent.split('/')))?)
    }

    pub(super) fn presence(&self, n: usize) -> Presence {
        self.presence.lock().unwrap_or_else(PoisonError::into_inner)[n]
    }

    pub(super) fn set_presence(&self, n: usize, presence: Presence) {
        self.presence.lock().unwrap_or_else(PoisonError::into_inner)[n] = presence;
    }

    fn allocated(&self, n: usize) -> Result<u64, StoreError> {
        let opened = self.open(n)?;
        let stat = rustix::fs::fstat(&opened.file)
            .map_err(|error| StoreError::io("look at", &opened.path, error))?;
        Ok((stat.st_blocks as u64).saturating_mul(512))
    }
}

/// What must be equal for bytes of one attempt to serve in another: a published digest that
/// only this content has, or else the exact place, revision, path and validator. With a CRC,
/// which sees what else may go wrong, the version of the object serves in place of the revision.
/// A CRC or an MD5 by itself is never enough: other bytes with the same one are easily made.
pub(super) fn content_identity(file: &RemoteFile, source_name: &str, revision: &str) -> String {
    let path = &file.path;
    match (&file.digest, &file.validator) {
        // S3 names a SHA-256 of the whole object in its own way.
        (Some(Digest::Full { checksum: Checksum::Sha256, value }), _) => {
            format!("sha256:{}", hex::encode(value))
        }
        (Some(digest), _) if digest.identifies() => digest.to_string(),
        (Some(digest), Some(validator)) if digest.is_checksum() => {
            version_identity(source_name, path.as_str(), validator, &digest.to_string())
        }
        (_, validator) => {
            let validator = validator.as_deref().unwrap_or_default();
            format!("{source_name}@{revision}/{path}#{validator}")
        }
    }
}

/// What makes the same version of an object at the same place, with the same checksum.
pub(super) fn version_identity(
    source_name: &str,
    path: &str,
    validator: &str,
    digest: &str,
) -> String {
    format!("{source_name}/{path}#{validator}#{digest}")
}

impl StagedFile {
    fn new(file: File, path: PathBuf) -> Self {
        Self { file, path, direct: OnceLock::new() }
    }

    /// Writes past the page cache; `bytes`, their place in memory and `offset` are aligned. False, and nothing is
    /// written, where the filesystem does not do that.
    pub fn write_direct(&self, bytes: &[u8], offset: u64) -> Result<bool, StoreError> {
        let Some(file) = self.direct.get_or_init(|| self.open_direct()) else {
            return Ok(false);
        };
        match file.write_all_at(bytes, offset) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => Ok(false),
            Err(error) => Err(StoreError::io("write", &self.path, error)),
        }
    }

    /// By the descriptor, so that it is this file and no other.
    fn open_direct(&self) -> Option<File> {
        let own = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let flags = OFlags::WRONLY | OFlags::DIRECT | OFlags::CLOEXEC;
        rustix::fs::open(own, flags, Mode::empty()).ok().map(File::from)
    }

    pub fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), StoreError> {
        self.file
            .write_all_at(bytes, offset)
            .map_err(|error| StoreError::io("write", &self.path, error))
    }

    /// Fills `buffer` from `offset`.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), StoreError> {
        self.file
            .read_exact_at(buffer, offset)
            .map_err(|error| StoreError::io("read back", &self.path, error))
    }

    /// Lets the kernel begin to write `range` to the disk, so that little is left to wait for in the
    /// end. Not a promise: `sync` is. Pages that are not written yet stay in the cache.
    pub fn begin_writeback(&self, range: Range<u64>) {
        let len = std::num::NonZeroU64::new(range.end - range.start);
        let _ = rustix::fs::fadvise(&self.file, range.start, len, rustix::fs::Advice::DontNeed);
    }

    /// Bytes that it has now.
    pub(super) fn size(&self) -> Result<u64, StoreError> {
        let stat = self.file.metadata();
        stat.map(|stat| stat.len()).map_err(|error| StoreError::io("look at", &self.path, error))
    }

    /// For parsers that read from the start. Positioned reads and writes are not disturbed.
    pub fn file(&self) -> &File {
        &self.file
    }
}

/// Gives the file its blocks, so that a full disk shows now; where the filesystem cannot, its size.
fn allocate(file: &File, size: u64) -> Result<(), Errno> {
    if size == 0 {
        return Ok(());
    }
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, size) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => rustix::fs::ftruncate(file, size),
        other => other,
    }
}
