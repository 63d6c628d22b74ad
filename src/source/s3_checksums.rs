//! The checksum that S3 keeps of an object, over the whole of it or by part.

use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::types::{ChecksumMode, ChecksumType};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::SourceError;
use super::s3_client::Bucket;
use super::s3_errors::Asked;
use super::s3_failures::Failed;
use super::s3_listing::Stamp;
use super::s3_parts;
use crate::model::{Checksum, Digest};

/// What S3 tells about the content of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Published {
    Digest(Digest),
    Nothing,
    /// A checksum by part, but not where the parts end.
    UnknownParts,
    /// 403 or 400: the checksum may be there.
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
    stamp: &Stamp,
) -> Result<Published, SourceError> {
    let asked = Asked::Object(key);
    let asking = bucket.try_call(|client| {
        let request = client.head_object().bucket(&bucket.name).key(key);
        request.checksum_mode(ChecksumMode::Enabled).send()
    });
    let head = match asking.await {
        Ok(head) => head,
        // Without a body it says no more, as with a key of the customer's (SSE-C); the read will.
        Err(Failed::Refused(refusal)) if matches!(refusal.status, 400 | 403) => {
            return Ok(Published::Denied);
        }
        Err(failed) => return Err(failed.explain(&bucket.name, asked)),
    };
    let found = Stamp::new(head.content_length(), head.e_tag(), key)?;
    stamp.same_as(&found, bucket, key)?;
    let Some(told) = strongest(&head) else {
        return Ok(Published::Nothing);
    };
    if !told.composite {
        let whole = <[u8; 32]>::try_from(told.value.as_slice()).map(Digest::Sha256);
        let digest = whole.unwrap_or(Digest::Full { checksum: told.checksum, value: told.value });
        return Ok(Published::Digest(digest));
    }
    let part_sizes = match s3_parts::listed(bucket, key, stamp).await? {
        Some(sizes) if fit(&sizes, &told, stamp) => Some(sizes),
        _ => s3_parts::asked(bucket, key, stamp, told.parts)
            .await?
            .filter(|sizes| fit(sizes, &told, stamp)),
    };
    Ok(part_sizes.map_or(Published::UnknownParts, |part_sizes| {
        let Told { checksum, value, .. } = told;
        Published::Digest(Digest::Composite { checksum, part_sizes, value })
    }))
}

/// The strongest of the checksums that came with an object.
fn strongest(head: &HeadObjectOutput) -> Option<Told> {
    // `"9b2cf5…-3"`: uploaded in three parts.
    let etag = head.e_tag().unwrap_or_default().trim_matches('"');
    let uploaded_parts = etag.rsplit_once('-').and_then(|(_, parts)| parts.parse().ok());
    let in_order = [
        (Checksum::Sha256, head.checksum_sha256()),
        (Checksum::Crc64Nvme, head.checksum_crc64_nvme()),
        (Checksum::Sha1, head.checksum_sha1()),
        (Checksum::Crc32c, head.checksum_crc32_c()),
        (Checksum::Crc32, head.checksum_crc32()),
    ];
    let (checksum, text) =
        in_order.into_iter().find_map(|(checksum, text)| Some((checksum, text?)))?;
    let by_part = match head.checksum_type() {
        Some(ChecksumType::Composite) => true,
        // Servers that know no types know no other checksum of a multipart upload.
        None => uploaded_parts.is_some() && checksum != Checksum::Crc64Nvme,
        Some(_) => false,
    };
    told(checksum, text, by_part.then_some(uploaded_parts))
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

    #[test]
    fn the_strongest_checksum_is_taken() {
        let head = HeadObjectOutput::builder()
            .checksum_crc32("y/Q5Jg==")
            .checksum_crc64_nvme("rosUhgp5mIg=")
            .checksum_type(ChecksumType::FullObject)
            .build();
        let told = strongest(&head).expect("told");
        assert_eq!(told.checksum, Checksum::Crc64Nvme);
        assert_eq!(told.value, 0xae8b_1486_0a79_9888_u64.to_be_bytes());
        assert!(!told.composite);
        assert_eq!(strongest(&HeadObjectOutput::builder().checksum_sha256("AA==").build()), None);
    }

    #[test]
    fn a_checksum_by_part_is_never_taken_for_one_of_the_whole() {
        let value = STANDARD.encode([7; 32]);
        let by_suffix = told(Checksum::Sha256, &format!("{value}-3"), None).expect("told");
        assert!(by_suffix.composite);
        assert_eq!(by_suffix.parts, Some(3));
        let stamp = |size| Stamp::new(Some(size), None, "k").expect("size");
        assert!(fit(&[5, 5, 1], &by_suffix, &stamp(11)));
        assert!(!fit(&[5, 5], &by_suffix, &stamp(10)));
        assert!(!fit(&[5, 5, 1], &by_suffix, &stamp(12)));
        assert!(!fit(&[u64::MAX, 1, 0], &by_suffix, &stamp(0)));
        assert!(told(Checksum::Sha256, &value, Some(None)).expect("told").composite);
        assert_eq!(told(Checksum::Sha256, &format!("{value}-x"), None), None);

        let head = HeadObjectOutput::builder().checksum_sha256(&value).e_tag("\"9b2cf5-3\"");
        let untyped = strongest(&head.clone().build()).expect("told");
        assert_eq!((untyped.composite, untyped.parts), (true, Some(3)));
        let typed = strongest(&head.checksum_type(ChecksumType::FullObject).build()).expect("told");
        assert!(!typed.composite);
    }
}
