//! One version of an object: contents, parts, checksums, and the answers about them.

use std::ops::Range;
use std::sync::OnceLock;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use crate::blob::{Blob, Checksum};
use crate::date::http_date;
use crate::http::{Body, RangeAsked, Request, Response};
use crate::s3::ObjectOptions;
use crate::s3_xml::{Element, S3Error};
use crate::text::hex;

pub(crate) struct Object {
    pub blob: Blob,
    options: ObjectOptions,
    /// With quotes.
    pub etag: String,
    pub version_id: String,
    pub modified: SystemTime,
    part_checksums: OnceLock<Vec<Vec<u8>>>,
}

impl Object {
    /// # Panics
    /// When the sizes of the parts do not add up.
    pub fn new(blob: Blob, options: ObjectOptions, earlier_versions: usize) -> Self {
        // S3 takes the MD5 of simple uploads; no client may rely on it, so any digest will do.
        let sha256 = || if options.etag.is_none() { blob.sha256() } else { String::new() };
        let digest = hex(&Sha256::digest(format!("etag {}", sha256())));
        let suffix = match &options.parts {
            Some(parts) => {
                assert_eq!(parts.iter().sum::<u64>(), blob.len(), "parts must make up the object");
                format!("-{}", parts.len())
            }
            None => String::new(),
        };
        let usual = format!("\"{}{suffix}\"", &digest[..32]);
        let etag = options.etag.clone().unwrap_or(usual);
        let version = hex(&Sha256::digest(format!("{etag} {earlier_versions}")));
        let version_id = version[..32].to_owned();
        let modified = options.modified.unwrap_or_else(SystemTime::now);
        Self { blob, options, etag, version_id, modified, part_checksums: OnceLock::new() }
    }

    pub fn unpacked(&self) -> Option<&Blob> {
        self.options.unpacked.as_ref()
    }

    pub fn storage_class(&self) -> &str {
        self.options.storage_class.as_deref().unwrap_or("STANDARD")
    }

    /// `HeadObject` and `GetObject`.
    pub fn serve(&self, request: &Request) -> Result<Response, S3Error> {
        if request.header("if-match").is_some_and(|wanted| !self.is_matched_by(wanted)) {
            return Err(S3Error::precondition_failed());
        }
        if request.header("if-none-match").is_some_and(|known| self.is_matched_by(known)) {
            return Ok(Response::new(304).header("ETag", &self.etag));
        }
        if request.method == "GET" && ["GLACIER", "DEEP_ARCHIVE"].contains(&self.storage_class()) {
            return Err(S3Error::invalid_object_state());
        }
        let (mut response, part) = match request.query_value("partNumber") {
            Some(number) => self.part_response(&number)?,
            None => (self.range_response(request)?, None),
        };
        if request
            .header("x-amz-checksum-mode")
            .is_some_and(|it| it.eq_ignore_ascii_case("enabled"))
            && let Some((kind, value)) = self.checksum_for(&response, part)
        {
            let name = format!("x-amz-checksum-{}", kind.name().to_ascii_lowercase());
            response =
                response.header(&name, &value).header("x-amz-checksum-type", self.checksum_type());
        }
        for (name, value) in &self.options.headers {
            response = response.header(name, value);
        }
        for (name, value) in &self.options.metadata {
            response = response.header(name, value);
        }
        if self.storage_class() != "STANDARD" {
            response = response.header("x-amz-storage-class", self.storage_class());
        }
        if let Some(encoding) = &self.options.content_encoding {
            response = response.header("Content-Encoding", encoding);
        }
        if !self.etag.is_empty() {
            response = response.header("ETag", &self.etag);
        }
        Ok(response
            .header("Accept-Ranges", "bytes")
            .header("Content-Type", "binary/octet-stream")
            .header("Last-Modified", &http_date(self.modified)))
    }

    /// `GetObjectAttributes`: only what the header asks for.
    pub fn attributes(&self, request: &Request) -> Response {
        let asked = request.header("x-amz-object-attributes").unwrap_or_default();
        let wants = |name: &str| asked.split(',').any(|it| it.trim().eq_ignore_ascii_case(name));
        let mut root = Element::root("GetObjectAttributesResponse");
        if wants("ETag") {
            root = root.text("ETag", self.etag.trim_matches('"'));
        }
        if wants("Checksum")
            && let Some((kind, value)) = self.whole_checksum()
        {
            let checksum = Element::new("Checksum")
                .text(&format!("Checksum{}", kind.name()), &value)
                .text("ChecksumType", self.checksum_type());
            root = root.child(checksum);
        }
        if wants("ObjectParts") && self.options.parts.is_some() {
            root = root.child(self.object_parts(request));
        }
        if wants("StorageClass") {
            root = root.text("StorageClass", self.storage_class());
        }
        if wants("ObjectSize") {
            root = root.text("ObjectSize", &self.blob.len().to_string());
        }
        root.into_response(200).header("Last-Modified", &http_date(self.modified))
    }

