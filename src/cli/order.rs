//! `weightlift list` and `weightlift prune`: their flags.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args};

use super::fetch::{Deadline, Permissions};
use super::listed::{ModelsArgs, Positional};
use super::models::DEFAULT_ROOT;
use crate::Error;
use crate::model::{ModelDir, text};
use crate::volume::PruneRules;

#[derive(Debug, Args)]
pub struct Root {
    /// Directory that holds the models, with the volumes that are mounted below it
    #[arg(long, env = "WEIGHTLIFT_ROOT", value_name = "DIR", default_value = DEFAULT_ROOT)]
    root: PathBuf,
}

impl Root {
    pub fn path(&self) -> Result<PathBuf, Error> {
        let unusable = || Error::Usage("--root is not a usable directory name".into());
        let root = std::path::absolute(&self.root).map_err(|_| unusable())?;
        if root.to_str().is_none_or(|root| root.chars().any(text::is_control)) {
            return Err(unusable());
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
#[command(after_help = "\
Nothing is removed without --yes. What a model directory leads to stays, unless --models is given and
names no such model; what another link on the volume leads to stays, and so does everything of a
model that is being fetched. A pod that `fetch --link` has led
to a kept revision cannot be seen from the volume: choose --keep-revisions and --older-than so that
no server still reads what goes.")]
pub struct PruneArgs {
    #[command(flatten)]
    pub root: Root,

    /// Of each model, keep as many of the revisions that were replaced, the latest ones
    #[arg(long, env = "WEIGHTLIFT_KEEP_REVISIONS", value_name = "N", default_value_t = 1)]
    keep_revisions: usize,

    /// Remove only what was replaced, or gave its last sign, at least this long ago [default: 0s for
    /// revisions; for unfinished attempts 1h, because a Job that retries resumes them]
    #[arg(long, env = "WEIGHTLIFT_OLDER_THAN", value_name = "DURATION", value_parser = text::parse_duration)]
    older_than: Option<Duration>,

    /// Remove also the models that FILE, a models file, does not name, with all their revisions. Has no
    /// variable: that of a fetch beside it must not remove models
    #[arg(long = "models", value_name = "FILE")]
    models_file: Option<PathBuf>,

    /// Stop as soon as this much is free on the filesystem: 500GB, 64GiB. Unfinished attempts go first, then
    /// the oldest revisions [default: no such limit]
    #[arg(long, env = "WEIGHTLIFT_UNTIL_FREE", value_name = "SIZE", value_parser = text::parse_size)]
    pub until_free: Option<u64>,

    /// Remove; without it, only say what would be removed
    #[arg(long, env = "WEIGHTLIFT_YES", action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub yes: bool,

    #[command(flatten)]
    pub permissions: Permissions,

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
