//! `model.safetensors.index.json` and its like: which shards a model consists of.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{BufReader, Error, ErrorKind, Read};

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use crate::model::{RelPath, UnsafePath};

/// Far above any real index; a bound on time.
const MAX_INDEX_BYTES: u64 = 256 << 20;
/// Longest string in an index, which must be in memory whole.
const MAX_STRING_BYTES: usize = 64 << 10;

/// Completes the sentence "`model.safetensors.index.json` …".
#[derive(Debug, thiserror::Error)]
pub enum IndexProblem {
    #[error("is not a valid index: {0}")]
    Json(#[from] serde_json::Error),
    #[error("is not a valid index: {0}")]
    Unsafe(#[from] UnsafePath),
}

/// Reads the index at `path`. `see` is told the path of each shard, or the name and why it can be
/// no path, once or more often, and says whether to remember it; the names that are remembered, as
/// the index spells them, are returned. So memory grows with the shards that are there, and not
/// with what the index says.
pub fn read(
    index: impl Read,
    path: &RelPath,
    see: impl FnMut(Result<&str, UnsafePath>) -> Result<bool, UnsafePath>,
) -> Result<BTreeSet<String>, IndexProblem> {
    let (mut known, mut problem) = (BTreeSet::new(), None);
    let shards = Shards { parent: path.parent(), see, known: &mut known, problem: &mut problem };
    let reader = BufReader::new(ShortStrings::new(index.take(MAX_INDEX_BYTES)));
    let mut json = serde_json::Deserializer::from_reader(reader);
    let read = Index(shards).deserialize(&mut json).and_then(|()| json.end());
    match (problem, read) {
        (Some(problem), _) => Err(problem.into()),
        (None, read) => Ok(read.map(|()| known)?),
    }
}

/// The whole index, of which only one entry matters.
struct Index<'a, F>(Shards<'a, F>);

impl<'de, F> DeserializeSeed<'de> for Index<'_, F>
where
    F: FnMut(Result<&str, UnsafePath>) -> Result<bool, UnsafePath>,
{
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, F> Visitor<'de> for Index<'_, F>
where
    F: FnMut(Result<&str, UnsafePath>) -> Result<bool, UnsafePath>,
{
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an index of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut shards = Some(self.0);
        while let Some(name) = map.next_key::<String>()? {
            if name != "weight_map" {
                map.next_value::<IgnoredAny>()?;
            } else if let Some(shards) = shards.take() {
                map.next_value_seed(shards)?;
            } else {
                return Err(A::Error::duplicate_field("weight_map"));
            }
        }
        if shards.is_some() {
            return Err(A::Error::missing_field("weight_map"));
        }
        Ok(())
    }
}

/// The map from tensors, whose names nobody needs, to files.
struct Shards<'a, F> {
    parent: Option<&'a str>,
    see: F,
    known: &'a mut BTreeSet<String>,
    /// The first thing that is wrong, which ends the reading.
    problem: &'a mut Option<UnsafePath>,
}

impl<F> Shards<'_, F>
where
    F: FnMut(Result<&str, UnsafePath>) -> Result<bool, UnsafePath>,
{
    fn look(&mut self, shard: &str) -> Result<bool, UnsafePath> {
        let path = match RelPath::parse(shard) {
            Ok(path) => path,
            Err(refused) => return (self.see)(Err(refused)),
        };
        match self.parent {
            Some(parent) => (self.see)(Ok(&format!("{parent}/{path}"))),
            None => (self.see)(Ok(path.as_str())),
        }
    }
}

impl<'de, F> DeserializeSeed<'de> for Shards<'_, F>
where
    F: FnMut(Result<&str, UnsafePath>) -> Result<bool, UnsafePath>,
{
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, F> Visitor<'de> for Shards<'_, F>
where
    F: FnMut(Result<&str, UnsafePath>) -> Result<bool, UnsafePath>,
{
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a map from tensors to files")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some((_, shard)) = map.next_entry::<IgnoredAny, String>()? {
            if self.known.contains(&shard) {
                continue;
            }
            match self.look(&shard) {
                Ok(true) => _ = self.known.insert(shard),
                Ok(false) => {}
                Err(problem) => {
                    *self.problem = Some(problem);
                    return Err(A::Error::custom("it does not fit"));
                }
            }
        }
        Ok(())
    }
}