    /// Kind and type of the checksum as a listing has them.
    pub fn listed_checksum(&self) -> Option<(&'static str, &'static str)> {
        self.options.checksum.map(|kind| (kind.name(), self.checksum_type()))
    }

    fn range_response(&self, request: &Request) -> Result<Response, S3Error> {
        if request.range_for(self.blob.len()) == RangeAsked::Unsatisfiable {
            return Err(S3Error::invalid_range(self.blob.len()));
        }
        Ok(Response::blob(request, &self.blob))
    }

    fn part_response(&self, number: &str) -> Result<(Response, Option<usize>), S3Error> {
        let parts = self.part_ranges();
        let index = number.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
        let (index, part) = index
            .and_then(|index| Some((index, parts.get(index)?)))
            .ok_or_else(S3Error::invalid_part)?;
        let mut response = Response::new(206);
        response.body = Body::Blob { blob: self.blob.clone(), start: part.start, end: part.end };
        response = response.with_content_range();
        if self.options.parts.is_some() {
            response = response.header("x-amz-mp-parts-count", &parts.len().to_string());
        }
        Ok((response, Some(index)))
    }

    /// Checksums come with whole objects and whole parts, not with any other range.
    fn checksum_for(&self, response: &Response, part: Option<usize>) -> Option<(Checksum, String)> {
        match part {
            Some(part) if self.options.composite => {
                let kind = self.options.checksum?;
                Some((kind, STANDARD.encode(&self.part_checksums(kind)[part])))
            }
            Some(_) => self.whole_checksum().filter(|_| self.options.parts.is_none()),
            None => self.whole_checksum().filter(|_| response.status == 200),
        }
    }

    fn whole_checksum(&self) -> Option<(Checksum, String)> {
        let kind = self.options.checksum?;
        if !self.options.composite {
            return Some((kind, STANDARD.encode(self.blob.checksum(kind))));
        }
        let parts = self.part_checksums(kind);
        let value = STANDARD.encode(Blob::bytes(parts.concat()).checksum(kind));
        Some((kind, format!("{value}-{}", parts.len())))
    }

    /// Computed once; an object has one kind of checksum at most.
    fn part_checksums(&self, kind: Checksum) -> &[Vec<u8>] {
        let compute = |part| self.blob.checksum_of(kind, part);
        self.part_checksums.get_or_init(|| self.part_ranges().into_iter().map(compute).collect())
    }

    fn checksum_type(&self) -> &'static str {
        if self.options.composite { "COMPOSITE" } else { "FULL_OBJECT" }
    }

    fn object_parts(&self, request: &Request) -> Element {
        let number = |name| request.header(name).and_then(|it| it.parse::<usize>().ok());
        let marker = number("x-amz-part-number-marker").unwrap_or(0);
        let most = number("x-amz-max-parts").unwrap_or(1000).min(1000);
        let parts = self.part_ranges();
        let last = marker.saturating_add(most).min(parts.len());
        let mut element = Element::new("ObjectParts")
            .text("PartsCount", &parts.len().to_string())
            .text("PartNumberMarker", &marker.to_string())
            .text("NextPartNumberMarker", &last.to_string())
            .text("MaxParts", &most.to_string())
            .text("IsTruncated", if last < parts.len() { "true" } else { "false" });
        // Without a checksum of each part S3 tells how many there are and no more.
        let Some(kind) = self.options.checksum.filter(|_| self.options.composite) else {
            return element;
        };
        for (index, part) in parts.into_iter().enumerate().take(last).skip(marker) {
            let value = STANDARD.encode(&self.part_checksums(kind)[index]);
            let part = Element::new("Part")
                .text("PartNumber", &(index + 1).to_string())
                .text("Size", &(part.end - part.start).to_string())
                .text(&format!("Checksum{}", kind.name()), &value);
            element = element.child(part);
        }
        element
    }

    fn part_ranges(&self) -> Vec<Range<u64>> {
        let whole = vec![self.blob.len()];
        let sizes = self.options.parts.as_ref().unwrap_or(&whole);
        let starts = sizes.iter().scan(0, |end, size| {
            *end += size;
            Some(*end - size..*end)
        });
        starts.collect()
    }

    fn is_matched_by(&self, condition: &str) -> bool {
        let plain = self.etag.trim_matches('"');
        condition
            .split(',')
            .map(|it| it.trim().trim_matches('"'))
            .any(|it| it == "*" || it == plain)
    }
}

impl Checksum {
    /// As in XML and, in lower case, in headers.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "SHA256",
            Self::Sha1 => "SHA1",
            Self::Crc64Nvme => "CRC64NVME",
            Self::Crc32c => "CRC32C",
            Self::Crc32 => "CRC32",
        }
    }
}
