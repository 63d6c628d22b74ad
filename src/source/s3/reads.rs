//! Reads the version of an object that was listed, and never a mixture of two: with `If-Match`, and
//! by the ETag of every answer.
//!
//! Some stores refuse an `If-Match` that matches, some list other ETags than their objects have. So
//! where an answer contradicts the listing, the object is looked at again: what has changed ends the
//! run, and with what stands still it goes on, by the ETag that the object itself tells.

use std::ops::Range;

use reqwest::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, HeaderValue, LAST_MODIFIED,
};
use reqwest::{Response, StatusCode};

use super::ask::Answer;
use super::client::Bucket;
use super::errors::{Asked, shown};
use super::failures::Failed;
use super::look::{Look, range_header, stored_encoding, text, total};
use super::pages::Pages;
use super::problem::ObjectProblem;
use super::sign::Ask;
use super::stamp::{Stamp, strong};
use super::transport::MAX_OBJECT_BYTES;
use super::ways::{Expected, Way};
use crate::net::{SourceError, Via, http};

/// Answers to one read that may be strange: one for each way that a store can have.
const MAX_STRANGE: u32 = 5;

/// What an answer said that is not what was listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// 412.
    Condition,
    /// Another ETag.
    Read,
    /// Another ETag of a redirect.
    Redirect,
    /// Another ETag when its checksum was asked for.
    Head,
}

impl Bucket {
    /// Asks for `range` of the version of `key` that was listed, or for all of it.
    pub async fn get(
        &self,
        via: impl Into<Via<'_>>,
        key: &str,
        listed: &Stamp,
        range: Option<&Range<u64>>,
    ) -> Result<Response, SourceError> {
        let via = via.into();
        for _ in 0..MAX_STRANGE {
            let expected = self.ways.expected(key, listed);
            let if_match = expected.as_ref().map(|expected| expected.etag.clone());
            let if_match = if_match.filter(|_| !self.ways.know(Way::NoIfMatch));
            let mut plain = range.map(range_header).unwrap_or_default();
            let packed = self.ways.encoding(key).flatten().filter(|_| range.is_some());
            if let Some(packed) = &packed
                && let Ok(value) = HeaderValue::from_str(packed)
            {
                plain.insert(ACCEPT_ENCODING, value);
            }
            let has_condition = if_match.is_some();
            let answer = match self.ask(via.clone(), key, &Ask::Get { if_match }, &plain).await {
                Ok(answer) => answer,
                Err(Failed::Refused(refusal)) if refusal.status == 412 && has_condition => {
                    self.look_again(key, listed, expected, Doubt::Condition).await?;
                    continue;
                }
                Err(failed) => return Err(failed.explain(&self.name, Asked::Object(key))),
            };
            if let Some(doubt) = self.doubt(key, listed, expected.as_ref(), &answer) {
                self.look_again(key, listed, expected, doubt).await?;
                continue;
            }
            let Some(range) = range else { return Ok(answer.response) };
            if !is_unpacked(&answer.response, listed.size, range) {
                return Ok(answer.response);
            }
            if packed.is_some() {
                return self.as_stored(key, answer.response);
            }
            if self.stored_encoding(key, &answer.response).await?.is_none() {
                return Ok(answer.response);
            }
        }
        Err(self.changed(key, Doubt::Read))
    }

    /// Reads a small object whole.
    pub async fn small_object(&self, key: &str, listed: &Stamp) -> Result<Vec<u8>, SourceError> {
        let response = self.get(&self.client()?, key, listed, None).await?;
        http::small_body(response, MAX_OBJECT_BYTES, self.http.deadlines.stall).await
    }

    /// What makes it doubtful that an answer is about the version that was listed.
    fn doubt(
        &self,
        key: &str,
        listed: &Stamp,
        expected: Option<&Expected>,
        answer: &Answer,
    ) -> Option<Doubt> {
        let (doubt, may_tell) = match answer.is_elsewhere {
            true => (Doubt::Redirect, !self.ways.know(Way::OwnRedirects)),
            false => (Doubt::Read, true),
        };
        let told = answer.etag.as_deref().filter(|_| may_tell);
        if let (Some(told), Some(expected)) = (told, expected)
            && expected.etag != told
        {
            return Some(doubt);
        }
        if let Some(told) = told.filter(|_| !answer.is_elsewhere)
            && !self.ways.told(key, listed, told)
        {
            return Some(doubt);
        }
        if !answer.is_elsewhere && !self.ways.know(Way::NoIfMatch) {
            return None;
        }
        // Nobody else holds all reads of a file to one version.
        let headers = answer.response.headers();
        let etag = || headers.get(reqwest::header::ETAG).and_then(|it| strong(it.to_str().ok()?));
        let mark = etag().or_else(|| text(headers, &LAST_MODIFIED).map(str::to_owned))?;
        let place = http::origin(answer.response.url());
        (!self.ways.marked(key, &place, mark)).then_some(doubt)
    }

