//! `weightlift pin`: its flags.

use std::path::{Path, PathBuf};

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args, ValueHint};

use super::fetch::Deadline;
use super::help::MODELS;
use super::listed::{ModelsArgs, Positional, read_lock_if_any};
use super::sources::SourceArgs;
use crate::Error;
use crate::fleet::{Entry, LockFile};
use crate::model::Message;

/// The name that nobody has to give.
const DEFAULT_LOCK: &str = "models.lock";

#[derive(Debug, Args)]
#[command(after_long_help = "\
The lock file has one line for each file: path, size, SHA-256. If a source publishes no
SHA-256, weightlift reads the bytes once, and does not keep them. Commit the lock file with
the models file; `fetch --locked` fetches exactly that. Without --models and SOURCE, the
models are those of the lock file. SOURCE is what `weightlift fetch --help` describes.")]
pub struct PinArgs {
    /// The lock file to write [default: models.lock]
    ///
    /// With --models it holds those models and no others. With SOURCE that model is added to it.
    #[arg(long, env = "WEIGHTLIFT_LOCKED", value_name = "FILE", value_hint = ValueHint::FilePath,
          help_heading = MODELS)]
    locked: Option<PathBuf>,

    /// Write nothing; fail (exit 16) if the models changed
    ///
    /// The sources hold other files now, or the models file asks for others. weightlift says which.
    #[arg(long, env = "WEIGHTLIFT_CHECK", help_heading = MODELS,
          action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub check: bool,

    /// Pin only the model NAME again
    ///
    /// weightlift pins also the models that the models file asks for in another way than the lock file. Repeat
    /// the flag, or separate names with commas.
    #[arg(long, env = "WEIGHTLIFT_UPGRADE", value_name = "NAME", value_delimiter = ',', help_heading = MODELS)]
    pub upgrade: Vec<String>,

    #[command(flatten)]
    pub listed: ModelsArgs,

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
            return Err(Error::Usage(
                Message::new(format!(
                    "nothing to pin, and `{}` does not exist",
                    self.lock_path().display()
                ))
                .hint("give SOURCE or --models FILE"),
            ));
        };
        self.listed.check_alone("--locked", !self.listed.also.is_empty())?;
        let entry = |model: &crate::fleet::LockedModel| Entry {
            name: model.name.clone(),
            source: model.source.clone(),
            also: model.also.clone(),
            selection: model.selection.clone(),
            expect: None,
            signed_by: model.signed_by.clone(),
        };
        let entries = before.models.iter().map(entry).collect();
        self.listed.chosen(entries, |entry| &entry.name).map_err(Error::Usage)
    }

    /// Whether the lock file is to hold these models and no others.
    pub fn is_all(&self) -> bool {
        self.listed.models_file.is_some() && self.listed.only.is_empty()
    }
}
