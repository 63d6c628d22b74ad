//! The plan of a transfer while it runs, as one state machine: who fetches and hashes which bytes, how many
//! files are open and how many connections, and which connection is too slow. It is told what happens
//! (`handle`) and what time it is; it says what is to be done (`poll`), and until when it may be left alone.
//!
//! Imports `model`; knows no clock, thread, network or volume.

mod assign;
pub mod backoff;
pub mod concurrency;
pub mod event;
mod exchange;
mod frontier;
mod hedge;
mod low_speed;
mod machine;
mod permits;
mod ranges;
mod spans;
mod tick;

pub use machine::Schedule;
pub use spans::least_chunk;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
