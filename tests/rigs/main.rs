//! Everything that dies: processes at every call, power, nodes of an NFS; at random and in order.

#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

mod chaos;
#[cfg(target_arch = "x86_64")]
mod crash;
mod nfs;
#[cfg(target_arch = "x86_64")]
mod power;
