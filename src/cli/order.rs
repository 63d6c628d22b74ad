//! `weightlift list` and `weightlift prune`: their flags.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args, ValueHint};

use super::fetch::{Deadline, Permissions};
use super::help::{MODELS, PUBLICATION, VOLUME};
use super::listed::{ModelsArgs, Positional};
use super::models::DEFAULT_ROOT;
use super::models::unusable_root;
use crate::Error;
use crate::model::{ModelDir, text};
use crate::volume::PruneRules;

#[derive(Debug, Args)]
pub struct Root {
    /// Directory that holds the models
    ///
    /// Volumes that are mounted below it count too.
    #[arg(long, env = "WEIGHTLIFT_ROOT", value_name = "DIR", default_value = DEFAULT_ROOT,
          value_hint = ValueHint::DirPath, help_heading = VOLUME)]
    root: PathBuf,
}

impl Root {
    pub fn path(&self) -> Result<PathBuf, Error> {
        let root = std::path::absolute(&self.root).map_err(|_| unusable_root())?;
        if root.to_str().is_none_or(|root| root.chars().any(text::is_control)) {
            return Err(unusable_root());
        }
        Ok(root)
    }
}

#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    pub root: Root,

    #[command(flatten)]
    pub deadline: Deadline,
}

#[derive(Debug, Args)]
#[command(after_long_help = "\
Nothing is removed without --yes. What a model directory leads to stays, unless the file of
--models names no such model. What another link on the volume leads to stays. Everything of a
model that is being fetched stays. The volume does not show which pods `fetch --link` has led
to a kept revision: choose --keep-revisions and --older-than so that no server still reads
what is removed.")]
pub struct PruneArgs {
    /// Remove also models that FILE, a models file, does not name
    ///
    /// weightlift removes all their revisions. This flag has no variable: the variable of a fetch must not remove
    /// models.
    #[arg(long = "models", value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = MODELS)]
    models_file: Option<PathBuf>,

    #[command(flatten)]
    pub root: Root,

    #[command(flatten)]
    pub permissions: Permissions,

    /// Of each model, keep the N latest replaced revisions
    #[arg(long, env = "WEIGHTLIFT_KEEP_REVISIONS", value_name = "N", default_value_t = 1, help_heading = PUBLICATION)]
    keep_revisions: usize,

    /// Remove only what is at least this old: 12h, 7d
    ///
    /// The age counts from the replacement of a revision, or from the last sign of an attempt. The default is 0s
    /// for revisions, and 1h for unfinished attempts, because a Job that retries resumes them.
    #[arg(long, env = "WEIGHTLIFT_OLDER_THAN", value_name = "DURATION", value_parser = text::parse_duration,
          help_heading = PUBLICATION)]
    older_than: Option<Duration>,

    /// Stop as soon as this much is free: 500GB, 64GiB
    ///
    /// Unfinished attempts go first, then the oldest revisions. The default is no such limit.
    #[arg(long, env = "WEIGHTLIFT_UNTIL_FREE", value_name = "SIZE", value_parser = text::parse_size,
          help_heading = PUBLICATION)]
    pub until_free: Option<u64>,

    /// Remove; without this flag, only tell what would be removed
    #[arg(long, env = "WEIGHTLIFT_YES", help_heading = PUBLICATION,
          action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub yes: bool,

    #[command(flatten)]
    pub deadline: Deadline,
}

impl PruneArgs {
    pub fn rules(&self) -> Result<PruneRules, Error> {
        let named = self.models_file.as_ref().map(|_| self.named()).transpose()?;
        Ok(PruneRules { keep_revisions: self.keep_revisions, older_than: self.older_than, named })
    }

    /// The names of the models file, relative to the root.
    fn named(&self) -> Result<BTreeSet<String>, Error> {
        let models_file = self.models_file.clone();
        let listed = ModelsArgs { models_file, ..ModelsArgs::default() };
        let root = self.root.path()?;
        let below_root = |name: String| {
            let below = Path::new(&name).strip_prefix(&root).ok().and_then(Path::to_str);
            let family = ModelDir::parse(below.unwrap_or(&name));
            family.map_or_else(|_| name.clone(), |family| family.path().to_string())
        };
        Ok(listed
            .entries(Positional::Pairs)?
            .into_iter()
            .map(|entry| below_root(entry.name))
            .collect())
    }
}
