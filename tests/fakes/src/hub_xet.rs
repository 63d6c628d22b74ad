//! How tests set up the chunk store of a hub, and ask it about chunks.
//!
//! What it answers is in `cas`, what its transfer host answers in `cas_links`.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::blob::Blob;
use crate::cas::{Cas, CasRules, Tokens};
use crate::cas_chunks::{Scheme, for_each_chunk};
use crate::cas_lies::{Lies, XetLie};
use crate::cas_links::{LinkRules, Links};
use crate::cas_store::{Packing, Store};
use crate::http::Server;
use crate::hub::FakeHub;
use crate::hub_builder::FakeHubBuilder;
use crate::hub_repos::Snapshot;
use crate::log::Log;
use crate::script::Script;

/// Everything about a chunk store that is fixed before it starts.
#[derive(Clone, Copy)]
pub(crate) struct XetRules {
    /// Whether there is one.
    pub wanted: bool,
    packing: Packing,
    links: LinkRules,
    cas: CasRules,
}

/// The two ports of a chunk store.
pub(crate) struct Xet {
    pub cas: Arc<Cas>,
    pub cas_server: Server,
    pub transfer_server: Server,
}

impl Xet {
    pub fn start(rules: XetRules, script: &Script, log: &Log) -> io::Result<Self> {
        let lies = Arc::new(Lies::default());
        let links = Arc::new(Links::new(rules.links, Arc::clone(&lies)));
        let transfer_server = Server::start_on(0, {
            let links = Arc::clone(&links);
            script.observed("transfer", log, move |request| links.serve(request))
        })?;
        let cas = Arc::new(Cas {
            rules: rules.cas,
            store: Store::new(rules.packing),
            links,
            lies,
            transfer_url: transfer_server.url(),
            tokens: Tokens::default(),
        });
        let cas_server = Server::start_on(0, {
            let cas = Arc::clone(&cas);
            script.observed("cas", log, move |request| cas.answer(request))
        })?;
        Ok(Self { cas, cas_server, transfer_server })
    }
}

/// For a hub with [`FakeHubBuilder::xet`]; other hubs panic.
impl FakeHub {
    /// The origin that tokens name; `"cas"` in the log.
    pub fn cas_url(&self) -> String {
        self.xet().cas_server.url()
    }

    /// The origin of links to xorbs; `"transfer"` in the log.
    pub fn transfer_url(&self) -> String {
        self.xet().transfer_server.url()
    }

    /// From now on the chunk store tells this lie, and no other.
    pub fn xet_lie(&self, lie: XetLie) {
        self.xet_lie_times(lie, usize::MAX);
    }

    /// The same for so many answers; then it tells the truth again.
    pub fn xet_lie_times(&self, lie: XetLie, answers: usize) {
        self.xet().cas.lies.start(lie, answers);
    }

    /// From now on the chunk store tells the truth.
    pub fn xet_honest(&self) {
        self.xet().cas.lies.stop();
    }

    /// How many answers were lies.
    pub fn xet_lies_told(&self) -> usize {
        self.xet().cas.lies.told()
    }

    /// Where the chunks of some content end; the last one ends where the content does.
    pub fn xet_chunks(content: &Blob) -> Vec<u64> {
        let mut ends = Vec::new();
        for_each_chunk(content, |offset, chunk| ends.push(offset + chunk.len() as u64));
        ends
    }

    /// Bytes, uncompressed, of the chunks that `path` has at one commit and no large file has at
    /// another. A chunk that the file repeats counts once.
    ///
    /// # Panics
    /// When there is no such commit, or no such large file.
    pub fn xet_new_bytes(&self, repo: &str, path: &str, old: &str, new: &str) -> u64 {
        let (old, new) = (self.snapshot(repo, old), self.snapshot(repo, new));
        let store = &self.xet().cas.store;
        let mut seen = HashSet::new();
        for lfs in old.files.values().filter_map(|file| file.lfs.as_ref()) {
            let pieces = store.pieces(&lfs.xet_hash).expect("a file of a commit");
            seen.extend(pieces.iter().map(|piece| (piece.xorb, piece.index)));
        }
        let lfs = new.files.get(path).and_then(|file| file.lfs.as_ref()).expect("a large file");
        let pieces = store.pieces(&lfs.xet_hash).expect("a file of a commit");
        let fresh = pieces.iter().filter(|piece| seen.insert((piece.xorb, piece.index)));
        fresh.map(|piece| piece.length).sum()
    }

