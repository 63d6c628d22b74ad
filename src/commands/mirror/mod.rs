//! `weightlift mirror`: what has the source? what lies in the bucket? Send the rest, and say at last what is
//! there.
//!
//! One object below the prefix tells readers its state: the sentinel. Before anything is written it says
//! `writing`, and no reader takes what is there; at the end it lists every object with its ETag. So a reader
//! gets all of one revision or none of it.

mod beside;
mod check;
mod copy;
mod job;
mod looks;
mod plan;
mod relay;
mod send;
mod shared;

pub use copy::Resolved;
pub use shared::Mirror;
