//! Which files of a snapshot are fetched, and why the others are not.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::snapshot::check_tree;
use super::{RefusedFile, RemoteFile, SnapshotError, UnsafePath, fnmatch};

/// What the user asked for. Kept in the sentinel: a family fetched with another selection is not
/// what this run wants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Selection {
    /// Only files that match one of these; empty means every file.
    pub include: Vec<String>,
    /// Files that match one of these are left out, after `include`.
    pub exclude: Vec<String>,
    /// Take every format of the weights, not only safetensors.
    pub all: bool,
}

/// The outcome: every file of the snapshot is in one of the two.
#[derive(Clone, Debug, Default)]
pub struct Selected {
    pub files: Vec<RemoteFile>,
    pub left_out: Vec<LeftOut>,
}

/// A file that is not fetched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    pub path: String,
    pub size: u64,
    /// `not included`, `excluded` or `duplicate format`.
    pub why: String,
}

/// A selection that cannot be fetched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectionError {
    #[error("{0}; leave it out with `--exclude`")]
    UnsafePath(UnsafePath),
    #[error(transparent)]
    NoTree(#[from] SnapshotError),
    #[error("none of the {0} files matches `--include`/`--exclude`; check the patterns")]
    NothingSelected(usize),
    #[error("the source holds no files")]
    Empty,
}

impl Selection {
    /// Whether the user has chosen no files by name.
    pub fn is_plain(&self) -> bool {
        self.include.is_empty() && self.exclude.is_empty()
    }

    /// Whether the patterns name a file of this name, or name nothing. What its format has to say is
    /// another question.
    pub fn names(&self, name: &str) -> bool {
        let any = |patterns: &[String]| patterns.iter().any(|p| fnmatch::matches(p, name));
        (self.include.is_empty() || any(&self.include)) && !any(&self.exclude)
    }

    /// Splits `files`. Patterns match the whole path as Python's `fnmatchcase` does.
    ///
    /// Without `--include` and `--all`, other formats of weights that are there as safetensors are
    /// left out.
    ///
    /// `files` are sorted as in a snapshot. Names are judged only where they are selected: `refused`
    /// holds those that cannot be used.
    pub fn apply(
        &self,
        files: Vec<RemoteFile>,
        refused: Vec<RefusedFile>,
    ) -> Result<Selected, SelectionError> {
        let total = files.len() + refused.len();
        let duplicates = if self.all || !self.include.is_empty() {
            BTreeSet::new()
        } else {
            duplicate_formats(&files)
        };
        let mut selected = Selected::default();
        for RefusedFile { name, size, why: refusal } in refused {
            match self.left_out_by_name(&name) {
                Some(why) => selected.left_out.push(LeftOut::new(refusal.name, size, why)),
                None => return Err(SelectionError::UnsafePath(refusal)),
            }
        }
        for file in files {
            let path = file.path.as_str();
            let by_format = || duplicates.contains(path).then_some("duplicate format");
            match self.left_out_by_name(path).or_else(by_format) {
                Some(why) => selected.left_out.push(LeftOut::new(path.to_owned(), file.size, why)),
                None => selected.files.push(file),
            }
        }
        check_tree(&selected.files)?;
        match (selected.files.is_empty(), total) {
            (true, 0) => Err(SelectionError::Empty),
            (true, _) => Err(SelectionError::NothingSelected(total)),
            (false, _) => Ok(selected),
        }
    }

    /// Why the user's patterns leave out a file of this name, if they do.
    fn left_out_by_name(&self, name: &str) -> Option<&'static str> {
        let any = |patterns: &[String]| patterns.iter().any(|p| fnmatch::matches(p, name));
        if !self.include.is_empty() && !any(&self.include) {
            Some("not included")
        } else {
            any(&self.exclude).then_some("excluded")
        }
    }
}

impl LeftOut {
    fn new(path: String, size: u64, why: &str) -> Self {
        Self { path, size, why: why.to_owned() }
    }
}

/// Whether a file of this name holds weights.
pub fn is_weight(path: &str) -> bool {
    let path = path.to_ascii_lowercase();
    [".safetensors", ".gguf", ".onnx", ".h5", ".msgpack", ".ot", ".npz"]
        .iter()
        .any(|end| path.ends_with(end))
        || is_pickle(&path)
}

/// Whether loading a file of this name may run code that is inside it.
pub fn is_pickle(path: &str) -> bool {
    let extension = path.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
    matches!(
        extension.as_deref(),
        Some("bin" | "pt" | "pth" | "ckpt" | "pkl" | "pickle" | "joblib" | "dill")
    )
}

/// Paths that hold weights which the same directory also has as a complete safetensors set.
///
/// Decided directory by directory: `2_Dense/pytorch_model.bin` stays where only the top of the
/// repo has safetensors.
fn duplicate_formats(files: &[RemoteFile]) -> BTreeSet<String> {
    let mut by_directory: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for file in files {
        by_directory.entry(file.path.parent().unwrap_or("")).or_default().push(file.path.name());
    }
    let complete: BTreeSet<&str> = by_directory
        .iter()
        .filter(|(_, names)| has_complete_safetensors(names))
        .map(|(directory, _)| *directory)
        .collect();
    files
        .iter()
        .filter(|file| {
            let directory = file.path.parent().unwrap_or("");
            let name = file.path.name();
            // Whole directories that repeat what lies beside them.
            let within = file.path.parts().rev().skip(1).collect::<Vec<_>>();
            let repeated = within.iter().enumerate().any(|(n, part)| {
                let above = within[n + 1..].iter().rev().copied().collect::<Vec<_>>().join("/");
                matches!(*part, "original" | "onnx" | "openvino")
                    && complete.contains(above.as_str())
            });
            repeated || (complete.contains(directory) && is_other_format(name))
        })
        .map(|file| file.path.as_str().to_owned())
        .collect()
}

