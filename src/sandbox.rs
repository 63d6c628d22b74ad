//! What the process may still do once its arguments are known: no new privileges, and, where the kernel has Landlock,
//! no write outside the places of this run, no read of other files' contents, and no other program.
//!
//! Knows rules and not commands: what a run touches is a [`Reach`]. It has to be called while there is one thread,
//! because a thread is confined with those that it starts later. Imports `environment`.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use landlock::{
    ABI, AccessFs, BitFlags, CompatLevel, Compatible, LandlockStatus, PathBeneath, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetError,
};
use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags};

/// A volume that does not answer must not hold up the run: without its directory there is no rule, so no confinement.
const TIME_TO_LOOK: Duration = Duration::from_secs(2);
/// Links that lead to links.
const MAX_LINKS: usize = 16;

/// What a run touches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Directories below which anything may be written, made and removed; or files that may be written. What is missing
    /// stands for the nearest directory above it that is there.
    pub writes: Vec<PathBuf>,
    /// What may be read as well; `None` is everything.
    pub reads: Option<Vec<Read>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// Whatever lies there.
    Below(PathBuf),
    /// A file that may be replaced while we run, as the kubelet and others do it: its directory, and those that links
    /// lead to. The home and `/` are too much for that: there it is the file alone.
    File(PathBuf),
}

/// What has come of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// Whether the process could get no more privileges before we said so.
    pub had_no_new_privileges: bool,
    pub files: Files,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Files {
    /// By this version of Landlock's interface; `places` are all that may be touched in some way.
    Confined { version: i32, reads_all: bool, places: Vec<PathBuf> },
    /// The user has not asked for it.
    Off,
    /// Something of this run does not go with it.
    Unfit(&'static str),
    /// The kernel has no Landlock that will do, or a filter refuses it.
    Refused,
}

impl Sandbox {
    /// Nothing is changed.
    pub fn off() -> Self {
        Self { had_no_new_privileges: has_no_new_privileges(), files: Files::Off }
    }

    /// Whether a permission that was refused at `path` may have been refused by this: it is none of the places, and the
    /// owner and mode of what is there do not forbid it. The kernel answers for these alone, without Landlock.
    pub fn may_have_refused(&self, path: &Path) -> bool {
        match &self.files {
            Files::Confined { places, reads_all, .. } if path.is_absolute() => {
                let real = std::fs::canonicalize(path);
                let real = real.as_deref().unwrap_or(path);
                let is_permitted = || {
                    let there = path.ancestors().find(|path| path.exists());
                    let asked = if *reads_all { Access::WRITE_OK } else { Access::READ_OK };
                    there.is_some_and(|there| {
                        rustix::fs::accessat(CWD, there, asked, AtFlags::EACCESS).is_ok()
                    })
                };
                !places.iter().any(|place| real.starts_with(place)) && is_permitted()
            }
            Files::Confined { .. } => false,
            Files::Off | Files::Unfit(_) | Files::Refused => false,
        }
    }
}

/// Takes from this thread, and those that it starts from now on, the way to more privileges.
pub fn settle() -> Sandbox {
    let had_no_new_privileges = has_no_new_privileges();
    let _ = rustix::thread::set_no_new_privs(true);
    Sandbox { had_no_new_privileges, files: Files::Off }
}

/// Confines this thread, and those that it starts from now on, to what `reach` says; or tells why not. `reach` is
/// asked on another thread, and may look at files.
pub fn confine(reach: impl FnOnce() -> Result<Reach, &'static str> + Send + 'static) -> Sandbox {
    let settled = settle();
    let files = match look(reach) {
        Ok(rules) => apply(rules).unwrap_or(Files::Refused),
        Err(why) => Files::Unfit(why),
    };
    Sandbox { files, ..settled }
}

fn has_no_new_privileges() -> bool {
    rustix::thread::no_new_privs().unwrap_or_default()
}

/// What is allowed, and where.
struct Rules {
    reads_all: bool,
    allowed: Vec<Rule>,
}

struct Rule {
    path: PathBuf,
    /// Without links.
    real: PathBuf,
    fd: OwnedFd,
    access: BitFlags<AccessFs>,
}

/// Opens all that `reach` names, on a thread of its own.
fn look(
    reach: impl FnOnce() -> Result<Reach, &'static str> + Send + 'static,
) -> Result<Rules, &'static str> {
    let (tell, told) = mpsc::channel();
    let work = move || {
        let _ = tell.send(reach().map(|reach| Rules::of(&reach)));
    };
    let thread = std::thread::Builder::new().name("sandbox".into()).spawn(work);
    let thread = thread.map_err(|_| "the process may have no more threads")?;
    let rules = match told.recv_timeout(TIME_TO_LOOK) {
        Ok(rules) => rules,
        Err(mpsc::RecvTimeoutError::Timeout) => {
            return Err("a directory of this run does not answer");
        }
        Err(mpsc::RecvTimeoutError::Disconnected) => Err("its rules could not be made"),
    };
    let _ = thread.join();
    rules
}

