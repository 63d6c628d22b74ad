//! The flags about sources, of every command that reads one: what is taken, how long it is tried, and what
//! cannot be told from an S3 URI.

use std::convert::Infallible;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args, ValueEnum, ValueHint};

use super::help::{FILES, LIMITS, SOURCE, TRANSFER};
use super::rate::parse_bandwidth;
use crate::Error;
use crate::engine::RetryPolicy;
use crate::model::{Message, Selection, text};
use crate::source::{Dragonfly, S3Settings, SourceSettings, XetMode, parse_p2p};

/// A place of --also is listed within this time, or left alone.
const PATIENCE_WITH_A_PLACE: Duration = Duration::from_secs(45);

/// Which files of a source are taken.
#[derive(Clone, Debug, Default, Args)]
pub struct SelectionArgs {
    /// Fetch only files that match
    ///
    /// weightlift takes each file that matches, whatever its format. Patterns work as in
    /// `hf download`: GLOB matches the whole path, and `*` crosses `/`. Repeat the flag, or separate patterns with
    /// commas.
    #[arg(long, env = "WEIGHTLIFT_INCLUDE", value_name = "GLOB", value_delimiter = ',', help_heading = FILES)]
    pub include: Vec<String>,

    /// Leave out files that match
    ///
    /// This comes after --include, and before weightlift looks for duplicates. Repeat the flag, or separate
    /// patterns with commas.
    #[arg(long, env = "WEIGHTLIFT_EXCLUDE", value_name = "GLOB", value_delimiter = ',', help_heading = FILES)]
    pub exclude: Vec<String>,

    /// Fetch also duplicates of the weights, and training state
    ///
    /// A duplicate holds the same weights as a complete safetensors set that is fetched: another format,
    /// `onnx/`, `original/`, … The default leaves duplicates and training state out.
    #[arg(long, env = "WEIGHTLIFT_ALL", help_heading = FILES,
          action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub all: bool,
}

/// Whether files of the Hub are read by the chunks of its Xet store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum XetWhen {
    /// Plain files; chunks where these fail
    Auto,
    /// Chunks; plain files where these fail
    Always,
    /// Plain files only
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
pub struct P2pArg(Result<Dragonfly, Message>);

/// How a source is asked.
#[derive(Debug, Args)]
pub struct SourceArgs {
    /// URL of an S3-compatible service
    ///
    /// weightlift reads also AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, endpoint_url of the profile, and S3_ENDPOINT.
    #[arg(long, env = "WEIGHTLIFT_S3_ENDPOINT", value_name = "URL", value_hint = ValueHint::Url, help_heading = SOURCE)]
    pub s3_endpoint: Option<String>,

    /// Send no credentials to S3
    ///
    /// weightlift reads also AWS_NO_SIGN_REQUEST.
    #[arg(long, env = "WEIGHTLIFT_S3_ANONYMOUS", value_name = "BOOL", num_args = 0..=1,
          require_equals = true, default_missing_value = "true", value_parser = BoolishValueParser::new(),
          hide_short_help = true, help_heading = SOURCE)]
    pub s3_anonymous: Option<bool>,

    /// Address buckets by path, as https://endpoint/bucket
    ///
    /// With `=false` the address is https://bucket.endpoint. The default is the path at an endpoint of your own,
    /// unless that names the bucket already.
    #[arg(long, env = "WEIGHTLIFT_S3_PATH_STYLE", value_name = "BOOL", num_args = 0..=1,
          require_equals = true, default_missing_value = "true", value_parser = BoolishValueParser::new(),
          hide_short_help = true, help_heading = SOURCE)]
    pub s3_path_style: Option<bool>,

    /// Pay for requests and traffic of a requester-pays bucket
    #[arg(long, env = "WEIGHTLIFT_S3_REQUESTER_PAYS", hide_short_help = true, help_heading = SOURCE,
          action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub s3_requester_pays: bool,

    /// Read the Hub's files as Xet chunks: auto, always or never
    ///
    /// An update reads only the chunks that are new, unless this is `never`. The default is `auto`, or `never`
    /// if HF_HUB_DISABLE_XET is true.
    #[arg(long, env = "WEIGHTLIFT_XET", value_enum, value_name = "MODE", hide_short_help = true, help_heading = SOURCE)]
    pub xet: Option<XetWhen>,

    /// Read through the node's Dragonfly daemon
    ///
    /// The cluster then fetches one copy: dragonfly=http://127.0.0.1:4001. This is for files whose SHA-256 is
    /// known; docs/p2p.md has more.
    #[arg(long, env = "WEIGHTLIFT_P2P", value_name = "KIND=URL", value_parser = parse_p2p_arg,
          hide_short_help = true, help_heading = SOURCE)]
    p2p: Option<P2pArg>,

    /// Take up to this in a second: 2Gbit, 250MB, 100MiB
    ///
    /// This limits what all models and connections together take from the network. `mirror` may send as much
    /// again. The default is no limit.
    #[arg(long, env = "WEIGHTLIFT_BANDWIDTH", value_name = "RATE", value_parser = parse_bandwidth, help_heading = TRANSFER)]
    pub bandwidth: Option<u64>,

    /// Replace a connection that is too slow for this long
    ///
    /// Such a connection brings no byte, or far fewer than the others. The least is 1s.
    #[arg(long, env = "WEIGHTLIFT_STALL_TIMEOUT", value_name = "DURATION", default_value = "20s",
          value_parser = parse_stall_timeout, hide_short_help = true, help_heading = TRANSFER)]
    pub stall_timeout: Duration,

    /// Give up after this long without a byte
    ///
    /// This includes all retries.
    #[arg(long, env = "WEIGHTLIFT_RETRY_TIMEOUT", value_name = "DURATION", default_value = "5m",
          value_parser = text::parse_duration, help_heading = LIMITS)]
    pub retry_timeout: Duration,

    /// The first wait between two tries, which doubles with each; for tests, whose servers need no rest
    #[arg(long, env = "WEIGHTLIFT_RETRY_DELAY", value_name = "DURATION", hide = true,
          value_parser = text::parse_duration, help_heading = LIMITS)]
    pub retry_delay: Option<Duration>,
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
        given.clone().map(Some).map_err(|message| Error::Usage(message.after("--p2p: ")))
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

fn parse_stall_timeout(text: &str) -> Result<Duration, Message> {
    match text::parse_duration(text)? {
        time if time >= Duration::from_secs(1) => Ok(time),
        _ => {
            let what = format!("`{}` is too short", text::inert(text, 40));
            Err(Message::new(what).hint("use at least 1s"))
        }
    }
}
