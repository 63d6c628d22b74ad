//! An open directory, and everything that is done below it: one name at a time, relative to the
//! descriptor, never following a link that lies on the volume.

use std::fs::File;
use std::io::{Read, Write};
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, Timespec, Timestamps, UTIME_NOW};
use rustix::io::Errno;

use crate::fs::FsError;

/// A directory on the volume.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    /// For messages, and to tell a server what to load; never opened.
    path: PathBuf,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    File,
    Directory,
    Link,
    Other,
}

pub(crate) const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);
const FILE: OFlags = OFlags::CLOEXEC.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK);

/// Without a descriptor, we wait so long for one.
const PATIENCE: Duration = Duration::from_secs(5);

impl Dir {
    /// Opens a directory that the operator named; links in this path are the operator's own.
    pub fn open(path: &Path) -> Result<Option<Self>, FsError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(Self { fd, path: path.to_owned() })),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(FsError::io("open the directory", path, error)),
        }
    }

    /// The same, where somebody on another node may just have made it. NFS remembers for half a
    /// minute that a name was missing, and asks again below a directory that has been opened since.
    pub fn open_anew(path: &Path) -> Result<Option<Self>, FsError> {
        if let Some(dir) = Self::open(path)? {
            return Ok(Some(dir));
        }
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let mut above: Vec<&Path> = absolute.ancestors().skip(1).collect();
        above.reverse();
        for dir in above {
            let _ = Self::open(dir);
        }
        Self::open(path)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// What `name` is, if it is there.
    pub fn kind(&self, name: &str) -> Result<Option<Kind>, FsError> {
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(kind_of(FileType::from_raw_mode(stat.st_mode)))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(FsError::io("look at", &self.path_of(name), error)),
        }
    }

    /// Opens the directory `name`, or `None` if there is nothing of that name.
    pub fn child(&self, name: &str) -> Result<Option<Self>, FsError> {
        match self.open_at(name, DIRECTORY) {
            Ok(fd) => Ok(Some(Self { fd, path: self.path_of(name) })),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(FsError::io("open the directory", &self.path_of(name), error)),
        }
    }

    /// Opens the directory `name`, made if it is not there.
    pub fn make_child(&self, name: &str) -> Result<Self, FsError> {
        if let Some(child) = self.child(name)? {
            return Ok(child);
        }
        match rustix::fs::mkdirat(&self.fd, name, Mode::from_raw_mode(0o777)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => {
                return Err(FsError::io("create the directory", &self.path_of(name), error));
            }
        }
        self.child(name)?
            .ok_or_else(|| FsError::io("open the directory", &self.path_of(name), Errno::NOENT))
    }

    /// Creates the directory `name`, which must not be there yet.
    pub fn create_dir(&self, name: &str) -> Result<(), FsError> {
        rustix::fs::mkdirat(&self.fd, name, Mode::from_raw_mode(0o777))
            .map_err(|error| FsError::io("create the directory", &self.path_of(name), error))
    }

    /// Opens `parts` one below the other.
    pub fn descend<'a>(
        &self,
        parts: impl Iterator<Item = &'a str>,
    ) -> Result<Option<Self>, FsError> {
        let mut at = self.again()?;
        for part in parts {
            match at.child(part)? {
                Some(child) => at = child,
                None => return Ok(None),
            }
        }
        Ok(Some(at))
    }

    /// Opens `parts` one below the other, made where they are not there.
    pub fn make_path<'a>(&self, parts: impl Iterator<Item = &'a str>) -> Result<Self, FsError> {
        let mut at = self.again()?;
        for part in parts {
            at = at.make_child(part)?;
        }
        Ok(at)
    }

    /// The same directory once more.
    pub fn again(&self) -> Result<Self, FsError> {
        let again = || self.fd.try_clone().map_err(|error| from_io(&error));
        let fd = patiently(again).map_err(|error| FsError::io("open", &self.path, error))?;
        Ok(Self { fd, path: self.path.clone() })
    }

    fn open_at(&self, name: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let mode = Mode::from_raw_mode(if flags.contains(OFlags::CREATE) { 0o666 } else { 0 });
        patiently(|| rustix::fs::openat(&self.fd, name, flags, mode))
    }

    /// Creates a file that must not be there yet.
    pub fn create_file(&self, name: &str) -> Result<File, FsError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | FILE;
        self.open_at(name, flags)
            .map(File::from)
            .map_err(|error| FsError::io("create", &self.path_of(name), error))
    }

    /// Opens a regular file for reading.
    pub fn read_file(&self, name: &str) -> Result<Option<File>, FsError> {
        self.open_file(name, OFlags::RDONLY)
    }

    /// Opens a regular file with `access`, or `None` if there is nothing of that name.
    pub fn open_file(&self, name: &str, access: OFlags) -> Result<Option<File>, FsError> {
        let fail = |error: Errno| FsError::io("open", &self.path_of(name), error);
        match self.open_at(name, access | FILE) {
            Ok(fd) => {
                let stat = rustix::fs::fstat(&fd).map_err(fail)?;
                if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                    return Err(fail(Errno::INVAL));
                }
                Ok(Some(File::from(fd)))
            }
            Err(Errno::NOENT) if !access.contains(OFlags::CREATE) => Ok(None),
            Err(error) => Err(fail(error)),
        }
    }

    /// The content of a small file.
    pub fn read(&self, name: &str, max_bytes: u64) -> Result<Option<Vec<u8>>, FsError> {
        let Some(file) = self.read_file(name)? else {
            return Ok(None);
        };
        let mut content = Vec::new();
        match file.take(max_bytes).read_to_end(&mut content) {
            Ok(_) => Ok(Some(content)),
            Err(error) => Err(FsError::io("read", &self.path_of(name), error)),
        }
    }

    /// Writes a small file of `to` in one step: whoever reads it sees the old content or the new one.
    /// Until then it lies in this directory; if we are killed, it goes with that.
    pub fn replace_in(&self, to: &Self, name: &str, content: &[u8]) -> Result<(), FsError> {
        self.replace_with(to, name, content, false)
    }

    /// The same, also after a power cut.
    pub fn replace_durably_in(&self, to: &Self, name: &str, content: &[u8]) -> Result<(), FsError> {
        self.replace_with(to, name, content, true)?;
        to.sync()
    }

    fn replace_with(
        &self,
        to: &Self,
        name: &str,
        content: &[u8],
        sync: bool,
    ) -> Result<(), FsError> {
        let temporary = format!("{name}.{}", super::node::random_id());
        let written = self.create_file(&temporary).and_then(|mut file| {
            let path = self.path_of(&temporary);
            file.write_all(content).map_err(|error| FsError::io("write", &path, error))?;
            if sync {
                rustix::fs::fsync(&file).map_err(|error| FsError::io("sync", &path, error))?;
            }
            Ok(())
        });
        let done = written.and_then(|()| self.rename(&temporary, to, name));
        if done.is_err() {
            let _ = rustix::fs::unlinkat(&self.fd, &temporary, AtFlags::empty());
        }
        done
    }

    pub fn rename(&self, name: &str, to: &Self, new_name: &str) -> Result<(), FsError> {
        rustix::fs::renameat(&self.fd, name, &to.fd, new_name)
            .map_err(|error| FsError::io("rename to", &to.path_of(new_name), error))
    }

    /// The same, unless there is something of that name.
    pub fn rename_new(&self, name: &str, to: &Self, new_name: &str) -> Result<(), FsError> {
        rustix::fs::renameat_with(&self.fd, name, &to.fd, new_name, RenameFlags::NOREPLACE)
            .map_err(|error| FsError::io("rename to", &to.path_of(new_name), error))
    }

    /// Exchanges two names in one step, where the filesystem can.
    pub fn exchange(&self, name: &str, to: &Self, other: &str) -> Result<(), FsError> {
        rustix::fs::renameat_with(&self.fd, name, &to.fd, other, RenameFlags::EXCHANGE)
            .map_err(|error| FsError::io("exchange with", &to.path_of(other), error))
    }

    /// Gives the file `name` a second name.
    pub fn hard_link(&self, name: &str, to: &Self, new_name: &str) -> Result<(), FsError> {
        rustix::fs::linkat(&self.fd, name, &to.fd, new_name, AtFlags::empty())
            .map_err(|error| FsError::io("link to", &to.path_of(new_name), error))
    }

    pub fn link(&self, target: &str, name: &str) -> Result<(), FsError> {
        rustix::fs::symlinkat(target, &self.fd, name)
            .map_err(|error| FsError::io("create the link", &self.path_of(name), error))
    }

    /// Where the link `name` points to.
    pub fn link_target(&self, name: &str) -> Result<String, FsError> {
        rustix::fs::readlinkat(&self.fd, name, Vec::new())
            .map(|target| target.to_string_lossy().into_owned())
            .map_err(|error| FsError::io("read the link", &self.path_of(name), error))
    }

    /// Removes a file or a link; one that is gone already is no error.
    pub fn remove_file(&self, name: &str) -> Result<(), FsError> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(FsError::io("remove", &self.path_of(name), error)),
        }
    }

    /// Removes an empty directory.
    pub fn remove_dir(&self, name: &str) -> Result<(), FsError> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(FsError::io("remove the directory", &self.path_of(name), error)),
        }
    }

    /// The names in the directory, sorted. A name that is no UTF-8 is shown with replacement
    /// characters: it cannot be one of ours.
    pub fn names(&self) -> Result<Vec<String>, FsError> {
        let fail = |error: Errno| FsError::io("list", &self.path, error);
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd).map_err(fail)? {
            let name = entry.map_err(fail)?.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// Hands over each name with what it stands for, in the order of the filesystem and without a list of
    /// them: there may be very many. A name that is no UTF-8 is left out.
    pub fn each_name(
        &self,
        each: &mut dyn FnMut(&str, Kind) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, FsError> {
        let fail = |error: Errno| FsError::io("list", &self.path, error);
        for entry in rustix::fs::Dir::read_from(&self.fd).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if name == "." || name == ".." {
                continue;
            }
            let kind = match entry.file_type() {
                FileType::Unknown => self.kind(name)?,
                known => Some(kind_of(known)),
            };
            if let Some(kind) = kind
                && each(name, kind).is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Makes the names in this directory durable. Filesystems that cannot do that for directories
    /// say so with errors that mean nothing else.
    pub fn sync(&self) -> Result<(), FsError> {
        match rustix::fs::fsync(&self.fd) {
            Ok(()) | Err(Errno::INVAL | Errno::NOTSUP | Errno::BADF) => Ok(()),
            Err(error) => Err(FsError::io("sync the directory", &self.path, error)),
        }
    }

    /// Inode of `name`, if it is there; of a link, the link's own.
    pub fn inode(&self, name: &str) -> Result<Option<u64>, FsError> {
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat.st_ino)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(FsError::io("look at", &self.path_of(name), error)),
        }
    }

    /// Whether the file `name`, if it is there, has other names too.
    pub fn has_other_names(&self, name: &str) -> Result<Option<bool>, FsError> {
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat.st_nlink > 1)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(FsError::io("look at", &self.path_of(name), error)),
        }
    }

    /// When a name in this directory was last added or removed, since 1970.
    pub fn modified(&self) -> Result<Duration, FsError> {
        let stat = rustix::fs::fstat(&self.fd)
            .map_err(|error| FsError::io("look at", &self.path, error))?;
        Ok(since_1970(&stat))
    }

    /// When the file `name` was last written, since 1970, if it is there; of a link, the link's own.
    pub fn modified_of(&self, name: &str) -> Result<Option<Duration>, FsError> {
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(since_1970(&stat))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(FsError::io("look at", &self.path_of(name), error)),
        }
    }

    /// Lets the directory `name` be modified now, by the filesystem's own clock.
    pub fn touch(&self, name: &str) -> Result<(), FsError> {
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let times = Timestamps { last_access: now, last_modification: now };
        rustix::fs::utimensat(&self.fd, name, &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| FsError::io("touch", &self.path_of(name), error))
    }

    /// Identity of the directory: device and inode.
    pub fn identity(&self) -> Result<(u64, u64), FsError> {
        let stat = rustix::fs::fstat(&self.fd)
            .map_err(|error| FsError::io("look at", &self.path, error))?;
        Ok((stat.st_dev, stat.st_ino))
    }

    /// Size in bytes of the regular file `name`, if that is what it is.
    pub fn file_size(&self, name: &str) -> Result<Option<u64>, FsError> {
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
                Ok(Some(stat.st_size as u64))
            }
            Ok(_) | Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(FsError::io("look at", &self.path_of(name), error)),
        }
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn kind_of(file_type: FileType) -> Kind {
    match file_type {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Link,
        _ => Kind::Other,
    }
}

fn since_1970(stat: &rustix::fs::Stat) -> Duration {
    let nanoseconds = u32::try_from(stat.st_mtime_nsec).unwrap_or_default();
    Duration::new(stat.st_mtime.max(0) as u64, nanoseconds)
}

/// Does it again for a while where there are no descriptors left: others of our threads have some
/// only for a moment.
fn patiently<T>(open: impl Fn() -> Result<T, Errno>) -> Result<T, Errno> {
    let started = Instant::now();
    loop {
        match open() {
            Err(Errno::MFILE | Errno::NFILE) if started.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(20));
            }
            done => return done,
        }
    }
}

fn from_io(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
