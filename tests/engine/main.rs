//! Which files are fetched, that fetching ends, what it costs, and that nothing is fetched twice.

#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

mod bandwidth;
mod budget;
mod completeness;
mod durability;
mod limits;
mod liveness;
mod resume;
mod selection;
mod several;
mod xet;
