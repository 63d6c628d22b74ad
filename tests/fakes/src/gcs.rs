//! Google Cloud Storage by its JSON API, on one port of `127.0.0.1`: listings, objects and their generations.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::blob::Blob;
use crate::cloud_objects::{Admits, CloudObject, Objects, Version};
use crate::http::{Request, Response, Server};
use crate::log::{Log, Logged};
use crate::script::{Rule, Script};
use crate::text::unhex;

/// A running endpoint; dropping it closes the port.
pub struct FakeGcs {
    state: Arc<State>,
    server: Server,
    log: Log,
    script: Script,
}

/// Everything about an endpoint that is fixed before it starts.
#[derive(Default)]
pub struct FakeGcsBuilder {
    state: State,
}

#[derive(Default)]
struct State {
    objects: Objects,
    page_size: Option<usize>,
    admits: Option<Admits>,
    deny_list: bool,
    /// Keeps old generations.
    is_versioned: bool,
}

impl FakeGcs {
    pub fn builder() -> FakeGcsBuilder {
        FakeGcsBuilder::default()
    }

    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Adds a rule; the origin is `"gcs"`.
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

    /// New contents for a key; also for a key that is new.
    pub fn overwrite(&self, bucket: &str, key: &str, blob: Blob) {
        self.state.objects.put(bucket, key, blob, CloudObject::default());
    }

    pub fn remove(&self, bucket: &str, key: &str) {
        self.state.objects.remove(bucket, key);
    }

    pub fn generation(&self, bucket: &str, key: &str) -> Option<u64> {
        Some(self.state.objects.versions(bucket, key).last()?.number)
    }
}

impl FakeGcsBuilder {
    #[must_use]
    pub fn bucket(self, name: &str) -> Self {
        self.state.objects.bucket(name);
        self
    }

    #[must_use]
    pub fn object(self, bucket: &str, key: &str, blob: Blob) -> Self {
        self.object_with(bucket, key, blob, CloudObject::default())
    }

    #[must_use]
    pub fn object_with(self, bucket: &str, key: &str, blob: Blob, options: CloudObject) -> Self {
        self.state.objects.put(bucket, key, blob, options);
        self
    }

    #[must_use]
    pub fn page_size(mut self, keys: usize) -> Self {
        self.state.page_size = Some(keys.max(1));
        self
    }

    /// Refuses requests without this token.
    #[must_use]
    pub fn token(self, token: &str) -> Self {
        let bearer = format!("Bearer {token}");
        self.admitting(move |request| request.header("authorization") == Some(&bearer))
    }

    /// Refuses requests that `admits` does not admit.
    #[must_use]
    pub fn admitting(mut self, admits: impl Fn(&Request) -> bool + Send + Sync + 'static) -> Self {
        self.state.admits = Some(Arc::new(admits));
        self
    }

    #[must_use]
    pub fn deny_list(mut self) -> Self {
        self.state.deny_list = true;
        self
    }

    /// Old generations can still be read.
    #[must_use]
    pub fn versioned(mut self) -> Self {
        self.state.is_versioned = true;
        self
    }

    /// # Panics
    /// When the machine has no free port.
    pub fn start(self) -> FakeGcs {
        let (log, script, state) = (Log::new(), Script::new(), Arc::new(self.state));
        let server = Server::start({
            let state = Arc::clone(&state);
            script.observed("gcs", &log, move |request| state.answer(request))
        });
        FakeGcs { state, server, log, script }
    }
}

impl State {
    fn answer(&self, request: &Request) -> Response {
        let answer = self.operate(request).unwrap_or_else(|refusal| *refusal);
        answer.header("x-guploader-uploadid", "FAKE0UPLOAD0ID").header("Server", "UploadServer")
    }

