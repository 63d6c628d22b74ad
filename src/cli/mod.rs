//! Arguments and environment: what the user wants, parsed once, into the words of the rooms below. `run` and
//! `commands` go by it.
//! Imports `model`, `report`, `source`, `volume` and `engine`, for what flags are parsed into.

mod doctor;
mod examples;
mod fetch;
mod generate;
mod given;
mod help;
mod layout;
mod listed;
mod logging;
mod mirror;
mod models;
mod order;
mod pin;
mod rate;
mod reach;
mod reference;
mod signature;
mod sources;
mod suggest;
mod values;

pub use doctor::{DoctorArgs, NamedRoot};
pub use fetch::FetchArgs;
pub use generate::{GenerateArgs, Generated};
pub use given::Given;
pub use logging::{LogKind, Logging, screen_with};
pub use mirror::{MirrorArgs, MirrorModel};
pub use models::Model;
pub use order::{ListArgs, PruneArgs};
pub use pin::PinArgs;
pub use signature::SignatureArgs;
pub use sources::SourceArgs;
pub use suggest::mistake;
pub use values::{IfStale, LockKind};

use std::ffi::OsStr;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{
    ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum, ValueHint,
};

use crate::Error;
use crate::environment;
use crate::exit;
use crate::model::{Message, text};
use crate::report::Event;
use fetch::Deadline;
use help::{LIMITS, OUTPUT, PUBLICATION, TEMPLATE};

/// What `--version` tells: the release, and the commit that it is made of. `-V` has the release alone.
const LONG_VERSION: &str =
    concat!(env!("CARGO_PKG_VERSION"), " (", env!("WEIGHTLIFT_BUILT_FROM"), ")");

/// Fetch model weights onto a volume: once, verified, resumable
#[derive(Debug, Parser)]
#[command(version, long_version = LONG_VERSION, about, max_term_width = 100, disable_help_flag = true,
          help_template = TEMPLATE, before_help = examples::WEIGHTLIFT, after_help = help::COMMANDS,
          after_long_help = exit::help())]
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
        let mut command = help::fitting(Self::command(), arguments);
        // Every argument is made anew for this, so only where it is needed.
        if environment::has_empty(environment::Part::Flags) {
            command = command.mut_args(without_empty);
            command = command.mut_subcommands(|command| command.mut_args(without_empty));
        }
        let matches = command.try_get_matches_from_mut(arguments)?;
        let mut cli = Self::from_arg_matches(&matches)?;
        if let Some((_, of_command)) = matches.subcommand() {
            cli.logging.prefer_flags(of_command);
        }
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
    /// Fetch models onto the volume; do nothing if they are there
    #[command(help_template = TEMPLATE, before_help = examples::FETCH, after_help = help::MORE)]
    Fetch(Box<FetchArgs>),
    /// Tell what `fetch` with the same arguments would do; write nothing
    #[command(help_template = TEMPLATE, before_help = examples::PLAN, after_help = help::MORE)]
    Plan(Box<FetchArgs>),
    /// Write a lock file: the revision, and path, size and SHA-256 of every file
    #[command(help_template = TEMPLATE, before_help = examples::PIN, after_help = help::MORE)]
    Pin(Box<PinArgs>),
    /// Copy models into an S3 bucket, or check such copies
    #[command(help_template = TEMPLATE, before_help = examples::MIRROR, after_help = help::MORE)]
    Mirror(Box<MirrorArgs>),
    /// Hash every byte of published models again, offline
    #[command(help_template = TEMPLATE, before_help = examples::VERIFY, after_help = help::MORE)]
    Verify(VerifyArgs),
    /// Wait until another pod has published models; only read the volume
    #[command(help_template = TEMPLATE, before_help = examples::WAIT, after_help = help::MORE)]
    Wait(WaitArgs),
    /// List the models on a volume, their kept revisions and running fetches
    #[command(help_template = TEMPLATE, before_help = examples::LIST, after_help = help::MORE)]
    List(ListArgs),
    /// Remove replaced revisions and dead attempts; only tell, until --yes
    #[command(help_template = TEMPLATE, before_help = examples::PRUNE, after_help = help::MORE)]
    Prune(PruneArgs),
    /// Check container, volume, network, credentials and sources
    #[command(help_template = TEMPLATE, before_help = examples::DOCTOR, after_help = help::MORE)]
    Doctor(Box<DoctorArgs>),
    /// Write shell completions, man pages or the reference in docs/cli.md
    #[command(hide = true)]
    Generate(GenerateArgs),
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
            Self::Generate(_) => "generate",
        }
    }
}

