//! Which permissions a run gives to what it creates on a volume: its umask. Decided from facts alone, so that it is one
//! table.
//!
//! Pods with different users share a volume through a group. The directory that holds the models says so by its own
//! mode: the group may write there, and what is created there gets that group.

use super::{Message, text};

const SET_GROUP_ID: u32 = 0o2000;
const STICKY: u32 = 0o1000;
const GROUP: u32 = 0o070;
const GROUP_WRITES: u32 = 0o020;
const OWNER: u32 = 0o700;
const ALL: u32 = 0o777;

/// The directory that models are published below; where it is missing, the nearest one above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Permission bits, with set-group-ID and the sticky bit.
    pub mode: u32,
    /// Its group is the one that this process gives to new files.
    pub is_of_our_group: bool,
}

/// Who may look into a [`Place`], and cannot read what is created there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutOut {
    /// All but the owner.
    GroupAndOthers,
    /// All who are not in the group.
    Others,
}

impl Place {
    /// Whether the group of this directory is to read and write all that is created in it. In a sticky directory, such
    /// as `/tmp`, the right to write does not mean that.
    pub fn is_shared(self) -> bool {
        let has = |bit| self.mode & bit != 0;
        has(GROUP_WRITES) && (has(SET_GROUP_ID) || self.is_of_our_group && !has(STICKY))
    }

    /// Who may look into this directory, and not read what is created there with `umask`.
    pub fn shuts_out(self, umask: u32) -> Option<ShutOut> {
        let is_closed = |read_and_enter| {
            self.mode & read_and_enter == read_and_enter && umask & read_and_enter != 0
        };
        match (is_closed(0o050), is_closed(0o005)) {
            (true, _) => Some(ShutOut::GroupAndOthers),
            (false, true) => Some(ShutOut::Others),
            (false, false) => None,
        }
    }
}

/// The umask of a run that creates something in `places`: what was asked for, else the one that the process was
/// started with, less the bits of the group where all of `places` are shared by theirs. A process has one umask, and
/// nobody is let in where that was not asked for.
pub fn umask(asked: Option<u32>, inherited: u32, places: &[Place]) -> u32 {
    match asked {
        Some(asked) => asked,
        None if !places.is_empty() && places.iter().all(|place| place.is_shared()) => {
            inherited & !GROUP
        }
        None => inherited,
    }
}

/// Whether some of `places` are shared by their group and get a umask that keeps it out, because others are not.
pub fn is_divided(umask: u32, places: &[Place]) -> bool {
    umask & GROUP_WRITES != 0 && places.iter().any(|place| place.is_shared())
}

/// Reads a umask as shells write it: octal digits. We have to read and write what we create.
pub fn parse(text: &str) -> Result<u32, Message> {
    let shown = text::inert(text, 40);
    let wrong = || {
        Message::new(format!("`{shown}` is not a umask"))
            .hint("use octal digits, such as 0002 or 022")
    };
    let digits = text.trim();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    match u32::from_str_radix(digits, 8) {
        Ok(umask) if umask > ALL => Err(wrong()),
        Ok(umask) if umask & OWNER != 0 => Err(Message::new(format!(
            "`{shown}` takes permissions from the owner, who must read and write the files"
        ))
        .hint("use 0002, 0022 or 0077")),
        Ok(umask) => Ok(umask),
        Err(_) => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours(mode: u32) -> Place {
        Place { mode, is_of_our_group: true }
    }

    fn theirs(mode: u32) -> Place {
        Place { mode, is_of_our_group: false }
    }

    #[test]
    fn the_directory_of_the_models_says_whether_its_group_may_write() {
        for (place, expected) in [
            // `fsGroup`: the kubelet sets both bits; the group is one of our supplementary ones.
            (theirs(0o2775), 0o002),
            (ours(0o2775), 0o002),
            (theirs(0o2770), 0o002),
            // A random user with group 0, on a volume that the kubelet does not change.
            (ours(0o775), 0o002),
            (ours(0o777), 0o002),
            // New files would get another group.
            (theirs(0o775), 0o022),
            (theirs(0o777), 0o022),
            // Only the owner writes there.
            (ours(0o755), 0o022),
            (ours(0o2755), 0o022),
            (ours(0o700), 0o022),
            // `/tmp`, and a directory that is set up to be shared, with the names in it left to their owners.
            (ours(0o1777), 0o022),
            (ours(0o3775), 0o002),
        ] {
            assert_eq!(umask(None, 0o022, &[place]), expected, "{place:?}");
            // Whoever asks is obeyed.
            for asked in [0o002, 0o022, 0o077] {
                assert_eq!(umask(Some(asked), 0o022, &[place]), asked, "{place:?}");
            }
        }
        // Others stay as they were.
        assert_eq!(umask(None, 0o077, &[theirs(0o2775)]), 0o007);
        assert_eq!(umask(None, 0o000, &[theirs(0o2775)]), 0o000);
    }

    #[test]
    fn where_places_differ_nobody_is_let_in() {
        let (shared, own) = (theirs(0o2775), ours(0o755));
        for (places, expected, divided) in [
            (&[][..], 0o022, false),
            (&[shared, shared], 0o002, false),
            (&[own, own], 0o022, false),
            (&[shared, own], 0o022, true),
            (&[own, shared, shared], 0o022, true),
        ] {
            let chosen = umask(None, 0o022, places);
            assert_eq!((chosen, is_divided(chosen, places)), (expected, divided), "{places:?}");
        }
        assert!(!is_divided(0o002, &[shared, own]), "asked for, or inherited");
    }

    #[test]
    fn whoever_may_look_into_the_directory_and_not_into_the_files_is_shut_out() {
        use ShutOut::{GroupAndOthers, Others};
        for (mode, umask, expected) in [
            (0o755, 0o022, None),
            (0o755, 0o002, None),
            (0o755, 0o077, Some(GroupAndOthers)),
            (0o755, 0o027, Some(Others)),
            (0o2775, 0o007, Some(Others)),
            (0o755, 0o044, Some(GroupAndOthers)),
            (0o755, 0o011, Some(GroupAndOthers)),
            // The directory is as closed.
            (0o700, 0o077, None),
            (0o750, 0o027, None),
            (0o2770, 0o007, None),
            (0o750, 0o077, Some(GroupAndOthers)),
            // Nobody else gets past it.
            (0o711, 0o077, None),
        ] {
            assert_eq!(ours(mode).shuts_out(umask), expected, "{mode:o} {umask:o}");
        }
    }

    #[test]
    fn a_umask_is_octal_and_leaves_the_owner_what_is_his() {
        for (text, expected) in [
            ("0002", Some(0o002)),
            ("2", Some(0o002)),
            ("022", Some(0o022)),
            (" 0077 ", Some(0o077)),
            ("000", Some(0)),
            ("0", Some(0)),
            ("077", Some(0o077)),
            ("", None),
            ("+2", None),
            ("-2", None),
            ("0o22", None),
            ("u=rwx", None),
            ("08", None),
            ("100", None),
            ("0222", None),
            ("0700", None),
            ("1000", None),
            ("2022", None),
            ("777777777777777777777777", None),
        ] {
            assert_eq!(parse(text).ok(), expected, "{text}");
        }
    }
}
