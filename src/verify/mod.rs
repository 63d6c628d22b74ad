//! What the bytes of a model must be: digests of files, headers of safetensors, complete indexes.

mod digest;
pub(crate) mod fuzz;
mod index;
mod safetensors;

pub use digest::{FileHasher, Mismatch};
pub use index::{IndexProblem, check as check_index};
pub use safetensors::{Structure, check as check_safetensors};

/// Whether the structure of a file of this name can be checked.
pub fn is_safetensors(path: &str) -> bool {
    path.ends_with(".safetensors")
}

/// Whether a file of this name lists the shards of a model.
pub fn is_index(path: &str) -> bool {
    path.ends_with(".safetensors.index.json")
}
