//! `weightlift doctor`: its flags.

use std::path::{Path, PathBuf};

use clap::{Args, ValueHint};

use super::fetch::Deadline;
use super::help::{LOCKS, MODELS, VOLUME};
use super::listed::{ModelsArgs, Positional};
use super::models::{DEFAULT_ROOT, absolute, unusable_root};
use super::sources::{SelectionArgs, SourceArgs};
use super::values::LockKind;
use crate::Error;
use crate::fleet::Entry;

#[derive(Debug, Args)]
#[command(after_long_help = "\
Each check is one line: ok, warning or fails, what was found, what to do. A check without an
answer in time (10s; 20s for a source) fails, and the next checks follow. doctor writes one
directory on the volume, in which it tries renames, links and locks, and removes it again.
Warnings do not fail. The exit code is 0, or that of the most important failure.")]
pub struct DoctorArgs {
    /// What you want to fetch; without it, doctor checks the Hub and its token
    ///
    /// doctor lists each SOURCE and reads a small range of it.
    #[arg(value_name = "SOURCE")]
    sources: Vec<String>,

    /// Check the sources that FILE, a models file, lists
    #[arg(long = "models", env = "WEIGHTLIFT_MODELS", value_name = "FILE", value_hint = ValueHint::FilePath,
          help_heading = MODELS)]
    pub(super) models_file: Option<PathBuf>,

    /// Take only the model NAME of the file
    ///
    /// Repeat the flag, or separate names with commas.
    #[arg(long, env = "WEIGHTLIFT_ONLY", value_name = "NAME", value_delimiter = ',', help_heading = MODELS)]
    only: Vec<String>,

    #[command(flatten)]
    selected: SelectionArgs,

    /// Directory that holds the models [default: /data/models, if it exists]
    #[arg(long, env = "WEIGHTLIFT_ROOT", value_name = "DIR", value_hint = ValueHint::DirPath,
          help_heading = VOLUME)]
    root: Option<PathBuf>,

    #[command(flatten)]
    pub source: SourceArgs,

    #[command(flatten)]
    pub deadline: Deadline,

    /// With `kubernetes`: check also the rights to use a Lease
    #[arg(long, env = "WEIGHTLIFT_LOCK", value_enum, value_name = "KIND", default_value_t = LockKind::File,
          help_heading = LOCKS)]
    lock: LockKind,

    /// Name of that Lease, if the rights are for one name
    #[arg(long, env = "WEIGHTLIFT_LEASE_NAME", value_name = "NAME", hide_short_help = true,
          help_heading = LOCKS)]
    pub lease_name: Option<String>,

    /// Directory of the service account
    ///
    /// It holds the files token, ca.crt and namespace.
    #[arg(long, env = "WEIGHTLIFT_SERVICE_ACCOUNT", value_name = "DIR", value_hint = ValueHint::DirPath,
          default_value = "/var/run/secrets/kubernetes.io/serviceaccount", hide_short_help = true,
          help_heading = LOCKS)]
    service_account: PathBuf,
}

/// The root that is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedRoot {
    pub path: PathBuf,
    /// Somebody has said so: it ought to be there.
    pub is_named: bool,
}

impl DoctorArgs {
    /// The sources, each once, with what is to be taken of it.
    pub fn entries(&self) -> Result<Vec<Entry>, Error> {
        if self.sources.is_empty() && self.models_file.is_none() && self.only.is_empty() {
            return Ok(Vec::new());
        }
        let listed = ModelsArgs {
            models: self.sources.clone(),
            models_file: self.models_file.clone(),
            only: self.only.clone(),
            also: Vec::new(),
            selected: self.selected.clone(),
        };
        listed.entries(Positional::Sources)
    }

    pub fn root(&self) -> Result<NamedRoot, Error> {
        let named = self.root.as_deref().unwrap_or(Path::new(DEFAULT_ROOT));
        let path = absolute(named).ok_or_else(unusable_root)?;
        Ok(NamedRoot { path, is_named: self.root.is_some() })
    }

    /// The service account whose rights are checked, if they are.
    pub fn account(&self) -> Option<&Path> {
        (self.lock == LockKind::Kubernetes).then_some(&self.service_account)
    }
}
