//! A listing and an error of Azure's storage, without a network; see [`crate::fuzz`].

use reqwest::header::HeaderValue;

use super::{page, refusals};
use crate::source::fuzz::assert_inert;

/// `data` is the XML of a page.
pub fn az_listing(data: &[u8]) {
    let _ = refusals::parse(&String::from_utf8_lossy(data));
    match page::parse(data, "https://models.example") {
        // It becomes a header.
        Ok(page) => {
            let versions = page.objects.iter().filter_map(|found| found.version.as_ref());
            assert!(versions.into_iter().all(|etag| HeaderValue::from_str(etag).is_ok()));
        }
        Err(refused) => assert_inert(&refused.to_string()),
    }
}
