//! What the JSON API says about objects: as much of it as a fetch needs.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{DeserializeOwned, Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::model::{Digest, text};
use crate::net::SourceError;
use crate::source::cloud::{CloudProblem, Found, Page};

pub const PAGE_FIELDS: &str =
    "nextPageToken,items(name,size,generation,crc32c,md5Hash,contentEncoding)";
pub const OBJECT_FIELDS: &str = "name,size,generation,crc32c,md5Hash,contentEncoding";

/// More than was asked for is no page: it bounds memory.
const MAX_OBJECTS: usize = 10_000;

/// A page, and which of its objects are stored packed.
#[derive(Debug)]
pub struct Listed {
    pub page: Page,
    pub packed: Vec<String>,
}

#[derive(Debug)]
pub struct Object {
    pub found: Found,
    pub is_packed: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawPage {
    next_page_token: Option<String>,
    #[serde(default, deserialize_with = "bounded")]
    items: Vec<RawObject>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawObject {
    name: String,
    size: Option<Number>,
    generation: Option<Number>,
    crc32c: Option<String>,
    md5_hash: Option<String>,
    content_encoding: Option<String>,
}

/// Google writes 64-bit numbers as texts, some that are like it as numbers.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Text(String),
    Number(u64),
}

pub fn parse(body: &[u8], host: &str) -> Result<Listed, SourceError> {
    let raw: RawPage = read(body, host)?;
    let objects = raw.items.into_iter().map(Object::of);
    let mut listed = Listed { page: Page::default(), packed: Vec::new() };
    for Object { found, is_packed } in objects {
        if is_packed {
            listed.packed.push(found.key.clone());
        }
        listed.page.objects.push(found);
    }
    listed.page.next = raw.next_page_token.filter(|token| !token.is_empty());
    Ok(listed)
}

pub fn parse_object(body: &[u8], host: &str) -> Result<Object, SourceError> {
    read(body, host).map(Object::of)
}

fn read<T: DeserializeOwned>(body: &[u8], host: &str) -> Result<T, SourceError> {
    serde_json::from_slice(body).map_err(|error| {
        let (host, why) = (host.to_owned(), text::inert(&error.to_string(), 120));
        SourceError::Protocol(CloudProblem::Form { host, why }.into())
    })
}

impl Object {
    fn of(raw: RawObject) -> Self {
        let crc32c = raw.crc32c.and_then(decoded).map(Digest::Crc32c);
        // The CRC is the store's own, and always there: MD5 costs more and is less often told.
        let digest = crc32c.or_else(|| raw.md5_hash.and_then(decoded).map(Digest::Md5));
        let generation = raw.generation.and_then(Number::value);
        let found = Found {
            key: raw.name,
            size: raw.size.and_then(Number::value),
            version: generation.map(|generation| generation.to_string()),
            digest,
            is_directory: false,
        };
        let encoding = raw.content_encoding.unwrap_or_default().to_ascii_lowercase();
        Self { found, is_packed: encoding.contains("gzip") }
    }
}

impl Number {
    fn value(self) -> Option<u64> {
        match self {
            Self::Text(text) => text.parse().ok(),
            Self::Number(number) => Some(number),
        }
    }
}

fn decoded<const N: usize>(base64: String) -> Option<[u8; N]> {
    STANDARD.decode(base64).ok()?.try_into().ok()
}

fn bounded<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<RawObject>, D::Error> {
    struct Bounded;
    impl<'de> Visitor<'de> for Bounded {
        type Value = Vec<RawObject>;

        fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(out, "at most {MAX_OBJECTS} objects")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut objects = Vec::new();
            while let Some(object) = seq.next_element()? {
                if objects.len() == MAX_OBJECTS {
                    return Err(A::Error::custom("it has more objects than a page can have"));
                }
                objects.push(object);
            }
            Ok(objects)
        }
    }
    from.deserialize_seq(Bounded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_whoever_writes_the_numbers() {
        let json = br#"{"kind":"storage#objects","nextPageToken":"t","items":[
            {"name":"m/a","size":"3","generation":"17","crc32c":"AAAAAA==","other":{"x":[1]}},
            {"name":"m/b","size":4,"generation":18,"md5Hash":"1B2M2Y8AsgTpgAmY7PhCfg==",
             "contentEncoding":"gzip"}]}"#;
        let Listed { page, packed } = parse(json, "https://h").expect("a page");
        assert_eq!(page.next.as_deref(), Some("t"));
        let [a, b] = page.objects.as_slice() else { panic!("{page:?}") };
        assert_eq!((a.size, a.version.as_deref()), (Some(3), Some("17")));
        assert_eq!(a.digest, Some(Digest::Crc32c([0; 4])));
        assert_eq!((b.size, b.version.as_deref()), (Some(4), Some("18")));
        assert!(matches!(b.digest, Some(Digest::Md5(_))) && packed == ["m/b"]);
        let empty = parse(b"{}", "https://h").expect("nothing").page;
        assert!(empty.objects.is_empty() && empty.next.is_none());
    }

    #[test]
    fn what_is_no_page_is_refused_and_a_bomb_takes_little() {
        for body in [&b"<html>"[..], b"[]", b"{\"items\":[{\"size\":\"1\"}]}", b"{\"items\":1}"] {
            assert!(matches!(parse(body, "https://h"), Err(SourceError::Protocol(_))));
        }
        let many =
            format!("{{\"items\":[{}{{\"name\":\"x\"}}]}}", "{\"name\":\"x\"},".repeat(10_000));
        assert!(matches!(parse(many.as_bytes(), "https://h"), Err(SourceError::Protocol(_))));
        // What makes no sense is not told.
        let odd = br#"{"items":[{"name":"x","size":"-1","generation":"../x","crc32c":"!","md5Hash":"AA=="}]}"#;
        let found = &parse(odd, "https://h").expect("a page").page.objects[0];
        assert_eq!((found.size, &found.version, &found.digest), (None, &None, &None));
    }
}