fn is_other_format(name: &str) -> bool {
    name.starts_with("consolidated")
        || [".bin", ".pth", ".pt", ".h5", ".msgpack", ".gguf", ".ot", ".bin.index.json"]
            .iter()
            .any(|suffix| name.ends_with(suffix))
}

/// Whether `names` hold at least one safetensors set with no shard missing.
fn has_complete_safetensors(names: &[&str]) -> bool {
    let mut sets: BTreeMap<(&str, u32), BTreeSet<u32>> = BTreeMap::new();
    for name in names.iter().filter(|name| !name.starts_with("consolidated")) {
        let Some(stem) = name.strip_suffix(".safetensors") else {
            continue;
        };
        match shard(stem) {
            Some((base, number, count)) => sets.entry((base, count)).or_default().insert(number),
            // Adapters ride on a model; they do not replace its weights.
            None if stem.starts_with("adapter") => continue,
            None => return true,
        };
    }
    sets.iter().any(|((_, count), numbers)| numbers.len() as u64 == u64::from(*count))
}

/// `model-00001-of-00004` → (`model`, 1, 4).
fn shard(stem: &str) -> Option<(&str, u32, u32)> {
    let (rest, count) = stem.rsplit_once("-of-")?;
    let (base, number) = rest.rsplit_once('-')?;
    let (number, count) = (number.parse().ok()?, count.parse().ok()?);
    (1..=count).contains(&number).then_some((base, number, count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RelPath;

    fn select(selection: &Selection, paths: &[&str]) -> Vec<String> {
        let files = paths
            .iter()
            .map(|path| RemoteFile {
                path: RelPath::parse(path).expect(path),
                size: 1,
                digest: None,
                validator: None,
            })
            .collect();
        let selected = selection.apply(files, Vec::new()).expect("something is selected");
        assert_eq!(selected.files.len() + selected.left_out.len(), paths.len());
        selected.files.iter().map(|file| file.path.to_string()).collect()
    }

    #[test]
    fn other_formats_of_complete_safetensors_are_left_out() {
        let kept = select(
            &Selection::default(),
            &[
                "config.json",
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
                "pytorch_model.bin",
                "original/consolidated.00.pth",
                "original/params.json",
                "onnx/model.onnx",
                "consolidated.safetensors",
                "model.gguf",
                "1_Pooling/config.json",
                "2_Dense/pytorch_model.bin",
                "tokenizer.model",
            ],
        );
        assert_eq!(
            kept,
            [
                "config.json",
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
                "1_Pooling/config.json",
                "2_Dense/pytorch_model.bin",
                "tokenizer.model",
            ]
        );
    }

    #[test]
    fn nothing_is_left_out_while_a_shard_is_missing() {
        let paths = ["model-00001-of-00002.safetensors", "pytorch_model.bin"];
        assert_eq!(select(&Selection::default(), &paths), paths);
        let only = ["consolidated.safetensors", "params.json", "tekken.json"];
        assert_eq!(select(&Selection::default(), &only), only);
        let adapter = ["adapter_model.safetensors", "pytorch_model.bin"];
        assert_eq!(select(&Selection::default(), &adapter), adapter);
    }

    #[test]
    fn the_rule_works_in_each_directory_of_a_pipeline() {
        let kept = select(
            &Selection::default(),
            &["unet/model.safetensors", "unet/model.bin", "vae/model.bin", "unet/onnx/model.onnx"],
        );
        assert_eq!(kept, ["unet/model.safetensors", "vae/model.bin"]);
    }

    #[test]
    fn include_comes_first_and_switches_the_rule_off() {
        let paths = ["model.safetensors", "pytorch_model.bin", "config.json"];
        let selection = Selection {
            include: vec!["*.bin".into(), "*.json".into()],
            exclude: vec!["config*".into()],
            all: false,
        };
        assert_eq!(select(&selection, &paths), ["pytorch_model.bin"]);
        let all = Selection { all: true, ..Selection::default() };
        assert_eq!(select(&all, &paths), paths);
    }

    #[test]
    fn a_pattern_that_selects_nothing_is_an_error() {
        let selection = Selection { include: vec!["*.nope".into()], ..Selection::default() };
        let files = vec![RemoteFile {
            path: RelPath::parse("a").expect("a"),
            size: 0,
            digest: None,
            validator: None,
        }];
        let refused = selection.apply(files, Vec::new());
        assert_eq!(refused.err(), Some(SelectionError::NothingSelected(1)));
    }

    #[test]
    fn a_name_that_cannot_be_used_is_judged_only_where_it_is_selected() {
        let apply = |exclude: &[&str]| {
            let files = ["a", "b"].map(|path| RemoteFile {
                path: RelPath::parse(path).expect(path),
                size: 1,
                digest: None,
                validator: None,
            });
            let name = "x/../up.bin".to_owned();
            let why = RelPath::parse(&name).expect_err("leaves its directory");
            let exclude = exclude.iter().map(|pattern| (*pattern).to_owned()).collect();
            let selection = Selection { exclude, ..Selection::default() };
            selection.apply(files.into(), vec![RefusedFile { name, size: 7, why }])
        };
        assert!(matches!(apply(&[]), Err(SelectionError::UnsafePath(_))));
        let selected = apply(&["*.bin"]).expect("it is excluded");
        assert_eq!((selected.files.len(), selected.left_out[0].size), (2, 7));
    }
}
