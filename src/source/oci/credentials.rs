//! Who asks a registry: the `auths` of Docker's config, or of a mounted pull secret. Credential helpers are
//! programs, and are not run.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use reqwest::header::HeaderValue;
use serde::{Deserialize, Deserializer};

use super::problem::OciProblem;
use crate::environment;
use crate::model::{OciArtifact, text};
use crate::net::SourceError;

/// No config is longer.
const MAX_CONFIG_BYTES: u64 = 4 << 20;
/// The user that stands for an identity token.
const TOKEN_USER: &str = "<token>";

/// What is known of a registry's credentials. `Debug` shows no secret.
#[derive(Clone, Debug, Default)]
pub struct Login {
    pub credentials: Credentials,
    /// The file that has them; inert.
    pub place: Option<String>,
    /// The credential helper that the file names for this registry in place of credentials; inert.
    pub helper: Option<String>,
}

#[derive(Clone, Default)]
pub enum Credentials {
    #[default]
    Nobody,
    /// The value of an `Authorization` header, marked as sensitive.
    User(HeaderValue),
    /// What the token server exchanges for a token.
    Identity(String),
    /// A token for the registry itself, as a header.
    Token(HeaderValue),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            Self::Nobody => "Nobody",
            Self::User(_) => "User(…)",
            Self::Identity(_) => "Identity(…)",
            Self::Token(_) => "Token(…)",
        })
    }
}

#[derive(Default, Deserialize)]
struct Config {
    #[serde(default, deserialize_with = "or_nothing")]
    auths: BTreeMap<String, Entry>,
    #[serde(default, rename = "credsStore")]
    store: Option<String>,
    #[serde(default, rename = "credHelpers", deserialize_with = "or_nothing")]
    helpers: BTreeMap<String, String>,
}

/// `null` is as good as nothing.
fn or_nothing<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Default, Deserialize)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

impl Login {
    /// What the first file that exists says: `REGISTRY_AUTH_FILE`; in `DOCKER_CONFIG` `config.json`, or what a
    /// mounted pull secret has; `~/.docker/config.json`.
    pub fn find(artifact: &OciArtifact) -> Result<Self, SourceError> {
        if let Some(path) = environment::text("REGISTRY_AUTH_FILE") {
            return match read(Path::new(&path))? {
                Some(config) => Self::of(&config, Path::new(&path), artifact),
                // Whoever names a file wants it to be read.
                None => Err(unreadable(Path::new(&path), ErrorKind::NotFound.into())),
            };
        }
        let named = environment::text("DOCKER_CONFIG").map(PathBuf::from);
        let is_named = named.is_some();
        let home = || environment::text("HOME").map(|home| PathBuf::from(home).join(".docker"));
        let Some(dir) = named.or_else(home) else { return Ok(Self::default()) };
        for name in ["config.json", ".dockerconfigjson", ".dockercfg"] {
            let path = dir.join(name);
            match read(&path) {
                Ok(Some(config)) => return Self::of(&config, &path, artifact),
                Ok(None) => {}
                // Of a home that is another user's nobody has spoken.
                Err(_) if !is_named => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self::default())
    }

    fn of(config: &[u8], path: &Path, artifact: &OciArtifact) -> Result<Self, SourceError> {
        let unusable = |why: String| {
            let path = shown(path);
            SourceError::Access(OciProblem::Config { path, why }.into())
        };
        let is_old = path.file_name().is_some_and(|name| name == ".dockercfg");
        let config = match is_old {
            true => {
                serde_json::from_slice(config).map(|auths| Config { auths, ..Config::default() })
            }
            false => serde_json::from_slice::<Config>(config),
        };
        // What the parser says may repeat what it has read.
        let config = config.map_err(|error| {
            let (line, column) = (error.line(), error.column());
            unusable(format!("is not JSON in Docker's format, at line {line}, column {column}"))
        })?;
        let credentials = match best(&config.auths, artifact) {
            Some((key, entry)) => entry.credentials().map_err(|why| {
                unusable(format!("has unusable credentials for `{}`: {why}", text::inert(key, 100)))
            })?,
            None => Credentials::Nobody,
        };
        let helper =
            best(&config.helpers, artifact).map(|(_, helper)| helper).or(config.store.as_ref());
        let helper = helper.filter(|_| matches!(credentials, Credentials::Nobody));
        let helper = helper.map(|helper| text::inert(helper, 60));
        Ok(Self { credentials, place: Some(shown(path)), helper })
    }
}

impl Entry {
    fn credentials(&self) -> Result<Credentials, &'static str> {
        let [auth, username, password, identity, registry] =
            [&self.auth, &self.username, &self.password, &self.identitytoken, &self.registrytoken]
                .map(|field| field.as_deref().map(str::trim).filter(|field| !field.is_empty()));
        if let Some(token) = registry {
            return bearer(token)
                .map(Credentials::Token)
                .ok_or("the token has unusable characters");
        }
        let decoded = auth.map(|auth| decode(auth).ok_or("`auth` is not user:password in base64"));
        let pair = match (decoded.transpose()?, username, password) {
            (Some(pair), ..) => Some(pair),
            (None, Some(user), Some(password)) => Some((user.to_owned(), password.to_owned())),
            _ => None,
        };
        let identity = identity.map(str::to_owned).or_else(|| {
            pair.as_ref().filter(|(user, _)| user == TOKEN_USER).map(|(_, token)| token.clone())
        });
        if let Some(token) = identity {
            return Ok(Credentials::Identity(token));
        }
        let Some((user, password)) = pair else { return Ok(Credentials::Nobody) };
        let encoded = STANDARD.encode(format!("{user}:{password}"));
        let header = sensitive(&format!("Basic {encoded}"));
        header.map(Credentials::User).ok_or("they have unusable characters")
    }
}

