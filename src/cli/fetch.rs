//! `weightlift fetch`: its flags, and what they say to the rooms below.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args, ValueEnum};

use super::listed::ModelsArgs;
use super::rate::parse_min_rate;
use super::signature::SignatureArgs;
use super::sources::SourceArgs;
use crate::Error;
use crate::cgroup;
use crate::engine::{self, DirectIo, Share};
use crate::model::hf_cache::Layout;
use crate::model::{Keep, text, umask};
use crate::process;

/// What becomes of a whole copy that cannot be brought up to date.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum IfStale {
    Use,
    Fail,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LockKind {
    File,
    Kubernetes,
}

/// Whether something is done that is not always better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum When {
    Auto,
    On,
    Off,
}

impl From<When> for DirectIo {
    fn from(when: When) -> Self {
        match when {
            When::Auto => Self::Auto,
            When::On => Self::On,
            When::Off => Self::Off,
        }
    }
}

/// How a model is laid out on the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LayoutKind {
    Plain,
    HfCache,
}

impl From<LayoutKind> for Layout {
    fn from(kind: LayoutKind) -> Self {
        match kind {
            LayoutKind::Plain => Self::Plain,
            LayoutKind::HfCache => Self::HfCache,
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
SOURCE is hf://org/name[@revision] (also hf://datasets/org/name, hf://spaces/org/name);
s3://bucket/prefix/ or s3://bucket/one.safetensors; a bucket may be the ARN of an access point;
gs://bucket/prefix/ (Google); az://account/container/prefix/ (Azure);
oci://registry/name[:tag][@sha256:…], a model in a registry; https://host/path/ with SHA256SUMS or a
sentinel in it, or https://host/one.gguf#sha256=…; ms://org/name[@revision] (ModelScope); or
file:///directory, in which weightlift has published a model.
DEST is a directory below --root, or absolute; left out, it is the last part of the name in lower
case. Several models: SOURCE DEST SOURCE DEST …

Hub: HF_TOKEN, HF_TOKEN_PATH, HF_HOME/token, HF_ENDPOINT (also https://user:password@host)
and HF_HUB_OFFLINE work as for `hf`.
S3: the AWS default credential chain; AWS_ENDPOINT_URL and AWS_ENDPOINT_URL_S3; what KServe sets
(S3_ENDPOINT, S3_USE_HTTPS, S3_USER_VIRTUAL_BUCKET, awsAnonymousCredential); S3_VERIFY_SSL is not
honoured.
ModelScope: MODELSCOPE_ENDPOINT and MODELSCOPE_API_TOKEN.
Web servers: the netrc file that NETRC names, or ~/.netrc.
OCI registries: the `auths` of config.json in DOCKER_CONFIG or ~/.docker, of a mounted pull secret
(.dockerconfigjson in DOCKER_CONFIG), or of REGISTRY_AUTH_FILE; WEIGHTLIFT_OCI_PLAIN_HTTP.
Google: GOOGLE_APPLICATION_CREDENTIALS, those of gcloud, the metadata server, else nobody.
Azure: AZURE_STORAGE_CONNECTION_STRING, AZURE_STORAGE_KEY, AZURE_STORAGE_SAS_TOKEN,
AZURE_CLIENT_SECRET, AZURE_FEDERATED_TOKEN_FILE, a managed identity, else nobody.
Leases: POD_NAMESPACE and POD_NAME, from the downward API.
Both: HTTPS_PROXY, HTTP_PROXY, ALL_PROXY (also socks5h://), NO_PROXY; SSL_CERT_FILE, SSL_CERT_DIR
and AWS_CA_BUNDLE add to the built-in roots.")]
pub struct FetchArgs {
    #[command(flatten)]
    pub listed: ModelsArgs,

    /// Fetch exactly what FILE names, a lock file that `weightlift pin` has written: any place that has the
    /// bytes will do, and the sources are not asked what they hold now
    #[arg(long, env = "WEIGHTLIFT_LOCKED", value_name = "FILE")]
    pub locked: Option<PathBuf>,

    /// A place that `weightlift mirror` has filled from a models file or a lock file, read first: each model lies
    /// below it under its name; the same as --also PREFIX/NAME/ for each model [repeatable, or separated
    /// by commas]
    #[arg(long, env = "WEIGHTLIFT_MIRROR", value_name = "PREFIX")]
    pub mirror: Vec<String>,

    /// Take the files that DIR has already, in place of fetching them: a cache of `hf` (HF_HOME, its hub/, or
    /// one models--org--name/), or a directory that was filled by hand or by `hf download --local-dir`.
    /// Files are hashed, then linked or copied; DIR is never changed. Where DIR is DEST, its place is taken and
    /// the directory is kept aside [repeatable, or separated by commas]
    #[arg(long, env = "WEIGHTLIFT_ADOPT", value_name = "DIR", value_delimiter = ',')]
    pub adopt: Vec<PathBuf>,

    /// Directory that holds the models [default: /data/models; with --layout hf-cache first the directory above
    /// HF_HUB_CACHE, or HF_HOME]
    #[arg(long, env = "WEIGHTLIFT_ROOT", value_name = "DIR")]
    pub root: Option<PathBuf>,

    /// How the model is laid out: `plain`, the files in DEST; or `hf-cache`, in a cache of the Hub's clients,
    /// where a server finds it by the name of its repo. Then --root is its HF_HOME, and there is no DEST
    /// [default: plain]
    #[arg(long, env = "WEIGHTLIFT_LAYOUT", value_enum, value_name = "LAYOUT",
          default_value_t = LayoutKind::Plain, hide_default_value = true)]
    pub layout: LayoutKind,

    /// Refuse (exit 13) to fetch files in pickle formats, which can run code when loaded
    #[arg(long, env = "WEIGHTLIFT_DENY_PICKLE", action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub deny_pickle: bool,

    /// Refuse (exit 12, before the weights are fetched) files for which SOURCE publishes no digest to
    /// compare them with
    #[arg(long, env = "WEIGHTLIFT_REQUIRE_DIGESTS", action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub require_digests: bool,

    #[command(flatten)]
    pub signature: SignatureArgs,

    /// The most connections at the same time, as far as the memory limit of the container has room for them;
    /// beyond four, they are opened only as long as they make the transfer faster
    #[arg(long, env = "WEIGHTLIFT_CONNECTIONS", value_name = "N", default_value_t = 64,
          value_parser = clap::value_parser!(u16).range(1..=256))]
    pub connections: u16,

    /// The most bytes asked for in one request: 64MiB, 64M, 67108864
    #[arg(long, env = "WEIGHTLIFT_CHUNK_SIZE", value_name = "SIZE", default_value = "64MiB",
          value_parser = parse_chunk_size)]
    pub chunk_size: u64,

    /// Write large files past the page cache: `auto` on ext4 and xfs, where the kernel is seen to hold writers
    /// back and a trial is at least twice as fast, because the server has to read the model from the disk then
    #[arg(long, env = "WEIGHTLIFT_DIRECT_IO", value_enum, value_name = "WHEN", default_value_t = When::Auto)]
    pub direct_io: When,

    /// Give up (exit 23) when another fetcher of the same model makes no progress for this long; one that
    /// does is waited for, up to --deadline. Less than 11s counts as 11s, and 0s does not wait
    #[arg(long, env = "WEIGHTLIFT_LOCK_TIMEOUT", value_name = "DURATION", default_value = "2h",
          value_parser = text::parse_duration)]
    pub lock_timeout: Duration,

    /// Stop waiting for a fetcher that makes no progress for this long, and fetch as well
    #[arg(long, env = "WEIGHTLIFT_TAKEOVER_AFTER", value_name = "DURATION", default_value = "60s",
          value_parser = text::parse_duration)]
    pub takeover_after: Duration,

    /// Fetch as well when another fetcher is so slow, by its rate over the last minutes, that the rest would
    /// arrive sooner at this many bytes a second; 0 never does [default: 256KiB]
    #[arg(long, env = "WEIGHTLIFT_TAKEOVER_RATE", value_name = "SIZE", default_value = "256KiB",
          hide_default_value = true, value_parser = text::parse_size)]
    takeover_rate: u64,

    /// What keeps several pods from fetching the same model: `kubernetes` takes a Lease of the cluster
    /// beside the lock on the volume, for volumes whose locks do not reach from node to node
    #[arg(long, env = "WEIGHTLIFT_LOCK", value_enum, value_name = "KIND", default_value_t = LockKind::File)]
    pub lock: LockKind,

    /// Name of that Lease [default: weightlift-DEST]; the same for all who share the volume
    #[arg(long, env = "WEIGHTLIFT_LEASE_NAME", value_name = "NAME")]
    pub lease_name: Option<String>,

    /// Directory of the service account that takes it: token, ca.crt and namespace
    #[arg(
        long,
        env = "WEIGHTLIFT_SERVICE_ACCOUNT",
        value_name = "DIR",
        default_value = "/var/run/secrets/kubernetes.io/serviceaccount"
    )]
    pub service_account: PathBuf,

    /// Write nothing: only say what would be fetched, reused and left out, from where, and whether there is
    /// room (exit 15 if not); the same as `weightlift plan`
    #[arg(long, env = "WEIGHTLIFT_DRY_RUN", action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub dry_run: bool,

    #[command(flatten)]
    pub deadline: Deadline,

    /// Fail (exit 20) if the files together bring less than this in a second, on average over a minute
    /// (over --retry-timeout, if that is shorter): 500kB, 1MB, 10MiB [default: no such limit]
    #[arg(long, env = "WEIGHTLIFT_MIN_RATE", value_name = "RATE", value_parser = parse_min_rate)]
    pub min_rate: Option<u64>,

    /// Fail (exit 16) unless SOURCE resolves to this revision; one for each SOURCE [repeatable]
    #[arg(long, env = "WEIGHTLIFT_EXPECT_REVISION", value_name = "SHA", value_delimiter = ',')]
    pub expect_revision: Vec<String>,

    /// Let PATH be a link to the revision itself, which goes on to show it when the model is updated: for one
    /// pod, in an emptyDir. With a commit as revision, one that is kept on the volume will do
    #[arg(long, env = "WEIGHTLIFT_LINK", value_name = "PATH")]
    pub link: Option<PathBuf>,

    /// Where the server that follows the link sees --root [default: where we do]
    #[arg(long, env = "WEIGHTLIFT_LINK_ROOT", value_name = "DIR")]
    pub link_root: Option<PathBuf>,

    /// After an update, keep as many of the revisions that were replaced [default: all, unless --keep-for
    /// is given]
    #[arg(long, env = "WEIGHTLIFT_KEEP_REVISIONS", value_name = "N")]
    pub keep_revisions: Option<usize>,

    /// After an update, keep revisions that were replaced no longer ago than this: longer than a pod takes to
    /// start again. A revision is removed if neither this nor --keep-revisions keeps it [default: all are
    /// kept, unless --keep-revisions is given]
    #[arg(long, env = "WEIGHTLIFT_KEEP_FOR", value_name = "DURATION", value_parser = text::parse_duration)]
    pub keep_for: Option<Duration>,

    #[command(flatten)]
    pub permissions: Permissions,

    #[command(flatten)]
    pub source: SourceArgs,

    /// Where SOURCE is a branch, and it cannot be reached or says no while a complete older copy lies
    /// there: use that with a warning, or fail
    #[arg(long, env = "WEIGHTLIFT_IF_STALE", value_enum, value_name = "WHAT", default_value_t = IfStale::Use)]
    pub if_stale: IfStale,

    /// Let DEST become exactly this: replace another model that is published there, and take away files
    /// that were fetched for other --include and --exclude
    #[arg(long, env = "WEIGHTLIFT_REPLACE", action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub replace: bool,

    /// Hash what lies there before it is believed, and fetch again what is damaged
    #[arg(long, env = "WEIGHTLIFT_RECHECK", action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub recheck: bool,

    /// On a volume that can neither exchange, rename nor link: fill the directory file by file
    #[arg(long, env = "WEIGHTLIFT_ALLOW_DEGRADED", action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub allow_degraded: bool,
}

