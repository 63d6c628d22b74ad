//! What a volume can do, and what follows for a model that is to appear on it. Decided from facts alone, so
//! that it is one table; [`super::probe`] finds the facts.

use std::path::PathBuf;

use crate::fs::Kind;
use crate::fs::access::Owned;
use crate::model::{Message, text};

/// What was found by trying, in the attempt's own directory, and by asking about the place of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Abilities {
    pub renames_files: bool,
    pub renames_directories: bool,
    /// Two names in one step (`RENAME_EXCHANGE`); a name that must be new (`RENAME_NOREPLACE`) as well.
    pub exchanges: bool,
    pub symbolic_links: bool,
    /// Without them, files that an update has in common with the older copy are copied.
    pub hard_links: bool,
    /// Of files and of directories.
    pub syncs: bool,
    pub removes: bool,
    /// Without them, replicas may fetch the same bytes.
    pub locks: bool,
    /// In bytes, where the filesystem tells.
    pub longest_name: Option<u64>,
    /// Whether a file as large as the largest of the model can be.
    pub holds_largest_file: bool,
    /// Why a finished tree cannot get to the place of the model, and where.
    pub obstacle: Option<(PathBuf, Obstacle)>,
}

/// What keeps names from being added, moved or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// Nothing can be renamed from the working area to here: another mount, or another quota.
    Elsewhere,
    ReadOnly,
    /// Permissions: this user may not change it.
    Closed {
        user: u32,
        owned: Option<Owned>,
    },
    /// The same, and it may not even be looked into.
    Unreadable {
        user: u32,
        owned: Option<Owned>,
    },
    Immutable,
    AppendOnly,
    /// In a sticky directory, what belongs to `owner`.
    Sticky {
        user: u32,
        owner: u32,
    },
}

/// What is to be published.
#[derive(Clone, Debug)]
pub struct Aim {
    /// Into a directory that stays the one it is.
    pub in_place: bool,
    pub allow_degraded: bool,
    /// What is at the place of the model now.
    pub there: Option<Kind>,
    /// The longest name of a file or directory.
    pub longest_name: String,
    pub largest_file: (String, u64),
}

/// How a model can appear, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// As a link to a directory that never changes.
    Link,
    Rename,
    Exchange,
    /// The sentinel last: readers that do not look at it may see a mixture.
    FileByFile,
}

/// Why it cannot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.message())]
pub enum Lack {
    Obstacle {
        path: PathBuf,
        obstacle: Obstacle,
    },
    Rename,
    Removal,
    Sync,
    Name {
        longest: u64,
        name: String,
    },
    Size {
        bytes: u64,
        name: String,
    },
    /// Neither exchange, rename nor link.
    OneStep,
}

const ANOTHER_KIND: &str = "use a volume of another kind";

impl Lack {
    /// The sentence that goes on from a path.
    pub fn message(&self) -> Message {
        match self {
            Self::Obstacle { obstacle, .. } => obstacle.message(),
            Self::Rename => {
                Message::new("cannot rename files, so nothing can be published there").hint(ANOTHER_KIND)
            }
            Self::Removal => Message::new(
                "cannot remove files (append-only, or write once), so weightlift could not clean up after a fetch",
            )
            .hint("allow that, or use a volume of another kind"),
            Self::Sync => Message::new(
                "cannot make files durable (fsync is refused), so nothing there would survive a power cut",
            )
            .hint(ANOTHER_KIND),
            Self::Name { longest, name } => Message::new(format!(
                "allows names of {longest} bytes, and `{}` has {}",
                text::name(name, 80),
                name.len()
            ))
            .hint("use a volume of another kind, or leave the file out with --exclude"),
            Self::Size { bytes, name } => Message::new(format!(
                "cannot hold a file of {}, as `{}` is",
                text::size(*bytes),
                text::name(name, 80)
            ))
            .hint("use a volume of another kind, or raise the limit of file sizes (ulimit -f)"),
            Self::OneStep => "has no way to let a model appear in one step".into(),
        }
    }
}

