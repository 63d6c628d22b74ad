//! Fetching under the lock: resolve, choose, stage, fetch, publish.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::SystemTime;

use super::lookout::Lookout;
use super::run_state::Doing;
use super::shared::{Before, Fetch, Wanted, holder_status};
use super::unpack::Unpacked;
use super::{Outcome, announce, completeness, digests, signature};
use crate::Error;
use crate::content::{ChunkStore, Source};
use crate::engine::{self, Proof, Stop};
use crate::lock::Heartbeat;
use crate::model::{
    Decision, Digest, Known, LeftOut, Message, Plan, RemoteFile, Selected, Selection, Sentinel,
    Signed, Snapshot, There, decide, is_index, is_pickle, text,
};
use crate::report::{Event, Progress, rfc3339};
use crate::verify::signature::{Opened, Trust};
use crate::volume::{Publication, Published, Staging, Store, Surroundings};

/// Up to this size, files that only a signature proves are fetched before the weights.
const SMALL_BYTES: u64 = 32 << 20;

/// What is going to be published.
pub(super) struct Chosen {
    /// Without files.
    pub snapshot: Snapshot,
    pub left_out: Vec<LeftOut>,
    /// What others had asked for, whose files are taken as well.
    also: Vec<Selection>,
    /// Who names one object wants that one, and no complete model.
    is_part: bool,
    /// Lines for the user, once it is clear that there is room.
    hint: Option<String>,
    pickles: Option<String>,
}

