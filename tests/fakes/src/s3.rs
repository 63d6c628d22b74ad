//! An S3 endpoint, path style, on one port of `127.0.0.1`.
//!
//! Here is how tests set one up and talk to it, and which operation a request means. Objects and
//! their answers are in `s3_object`, listings in `s3_list`, signatures in `sigv4`.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::blob::{Blob, Checksum};
use crate::http::{Request, Response, Server};
use crate::log::{Log, Logged};
use crate::s3_habits::Habits;
use crate::s3_object::Object;
use crate::s3_write::{Uploads, Writes};
use crate::s3_xml::S3Error;
use crate::script::{Rule, Script};
use crate::sigv4::{self, Credentials};

/// A running endpoint; dropping it closes the port.
pub struct FakeS3 {
    state: Arc<State>,
    server: Server,
    log: Log,
    script: Script,
}

/// Everything about an endpoint that is fixed before it starts.
#[derive(Default)]
pub struct FakeS3Builder {
    buckets: Buckets,
    settings: Settings,
    port: u16,
}

/// How an object was uploaded.
#[derive(Clone, Debug, Default)]
pub struct ObjectOptions {
    pub checksum: Option<Checksum>,
    /// Sizes of the parts of a multipart upload, in order; their sum is the size of the object.
    pub parts: Option<Vec<u64>>,
    /// The checksum is one of the checksums of the parts (`…-N`), not of the whole.
    pub composite: bool,
    /// `STANDARD` when not given; `GLACIER` and `DEEP_ARCHIVE` refuse to be read.
    pub storage_class: Option<String>,
    /// The `Content-Encoding` that it was uploaded with.
    pub content_encoding: Option<String>,
    /// The same without that encoding.
    pub unpacked: Option<Blob>,
    /// In place of the usual one, with its quotes; nothing stands for none.
    pub etag: Option<String>,
    /// When it was written, if not now.
    pub modified: Option<SystemTime>,
    /// Headers that come with HEAD and GET, such as `x-amz-server-side-encryption`.
    pub headers: Vec<(&'static str, &'static str)>,
    /// The same of whoever uploaded it: `x-amz-meta-…`.
    pub metadata: Vec<(String, String)>,
}

/// How a server without `ListObjectsV2` takes a request for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OldListing {
    /// Answers this status.
    Refuses(u16),
    /// Does not look at what it does not know, and lists in the older way.
    Ignores,
}

impl FakeS3 {
    pub fn builder() -> FakeS3Builder {
        FakeS3Builder::default()
    }

    /// What `AWS_ENDPOINT_URL` has to be.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Adds a rule; the origin is `"s3"`.
    pub fn script(&self, rule: Rule) {
        self.script.add(rule);
    }

    pub fn clear_script(&self) {
        self.script.clear();
    }

    /// How many requests a rule was applied to.
    pub fn faults_applied(&self) -> usize {
        self.script.applied()
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

    pub fn body_bytes(&self) -> u64 {
        self.log.body_bytes()
    }

    /// See [`Log::bytes_sent_for`].
    pub fn bytes_sent_for(&self, substring: &str) -> u64 {
        self.log.bytes_sent_for(substring)
    }

    /// New contents for a key, without checksum; also for a key that is new.
    pub fn overwrite(&self, bucket: &str, key: &str, blob: Blob) {
        self.overwrite_with(bucket, key, blob, ObjectOptions::default());
    }

    /// In a versioned bucket the old contents stay under their version.
    pub fn overwrite_with(&self, bucket: &str, key: &str, blob: Blob, options: ObjectOptions) {
        put(&mut self.state.buckets(), bucket, key, blob, options, self.state.settings.versioned);
    }

    pub fn remove(&self, bucket: &str, key: &str) {
        if let Some(keys) = self.state.buckets().get_mut(bucket) {
            keys.remove(key);
        }
    }

    /// With its quotes, as in the header.
    pub fn etag(&self, bucket: &str, key: &str) -> Option<String> {
        Some(self.state.buckets().get(bucket)?.get(key)?.last()?.etag.clone())
    }

    /// All of an object, if there is one.
    pub fn content(&self, bucket: &str, key: &str) -> Option<Blob> {
        Some(self.state.buckets().get(bucket)?.get(key)?.last()?.blob.clone())
    }

    /// The keys of a bucket.
    pub fn keys(&self, bucket: &str) -> Vec<String> {
        let buckets = self.state.buckets();
        buckets.get(bucket).into_iter().flat_map(|keys| keys.keys().cloned()).collect()
    }

    /// Uploads that were begun, and neither completed nor aborted.
    pub fn unfinished_uploads(&self) -> usize {
        self.state.uploads.count()
    }

    pub fn version_id(&self, bucket: &str, key: &str) -> Option<String> {
        Some(self.state.buckets().get(bucket)?.get(key)?.last()?.version_id.clone())
    }
}

impl FakeS3Builder {
    /// An empty bucket; [`FakeS3Builder::object`] makes one as well.
    #[must_use]
    pub fn bucket(mut self, name: &str) -> Self {
        self.buckets.entry(name.to_owned()).or_default();
        self
    }

