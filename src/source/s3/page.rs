//! One page of a listing, read from its XML: names, sizes, ETags, and how it goes on.
//!
//! Everything else in it is not read, so that no date, owner or storage class in a form of its own
//! can keep anybody from a model. Both ways of `ListObjects` are understood.

use percent_encoding::percent_decode_str;
use xmlparser::{ElementEnd, Token, Tokenizer};

use super::errors::shown;
use super::problem::ListingProblem;
use crate::model::text;
use crate::net::SourceError;

/// What a page says.
#[derive(Debug, Default)]
pub struct Page {
    pub objects: Vec<Found>,
    pub next: Next,
    /// The server has listed in the older way.
    pub is_v1: bool,
}

/// One object of a page.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// As the object is called, without the encoding of the listing.
    pub key: String,
    pub etag: Option<String>,
    /// `None` where the server does not say, or not in digits.
    pub size: Option<u64>,
    /// As the server spells it.
    pub modified: Option<String>,
    pub has_checksum: bool,
}

/// How a listing goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Next {
    #[default]
    End,
    Token(String),
    /// Behind this key; the server has not said more.
    After(String),
}

/// The texts of a page as they stand in it.
#[derive(Default)]
struct Raw {
    objects: Vec<Found>,
    is_truncated: Option<bool>,
    token: Option<String>,
    next_marker: Option<String>,
    says_url: bool,
    is_v1: bool,
    is_v2: bool,
}

impl Page {
    /// Reads the answer to a question about the keys that begin with `base`.
    pub fn parse(xml: &[u8], base: &str) -> Result<Self, SourceError> {
        let xml = std::str::from_utf8(xml).map_err(|_| wrong("it is not UTF-8"))?;
        let mut raw = read(xml)?;
        if raw.is_encoded(base) {
            for object in &mut raw.objects {
                object.key = decoded(&object.key)?;
            }
            raw.next_marker = raw.next_marker.as_deref().map(decoded).transpose()?;
        }
        let last = raw.objects.iter().map(|object| &object.key).max().cloned();
        let is_v1 = raw.is_v1 && !raw.is_v2;
        let next = match (raw.is_truncated, raw.token, raw.next_marker) {
            (Some(false), ..) | (None, None, None) => Next::End,
            (_, Some(token), _) => Next::Token(token),
            (_, None, Some(marker)) => Next::After(marker),
            (_, None, None) => match last {
                Some(last) => Next::After(last),
                None => return Err(wrong("it is truncated and does not say where it continues")),
            },
        };
        Ok(Self { objects: raw.objects, next, is_v1 })
    }
}

impl Raw {
    /// Whether the keys are written as in a URL. Some servers do what was asked and do not say so,
    /// others say so and do not do it.
    fn is_encoded(&self, base: &str) -> bool {
        let mut keys = self.objects.iter().map(|object| object.key.as_str());
        if self.says_url {
            // What is encoded is nothing but these.
            return keys.all(|key| key.bytes().all(|byte| byte.is_ascii_graphic()));
        }
        let is_below = |key: &str| key.starts_with(base);
        let decodes = |key: &str| decoded(key).is_ok_and(|key| key.starts_with(base));
        keys.clone().any(|key| !is_below(key)) && keys.all(decodes)
    }

    /// Notes the text of an element of the page itself.
    fn set(&mut self, name: &str, text: String) {
        let is_set = !text.is_empty();
        match name {
            "IsTruncated" => self.is_truncated = truth(&text),
            "NextContinuationToken" => self.token = Some(text).filter(|_| is_set),
            "NextMarker" => self.next_marker = Some(text).filter(|_| is_set),
            "EncodingType" => self.says_url = text.eq_ignore_ascii_case("url"),
            _ => {}
        }
        self.is_v1 |= matches!(name, "Marker" | "NextMarker");
        self.is_v2 |= matches!(name, "KeyCount" | "ContinuationToken" | "NextContinuationToken");
    }
}

