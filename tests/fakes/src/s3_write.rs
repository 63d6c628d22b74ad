//! What a bucket does with what it is sent: whole objects, and uploads in parts.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crc_fast::{CrcAlgorithm, checksum_combine};
use md5::{Digest as _, Md5};
use sha2::Sha256;

use crate::blob::{Blob, Checksum};
use crate::http::{Request, Response};
use crate::s3::{ObjectOptions, State};
use crate::s3_xml::{Element, S3Error};
use crate::text::hex;

/// How a store takes what it is sent; as S3 where nothing else is said.
#[derive(Debug, Default)]
pub struct Writes {
    /// The status for requests with a checksum.
    pub refuses_checksums: Option<u16>,
    /// Does not know checksums of what it is sent.
    pub ignores_checksums: bool,
    /// The status for requests with `If-Match` or `If-None-Match`.
    pub refuses_conditions: Option<u16>,
    /// Does not know conditions.
    pub ignores_conditions: bool,
    /// 412 to every `If-Match`.
    pub refuses_if_match: bool,
    /// Keeps no user metadata.
    pub drops_metadata: bool,
    /// Loses this part of an upload when it comes for the first time.
    pub loses_part: Option<u32>,
    /// Makes objects although parts are missing.
    pub completes_without: bool,
    /// Keeps no bytes, but their checksums: for sizes that nobody wants in memory.
    pub keeps_no_bytes: bool,
    /// 403 to whoever writes.
    pub denies: bool,
    /// Does not tell of unfinished uploads.
    pub lists_no_uploads: bool,
}

/// Uploads by their names.
#[derive(Default)]
pub(crate) struct Uploads(Mutex<Begun>);

#[derive(Default)]
struct Begun {
    uploads: BTreeMap<String, Upload>,
    count: u64,
    has_lost: bool,
}

struct Upload {
    bucket: String,
    key: String,
    metadata: Vec<(String, String)>,
    has_checksum: bool,
    parts: BTreeMap<u32, Part>,
}

#[derive(Clone)]
struct Part {
    blob: Blob,
    md5: Vec<u8>,
    crc: u64,
}

impl Uploads {
    fn begun(&self) -> MutexGuard<'_, Begun> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn count(&self) -> usize {
        self.begun().uploads.len()
    }
}

impl State {
    /// Whether a request is one of those that are answered here.
    pub(crate) fn writes(&self, request: &Request) -> bool {
        let of_upload = ["uploads", "uploadId"].iter().any(|it| request.query_value(it).is_some());
        self.settings.writes.is_some()
            && (request.method != "HEAD")
            && (request.method != "GET" || of_upload)
    }

    pub(crate) fn write(
        &self,
        request: &Request,
        bucket: &str,
        key: &str,
    ) -> Result<Response, S3Error> {
        let settings = self.settings.writes.as_ref().ok_or_else(S3Error::access_denied)?;
        if !self.has_bucket(bucket) {
            return Err(S3Error::no_such_bucket());
        }
        let has = |name: &str| request.query_value(name);
        if request.method == "GET" && key.is_empty() {
            return self.list_uploads(settings, request, bucket);
        }
        if settings.denies {
            return Err(S3Error::access_denied());
        }
        let unknown =
            |status| Err(S3Error::new(status, "NotImplemented", "A header is not implemented"));
        let has_checksum = request.header("x-amz-checksum-crc64nvme").is_some()
            || request.header("x-amz-checksum-algorithm").is_some();
        if let Some(status) = settings.refuses_checksums.filter(|_| has_checksum) {
            return unknown(status);
        }
        let is_conditional =
            request.header("if-match").or(request.header("if-none-match")).is_some();
        if let Some(status) = settings.refuses_conditions.filter(|_| is_conditional) {
            return unknown(status);
        }
        check_payload(request)?;
        match (request.method.as_str(), has("uploadId"), has("partNumber")) {
            ("PUT", Some(id), Some(number)) => self.put_part(settings, request, &id, &number),
            ("PUT", None, None) => self.put_object(settings, request, bucket, key),
            ("POST", None, None) if has("uploads").is_some() => {
                Ok(self.create(settings, request, bucket, key))
            }
            ("POST", Some(id), None) => self.complete(settings, request, &id),
            ("DELETE", Some(id), None) => {
                let gone = self.uploads.begun().uploads.remove(&id);
                gone.map(|_| Response::new(204)).ok_or_else(no_such_upload)
            }
            ("GET", Some(id), None) => self.list_parts(&id),
            _ => Err(S3Error::new(405, "MethodNotAllowed", "This is not done here.")),
        }
    }

    fn put_object(
        &self,
        settings: &Writes,
        request: &Request,
        bucket: &str,
        key: &str,
    ) -> Result<Response, S3Error> {
        self.check_condition(settings, request, bucket, key)?;
        let part = Part::of(settings, request)?;
        let told = told_checksum(settings, request);
        let etag = format!("\"{}\"", hex(&part.md5));
        let options = ObjectOptions {
            checksum: told.then_some(Checksum::Crc64Nvme),
            etag: Some(etag.clone()),
            metadata: metadata(settings, request),
            ..ObjectOptions::default()
        };
        let crc = part.crc;
        self.keep(bucket, key, part.blob, options);
        Ok(with_checksum(Response::new(200).header("ETag", &etag), told, crc))
    }

