//! What proves the bytes of a file. An ETag is no digest, but for the MD5 of an object that was uploaded
//! in one piece: a last resort, which can prove and cannot refute.

use std::borrow::Cow;
use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What the sentinel calls [`Digest::Md5Etag`].
pub const MD5_ETAG: &str = "md5-etag";

/// A digest that a source published for a whole file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Digest {
    /// `lfs.oid` of the Hub, a full-object S3 SHA-256, a line of `SHA256SUMS`.
    Sha256([u8; 32]),
    /// Git's name of a blob: SHA-1 over `blob <length>\0` and the content.
    GitSha1([u8; 20]),
    /// An S3 checksum over the whole object; the value big-endian, as S3 sends it.
    Full { checksum: Checksum, value: Vec<u8> },
    /// An S3 checksum over the checksums of the parts of a multipart upload.
    Composite { checksum: Checksum, part_sizes: Vec<u64>, value: Vec<u8> },
    /// An S3 ETag that looks like the MD5 of the object, where nothing better is published.
    Md5Etag { md5: [u8; 16], told_by: Md5Told },
    /// The CRC-32C that Google's storage keeps of every object, big-endian.
    Crc32c([u8; 4]),
    /// An MD5 that is kept as one: the `Content-MD5` of a blob, the `md5Hash` of an object.
    Md5([u8; 16]),
}

/// Why an ETag is taken for an MD5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Md5Told {
    /// It has the form of one. That of S3 Express, and of many a gateway, has it as well.
    ByItsForm,
    /// The store says that it encrypts with its own keys (SSE-S3), where the ETag is the MD5.
    ByTheStore,
}

/// The algorithms that S3 offers for additional checksums and that are computed here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Checksum {
    Sha256,
    Sha1,
    Crc64Nvme,
    Crc32c,
    Crc32,
}

impl Digest {
    /// A SHA-256 from 64 hexadecimal digits.
    pub fn sha256_from_hex(text: &str) -> Option<Self> {
        hex::decode(text).map(Self::Sha256)
    }

    /// A git blob id from 40 hexadecimal digits.
    pub fn git_sha1_from_hex(text: &str) -> Option<Self> {
        hex::decode(text).map(Self::GitSha1)
    }

    /// The SHA-256 of the whole content, if it is that. S3 names it in its own way.
    pub fn sha256(&self) -> Option<[u8; 32]> {
        match self {
            Self::Sha256(sha256) => Some(*sha256),
            Self::Full { checksum: Checksum::Sha256, value } => value.as_slice().try_into().ok(),
            _ => None,
        }
    }

    /// How the sentinel and the messages call this kind of proof.
    pub fn kind(&self) -> Cow<'static, str> {
        match self {
            Self::Sha256(_) => "sha256".into(),
            Self::GitSha1(_) => "git-sha1".into(),
            Self::Full { checksum, .. } => format!("s3-{}", checksum.name()).into(),
            Self::Composite { checksum, .. } => format!("s3-{}-composite", checksum.name()).into(),
            Self::Md5Etag { .. } => MD5_ETAG.into(),
            Self::Crc32c(_) => "crc32c".into(),
            Self::Md5(_) => "md5".into(),
        }
    }

    /// An MD5 from the ETag of an object that was uploaded in one piece: 32 hexadecimal digits and no
    /// `-N`.
    pub fn md5_from_etag(etag: &str, told_by: Md5Told) -> Option<Self> {
        hex::decode(etag.trim_matches('"')).map(|md5| Self::Md5Etag { md5, told_by })
    }

    /// Whether bytes with another digest are certainly wrong. An ETag may be anything.
    pub fn refutes(&self) -> bool {
        !matches!(self, Self::Md5Etag { .. })
    }

    /// Whether the same digest means the same content, also where somebody means harm. A CRC only
    /// tells damage: other bytes with the same one are made with four more. Two files with one MD5 are
    /// made in seconds.
    ///
    /// SHA-1 counts: both files of a known collision come from one hand, which might as well have
    /// published only the other one.
    pub fn identifies(&self) -> bool {
        match self {
            Self::Sha256(_) | Self::GitSha1(_) => true,
            Self::Full { checksum, .. } | Self::Composite { checksum, .. } => {
                checksum.crc_algorithm().is_none()
            }
            Self::Md5Etag { .. } | Self::Crc32c(_) | Self::Md5(_) => false,
        }
    }

    /// A checksum: with the name of a version of an object (its ETag, its generation) it stands for that
    /// version's content. An MD5 that is that name adds nothing to it.
    pub fn is_checksum(&self) -> bool {
        match self {
            Self::Full { checksum, .. } | Self::Composite { checksum, .. } => {
                checksum.crc_algorithm().is_some()
            }
            Self::Crc32c(_) | Self::Md5(_) => true,
            Self::Sha256(_) | Self::GitSha1(_) | Self::Md5Etag { .. } => false,
        }
    }

    /// The same of a digest as it is written, such as `s3-sha1:…`.
    pub fn identifies_by_kind(written: &str) -> bool {
        let kind = written.split(':').next().unwrap_or_default();
        kind == "git-sha1" || kind.contains("sha256") || kind.starts_with("s3-sha1")
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Sha256(value) => value,
            Self::GitSha1(value) => value,
            Self::Full { value, .. } | Self::Composite { value, .. } => value,
            Self::Md5Etag { md5, .. } | Self::Md5(md5) => md5,
            Self::Crc32c(value) => value,
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}", self.kind(), hex::encode(self.bytes()))
    }
}

