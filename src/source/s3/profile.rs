//! The files that name credentials: profiles, and the tokens that a pod is given.
//!
//! The SDK reads them from here: trimmed, without the mark of UTF-8 and without the line end that
//! `echo` and Secrets leave behind.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;

use aws_config::profile::ProfileSet;
use aws_runtime::env_config::EnvConfigValue;
use aws_runtime::env_config::file::EnvConfigFiles;
use aws_types::os_shim_internal::{Env, Fs};

use super::env::{Environment, is_plain, trimmed};
use crate::model::text;
use crate::net::{BadSetting, SourceError};

/// Where the SDK finds what was read.
const CONFIG: &str = "/profiles/config";
const CREDENTIALS: &str = "/profiles/credentials";
const TOKENS: [&str; 2] = ["AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"];

/// What the files say at one moment.
pub struct Files {
    /// The environment with the names that they have in `fs`.
    pub env: Env,
    pub fs: Fs,
    /// Empty where there are none, or where they cannot be understood.
    pub profiles: ProfileSet,
    /// What was named and could not be used. It matters only if no credentials are found elsewhere.
    pub problems: Vec<String>,
}

impl Files {
    /// Reads them as `environment` names them, with `changes` made to it.
    pub async fn read(environment: &Environment, changes: &[(&str, Option<&str>)]) -> Self {
        let mut content = HashMap::new();
        let mut problems = Vec::new();
        let profiles = [
            ("AWS_CONFIG_FILE", ".aws/config", CONFIG),
            ("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials", CREDENTIALS),
        ];
        let mut changes = changes.to_vec();
        for (variable, usual, place) in profiles {
            changes.push((variable, Some(place)));
            match profile_file(environment, variable, usual) {
                Ok(text) => _ = content.insert(OsString::from(place), text.into_bytes()),
                Err(problem) => problems.push(problem),
            }
        }
        let env = environment.for_sdk(&changes);
        let fs = Fs::from_raw_map(content.clone());
        let profiles =
            match aws_config::profile::load(&fs, &env, &EnvConfigFiles::default(), None).await {
                Ok(profiles) => profiles,
                Err(error) => {
                    problems.push(format!("the profiles cannot be read: {error}"));
                    ProfileSet::default()
                }
            };
        for variable in TOKENS {
            if let Some(path) = environment.get(variable) {
                read_token(path, variable, &mut content, &mut problems);
            }
        }
        let of_profiles = profiles.profiles().filter_map(|name| profiles.get_profile(name));
        for path in of_profiles.filter_map(|profile| profile.get("web_identity_token_file")) {
            read_token(path, "web_identity_token_file", &mut content, &mut problems);
        }
        Self { env, fs: Fs::from_raw_map(content), profiles, problems }
    }

    /// A value of the selected profile, if it has one.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.profiles.get(key).map(trimmed).filter(|value| !value.is_empty())
    }

    /// What messages call the selected profile.
    pub fn selected(&self) -> String {
        text::inert(self.profiles.selected_profile(), 60)
    }

    /// `endpoint_url` of the selected profile: that of its `services` for S3, or of all.
    pub fn endpoint(&self) -> Option<String> {
        let wanted = EnvConfigValue::new().profile("endpoint_url").service_id("s3");
        let no_variables = Env::from_slice(&[]);
        let (value, _) = wanted.load(&no_variables, Some(&self.profiles))?;
        Some(trimmed(&value).to_owned()).filter(|value| !value.is_empty())
    }

    /// A value of the selected profile that may hold no control characters.
    pub fn setting(&self, key: &str) -> Result<Option<String>, SourceError> {
        match self.get(key) {
            Some(value) if value.chars().any(char::is_control) => {
                let name = format!("`{key}` of profile `{}`", self.selected());
                let setting = BadSetting::new(&name, "contains control characters")
                    .hint("check the file of profiles");
                Err(SourceError::Settings(setting.into()))
            }
            value => Ok(value.map(str::to_owned)),
        }
    }
}

/// The text of a file of profiles; empty where there is none.
fn profile_file(environment: &Environment, variable: &str, usual: &str) -> Result<String, String> {
    let home = environment.get("HOME").map(PathBuf::from);
    let named = environment.get(variable);
    let path = match (named, home) {
        (Some(path), Some(home)) => match path.strip_prefix("~/") {
            Some(rest) => home.join(rest),
            None => path.into(),
        },
        (Some(path), None) => path.into(),
        (None, Some(home)) => home.join(usual),
        (None, None) => return Ok(String::new()),
    };
    let read = std::fs::read(&path).map(String::from_utf8);
    let shown = text::inert(&path.to_string_lossy(), 200);
    match read {
        Ok(Ok(text)) => Ok(trimmed(&text).replace("\r\n", "\n").replace('\r', "\n") + "\n"),
        Ok(Err(_)) => Err(format!("`{shown}` is not UTF-8")),
        // An optional Secret may be absent.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) if named.is_some() => {
            Err(format!("the file `{shown}` of {variable} cannot be read: {error}"))
        }
        Err(_) => Ok(String::new()),
    }
}

fn read_token(
    path: &str,
    named: &str,
    content: &mut HashMap<OsString, Vec<u8>>,
    problems: &mut Vec<String>,
) {
    let shown = text::inert(path, 200);
    match std::fs::read(path) {
        Ok(bytes) => match std::str::from_utf8(&bytes).map(trimmed) {
            Ok(token) if is_plain(token) => {
                content.insert(path.into(), token.as_bytes().to_vec());
            }
            _ => problems.push(format!(
                "the token file `{shown}` of {named} is empty, or contains blanks or control characters"
            )),
        },
        Err(error) => {
            problems.push(format!("the token file `{shown}` of {named} cannot be read: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(config: &str, variables: &[(&str, &str)]) -> Files {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("config");
        std::fs::write(&path, config).expect("written");
        let mut variables = variables.to_vec();
        let path = path.to_str().expect("UTF-8");
        variables.push(("AWS_CONFIG_FILE", path));
        let named = variables.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(Files::read(&Environment::of(named), &[]))
    }

    #[test]
    fn a_profile_is_read_with_what_editors_leave_in_it() {
        let files = read("\u{feff}[default]\r\nregion = eu-west-1 \r\nendpoint_url =\r\n", &[]);
        assert_eq!(files.get("region"), Some("eu-west-1"));
        assert_eq!(files.endpoint(), None);
        assert_eq!(files.problems, Vec::<String>::new());
    }

    #[test]
    fn the_endpoint_of_a_service_comes_before_that_of_the_profile() {
        let config = "[profile p]\nservices = local\nendpoint_url = https://all.example\n\
                      [services local]\ns3 =\n  endpoint_url = https://s3.example/x\n";
        let files = read(config, &[("AWS_PROFILE", "p")]);
        assert_eq!(files.endpoint().as_deref(), Some("https://s3.example/x"));
        let files = read("[default]\nendpoint_url = https://all.example\n", &[]);
        assert_eq!(files.endpoint().as_deref(), Some("https://all.example"));
    }

    #[test]
    fn what_cannot_be_read_is_said_by_the_name_of_its_variable() {
        let files = read("[default\n", &[("AWS_WEB_IDENTITY_TOKEN_FILE", "/nonexistent/token")]);
        assert_eq!(files.problems.len(), 2, "{:?}", files.problems);
        assert!(files.problems[1].contains("AWS_WEB_IDENTITY_TOKEN_FILE"));
    }
}
