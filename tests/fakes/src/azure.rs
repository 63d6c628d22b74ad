//! Azure Blob Storage on one port of `127.0.0.1`, path style: listings, blobs, and who may ask for them.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::azure_key;
use crate::blob::Blob;
use crate::cloud_objects::{Admits, CloudObject, Objects, Version};
use crate::http::{Request, Response, Server};
use crate::log::{Log, Logged};
use crate::script::{Rule, Script};
use crate::text::unhex;

/// A running endpoint; dropping it closes the port.
pub struct FakeAzure {
    state: Arc<State>,
    server: Server,
    log: Log,
    script: Script,
}

/// Everything about an endpoint that is fixed before it starts.
pub struct FakeAzureBuilder {
    state: State,
}

struct State {
    account: String,
    objects: Objects,
    page_size: Option<usize>,
    admits: Option<Admits>,
    deny_list: bool,
}

impl FakeAzure {
    pub fn builder(account: &str) -> FakeAzureBuilder {
        FakeAzureBuilder {
            state: State {
                account: account.to_owned(),
                objects: Objects::default(),
                page_size: None,
                admits: None,
                deny_list: false,
            },
        }
    }

    /// Without the account.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Adds a rule; the origin is `"azure"`.
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

    /// New contents for a blob; also for one that is new.
    pub fn overwrite(&self, container: &str, key: &str, blob: Blob) {
        self.state.objects.put(container, key, blob, CloudObject::default());
    }

    /// With its quotes.
    pub fn etag(&self, container: &str, key: &str) -> Option<String> {
        Some(self.state.objects.versions(container, key).last()?.etag())
    }
}

impl FakeAzureBuilder {
    #[must_use]
    pub fn object(self, container: &str, key: &str, blob: Blob) -> Self {
        self.object_with(container, key, blob, CloudObject::default())
    }