/// A token as the value of an `Authorization` header.
pub fn bearer(token: &str) -> Option<HeaderValue> {
    let is_usable = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    sensitive(&format!("Bearer {token}")).filter(|_| is_usable)
}

fn sensitive(value: &str) -> Option<HeaderValue> {
    let mut header = HeaderValue::from_str(value).ok()?;
    header.set_sensitive(true);
    Some(header)
}

fn decode(auth: &str) -> Option<(String, String)> {
    let config =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let pair = GeneralPurpose::new(&ALPHABET, config).decode(auth).ok()?;
    let pair = String::from_utf8(pair).ok()?;
    let (user, password) = pair.trim_end_matches('\0').split_once(':')?;
    (!user.is_empty()).then(|| (user.to_owned(), password.to_owned()))
}

/// The entry whose key names most of `registry/name`: `host`, `host/org`, `https://host/v1/`.
fn best<'a, T>(
    entries: &'a BTreeMap<String, T>,
    artifact: &OciArtifact,
) -> Option<(&'a String, &'a T)> {
    let whole = format!("{}/{}", artifact.registry, artifact.name);
    let length = |key: &str| {
        let key = normal(key);
        let rest = whole.strip_prefix(key.as_str())?;
        (rest.is_empty() || rest.starts_with('/')).then_some(key.len())
    };
    let matching = entries.iter().filter_map(|entry| Some((length(entry.0)?, entry)));
    matching.max_by_key(|(length, _)| *length).map(|(_, entry)| entry)
}

/// A key of `auths` as `host/path`, without a scheme and the version of an API.
fn normal(key: &str) -> String {
    let key = key.trim();
    let key = key.strip_prefix("https://").or(key.strip_prefix("http://")).unwrap_or(key);
    let key = key.trim_end_matches('/');
    let key = key.strip_suffix("/v1").or(key.strip_suffix("/v2")).unwrap_or(key);
    let (host, path) = key.find('/').map_or((key, ""), |at| key.split_at(at));
    let host = host.to_ascii_lowercase();
    format!("{}{path}", OciArtifact::canonical_registry(&host))
}

/// What is in the file, if there is one.
fn read(path: &Path) -> Result<Option<Vec<u8>>, SourceError> {
    let read = || {
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(MAX_CONFIG_BYTES).read_to_end(&mut bytes)?;
        Ok::<_, std::io::Error>(bytes)
    };
    match read() {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(unreadable(path, error)),
    }
}

fn unreadable(path: &Path, error: std::io::Error) -> SourceError {
    let (path, why) = (shown(path), format!("cannot be read: {error}"));
    SourceError::Access(OciProblem::Config { path, why }.into())
}