impl Obstacle {
    fn message(self) -> Message {
        match self {
            Self::Elsewhere => Message::new(
                "is on another volume, or under another quota, than the working area `.weightlift`, from \
                 which weightlift moves a complete model",
            )
            .hint("name that directory as --root"),
            Self::ReadOnly => {
                Message::new("is read-only").hint("mount it writable, or let another pod fetch")
            }
            Self::Closed { user, owned } => Message::new(format!(
                "is not writable for user {user}, the user of this process{}",
                told(owned)
            ))
            .hint(
                "give that user write permission (fsGroup, chgrp, chown), and set --umask if several users share \
                 the volume",
            ),
            Self::Unreadable { user, owned } => Message::new(format!(
                "is not readable for user {user}, the user of this process{}",
                told(owned)
            ))
            .hint(
                "give that user read permission (fsGroup, chgrp, chown), or let the user that fetched it set --umask",
            ),
            Self::Immutable => Message::new("is immutable")
                .hint("remove that attribute (chattr -i), or choose another DEST"),
            Self::AppendOnly => {
                Message::new("is append-only, so nothing there can be replaced")
                    .hint("remove that attribute (chattr -a), or choose another DEST")
            }
            Self::Sticky { user, owner } => Message::new(format!(
                "belongs to user {owner} and lies in a sticky directory, so user {user}, the user of this \
                 process, cannot replace it"
            ))
            .hint(format!("run as user {owner}, or choose another DEST")),
        }
    }
}

/// Whose it is, where that is known.
fn told(owned: Option<Owned>) -> String {
    owned.map_or_else(String::new, |owned| {
        let sticky = if owned.is_sticky { 0o1000 } else { 0 };
        let Owned { uid, gid, mode, .. } = owned;
        format!(" (owner {uid}, group {gid}, mode {:04o})", mode | sticky)
    })
}

/// How the model can appear, before a byte of it is asked for.
pub fn way(abilities: &Abilities, aim: &Aim) -> Result<Way, Lack> {
    if !abilities.renames_files {
        return Err(Lack::Rename);
    }
    if !abilities.removes {
        return Err(Lack::Removal);
    }
    if !abilities.syncs {
        return Err(Lack::Sync);
    }
    // After what holds everywhere: where nothing can be renamed, this cannot either.
    if let Some((path, obstacle)) = &abilities.obstacle {
        return Err(Lack::Obstacle { path: path.clone(), obstacle: *obstacle });
    }
    match abilities.longest_name {
        Some(longest) if aim.longest_name.len() as u64 > longest => {
            return Err(Lack::Name { longest, name: aim.longest_name.clone() });
        }
        _ => {}
    }
    if !abilities.holds_largest_file {
        let (name, bytes) = aim.largest_file.clone();
        return Err(Lack::Size { bytes, name });
    }
    if aim.in_place {
        return Ok(Way::FileByFile);
    }
    let Abilities { exchanges, renames_directories, symbolic_links, .. } = *abilities;
    // As `publish` does it.
    match aim.there {
        _ if symbolic_links && renames_directories => Ok(Way::Link),
        None if renames_directories => Ok(Way::Rename),
        Some(Kind::Directory) if exchanges => Ok(Way::Exchange),
        // A link cannot be filled.
        None | Some(Kind::Directory) if aim.allow_degraded => Ok(Way::FileByFile),
        _ => Err(Lack::OneStep),
    }
}

