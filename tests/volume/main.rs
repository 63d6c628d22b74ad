//! What lies on a volume before, during and after a fetch: published, taken over, left, or planted.

#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

mod adopt_dir;
#[cfg(target_arch = "x86_64")]
mod adoption;
mod decisions;
mod delta;
mod direct;
mod doctor;
mod hf_cache;
mod kept;
#[cfg(target_arch = "x86_64")]
mod leftovers;
mod link;
mod list;
mod mutations;
mod plan;
mod planted;
mod probe;
mod prune;
mod publication;
mod reuse;
mod signatures;
mod take_over;
mod unnamed;
mod update;
mod users;
