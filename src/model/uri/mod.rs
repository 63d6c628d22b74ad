//! What the user typed as SOURCE.

mod az;
mod forms;
mod gs;
mod hub;
mod meant;
mod modelscope;
mod oci;
mod s3;
#[cfg(test)]
mod tests;
mod web;

use std::fmt;

pub use az::AzLocation;
pub use forms::{FORMS, Form};
pub use gs::GsLocation;
pub use hub::{HubRepo, RepoKind};
pub use modelscope::ModelScopeRepo;
pub use oci::OciArtifact;
pub use s3::S3Location;
pub use web::WebLocation;

use super::{Message, text};
pub(super) use hub::is_commit;

/// `hf://org/name@revision`, `s3://bucket/prefix/`, `gs://bucket/prefix/`, `az://account/container/prefix/`,
/// `oci://registry/name:tag`, `https://host/path/` or
/// `file:///directory`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceUri {
    Hub(HubRepo),
    S3(S3Location),
    Web(WebLocation),
    Oci(OciArtifact),
    Gs(GsLocation),
    Az(AzLocation),
    ModelScope(ModelScopeRepo),
    /// A directory that weightlift has published a model in: an absolute path, as it is.
    Directory(String),
}

/// A SOURCE that cannot be understood. Exit code 2.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("SOURCE `{uri}` {}; {}", refusal.why, self.hint())]
pub struct SourceUriError {
    uri: String,
    refusal: Refusal,
    /// What was probably meant.
    meant: Option<String>,
}

impl SourceUriError {
    /// What the user can do about it, as its sentence ends.
    pub fn hint(&self) -> String {
        match (&self.meant, self.refusal.hint) {
            (Some(uri), _) => format!("did you mean `{uri}`?"),
            (None, Some(hint)) => hint.to_owned(),
            (None, None) => format!("write {}", self.forms()),
        }
    }

    /// The form that its scheme has, or all of them.
    fn forms(&self) -> String {
        let scheme = self.uri.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
        let scheme = scheme.map(|it| if it == "http" { "https".to_owned() } else { it });
        let is_of_it = |form: &&str| form.split_once("://").map(|it| it.0) == scheme.as_deref();
        match WRITTEN.into_iter().find(is_of_it) {
            Some(form) => form.to_owned(),
            None => {
                let (last, others) = WRITTEN.split_last().expect("there are forms");
                format!("{} or {last}", others.join(", "))
            }
        }
    }
}

impl From<SourceUriError> for Message {
    fn from(error: SourceUriError) -> Self {
        Self::new(format!("SOURCE `{}` {}", error.uri, error.refusal.why)).hint(error.hint())
    }
}

/// Why a text is no SOURCE: the words after it, and what to write where the forms do not say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Refusal {
    why: &'static str,
    hint: Option<&'static str>,
}

impl Refusal {
    fn with_hint(why: &'static str, hint: &'static str) -> Self {
        Self { why, hint: Some(hint) }
    }
}

impl From<&'static str> for Refusal {
    fn from(why: &'static str) -> Self {
        Self { why, hint: None }
    }
}

/// How each kind of SOURCE is written, in short; [`FORMS`] has them all.
const WRITTEN: [&str; 8] = [
    "hf://org/name[@revision]",
    "s3://bucket/prefix/",
    "gs://bucket/prefix/",
    "az://account/container/prefix/",
    "oci://registry/name[:tag][@sha256:…]",
    "https://host/path/",
    "ms://org/name[@revision]",
    "file:///directory",
];

/// The schemes that there are.
const SCHEMES: [&str; 9] = ["hf", "s3", "gs", "az", "oci", "ms", "https", "http", "file"];

impl SourceUri {
    pub fn parse(uri: &str) -> Result<Self, SourceUriError> {
        Self::understand(uri).map_err(|refusal| {
            let meant = meant::meant(uri);
            SourceUriError { uri: shown(uri), refusal, meant }
        })
    }

    /// What was typed for one, as a message may show it: no credentials, no query, no control characters.
    pub fn shown(text: &str) -> String {
        shown(text)
    }

    /// A URI, or why it is none.
    fn understand(uri: &str) -> Result<Self, Refusal> {
        if uri.chars().any(text::is_control) {
            return Err("contains control characters".into());
        }
        if uri.trim() != uri {
            return Err("begins or ends with white space".into());
        }
        let (scheme, rest) = uri.split_once("://").ok_or("has no scheme")?;
        let scheme = scheme.to_ascii_lowercase();
        // A key and a path may hold spaces.
        let plain = match scheme.as_str() {
            "s3" | "gs" | "az" | "file" => rest.split('/').next().unwrap_or_default(),
            _ => uri,
        };
        if plain.chars().any(char::is_whitespace) {
            return Err("contains white space".into());
        }
        match scheme.as_str() {
            "hf" => HubRepo::parse(rest).map(Self::Hub),
            "s3" => S3Location::parse(rest).map(Self::S3),
            "gs" => Ok(Self::Gs(GsLocation::parse(rest)?)),
            "az" => Ok(Self::Az(AzLocation::parse(rest)?)),
            "https" if AzLocation::is_url(rest) => AzLocation::parse_url(rest).map(Self::Az),
            "ms" => ModelScopeRepo::parse(rest).map(Self::ModelScope),
            "https" | "http" => WebLocation::parse(uri).map(Self::Web),
            "oci" => Ok(Self::Oci(OciArtifact::parse(rest)?)),
            "file" => Ok(Self::Directory(directory(rest)?)),
            _ => Err("has an unknown scheme".into()),
        }
    }