    /// Looks at an object that seems to be another one than `expected`. An error if it is; otherwise
    /// the store's way is known from here on.
    pub async fn look_again(
        &self,
        key: &str,
        listed: &Stamp,
        expected: Option<Expected>,
        doubt: Doubt,
    ) -> Result<(), SourceError> {
        let _one = self.ways.looking.lock().await;
        let is_known = self.ways.expected(key, listed) != expected
            || (doubt == Doubt::Condition && self.ways.know(Way::NoIfMatch))
            || (doubt == Doubt::Redirect && self.ways.know(Way::OwnRedirects));
        // Without anything to expect, it has told two different things.
        let Some(expected) = expected.filter(|_| !is_known) else {
            return if is_known { Ok(()) } else { Err(self.changed(key, doubt)) };
        };
        let explain = |failed: Failed| failed.explain(&self.name, Asked::Object(key));
        let first = self.look(key).await.map_err(explain)?;
        if first.size != Some(listed.size) {
            return Err(self.changed(key, doubt));
        }
        if first.etag.as_ref() == Some(&expected.etag) {
            return match doubt {
                Doubt::Condition => {
                    self.ways.learn(Way::NoIfMatch, || {
                        "the store refuses `If-Match` for objects that have not changed; continuing \
                         without it, by the ETag of each answer"
                            .to_owned()
                    });
                    Ok(())
                }
                Doubt::Redirect => {
                    self.ways.learn_silently(Way::OwnRedirects);
                    Ok(())
                }
                Doubt::Read | Doubt::Head => Err(self.changed(key, doubt)),
            };
        }
        if expected.is_own || !self.stands_still(key, listed, &first).await? {
            return Err(self.changed(key, doubt));
        }
        match &first.etag {
            Some(etag) => {
                self.ways.told(key, listed, etag);
                self.ways.learn(Way::OwnListing, || {
                    format!(
                        "bucket `{}` lists ETags that differ from those of its objects; using those of the objects",
                        self.name
                    )
                });
            }
            None => self.ways.learn(Way::NoIfMatch, || {
                "the store refuses `If-Match` and sends no ETags; continuing without it".to_owned()
            }),
        }
        Ok(())
    }

    /// Whether `key` is still listed as it was, and HEAD and GET tell the same of it, twice.
    async fn stands_still(
        &self,
        key: &str,
        listed: &Stamp,
        first: &Look,
    ) -> Result<bool, SourceError> {
        let explain = |failed: Failed| failed.explain(&self.name, Asked::Object(key));
        // Of all keys that begin with this one, it is the first.
        let page = Pages::of(self, key).next().await?;
        let first_listed = page.and_then(|page| page.objects.into_iter().next());
        let again = first_listed.and_then(|it| Some(Stamp::of(it.size?, it.etag.as_deref(), None)));
        if again.as_ref() != Some(listed) {
            return Ok(false);
        }
        let read = self.first_byte(key).await.map_err(explain)?;
        let agree = first.etag.as_ref().zip(read.etag.as_ref()).is_none_or(|(a, b)| a == b);
        let second = self.look(key).await.map_err(explain)?;
        Ok(agree && read.size == first.size && second == *first)
    }

    /// The compression that `key` is stored in; asked for once.
    async fn stored_encoding(
        &self,
        key: &str,
        answer: &Response,
    ) -> Result<Option<String>, SourceError> {
        if let Some(known) = self.ways.encoding(key) {
            return Ok(known);
        }
        let encoding = match stored_encoding(answer.headers()) {
            Some(encoding) => Some(encoding),
            // An optional question.
            None => self.look(key).await.ok().and_then(|look| look.encoding),
        };
        self.ways.keep_encoding(key, encoding.clone());
        Ok(encoding)
    }

    /// An answer that may be packed, as it was asked for.
    fn as_stored(&self, key: &str, mut response: Response) -> Result<Response, SourceError> {
        let headers = response.headers();
        let is_packed = text(headers, &CONTENT_ENCODING).is_some_and(|it| !it.is_empty());
        let has_length = headers.contains_key(CONTENT_LENGTH);
        if is_packed && !has_length && response.status() == StatusCode::OK {
            // Nobody packed it on the way: these are the stored bytes, and they are counted.
            response.headers_mut().remove(CONTENT_ENCODING);
            return Ok(response);
        }
        Err(SourceError::Contradiction(ObjectProblem::Unpacked { key: shown(key) }.into()))
    }

    pub fn changed(&self, key: &str, doubt: Doubt) -> SourceError {
        let when = match doubt {
            Doubt::Head => "after it was listed",
            Doubt::Condition | Doubt::Read | Doubt::Redirect => "while it was fetched",
        };
        let (key, bucket) = (shown(key), self.name.clone());
        SourceError::Stale(ObjectProblem::Changed { key, bucket, when }.into())
    }
}

/// Whether an answer to `range` can be that of a gateway that unpacks: it is of another length than
/// the object, or of none that it tells.
fn is_unpacked(response: &Response, size: u64, range: &Range<u64>) -> bool {
    let headers = response.headers();
    let told = match response.status() {
        StatusCode::OK => text(headers, &CONTENT_LENGTH).and_then(|length| length.parse().ok()),
        _ => text(headers, &CONTENT_RANGE).and_then(total).or(Some(size)),
    };
    !range.is_empty() && told != Some(size)
}
