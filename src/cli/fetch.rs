//! `weightlift fetch`: its flags, and what they say to the rooms below.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args, ValueHint};

use super::help::{FILES, LIMITS, LOCKS, MODELS, PUBLICATION, SOURCE, SOURCES, TRANSFER, VOLUME};
use super::listed::ModelsArgs;
use super::rate::parse_min_rate;
use super::signature::SignatureArgs;
use super::sources::SourceArgs;
use super::values::{IfStale, LayoutKind, LockKind, When};
use crate::Error;
use crate::cgroup;
use crate::engine::{self, Share};
use crate::model::{Keep, Message, text, umask};
use crate::process;

#[derive(Debug, Args)]
#[command(after_long_help = SOURCES)]
pub struct FetchArgs {
    #[command(flatten)]
    pub listed: ModelsArgs,

    /// Fetch exactly what FILE, a lock file of `weightlift pin`, names
    ///
    /// Any place that has the bytes will do. weightlift does not ask the sources what they hold now.
    #[arg(long, env = "WEIGHTLIFT_LOCKED", value_name = "FILE",
          value_hint = ValueHint::FilePath, help_heading = MODELS)]
    pub locked: Option<PathBuf>,

    /// Refuse files in pickle formats (exit 13)
    ///
    /// Such files can run code when a server loads them.
    #[arg(long, env = "WEIGHTLIFT_DENY_PICKLE", hide_short_help = true, help_heading = FILES,
          action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub deny_pickle: bool,

    /// Refuse files without a published digest (exit 12)
    ///
    /// weightlift refuses them before it fetches the weights.
    #[arg(long, env = "WEIGHTLIFT_REQUIRE_DIGESTS", hide_short_help = true,
          help_heading = FILES, action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub require_digests: bool,

    #[command(flatten)]
    pub signature: SignatureArgs,

    /// Read first from a place that `weightlift mirror` has filled
    ///
    /// Each model lies below PREFIX under its name. This is the same as --also PREFIX/NAME/ for each model.
    /// Repeat the flag, or separate places with commas.
    #[arg(long, env = "WEIGHTLIFT_MIRROR", value_name = "PREFIX", help_heading = SOURCE)]
    pub mirror: Vec<String>,

    /// Reuse the files in DIR: a cache of `hf`, or any directory
    ///
    /// DIR is a cache (HF_HOME, its hub/, or one models--org--name/), or a directory that you or
    /// `hf download --local-dir` have filled. weightlift hashes each file, then links or copies it. It never
    /// changes DIR. If DIR is DEST, weightlift publishes there and keeps the old directory. Repeat the flag,
    /// or separate directories with commas.
    #[arg(long, env = "WEIGHTLIFT_ADOPT", value_name = "DIR", value_delimiter = ',',
          value_hint = ValueHint::DirPath, help_heading = SOURCE)]
    pub adopt: Vec<PathBuf>,

    /// Directory that holds the models [default: /data/models]
    ///
    /// With --layout hf-cache the default is the directory above HF_HUB_CACHE, or else HF_HOME.
    #[arg(long, env = "WEIGHTLIFT_ROOT", value_name = "DIR",
          value_hint = ValueHint::DirPath, help_heading = VOLUME)]
    pub root: Option<PathBuf>,

    /// Layout on the volume: plain or hf-cache
    ///
    /// With `hf-cache` a server finds the model by the name of its repo.
    #[arg(long, env = "WEIGHTLIFT_LAYOUT", value_enum, value_name = "LAYOUT",
          default_value_t = LayoutKind::Plain, help_heading = VOLUME)]
    pub layout: LayoutKind,

    #[command(flatten)]
    pub permissions: Permissions,

    /// Fill DEST file by file, if the volume can neither exchange, rename nor link
    ///
    /// A reader may then see a part of the files. The sentinel still comes last.
    #[arg(long, env = "WEIGHTLIFT_ALLOW_DEGRADED", hide_short_help = true,
          help_heading = VOLUME, action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub allow_degraded: bool,

    /// Write large files past the page cache: auto, on or off
    ///
    /// `auto` tries it on ext4 and xfs, where the kernel holds writers back. It writes past the cache if the
    /// trial is at least twice as fast. The server then has to read the model from the disk.
    #[arg(long, env = "WEIGHTLIFT_DIRECT_IO", hide_short_help = true, value_enum,
          value_name = "WHEN", default_value_t = When::Auto, help_heading = VOLUME)]
    pub direct_io: When,

    /// Make PATH a link to the revision itself, for one pod
    ///
    /// PATH lies in an emptyDir of the pod. The link still leads to this revision after an update. If SOURCE
    /// names a commit, weightlift takes a revision that is kept on the volume.
    #[arg(long, env = "WEIGHTLIFT_LINK", value_name = "PATH",
          value_hint = ValueHint::AnyPath, help_heading = PUBLICATION)]
    pub link: Option<PathBuf>,

    /// Where the server that follows the link sees --root
    ///
    /// The default is the path of --root here.
    #[arg(long, env = "WEIGHTLIFT_LINK_ROOT", hide_short_help = true, value_name = "DIR",
          value_hint = ValueHint::DirPath, help_heading = PUBLICATION)]
    pub link_root: Option<PathBuf>,

    /// Fail (exit 16) unless SOURCE resolves to this revision
    ///
    /// Give one for each SOURCE: repeat the flag, or separate revisions with commas.
    #[arg(long, env = "WEIGHTLIFT_EXPECT_REVISION", hide_short_help = true,
          value_name = "SHA", value_delimiter = ',', help_heading = PUBLICATION)]
    pub expect_revision: Vec<String>,

    /// What to do with an older copy if the source fails: use or fail
    ///
    /// This is about a SOURCE that names a branch. The source cannot be reached, or refuses, or the volume is
    /// full or read-only, and a complete older copy is on the volume.
    #[arg(long, env = "WEIGHTLIFT_IF_STALE", hide_short_help = true, value_enum,
          value_name = "WHAT", default_value_t = IfStale::Use, help_heading = PUBLICATION)]
    pub if_stale: IfStale,

    /// Replace another model at DEST, and remove other files
    ///
    /// DEST becomes exactly what this command asks for. weightlift removes files that were fetched for other
    /// --include and --exclude.
    #[arg(long, env = "WEIGHTLIFT_REPLACE", help_heading = PUBLICATION,
          action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub replace: bool,

    /// Hash the published files first; fetch damaged ones again
    #[arg(long, env = "WEIGHTLIFT_RECHECK", help_heading = PUBLICATION,
          action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub recheck: bool,

    /// After an update, keep the N latest replaced revisions
    ///
    /// The default keeps all, unless --keep-for is given.
    #[arg(long, env = "WEIGHTLIFT_KEEP_REVISIONS", hide_short_help = true,
          value_name = "N", help_heading = PUBLICATION)]
    pub keep_revisions: Option<usize>,

    /// After an update, keep revisions replaced less than this long ago
    ///
    /// Choose more time than a pod takes to start again. weightlift removes a revision if neither this flag nor
    /// --keep-revisions keeps it. The default keeps all, unless --keep-revisions is given.
    #[arg(long, env = "WEIGHTLIFT_KEEP_FOR", hide_short_help = true,
          value_name = "DURATION", value_parser = text::parse_duration, help_heading = PUBLICATION)]
    pub keep_for: Option<Duration>,

    /// Write nothing; the same as `weightlift plan`
    ///
    /// It tells what a fetch takes from where, what it reuses, what it leaves out, and whether there is
    /// room (exit 15 if not).
    #[arg(long, env = "WEIGHTLIFT_DRY_RUN", help_heading = PUBLICATION,
          action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub dry_run: bool,

    /// Open up to N connections at the same time
    ///
    /// N is an upper limit, from 1 to 256. The memory limit of the container lowers it. weightlift opens more
    /// than four only while they make the transfer faster.
    #[arg(long, env = "WEIGHTLIFT_CONNECTIONS", value_name = "N", default_value_t = 64,
          value_parser = clap::value_parser!(u16).range(1..=256), help_heading = TRANSFER)]
    pub connections: u16,

    /// Ask for up to this size in one request
    ///
    /// From 1MiB to 1GiB: 64MiB, 64M, 67108864.
    #[arg(long, env = "WEIGHTLIFT_CHUNK_SIZE", hide_short_help = true, value_name = "SIZE",
          default_value = "64MiB", value_parser = parse_chunk_size, help_heading = TRANSFER)]
    pub chunk_size: u64,

    #[command(flatten)]
    pub deadline: Deadline,

    #[command(flatten)]
    pub source: SourceArgs,

    /// Fail (exit 20) below this rate: 500kB, 1MB, 10MiB a second
    ///
    /// This is the rate of all files together, on average over a minute. If --retry-timeout is shorter than a
    /// minute, it is the average over that time. The default is no such limit.
    #[arg(long, env = "WEIGHTLIFT_MIN_RATE", hide_short_help = true, value_name = "RATE",
          value_parser = parse_min_rate, help_heading = LIMITS)]
    pub min_rate: Option<u64>,

    /// Lock against other pods: file or kubernetes
    ///
    /// The lock keeps pods from fetching the same model twice.
    #[arg(long, env = "WEIGHTLIFT_LOCK", value_enum, value_name = "KIND",
          default_value_t = LockKind::File, help_heading = LOCKS)]
    pub lock: LockKind,

    /// Fail (exit 23) after this long without progress of the holder
    ///
    /// The holder is the process that fetches the same model. weightlift waits for a holder that makes progress,
    /// up to --deadline. Less than 11s counts as 11s; 0s does not wait.
    #[arg(long, env = "WEIGHTLIFT_LOCK_TIMEOUT", hide_short_help = true,
          value_name = "DURATION", default_value = "2h", value_parser = text::parse_duration, help_heading = LOCKS)]
    pub lock_timeout: Duration,

    /// Fetch too, after this long without progress of the holder
    #[arg(long, env = "WEIGHTLIFT_TAKEOVER_AFTER", hide_short_help = true,
          value_name = "DURATION", default_value = "60s", value_parser = text::parse_duration, help_heading = LOCKS)]
    pub takeover_after: Duration,

    /// Fetch too, if the holder is so slow that this rate would end sooner
    ///
    /// weightlift compares the rest at this many bytes a second with the rest at the holder's rate of the last
    /// minutes. 0 turns this off.
    #[arg(long, env = "WEIGHTLIFT_TAKEOVER_RATE", hide_short_help = true,
          value_name = "SIZE", default_value = "256KiB", value_parser = text::parse_size, help_heading = LOCKS)]
    takeover_rate: u64,

    /// Name of the Lease [default: weightlift-DEST]
    ///
    /// All pods that share the volume need the same name.
    #[arg(long, env = "WEIGHTLIFT_LEASE_NAME", hide_short_help = true,
          value_name = "NAME", help_heading = LOCKS)]
    pub lease_name: Option<String>,

    /// Directory of the service account that takes the Lease
    ///
    /// It holds the files token, ca.crt and namespace.
    #[arg(long, env = "WEIGHTLIFT_SERVICE_ACCOUNT", hide_short_help = true,
          value_name = "DIR", value_hint = ValueHint::DirPath, help_heading = LOCKS,
          default_value = "/var/run/secrets/kubernetes.io/serviceaccount")]
    pub service_account: PathBuf,
}

