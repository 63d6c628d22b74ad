//! Files of a directory that the user names: a cache of the Hub's own client, or a model that somebody has
//! put there by hand. The directory is read and never changed; links in it are followed as long as they stay
//! inside.
//!
//! What the name of a file tells of its content is believed until the file is hashed with all others. Any
//! other file of a size that is wanted is hashed first.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::recheck::Surroundings;
use super::staging::Staging;
use super::take::Offer;
use super::wanted::{Taken, Wanted};
use super::{Store, StoreError};
use crate::fs::{Dir, Followed, Kind, filesystem};
use crate::model::{Checksum, Digest, Giver, STATE_DIR, content_named, text};
use crate::verify::FileHasher;

/// Directories one below the other: each is held open while it is listed.
const MAX_DEPTH: usize = 16;
const BUFFER_BYTES: usize = 256 << 10;
/// Where caches keep files under the names of their contents.
const BLOBS: &str = "blobs";

/// A directory whose files may be taken.
#[derive(Debug)]
pub struct AdoptedDir {
    dir: Dir,
    giver: Giver,
}

/// A name below it.
struct Entry<'a> {
    dir: &'a Dir,
    /// From the top, with the name.
    path: &'a str,
    name: &'a str,
    kind: Kind,
}

/// A file that may be wanted.
struct Found<'a> {
    dir: &'a Dir,
    name: &'a str,
    giver: Giver,
}

/// How many wanted files of one size can be told by which digest.
#[derive(Default)]
struct Sought {
    by_sha256: usize,
    by_git_sha1: usize,
}

/// What a look around has come across.
#[derive(Default)]
struct Seen {
    taken: Taken,
    /// Links that lead out of the directory.
    links_out: usize,
}

impl AdoptedDir {
    /// Nothing if it is not there.
    pub fn open(path: &Path) -> Result<Option<Self>, StoreError> {
        Ok(Dir::open(path)?.map(|dir| Self { dir, giver: Giver::Stranger }))
    }

    fn is(&self, other: &Dir) -> bool {
        let (Ok(ours), Ok(theirs)) = (self.dir.identity(), other.identity()) else { return false };
        ours == theirs
    }
}

impl Store {
    /// Lets the directory at the family path be taken over, if it is one of `directories`: it is no model of
    /// ours, and not in the way either.
    #[must_use]
    pub fn taking_over(mut self, directories: &[AdoptedDir]) -> Self {
        if !directories.is_empty()
            && self.cache.is_none()
            && let Ok(Some(family)) = self.family_dir()
            && directories.iter().any(|directory| directory.is(&family))
        {
            self.taken_over = family.identity().ok();
        }
        self
    }
}

impl Staging {
    /// Takes over what `directory` has, and says how much that was.
    pub(super) fn adopt_directory(
        &mut self,
        directory: &AdoptedDir,
        wanted: &mut Wanted,
        outside: &Surroundings<'_>,
    ) -> Result<(), StoreError> {
        let mut sought = self.sought(wanted);
        if sought.is_empty() {
            return Ok(());
        }
        let mut seen = Seen::default();
        self.adopt_named(directory, wanted, outside, &mut seen)?;
        if seen.taken != Taken::default() {
            sought = self.sought(wanted);
        }
        if !sought.is_empty() && (outside.go_on)() {
            self.adopt_hashed(directory, wanted, sought, outside, &mut seen)?;
        }
        let path = directory.dir.path();
        seen.taken.say("adopting", path, outside);
        if seen.taken == Taken::default() || (seen.links_out > 0 && !self.sought(wanted).is_empty())
        {
            (outside.say)(missed(path, seen.links_out));
        }
        Ok(())
    }

    /// Takes over what the cache has that `store` is in: by the names of blobs, whichever repo they are of; of
    /// the repo itself also by their bytes, since there are no blobs where a volume has no links.
    pub(super) fn adopt_from_cache(
        &mut self,
        store: &Store,
        wanted: &mut Wanted,
        outside: &Surroundings<'_>,
    ) -> Result<(), StoreError> {
        let Some(repo) = store.cached_repo()? else { return Ok(()) };
        let giver = Giver::OtherModel;
        let (hub, repo) =
            (AdoptedDir { dir: repo.hub, giver }, AdoptedDir { dir: repo.dir, giver });
        if self.sought(wanted).is_empty() {
            return Ok(());
        }
        let mut seen = Seen::default();
        self.adopt_named(&hub, wanted, outside, &mut seen)?;
        let sought = self.sought(wanted);
        if !sought.is_empty() && (outside.go_on)() {
            self.adopt_hashed(&repo, wanted, sought, outside, &mut seen)?;
        }
        seen.taken.say("reusing", hub.dir.path(), outside);
        Ok(())
    }

