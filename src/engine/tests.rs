//! Whole transfers into an attempt of its own, from sources that no server can play.

use std::ops::Range;

use async_trait::async_trait;

use super::*;
use crate::content::Body;
use crate::model::{ModelDir, RelPath, Snapshot};
use crate::net::SourceError;
use crate::net::http::Deadlines;
use crate::volume::{Destination, Store};

/// A call to it never returns, not even with an error: no deadline and no retry sees that.
struct Mute;

#[async_trait]
impl Source for Mute {
    async fn revision(&self) -> Result<String, SourceError> {
        std::future::pending().await
    }

    async fn snapshot(&self) -> Result<Snapshot, SourceError> {
        std::future::pending().await
    }

    async fn read(
        &self,
        _: &reqwest::Client,
        _: &RemoteFile,
        _: Range<u64>,
    ) -> Result<Body, SourceError> {
        std::future::pending().await
    }

    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }
}

#[test]
fn a_wait_without_an_end_ends_the_transfer_and_names_all_who_wait() {
    let root = tempfile::tempdir().expect("a directory");
    let family = ModelDir::parse("m").expect("a family");
    let store = Store::open(Destination { root: root.path().to_owned(), family }).expect("a store");
    let snapshot = Snapshot::new("hf://a/b".into(), "c".into(), Vec::new(), Vec::new());
    let file = |name: &str, size| RemoteFile {
        path: RelPath::parse(name).expect("a path"),
        size,
        digest: None,
        validator: None,
        xet_hash: None,
    };
    let files = vec![file("a.bin", 64 << 20), file("b.bin", 5)];
    let staging = Staging::begin(&store, &snapshot, files).expect("an attempt");
    let options = Options {
        share: super::Share::default(),
        connections: 3,
        chunk_size: 64 << 20,
        retry: RetryPolicy {
            budget: Duration::from_secs(1),
            max_delay: Duration::ZERO,
            ..RetryPolicy::default()
        },
        min_rate: None,
        memory_limit: None,
        memory_used: 0,
        processor_limit: None,
        direct_io: super::DirectIo::default(),
        descriptors: 1_000,
        require_digests: false,
    };
    // No deadlines, so that nothing is left to wait for after the budget.
    let (connect, first_byte, stall) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    let http = Http::new(Deadlines { connect, first_byte, stall }).expect("settings");
    let (progress, screen, stop) = (Arc::default(), Screen::default(), Stop::default());
    let plan = staging.plan();
    let proofs = vec![None; plan.files.len()];
    let ended =
        run(&Mute, &http, &staging, &plan, &options, &progress, &screen, &stop, proofs, |_| true);
    let error = ended.expect_err("nothing has arrived");
    let line = error.to_string();
    assert!(matches!(error, TransferError::Silent { .. }), "{line}");
    for wait in [": an answer about `a.bin`", ": an answer about `b.bin`", "hash-0"] {
        assert!(line.contains(wait), "{line}");
    }
    assert!(!stop.is_set(), "what the caller still wants to do is not stopped");
}
