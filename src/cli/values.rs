//! Flags that take one of a few words: the words, and what each means in the rooms below.

use clap::ValueEnum;

use crate::engine::DirectIo;
use crate::model::hf_cache::Layout;

/// What becomes of a whole copy that cannot be brought up to date.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum IfStale {
    /// Use the older copy, and warn
    Use,
    /// Fail
    Fail,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LockKind {
    /// A lock on the volume
    File,
    /// Also a Lease of the cluster, for volumes whose locks do not reach other nodes
    Kubernetes,
}

/// Whether something is done that is not always better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum When {
    /// Where a trial is at least twice as fast
    Auto,
    /// Always
    On,
    /// Never
    Off,
}

impl From<When> for DirectIo {
    fn from(when: When) -> Self {
        match when {
            When::Auto => Self::Auto,
            When::On => Self::On,
            When::Off => Self::Off,
        }
    }
}

/// How a model is laid out on the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LayoutKind {
    /// The files of the model in DEST
    Plain,
    /// A cache of the Hub's clients: --root is its HF_HOME, and there is no DEST
    HfCache,
}

impl From<LayoutKind> for Layout {
    fn from(kind: LayoutKind) -> Self {
        match kind {
            LayoutKind::Plain => Self::Plain,
            LayoutKind::HfCache => Self::HfCache,
        }
    }
}
