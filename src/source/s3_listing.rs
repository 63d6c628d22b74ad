//! What a prefix, or one key, of a bucket holds: pinned once, by the ETags of all objects.

use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::types::{EncodingType, Object};
use percent_encoding::percent_decode_str;
use sha2::{Digest as _, Sha256};

use super::SourceError;
use super::s3_client::Bucket;
use super::s3_errors::{Asked, Refusal, shown};
use super::s3_failures::Failed;
use crate::model::{RefusedFile, RefusedFiles, RelPath, S3Location, SENTINEL, hex};

/// More objects than this is no model; it bounds memory and disk.
const MAX_OBJECTS: usize = 1_000_000;
/// Pages in a row that bring nothing, and say that there are more.
const MAX_EMPTY_PAGES: usize = 100;

/// The objects of a location at one moment.
#[derive(Debug)]
pub struct Listing {
    /// What stands before the path of every object in its key: `models/llama/`, or nothing.
    pub base: String,
    /// In the order of their keys.
    pub objects: Vec<Listed>,
    /// Those whose keys cannot become paths.
    pub refused: Vec<RefusedFile>,
    /// The sentinel of a family that was copied here, which is no file of the model.
    pub sentinel: Option<Stamp>,
    /// SHA-256 over all keys, sizes and ETags.
    pub revision: String,
}

/// One object that becomes a file.
#[derive(Debug)]
pub struct Listed {
    pub path: RelPath,
    pub stamp: Stamp,
    /// Whether the listing says that S3 has a checksum of the object.
    pub has_checksum: bool,
}

/// Which version of an object was listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub size: u64,
    /// In quotes, as `If-Match` wants it; `None` where the server gives none that can be matched.
    pub etag: Option<String>,
}

impl Stamp {
    pub fn new(size: Option<i64>, etag: Option<&str>, key: &str) -> Result<Self, SourceError> {
        let size = size.and_then(|size| u64::try_from(size).ok()).ok_or_else(|| {
            SourceError::Protocol(format!("S3 lists `{}` without a size", shown(key)))
        })?;
        Ok(Self { size, etag: etag.and_then(strong) })
    }
}

/// An ETag in quotes, if it can be matched.
pub fn strong(etag: &str) -> Option<String> {
    let bare = etag.trim().trim_matches('"');
    // A weak one never matches; one with quotes or control characters inside cannot be sent.
    let usable =
        !bare.is_empty() && bare.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"');
    (usable && !bare.starts_with("W/")).then(|| format!("\"{bare}\""))
}

impl Listing {
    /// Lists what `location` names: a prefix, or the one object of exactly this key.
    pub async fn of(bucket: &Bucket, location: &S3Location) -> Result<Self, SourceError> {
        let key = &location.key;
        if key.is_empty() || key.ends_with('/') {
            return Self::below(bucket, key.clone()).await;
        }
        let refusal = match Self::one(bucket, key).await? {
            Ok(listing) => return Ok(listing),
            Err(refusal) => refusal,
        };
        // A prefix is a directory: `llama` is `llama/`, and never `llama-70b/`.
        match Self::below(bucket, format!("{key}/")).await {
            // Who may list is told 404 for what is missing: this object is there.
            Err(SourceError::NotFound(_)) if refusal.status == 403 => {
                Err(refusal.explain(&bucket.name, Asked::Object(key)))
            }
            listing => listing,
        }
    }

    /// The object `key`, or how S3 refused to tell about it.
    async fn one(bucket: &Bucket, key: &str) -> Result<Result<Self, Refusal>, SourceError> {
        let look = match bucket.look(key).await {
            Ok(look) => look,
            Err(Failed::Refused(refusal)) if (400..500).contains(&refusal.status) => {
                return Ok(Err(refusal));
            }
            Err(failed) => return Err(failed.explain(&bucket.name, Asked::Object(key))),
        };
        let (base, name) = key.split_at(key.rfind('/').map_or(0, |at| at + 1));
        let size = look.size.and_then(|size| i64::try_from(size).ok());
        let stamp = Stamp::new(size, look.etag.as_deref(), key)?;
        let object = Listed { path: RelPath::parse(name)?, stamp, has_checksum: true };
        Ok(Ok(Self::new(base.to_owned(), vec![object], Vec::new(), None)))
    }

