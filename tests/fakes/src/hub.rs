//! A model hub and its CDN on two ports of `127.0.0.1`.
//!
//! Here is how tests set one up and talk to it. What it answers is in `hub_routes`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::http::Server;
use crate::hub_cdn::{Cdn, UrlRules};
use crate::hub_repos::{Repo, Snapshot};
use crate::hub_routes::{Mirror, State, XetStore};
use crate::hub_xet::{Xet, XetRules};
use crate::log::{Log, Logged};
use crate::script::{Rule, Script};
use crate::tree::Tree;

/// A running hub; dropping it closes its ports.
pub struct FakeHub {
    pub(crate) state: Arc<State>,
    pub(crate) xet: Option<Xet>,
    hub: Server,
    cdn: Server,
    log: Log,
    script: Script,
}

/// Everything about a hub that is fixed before it starts.
#[derive(Default)]
pub struct FakeHubBuilder {
    trees: Vec<(String, Tree)>,
    private: BTreeSet<String>,
    gated: BTreeSet<String>,
    granted: BTreeSet<String>,
    raw_entries: Vec<(String, Value)>,
    renamed: BTreeMap<String, String>,
    token: Option<String>,
    lfs_threshold_bytes: Option<u64>,
    page_size: Option<usize>,
    url_rules: UrlRules,
    mirror: Mirror,
    pub(crate) xet_rules: XetRules,
    external_cdn: Option<String>,
    hub_port: u16,
    cdn_port: u16,
}

impl FakeHub {
    pub fn builder() -> FakeHubBuilder {
        FakeHubBuilder::default()
    }

    /// One public repository, no token, nothing unusual.
    pub fn serving(repo: &str, tree: Tree) -> Self {
        Self::builder().repo(repo, tree).start()
    }

    /// What `HF_ENDPOINT` has to be.
    pub fn url(&self) -> String {
        self.hub.url()
    }

    pub fn cdn_url(&self) -> String {
        self.cdn.url()
    }

    /// Adds a rule for all ports; see [`Rule::at`].
    pub fn script(&self, rule: Rule) {
        self.script.add(rule);
    }

    pub fn clear_script(&self) {
        self.script.clear();
    }

    /// How many requests a rule was applied to.
    pub fn faults_applied(&self) -> usize {
        self.script.applied()
    }

    /// Requests to all ports, told apart by [`Logged::origin`].
    pub fn log(&self) -> &Log {
        &self.log
    }

    pub fn requests(&self) -> Vec<Logged> {
        self.log.requests()
    }

    /// See [`Log::count`].
    pub fn count(&self, method: &str, substring: &str) -> usize {
        self.log.count(method, substring)
    }

    pub fn body_bytes(&self) -> u64 {
        self.log.body_bytes()
    }

    /// See [`Log::bytes_sent_for`].
    pub fn bytes_sent_for(&self, substring: &str) -> u64 {
        self.log.bytes_sent_for(substring)
    }

    /// The commit `main` points at now.
    ///
    /// # Panics
    /// When there is no such repository.
    pub fn commit(&self, repo: &str) -> String {
        self.commit_of(repo, "main").expect("a repository of this hub")
    }

    pub fn commit_of(&self, repo: &str, branch: &str) -> Option<String> {
        self.state.repos().get(repo)?.branches.get(branch).cloned()
    }

    /// Makes a commit of `tree` and lets `branch` (new or not) point at it. Commits made before
    /// are served as ever. Answers the commit, which depends on the tree only.
    ///
    /// # Panics
    /// When there is no such repository.
    pub fn move_branch(&self, repo: &str, branch: &str, tree: Tree) -> String {
        let snapshot = Snapshot::of(&tree, self.state.lfs_threshold_bytes);
        if let Some(xet) = &self.xet {
            xet.cas.register(&snapshot);
        }
        let mut repos = self.state.repos();
        let repo = repos.get_mut(repo).expect("a repository of this hub");
        repo.move_branch(branch, snapshot)
    }

    /// Connections open at any port.
    pub fn open_connections(&self) -> usize {
        self.servers().map(Server::open_connections).sum()
    }

    /// The most requests that the CDN, or the transfer host of the chunk store, has answered at
    /// the same time.
    pub fn most_transfers_at_once(&self) -> usize {
        let transfer = self.xet.as_ref().map(|xet| &xet.transfer_server);
        [&self.cdn]
            .into_iter()
            .chain(transfer)
            .map(Server::most_answered_at_once)
            .max()
            .unwrap_or(0)
    }

