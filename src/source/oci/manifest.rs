//! Manifests and indexes, as far as they are used: OCI's, and Docker's of schema 2.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::model::{hex, text};

/// What is asked for, the usual first.
pub const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, \
    application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json";

/// What registries let a manifest have.
pub const MAX_MANIFEST_BYTES: usize = 4 << 20;
const MAX_LAYERS: usize = 20_000;
/// Entries of an index that a message names.
const MAX_NAMED: usize = 5;

#[derive(Debug)]
pub enum Manifest {
    Artifact(Artifact),
    Index(Vec<Entry>),
}

/// A manifest that has layers.
#[derive(Debug)]
pub struct Artifact {
    /// Of the artifact: its own, or that of its config.
    pub kind: String,
    pub layers: Vec<Layer>,
}

/// One blob.
#[derive(Clone, Debug)]
pub struct Layer {
    pub media_type: String,
    pub sha256: [u8; 32],
    pub size: u64,
    pub annotations: BTreeMap<String, String>,
}

/// One of the manifests of an index.
#[derive(Clone, Debug)]
pub struct Entry {
    pub sha256: [u8; 32],
    platform: Option<Platform>,
    is_about_another: bool,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
struct Platform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
}

#[derive(Deserialize)]
struct Document {
    #[serde(rename = "artifactType", default)]
    artifact_type: Option<String>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
}

#[derive(Deserialize)]
struct Descriptor {
    #[serde(rename = "mediaType", default)]
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(default)]
    platform: Option<Platform>,
}

impl Manifest {
    /// What `body` describes, or why it is no manifest, in inert words.
    pub fn parse(body: &[u8]) -> Result<Self, String> {
        let document: Document =
            serde_json::from_slice(body).map_err(|error| text::inert(&error.to_string(), 120))?;
        match document {
            Document { manifests: Some(entries), .. } => {
                if entries.len() > MAX_LAYERS {
                    return Err(format!("its index has {} entries", entries.len()));
                }
                entries.into_iter().map(Entry::of).collect::<Result<_, _>>().map(Self::Index)
            }
            Document { layers: Some(layers), artifact_type, config, .. } => {
                if layers.len() > MAX_LAYERS {
                    return Err(format!("it has {} layers", layers.len()));
                }
                let kind = artifact_type.filter(|kind| !kind.is_empty());
                let kind = kind.or(config.map(|config| config.media_type)).unwrap_or_default();
                let layers = layers.into_iter().map(Layer::of).collect::<Result<_, _>>()?;
                Ok(Self::Artifact(Artifact { kind, layers }))
            }
            _ => Err("it has neither `layers` nor `manifests`".into()),
        }
    }
}

impl Layer {
    fn of(read: Descriptor) -> Result<Self, String> {
        let Descriptor { media_type, size, annotations, .. } = read;
        let (sha256, annotations) = (sha256(&read.digest)?, annotations.unwrap_or_default());
        Ok(Self { media_type, sha256, size, annotations })
    }

    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

impl Entry {
    fn of(read: Descriptor) -> Result<Self, String> {
        let annotations = read.annotations.unwrap_or_default();
        let is_about_another = annotations.contains_key("vnd.docker.reference.digest");
        let platform = read.platform.filter(|it| !it.os.is_empty() || !it.architecture.is_empty());
        Ok(Self { sha256: sha256(&read.digest)?, platform, is_about_another })
    }

