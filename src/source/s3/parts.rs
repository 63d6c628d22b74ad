//! Where the parts of a multipart upload end, without which a checksum by part says nothing.

use aws_sdk_s3::types::ObjectAttributes;
use reqwest::header::HeaderName;

use super::client::Bucket;
use super::errors::Asked;
use super::failures::Failed;
use super::look::{Look, text};
use super::reads::Doubt;
use super::stamp::{Stamp, strong};
use crate::net::SourceError;

const PARTS_COUNT: HeaderName = HeaderName::from_static("x-amz-mp-parts-count");
/// S3 has no more parts in one object.
const MAX_PARTS: usize = 10_000;

/// The sizes of the parts from `GetObjectAttributes`, where the server and the policy have it.
pub async fn listed(
    bucket: &Bucket,
    key: &str,
    stamp: &Stamp,
) -> Result<Option<Vec<u64>>, SourceError> {
    let mut sizes = Vec::new();
    let mut marker: Option<String> = None;
    loop {
        let asking = bucket.try_call(|client| {
            let request = client.get_object_attributes().bucket(&bucket.name).key(key);
            let request = request.object_attributes(ObjectAttributes::ObjectParts);
            let request = request.object_attributes(ObjectAttributes::Etag);
            request.set_part_number_marker(marker.clone()).send()
        });
        let answer = match asking.await {
            Ok(answer) => answer,
            // Not allowed, or not known here; the parts can be asked for one by one.
            Err(Failed::Refused(refusal)) if refusal.status < 500 || refusal.status == 501 => {
                return Ok(None);
            }
            Err(Failed::Otherwise(SourceError::Protocol(_))) => return Ok(None),
            Err(failed) => return Err(failed.explain(&bucket.name, Asked::Object(key))),
        };
        let found = answer.e_tag().and_then(strong);
        if stamp.etag.as_ref().zip(found.as_ref()).is_some_and(|(listed, found)| listed != found) {
            return Err(bucket.changed(key, Doubt::Head));
        }
        let Some(page) = answer.object_parts() else {
            return Ok(None);
        };
        for part in page.parts() {
            let expected = i32::try_from(sizes.len() + 1).ok();
            let size = part.size().and_then(|size| u64::try_from(size).ok());
            match size.filter(|_| part.part_number() == expected) {
                Some(size) => sizes.push(size),
                // Part numbers may have holes; then their order says it.
                None => return Ok(None),
            }
        }
        let next = page.next_part_number_marker().map(str::to_owned);
        if page.is_truncated() != Some(true) || next.is_none() || next == marker {
            return Ok(Some(sizes).filter(|sizes| !sizes.is_empty()));
        }
        if sizes.len() > MAX_PARTS {
            return Ok(None);
        }
        marker = next;
    }
}

/// The sizes of the parts by a HEAD for each: of the first and the last where the others must then
/// be like the first, as uploaders make them; of all otherwise.
pub async fn asked(
    bucket: &Bucket,
    key: &str,
    stamp: &Stamp,
    parts: Option<usize>,
) -> Result<Option<Vec<u64>>, SourceError> {
    let Some((first, counted)) = one_part(bucket, key, 1).await? else {
        return Ok(None);
    };
    let Some(count) = counted.or(parts).filter(|count| (1..=MAX_PARTS).contains(count)) else {
        return Ok(None);
    };
    if count == 1 {
        return Ok(Some(vec![first]));
    }
    let Some((last, _)) = one_part(bucket, key, count).await? else {
        return Ok(None);
    };
    let alike = first.checked_mul(count as u64 - 1);
    if alike.and_then(|alike| alike.checked_add(last)) == Some(stamp.size) {
        let mut sizes = vec![first; count];
        sizes[count - 1] = last;
        return Ok(Some(sizes));
    }
    let mut sizes = vec![first];
    for number in 2..count {
        match one_part(bucket, key, number).await? {
            Some((size, _)) => sizes.push(size),
            None => return Ok(None),
        }
    }
    sizes.push(last);
    Ok(Some(sizes))
}

/// The size of one part, and how many there are.
///
/// Without If-Match, which some servers hold against the ETag of the part. Should the object change
/// here, then reading it fails.
async fn one_part(
    bucket: &Bucket,
    key: &str,
    number: usize,
) -> Result<Option<(u64, Option<usize>)>, SourceError> {
    let Ok(number) = i32::try_from(number) else {
        return Ok(None);
    };
    let head = match bucket.head(key, false, Some(number)).await {
        Ok(head) => head,
        Err(Failed::Refused(refusal)) if matches!(refusal.status, 400 | 403 | 405 | 416 | 501) => {
            return Ok(None);
        }
        Err(failed) => return Err(failed.explain(&bucket.name, Asked::Object(key))),
    };
    let count = text(&head, &PARTS_COUNT).and_then(|count| count.parse().ok());
    Ok(Look::of(&head).size.map(|size| (size, count)))
}
