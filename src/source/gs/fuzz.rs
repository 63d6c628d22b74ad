//! A listing of Google's storage, without a network; see [`crate::fuzz`].

use super::page;
use crate::source::fuzz::assert_inert;

/// `data` is the JSON of a page.
pub fn gs_listing(data: &[u8]) {
    match page::parse(data, "https://storage.example") {
        // It becomes part of a URL.
        Ok(listed) => {
            let versions = listed.page.objects.iter().filter_map(|found| found.version.as_ref());
            assert!(versions.flat_map(|it| it.bytes()).all(|byte| byte.is_ascii_digit()));
        }
        Err(refused) => assert_inert(&refused.to_string()),
    }
}