    fn create(&self, settings: &Writes, request: &Request, bucket: &str, key: &str) -> Response {
        let mut begun = self.uploads.begun();
        begun.count += 1;
        let id = format!("upload-{:04}", begun.count);
        let has_checksum =
            request.header("x-amz-checksum-algorithm").is_some() && !settings.ignores_checksums;
        let upload = Upload {
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            metadata: metadata(settings, request),
            has_checksum,
            parts: BTreeMap::new(),
        };
        begun.uploads.insert(id.clone(), upload);
        Element::root("InitiateMultipartUploadResult")
            .text("Bucket", bucket)
            .text("Key", key)
            .text("UploadId", &id)
            .into_response(200)
    }

    fn put_part(
        &self,
        settings: &Writes,
        request: &Request,
        id: &str,
        number: &str,
    ) -> Result<Response, S3Error> {
        let number: u32 = number.parse().map_err(|_| S3Error::invalid_part())?;
        let part = Part::of(settings, request)?;
        let mut begun = self.uploads.begun();
        let is_lost = settings.loses_part == Some(number) && !begun.has_lost;
        begun.has_lost |= is_lost;
        let upload = begun.uploads.get_mut(id).ok_or_else(no_such_upload)?;
        let answer = Response::new(200).header("ETag", &format!("\"{}\"", hex(&part.md5)));
        let answer = with_checksum(answer, upload.has_checksum, part.crc);
        if !is_lost {
            upload.parts.insert(number, part);
        }
        Ok(answer)
    }

    fn complete(
        &self,
        settings: &Writes,
        request: &Request,
        id: &str,
    ) -> Result<Response, S3Error> {
        let asked = String::from_utf8_lossy(&request.body).into_owned();
        let mut begun = self.uploads.begun();
        let upload = begun.uploads.get(id).ok_or_else(no_such_upload)?;
        self.check_condition(settings, request, &upload.bucket, &upload.key)?;
        let mut parts: Vec<Part> = Vec::new();
        for (number, etag) in named_parts(&asked) {
            let part = upload.parts.get(&number).filter(|part| hex(&part.md5) == etag);
            match part {
                Some(part) => parts.push(part.clone()),
                None if settings.completes_without => {}
                None => {
                    return Err(S3Error::new(
                        400,
                        "InvalidPart",
                        "One or more of the parts could not be found.",
                    ));
                }
            }
        }
        if parts.iter().rev().skip(1).any(|part| part.blob.len() < MIN_PART_BYTES) {
            return Err(S3Error::new(400, "EntityTooSmall", "A part is too small."));
        }
        let crc = parts.iter().fold(0, |crc, part| {
            checksum_combine(CrcAlgorithm::Crc64Nvme, crc, part.crc, part.blob.len())
        });
        let told = request.header("x-amz-checksum-crc64nvme").filter(|_| upload.has_checksum);
        if told.is_some_and(|told| told != crc_text(crc)) {
            return Err(bad_digest());
        }
        let size: u64 = parts.iter().map(|part| part.blob.len()).sum();
        let blob = match settings.keeps_no_bytes {
            true => Blob::zeros(size).announcing_crc64nvme(crc),
            false => {
                Blob::bytes(parts.iter().flat_map(|part| part.blob.to_vec()).collect::<Vec<u8>>())
            }
        };
        let md5s: Vec<u8> = parts.iter().flat_map(|part| part.md5.clone()).collect();
        let etag = format!("\"{}-{}\"", hex(&Md5::digest(md5s)), parts.len());
        let upload = begun.uploads.remove(id).ok_or_else(no_such_upload)?;
        drop(begun);
        let options = ObjectOptions {
            checksum: upload.has_checksum.then_some(Checksum::Crc64Nvme),
            parts: Some(parts.iter().map(|part| part.blob.len()).collect()),
            etag: Some(etag.clone()),
            metadata: upload.metadata,
            ..ObjectOptions::default()
        };
        self.keep(&upload.bucket, &upload.key, blob, options);
        let mut root = Element::root("CompleteMultipartUploadResult")
            .text("Bucket", &upload.bucket)
            .text("Key", &upload.key)
            .text("ETag", &etag);
        if upload.has_checksum {
            root =
                root.text("ChecksumCRC64NVME", &crc_text(crc)).text("ChecksumType", "FULL_OBJECT");
        }
        Ok(root.into_response(200))
    }

