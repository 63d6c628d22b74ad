//! What each thread of a transfer does at the moment: for the watchdog, and for its last words.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::schedule::event::Phase;
use crate::model::text;

/// Threads and files that are named; the rest is counted.
const MAX_NAMED: usize = 8;
const MAX_PATH_CHARS: usize = 80;

/// What one thread does, with the number of the file that it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Doing {
    /// It has not begun yet.
    Starting,
    /// It has ended, or there never was one.
    Ended,
    /// Waits for the queue.
    WaitsForChunk,
    /// Waits for the next file to hash.
    WaitsForFile,
    /// Waits for the head of an answer.
    WaitsForAnswer(usize),
    /// Waits for bytes.
    WaitsForBytes(usize),
    /// Waits before it tries again.
    WaitsToRetry(usize),
    /// Hashes, or is in a call to the volume, however long that takes.
    Works(usize),
    /// Has no request on its way: it finishes a chunk or a file.
    Finishes(usize),
    /// Waits for a second read of the start.
    Compares(usize),
}

impl Doing {
    /// The network has deadlines of its own, and ends these waits.
    fn has_deadline(self) -> bool {
        matches!(
            self,
            Self::WaitsForAnswer(_)
                | Self::WaitsForBytes(_)
                | Self::WaitsToRetry(_)
                | Self::Compares(_)
        )
    }

    /// Somebody does something, even if nobody can see how far it is.
    fn is_work(self) -> bool {
        matches!(self, Self::Starting | Self::Works(_) | Self::Finishes(_))
    }

    fn words(self) -> (&'static str, Option<usize>) {
        match self {
            Self::Starting => ("its start", None),
            Self::Ended => ("ended", None),
            Self::WaitsForChunk => ("a chunk", None),
            Self::WaitsForFile => ("a file to hash", None),
            Self::WaitsForAnswer(file) => ("an answer about", Some(file)),
            Self::WaitsForBytes(file) => ("bytes of", Some(file)),
            Self::WaitsToRetry(file) => ("the next try of", Some(file)),
            Self::Works(file) | Self::Finishes(file) => ("its work on", Some(file)),
            Self::Compares(file) => ("a second read of the start of", Some(file)),
        }
    }

    /// In one word of the machine, so that telling costs next to nothing.
    fn packed(self) -> usize {
        let (kind, file) = match self {
            Self::Starting => (0, 0),
            Self::Ended => (1, 0),
            Self::WaitsForChunk => (2, 0),
            Self::WaitsForFile => (3, 0),
            Self::WaitsForAnswer(file) => (4, file),
            Self::WaitsForBytes(file) => (5, file),
            Self::WaitsToRetry(file) => (6, file),
            Self::Works(file) => (7, file),
            Self::Finishes(file) => (8, file),
            Self::Compares(file) => (9, file),
        };
        file << 4 | kind
    }

    fn unpacked(packed: usize) -> Self {
        let file = packed >> 4;
        match packed & 15 {
            0 => Self::Starting,
            1 => Self::Ended,
            2 => Self::WaitsForChunk,
            3 => Self::WaitsForFile,
            4 => Self::WaitsForAnswer(file),
            5 => Self::WaitsForBytes(file),
            6 => Self::WaitsToRetry(file),
            7 => Self::Works(file),
            8 => Self::Finishes(file),
            _ => Self::Compares(file),
        }
    }
}

/// Alone in its lines of the cache: its thread writes to it with each read.
#[repr(align(128))]
struct Slot(AtomicUsize);

impl Slot {
    fn new() -> Self {
        Self(AtomicUsize::new(Doing::Ended.packed()))
    }

    fn read(&self) -> Doing {
        Doing::unpacked(self.0.load(Relaxed))
    }
}

/// Where one thread tells what it does. It has ended when this is dropped.
pub struct Post<'a>(&'a Slot);

impl Post<'_> {
    pub fn tell(&self, doing: Doing) {
        self.0.0.store(doing.packed(), Relaxed);
    }
}

impl Drop for Post<'_> {
    fn drop(&mut self) {
        self.tell(Doing::Ended);
    }
}

/// The posts of all threads.
pub struct Activity {
    workers: Vec<Slot>,
    hashers: Vec<Slot>,
    /// Nobody waits for this one.
    checkpointer: Slot,
}

impl Activity {
    pub fn of(workers: usize, hashers: usize) -> Self {
        let slots = |count| (0..count).map(|_| Slot::new()).collect();
        Self { workers: slots(workers), hashers: slots(hashers), checkpointer: Slot::new() }
    }