#[derive(Debug, Args)]
pub struct Global {
    /// Standard output: text (the path to load) or json
    #[arg(long, global = true, env = "WEIGHTLIFT_OUTPUT", value_enum, value_name = "FORMAT",
          default_value_t = Output::Text, help_heading = OUTPUT)]
    pub output: Output,
    /// Write one line of JSON to FILE at every exit, if FILE exists
    #[arg(long, global = true, env = "WEIGHTLIFT_TERMINATION_LOG", value_name = "FILE", hide_short_help = true,
          default_value = "/dev/termination-log", value_hint = ValueHint::FilePath, help_heading = OUTPUT)]
    pub termination_log: PathBuf,
    /// Write the progress to FILE as JSON, each second and at the end
    #[arg(long, global = true, env = "WEIGHTLIFT_PROGRESS_FILE", value_name = "FILE", hide_short_help = true,
          value_hint = ValueHint::FilePath, help_heading = OUTPUT)]
    pub progress_file: Option<PathBuf>,
    /// Write metrics to FILE (`*.prom`), every 15 seconds and at the end
    ///
    /// The textfile collector of Prometheus' node exporter reads such files.
    #[arg(long, global = true, env = "WEIGHTLIFT_METRICS_FILE", value_name = "FILE", hide_short_help = true,
          value_hint = ValueHint::FilePath, help_heading = OUTPUT)]
    pub metrics_file: Option<PathBuf>,
    /// Answer `GET /metrics` at ADDRESS
    ///
    /// ADDRESS is `9464`, `:9464` or `127.0.0.1:9464`. It answers while the process lives.
    #[arg(long, global = true, env = "WEIGHTLIFT_METRICS_LISTEN", value_name = "ADDRESS", hide_short_help = true,
          value_parser = parse_address, help_heading = OUTPUT)]
    pub metrics_listen: Option<SocketAddr>,
    /// Add the label NAME=VALUE to every metric (repeatable)
    ///
    /// So several runs on one node, or in one job, are told apart.
    #[arg(long, global = true, env = "WEIGHTLIFT_METRICS_LABEL", value_name = "NAME=VALUE", value_delimiter = ',',
          hide_short_help = true, value_parser = parse_label, help_heading = OUTPUT)]
    pub metrics_label: Vec<(String, String)>,
    /// Print help: `-h` the common flags, `--help` all of them
    #[arg(short, long, global = true, action = ArgAction::Help, help_heading = OUTPUT)]
    pub help: Option<bool>,
    /// What to give up before the run: privileges, files or off
    ///
    /// `privileges` gives up the way to more privileges (`no_new_privs`). `files` also confines the process to the files that the
    /// run needs, if the kernel has Landlock. `off` does neither. docs/sandbox.md has more.
    #[arg(long, global = true, env = "WEIGHTLIFT_SANDBOX", value_enum, value_name = "WHAT", hide_short_help = true,
          default_value_t = SandboxKind::Privileges, help_heading = OUTPUT)]
    pub sandbox: SandboxKind,
}

/// What the process takes from itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SandboxKind {
    Off,
    Privileges,
    Files,
}

/// The labels that some metric has of itself.
const OWN_LABELS: [&str; 5] = ["command", "phase", "reason", "source", "version"];

