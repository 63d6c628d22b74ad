//! What a team wants of its volumes: `models.yaml`, the models by name and where they come from; and
//! `models.lock`, exactly what that is.
//!
//! Pure: text and the values of variables come in, models or a place in the text come out.
//! Imports `model`.

mod drift;
mod lock_file;
mod models_file;
mod signed_by;
mod variables;

pub use drift::{Drift, difference};
pub use lock_file::{LockFile, LockedModel, MAX_BYTES as MAX_LOCK_BYTES};
pub use models_file::{Entry, FileProblem, MAX_BYTES, ModelsFile};