    fn list_uploads(
        &self,
        settings: &Writes,
        request: &Request,
        bucket: &str,
    ) -> Result<Response, S3Error> {
        if settings.lists_no_uploads {
            return Err(S3Error::access_denied());
        }
        let prefix = request.query_value("prefix").unwrap_or_default();
        let mut root = Element::root("ListMultipartUploadsResult")
            .text("Bucket", bucket)
            .text("IsTruncated", "false");
        for (id, upload) in &self.uploads.begun().uploads {
            if upload.bucket == bucket && upload.key.starts_with(&prefix) {
                let element = Element::new("Upload").text("Key", &upload.key).text("UploadId", id);
                root = root.child(element.text("Initiated", "2026-11-29T00:00:00.000Z"));
            }
        }
        Ok(root.into_response(200))
    }

    fn list_parts(&self, id: &str) -> Result<Response, S3Error> {
        let begun = self.uploads.begun();
        let upload = begun.uploads.get(id).ok_or_else(no_such_upload)?;
        let mut root =
            Element::root("ListPartsResult").text("UploadId", id).text("IsTruncated", "false");
        if upload.has_checksum {
            root = root.text("ChecksumAlgorithm", "CRC64NVME").text("ChecksumType", "FULL_OBJECT");
        }
        for (number, part) in &upload.parts {
            let mut element = Element::new("Part")
                .text("PartNumber", &number.to_string())
                .text("ETag", &format!("\"{}\"", hex(&part.md5)))
                .text("Size", &part.blob.len().to_string());
            if upload.has_checksum {
                element = element.text("ChecksumCRC64NVME", &crc_text(part.crc));
            }
            root = root.child(element);
        }
        Ok(root.into_response(200))
    }

    fn check_condition(
        &self,
        settings: &Writes,
        request: &Request,
        bucket: &str,
        key: &str,
    ) -> Result<(), S3Error> {
        if settings.ignores_conditions {
            return Ok(());
        }
        if settings.refuses_if_match && request.header("if-match").is_some() {
            return Err(S3Error::precondition_failed());
        }
        let there = self.etag_of(bucket, key);
        let holds = match (request.header("if-match"), request.header("if-none-match")) {
            (Some(wanted), _) if there.is_none() => {
                let _ = wanted;
                return Err(S3Error::no_such_key());
            }
            (Some(wanted), _) => there.as_deref() == Some(wanted),
            (None, Some(_)) => there.is_none(),
            (None, None) => true,
        };
        if holds { Ok(()) } else { Err(S3Error::precondition_failed()) }
    }
}

impl Part {
    fn of(settings: &Writes, request: &Request) -> Result<Self, S3Error> {
        let blob = Blob::bytes(request.body.clone());
        let crc = blob.crc64nvme();
        let told =
            request.header("x-amz-checksum-crc64nvme").filter(|_| !settings.ignores_checksums);
        if told.is_some_and(|told| told != crc_text(crc)) {
            return Err(bad_digest());
        }
        let md5 = Md5::digest(&request.body).to_vec();
        let blob = match settings.keeps_no_bytes && blob.len() >= MIN_PART_BYTES {
            true => Blob::zeros(blob.len()).announcing_crc64nvme(crc),
            false => blob,
        };
        Ok(Self { blob, md5, crc })
    }
}

/// What was signed must be what came.
fn check_payload(request: &Request) -> Result<(), S3Error> {
    let told = request.header("x-amz-content-sha256").unwrap_or_default();
    if told.len() == 64 && told != hex(&Sha256::digest(&request.body)) {
        let message =
            "The provided 'x-amz-content-sha256' header does not match what was computed.";
        return Err(S3Error::new(400, "XAmzContentSHA256Mismatch", message));
    }
    Ok(())
}

fn told_checksum(settings: &Writes, request: &Request) -> bool {
    request.header("x-amz-checksum-crc64nvme").is_some() && !settings.ignores_checksums
}

fn with_checksum(answer: Response, has_checksum: bool, crc: u64) -> Response {
    if has_checksum { answer.header("x-amz-checksum-crc64nvme", &crc_text(crc)) } else { answer }
}

fn metadata(settings: &Writes, request: &Request) -> Vec<(String, String)> {
    let all = request.headers.iter().filter(|(name, _)| {
        name.to_ascii_lowercase().starts_with("x-amz-meta-") && !settings.drops_metadata
    });
    all.cloned().collect()
}

/// Number and ETag of each part that is asked for.
fn named_parts(xml: &str) -> Vec<(u32, String)> {
    let text = |part: &str, name: &str| {
        let (_, rest) = part.split_once(&format!("<{name}>"))?;
        Some(rest.split('<').next()?.replace("&quot;", "").replace('"', ""))
    };
    let parts = xml.split("<Part>").skip(1);
    parts
        .filter_map(|part| Some((text(part, "PartNumber")?.parse().ok()?, text(part, "ETag")?)))
        .collect()
}

fn crc_text(crc: u64) -> String {
    STANDARD.encode(crc.to_be_bytes())
}

fn bad_digest() -> S3Error {
    S3Error::new(400, "BadDigest", "The CRC64NVME you specified did not match what we received.")
}

fn no_such_upload() -> S3Error {
    S3Error::new(404, "NoSuchUpload", "The specified upload does not exist.")
}

const MIN_PART_BYTES: u64 = 5 << 20;
