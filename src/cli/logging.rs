//! Standard error: what its lines are, how many there are, and what the terminal can show.

use std::io::IsTerminal;

use clap::builder::BoolishValueParser;
use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Args, ValueEnum};

use super::help::OUTPUT;
use crate::Error;
use crate::environment::{self, Part, VARIABLES};
use crate::model::{Message, text};
use crate::report::{Detail, LogFormat, Screen, Setting, Terminal};

const MAX_VALUE_CHARS: usize = 200;

#[derive(Debug, Args)]
pub struct Logging {
    /// Lines on standard error: text or json
    #[arg(long, global = true, env = "WEIGHTLIFT_LOG_FORMAT", value_enum, value_name = "FORMAT",
          default_value_t = LogKind::Text, help_heading = OUTPUT)]
    pub log_format: LogKind,
    /// Show warnings and errors only
    ///
    /// There are no bars, no progress, and no last line of success.
    #[arg(short, long, global = true, env = "WEIGHTLIFT_QUIET", action = ArgAction::SetTrue,
          value_parser = BoolishValueParser::new(), help_heading = OUTPUT)]
    pub quiet: bool,
    /// Show also settings, lock, requests, complete files and retries
    #[arg(short, long, global = true, env = "WEIGHTLIFT_VERBOSE", action = ArgAction::SetTrue,
          value_parser = BoolishValueParser::new(), help_heading = OUTPUT)]
    pub verbose: bool,
}

impl Logging {
    pub fn screen(&self) -> Screen {
        let detail = match (self.quiet, self.verbose) {
            (true, _) => Detail::Quiet,
            (false, true) => Detail::Verbose,
            (false, false) => Detail::Usual,
        };
        Screen::new(self.log_format.into(), detail, terminal())
    }

    /// A flag outdoes the other one's variable. Two flags, or two variables, are left to [`Self::check`].
    pub fn prefer_flags(&mut self, matches: &ArgMatches) {
        let is_flag = |id| matches.value_source(id) == Some(ValueSource::CommandLine);
        match (is_flag("quiet"), is_flag("verbose")) {
            (true, false) => self.verbose = false,
            (false, true) => self.quiet = false,
            _ => {}
        }
    }

    /// Fails if more and less is asked for at once.
    pub fn check(&self) -> Result<(), Error> {
        match self.quiet && self.verbose {
            true => Err(Error::Usage(Message::new("--quiet and --verbose (or WEIGHTLIFT_QUIET and WEIGHTLIFT_VERBOSE) are both set").hint("leave one of them out"))),
            false => Ok(()),
        }
    }
}

/// What the lines on standard error are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogKind {
    /// Sentences
    Text,
    /// One JSON object a line: time, level, event, message, fields
    Json,
}

impl From<LogKind> for LogFormat {
    fn from(kind: LogKind) -> Self {
        match kind {
            LogKind::Text => Self::Text,
            LogKind::Json => Self::Json,
        }
    }
}

/// Standard error where the flags could not be read, but for what its lines are and how many.
pub fn screen_with(kind: LogKind, is_quiet: bool) -> Screen {
    let detail = if is_quiet { Detail::Quiet } else { Detail::Usual };
    Screen::new(kind.into(), detail, terminal())
}

fn terminal() -> Terminal {
    terminal_of(std::io::stderr().is_terminal(), &environment::text)
}

/// What a standard error with these variables can show.
fn terminal_of(is_terminal: bool, set: &dyn Fn(&str) -> Option<String>) -> Terminal {
    let is_dumb = set("TERM").is_none_or(|it| it == "dumb");
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set).unwrap_or_default();
    let locale = locale.to_ascii_lowercase();
    Terminal {
        has_bars: is_terminal && !is_dumb,
        has_colours: is_terminal && !is_dumb && set("NO_COLOR").is_none(),
        has_unicode: locale.contains("utf-8") || locale.contains("utf8"),
    }
}

/// The flags that somebody has set, with the variable where it was one.
pub fn settings(matches: &ArgMatches, command: &clap::Command) -> Vec<Setting> {
    let flags = command.get_arguments().filter(|argument| !argument.is_positional());
    let setting = |argument: &clap::Arg| {
        let id = argument.get_id().as_str();
        let source = matches.value_source(id)?;
        if source == ValueSource::DefaultValue {
            return None;
        }
        let values = matches.try_get_raw(id).ok()??;
        let values: Vec<String> = values.map(|value| shown(&value.to_string_lossy())).collect();
        let variable = argument.get_env().filter(|_| source == ValueSource::EnvVariable);
        Some(Setting {
            flag: argument.get_long()?.to_owned(),
            value: values.join(","),
            variable: variable.map(|name| name.to_string_lossy().into_owned()),
        })
    };
    flags.filter_map(setting).collect()
}

/// The names of the variables that are set and say what no flag says. Their values may be secrets.
pub fn variables_set() -> Vec<String> {
    let is_set = |name: &&str| environment::text(name).is_some();
    let is_other = |part| !matches!(part, Part::Flags | Part::Terminal | Part::Files);
    let others = VARIABLES.iter().filter(|variable| is_other(variable.part));
    others.map(|variable| variable.name).filter(is_set).map(str::to_owned).collect()
}

