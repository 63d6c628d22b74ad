//! What a prefix, or one key, of a bucket holds: pinned once, by the ETags of all objects.

use sha2::{Digest as _, Sha256};

use super::client::Bucket;
use super::errors::shown;
use super::page::Found;
use super::pages::Pages;
use super::problem::ListingProblem;
use super::single;
use super::skipped::{Skipped, Why};
use super::stamp::{Stamp, strong};
use crate::model::{
    Locked, RefusedFile, RefusedFiles, RelPath, RemoteFile, SENTINEL, Sentinel, content_revision,
    hex,
};
use crate::net::SourceError;
use crate::source::beside;

/// More objects than this is no model; it bounds memory and disk.
const MAX_OBJECTS: usize = 1_000_000;

/// The objects of a location at one moment.
#[derive(Debug)]
pub struct Listing {
    /// What stands before the path of every object in its key: `models/llama/`, or nothing.
    pub base: String,
    /// In the order of their keys.
    pub objects: Vec<Listed>,
    /// Those whose keys cannot become paths.
    pub refused: Vec<RefusedFile>,
    /// Those that are nothing of a model.
    pub skipped: Skipped,
    /// The sentinel of a family that was copied here, which is no file of the model.
    pub sentinel: Option<Stamp>,
    /// What the sentinel of a mirror lists, which then is all that is known.
    pub mirrored: Option<Vec<RemoteFile>>,
    /// SHA-256 over all keys, sizes and ETags; without an ETag, the time of the object is in its place.
    /// Of a mirror over all paths, sizes and SHA-256s.
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

impl Listing {
    /// Of the one object `key`.
    pub fn of_one(key: &str, stamp: Stamp) -> Result<Self, SourceError> {
        let (base, name) = key.split_at(key.rfind('/').map_or(0, |at| at + 1));
        let object = Listed { path: RelPath::parse(name)?, stamp, has_checksum: true };
        Self::new(base.to_owned(), vec![object], Vec::new(), None, Skipped::default())
    }

    /// Of what a lock file names at `key`, where the objects themselves are not asked for. A prefix may be
    /// written without the `/`, and one object by its key.
    pub fn of_lock(key: &str, locked: &Locked) -> Self {
        let base = match locked.files.as_slice() {
            _ if key.is_empty() || key.ends_with('/') => Some(key),
            [one] => {
                key.strip_suffix(one.path.as_str()).filter(|it| it.is_empty() || it.ends_with('/'))
            }
            _ => None,
        };
        Self {
            base: base.map_or_else(|| format!("{key}/"), str::to_owned),
            objects: Vec::new(),
            refused: Vec::new(),
            skipped: Skipped::default(),
            sentinel: None,
            mirrored: None,
            revision: locked.revision.clone(),
        }
    }

    /// Of what a mirror has written below `base`, as its sentinel says.
    pub fn of_mirror(base: String, sentinel: &Sentinel) -> Result<Self, SourceError> {
        let files = beside::mirrored(sentinel, |file| file.validator.as_deref().and_then(strong))?;
        let revision = content_revision(&sentinel.files);
        let nothing = Self::new(base, Vec::new(), Vec::new(), None, Skipped::default())?;
        Ok(Self { mirrored: Some(files), revision, ..nothing })
    }

    /// Of everything below `base`.
    pub async fn below(bucket: &Bucket, base: String) -> Result<Self, SourceError> {
        let mut objects = Vec::new();
        let mut refused = RefusedFiles::default();
        let mut skipped = Skipped::default();
        let mut sentinel = None;
        let mut listed = 0;
        let mut pages = Pages::of(bucket, &base);
        while let Some(page) = pages.next().await? {
            listed += page.objects.len();
            if listed > MAX_OBJECTS {
                return Err(SourceError::Unsafe(
                    ListingProblem::ManyObjects {
                        bucket: bucket.name.clone(),
                        most: MAX_OBJECTS,
                        prefix: shown(&base),
                    }
                    .into(),
                ));
            }
            for found in page.objects {
                let size = match found.size {
                    Some(size) => size,
                    None => single::size(bucket, &found.key).await?,
                };
                match entry(&base, &found, size)? {
                    Entry::File(object) => objects.push(object),
                    Entry::Refused(file) => refused.push(file)?,
                    Entry::Sentinel(stamp) => sentinel = Some(stamp),
                    Entry::Skipped(why) => skipped.add(why, &found.key),
                    Entry::Marker => {}
                }
            }
        }
        if objects.is_empty() && refused.is_empty() {
            let (bucket, prefix) = (bucket.name.clone(), shown(&base));
            return Err(SourceError::NotFound(ListingProblem::Empty { bucket, prefix }.into()));
        }
        Self::new(base, objects, refused.into_files(), sentinel, skipped)
    }

