//! The files that the patterns have left, and which complete sets of weights are among them.

use std::collections::{BTreeMap, BTreeSet};

use super::names::{Format, Identity, Weights};
use crate::model::RemoteFile;

/// A safetensors file begins with the length of its header.
const LEAST_SAFETENSORS_BYTES: u64 = 8;

/// The files in the order of a snapshot, and the models among them.
pub struct Listing<'a> {
    pub files: &'a [RemoteFile],
    /// Bytes of the largest complete safetensors set that stands for weights, by directory.
    safetensors: BTreeMap<(&'a str, Identity<'a>), u64>,
    /// Directories that hold a whole model as safetensors or as PyTorch's `.bin`.
    models: BTreeSet<&'a str>,
    /// Directories that hold a whole adapter in one of these formats.
    adapters: BTreeSet<&'a str>,
}

/// The files that make up one copy of the weights of a directory.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct SetName<'a> {
    directory: &'a str,
    format: Format,
    stem: std::borrow::Cow<'a, str>,
    /// As it is written, and empty where one file is all.
    count: &'a str,
    identity: Identity<'a>,
}

#[derive(Default)]
struct Set {
    count: u32,
    numbers: BTreeSet<u32>,
    bytes: u64,
}

impl<'a> Listing<'a> {
    pub fn new(files: &'a [RemoteFile]) -> Self {
        let mut listing = Self {
            files,
            safetensors: BTreeMap::new(),
            models: BTreeSet::new(),
            adapters: BTreeSet::new(),
        };
        for (name, set) in sets(files) {
            if set.is_complete() {
                listing.add(name, set.bytes);
            }
        }
        listing
    }

    /// Bytes of the safetensors in `directory` that hold the weights of `identity`, if it has them whole.
    pub fn safetensors(&self, directory: &str, identity: &Identity<'_>) -> Option<u64> {
        self.safetensors.get(&(directory, identity.clone())).copied()
    }

    /// The same for a whole model, whose name and variant are those that loaders look for first.
    pub fn model_as_safetensors(&self, directory: &str) -> Option<u64> {
        Identity::MODELS.iter().filter_map(|model| self.safetensors(directory, model)).max()
    }

    pub fn has_model(&self, directory: &str) -> bool {
        self.models.contains(directory)
    }

    pub fn has_adapter(&self, directory: &str) -> bool {
        self.adapters.contains(directory)
    }

    /// Whether `directory` holds a file of this name.
    pub fn has(&self, directory: &str, name: &str) -> bool {
        let inside = directory.split('/').filter(|part| !part.is_empty());
        let wanted = inside.chain(name.split('/'));
        self.files.binary_search_by(|file| file.path.parts().cmp(wanted.clone())).is_ok()
    }

    /// The files in `directory` and below.
    pub fn below(&self, directory: &str) -> &'a [RemoteFile] {
        let depth = directory.split('/').count();
        let head = |file: &RemoteFile| file.path.parts().take(depth).cmp(directory.split('/'));
        let from = self.files.partition_point(|file| head(file).is_lt());
        let after = self.files.partition_point(|file| head(file).is_le());
        &self.files[from..after]
    }

    fn add(&mut self, name: SetName<'a>, bytes: u64) {
        let SetName { directory, format, identity, .. } = name;
        if matches!(format, Format::Safetensors | Format::Other("bin")) {
            if Identity::MODELS.contains(&identity) {
                self.models.insert(directory);
            }
            if Identity::ADAPTERS.contains(&identity) {
                self.adapters.insert(directory);
            }
        }
        if format == Format::Safetensors {
            let largest = self.safetensors.entry((directory, identity)).or_default();
            *largest = bytes.max(*largest);
        }
    }
}

impl Set {
    /// By its own numbers, from 0 or from 1.
    fn is_complete(&self) -> bool {
        let is_whole = |first: u32| {
            let numbers = self.numbers.range(first..first.saturating_add(self.count));
            numbers.count() as u64 == u64::from(self.count)
        };
        self.count == 0 || is_whole(1) || is_whole(0)
    }
}

fn sets(files: &[RemoteFile]) -> BTreeMap<SetName<'_>, Set> {
    let mut sets: BTreeMap<SetName<'_>, Set> = BTreeMap::new();
    for file in files {
        let Some(weights) = Weights::parse(file.path.name()) else { continue };
        let is_safetensors = weights.format == Format::Safetensors;
        if is_safetensors && (file.size < LEAST_SAFETENSORS_BYTES || !weights.is_found_by_loaders())
        {
            continue;
        }
        let name = SetName {
            directory: file.path.parent().unwrap_or(""),
            format: weights.format,
            count: weights.shard.map_or("", |shard| shard.count_text),
            identity: weights.identity(),
            stem: weights.stem,
        };
        let set = sets.entry(name).or_default();
        if let Some(shard) = weights.shard {
            set.count = shard.count;
            set.numbers.insert(shard.number);
        }
        set.bytes = set.bytes.saturating_add(file.size);
    }
    sets
}

#[cfg(test)]
mod tests {
    use super::super::tests::files;
    use super::*;

    #[test]
    fn a_set_is_complete_by_its_own_numbers() {
        let is_complete = |paths: &[&str]| {
            let files = files(paths);
            Listing::new(&files).model_as_safetensors("").is_some()
        };
        for complete in [
            &["model.safetensors"][..],
            &["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"],
            &["model-00000-of-00002.safetensors", "model-00001-of-00002.safetensors"],
            &["model-1-of-1.safetensors"],
            &["model-00001-of-00009.safetensors", "model.safetensors"],
            &["diffusion_pytorch_model.safetensors"],
        ] {
            assert!(is_complete(complete), "{complete:?}");
        }
        for short in [
            &["model-00001-of-00002.safetensors"][..],
            &["model-00000-of-00002.safetensors", "model-00002-of-00002.safetensors"],
            &["model-1-of-2.safetensors", "model-00002-of-00002.safetensors"],
            &["model-00001-of-00002.safetensors", "model.fp16-00002-of-00002.safetensors"],
            &["model-1-of-4294967295.safetensors"],
            &["model.fp16.safetensors"],
            &["model.SAFETENSORS"],
            &["pytorch_model.safetensors"],
            &["a/model.safetensors"],
        ] {
            assert!(!is_complete(short), "{short:?}");
        }
    }

    #[test]
    fn what_lies_below_a_directory_is_found_without_a_look_at_the_rest() {
        let files = files(&["a", "b/c", "b/d/e", "b.c", "b-c/d", "bc/d"]);
        let listing = Listing::new(&files);
        let below = |directory: &str| -> Vec<&str> {
            listing.below(directory).iter().map(|file| file.path.as_str()).collect()
        };
        assert_eq!(below("b"), ["b/c", "b/d/e"]);
        assert_eq!(below("b/d"), ["b/d/e"]);
        assert_eq!(below("x"), [""; 0]);
        assert!(listing.has("", "a") && listing.has("b", "c") && listing.has("b/d", "e"));
        assert!(!listing.has("", "c") && !listing.has("b", "e") && !listing.has("", "b"));
    }
}
