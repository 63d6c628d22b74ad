//! What the bytes of a model must be: digests of files, headers of safetensors, complete indexes, signatures.
//!
//! Imports `model`; reads what it is given and knows no directory.

mod content;
mod digest;
pub(crate) mod fuzz;
mod index;
mod safetensors;
mod sha256;
pub mod signature;

pub use digest::{FileHasher, Mismatch};
pub use index::{IndexProblem, read as read_index};
pub use safetensors::{
    Start, Structure, check as check_safetensors, check_start as check_safetensors_start,
};

/// Whether the structure of a file of this name can be checked.
pub fn is_safetensors(path: &str) -> bool {
    let extension = path.rsplit_once('.').map(|(_, extension)| extension);
    extension.is_some_and(|extension| extension.eq_ignore_ascii_case("safetensors"))
}