    #[must_use]
    pub fn object(self, bucket: &str, key: &str, blob: Blob) -> Self {
        self.object_with(bucket, key, blob, ObjectOptions::default())
    }

    /// # Panics
    /// When the sizes of the parts do not add up to that of the blob.
    #[must_use]
    pub fn object_with(
        mut self,
        bucket: &str,
        key: &str,
        blob: Blob,
        options: ObjectOptions,
    ) -> Self {
        put(&mut self.buckets, bucket, key, blob, options, true);
        self
    }

    /// Most keys per page of a listing; 1000 unless told otherwise.
    #[must_use]
    pub fn page_size(mut self, keys: usize) -> Self {
        self.settings.page_size = Some(keys.max(1));
        self
    }

    /// Refuses listings.
    #[must_use]
    pub fn deny_list(mut self) -> Self {
        self.settings.deny_list = true;
        self
    }

    /// Refuses objects, and what is known about them.
    #[must_use]
    pub fn deny_get(mut self) -> Self {
        self.settings.deny_get = true;
        self
    }

    #[must_use]
    pub fn region(mut self, region: &str) -> Self {
        self.settings.region = Some(region.to_owned());
        self
    }

    /// Answers 301 to requests signed for another region than [`FakeS3Builder::region`].
    #[must_use]
    pub fn redirect_wrong_region(mut self) -> Self {
        self.settings.redirect_wrong_region = true;
        self
    }

    /// Checks every signature. Until then everything is accepted, signed or not.
    #[must_use]
    pub fn credentials(mut self, access_key: &str, secret_key: &str) -> Self {
        let credentials = self.settings.credentials.get_or_insert_default();
        credentials.access_key = access_key.to_owned();
        credentials.secret_key = secret_key.to_owned();
        self
    }

    /// Requests must carry this as `X-Amz-Security-Token` as well.
    #[must_use]
    pub fn session_token(mut self, token: &str) -> Self {
        self.settings.credentials.get_or_insert_default().session_token = Some(token.to_owned());
        self
    }

    /// Buckets keep versions and say which one they answered with.
    #[must_use]
    pub fn versioned(mut self) -> Self {
        self.settings.versioned = true;
        self
    }

    /// Serves everything below this path, as gateways do: `/s3`.
    #[must_use]
    pub fn below(mut self, path: &str) -> Self {
        self.settings.below = Some(path.to_owned());
        self
    }

    /// Buckets are the first part of the host's name, `bucket.<host>`, and never of the path. To be
    /// asked through a proxy, which this server is as well.
    #[must_use]
    pub fn virtual_host(mut self, host: &str) -> Self {
        self.settings.virtual_host = Some(host.to_owned());
        self
    }

    /// Does not know `ListObjectsV2`.
    #[must_use]
    pub fn old_listing(mut self, old: OldListing) -> Self {
        self.settings.old_listing = Some(old);
        self
    }

    /// Takes objects, in its own way. Until then the endpoint is read-only.
    #[must_use]
    pub fn writable(mut self, writes: Writes) -> Self {
        self.settings.writes = Some(writes);
        self
    }

    #[must_use]
    pub fn habits(mut self, habits: Habits) -> Self {
        self.settings.habits = habits;
        self
    }

    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// # Panics
    /// When the port is taken.
    pub fn start(self) -> FakeS3 {
        self.try_start().expect("a free port on 127.0.0.1")
    }

    pub fn try_start(self) -> io::Result<FakeS3> {
        let (log, script) = (Log::new(), Script::new());
        let buckets = Mutex::new(self.buckets);
        let uploads = Uploads::default();
        let state = Arc::new(State { buckets, uploads, settings: self.settings });
        let server = Server::start_on(self.port, {
            let state = Arc::clone(&state);
            script.observed("s3", &log, move |request| state.answer(request))
        })?;
        Ok(FakeS3 { state, server, log, script })
    }
}

/// Keys and their versions, the newest last.
pub(crate) type Keys = BTreeMap<String, Vec<Arc<Object>>>;
type Buckets = BTreeMap<String, Keys>;

pub(crate) struct State {
    buckets: Mutex<Buckets>,
    pub uploads: Uploads,
    pub settings: Settings,
}

#[derive(Default)]
pub(crate) struct Settings {
    pub page_size: Option<usize>,
    pub deny_list: bool,
    pub deny_get: bool,
    pub region: Option<String>,
    pub redirect_wrong_region: bool,
    pub credentials: Option<Credentials>,
    pub versioned: bool,
    pub habits: Habits,
    pub below: Option<String>,
    pub virtual_host: Option<String>,
    pub old_listing: Option<OldListing>,
    pub writes: Option<Writes>,
}

impl State {
    pub fn has_bucket(&self, bucket: &str) -> bool {
        self.buckets().contains_key(bucket)
    }

