//! The flags about sources, of every command that reads one: what is taken, how long it is tried, and what
//! cannot be told from an S3 URI.

use std::convert::Infallible;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args, ValueEnum};

use super::rate::parse_bandwidth;
use crate::Error;
use crate::engine::RetryPolicy;
use crate::model::{Selection, text};
use crate::source::{Dragonfly, S3Settings, SourceSettings, XetMode, parse_p2p};

/// A place of --also is listed within this time, or left alone.
const PATIENCE_WITH_A_PLACE: Duration = Duration::from_secs(45);

/// Which files of a source are taken.
#[derive(Clone, Debug, Default, Args)]
pub struct SelectionArgs {
    /// Fetch only files that match, and each that does, whatever its format; as `hf download`: the
    /// whole path, `*` crosses `/` [repeatable, or separated by commas]
    #[arg(long, env = "WEIGHTLIFT_INCLUDE", value_name = "GLOB", value_delimiter = ',')]
    pub include: Vec<String>,

    /// Leave out files that match, after --include; what is a duplicate is decided on what is left
    /// [repeatable, or separated by commas]
    #[arg(long, env = "WEIGHTLIFT_EXCLUDE", value_name = "GLOB", value_delimiter = ',')]
    pub exclude: Vec<String>,

    /// Take also what holds the same weights as a complete safetensors set that is fetched (other
    /// formats, `onnx/`, `original/`, …), and training state
    #[arg(long, env = "WEIGHTLIFT_ALL", action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub all: bool,
}

/// Whether files of the Hub are read by the chunks of its Xet store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum XetWhen {
    Auto,
    Always,
    Never,
}

impl From<XetWhen> for XetMode {
    fn from(when: XetWhen) -> Self {
        match when {
            XetWhen::Auto => Self::Auto,
            XetWhen::Always => Self::Always,
            XetWhen::Never => Self::Never,
        }
    }
}

/// What --p2p says, or why it cannot work. A parser of clap's would have it repeated, with its password.
#[derive(Clone, Debug)]
pub struct P2pArg(Result<Dragonfly, String>);

/// How a source is asked.
#[derive(Debug, Args)]
pub struct SourceArgs {
    /// Give up when no byte has arrived for this long, retries included
    #[arg(long, env = "WEIGHTLIFT_RETRY_TIMEOUT", value_name = "DURATION", default_value = "5m",
          value_parser = text::parse_duration)]
    pub retry_timeout: Duration,

    /// The first wait between two tries, which doubles with each; for tests, whose servers need no rest
    #[arg(long, env = "WEIGHTLIFT_RETRY_DELAY", value_name = "DURATION", hide = true,
          value_parser = text::parse_duration)]
    pub retry_delay: Option<Duration>,

    /// Replace a connection that brings nothing, or far less than the others, for this long
    #[arg(long, env = "WEIGHTLIFT_STALL_TIMEOUT", value_name = "DURATION", default_value = "20s",
          value_parser = parse_stall_timeout)]
    pub stall_timeout: Duration,

    /// Take no more than this in a second for all models and connections together: 2Gbit, 250MB, 100MiB. It
    /// limits files from the network; `mirror` may send as much again [default: no limit]
    #[arg(long, env = "WEIGHTLIFT_BANDWIDTH", value_name = "RATE", value_parser = parse_bandwidth)]
    pub bandwidth: Option<u64>,

    /// Read files whose SHA-256 is known through the node's Dragonfly daemon, so that one copy is fetched for
    /// the cluster: dragonfly=http://127.0.0.1:4001 (docs/p2p.md)
    #[arg(long, env = "WEIGHTLIFT_P2P", value_name = "KIND=URL", value_parser = parse_p2p_arg)]
    p2p: Option<P2pArg>,

    /// How large files are read from the Hub: plain, and by the chunks of its Xet store where that fails; first
    /// by chunks; or never by chunks. An update reads only the chunks that are new, unless it is `never`
    /// [default: auto; never where HF_HUB_DISABLE_XET is true]
    #[arg(long, env = "WEIGHTLIFT_XET", value_enum, value_name = "MODE")]
    pub xet: Option<XetWhen>,

    /// URL of an S3-compatible service (also AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, the profile's
    /// endpoint_url, S3_ENDPOINT)
    #[arg(long, env = "WEIGHTLIFT_S3_ENDPOINT", value_name = "URL")]
    pub s3_endpoint: Option<String>,

    /// Address buckets as https://endpoint/bucket, or with `=false` as https://bucket.endpoint [default:
    /// the first at an endpoint of its own, unless that names the bucket already]
    #[arg(long, env = "WEIGHTLIFT_S3_PATH_STYLE", value_name = "BOOL", num_args = 0..=1,
          require_equals = true, default_missing_value = "true", value_parser = BoolishValueParser::new())]
    pub s3_path_style: Option<bool>,

    /// Send no credentials to S3 (also AWS_NO_SIGN_REQUEST)
    #[arg(long, env = "WEIGHTLIFT_S3_ANONYMOUS", value_name = "BOOL", num_args = 0..=1,
          require_equals = true, default_missing_value = "true", value_parser = BoolishValueParser::new())]
    pub s3_anonymous: Option<bool>,

    /// Pay for the requests and the traffic of a bucket whose readers pay
    #[arg(long, env = "WEIGHTLIFT_S3_REQUESTER_PAYS", action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub s3_requester_pays: bool,
}