fn shown(path: &Path) -> String {
    text::inert(&path.to_string_lossy(), 200)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SourceUri;

    fn artifact(uri: &str) -> OciArtifact {
        match SourceUri::parse(uri) {
            Ok(SourceUri::Oci(artifact)) => artifact,
            other => panic!("{uri}: {other:?}"),
        }
    }

    fn login(config: &str, uri: &str) -> Result<Login, SourceError> {
        Login::of(config.as_bytes(), Path::new("/secret/config.json"), &artifact(uri))
    }

    fn user(login: &Login) -> Option<String> {
        let Credentials::User(header) = &login.credentials else { return None };
        let pair = header.to_str().ok()?.strip_prefix("Basic ")?;
        String::from_utf8(STANDARD.decode(pair).ok()?).ok()
    }

    #[test]
    fn a_registry_is_found_by_every_spelling_of_its_key() {
        let pair = STANDARD.encode("me:word");
        for (key, uri) in [
            ("ghcr.io", "oci://ghcr.io/a/b"),
            ("https://ghcr.io", "oci://ghcr.io/a/b"),
            ("https://ghcr.io/v2/", "oci://ghcr.io/a/b"),
            ("GHCR.io/", "oci://ghcr.io/a/b"),
            ("ghcr.io/a", "oci://ghcr.io/a/b"),
            ("ghcr.io/a/b", "oci://ghcr.io/a/b"),
            ("https://index.docker.io/v1/", "oci://docker.io/a/b"),
            ("docker.io", "oci://docker.io/b"),
            ("registry-1.docker.io", "oci://index.docker.io/b"),
            ("http://registry:5000/v1", "oci://registry:5000/a"),
        ] {
            let found = login(&format!(r#"{{"auths":{{"{key}":{{"auth":"{pair}"}}}}}}"#), uri);
            assert_eq!(user(&found.expect(key)).as_deref(), Some("me:word"), "{key}");
        }
        for (key, uri) in [
            ("ghcr.io", "oci://ghcr.io:5000/a"),
            ("ghcr.io/a", "oci://ghcr.io/ab"),
            ("ghcr.io.example", "oci://ghcr.io/a"),
            ("io", "oci://ghcr.io/a"),
        ] {
            let found = login(&format!(r#"{{"auths":{{"{key}":{{"auth":"{pair}"}}}}}}"#), uri);
            assert!(matches!(found.expect(key).credentials, Credentials::Nobody), "{key}");
        }
    }

    #[test]
    fn the_longest_key_counts() {
        let entry = |user: &str| format!(r#"{{"username":"{user}","password":"p"}}"#);
        let config = format!(
            r#"{{"auths":{{"ghcr.io":{},"ghcr.io/org":{},"ghcr.io/org/team":{}}}}}"#,
            entry("a"),
            entry("b"),
            entry("c")
        );
        for (uri, expected) in [
            ("oci://ghcr.io/x", "a:p"),
            ("oci://ghcr.io/org/x", "b:p"),
            ("oci://ghcr.io/org/team/x", "c:p"),
        ] {
            assert_eq!(user(&login(&config, uri).expect(uri)).as_deref(), Some(expected));
        }
    }

    #[test]
    fn each_kind_of_credentials_is_read_and_none_is_shown() {
        let of = |entry: &str| {
            let config = format!(r#"{{"auths":{{"ghcr.io":{entry}}}}}"#);
            login(&config, "oci://ghcr.io/a").map(|login| (format!("{login:?}"), login.credentials))
        };
        let token = format!(r#"{{"auth":"{}"}}"#, STANDARD.encode("<token>:canary"));
        for (entry, kind) in [
            (r#"{"identitytoken":"canary","auth":"eDp5"}"#, "Identity(…)"),
            (token.as_str(), "Identity(…)"),
            (r#"{"registrytoken":"canary"}"#, "Token(…)"),
            (r#"{"username":"me","password":"canary"}"#, "User(…)"),
            ("{}", "Nobody"),
            (r#"{"auth":""}"#, "Nobody"),
        ] {
            let (shown, credentials) = of(entry).expect(entry);
            assert_eq!(format!("{credentials:?}"), kind, "{entry}");
            assert!(!shown.contains("canary"), "{shown}");
        }
        for entry in
            [r#"{"auth":"canary canary"}"#, r#"{"registrytoken":"can ary"}"#, r#""canary""#]
        {
            let error = of(entry).expect_err(entry).to_string();
            assert!(error.contains("/secret/config.json"), "{error}");
            assert!(!error.contains("ary"), "{error}");
        }
    }

    #[test]
    fn a_helper_is_named_where_it_would_have_the_credentials() {
        let config =
            r#"{"auths":{"ghcr.io":{}},"credsStore":"desktop","credHelpers":{"ghcr.io":"gh"}}"#;
        let helper = |uri: &str| login(config, uri).expect(uri).helper;
        assert_eq!(helper("oci://ghcr.io/a").as_deref(), Some("gh"));
        assert_eq!(helper("oci://quay.io/a").as_deref(), Some("desktop"));
    }
}
