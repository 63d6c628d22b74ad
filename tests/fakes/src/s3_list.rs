//! `ListObjectsV2`, `ListObjects` and the few other questions one can ask of a bucket.

use std::ops::Bound;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::date::iso_date;
use crate::http::{Request, Response};
use crate::s3::{Keys, State};
use crate::s3_object::Object;
use crate::s3_xml::Element;
use crate::text::percent_encode;

impl State {
    /// Keys in order, a page at a time. A delimiter is ignored: all keys below it are listed.
    pub(crate) fn list(&self, request: &Request, bucket: &str, keys: &Keys) -> Response {
        if request.query_value("location").is_some() {
            let region = self.settings.region.as_deref().unwrap_or_default();
            return Element::root("LocationConstraint").content(region).into_response(200);
        }
        if request.query_value("versioning").is_some() {
            let root = Element::root("VersioningConfiguration");
            let versioned = self.settings.versioned;
            let root = if versioned { root.text("Status", "Enabled") } else { root };
            return root.into_response(200);
        }
        let asked = |name: &str| request.query_value(name);
        let prefix = asked("prefix").unwrap_or_default();
        let limit = self.settings.page_size.unwrap_or(PAGE_SIZE);
        let most = asked("max-keys").and_then(|it| it.parse().ok()).unwrap_or(PAGE_SIZE).min(limit);
        let is_v2 = asked("list-type").is_some() && self.settings.old_listing.is_none();
        let marker = asked("marker").filter(|_| !is_v2);
        let token = asked("continuation-token").filter(|_| is_v2);
        let after = token
            .as_ref()
            .and_then(|token| STANDARD.decode(token).ok())
            .and_then(|token| String::from_utf8(token).ok())
            .or_else(|| asked("start-after").filter(|_| is_v2))
            .or_else(|| marker.clone())
            .unwrap_or_default();
        let spelled = |key: &str| match asked("encoding-type").as_deref() {
            Some("url") => percent_encode(key, "/"),
            _ => key.to_owned(),
        };

        let mut matching = keys
            .range::<str, _>((Bound::Excluded(after.as_str()), Bound::Unbounded))
            .filter(|(key, _)| key.starts_with(&prefix))
            .filter_map(|(key, versions)| Some((key, versions.last()?.as_ref())));
        let page: Vec<(&String, &Object)> = matching.by_ref().take(most).collect();
        let truncated = matching.next().is_some() && !page.is_empty();

        let mut root = Element::root("ListBucketResult")
            .text("Name", bucket)
            .text("Prefix", &spelled(&prefix))
            .text("MaxKeys", &most.to_string())
            .text("IsTruncated", if truncated { "true" } else { "false" });
        root = match is_v2 {
            true => root.text("KeyCount", &page.len().to_string()),
            false => root.text("Marker", &spelled(marker.as_deref().unwrap_or_default())),
        };
        if let Some(encoding) = asked("encoding-type") {
            root = root.text("EncodingType", &encoding);
        }
        if let Some(token) = token {
            root = root.text("ContinuationToken", &token);
        }
        // The older way says nothing: the last key is where it goes on.
        if let (true, true, Some((last, _))) = (is_v2, truncated, page.last()) {
            root = root.text("NextContinuationToken", &STANDARD.encode(last));
        }
        for (key, object) in page {
            let etag = self.settings.habits.listed_etag(object);
            root = root.child(contents(&spelled(key), object, &etag));
        }
        root.into_response(200)
    }
}

fn contents(key: &str, object: &Object, etag: &str) -> Element {
    let mut contents = Element::new("Contents")
        .text("Key", key)
        .text("LastModified", &iso_date(object.modified))
        .text("ETag", etag)
        .text("Size", &object.blob.len().to_string())
        .text("StorageClass", object.storage_class());
    if let Some((algorithm, kind)) = object.listed_checksum() {
        contents = contents.text("ChecksumAlgorithm", algorithm).text("ChecksumType", kind);
    }
    contents
}

const PAGE_SIZE: usize = 1000;