/// Who may read and change what is created.
#[derive(Debug, Args)]
pub struct Permissions {
    /// Permissions that new files and directories do not get, in octal
    ///
    /// 0002 lets the group change them, 0022 lets it read them. The default is the umask of the process. If the
    /// group of the root may write, and new files get that group, the default leaves the bits of the group.
    #[arg(long, env = "WEIGHTLIFT_UMASK", hide_short_help = true, value_name = "MASK",
          value_parser = umask::parse, help_heading = VOLUME)]
    pub umask: Option<u32>,
}

/// The end of a whole run.
#[derive(Debug, Args)]
pub struct Deadline {
    /// Stop (exit 23) after this long in all: 90s, 30m, 2h
    ///
    /// This holds in every phase of the run. The next run resumes with what is on the volume. The default is no
    /// deadline.
    #[arg(long, env = "WEIGHTLIFT_DEADLINE", value_name = "DURATION",
          value_parser = parse_deadline, help_heading = LIMITS)]
    pub deadline: Option<Duration>,
}

impl FetchArgs {
    /// What is kept of replaced revisions, if that has an end.
    pub fn keep(&self) -> Option<Keep> {
        let (revisions, time) = (self.keep_revisions, self.keep_for);
        let is_limited = revisions.is_some() || time.is_some();
        is_limited.then(|| Keep {
            revisions: revisions.unwrap_or_default(),
            time: time.unwrap_or_default(),
        })
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        self.source.p2p()?;
        match (self.min_rate, self.source.bandwidth) {
            (Some(least), Some(most)) if least > most => Err(Error::Usage(
                Message::new(format!(
                    "--min-rate is {}/s and --bandwidth {}/s, so every run would be too slow",
                    text::size(least),
                    text::size(most)
                ))
                .hint("lower --min-rate"),
            )),
            _ => Ok(()),
        }
    }