impl SelectionArgs {
    pub fn selection(&self) -> Selection {
        let patterns = |list: &[String]| list.iter().filter(|p| !p.is_empty()).cloned().collect();
        Selection {
            include: patterns(&self.include),
            exclude: patterns(&self.exclude),
            all: self.all,
        }
    }

    /// The flags that are given.
    pub fn given(&self) -> impl Iterator<Item = &'static str> {
        let flags = [
            ("--include", !self.include.is_empty()),
            ("--exclude", !self.exclude.is_empty()),
            ("--all", self.all),
        ];
        flags.into_iter().filter(|(_, is_given)| *is_given).map(|(flag, _)| flag)
    }
}

impl SourceArgs {
    /// What the flags say about sources. One of several places is not waited for longer than for the
    /// network as a whole.
    pub fn settings(&self, selection: &Selection, all_checksums: bool) -> SourceSettings {
        SourceSettings {
            selection: selection.clone(),
            s3: self.s3(all_checksums),
            xet: self.xet.map(XetMode::from),
            is_place: false,
            patience: self.retry_timeout.min(PATIENCE_WITH_A_PLACE),
        }
    }

    /// The daemon that --p2p names.
    pub fn p2p(&self) -> Result<Option<Dragonfly>, Error> {
        let Some(P2pArg(given)) = &self.p2p else { return Ok(None) };
        given.clone().map(Some).map_err(|why| Error::Usage(format!("--p2p: {why}")))
    }

    pub fn s3(&self, all_checksums: bool) -> S3Settings {
        S3Settings {
            endpoint: self.s3_endpoint.clone(),
            path_style: self.s3_path_style,
            anonymous: self.s3_anonymous,
            requester_pays: self.s3_requester_pays,
            all_checksums,
        }
    }

    pub fn retry(&self) -> RetryPolicy {
        RetryPolicy { budget: self.retry_timeout, ..RetryPolicy::default() }
            .with_first_delay(self.retry_delay)
    }
}

fn parse_p2p_arg(text: &str) -> Result<P2pArg, Infallible> {
    Ok(P2pArg(parse_p2p(text)))
}

fn parse_stall_timeout(text: &str) -> Result<Duration, String> {
    match text::parse_duration(text)? {
        time if time >= Duration::from_secs(1) => Ok(time),
        _ => Err("use at least 1s".into()),
    }
}
