//! A registry of OCI artifacts: models that ModelPack, KitOps, Docker or oras have pushed.
//!
//! A tag is resolved once to the digest of its manifest, which names every layer by its digest: nothing that
//! is read later can be anything else. Blobs are read from the storage behind the registry where it
//! redirects, by links that [`Links`] keeps.
//!
//! Imports `environment`, `model`, `content` and `net`; knows no other source.

mod archive;
mod archive_problem;
mod ask;
mod auth;
mod challenge;
mod credentials;
pub(crate) mod fuzz;
mod inflate;
mod layers;
mod manifest;
mod packed;
mod problem;
mod reads;
mod tar;
mod unpacked;

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use async_trait::async_trait;
use reqwest::{Client, Method};
use url::Url;

use crate::content::{Archives, Body, Source};
use crate::environment;
use crate::model::{Locked, OciArtifact, RemoteFile, Snapshot, SourceUri, text};
use crate::net::http::{self, Http};
use crate::net::{BadSetting, SourceError};
use crate::source::links::Links;
use auth::Auth;
use credentials::Login;
use layers::Layers;
use manifest::{ACCEPT, Artifact, Entry, MAX_MANIFEST_BYTES, Manifest};
use problem::OciProblem;
use unpacked::{Unpacked, Unpacking};

const PLAIN_HTTP: &str = "WEIGHTLIFT_OCI_PLAIN_HTTP";
/// Docker Hub's API, which has not the name of the registry.
const DOCKER_HUB: &str = "https://registry-1.docker.io/";

/// An artifact in a registry.
pub struct Oci {
    artifact: OciArtifact,
    registry: Url,
    auth: Auth,
    http: Http,
    /// It is read beside the source that lists: of its archives nothing could be.
    is_place: bool,
    has_left_out: AtomicBool,
    /// For manifests; the bytes of files go over the callers' clients.
    client: Client,
    /// The digest of the manifest, or of the index, that is meant.
    pinned: OnceLock<String>,
    layers: OnceLock<Layers>,
    links: Links,
    /// How far the archives are unpacked, and what they hold once all are.
    unpacking: tokio::sync::Mutex<Unpacking>,
    unpacked: Mutex<Option<Arc<Unpacked>>>,
    /// Manifests whose bytes were not what their digest says.
    damaged: AtomicU32,
}

/// Where a registry is, and who asks.
#[derive(Clone, Debug)]
pub struct OciSettings {
    registry: Url,
    login: Login,
}

impl OciSettings {
    /// What the environment and Docker's config say of the registry of `artifact`.
    pub fn from_environment(artifact: &OciArtifact) -> Result<Self, SourceError> {
        let plain = environment::text(PLAIN_HTTP).unwrap_or_default();
        let mut settings = Self::anonymous(artifact, &plain)?;
        settings.login = Login::find(artifact)?;
        Ok(settings)
    }

    /// The same with no credentials; `plain` names the registries that are asked without TLS.
    pub fn anonymous(artifact: &OciArtifact, plain: &str) -> Result<Self, SourceError> {
        let registry = &artifact.registry;
        let url = match (artifact.is_on_docker_hub(), is_plain(registry, plain)) {
            (true, _) => DOCKER_HUB.to_owned(),
            (false, true) => format!("http://{registry}/"),
            (false, false) => format!("https://{registry}/"),
        };
        let registry = Url::parse(&url).map_err(|_| {
            let why =
                format!("names the registry `{}`, which is not a host", text::inert(registry, 100));
            SourceError::Settings(BadSetting::new("SOURCE", why).into())
        })?;
        Ok(Self { registry, login: Login::default() })
    }
}

/// Whether a registry is asked without TLS: one on this machine, and those that the user has named.
fn is_plain(registry: &str, named: &str) -> bool {
    let (host, port) = match registry.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port),
        _ => (registry, ""),
    };
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    let is_here = host == "localhost" || address.is_ok_and(|it| it.is_loopback());
    let is_named = named.split(',').map(str::trim).any(|it| {
        it.eq_ignore_ascii_case("true")
            || it == "1"
            || it.eq_ignore_ascii_case(host)
            || it.eq_ignore_ascii_case(registry)
    });
    (is_here && port != "443") || is_named
}

