//! The structure of a safetensors file, from its header alone: nothing is mapped, and a hostile
//! header costs no more memory than an honest one.

use std::fs::File;
use std::os::unix::fs::FileExt;

use safetensors::tensor::Metadata;

use crate::model::text;

/// The format's own bound on a header.
const MAX_HEADER_BYTES: u64 = 100_000_000;
/// Longer headers than any model of today has are not parsed, to bound memory.
const MAX_PARSED_BYTES: u64 = 8 << 20;

/// What the header says about the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Structure {
    Valid,
    /// Nothing wrong was found, but not everything could be checked.
    Unchecked(String),
    Invalid(String),
}

/// Checks length, JSON, dtype × shape = bytes, no holes or overlaps, and the end of the file.
pub fn check(file: &File, size: u64) -> std::io::Result<Structure> {
    let invalid = |why: String| Ok(Structure::Invalid(why));
    if size < 8 {
        return invalid(format!("it has {size} bytes and no header"));
    }
    let mut length = [0; 8];
    file.read_exact_at(&mut length, 0)?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER_BYTES || length > size - 8 {
        return invalid(format!("its header claims {length} bytes of {size}"));
    }
    if length > MAX_PARSED_BYTES {
        return Ok(Structure::Unchecked(format!("header of {length} bytes not parsed")));
    }
    let mut header = vec![0; length as usize];
    file.read_exact_at(&mut header, 8)?;
    if header.first() != Some(&b'{') {
        return invalid("its header is no JSON object".into());
    }
    let metadata: Metadata = match serde_json::from_slice(&header) {
        Ok(metadata) => metadata,
        // Newer formats than the parser knows are not damage.
        Err(error) if is_unknown_dtype(&error, &header) => {
            return Ok(Structure::Unchecked("unknown dtype".into()));
        }
        Err(error) => {
            return invalid(format!("its header: {}", text::inert(&error.to_string(), 160)));
        }
    };
    let data = metadata.data_len() as u64;
    if data != size - 8 - length {
        return invalid(format!(
            "its header describes {data} bytes of tensors, {} are there",
            size - 8 - length
        ));
    }
    Ok(Structure::Valid)
}

/// Whether the parser failed at a dtype only. The header is still required to be JSON.
fn is_unknown_dtype(error: &serde_json::Error, header: &[u8]) -> bool {
    let message = error.to_string();
    message.starts_with("unknown variant `")
        && serde_json::from_slice::<serde::de::IgnoredAny>(header).is_ok()
}