impl Fetch<'_> {
    /// Fetches under the lock; `None` where another process has published it meanwhile, and that is gone again.
    pub(super) async fn fill(
        &self,
        wanted: Wanted<'_>,
        store: &Store,
        source: &dyn Source,
        before: Option<&Before>,
        has_waited: bool,
        progress: Arc<Progress>,
    ) -> Result<Option<Outcome>, Error> {
        let lookout = Lookout::new(self, wanted, store, before);
        let fetched = progress.clone();
        let filled = self.fill_alone(store, source, has_waited, progress, &lookout).await;
        // Whatever has failed before the publication: what was fetched may be there by now.
        if filled.is_ok() || self.stop.is_set() || !lookout.look() {
            return filled.map(Some);
        }
        let store = wanted.store()?;
        let outcome = match self.finished_by_other(wanted, &store, before, lookout.revision())? {
            Some(sentinel) => Some(self.present(wanted, &store, &sentinel)?),
            None if wanted.goal.pin().is_some() => self.restored(wanted, &store, Known::Nothing)?,
            None => None,
        };
        Ok(outcome.map(|mut outcome| {
            outcome.fetched_bytes = fetched.fetched_bytes.load(Relaxed);
            outcome.by_other = true;
            outcome.ended(wanted.started)
        }))
    }

    /// The same as long as no other process has published it; then the end is [`Error::Stopped`].
    async fn fill_alone(
        &self,
        store: &Store,
        source: &dyn Source,
        has_waited: bool,
        progress: Arc<Progress>,
        lookout: &Lookout<'_>,
    ) -> Result<Outcome, Error> {
        let (wanted, before) = (lookout.wanted, lookout.before);
        let (budget, bound) = (self.ask.budget(), self.ask.bound());
        let asked = self.ask.ask_revision(source, budget, bound);
        let revision = lookout.unless_published(asked).await?;
        lookout.knows(&revision);
        self.check_expectation(wanted.model, &revision)?;
        // What is shown or finished here is this process's own doing.
        lookout.end();
        if has_waited {
            let existing = self.existing(wanted, store)?;
            let decided = decide(wanted.goal, existing.there(), Known::Revision(&revision));
            let is_distrusted = match (before, existing.there()) {
                (Some(before), There::Whole(sentinel)) => before.distrusts(sentinel),
                _ => false,
            };
            if decided == Decision::Present && !is_distrusted {
                return self.present_as(wanted, store, existing);
            }
        }
        if let Some(outcome) = self.restored(wanted, store, Known::Revision(&revision))? {
            return Ok(outcome);
        }
        lookout.go_on();
        let unpacked = self.unpacked(store, source, &revision, &progress, lookout).await?;
        let filled = self.fill_with(store, source, progress, unpacked.as_ref(), lookout).await;
        if let Some(unpacked) = unpacked {
            self.end(unpacked.staging, store);
        }
        filled
    }

    /// Fetches what is not `unpacked` yet.
    async fn fill_with(
        &self,
        store: &Store,
        source: &dyn Source,
        progress: Arc<Progress>,
        unpacked: Option<&Unpacked<'_>>,
        lookout: &Lookout<'_>,
    ) -> Result<Outcome, Error> {
        let (wanted, before) = (lookout.wanted, lookout.before);
        let (budget, bound) = (self.ask.budget(), self.ask.bound());
        let listed = self.ask.retried(budget, bound, || source.snapshot());
        let snapshot = lookout.unless_published(listed).await?;
        self.ask.pass_on(source);
        let (chosen, files) = self.choose(wanted, store, snapshot)?;
        let source_text = wanted.model.uri.to_string();
        self.state.enter(Doing::Filling { source: source_text, progress: progress.clone() });
        let mut staging = Staging::begin(store, &chosen.snapshot, files)?;
        if let Err(error) = staging.probe(store, self.args.allow_degraded) {
            self.end(staging, store);
            return Err(error.into());
        }
        progress.enter("looking at earlier attempts");
        let heartbeat = staging.heartbeat({
            let progress = progress.clone();
            Arc::new(move || holder_status(&progress))
        })?;
        let outside = Surroundings {
            say: &|line| self.screen.say(&line),
            go_on: &|| !self.stop.is_set(),
            reads: &|bytes| progress.reads(bytes),
            worked: &|bytes| _ = progress.worked_bytes.fetch_add(bytes, Relaxed),
            copied: &|bytes| _ = progress.done_bytes.fetch_add(bytes, Relaxed),
        };
        // Reading what is here can take as long as fetching.
        let follower = self.screen.follow(progress.clone());
        let mut reused = staging.adopt(store, wanted.adopt, &outside)?;
        let unpacked = match unpacked {
            Some(unpacked) => unpacked.give(&mut staging, &outside)?,
            None => 0,
        };
        staging.clear_abandoned(store, &outside);
        let mut plan = staging.plan();
        // An attempt that took nothing over holds nothing that the next one could use.
        let give_up = |staging, heartbeat, reused, error| {
            drop::<Heartbeat>(heartbeat);
            if reused == 0 {
                self.end(staging, store);
            }
            Err(error)
        };
        progress.done_bytes.store(plan.total_bytes() - plan.missing_bytes(), Relaxed);
        progress.total_bytes.store(plan.total_bytes(), Relaxed);
        let by_others = self.beside.join(&wanted.model.destination.root, &progress);
        if let Err(error) = staging.check_space(&plan, by_others) {
            return give_up(staging, heartbeat, reused, error.into());
        }
        // Behind the look at the room: a file that is copied into needs all of its blocks.
        let copied = self.copy_common(source, store, &mut staging, &progress, &outside).await?;
        if copied > 0 {
            reused += copied;
            plan = staging.plan();
        }
        let present = plan.total_bytes() - plan.missing_bytes();
        progress.reused_bytes.store(present.saturating_sub(unpacked), Relaxed);
        self.announce(wanted, store, &chosen, &plan, staging.free_bytes()?);
        let transferred = self.transfer(source, &staging, &plan, &chosen, &progress, lookout);
        let (proofs, signed) = match transferred {
            Ok(transferred) => transferred,
            // Nobody needs what has come.
            Err(Failed::Later(Error::Stopped)) if lookout.has_found() => {
                drop((follower, heartbeat));
                if lookout.finds_still() {
                    self.end(staging, store);
                }
                return Err(Error::Stopped);
            }
            Err(Failed::Useless(error)) => {
                drop(follower);
                return give_up(staging, heartbeat, reused, error);
            }
            Err(Failed::Later(error)) => return Err(error),
        };
        progress.enter("publishing");
        if let Some(warning) =
            digests::uncompared(&chosen.snapshot.source_name, &plan.files, &proofs)
        {
            self.screen.warn(&warning);
        }
        let files = plan.files.clone();
        // With very many files what was missing is a lot of memory, and nothing is any more.
        drop(plan);
        let files = digests::finished_files(&files, proofs);
        let Chosen { snapshot, left_out, also, .. } = chosen;
        let sentinel = Sentinel {
            also,
            lock: wanted.goal.locked.map(|locked| locked.lock.clone()),
            signed,
            hub: source.chunk_store().map(ChunkStore::hub),
            fetched_bytes: Some(progress.fetched_bytes.load(Relaxed)),
            reused_bytes: Some(progress.reused_bytes.load(Relaxed)),
            ..Sentinel::new(
                &wanted.model.uri,
                snapshot.source_name,
                snapshot.revision,
                wanted.selection.clone(),
                rfc3339(SystemTime::now()),
                files,
                left_out,
            )
        };
        let publication = Publication {
            allow_degraded: self.args.allow_degraded,
            replace: self.args.replace,
            distrusted: before
                .filter(|before| before.damage.is_some())
                .map(|before| &before.sentinel),
        };
        lookout.end();
        let sealed = staging.seal(&sentinel)?;
        // The last moment to stop: from here it takes renames, which are not left half-way.
        if self.stop.is_set() {
            return Err(Error::Stopped);
        }
        let published = sealed.publish(store, publication)?;
        drop((follower, heartbeat));
        if !matches!(published, Published::Refilled | Published::ByOther) {
            self.remove_kept(&staging, store);
        }
        self.end(staging, store);
        self.ask.pass_on(source);
        if store.lists_more(&sentinel)? {
            self.screen.warn(&format!(
                "the Hub's client has listed all files of this commit in the cache, and {} are left out: a server \
                 that asks for all of them without the network fails; fetch with --all, or tell it which it needs",
                text::files(sentinel.left_out.len())
            ));
        }
        if let Published::Replaced { previous } = &published {
            self.screen.say(&format!(
                "the previous revision is kept at `{}`; remove it when no server reads it any more",
                previous.display()
            ));
        }
        if let Published::TookOver { aside } = &published {
            self.screen.say(&format!(
                "what was here before is kept at `{}`; remove it when no process needs it any more",
                aside.display()
            ));
        }
        let status = match published {
            Published::New | Published::TookOver { .. } | Published::ByOther => "fetched",
            Published::Replaced { .. } | Published::Refilled => match before {
                Some(before)
                    if before.sentinel.revision == sentinel.revision && !self.args.replace =>
                {
                    if before.damage.is_some() {
                        "repaired"
                    } else {
                        "extended"
                    }
                }
                _ => "updated",
            },
        };
        let outcome = Outcome::of(status, &store.path_to_load(&sentinel), &sentinel);
        let mut outcome = self.led(wanted, store, &sentinel, outcome)?;
        outcome.fetched_bytes = progress.fetched_bytes.load(Relaxed);
        outcome.reused_bytes = progress.reused_bytes.load(Relaxed);
        Ok(outcome.ended(wanted.started))
    }

    /// Which files of `snapshot` are fetched, unless it is clear that they make no model.
    pub(super) fn choose(
        &self,
        wanted: Wanted<'_>,
        store: &Store,
        snapshot: Snapshot,
    ) -> Result<(Chosen, Vec<RemoteFile>), Error> {
        let Snapshot { source_name, revision, files, refused } = snapshot;
        let selection = wanted.selection;
        let signature =
            wanted.trust.map(|trust| signature::listed(trust, &source_name, &files)).transpose()?;
        let takes_away = self.args.replace || wanted.goal.locked.is_some();
        let heads = if takes_away { Vec::new() } else { store.heads(&revision)? };
        let mut also = Vec::new();
        for asked in
            heads.into_iter().flat_map(|it| it.asked_by_others(&wanted.model.uri, selection))
        {
            if !also.contains(&asked) {
                also.push(asked);
            }
        }
        let mut selected = match wanted.goal.locked {
            Some(locked) => locked.select(files, refused)?,
            None => selection.apply_with(&also, files, refused)?,
        };
        if let Some(signature) = signature {
            signature::take(&mut selected, signature);
        }
        let Selected { files, left_out, warnings, hint } = selected;
        warnings.iter().for_each(|warning| self.screen.warn(warning));
        self.check_digests(&source_name, &files)?;
        let is_part = completeness::is_no_whole_model(&wanted.model.uri, &files);
        if !is_part && !completeness::has_index(&files) {
            completeness::check_names(self.screen, &files, &left_out, selection)?;
        }
        let pickles = self.check_pickles(&files)?;
        let snapshot = Snapshot::new(source_name, revision, Vec::new(), Vec::new());
        Ok((Chosen { snapshot, left_out, also, is_part, hint, pickles }, files))
    }

    /// The lines before the first byte.
    fn announce(&self, wanted: Wanted<'_>, store: &Store, chosen: &Chosen, plan: &Plan, free: u64) {
        let Chosen { snapshot, left_out, hint, pickles, .. } = chosen;
        self.screen.tell(&announce::start(wanted.model, snapshot, plan, left_out, free));
        announce::left_out(left_out).iter().for_each(|event| self.screen.tell(event));
        if let Some(hint) = hint {
            self.screen.tell(&Event::note(hint));
        }
        if let Some(pickles) = pickles {
            self.screen.warn(pickles);
        }
        if let Some(umask) = self.beside.umask.warning(store) {
            self.screen.warn(&umask);
        }
    }

    /// Indexes and the signature first: a model that lacks a shard, or is not signed as asked, ends before its
    /// weights.
    fn transfer(
        &self,
        source: &dyn Source,
        staging: &Staging,
        plan: &Plan,
        chosen: &Chosen,
        progress: &Arc<Progress>,
        lookout: &Lookout<'_>,
    ) -> Result<(Vec<Option<Proof>>, Option<Signed>), Failed> {
        progress.enter("fetching");
        progress.total_files.store(plan.files.len() as u64, Relaxed);
        let options = self.args.transfer_options(&self.beside.share, self.beside.lanes);
        let http = self.ask.http().map_err(Failed::Later)?;
        // Blocks this thread: the transfer has threads of its own, signals have theirs.
        let run = |proofs, stop: &Stop, wanted: &dyn Fn(&RemoteFile) -> bool| {
            let screen = self.screen;
            engine::run(
                source, http, staging, plan, &options, progress, screen, stop, proofs, wanted,
            )
            .map_err(|error| Failed::Later(error.into()))
        };
        lookout.beside(|stop| {
            let Wanted { trust, selection, .. } = lookout.wanted;
            let source_name = &chosen.snapshot.source_name;
            let mut proofs = vec![None; plan.files.len()];
            let mut opened = None;
            if let Some(trust) = trust {
                proofs = run(proofs, stop, &|file| signature::is_signature(trust, &file.path))?;
                let verified = self.open_signature(trust, staging, plan, chosen, selection);
                let manifest = &opened.insert(verified.map_err(Failed::Useless)?).manifest;
                let check = |proofs: &[_]| {
                    signature::check_proofs(trust, manifest, source_name, &plan.files, proofs)
                        .map_err(Failed::Useless)
                };
                check(&proofs)?;
                // What decides how a server reads the weights is small, and has no published SHA-256 at the Hub.
                proofs = run(proofs, stop, &|file| {
                    file.size <= SMALL_BYTES && !matches!(file.digest, Some(Digest::Sha256(_)))
                })?;
                check(&proofs)?;
            }
            if !chosen.is_part && completeness::has_index(&plan.files) {
                proofs = run(proofs, stop, &|file| is_index(file.path.as_str()))?;
                self.check_indexes(staging, &plan.files, &chosen.left_out, selection)
                    .map_err(Failed::Useless)?;
            }
            let proofs = run(proofs, stop, &|_| true)?;
            let signed = match (trust, opened) {
                (Some(trust), Some(opened)) => {
                    let manifest = &opened.manifest;
                    signature::check_proofs(trust, manifest, source_name, &plan.files, &proofs)
                        .map_err(Failed::Useless)?;
                    Some(trust.signed(&opened, rfc3339(SystemTime::now())))
                }
                _ => None,
            };
            Ok((proofs, signed))
        })
    }

    /// Verifies the signature among the staged files, and that it names what is fetched.
    fn open_signature(
        &self,
        trust: &Trust,
        staging: &Staging,
        plan: &Plan,
        chosen: &Chosen,
        selection: &Selection,
    ) -> Result<Opened, Error> {
        let is_it = |file: &RemoteFile| signature::is_signature(trust, &file.path);
        let n = plan.files.iter().position(is_it);
        let n = n.ok_or_else(|| Error::Bug("the signature was not chosen".into()))?;
        let listing = signature::Listing {
            source_name: &chosen.snapshot.source_name,
            files: plan.files.iter().map(|file| (file.path.as_str(), file.size)).collect(),
            left_out: &chosen.left_out,
            selection,
        };
        let (opened, left_out) = signature::opened(trust, staging.open(n)?.file(), &listing)?;
        self.tell_signed(trust, &opened, left_out);
        Ok(opened)
    }

    /// Drops the attempt. What is left over is swept by a later run.
    pub(super) fn end(&self, staging: Staging, store: &Store) {
        if let Err(error) = staging.end(store) {
            self.screen.warn(&format!("the working area could not be cleaned up: {error}"));
        }
    }

    /// The warning about files that can run code, if there are any and they are not refused.
    fn check_pickles(&self, files: &[RemoteFile]) -> Result<Option<String>, Error> {
        let pickles: Vec<&str> =
            files.iter().map(|file| file.path.as_str()).filter(|path| is_pickle(path)).collect();
        let Some(first) = pickles.first() else {
            return Ok(None);
        };
        let named = match pickles.len() {
            1 => format!("`{first}`"),
            count => format!("`{first}` and {} more", count - 1),
        };
        if self.args.deny_pickle {
            return Err(Error::Policy(
                Message::new(format!("{named} can run code when loaded, and --deny-pickle is set"))
                    .hint("leave it out with --exclude"),
            ));
        }
        Ok(Some(format!("{named} can run code when loaded; --deny-pickle refuses such files")))
    }
}

/// Where a transfer has ended.
enum Failed {
    /// Nothing of what has come is of use.
    Useless(Error),
    Later(Error),
}
