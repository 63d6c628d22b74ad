//! What arrived at the fakes and how much of an answer each request got.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::http::{Body, Request, Response, find_header};
use crate::text::percent_decode;

/// Every request in order of arrival. Cloning shares the list.
///
/// Body bytes are counted, a block of up to 256 KiB at a time, when they are handed to the
/// socket, so a client that hangs up early may have read fewer.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<Arc<Entry>>>>);

/// One request, as far as it got when the log was read.
#[derive(Clone, Debug)]
pub struct Logged {
    /// `"hub"`, `"cdn"`, `"cas"`, `"transfer"`, `"s3"`, or whatever the server was called.
    pub origin: &'static str,
    pub method: String,
    /// `path?query` as it was sent.
    pub target: String,
    pub headers: Vec<(String, String)>,
    /// 0 while there is no answer yet.
    pub status: u16,
    /// Position in the file of the first body byte, when the body was (part of) a file.
    pub offset: Option<u64>,
    pub body_bytes_sent: u64,
    /// Of the body that came with the request.
    pub body_bytes_received: u64,
    /// Which connection of its server it came over.
    pub connection: usize,
    pub at: Instant,
}

impl Log {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn requests(&self) -> Vec<Logged> {
        self.entries().iter().map(|entry| entry.seen()).collect()
    }

    /// How many requests have this method (`"*"` for any) and `substring` in their decoded target.
    pub fn count(&self, method: &str, substring: &str) -> usize {
        let matches = |it: &Logged| (method == "*" || it.method == method) && it.is_for(substring);
        self.requests().iter().filter(|it| matches(it)).count()
    }

    /// Body bytes of all answers.
    pub fn body_bytes(&self) -> u64 {
        self.bytes_sent_for("")
    }

    /// Body bytes of the answers to requests with `substring` in their decoded target.
    pub fn bytes_sent_for(&self, substring: &str) -> u64 {
        let requests = self.requests();
        requests.iter().filter(|it| it.is_for(substring)).map(|it| it.body_bytes_sent).sum()
    }

    /// Body bytes of the requests with `substring` in their decoded target.
    pub fn bytes_received_for(&self, substring: &str) -> u64 {
        let requests = self.requests();
        requests.iter().filter(|it| it.is_for(substring)).map(|it| it.body_bytes_received).sum()
    }

    /// Bytes of files that were sent although they had been sent before.
    ///
    /// Files are told apart by origin and path without query.
    pub fn bytes_sent_twice(&self) -> u64 {
        let mut files: BTreeMap<(&str, String), Vec<(u64, u64)>> = BTreeMap::new();
        for request in self.requests() {
            if let Some(start) = request.offset {
                let path = request.target.split('?').next().unwrap_or_default().to_owned();
                let ranges = files.entry((request.origin, path)).or_default();
                ranges.push((start, start + request.body_bytes_sent));
            }
        }
        files.into_values().map(overlap).sum()
    }

    pub fn clear(&self) {
        self.entries().clear();
    }

    /// Notes a request before anyone works on it.
    pub(crate) fn arrived(&self, origin: &'static str, request: &Request) -> Arc<Entry> {
        let entry = Arc::new(Entry {
            origin,
            method: request.method.clone(),
            target: request.target(),
            headers: request.headers.clone(),
            connection: request.connection,
            at: Instant::now(),
            received: request.body.len() as u64,
            status: AtomicU16::new(0),
            offset: AtomicU64::new(NO_OFFSET),
            sent: Arc::default(),
        });
        self.entries().push(Arc::clone(&entry));
        entry
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Arc<Entry>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Logged {
    pub fn header(&self, name: &str) -> Option<&str> {
        find_header(&self.headers, name)
    }

    /// Whether the decoded target contains `substring`.
    pub fn is_for(&self, substring: &str) -> bool {
        percent_decode(&self.target).contains(substring)
    }
}

pub(crate) struct Entry {
    origin: &'static str,
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    connection: usize,
    at: Instant,
    received: u64,
    status: AtomicU16,
    offset: AtomicU64,
    sent: Arc<AtomicU64>,
}

impl Entry {
    /// Notes the answer and follows its body from here on.
    pub(crate) fn answered(&self, response: &mut Response) {
        if !response.delivery.hang_up {
            self.status.store(response.status, Ordering::Release);
        }
        if let Body::Blob { start, .. } = response.body {
            self.offset.store(start, Ordering::Release);
        }
        response.delivery.sent = Arc::clone(&self.sent);
    }

    fn seen(&self) -> Logged {
        let offset = self.offset.load(Ordering::Acquire);
        Logged {
            origin: self.origin,
            method: self.method.clone(),
            target: self.target.clone(),
            headers: self.headers.clone(),
            status: self.status.load(Ordering::Acquire),
            offset: (offset != NO_OFFSET).then_some(offset),
            body_bytes_sent: self.sent.load(Ordering::Acquire),
            body_bytes_received: self.received,
            connection: self.connection,
            at: self.at,
        }
    }
}

/// Total length of the ranges minus the length of their union.
fn overlap(mut ranges: Vec<(u64, u64)>) -> u64 {
    ranges.sort_unstable();
    let mut covered_to = 0;
    let mut twice = 0;
    for (start, end) in ranges {
        twice += end.min(covered_to).saturating_sub(start);
        covered_to = covered_to.max(end);
    }
    twice
}

const NO_OFFSET: u64 = u64::MAX;

#[cfg(test)]
mod tests {
    use super::overlap;

    #[test]
    fn overlap_counts_each_repeated_byte() {
        assert_eq!(overlap(vec![(5, 10), (0, 5)]), 0);
        assert_eq!(overlap(vec![(0, 10), (5, 12), (2, 3)]), 6);
        assert_eq!(overlap(vec![(0, 4), (0, 4), (0, 4)]), 8);
    }
}
