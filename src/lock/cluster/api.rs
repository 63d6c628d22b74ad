//! The three calls that a Lease needs, and the question whether they are allowed, as the service account of the pod.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Client, Method, StatusCode};
use serde::Deserialize;

use super::error::{ClusterError, Refusal};
use super::record::{ApiLease, is_name};
use crate::environment;
use crate::model::text;
use crate::net::http::{Deadlines, Http, small_body};

/// Bound on one request to the API server, its answer included.
const CALL_TAKES_AT_MOST: Duration = Duration::from_secs(4);
/// A Lease has about a kilobyte.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// The API server, and who we are there.
#[derive(Clone)]
pub struct Api {
    http: Http,
    pub(crate) url: String,
    pub(crate) namespace: String,
    token: PathBuf,
}

/// Why a call has not done what was asked.
pub enum Trouble {
    /// Another client has changed the Lease since.
    Conflict,
    NotFound,
    /// No retry will help.
    Refused(Refusal),
    /// The API server does not answer, or is too busy.
    Away(String),
}

impl Api {
    /// What the kubelet tells every pod, and `account`, where it puts the service account.
    pub fn of_this_pod(account: &Path) -> Result<Self, ClusterError> {
        let none = |why: String| ClusterError::NoCluster(why);
        let told = |name| environment::text(name).ok_or_else(|| none(format!("{name} is not set")));
        let (host, port) = (told("KUBERNETES_SERVICE_HOST")?, told("KUBERNETES_SERVICE_PORT")?);
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let url = format!("https://{host}:{port}");
        url::Url::parse(&url)
            .map_err(|_| none("KUBERNETES_SERVICE_HOST is not a host name".into()))?;

        let (token, certificates) = (account.join("token"), account.join("ca.crt"));
        std::fs::metadata(&token).map_err(|error| none(cannot_read(&token, &error)))?;
        let found = rustls_native_certs::load_certs_from_paths(Some(&certificates), None);
        let mut roots = rustls::RootCertStore::empty();
        if roots.add_parsable_certificates(found.certs).0 == 0 {
            return Err(none(format!("`{}` holds no certificate", certificates.display())));
        }
        let deadlines = Deadlines { connect: CALL_TAKES_AT_MOST, ..Deadlines::default() };
        let http = Http::trusting(roots, deadlines).map_err(|error| none(error.to_string()))?;

        let namespace = match environment::text("POD_NAMESPACE") {
            Some(namespace) => namespace,
            None => {
                let path = account.join("namespace");
                std::fs::read_to_string(&path).map_err(|error| none(cannot_read(&path, &error)))?
            }
        };
        let namespace = namespace.trim().to_owned();
        if !is_name(&namespace) {
            return Err(ClusterError::Name(text::inert(&namespace, 100)));
        }
        Ok(Self { http, url, namespace, token })
    }

    /// Connections belong to the runtime that opens them.
    pub fn client(&self) -> Result<Client, Trouble> {
        self.http.direct_client().map_err(|error| not_asked(error.to_string()))
    }

    pub async fn get(&self, client: &Client, name: &str) -> Result<Option<ApiLease>, Trouble> {
        match self.call(client, Method::GET, &format!("/{name}"), None).await {
            Err(Trouble::NotFound) => Ok(None),
            answer => answer.map(Some),
        }
    }

    pub async fn create(&self, client: &Client, lease: &ApiLease) -> Result<ApiLease, Trouble> {
        self.call(client, Method::POST, "", Some(lease)).await
    }

    /// Fails with a conflict unless `lease` has the version that is there.
    pub async fn replace(&self, client: &Client, lease: &ApiLease) -> Result<ApiLease, Trouble> {
        let name = lease.metadata.name.as_deref().unwrap_or_default();
        self.call(client, Method::PUT, &format!("/{name}"), Some(lease)).await
    }

