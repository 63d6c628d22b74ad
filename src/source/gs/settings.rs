//! Where Google Cloud Storage is, and who is to ask it, as variables say.

use std::path::PathBuf;

use reqwest::header::HeaderValue;
use url::Url;

use crate::environment;
use crate::net::{BadSetting, SourceError, http};

const USUAL: &str = "https://storage.googleapis.com";
const EMULATOR: &str = "STORAGE_EMULATOR_HOST";
const OVERRIDE: &str = "CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE";
const QUOTA_PROJECT: &str = "GOOGLE_CLOUD_QUOTA_PROJECT";
const CREDENTIALS: &str = "GOOGLE_APPLICATION_CREDENTIALS";

#[derive(Clone, Debug)]
pub struct Settings {
    pub endpoint: Url,
    /// Nobody is named: an emulator knows no credentials, and is sent none.
    pub is_anonymous: bool,
    pub paying_project: Option<HeaderValue>,
    /// The file of credentials, and what names it.
    pub credentials: Option<(PathBuf, String)>,
}

impl Settings {
    pub fn read() -> Result<Self, SourceError> {
        let (endpoint, is_emulator) =
            match (environment::text(EMULATOR), environment::text(OVERRIDE)) {
                (Some(host), _) => (emulator(&host)?, true),
                (None, Some(url)) => (overridden(&url)?, false),
                (None, None) => (http::endpoint(USUAL, "")?, false),
            };
        let is_skipped = environment::text("GOOGLE_SKIP_SIGNATURE")
            .is_some_and(|it| it == "1" || it.eq_ignore_ascii_case("true"));
        let paying_project = environment::text(QUOTA_PROJECT).map(|project| {
            HeaderValue::from_str(&project)
                .map_err(|_| bad(QUOTA_PROJECT, "is not the name of a project"))
        });
        Ok(Self {
            endpoint,
            is_anonymous: is_emulator || is_skipped,
            paying_project: paying_project.transpose()?,
            credentials: credentials_file(),
        })
    }
}

impl Settings {
    /// Those for an emulator.
    pub fn of_emulator(host: &str) -> Result<Self, SourceError> {
        let endpoint = emulator(host)?;
        Ok(Self { endpoint, is_anonymous: true, paying_project: None, credentials: None })
    }
}

fn bad(name: &str, why: &str) -> SourceError {
    SourceError::Settings(BadSetting::new(name, why).into())
}

/// Google's own clients take `localhost:9023` as well as a URL.
fn emulator(host: &str) -> Result<Url, SourceError> {
    let url = if host.contains("://") { host.to_owned() } else { format!("http://{host}") };
    http::endpoint(&url, EMULATOR)
}

/// `gcloud` is told with the path of the API, or without.
fn overridden(url: &str) -> Result<Url, SourceError> {
    let url = url.trim_end_matches('/');
    http::endpoint(url.strip_suffix("/storage/v1").unwrap_or(url), OVERRIDE)
}

/// The file that is named, or that `gcloud auth application-default login` has written.
fn credentials_file() -> Option<(PathBuf, String)> {
    if let Some(path) = environment::text(CREDENTIALS) {
        return Some((path.into(), CREDENTIALS.to_owned()));
    }
    let dir = environment::text("CLOUDSDK_CONFIG").map(PathBuf::from);
    let dir =
        dir.or_else(|| Some(PathBuf::from(environment::text("HOME")?).join(".config/gcloud")))?;
    let path = dir.join("application_default_credentials.json");
    path.exists().then(|| (path, "the credentials of gcloud".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_as_the_field_writes_them() {
        let shown = |url: Result<Url, SourceError>| url.map(|url| url.to_string()).ok();
        assert_eq!(shown(emulator("localhost:9023")).as_deref(), Some("http://localhost:9023/"));
        assert_eq!(shown(emulator("http://gcs:4443")).as_deref(), Some("http://gcs:4443/"));
        assert_eq!(shown(emulator("ftp://x")), None);
        for url in
            ["https://gcs-psc.p.googleapis.com/storage/v1/", "https://gcs-psc.p.googleapis.com"]
        {
            assert_eq!(
                shown(overridden(url)).as_deref(),
                Some("https://gcs-psc.p.googleapis.com/")
            );
        }
        let secret = emulator("http://user:hunter2@host").expect_err("a secret").to_string();
        assert!(!secret.contains("hunter2"), "{secret}");
    }
}
