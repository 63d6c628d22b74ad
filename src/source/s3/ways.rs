//! What has been found out in this run about the ways of one store, and about its objects where they
//! need it. Each way is found out once, and said once.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::stamp::Stamp;

/// How a store differs from S3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// HEAD with `x-amz-checksum-mode` is refused.
    NoChecksumMode,
    /// HEAD is refused.
    NoHead,
    /// Objects are encrypted with keys of the customer's, so that their ETags are no MD5s.
    Encrypts,
    /// `If-Match` is refused although it matches.
    NoIfMatch,
    /// The listing has other ETags than the objects.
    OwnListing,
    /// Reads are answered with a redirect.
    SendsOn,
    /// The ETag of such a redirect is not that of the object.
    OwnRedirects,
    /// A checksum beside what is sent is refused.
    NoUploadChecksums,
    /// A write on condition of what is there is refused.
    NoConditions,
    /// `If-Match` of a write is refused although it matches.
    NoReplacing,
}

/// Shared by all who ask the store.
#[derive(Debug, Default)]
pub struct Ways {
    state: Mutex<State>,
    /// One at a time looks again at what is strange; the others then know.
    pub looking: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    known: BTreeSet<Way>,
    /// The ETag that the object itself has told, where the listing has another one or none.
    pins: HashMap<String, String>,
    /// What tells one version from another where no ETag does: by object and by place.
    marks: HashMap<u64, String>,
    /// Objects that have told the ETag that was listed, as hashes: another one is another version.
    confirmed: HashSet<u64>,
    /// The stored `Content-Encoding` of objects; nothing for those that have none.
    encodings: HashMap<String, Option<String>>,
    /// Objects whose checksum was refused by a status that may be about them alone.
    doubts: u32,
    /// Refusals in a row at the places that reads are sent on to.
    strikes: u32,
    warnings: Vec<String>,
}

/// The ETag that an object must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    pub etag: String,
    /// The object itself has told it, not only the listing.
    pub is_own: bool,
}

impl Ways {
    pub fn know(&self, way: Way) -> bool {
        self.state().known.contains(&way)
    }

    /// Keeps `way`, and says so the first time.
    pub fn learn(&self, way: Way, say: impl FnOnce() -> String) {
        let mut state = self.state();
        if state.known.insert(way) {
            state.warnings.push(say());
        }
    }

    /// The same, where somebody else says it.
    pub fn learn_silently(&self, way: Way) {
        self.state().known.insert(way);
    }

    /// Counts an object whose checksum was refused and that is told of without; whether it is the second
    /// one, so that it is the store's way.
    pub fn refuses_checksums_again(&self) -> bool {
        let mut state = self.state();
        state.doubts += 1;
        state.doubts > 1
    }

    /// The ETag that `key` must have, if there is one to hold it to.
    pub fn expected(&self, key: &str, listed: &Stamp) -> Option<Expected> {
        let state = self.state();
        if let Some(etag) = state.pins.get(key) {
            return Some(Expected { etag: etag.clone(), is_own: true });
        }
        let etag = listed.etag.clone().filter(|_| !state.known.contains(&Way::OwnListing))?;
        let is_own = state.confirmed.contains(&hash(&(key, &etag)));
        Some(Expected { etag, is_own })
    }

    /// The object itself has told `etag`; false if it has told another one before.
    pub fn told(&self, key: &str, listed: &Stamp, etag: &str) -> bool {
        let mut state = self.state();
        if let Some(pin) = state.pins.get(key) {
            return pin == etag;
        }
        if listed.etag.as_deref() == Some(etag) {
            state.confirmed.insert(hash(&(key, etag)));
        } else {
            state.pins.insert(key.to_owned(), etag.to_owned());
        }
        true
    }

    /// What `place` tells a version of `key` by; false if it has told another one before.
    pub fn marked(&self, key: &str, place: &str, mark: String) -> bool {
        let mut state = self.state();
        *state.marks.entry(hash(&(key, place))).or_insert_with(|| mark.clone()) == mark
    }

    /// The ETag of `key`, where it is not the listed one.
    pub fn pin(&self, key: &str) -> Option<String> {
        self.state().pins.get(key).cloned()
    }

    pub fn encoding(&self, key: &str) -> Option<Option<String>> {
        self.state().encodings.get(key).cloned()
    }

    pub fn keep_encoding(&self, key: &str, encoding: Option<String>) {
        self.state().encodings.insert(key.to_owned(), encoding);
    }

    pub fn sent_on_well(&self) {
        self.state().strikes = 0;
    }

    /// Counts a refusal, and returns how many there were in a row.
    pub fn sent_on_badly(&self) -> u32 {
        let mut state = self.state();
        state.strikes += 1;
        state.strikes
    }

    pub fn warnings(&self) -> Vec<String> {
        std::mem::take(&mut self.state().warnings)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hash(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(etag: &str) -> Stamp {
        Stamp::of(1, Some(etag), None)
    }

    #[test]
    fn a_way_is_said_once() {
        let ways = Ways::default();
        for _ in 0..3 {
            ways.learn(Way::NoIfMatch, || "said".into());
        }
        assert!(ways.know(Way::NoIfMatch) && !ways.know(Way::NoHead));
        assert_eq!((ways.warnings(), ways.warnings()), (vec!["said".to_owned()], vec![]));
    }

    #[test]
    fn an_object_is_held_to_what_it_has_told_first() {
        let ways = Ways::default();
        let expected = |listed| ways.expected("k", &stamp(listed));
        assert_eq!(expected("a"), Some(Expected { etag: "\"a\"".into(), is_own: false }));
        assert!(ways.told("k", &stamp("a"), "\"a\""));
        assert!(expected("a").is_some_and(|it| it.is_own));
        // Of another object nothing is known.
        assert!(ways.expected("other", &stamp("a")).is_some_and(|it| !it.is_own));

        let ways = Ways::default();
        ways.learn_silently(Way::OwnListing);
        assert_eq!(ways.expected("k", &stamp("a")), None);
        assert!(ways.told("k", &stamp("a"), "\"b\""));
        assert!(!ways.told("k", &stamp("a"), "\"c\""));
        assert_eq!(ways.expected("k", &stamp("a")).map(|it| it.etag).as_deref(), Some("\"b\""));
        assert!(ways.marked("k", "cdn", "x".into()) && !ways.marked("k", "cdn", "y".into()));
        assert!(ways.marked("k", "other cdn", "y".into()));
    }
}
