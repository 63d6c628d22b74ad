//! What people and programs see: flags, lines, exit codes, documents, signals, the static binary.

#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

mod bare;
mod bars;
mod circles;
mod doctor;
mod ends;
mod english;
mod errors;
mod fields;
mod fuzz;
mod help;
mod inert;
mod interface;
mod json;
mod kubernetes_docs;
mod layers;
mod life;
mod monitor;
mod sandbox;
mod static_binary;
mod tables;
mod terminal;
