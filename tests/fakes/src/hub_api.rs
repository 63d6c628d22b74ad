//! The hub's JSON: descriptions of repositories, listings, refs.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use crate::http::{Request, Response};
use crate::hub_repos::{File, Snapshot};
use crate::hub_routes::{Answer, Found, Refusal, State, Wanted, without_kind};
use crate::text::{form_pairs, hex, percent_encode, query_pairs};

impl State {
    /// Everything below `/api/models/{id}`, or that of another kind.
    pub(crate) fn api(&self, request: &Request, id: &str, rest: &[&str]) -> Answer {
        let listing = |revision: &str| self.find(request, id, revision, Wanted::Listing);
        match (request.method.as_str(), rest) {
            ("GET" | "HEAD", []) => Ok(describe(request, &listing("main")?)),
            ("GET" | "HEAD", ["revision", revision]) => Ok(describe(request, &listing(revision)?)),
            ("GET" | "HEAD", ["tree", revision, folder @ ..]) => {
                self.tree(request, &listing(revision)?, &folder.join("/"))
            }
            ("POST", ["paths-info", revision]) => {
                let found = listing(revision)?;
                Ok(paths_info(&asked_paths(request), &found.snapshot, self.mirror.xet))
            }
            ("GET", ["refs"]) => Ok(refs(&listing("main")?)),
            ("GET", ["xet-read-token", revision]) if let Some(store) = &self.xet_store => {
                let found = self.find(request, id, revision, Wanted::Files)?;
                Ok(store.cas.token(&found.snapshot, &store.url))
            }
            ("GET" | "HEAD", ["auth-check"]) => {
                self.admit(request, id, Wanted::Files)?;
                Ok(Response::text(200, "OK"))
            }
            _ => Err(Refusal::new(404, "", "Not found")),
        }
    }

    fn tree(&self, request: &Request, found: &Found, folder: &str) -> Answer {
        let is_set = |name| request.query_value(name).is_some_and(|it| truthy(&it));
        let recursive = is_set("recursive") && !self.mirror.flat_listings;
        let expand = is_set("expand");
        let entries =
            found.snapshot.list(folder, recursive).ok_or_else(Refusal::entry_not_found)?;
        let page_size =
            if expand { self.page_size.min(EXPANDED_PAGE_SIZE) } else { self.page_size };
        let total = entries.len() + found.repo.raw_entries.len();
        let from = match request.query_value("cursor") {
            Some(cursor) => {
                position(&cursor).ok_or_else(|| Refusal::new(400, "", "Invalid cursor"))?
            }
            None => 0,
        };
        let to = from.saturating_add(page_size).min(total);
        let raw = found.repo.raw_entries.iter().cloned();
        let page: Vec<Value> = entries
            .iter()
            .skip(from)
            .take(page_size)
            .map(|(path, file)| tree_entry(&found.snapshot, path, *file, expand, self.mirror.xet))
            .chain(raw.skip(from.saturating_sub(entries.len())))
            .take(to.saturating_sub(from))
            .collect();
        let response = Response::json(200, &Value::Array(page));
        Ok(if to < total {
            response.header("Link", &self.next_link(request, to))
        } else {
            response
        })
    }

    /// Absolute, at the origin the request came to, with the rest of the query as it was.
    fn next_link(&self, request: &Request, from: usize) -> String {
        let host = request.header("host").unwrap_or("127.0.0.1");
        let base = match &self.mirror.next_base {
            Some(base) => base.clone(),
            None => format!("http://{host}{}", self.mirror.prefix),
        };
        let cursor = URL_SAFE_NO_PAD.encode(json!({"from": from}).to_string());
        let mut query: String = request
            .query
            .split('&')
            .filter(|pair| !pair.is_empty() && !pair.starts_with("cursor="))
            .fold(String::new(), |query, pair| query + pair + "&");
        query += &format!("cursor={}", percent_encode(&cursor, ""));
        format!("<{base}{}?{query}>; rel=\"next\"", request.path)
    }
}

