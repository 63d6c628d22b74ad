//! Whether what is selected of a source is whole: decided by names and indexes, before any weights
//! are asked for.
//!
//! An index says which shards a model has, and a shard's name of how many it is one. What they name
//! and the source lacks is fatal, but where the user has chosen to do without, or where another set
//! of weights in the same directory is whole.

mod names;
mod sets;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use self::names::{IndexName, Numbered, Weights, join};
pub use self::names::{is_index, names_its_format};
use self::sets::{Set, Whole, sets, wholes};
use super::fnmatch::{exclude_flag, literal};
use super::{LeftOut, Message, RelPath, RemoteFile, Selection, UnsafePath};

/// More warnings than this are counted, not shown.
const MAX_WARNINGS: usize = 10;
/// Shards that are named in one message.
const MAX_NAMED: usize = 3;
const INCOMPLETE: &str = "the model is incomplete";

/// All that is known of the weights at a source and of the indexes that are selected.
pub struct Completeness<'a> {
    selection: &'a Selection,
    files: &'a [RemoteFile],
    /// Every path of the source, and whether it is selected.
    listed: HashMap<&'a str, bool>,
    /// Ordered by their directory and name.
    sets: Vec<Set<'a>>,
    /// Weights whose index the user has left out.
    without_index: Vec<(&'a str, Weights<'a>)>,
    /// Directories with a set that is whole by its index.
    whole_by_index: BTreeSet<String>,
    /// Indexes of which the source holds nothing at all: fatal, unless something else is whole.
    of_nothing: Vec<(RelPath, String)>,
    /// Made when it is first needed.
    wholes: Option<BTreeMap<&'a str, Vec<Whole<'a>>>>,
    findings: Findings,
}

/// What has come out.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Findings {
    pub warnings: Vec<String>,
    /// Warnings that are not among these.
    pub more_warnings: usize,
    /// The first thing that leaves the model incomplete.
    pub failure: Option<Message>,
}

/// The shards that one index names, as far as they matter.
#[derive(Debug, Default)]
pub struct Shards {
    /// Names of those that the source lists, relative to the index.
    pub listed: BTreeSet<String>,
    /// The first one that the user has left out.
    left_out: Option<String>,
    /// Something else is selected in the place of some.
    has_unselected: bool,
    /// The first ones that the source lacks.
    absent: Vec<String>,
    has_more_absent: bool,
}

impl<'a> Completeness<'a> {
    /// `files` are selected, `left_out` is what the source holds besides.
    pub fn new(files: &'a [RemoteFile], left_out: &'a [LeftOut], selection: &'a Selection) -> Self {
        let selected = files.iter().map(|file| (file.path.as_str(), true));
        let others = left_out.iter().map(|file| (file.path.as_str(), false));
        let without_index = left_out
            .iter()
            .filter(|file| selection.left_out_by_name(&file.path) == Some("excluded"))
            .filter_map(|file| {
                let (directory, name) = split(&file.path);
                Some((directory, IndexName::of(name)?.weights?))
            });
        Self {
            selection,
            files,
            listed: others.chain(selected).collect(),
            sets: sets(files),
            without_index: without_index.collect(),
            whole_by_index: BTreeSet::new(),
            of_nothing: Vec::new(),
            wholes: None,
            findings: Findings::default(),
        }
    }

    /// Takes note of what the index at `path` names.
    pub fn add_index(&mut self, path: &RelPath, shards: &Shards) {
        let directory = path.parent().unwrap_or("");
        let touched = self.touched(directory, &shards.listed);
        for set in &touched {
            self.sets[*set].is_indexed = true;
        }
        if let Some(shard) = &shards.left_out {
            let lacks = if self.listed.contains_key(shard.as_str()) {
                "which the selection leaves out"
            } else {
                "which the source does not hold and the selection leaves out"
            };
            self.warn(format!("`{path}` names `{shard}`, {lacks}"));
        }
        if shards.absent.is_empty() {
            let is_selected = shards.left_out.is_none() && !shards.has_unselected;
            if is_selected && !shards.listed.is_empty() {
                self.whole_by_index.insert(directory.to_owned());
            }
            return;
        }
        let names = shards.absent.iter().map(|path| format!("`{path}`")).collect::<Vec<_>>();
        let more = if shards.has_more_absent { " and more" } else { "" };
        let lacks =
            format!("`{path}` names {}{more}, which the source does not hold", names.join(", "));
        let of = IndexName::of(path.name()).and_then(|index| index.weights);
        let is_of_nothing = shards.listed.is_empty();
        let other = self.wholes_in(directory).iter().find(|whole| {
            // Loaders look for the weights of this name first, whatever else is there.
            let serves = is_of_nothing || of.as_ref() == Some(&whole.weights);
            let is_named = match whole.set {
                Some(set) => touched.contains(&set),
                None => shards.listed.contains(&whole.name),
            };
            serves && !is_named
        });
        if let Some(other) = other.map(|other| join(directory, &other.name)) {
            self.warn(format!(
                "{lacks}; it is the index of another build: `{other}` next to it is complete"
            ));
        } else if is_of_nothing {
            self.of_nothing.push((path.clone(), lacks));
        } else {
            self.fail(incomplete(&lacks, path));
        }
    }

    /// What is to be said and done, all indexes being known.
    pub fn findings(mut self) -> Findings {
        for (path, lacks) in std::mem::take(&mut self.of_nothing) {
            if self.whole_by_index.contains(path.parent().unwrap_or("")) {
                self.warn(format!("{lacks}; another index next to it is complete"));
            } else {
                self.fail(incomplete(&lacks, &path));
            }
        }
        for file in self.files.iter().filter(|file| file.size == 0) {
            if Weights::of(file.path.name()).is_some_and(|it| it.format == "safetensors") {
                let flag = exclude_flag(&literal(file.path.as_str()));
                let what = format!(
                    "`{}` is what the source published, but it is not valid safetensors: it is empty",
                    file.path
                );
                self.fail(Message::new(what).hint(format!("add {flag} to do without it")));
            }
        }
        for n in 0..self.sets.len() {
            self.check_numbers(n);
        }
        self.findings
    }