    /// Connections that any port has ever accepted.
    pub fn accepted_connections(&self) -> usize {
        self.servers().map(Server::accepted_connections).sum()
    }

    fn servers(&self) -> impl Iterator<Item = &Server> {
        let xet = self.xet.iter().flat_map(|xet| [&xet.cas_server, &xet.transfer_server]);
        [&self.hub, &self.cdn].into_iter().chain(xet)
    }
}

impl FakeHubBuilder {
    /// Adds a repository whose `main` holds `tree`. Names are `owner/name` or just `name`.
    #[must_use]
    pub fn repo(mut self, id: &str, tree: Tree) -> Self {
        self.trees.push((id.to_owned(), tree));
        self
    }

    /// Takes the digests of a repository's files from the output of `sha256sum`. `None` without
    /// that repository, or when a line is not of that form.
    #[must_use]
    pub fn sha256sums(mut self, id: &str, sums: &str) -> Option<Self> {
        let (_, tree) = self.trees.iter_mut().find(|(known, _)| known == id)?;
        *tree = std::mem::take(tree).announcing_sha256(sums)?;
        Some(self)
    }

    /// Files from this size on are LFS whatever their name; 10 MiB unless told otherwise.
    #[must_use]
    pub fn lfs_threshold(mut self, bytes: u64) -> Self {
        self.lfs_threshold_bytes = Some(bytes);
        self
    }

