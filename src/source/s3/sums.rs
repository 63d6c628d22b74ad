//! SHA-256 sums that lie in the prefix itself: a `SHA256SUMS` file, or the sentinel of a family that
//! was copied there. Either says more than what S3 has computed on its own, and may be older than the
//! files beside it: whoever excludes the list fetches without it.

use std::collections::BTreeMap;

use super::client::Bucket;
use super::errors::shown;
use super::listing::Listing;
use super::problem::{ListingProblem, ObjectProblem};
use super::stamp::Stamp;
use super::transport::MAX_OBJECT_BYTES;
use crate::model::{MirrorState, SENTINEL, Selection, Sentinel, SentinelProblem, hex, text};
use crate::net::SourceError;

/// As `sha256sum` writes it; a file of the model like every other.
pub(crate) const SHA256SUMS: &str = "SHA256SUMS";
const MAX_SUMS_BYTES: u64 = 16 << 20;

/// Missing files that a message names.
const MAX_NAMED: usize = 5;

type Sums = BTreeMap<String, Sum>;

/// What one of the lists says of a file.
#[derive(Debug)]
pub struct Sum {
    pub sha256: [u8; 32],
    pub list: &'static str,
}

/// What lies beside the files to prove them.
#[derive(Debug, Default)]
pub struct Beside {
    /// By path; where both lists have a file, that of the sentinel.
    pub sums: Sums,
    pub warnings: Vec<String>,
}

impl Beside {
    pub async fn read(
        bucket: &Bucket,
        listing: &Listing,
        selection: &Selection,
    ) -> Result<Self, SourceError> {
        let mut beside = Self::default();
        if let Some(object) = listing.find(SHA256SUMS)
            && beside.is_wanted(SHA256SUMS, selection)
            && let Some(content) =
                beside.content(bucket, listing, SHA256SUMS, &object.stamp, MAX_SUMS_BYTES).await?
        {
            beside.add_sums(listing, selection, &String::from_utf8_lossy(&content));
        }
        if let Some(stamp) = &listing.sentinel
            && beside.is_wanted(SENTINEL, selection)
            && let Some(content) =
                beside.content(bucket, listing, SENTINEL, stamp, MAX_OBJECT_BYTES as u64).await?
        {
            let place = format!("s3://{}/{}", bucket.name, listing.base);
            beside.add_sentinel(listing, selection, &content, place)?;
        }
        Ok(beside)
    }

    fn is_wanted(&mut self, list: &str, selection: &Selection) -> bool {
        let is_excluded = is_excluded(list, selection);
        if is_excluded {
            self.warnings.push(format!("`{list}` is excluded, and not used to verify"));
        }
        !is_excluded
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
        let content = bucket.small_object(&key, stamp).await?;
        if content.len() as u64 != stamp.size {
            return Err(SourceError::Stale(
                ObjectProblem::Length {
                    key: shown(&key),
                    bucket: bucket.name.clone(),
                    found: content.len(),
                    listed: stamp.size,
                    name: name.to_owned(),
                }
                .into(),
            ));
        }
        Ok(Some(content))
    }

    fn add_sums(&mut self, listing: &Listing, selection: &Selection, content: &str) {
        let (mut sums, strange) = sha256sums(content);
        if strange > 0 {
            self.warnings.push(format!(
                "`{SHA256SUMS}` has lines that are not the SHA-256 sum of a file: {strange}"
            ));
        }
        // `sha256sum * > SHA256SUMS` lists it as it was then, empty.
        sums.remove(SHA256SUMS);
        let missing = missing(listing, selection, sums.keys().map(String::as_str));
        // People keep lists of more than one directory.
        if let [first, ..] = missing.as_slice() {
            let (count, first) = (text::files(missing.len()), text::inert(first, 100));
            self.warnings.push(format!(
                "`{SHA256SUMS}` names {count} that the prefix does not hold, such as `{first}`"
            ));
        }
        let sums = sums.into_iter();
        self.sums.extend(sums.map(|(path, sha256)| (path, Sum { sha256, list: SHA256SUMS })));
    }