impl Found {
    fn set(&mut self, name: &str, text: String) {
        match name {
            "Key" => self.key = text,
            "ETag" => self.etag = Some(text),
            "Size" => self.size = text.trim().parse().ok(),
            // A mark and no time: nobody reads it as one.
            "LastModified" => self.modified = Some(text).filter(|text| text.len() <= 64),
            "ChecksumAlgorithm" => self.has_checksum |= !text.trim().is_empty(),
            _ => {}
        }
    }
}

/// Walks through the elements: the page, what stands in it, and what stands in `Contents`.
fn read(xml: &str) -> Result<Raw, SourceError> {
    let mut raw = Raw::default();
    let mut open: Vec<&str> = Vec::new();
    let mut text = String::new();
    let mut is_whole = false;
    for token in Tokenizer::from(xml) {
        let token = token.map_err(|error| wrong(&error.to_string()))?;
        match token {
            Token::ElementStart { local, .. } => {
                let name = local.as_str();
                if open.is_empty() {
                    check_root(name, xml)?;
                }
                open.push(name);
                text.clear();
                if open[1..] == ["Contents"] {
                    raw.objects.push(Found::default());
                }
            }
            Token::Text { text: found } => text.push_str(&unescaped(found.as_str())),
            Token::Cdata { text: found, .. } => text.push_str(found.as_str()),
            Token::ElementEnd { end: ElementEnd::Open, .. } => {}
            Token::ElementEnd { end, .. } => {
                if let ElementEnd::Close(_, local) = end
                    && open.last() != Some(&local.as_str())
                {
                    return Err(wrong("its elements do not close each other"));
                }
                match open.get(1..).unwrap_or_default() {
                    [name] => raw.set(name, std::mem::take(&mut text)),
                    ["Contents", name] => {
                        let object = raw.objects.last_mut().expect("pushed when it was opened");
                        object.set(name, std::mem::take(&mut text));
                    }
                    _ => text.clear(),
                }
                open.pop();
                is_whole |= open.is_empty();
            }
            _ => {}
        }
    }
    if is_whole { Ok(raw) } else { Err(wrong("it ends early")) }
}

fn check_root(name: &str, xml: &str) -> Result<(), SourceError> {
    if name.starts_with("ListBucket") {
        return Ok(());
    }
    let shown = text::inert(name, 40);
    if name == "Error" {
        let (_, rest) = xml.split_once("<Code>").unwrap_or_default();
        let code = text::inert(rest.split('<').next().unwrap_or_default(), 60);
        return Err(wrong(&format!("it is the error `{code}`")));
    }
    if name == "ListAllMyBucketsResult" {
        return Err(SourceError::Settings(ListingProblem::Buckets.into()));
    }
    Err(wrong(&format!("it is a `{shown}`")))
}

fn wrong(why: &str) -> SourceError {
    SourceError::Protocol(ListingProblem::Form(text::inert(why, 120)).into())
}

