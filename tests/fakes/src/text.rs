//! Spellings of bytes and text: hex, percent encoding, query strings.

use std::fmt::Write;

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The bytes of an even number of hex digits, `None` for anything else.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2))?;
    Some(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// `%41` becomes `A`; broken escapes stay as they are; bytes that are no UTF-8 are replaced.
pub(crate) fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped =
            (bytes[at] == b'%').then(|| text.get(at + 1..at + 3).and_then(unhex)).flatten();
        match escaped {
            Some(byte) => {
                decoded.extend(byte);
                at += 3;
            }
            None => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// Escapes everything but unreserved characters and those in `keep`.
pub(crate) fn percent_encode(text: &str, keep: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut encoded, byte| {
        let plain = byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
        if plain || keep.as_bytes().contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

/// Decoded name and value of every pair in a query string, in the order sent.
///
/// `+` stays a plus: S3 signs it as one. Forms are decoded by [`form_pairs`].
pub(crate) fn query_pairs(query: &str) -> Vec<(String, String)> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (percent_decode(name), percent_decode(value))
        })
        .collect()
}

/// Like [`query_pairs`], with `+` for a blank as HTML forms have it.
pub(crate) fn form_pairs(form: &str) -> Vec<(String, String)> {
    query_pairs(&form.replace('+', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_encoding_survives_a_round_trip_and_broken_escapes_stay() {
        let name = "dir/a b+ü%.txt";
        assert_eq!(percent_encode(name, "/"), "dir/a%20b%2B%C3%BC%25.txt");
        assert_eq!(percent_decode(&percent_encode(name, "")), name);
        assert_eq!(percent_decode("100%ü%4"), "100%ü%4");
    }

    #[test]
    fn hex_survives_a_round_trip() {
        assert_eq!(hex(&[0, 171, 255]), "00abff");
        assert_eq!(unhex("00abff"), Some(vec![0, 171, 255]));
        assert_eq!(unhex("0"), None);
        assert_eq!(unhex("zz"), None);
    }
}
