//! The checksum that S3 keeps of an object, over the whole of it or by part; where it keeps none, the MD5
//! that the ETag of an object in one piece is, if nothing speaks against it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{ETAG, HeaderMap, HeaderName};

use super::client::Bucket;
use super::errors::Asked;
use super::failures::Failed;
use super::look::{Look, is_refused_as_such, text};
use super::parts;
use super::reads::Doubt;
use super::stamp::{Stamp, strong};
use super::ways::Way;
use crate::model::{Checksum, Digest, Md5Told};
use crate::net::SourceError;

const CHECKSUM_TYPE: HeaderName = HeaderName::from_static("x-amz-checksum-type");
const ENCRYPTION: HeaderName = HeaderName::from_static("x-amz-server-side-encryption");
/// What it says of the store's own keys (SSE-S3).
const STORE_ENCRYPTS: &str = "AES256";
const STORAGE_CLASS: HeaderName = HeaderName::from_static("x-amz-storage-class");

/// What S3 tells about the content of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Published {
    Digest(Digest),
    Nothing,
    /// A checksum by part, but not where the parts end.
    UnknownParts,
    /// The question is refused: the checksum may be there.
    Denied,
}

/// A checksum as the headers of an object tell it.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    checksum: Checksum,
    value: Vec<u8>,
    /// By part instead of over the whole object; and of how many parts, if that is told.
    composite: bool,
    parts: Option<usize>,
}

/// Asks S3 for the checksum of the version of `key` that was listed.
pub async fn published(
    bucket: &Bucket,
    key: &str,
    listed: &Stamp,
) -> Result<Published, SourceError> {
    let Some(head) = head(bucket, key).await? else {
        return Ok(Published::Denied);
    };
    let found = Look::of(&head);
    if found.size.is_some_and(|size| size != listed.size) {
        return Err(bucket.changed(key, Doubt::Head));
    }
    if let Some(etag) = &found.etag {
        let expected = bucket.ways.expected(key, listed);
        if expected.as_ref().is_some_and(|expected| expected.etag != *etag) {
            bucket.look_again(key, listed, expected, Doubt::Head).await?;
        }
        if !bucket.ways.told(key, listed, etag) {
            return Err(bucket.changed(key, Doubt::Head));
        }
    }
    if let Some(encoding) = found.encoding {
        bucket.ways.keep_encoding(key, Some(encoding));
    }
    let etag = Etag::of(&head);
    if etag == Etag::Encrypted {
        bucket.ways.learn_silently(Way::Encrypts);
    }
    let Some(told) = strongest(&head) else {
        return Ok(etag.md5().map_or(Published::Nothing, Published::Digest));
    };
    if !told.composite {
        let whole = <[u8; 32]>::try_from(told.value.as_slice()).map(Digest::Sha256);
        let digest = whole.unwrap_or(Digest::Full { checksum: told.checksum, value: told.value });
        return Ok(Published::Digest(digest));
    }
    let stamp = Stamp::by_etag(listed.size, found.etag);
    let part_sizes = match parts::listed(bucket, key, &stamp).await? {
        Some(sizes) if fit(&sizes, &told, &stamp) => Some(sizes),
        _ => parts::asked(bucket, key, &stamp, told.parts)
            .await?
            .filter(|sizes| fit(sizes, &told, &stamp)),
    };
    let Told { checksum, value, .. } = told;
    let by_part = part_sizes.map(|sizes| Digest::Composite { checksum, part_sizes: sizes, value });
    Ok(by_part.or_else(|| etag.md5()).map_or(Published::UnknownParts, Published::Digest))
}

/// What the headers of an object make of its ETag.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Etag {
    /// It may be an MD5.
    Md5(Digest),
    /// The key is the customer's (SSE-C) or the key service's (SSE-KMS), so it is none.
    Encrypted,
    Other,
}

impl Etag {
    fn of(head: &HeaderMap) -> Self {
        let says =
            |name| text(head, &HeaderName::from_static(name)).is_some_and(|it| !it.is_empty());
        let encryption = text(head, &ENCRYPTION).unwrap_or_default().trim();
        if says("x-amz-server-side-encryption-customer-algorithm")
            || says("x-amz-server-side-encryption-customer-key-md5")
            || says("x-amz-server-side-encryption-aws-kms-key-id")
            || !(encryption.is_empty() || encryption.eq_ignore_ascii_case(STORE_ENCRYPTS))
        {
            return Self::Encrypted;
        }
        let told_by = match encryption {
            "" => Md5Told::ByItsForm,
            _ => Md5Told::ByTheStore,
        };
        // S3 Express makes its ETags of nothing.
        let is_express = text(head, &STORAGE_CLASS)
            .is_some_and(|class| class.to_ascii_uppercase().contains("EXPRESS"));
        let etag = text(head, &ETAG).and_then(strong).filter(|_| !is_express);
        let md5 = etag.and_then(|etag| Digest::md5_from_etag(&etag, told_by));
        md5.map_or(Self::Other, Self::Md5)
    }

