//! A listing of S3, without a network; see [`crate::fuzz`].

use super::listing::{Entry, entry};
use super::page::Page;
use crate::source::fuzz::assert_inert;

const BASE: &str = "m/";

/// `data` is the XML of a page.
pub fn s3_listing(data: &[u8]) {
    let page = match Page::parse(data, BASE) {
        Ok(page) => page,
        Err(refused) => return assert_inert(&refused.to_string()),
    };
    for found in &page.objects {
        match entry(BASE, found, found.size.unwrap_or_default()) {
            Ok(Entry::File(listed)) => crate::model::fuzz::assert_safe(&listed.path),
            Ok(Entry::Refused(file)) => assert_inert(&file.why.to_string()),
            Ok(Entry::Sentinel(_) | Entry::Marker | Entry::Skipped(_)) => {}
            Err(refused) => assert_inert(&refused.to_string()),
        }
    }
}