/// Who may read and change what is created.
#[derive(Debug, Args)]
pub struct Permissions {
    /// Permissions that files and directories on the volume do not get, in octal: 0002 lets their group change
    /// them, 0022 read only [default: that of the process; where the group of the root may write, and files in
    /// it get that group, without the bits of the group]
    #[arg(long, env = "WEIGHTLIFT_UMASK", value_name = "MASK", value_parser = umask::parse)]
    pub umask: Option<u32>,
}

/// The end of a whole run.
#[derive(Debug, Args)]
pub struct Deadline {
    /// Stop (exit 23) after this long in all, whatever the run is doing; what has been fetched is kept for the
    /// next run [default: none]
    #[arg(long, env = "WEIGHTLIFT_DEADLINE", value_name = "DURATION", value_parser = parse_deadline)]
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
            (Some(least), Some(most)) if least > most => Err(Error::Usage(format!(
                "--min-rate is {}/s and --bandwidth {}/s, so every run would be too slow; lower --min-rate",
                text::size(least),
                text::size(most)
            ))),
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

fn parse_deadline(text: &str) -> Result<Duration, String> {
    match text::parse_duration(text)? {
        Duration::ZERO => Err("use more than 0s; without the flag there is no deadline".into()),
        time => Ok(time),
    }
}

fn parse_chunk_size(text: &str) -> Result<u64, String> {
    match text::parse_size(text)? {
        size @ 0x10_0000..=0x4000_0000 => Ok(size),
        _ => Err("use 1MiB to 1GiB".into()),
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