    fn new(
        base: String,
        mut objects: Vec<Listed>,
        refused: Vec<RefusedFile>,
        sentinel: Option<Stamp>,
        skipped: Skipped,
    ) -> Result<Self, SourceError> {
        objects.sort_by(|a, b| a.path.cmp(&b.path));
        // Pages that overlap list an object twice.
        objects.dedup_by(|again, first| {
            let is_same = again.path == first.path && again.stamp == first.stamp;
            first.has_checksum |= is_same && again.has_checksum;
            is_same
        });
        if let Some(pair) = objects.windows(2).find(|pair| pair[0].path == pair[1].path) {
            // It was written meanwhile: another look shows which of them it is.
            let key = format!("{base}{}", pair[0].path);
            return Err(SourceError::Protocol(ListingProblem::Twice { key }.into()));
        }
        let mut lines: Vec<(&str, &Stamp)> =
            objects.iter().map(|object| (object.path.as_str(), &object.stamp)).collect();
        if let Some(stamp) = &sentinel {
            let at = lines.partition_point(|(path, _)| *path < SENTINEL);
            lines.insert(at, (SENTINEL, stamp));
        }
        let mut hash = Sha256::new();
        for (path, stamp) in lines {
            hash.update(format!("{base}{path}\t{}\t{}\n", stamp.size, stamp.mark()));
        }
        let revision = hex::encode(&hash.finalize());
        Ok(Self { base, objects, refused, skipped, sentinel, mirrored: None, revision })
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
    Skipped(Why),
}

/// What an object of a listing stands for.
pub(super) fn entry(base: &str, found: &Found, size: u64) -> Result<Entry, SourceError> {
    let path = found.key.strip_prefix(base).ok_or_else(|| {
        let (key, prefix) = (shown(&found.key), shown(base));
        SourceError::Protocol(ListingProblem::NotBelow { key, prefix }.into())
    })?;
    let stamp = Stamp::of(size, found.etag.as_deref(), found.modified.as_deref());
    if path.is_empty() || path.ends_with('/') {
        return Ok(if size == 0 { Entry::Marker } else { Entry::Skipped(Why::Directory) });
    }
    if path == SENTINEL {
        return Ok(Entry::Sentinel(stamp));
    }
    if let Some(why) = Why::of(path) {
        return Ok(Entry::Skipped(why));
    }
    Ok(match RelPath::parse(path) {
        Ok(path) => Entry::File(Listed { path, stamp, has_checksum: found.has_checksum }),
        Err(why) => Entry::Refused(RefusedFile { name: path.to_owned(), size, why }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(key: &str) -> Found {
        Found { key: key.into(), etag: Some("\"e\"".into()), ..Found::default() }
    }

    fn entry(key: &str, size: u64) -> Result<Entry, SourceError> {
        super::entry("m/", &found(key), size)
    }

    #[test]
    fn markers_are_skipped_and_empty_objects_are_kept() {
        let entry = |key, size| entry(key, size).expect(key);
        assert!(matches!(entry("m/", 0), Entry::Marker));
        assert!(matches!(entry("m/sub/", 0), Entry::Marker));
        assert!(matches!(entry("m/empty", 0), Entry::File(_)));
        assert!(matches!(entry("m/.weightlift-complete.json", 9), Entry::Sentinel(_)));
    }

    #[test]
    fn keys_that_are_no_safe_path_are_refused() {
        for key in ["m/../x", "m/a\\b", "m/a\nb", "m/./x", "m/a/../../x"] {
            assert!(matches!(entry(key, 1), Ok(Entry::Refused(_))), "{key}");
        }
        assert!(matches!(entry("m-2/a", 1), Err(SourceError::Protocol(_))));
    }

    #[test]
    fn keys_that_are_nothing_of_a_model_are_skipped() {
        for key in [
            "m/sub/",
            "m/",
            "m//x",
            "m/a//b",
            "m//",
            "m/.weightlift/x",
            "m/.weightlift/attempts/1/../x",
            "m/sub/.weightlift-complete.json",
        ] {
            assert!(matches!(entry(key, 11), Ok(Entry::Skipped(_))), "{key}");
        }
    }

    #[test]
    fn an_object_that_is_listed_twice_is_one_if_it_is_the_same() {
        let listed = |etag: &str, has_checksum| Listed {
            path: RelPath::parse("a").expect("a path"),
            stamp: Stamp::of(3, Some(etag), None),
            has_checksum,
        };
        let new =
            |objects| Listing::new("m/".into(), objects, Vec::new(), None, Skipped::default());
        let one = new(vec![listed("x", false)]).expect("one");
        let twice = new(vec![listed("x", false), listed("x", true)]).expect("twice");
        assert_eq!(twice.objects.len(), 1);
        assert!(twice.objects[0].has_checksum);
        assert_eq!(twice.revision, one.revision);
        let other = new(vec![listed("x", false), listed("y", false)]);
        assert!(matches!(other, Err(SourceError::Protocol(_))));
    }

    #[test]
    fn the_revision_is_that_of_the_sorted_lines() {
        let listed = |path: &str, etag: &str| Listed {
            path: RelPath::parse(path).expect(path),
            stamp: Stamp::of(3, Some(etag), None),
            has_checksum: false,
        };
        let sentinel = Stamp::of(3, Some("s"), None);
        let one = Listing::new(
            "m/".into(),
            vec![listed("b", "y"), listed("a", "x")],
            Vec::new(),
            Some(sentinel),
            Skipped::default(),
        )
        .expect("a listing");
        let text = "m/.weightlift-complete.json\t3\ts\nm/a\t3\tx\nm/b\t3\ty\n";
        assert_eq!(one.revision, hex::encode(&Sha256::digest(text)));
        let objects = vec![listed("a", "x"), listed("b", "z")];
        let other = Listing::new("m/".into(), objects, Vec::new(), None, Skipped::default());
        assert_ne!(one.revision, other.expect("a listing").revision);
    }
}