    /// Which one of an index is meant: that for linux/amd64, or the only one, or the only one that is for no
    /// platform. Weights are the same for all, so that the choice must not depend on the node. Otherwise what
    /// there is, in inert words.
    pub fn choose(entries: &[Self]) -> Result<&Self, String> {
        let is_unknown = |platform: &Platform| platform.os == "unknown";
        let is_usual = |it: &Platform| it.os == "linux" && it.architecture == "amd64";
        let is_artifact =
            |it: &&Self| !it.is_about_another && !it.platform.as_ref().is_some_and(is_unknown);
        let artifacts: Vec<&Self> = entries.iter().filter(is_artifact).collect();
        let of_none: Vec<&Self> =
            artifacts.iter().copied().filter(|it| it.platform.is_none()).collect();
        let usual = artifacts.iter().find(|it| it.platform.as_ref().is_some_and(is_usual));
        let found = match (usual, artifacts.as_slice(), of_none.as_slice()) {
            (Some(one), ..) | (None, [one], _) | (None, _, [one]) => Some(*one),
            _ => None,
        };
        found.ok_or_else(|| {
            let named: Vec<String> =
                artifacts.iter().take(MAX_NAMED).map(|it| it.shown()).collect();
            match (named.is_empty(), artifacts.len().saturating_sub(MAX_NAMED)) {
                (true, _) => "nothing".into(),
                (false, 0) => named.join(", "),
                (false, more) => format!("{} and {more} more", named.join(", ")),
            }
        })
    }

    fn shown(&self) -> String {
        let digest = shown(&self.sha256);
        match &self.platform {
            Some(Platform { os, architecture }) => {
                format!("{digest} for {}/{}", text::inert(os, 20), text::inert(architecture, 20))
            }
            None => digest,
        }
    }
}

/// A digest as registries write it.
pub fn shown(sha256: &[u8; 32]) -> String {
    format!("sha256:{}", hex::encode(sha256))
}

pub fn sha256(digest: &str) -> Result<[u8; 32], String> {
    let digits = digest.strip_prefix("sha256:");
    digits.and_then(hex::decode).ok_or_else(|| {
        format!(
            "`{}` is not a SHA-256 digest, and weightlift reads no others",
            text::inert(digest, 80)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(n: u8) -> String {
        shown(&[n; 32])
    }

    fn index(entries: &[(u8, &str)]) -> Vec<Entry> {
        let entry = |(n, rest): &(u8, &str)| {
            format!(r#"{{"mediaType":"m","size":1,"digest":"{}"{rest}}}"#, digest(*n))
        };
        let entries = entries.iter().map(entry).collect::<Vec<_>>().join(",");
        match Manifest::parse(
            format!(r#"{{"schemaVersion":2,"manifests":[{entries}]}}"#).as_bytes(),
        ) {
            Ok(Manifest::Index(entries)) => entries,
            other => panic!("{other:?}"),
        }
    }

    const AMD64: &str = r#","platform":{"os":"linux","architecture":"amd64"}"#;
    const ARM64: &str = r#","platform":{"os":"linux","architecture":"arm64"}"#;
    const ATTESTATION: &str = r#","platform":{"os":"unknown","architecture":"unknown"},"annotations":{"vnd.docker.reference.digest":"x"}"#;

    #[test]
    fn one_of_an_index_is_chosen_whatever_the_node() {
        for (entries, expected) in [
            (&[(1, ARM64), (2, AMD64), (3, "")][..], Some(2)),
            (&[(1, ARM64)], Some(1)),
            (&[(1, "")], Some(1)),
            (&[(1, ARM64), (2, ATTESTATION)], Some(1)),
            (&[(1, ARM64), (2, "")], Some(2)),
            (&[(1, ""), (2, "")], None),
            (&[(2, ATTESTATION)], None),
            (&[], None),
        ] {
            let entries = index(entries);
            let chosen = Entry::choose(&entries).map(|entry| entry.sha256[0]);
            assert_eq!(chosen.clone().ok(), expected, "{chosen:?}");
        }
        let both = index(&[(1, ""), (2, "")]);
        let told = Entry::choose(&both).expect_err("two");
        assert_eq!(told, format!("{}, {}", digest(1), digest(2)));
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
        let layer = |digest: &str| {
            format!(r#"{{"layers":[{{"mediaType":"m","size":1,"digest":"{digest}"}}]}}"#)
        };
        assert!(matches!(Manifest::parse(layer(&digest(1)).as_bytes()), Ok(Manifest::Artifact(_))));
        for text in [
            "",
            "{}",
            "[]",
            "<html>",
            r#"{"layers":[{}]}"#,
            r#"{"layers":[{"size":-1,"digest":""}]}"#,
            &layer("sha512:00"),
            &layer("sha256:00"),
            &layer("sha256:../../../../etc/passwd"),
        ] {
            assert!(Manifest::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