fn describe(request: &Request, found: &Found) -> Response {
    let blobs = request.query_value("blobs").is_some_and(|it| truthy(&it));
    let siblings: Vec<Value> =
        found.snapshot.files.iter().map(|(path, file)| file.sibling(path, blobs)).collect();
    let (_, id) = without_kind(&found.id);
    let mut description = json!({
        "_id": &hex(id.as_bytes()).repeat(24)[..24],
        "id": id,
        "modelId": id,
        "author": id.split_once('/').map(|(owner, _)| owner),
        "sha": found.snapshot.commit,
        "private": found.repo.private,
        "gated": if found.repo.gated { json!("auto") } else { json!(false) },
        "disabled": false,
        "createdAt": DATE,
        "lastModified": DATE,
        "downloads": 0,
        "likes": 0,
        "tags": [],
        "siblings": siblings,
    });
    let expand: Vec<String> = query_pairs(&request.query)
        .into_iter()
        .filter_map(|(name, value)| (name == "expand" || name == "expand[]").then_some(value))
        .collect();
    if let (false, Value::Object(fields)) = (expand.is_empty(), &mut description) {
        fields.retain(|name, _| name == "_id" || name == "id" || expand.contains(name));
    }
    Response::json(200, &description)
}

fn tree_entry(
    snapshot: &Snapshot,
    path: &str,
    file: Option<&File>,
    expand: bool,
    with_xet: bool,
) -> Value {
    let mut entry = match file {
        Some(file) => file.tree_entry(path, with_xet),
        None => {
            let oid = snapshot.folder_oid(path);
            json!({"type": "directory", "oid": oid, "size": 0, "path": path})
        }
    };
    if expand {
        entry["lastCommit"] = json!({"id": snapshot.commit, "title": "commit", "date": DATE});
        if file.is_some() {
            entry["securityFileStatus"] =
                json!({"status": "safe", "avScan": null, "pickleImportScan": null});
        }
    }
    entry
}

fn paths_info(paths: &[String], snapshot: &Snapshot, with_xet: bool) -> Response {
    // Paths that do not exist are left out without a word.
    let entries = paths.iter().filter_map(|path| {
        let path = path.trim_matches('/');
        let file = snapshot.files.get(path);
        let exists = file.is_some() || snapshot.list(path, false).is_some();
        exists.then(|| tree_entry(snapshot, path, file, false, with_xet))
    });
    Response::json(200, &entries.collect())
}

/// From a form or from JSON.
fn asked_paths(request: &Request) -> Vec<String> {
    let body = String::from_utf8_lossy(&request.body);
    if let Ok(json) = serde_json::from_str::<Map<String, Value>>(&body) {
        let paths = json.get("paths").and_then(Value::as_array).cloned().unwrap_or_default();
        return paths.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    }
    let pairs = form_pairs(&body).into_iter();
    pairs.filter_map(|(name, value)| (name == "paths").then_some(value)).collect()
}

fn refs(found: &Found) -> Response {
    let branches: Vec<Value> = found
        .repo
        .branches
        .iter()
        .filter(|(name, _)| !name.starts_with("refs/"))
        .map(|(name, commit)| {
            json!({"name": name, "ref": format!("refs/heads/{name}"), "targetCommit": commit})
        })
        .collect();
    Response::json(200, &json!({"branches": branches, "tags": [], "converts": []}))
}

fn position(cursor: &str) -> Option<usize> {
    let json = URL_SAFE_NO_PAD.decode(cursor).ok()?;
    let json: Value = serde_json::from_slice(&json).ok()?;
    usize::try_from(json["from"].as_u64()?).ok()
}

fn truthy(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "true" | "1")
}

const EXPANDED_PAGE_SIZE: usize = 50;
const DATE: &str = "2024-02-29T12:00:00.000Z";