#[cfg(test)]
impl Abilities {
    /// Of a volume that can do all.
    pub fn all() -> Self {
        Self {
            renames_files: true,
            renames_directories: true,
            exchanges: true,
            symbolic_links: true,
            hard_links: true,
            syncs: true,
            removes: true,
            locks: true,
            longest_name: Some(255),
            holds_largest_file: true,
            obstacle: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aim() -> Aim {
        Aim {
            in_place: false,
            allow_degraded: false,
            there: None,
            longest_name: "model.safetensors".into(),
            largest_file: ("weights.bin".into(), 5 << 30),
        }
    }

    const DIRECTORY: Option<Kind> = Some(Kind::Directory);
    const LINK: Option<Kind> = Some(Kind::Link);

    /// By what directories can do: exchange, rename, be linked to.
    #[test]
    fn the_way_follows_from_what_directories_can_do() {
        use Way::{Exchange, FileByFile, Link, Rename};
        let refused = Err(Lack::OneStep);
        for (exchanges, renames, links, there, strict, degraded) in [
            (true, true, true, None, Ok(Link), Ok(Link)),
            (true, true, true, DIRECTORY, Ok(Link), Ok(Link)),
            (true, true, true, LINK, Ok(Link), Ok(Link)),
            (true, true, false, None, Ok(Rename), Ok(Rename)),
            (true, true, false, DIRECTORY, Ok(Exchange), Ok(Exchange)),
            (true, true, false, LINK, refused.clone(), refused.clone()),
            // NFS.
            (false, true, true, None, Ok(Link), Ok(Link)),
            (false, true, true, DIRECTORY, Ok(Link), Ok(Link)),
            (false, true, true, LINK, Ok(Link), Ok(Link)),
            // Some SMB.
            (false, true, false, None, Ok(Rename), Ok(Rename)),
            (false, true, false, DIRECTORY, refused.clone(), Ok(FileByFile)),
            (false, true, false, LINK, refused.clone(), refused.clone()),
            // Object stores behind FUSE.
            (false, false, true, None, refused.clone(), Ok(FileByFile)),
            (false, false, true, DIRECTORY, refused.clone(), Ok(FileByFile)),
            (false, false, false, None, refused.clone(), Ok(FileByFile)),
            (false, false, false, DIRECTORY, refused.clone(), Ok(FileByFile)),
        ] {
            let abilities = Abilities {
                exchanges,
                renames_directories: renames,
                symbolic_links: links,
                ..Abilities::all()
            };
            for (allow_degraded, expected) in [(false, strict), (true, degraded)] {
                let aim = Aim { allow_degraded, there, ..aim() };
                assert_eq!(way(&abilities, &aim), expected, "{abilities:?} {aim:?}");
                // A directory that is filled needs nothing of directories.
                let in_place = Aim { in_place: true, ..aim };
                assert_eq!(way(&abilities, &in_place), Ok(FileByFile), "{abilities:?}");
            }
        }
    }

    #[test]
    fn what_every_way_needs_is_refused_also_where_degraded_is_allowed() {
        let long = "x".repeat(200);
        let obstacle = |obstacle| {
            let at = PathBuf::from("/models/a");
            let abilities =
                Abilities { obstacle: Some((at.clone(), obstacle)), ..Abilities::all() };
            (abilities, aim(), Lack::Obstacle { path: at, obstacle })
        };
        let rows = [
            (Abilities { renames_files: false, ..Abilities::all() }, aim(), Lack::Rename),
            (Abilities { removes: false, ..Abilities::all() }, aim(), Lack::Removal),
            (Abilities { syncs: false, ..Abilities::all() }, aim(), Lack::Sync),
            (
                Abilities { longest_name: Some(143), ..Abilities::all() },
                Aim { longest_name: long.clone(), ..aim() },
                Lack::Name { longest: 143, name: long.clone() },
            ),
            (
                Abilities { holds_largest_file: false, ..Abilities::all() },
                aim(),
                Lack::Size { bytes: 5 << 30, name: "weights.bin".into() },
            ),
            obstacle(Obstacle::Elsewhere),
            obstacle(Obstacle::ReadOnly),
            obstacle(Obstacle::Closed { user: 65532, owned: None }),
            obstacle(Obstacle::Immutable),
            obstacle(Obstacle::AppendOnly),
            obstacle(Obstacle::Sticky { user: 65532, owner: 1000 }),
        ];
        for (abilities, aim, expected) in rows {
            for (in_place, allow_degraded) in [(false, false), (false, true), (true, false)] {
                let aim = Aim { in_place, allow_degraded, ..aim.clone() };
                assert_eq!(way(&abilities, &aim), Err(expected.clone()));
            }
        }
    }

    #[test]
    fn what_a_volume_can_do_without_is_no_reason_to_refuse() {
        for abilities in [
            Abilities { hard_links: false, ..Abilities::all() },
            Abilities { locks: false, ..Abilities::all() },
            Abilities { longest_name: None, ..Abilities::all() },
        ] {
            assert_eq!(way(&abilities, &aim()), Ok(Way::Link), "{abilities:?}");
        }
    }
}
