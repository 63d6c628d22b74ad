//! Manifests, challenges and archives of a registry, without a network; see [`crate::fuzz`].

use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};

use super::archive::Unpacker;
use super::challenge::Challenge;
use super::layers::{Layers, Root};
use super::manifest::{Entry, Manifest};
use super::tar;
use crate::source::fuzz::assert_inert;

/// Packed bytes that an archive here is said to have.
const PACKED_BYTES: u64 = 1 << 20;

pub fn oci_manifest(data: &[u8]) {
    match Manifest::parse(data) {
        Err(why) => assert_inert(&why),
        Ok(Manifest::Index(entries)) => match Entry::choose(&entries) {
            Ok(chosen) => assert!(entries.iter().any(|entry| entry.sha256 == chosen.sha256)),
            Err(found) => assert_inert(&found),
        },
        Ok(Manifest::Artifact(artifact)) => match Layers::of(&artifact, "registry/name") {
            Err(refused) => assert_inert(&refused.to_string()),
            Ok(layers) => {
                layers.files.iter().for_each(|file| crate::model::fuzz::assert_safe(&file.path));
                layers.refused.iter().for_each(|file| assert_inert(&file.why.to_string()));
                let known = layers.files.len() + layers.refused.len() + layers.packed.len();
                assert!(known <= artifact.layers.len());
            }
        },
    }
}

pub fn oci_challenge(data: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(data) else { return };
    let headers = HeaderMap::from_iter([(WWW_AUTHENTICATE, value)]);
    if let Some(Challenge::Bearer { realm, .. }) = Challenge::of(&headers) {
        assert!(!realm.is_empty());
    }
}

pub fn oci_archive(data: &[u8]) {
    for root in [Root::All, Root::Models] {
        let mut unpacker = Unpacker::new(root, PACKED_BYTES, None);
        let read = tar::read(data, &mut unpacker);
        match read.and_then(|()| unpacker.finish()) {
            Err(refused) => assert_inert(&refused.to_string()),
            Ok(changes) => {
                for (path, content) in &changes.files {
                    crate::model::fuzz::assert_safe(path);
                    assert!(content.size <= data.len() as u64 && content.stored.is_none());
                }
            }
        }
    }
}
