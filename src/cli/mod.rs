//! Arguments and environment: what the user wants, parsed once, into the words of the rooms below. `run` and
//! `commands` go by it.
//! Imports `model`, `report`, `source`, `volume` and `engine`, for what flags are parsed into.

mod doctor;
mod fetch;
mod given;
mod layout;
mod listed;
mod logging;
mod mirror;
mod models;
mod order;
mod pin;
mod rate;
mod reach;
mod sources;

pub use doctor::{DoctorArgs, NamedRoot};
pub use fetch::{FetchArgs, IfStale, LockKind};
pub use given::Given;
pub use logging::{LogKind, Logging, screen_with};
pub use mirror::{MirrorArgs, MirrorModel};
pub use models::Model;
pub use order::{ListArgs, PruneArgs};
pub use pin::PinArgs;
pub use sources::SourceArgs;

use std::ffi::OsStr;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::Error;
use crate::environment;
use crate::exit;
use crate::model::text;
use crate::report::Event;
use fetch::Deadline;

/// What `--version` tells: the release, and the commit that it is made of. `-V` has the release alone.
const LONG_VERSION: &str =
    concat!(env!("CARGO_PKG_VERSION"), " (", env!("WEIGHTLIFT_BUILT_FROM"), ")");

/// Fetches model weights onto a volume: once, verified, resumable.
#[derive(Debug, Parser)]
#[command(version, long_version = LONG_VERSION, about, max_term_width = 100, after_help = exit::help())]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    pub global: Global,
    #[command(flatten)]
    pub logging: Logging,
    /// What was set, with `--verbose`.
    #[arg(skip)]
    pub settings: Option<Event>,
}

impl Cli {
    /// Parses `arguments` and the environment. A variable that is set to nothing or to white space, as
    /// templates leave them, is one that is not set.
    pub fn parse_from_outside(arguments: &[std::ffi::OsString]) -> Result<Self, clap::Error> {
        let without_empty = |argument: clap::Arg| {
            let value = argument.get_env().and_then(OsStr::to_str).and_then(environment::os);
            let is_nothing = |value: std::ffi::OsString| {
                value.to_str().is_some_and(|value| value.trim().is_empty())
            };
            if value.is_some_and(is_nothing) { argument.env(None) } else { argument }
        };
        let mut command = Self::command();
        // Every argument is made anew for this, so only where it is needed.
        if environment::has_empty(environment::Part::Flags) {
            command = command.mut_args(without_empty);
            command = command.mut_subcommands(|command| command.mut_args(without_empty));
        }
        let matches = command.try_get_matches_from_mut(arguments)?;
        let mut cli = Self::from_arg_matches(&matches)?;
        if cli.logging.verbose {
            cli.settings = Some(settings(&command, &matches, cli.command.name()));
        }
        Ok(cli)
    }
}

/// What the run goes by.
fn settings(all: &clap::Command, matches: &clap::ArgMatches, name: &'static str) -> Event {
    let of_command = all.find_subcommand(name).zip(matches.subcommand_matches(name));
    let settings =
        of_command.map_or_else(Vec::new, |(command, matches)| logging::settings(matches, command));
    Event::Settings { command: name, settings, variables: logging::variables_set() }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Puts a model onto the volume, or finds that it is there already
    Fetch(Box<FetchArgs>),
    /// Says what `fetch` with these arguments would do; writes nothing
    Plan(Box<FetchArgs>),
    /// Writes down exactly what models are: revision, and path, size and SHA-256 of every file
    Pin(Box<PinArgs>),
    /// Copies models into a bucket, from which `fetch` gets each by one listing; or checks such copies
    Mirror(Box<MirrorArgs>),
    /// Re-checks published models offline: every byte against the sentinel
    Verify(VerifyArgs),
    /// Waits until somebody else has put models onto the volume; reads only, asks no network
    Wait(WaitArgs),
    /// Lists the models on a volume, what is kept of them, and who is at work; reads only
    List(ListArgs),
    /// Removes revisions that were replaced and attempts that are dead; says what, until --yes is given
    Prune(PruneArgs),
    /// Checks container, volume, network, credentials and sources, one line each
    Doctor(Box<DoctorArgs>),
}

impl Command {
    /// As it is called.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Fetch(_) => "fetch",
            Self::Plan(_) => "plan",
            Self::Pin(_) => "pin",
            Self::Mirror(_) => "mirror",
            Self::Verify(_) => "verify",
            Self::Wait(_) => "wait",
            Self::List(_) => "list",
            Self::Prune(_) => "prune",
            Self::Doctor(_) => "doctor",
        }
    }
}

