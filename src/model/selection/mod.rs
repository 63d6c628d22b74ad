//! Which files of a snapshot are fetched, and why the others are not.

mod duplicates;
mod listing;
mod names;
mod published;
mod quantisations;
mod training;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use self::duplicates::Duplicates;
use self::listing::Listing;
use self::training::Training;
use super::snapshot::check_tree;
use super::{
    RefusedFile, RelPath, RemoteFile, SnapshotError, SourceUri, UnsafePath, fnmatch, text,
};

pub use names::looks_like_weights;
pub use quantisations::is_quantisation;

const LEAVE_OUT: &str = "leave it out with `--exclude`";
const CHECK_PATTERNS: &str = "check the patterns";

/// What the user asked for. Kept in the sentinel: a family fetched with another selection is not
/// what this run wants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Selection {
    /// Only files that match one of these; empty means every file.
    pub include: Vec<String>,
    /// Files that match one of these are left out, after `include`.
    pub exclude: Vec<String>,
    /// Take what else is there: other formats of the same weights, and training state.
    pub all: bool,
}

/// The outcome: every file of the snapshot is in one of the two.
#[derive(Clone, Debug, Default)]
pub struct Selected {
    pub files: Vec<RemoteFile>,
    pub left_out: Vec<LeftOut>,
    /// What the user may not have meant.
    pub warnings: Vec<String>,
    /// How to choose among quantisations, where there are many.
    pub hint: Option<String>,
}

/// A file that is not fetched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    pub path: String,
    pub size: u64,
    /// One of [`LeftOut::REASONS`].
    pub why: String,
}

/// A selection that cannot be fetched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectionError {
    #[error("{0}; {LEAVE_OUT}")]
    UnsafePath(UnsafePath),
    #[error(transparent)]
    NoTree(#[from] SnapshotError),
    #[error("none of the {files} files matches `--include`/`--exclude`{told}; {CHECK_PATTERNS}")]
    NothingSelected {
        files: usize,
        /// Continues the sentence: which patterns match nothing.
        told: String,
    },
    #[error("the source holds no files")]
    Empty,
}

impl SelectionError {
    /// What the user can do about it, as its sentence ends.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::UnsafePath(_) => Some(LEAVE_OUT),
            Self::NothingSelected { .. } => Some(CHECK_PATTERNS),
            Self::NoTree(_) | Self::Empty => None,
        }
    }
}

impl Selection {
    /// The same for `source`: what is no model has no weights that are there twice, and no training state.
    pub fn of(self, source: &SourceUri) -> Self {
        Self { all: self.all || !source.is_model(), ..self }
    }

    /// Whether the user has chosen no files by name.
    pub fn is_plain(&self) -> bool {
        self.include.is_empty() && self.exclude.is_empty()
    }

    /// Whether the patterns name a file of this name, or name nothing. What its format has to say is
    /// another question.
    pub fn names(&self, name: &str) -> bool {
        self.left_out_by_name(name).is_none()
    }

    /// Splits `files`. Patterns match the whole path as Python's `fnmatchcase` does.
    ///
    /// `--include` names files: what matches is taken, whatever it is. Without it, and without `--all`,
    /// weights that other selected files hold as well and training state are left out. What that is, is
    /// decided on the files that the patterns have left, never on the whole listing.
    ///
    /// `files` are sorted as in a snapshot. Names are judged only where they are selected: `refused`
    /// holds those that cannot be used.
    pub fn apply(
        &self,
        files: Vec<RemoteFile>,
        refused: Vec<RefusedFile>,
    ) -> Result<Selected, SelectionError> {
        let total = files.len() + refused.len();
        let unmatched = self.unmatched(&files, &refused);
        let mut selected = Selected::default();
        for RefusedFile { name, size, why: refusal } in refused {
            match self.left_out_by_name(&name) {
                Some(why) => selected.left_out.push(LeftOut::new(refusal.name, size, why)),
                None => return Err(SelectionError::UnsafePath(refusal)),
            }
        }
        for file in files {
            match self.left_out_by_name(file.path.as_str()) {
                Some(why) => selected.leave_out(file, why),
                None => selected.files.push(file),
            }
        }
        check_tree(&selected.files)?;
        if !self.all && self.include.is_empty() {
            selected.leave_out_what_nobody_loads();
        }
        match (selected.files.is_empty(), total) {
            (true, 0) => return Err(SelectionError::Empty),
            (true, files) => {
                let told: Vec<String> = unmatched.iter().map(|it| format!("; {it}")).collect();
                return Err(SelectionError::NothingSelected { files, told: told.concat() });
            }
            (false, _) => {}
        }
        selected.warnings = unmatched;
        selected.warnings.extend(selected.without_weights());
        if self.include.is_empty() {
            selected.hint = quantisations::hint(&selected.files);
        }
        Ok(selected)
    }

