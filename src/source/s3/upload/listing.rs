//! What lies below the prefix already: objects, and uploads that were not finished.

use std::collections::HashMap;

use super::Sink;
use crate::model::SENTINEL;
use crate::net::SourceError;
use crate::source::s3::errors::Asked;
use crate::source::s3::failures::Failed;
use crate::source::s3::pages::Pages;
use crate::source::s3::stamp::strong;

/// Uploads and keys are asked for in so many pages at most.
const MAX_PAGES: usize = 100;

/// An object as the listing tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredObject {
    /// Bytes; none where the store does not list them.
    pub size: Option<u64>,
    /// With its quotes.
    pub etag: Option<String>,
}

impl Sink {
    /// Every object below the prefix that `is_wanted` names, by its path; and how many others there are.
    pub async fn objects(
        &self,
        is_wanted: impl Fn(&str) -> bool,
    ) -> Result<(HashMap<String, StoredObject>, usize), SourceError> {
        let (mut objects, mut others) = (HashMap::new(), 0);
        let mut pages = Pages::of(&self.bucket, &self.base);
        while let Some(page) = pages.next().await? {
            for found in page.objects {
                let Some(path) = found.key.strip_prefix(&self.base) else { continue };
                if !is_wanted(path) {
                    others += usize::from(path != SENTINEL);
                    continue;
                }
                let etag = found.etag.as_deref().and_then(strong);
                objects.insert(path.to_owned(), StoredObject { size: found.size, etag });
            }
        }
        Ok((objects, others))
    }

    /// The last upload of each path that was begun and not finished, as far as the store tells.
    pub async fn unfinished(&self) -> Result<HashMap<String, String>, SourceError> {
        let mut uploads: HashMap<String, (Option<i64>, String)> = HashMap::new();
        let (mut key, mut id): (Option<String>, Option<String>) = (None, None);
        for _ in 0..MAX_PAGES {
            let asking = self.bucket.try_call(|client| {
                let request = client.list_multipart_uploads().bucket(&self.bucket.name);
                let request = request.prefix(&self.base).set_key_marker(key.clone());
                request.set_upload_id_marker(id.clone()).send()
            });
            let page = match asking.await {
                Ok(page) => page,
                // Not allowed, or not known here: then nothing is resumed.
                Err(Failed::Refused(refusal)) if !refusal.is_passing() => break,
                Err(Failed::Otherwise(SourceError::Protocol(_))) => break,
                Err(failed) => {
                    return Err(failed.explain(&self.bucket.name, Asked::List(&self.base)));
                }
            };
            for upload in page.uploads() {
                let (Some(key), Some(id)) = (upload.key(), upload.upload_id()) else { continue };
                let Some(path) = key.strip_prefix(&self.base) else { continue };
                let begun = upload.initiated().map(|time| time.secs());
                let known = uploads.get(path);
                if known.is_none_or(|(before, _)| *before <= begun) {
                    uploads.insert(path.to_owned(), (begun, id.to_owned()));
                }
            }
            let next = (page.next_key_marker().map(str::to_owned), page.next_upload_id_marker());
            let goes_on = page.is_truncated() == Some(true) && next.0.is_some();
            let next = (next.0, next.1.map(str::to_owned));
            if !goes_on || next == (key.clone(), id.clone()) {
                break;
            }
            (key, id) = next;
        }
        Ok(uploads.into_iter().map(|(path, (_, id))| (path, id)).collect())
    }
}