    /// The sizes that are wanted, with a digest that is computed here.
    fn sought(&self, wanted: &Wanted) -> BTreeMap<u64, Sought> {
        let mut sought = BTreeMap::<u64, Sought>::new();
        for file in wanted.missing().map(|n| &self.files[n]).filter(|file| file.size > 0) {
            match &file.digest {
                Some(Digest::Sha256(_) | Digest::Full { checksum: Checksum::Sha256, .. }) => {
                    sought.entry(file.size).or_default().by_sha256 += 1
                }
                Some(Digest::GitSha1(_)) => sought.entry(file.size).or_default().by_git_sha1 += 1,
                _ => {}
            }
        }
        sought
    }

    /// Takes the files whose names are the digests that are wanted. Such a name may be a link to where the
    /// cache keeps what several repos have in common.
    fn adopt_named(
        &mut self,
        directory: &AdoptedDir,
        wanted: &mut Wanted,
        outside: &Surroundings<'_>,
        seen: &mut Seen,
    ) -> Result<(), StoreError> {
        let mut ours = Ok(());
        let _ = walk(&directory.dir, &mut |entry: Entry<'_>| {
            let Some(identity) = content_named(entry.name) else {
                return ControlFlow::Continue(());
            };
            let followed = match entry.kind {
                Kind::Link => directory.dir.follow(entry.path),
                _ => Followed::Nothing,
            };
            let (dir, name) = match &followed {
                Followed::File { dir, name } => (dir, name.as_str()),
                Followed::Outside => {
                    seen.links_out += 1;
                    return ControlFlow::Continue(());
                }
                Followed::Nothing if entry.kind == Kind::File => (entry.dir, entry.name),
                Followed::Nothing => return ControlFlow::Continue(()),
            };
            let offered = Found { dir, name, giver: directory.giver };
            let done = self.take_found(&offered, &[identity], wanted, seen, outside);
            let is_over = done.is_err() || wanted.is_found() || !(outside.go_on)();
            ours = done.map(|_| ());
            if is_over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        ours
    }

    /// Hashes the files whose size is wanted, and takes those with a digest that is.
    fn adopt_hashed(
        &mut self,
        directory: &AdoptedDir,
        wanted: &mut Wanted,
        mut sought: BTreeMap<u64, Sought>,
        outside: &Surroundings<'_>,
        seen: &mut Seen,
    ) -> Result<(), StoreError> {
        let bytes = bytes_to_hash(directory, &sought);
        if bytes > 0 {
            let path = text::inert(&directory.dir.path().to_string_lossy(), 200);
            (outside.say)(format!(
                "hashing the files in `{path}` that have the size of a missing one"
            ));
            (outside.reads)(bytes);
        }
        let mut ours = Ok(());
        let _ = walk(&directory.dir, &mut |entry: Entry<'_>| {
            if entry.kind == Kind::Link {
                let leads_out = matches!(directory.dir.follow(entry.path), Followed::Outside);
                seen.links_out += usize::from(leads_out && content_named(entry.name).is_none());
            }
            if entry.kind != Kind::File || tells_its_content(&entry) {
                return ControlFlow::Continue(());
            }
            let Ok(Some(size)) = entry.dir.file_size(entry.name) else {
                return ControlFlow::Continue(());
            };
            let Some(of_size) = sought.get_mut(&size) else { return ControlFlow::Continue(()) };
            let with_git = of_size.by_git_sha1 > 0;
            let found = digests(&entry, size, with_git, outside);
            let offered = Found { dir: entry.dir, name: entry.name, giver: directory.giver };
            match self.take_found(&offered, &found, wanted, seen, outside) {
                Ok(taken) => {
                    of_size.by_sha256 = of_size.by_sha256.saturating_sub(taken[0]);
                    of_size.by_git_sha1 = of_size.by_git_sha1.saturating_sub(taken[1]);
                    if of_size.by_sha256 + of_size.by_git_sha1 == 0 {
                        sought.remove(&size);
                    }
                }
                Err(error) => ours = Err(error),
            }
            let is_over = ours.is_err() || sought.is_empty() || !(outside.go_on)();
            if is_over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        ours
    }

    /// Takes a file as whatever is wanted with one of these digests; how many files that were, by digest.
    fn take_found(
        &mut self,
        found: &Found<'_>,
        identities: &[String],
        wanted: &mut Wanted,
        seen: &mut Seen,
        outside: &Surroundings<'_>,
    ) -> Result<[usize; 2], StoreError> {
        let mut taken = [0; 2];
        let Found { dir, name, giver } = *found;
        let Ok(Some(size)) = dir.file_size(name) else { return Ok(taken) };
        let offer = Offer { dir, name, size, giver };
        for (identity, of_kind) in identities.iter().zip(&mut taken) {
            while let Some(n) = wanted.find(self, identity, size) {
                if !self.take(n, &offer, outside)? {
                    break;
                }
                wanted.take(n);
                *of_kind += 1;
                seen.taken.add(Taken { files: 1, bytes: size });
            }
        }
        Ok(taken)
    }
}

/// How many bytes the files of a wanted size have, in all.
fn bytes_to_hash(directory: &AdoptedDir, sought: &BTreeMap<u64, Sought>) -> u64 {
    let mut bytes = 0_u64;
    let _ = walk(&directory.dir, &mut |entry: Entry<'_>| {
        if entry.kind == Kind::File
            && !tells_its_content(&entry)
            && let Ok(Some(size)) = entry.dir.file_size(entry.name)
            && sought.contains_key(&size)
        {
            bytes = bytes.saturating_add(size);
        }
        ControlFlow::Continue(())
    });
    bytes
}

/// Whether a cache keeps the file under the name of its content, and that is not wanted: else it would have
/// been taken by that name.
fn tells_its_content(entry: &Entry<'_>) -> bool {
    content_named(entry.name).is_some() && entry.path.split('/').any(|part| part == BLOBS)
}

/// The SHA-256 of a file, and Git's name of it, as digests are written. Nothing where it cannot be read.
fn digests(
    entry: &Entry<'_>,
    size: u64,
    with_git: bool,
    outside: &Surroundings<'_>,
) -> Vec<String> {
    let Ok(Some(file)) = entry.dir.read_file(entry.name) else { return Vec::new() };
    // Compared with what no file has, it tells what it has found.
    let git = with_git.then_some(Digest::GitSha1([0; 20]));
    let mut hasher = FileHasher::new(size, git.as_ref());
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut at = 0;
    while at < size {
        let len = buffer.len().min((size - at) as usize);
        if !(outside.go_on)() || file.read_exact_at(&mut buffer[..len], at).is_err() {
            return Vec::new();
        }
        hasher.update(&buffer[..len]);
        at += len as u64;
        (outside.worked)(len as u64);
    }
    let written = |sha256| Digest::Sha256(sha256).to_string();
    match hasher.finish() {
        Ok(sha256) => vec![written(sha256)],
        Err(mismatch) => vec![written(mismatch.sha256), mismatch.found],
    }
}

/// Hands over each file and link below `top`; what cannot be read is passed over. weightlift's own
/// directories are not entered: an attempt may still be written to. Nor is what a filesystem keeps: a snapshot of it has all
/// of it once more.
fn walk(top: &Dir, each: &mut dyn FnMut(Entry<'_>) -> ControlFlow<()>) -> ControlFlow<()> {
    fn below(
        dir: &Dir,
        above: &str,
        depth: usize,
        each: &mut dyn FnMut(Entry<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let listed = dir.each_name(&mut |name, kind| {
            let path = format!("{above}{name}");
            match kind {
                Kind::Directory if name == STATE_DIR || filesystem::owns(name) || depth == 0 => {
                    ControlFlow::Continue(())
                }
                Kind::Directory => match dir.child(name) {
                    Ok(Some(child)) => below(&child, &(path + "/"), depth - 1, each),
                    Ok(None) | Err(_) => ControlFlow::Continue(()),
                },
                Kind::File | Kind::Link => each(Entry { dir, path: &path, name, kind }),
                Kind::Other => ControlFlow::Continue(()),
            }
        });
        listed.unwrap_or(ControlFlow::Continue(()))
    }
    below(top, "", MAX_DEPTH, each)
}

/// What was not found, and what may help.
fn missed(path: &Path, links_out: usize) -> String {
    let path = text::inert(&path.to_string_lossy(), 200);
    match links_out {
        0 => format!("`{path}` has none of the missing files"),
        count => format!(
            "`{path}` does not have all of the missing files; {count} of its links lead out of it and are not \
             followed: name the directory above it with --adopt"
        ),
    }
}
