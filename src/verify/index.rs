//! `model.safetensors.index.json`: which shards a model consists of.

use std::collections::BTreeSet;
use std::fmt;
use std::io::BufReader;
use std::io::Read;

use serde::Deserialize;
use serde::de::{MapAccess, Visitor};

use crate::model::{RelPath, UnsafePath};

/// Far above any real index; a bound on time.
const MAX_INDEX_BYTES: u64 = 256 << 20;

/// Completes the sentence "`model.safetensors.index.json` …".
#[derive(Debug, thiserror::Error)]
pub enum IndexProblem {
    #[error("is no valid index: {0}")]
    Json(#[from] serde_json::Error),
    #[error("is no valid index: {0}")]
    Unsafe(#[from] UnsafePath),
    #[error("names `{0}`, which the source does not hold; the model is incomplete")]
    Missing(RelPath),
}

/// Whether every shard that the index at `path` names is there, by `exists`.
pub fn check(
    index: impl Read,
    path: &RelPath,
    exists: impl Fn(&str) -> bool,
) -> Result<(), IndexProblem> {
    for shard in shards_of(index)? {
        let beside = match path.parent() {
            Some(parent) => format!("{parent}/{shard}"),
            None => shard.to_string(),
        };
        if !exists(&beside) {
            return Err(IndexProblem::Missing(shard));
        }
    }
    Ok(())
}

/// The shards that an index names, relative to its directory. Memory does not grow with the number
/// of tensors.
fn shards_of(index: impl Read) -> Result<BTreeSet<RelPath>, IndexProblem> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: Shards,
    }
    let reader = BufReader::new(index.take(MAX_INDEX_BYTES));
    let index: Index = serde_json::from_reader(reader)?;
    Ok(index.weight_map.0.iter().map(|name| RelPath::parse(name)).collect::<Result<_, _>>()?)
}

/// The distinct values of a map whose keys nobody needs.
struct Shards(BTreeSet<String>);

impl<'de> Deserialize<'de> for Shards {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Values;
        impl<'de> Visitor<'de> for Values {
            type Value = Shards;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a map from tensors to files")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Shards, A::Error> {
                let mut shards = BTreeSet::new();
                while let Some((_, shard)) = map.next_entry::<serde::de::IgnoredAny, String>()? {
                    shards.insert(shard);
                }
                Ok(Shards(shards))
            }
        }
        deserializer.deserialize_map(Values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shards_of_an_index_are_its_distinct_files() {
        let json = br#"{"metadata":{"total_size":1},"weight_map":{"a":"m-1","b":"m-2","c":"m-1"}}"#;
        let shards = shards_of(json.as_slice()).expect("valid");
        assert_eq!(shards.iter().map(RelPath::as_str).collect::<Vec<_>>(), ["m-1", "m-2"]);
    }

    #[test]
    fn an_index_that_points_elsewhere_or_is_none_is_an_error() {
        for json in [r#"{"weight_map":{"a":"../x"}}"#, r#"{"weight_map":{"a":1}}"#, "[]", "{}", ""]
        {
            assert!(shards_of(json.as_bytes()).is_err(), "{json}");
        }
    }
}
