//! The structure of a safetensors file, from its header alone: nothing is mapped, and a hostile
//! header costs no more memory than an honest one.

use std::fmt;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError};

use safetensors::Dtype;
use serde::Deserialize;
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use super::content::says_of_itself;
use crate::model::text;

/// The format's own bound on a header.
const MAX_HEADER_BYTES: u64 = 100_000_000;
/// Longer headers than any model of today has are not parsed, to bound memory.
const MAX_PARSED_BYTES: u64 = 8 << 20;
/// Bytes that tell what a file is that is none of ours.
const CONTENT_BYTES: usize = 64;
const METADATA: &str = "__metadata__";

/// Many files may end at once, on as many threads; their headers share this memory in turn.
static SCRATCH: Mutex<Scratch> = Mutex::new(Scratch::new());

/// What the header says about the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Structure {
    Valid,
    /// Nothing wrong was found, but not everything could be checked.
    Unchecked(String),
    Invalid(String),
}

/// What the start of a file has told.
#[derive(Debug, PartialEq, Eq)]
pub enum Start {
    /// Nothing yet: so many bytes from the start are needed.
    Needs(u64),
    /// By its first `len` bytes.
    Known { structure: Structure, len: u64 },
}

/// Checks length, JSON, dtype × shape = bytes, no holes or overlaps, and the end of the file.
pub fn check(file: &File, size: u64) -> std::io::Result<Structure> {
    match check_start(file, size, size)? {
        Start::Known { structure, .. } => Ok(structure),
        Start::Needs(len) => unreachable!("no file needs {len} bytes more than all"),
    }
}

/// The same for a file of `size` bytes, of which the first `there` are there.
pub fn check_start(file: &File, size: u64, there: u64) -> std::io::Result<Start> {
    if there < size.min(8) {
        return Ok(Start::Needs(size.min(8)));
    }
    let invalid = |why: String, len: u64| {
        let mut start = [0; CONTENT_BYTES];
        let start = &mut start[..there.min(CONTENT_BYTES as u64) as usize];
        file.read_exact_at(start, 0)?;
        let why = says_of_itself(start).map_or(why, |says| format!("it {says}"));
        Ok(Start::Known { structure: Structure::Invalid(why), len: len.max(start.len() as u64) })
    };
    if size < 8 {
        return invalid(format!("it has {size} bytes and no header"), size);
    }
    let mut length = [0; 8];
    file.read_exact_at(&mut length, 0)?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER_BYTES || length > size - 8 {
        return invalid(format!("its header claims {length} bytes of {size}"), 8);
    }
    let len = 8 + length;
    if length > MAX_PARSED_BYTES {
        let structure = Structure::Unchecked(format!("header of {length} bytes not parsed"));
        return Ok(Start::Known { structure, len });
    }
    if there < len {
        return Ok(Start::Needs(len));
    }
    let structure = {
        let mut scratch = SCRATCH.lock().unwrap_or_else(PoisonError::into_inner);
        let Scratch { header, tensors } = &mut *scratch;
        header.resize(length as usize, 0);
        file.read_exact_at(header, 8)?;
        check_header(header, size - len, tensors)
    };
    match structure {
        Structure::Invalid(why) => invalid(why, len),
        structure => Ok(Start::Known { structure, len }),
    }
}

/// What a check needs of memory.
struct Scratch {
    header: Vec<u8>,
    tensors: Tensors,
}

impl Scratch {
    const fn new() -> Self {
        Self { header: Vec::new(), tensors: Tensors::new() }
    }
}

/// Checks a header that is followed by so many bytes of data.
pub(super) fn check_header(header: &[u8], data_bytes: u64, tensors: &mut Tensors) -> Structure {
    if header.first() != Some(&b'{') {
        return Structure::Invalid("its header is not a JSON object".into());
    }
    let Ok(header) = std::str::from_utf8(header) else {
        return Structure::Invalid("its header is not UTF-8".into());
    };
    tensors.clear();
    let mut json = serde_json::Deserializer::from_str(header);
    let read = tensors.deserialize(&mut json).and_then(|()| json.end());
    let described = match read {
        Ok(()) => tensors.end(),
        // Newer formats than the parser knows are not damage.
        Err(error) if is_unknown_dtype(&error, header) => {
            return Structure::Unchecked("unknown dtype".into());
        }
        Err(error) => Err(text::inert(&error.to_string(), 160)),
    };
    match described {
        Ok(end) if end == data_bytes => Structure::Valid,
        Ok(end) => Structure::Invalid(format!(
            "its header describes {end} bytes of tensors, but the file has {data_bytes}"
        )),
        Err(why) => Structure::Invalid(format!("its header: {why}")),
    }
}

