//! How tests set up a hub: what is in it, who may see it, how it differs from the usual one.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::http::Server;
use crate::hub::FakeHub;
use crate::hub_cdn::{Cdn, UrlRules};
use crate::hub_control;
use crate::hub_repos::{Repo, Snapshot};
use crate::hub_routes::{Mirror, State, XetStore};
use crate::hub_xet::{Xet, XetRules};
use crate::log::Log;
use crate::script::Script;
use crate::tree::Tree;

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
    everywhere: bool,
    public_cdn: Option<String>,
}

impl FakeHubBuilder {
    /// Adds a repository whose `main` holds `tree`. Names are `owner/name` or just `name`; those of
    /// datasets and spaces begin with `datasets/` and `spaces/`. The same name again is its next commit.
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

    /// The hub and its CDN listen at every address of this machine, as in a pod. Nothing guards them.
    #[must_use]
    pub fn everywhere(mut self) -> Self {
        self.everywhere = true;
        self
    }

    /// What clients are to call the CDN of this hub: a name of a cluster, or `https` where something
    /// ends TLS before it.
    #[must_use]
    pub fn public_cdn(mut self, url: &str) -> Self {
        self.public_cdn = Some(url.trim_end_matches('/').to_owned());
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
        let address = match self.everywhere {
            true => Ipv4Addr::UNSPECIFIED,
            false => Ipv4Addr::LOCALHOST,
        };
        let cdn = Server::start_at((address, self.cdn_port).into(), {
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
            // The same name again is the next commit; those before are served as ever.
            let repo = repos.entry(id.clone()).or_insert(repo);
            repo.move_branch("main", snapshot);
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
            (urls, self.external_cdn.or(self.public_cdn).unwrap_or_else(|| cdn.url())),
        );
        state.xet_store = xet_store;
        let state = Arc::new(state);
        let hub = Server::start_at((address, self.hub_port).into(), {
            let (state, log, script) = (Arc::clone(&state), log.clone(), script.clone());
            let routes = Arc::clone(&state);
            let observed = script.observed("hub", &log, move |request| routes.answer(request));
            move |request: &_| {
                hub_control::answer(request, &state, &log, &script)
                    .unwrap_or_else(|| observed(request))
            }
        })?;
        Ok(FakeHub { state, xet, hub, cdn, log, script })
    }
}

const LFS_THRESHOLD_BYTES: u64 = 10 << 20;
const PAGE_SIZE: usize = 1000;
