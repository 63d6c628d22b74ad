//! `oci://registry[:port]/name[:tag][@sha256:…]`.

use std::fmt;

use super::Refusal;

/// An artifact or an image in a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OciArtifact {
    /// `host` or `host:port`; Docker Hub is `docker.io` in all its spellings.
    pub registry: String,
    /// The repository, such as `org/name`.
    pub name: String,
    /// Where the URI has a digest, the tag is for the reader only.
    pub tag: Option<String>,
    /// `sha256:` and 64 hexadecimal digits in lower case.
    pub digest: Option<String>,
}

/// What is meant where the URI has neither a tag nor a digest.
const DEFAULT_TAG: &str = "latest";
const DOCKER_HUB: &str = "docker.io";
/// Longest name of a repository, as registries have it.
const MAX_NAME_BYTES: usize = 255;
const MAX_TAG_BYTES: usize = 128;

impl OciArtifact {
    pub(super) fn parse(rest: &str) -> Result<Self, Refusal> {
        let (registry, rest) =
            rest.split_once('/').ok_or("does not name a registry and a repository")?;
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => (rest, Some(Self::digest(digest)?)),
            None => (rest, None),
        };
        let (name, tag) = match rest.split_once(':') {
            Some((name, tag)) => (name, Some(tag)),
            None => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err("has no usable tag after `:`".into());
        }
        if !is_name(name) {
            return Err("does not name a repository in lower case, such as org/name".into());
        }
        let registry = registry_of(registry)?;
        // As Docker reads it: what has no owner is an official image.
        let is_official = registry == DOCKER_HUB && !name.contains('/');
        let name = if is_official { format!("library/{name}") } else { name.to_owned() };
        let tag = match (tag, &digest) {
            (None, None) => Some(DEFAULT_TAG.to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Self { registry, name, tag, digest })
    }

    fn digest(text: &str) -> Result<String, &'static str> {
        const WRONG: &str = "has no digest after `@`: sha256: and 64 hexadecimal digits";
        let digits = text.strip_prefix("sha256:").ok_or(WRONG)?;
        let is_sha256 = digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_sha256 { Ok(text.to_ascii_lowercase()) } else { Err(WRONG) }
    }

    /// What a registry is asked for: the digest, or else the tag.
    pub fn reference(&self) -> &str {
        self.digest.as_deref().or(self.tag.as_deref()).unwrap_or(DEFAULT_TAG)
    }

    /// Whether the registry is Docker Hub, whose API has another name.
    pub fn is_on_docker_hub(&self) -> bool {
        self.registry == DOCKER_HUB
    }

    /// `docker.io` for the names that Docker Hub has, and any other as it is.
    pub fn canonical_registry(host: &str) -> &str {
        match host {
            "index.docker.io" | "registry-1.docker.io" => DOCKER_HUB,
            host => host,
        }
    }
}

impl fmt::Display for OciArtifact {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { registry, name, tag, digest } = self;
        write!(out, "oci://{registry}/{name}")?;
        tag.iter().try_for_each(|tag| write!(out, ":{tag}"))?;
        digest.iter().try_for_each(|digest| write!(out, "@{digest}"))
    }
}

fn registry_of(text: &str) -> Result<String, Refusal> {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => {
            let is_address = address.parse::<core::net::Ipv6Addr>().is_ok();
            let port = rest.strip_prefix(':');
            if !is_address || (port.is_none() && !rest.is_empty()) {
                return Err("does not name a registry as host or host:port".into());
            }
            (text, port)
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let is_host = host.starts_with('[') || host.split('.').all(is_label);
    if !is_host || port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return Err("does not name a registry as host or host:port".into());
    }
    // Docker takes it for an owner at Docker Hub; a cluster may have a service of that name.
    if !host.contains(['.', '[']) && host != "localhost" && port.is_none() {
        return Err(Refusal::with_hint(
            "names a registry without a dot and without a port",
            "write oci://docker.io/org/name for Docker Hub, or add the port",
        ));
    }
    let registry = text.to_ascii_lowercase();
    Ok(OciArtifact::canonical_registry(&registry).to_owned())
}

/// Parts of lower-case letters and digits, with `.`, `_`, `__` or dashes between them.
fn is_name(name: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_part = |part: &str| {
        let bytes = part.as_bytes();
        let ends = bytes.first().zip(bytes.last());
        let between = part.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        let is_separator =
            |it: &str| matches!(it, "" | "." | "_" | "__") || it.bytes().all(|byte| byte == b'-');
        ends.is_some_and(|(first, last)| is_word(*first) && is_word(*last))
            && between.into_iter().all(is_separator)
    };
    name.len() <= MAX_NAME_BYTES && name.split('/').all(is_part)
}

fn is_tag(tag: &str) -> bool {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    tag.len() <= MAX_TAG_BYTES
        && tag.as_bytes().first().is_some_and(is_word)
        && tag.bytes().all(|byte| is_word(&byte) || b".-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    fn parse(rest: &str) -> Result<OciArtifact, Refusal> {
        OciArtifact::parse(rest)
    }

    #[test]
    fn a_reference_is_read_as_docker_reads_it() {
        for (text, shown, reference) in [
            ("ghcr.io/org/llama", "oci://ghcr.io/org/llama:latest", "latest"),
            ("ghcr.io/org/llama:v1.0_A-b", "oci://ghcr.io/org/llama:v1.0_A-b", "v1.0_A-b"),
            ("docker.io/llama", "oci://docker.io/library/llama:latest", "latest"),
            ("index.docker.io/ai/smollm2:360M", "oci://docker.io/ai/smollm2:360M", "360M"),
            ("localhost/a", "oci://localhost/a:latest", "latest"),
            ("registry:5000/a/b_c__d.e---f", "oci://registry:5000/a/b_c__d.e---f:latest", "latest"),
            ("[::1]:5000/a", "oci://[::1]:5000/a:latest", "latest"),
            ("Quay.IO/a/b:x", "oci://quay.io/a/b:x", "x"),
        ] {
            let read = parse(text).expect(text);
            assert_eq!((read.to_string().as_str(), read.reference()), (shown, reference));
        }
        let pinned = parse(&format!("ghcr.io/org/llama:v1@{DIGEST}")).expect("a digest");
        assert_eq!((pinned.reference(), pinned.tag.as_deref()), (DIGEST, Some("v1")));
        let upper = parse(&format!("ghcr.io/a@sha256:{}", DIGEST[7..].to_uppercase()));
        let upper = upper.expect("a digest");
        assert_eq!((upper.reference(), upper.tag.as_deref()), (DIGEST, None));
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        for text in [
            "",
            "ghcr.io",
            "ghcr.io/",
            "/org/name",
            "org/name",
            "ghcr.io/Org/name",
            "ghcr.io/a//b",
            "ghcr.io/a/../b",
            "ghcr.io/a_-b",
            "ghcr.io/a___b",
            "ghcr.io/-a",
            "ghcr.io/a:",
            "ghcr.io/a:.x",
            "ghcr.io/a:x/y",
            "ghcr.io/a@sha512:00",
            "ghcr.io/a@sha256:00",
            "user:password@ghcr.io/a",
            "ghcr.io:http/a",
            "ghcr.io:70000/a",
            "[::1/a",
            "[::x]/a",
            "a..b/c",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse(&format!("ghcr.io/{}", "a".repeat(256))).is_err());
        assert!(parse(&format!("ghcr.io/a:{}", "a".repeat(129))).is_err());
    }
}
