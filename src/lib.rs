//! weightlift fetches model weights onto a volume: once, verified, resumable.
//!
//! The rooms, from the bottom: [`model`] is pure; [`source`] knows the network, [`store`] the
//! volume, [`verify`] what the bytes must be, [`progress`] the person; [`transfer`] brings them
//! together; [`commands`] tells the stories; `cli` and [`error`] face the outside.

mod cli;
mod cluster;
pub mod commands;
pub mod error;
#[doc(hidden)]
pub mod fuzz;
pub mod model;
mod process;
pub mod progress;
mod run;
mod signals;
pub mod source;
pub mod store;
pub mod transfer;
pub mod verify;

pub use error::Error;
pub use run::main;
