//! A registry of OCI artifacts, with its token server and the blob store that it redirects to.
//!
//! Three ports: `"registry"`, `"auth"` and `"store"` in the log. Knows media types only as the test names
//! them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::blob::Blob;
use crate::http::{Request, Response, Server};
use crate::log::{Log, Logged};
use crate::registry_auth::{Access, Gate};
use crate::script::{Rule, Script};
use crate::text::hex;
use crate::tree::Tree;

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A running registry. Dropping it closes its ports.
pub struct FakeRegistry {
    registry: Server,
    store: Server,
    _auth: Server,
    state: Arc<State>,
    gate: Arc<Gate>,
    script: Script,
    log: Log,
}

#[derive(Default)]
pub struct FakeRegistryBuilder {
    access: Access,
    is_direct: bool,
    requests_per_link: Option<usize>,
    state: State,
}

/// A blob in a manifest.
#[derive(Clone)]
pub struct Layer {
    media_type: String,
    blob: Blob,
    annotations: Vec<(String, String)>,
}

#[derive(Default)]
struct State(Mutex<Held>);

#[derive(Default)]
struct Held {
    /// By `name:tag` and `name@digest`: the type and the bytes.
    manifests: HashMap<String, (String, Vec<u8>)>,
    /// By `name@digest`.
    blobs: HashMap<String, Blob>,
    /// By signature: what is behind a link, and how often it was used.
    links: HashMap<String, (Blob, usize)>,
}

impl Layer {
    pub fn new(media_type: &str, blob: Blob) -> Self {
        Self { media_type: media_type.to_owned(), blob, annotations: Vec::new() }
    }

    /// A file as ModelPack has it.
    pub fn file(path: &str, blob: Blob) -> Self {
        let layer = Self::new("application/vnd.cncf.model.weight.v1.raw", blob);
        layer.annotated("org.cncf.model.filepath", path)
    }

    #[must_use]
    pub fn annotated(mut self, name: &str, value: &str) -> Self {
        self.annotations.push((name.to_owned(), value.to_owned()));
        self
    }

    fn descriptor(&self) -> Value {
        let annotations: HashMap<_, _> = self.annotations.iter().cloned().collect();
        json!({
            "mediaType": self.media_type,
            "digest": format!("sha256:{}", self.blob.sha256()),
            "size": self.blob.len(),
            "annotations": annotations,
        })
    }
}

impl FakeRegistryBuilder {
    #[must_use]
    pub fn access(self, access: Access) -> Self {
        Self { access, ..self }
    }

    /// Sends blobs itself.
    #[must_use]
    pub fn direct(self) -> Self {
        Self { is_direct: true, ..self }
    }

    /// A link to the blob store serves so many requests.
    #[must_use]
    pub fn requests_per_link(self, requests: usize) -> Self {
        Self { requests_per_link: Some(requests), ..self }
    }

    #[must_use]
    pub fn artifact(self, name: &str, tag: &str, layers: &[Layer]) -> Self {
        self.state.push(name, tag, layers);
        self
    }

    /// Each file of the tree is a layer, as ModelPack has it.
    #[must_use]
    pub fn tree(self, name: &str, tag: &str, tree: &Tree) -> Self {
        self.artifact(name, tag, &files(tree))
    }

    /// A manifest of any kind.
    #[must_use]
    pub fn manifest(self, name: &str, tag: &str, media_type: &str, manifest: &Value) -> Self {
        self.state.put(name, tag, media_type, manifest.to_string().into_bytes());
        self
    }

    pub fn start(self) -> FakeRegistry {
        let (script, log, state) = (Script::new(), Log::new(), Arc::new(self.state));
        let gate = Arc::new(Gate::new(self.access));
        let auth = {
            let gate = gate.clone();
            Server::start(script.observed("auth", &log, move |request| gate.answer(request)))
        };
        let store = {
            let (state, most) = (state.clone(), self.requests_per_link);
            let serve = move |request: &Request| state.stored(request, most);
            Server::start(script.observed("store", &log, serve))
        };
        let registry = {
            let (state, gate) = (state.clone(), gate.clone());
            let realm = format!("{}/token", auth.url());
            let redirect_to = (!self.is_direct).then(|| store.url());
            Server::start(script.observed("registry", &log, move |request| {
                match gate.refusal(request, &realm) {
                    Some(refused) => refused,
                    None => state.serve(request, redirect_to.as_deref()),
                }
            }))
        };
        FakeRegistry { registry, store, _auth: auth, state, gate, script, log }
    }
}

fn files(tree: &Tree) -> Vec<Layer> {
    tree.iter().map(|(path, blob)| Layer::file(path, blob.clone())).collect()
}

