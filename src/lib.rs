//! weightlift fetches model weights onto a volume: once, verified, resumable.
//!
//! The layers, from the bottom; none imports one above it, and `tests` hold that:
//! [`environment`] · [`model`] is pure · [`fs`], [`net`], [`verify`], [`report`] · [`content`], [`lock`] · [`source`],
//! [`volume`] · [`engine`] · [`commands`] · `cli`, [`error`], `run`.

mod cgroup;
mod cli;
pub mod commands;
pub mod content;
mod each;
mod ending;
pub mod engine;
pub mod environment;
pub mod error;
pub mod exit;
mod failures;
pub mod fleet;
pub mod fs;
#[doc(hidden)]
pub mod fuzz;
pub mod lock;
pub mod model;
mod monitor;
pub mod net;
mod output;
mod process;
pub mod report;
mod run;
mod sandbox;
mod signals;
pub mod source;
pub mod verify;
pub mod volume;

pub use error::Error;
pub use run::main;
