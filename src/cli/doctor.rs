//! `weightlift doctor`: its flags.

use std::path::{Path, PathBuf};

use clap::Args;

use super::fetch::{Deadline, LockKind};
use super::listed::{ModelsArgs, Positional};
use super::models::{DEFAULT_ROOT, absolute, unusable_root};
use super::sources::{SelectionArgs, SourceArgs};
use crate::Error;
use crate::fleet::Entry;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  weightlift doctor                     container, /data/models, the Hub and its token
  weightlift doctor hf://org/name       can this be listed and read from here?
  weightlift doctor s3://bucket/llama/ --root /data/models --lock kubernetes

Each check is one line: ok, warning or fails, what was found, what to do. A check that gets no answer
in time (10s; 20s for a source) fails, and the next ones are made. Nothing is written, except a
directory on the volume in which renames, links and locks are tried; it is removed again. Warnings
do not fail. The exit code is 0, or that of the failure that most needs a person.")]
pub struct DoctorArgs {
    /// What is to be fetched: listed, and read by one small range. Without any, the Hub and its token are checked
    #[arg(value_name = "SOURCE")]
    sources: Vec<String>,

    /// Take the sources that FILE, a models file, lists
    #[arg(long = "models", env = "WEIGHTLIFT_MODELS", value_name = "FILE")]
    pub(super) models_file: Option<PathBuf>,

    /// Of the models that a file lists, only those of this name [repeatable, or separated by commas]
    #[arg(long, env = "WEIGHTLIFT_ONLY", value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,

    #[command(flatten)]
    selected: SelectionArgs,

    /// Directory that holds the models [default: /data/models, if it is there]
    #[arg(long, env = "WEIGHTLIFT_ROOT", value_name = "DIR")]
    root: Option<PathBuf>,

    /// `kubernetes`: check also whether the service account may use a Lease
    #[arg(long, env = "WEIGHTLIFT_LOCK", value_enum, value_name = "KIND", default_value_t = LockKind::File)]
    lock: LockKind,

    /// Name of that Lease, where the rights are for one name
    #[arg(long, env = "WEIGHTLIFT_LEASE_NAME", value_name = "NAME")]
    pub lease_name: Option<String>,

    /// Directory of the service account: token, ca.crt and namespace
    #[arg(
        long,
        env = "WEIGHTLIFT_SERVICE_ACCOUNT",
        value_name = "DIR",
        default_value = "/var/run/secrets/kubernetes.io/serviceaccount"
    )]
    service_account: PathBuf,

    #[command(flatten)]
    pub source: SourceArgs,

    #[command(flatten)]
    pub deadline: Deadline,
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