    /// The URIs in `text`, with commas between them. A comma that no `scheme://` follows is part of a
    /// key.
    pub fn split_list(text: &str) -> impl Iterator<Item = &str> {
        let begins = |rest: &str| {
            let rest = rest.trim_start();
            let scheme = rest.split_once("://").map(|(scheme, _)| scheme);
            let is_scheme =
                |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_alphanumeric());
            scheme.is_some_and(is_scheme) || rest.is_empty()
        };
        let mut rest = Some(text);
        std::iter::from_fn(move || {
            let text = rest?;
            let commas = text.match_indices(',').map(|(at, _)| at);
            let end = commas.into_iter().find(|at| begins(&text[at + 1..]));
            rest = end.map(|at| &text[at + 1..]);
            Some(text[..end.unwrap_or(text.len())].trim())
        })
        .filter(|uri| !uri.is_empty())
    }

    /// The family that is meant when DEST is left out: the last part of the name, lower-case.
    pub fn default_family(&self) -> String {
        let name = match self {
            Self::Web(location) => return location.name().trim().to_lowercase(),
            Self::Hub(repo) => &repo.id,
            Self::ModelScope(repo) => &repo.id,
            Self::S3(location) if location.key.is_empty() => &location.bucket,
            Self::S3(location) => &location.key,
            Self::Oci(artifact) => &artifact.name,
            Self::Gs(location) if location.key.is_empty() => &location.bucket,
            Self::Gs(location) => &location.key,
            Self::Az(location) if location.key.is_empty() => &location.container,
            Self::Az(location) => &location.key,
            Self::Directory(path) => path,
        };
        let name = name.trim_end_matches('/');
        let last = name.rsplit('/').next().unwrap_or(name);
        let last = match self {
            // `arn:aws:s3:eu-west-1:123456789012:accesspoint:name`
            Self::S3(location) if location.key.is_empty() => {
                last.rsplit(':').next().unwrap_or(last)
            }
            _ => last,
        };
        last.trim().to_lowercase()
    }

    /// The part that stays the same when a revision moves on: `hf://org/name`, `s3://bucket/prefix/`,
    /// `oci://registry/name`.
    pub fn source_name(&self) -> String {
        match self {
            Self::Hub(repo) => format!("hf://{}", repo.name()),
            Self::S3(location) => format!("s3://{}/{}", location.bucket, location.key),
            Self::ModelScope(repo) => format!("ms://{}", repo.id),
            Self::Web(location) => location.url.to_string(),
            Self::Oci(artifact) => format!("oci://{}/{}", artifact.registry, artifact.name),
            Self::Gs(location) => location.name(),
            Self::Az(location) => location.name(),
            Self::Directory(path) => format!("file://{path}"),
        }
    }

    /// Whether it is of a model, as far as its name tells: the rules for the weights of a model say nothing of
    /// a dataset.
    pub fn is_model(&self) -> bool {
        !matches!(self, Self::Hub(HubRepo { kind: RepoKind::Dataset | RepoKind::Space, .. }))
    }

    /// The commit or the digest, if the URI names one instead of a branch or a tag, or the digest of a file:
    /// nothing can change what it means.
    pub fn pinned_commit(&self) -> Option<&str> {
        match self {
            Self::Hub(repo) if is_commit(&repo.revision) => Some(&repo.revision),
            Self::ModelScope(repo) if is_commit(&repo.revision) => Some(&repo.revision),
            Self::Web(location) => location.sha256.as_deref(),
            Self::Oci(artifact) => artifact.digest.as_deref(),
            _ => None,
        }
    }
}

impl fmt::Display for SourceUri {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hub(repo) => write!(out, "hf://{}@{}", repo.name(), repo.revision),
            Self::ModelScope(repo) => write!(out, "ms://{}@{}", repo.id, repo.revision),
            Self::Web(location) => location.fmt(out),
            Self::Oci(artifact) => artifact.fmt(out),
            Self::S3(_) | Self::Gs(_) | Self::Az(_) | Self::Directory(_) => {
                out.write_str(&self.source_name())
            }
        }
    }
}

/// A key of a bucket or container, as it becomes the paths of a directory.
fn check_key(key: &str) -> Result<(), &'static str> {
    if key.starts_with('/') || key.contains("//") {
        return Err("has an empty part in its prefix");
    }
    if key.split('/').any(|part| matches!(part, "." | "..")) {
        return Err("has `.` or `..` in its prefix");
    }
    Ok(())
}

/// The absolute path behind `file://`, without a `/` at its end.
fn directory(rest: &str) -> Result<String, &'static str> {
    let path = rest.trim_end_matches('/');
    let Some(parts) = path.strip_prefix('/') else {
        return Err(
            "does not name a directory by its absolute path, as in file:///data/models/name",
        );
    };
    if parts.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err("has an empty part, `.` or `..` in its path");
    }
    Ok(path.to_owned())
}

/// `uri` as a message may show it: no credentials, no query, no control characters.
fn shown(uri: &str) -> String {
    // What a user, a password or a query of a URL are is not known before it is understood.
    if let Some((scheme, rest)) = uri.split_once("://")
        && matches!(scheme.to_ascii_lowercase().as_str(), "https" | "http")
        && rest.contains(['@', '?'])
    {
        return format!("{}://…", scheme.to_ascii_lowercase());
    }
    let uri = uri.split(['?', '#']).next().unwrap_or_default();
    let begin = uri.find("://").map_or(0, |scheme| scheme + 3);
    let without_user = match uri.find('@') {
        Some(at) if at > begin && uri[begin..at].contains(':') => {
            format!("{}…{}", &uri[..begin], &uri[at..])
        }
        _ => uri.to_owned(),
    };
    text::inert(&without_user, 200)
}