    async fn below(bucket: &Bucket, base: String) -> Result<Self, SourceError> {
        let mut objects = Vec::new();
        let mut refused = RefusedFiles::default();
        let mut sentinel = None;
        let mut next: Option<String> = None;
        let mut seen = std::collections::HashSet::new();
        let (mut listed, mut empty_pages) = (0, 0);
        loop {
            let page = bucket
                .call(Asked::List(&base), |client| {
                    let request = client.list_objects_v2().bucket(&bucket.name);
                    // Keys may hold characters that XML cannot.
                    let request = request.encoding_type(EncodingType::Url);
                    let prefix = (!base.is_empty()).then(|| base.clone());
                    request.set_prefix(prefix).set_continuation_token(next.clone()).send()
                })
                .await?;
            for found in entries(&base, &page) {
                match found? {
                    Entry::File(object) => objects.push(object),
                    Entry::Refused(file) => refused.push(file)?,
                    Entry::Sentinel(stamp) => sentinel = Some(stamp),
                    Entry::Marker => {}
                }
            }
            listed += page.contents().len();
            if listed > MAX_OBJECTS {
                return Err(SourceError::Unsafe(format!(
                    "bucket `{}` lists more than {MAX_OBJECTS} objects below `{}`",
                    bucket.name,
                    shown(&base)
                )));
            }
            if page.is_truncated() != Some(true) {
                break;
            }
            // Some servers look through many deleted keys for a page, and find none.
            empty_pages = if page.contents().is_empty() { empty_pages + 1 } else { 0 };
            let token = page.next_continuation_token().map(str::to_owned);
            let is_new = token.as_ref().is_some_and(|token| seen.insert(token.clone()));
            if !is_new || empty_pages > MAX_EMPTY_PAGES {
                return Err(SourceError::Protocol(format!(
                    "the listing of bucket `{}` is cut and does not say how it goes on",
                    bucket.name
                )));
            }
            next = token;
        }
        if objects.is_empty() && refused.is_empty() {
            return Err(SourceError::NotFound(format!(
                "bucket `{}` holds no object below `{}`",
                bucket.name,
                shown(&base)
            )));
        }
        Ok(Self::new(base, objects, refused.into_files(), sentinel))
    }

    fn new(
        base: String,
        mut objects: Vec<Listed>,
        refused: Vec<RefusedFile>,
        sentinel: Option<Stamp>,
    ) -> Self {
        objects.sort_by(|a, b| a.path.cmp(&b.path));
        let mut lines: Vec<(&str, &Stamp)> =
            objects.iter().map(|object| (object.path.as_str(), &object.stamp)).collect();
        if let Some(stamp) = &sentinel {
            let at = lines.partition_point(|(path, _)| *path < SENTINEL);
            lines.insert(at, (SENTINEL, stamp));
        }
        let mut hash = Sha256::new();
        for (path, stamp) in lines {
            let etag = stamp.etag.as_deref().unwrap_or_default().trim_matches('"');
            hash.update(format!("{base}{path}\t{}\t{etag}\n", stamp.size));
        }
        let revision = hex::encode(&hash.finalize());
        Self { base, objects, refused, sentinel, revision }
    }

    pub fn find(&self, path: &str) -> Option<&Listed> {
        let at = self.objects.binary_search_by(|object| object.path.as_str().cmp(path)).ok()?;
        self.objects.get(at)
    }

    pub fn key(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }
}

#[derive(Debug)]
pub(super) enum Entry {
    File(Listed),
    /// An object whose key cannot become a path.
    Refused(RefusedFile),
    Sentinel(Stamp),
    /// An empty object that stands for a directory.
    Marker,
}

/// What the objects of one page stand for.
pub(super) fn entries<'a>(
    base: &'a str,
    page: &'a ListObjectsV2Output,
) -> impl Iterator<Item = Result<Entry, SourceError>> + 'a {
    let encoded = page.encoding_type() == Some(&EncodingType::Url);
    page.contents().iter().map(move |object| entry(base, object, encoded))
}