    fn operate(&self, request: &Request) -> Result<Response, Box<Response>> {
        if request.method != "GET" {
            return Err(error(405, "methodNotAllowed", "This endpoint is read-only."));
        }
        if let Some(admits) = &self.admits
            && !admits(request)
        {
            return Err(match request.header("authorization") {
                Some(_) => error(401, "authError", "Invalid Credentials"),
                None => {
                    error(401, "required", "Anonymous caller does not have storage.objects access.")
                }
            });
        }
        let segments = request.segments();
        let path: Vec<&str> = segments.iter().map(String::as_str).collect();
        let (is_download, path) = match path.as_slice() {
            ["download", rest @ ..] => (true, rest),
            rest => (false, rest),
        };
        match path {
            ["storage", "v1", "b", bucket, ..] if !self.objects.has_bucket(bucket) => {
                Err(error(404, "notFound", "The specified bucket does not exist."))
            }
            ["storage", "v1", "b", bucket, "o"] => self.list(request, bucket),
            ["storage", "v1", "b", bucket, "o", key] => {
                let version = self.version(request, bucket, key)?;
                match is_download || request.query_value("alt").as_deref() == Some("media") {
                    true => Ok(version.serve(request)),
                    false => Ok(Response::json(200, &version.told(key))),
                }
            }
            _ => Err(error(404, "notFound", "Not Found")),
        }
    }

    fn list(&self, request: &Request, bucket: &str) -> Result<Response, Box<Response>> {
        if self.deny_list {
            return Err(error(403, "forbidden", "x does not have storage.objects.list access."));
        }
        let prefix = request.query_value("prefix").unwrap_or_default();
        let from = request.query_value("pageToken").unwrap_or_default();
        let asked = request.query_value("maxResults").and_then(|most| most.parse().ok());
        let most = asked.unwrap_or(1_000).min(self.page_size.unwrap_or(1_000));
        let (found, next) = self.objects.page(bucket, &prefix, &from, most);
        let items: Vec<Value> = found.iter().map(|(key, version)| version.told(key)).collect();
        let mut page = json!({ "kind": "storage#objects", "items": items });
        if let Some(next) = next {
            page["nextPageToken"] = next.into();
        }
        Ok(Response::json(200, &page))
    }

    fn version(
        &self,
        request: &Request,
        bucket: &str,
        key: &str,
    ) -> Result<Arc<Version>, Box<Response>> {
        let versions = self.objects.versions(bucket, key);
        let newest = versions.last().cloned();
        let found = match request.query_value("generation") {
            Some(wanted) => {
                let mut all = versions.into_iter().filter(|it| it.number.to_string() == wanted);
                all.next().filter(|it| {
                    self.is_versioned || newest.as_ref().is_some_and(|new| new.number == it.number)
                })
            }
            None => newest,
        };
        found.ok_or_else(|| error(404, "notFound", &format!("No such object: {bucket}/{key}")))
    }
}

impl Version {
    fn told(&self, key: &str) -> Value {
        let mut told = json!({
            "kind": "storage#object", "name": key, "size": self.blob.len().to_string(),
            "generation": self.number.to_string(), "metageneration": "1",
        });
        if !self.options.without_checksum {
            told["crc32c"] = STANDARD.encode(self.blob.crc32c().to_be_bytes()).into();
        }
        let md5 =
            self.options.md5.or_else(|| unhex(&self.blob.md5()).and_then(|it| it.try_into().ok()));
        if let Some(md5) = md5 {
            told["md5Hash"] = STANDARD.encode(md5).into();
        }
        if let Some(encoding) = &self.options.content_encoding {
            told["contentEncoding"] = encoding.as_str().into();
        }
        told
    }

    /// The object as it is stored, or unpacked for whoever does not say that it can be packed.
    fn serve(&self, request: &Request) -> Response {
        let accepts = request.header("accept-encoding").unwrap_or_default().to_owned();
        let stored = self.options.content_encoding.as_deref().unwrap_or("identity");
        let answer = match (&self.options.unpacked, accepts.contains(stored)) {
            (Some(unpacked), false) => {
                let mut answer = Response::new(200);
                answer.body = crate::http::Body::Blob {
                    blob: unpacked.clone(),
                    start: 0,
                    end: unpacked.len(),
                };
                answer.delivery.close_delimited = true;
                answer.header("Warning", "214 UploadServer gunzipped")
            }
            (Some(_), true) => {
                Response::blob(request, &self.blob).header("Content-Encoding", stored)
            }
            (None, _) => Response::blob(request, &self.blob),
        };
        answer
            .header("x-goog-generation", &self.number.to_string())
            .header("x-goog-stored-content-encoding", stored)
            .header("x-goog-stored-content-length", &self.blob.len().to_string())
    }
}

fn error(status: u16, reason: &str, message: &str) -> Box<Response> {
    let errors = json!([{ "domain": "global", "reason": reason, "message": message }]);
    let error = json!({ "code": status, "message": message, "errors": errors });
    Box::new(Response::json(status, &json!({ "error": error })))
}
