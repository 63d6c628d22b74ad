//! The variables that say how S3 is reached and who asks, cleaned before anybody reads them.
//!
//! A template leaves variables that are set to nothing, and a Secret a line end: the first count as
//! not set, the second is cut off. The SDK is given what is here, never the process's environment.

use std::collections::HashMap;
use std::ffi::OsString;

use aws_types::os_shim_internal::Env;

use crate::environment::{self, Part};
use crate::net::{BadSetting, SourceError};

/// Become part of a signature or of a header, and are in no message.
const SECRETS: [&str; 5] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "SECRET_ACCESS_KEY",
];

const USER_AGENT: &str = "AWS_EXECUTION_ENV";

/// What the variables of S3 say, each of them trimmed and none of them empty.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    values: HashMap<String, Value>,
}

#[derive(Clone)]
struct Value {
    /// `None` if it cannot be used.
    text: Option<String>,
}

impl Environment {
    /// That of the process.
    pub fn read() -> Self {
        Self::of(environment::all(Part::S3))
    }

    pub fn of(variables: impl IntoIterator<Item = (String, OsString)>) -> Self {
        let known = variables.into_iter().filter_map(|(name, value)| {
            let text = match value.into_string() {
                // Nobody can trim it: the SDK reads it in the process's own environment.
                Ok(text) if name == USER_AGENT => Some(text),
                Ok(text) => match trimmed(&text) {
                    "" => return None,
                    text => Some(text.to_owned()),
                },
                Err(_) => None,
            };
            let text = text.filter(|text| is_usable(&name, text));
            // Without a home there are no files at home.
            (text.is_some() || name != "HOME").then_some((name, Value { text }))
        });
        Self { values: known.collect() }
    }

    /// Refuses what cannot be used: settings always, secrets where somebody is to be signed for.
    pub fn check(&self, anonymous: bool) -> Result<(), SourceError> {
        let mut unusable: Vec<&str> = self
            .values
            .iter()
            .filter_map(|(name, value)| value.text.is_none().then_some(name.as_str()))
            .collect();
        unusable.sort_unstable();
        for name in unusable {
            match SECRETS.contains(&name) {
                true if anonymous => {}
                true => return Err(SourceError::Access(bad_secret(name).into())),
                false => return Err(SourceError::Settings(bad_setting(name).into())),
            }
        }
        Ok(())
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name)?.text.as_deref()
    }

    /// The first of `names` that is set, and what it says.
    pub fn first<'a>(&self, names: &[&'a str]) -> Option<(&'a str, &str)> {
        names.iter().find_map(|name| Some((*name, self.get(name)?)))
    }

    /// What a switch says, in the words that people use for it.
    pub fn switch(&self, name: &str) -> Result<Option<bool>, SourceError> {
        self.get(name).map(|text| switch(text, name)).transpose()
    }

    /// As the SDK takes it, with `changes` made: `None` takes a variable away.
    pub fn for_sdk(&self, changes: &[(&str, Option<&str>)]) -> Env {
        let mut variables: HashMap<String, String> = self
            .values
            .iter()
            .filter_map(|(name, value)| Some((name.clone(), value.text.clone()?)))
            .collect();
        for (name, value) in changes {
            match value {
                Some(value) => _ = variables.insert((*name).to_owned(), (*value).to_owned()),
                None => _ = variables.remove(*name),
            }
        }
        Env::from(variables)
    }
}

impl std::fmt::Debug for Value {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("…")
    }
}

/// `true` and `false` in the ways that templates write them; `named` is where it was said.
pub fn switch(text: &str, named: &str) -> Result<bool, SourceError> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" | "t" | "y" => Ok(true),
        "0" | "false" | "no" | "off" | "f" | "n" => Ok(false),
        _ => {
            let why = "is neither `true` nor `false`";
            let setting = BadSetting::new(named, why).hint("write `true` or `false`, or unset it");
            Err(SourceError::Settings(setting.into()))
        }
    }
}

/// `text` without the white space and the mark of UTF-8 that editors and Secrets leave around it.
pub fn trimmed(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}')
}

/// Whether `secret` can be part of a header.
pub fn is_plain(secret: &str) -> bool {
    !secret.is_empty() && secret.bytes().all(|byte| byte.is_ascii_graphic())
}

fn is_usable(name: &str, text: &str) -> bool {
    match name {
        _ if SECRETS.contains(&name) => is_plain(text),
        USER_AGENT => text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '),
        _ => !text.chars().any(char::is_control),
    }
}

fn bad_secret(name: &str) -> BadSetting {
    let why = "contains blanks, control characters or characters that are not ASCII";
    BadSetting::new(name, why).hint("check the Secret")
}

fn bad_setting(name: &str) -> BadSetting {
    BadSetting::new(name, "contains control characters")
        .hint("check its value for line breaks and copied marks")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        Environment::of(variables.iter().map(|(name, value)| ((*name).into(), (*value).into())))
    }

    #[test]
    fn what_is_around_a_value_is_cut_off_and_what_is_empty_is_not_set() {
        let found = environment(&[
            ("AWS_ACCESS_KEY_ID", "\u{feff} AKID\r\n"),
            ("AWS_PROFILE", ""),
            ("AWS_REGION", " \t"),
            ("AWS_DEFAULT_REGION", "eu-west-1\n"),
        ]);
        assert_eq!(found.get("AWS_ACCESS_KEY_ID"), Some("AKID"));
        assert_eq!(found.get("AWS_PROFILE"), None);
        let region = found.first(&["AWS_REGION", "AWS_DEFAULT_REGION"]);
        assert_eq!(region, Some(("AWS_DEFAULT_REGION", "eu-west-1")));
        assert!(found.check(false).is_ok());
        let changes = [("AWS_DEFAULT_REGION", None), ("AWS_PROFILE", Some("p"))];
        let env = found.for_sdk(&changes);
        assert_eq!(env.get("AWS_PROFILE").as_deref(), Ok("p"));
        assert!(env.get("AWS_DEFAULT_REGION").is_err());
    }

    #[test]
    fn what_is_inside_a_value_is_refused_by_the_name_of_the_variable() {
        for name in SECRETS {
            for value in ["AKID\nX", "AK ID", "AKID\u{1}", "AKIDé", "AK\u{feff}ID"] {
                let found = environment(&[(name, value)]);
                let error = found.check(false).expect_err(name);
                assert!(matches!(error, SourceError::Access(_)), "{name}");
                let said = error.to_string();
                assert!(said.starts_with(name) && !said.contains("AK"), "{said}");
                assert!(found.check(true).is_ok(), "{name}");
                assert!(!format!("{found:?}").contains("AK"));
            }
        }
        for name in ["AWS_REGION", "AWS_ENDPOINT_URL_STS", "S3_ENDPOINT", "AWS_PROFILE"] {
            let error = environment(&[(name, "a\u{1b}b")]).check(true).expect_err(name);
            assert!(matches!(error, SourceError::Settings(_)), "{name}");
            assert!(error.to_string().starts_with(name), "{error}");
        }
    }

    #[test]
    fn a_switch_is_read_in_the_ways_that_templates_write_it() {
        for (text, means) in [("1", true), ("True", true), ("0", false), ("FALSE", false)] {
            assert!(matches!(switch(text, "X"), Ok(found) if found == means), "{text}");
        }
        assert!(matches!(switch("maybe", "X"), Err(SourceError::Settings(_))));
    }
}
