//! What a status says by itself: of a Hub or a registry, and of the storage behind it.
//!
//! Knows no source.

use reqwest::StatusCode;

/// What a refusal by the storage behind a Hub or a registry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OfStorage {
    /// The link, which may have expired.
    Link,
    /// The file, for good.
    No,
    /// The link is stale, or the storage not consistent yet.
    Gone,
    /// Its own trouble.
    Trouble,
    Broken,
}

impl OfStorage {
    /// What it means of a link to the storage, or of what was redirected to.
    pub fn of(status: StatusCode) -> Self {
        match status {
            // Google's storage says 400 where others say 403, and that for other reasons as well.
            StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                OfStorage::Link
            }
            StatusCode::PAYMENT_REQUIRED | StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS => {
                OfStorage::No
            }
            StatusCode::NOT_FOUND | StatusCode::GONE => OfStorage::Gone,
            status if is_trouble(status) => OfStorage::Trouble,
            _ => OfStorage::Broken,
        }
    }
}

/// A refusal that the same request will meet again. Some of 400 to 499 speak of this moment, or of the
/// range that was asked for.
pub fn is_no(status: StatusCode) -> bool {
    status.is_client_error()
        && !is_trouble(status)
        && status != StatusCode::TOO_MANY_REQUESTS
        && status != StatusCode::RANGE_NOT_SATISFIABLE
}

pub fn is_trouble(status: StatusCode) -> bool {
    status.is_server_error()
        || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY)
}

pub fn meaning(status: StatusCode) -> &'static str {
    match status {
        StatusCode::PAYMENT_REQUIRED => ", which means that a payment is required",
        StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS => ", which means legal reasons",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_of_the_storage_is_about_the_link_or_about_the_file() {
        for (status, meaning) in [
            (400, OfStorage::Link),
            (401, OfStorage::Link),
            (402, OfStorage::No),
            (403, OfStorage::Link),
            (404, OfStorage::Gone),
            (405, OfStorage::Broken),
            (408, OfStorage::Trouble),
            (410, OfStorage::Gone),
            (416, OfStorage::Broken),
            (425, OfStorage::Trouble),
            (451, OfStorage::No),
            (503, OfStorage::Trouble),
        ] {
            let code = StatusCode::from_u16(status).expect("a status");
            assert_eq!(OfStorage::of(code), meaning);
        }
    }
}