    fn add_sentinel(
        &mut self,
        listing: &Listing,
        selection: &Selection,
        content: &[u8],
        place: String,
    ) -> Result<(), SourceError> {
        let sentinel = match Sentinel::parse(content) {
            Ok(sentinel) => sentinel,
            Err(SentinelProblem::UnsafePath(refused)) => return Err(refused.into()),
            Err(problem) => {
                self.warnings.push(format!("`{SENTINEL}` is not used to verify: {problem}"));
                return Ok(());
            }
        };
        // It has appeared since it was looked for.
        if sentinel.mirrored_at(&place) == Some(MirrorState::Writing) {
            return Err(SourceError::Stale(ListingProblem::Writing { place }.into()));
        }
        let missing = missing(listing, selection, sentinel.files.iter().map(|file| &*file.path));
        if !missing.is_empty() {
            return Err(unfinished(&missing));
        }
        for file in sentinel.files.iter().filter(|file| selection.names(&file.path)) {
            let object = listing.find(&file.path);
            if let Some(object) = object.filter(|object| object.stamp.size != file.size) {
                return Err(SourceError::Changed(
                    ListingProblem::OtherSize {
                        file: file.path.to_string(),
                        found: object.stamp.size,
                        list: SENTINEL,
                        told: file.size,
                    }
                    .into(),
                ));
            }
        }
        let sums = sentinel.files.into_iter();
        self.sums.extend(
            sums.map(|file| (file.path.to_string(), Sum { sha256: file.sha256.0, list: SENTINEL })),
        );
        Ok(())
    }
}

/// Whether the sentinel beside the files is.
pub fn believes_sentinel(selection: &Selection) -> bool {
    !is_excluded(SENTINEL, selection)
}

/// Whether a list is not to be believed. The sentinel has a dot before its name, which a `*` that is
/// about other files does not mean, as in a shell.
fn is_excluded(list: &str, selection: &Selection) -> bool {
    let is_meant = |pattern: &&String| {
        list != SENTINEL || pattern.starts_with(['.', '[']) || pattern.contains("weightlift")
    };
    let meant = selection.exclude.iter().filter(is_meant).cloned().collect();
    !Selection { exclude: meant, ..Selection::default() }.names(list)
}

/// Those of `paths` that the prefix lacks and that would be fetched from it.
fn missing<'a>(
    listing: &Listing,
    selection: &Selection,
    paths: impl Iterator<Item = &'a str>,
) -> Vec<&'a str> {
    paths.filter(|path| listing.find(path).is_none() && selection.names(path)).collect()
}

fn unfinished(missing: &[&str]) -> SourceError {
    let named = missing.iter().take(MAX_NAMED).map(|path| format!("`{}`", text::inert(path, 100)));
    let named = named.collect::<Vec<_>>().join(", ");
    let more = match missing.len().saturating_sub(MAX_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let named = named + &more;
    let missing = missing.len();
    SourceError::Stale(ListingProblem::Unfinished { list: SENTINEL, missing, named }.into())
}

/// The lines of a `SHA256SUMS` file by path, and how many lines are none.
pub(crate) fn sha256sums(text: &str) -> (BTreeMap<String, [u8; 32]>, usize) {
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
    fn a_list_is_excluded_by_who_means_it() {
        let is_excluded = |list, pattern: &str| {
            let exclude = vec![pattern.to_owned()];
            is_excluded(list, &Selection { exclude, ..Selection::default() })
        };
        for pattern in ["SHA256SUMS", "*SUMS", "*"] {
            assert!(is_excluded(SHA256SUMS, pattern), "{pattern}");
        }
        assert!(!is_excluded(SHA256SUMS, "*.bin"));
        for pattern in [SENTINEL, ".weightlift*", ".*", "*weightlift-complete*"] {
            assert!(is_excluded(SENTINEL, pattern), "{pattern}");
        }
        for pattern in ["*.json", "*", "config.json", ".gitattributes"] {
            assert!(!is_excluded(SENTINEL, pattern), "{pattern}");
        }
        let include = vec!["*.bin".to_owned()];
        let only = Selection { include, ..Selection::default() };
        assert!(!super::is_excluded(SHA256SUMS, &only));
    }

    #[test]
    fn an_upload_that_is_not_finished_names_what_is_missing() {
        let names = ["a", "b\u{1b}", "c", "d", "e", "f", "g"];
        let said = |count: usize| unfinished(&names[..count]).to_string();
        assert!(
            said(1).contains("names 1 file that the prefix does not hold: `a`; "),
            "{}",
            said(1)
        );
        assert!(said(7).contains("`e` and 2 more; "), "{}", said(7));
        assert!(!said(7).contains('\u{1b}'));
    }

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
