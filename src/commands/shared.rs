//! What the steps of a fetch share: what is wanted, what lay there before, and the run that it is part of.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::ask::Asker;
use super::beside::Beside;
use super::link::ServerLink;
use super::run_state::RunState;
use crate::Error;
use crate::cli::{FetchArgs, Model};
use crate::engine::Stop;
use crate::lock::HolderStatus;
use crate::model::hf_cache::{CachedModel, Layout};
use crate::model::{Goal, Message, Selection, Sentinel, SourceUri, There, text};
use crate::report::{Progress, Screen};
use crate::verify::signature::Trust;
use crate::volume::{AdoptedDir, Store, StoreError};

/// What all models of one run share.
pub struct Fetch<'a> {
    pub(super) args: &'a FetchArgs,
    pub(super) ask: Asker<'a>,
    pub(super) screen: &'a Screen,
    pub(super) stop: &'a Stop,
    pub(super) state: &'a RunState,
    pub(super) beside: Beside,
    /// Kept revisions that this run has hashed, and that are what they say.
    pub(super) sound: Mutex<Vec<PathBuf>>,
}

/// One model of the run.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub model: &'a Model,
    pub selection: &'a Selection,
    pub goal: Goal<'a>,
    /// Whose signature it must have.
    pub trust: Option<&'a Trust>,
    pub link: Option<&'a ServerLink>,
    /// What `--adopt` names and is there.
    pub adopt: &'a [AdoptedDir],
    pub started: Instant,
}

/// The copy that lay there when the run began, without its files: with very many they are large.
pub(super) struct Before {
    pub sentinel: Sentinel,
    /// What is wrong with its bytes, whatever the sizes say.
    pub damage: Option<String>,
}

impl Before {
    /// Whether `sentinel` is that of the copy whose bytes are wrong.
    pub fn distrusts(&self, sentinel: &Sentinel) -> bool {
        self.damage.is_some() && self.sentinel.is_same_publication(sentinel)
    }
}

impl<'a> Fetch<'a> {
    pub fn new(
        args: &'a FetchArgs,
        screen: &'a Screen,
        stop: &'a Stop,
        state: &'a RunState,
        beside: Beside,
    ) -> Self {
        let (source, http) = (&args.source, beside.http.clone());
        let ask = Asker::new(source, args.require_digests, http, screen, stop, state);
        Self { args, ask, screen, stop, state, beside, sound: Mutex::default() }
    }
}

impl Wanted<'_> {
    /// Looks where the model is to lie.
    pub fn store(&self) -> Result<Store, StoreError> {
        let destination = self.model.destination.clone();
        match (self.model.layout, &self.model.uri) {
            (Layout::HfCache, SourceUri::Hub(repo)) => Store::open_in_cache(
                destination,
                CachedModel::of(repo, self.goal.pin(), self.link.is_some()),
            ),
            _ => Ok(Store::open(destination)?.taking_over(self.adopt)),
        }
    }
}

/// Why a model is not put in the place of another one.
pub(super) fn conflict(model: &Model, store: &Store, there: There<'_>) -> Error {
    let path = store.family_path();
    let what = match there {
        There::Nothing => "another model".to_owned(),
        There::Damaged(sentinel) | There::Whole(sentinel) => {
            let revision = text::revision(&sentinel.revision);
            format!("{} at {revision}", sentinel.source)
        }
    };
    Error::Conflict(
        Message::new(format!("`{}` holds {what}, not {}", path.display(), model.uri))
            .hint("choose another DEST, or replace what is there with --replace"),
    )
}

/// The source is at another revision than `flag`, or the models file, says.
pub(super) fn unexpected(uri: &SourceUri, revision: &str, flag: &str, expected: &str) -> Error {
    let what =
        format!("{uri} is at revision {revision}, {flag} says {}", text::inert(expected, 64));
    let hint = match uri {
        SourceUri::Hub(_) | SourceUri::ModelScope(_) => format!(
            "write the expected commit after `@` in SOURCE, or check the new revision and change {flag}"
        ),
        _ => format!("check what has changed at the source, then change {flag}"),
    };
    Error::Conflict(Message::new(what).hint(hint))
}

/// What those who wait are told about us.
pub(super) fn holder_status(progress: &Progress) -> HolderStatus {
    HolderStatus {
        phase: progress.phase(),
        done_bytes: progress.done_bytes.load(Relaxed),
        total_bytes: progress.total_bytes.load(Relaxed),
        worked_bytes: progress.worked_bytes.load(Relaxed),
    }
}
