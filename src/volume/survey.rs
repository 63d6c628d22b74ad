//! What lies below a root: working areas, the families in them, and the links that lead to revisions. Looks
//! only, whatever lies there: no link is followed, and the number of names that are looked at is bounded.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType};

use super::attempts::attempt_parts;
use super::layout::{CACHE_SENTINELS, IN_PLACE, REVISIONS};
use super::mounts::Outer;
use super::staging::ATTEMPTS;
use super::sweep::GONE;
use super::{Destination, Store, StoreError};
use crate::fs::{Dir, Kind, filesystem};
use crate::model::{ModelDir, Place, SENTINEL, STATE_DIR};

/// So many names are looked at outside of the working areas; a root may hold anything.
const MAX_NAMES: usize = 200_000;
/// No DEST that people choose lies deeper.
const MAX_LEVELS: usize = 12;
/// So many things that could not be read are named.
const MAX_PROBLEMS: usize = 20;

/// A family that was found, by its name in the working area.
#[derive(Clone, Debug)]
pub(super) struct FoundFamily {
    pub area: usize,
    pub state_name: String,
    /// `None` if only a name that was cut tells of it.
    pub store: Option<Store>,
}

/// A directory that has a working area, or holds families without one.
#[derive(Clone, Debug)]
pub(super) struct FoundArea {
    pub at: Outer,
    /// The family that this directory is itself, where it is filled in place.
    pub in_place: Option<Store>,
    families: BTreeMap<String, Option<ModelDir>>,
}

/// What was found below a root.
#[derive(Debug)]
pub struct Survey {
    pub(super) root: PathBuf,
    pub(super) areas: Vec<FoundArea>,
    /// Where links lead to: the family and the name of a revision.
    links: BTreeSet<(String, String)>,
    /// Those among them that others than the family have.
    of_others: BTreeSet<(String, String)>,
    /// What could not be read.
    pub problems: Vec<String>,
    looked_at: usize,
}

impl Survey {
    /// Looks at all that lies below `root`; `None` if there is no such directory.
    pub fn of(root: &Path) -> Result<Option<Self>, StoreError> {
        let Some(dir) = Dir::open(root)? else { return Ok(None) };
        let mut survey = Self::empty(root);
        survey.enter(&dir, &mut Vec::new(), None, 0)?;
        Ok(Some(survey))
    }

    /// Looks at the working area of `store` alone: links elsewhere are not seen.
    pub(super) fn of_area(store: &Store) -> Result<Self, StoreError> {
        let mut survey = Self::empty(&store.destination.root);
        let parts = store.outer.as_ref().map(|outer| outer.parts.clone()).unwrap_or_default();
        if let Some(outer) = &store.outer {
            outer.root.clone_into(&mut survey.root);
        }
        let area = survey.add_area(&parts, None);
        if let Some(state) = survey.state(area)? {
            survey.add_names(area, &state)?;
        }
        Ok(survey)
    }

    fn empty(root: &Path) -> Self {
        let root = root.to_owned();
        let (areas, problems) = (Vec::new(), Vec::new());
        let (links, of_others) = (BTreeSet::new(), BTreeSet::new());
        Self { root, areas, links, of_others, problems, looked_at: 0 }
    }

    /// Whether the root is a model that lies in another root.
    pub fn is_inside_model(&self) -> bool {
        self.areas.is_empty()
    }

    /// The directories below the root at which other volumes with models are mounted.
    pub fn volumes_below(&self) -> Vec<PathBuf> {
        let is_below = |area: &&FoundArea| !area.at.parts.is_empty() && area.in_place.is_none();
        self.areas.iter().filter(is_below).map(|area| area.at.path()).collect()
    }

    /// Every family, area by area.
    pub(super) fn families(&self) -> impl Iterator<Item = FoundFamily> {
        self.areas.iter().enumerate().flat_map(|(n, area)| {
            let in_place = area.in_place.clone().map(|store| FoundFamily {
                area: n,
                state_name: IN_PLACE.to_owned(),
                store: Some(store),
            });
            let others = area.families.iter().map(move |(state_name, family)| FoundFamily {
                area: n,
                state_name: state_name.clone(),
                store: family.clone().map(|family| area.store(family)),
            });
            in_place.into_iter().chain(others)
        })
    }

    /// The working area, if there is one.
    pub(super) fn state(&self, area: usize) -> Result<Option<Dir>, StoreError> {
        let base = self.areas[area].at.open_inner()?;
        Ok(base.map(|base| base.child(STATE_DIR)).transpose()?.flatten())
    }

    /// Of each working area, what the directory that it lies in says of those who share it.
    pub fn places(&self) -> Vec<(PathBuf, Place)> {
        let of =
            |area: &FoundArea| Some((area.at.path(), area.at.open_inner().ok()??.place().ok()?));
        self.areas.iter().filter_map(of).collect()
    }

