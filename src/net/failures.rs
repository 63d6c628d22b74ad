//! What went wrong below HTTP: no connection, no trust, a connection that broke.

use std::error::Error as _;

use super::{HttpProblem, SourceError};
use crate::model::text;

/// Names a failure below HTTP: an untrusted certificate is for the operator, the rest may pass.
pub fn transport_error(origin: &str, error: &reqwest::Error) -> SourceError {
    let (host, why) = (origin.to_owned(), chain(error));
    if is_untrusted(error) {
        return SourceError::Trust(HttpProblem::Certificate { host, why }.into());
    }
    SourceError::Unreachable(HttpProblem::Connection { host, why }.into())
}

fn is_untrusted(error: &reqwest::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = error.source();
    while let Some(error) = cause {
        // An I/O error does not count what it carries among its sources, and may carry another one.
        let mut carried = error;
        while let Some(inner) = carried.downcast_ref::<std::io::Error>().and_then(|io| io.get_ref())
        {
            carried = inner;
        }
        if let Some(tls) = carried.downcast_ref::<rustls::Error>() {
            return matches!(tls, rustls::Error::InvalidCertificate(_));
        }
        cause = error.source();
    }
    false
}

/// The causes of `error` in one inert line, without the URL, whose query may be a signature.
pub fn chain(error: &reqwest::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        let part = error.to_string();
        if !parts.iter().any(|known| known.contains(&part)) {
            parts.push(part);
        }
        cause = error.source();
    }
    if parts.is_empty() {
        parts.push(if error.is_timeout() { "timed out".into() } else { "request failed".into() });
    }
    text::inert(&parts.join(": "), 300)
}
