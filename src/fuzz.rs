//! What fuzzers and `tests/fuzz.rs` call: every reader of foreign bytes, each with what must hold of
//! whatever it accepts. A broken promise is a panic. No part of any interface.

use crate::{model, source, verify, volume};

/// A reader, given any bytes.
pub type Target = fn(&[u8]);

/// All of them; each has a corpus of its name in `tests/corpus`.
pub const TARGETS: &[(&str, Target)] = &[
    ("repo_path", model::fuzz::repo_path),
    ("sentinel", model::fuzz::sentinel),
    ("journal", volume::fuzz::journal),
    ("owner", volume::fuzz::owner),
    ("safetensors", verify::fuzz::safetensors),
    ("index", verify::fuzz::index),
    ("model_signature", verify::fuzz::model_signature),
    ("content_range", source::fuzz::content_range),
    ("retry_after", source::fuzz::retry_after),
    ("link", source::fuzz::link),
    ("redirect", source::fuzz::redirect),
    ("hub_tree", source::fuzz::hub_tree),
    ("xet_answer", source::hub::xet::fuzz::xet_answer),
    ("xet_chunk", source::hub::xet::fuzz::xet_chunk),
    ("oci_manifest", source::oci::fuzz::oci_manifest),
    ("oci_challenge", source::oci::fuzz::oci_challenge),
    ("oci_archive", source::oci::fuzz::oci_archive),
    ("sha256sums", source::fuzz::sha256sums),
    ("netrc", source::fuzz::netrc),
    ("modelscope_listing", source::fuzz::modelscope_listing),
    ("s3_listing", source::s3::fuzz::s3_listing),
    ("gs_listing", source::gs::fuzz::gs_listing),
    ("az_listing", source::az::fuzz::az_listing),
];
