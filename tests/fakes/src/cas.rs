//! The content-addressed store behind the hub: tokens, and which terms a file has.
//!
//! Knows of repositories only what a token was made for. Bytes are at the transfer host.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::blob::Blob;
use crate::cas_lies::{Lies, Part, XetLie};
use crate::cas_links::Links;
use crate::cas_store::{Piece, Store, Xorb};
use crate::cas_terms::{FetchRange, Reconstruction, Signer};
use crate::date::unix_seconds;
use crate::http::{Body, RangeAsked, Request, Response};
use crate::hub_repos::Snapshot;
use crate::text::hex;

pub(crate) struct Cas {
    pub rules: CasRules,
    pub store: Store,
    pub links: Arc<Links>,
    pub lies: Arc<Lies>,
    pub transfer_url: String,
    pub tokens: Tokens,
}

#[derive(Clone, Copy)]
pub(crate) struct CasRules {
    pub token_lifetime: Duration,
    pub version_1_only: bool,
    /// A link of a version 2 answer is good for at most so many ranges.
    pub ranges_per_link: usize,
}

/// The tokens that were given out, each for one commit of one repository.
#[derive(Default)]
pub(crate) struct Tokens {
    granted: Mutex<HashMap<String, (Arc<Snapshot>, Instant)>>,
    minted: AtomicU64,
}

/// Why there is no answer.
struct Refusal {
    status: u16,
    message: &'static str,
    /// Of the file that was asked for, when the range is the reason.
    size: Option<u64>,
}

type Answer = Result<Response, Refusal>;

impl Cas {
    /// What the hub answers to a client that may read this commit. Some clients read the headers.
    pub fn token(&self, snapshot: &Arc<Snapshot>, cas_url: &str) -> Response {
        let lifetime = self.rules.token_lifetime;
        let token = self.tokens.grant(snapshot, lifetime);
        let expires = unix_seconds(SystemTime::now()) + lifetime.as_secs();
        let cas_url = match self.lies.tell(Part::Token) {
            Some(XetLie::CasAt(url)) => url,
            _ => cas_url.to_owned(),
        };
        let answer = json!({"accessToken": token, "exp": expires, "casUrl": cas_url});
        Response::json(200, &answer)
            .header("X-Xet-Access-Token", &token)
            .header("X-Xet-Token-Expiration", &expires.to_string())
            .header("X-Xet-Cas-Url", &cas_url)
    }

    /// Makes the large files of a commit known.
    pub fn register(&self, snapshot: &Snapshot) {
        for file in snapshot.files.values() {
            if let Some(lfs) = &file.lfs {
                self.store.register(&lfs.xet_hash, &file.blob);
            }
        }
    }

    pub fn answer(&self, request: &Request) -> Response {
        self.route(request).unwrap_or_else(Refusal::into_response)
    }

    fn route(&self, request: &Request) -> Answer {
        let segments = request.segments();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let version_2 = !self.rules.version_1_only;
        match (request.method.as_str(), segments.as_slice()) {
            ("GET", ["v2", "reconstructions", id]) if version_2 => {
                let answer = self.reconstruction(request, id)?;
                let per_link = self.rules.ranges_per_link;
                Ok(self.told(answer, |it, sign| it.version_2(per_link, sign)))
            }
            ("GET", ["v1", "reconstructions", id]) => {
                let answer = self.reconstruction(request, id)?;
                Ok(self.told(answer, |it, sign| it.version_1(sign)))
            }
            ("POST", ["v1", "reconstructions"]) => {
                let answer = self.batch(request, &posted(request)?)?;
                Ok(self.told(answer, |it, sign| it.batch(sign)))
            }
            // As the reference client asks.
            ("GET", ["v1", "reconstructions"]) => {
                let answer = self.batch(request, &request.query_values("file_id"))?;
                Ok(self.told(answer, |it, sign| it.batch(sign)))
            }
            ("HEAD", ["v1", "files", id]) => {
                let commit = self.commit_of(request)?;
                let blob = self.file(&commit, id)?;
                let end = blob.len();
                let body = Body::Blob { blob, start: 0, end };
                Ok(Response { body, ..Response::new(200) })
            }
            _ => Err(refusal(404, "Not found")),
        }
    }

