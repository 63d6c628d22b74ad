//! `s3://bucket/prefix/`, or the ARN of an access point in place of the bucket.

use super::Refusal;

/// A prefix, or one object, of a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Location {
    /// Or the ARN of an access point, which stands where a bucket stands.
    pub bucket: String,
    /// Without a leading `/`; ends in `/` (or is empty) where the user wrote a directory.
    pub key: String,
}

impl S3Location {
    pub(super) fn parse(rest: &str) -> Result<Self, Refusal> {
        let (bucket, key) = match rest.starts_with("arn:") {
            true => access_point(rest)?,
            false => rest.split_once('/').unwrap_or((rest, "")),
        };
        let valid = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let is_bucket = (3..=255).contains(&bucket.len()) && bucket.chars().all(valid);
        if !is_bucket && !Self::is_arn(bucket) {
            return Err("does not name a bucket".into());
        }
        super::check_key(key)?;
        Ok(Self { bucket: bucket.to_owned(), key: key.to_owned() })
    }
}

impl S3Location {
    /// Whether `bucket` is an access point.
    pub fn is_arn(bucket: &str) -> bool {
        bucket.starts_with("arn:")
    }

    /// The region that the name of an access point tells.
    pub fn region_of(bucket: &str) -> Option<&str> {
        bucket.strip_prefix("arn:")?.split(':').nth(2).filter(|region| !region.is_empty())
    }
}

/// Splits `arn:aws:s3:eu-west-1:123456789012:accesspoint/name/key` behind the access point, which is
/// written with `:` as well.
fn access_point(rest: &str) -> Result<(&str, &str), Refusal> {
    const WRONG: &str = "is not the ARN of an access point, such as \
                         arn:aws:s3:eu-west-1:123456789012:accesspoint/name";
    let mut parts = rest.splitn(6, ':');
    let [_, partition, service, region, account] =
        [(); 5].map(|()| parts.next().unwrap_or_default());
    let resource = parts.next().unwrap_or_default();
    let is_word = |word: &str| {
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let is_of_s3 = matches!(service, "s3" | "s3-object-lambda" | "s3-outposts");
    if !is_word(partition) || !is_of_s3 || !is_word(account) {
        return Err(WRONG.into());
    }
    // `outpost/op-1/accesspoint/name` has two more parts than `accesspoint/name`.
    let names = if service == "s3-outposts" { 4 } else { 2 };
    let mut ends = resource.match_indices([':', '/']).map(|(at, _)| at);
    let end = ends.nth(names - 1).unwrap_or(resource.len());
    let (point, key) = resource.split_at(end);
    let words: Vec<&str> = point.split([':', '/']).collect();
    let kind = words.get(names - 2);
    if words.len() != names || kind != Some(&"accesspoint") {
        return Err(WRONG.into());
    }
    if region.is_empty() && point.ends_with(".mrap") {
        return Err(Refusal::with_hint(
            "is a multi-Region access point, which needs signatures of the kind SigV4A, and weightlift cannot make them",
            "name an access point or the bucket of one region",
        ));
    }
    if !is_word(region) || !words.iter().all(|word| is_word(word)) || key.starts_with(':') {
        return Err(WRONG.into());
    }
    let bucket = &rest[..rest.len() - key.len()];
    Ok((bucket, key.strip_prefix('/').unwrap_or(key)))
}