    /// Whether a link leads to a revision, whichever it is.
    pub(super) fn is_linked(&self, state_name: &str, id: &str) -> bool {
        self.links.contains(&(state_name.to_owned(), id.to_owned()))
    }

    /// Whether another link than that of the family leads to a revision.
    pub(super) fn is_linked_by_others(&self, state_name: &str, id: &str) -> bool {
        self.of_others.contains(&(state_name.to_owned(), id.to_owned()))
    }

    fn add_area(&mut self, parts: &[String], in_place: Option<Store>) -> usize {
        let at = Outer { root: self.root.clone(), parts: parts.to_vec() };
        self.areas.push(FoundArea { at, in_place, families: BTreeMap::new() });
        self.areas.len() - 1
    }

    fn note(&mut self, problem: &StoreError) {
        match self.problems.len() {
            0..MAX_PROBLEMS => self.problems.push(problem.to_string()),
            MAX_PROBLEMS => self.problems.push("and more".into()),
            _ => {}
        }
    }

    /// Looks at a directory, `parts` below the root. `above` is the area that it is in, and how many of
    /// `parts` lead there.
    fn enter(
        &mut self,
        dir: &Dir,
        parts: &mut Vec<String>,
        above: Option<(usize, usize)>,
        levels: usize,
    ) -> Result<(), StoreError> {
        let is_published = dir.kind(SENTINEL)?.is_some();
        let state = match dir.kind(STATE_DIR)? {
            // Whoever may not look into it may still see links.
            Some(Kind::Directory) => dir.child(STATE_DIR).unwrap_or_else(|error| {
                self.note(&error.into());
                None
            }),
            _ => None,
        };
        let is_filled = match &state {
            Some(state) => is_published || is_for_itself(state)?,
            None => false,
        };
        if is_filled && let Some(store) = self.store_in_place(parts, above) {
            let area = self.add_area(parts, Some(store));
            if let Some(state) = &state {
                self.add_names(area, state)?;
            }
            return Ok(());
        }
        // What lies in a repo of a cache is no way to another model.
        if is_published || dir.kind(CACHE_SENTINELS)? == Some(Kind::Directory) {
            self.add_family(parts, above);
            return Ok(());
        }
        let mut above = above;
        if state.is_some() || above.is_none() {
            let area = self.add_area(parts, None);
            if let Some(state) = &state {
                self.add_names(area, state)?;
            }
            above = Some((area, parts.len()));
        }
        if levels < MAX_LEVELS { self.descend(dir, parts, above, levels) } else { Ok(()) }
    }

    fn descend(
        &mut self,
        dir: &Dir,
        parts: &mut Vec<String>,
        above: Option<(usize, usize)>,
        levels: usize,
    ) -> Result<(), StoreError> {
        for (name, kind) in self.children(dir)? {
            parts.push(name.clone());
            let done = match kind {
                Kind::Link => self.see_link(dir, &name, parts, above),
                _ => match dir.child(&name) {
                    Ok(Some(child)) => self.enter(&child, parts, above, levels + 1),
                    Ok(None) => Ok(()),
                    Err(error) => Err(error.into()),
                },
            };
            parts.pop();
            if let Err(error) = done {
                self.note(&error);
            }
        }
        Ok(())
    }