    fn snapshot(&self, repo: &str, commit: &str) -> Arc<Snapshot> {
        let repos = self.state.repos();
        let repo = repos.get(repo).expect("a repository of this hub");
        repo.snapshot(commit).expect("a commit of this repository")
    }

    fn xet(&self) -> &Xet {
        self.xet.as_ref().expect("a hub with a chunk store")
    }
}

impl FakeHubBuilder {
    /// Puts a chunk store behind the xet hashes of large files, on two ports of its own.
    #[must_use]
    pub fn xet(self) -> Self {
        self.with_xet(|rules| rules.wanted = true).xet_hashes()
    }

    /// At most so many chunks are in a xorb; 1024 unless told otherwise.
    #[must_use]
    pub fn xet_xorb_chunks(self, chunks: usize) -> Self {
        self.with_xet(|rules| rules.packing.xorb_chunks = chunks.max(1))
    }

    /// Stores every chunk in this way: 0 plain, 1 LZ4, 2 LZ4 of grouped bytes. The one with the
    /// fewest bytes unless told otherwise.
    ///
    /// # Panics
    /// When there is no such scheme.
    #[must_use]
    pub fn xet_scheme(self, number: u8) -> Self {
        let scheme = Scheme::numbered(number).expect("a scheme from 0 to 2");
        self.with_xet(|rules| rules.packing.scheme = Some(scheme))
    }

    /// 15 minutes unless told otherwise.
    #[must_use]
    pub fn xet_token_lifetime(self, lifetime: Duration) -> Self {
        self.with_xet(|rules| rules.cas.token_lifetime = lifetime)
    }

    /// An hour unless told otherwise.
    #[must_use]
    pub fn xet_link_lifetime(self, lifetime: Duration) -> Self {
        self.with_xet(|rules| rules.links.lifetime = lifetime)
    }

    /// A link answers 403 once it has served so many requests for each range that it is good for.
    #[must_use]
    pub fn xet_requests_per_link(self, requests: usize) -> Self {
        self.with_xet(|rules| rules.links.requests_per_range = Some(requests))
    }

    /// A link of a version 2 answer is good for at most so many ranges; 500 unless told otherwise.
    #[must_use]
    pub fn xet_ranges_per_link(self, ranges: usize) -> Self {
        self.with_xet(|rules| rules.cas.ranges_per_link = ranges.max(1))
    }

    /// A link is not good for a part of a range.
    #[must_use]
    pub fn xet_whole_ranges(self) -> Self {
        self.with_xet(|rules| rules.links.whole_ranges = true)
    }

    /// The store knows version 1 only: everything below `/v2/` is 404.
    #[must_use]
    pub fn xet_v1_only(self) -> Self {
        self.with_xet(|rules| rules.cas.version_1_only = true)
    }

    fn with_xet(mut self, change: impl FnOnce(&mut XetRules)) -> Self {
        change(&mut self.xet_rules);
        self
    }
}

impl Default for XetRules {
    fn default() -> Self {
        Self {
            wanted: false,
            packing: Packing { xorb_chunks: 1024, scheme: None },
            links: LinkRules {
                lifetime: Duration::from_secs(3600),
                requests_per_range: None,
                whole_ranges: false,
            },
            cas: CasRules {
                token_lifetime: Duration::from_secs(900),
                version_1_only: false,
                ranges_per_link: 500,
            },
        }
    }
}