    /// For the thread that is about to start.
    pub fn worker(&self, number: usize) -> Post<'_> {
        Self::started(&self.workers[number])
    }

    pub fn hasher(&self, number: usize) -> Post<'_> {
        Self::started(&self.hashers[number])
    }

    pub fn checkpointer(&self) -> Post<'_> {
        Self::started(&self.checkpointer)
    }

    fn started(slot: &Slot) -> Post<'_> {
        let post = Post(slot);
        post.tell(Doing::Starting);
        post
    }

    /// What worker number `number` does, as the schedule sees it.
    pub fn phase(&self, number: usize) -> Phase {
        match self.workers[number].read() {
            Doing::WaitsForAnswer(_) => Phase::Head,
            Doing::WaitsForBytes(_) | Doing::Works(_) => Phase::Body,
            _ => Phase::Other,
        }
    }

    /// Whether anybody works, and whether anybody waits for what ends by itself.
    pub fn looks(&self) -> (bool, bool) {
        let all = || self.all().map(|(_, _, doing)| doing);
        (all().any(Doing::is_work), all().any(Doing::has_deadline))
    }

    /// What each thread waits for, `fetch-0, fetch-2: a chunk; fetch-1: bytes of …`: one line of bounded
    /// length.
    pub fn describe<'p>(&self, path: impl Fn(usize) -> &'p str) -> String {
        let mut groups: BTreeMap<Doing, Vec<String>> = BTreeMap::new();
        for (kind, number, doing) in self.all().filter(|(_, _, doing)| *doing != Doing::Ended) {
            groups.entry(doing).or_default().push(format!("{kind}-{number}"));
        }
        let left = groups.len().saturating_sub(MAX_NAMED);
        let group = |(doing, threads): (Doing, Vec<String>)| {
            let (words, file) = doing.words();
            let more = threads.len().saturating_sub(MAX_NAMED);
            let mut line = threads[..threads.len() - more].join(", ");
            if more > 0 {
                line += &format!(" and {more} more");
            }
            let file = file.map(|file| format!(" `{}`", text::inert(path(file), MAX_PATH_CHARS)));
            format!("{line}: {words}{}", file.unwrap_or_default())
        };
        let mut groups = Vec::from_iter(groups.into_iter().take(MAX_NAMED).map(group));
        if left > 0 {
            groups.push(format!("{left} other waits"));
        }
        groups.join("; ")
    }

    fn all(&self) -> impl Iterator<Item = (&'static str, usize, Doing)> {
        let of = |kind, slots: &'_ [Slot]| {
            Vec::from_iter(slots.iter().map(Slot::read).enumerate().map(|(n, it)| (kind, n, it)))
        };
        of("fetch", &self.workers).into_iter().chain(of("hash", &self.hashers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_thread_tells_is_what_is_read() {
        for doing in [
            Doing::Starting,
            Doing::Ended,
            Doing::WaitsForChunk,
            Doing::WaitsForFile,
            Doing::WaitsForAnswer(0),
            Doing::WaitsForBytes(1),
            Doing::WaitsToRetry(1_000_000),
            Doing::Works(7),
            Doing::Finishes(8),
            Doing::Compares(9),
        ] {
            assert_eq!(Doing::unpacked(doing.packed()), doing);
        }
    }

    #[test]
    fn the_description_is_one_short_line_whatever_the_files_are_called() {
        let activity = Activity::of(256, 16);
        let posts: Vec<_> = (0..256).map(|n| activity.worker(n)).collect();
        assert_eq!(activity.looks(), (true, false));
        for (n, post) in posts.iter().enumerate() {
            post.tell(if n < 100 { Doing::WaitsForChunk } else { Doing::WaitsForBytes(n) });
        }
        assert_eq!(activity.looks(), (false, true));
        let long = format!("a\nb{}", "x".repeat(4_000));
        let line = activity.describe(|_| &long);
        assert!(line.starts_with("fetch-0, fetch-1, "), "{line}");
        assert!(line.contains("fetch-7 and 92 more: a chunk; fetch-100: bytes of `"), "{line}");
        assert!(line.len() < 1_500 && !line.contains('\n'), "{}: {line}", line.len());
        drop(posts);
        assert_eq!((activity.looks(), activity.describe(|_| "").as_str()), ((false, false), ""));
    }
}