#[derive(Debug, Args)]
pub struct Global {
    /// What standard output gets for each model: the path to load, or one line of JSON
    #[arg(long, global = true, env = "WEIGHTLIFT_OUTPUT", value_enum, default_value_t = Output::Text)]
    pub output: Output,
    /// File that gets one line of JSON at every exit, if it exists
    #[arg(
        long,
        global = true,
        env = "WEIGHTLIFT_TERMINATION_LOG",
        value_name = "FILE",
        default_value = "/dev/termination-log"
    )]
    pub termination_log: PathBuf,
    /// File that holds how far the run is, as JSON: replaced each second, and at the end
    #[arg(long, global = true, env = "WEIGHTLIFT_PROGRESS_FILE", value_name = "FILE")]
    pub progress_file: Option<PathBuf>,
    /// File for Prometheus' textfile collector (`*.prom`): replaced every 15 seconds, and at the end
    #[arg(long, global = true, env = "WEIGHTLIFT_METRICS_FILE", value_name = "FILE")]
    pub metrics_file: Option<PathBuf>,
    /// Answer `GET /metrics` here while the process lives: `9464`, `:9464`, `127.0.0.1:9464`
    #[arg(long, global = true, env = "WEIGHTLIFT_METRICS_LISTEN", value_name = "ADDRESS",
          value_parser = parse_address)]
    pub metrics_listen: Option<SocketAddr>,
    /// What the process gives up before it begins: `privileges`, the way to more of them; `files`, also access to
    /// files that this run does not need, where the kernel has Landlock (docs/sandbox.md); or nothing
    #[arg(long, global = true, env = "WEIGHTLIFT_SANDBOX", value_enum, value_name = "WHAT",
          default_value_t = SandboxKind::Privileges)]
    pub sandbox: SandboxKind,
}

/// What the process takes from itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SandboxKind {
    Off,
    Privileges,
    Files,
}

/// An address to listen at; a port alone is that port at every address.
fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let text = text.trim();
    let port = text.strip_prefix(':').unwrap_or(text);
    if let Ok(port) = port.parse::<u16>() {
        return Ok(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)));
    }
    text.parse().map_err(|_| {
        "write a port, or an address and a port, as in 9464, 127.0.0.1:9464 or [::1]:9464".into()
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Text,
    Json,
}

#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Directories of published models
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,

    #[command(flatten)]
    pub deadline: Deadline,
}

#[derive(Debug, Args)]
pub struct WaitArgs {
    /// Directories that models are published at
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,

    /// Give up (exit 23) after this long in all: 90s, 5m, 2h
    #[arg(long, visible_alias = "deadline", env = "WEIGHTLIFT_TIMEOUT", value_name = "DURATION",
          default_value = "2h", value_parser = text::parse_duration)]
    pub timeout: Duration,

    /// Wait for this revision, a commit or a digest with all its digits; one for each PATH [repeatable]
    #[arg(long, env = "WEIGHTLIFT_EXPECT_REVISION", value_name = "SHA", value_delimiter = ',')]
    pub expect_revision: Vec<String>,

    /// Let LINK lead to the revision itself, which goes on to show it when the model is updated: for one pod,
    /// in an emptyDir. An expected revision that is kept on the volume will do
    #[arg(long, env = "WEIGHTLIFT_LINK", value_name = "LINK")]
    pub link: Option<PathBuf>,
}

impl WaitArgs {
    /// Each path, and the revision that is expected there.
    pub fn models(&self) -> Result<Vec<(&std::path::Path, Option<String>)>, Error> {
        let (paths, revisions) = (&self.paths, &self.expect_revision);
        if !revisions.is_empty() && revisions.len() != paths.len() {
            return Err(Error::Usage(format!(
                "--expect-revision is given {} times for {} paths; give one for each PATH",
                revisions.len(),
                paths.len()
            )));
        }
        if let Some(name) = revisions.iter().find(|revision| !is_whole_revision(revision)) {
            return Err(Error::Usage(format!(
                "--expect-revision `{}` is not a full commit or digest, so no model can match it; give \
                 what `weightlift list --output json` shows as the revision",
                text::inert(name, 100)
            )));
        }
        if self.link.is_some() && paths.len() > 1 {
            return Err(Error::Usage(format!(
                "--link leads to one model, but there are {}; wait for them one by one",
                paths.len()
            )));
        }
        let of = |n: usize| revisions.get(n).map(|sha| sha.to_ascii_lowercase());
        Ok(paths.iter().enumerate().map(|(n, path)| (path.as_path(), of(n))).collect())
    }
}

/// Whether a model can say this of itself: not a branch, a tag, or the first digits of a commit.
fn is_whole_revision(revision: &str) -> bool {
    let digits = revision.split_once(':').map_or(revision, |(_, digits)| digits);
    digits.len() >= 40 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_model_says_of_itself_is_not_waited_for() {
        let commit = "0123456789abcdef0123456789ABCDEF01234567";
        let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
        for (revision, is_whole) in [
            (commit, true),
            (&digest, true),
            (&digest[7..], true),
            ("main", false),
            ("v1.0", false),
            ("refs/pr/1", false),
            (&commit[..12], false),
            ("", false),
            ("sha256:", false),
        ] {
            assert_eq!(is_whole_revision(revision), is_whole, "{revision}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_has_a_variable_and_a_description() {
        for command in Cli::command().get_subcommands() {
            for argument in command.get_arguments().filter(|argument| !argument.is_positional()) {
                let name = argument.get_long().expect("has a long name");
                if matches!(name, "help" | "version") {
                    continue;
                }
                if (command.get_name(), name) == ("prune", "models") {
                    assert!(argument.get_env().is_none(), "what a fetch is told removes models");
                    continue;
                }
                let variable = format!("WEIGHTLIFT_{}", name.replace('-', "_").to_uppercase());
                assert_eq!(
                    argument.get_env().and_then(|env| env.to_str()),
                    Some(variable.as_str())
                );
                assert!(argument.get_help().is_some(), "{name}");
            }
        }
    }
}