    /// What a waiter counts on for itself when it judges how slow another fetcher is.
    pub fn takeover_rate(&self) -> u64 {
        self.takeover_rate.min(self.source.bandwidth.unwrap_or(u64::MAX))
    }

    /// How a transfer is done that shares what there is with up to `lanes` - 1 others.
    pub fn transfer_options(&self, share: &Share, lanes: usize) -> engine::Options {
        let lanes = lanes.max(1);
        let limits = cgroup::limits();
        engine::Options {
            connections: usize::from(self.connections),
            share: share.clone(),
            chunk_size: self.chunk_size,
            min_rate: self.min_rate.map(|rate| (rate / lanes as u64).max(1)),
            retry: self.source.retry(),
            descriptors: process::free_descriptors() / lanes,
            memory_limit: limits.memory,
            memory_used: process::resident_bytes(),
            processor_limit: limits.processors,
            direct_io: self.direct_io.into(),
            require_digests: self.require_digests,
        }
    }
}

fn parse_deadline(text: &str) -> Result<Duration, Message> {
    match text::parse_duration(text)? {
        Duration::ZERO => Err(Message::new("0s is no time")
            .hint("use more than 0s, or leave it out: without it there is no deadline")),
        time => Ok(time),
    }
}

fn parse_chunk_size(text: &str) -> Result<u64, Message> {
    match text::parse_size(text)? {
        size @ 0x10_0000..=0x4000_0000 => Ok(size),
        _ => {
            let what = format!("`{}` is not in the range of sizes", text::inert(text, 40));
            Err(Message::new(what).hint("use 1MiB to 1GiB"))
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Cli, Command};
    use super::*;

    fn args(arguments: &[&str]) -> Box<FetchArgs> {
        let cli = Cli::try_parse_from([&["weightlift", "fetch", "hf://org/x"], arguments].concat());
        let Command::Fetch(args) = cli.expect("parses").command else { panic!("is fetch") };
        args
    }

    #[test]
    fn who_waits_for_another_fetcher_counts_on_no_more_than_its_own_bandwidth() {
        for (arguments, expected) in [
            (&[][..], 256 << 10),
            (&["--bandwidth", "1MB"], 256 << 10),
            (&["--bandwidth", "64KiB"], 64 << 10),
            (&["--bandwidth", "1MB", "--takeover-rate", "2MB"], 1_000_000),
            (&["--bandwidth", "1MB", "--takeover-rate", "0"], 0),
        ] {
            assert_eq!(args(arguments).takeover_rate(), expected, "{arguments:?}");
        }
    }

    #[test]
    fn a_least_rate_may_be_as_much_as_the_bandwidth_and_no_more() {
        let check = |least| args(&["--bandwidth", "8Mbit", "--min-rate", least]).check();
        assert!(check("1MB").is_ok());
        assert_eq!(check("1000001B").expect_err("is more").class().exit_code(), 2);
    }
}