    fn md5(self) -> Option<Digest> {
        match self {
            Self::Md5(digest) => Some(digest),
            Self::Encrypted | Self::Other => None,
        }
    }
}

/// The headers of `key` with its checksum, or without where the store does not know that question;
/// `None` where it is refused.
async fn head(bucket: &Bucket, key: &str) -> Result<Option<HeaderMap>, SourceError> {
    let explain = |failed: Failed| Err(failed.explain(&bucket.name, Asked::Object(key)));
    // Without its body a refusal says no more; the read will.
    let is_refused = |status| matches!(status, 400 | 403 | 405 | 501);
    if bucket.ways.know(Way::NoHead) {
        return Ok(None);
    }
    let refusal = match bucket.head(key, true, None).await {
        Ok(head) => return Ok(Some(head)),
        Err(Failed::Refused(refusal))
            if is_refused(refusal.status) || is_refused_as_such(&refusal) =>
        {
            refusal
        }
        Err(failed) => return explain(failed),
    };
    // Whether a key of somebody's is missing (403), it would not tell without the checksum either.
    if refusal.status == 403 {
        return Ok(None);
    }
    match bucket.head(key, false, None).await {
        Ok(head) => {
            // 400 may be about this object.
            if is_refused_as_such(&refusal) || bucket.ways.refuses_checksums_again() {
                bucket.ways.learn(Way::NoChecksumMode, || {
                    format!("the store does not report checksums ({})", refusal.told())
                });
            }
            Ok(Some(head))
        }
        Err(Failed::Refused(again)) if is_refused_as_such(&again) => {
            // Whoever asks for checksums says so for all of them.
            bucket.ways.learn_silently(Way::NoHead);
            Ok(None)
        }
        // As with a key of the customer's (SSE-C): this object only.
        Err(Failed::Refused(again)) if is_refused(again.status) => Ok(None),
        Err(failed) => explain(failed),
    }
}

/// The strongest of the checksums that came with an object, of those that can be read.
fn strongest(head: &HeaderMap) -> Option<Told> {
    // `"9b2cf5…-3"`: uploaded in three parts.
    let etag = head.get("etag").and_then(|etag| etag.to_str().ok()).unwrap_or_default();
    let uploaded_parts =
        etag.trim_matches('"').rsplit_once('-').and_then(|(_, parts)| parts.parse().ok());
    let in_order = [
        (Checksum::Sha256, HeaderName::from_static("x-amz-checksum-sha256")),
        (Checksum::Crc64Nvme, HeaderName::from_static("x-amz-checksum-crc64nvme")),
        (Checksum::Sha1, HeaderName::from_static("x-amz-checksum-sha1")),
        (Checksum::Crc32c, HeaderName::from_static("x-amz-checksum-crc32c")),
        (Checksum::Crc32, HeaderName::from_static("x-amz-checksum-crc32")),
    ];
    let kind = text(head, &CHECKSUM_TYPE).map(str::to_ascii_uppercase);
    in_order.into_iter().find_map(|(checksum, name)| {
        let by_part = match kind.as_deref() {
            Some("COMPOSITE") => true,
            Some("FULL_OBJECT") => false,
            // Servers that know no types know no other checksum of a multipart upload.
            _ => uploaded_parts.is_some() && checksum != Checksum::Crc64Nvme,
        };
        told(checksum, text(head, &name)?, by_part.then_some(uploaded_parts))
    })
}

/// `47DEQpj8…=`, or `47DEQpj8…=-3` for a checksum over the checksums of three parts. `by_part` says
/// that it is of this kind, and of how many parts as far as is known.
fn told(checksum: Checksum, text: &str, by_part: Option<Option<usize>>) -> Option<Told> {
    let (value, parts) = match text.split_once('-') {
        Some((value, parts)) => (value, Some(parts.parse().ok()?)),
        None => (text, None),
    };
    let value = STANDARD.decode(value).ok().filter(|value| value.len() == checksum.len_bytes())?;
    let composite = parts.is_some() || by_part.is_some();
    Some(Told { checksum, value, composite, parts: parts.or(by_part.flatten()) })
}

