//! How one bucket or container is asked. Each call is one attempt.

use std::ops::Range;

use async_trait::async_trait;
use reqwest::{Client, Response};

use super::refusal::{Asked, Failed, Refusal, Why};
use crate::model::Digest;
use crate::net::{SourceError, Via};

/// One object, as it is listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub key: String,
    /// `None` where the store does not say, or not in digits.
    pub size: Option<u64>,
    /// What a read has to name: a generation, or an ETag with its quotes.
    pub version: Option<String>,
    pub digest: Option<Digest>,
    /// It stands for a directory, whatever its name.
    pub is_directory: bool,
}

/// One page of a listing.
#[derive(Debug, Default)]
pub struct Page {
    pub objects: Vec<Found>,
    /// How it goes on, if it does.
    pub next: Option<String>,
}

/// A bucket or a container.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// `gs://bucket/`, `az://account/container/`: a key behind it makes a SOURCE.
    fn place(&self) -> &str;

    /// The place below which `mirror` can have written what lies below `base`.
    fn mirrored_place(&self, base: &str) -> String {
        format!("{}{base}", self.place())
    }

    /// How messages call it: ``bucket `name` ``.
    fn called(&self) -> &str;

    /// Objects whose keys begin with `base`.
    async fn page(&self, base: &str, token: Option<&str>) -> Result<Page, Failed>;

    /// The object of exactly this key; `None` if there is none.
    async fn look(&self, key: &str) -> Result<Option<Found>, Failed>;

    /// Asks for `range` of that version of `key`, or for all of it. The answer is a success, and of that
    /// version.
    async fn get(
        &self,
        via: Via<'_>,
        key: &str,
        version: Option<&str>,
        range: Option<&Range<u64>>,
    ) -> Result<Response, Failed>;

    /// For what is asked beside the reads of the workers.
    fn client(&self) -> Result<Client, SourceError>;

    /// What a refusal means.
    fn why(&self, refusal: &Refusal, asked: Asked<'_>) -> Why;

    /// What a person can do about it.
    fn hint(&self, why: Why, asked: Asked<'_>) -> Option<String>;

    /// Whose credentials were used: `with AZURE_STORAGE_KEY`, `without credentials`.
    fn asked_by(&self) -> String;
}
