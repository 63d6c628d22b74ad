//! An archive as it is unpacked: which entries are files of the model, and where their bytes go.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::ops::Bound;

use aws_lc_rs::digest::{self, SHA256};

use super::archive_problem::{ArchiveProblem, MAX_RATIO};
use super::layers::Root;
use super::tar::{Entry, Kind, Visit};
use crate::fs::Dir;
use crate::model::{RelPath, UnsafePath, text};

/// Bytes that any archive may have.
const FREE_BYTES: u64 = 64 << 20;
/// What is kept of the entries of all layers together, each with what it takes beside its names.
pub const MAX_HELD_BYTES: usize = 64 << 20;
const ENTRY_BYTES: usize = 256;
/// Symbolic links that lead to each other.
const MAX_LINKS: usize = 40;
/// Of an image, the directory that is the model.
const MODELS: &str = "models";
/// What says in a layer that a file, or all of a directory, of the layers below is gone.
const WHITEOUT: &str = ".wh.";
const OPAQUE: &str = ".wh..wh..opq";

/// The content of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    pub size: u64,
    pub sha256: [u8; 32],
    /// Its name in the scratch directory, if it was kept.
    pub stored: Option<String>,
}

/// What an archive says of a tree.
#[derive(Debug, Default)]
pub struct Changes {
    /// Bytes of memory, about.
    pub held: usize,
    /// Of the layers below: files and directories that are gone.
    pub removed: Vec<String>,
    /// Directories whose content there is gone; an empty one is the whole tree.
    pub emptied: Vec<String>,
    pub files: BTreeMap<RelPath, Content>,
}

/// Unpacks one archive.
pub struct Unpacker {
    root: Root,
    /// Where files are kept, and what their names begin with; without it they are only hashed.
    scratch: Option<(Dir, String)>,
    most_bytes: u64,
    bytes: u64,
    count: usize,
    changes: Changes,
    /// Symbolic links, which may lead to what comes later.
    links: BTreeMap<RelPath, String>,
    open: Option<Open>,
}

struct Open {
    path: RelPath,
    size: u64,
    hash: digest::Context,
    kept: Option<(File, String)>,
}

impl Unpacker {
    pub fn new(root: Root, packed_bytes: u64, scratch: Option<(Dir, String)>) -> Self {
        Self {
            root,
            scratch,
            most_bytes: FREE_BYTES.saturating_add(packed_bytes.saturating_mul(MAX_RATIO)),
            bytes: 0,
            count: 0,
            changes: Changes::default(),
            links: BTreeMap::new(),
            open: None,
        }
    }

    /// What the archive has said, once it is read.
    pub fn finish(mut self) -> Result<Changes, ArchiveProblem> {
        let mut left = std::mem::take(&mut self.links);
        // A link may lead to a link, as often as the kernel would follow it.
        for _ in 0..MAX_LINKS {
            if left.is_empty() {
                break;
            }
            left.retain(|path, target| match self.changes.files.get(target.as_str()) {
                Some(content) => {
                    let content = content.clone();
                    self.changes.files.insert(path.clone(), content);
                    false
                }
                None => true,
            });
        }
        match left.first_key_value() {
            None => Ok(self.changes),
            Some((path, target)) => Err(ArchiveProblem::Link {
                name: text::inert(path.as_str(), 200),
                target: text::inert(target, 200),
            }),
        }
    }

    /// Counts what is kept in memory of an entry.
    fn hold(&mut self, entry: &Entry) -> Result<(), ArchiveProblem> {
        self.changes.held += ENTRY_BYTES + entry.path.len() + entry.target.len();
        match self.changes.held > MAX_HELD_BYTES {
            true => Err(ArchiveProblem::Names { most: MAX_HELD_BYTES }),
            false => Ok(()),
        }
    }

    /// The path in the model, if the entry is of it.
    fn place(&self, entry: &Entry) -> Result<Option<String>, ArchiveProblem> {
        let Ok(path) = std::str::from_utf8(&entry.path) else {
            return match self.root {
                Root::All => Err(refused(&entry.path, "is not UTF-8")),
                Root::Models => Ok(None),
            };
        };
        let path = path.trim_start_matches("./");
        match self.root {
            Root::All => Ok(Some(path.trim_end_matches('/').to_owned())
                .filter(|it| !matches!(it.as_str(), "" | "."))),
            Root::Models => {
                let path = path.trim_start_matches('/').trim_end_matches('/');
                let below = path.strip_prefix(MODELS).and_then(|rest| rest.strip_prefix('/'));
                Ok(below.map(str::to_owned))
            }
        }
    }

    /// Notes a whiteout; whether the entry is one.
    fn whiteout(&mut self, entry: &Entry) -> bool {
        if self.root != Root::Models {
            return false;
        }
        let Ok(path) = std::str::from_utf8(&entry.path) else { return false };
        let path = path.trim_start_matches("./").trim_start_matches('/').trim_end_matches('/');
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let Some(hidden) = name.strip_prefix(WHITEOUT) else { return false };
        let below = |path: &str| match path.strip_prefix(MODELS) {
            Some("") => Some(String::new()),
            Some(rest) => rest.strip_prefix('/').map(str::to_owned),
            None => None,
        };
        if name == OPAQUE {
            let emptied = if parent.is_empty() { Some(String::new()) } else { below(parent) };
            self.changes.emptied.extend(emptied);
            return true;
        }
        let whole =
            if parent.is_empty() { hidden.to_owned() } else { format!("{parent}/{hidden}") };
        match below(&whole) {
            Some(all) if all.is_empty() => self.changes.emptied.push(all),
            Some(path) => self.changes.removed.push(path),
            None => {}
        }
        true
    }

