//! Answers that are compressed although `identity` was asked for: said in words, because what is in
//! them looks like garbage. They are not unpacked: the ranges and digests of files are those of their
//! own bytes, and what does so is a proxy or a mirror that is set up wrongly.

use reqwest::header::{CONTENT_ENCODING, HeaderMap};

use crate::model::text;

/// The encoding that an answer claims to have, if it is one; inert.
pub fn claimed(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(CONTENT_ENCODING)?;
    let value = text::inert(&String::from_utf8_lossy(value.as_bytes()), 40).to_ascii_lowercase();
    (!matches!(value.as_str(), "" | "identity")).then_some(value)
}

/// The encoding that a body has by its first bytes, whatever was claimed.
pub fn seen(body: &[u8]) -> Option<String> {
    let known: [(&[u8], &str); 3] =
        [(&[0x1f, 0x8b], "gzip"), (&[0x28, 0xb5, 0x2f, 0xfd], "zstd"), (&[0x78, 0x9c], "deflate")];
    let found = known.into_iter().find(|(magic, _)| body.starts_with(magic));
    found.map(|(_, name)| name.to_owned())
}

/// Where an answer that is not understood probably comes from.
pub fn hint(encoding: Option<&str>) -> Option<String> {
    encoding.map(|encoding| {
        format!(
            "it is compressed (`{encoding}`) although weightlift asked for `identity`; switch compression \
             off at the mirror, or at the proxy in between"
        )
    })
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    #[test]
    fn a_compressed_answer_is_known_by_its_head_or_by_its_bytes() {
        let claims = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(value));
            claimed(&headers)
        };
        assert_eq!(claims("GZIP").as_deref(), Some("gzip"));
        assert_eq!(claims("gzip, br").as_deref(), Some("gzip, br"));
        for none in ["", " ", "identity", "Identity"] {
            assert_eq!(claims(none), None, "{none}");
        }
        assert_eq!(claimed(&HeaderMap::new()), None);
        assert_eq!(seen(&[0x1f, 0x8b, 8]).as_deref(), Some("gzip"));
        assert_eq!(seen(b"[{}]"), None);
        assert_eq!(seen(b""), None);
    }
}
