//! A model hub and its CDN on two ports of `127.0.0.1`, and on two more its chunk store.
//!
//! Here is how tests talk to one. How they set it up is in `hub_builder`, what it answers in
//! `hub_routes`.

use std::sync::Arc;

use crate::http::Server;
use crate::hub_builder::FakeHubBuilder;
use crate::hub_repos::Snapshot;
use crate::hub_routes::State;
use crate::hub_xet::Xet;
use crate::log::{Log, Logged};
use crate::script::{Rule, Script};
use crate::tree::Tree;

/// A running hub; dropping it closes its ports.
pub struct FakeHub {
    pub(crate) state: Arc<State>,
    pub(crate) xet: Option<Xet>,
    pub(crate) hub: Server,
    pub(crate) cdn: Server,
    pub(crate) log: Log,
    pub(crate) script: Script,
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