/// A label of Prometheus that no metric has of itself.
fn parse_label(text: &str) -> Result<(String, String), String> {
    let (name, value) =
        text.trim().split_once('=').ok_or("expected NAME=VALUE, such as model=llama-3-8b")?;
    let is_letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    let is_name = name.starts_with(is_letter)
        && name.chars().all(|c| is_letter(c) || c.is_ascii_digit())
        && !name.starts_with("__");
    if !is_name {
        return Err(
            "the name of a label has letters, digits and `_`, and begins with a letter".into()
        );
    }
    if OWN_LABELS.contains(&name) {
        return Err(format!("`{name}` is a label of weightlift's own; choose another name"));
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// An address to listen at; a port alone is that port at every address.
fn parse_address(text: &str) -> Result<SocketAddr, Message> {
    let text = text.trim();
    let port = text.strip_prefix(':').unwrap_or(text);
    if let Ok(port) = port.parse::<u16>() {
        return Ok(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)));
    }
    text.parse().map_err(|_| {
        let what = format!("`{}` is not an address to listen at", text::inert(text, 100));
        Message::new(what).hint(
            "write a port, or an address and a port, as in 9464, 127.0.0.1:9464 or [::1]:9464",
        )
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// The path that a server should load
    Text,
    /// One line of JSON
    Json,
}

#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Directories of published models
    #[arg(required = true, value_name = "PATH", value_hint = ValueHint::DirPath)]
    pub paths: Vec<PathBuf>,

    #[command(flatten)]
    pub signature: SignatureArgs,

    #[command(flatten)]
    pub deadline: Deadline,
}

#[derive(Debug, Args)]
pub struct WaitArgs {
    /// Directories that models are published at
    #[arg(required = true, value_name = "PATH", value_hint = ValueHint::DirPath)]
    pub paths: Vec<PathBuf>,

    /// Make LINK a link to the revision itself, for one pod
    ///
    /// LINK lies in an emptyDir of the pod. It still leads to this revision after an update. An expected
    /// revision that is kept on the volume is enough.
    #[arg(long, env = "WEIGHTLIFT_LINK", value_name = "LINK", value_hint = ValueHint::AnyPath,
          help_heading = PUBLICATION)]
    pub link: Option<PathBuf>,

    /// Wait for this revision, a commit or a digest with all its digits
    ///
    /// Give one for each PATH: repeat the flag, or separate revisions with commas.
    #[arg(long, env = "WEIGHTLIFT_EXPECT_REVISION", value_name = "SHA", value_delimiter = ',',
          help_heading = PUBLICATION)]
    pub expect_revision: Vec<String>,

    /// Give up after this long
    ///
    /// The time counts for all paths together: 90s, 5m, 2h. The exit code is then 23.
    #[arg(long, visible_alias = "deadline", env = "WEIGHTLIFT_TIMEOUT", value_name = "DURATION",
          default_value = "2h", value_parser = text::parse_duration, help_heading = LIMITS)]
    pub timeout: Duration,
}

impl WaitArgs {
    /// Each path, and the revision that is expected there.
    pub fn models(&self) -> Result<Vec<(&std::path::Path, Option<String>)>, Error> {
        let (paths, revisions) = (&self.paths, &self.expect_revision);
        if !revisions.is_empty() && revisions.len() != paths.len() {
            return Err(Error::Usage(
                Message::new(format!(
                    "--expect-revision is given {} times for {} paths",
                    revisions.len(),
                    paths.len()
                ))
                .hint("give one for each PATH"),
            ));
        }
        if let Some(name) = revisions.iter().find(|revision| !is_whole_revision(revision)) {
            return Err(Error::Usage(Message::new(format!("--expect-revision `{}` is not a full commit or digest, so no model can match it", text::inert(name, 100))).hint("give what `weightlift list --output json` shows as the revision")));
        }
        if self.link.is_some() && paths.len() > 1 {
            return Err(Error::Usage(
                Message::new(format!("--link leads to one model, but there are {}", paths.len()))
                    .hint("wait for them one by one"),
            ));
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