fn entry(base: &str, object: &Object, encoded: bool) -> Result<Entry, SourceError> {
    let key = object.key().unwrap_or_default();
    let key = if encoded { decoded(key)? } else { key.to_owned() };
    let path = key.strip_prefix(base).ok_or_else(|| {
        SourceError::Protocol(format!(
            "S3 lists `{}`, which is not below `{}`",
            shown(&key),
            shown(base)
        ))
    })?;
    let stamp = Stamp::new(object.size(), object.e_tag(), &key)?;
    if path.is_empty() || path.ends_with('/') {
        if stamp.size == 0 {
            return Ok(Entry::Marker);
        }
        return Err(SourceError::Unsafe(format!(
            "object `{}` has the name of a directory and content; nothing of it was fetched",
            shown(&key)
        )));
    }
    if path == SENTINEL {
        return Ok(Entry::Sentinel(stamp));
    }
    let has_checksum = !object.checksum_algorithm().is_empty();
    Ok(match RelPath::parse(path) {
        Ok(path) => Entry::File(Listed { path, stamp, has_checksum }),
        Err(why) => Entry::Refused(RefusedFile { name: path.to_owned(), size: stamp.size, why }),
    })
}

/// A key out of a listing with `encoding-type=url`, where a space is `+`.
fn decoded(key: &str) -> Result<String, SourceError> {
    let spaced = key.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8().map_err(|_| {
        SourceError::Unsafe(format!("the bucket holds a key that is not UTF-8: `{}`", shown(key)))
    })?;
    Ok(decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(key: &str, size: i64) -> Object {
        Object::builder().key(key).size(size).e_tag("\"e\"").build()
    }

    #[test]
    fn markers_are_skipped_and_empty_objects_are_kept() {
        let entry = |key, size| entry("m/", &object(key, size), false).expect(key);
        assert!(matches!(entry("m/", 0), Entry::Marker));
        assert!(matches!(entry("m/sub/", 0), Entry::Marker));
        assert!(matches!(entry("m/empty", 0), Entry::File(_)));
        assert!(matches!(entry("m/.weightlift-complete.json", 9), Entry::Sentinel(_)));
    }

    #[test]
    fn keys_that_are_no_safe_path_are_refused() {
        for key in ["m/../x", "m//x", "m/a\\b", "m/a\nb", "m/.weightlift/x", "m//"] {
            let refused = entry("m/", &object(key, 1), false);
            assert!(
                matches!(refused, Ok(Entry::Refused(_)) | Err(SourceError::Unsafe(_))),
                "{key}"
            );
        }
        assert!(matches!(entry("m/", &object("m/sub/", 1), false), Err(SourceError::Unsafe(_))));
        assert!(matches!(entry("m/", &object("m/a%FF", 1), true), Err(SourceError::Unsafe(_))));
        assert!(matches!(entry("m/", &object("m-2/a", 1), false), Err(SourceError::Protocol(_))));
    }

    #[test]
    fn encoded_keys_are_read_as_they_were_written() {
        assert_eq!(decoded("a+b%2Bc/%C3%A9%25").expect("UTF-8"), "a b+c/é%");
    }

    #[test]
    fn an_etag_is_sent_back_only_if_it_can_match() {
        let etag = |text| Stamp::new(Some(1), Some(text), "k").expect("size").etag;
        assert_eq!(etag("\"a-2\"").as_deref(), Some("\"a-2\""));
        assert_eq!(etag("a-2").as_deref(), Some("\"a-2\""));
        for none in ["", "\"\"", "W/\"a\"", "a\"b"] {
            assert_eq!(etag(none), None, "{none}");
        }
    }

    #[test]
    fn the_revision_is_that_of_the_sorted_lines() {
        let listed = |path: &str, etag: &str| Listed {
            path: RelPath::parse(path).expect(path),
            stamp: Stamp::new(Some(3), Some(etag), path).expect("size"),
            has_checksum: false,
        };
        let sentinel = Stamp::new(Some(3), Some("s"), "").expect("size");
        let one = Listing::new(
            "m/".into(),
            vec![listed("b", "y"), listed("a", "x")],
            Vec::new(),
            Some(sentinel),
        );
        let text = "m/.weightlift-complete.json\t3\ts\nm/a\t3\tx\nm/b\t3\ty\n";
        assert_eq!(one.revision, hex::encode(&Sha256::digest(text)));
        let other =
            Listing::new("m/".into(), vec![listed("a", "x"), listed("b", "z")], Vec::new(), None);
        assert_ne!(one.revision, other.revision);
    }
}
