//! Objects of a bucket or a container, with their versions: what the fakes of Google's and Azure's storage
//! have in common.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::blob::Blob;
use crate::http::Request;

/// How an object was uploaded.
#[derive(Clone, Debug, Default)]
pub struct CloudObject {
    /// The checksums that a store may keep are not kept.
    pub without_checksum: bool,
    /// The MD5 that is told, in place of its own.
    pub md5: Option<[u8; 16]>,
    /// The `Content-Encoding` that it was uploaded with.
    pub content_encoding: Option<String>,
    /// The same without that encoding.
    pub unpacked: Option<Blob>,
    /// It stands for a directory of a hierarchical namespace.
    pub is_directory: bool,
    /// It cannot be read until it is restored.
    pub is_archived: bool,
}

/// One version of an object.
#[derive(Debug)]
pub(crate) struct Version {
    pub blob: Blob,
    /// Other than that of every other version.
    pub number: u64,
    pub options: CloudObject,
}

/// Whether a request is allowed to ask.
pub(crate) type Admits = Arc<dyn Fn(&Request) -> bool + Send + Sync>;

/// Keys and their versions, the newest last.
pub(crate) type Keys = BTreeMap<String, Vec<Arc<Version>>>;

#[derive(Default)]
pub(crate) struct Objects {
    buckets: Mutex<BTreeMap<String, Keys>>,
    last: Mutex<u64>,
}

impl Objects {
    pub fn bucket(&self, name: &str) {
        self.buckets().entry(name.to_owned()).or_default();
    }

    pub fn put(&self, bucket: &str, key: &str, blob: Blob, options: CloudObject) {
        let number = {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            *last += 1;
            1_790_000_000_000_000 + *last
        };
        let version = Arc::new(Version { blob, number, options });
        let mut buckets = self.buckets();
        let keys = buckets.entry(bucket.to_owned()).or_default();
        keys.entry(key.to_owned()).or_default().push(version);
    }

    pub fn remove(&self, bucket: &str, key: &str) {
        if let Some(keys) = self.buckets().get_mut(bucket) {
            keys.remove(key);
        }
    }

    pub fn has_bucket(&self, bucket: &str) -> bool {
        self.buckets().contains_key(bucket)
    }

    pub fn versions(&self, bucket: &str, key: &str) -> Vec<Arc<Version>> {
        self.buckets().get(bucket).and_then(|keys| keys.get(key)).cloned().unwrap_or_default()
    }

    /// The newest versions of at most `most` keys that begin with `prefix`, from `from` on, and the key that
    /// comes next.
    pub fn page(
        &self,
        bucket: &str,
        prefix: &str,
        from: &str,
        most: usize,
    ) -> (Vec<(String, Arc<Version>)>, Option<String>) {
        let buckets = self.buckets();
        let keys = buckets.get(bucket).into_iter().flatten();
        let mut found: Vec<_> = keys
            .filter(|(key, _)| key.starts_with(prefix) && key.as_str() >= from)
            .filter_map(|(key, versions)| Some((key.clone(), versions.last()?.clone())))
            .take(most + 1)
            .collect();
        let next = (found.len() > most).then(|| found.pop().map(|(key, _)| key)).flatten();
        (found, next)
    }

    fn buckets(&self) -> MutexGuard<'_, BTreeMap<String, Keys>> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