    /// What `verb` on Leases is answered with, as the API server would judge it: nothing if it is allowed, or why
    /// not. `name` is that of the Lease, where only one is meant.
    pub async fn review(
        &self,
        client: &Client,
        verb: &str,
        name: Option<&str>,
    ) -> Result<Option<String>, Trouble> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Review {
            status: Verdict,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Verdict {
            allowed: bool,
            reason: String,
        }
        let mut attributes = serde_json::json!({
            "group": "coordination.k8s.io", "resource": "leases", "namespace": self.namespace,
            "verb": verb,
        });
        if let Some(name) = name {
            attributes["name"] = name.into();
        }
        let body = serde_json::json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        });
        let url = format!("{}/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", self.url);
        let body = self.send(client, Method::POST, url, Some(body.to_string().into())).await?;
        let Review { status } = serde_json::from_slice(&body).map_err(|error| {
            let error = text::inert(&error.to_string(), 200);
            Trouble::Away(format!("the answer is not a SelfSubjectAccessReview: {error}"))
        })?;
        let reason = text::inert(&text::without_secrets(&status.reason), 200);
        Ok((!status.allowed).then_some(reason))
    }

    async fn call(
        &self,
        client: &Client,
        method: Method,
        below: &str,
        lease: Option<&ApiLease>,
    ) -> Result<ApiLease, Trouble> {
        let url = format!(
            "{}/apis/coordination.k8s.io/v1/namespaces/{}/leases{below}",
            self.url, self.namespace
        );
        let body = lease.map(serde_json::to_vec).transpose();
        let body = body.map_err(|error| not_asked(error.to_string()))?;
        let body = self.send(client, method, url, body).await?;
        serde_json::from_slice(&body).map_err(|error| {
            let error = text::inert(&error.to_string(), 200);
            Trouble::Away(format!("the answer is not a Lease: {error}"))
        })
    }

    /// Sends one request; the body of a good answer.
    async fn send(
        &self,
        client: &Client,
        method: Method,
        url: String,
        body: Option<Vec<u8>>,
    ) -> Result<Vec<u8>, Trouble> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, self.bearer()?);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let mut request = client.request(method, url).headers(headers);
        if let Some(body) = body {
            request = request.body(body);
        }
        let answer = tokio::time::timeout(CALL_TAKES_AT_MOST, async {
            let response = request.send().await.map_err(|error| self.away(&error))?;
            let status = response.status();
            let body = small_body(response, MAX_ANSWER_BYTES, CALL_TAKES_AT_MOST).await;
            Ok((status, body.map_err(|error| Trouble::Away(error.to_string()))?))
        });
        let (status, body) = answer.await.unwrap_or_else(|_| {
            let most = text::duration(CALL_TAKES_AT_MOST);
            Err(Trouble::Away(format!("no answer within {most}")))
        })?;
        if status.is_success() { Ok(body) } else { Err(of_status(status, &body)) }
    }

    /// Read each time: the kubelet renews it.
    fn bearer(&self) -> Result<HeaderValue, Trouble> {
        let token = std::fs::read_to_string(&self.token)
            .map_err(|error| not_asked(cannot_read(&self.token, &error)))?;
        let mut value = HeaderValue::from_str(&format!("Bearer {}", token.trim()))
            .map_err(|_| not_asked(format!("`{}` holds no token", self.token.display())))?;
        value.set_sensitive(true);
        Ok(value)
    }

    fn away(&self, error: &reqwest::Error) -> Trouble {
        Trouble::Away(crate::net::http::transport_error(&self.url, error).to_string())
    }
}

fn of_status(status: StatusCode, body: &[u8]) -> Trouble {
    #[derive(Default, Deserialize)]
    struct Status {
        #[serde(default)]
        message: String,
    }
    let told: Status = serde_json::from_slice(body).unwrap_or_default();
    let why = text::inert(&text::without_secrets(&format!("{status}: {}", told.message)), 300);
    match status.as_u16() {
        404 => Trouble::NotFound,
        409 => Trouble::Conflict,
        status @ (400..=403 | 405 | 422) => Trouble::Refused(Refusal { status: Some(status), why }),
        _ => Trouble::Away(why),
    }
}

/// The question could not be asked, and never can be.
fn not_asked(why: String) -> Trouble {
    Trouble::Refused(Refusal { status: None, why })
}

fn cannot_read(path: &Path, error: &std::io::Error) -> String {
    format!("cannot read `{}`: {error}", path.display())
}
