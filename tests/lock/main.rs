//! One download for many, and nobody waits for ever.

#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

mod deadlines;
mod lease;
mod takeover;
mod wait;
