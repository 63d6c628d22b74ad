//! What flags, variables, profiles and KServe say of S3, and which of them counts.
//!
//! A flag comes before its `WEIGHTLIFT_` variable, that before the variables of AWS and the profile,
//! and those before the variables that KServe sets (`S3_ENDPOINT`). What can never work is refused
//! by the name of what says so, and its value, which may be a secret, is not repeated.

use aws_types::os_shim_internal::Env;

use super::endpoint::Endpoint;
use super::env::{Environment, switch, trimmed};
use super::profile::Files;
use crate::net::{BadSetting, SourceError};

const ENDPOINTS: [&str; 2] = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"];
const REGIONS: [&str; 2] = ["AWS_REGION", "AWS_DEFAULT_REGION"];
/// What object stores and SDKs call "do not sign".
const ANONYMOUS: [&str; 3] =
    ["AWS_NO_SIGN_REQUEST", "AWS_SKIP_SIGNATURE", "awsAnonymousCredential"];

/// What the user has said of S3.
#[derive(Clone, Debug, Default)]
pub struct S3Settings {
    /// `--s3-endpoint`.
    pub endpoint: Option<String>,
    /// `--s3-path-style`; without it the endpoint decides.
    pub path_style: Option<bool>,
    /// `--s3-anonymous`.
    pub anonymous: Option<bool>,
    /// Whoever asks pays for it, and says so in every request.
    pub requester_pays: bool,
    /// Each object is asked for its checksum, however many there are.
    pub all_checksums: bool,
}

impl S3Settings {
    /// Whether nobody is to be signed for.
    pub fn is_anonymous(&self, environment: &Environment) -> Result<bool, SourceError> {
        if let Some(said) = self.anonymous {
            return Ok(said);
        }
        match environment.first(&ANONYMOUS) {
            Some((name, text)) => switch(text, name),
            None => Ok(false),
        }
    }

    /// The endpoint that the flag or a variable names.
    pub fn endpoint(&self, environment: &Environment) -> Result<Option<Endpoint>, SourceError> {
        if let Some(text) = self.endpoint.as_deref().map(trimmed).filter(|text| !text.is_empty()) {
            return Endpoint::parse(text, "--s3-endpoint").map(Some);
        }
        if environment.switch("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS")? == Some(true) {
            return Ok(None);
        }
        match environment.first(&ENDPOINTS) {
            Some((name, text)) => Endpoint::parse(text, name).map(Some),
            None => Ok(None),
        }
    }

    /// As [`endpoint`](Self::endpoint), or else the one that the profile or KServe names.
    pub fn any_endpoint(
        &self,
        environment: &Environment,
        files: &Files,
    ) -> Result<Option<Endpoint>, SourceError> {
        if let Some(endpoint) = self.endpoint(environment)? {
            return Ok(Some(endpoint));
        }
        let ignored = match environment.switch("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS")? {
            Some(said) => Some(said),
            None => files
                .get("ignore_configured_endpoint_urls")
                .map(|text| switch(text, "`ignore_configured_endpoint_urls` of the profile"))
                .transpose()?,
        };
        if ignored == Some(true) {
            return Ok(None);
        }
        if let Some(text) = files.endpoint() {
            let named = format!("`endpoint_url` of profile `{}`", files.selected());
            return Endpoint::parse(&text, &named).map(Some);
        }
        kserve_endpoint(environment)
    }

    /// What the user has said about the style of addresses, by the flag or as KServe puts it.
    pub fn path_style(&self, environment: &Environment) -> Result<Option<bool>, SourceError> {
        match self.path_style {
            Some(said) => Ok(Some(said)),
            None => {
                let is_virtual = environment.switch("S3_USER_VIRTUAL_BUCKET")?;
                Ok(is_virtual.filter(|is_virtual| *is_virtual).map(|_| false))
            }
        }
    }
}

/// What is worth a word, for the user to know why something that they have set does nothing.
pub fn warnings(environment: &Environment, endpoint: Option<&Endpoint>) -> Vec<String> {
    let mut warnings = Vec::new();
    let is_https = endpoint.is_none_or(Endpoint::is_https);
    let refuses = environment.get("S3_VERIFY_SSL").is_some_and(|text| {
        // KServe takes everything else for yes.
        matches!(text.to_ascii_lowercase().as_str(), "0" | "false")
    });
    if refuses && is_https {
        warnings.push(
            "S3_VERIFY_SSL=0 is ignored: certificates are always verified; add the authority that signs \
             them with AWS_CA_BUNDLE or SSL_CERT_FILE"
                .into(),
        );
    }
    if endpoint.is_some() && accelerates(environment) {
        warnings.push("S3_USE_ACCELERATE is ignored: the endpoint is not one of AWS".into());
    }
    warnings
}

/// Whether KServe wants the endpoints for transfer acceleration, which AWS has.
pub fn accelerates(environment: &Environment) -> bool {
    environment.get("S3_USE_ACCELERATE").is_some_and(|text| text.eq_ignore_ascii_case("true"))
}

/// The environment for the SDK's part of S3, which is told its endpoint in another way.
pub fn without_endpoints(environment: &Environment) -> Env {
    environment.for_sdk(&ENDPOINTS.map(|name| (name, None)))
}