    /// Whether every number of a set is there, where no index knows better.
    fn check_numbers(&mut self, n: usize) {
        let set = &self.sets[n];
        if set.is_indexed || set.is_complete() {
            return;
        }
        let mut left_out = None;
        let mut missing = Vec::new();
        for path in set.missing() {
            match self.place(&path) {
                Place::Selected | Place::LeftOut => {}
                Place::LeftOutByUser => _ = left_out.get_or_insert(path),
                Place::Absent if missing.len() <= MAX_NAMED => missing.push(path),
                Place::Absent => break,
            }
        }
        let (directory, pattern) = (set.directory, set.pattern());
        let Some(count) = set.name.count() else { return };
        let there = format!("{} of {count} files of `{}`", set.present.len(), set.shown());
        if missing.is_empty() {
            if let Some(path) = left_out {
                self.warn(format!("{there} are selected; the selection leaves out `{path}`"));
            }
            return;
        }
        let more = if missing.len() > MAX_NAMED { " and more" } else { "" };
        missing.truncate(MAX_NAMED);
        let names = missing.iter().map(|path| format!("`{path}`")).collect::<Vec<_>>().join(", ");
        let lacks = format!("the source holds {there}, but not {names}{more}");
        let is_chosen = set.name.weights().is_some_and(|weights| {
            self.without_index.iter().any(|(at, of)| *at == directory && *of == weights)
        });
        if is_chosen {
            self.warn(format!("{lacks}; the selection leaves out its index"));
        } else if let Some(other) = self.wholes_in(directory).first() {
            let other = join(directory, &other.name);
            self.warn(format!("{lacks}; `{other}` next to it is complete"));
        } else if self.whole_by_index.contains(directory) {
            self.warn(format!("{lacks}; another set next to it is complete by its index"));
        } else {
            let accept = match missing.as_slice() {
                [one] if more.is_empty() => {
                    format!(", or {} to take it as it is", exclude_flag(&literal(one)))
                }
                _ => String::new(),
            };
            let hint = format!("add {} to leave this set out{accept}", exclude_flag(&pattern));
            self.fail(Message::new(format!("{lacks}; {INCOMPLETE}")).hint(hint));
        }
    }

    fn place(&self, path: &str) -> Place {
        match self.listed.get(path) {
            Some(true) => Place::Selected,
            _ if self.selection.left_out_by_name(path).is_some() => Place::LeftOutByUser,
            Some(false) => Place::LeftOut,
            None => Place::Absent,
        }
    }

    /// The sets that some of `shards`, relative to `directory`, belong to.
    fn touched(&self, directory: &str, shards: &BTreeSet<String>) -> BTreeSet<usize> {
        let numbers = shards.iter().filter_map(|shard| {
            let (below, name) = split(shard);
            let name = Numbered::of(name)?.set;
            let directory = join(directory, below);
            let key = (directory.trim_end_matches('/'), name);
            self.sets.binary_search_by(|set| (set.directory, set.name).cmp(&key)).ok()
        });
        numbers.collect()
    }

    /// Models in `directory` that are whole by their names.
    fn wholes_in(&mut self, directory: &str) -> &[Whole<'a>] {
        let (files, sets) = (self.files, &self.sets);
        let wholes = self.wholes.get_or_insert_with(|| wholes(files, sets));
        wholes.get(directory).map_or(&[], Vec::as_slice)
    }

    fn warn(&mut self, warning: String) {
        if self.findings.warnings.len() < MAX_WARNINGS {
            self.findings.warnings.push(warning);
        } else {
            self.findings.more_warnings += 1;
        }
    }

    fn fail(&mut self, failure: Message) {
        self.findings.failure.get_or_insert(failure);
    }
}

/// Where a path of the model is.
enum Place {
    Selected,
    LeftOutByUser,
    /// By a rule of ours: something else stands for it.
    LeftOut,
    Absent,
}

impl Shards {
    /// Takes note of a shard; whether the source lists it.
    pub fn see(
        &mut self,
        all: &Completeness<'_>,
        index: &RelPath,
        shard: Result<&str, UnsafePath>,
    ) -> Result<bool, UnsafePath> {
        let path = match shard {
            Ok(path) => path,
            Err(refused) => {
                // A name that cannot be used may be listed, and left out for that reason.
                let name = join(index.parent().unwrap_or(""), &refused.name);
                if all.listed.get(name.as_str()) != Some(&false) {
                    return Err(refused);
                }
                self.left_out.get_or_insert(name);
                return Ok(false);
            }
        };
        match all.place(path) {
            Place::Selected => {}
            Place::LeftOut => self.has_unselected = true,
            Place::LeftOutByUser => _ = self.left_out.get_or_insert_with(|| path.to_owned()),
            Place::Absent if self.absent.iter().any(|known| known == path) => {}
            Place::Absent if self.absent.len() < MAX_NAMED => self.absent.push(path.to_owned()),
            Place::Absent => self.has_more_absent = true,
        }
        Ok(all.listed.contains_key(path))
    }
}

fn incomplete(lacks: &str, index: &RelPath) -> Message {
    let flag = exclude_flag(&literal(index.as_str()));
    Message::new(format!("{lacks}; {INCOMPLETE}"))
        .hint(format!("add {flag} to continue without this index"))
}

/// Directory, empty at the top, and name.
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}
