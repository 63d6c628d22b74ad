//! Checks what is signed with the key of an account of Azure's storage (`SharedKey`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::http::Request;
use crate::sigv4::hmac;
use crate::text::query_pairs;

/// Whether the request is signed with this key, as the documentation of `SharedKey` has it.
pub(crate) fn is_signed(request: &Request, account: &str, key: &[u8]) -> bool {
    let signature = hmac(key, string_to_sign(request, account).as_bytes());
    let expected = format!("SharedKey {account}:{}", STANDARD.encode(signature));
    request.header("authorization") == Some(&expected)
}

fn string_to_sign(request: &Request, account: &str) -> String {
    let header = |name: &str| request.header(name).unwrap_or_default();
    let mut lines = vec![request.method.clone()];
    for name in [
        "content-encoding",
        "content-language",
        "content-length",
        "content-md5",
        "content-type",
        "date",
        "if-modified-since",
        "if-match",
        "if-none-match",
        "if-unmodified-since",
        "range",
    ] {
        let value = header(name);
        lines.push(if name == "content-length" && value == "0" { "" } else { value }.to_owned());
    }
    let mut own: Vec<(String, &str)> = request
        .headers
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value.as_str()))
        .filter(|(name, _)| name.starts_with("x-ms-"))
        .collect();
    own.sort();
    lines.extend(own.into_iter().map(|(name, value)| format!("{name}:{value}")));
    lines.push(format!("/{account}{}", request.path));
    let mut parameters = query_pairs(&request.query);
    parameters.sort();
    lines.extend(
        parameters.into_iter().map(|(name, value)| format!("{}:{value}", name.to_lowercase())),
    );
    lines.join("\n")
}