/// The region that variables or the profile name, and what names it.
pub fn region(
    environment: &Environment,
    files: &Files,
) -> Result<Option<(String, String)>, SourceError> {
    if let Some((name, text)) = environment.first(&REGIONS) {
        return Ok(Some((text.to_owned(), name.to_owned())));
    }
    let named = format!("`region` of profile `{}`", files.selected());
    Ok(files.setting("region")?.map(|text| (text, named)))
}

/// Refuses a region that cannot be one; `named` is what names it.
pub fn check_region(region: &str, named: &str, has_endpoint: bool) -> Result<(), SourceError> {
    let refuse = |why: &str| {
        let setting = BadSetting::new(named, why);
        Err(SourceError::Settings(setting.hint("set AWS_REGION to one such as eu-west-1").into()))
    };
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    if !has_endpoint {
        // It becomes part of a host name that is sent signatures.
        return match region {
            "auto" => {
                let setting = BadSetting::new(named, "is `auto`, which is not an AWS region");
                Err(SourceError::Settings(setting.hint("set an endpoint or a region").into()))
            }
            _ if is_label(region) => Ok(()),
            _ => refuse("is not a region"),
        };
    }
    match region.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/') {
        true => Ok(()),
        false => refuse("is not a region"),
    }
}

/// Refuses what AWS has for its own endpoints only.
pub fn check_variants(
    environment: &Environment,
    files: &Files,
    endpoint: &Endpoint,
) -> Result<(), SourceError> {
    for (variable, key) in [
        ("AWS_USE_FIPS_ENDPOINT", "use_fips_endpoint"),
        ("AWS_USE_DUALSTACK_ENDPOINT", "use_dualstack_endpoint"),
    ] {
        let (text, named) = match (environment.get(variable), files.get(key)) {
            (Some(text), _) => (text, variable.to_owned()),
            (None, Some(text)) => (text, format!("`{key}` of profile `{}`", files.selected())),
            (None, None) => continue,
        };
        if switch(text, &named)? {
            let why = format!("cannot be combined with the endpoint of {}", endpoint.named());
            let setting = BadSetting::new(&named, why).hint("unset one of them");
            return Err(SourceError::Settings(setting.into()));
        }
    }
    Ok(())
}

/// `host:port` without a scheme, which `S3_USE_HTTPS` tells.
fn kserve_endpoint(environment: &Environment) -> Result<Option<Endpoint>, SourceError> {
    let Some(text) = environment.get("S3_ENDPOINT") else {
        return Ok(None);
    };
    if text.contains("://") {
        return Endpoint::parse(text, "S3_ENDPOINT").map(Some);
    }
    let is_https = environment.switch("S3_USE_HTTPS")?.unwrap_or(true);
    let scheme = if is_https { "https" } else { "http" };
    Endpoint::parse(&format!("{scheme}://{text}"), "S3_ENDPOINT").map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        Environment::of(variables.iter().map(|(name, value)| ((*name).into(), (*value).into())))
    }

    #[test]
    fn the_nearest_word_on_an_endpoint_counts() {
        let flag = |text: &str| S3Settings { endpoint: Some(text.into()), ..S3Settings::default() };
        let all = [
            ("AWS_ENDPOINT_URL_S3", "https://s3.example"),
            ("AWS_ENDPOINT_URL", "https://all.example/ "),
        ];
        let chosen = |settings: &S3Settings, variables: &[(&str, &str)]| {
            let found = settings.endpoint(&environment(variables)).expect("usable");
            found.map(|endpoint| endpoint.as_str().to_owned())
        };
        let none = S3Settings::default();
        assert_eq!(chosen(&flag(" http://f\n"), &all).as_deref(), Some("http://f"));
        assert_eq!(chosen(&flag(" "), &all).as_deref(), Some("https://s3.example"));
        assert_eq!(chosen(&none, &all[1..]).as_deref(), Some("https://all.example"));
        let ignore = [all[0], ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "TRUE")];
        assert_eq!(chosen(&none, &ignore), None);
        for (https, expected) in
            [("1", "https://minio:9000"), ("0", "http://minio:9000"), ("", "https://minio:9000")]
        {
            let variables = [("S3_ENDPOINT", "minio:9000"), ("S3_USE_HTTPS", https)];
            let endpoint = kserve_endpoint(&environment(&variables)).expect("usable");
            assert_eq!(endpoint.expect("is there").as_str(), expected);
        }
    }

    #[test]
    fn certificates_are_verified_whatever_kserve_says_and_that_is_said() {
        let said = environment(&[("S3_VERIFY_SSL", "0")]);
        let endpoint = |url| Endpoint::parse(url, "x").expect(url);
        assert!(warnings(&said, Some(&endpoint("http://minio:9000"))).is_empty());
        assert_eq!(warnings(&said, Some(&endpoint("https://minio:9000"))).len(), 1);
        assert!(warnings(&environment(&[("S3_VERIFY_SSL", "1")]), None).is_empty());
    }

    #[test]
    fn a_region_is_checked_before_it_becomes_part_of_a_host() {
        for region in ["eu-west-1", "aws-global", "us-gov-west-1", "local"] {
            assert!(check_region(region, "x", false).is_ok(), "{region}");
        }
        for region in ["a b", "evil.example/", "auto", "-x", "ü"] {
            assert!(check_region(region, "x", false).is_err(), "{region}");
        }
        assert!(check_region("auto", "x", true).is_ok());
        assert!(check_region("my_region.1", "x", true).is_ok());
        assert!(check_region("a/b", "x", true).is_err());
    }
}