impl Oci {
    /// For the registry of sources: what the environment says.
    pub(super) fn open(
        artifact: &OciArtifact,
        is_place: bool,
        http: &Http,
    ) -> Result<Self, SourceError> {
        let settings = OciSettings::from_environment(artifact)?;
        Ok(Self { is_place, ..Self::new(artifact.clone(), settings, http.clone())? })
    }

    /// The same at the digest that a lock file names.
    pub(super) fn open_at(
        artifact: &OciArtifact,
        locked: &Locked,
        http: &Http,
    ) -> Result<Self, SourceError> {
        let source = Self::open(artifact, false, http)?;
        source.pinned.get_or_init(|| locked.revision.clone());
        Ok(source)
    }

    pub fn new(
        artifact: OciArtifact,
        settings: OciSettings,
        http: Http,
    ) -> Result<Self, SourceError> {
        let pinned = match &artifact.digest {
            Some(digest) => OnceLock::from(digest.clone()),
            None => OnceLock::new(),
        };
        Ok(Self {
            artifact,
            registry: settings.registry,
            auth: Auth::new(settings.login),
            client: http.client()?,
            http,
            is_place: false,
            has_left_out: AtomicBool::new(false),
            pinned,
            layers: OnceLock::new(),
            links: Links::default(),
            unpacking: tokio::sync::Mutex::default(),
            unpacked: Mutex::default(),
            damaged: AtomicU32::new(0),
        })
    }

    async fn pinned(&self) -> Result<&str, SourceError> {
        if let Some(pinned) = self.pinned.get() {
            return Ok(pinned);
        }
        let pinned = self.resolve().await?;
        Ok(self.pinned.get_or_init(|| pinned))
    }

    /// The digest that the tag stands for now. Docker Hub counts what reads a manifest, and not what asks for
    /// its head; some registries tell the digest in neither.
    async fn resolve(&self) -> Result<String, SourceError> {
        let reference = self.artifact.reference();
        let url = self.manifest_url(reference)?;
        let asked = self.ask(&self.client, Method::HEAD, &url, None, Some(ACCEPT)).await?;
        if asked.status().is_success()
            && let Some(digest) = ask::told_digest(asked.headers())
        {
            return Ok(digest);
        }
        drop(asked);
        let (body, told) = self.manifest_body(reference).await?;
        let digest = ask::digest_of(&body);
        match (told, Manifest::parse(&body)) {
            (Some(told), _) if told != digest => Err(self.damaged(digest, told)),
            // What has answered may be no registry.
            (_, Err(why)) => Err(self.no_manifest(why)),
            (_, Ok(_)) => Ok(digest),
        }
    }

    /// What the manifest that is pinned has, through an index if it is one.
    async fn layers(&self) -> Result<&Layers, SourceError> {
        if let Some(layers) = self.layers.get() {
            return Ok(layers);
        }
        let layers = Layers::of(&self.manifest().await?, &self.shown())?;
        Ok(self.layers.get_or_init(|| layers))
    }

    async fn manifest(&self) -> Result<Artifact, SourceError> {
        let pinned = self.pinned().await?;
        let entries = match self.manifest_at(pinned).await? {
            Manifest::Artifact(artifact) => return Ok(artifact),
            Manifest::Index(entries) => entries,
        };
        let chosen = Entry::choose(&entries).map_err(|found| {
            let name = self.shown();
            SourceError::NotFound(OciProblem::Several { name, found }.into())
        })?;
        match self.manifest_at(&manifest::shown(&chosen.sha256)).await? {
            Manifest::Artifact(artifact) => Ok(artifact),
            Manifest::Index(_) => Err(self.unusable_manifest("an index in an index".into())),
        }
    }

