//! Who asks Google Cloud Storage: application default credentials, as Google's own clients find them.
//!
//! The file that `GOOGLE_APPLICATION_CREDENTIALS` names, else that of `gcloud`, else the metadata server, which
//! on GKE is workload identity. Where no metadata server answers, nobody is named: public buckets need nobody.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use object_store::gcp::{GcpCredential, GoogleCloudStorageBuilder};
use reqwest::header::HeaderValue;
use serde::Deserialize;

use super::settings::Settings;
use crate::model::{ErrorFields, text};
use crate::net::{Problem, SourceError};
use crate::source::cloud::{Clients, Connector, Identity, Origin, no_retries};

/// The metadata server answers at once, or is not there; it is asked by its name and by its address.
const METADATA_TIMEOUT: Duration = Duration::from_secs(2);
/// A file of credentials is 2 kB.
const MAX_FILE_BYTES: u64 = 256 << 10;

/// A file of credentials that cannot be used.
#[derive(Debug, thiserror::Error)]
enum FileProblem {
    #[error("{by} names `{path}`, which cannot be read: {why}")]
    Unreadable { by: String, path: String, why: String },
    #[error("`{path}` holds no credentials of Google: {why}")]
    Form { path: String, why: String },
    #[error("`{path}` holds credentials of the type `{kind}`, which weightlift cannot use")]
    Kind { path: String, kind: String },
    #[error("the token for Google Cloud Storage contains blanks or control characters")]
    Unsendable,
}

impl Problem for FileProblem {
    fn fields(&self) -> ErrorFields {
        match self {
            Self::Unreadable { path, .. } | Self::Form { path, .. } => ErrorFields::of_file(path),
            Self::Kind { path, .. } => ErrorFields::of_file(path).hint(
                "use the key of a service account (`service_account`), or on GKE a service account \
                 bound to that of the pod",
            ),
            Self::Unsendable => ErrorFields::default(),
        }
    }
}

#[derive(Deserialize)]
struct Head {
    #[serde(rename = "type")]
    kind: String,
    client_email: Option<String>,
}

/// Who asks for `bucket`.
pub fn identity(
    settings: &Settings,
    bucket: &str,
    clients: &Clients,
) -> Result<Identity<GcpCredential>, SourceError> {
    if settings.is_anonymous {
        return Ok(Identity::of(None));
    }
    let (bucket, clients) = (bucket.to_owned(), clients.clone());
    let builder = move |connector| {
        GoogleCloudStorageBuilder::new()
            .with_bucket_name(bucket.clone())
            .with_retry(no_retries())
            .with_http_connector(connector)
    };
    let Some((path, named_by)) = settings.credentials.clone() else {
        return Ok(Identity::of(Some(Origin {
            by: "as the service account that the metadata server gives".to_owned(),
            make: Box::new(move || {
                let connector = Connector::of_node(clients.clone(), METADATA_TIMEOUT);
                Ok(Arc::clone(builder(connector).build()?.credentials()))
            }),
            may_be_missing: true,
        })));
    };
    let (key, head) = read(&path, &named_by)?;
    let file = shown(&path);
    let by = match (&head.kind[..], &head.client_email) {
        ("service_account", Some(email)) => {
            format!("as `{}` ({named_by})", text::inert(email, 100))
        }
        ("service_account", None) => {
            let why = "it has no `client_email`".to_owned();
            return Err(SourceError::Settings(FileProblem::Form { path: file, why }.into()));
        }
        ("authorized_user", _) => format!("as the user of `{file}` ({named_by})"),
        (kind, _) => {
            let problem = FileProblem::Kind { path: file, kind: text::inert(kind, 40) };
            return Err(SourceError::Settings(problem.into()));
        }
    };
    let path = path.to_string_lossy().into_owned();
    let is_user = head.kind == "authorized_user";
    let make = move || {
        let builder = builder(Connector::new(clients.clone()));
        let builder = match is_user {
            true => builder.with_application_credentials(path.clone()),
            false => builder.with_service_account_key(key.clone()),
        };
        Ok(Arc::clone(builder.build()?.credentials()))
    };
    Ok(Identity::of(Some(Origin { by, make: Box::new(make), may_be_missing: false })))
}

/// What a request carries; no message shows it.
pub fn header(token: &GcpCredential) -> Result<HeaderValue, SourceError> {
    let value = HeaderValue::from_str(&format!("Bearer {}", token.bearer.trim()));
    let mut value = value.map_err(|_| SourceError::Access(FileProblem::Unsendable.into()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// The text of a file of credentials, and what it says of itself.
fn read(path: &Path, by: &str) -> Result<(String, Head), SourceError> {
    let unreadable = |why: String| {
        let (by, path) = (by.to_owned(), shown(path));
        SourceError::Settings(FileProblem::Unreadable { by, path, why }.into())
    };
    let size = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?.len();
    if size > MAX_FILE_BYTES {
        return Err(unreadable(format!("it has {}", text::size(size))));
    }
    let content = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
    match serde_json::from_str(&content) {
        Ok(head) => Ok((content, head)),
        // Where it is wrong, and not what stands there: that is a key.
        Err(error) => {
            let why = format!("line {}, column {}", error.line(), error.column());
            Err(SourceError::Settings(FileProblem::Form { path: shown(path), why }.into()))
        }
    }
}

fn shown(path: &Path) -> String {
    text::inert(&path.to_string_lossy(), 200)
}