    /// Where a link leads, as a path in the model: a hard link from the top of the archive, a symbolic one
    /// from its own directory.
    fn target(&self, entry: &Entry, place: &RelPath) -> Result<String, ArchiveProblem> {
        let no_file = || ArchiveProblem::Link {
            name: text::inert(place.as_str(), 200),
            target: text::inert(&String::from_utf8_lossy(&entry.target), 200),
        };
        let target = std::str::from_utf8(&entry.target).map_err(|_| no_file())?;
        let top = if self.root == Root::Models { MODELS } else { "" };
        let is_absolute = target.starts_with('/');
        if is_absolute && self.root == Root::All {
            return Err(no_file());
        }
        let mut parts: Vec<&str> = Vec::new();
        if entry.kind == Kind::SymbolicLink && !is_absolute {
            parts.extend((!top.is_empty()).then_some(top));
            parts.extend(place.parent().into_iter().flat_map(|parent| parent.split('/')));
        }
        for part in target.split('/') {
            match part {
                "" | "." => {}
                ".." => _ = parts.pop().ok_or_else(no_file)?,
                part => parts.push(part),
            }
        }
        if !top.is_empty() && (parts.is_empty() || parts.remove(0) != top) {
            return Err(no_file());
        }
        Ok(parts.join("/"))
    }
}

impl Visit for Unpacker {
    fn begin(&mut self, entry: Entry) -> Result<bool, ArchiveProblem> {
        self.bytes = self.bytes.saturating_add(entry.size);
        if self.bytes > self.most_bytes {
            return Err(ArchiveProblem::Bomb { most: self.most_bytes });
        }
        if self.whiteout(&entry) {
            self.hold(&entry)?;
            return Ok(false);
        }
        let Some(place) = self.place(&entry)? else { return Ok(false) };
        let path = RelPath::parse(&place)?;
        self.hold(&entry)?;
        match entry.kind {
            Kind::Directory => return Ok(false),
            Kind::Other => {
                let (name, what) = (text::inert(&place, 200), "a device or a pipe");
                return Err(ArchiveProblem::Entry { name, what });
            }
            Kind::SymbolicLink => {
                let target = self.target(&entry, &path)?;
                self.changes.files.remove(&path);
                self.links.insert(path, target);
                return Ok(false);
            }
            Kind::HardLink => {
                let target = self.target(&entry, &path)?;
                // The file comes first.
                let Some(content) = self.changes.files.get(target.as_str()).cloned() else {
                    let (name, target) = (text::inert(&place, 200), text::inert(&target, 200));
                    return Err(ArchiveProblem::Link { name, target });
                };
                self.links.remove(&path);
                self.changes.files.insert(path, content);
                return Ok(false);
            }
            Kind::File => {}
        }
        self.links.remove(&path);
        self.count += 1;
        let kept = match &self.scratch {
            Some((dir, prefix)) => {
                let name = format!("{prefix}-{}", self.count);
                let file = dir.create_file(&name).map_err(write)?;
                Some((file, name))
            }
            None => None,
        };
        let hash = digest::Context::new(&SHA256);
        self.open = Some(Open { path, size: entry.size, hash, kept });
        if entry.size == 0 {
            self.end()?;
            return Ok(false);
        }
        Ok(true)
    }

    fn piece(&mut self, piece: &[u8]) -> Result<(), ArchiveProblem> {
        let Some(open) = &mut self.open else { return Ok(()) };
        open.hash.update(piece);
        match &mut open.kept {
            Some((file, _)) => file.write_all(piece).map_err(write),
            None => Ok(()),
        }
    }

    fn end(&mut self) -> Result<(), ArchiveProblem> {
        let Some(Open { path, size, hash, kept }) = self.open.take() else { return Ok(()) };
        let sha256 = hash.finish().as_ref().try_into().expect("a SHA-256 has 32 bytes");
        let stored = match kept {
            Some((file, name)) => {
                // It may get a second name that is published.
                file.sync_all().map_err(write)?;
                Some(name)
            }
            None => None,
        };
        // As tar has it, the last of several counts.
        self.changes.files.insert(path, Content { size, sha256, stored });
        Ok(())
    }
}

fn write(error: impl std::fmt::Display) -> ArchiveProblem {
    ArchiveProblem::Write(text::inert(&error.to_string(), 300))
}

fn refused(name: &[u8], why: &'static str) -> ArchiveProblem {
    let name = text::inert(&String::from_utf8_lossy(name), 200);
    ArchiveProblem::Path(UnsafePath { name, why })
}

/// A tree, after what one more layer says of it.
pub fn overlay(tree: &mut BTreeMap<RelPath, Content>, changes: Changes) {
    for emptied in &changes.emptied {
        match emptied.as_str() {
            "" => tree.clear(),
            directory => remove_below(tree, directory),
        }
    }
    for removed in &changes.removed {
        tree.remove(removed.as_str());
        remove_below(tree, removed);
    }
    for (path, content) in changes.files {
        // A file in place of a directory, and the other way round.
        remove_below(tree, path.as_str());
        for (at, _) in path.as_str().match_indices('/') {
            tree.remove(&path.as_str()[..at]);
        }
        tree.insert(path, content);
    }
}

fn remove_below(tree: &mut BTreeMap<RelPath, Content>, directory: &str) {
    // `0` follows `/`.
    let (first, behind) = (format!("{directory}/"), format!("{directory}0"));
    let range = (Bound::Included(first.as_str()), Bound::Excluded(behind.as_str()));
    let below: Vec<RelPath> = tree.range::<str, _>(range).map(|(path, _)| path.clone()).collect();
    below.iter().for_each(|path| _ = tree.remove(path));
}
