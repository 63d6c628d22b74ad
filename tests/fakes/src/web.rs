//! A static web server: files by their paths, with ranges, entity tags and, if told, a login.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::blob::Blob;
use crate::http::{Request, Response, Server};
use crate::log::{Log, Logged};
use crate::script::{Rule, Script};
use crate::text::percent_decode;
use crate::tree::Tree;

/// A running server; dropping it closes its port.
pub struct FakeWeb {
    state: Arc<State>,
    server: Server,
    log: Log,
    script: Script,
}

/// How a server is set up.
#[derive(Default)]
pub struct FakeWebBuilder {
    files: BTreeMap<String, Blob>,
    rules: Rules,
}

/// In what it is not the usual one.
#[derive(Clone, Default)]
struct Rules {
    /// The only one who is let in, as `user:password`.
    user: Option<String>,
    without_head: bool,
    without_etags: bool,
    /// Everything but the lists is redirected to the same path there.
    files_at: Option<String>,
}

struct State {
    files: Mutex<BTreeMap<String, Blob>>,
    rules: Rules,
}

impl FakeWebBuilder {
    /// Adds a file; `path` has no slash before it.
    #[must_use]
    pub fn file(mut self, path: &str, blob: Blob) -> Self {
        self.files.insert(path.to_owned(), blob);
        self
    }

    /// Adds all files of `tree` below `directory`, and there the output of `sha256sum` for them.
    #[must_use]
    pub fn with_sums(mut self, directory: &str, tree: &Tree) -> Self {
        let line = |(path, blob): (&str, &Blob)| format!("{}  {path}\n", blob.sha256());
        let sums: String = tree.iter().map(line).collect();
        self = tree
            .iter()
            .fold(self, |web, (path, blob)| web.file(&format!("{directory}/{path}"), blob.clone()));
        self.file(&format!("{directory}/SHA256SUMS"), Blob::bytes(sums))
    }

    /// The only one who is let in, as `user:password`.
    #[must_use]
    pub fn user(mut self, user: &str) -> Self {
        self.rules.user = Some(user.to_owned());
        self
    }

    /// Answers 405 to HEAD.
    #[must_use]
    pub fn without_head(mut self) -> Self {
        self.rules.without_head = true;
        self
    }

    #[must_use]
    pub fn without_etags(mut self) -> Self {
        self.rules.without_etags = true;
        self
    }

    /// Redirects whatever is no list to the same path below `url`.
    #[must_use]
    pub fn files_at(mut self, url: &str) -> Self {
        self.rules.files_at = Some(url.trim_end_matches('/').to_owned());
        self
    }

    /// # Panics
    /// When there is no free port.
    pub fn start(self) -> FakeWeb {
        let (log, script) = (Log::new(), Script::new());
        let state = Arc::new(State { files: Mutex::new(self.files), rules: self.rules });
        let server = Server::start({
            let state = Arc::clone(&state);
            script.observed("web", &log, move |request| state.answer(request))
        });
        FakeWeb { state, server, log, script }
    }
}

impl FakeWeb {
    pub fn builder() -> FakeWebBuilder {
        FakeWebBuilder::default()
    }

    /// `http://127.0.0.1:PORT`, no slash at the end.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Puts a file there, or another one in its place.
    pub fn put(&self, path: &str, blob: Blob) {
        self.state.files().insert(path.to_owned(), blob);
    }

    pub fn remove(&self, path: &str) {
        self.state.files().remove(path);
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
    fn files(&self) -> MutexGuard<'_, BTreeMap<String, Blob>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, request: &Request) -> Response {
        if let Some(user) = &self.rules.user
            && request.header("authorization") != Some(&format!("Basic {}", STANDARD.encode(user)))
        {
            return Response::text(401, "who asks?")
                .header("WWW-Authenticate", "Basic realm=\"models\"");
        }
        match request.method.as_str() {
            "GET" => {}
            "HEAD" if !self.rules.without_head => {}
            _ => return Response::text(405, "not this way"),
        }
        let path = percent_decode(request.path.trim_start_matches('/'));
        let is_list = path.ends_with("SHA256SUMS") || path.ends_with(".weightlift-complete.json");
        if let Some(there) = self.rules.files_at.as_ref().filter(|_| !is_list) {
            let location = format!("{there}{}", request.path);
            return Response::text(302, "elsewhere").header("Location", &location);
        }
        let files = self.files();
        if let Some(blob) = files.get(&path) {
            let response = Response::blob(request, blob);
            let etag = format!("\"{}-{:x}\"", &blob.sha256()[..8], blob.len());
            return match self.rules.without_etags {
                true => response,
                false => response.header("ETag", &etag),
            };
        }
        let directory = format!("{}/", path.trim_end_matches('/'));
        if !files.keys().any(|file| file.starts_with(&directory)) {
            return Response::text(404, "not here");
        }
        match path.ends_with('/') {
            true => Response::text(403, "no listing"),
            false => {
                Response::text(301, "a directory").header("Location", &format!("{}/", request.path))
            }
        }
    }
}
