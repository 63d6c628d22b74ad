//! What went wrong below HTTP: no connection, no trust, a connection that broke.

use std::error::Error as _;

use super::{CHECK_DNS, CHECK_EGRESS, CHECK_PROXY, HttpProblem, SourceError};
use crate::model::text;

/// Names a failure below HTTP: an untrusted certificate is for the operator, the rest may pass.
pub fn transport_error(origin: &str, error: &reqwest::Error) -> SourceError {
    let (host, why) = (origin.to_owned(), chain(error));
    if is_untrusted(error) {
        return SourceError::Trust(HttpProblem::Certificate { host, why }.into());
    }
    if why.contains(PROXY_WANTS_LOGIN) {
        return SourceError::Unreachable(HttpProblem::ProxyLogin { host }.into());
    }
    let hint = error.is_connect().then(|| to_connect(&why));
    SourceError::Unreachable(HttpProblem::Connection { host, why, hint }.into())
}

/// What the client of the proxy says of a 407; its type is not public.
const PROXY_WANTS_LOGIN: &str = "proxy authorization required";

/// What to look at where no connection comes about. The parts are told apart by what the layers call themselves.
fn to_connect(why: &str) -> &'static str {
    match why {
        _ if why.contains("tunnel error") || why.contains("socks") => CHECK_PROXY,
        _ if why.contains("dns error") => CHECK_DNS,
        _ => CHECK_EGRESS,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_look_at_follows_from_the_layer_that_failed() {
        let refused = "tcp connect error: Connection refused (os error 111)";
        for (why, expected) in [
            (format!("client error (Connect): {refused}"), CHECK_EGRESS),
            ("client error (Connect): tcp connect error: No route to host".into(), CHECK_EGRESS),
            ("client error (Connect): dns error: failed to lookup address".into(), CHECK_DNS),
            (
                format!("client error (Connect): tunnel error: failed to create underlying connection: {refused}"),
                CHECK_PROXY,
            ),
            (
                "client error (Connect): tunnel error: failed to create underlying connection: dns error: no".into(),
                CHECK_PROXY,
            ),
        ] {
            assert_eq!(to_connect(&why), expected, "{why}");
        }
    }
}
