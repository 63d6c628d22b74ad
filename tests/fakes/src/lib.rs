//! Local stand-ins for the places model weights come from, with faults injected at the wire.
//!
//! Knows nothing of the program under test: it speaks HTTP/1.1 over plain sockets on
//! `127.0.0.1`, one thread per connection, and everything stops when the value is dropped.
//!
//! ```
//! use weightlift_fakes::{Blob, FakeHub, Fault, Rule, Tree};
//!
//! let tree = Tree::new()
//!     .with("config.json", "{}")
//!     .with_blob("model.safetensors", Blob::synthetic(1 << 20, 7));
//! let hub = FakeHub::serving("org/tiny", tree);
//! hub.script(Rule::on("GET", "model.safetensors").at("cdn").once().then(Fault::CutAfter(1_000)));
//! // … run something with HF_ENDPOINT set to `hub.url()` …
//! assert_eq!(hub.log().count("*", ""), 0);
//! ```
//!
//! # In brief
//!
//! ```text
//! Blob::bytes(b) synthetic(size, seed) zeros(size) file(&Path)  .announcing_sha256(hex)
//!     .len() .read_at(offset, &mut buf) .to_vec() .sha256() .git_sha1() .checksum(Checksum) …
//! Tree::new() from_dir(&Path)  .with(path, bytes) .with_blob(path, blob) .without(path)
//!     .total_bytes() .len() .blob(path) .iter()
//! FakeHub::serving(repo, tree) | FakeHub::builder().repo(repo, tree)….start()
//!     .url() .cdn_url() .script(rule) .log() .commit(repo) .move_branch(repo, branch, tree)
//! FakeHub::builder().xet()….start()                large files also from a chunk store
//!     .cas_url() .transfer_url() .xet_lie(lie) .xet_honest() .xet_new_bytes(repo, path, old, new)
//! FakeS3::builder().object(bucket, key, blob)….start()
//!     .url() .script(rule) .log() .overwrite(bucket, key, blob) .etag(bucket, key)
//! FakeDragonfly::start(behind_tls)  .url() .script(rule) .requests() .tasks() .have(task, blob)
//! FakeRegistry::serving(name, tag, &tree) | FakeRegistry::builder().artifact(name, tag, &layers)….start()
//!     .host() .digest(name, tag) .push(name, tag, &layers) .expire_tokens() .script(rule) .log()
//! FakeGcs::builder().object(bucket, key, blob)….start(), FakeAzure::builder(account)…   as FakeS3
//! Rule::on(method, substring) .at(origin) .skip(n) .times(n) .once()
//!     .when_range_starts_at(offset) .when_header(name, substring) .then(fault)
//! Link::of(bytes_per_second) .set_speed(bytes_per_second)   shared by every answer that goes over it
//! Log: .requests() .count(method, substring) .body_bytes() .bytes_sent_for(substring)
//!     .bytes_sent_twice() .clear()
//! Server::start(|request| Response::json(200, &value))  .url()
//! Relay::proxy(user) everywhere(port) everywhere_at(port, rate_of)  .port() .seen()
//! script.observed(origin, &log, handler)   puts a script and a log around such a closure
//! ```
//!
//! # What is here
//!
//! | Type | Stands for |
//! |---|---|
//! | [`FakeHub`] | the hub (API, `resolve`) and, on a second port, the CDN it redirects to |
//! | [`FakeHub`] with `xet()` | also Xet's chunk store and, on a fourth port, its transfer host |
//! | [`XetLie`] | what that store says and is not true |
//! | [`FakeS3`] | an S3 endpoint, path style, with checksums, versions, `SigV4` checking; read-only unless told |
//! | [`FakeDragonfly`] | the proxy of a node's dfdaemon, and the peers behind it |
//! | [`FakeModelScope`] | ModelScope and the storage behind it |
//! | [`FakeWeb`] | a static web server, with or without a login |
//! | [`FakeRegistry`] | a registry of OCI artifacts, its token server and the store it redirects to |
//! | [`FakeAzure`] | Azure Blob Storage, path style, read-only, with `SharedKey` checking |
//! | [`FakeGcs`] | Google Cloud Storage by its JSON API, read-only, with generations |
//! | [`Server`] | any other HTTP service: a closure from [`Request`] to [`Response`] |
//! | [`Relay`] | a proxy (SOCKS, CONNECT), or a host with many addresses |
//! | [`Blob`], [`Tree`] | file contents, in memory, on disk or computed; paths with contents |
//! | [`Link`] | a link that all connections share |
//! | [`Rule`], [`Fault`], [`Script`] | what goes wrong, when, how often |
//! | [`Log`], [`Logged`] | every request that arrived and how many body bytes it got |

mod azure;
mod azure_key;
mod blob;
mod cas;
mod cas_chunks;
mod cas_lies;
mod cas_links;
mod cas_store;
mod cas_terms;
mod cloud_objects;
mod date;
mod dragonfly;
mod gcs;
pub mod http;
mod hub;
mod hub_api;
mod hub_builder;
mod hub_cdn;
mod hub_control;
mod hub_repos;
mod hub_resolve;
mod hub_routes;
mod hub_xet;
mod link;
mod log;
mod modelscope;
mod registry;
mod registry_auth;
mod relay;
mod response;
mod s3;
mod s3_habits;
mod s3_list;
mod s3_object;
mod s3_write;
mod s3_xml;
mod script;
mod sigv4;
mod text;
mod tree;
mod web;
mod wire;

pub use azure::{FakeAzure, FakeAzureBuilder};
pub use blob::{Blob, Checksum};
pub use cas_lies::XetLie;
pub use cloud_objects::CloudObject;
pub use dragonfly::FakeDragonfly;
pub use gcs::{FakeGcs, FakeGcsBuilder};
pub use http::{Body, Request, Response, Server};
pub use hub::FakeHub;
pub use hub_builder::FakeHubBuilder;
pub use link::Link;
pub use log::{Log, Logged};
pub use modelscope::{FakeModelScope, FakeModelScopeBuilder};
pub use registry::{FakeRegistry, FakeRegistryBuilder, Layer};
pub use registry_auth::Access;
pub use relay::{Relay, Relayed};
pub use s3::{FakeS3, FakeS3Builder, ObjectOptions, OldListing};
pub use s3_habits::{Habits, Unpacks};
pub use s3_write::Writes;
pub use script::{Fault, Rule, Script};
pub use tree::Tree;
pub use web::{FakeWeb, FakeWebBuilder};