/// Whether the parser failed at a dtype only. The header is still required to be JSON.
fn is_unknown_dtype(error: &serde_json::Error, header: &str) -> bool {
    error.to_string().starts_with("unknown variant `")
        && serde_json::from_str::<IgnoredAny>(header).is_ok()
}

/// What is kept of the tensors while the header is read: neither names nor shapes, of which 8 MiB
/// of JSON can hold ten times as much.
pub(super) struct Tensors {
    /// First and last offset of each.
    spans: Vec<(u64, u64)>,
    name_hashes: Vec<u64>,
}

impl Tensors {
    pub(super) const fn new() -> Self {
        Self { spans: Vec::new(), name_hashes: Vec::new() }
    }

    fn clear(&mut self) {
        self.spans.clear();
        self.name_hashes.clear();
    }

    /// Where the last tensor ends, if they follow each other without holes and overlaps.
    fn end(&mut self) -> Result<u64, String> {
        self.name_hashes.sort_unstable();
        if self.name_hashes.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err("it names a tensor twice".into());
        }
        self.spans.sort_unstable();
        let mut at = 0;
        for &(start, end) in &self.spans {
            if start != at {
                return Err(format!("there is a hole or an overlap at byte {at} of the tensors"));
            }
            at = end;
        }
        Ok(at)
    }
}

impl<'de> DeserializeSeed<'de> for &mut Tensors {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for &mut Tensors {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a map of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut has_metadata = false;
        while let Some(name) = map.next_key::<Name>()? {
            if !name.is_metadata {
                let tensor: Tensor = map.next_value()?;
                self.spans.push(tensor.span().map_err(A::Error::custom)?);
                self.name_hashes.push(name.hash);
            } else if std::mem::replace(&mut has_metadata, true) {
                return Err(A::Error::duplicate_field(METADATA));
            } else {
                map.next_value::<Option<Texts>>()?;
            }
        }
        Ok(())
    }
}

/// One entry of a header.
#[derive(Deserialize)]
struct Tensor {
    dtype: Dtype,
    shape: Elements,
    data_offsets: (u64, u64),
}

impl Tensor {
    fn span(&self) -> Result<(u64, u64), String> {
        let (start, end) = self.data_offsets;
        let bits = self.shape.0.and_then(|count| count.checked_mul(self.dtype.bitsize() as u64));
        let bits = bits.ok_or("a tensor has more bytes than can be counted")?;
        if bits % 8 != 0 {
            return Err("a tensor does not end at a whole byte".into());
        }
        if end.checked_sub(start) == Some(bits / 8) {
            return Ok((start, end));
        }
        Err(format!("a tensor of {} bytes has the range {start}..{end}", bits / 8))
    }
}

/// The product of a shape; nothing if it is beyond counting.
struct Elements(Option<u64>);

impl<'de> Deserialize<'de> for Elements {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Product;
        impl<'de> Visitor<'de> for Product {
            type Value = Elements;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a shape")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Elements, A::Error> {
                let mut product = Some(1_u64);
                while let Some(count) = seq.next_element::<u64>()? {
                    product = product.and_then(|product| product.checked_mul(count));
                }
                Ok(Elements(product))
            }
        }
        deserializer.deserialize_seq(Product)
    }
}

/// The name of an entry, as far as it is needed.
struct Name {
    hash: u64,
    is_metadata: bool,
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Name;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a string")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Name, E> {
                let mut hasher = DefaultHasher::new();
                text.hash(&mut hasher);
                Ok(Name { hash: hasher.finish(), is_metadata: text == METADATA })
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// A map of strings that nobody needs.
struct Texts;

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Texts;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a map of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Texts, A::Error> {
                while map.next_entry::<Name, Name>()?.is_some() {}
                Ok(Texts)
            }
        }
        deserializer.deserialize_map(Entries)
    }
}
