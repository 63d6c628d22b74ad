//! Asks for the pages of a listing, in the newer way or in the one that the server knows.

use std::collections::HashSet;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_s3::types::EncodingType;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::BeforeDeserializationInterceptorContextMut;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::ConfigBag;

use super::client::Bucket;
use super::errors::Asked;
use super::failures::Failed;
use super::page::{Next, Page};
use super::problem::ListingProblem;
use crate::net::SourceError;

/// Pages in a row that bring nothing, and say that there are more.
const MAX_EMPTY_PAGES: usize = 100;

/// The keys of a bucket that begin with `base`, page by page.
pub struct Pages<'a> {
    bucket: &'a Bucket,
    base: &'a str,
    /// `None` at the end.
    next: Option<Next>,
    tokens: HashSet<String>,
    empty: usize,
}

impl<'a> Pages<'a> {
    pub fn of(bucket: &'a Bucket, base: &'a str) -> Self {
        // Nothing comes before the first key.
        let next = Some(Next::End);
        Self { bucket, base, next, tokens: HashSet::new(), empty: 0 }
    }

    /// The next page, or `None` after the last one.
    pub async fn next(&mut self) -> Result<Option<Page>, SourceError> {
        let Some(from) = self.next.take() else {
            return Ok(None);
        };
        let asked = Asked::List(self.base);
        let page =
            self.ask(&from).await.map_err(|failed| failed.explain(&self.bucket.name, asked))?;
        // Some servers look through many deleted keys for a page, and find none.
        self.empty = if page.objects.is_empty() { self.empty + 1 } else { 0 };
        let goes_on = match &page.next {
            Next::End => true,
            Next::Token(token) => self.tokens.insert(token.clone()),
            Next::After(key) => !matches!(&from, Next::After(before) if before >= key),
        };
        if !goes_on || self.empty > MAX_EMPTY_PAGES {
            let bucket = self.bucket.name.clone();
            return Err(SourceError::Protocol(ListingProblem::Cut { bucket }.into()));
        }
        if page.next != Next::End {
            self.next = Some(page.next.clone());
        }
        Ok(Some(page))
    }

    async fn ask(&self, from: &Next) -> Result<Page, Failed> {
        if self.bucket.lists_v1.load(Relaxed) {
            return self.ask_v1(from).await;
        }
        let refusal = match self.ask_v2(from).await {
            Err(Failed::Refused(refusal)) if refusal.is_unknown_call() => refusal,
            Ok(page) => {
                // It has not understood the question, and would not understand the next one.
                self.bucket.lists_v1.store(page.is_v1, Relaxed);
                return Ok(page);
            }
            failed => return failed,
        };
        match self.ask_v1(from).await {
            Ok(page) => {
                self.bucket.lists_v1.store(true, Relaxed);
                Ok(page)
            }
            // The first no was about something else.
            Err(Failed::Refused(_)) => Err(Failed::Refused(refusal)),
            failed => failed,
        }
    }

    async fn ask_v2(&self, from: &Next) -> Result<Page, Failed> {
        let caught = Caught::default();
        let (token, after) = match from {
            Next::End => (None, None),
            Next::Token(token) => (Some(token.clone()), None),
            Next::After(key) => (None, Some(key.clone())),
        };
        let prefix = (!self.base.is_empty()).then(|| self.base.to_owned());
        let asking = self.bucket.try_call(|client| {
            let request = client.list_objects_v2().bucket(&self.bucket.name);
            // Keys may hold characters that XML cannot.
            let request = request.encoding_type(EncodingType::Url).set_prefix(prefix.clone());
            let request = request.set_continuation_token(token.clone());
            let request = request.set_start_after(after.clone());
            request.customize().interceptor(caught.clone()).send()
        });
        asking.await?;
        Page::parse(&caught.take(), self.base).map_err(Failed::Otherwise)
    }

    async fn ask_v1(&self, from: &Next) -> Result<Page, Failed> {
        let caught = Caught::default();
        let marker = match from {
            Next::End => None,
            Next::Token(text) | Next::After(text) => Some(text.clone()),
        };
        let prefix = (!self.base.is_empty()).then(|| self.base.to_owned());
        let asking = self.bucket.try_call(|client| {
            let request = client.list_objects().bucket(&self.bucket.name);
            let request = request.encoding_type(EncodingType::Url).set_prefix(prefix.clone());
            let request = request.set_marker(marker.clone());
            request.customize().interceptor(caught.clone()).send()
        });
        asking.await?;
        Page::parse(&caught.take(), self.base).map_err(Failed::Otherwise)
    }
}

/// Takes the body of an answer away before the SDK reads it, which would refuse a date that it does
/// not know.
#[derive(Clone, Debug, Default)]
struct Caught(Arc<Mutex<Vec<u8>>>);

impl Caught {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Intercept for Caught {
    fn name(&self) -> &'static str {
        "Caught"
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response_mut();
        if response.status().is_success() {
            let body = response.body().bytes().unwrap_or_default().to_vec();
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = body;
            *response.body_mut() = SdkBody::from("<ListBucketResult/>");
        }
        Ok(())
    }
}
