//! ModelScope, as its own client asks it, and on a second port the storage that it redirects to.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use crate::blob::Blob;
use crate::http::{Request, Response, Server};
use crate::log::{Log, Logged};
use crate::script::{Rule, Script};
use crate::text::percent_encode;
use crate::tree::Tree;

/// A running server; dropping it closes its ports.
pub struct FakeModelScope {
    state: Arc<State>,
    server: Server,
    _storage: Server,
    log: Log,
    script: Script,
}

/// How a server is set up.
pub struct FakeModelScopeBuilder {
    state: State,
}

struct State {
    models: Mutex<BTreeMap<String, BTreeMap<String, Tree>>>,
    token: Option<String>,
    /// Entries after which a listing is cut off, without a word.
    cut_at: usize,
    /// Files of this size and larger lie in the storage; the others are answered whole, whatever the range.
    lfs_bytes: u64,
    storage_url: String,
}

impl FakeModelScopeBuilder {
    /// Adds a model whose `master` holds `tree`.
    #[must_use]
    pub fn model(self, id: &str, tree: Tree) -> Self {
        self.revision(id, "master", tree)
    }

    /// Adds another branch, tag or commit.
    #[must_use]
    pub fn revision(self, id: &str, revision: &str, tree: Tree) -> Self {
        self.state.models().entry(id.to_owned()).or_default().insert(revision.to_owned(), tree);
        self
    }

    /// Who does not send it sees nothing.
    #[must_use]
    pub fn token(mut self, token: &str) -> Self {
        self.state.token = Some(token.to_owned());
        self
    }

    /// Entries after which a listing is cut off; 3,000 unless told otherwise.
    #[must_use]
    pub fn cut_at(mut self, entries: usize) -> Self {
        self.state.cut_at = entries;
        self
    }

    /// Files from this size on lie in the storage; 1 MiB unless told otherwise.
    #[must_use]
    pub fn lfs_threshold(mut self, bytes: u64) -> Self {
        self.state.lfs_bytes = bytes;
        self
    }

    /// # Panics
    /// When there is no free port.
    pub fn start(mut self) -> FakeModelScope {
        let (log, script) = (Log::new(), Script::new());
        let files: BTreeMap<String, Blob> = {
            let models = self.state.models();
            let trees = models.values().flat_map(BTreeMap::values);
            let blobs = trees.flat_map(Tree::iter).map(|(_, blob)| (blob.sha256(), blob.clone()));
            blobs.collect()
        };
        let storage = Server::start(script.observed("storage", &log, move |request| {
            if request.header("authorization").or(request.header("cookie")).is_some() {
                return Response::text(400, "only one way to log in is allowed");
            }
            match files.get(request.path.trim_start_matches("/lfs/")) {
                Some(blob) => Response::blob(request, blob).header("ETag", "\"of the storage\""),
                None => Response::text(404, "no such key"),
            }
        }));
        self.state.storage_url = storage.url();
        let state = Arc::new(self.state);
        let server = Server::start({
            let state = Arc::clone(&state);
            script.observed("modelscope", &log, move |request| state.answer(request))
        });
        FakeModelScope { state, server, _storage: storage, log, script }
    }
}

impl FakeModelScope {
    pub fn builder() -> FakeModelScopeBuilder {
        let state = State {
            models: Mutex::default(),
            token: None,
            cut_at: 3_000,
            lfs_bytes: 1 << 20,
            storage_url: String::new(),
        };
        FakeModelScopeBuilder { state }
    }

    /// What `MODELSCOPE_ENDPOINT` has to be.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Lets `master` hold `tree`, whose large files have to be there already.
    pub fn move_master(&self, id: &str, tree: Tree) {
        self.state.models().entry(id.to_owned()).or_default().insert("master".to_owned(), tree);
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

    /// See [`Log::count`].
    pub fn count(&self, method: &str, substring: &str) -> usize {
        self.log.count(method, substring)
    }
}

impl State {
    fn models(&self) -> MutexGuard<'_, BTreeMap<String, BTreeMap<String, Tree>>> {
        self.models.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, request: &Request) -> Response {
        let segments = request.segments();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let ["api", "v1", "models", owner, name, "repo", rest @ ..] = segments.as_slice() else {
            return refusal(404, "page not found");
        };
        if let Some(token) = &self.token {
            let cookie = request.header("cookie") == Some(&format!("m_session_id={token}"));
            if !cookie || request.header("authorization") != Some(&format!("Bearer {token}")) {
                return refusal(403, "access denied");
            }
        }
        let revision = request.query_value("Revision").unwrap_or_else(|| "master".to_owned());
        let models = self.models();
        let Some(model) = models.get(&format!("{owner}/{name}")) else {
            return refusal(404, "record not found");
        };
        // As it does: a success that is none.
        let Some(tree) = model.get(&revision) else {
            let answer =
                json!({"Code": 10_010_205_001_u64, "Success": false, "Message": "no revision"});
            return Response::json(200, &answer);
        };
        match rest {
            ["files"] => self.list(request, tree),
            [] => self.file(request, tree),
            _ => refusal(404, "page not found"),
        }
    }

    fn list(&self, request: &Request, tree: &Tree) -> Response {
        let root = request.query_value("Root").unwrap_or_default();
        let is_recursive = request.query_value("Recursive").is_some_and(|it| it == "True");
        let prefix = if root.is_empty() { String::new() } else { format!("{root}/") };
        let mut entries: BTreeMap<String, Value> = BTreeMap::new();
        for (path, blob) in tree.iter() {
            let Some(below) = path.strip_prefix(&prefix) else { continue };
            for (at, _) in below.match_indices('/') {
                if is_recursive || !below[..at].contains('/') {
                    let path = format!("{prefix}{}", &below[..at]);
                    entries.insert(path.clone(), json!({"Path": path, "Type": "tree", "Size": 0}));
                }
            }
            if is_recursive || !below.contains('/') {
                let name = path.rsplit('/').next();
                let entry = json!({
                    "Path": path, "Name": name, "Type": "blob", "Size": blob.len(),
                    "Sha256": blob.sha256(), "IsLFS": blob.len() >= self.lfs_bytes,
                    "Revision": "0123456789012345678901234567890123456789", "Mode": "33188",
                });
                entries.insert(path.to_owned(), entry);
            }
        }
        let files: Vec<Value> = entries.into_values().take(self.cut_at).collect();
        let data = json!({"Files": files, "LatestCommitter": {"Name": "somebody"}});
        Response::json(
            200,
            &json!({"Code": 200, "Success": true, "Message": "success", "Data": data}),
        )
    }

    fn file(&self, request: &Request, tree: &Tree) -> Response {
        let path = request.query_value("FilePath").unwrap_or_default();
        let Some(blob) = tree.blob(&path) else {
            return refusal(404, "no such file");
        };
        if blob.len() >= self.lfs_bytes {
            let path = percent_encode(&path, "/");
            let location =
                format!("{}/lfs/{}?Signature=s&path={path}", self.storage_url, blob.sha256());
            return Response::text(302, "Found").header("Location", &location);
        }
        let whole = Request { headers: Vec::new(), ..request.clone() };
        Response::blob(&whole, blob)
    }
}

fn refusal(status: u16, message: &str) -> Response {
    let code = status;
    Response::json(status, &json!({"Code": code, "Success": false, "Message": message}))
}