    fn reconstruction(&self, request: &Request, id: &str) -> Result<Reconstruction, Refusal> {
        let commit = self.commit_of(request)?;
        let size = self.file(&commit, id)?.len();
        let asked: Range<u64> = match request.range_for(size) {
            RangeAsked::Whole => 0..size,
            RangeAsked::Part(range) => range,
            RangeAsked::Unsatisfiable => {
                let behind = refusal(416, "The range is behind the end of the file");
                return Err(Refusal { size: Some(size), ..behind });
            }
        };
        Ok(Reconstruction::of_range(&self.store, id, &self.pieces(id)?, &asked))
    }

    fn batch(&self, request: &Request, ids: &[String]) -> Result<Reconstruction, Refusal> {
        let commit = self.commit_of(request)?;
        let mut files = Vec::new();
        for id in ids {
            self.file(&commit, id)?;
            files.push((id.clone(), self.pieces(id)?));
        }
        Ok(Reconstruction::of_files(&self.store, &files))
    }

    /// The answer in the form that was asked for, with the lie that is to be told.
    fn told(
        &self,
        mut answer: Reconstruction,
        form: impl Fn(&Reconstruction, &Signer) -> Value,
    ) -> Response {
        let lie = self.lies.tell(Part::Answer);
        if let Some(lie) = &lie {
            lie.change_answer(&mut answer);
        }
        let origin = lie.as_ref().and_then(XetLie::link_origin).unwrap_or(&self.transfer_url);
        let sign = |xorb: &Arc<Xorb>, ranges: &[FetchRange]| {
            format!("{origin}{}", self.links.mint(xorb, ranges))
        };
        let answer = form(&answer, &sign);
        let response = Response::json(200, &answer);
        match lie.and_then(|lie| lie.change_text(&answer)) {
            Some(text) => response.body(text),
            None => response,
        }
    }

    /// The commit that the request's token is for.
    fn commit_of(&self, request: &Request) -> Result<Arc<Snapshot>, Refusal> {
        let sent = request.header("authorization").and_then(|it| it.strip_prefix("Bearer "));
        sent.and_then(|token| self.tokens.commit_of(token))
            .ok_or_else(|| refusal(401, "Unauthorized"))
    }

    fn file(&self, commit: &Snapshot, id: &str) -> Result<Blob, Refusal> {
        if id.len() != 64 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(refusal(400, "Invalid hash"));
        }
        let blob = self.store.file(id).ok_or_else(|| refusal(404, "No such file"))?;
        let mut large = commit.files.values().filter_map(|file| file.lfs.as_ref());
        if large.any(|lfs| lfs.xet_hash == id) {
            Ok(blob)
        } else {
            Err(refusal(403, "The token is not for this file"))
        }
    }

    fn pieces(&self, id: &str) -> Result<Arc<Vec<Piece>>, Refusal> {
        self.store.pieces(id).ok_or_else(|| refusal(404, "No such file"))
    }
}

/// The files that the body of a batch names.
fn posted(request: &Request) -> Result<Vec<String>, Refusal> {
    let malformed = || refusal(400, "An array of prefix and hash is wanted");
    let asked: Vec<Value> = serde_json::from_slice(&request.body).map_err(|_| malformed())?;
    let id = |key: &Value| {
        let id = key["hash"].as_str().filter(|_| key["prefix"] == "default");
        id.map(str::to_owned).ok_or_else(malformed)
    };
    asked.iter().map(id).collect()
}

impl Tokens {
    fn grant(&self, snapshot: &Arc<Snapshot>, lifetime: Duration) -> String {
        let number = self.minted.fetch_add(1, Ordering::Relaxed);
        let token = format!("xet_{}", hex(&Sha256::digest(format!("token {number}"))));
        let grant = (Arc::clone(snapshot), Instant::now() + lifetime);
        self.granted.lock().unwrap_or_else(PoisonError::into_inner).insert(token.clone(), grant);
        token
    }

    fn commit_of(&self, token: &str) -> Option<Arc<Snapshot>> {
        let granted = self.granted.lock().unwrap_or_else(PoisonError::into_inner);
        let (snapshot, until) = granted.get(token)?;
        (Instant::now() < *until).then(|| Arc::clone(snapshot))
    }
}

impl Refusal {
    fn into_response(self) -> Response {
        let response = Response::json(self.status, &json!({"error": self.message}));
        match self.size {
            Some(size) => response.header("Content-Range", &format!("bytes */{size}")),
            None => response,
        }
    }
}

fn refusal(status: u16, message: &'static str) -> Refusal {
    Refusal { status, message, size: None }
}
