//! An object in parts: begun, continued by whoever finds it, completed in one step, or aborted.

use std::collections::BTreeMap;

use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumType, CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;
use reqwest::Client;

use super::Sink;
use super::object::{Before, Written, Wrote, crc_of, crc_text, is_taken, metadata, written};
use super::roots::Roots;
use super::write::{Ask, conditions};
use crate::model::Mark;
use crate::net::SourceError;
use crate::source::s3::errors::{Asked, Refusal, shown};
use crate::source::s3::failures::Failed;
use crate::source::s3::problem::ObjectProblem;
use crate::source::s3::stamp::strong;
use crate::source::s3::ways::Way;

/// S3 has no more parts in one object, and lists 1000 at once.
const MAX_PAGES: usize = 100;

/// An object that is being uploaded in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    id: String,
    /// The store was told that each part has a checksum.
    has_checksums: bool,
}

/// A part that the store has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Bytes.
    pub size: u64,
    /// With its quotes.
    pub etag: String,
    pub crc64nvme: Option<u64>,
}

impl Upload {
    /// As the store calls it.
    pub fn id(&self) -> &str {
        &self.id
    }
}

impl Sink {
    pub async fn begin(&self, path: &str, mark: &Mark) -> Result<Upload, SourceError> {
        let key = self.key(path);
        let ways = &self.bucket.ways;
        let mut has_checksums = !ways.know(Way::NoUploadChecksums);
        loop {
            let asking = self.bucket.try_call(|client| {
                let mut request = client.create_multipart_upload().bucket(&self.bucket.name);
                for (name, value) in metadata(mark) {
                    request = request.metadata(name, value);
                }
                if has_checksums {
                    request = request.checksum_algorithm(ChecksumAlgorithm::Crc64Nvme);
                    request = request.checksum_type(ChecksumType::FullObject);
                }
                request.key(&key).customize().interceptor(Roots).send()
            });
            match asking.await {
                Ok(begun) => {
                    let id = begun.upload_id().filter(|id| !id.is_empty()).map(str::to_owned);
                    let id = id.ok_or_else(|| self.broken(&key))?;
                    return Ok(Upload { id, has_checksums });
                }
                Err(Failed::Refused(refusal)) if has_checksums && refusal.is_unknown_call() => {
                    has_checksums = false;
                    self.bucket.takes_no_checksums();
                }
                Err(failed) => return Err(self.not_written(failed, &key)),
            }
        }
    }

    /// An upload that an earlier run has begun, and the parts of it that are there; none if it is gone.
    pub async fn resume(
        &self,
        path: &str,
        id: &str,
    ) -> Result<Option<(Upload, BTreeMap<u32, Part>)>, SourceError> {
        let key = self.key(path);
        let (mut parts, mut marker) = (BTreeMap::new(), None::<String>);
        let mut has_checksums = false;
        for _ in 0..MAX_PAGES {
            let asking = self.bucket.try_call(|client| {
                let request = client.list_parts().bucket(&self.bucket.name).key(&key);
                let request = request.upload_id(id).set_part_number_marker(marker.clone());
                request.customize().interceptor(Roots).send()
            });
            let page = match asking.await {
                Ok(page) => page,
                // Gone, not allowed, or told in a way that is not understood: it is begun anew.
                Err(Failed::Refused(refusal)) if !refusal.is_passing() => return Ok(None),
                Err(Failed::Otherwise(SourceError::Protocol(_))) => return Ok(None),
                Err(failed) => return Err(failed.explain(&self.bucket.name, Asked::Object(&key))),
            };
            has_checksums = page.checksum_algorithm() == Some(&ChecksumAlgorithm::Crc64Nvme);
            for part in page.parts() {
                let number = part.part_number().and_then(|number| u32::try_from(number).ok());
                let size = part.size().and_then(|size| u64::try_from(size).ok());
                let etag = part.e_tag().and_then(strong);
                if let (Some(number), Some(size), Some(etag)) = (number, size, etag) {
                    let crc64nvme = part.checksum_crc64_nvme().and_then(crc_of);
                    parts.insert(number, Part { size, etag, crc64nvme });
                }
            }
            let next = page.next_part_number_marker().map(str::to_owned);
            if page.is_truncated() != Some(true) || next.is_none() || next == marker {
                break;
            }
            marker = next;
        }
        Ok(Some((Upload { id: id.to_owned(), has_checksums }, parts)))
    }