impl Rules {
    fn of(reach: &Reach) -> Self {
        let mut rules = Self { reads_all: reach.reads.is_none(), allowed: Vec::new() };
        for path in &reach.writes {
            if let Some(there) = path.ancestors().map(or_here).find(|path| path.exists()) {
                rules.allow(there, writing() | AccessFs::ReadFile);
            }
        }
        for path in reach.reads.iter().flatten().flat_map(Read::paths) {
            rules.allow(&path, AccessFs::ReadFile.into());
        }
        rules
    }

    /// What is not there needs no rule.
    fn allow(&mut self, path: &Path, access: BitFlags<AccessFs>) {
        if self.allowed.iter().any(|rule| rule.path == path && rule.access.contains(access)) {
            return;
        }
        let Ok(fd) = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) else {
            return;
        };
        let access = match path.is_dir() {
            true => access,
            false => access & AccessFs::from_file(ABI::V3),
        };
        let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        self.allowed.push(Rule { path: path.to_owned(), real, fd, access });
    }
}

/// All that changes something. Devices may be asked what they are, so version 5 is not used.
fn writing() -> BitFlags<AccessFs> {
    AccessFs::from_write(ABI::V3)
}

/// `.` for a relative path without a directory.
fn or_here(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

impl Read {
    fn paths(&self) -> Vec<PathBuf> {
        match self {
            Self::Below(path) => vec![path.clone()],
            Self::File(path) => around(path),
        }
    }
}

/// The file or directory `path`, with what may come to be in its place.
fn around(path: &Path) -> Vec<PathBuf> {
    let mut found = vec![path.to_owned()];
    let is_directory = path.is_dir();
    let (mut at, mut is_target) = (path.to_owned(), false);
    for _ in 0..MAX_LINKS {
        let above = at.parent().map(or_here).unwrap_or(Path::new("/")).to_owned();
        if is_target || !is_directory {
            found.extend(directory_of(&above));
        }
        let Ok(target) = std::fs::read_link(&at) else { break };
        (at, is_target) = (above.join(target), true);
    }
    found
}

/// The directory whose entries are replaced, if it may be read as a whole. The kubelet swaps `..data`.
fn directory_of(above: &Path) -> Option<PathBuf> {
    let above = match above.file_name() {
        Some(name) if name == "..data" => above.parent()?,
        _ => above,
    };
    let home = crate::environment::text("HOME").map(PathBuf::from);
    let real = std::fs::canonicalize(above).ok()?;
    let is_too_much = real.parent().is_none() || home.is_some_and(|home| home.starts_with(above));
    (!is_too_much).then(|| above.to_owned())
}

fn apply(rules: Rules) -> Result<Files, RulesetError> {
    let mut handled = AccessFs::from_write(ABI::V2) | AccessFs::Execute;
    if !rules.reads_all {
        handled |= AccessFs::ReadFile;
    }
    // Without version 2 nothing could be renamed or linked from one directory to another.
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(handled)?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::Truncate)?;
    let mut ruleset = ruleset.create()?;
    let mut places = Vec::new();
    for Rule { real, fd, access, .. } in rules.allowed {
        ruleset =
            ruleset.add_rule(PathBeneath::new(fd, access & (handled | AccessFs::Truncate)))?;
        places.push(real);
    }
    let status = ruleset.restrict_self()?;
    let version = match status.landlock {
        LandlockStatus::Available { effective_abi, kernel_abi } => {
            kernel_abi.unwrap_or(effective_abi as i32)
        }
        LandlockStatus::NotEnabled | LandlockStatus::NotImplemented => 0,
    };
    Ok(Files::Confined { version, reads_all: rules.reads_all, places })
}
