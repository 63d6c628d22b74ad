//! One request for chunks of a xorb, and the chunks as they come.

use bytes::{Bytes, BytesMut};
use reqwest::header::{HeaderMap, RANGE};
use reqwest::{Client, Method};

use super::answer::Fetch;
use super::chunk::{HEAD_BYTES, Head, Unpacker};
use super::problem::{What, XetProblem};
use crate::model::RelPath;
use crate::net::http::{self, Http, MAX_REDIRECTS};
use crate::net::{Body, HttpProblem, Part, Peer, SourceError};
use crate::source::hub::refusals::Refusal;
use crate::source::status::OfStorage;

/// What is left of an answer is read to its end if it is less, so that the connection can be used again.
const READ_OFF_BYTES: u64 = 256 << 10;

/// Chunks on their way.
pub struct Fetching {
    fetch: Fetch,
    body: Body,
    /// Bytes that have come and belong to the next chunk.
    come: Bytes,
    /// Number of the next chunk.
    chunk: u32,
    /// Bytes that the body has still to bring.
    left: u64,
    host: String,
    path: RelPath,
}

impl Fetching {
    /// A link that is refused is [`SourceError::Again`]: another one may not be.
    pub async fn open(
        http: &Http,
        client: &Client,
        path: &RelPath,
        fetch: Fetch,
    ) -> Result<Self, SourceError> {
        let mut url = (*fetch.url).clone();
        let mut headers = HeaderMap::new();
        if let Some(value) = http::range_header(&fetch.bytes) {
            headers.insert(RANGE, value);
        }
        for _ in 0..=MAX_REDIRECTS {
            let response = http.send(client, Method::GET, &url, headers.clone()).await?;
            if let Some(target) = http::redirect_target(&url, &response)? {
                http::read_off(response, http.deadlines.stall).await;
                url = target;
                continue;
            }
            let host = http::origin(response.url());
            let status = response.status();
            if !status.is_success() {
                let refused = Refusal::read(response, http.deadlines.stall).await;
                let told = XetProblem {
                    host,
                    file: Some(path.clone()),
                    status: Some(status.as_u16()),
                    what: What::Refused(refused.told()),
                };
                let class = match OfStorage::of(status) {
                    OfStorage::Link | OfStorage::Gone => SourceError::Again,
                    OfStorage::No => SourceError::Access,
                    OfStorage::Trouble => SourceError::Unreachable,
                    OfStorage::Broken => SourceError::Protocol,
                };
                return Err(class(told.into()));
            }
            let part = Part { name: path.as_str(), size: None, range: fetch.bytes.clone() };
            let body = Body::open_part(http, response, &part)?;
            let (chunk, left) = (fetch.chunks.start, fetch.bytes.end - fetch.bytes.start);
            let path = path.clone();
            return Ok(Self { fetch, body, come: Bytes::new(), chunk, left, host, path });
        }
        let (host, most) = (http::origin(&url), MAX_REDIRECTS);
        Err(SourceError::Protocol(HttpProblem::ManyRedirects { host, most }.into()))
    }

    pub fn peer(&self) -> Option<Peer> {
        self.body.peer()
    }

    /// Whether chunk number `chunk` of `block` is still to come, after at most so many others.
    pub fn brings(&self, block: &[u8; 32], chunk: u32, most_before: u32) -> bool {
        self.fetch.block == *block
            && (self.chunk..self.fetch.chunks.end).contains(&chunk)
            && chunk - self.chunk <= most_before
    }

    /// Chunk number `wanted`, which is still to come. Those before it are passed over.
    pub async fn chunk(
        &mut self,
        wanted: u32,
        unpacker: &mut Unpacker,
    ) -> Result<Bytes, SourceError> {
        loop {
            let head = self.take(HEAD_BYTES).await?;
            let head = head.as_ref().try_into().map_err(|_| self.odd("it has no head"))?;
            let head = Head::read(head).map_err(|why| self.odd(why))?;
            let data = self.take(head.packed as usize).await?;
            let number = self.chunk;
            self.chunk += 1;
            if number == wanted {
                return unpacker.unpack(head, data).map_err(|why| self.odd(why));
            }
        }
    }

    /// Ends the request. Whoever drops it instead closes the connection.
    pub async fn end(mut self) {
        if self.left <= READ_OFF_BYTES {
            while let Ok(Some(_)) = self.body.next().await {}
        }
    }

    pub fn odd(&self, why: &'static str) -> SourceError {
        let (host, file) = (self.host.clone(), Some(self.path.clone()));
        let problem = XetProblem { host, file, status: None, what: What::Chunk(why) };
        SourceError::Protocol(problem.into())
    }

    /// The next `len` bytes; not copied if they have come in one piece.
    async fn take(&mut self, len: usize) -> Result<Bytes, SourceError> {
        if self.come.is_empty() {
            self.more().await?;
        }
        if self.come.len() >= len {
            return Ok(self.come.split_to(len));
        }
        let mut whole = BytesMut::with_capacity(len);
        whole.extend_from_slice(&std::mem::take(&mut self.come));
        while whole.len() < len {
            self.more().await?;
            let rest = self.come.len().min(len - whole.len());
            whole.extend_from_slice(&self.come.split_to(rest));
        }
        Ok(whole.freeze())
    }

    async fn more(&mut self) -> Result<(), SourceError> {
        match self.body.next().await? {
            Some(piece) => {
                self.left = self.left.saturating_sub(piece.len() as u64);
                self.come = piece;
                Ok(())
            }
            None => Err(self.odd("the range ends before the chunk does")),
        }
    }
}
