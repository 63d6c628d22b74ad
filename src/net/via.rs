//! What a request is sent by, and the detour that one for known bytes may take.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::HeaderMap;
use reqwest::{Client, Response};
use url::Url;

use super::SourceError;
use crate::model::RemoteFile;

/// Bytes that are asked for: which file they are of, and which part.
#[derive(Clone, Debug)]
pub struct Content {
    pub sha256: [u8; 32],
    pub size: u64,
    pub range: Range<u64>,
}

/// What sends a request: a client of the caller's, and where it is for bytes, whose.
#[derive(Clone, Debug)]
pub struct Via<'a> {
    pub client: &'a Client,
    content: Option<Content>,
}

impl<'a> From<&'a Client> for Via<'a> {
    fn from(client: &'a Client) -> Self {
        Self { client, content: None }
    }
}

impl<'a> Via<'a> {
    /// The answer is to be `range` of `file`, and nothing else.
    pub fn bytes(client: &'a Client, file: &RemoteFile, range: &Range<u64>) -> Self {
        let sha256 = file.digest.as_ref().and_then(|digest| digest.sha256());
        let content =
            sha256.map(|sha256| Content { sha256, size: file.size, range: range.clone() });
        Self { client, content }
    }

    pub fn content(&self) -> Option<&Content> {
        self.content.as_ref()
    }
}

/// Makes a client that sends everything through a proxy.
pub type MakeClient<'a> = &'a (dyn Fn(&Url) -> Result<Client, SourceError> + Send + Sync);

/// Another way to bytes whose content is known.
#[async_trait]
pub trait Detour: Send + Sync {
    /// Nothing: the origin is to be asked, as if there were no other way.
    async fn ask(
        &self,
        make: MakeClient<'_>,
        url: &Url,
        headers: &HeaderMap,
        content: &Content,
        deadline: Duration,
    ) -> Option<Response>;

    /// Is told that a file came out wrong. Whether its bytes came this way, which then is to blame.
    fn is_to_blame(&self, file: &RemoteFile) -> bool;

    /// Warnings for the user that have come up since the last call.
    fn warnings(&self) -> Vec<String>;
}

/// Whom to tell that a body did not bring what its head had promised: in the extensions of an answer.
#[derive(Clone)]
pub struct BrokeOff(pub Arc<dyn Fn() + Send + Sync>);

impl fmt::Debug for BrokeOff {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("BrokeOff")
    }
}