    /// The directories and links in `dir` that can be on the way to a family.
    fn children(&mut self, dir: &Dir) -> Result<Vec<(String, Kind)>, StoreError> {
        let fail = |error| StoreError::io("list", dir.path(), error);
        let mut children = Vec::new();
        for entry in rustix::fs::Dir::read_from(dir).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            self.looked_at += 1;
            if self.looked_at > MAX_NAMES {
                let is_first = self.looked_at == MAX_NAMES + 1;
                if is_first {
                    self.problems.push(format!(
                        "more than {MAX_NAMES} names lie below `{}`: some of them were not checked",
                        self.root.display()
                    ));
                }
                break;
            }
            let Ok(name) = entry.file_name().to_str() else { continue };
            if filesystem::owns(name) || ModelDir::parse(name).is_err() {
                continue;
            }
            let kind = match entry.file_type() {
                FileType::Unknown => rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
                    .map_or(FileType::Unknown, |stat| FileType::from_raw_mode(stat.st_mode)),
                kind => kind,
            };
            match kind {
                FileType::Directory => children.push((name.to_owned(), Kind::Directory)),
                FileType::Symlink => children.push((name.to_owned(), Kind::Link)),
                _ => {}
            }
        }
        children.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(children)
    }

    fn see_link(
        &mut self,
        dir: &Dir,
        name: &str,
        parts: &[String],
        above: Option<(usize, usize)>,
    ) -> Result<(), StoreError> {
        let target = dir.link_target(name)?;
        let Some((state_name, id)) = revision_in(&target) else { return Ok(()) };
        self.links.insert((state_name.to_owned(), id.to_owned()));
        if let Some(family) = family_in(parts, above)
            && family.file_name() == state_name
        {
            self.add_family(parts, above);
        } else {
            self.of_others.insert((state_name.to_owned(), id.to_owned()));
        }
        Ok(())
    }

    fn add_family(&mut self, parts: &[String], above: Option<(usize, usize)>) {
        if let (Some((area, _)), Some(family)) = (above, family_in(parts, above)) {
            self.areas[area].families.insert(family.file_name(), Some(family));
        }
    }

    /// The families that only the working area still knows.
    fn add_names(&mut self, area: usize, state: &Dir) -> Result<(), StoreError> {
        let mut found = BTreeSet::new();
        for (part, of) in [(REVISIONS, false), (ATTEMPTS, true)] {
            let names = match state.child(part).and_then(|dir| dir.map(|it| it.names()).transpose())
            {
                Ok(names) => names.unwrap_or_default(),
                Err(error) => {
                    self.note(&error.into());
                    continue;
                }
            };
            let family = |name: String| {
                let attempt = name.strip_suffix(GONE).unwrap_or(&name);
                attempt_parts(attempt).map(|(family, _)| family.to_owned())
            };
            match of {
                true => found.extend(names.into_iter().filter_map(family)),
                false => found.extend(names),
            }
        }
        let area = &mut self.areas[area];
        for state_name in found {
            if area.in_place.is_none() || state_name != IN_PLACE {
                let family = ModelDir::of_file_name(&state_name);
                area.families.entry(state_name).or_insert(family);
            }
        }
        Ok(())
    }

    /// The family that a directory is which has a working area of its own.
    fn store_in_place(&self, parts: &[String], above: Option<(usize, usize)>) -> Option<Store> {
        let store = match above {
            Some((area, _)) => self.areas[area].store(family_in(parts, above)?),
            // The root itself.
            None => {
                let real = std::fs::canonicalize(&self.root).ok()?;
                let family = ModelDir::parse(real.file_name()?.to_str()?).ok()?;
                Store::of(Destination { root: real.parent()?.to_owned(), family })
            }
        };
        Some(Store { in_place: true, ..store })
    }
}

impl FoundArea {
    fn store(&self, family: ModelDir) -> Store {
        let is_root = self.at.parts.is_empty();
        let root = self.at.path();
        let outer = (!is_root).then(|| self.at.clone());
        Store { outer, ..Store::of(Destination { root, family }) }
    }
}

/// Whether a working area is that of the directory which it lies in, and of no families below.
fn is_for_itself(state: &Dir) -> Result<bool, StoreError> {
    let locks = state.child("locks")?;
    let is_locked = match locks {
        Some(locks) => locks.kind(&format!("{IN_PLACE}.lock"))?.is_some(),
        None => false,
    };
    Ok(is_locked && state.kind(REVISIONS)?.is_none())
}

/// Whether models lie below `dir`: it has a working area that is not for `dir` itself.
pub fn is_root(dir: &Dir) -> Result<bool, StoreError> {
    if dir.kind(STATE_DIR)? != Some(Kind::Directory) {
        return Ok(false);
    }
    dir.child(STATE_DIR)?.map_or(Ok(false), |state| Ok(!is_for_itself(&state)?))
}

/// The family at `parts`, relative to the area that it is in.
fn family_in(parts: &[String], above: Option<(usize, usize)>) -> Option<ModelDir> {
    ModelDir::parse(&parts[above?.1..].join("/")).ok()
}

/// The family and the revision that a link leads to, if it is one of ours or of somebody who means ours.
pub(super) fn revision_in(target: &str) -> Option<(&str, &str)> {
    let inside = format!("{STATE_DIR}/{REVISIONS}/");
    let at = target.find(&inside)?;
    let mut parts = target[at + inside.len()..].split('/').filter(|part| !part.is_empty());
    Some((parts.next()?, parts.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_to_a_revision_is_known_however_it_is_written() {
        for (target, expected) in [
            (".weightlift/revisions/a/0f", Some(("a", "0f"))),
            ("../.weightlift/revisions/b%2Fc/0f/", Some(("b%2Fc", "0f"))),
            ("/data/models/.weightlift/revisions/a/0f/config.json", Some(("a", "0f"))),
            (".weightlift/revisions/a", None),
            ("a", None),
            ("/etc", None),
        ] {
            assert_eq!(revision_in(target), expected, "{target}");
        }
    }
}
