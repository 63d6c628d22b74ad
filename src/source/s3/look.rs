//! What the headers of an answer tell about an object. One that nobody needs is not looked at, and
//! where HEAD is refused, the first byte is asked for.

use std::ops::Range;

use reqwest::StatusCode;
use reqwest::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, HeaderName, LAST_MODIFIED,
    RANGE,
};

use super::client::Bucket;
use super::errors::Refusal;
use super::failures::Failed;
use super::problem::ObjectProblem;
use super::sign::Ask;
use super::stamp::strong;
use super::ways::Way;
use crate::net::{SourceError, http};

/// How Google's storage tells about an object that it unpacks on the way.
const STORED_LENGTH: HeaderName = HeaderName::from_static("x-goog-stored-content-length");
const STORED_ENCODING: HeaderName = HeaderName::from_static("x-goog-stored-content-encoding");

/// An object at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    pub size: Option<u64>,
    /// If it can be matched.
    pub etag: Option<String>,
    pub modified: Option<String>,
    /// How the stored bytes are packed, if they are.
    pub encoding: Option<String>,
}

impl Look {
    pub fn of(headers: &HeaderMap) -> Self {
        let length = text(headers, &STORED_LENGTH).or_else(|| text(headers, &CONTENT_LENGTH));
        Self {
            size: length.and_then(|length| length.parse().ok()),
            etag: text(headers, &ETAG).and_then(strong),
            modified: text(headers, &LAST_MODIFIED).map(str::to_owned),
            encoding: stored_encoding(headers),
        }
    }
}

impl Bucket {
    /// The headers of HEAD.
    pub async fn head(
        &self,
        key: &str,
        checksum: bool,
        part: Option<i32>,
    ) -> Result<HeaderMap, Failed> {
        let ask = Ask::Head { checksum, part };
        let client = self.client().map_err(Failed::Otherwise)?;
        let answer = self.ask(&client, key, &ask, &HeaderMap::new()).await?;
        Ok(answer.response.headers().clone())
    }

    /// Looks at an object: by HEAD, or where that tells nothing, by its first byte.
    pub async fn look(&self, key: &str) -> Result<Look, Failed> {
        if !self.ways.know(Way::NoHead) {
            match self.head(key, false, None).await {
                Ok(headers) => {
                    let look = Look::of(&headers);
                    if look.size.is_some() {
                        return Ok(look);
                    }
                }
                Err(Failed::Refused(refusal)) if is_refused_as_such(&refusal) => {
                    self.ways.learn(Way::NoHead, || {
                        format!("the store refuses HEAD ({}); reading instead", refusal.told())
                    });
                }
                // Without a body it says no more; GET will.
                Err(Failed::Refused(refusal)) if matches!(refusal.status, 400 | 403) => {}
                Err(failed) => return Err(failed),
            }
        }
        self.first_byte(key).await
    }

    /// What an answer with the first byte tells.
    pub async fn first_byte(&self, key: &str) -> Result<Look, Failed> {
        let ask = Ask::Get { if_match: None };
        let client = self.client().map_err(Failed::Otherwise)?;
        let answer = match self.ask(&client, key, &ask, &range_header(&(0..1))).await {
            Ok(answer) => answer,
            // Only of an empty object there is none.
            Err(Failed::Refused(refusal)) if refusal.status == 416 => {
                return Ok(Look { size: Some(0), ..Look::default() });
            }
            Err(failed) => return Err(failed),
        };
        let headers = answer.response.headers();
        let mut look = Look { etag: answer.etag.clone(), ..Look::of(headers) };
        if answer.response.status() == StatusCode::PARTIAL_CONTENT {
            look.size = text(headers, &CONTENT_RANGE).and_then(total);
        }
        if look.size.is_none() {
            return Err(Failed::Otherwise(SourceError::Protocol(
                ObjectProblem::NoSizeAt { host: http::origin(answer.response.url()) }.into(),
            )));
        }
        http::read_off(answer.response, self.http.deadlines.stall).await;
        Ok(look)
    }
}

/// Whether it is the way of asking that is refused, whatever the object.
pub fn is_refused_as_such(refusal: &Refusal) -> bool {
    matches!(refusal.status, 405 | 501)
        || (matches!(refusal.status, 300..400) && refusal.region_instead_of("").is_none())
}

/// `bytes=0-99`; an empty object has no range that could be asked for.
pub fn range_header(range: &Range<u64>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some(value) = http::range_header(range) {
        headers.insert(RANGE, value);
    }
    headers
}

/// The size of the whole in `bytes 0-99/1000`.
pub fn total(content_range: &str) -> Option<u64> {
    content_range.rsplit_once('/')?.1.trim().parse().ok()
}

/// The compression that an object is stored in. `aws-chunked` is how it was sent there once, and
/// other words mean nothing here.
pub fn stored_encoding(headers: &HeaderMap) -> Option<String> {
    let told = text(headers, &STORED_ENCODING).or_else(|| text(headers, &CONTENT_ENCODING))?;
    let mut words = told.split(',').map(|word| word.trim().to_ascii_lowercase());
    words.find(|word| {
        matches!(word.as_str(), "gzip" | "x-gzip" | "deflate" | "br" | "zstd" | "compress")
    })
}

pub fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value"))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn what_makes_no_sense_is_not_there() {
        let look = |pairs: &[(&'static str, &str)]| Look::of(&headers(pairs));
        assert_eq!(look(&[("content-length", "x"), ("etag", "W/\"a\"")]), Look::default());
        let known =
            look(&[("content-length", "7"), ("etag", "\"a\""), ("x-amz-mp-parts-count", "x")]);
        assert_eq!((known.size, known.etag.as_deref()), (Some(7), Some("\"a\"")));
        // As it is stored, not as it would come.
        let packed = look(&[
            ("content-length", "900"),
            ("x-goog-stored-content-length", "70"),
            ("x-goog-stored-content-encoding", "gzip"),
        ]);
        assert_eq!((packed.size, packed.encoding.as_deref()), (Some(70), Some("gzip")));
    }

    #[test]
    fn only_a_compression_is_an_encoding() {
        let encoding = |value| stored_encoding(&headers(&[("content-encoding", value)]));
        assert_eq!(encoding("aws-chunked,GZIP").as_deref(), Some("gzip"));
        for none in ["", "identity", "aws-chunked", "utf-8"] {
            assert_eq!(encoding(none), None, "{none}");
        }
    }

    #[test]
    fn the_total_of_a_range_is_read() {
        assert_eq!(total("bytes 0-0/7"), Some(7));
        assert_eq!(total("bytes */7"), Some(7));
        assert_eq!((total("bytes 0-0/*"), total("0-0")), (None, None));
    }
}
