//! Who may see what at the hub, and which answer belongs to which path.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::cas::Cas;
use crate::http::{Request, Response};
use crate::hub_cdn::Cdn;
use crate::hub_repos::{Repo, Snapshot};
use crate::text::hex;

pub(crate) struct State {
    repos: Mutex<BTreeMap<String, Repo>>,
    renamed: BTreeMap<String, String>,
    token: Option<String>,
    pub lfs_threshold_bytes: u64,
    pub page_size: usize,
    pub mirror: Mirror,
    pub cdn: Arc<Cdn>,
    pub cdn_url: String,
    pub xet_store: Option<XetStore>,
    answered: AtomicU64,
}

/// The chunk store behind this hub, for which it gives tokens.
pub(crate) struct XetStore {
    pub cas: Arc<Cas>,
    pub url: String,
}

/// Ways in which this hub is not the usual one.
#[derive(Clone, Default)]
pub(crate) struct Mirror {
    pub without_headers: bool,
    pub lfs_direct: bool,
    pub external_cdn: bool,
    pub gated_listings: bool,
    pub xet: bool,
    /// `recursive` is not known.
    pub flat_listings: bool,
    /// Everything lies below this path.
    pub prefix: String,
    /// What `next` links begin with, in place of the origin and the prefix of this hub.
    pub next_base: Option<String>,
    /// The only user, as `user:password`; then a token is none.
    pub user: Option<String>,
}

/// An error the hub has a code for.
pub(crate) struct Refusal {
    status: u16,
    code: &'static str,
    message: String,
    commit: Option<String>,
}

pub(crate) type Answer = Result<Response, Refusal>;

/// Gates stand before files, not before listings.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    Listing,
    Files,
}

/// A repository and one of its commits that the client may see.
pub(crate) struct Found {
    pub id: String,
    pub repo: Repo,
    pub snapshot: Arc<Snapshot>,
}

impl State {
    pub fn new(
        repos: BTreeMap<String, Repo>,
        renamed: BTreeMap<String, String>,
        token: Option<String>,
        lfs_threshold_bytes: u64,
        page_size: usize,
        mirror: Mirror,
        (cdn, cdn_url): (Arc<Cdn>, String),
    ) -> Self {
        let (repos, answered) = (Mutex::new(repos), AtomicU64::new(0));
        Self {
            repos,
            renamed,
            token,
            lfs_threshold_bytes,
            page_size,
            mirror,
            cdn,
            cdn_url,
            xet_store: None,
            answered,
        }
    }

    pub fn repos(&self) -> MutexGuard<'_, BTreeMap<String, Repo>> {
        self.repos.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer with what every answer of the hub has.
    pub fn answer(&self, request: &Request) -> Response {
        let mut response = self.route(request).unwrap_or_else(Refusal::into_response);
        let number = self.answered.fetch_add(1, Ordering::Relaxed);
        let id = hex(&Sha256::digest(format!("request {number}")));
        let resolver = request.path.contains("/resolve");
        let (bucket, quota) = if resolver { ("resolvers", 3000) } else { ("api", 500) };
        if self.mirror.without_headers {
            for name in ["X-Repo-Commit", "X-Linked-Size", "X-Linked-ETag", "ETag"] {
                response = response.without_header(name);
            }
        }
        response
            .header("X-Request-Id", &format!("Root=1-{}-{}", &id[..8], &id[8..32]))
            .header("RateLimit", &format!("\"{bucket}\";r={};t=120", quota - number % quota))
            .header("RateLimit-Policy", &format!("\"fixed window\";\"{bucket}\";q={quota};w=300"))
    }

    fn route(&self, request: &Request) -> Answer {
        let inner = Request {
            path: request.path.strip_prefix(&self.mirror.prefix).unwrap_or("/").to_owned(),
            ..request.clone()
        };
        let request = &inner;
        let segments = request.segments();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        match segments.as_slice() {
            ["api", "whoami-v2"] => self.whoami(request),
            ["api", kind @ ("models" | "datasets" | "spaces"), rest @ ..] => {
                let (id, rest) = self.split_id(kind, rest);
                match self.new_location(request, &id) {
                    Some(redirect) => Ok(redirect),
                    None => self.api(request, &id, rest),
                }
            }
            ["api", "resolve-cache", kind @ ("models" | "datasets" | "spaces"), rest @ ..] => {
                let (id, rest) = self.split_id(kind, rest);
                self.resolve_cache(request, &id, rest)
            }
            [kind @ ("datasets" | "spaces"), owner, name, "resolve", revision, path @ ..] => {
                self.resolve(request, &format!("{kind}/{owner}/{name}"), revision, path)
            }
            [owner, name, "resolve", revision, path @ ..] => {
                self.resolve(request, &format!("{owner}/{name}"), revision, path)
            }
            [name, "resolve", revision, path @ ..] => self.resolve(request, name, revision, path),
            _ => Err(Refusal::new(404, "", "Sorry, we can't find the page you are looking for.")),
        }
    }

