//! weightlift fetches model weights onto a volume: once, verified, resumable.

pub mod model;
pub mod progress;
pub mod source;
pub mod store;
pub mod transfer;
pub mod verify;