    /// The only token that is valid. Until one is set, every token is.
    #[must_use]
    pub fn token(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    /// Does not seem to exist without a valid token.
    #[must_use]
    pub fn private(mut self, id: &str) -> Self {
        self.private.insert(id.to_owned());
        self
    }

    /// Can be listed by anyone, but its files are refused: 401 without a token, 403 with one.
    #[must_use]
    pub fn gated(mut self, id: &str) -> Self {
        self.gated.insert(id.to_owned());
        self
    }

    /// The token's owner has been let through the gate of this repository.
    #[must_use]
    pub fn granted(mut self, id: &str) -> Self {
        self.granted.insert(id.to_owned());
        self
    }

    /// Gated repositories refuse listings as well (the hub did so until 2024).
    #[must_use]
    pub fn gated_listings(mut self) -> Self {
        self.mirror.gated_listings = true;
        self
    }

    /// Redirects `old` to `new`, relatively and with 307.
    #[must_use]
    pub fn renamed(mut self, old: &str, new: &str) -> Self {
        self.renamed.insert(old.to_owned(), new.to_owned());
        self
    }

    /// Entries per page of a listing; 1000 unless told otherwise.
    #[must_use]
    pub fn page_size(mut self, entries: usize) -> Self {
        self.page_size = Some(entries.max(1));
        self
    }

    /// A CDN URL answers 403 once it has served so many requests.
    #[must_use]
    pub fn expire_urls_after_requests(mut self, requests: usize) -> Self {
        self.url_rules.requests_per_url = Some(requests);
        self
    }

    /// A CDN URL answers 403 once it is this old.
    #[must_use]
    pub fn expire_urls_after(mut self, age: Duration) -> Self {
        self.url_rules.lifetime = Some(age);
        self
    }

    /// A CDN URL is good only for the `Range` header (or none) that the request to `resolve`
    /// had which made it.
    #[must_use]
    pub fn sign_ranges(mut self) -> Self {
        self.url_rules.sign_ranges = true;
        self
    }

    /// What a CDN URL that has expired is answered with, in place of S3's 403.
    #[must_use]
    pub fn expired_answer(
        mut self,
        status: u16,
        code: &'static str,
        message: &'static str,
    ) -> Self {
        self.url_rules.expired = Some((status, code, message));
        self
    }

    /// Listings are those of one directory, whatever `recursive` says.
    #[must_use]
    pub fn flat_listings(mut self) -> Self {
        self.mirror.flat_listings = true;
        self
    }

    /// Everything lies below this path, which begins with a slash: [`FakeHub::url`] is to be continued
    /// by it.
    #[must_use]
    pub fn prefix(mut self, prefix: &str) -> Self {
        self.mirror.prefix = prefix.to_owned();
        self
    }

    /// `next` links begin with this, where they should begin with what the client has asked.
    #[must_use]
    pub fn next_base(mut self, base: &str) -> Self {
        self.mirror.next_base = Some(base.to_owned());
        self
    }

    /// The only one who is let in, as `user:password`.
    #[must_use]
    pub fn user(mut self, user: &str) -> Self {
        self.mirror.user = Some(user.to_owned());
        self
    }

    /// Leaves `X-Repo-Commit`, `X-Linked-*` and `ETag` away, as mirrors do.
    #[must_use]
    pub fn mirror_without_headers(mut self) -> Self {
        self.mirror.without_headers = true;
        self
    }

    /// Names the xet hash of LFS files in listings and redirects. Without [`FakeHubBuilder::xet`]
    /// no chunk store is behind them, so a client has to take the CDN all the same.
    #[must_use]
    pub fn xet_hashes(mut self) -> Self {
        self.mirror.xet = true;
        self
    }

    /// The hub's own port serves LFS files; nothing is redirected to the CDN.
    #[must_use]
    pub fn lfs_direct(mut self) -> Self {
        self.mirror.lfs_direct = true;
        self
    }

    /// LFS files are redirected to `{url}/{repository}/{path}`, at a server that the caller runs.
    #[must_use]
    pub fn external_cdn(mut self, url: &str) -> Self {
        self.external_cdn = Some(url.trim_end_matches('/').to_owned());
        self.mirror.external_cdn = true;
        self
    }

    /// Adds an entry, hostile or broken as it may be, to the end of every listing of `id`.
    #[must_use]
    pub fn raw_tree_entry(mut self, id: &str, entry: Value) -> Self {
        self.raw_entries.push((id.to_owned(), entry));
        self
    }

    #[must_use]
    pub fn hub_port(mut self, port: u16) -> Self {
        self.hub_port = port;
        self
    }

    #[must_use]
    pub fn cdn_port(mut self, port: u16) -> Self {
        self.cdn_port = port;
        self
    }

    /// Hashes the trees and opens the ports.
    ///
    /// # Panics
    /// When a port is taken.
    pub fn start(self) -> FakeHub {
        self.try_start().expect("free ports on 127.0.0.1")
    }

    pub fn try_start(self) -> io::Result<FakeHub> {
        let (log, script) = (Log::new(), Script::new());
        let urls = Arc::new(Cdn::new(self.url_rules));
        let cdn = Server::start_on(self.cdn_port, {
            let urls = Arc::clone(&urls);
            script.observed("cdn", &log, move |request| urls.serve(request))
        })?;
        let xet = match self.xet_rules.wanted {
            true => Some(Xet::start(self.xet_rules, &script, &log)?),
            false => None,
        };
        let lfs_threshold_bytes = self.lfs_threshold_bytes.unwrap_or(LFS_THRESHOLD_BYTES);
        let mut repos = BTreeMap::new();
        for (id, tree) in &self.trees {
            let mut repo = Repo {
                private: self.private.contains(id),
                gated: self.gated.contains(id),
                granted: self.granted.contains(id),
                ..Repo::default()
            };
            repo.raw_entries.extend(
                self.raw_entries.iter().filter(|(of, _)| of == id).map(|(_, entry)| entry.clone()),
            );
            let snapshot = Snapshot::of(tree, lfs_threshold_bytes);
            if let Some(xet) = &xet {
                xet.cas.register(&snapshot);
            }
            repo.move_branch("main", snapshot);
            repos.insert(id.clone(), repo);
        }
        let xet_store = xet
            .as_ref()
            .map(|xet| XetStore { cas: Arc::clone(&xet.cas), url: xet.cas_server.url() });
        let mut state = State::new(
            repos,
            self.renamed,
            self.token,
            lfs_threshold_bytes,
            self.page_size.unwrap_or(PAGE_SIZE),
            self.mirror,
            (urls, self.external_cdn.unwrap_or_else(|| cdn.url())),
        );
        state.xet_store = xet_store;
        let state = Arc::new(state);
        let hub = Server::start_on(self.hub_port, {
            let state = Arc::clone(&state);
            script.observed("hub", &log, move |request| state.answer(request))
        })?;
        Ok(FakeHub { state, xet, hub, cdn, log, script })
    }
}

const LFS_THRESHOLD_BYTES: u64 = 10 << 20;
const PAGE_SIZE: usize = 1000;