impl Checksum {
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha1 => "sha1",
            Self::Crc64Nvme => "crc64nvme",
            Self::Crc32c => "crc32c",
            Self::Crc32 => "crc32",
        }
    }

    /// Length of a value in bytes.
    pub fn len_bytes(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha1 => 20,
            Self::Crc64Nvme => 8,
            Self::Crc32c | Self::Crc32 => 4,
        }
    }

    /// The CRC of `data` in one go; only for the CRCs, which the journal and names use.
    pub fn of(self, data: &[u8]) -> u64 {
        crc_fast::checksum(self.crc_algorithm().unwrap_or(crc_fast::CrcAlgorithm::Crc64Nvme), data)
    }

    /// The same algorithm in the terms of the CRC library; `None` for the cryptographic ones.
    pub fn crc_algorithm(self) -> Option<crc_fast::CrcAlgorithm> {
        match self {
            Self::Crc64Nvme => Some(crc_fast::CrcAlgorithm::Crc64Nvme),
            Self::Crc32c => Some(crc_fast::CrcAlgorithm::Crc32Iscsi),
            Self::Crc32 => Some(crc_fast::CrcAlgorithm::Crc32IsoHdlc),
            Self::Sha256 | Self::Sha1 => None,
        }
    }
}

/// A SHA-256 that we have computed, written as 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sha256(pub [u8; 32]);

impl fmt::Display for Sha256 {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&hex::encode(&self.0))
    }
}

impl Serialize for Sha256 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Sha256 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        let wrong = || D::Error::custom("a SHA-256 has 64 hexadecimal digits");
        hex::decode(&text).map(Self).ok_or_else(wrong)
    }
}

/// Lower-case hexadecimal.
pub mod hex {
    pub fn encode(bytes: &[u8]) -> String {
        let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble)]);
        bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
    }

    /// Exactly `2 * N` digits of either case, or nothing.
    pub fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
        if text.len() != 2 * N || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let mut out = [0; N];
        for (n, byte) in out.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * n..2 * n + 2], 16).ok()?;
        }
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_must_have_exactly_the_right_length() {
        let text = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        let digest = Digest::sha256_from_hex(text).expect("64 digits");
        assert_eq!(digest.to_string(), format!("sha256:{text}"));
        for wrong in ["", &text[1..], "../../../../etc/passwd", &text.replace('9', "g")] {
            assert_eq!(Digest::sha256_from_hex(wrong), None);
        }
        // Multi-byte characters must not split.
        assert_eq!(Digest::git_sha1_from_hex(&"é".repeat(20)), None);
    }

    #[test]
    fn an_etag_is_an_md5_only_in_the_form_of_one() {
        let md5 = "5d41402abc4b2a76b9719d911017c592";
        for etag in [md5.to_owned(), format!("\"{md5}\""), md5.to_uppercase()] {
            let digest = Digest::md5_from_etag(&etag, Md5Told::ByItsForm).expect("an MD5");
            assert_eq!(digest.to_string(), format!("md5-etag:{md5}"));
            assert!(!digest.identifies() && !digest.refutes());
            assert!(!Digest::identifies_by_kind(&digest.to_string()));
        }
        for etag in ["", "\"\"", &md5[1..], "x", &format!("{md5}-1"), &format!("W/\"{md5}\"")] {
            assert_eq!(Digest::md5_from_etag(etag, Md5Told::ByTheStore), None, "{etag}");
        }
    }

    #[test]
    fn what_a_store_keeps_of_an_object_refutes_and_identifies_nothing() {
        for (digest, written) in [
            (Digest::Crc32c([0, 1, 2, 255]), "crc32c:000102ff"),
            (Digest::Md5([7; 16]), "md5:07070707070707070707070707070707"),
        ] {
            assert_eq!(digest.to_string(), written);
            assert!(digest.refutes() && digest.is_checksum() && !digest.identifies());
            assert!(!Digest::identifies_by_kind(written));
        }
    }

    #[test]
    fn a_crc_identifies_nothing() {
        let full = |checksum| Digest::Full { checksum, value: vec![] };
        let parts = |checksum| Digest::Composite { checksum, part_sizes: vec![], value: vec![] };
        for (checksum, identifies) in [
            (Checksum::Sha256, true),
            (Checksum::Sha1, true),
            (Checksum::Crc64Nvme, false),
            (Checksum::Crc32c, false),
            (Checksum::Crc32, false),
        ] {
            assert_eq!(full(checksum).identifies(), identifies, "{checksum:?}");
            assert_eq!(parts(checksum).identifies(), identifies, "{checksum:?}");
            for digest in [full(checksum), parts(checksum)] {
                let written = digest.to_string();
                assert_eq!(Digest::identifies_by_kind(&written), identifies, "{written}");
            }
        }
    }

    #[test]
    fn crcs_are_the_ones_that_s3_means() {
        assert_eq!(Checksum::Crc32.of(b"123456789"), 0xcbf43926);
        assert_eq!(Checksum::Crc32c.of(b"123456789"), 0xe3069283);
        assert_eq!(Checksum::Crc64Nvme.of(b"123456789"), 0xae8b14860a799888);
    }
}