    /// The manifest with this digest: its bytes are compared with it.
    async fn manifest_at(&self, digest: &str) -> Result<Manifest, SourceError> {
        let (body, _) = self.manifest_body(digest).await?;
        let found = ask::digest_of(&body);
        if found != digest {
            return Err(self.damaged(found, digest.to_owned()));
        }
        Manifest::parse(&body).map_err(|why| self.unusable_manifest(why))
    }

    async fn manifest_body(
        &self,
        reference: &str,
    ) -> Result<(Vec<u8>, Option<String>), SourceError> {
        let url = self.manifest_url(reference)?;
        let response = self.follow(&self.client, &url, None, Some(ACCEPT)).await?;
        if !response.status().is_success() {
            let name = &self.artifact.name;
            let separator = if reference.starts_with("sha256:") { '@' } else { ':' };
            let asked = format!("`{name}{separator}{reference}`");
            return Err(self.refusal(response, asked).await);
        }
        let told = ask::told_digest(response.headers());
        let body = http::small_body(response, MAX_MANIFEST_BYTES, self.http.deadlines.stall);
        Ok((body.await?, told))
    }

    /// Its bytes are those of its digest: it will never be another.
    fn unusable_manifest(&self, why: String) -> SourceError {
        let (host, name) = (http::origin(&self.registry), self.shown());
        SourceError::Contradiction(OciProblem::Manifest { host, name, why }.into())
    }

    fn no_manifest(&self, why: String) -> SourceError {
        let (host, name) = (http::origin(&self.registry), self.shown());
        SourceError::Protocol(OciProblem::Manifest { host, name, why }.into())
    }

    fn shown(&self) -> String {
        let OciArtifact { registry, name, .. } = &self.artifact;
        format!("{registry}/{name}")
    }
}

#[async_trait]
impl Source for Oci {
    async fn revision(&self) -> Result<String, SourceError> {
        self.pinned().await.map(str::to_owned)
    }

    async fn snapshot(&self) -> Result<Snapshot, SourceError> {
        let pinned = self.pinned().await?.to_owned();
        let layers = self.layers().await?;
        let mut files = layers.files.clone();
        if self.is_place {
            self.has_left_out.store(!layers.packed.is_empty(), Ordering::Relaxed);
        } else if !layers.packed.is_empty() {
            // Where nobody has a directory for the files, they are hashed and not kept.
            let unpacked = match self.all_unpacked() {
                Some(unpacked) => unpacked,
                None => self.unpacked_into(None, &|_| ()).await?,
            };
            files.extend(unpacked.files.iter().cloned());
        }
        let name = SourceUri::Oci(self.artifact.clone()).source_name();
        Ok(Snapshot::new(name, pinned, files, layers.refused.clone()))
    }

    async fn read(
        &self,
        client: &Client,
        file: &RemoteFile,
        range: Range<u64>,
    ) -> Result<Body, SourceError> {
        match self.read_unpacked(file, range.clone())? {
            Some(part) => Ok(part.into()),
            None => self.read_blob(client, file, range).await.map(Body::from),
        }
    }

    fn archives(&self) -> Option<&dyn Archives> {
        Some(self)
    }

    fn warnings(&self) -> Vec<String> {
        let left_out = self.has_left_out.swap(false, Ordering::Relaxed);
        let warning = || {
            format!(
                "the archives of `{}` are left out: with several places, only layers of one file each can be read",
                self.shown()
            )
        };
        left_out.then(warning).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_and_what_the_user_names_is_asked_without_tls() {
        for (registry, named, expected) in [
            ("localhost:5000", "", true),
            ("127.0.0.1:5000", "", true),
            ("127.1.2.3", "", true),
            ("[::1]:5000", "", true),
            ("localhost:443", "", false),
            ("registry:5000", "", false),
            ("localhost.example", "", false),
            ("127.0.0.1.example", "", false),
            ("registry:5000", "other, registry", true),
            ("registry:5000", "registry:5000", true),
            ("registry:5000", "registry:5001", false),
            ("registry:5000", "TRUE", true),
            ("registry:5000", "false", false),
            ("ghcr.io", "", false),
        ] {
            assert_eq!(is_plain(registry, named), expected, "{registry} {named}");
        }
    }
}