    /// Sends a part, in place of one of the same number; none if the upload is gone.
    pub async fn part(
        &self,
        client: &Client,
        path: &str,
        upload: &Upload,
        number: u32,
        body: Bytes,
        crc64nvme: u64,
    ) -> Result<Option<Part>, SourceError> {
        let key = self.key(path);
        let size = body.len() as u64;
        let checksum = upload.has_checksums.then_some(crc64nvme);
        let ask = Ask::Part { body, upload: &upload.id, number, crc64nvme: checksum };
        let Written { etag, crc64nvme: told } = match self.bucket.write(client, &key, &ask).await {
            Ok(headers) => written(&headers),
            Err(Failed::Refused(refusal)) if is_gone(&refusal) => return Ok(None),
            Err(failed) => return Err(self.not_written(failed, &key)),
        };
        if told.is_some_and(|told| told != crc64nvme) {
            let key = self.shown(path);
            return Err(SourceError::Unreachable(
                ObjectProblem::PartDiffers { key, number }.into(),
            ));
        }
        let etag = etag.ok_or_else(|| self.broken(&key))?;
        Ok(Some(Part { size, etag, crc64nvme: told }))
    }

    /// Makes an object of `parts`, whose content has this CRC64NVME.
    pub async fn complete(
        &self,
        path: &str,
        upload: &Upload,
        parts: &BTreeMap<u32, Part>,
        crc64nvme: u64,
        before: &Before,
    ) -> Result<Wrote, SourceError> {
        let key = self.key(path);
        let size: u64 = parts.values().map(|part| part.size).sum();
        let completed = parts.iter().map(|(number, part)| {
            let checksum = part.crc64nvme.filter(|_| upload.has_checksums).map(crc_text);
            let completed =
                CompletedPart::builder().part_number(i32::try_from(*number).unwrap_or(0));
            completed.e_tag(&part.etag).set_checksum_crc64_nvme(checksum).build()
        });
        let all = CompletedMultipartUpload::builder().set_parts(Some(completed.collect())).build();
        let with_condition = self.bucket.with_condition(before);
        for has_condition in with_condition {
            let asking = self.bucket.try_call(|client| {
                let mut request = client.complete_multipart_upload().bucket(&self.bucket.name);
                if upload.has_checksums {
                    request = request.checksum_crc64_nvme(crc_text(crc64nvme));
                    request = request.checksum_type(ChecksumType::FullObject);
                    request = request.set_mpu_object_size(i64::try_from(size).ok());
                }
                let conditions = has_condition.then(|| conditions(before));
                let (if_match, if_none_match) = conditions.unwrap_or_default();
                let request = request.set_if_match(if_match).set_if_none_match(if_none_match);
                let request = request.key(&key).upload_id(&upload.id).multipart_upload(all.clone());
                request.customize().interceptor(Roots).send()
            });
            let refusal = match asking.await {
                Ok(done) => {
                    if with_condition[0] && !has_condition {
                        self.bucket.takes_no_conditions();
                    }
                    let etag = done.e_tag().and_then(strong);
                    let crc64nvme = done.checksum_crc64_nvme().and_then(crc_of);
                    return Ok(Wrote::Done(Written { etag, crc64nvme }));
                }
                Err(Failed::Refused(refusal)) => refusal,
                Err(failed) => return Err(self.not_written(failed, &key)),
            };
            match refusal.code.as_str() {
                _ if is_gone(&refusal) => return Ok(Wrote::Gone),
                "InvalidPart" | "InvalidPartOrder" | "EntityTooSmall" | "BadDigest" => {
                    return Ok(Wrote::OtherParts);
                }
                _ if is_taken(&refusal, before) => {
                    if !(*has_condition && self.refuses_what_matches(path, before).await?) {
                        return Ok(Wrote::Taken);
                    }
                }
                _ if refusal.is_unknown_call() && *has_condition => {}
                _ => return Err(self.not_written(Failed::Refused(refusal), &key)),
            }
        }
        Err(self.broken(&key))
    }

    /// Gives up an upload of ours. What is left of it if that fails takes room, and nothing else.
    pub async fn abort(&self, path: &str, upload: &Upload) {
        let key = self.key(path);
        let asking = self.bucket.try_call(|client| {
            let request = client.abort_multipart_upload().bucket(&self.bucket.name);
            request.key(&key).upload_id(&upload.id).send()
        });
        let _ = asking.await;
    }

    fn broken(&self, key: &str) -> SourceError {
        let key = shown(key);
        SourceError::Protocol(ObjectProblem::NotTold { key }.into())
    }
}

fn is_gone(refusal: &Refusal) -> bool {
    refusal.code == "NoSuchUpload"
}
