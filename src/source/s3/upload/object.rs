//! What is known of an object before and after it is written, and how that is spelled in headers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{HeaderMap, HeaderName};

use crate::model::{Digest, Mark, Sha256};
use crate::source::s3::errors::Refusal;
use crate::source::s3::look::{Look, text as header};

const MARK_SHA256: HeaderName = HeaderName::from_static("x-amz-meta-weightlift-sha256");
const MARK_PUBLISHED: HeaderName = HeaderName::from_static("x-amz-meta-weightlift-published");
const CRC64NVME: HeaderName = HeaderName::from_static("x-amz-checksum-crc64nvme");

/// What must be at a key for a write to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Before {
    Nothing,
    /// The object of this ETag; without one, any object.
    This(Option<String>),
}

/// How a write has ended that the store has not refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrote {
    /// The object is there.
    Done(Written),
    /// Something else than [`Before`] says is there.
    Taken,
    /// The upload is not known any more: it was completed or aborted, by us or by another process.
    Gone,
    /// The store has other parts than it was told of.
    OtherParts,
}

/// A new object, as the answer tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// With its quotes.
    pub etag: Option<String>,
    /// The CRC64NVME that the store has computed.
    pub crc64nvme: Option<u64>,
}

/// An object as HEAD tells it.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub size: u64,
    pub etag: Option<String>,
    pub mark: Option<Mark>,
    pub crc64nvme: Option<u64>,
}

/// Whether a write was refused because of its condition.
pub fn is_taken(refusal: &Refusal, before: &Before) -> bool {
    // That the object which is to be replaced is gone is told by a 404.
    let is_gone = refusal.status == 404 && refusal.code == "NoSuchKey";
    refusal.status == 412 || (is_gone && matches!(before, Before::This(Some(_))))
}

pub fn seen(head: &HeaderMap) -> Seen {
    let Look { size, etag, .. } = Look::of(head);
    let sha256 = header(head, &MARK_SHA256).and_then(Digest::sha256_from_hex);
    let published = header(head, &MARK_PUBLISHED).map(str::to_owned);
    let is_marked = head.contains_key(MARK_SHA256) || published.is_some();
    let sha256 = match sha256 {
        Some(Digest::Sha256(sha256)) => Some(Sha256(sha256)),
        _ => None,
    };
    Seen {
        size: size.unwrap_or_default(),
        etag,
        mark: is_marked.then_some(Mark { sha256, published }),
        crc64nvme: header(head, &CRC64NVME).and_then(crc_of),
    }
}

pub fn written(headers: &HeaderMap) -> Written {
    let Look { etag, .. } = Look::of(headers);
    Written { etag, crc64nvme: header(headers, &CRC64NVME).and_then(crc_of) }
}

/// As S3 writes it.
pub fn crc_text(crc64nvme: u64) -> String {
    STANDARD.encode(crc64nvme.to_be_bytes())
}

pub fn crc_of(text: &str) -> Option<u64> {
    // One by part, which S3 does not have of this algorithm, has another form.
    let bytes = STANDARD.decode(text).ok()?;
    bytes.try_into().ok().map(u64::from_be_bytes)
}

/// The metadata of an object that is ours.
pub fn metadata(mark: &Mark) -> Vec<(&'static str, String)> {
    // Never empty: by its name alone the object is known as ours.
    let sha256 = mark.sha256.map_or_else(|| "unknown".to_owned(), |sha256| sha256.to_string());
    let published = mark.published.clone().map(|published| ("weightlift-published", published));
    [("weightlift-sha256", sha256)].into_iter().chain(published).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_beside_an_object_is_read_back() {
        let head = |mark: &Mark| {
            let name = |name: &str| format!("x-amz-meta-{name}").parse::<HeaderName>();
            let pairs = metadata(mark)
                .into_iter()
                .map(|(key, value)| (name(key).expect("a name"), value.parse().expect("a value")));
            pairs.collect::<HeaderMap>()
        };
        for mark in [
            Mark { sha256: Some(Sha256([7; 32])), published: Some("git-sha1:00".into()) },
            Mark { sha256: Some(Sha256([7; 32])), published: None },
            Mark::default(),
        ] {
            assert_eq!(seen(&head(&mark)).mark, Some(mark));
        }
        assert_eq!(seen(&HeaderMap::new()).mark, None);
    }

    #[test]
    fn a_crc_is_spelled_as_s3_does() {
        assert_eq!(crc_text(0xae8b_1486_0a79_9888), "rosUhgp5mIg=");
        assert_eq!(crc_of("rosUhgp5mIg="), Some(0xae8b_1486_0a79_9888));
        for other in ["", "rosUhgp5mIg=-2", "AA=="] {
            assert_eq!(crc_of(other), None, "{other}");
        }
    }
}
