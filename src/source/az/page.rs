//! What Azure says about blobs: a page of a listing, read from its XML, or the headers of one.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use reqwest::header::{CONTENT_LENGTH, ETAG, HeaderMap};
use xmlparser::{ElementEnd, Token, Tokenizer};

use crate::model::{Digest, text};
use crate::net::SourceError;
use crate::source::cloud::{CloudProblem, Found, Page};
use crate::source::s3::page::unescaped;
use crate::source::s3::stamp::strong;

/// More than was asked for is no page, and nothing in it lies deeper: both bound memory.
const MAX_BLOBS: usize = 10_000;
const MAX_DEPTH: usize = 16;

pub fn parse(xml: &[u8], host: &str) -> Result<Page, SourceError> {
    read(xml).map_err(|why| {
        let (host, why) = (host.to_owned(), text::inert(&why, 120));
        SourceError::Protocol(CloudProblem::Form { host, why }.into())
    })
}

/// Walks through `EnumerationResults/Blobs/Blob` and what stands in it.
fn read(xml: &[u8]) -> Result<Page, String> {
    let xml = std::str::from_utf8(xml).map_err(|_| "it is not UTF-8")?;
    let xml = xml.trim_start_matches('\u{feff}');
    let (mut page, mut open, mut text) = (Page::default(), Vec::<&str>::new(), String::new());
    let (mut is_whole, mut is_encoded) = (false, false);
    for token in Tokenizer::from(xml) {
        match token.map_err(|error| error.to_string())? {
            Token::ElementStart { local, .. } => {
                let name = local.as_str();
                if open.is_empty() && name != "EnumerationResults" {
                    return Err(format!("it is a `{}`", text::inert(name, 40)));
                }
                open.push(name);
                if open.len() > MAX_DEPTH {
                    return Err("its elements lie too deep".into());
                }
                text.clear();
                is_encoded = false;
                if open[1..] == ["Blobs", "Blob"] {
                    if page.objects.len() == MAX_BLOBS {
                        return Err("it has more blobs than a page can have".into());
                    }
                    page.objects.push(Found::default());
                }
            }
            // What XML cannot hold is written as in a URL.
            Token::Attribute { local, value, .. } if local.as_str() == "Encoded" => {
                is_encoded = value.as_str().eq_ignore_ascii_case("true");
            }
            Token::Text { text: found } => text.push_str(&unescaped(found.as_str())),
            Token::Cdata { text: found, .. } => text.push_str(found.as_str()),
            Token::ElementEnd { end: ElementEnd::Open, .. } => {}
            Token::ElementEnd { end, .. } => {
                if let ElementEnd::Close(_, local) = end
                    && open.last() != Some(&local.as_str())
                {
                    return Err("its elements do not close each other".into());
                }
                let said = std::mem::take(&mut text);
                match (open.get(1..).unwrap_or_default(), page.objects.last_mut()) {
                    (["NextMarker"], _) => page.next = Some(said).filter(|it| !it.is_empty()),
                    (["Blobs", "Blob", "Name"], Some(blob)) => {
                        blob.key = match is_encoded {
                            true => percent_decode_str(&said)
                                .decode_utf8()
                                .map_err(|_| "it has a name that is not UTF-8")?
                                .into_owned(),
                            false => said,
                        };
                    }
                    (["Blobs", "Blob", "Properties", name], Some(blob)) => set(blob, name, &said),
                    (["Blobs", "Blob", "Metadata", name], Some(blob)) => {
                        blob.is_directory |= is_folder_mark(name) && is_true(&said);
                    }
                    _ => {}
                }
                open.pop();
                is_whole |= open.is_empty();
            }
            _ => {}
        }
    }
    if is_whole { Ok(page) } else { Err("it ends early".into()) }
}

fn set(blob: &mut Found, name: &str, said: &str) {
    match name {
        "Etag" => blob.version = strong(said),
        "Content-Length" => blob.size = said.trim().parse().ok(),
        "Content-MD5" => blob.digest = md5(said),
        "ResourceType" => blob.is_directory |= said.eq_ignore_ascii_case("directory"),
        _ => {}
    }
}

/// What HEAD says about the blob `key`.
pub fn of_headers(key: &str, headers: &HeaderMap) -> Found {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let is_directory = text("x-ms-resource-type").is_some_and(|it| it == "directory")
        || text("x-ms-meta-hdi_isfolder").is_some_and(is_true);
    Found {
        key: key.to_owned(),
        size: text(CONTENT_LENGTH.as_str()).and_then(|length| length.parse().ok()),
        version: text(ETAG.as_str()).and_then(strong),
        digest: text("content-md5").and_then(md5),
        is_directory,
    }
}

fn md5(base64: &str) -> Option<Digest> {
    STANDARD.decode(base64.trim()).ok()?.try_into().ok().map(Digest::Md5)
}

/// How a hierarchical namespace, and tools that made directories before there were any, mark one.
fn is_folder_mark(name: &str) -> bool {
    name.eq_ignore_ascii_case("hdi_isfolder")
}

fn is_true(said: &str) -> bool {
    said.trim().eq_ignore_ascii_case("true")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(blobs: &str) -> Vec<u8> {
        format!(
            "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults \
             ServiceEndpoint=\"https://a/\" ContainerName=\"c\"><Prefix>m/</Prefix><Blobs>{blobs}\
             </Blobs><NextMarker>2!x</NextMarker></EnumerationResults>"
        )
        .into_bytes()
    }

    #[test]
    fn a_page_is_read() {
        let xml = page(
            "<Blob><Name>m/a &amp; b</Name><Properties><Etag>0x8D1</Etag><Content-Length>3\
             </Content-Length><Content-MD5>1B2M2Y8AsgTpgAmY7PhCfg==</Content-MD5><LeaseState>x\
             </LeaseState></Properties><Metadata /></Blob>\
             <Blob><Name Encoded=\"true\">m/%EF%BF%BF%20</Name><Properties><Etag>\"0x8D2\"</Etag>\
             <Content-MD5 /></Properties></Blob>\
             <Blob><Name>m/d</Name><Properties><ResourceType>directory</ResourceType></Properties></Blob>\
             <Blob><Name>m/e</Name><Properties/><Metadata><hdi_isfolder>true</hdi_isfolder></Metadata></Blob>",
        );
        let Page { objects, next } = parse(&xml, "https://h").expect("a page");
        assert_eq!(next.as_deref(), Some("2!x"));
        let [a, b, d, e] = objects.as_slice() else { panic!("{objects:?}") };
        assert_eq!(
            (&a.key[..], a.size, a.version.as_deref()),
            ("m/a & b", Some(3), Some("\"0x8D1\""))
        );
        assert!(matches!(a.digest, Some(Digest::Md5(_))) && !a.is_directory);
        assert_eq!((&b.key[..], &b.version.as_deref()), ("m/\u{ffff} ", &Some("\"0x8D2\"")));
        assert_eq!((b.size, &b.digest), (None, &None));
        assert!(d.is_directory && e.is_directory);
    }

    #[test]
    fn what_is_no_page_is_refused() {
        let many = page(&"<Blob/>".repeat(MAX_BLOBS + 1));
        for xml in [
            &b"<html></html>"[..],
            b"<EnumerationResults>",
            b"<EnumerationResults></Blobs>",
            b"\xff",
            &many,
            &"<EnumerationResults>".repeat(100).into_bytes(),
        ] {
            assert!(matches!(parse(xml, "https://h"), Err(SourceError::Protocol(_))));
        }
    }
}
