//! The volume: what lies on it, what may be used of it, and how a finished tree becomes a model
//! directory. Every name below the root is opened part by part without following links, so that nothing
//! outside the root is touched, whatever lies there.
//!
//! Imports `model`, `content`, `fs`, `lock` and `verify`; knows nothing of URLs and networks.

mod abilities;
mod adopt;
mod adopt_dir;
mod area;
mod attempts;
mod clear;
mod closed;
mod condition;
mod conflict;
mod delta;
mod error;
mod existing;
mod explain;
mod families;
mod files;
mod fill;
mod finish;
mod foreign;
mod foresight;
pub(crate) mod fuzz;
mod held;
mod hf_cache;
mod inventory;
mod journal;
mod keep;
mod layout;
mod leftover;
mod mounts;
mod nested;
mod owner;
mod probe;
mod prunable;
mod prune;
mod publish;
mod recheck;
mod remove;
mod reuse;
mod revisions;
mod scratch;
mod settle;
mod show;
mod staging;
mod stamp;
mod survey;
mod sweep;
mod take;
mod wanted;
mod weigh;

pub use abilities::{Abilities, Aim, Lack, Obstacle, Way, way};
pub use adopt_dir::AdoptedDir;
pub use condition::{Condition, Trial};
pub use delta::{Likeness, LocalFiles, LocalTerms, Unnamed};
pub use error::StoreError;
pub use existing::{Existing, first_difference, read_sentinel};
pub use files::PublishedFiles;
pub use foreign::Foreign;
pub use foresight::Foreseen;
pub use hf_cache::CachedSnapshot;
pub use inventory::{AttemptReport, AttemptState, FamilyReport, FamilyStatus, KeptReport};
pub use keep::RemovedRevisions;
pub use layout::{Destination, Store};
pub use owner::owner_of;
pub use prunable::{Candidate, Candidates, Prunable, PruneRules, Pruner};
pub use prune::Pruned;
pub use publish::{Publication, Published};
pub use recheck::Surroundings;
pub use revisions::Kept;
pub use staging::{StagedFile, Staging};
pub use stamp::Stamp;
pub use survey::{Survey, is_root};
pub use weigh::Weighed;
