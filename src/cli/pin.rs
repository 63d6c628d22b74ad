//! `weightlift pin`: its flags.

use std::path::{Path, PathBuf};

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args};

use super::fetch::Deadline;
use super::listed::{ModelsArgs, Positional, read_lock_if_any};
use super::sources::SourceArgs;
use crate::Error;
use crate::fleet::{Entry, LockFile};

/// The name that nobody has to give.
const DEFAULT_LOCK: &str = "models.lock";

#[derive(Debug, Args)]
#[command(after_help = "\
The lock file has one line for each file: path, size, SHA-256. Where a source publishes no SHA-256,
the bytes are read once, and not kept. Commit it beside the models file; `fetch --locked` fetches
exactly that. Without --models and SOURCE the models are those of the lock file.")]
pub struct PinArgs {
    #[command(flatten)]
    pub listed: ModelsArgs,

    /// The lock file, which is written: with --models it holds those models and no others, with SOURCE that
    /// model is put into it [default: models.lock]
    #[arg(long, env = "WEIGHTLIFT_LOCKED", value_name = "FILE")]
    locked: Option<PathBuf>,

    /// Write nothing: fail (exit 16) if the sources hold other files by now, or the models file asks for
    /// others, and say which
    #[arg(long, env = "WEIGHTLIFT_CHECK", action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub check: bool,

    /// Pin only this model anew, and those that the models file asks for otherwise than the lock file has them
    /// [repeatable, or separated by commas]
    #[arg(long, env = "WEIGHTLIFT_UPGRADE", value_name = "NAME", value_delimiter = ',')]
    pub upgrade: Vec<String>,

    #[command(flatten)]
    pub source: SourceArgs,

    #[command(flatten)]
    pub deadline: Deadline,
}

impl PinArgs {
    pub fn lock_path(&self) -> &Path {
        self.locked.as_deref().unwrap_or(Path::new(DEFAULT_LOCK))
    }

    /// What the lock file says by now, if it is there.
    pub fn before(&self) -> Result<Option<LockFile>, Error> {
        read_lock_if_any(self.lock_path())
    }

    /// The models that are to be in the lock file because somebody asks for them, in order.
    pub fn entries(&self, before: Option<&LockFile>) -> Result<Vec<Entry>, Error> {
        if self.listed.models_file.is_some() || !self.listed.models.is_empty() {
            return self.listed.entries(Positional::Pairs);
        }
        let Some(before) = before else {
            return Err(Error::Usage(format!(
                "nothing to pin, and `{}` does not exist; give SOURCE or --models FILE",
                self.lock_path().display()
            )));
        };
        self.listed.check_alone("--locked", !self.listed.also.is_empty())?;
        let entry = |model: &crate::fleet::LockedModel| Entry {
            name: model.name.clone(),
            source: model.source.clone(),
            also: model.also.clone(),
            selection: model.selection.clone(),
            expect: None,
        };
        let entries = before.models.iter().map(entry).collect();
        self.listed.chosen(entries, |entry| &entry.name).map_err(Error::Usage)
    }

    /// Whether the lock file is to hold these models and no others.
    pub fn is_all(&self) -> bool {
        self.listed.models_file.is_some() && self.listed.only.is_empty()
    }
}
