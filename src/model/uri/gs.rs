//! `gs://bucket/prefix/`: a bucket of Google Cloud Storage.

/// A prefix, or one object, of a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GsLocation {
    pub bucket: String,
    /// Without a leading `/`; ends in `/` (or is empty) where the user wrote a directory.
    pub key: String,
}

impl GsLocation {
    pub(super) fn parse(rest: &str) -> Result<Self, &'static str> {
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        // A name with dots is that of a domain, and may be longer.
        let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
        if !(3..=222).contains(&bucket.len()) || !bucket.chars().all(valid) {
            return Err("does not name a bucket");
        }
        super::check_key(key)?;
        Ok(Self { bucket: bucket.to_owned(), key: key.to_owned() })
    }

    pub(super) fn name(&self) -> String {
        format!("gs://{}/{}", self.bucket, self.key)
    }
}
