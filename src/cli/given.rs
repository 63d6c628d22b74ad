//! The flags that say how a mistake is told, from a command line that could not be parsed.

use std::ffi::{OsStr, OsString};

use clap::{CommandFactory, ValueEnum};

use super::Cli;
use crate::environment;

/// What was given on a command line, mistakes and all.
pub struct Given<'a>(&'a [OsString]);

impl<'a> Given<'a> {
    /// The program's name is the first of `arguments`.
    pub fn of(arguments: &'a [OsString]) -> Self {
        let flags = arguments.get(1..).unwrap_or_default();
        let end = flags.iter().position(|argument| argument == "--").unwrap_or(flags.len());
        Self(&flags[..end])
    }

    /// The command, if one is named.
    pub fn command(&self) -> Option<&'a str> {
        let named = self.0.iter().filter_map(|argument| argument.to_str());
        let program = Cli::command();
        named.into_iter().find(|name| program.find_subcommand(name).is_some())
    }

    /// One of the values that the flag `--name`, or else its variable, may have.
    pub fn choice<T: ValueEnum>(&self, name: &str) -> Option<T> {
        let parsed = |text: String| T::from_str(&text, false).ok();
        let flag = self.flag(&format!("--{name}")).map(str::to_owned);
        flag.and_then(parsed).or_else(|| self.variable(name).and_then(parsed))
    }

    /// What the flag `--name`, or else its variable, says.
    pub fn text(&self, name: &str) -> Option<String> {
        self.flag(&format!("--{name}")).map(str::to_owned).or_else(|| self.variable(name))
    }

    /// Whether `--quiet`, or its variable, is there.
    pub fn is_quiet(&self) -> bool {
        let is_it = |argument: &OsString| {
            let argument = argument.to_str().unwrap_or_default();
            let short = argument.strip_prefix('-').unwrap_or_default();
            argument == "--quiet"
                || short.contains('q') && short.chars().all(|flag| matches!(flag, 'q' | 'v'))
        };
        let is_yes = |text: String| {
            ["1", "true", "t", "yes", "y", "on"].contains(&&*text.to_ascii_lowercase())
        };
        self.0.iter().any(is_it) || self.variable("quiet").is_some_and(is_yes)
    }

    fn variable(&self, name: &str) -> Option<String> {
        environment::text(&format!("WEIGHTLIFT_{}", name.replace('-', "_").to_uppercase()))
    }

    fn flag(&self, flag: &str) -> Option<&'a str> {
        let given = self.0;
        // The last one counts.
        given.iter().enumerate().rev().find_map(|(n, argument)| {
            match argument.to_str()?.strip_prefix(flag)? {
                "" => given.get(n + 1).and_then(|next| OsStr::to_str(next)),
                more => more.strip_prefix('='),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quiet_is_a_flag_of_either_length_also_among_others() {
        for (line, expected) in [
            ("weightlift fetch -q", true),
            ("weightlift --quiet fetch", true),
            ("weightlift fetch -vq", true),
            ("weightlift fetch --unquiet", false),
            ("weightlift fetch -v -fq", false),
            ("weightlift fetch -- -q", false),
        ] {
            let arguments: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            assert_eq!(Given::of(&arguments).is_quiet(), expected, "{line}");
        }
    }

    #[test]
    fn a_flag_is_read_in_both_forms_and_before_the_end_of_flags() {
        let found = |line: &str| {
            let arguments: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            Given::of(&arguments).flag("--output").map(str::to_owned)
        };
        for (line, expected) in [
            ("weightlift fetch --nonsense --output json", Some("json")),
            ("weightlift --output=json fetch", Some("json")),
            ("weightlift --output=text fetch --output json", Some("json")),
            ("weightlift fetch --output", None),
            ("weightlift fetch --outputs json", None),
            ("weightlift fetch -- --output json", None),
            ("--output=json fetch", None),
        ] {
            assert_eq!(found(line).as_deref(), expected, "{line}");
        }
    }
}