    /// The union of this selection and `also`, which other runs had asked for: an update takes nothing
    /// away that somebody uses. What no selection takes is left out for the reason of this one. Of `also`,
    /// what can take nothing from these files any more is passed over.
    pub fn apply_with(
        &self,
        also: &[Self],
        files: Vec<RemoteFile>,
        refused: Vec<RefusedFile>,
    ) -> Result<Selected, SelectionError> {
        let mut wanted = BTreeSet::new();
        for other in also.iter().filter(|other| *other != self) {
            let Ok(selected) = other.apply(files.clone(), refused.clone()) else { continue };
            wanted.extend(selected.files.into_iter().map(|file| file.path));
        }
        if wanted.is_empty() {
            return self.apply(files, refused);
        }
        let of_others: Vec<RemoteFile> =
            files.iter().filter(|file| wanted.contains(&file.path)).cloned().collect();
        let mut selected = self.apply(files, refused)?;
        let own: BTreeSet<RelPath> = selected.files.iter().map(|file| file.path.clone()).collect();
        selected.files.extend(of_others.into_iter().filter(|file| !own.contains(&file.path)));
        selected.files.sort_by(|a, b| a.path.parts().cmp(b.path.parts()));
        selected
            .left_out
            .retain(|file| RelPath::parse(&file.path).map_or(true, |path| !wanted.contains(&path)));
        check_tree(&selected.files)?;
        Ok(selected)
    }

    /// One sentence for each pattern that matches no file of the source.
    fn unmatched(&self, files: &[RemoteFile], refused: &[RefusedFile]) -> Vec<String> {
        let paths = || files.iter().map(|file| file.path.as_str());
        let names = || paths().chain(refused.iter().map(|file| file.name.as_str()));
        let flags = [("--include", &self.include), ("--exclude", &self.exclude)];
        let patterns = flags.into_iter().flat_map(|(flag, patterns)| {
            patterns.iter().map(move |pattern| (flag, pattern.as_str()))
        });
        let unmatched =
            patterns.filter(|(_, pattern)| !names().any(|name| fnmatch::matches(pattern, name)));
        let told = unmatched.map(|(flag, pattern)| {
            let shown = text::inert(pattern, 100);
            let is_inside =
                |path: &str| path.strip_prefix(pattern).is_some_and(|rest| rest.starts_with('/'));
            let hint = if names().any(is_inside) {
                format!("; write `{shown}/` for what is in that directory")
            } else {
                String::new()
            };
            format!("`{flag} '{shown}'` matches nothing{hint}")
        });
        told.collect()
    }

    /// Why the user's patterns leave out a file of this name, if they do.
    pub(super) fn left_out_by_name(&self, name: &str) -> Option<&'static str> {
        let any = |patterns: &[String]| patterns.iter().any(|p| fnmatch::matches(p, name));
        if !self.include.is_empty() && !any(&self.include) {
            Some(LeftOut::NOT_INCLUDED)
        } else {
            any(&self.exclude).then_some(LeftOut::EXCLUDED)
        }
    }
}

impl Selected {
    /// Training state, and weights that other files hold as well.
    fn leave_out_what_nobody_loads(&mut self) {
        let reasons = reasons(&self.files);
        // Where there is nothing else, it is what the user wants.
        if reasons.iter().all(Option::is_some) {
            return;
        }
        for (file, why) in std::mem::take(&mut self.files).into_iter().zip(reasons) {
            match why {
                Some(why) => self.leave_out(file, why),
                None => self.files.push(file),
            }
        }
    }

    fn leave_out(&mut self, file: RemoteFile, why: &str) {
        self.left_out.push(LeftOut::new(file.path.to_string(), file.size, why));
    }

    /// Says so if there are weights and none of them is selected.
    fn without_weights(&self) -> Option<String> {
        let is_weights = |path: &str| {
            let name = path.rsplit('/').next().unwrap_or(path);
            names::looks_like_weights(path) && !training::is_state_by_name(name)
        };
        if self.files.iter().any(|file| is_weights(file.path.as_str())) {
            return None;
        }
        let mut weights = self.left_out.iter().filter(|file| is_weights(&file.path));
        let first = text::inert(&weights.next()?.path, 200);
        let named = match weights.count() {
            0 => format!("`{first}`"),
            more => format!("`{first}` and {more} more"),
        };
        Some(format!(
            "no file that looks like weights is selected, and the source has {named}; check the patterns"
        ))
    }
}

/// Why each of `files` is left out without being named, if it is.
fn reasons(files: &[RemoteFile]) -> Vec<Option<&'static str>> {
    let listing = Listing::new(files);
    let mut training = Training::new(&listing);
    let is_training: Vec<bool> = files.iter().map(|file| training.has(file)).collect();
    let duplicates = Duplicates::new(&listing, |n| !is_training[n]);
    let reason = |(file, is_training)| match is_training {
        true => Some(LeftOut::TRAINING_STATE),
        false => duplicates.has(file).then_some(LeftOut::DUPLICATE),
    };
    files.iter().zip(is_training).map(reason).collect()
}

impl LeftOut {
    pub const DUPLICATE: &'static str = "duplicate format";
    pub const TRAINING_STATE: &'static str = "training state";
    const NOT_INCLUDED: &'static str = "not included";
    const EXCLUDED: &'static str = "excluded";
    pub const REASONS: [&'static str; 4] =
        [Self::DUPLICATE, Self::TRAINING_STATE, Self::NOT_INCLUDED, Self::EXCLUDED];

    /// Whether the user has not asked for it: `--all` takes the file.
    pub fn is_by_default(why: &str) -> bool {
        [Self::DUPLICATE, Self::TRAINING_STATE].contains(&why)
    }

    fn new(path: String, size: u64, why: &str) -> Self {
        Self { path, size, why: why.to_owned() }
    }
}

/// Whether loading a file of this name may run code that is inside it.
pub fn is_pickle(path: &str) -> bool {
    let extension = path.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
    matches!(
        extension.as_deref(),
        Some("bin" | "pt" | "pth" | "ckpt" | "pkl" | "pickle" | "joblib" | "dill")
    )
}

#[cfg(test)]
mod tests;