/// A value without what could be a secret in it. Numbers, names, paths and patterns are shown; of an address its
/// scheme, host and path; of anything else nothing.
fn shown(value: &str) -> String {
    let parts: Vec<String> = value.split(',').map(shown_part).collect();
    text::inert(&parts.join(","), MAX_VALUE_CHARS)
}

fn shown_part(part: &str) -> String {
    const HIDDEN: &str = "…";
    let is_plain = |text: &str, more: &str| {
        text.chars().all(|c| c.is_alphanumeric() || " ._-/+*?[]!~".contains(c) || more.contains(c))
    };
    let is_socket = part.chars().all(|c| c.is_ascii_hexdigit() || ".:[]".contains(c));
    if is_socket || (is_plain(part, "") && !part.contains("//")) {
        return part.to_owned();
    }
    // `dragonfly=http://127.0.0.1:4001`, `key=/etc/keys/a.pem`
    if let Some((kind, rest)) = part.split_once('=')
        && ["dragonfly", "dragonfly-plain", "key", "certificate"].contains(&kind)
    {
        return format!("{kind}={}", shown_part(rest));
    }
    let Some((scheme, _)) = part.split_once("://") else { return HIDDEN.to_owned() };
    let is_known = scheme.chars().all(|c| c.is_ascii_alphanumeric());
    let url = url::Url::parse(part).ok().filter(|_| is_known && !part.contains('\\'));
    match url {
        Some(url) if url.username().is_empty() && url.password().is_none() => {
            let host = url.host_str().unwrap_or_default();
            let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
            let path = if is_plain(url.path(), "@:") { url.path() } else { HIDDEN };
            let more = if url.query().is_some() || url.fragment().is_some() { HIDDEN } else { "" };
            format!("{scheme}://{host}{port}{path}{more}")
        }
        Some(_) => format!("{scheme}://{HIDDEN}"),
        None => HIDDEN.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_can_show_is_told_by_variables() {
        let all = |has_bars, has_colours, has_unicode| (has_bars, has_colours, has_unicode);
        for (is_terminal, variables, expected) in [
            (true, &[("TERM", "xterm"), ("LANG", "de_DE.UTF-8")][..], all(true, true, true)),
            (
                true,
                &[("TERM", "xterm"), ("LC_ALL", "C"), ("LANG", "de_DE.utf8")],
                all(true, true, false),
            ),
            (
                true,
                &[("TERM", "xterm"), ("LC_CTYPE", "C.UTF-8"), ("NO_COLOR", "1")],
                all(true, false, true),
            ),
            (true, &[("TERM", "dumb"), ("LANG", "C")], all(false, false, false)),
            (true, &[], all(false, false, false)),
            (false, &[("TERM", "xterm"), ("LANG", "C.UTF-8")], all(false, false, true)),
        ] {
            let set = |name: &str| {
                variables.iter().find(|(it, _)| *it == name).map(|(_, value)| (*value).to_owned())
            };
            let Terminal { has_bars, has_colours, has_unicode } = terminal_of(is_terminal, &set);
            assert_eq!((has_bars, has_colours, has_unicode), expected, "{variables:?}");
        }
    }

    #[test]
    fn a_setting_shows_no_secret() {
        for (value, expected) in [
            ("8", "8"),
            ("16MiB", "16MiB"),
            ("/data/models", "/data/models"),
            ("*.safetensors,*.json", "*.safetensors,*.json"),
            (":9464", ":9464"),
            ("[::1]:9464", "[::1]:9464"),
            ("hf://org/name@main", "hf://org/name@main"),
            ("s3://bucket/a@b/", "s3://bucket/a@b/"),
            ("http://minio.example:9000", "http://minio.example:9000/"),
            ("dragonfly=http://127.0.0.1:4001", "dragonfly=http://127.0.0.1:4001/"),
            ("key=/etc/keys/a.pem", "key=/etc/keys/a.pem"),
            ("https://user:sekrit@host:8080/a", "https://…"),
            ("https://user:se@krit@host:8080/a", "https://…"),
            ("https://host/c/?sv=1&sig=sekrit", "https://host/c/…"),
            ("https://host/c/#sekrit", "https://host/c/…"),
            ("s3://b/p/,https://u:sekrit@h.invalid/", "s3://b/p/,https://…"),
            ("dragonfly=http://u:sekrit/x@127.0.0.1:1", "dragonfly=…"),
            ("https://u:sekrit?y@host/p/", "…"),
            ("u:sekrit@host:9000", "…"),
            ("http:\\\\u:sekrit@host", "…"),
            ("az://acct/c/p/;sig=sekrit", "az://acct…"),
            ("//u:sekrit@host/", "…"),
            ("user\u{1b}[2J", "…"),
        ] {
            assert!(!shown(value).contains("sekrit"), "{value}");
            assert_eq!(shown(value), expected);
        }
    }
}
