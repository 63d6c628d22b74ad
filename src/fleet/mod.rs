//! What a team wants of its volumes: `models.yaml`, the models by name and where they come from.
//!
//! Pure: text and the values of variables come in, models or a place in the text come out.
//! Imports `model`.

mod models_file;
mod variables;

pub use models_file::{Entry, FileProblem, MAX_BYTES, ModelsFile};