/// Fails at a JSON string that is too long, before a parser has collected it.
struct ShortStrings<R> {
    inner: R,
    is_inside: bool,
    is_escaped: bool,
    len: usize,
}

impl<R: Read> ShortStrings<R> {
    fn new(inner: R) -> Self {
        Self { inner, is_inside: false, is_escaped: false, len: 0 }
    }
}

impl<R: Read> Read for ShortStrings<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        for byte in &buffer[..count] {
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' if self.is_inside => self.is_escaped = true,
                b'"' => {
                    self.is_inside = !self.is_inside;
                    self.len = 0;
                }
                _ => {}
            }
            self.len += 1;
            if self.is_inside && self.len > MAX_STRING_BYTES {
                return Err(Error::new(ErrorKind::InvalidData, "a string of more than 64 KiB"));
            }
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shards that are there, and the paths of those that are not.
    fn read_at(
        path: &str,
        json: &str,
        there: &[&str],
    ) -> Result<(Vec<String>, Vec<String>), IndexProblem> {
        let path = RelPath::parse(path).expect(path);
        let mut absent = Vec::new();
        let known = read(json.as_bytes(), &path, |shard| {
            shard.map(|shard| {
                let is_there = there.contains(&shard);
                if !is_there {
                    absent.push(shard.to_owned());
                }
                is_there
            })
        })?;
        Ok((known.into_iter().collect(), absent))
    }

    fn check_json(json: &str) -> Result<(), IndexProblem> {
        read_at("m.safetensors.index.json", json, &["m-1", "m-2"]).map(|_| ())
    }

    #[test]
    fn the_shards_of_an_index_are_looked_for_beside_it() {
        let json = r#"{"metadata":{"total_size":1},"weight_map":{"a":"m-1","b":"m-2","c":"m-1"}}"#;
        for (path, there, known, absent) in [
            ("x.index.json", vec!["m-1", "m-2"], vec!["m-1", "m-2"], vec![]),
            ("x.index.json", vec!["m-1"], vec!["m-1"], vec!["m-2"]),
            ("d/x.index.json", vec!["d/m-1", "d/m-2"], vec!["m-1", "m-2"], vec![]),
            ("d/x.index.json", vec!["m-1", "m-2"], vec![], vec!["d/m-1", "d/m-2", "d/m-1"]),
        ] {
            let (known, absent): (Vec<&str>, Vec<&str>) = (known, absent);
            let read = read_at(path, json, &there).expect("an index");
            assert_eq!((read.0, read.1), (owned(&known), owned(&absent)), "{path}");
        }
    }

    fn owned(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn an_index_that_points_elsewhere_or_is_none_is_an_error() {
        let traversal = check_json(r#"{"weight_map":{"a":"../x"}}"#);
        assert!(matches!(traversal, Err(IndexProblem::Unsafe(_))));
        for json in [
            r#"{"weight_map":{"a":1}}"#,
            r#"{"weight_map":{"a":"m-1"}}}"#,
            r#"{"weight_map":{},"weight_map":{}}"#,
            r#"{"weight_map":[]}"#,
            "[]",
            "{}",
            "",
        ] {
            assert!(matches!(check_json(json), Err(IndexProblem::Json(_))), "{json}");
        }
    }

    #[test]
    fn no_string_of_an_index_is_collected_without_bounds() {
        let json = |text: &str| format!(r#"{{"weight_map":{{"{text}":"m-1"}}}}"#);
        assert!(check_json(&json(&"\\\"".repeat(30_000))).is_ok());
        assert!(check_json(&json(&"a".repeat(70_000))).is_err());
    }
}