    /// Checks token, existence, privacy and gate, then the revision.
    pub fn find(
        &self,
        request: &Request,
        id: &str,
        revision: &str,
        wanted: Wanted,
    ) -> Result<Found, Refusal> {
        let repo = self.admit(request, id, wanted)?;
        let snapshot = repo.snapshot(revision).ok_or_else(|| {
            Refusal::new(404, "RevisionNotFound", &format!("Invalid rev id: {revision}"))
        })?;
        Ok(Found { id: id.to_owned(), repo, snapshot })
    }

    pub fn admit(&self, request: &Request, id: &str, wanted: Wanted) -> Result<Repo, Refusal> {
        let member = self.is_member(request)?;
        let repo = self.repos().get(id).cloned();
        let Some(repo) = repo.filter(|repo| member || !repo.private) else {
            return Err(if member {
                Refusal::new(404, "RepoNotFound", "Repository not found")
            } else {
                Refusal::new(401, "RepoNotFound", "Invalid username or password.")
            });
        };
        let gate = repo.gated && (wanted == Wanted::Files || self.mirror.gated_listings);
        match (gate, member, repo.granted) {
            (true, false, _) => Err(Refusal::new(
                401,
                "GatedRepo",
                &format!(
                    "Access to model {id} is restricted. You must have access to it and be authenticated to access it. Please log in."
                ),
            )),
            (true, true, false) => Err(Refusal::new(
                403,
                "GatedRepo",
                &format!(
                    "Access to model {id} is restricted and you are not in the authorized list. Visit the model page to ask for access."
                ),
            )),
            _ => Ok(repo),
        }
    }

    /// The redirect for a repository that has another name now.
    pub fn new_location(&self, request: &Request, id: &str) -> Option<Response> {
        let new = self.renamed.get(id)?;
        let (id, new) = match request.path.starts_with("/api/") {
            true => (without_kind(id).1, without_kind(new).1),
            false => (id, new.as_str()),
        };
        let location = request.target().replacen(&format!("/{id}"), &format!("/{new}"), 1);
        let location = format!("{}{location}", self.mirror.prefix);
        let text = format!("Temporary Redirect. Redirecting to {location}");
        Some(Response::text(307, &text).header("Location", &location))
    }

    fn whoami(&self, request: &Request) -> Answer {
        if self.is_member(request)? {
            Ok(Response::json(200, &json!({"type": "user", "name": "member", "orgs": []})))
        } else {
            Err(Refusal::new(401, "", "Invalid username or password."))
        }
    }

    /// Whether there is a token; a wrong one is an error even where none is needed.
    fn is_member(&self, request: &Request) -> Result<bool, Refusal> {
        let Some(sent) = request.header("authorization") else {
            return Ok(false);
        };
        if let Some(user) = &self.mirror.user {
            return if sent == format!("Basic {}", STANDARD.encode(user)) {
                Ok(true)
            } else {
                Err(Refusal::new(401, "", "Unknown user"))
            };
        }
        match &self.token {
            Some(token) if sent != format!("Bearer {token}") => {
                Err(Refusal::new(401, "", "Invalid credentials in Authorization header"))
            }
            _ => Ok(true),
        }
    }

    /// Splits the name of a repository of a kind, of one part or two, from what follows.
    fn split_id<'a>(&self, kind: &str, segments: &'a [&'a str]) -> (String, &'a [&'a str]) {
        let prefix = if kind == "models" { String::new() } else { format!("{kind}/") };
        let is_known = |name: &&str| {
            let name = format!("{prefix}{name}");
            self.repos().contains_key(&name) || self.renamed.contains_key(&name)
        };
        let parts = match segments.first().is_some_and(is_known) {
            true => 1,
            false => segments.len().min(2),
        };
        (prefix + &segments[..parts].join("/"), &segments[parts..])
    }
}

/// The kind of a repository, as the API's paths have it, and its name without that.
pub(crate) fn without_kind(id: &str) -> (&'static str, &str) {
    for kind in ["datasets", "spaces"] {
        if let Some(rest) = id.strip_prefix(kind).and_then(|rest| rest.strip_prefix('/')) {
            return (kind, rest);
        }
    }
    ("models", id)
}

impl Refusal {
    /// `code` may be empty.
    pub fn new(status: u16, code: &'static str, message: &str) -> Self {
        Self { status, code, message: message.to_owned(), commit: None }
    }

    pub fn entry_not_found() -> Self {
        Self::new(404, "EntryNotFound", "Entry not found")
    }

    /// Names the commit in which something was not found.
    pub fn at_commit(self, commit: &str) -> Self {
        Self { commit: Some(commit.to_owned()), ..self }
    }

    fn into_response(self) -> Response {
        let mut response = Response::json(self.status, &json!({"error": self.message}))
            .header("X-Error-Message", &self.message);
        if !self.code.is_empty() {
            response = response.header("X-Error-Code", self.code);
        }
        match self.commit {
            Some(commit) => response.header("X-Repo-Commit", &commit),
            None => response,
        }
    }
}