    #[must_use]
    pub fn object_with(self, container: &str, key: &str, blob: Blob, options: CloudObject) -> Self {
        self.state.objects.put(container, key, blob, options);
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

    /// Refuses requests that are not signed with this key of the account, in base64.
    #[must_use]
    pub fn key(self, key: &str) -> Self {
        let account = self.state.account.clone();
        let key = STANDARD.decode(key).expect("a key in base64");
        self.admitting(move |request| azure_key::is_signed(request, &account, &key))
    }

    /// Refuses requests without the parameter `sig` of this value.
    #[must_use]
    pub fn signature(self, signature: &str) -> Self {
        let signature = signature.to_owned();
        self.admitting(move |request| request.query_value("sig").as_deref() == Some(&signature))
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

    /// # Panics
    /// When the machine has no free port.
    pub fn start(self) -> FakeAzure {
        let (log, script, state) = (Log::new(), Script::new(), Arc::new(self.state));
        let server = Server::start({
            let state = Arc::clone(&state);
            script.observed("azure", &log, move |request| state.answer(request))
        });
        FakeAzure { state, server, log, script }
    }
}

impl State {
    fn answer(&self, request: &Request) -> Response {
        let answer = self.operate(request).unwrap_or_else(|refusal| *refusal);
        answer.header("x-ms-request-id", "fake").header("Server", "Windows-Azure-Blob/1.0")
    }

    fn operate(&self, request: &Request) -> Result<Response, Box<Response>> {
        if !matches!(request.method.as_str(), "GET" | "HEAD") {
            return Err(error(405, "UnsupportedHttpVerb", "This endpoint is read-only."));
        }
        if request.header("x-ms-version").is_none_or(|version| version < "2021-01-01") {
            return Err(error(400, "InvalidHeaderValue", "An old version, or none."));
        }
        let segments = request.segments();
        let (container, key) = match segments.as_slice() {
            [account, container, key @ ..] if *account == self.account => {
                (container, key.join("/"))
            }
            _ => return Err(error(400, "InvalidUri", "Not of this account.")),
        };
        if let Some(admits) = &self.admits
            && !admits(request)
        {
            let has_any =
                request.header("authorization").is_some() || request.query.contains("sig=");
            return Err(match has_any {
                true => {
                    error(403, "AuthenticationFailed", "Server failed to authenticate the request.")
                }
                false => error(404, "ResourceNotFound", "The specified resource does not exist."),
            });
        }
        if !self.objects.has_bucket(container) {
            return Err(error(404, "ContainerNotFound", "The specified container does not exist."));
        }
        if key.is_empty() {
            return self.list(request, container);
        }
        let missing = || error(404, "BlobNotFound", "The specified blob does not exist.");
        let versions = self.objects.versions(container, &key);
        let version = versions.last().ok_or_else(missing)?;
        if request.header("if-match").is_some_and(|etag| etag != version.etag()) {
            return Err(error(412, "ConditionNotMet", "The condition was not met."));
        }
        if version.options.is_archived && request.method == "GET" {
            return Err(error(
                409,
                "BlobArchived",
                "This operation is not permitted on an archived blob.",
            ));
        }
        Ok(version.serve_blob(request))
    }

    fn list(&self, request: &Request, container: &str) -> Result<Response, Box<Response>> {
        let is_listing = request.query_value("comp").as_deref() == Some("list")
            && request.query_value("restype").as_deref() == Some("container");
        if !is_listing {
            return Err(error(400, "InvalidQueryParameterValue", "What is asked for?"));
        }
        if self.deny_list {
            let message =
                "This request is not authorized to perform this operation using this permission.";
            return Err(error(403, "AuthorizationPermissionMismatch", message));
        }
        let prefix = request.query_value("prefix").unwrap_or_default();
        let from = request.query_value("marker").unwrap_or_default();
        let asked = request.query_value("maxresults").and_then(|most| most.parse().ok());
        let most = asked.unwrap_or(5_000).min(self.page_size.unwrap_or(5_000));
        let (found, next) = self.objects.page(container, &prefix, &from, most);
        let blobs: String = found.iter().map(|(key, version)| version.listed(key)).collect();
        let next = xml(&next.unwrap_or_default());
        let page = format!(
            "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults ServiceEndpoint=\"x\" \
             ContainerName=\"{container}\"><Prefix>{}</Prefix><Blobs>{blobs}</Blobs>\
             <NextMarker>{next}</NextMarker></EnumerationResults>",
            xml(&prefix)
        );
        Ok(Response::new(200).header("Content-Type", "application/xml").body(page))
    }
}

impl Version {
    fn etag(&self) -> String {
        format!("\"0x{:X}\"", self.number)
    }

    fn told_md5(&self) -> Option<String> {
        if self.options.without_checksum {
            return None;
        }
        let own = || unhex(&self.blob.md5()).and_then(|it| it.try_into().ok());
        self.options.md5.or_else(own).map(|md5: [u8; 16]| STANDARD.encode(md5))
    }

    fn listed(&self, key: &str) -> String {
        let etag = self.etag();
        let metadata =
            if self.options.is_directory { "<hdi_isfolder>true</hdi_isfolder>" } else { "" };
        format!(
            "<Blob><Name>{}</Name><Properties><Creation-Time>Mon, 30 Nov 2026 00:00:00 GMT</Creation-Time>\
             <Etag>{}</Etag><Content-Length>{}</Content-Length><Content-MD5>{}</Content-MD5>\
             <BlobType>BlockBlob</BlobType></Properties><Metadata>{metadata}</Metadata><OrMetadata />\
             </Blob>",
            xml(key),
            etag.trim_matches('"'),
            self.blob.len(),
            self.told_md5().unwrap_or_default(),
        )
    }

    fn serve_blob(&self, request: &Request) -> Response {
        let mut answer = Response::blob(request, &self.blob)
            .header("ETag", &self.etag())
            .header("x-ms-blob-type", "BlockBlob");
        // With a range it is another header.
        if let Some(md5) = self.told_md5() {
            let name = if answer.status == 206 { "x-ms-blob-content-md5" } else { "Content-MD5" };
            answer = answer.header(name, &md5);
        }
        if let Some(encoding) = &self.options.content_encoding {
            answer = answer.header("Content-Encoding", encoding);
        }
        if self.options.is_directory {
            answer = answer.header("x-ms-meta-hdi_isfolder", "true");
        }
        answer
    }
}

fn error(status: u16, code: &str, message: &str) -> Box<Response> {
    let body = format!(
        "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>{code}</Code><Message>{message}\n\
         RequestId:fake\nTime:2026-11-30T00:00:00Z</Message></Error>"
    );
    let response = Response::new(status)
        .header("Content-Type", "application/xml")
        .header("x-ms-error-code", code);
    Box::new(response.body(body))
}

fn xml(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