impl FakeRegistry {
    pub fn builder() -> FakeRegistryBuilder {
        FakeRegistryBuilder::default()
    }

    /// Open to everybody, with one artifact.
    pub fn serving(name: &str, tag: &str, tree: &Tree) -> Self {
        Self::builder().tree(name, tag, tree).start()
    }

    /// `127.0.0.1:PORT`, as the name of a registry in a reference.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.registry.port())
    }

    pub fn store_url(&self) -> String {
        self.store.url()
    }

    /// The digest that a tag stands for.
    ///
    /// # Panics
    /// When there is no such tag.
    pub fn digest(&self, name: &str, tag: &str) -> String {
        let held = self.state.held();
        let (_, body) = held.manifests.get(&format!("{name}:{tag}")).expect("a tag");
        digest_of(body)
    }

    /// Moves a tag, or makes it.
    pub fn push(&self, name: &str, tag: &str, layers: &[Layer]) {
        self.state.push(name, tag, layers);
    }

    /// No token that was handed out is good any more.
    pub fn expire_tokens(&self) {
        self.gate.expire();
    }

    pub fn script(&self, rule: Rule) {
        self.script.add(rule);
    }

    pub fn clear_script(&self) {
        self.script.clear();
    }

    pub fn log(&self) -> &Log {
        &self.log
    }

    pub fn requests(&self) -> Vec<Logged> {
        self.log.requests()
    }
}

impl State {
    fn push(&self, name: &str, tag: &str, layers: &[Layer]) {
        let config = Blob::bytes("{}");
        for blob in layers.iter().map(|layer| &layer.blob).chain([&config]) {
            let key = format!("{name}@sha256:{}", blob.sha256());
            self.held().blobs.insert(key, blob.clone());
        }
        let descriptors: Vec<Value> = layers.iter().map(Layer::descriptor).collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": "application/vnd.cncf.model.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.cncf.model.config.v1+json",
                "digest": format!("sha256:{}", config.sha256()),
                "size": config.len(),
            },
            "layers": descriptors,
        });
        self.put(name, tag, OCI_MANIFEST, manifest.to_string().into_bytes());
    }

    fn put(&self, name: &str, tag: &str, media_type: &str, body: Vec<u8>) {
        let mut held = self.held();
        for key in [format!("{name}:{tag}"), format!("{name}@{}", digest_of(&body))] {
            held.manifests.insert(key, (media_type.to_owned(), body.clone()));
        }
    }

    fn serve(&self, request: &Request, redirect_to: Option<&str>) -> Response {
        let path = request.path.strip_prefix("/v2/").unwrap_or_default();
        if let Some((name, reference)) = path.split_once("/manifests/") {
            let separator = if reference.starts_with("sha256:") { '@' } else { ':' };
            let held = self.held();
            return match held.manifests.get(&format!("{name}{separator}{reference}")) {
                Some((media_type, body)) => Response::new(200)
                    .header("Content-Type", media_type)
                    .header("Docker-Content-Digest", &digest_of(body))
                    .body(body.clone()),
                None => unknown("MANIFEST_UNKNOWN", "manifest unknown"),
            };
        }
        let Some((name, digest)) = path.split_once("/blobs/") else {
            return Response::text(404, "404 page not found");
        };
        let mut held = self.held();
        let Some(blob) = held.blobs.get(&format!("{name}@{digest}")).cloned() else {
            return unknown("BLOB_UNKNOWN", "blob unknown to registry");
        };
        let Some(store) = redirect_to else {
            return Response::blob(request, &blob).header("Docker-Content-Digest", digest);
        };
        let number = held.links.len();
        let signature = hex(&Sha256::digest(format!("signature {number}")));
        let link = format!("{store}/{digest}?X-Amz-Signature={signature}");
        held.links.insert(signature, (blob, 0));
        Response::text(307, "Temporary Redirect").header("Location", &link)
    }

    /// What the blob store answers.
    fn stored(&self, request: &Request, most: Option<usize>) -> Response {
        if request.header("authorization").is_some() {
            return Response::text(400, "Only one auth mechanism allowed");
        }
        let signature = request.query_value("X-Amz-Signature").unwrap_or_default();
        let mut held = self.held();
        match held.links.get_mut(&signature) {
            Some((blob, used)) if most.is_none_or(|most| *used < most) => {
                *used += 1;
                Response::blob(request, blob)
            }
            _ => Response::text(403, "Request has expired"),
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unknown(code: &str, message: &str) -> Response {
    Response::json(404, &json!({"errors": [{"code": code, "message": message}]}))
}

fn digest_of(body: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(body)))
}
