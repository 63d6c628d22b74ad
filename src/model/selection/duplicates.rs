//! Which files hold weights that other files hold as well, which will really be fetched.
//!
//! A loader that misses a file fails in production; a file too many costs bytes. So everything that is
//! not certain is no duplicate.

use std::collections::BTreeSet;

use super::listing::Listing;
use super::names::{Format, Identity, Weights, described_by_index, is_weights_of_copy};
use crate::model::RemoteFile;

/// Directories that repeat, for other programs, the model beside them.
const COPIES: [&str; 9] =
    ["original", "metal", "coreml", "onnx", "openvino", "tf", "tensorflow", "flax", "tflite"];

/// What repeats a model may take this many times its space: 32 bits beside 4, with room to spare. More
/// of it, and what it should repeat is a stub, such as the pointer of a file in LFS.
const LARGEST_RATIO: u64 = 16;
/// Less than this says nothing.
const LEAST_BYTES: u64 = 64 << 10;

/// Files that are left out together or not at all.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Group<'a> {
    /// A directory that repeats the one above.
    Copy(&'a str),
    /// The shards of one set; the numbered files of one series.
    Set { directory: &'a str, stem: String, format: Format },
}

/// Tells which files are duplicates.
pub struct Duplicates<'l, 'a> {
    listing: &'l Listing<'a>,
    /// Those of which a file has no counterpart, or none that can be one.
    needed: BTreeSet<Group<'a>>,
    /// Those of which every file has one.
    seen: BTreeSet<Group<'a>>,
}

impl<'l, 'a> Duplicates<'l, 'a> {
    /// `is_fetched` tells which files of the listing are left out for other reasons.
    pub fn new(listing: &'l Listing<'a>, is_fetched: impl Fn(usize) -> bool) -> Self {
        let mut duplicates = Self { listing, needed: BTreeSet::new(), seen: BTreeSet::new() };
        for (n, file) in listing.files.iter().enumerate() {
            if !is_fetched(n) {
                continue;
            }
            for (group, kept_bytes) in duplicates.groups(file) {
                if kept_bytes.is_some_and(|kept_bytes| is_plausible(file.size, kept_bytes)) {
                    duplicates.seen.insert(group);
                } else {
                    duplicates.needed.insert(group);
                }
            }
        }
        let Self { needed, seen, .. } = &mut duplicates;
        seen.retain(|group| !needed.contains(group));
        duplicates
    }

    pub fn has(&self, file: &'a RemoteFile) -> bool {
        self.groups(file).iter().any(|(group, _)| self.seen.contains(group))
            || self.is_index_of_duplicates(file)
    }

    /// The groups that `file` belongs to, each with the bytes of what stands for it.
    fn groups(&self, file: &'a RemoteFile) -> Vec<(Group<'a>, Option<u64>)> {
        let mut groups: Vec<_> = self.copies(file).collect();
        let directory = file.path.parent().unwrap_or("");
        if let Some(weights) = Weights::parse(file.path.name()) {
            groups.extend(self.set(directory, &weights));
        }
        groups
    }

    /// The directories above `file` that repeat the model beside them, if it is of their weights.
    fn copies(&self, file: &'a RemoteFile) -> impl Iterator<Item = (Group<'a>, Option<u64>)> {
        let path = file.path.as_str();
        path.match_indices('/').filter_map(move |(end, _)| {
            let directory = &path[..end];
            let (above, name) = directory.rsplit_once('/').unwrap_or(("", directory));
            if !COPIES.iter().any(|copy| name.eq_ignore_ascii_case(copy)) {
                return None;
            }
            let kept_bytes = self.listing.model_as_safetensors(above)?;
            let parent = file.path.parent().unwrap_or("");
            let has_beside = |name: &str| self.listing.has(parent, name);
            is_weights_of_copy(&path[end + 1..], has_beside)
                .then_some((Group::Copy(directory), Some(kept_bytes)))
        })
    }

    /// The set of `weights`, unless it is one that others can be duplicates of.
    fn set(&self, directory: &'a str, weights: &Weights<'_>) -> Option<(Group<'a>, Option<u64>)> {
        let format = weights.format;
        let kept_bytes = if weights.is_consolidated() {
            // Mistral's layout beside that of transformers.
            self.listing.safetensors(directory, &Identity::MODELS[0]).or_else(|| {
                let of_its_own = self.listing.safetensors(directory, &weights.identity());
                of_its_own.filter(|_| format != Format::Safetensors)
            })
        } else if format == Format::Safetensors {
            return None;
        } else if self.is_of_ctranslate2(directory, weights) {
            None
        } else {
            self.listing.safetensors(directory, &weights.identity())
        };
        Some((Group::Set { directory, stem: weights.series().to_owned(), format }, kept_bytes))
    }

    /// An index goes with the set that it describes, or described.
    fn is_index_of_duplicates(&self, file: &'a RemoteFile) -> bool {
        let Some(name) = described_by_index(file.path.name()) else { return false };
        let Some(weights) = Weights::parse(&name) else { return false };
        let directory = file.path.parent().unwrap_or("");
        let Some((group, kept_bytes)) = self.set(directory, &weights) else { return false };
        self.seen.contains(&group) || (kept_bytes.is_some() && !self.needed.contains(&group))
    }

    /// CTranslate2 calls its converted, often quantised weights `model.bin`.
    fn is_of_ctranslate2(&self, directory: &str, weights: &Weights<'_>) -> bool {
        let vocabularies = [
            "vocabulary.json",
            "vocabulary.txt",
            "shared_vocabulary.json",
            "shared_vocabulary.txt",
        ];
        (weights.stem == "model" && weights.format == Format::Other("bin"))
            && vocabularies.iter().any(|name| self.listing.has(directory, name))
    }
}

fn is_plausible(bytes: u64, kept_bytes: u64) -> bool {
    bytes <= LEAST_BYTES.max(kept_bytes.saturating_mul(LARGEST_RATIO))
}