    /// With its quotes.
    pub fn etag_of(&self, bucket: &str, key: &str) -> Option<String> {
        Some(self.buckets().get(bucket)?.get(key)?.last()?.etag.clone())
    }

    pub fn keep(&self, bucket: &str, key: &str, blob: Blob, options: ObjectOptions) {
        put(&mut self.buckets(), bucket, key, blob, options, self.settings.versioned);
    }

    fn buckets(&self) -> MutexGuard<'_, Buckets> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, request: &Request) -> Response {
        let Some(path) = self.place(request) else {
            return S3Error::no_such_bucket().into_response(&request.path);
        };
        let (bucket, key) = path.split_once('/').unwrap_or((&path, ""));
        let response = self
            .refuse(request, bucket)
            .and_then(|()| self.settings.habits.refuse(request))
            .and_then(|()| self.operate(&self.settings.habits.seen(request), bucket, key))
            .unwrap_or_else(|error| error.into_response(&request.path));
        let region = self.settings.region.as_deref().unwrap_or(DEFAULT_REGION);
        let names_region = key.is_empty() || response.status == 301;
        let response =
            if names_region { response.header("x-amz-bucket-region", region) } else { response };
        response
            .header("x-amz-request-id", "FAKE0REQUEST0ID0")
            .header("x-amz-id-2", "ZmFrZQ==")
            .header("Server", "AmazonS3")
    }

    /// `bucket/key`, wherever the bucket was named.
    fn place(&self, request: &Request) -> Option<String> {
        let path = request.segments().join("/");
        let path = match &self.settings.below {
            Some(below) => {
                path.strip_prefix(below.trim_matches('/'))?.strip_prefix('/')?.to_owned()
            }
            None => path,
        };
        let Some(host) = &self.settings.virtual_host else {
            return Some(path);
        };
        let asked = request.header("host")?.split(':').next()?;
        let bucket = asked.strip_suffix(host.as_str())?.strip_suffix('.')?;
        Some(format!("{bucket}/{path}"))
    }

    /// Region first: a signature for another region is not even looked at.
    fn refuse(&self, request: &Request, bucket: &str) -> Result<(), S3Error> {
        let settings = &self.settings;
        let scope = sigv4::region(request);
        if settings.redirect_wrong_region && scope != settings.region {
            return Err(S3Error::wrong_region(bucket));
        }
        match &settings.credentials {
            Some(credentials) => sigv4::check(request, credentials, SystemTime::now()),
            None => Ok(()),
        }
    }

    fn operate(&self, request: &Request, bucket: &str, key: &str) -> Result<Response, S3Error> {
        if self.writes(request) {
            return self.write(request, bucket, key);
        }
        if !matches!(request.method.as_str(), "GET" | "HEAD") {
            return Err(S3Error::new(405, "MethodNotAllowed", "This endpoint is read-only."));
        }
        let buckets = self.buckets();
        let keys = buckets.get(bucket).ok_or_else(S3Error::no_such_bucket)?;
        if key.is_empty() {
            if self.settings.deny_list {
                return Err(S3Error::access_denied());
            }
            if request.method == "HEAD" {
                return Ok(Response::new(200));
            }
            if let (Some(OldListing::Refuses(status)), Some(_)) =
                (self.settings.old_listing, request.query_value("list-type"))
            {
                return Err(S3Error::new(status, "NotImplemented", "list-type is not known here"));
            }
            return Ok(self.list(request, bucket, keys));
        }
        if self.settings.deny_get {
            return Err(S3Error::access_denied());
        }
        let Some(versions) = keys.get(key) else {
            // Whoever may not list may not learn that a key is missing either.
            let hidden = self.settings.deny_list;
            return Err(if hidden { S3Error::access_denied() } else { S3Error::no_such_key() });
        };
        let object = match request.query_value("versionId") {
            Some(wanted) => versions.iter().find(|object| object.version_id == wanted),
            None => versions.last(),
        };
        let object = object.cloned().ok_or_else(S3Error::no_such_version)?;
        // Checksums may take a while; others need not wait for them.
        drop(buckets);
        let response = if request.query_value("attributes").is_some() {
            object.attributes(request)
        } else if let Some(replaced) = self.settings.habits.replace(request, &object) {
            replaced
        } else {
            object.serve(request)?
        };
        Ok(if self.settings.versioned {
            response.header("x-amz-version-id", &object.version_id)
        } else {
            response
        })
    }
}

fn put(
    buckets: &mut Buckets,
    bucket: &str,
    key: &str,
    blob: Blob,
    options: ObjectOptions,
    keep_versions: bool,
) {
    let versions = buckets.entry(bucket.to_owned()).or_default().entry(key.to_owned()).or_default();
    let object = Object::new(blob, options, versions.len());
    if !keep_versions {
        versions.clear();
    }
    versions.push(Arc::new(object));
}

const DEFAULT_REGION: &str = "us-east-1";
