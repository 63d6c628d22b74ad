//! SHA-256 sums that lie in the prefix itself: a `SHA256SUMS` file, or the sentinel of a family that
//! was copied there. Either says more than what S3 has computed on its own.

use std::collections::BTreeMap;

use super::SourceError;
use super::s3_client::Bucket;
use super::s3_errors::shown;
use super::s3_listing::{Listing, Stamp};
use super::s3_transport::MAX_OBJECT_BYTES;
use crate::model::{SENTINEL, Sentinel, SentinelProblem, hex, text};

/// As `sha256sum` writes it; a file of the model like every other.
const SHA256SUMS: &str = "SHA256SUMS";
const MAX_SUMS_BYTES: u64 = 16 << 20;

type Sums = BTreeMap<String, [u8; 32]>;

/// What lies beside the files to prove them.
#[derive(Debug, Default)]
pub struct Beside {
    /// By path; where both lists have a file, that of the sentinel.
    pub sums: Sums,
    pub warnings: Vec<String>,
}

impl Beside {
    pub async fn read(bucket: &Bucket, listing: &Listing) -> Result<Self, SourceError> {
        let mut beside = Self::default();
        if let Some(object) = listing.find(SHA256SUMS)
            && let Some(content) =
                beside.content(bucket, listing, SHA256SUMS, &object.stamp, MAX_SUMS_BYTES).await?
        {
            beside.add_sums(listing, &String::from_utf8_lossy(&content));
        }
        if let Some(stamp) = &listing.sentinel
            && let Some(content) =
                beside.content(bucket, listing, SENTINEL, stamp, MAX_OBJECT_BYTES as u64).await?
        {
            beside.add_sentinel(listing, &content)?;
        }
        Ok(beside)
    }

    /// The version that was listed of the object that names digests.
    async fn content(
        &mut self,
        bucket: &Bucket,
        listing: &Listing,
        name: &str,
        stamp: &Stamp,
        max_bytes: u64,
    ) -> Result<Option<Vec<u8>>, SourceError> {
        if stamp.size > max_bytes {
            let size = text::size(stamp.size);
            self.warnings.push(format!("`{name}` is not used to verify: it has {size}"));
            return Ok(None);
        }
        let key = listing.key(name);
        let content = bucket.small_object(&key, stamp.etag.as_deref()).await?;
        if content.len() as u64 != stamp.size {
            return Err(SourceError::Stale(format!(
                "object `{}` in bucket `{}` has {} bytes, listed were {}; run again",
                shown(&key),
                bucket.name,
                content.len(),
                stamp.size
            )));
        }
        Ok(Some(content))
    }

    fn add_sums(&mut self, listing: &Listing, content: &str) {
        let (mut sums, strange) = sha256sums(content);
        if strange > 0 {
            self.warnings.push(format!(
                "`{SHA256SUMS}` has lines that are not the SHA-256 sum of a file: {strange}"
            ));
        }
        // `sha256sum * > SHA256SUMS` lists it as it was then, empty.
        sums.remove(SHA256SUMS);
        self.warn_of_missing(listing, SHA256SUMS, sums.keys().map(String::as_str));
        self.sums.extend(sums);
    }

    fn add_sentinel(&mut self, listing: &Listing, content: &[u8]) -> Result<(), SourceError> {
        let sentinel = match Sentinel::parse(content) {
            Ok(sentinel) => sentinel,
            Err(SentinelProblem::UnsafePath(refused)) => return Err(refused.into()),
            Err(problem) => {
                self.warnings.push(format!("`{SENTINEL}` is not used to verify: {problem}"));
                return Ok(());
            }
        };
        for file in &sentinel.files {
            let object = listing.find(&file.path);
            if let Some(object) = object.filter(|object| object.stamp.size != file.size) {
                return Err(SourceError::Changed(format!(
                    "`{}` has {} bytes, `{SENTINEL}` beside it says {}: \
                     the prefix does not hold what was published there",
                    file.path, object.stamp.size, file.size
                )));
            }
        }
        self.warn_of_missing(listing, SENTINEL, sentinel.files.iter().map(|file| &*file.path));
        let sums = sentinel.files.into_iter();
        self.sums.extend(sums.map(|file| (file.path.to_string(), file.sha256.0)));
        Ok(())
    }

    fn warn_of_missing<'a>(
        &mut self,
        listing: &Listing,
        name: &str,
        paths: impl Iterator<Item = &'a str>,
    ) {
        let missing: Vec<_> = paths.filter(|path| listing.find(path).is_none()).collect();
        if let [first, ..] = missing.as_slice() {
            let (count, first) = (text::files(missing.len()), text::inert(first, 100));
            self.warnings.push(format!(
                "`{name}` names {count} that the prefix does not hold, such as `{first}`"
            ));
        }
    }
}

/// The lines of a `SHA256SUMS` file by path, and how many lines are none.
pub(super) fn sha256sums(text: &str) -> (BTreeMap<String, [u8; 32]>, usize) {
    let mut sums = BTreeMap::new();
    let mut strange = 0;
    for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        match sum(line) {
            Some((path, sum)) => {
                sums.insert(path.to_owned(), sum);
            }
            None => strange += 1,
        }
    }
    (sums, strange)
}

/// `<64 hexadecimal digits>  path`, with `*` before the path for what was read as binary.
fn sum(line: &str) -> Option<(&str, [u8; 32])> {
    let (digits, rest) = line.split_at_checked(64)?;
    let path = rest.strip_prefix(' ')?;
    let path = path.strip_prefix([' ', '*']).unwrap_or(path);
    let path = path.strip_prefix("./").unwrap_or(path).trim_end_matches('\r');
    Some((path, hex::decode(digits)?)).filter(|(path, _)| !path.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn sums_are_read_in_the_ways_that_tools_write_them() {
        let text = format!(
            "{EMPTY}  a b\n{EMPTY} *./c/d\r\n\n# note\n{EMPTY}\nMD5 (x) = 1\n{}  é\n",
            &EMPTY[1..]
        );
        let (sums, strange) = sha256sums(&text);
        assert_eq!(sums.keys().collect::<Vec<_>>(), ["a b", "c/d"]);
        assert_eq!(strange, 3);
        // Multi-byte characters must not split.
        assert_eq!(sha256sums(&"é".repeat(40)).1, 1);
    }
}