fn fit(sizes: &[u64], told: &Told, stamp: &Stamp) -> bool {
    let total = sizes.iter().try_fold(0_u64, |total, size| total.checked_add(*size));
    total == Some(stamp.size) && told.parts.is_none_or(|parts| parts == sizes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), value.parse().expect("a value"))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn the_strongest_checksum_that_can_be_read_is_taken() {
        let both = [
            ("x-amz-checksum-crc32", "y/Q5Jg=="),
            ("x-amz-checksum-crc64nvme", "rosUhgp5mIg="),
            ("x-amz-checksum-type", "FULL_OBJECT"),
        ];
        let told = strongest(&head(&both)).expect("told");
        assert_eq!(told.checksum, Checksum::Crc64Nvme);
        assert_eq!(told.value, 0xae8b_1486_0a79_9888_u64.to_be_bytes());
        assert!(!told.composite);
        for garbage in ["AA==", "", "!", "-", "=-2"] {
            let only = [("x-amz-checksum-sha256", garbage), ("x-amz-checksum-xxhash128", "AA==")];
            assert_eq!(strongest(&head(&only)), None, "{garbage}");
            // What cannot be read does not hide what can be.
            let with_another = [only[0], both[0], ("x-amz-checksum-type", "UNHEARD_OF")];
            let told = strongest(&head(&with_another)).expect("told");
            assert_eq!((told.checksum, told.composite), (Checksum::Crc32, false), "{garbage}");
        }
    }

    #[test]
    fn an_etag_is_an_md5_unless_the_headers_say_otherwise() {
        let md5 = "5d41402abc4b2a76b9719d911017c592";
        let told = |told_by| Etag::Md5(Digest::md5_from_etag(md5, told_by).expect("an MD5"));
        const SSE: &str = "x-amz-server-side-encryption";
        for (etag, more, expected) in [
            (md5, None, told(Md5Told::ByItsForm)),
            (md5, Some((SSE, "AES256")), told(Md5Told::ByTheStore)),
            (md5, Some((SSE, "aws:kms")), Etag::Encrypted),
            (md5, Some((SSE, "aws:kms:dsse")), Etag::Encrypted),
            (md5, Some((SSE, "something new")), Etag::Encrypted),
            (
                md5,
                Some(("x-amz-server-side-encryption-customer-algorithm", "AES256")),
                Etag::Encrypted,
            ),
            (md5, Some(("x-amz-server-side-encryption-customer-key-md5", "eA==")), Etag::Encrypted),
            (md5, Some(("x-amz-server-side-encryption-aws-kms-key-id", "arn:x")), Etag::Encrypted),
            (md5, Some(("x-amz-storage-class", "EXPRESS_ONEZONE")), Etag::Other),
            (md5, Some(("x-amz-storage-class", "STANDARD_IA")), told(Md5Told::ByItsForm)),
            ("W/\"5d41402abc4b2a76b9719d911017c592\"", None, Etag::Other),
            ("\"5d41402abc4b2a76b9719d911017c592-2\"", None, Etag::Other),
            ("", None, Etag::Other),
        ] {
            let pairs: Vec<_> = [("etag", etag)].into_iter().chain(more).collect();
            assert_eq!(Etag::of(&head(&pairs)), expected, "{pairs:?}");
        }
    }

    #[test]
    fn a_checksum_by_part_is_never_taken_for_one_of_the_whole() {
        let value = STANDARD.encode([7; 32]);
        let by_suffix = told(Checksum::Sha256, &format!("{value}-3"), None).expect("told");
        assert!(by_suffix.composite);
        assert_eq!(by_suffix.parts, Some(3));
        let stamp = |size| Stamp::by_etag(size, None);
        assert!(fit(&[5, 5, 1], &by_suffix, &stamp(11)));
        assert!(!fit(&[5, 5], &by_suffix, &stamp(10)));
        assert!(!fit(&[5, 5, 1], &by_suffix, &stamp(12)));
        assert!(!fit(&[u64::MAX, 1, 0], &by_suffix, &stamp(0)));
        assert!(told(Checksum::Sha256, &value, Some(None)).expect("told").composite);
        assert_eq!(told(Checksum::Sha256, &format!("{value}-x"), None), None);

        let multipart = [("x-amz-checksum-sha256", value.as_str()), ("etag", "\"9b2cf5-3\"")];
        let untyped = strongest(&head(&multipart)).expect("told");
        assert_eq!((untyped.composite, untyped.parts), (true, Some(3)));
        let typed = [multipart[0], multipart[1], ("x-amz-checksum-type", "FULL_OBJECT")];
        assert!(!strongest(&head(&typed)).expect("told").composite);
    }
}