fn truth(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

/// `text` with its references to characters resolved; S3 writes some that XML does not allow.
pub fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        out.push_str(before);
        let reference = after.split_once(';').filter(|(name, _)| name.len() <= 8);
        match reference.and_then(|(name, rest)| Some((character(name)?, rest))) {
            Some((c, after)) => {
                out.push(c);
                rest = after;
            }
            None => {
                out.push('&');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

fn character(name: &str) -> Option<char> {
    match name {
        "lt" => Some('<'),
        "gt" => Some('>'),
        "amp" => Some('&'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(digits) => u32::from_str_radix(digits, 16).ok()?,
                None => number.parse().ok()?,
            };
            char::from_u32(code)
        }
    }
}

/// A key out of a listing with `encoding-type=url`, where a space is `+`.
fn decoded(key: &str) -> Result<String, SourceError> {
    let spaced = key.replace('+', " ");
    let decoded = percent_decode_str(&spaced)
        .decode_utf8()
        .map_err(|_| SourceError::Unsafe(ListingProblem::NotUtf8 { key: shown(key) }.into()))?;
    Ok(decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(inside: &str) -> Result<Page, SourceError> {
        Page::parse(format!("<ListBucketResult>{inside}</ListBucketResult>").as_bytes(), "m/")
    }

    fn keys(inside: &str) -> Vec<String> {
        page(inside).expect(inside).objects.into_iter().map(|object| object.key).collect()
    }

    fn contents(key: &str) -> String {
        format!("<Contents><Key>{key}</Key><Size>1</Size></Contents>")
    }

    #[test]
    fn what_nobody_needs_is_not_read() {
        let xml = "\u{feff}<?xml version='1.0' encoding='UTF-8'?>\n<!-- x --><s3:ListBucketResult \
                   xmlns:s3='http://s3.amazonaws.com/doc/2006-03-01/'><s3:KeyCount>99</s3:KeyCount>\
                   <s3:Contents><s3:LastModified>yesterday</s3:LastModified><s3:Key>m/a</s3:Key>\
                   <s3:ETag>&quot;e&quot;</s3:ETag><s3:Size> 7 </s3:Size><s3:Owner><s3:ID/>\
                   <s3:Key>evil</s3:Key></s3:Owner><s3:StorageClass>NEW</s3:StorageClass>\
                   </s3:Contents></s3:ListBucketResult>";
        let page = Page::parse(xml.as_bytes(), "m/").expect("a page");
        let found = Found {
            key: "m/a".into(),
            etag: Some("\"e\"".into()),
            size: Some(7),
            modified: Some("yesterday".into()),
            has_checksum: false,
        };
        assert_eq!(page.objects, [found]);
        assert_eq!(page.next, Next::End);
    }

    #[test]
    fn what_is_no_listing_is_refused() {
        for xml in [
            "",
            "no",
            "<html><body>hi</body></html>",
            "<Error><Code>SlowDown</Code></Error>",
            "<ListBucketResult>",
            "<ListBucketResult><Contents><Key>m/a</Key>",
            "<ListBucketResult></Contents>",
            "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
        ] {
            let error = Page::parse(xml.as_bytes(), "m/").expect_err(xml);
            assert!(matches!(error, SourceError::Protocol(_)), "{xml}");
        }
    }

    #[test]
    fn a_list_of_buckets_says_that_the_bucket_was_not_seen() {
        let error = Page::parse(b"<ListAllMyBucketsResult/>", "m/").expect_err("no listing");
        assert!(matches!(error, SourceError::Settings(_)));
        assert!(error.to_string().contains("path-style"), "{error}");
    }

    #[test]
    fn keys_are_read_as_they_were_written() {
        let url = "<EncodingType>url</EncodingType>";
        assert_eq!(keys(&format!("{url}{}", contents("m/a+b%2Bc/%C3%A9%25"))), ["m/a b+c/é%"]);
        assert_eq!(keys(&contents("m/a+b%2B&amp;&#x41;&#10;&none;")), ["m/a+b%2B&A\n&none;"]);
        // Said and not done; done and not said.
        assert_eq!(keys(&format!("{url}{}", contents("m/a b+c"))), ["m/a b+c"]);
        assert_eq!(keys(&contents("m%2Fa+b")), ["m/a b"]);
        assert_eq!(keys("<Contents><Key><![CDATA[m/a&b]]></Key></Contents>"), ["m/a&b"]);
    }

    #[test]
    fn a_listing_goes_on_as_it_says_or_behind_its_last_key() {
        let next = |inside: &str| {
            page(&format!("{}{inside}", contents("m/b") + &contents("m/a"))).expect(inside).next
        };
        let more = "<IsTruncated>true</IsTruncated>";
        let token = "<NextContinuationToken>t</NextContinuationToken>";
        assert_eq!(next(&format!("{more}{token}")), Next::Token("t".into()));
        assert_eq!(next(token), Next::Token("t".into()));
        assert_eq!(next(&format!("<IsTruncated>false</IsTruncated>{token}")), Next::End);
        assert_eq!(next(more), Next::After("m/b".into()));
        let marker = "<NextMarker>m/b2</NextMarker>";
        assert_eq!(next(&format!("{more}{marker}")), Next::After("m/b2".into()));
        assert_eq!(next(""), Next::End);
        assert!(page("<Marker/>").expect("a page").is_v1);
        assert!(!page("<KeyCount>0</KeyCount>").expect("a page").is_v1);
    }
}
