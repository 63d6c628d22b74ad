//! A run that is killed, or that one system call fails, at every point of every kind of publication.
//!
//! The calls of all threads that touch the volume are one sequence. For the k-th of them the process
//! is killed before it, or in the middle of its bytes, or the call fails. Then the family is absent
//! or whole, and the next run completes and leaves nothing behind.
//!
//! `WEIGHTLIFT_TEST_ROUNDS=all` tries every k; without it, every k from the sentinel on, where
//! publication begins, and some of those before. Which ones changes from run to run and is printed;
//! `WEIGHTLIFT_TEST_OFFSET` chooses.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::scene::{
    Layout, SENTINEL, assert_verifies, begins_publication, cached_repo, chunked, holds, many_small,
    new, old,
};
use crate::support::tracer::{Act, Call, Kind, traced};
use crate::support::*;
use nix::errno::Errno;
use weightlift_fakes::{Blob, FakeHub, Tree};

/// Without `all`, one in so many of the points before publication is tried.
const STRIDE: usize = 6;
/// And one in so many of all points where there are several faults to choose from.
const FAULT_STRIDE: usize = 5;

const FAULTS: [(Errno, i32); 4] =
    [(Errno::EIO, 22), (Errno::ENOSPC, 15), (Errno::EDQUOT, 15), (Errno::EROFS, 14)];

/// A model on a volume, and the revision that is to be fetched.
struct Scene {
    layout: Layout,
    hub: FakeHub,
    volume: Volume,
    old: Option<Tree>,
    new: Tree,
    /// Another model on the volume, which has files of the new one.
    giver: Option<Tree>,
    /// More flags of the fetch.
    flags: Vec<String>,
    /// A directory that `--adopt` names, and what it holds.
    adopted: Option<(PathBuf, Tree)>,
    /// The volume as it is before the run.
    before: tempfile::TempDir,
    states: Cell<usize>,
    bad: Cell<usize>,
}

#[test]
fn a_first_install_that_is_killed_anywhere_leaves_nothing_or_all() {
    Scene::first(Layout::Links).is_killed_anywhere();
}

#[test]
fn an_update_that_is_killed_anywhere_leaves_the_old_or_the_new() {
    Scene::update(Layout::Links).is_killed_anywhere();
}

#[test]
fn a_directory_that_is_filled_and_killed_anywhere_has_no_sentinel_until_it_is_whole() {
    Scene::first(Layout::InPlace).is_killed_anywhere();
    Scene::update(Layout::InPlace).is_killed_anywhere();
}

#[test]
fn where_nothing_can_be_exchanged_a_kill_anywhere_leaves_nothing_or_all() {
    Scene::first(Layout::LinksAlone).is_killed_anywhere();
    Scene::update(Layout::LinksAlone).is_killed_anywhere();
}

#[test]
fn where_there_are_no_links_a_kill_anywhere_leaves_nothing_or_all() {
    Scene::first(Layout::Exchange).is_killed_anywhere();
    Scene::update(Layout::Exchange).is_killed_anywhere();
}

#[test]
fn a_directory_of_an_earlier_version_becomes_a_link_wherever_that_is_killed() {
    Scene::upgrade().is_killed_anywhere();
}

#[test]
fn going_back_to_a_kept_revision_can_be_killed_anywhere() {
    Scene::back(Layout::Links).is_killed_anywhere();
    Scene::back(Layout::LinksAlone).is_killed_anywhere();
}

#[test]
fn a_cache_of_the_hubs_clients_that_is_killed_anywhere_has_nothing_or_all() {
    Scene::first(Layout::HfCache).is_killed_anywhere();
    Scene::update(Layout::HfCache).is_killed_anywhere();
    Scene::back(Layout::HfCache).is_killed_anywhere();
}

#[test]
fn a_cache_of_the_hubs_clients_survives_any_failed_call() {
    Scene::first(Layout::HfCache).fails_anywhere();
    Scene::update(Layout::HfCache).fails_anywhere();
}

#[test]
fn taking_files_of_another_model_can_be_killed_anywhere() {
    Scene::reuse().is_killed_anywhere();
}

#[test]
fn an_update_that_removes_what_it_has_replaced_can_be_killed_anywhere() {
    Scene::pruned().is_killed_anywhere();
}

#[test]
fn many_small_files_that_are_killed_anywhere_leave_nothing_or_all() {
    Scene::of(Layout::Links, None, many_small()).is_killed_anywhere();
}

#[test]
fn a_model_that_must_be_signed_and_is_killed_anywhere_is_absent_or_says_its_signer() {
    Scene::signed(Layout::Links, None).is_killed_anywhere();
    Scene::signed(Layout::Links, Some(old())).is_killed_anywhere();
    Scene::signed(Layout::InPlace, None).is_killed_anywhere();
}

#[test]
fn a_forged_model_is_never_shown_wherever_its_run_is_killed() {
    let scene = Scene::forged();
    let (calls, _) = scene.calls_of(12, Call::changes);
    for k in (0..calls.len()).step_by(if tries_all() { 1 } else { STRIDE }) {
        let (run, hit) = scene.interfered(k, Call::changes, Act::Kill);
        let Some(hit) = hit else { continue };
        let what = format!("{} {}", hit.name, hit.path.display());
        assert_eq!(run.code, -1, "{what}: {}", run.stderr);
        assert!(scene.family().symlink_metadata().is_err(), "{what}: shown");
        // What the killed run has left is verified like everything else.
        let next = scene.run(|_| Act::Pass).assert_code(12);
        assert!(next.last_line().contains("says that `config.json` has SHA-256"), "{what}");
        assert!(scene.family().symlink_metadata().is_err(), "after {what}: shown");
    }
}

#[test]
fn adopting_a_directory_can_be_killed_anywhere() {
    Scene::adopted(Layout::Links).is_killed_anywhere();
    Scene::adopted(Layout::InPlace).is_killed_anywhere();
}

#[test]
fn adopting_a_directory_survives_any_failed_call() {
    Scene::adopted(Layout::Links).fails_anywhere();
}

#[test]
fn a_first_install_survives_any_failed_call() {
    Scene::first(Layout::Links).fails_anywhere();
}

#[test]
fn an_update_survives_any_failed_call() {
    Scene::update(Layout::Links).fails_anywhere();
}

#[test]
fn a_directory_that_is_filled_survives_any_failed_call() {
    Scene::first(Layout::InPlace).fails_anywhere();
    Scene::update(Layout::InPlace).fails_anywhere();
}

#[test]
fn where_nothing_can_be_exchanged_any_failed_call_is_survived() {
    Scene::first(Layout::LinksAlone).fails_anywhere();
    Scene::update(Layout::LinksAlone).fails_anywhere();
}

#[test]
fn where_there_are_no_links_any_failed_call_is_survived() {
    Scene::first(Layout::Exchange).fails_anywhere();
    Scene::update(Layout::Exchange).fails_anywhere();
}

#[test]
fn a_directory_of_an_earlier_version_becomes_a_link_in_spite_of_any_failed_call() {
    Scene::upgrade().fails_anywhere();
}

#[test]
fn going_back_to_a_kept_revision_survives_any_failed_call() {
    Scene::back(Layout::Links).fails_anywhere();
}

#[test]
fn taking_files_of_another_model_survives_any_failed_call() {
    Scene::reuse().fails_anywhere();
}

#[test]
fn an_update_by_chunks_can_be_killed_anywhere() {
    Scene::chunks().is_killed_anywhere();
    Scene::by_chunks().is_killed_anywhere();
}

#[test]
fn an_update_by_chunks_survives_any_failed_call() {
    Scene::chunks().fails_anywhere();
}

#[test]
fn many_small_files_survive_any_failed_call() {
    Scene::of(Layout::Links, None, many_small()).fails_anywhere();
}

impl Scene {
    fn first(layout: Layout) -> Self {
        Self::of(layout, None, new())
    }

    fn update(layout: Layout) -> Self {
        Self::of(layout, Some(old()), new())
    }

    /// The old one is a directory, as it was published where links were not used.
    fn upgrade() -> Self {
        Self::made(Layout::Links, Layout::Exchange, Some(old()), new(), false)
    }

    /// A first install, of which another model has the weights.
    fn reuse() -> Self {
        let giver = new().with("config.json", "{\"of\": \"another\"}");
        let mut scene = Self::first(Layout::Links);
        let hub = FakeHub::builder().repo(REPO, scene.new.clone()).repo("org/giver", giver.clone());
        scene.hub = hub.start();
        let fetched = fetch(&scene.hub, &scene.volume, &["hf://org/giver", "giver"]).run();
        fetched.assert_success();
        let before = scene.before.path().join("models");
        std::fs::remove_dir_all(&before).unwrap();
        copy(&scene.volume.root(), &before);
        Self { giver: Some(giver), ..scene }
    }

    /// An update that keeps nothing of what it replaces.
    fn pruned() -> Self {
        Self { flags: flags(&["--keep-revisions", "0"]), ..Self::update(Layout::Links) }
    }

    /// An update of a file that takes most of its chunks from the old one.
    fn chunks() -> Self {
        let [old, new] = chunked();
        let hub = |tree| FakeHub::builder().repo(REPO, tree).xet().xet_xorb_chunks(3).start();
        let scene = Self::at(hub, Layout::Links, Layout::Links, Some(old), new, false);
        let (calls, _) = scene.calls(Call::changes);
        assert!(calls.iter().any(|call| call.name == "copy_file_range"), "nothing is copied");
        scene
    }

    /// The same, and what is new is read by chunks as well.
    fn by_chunks() -> Self {
        Self { flags: flags(&["--xet", "always"]), ..Self::chunks() }
    }

    /// A model that has to be signed, and is; the one before it was not.
    fn signed(layout: Layout, old: Option<Tree>) -> Self {
        let new = tiny_selected().with("model.sig", signature("p256.sig"));
        let key = format!("key={}", fixture("signed/p256.pub").display());
        // `newest.txt` comes later, and nobody signs it.
        let policy = flags(&["--verify-signature", &key, "--ignore-unsigned", "newest.txt"]);
        Self { flags: policy, ..Self::of(layout, old, new) }
    }

    /// The same model with other bytes than those that were signed. Only the bytes tell.
    fn forged() -> Self {
        let scene = Self::signed(Layout::Links, None);
        let forged = scene.new.clone().with("config.json", "{\"forged\": true}");
        let hub = FakeHub::builder().repo(REPO, forged).lfs_threshold(u64::MAX).start();
        Self { hub, ..scene }
    }

    /// A first install that takes what a directory holds, of which one file is wrong.
    fn adopted(layout: Layout) -> Self {
        let scene = Self::first(layout);
        let dir = scene.volume.path("adopted");
        let held = new().with_blob("same.bin", Blob::synthetic(100_000, 8));
        for (name, blob) in held.iter() {
            let path = dir.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, blob.to_vec()).unwrap();
        }
        let flags = flags(&["--adopt", dir.to_str().unwrap()]);
        Self { flags, adopted: Some((dir, held)), ..scene }
    }

    /// What is wanted was replaced, and is kept.
    fn back(layout: Layout) -> Self {
        Self::made(layout, layout, Some(old()), new(), true)
    }

    fn of(layout: Layout, old: Option<Tree>, new: Tree) -> Self {
        Self::made(layout, layout, old, new, false)
    }

    /// `before` is what the volume could do when the old one came.
    fn made(
        layout: Layout,
        before_layout: Layout,
        old: Option<Tree>,
        new: Tree,
        is_kept: bool,
    ) -> Self {
        let hub = |tree| FakeHub::serving(REPO, tree);
        Self::at(hub, layout, before_layout, old, new, is_kept)
    }

    fn at(
        hub: impl Fn(Tree) -> FakeHub,
        layout: Layout,
        before_layout: Layout,
        old: Option<Tree>,
        new: Tree,
        is_kept: bool,
    ) -> Self {
        let hub = hub(old.clone().unwrap_or_else(|| new.clone()));
        let before = tempfile::tempdir().unwrap();
        let (states, bad) = Default::default();
        let volume = Volume::in_memory();
        let (layout_before, giver, flags, adopted) = (before_layout, None, Vec::new(), None);
        let mut scene = Self {
            layout: layout_before,
            hub,
            volume,
            old,
            new,
            giver,
            flags,
            adopted,
            before,
            states,
            bad,
        };
        let root = scene.volume.root();
        std::fs::create_dir(&root).unwrap();
        if layout == Layout::InPlace {
            std::fs::create_dir(scene.family()).unwrap();
        }
        if is_kept {
            scene.hub.move_branch(REPO, "main", scene.new.clone());
            scene.run(|_| Act::Pass).assert_success();
            scene.hub.move_branch(REPO, "main", scene.old.clone().unwrap());
        }
        if scene.old.is_some() {
            scene.run(|_| Act::Pass).assert_success();
            scene.hub.move_branch(REPO, "main", scene.new.clone());
        }
        scene.layout = layout;
        copy(&root, &scene.before.path().join("models"));
        scene
    }

    fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|it| it == flag)
    }

    fn family(&self) -> PathBuf {
        self.layout.shown(&self.volume.root())
    }

    /// The working area.
    fn state(&self) -> PathBuf {
        match self.layout {
            Layout::InPlace => self.family().join(".weightlift"),
            Layout::Links | Layout::LinksAlone | Layout::Exchange | Layout::HfCache => {
                self.volume.root().join(".weightlift")
            }
        }
    }

    fn reset(&self) {
        std::fs::remove_dir_all(self.volume.root()).unwrap();
        copy(&self.before.path().join("models"), &self.volume.root());
    }

    /// A fetch on this kind of volume. One worker, so that the order of calls is nearly the same
    /// each time. An update that the volume has no room for fails: the old copy is not enough here.
    fn run(&self, mut decide: impl FnMut(&Call) -> Act) -> Run {
        let args = ["hf://org/tiny", "--connections", "1", "--if-stale", "fail"];
        let mut command = fetch(&self.hub, &self.volume, &args);
        command.args(self.layout.arguments()).args(&self.flags);
        traced(&command, &self.volume.path(""), |call| {
            self.layout.refuses(call).unwrap_or_else(|| decide(call))
        })
    }

    /// A run with `act` at the call number `k` of those that count; and that call, if it came to it.
    fn interfered(&self, k: usize, counts: fn(&Call) -> bool, act: Act) -> (Run, Option<Call>) {
        self.interfered_until(k, k, counts, act)
    }

    /// The same from call number `k` to number `last`.
    fn interfered_until(
        &self,
        k: usize,
        last: usize,
        counts: fn(&Call) -> bool,
        act: Act,
    ) -> (Run, Option<Call>) {
        let (mut seen, mut hit) = (0, None);
        self.reset();
        self.states.set(self.states.get() + 1);
        let run = self.run(|call| {
            if !counts(call) {
                return Act::Pass;
            }
            seen += 1;
            if seen <= k || seen - 1 > last {
                return Act::Pass;
            }
            hit.get_or_insert_with(|| call.clone());
            act
        });
        (run, hit)
    }

    /// The calls of a run that nothing happens to, and where among them publication begins.
    fn calls(&self, counts: fn(&Call) -> bool) -> (Vec<Call>, usize) {
        self.calls_of(0, counts)
    }

    /// The same of a run that ends with `code`.
    fn calls_of(&self, code: i32, counts: fn(&Call) -> bool) -> (Vec<Call>, usize) {
        let mut calls = Vec::new();
        self.reset();
        self.run(|call| {
            if counts(call) {
                calls.push(call.clone());
            }
            Act::Pass
        })
        .assert_code(code);
        let publication = calls.iter().position(begins_publication).unwrap_or(calls.len());
        (calls, publication)
    }

    fn is_killed_anywhere(&self) {
        for (act, counts) in [
            (Act::Kill, Call::changes as fn(&Call) -> bool),
            (Act::Tear, |call| call.kind == Kind::Writes),
        ] {
            for k in self.chosen(counts, STRIDE) {
                let (run, hit) = self.interfered(k, counts, act);
                let Some(hit) = hit else { continue };
                let what = format!("{act:?} at {k}: {} {}", hit.name, hit.path.display());
                self.look(|| {
                    assert_eq!(run.code, -1, "{what}: {}", run.stderr);
                    self.assert_absent_or_whole(&what);
                    self.assert_next_run_completes(&what);
                });
            }
        }
        self.assert_all_well("kills");
    }

    fn fails_anywhere(&self) {
        let changes = Call::changes as fn(&Call) -> bool;
        for (n, k) in self.chosen(changes, FAULT_STRIDE).into_iter().enumerate() {
            for (errno, code) in some_of(&FAULTS, n) {
                let (run, hit) = self.interfered(k, changes, Act::Fail(errno));
                let Some(hit) = hit else { continue };
                let what = format!("{errno} at {k}: {} {}", hit.name, hit.path.display());
                self.look(|| self.assert_failed_well(&run, code, &hit, &what));
            }
        }
        // A disk that is full, broken or read-only stays so until the run has ended.
        let lasting = self.chosen(changes, FAULT_STRIDE);
        let step = if tries_all() { 1 } else { 4 };
        for (n, k) in lasting.into_iter().enumerate().skip(offset() % step).step_by(step) {
            for (errno, code) in some_of(&FAULTS, n) {
                let (run, hit) = self.interfered_until(k, usize::MAX, changes, Act::Fail(errno));
                let Some(hit) = hit else { continue };
                let what = format!("{errno} from {k} on: {} {}", hit.name, hit.path.display());
                self.look(|| self.assert_failed_well(&run, code, &hit, &what));
            }
        }
        let looks = |call: &Call| !call.changes();
        for k in self.chosen(looks, 4 * FAULT_STRIDE) {
            let (run, hit) = self.interfered(k, looks, Act::Fail(Errno::EIO));
            let Some(hit) = hit else { continue };
            let what = format!("EIO at {k}: {} {}", hit.name, hit.path.display());
            self.look(|| self.assert_failed_well(&run, 22, &hit, &what));
        }
        let writes = |call: &Call| call.kind == Kind::Writes;
        for k in self.chosen(writes, 2 * FAULT_STRIDE) {
            let (run, hit) = self.interfered(k, writes, Act::Shorten);
            let Some(hit) = hit else { continue };
            let what = format!("a short {} at {k}: {}", hit.name, hit.path.display());
            self.look(|| {
                assert_eq!(run.code, 0, "{what}: {}", run.stderr);
                assert!(holds(&self.family(), &self.new), "{what}");
            });
        }
        self.assert_all_well("failed calls");
    }

    fn assert_failed_well(&self, run: &Run, code: i32, hit: &Call, what: &str) {
        if run.code == 0 {
            assert!(self.may_not_matter(hit), "{what}: success in spite of it: {}", run.stderr);
            assert!(holds(&self.family(), &self.new), "{what}: not whole: {}", run.stderr);
        } else {
            assert_eq!(run.code, code, "{what}: {}", run.stderr);
            let errors = run.stderr.lines().filter(|line| line.starts_with("error:")).count();
            assert_eq!(errors, 1, "{what}: {}", run.stderr);
        }
        self.assert_absent_or_whole(what);
        self.assert_next_run_completes(what);
    }

    /// Whether a run may succeed although this call has failed.
    fn may_not_matter(&self, call: &Call) -> bool {
        let above_the_root = call.path == self.volume.path("").as_path();
        match call.name {
            // What the probe cannot do is found out so, and done in another way.
            _ if is_of_the_probe(&call.path) => true,
            // Cleaning up once the model is there and durable.
            "unlinkat" | "fadvise64" => true,
            // What cannot be linked or cloned is copied, and what the kernel does not copy, we do.
            "linkat" | "ioctl" | "copy_file_range" => true,
            // Nobody could write into it then; it is right all the same.
            "fchmod" => true,
            "renameat" => call.path.to_string_lossy().ends_with("~gone"),
            // The directory that the root lies in may be somebody else's.
            "fsync" => above_the_root,
            // A second look, and locks, are not needed to be right.
            _ => !call.changes(),
        }
    }

    fn assert_absent_or_whole(&self, what: &str) {
        if let Some(giver) = &self.giver {
            let there = holds(&self.volume.family("giver"), giver);
            assert!(there, "{what}: the other model is not what it was");
        }
        if let Some((dir, held)) = &self.adopted {
            assert!(holds(dir, held), "{what}: the adopted directory is not what it was");
        }
        let family = self.family();
        if self.layout == Layout::HfCache {
            // Also one that no name leads to yet: a server may ask for the commit.
            let snapshots = list(&self.layout.revisions(&self.volume.root()));
            // A directory that is there to find out what the volume can do is removed by the next run.
            for snapshot in snapshots.into_iter().filter(|path| !is_of_the_probe(path)) {
                let is_old = self.old.as_ref().is_some_and(|old| holds(&snapshot, old));
                assert!(is_old || holds(&snapshot, &self.new), "{what}: {snapshot:?} is a mixture");
            }
        }
        if self.layout.is_shown(&self.volume.root()) {
            assert_verifies(&family, what);
            let is_old = self.old.as_ref().is_some_and(|old| holds(&family, old));
            assert!(is_old || holds(&family, &self.new), "{what}: a mixture");
            if self.has("--verify-signature") && !is_old {
                let sentinel = std::fs::read_to_string(family.join(SENTINEL)).unwrap();
                assert!(sentinel.contains("\"signed\""), "{what}: shown without its signer");
            }
        } else if self.layout == Layout::InPlace {
            assert!(family.is_dir(), "{what}: the directory is gone");
        } else {
            assert!(self.old.is_none(), "{what}: there is no model any more");
            assert!(family.symlink_metadata().is_err(), "{what}: no sentinel");
        }
    }

    fn assert_next_run_completes(&self, what: &str) {
        let next = self.run(|_| Act::Pass);
        assert_eq!(next.code, 0, "after {what}: {}", next.stderr);
        assert!(holds(&self.family(), &self.new), "after {what}: not what was asked for");
        assert_verifies(&self.family(), &format!("after {what}"));
        self.assert_absent_or_whole(&format!("after {what}"));
        // A warm start does not clean up; the next one that fetches does.
        let last = next.stderr.lines().last().unwrap_or_default();
        // Where the killed run had come as far as the sentinel of a commit, a name is all that was missing.
        let is_named = self.layout == Layout::HfCache && last.contains("nothing fetched");
        let is_warm = !last.contains("fetched") || is_named;
        if is_warm && self.left_over().is_some() {
            let newest = self.new.clone().with("newest.txt", "newest");
            self.hub.move_branch(REPO, "main", newest.clone());
            let third = self.run(|_| Act::Pass);
            assert_eq!(third.code, 0, "long after {what}: {}", third.stderr);
            assert!(holds(&self.family(), &newest), "long after {what}");
            self.hub.move_branch(REPO, "main", self.new.clone());
        }
        assert_eq!(self.left_over(), None, "after {what}: {}", next.stderr);
        let keeps = self.layout != Layout::InPlace && !self.has("--keep-revisions");
        if let Some(old) = self.old.as_ref().filter(|_| keeps) {
            let kept = list(&self.layout.revisions(&self.volume.root()));
            assert!(kept.iter().any(|tree| holds(tree, old)), "after {what}: the old one is lost");
        }
    }

    /// A file in the working area that nothing needs any more, if there is one.
    fn left_over(&self) -> Option<PathBuf> {
        let state = self.state();
        let is_kept = |path: &Path| {
            let below = path.strip_prefix(&state).unwrap();
            below == Path::new("locks")
                || below == Path::new("owners")
                || below == Path::new("attempts")
                || (below.starts_with("locks") && below.extension().is_some_and(|e| e == "lock"))
                // Killed before its journal had a line: two empty directories.
                || (below.starts_with("attempts") && is_empty(path))
        };
        let revisions = state.join("revisions");
        let current = std::fs::canonicalize(self.family()).unwrap();
        let is_old = |path: &Path| {
            let old = self.old.as_ref().filter(|_| !self.has("--keep-revisions"));
            let known = [old, Some(&self.new), self.giver.as_ref()];
            known.into_iter().flatten().any(|tree| holds(path, tree))
        };
        let mut stray = entries_below(&state);
        stray.retain(|path| !path.starts_with(&revisions) && !is_kept(path));
        let trees = list(&revisions).into_iter().flat_map(|family| list(&family));
        stray.extend(trees.filter(|tree| *tree != current && !is_old(tree)));
        let shown = list(&self.layout.revisions(&self.volume.root()));
        stray.extend(shown.into_iter().filter(|path| is_of_the_probe(path)));
        stray.into_iter().next()
    }

    /// The points to try.
    fn chosen(&self, counts: fn(&Call) -> bool, stride: usize) -> Vec<usize> {
        let (calls, publication) = self.calls(counts);
        // One run may have a call or two more than the other.
        let every = 0..calls.len() + 2;
        if tries_all() {
            return every.collect();
        }
        let offset = offset();
        every.filter(|k| *k >= publication || k % stride == offset % stride).collect()
    }

    /// Looks at one state; the others are tried even if it is bad.
    fn look(&self, look: impl FnOnce()) {
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(look)).is_err() {
            self.bad.set(self.bad.get() + 1);
        }
    }

    fn assert_all_well(&self, what: &str) {
        let (bad, states) = (self.bad.get(), self.states.get());
        let update = if self.old.is_some() { "update" } else { "first install" };
        let kind = format!("{:?} {update}", self.layout);
        eprintln!("{kind}: {states} {what} at offset {}", offset());
        assert_eq!(
            bad,
            0,
            "{kind}: bad states of {states}, at WEIGHTLIFT_TEST_OFFSET={}",
            offset()
        );
    }
}

#[test]
fn what_a_killed_publisher_had_not_synced_is_synced_before_success_is_reported() {
    for layout in [Layout::Links, Layout::LinksAlone, Layout::Exchange, Layout::InPlace] {
        let scene = Scene::first(layout);
        let sentinel = scene.family().join(SENTINEL);
        let run = scene.run(|call| {
            let is_next = call.name == "fsync" && sentinel.exists();
            if is_next { Act::Kill } else { Act::Pass }
        });
        assert_eq!((run.code, holds(&scene.family(), &scene.new)), (-1, true), "{}", run.stderr);
        // With the Hub and without: whoever says that it is there has made sure.
        for (offline, says) in [("0", "nothing to do"), ("1", "complete but stale")] {
            let mut synced = Vec::new();
            let mut command = fetch(&scene.hub, &scene.volume, &["hf://org/tiny"]);
            let run =
                traced(command.env("HF_HUB_OFFLINE", offline), &scene.volume.path(""), |call| {
                    synced.extend((call.name == "fsync").then(|| call.path.clone()));
                    Act::Pass
                });
            run.assert_success().assert_says(says);
            let parent =
                if layout == Layout::InPlace { scene.family() } else { scene.volume.root() };
            assert!(synced.contains(&parent), "{layout:?}: only {synced:?}");
        }
    }
}

#[test]
fn a_file_whose_sync_has_failed_is_fetched_again_even_if_the_journal_could_not_say_so() {
    let scene = Scene::first(Layout::Links);
    let mut failed = false;
    let run = scene.run(|call| {
        let is_file = call.name == "fsync" && call.path.ends_with("sub/weights.bin");
        let is_journal = call.name == "write" && call.path.ends_with("journal");
        failed |= is_file;
        if is_file || (failed && is_journal) { Act::Fail(Errno::EIO) } else { Act::Pass }
    });
    run.assert_code(22);
    assert!(failed);
    scene.hub.log().clear();
    scene.run(|_| Act::Pass).assert_success();
    assert!(scene.hub.count("GET", "weights.bin") > 0, "the page cache was believed");
    assert!(holds(&scene.family(), &scene.new));
}

/// ext4 and xfs write names in the order in which they were made, so no power cut on them shows a
/// directory that was not synced. Others need it.
#[test]
fn nothing_gets_its_name_before_it_is_synced() {
    for scene in [Layout::Links, Layout::LinksAlone, Layout::Exchange, Layout::InPlace]
        .into_iter()
        .flat_map(|layout| [Scene::first(layout), Scene::update(layout)])
        .chain([Scene::of(Layout::Links, None, many_small()), Scene::upgrade()])
        .chain([Scene::back(Layout::Links)])
        .chain([Scene::first(Layout::HfCache), Scene::update(Layout::HfCache)])
        .chain([Scene::back(Layout::HfCache)])
    {
        scene.reset();
        let mut unsynced =
            Unsynced { scene: &scene, paths: BTreeSet::new(), named: 0, is_unsealed: false };
        scene.run(|call| {
            unsynced.note(call);
            Act::Pass
        });
        unsynced.assert_nothing_in(&[scene.volume.root(), scene.family()], "success");
        unsynced.assert_nothing_in(&[cached_repo(&scene.volume.root()).join("refs")], "success");
        assert!(unsynced.named > 0, "the name of the family was never made");
    }
}

/// What a power cut could take at a moment.
struct Unsynced<'a> {
    scene: &'a Scene,
    /// Files with bytes, and directories with names.
    paths: BTreeSet<PathBuf>,
    named: usize,
    is_unsealed: bool,
}

impl Unsynced<'_> {
    fn note(&mut self, call: &Call) {
        // Of these names all that counts is what the filesystem says.
        if is_of_the_probe(&call.path) {
            return;
        }
        let (path, parent) = (&call.path, call.path.parent().unwrap().to_owned());
        self.check(call);
        match call.name {
            "write" | "pwrite64" | "fallocate" | "ftruncate" => _ = self.paths.insert(path.clone()),
            "fsync" | "fdatasync" => _ = self.paths.remove(path),
            "syncfs" => self.paths.clear(),
            _ if call.changes() => _ = self.paths.insert(parent),
            _ => {}
        }
    }

    /// Before the last step of each kind of publication, all that it shows must be on the disk.
    fn check(&mut self, call: &Call) {
        let (family, state) = (self.scene.family(), self.scene.state());
        let is_rename = call.name.starts_with("rename");
        let what = format!("{:?}: {} {}", self.scene.layout, call.name, call.path.display());
        if self.scene.layout == Layout::HfCache {
            return self.check_in_cache(call, &what);
        }
        let revisions = state.join("revisions/tiny");
        if is_rename && (call.path == family || call.path.parent() == Some(&revisions)) {
            self.named += usize::from(call.path == family);
            let tree = |path: &PathBuf| path.components().any(|part| part.as_os_str() == "tree");
            let stray = self.paths.iter().find(|path| tree(path));
            assert_eq!(stray, None, "{what}");
            let is_link = matches!(self.scene.layout, Layout::Links | Layout::LinksAlone);
            if is_link && call.path == family {
                self.assert_nothing_in(&[revisions], &what);
            }
        }
        if self.scene.layout != Layout::InPlace || !call.path.starts_with(&family) {
            return;
        }
        if is_rename && call.path == family.join(SENTINEL) {
            self.named += 1;
            let stray =
                self.paths.iter().find(|p| p.starts_with(&family) && !p.starts_with(&state));
            assert_eq!(stray, None, "{what}");
        }
        // The old sentinel is gone for good before anything that it vouches for is.
        let is_content = !call.path.starts_with(&state) && !call.path.ends_with(SENTINEL);
        if self.named == 0 && is_content && (is_rename || call.name == "unlinkat") {
            assert!(!family.join(SENTINEL).exists(), "{what}");
            if std::mem::replace(&mut self.is_unsealed, true) {
                return;
            }
            self.assert_nothing_in(&[family], &what);
        }
    }

    /// A snapshot gets its name when blobs and links are durable, and a name leads there after all else.
    fn check_in_cache(&mut self, call: &Call, what: &str) {
        let repo = cached_repo(&self.scene.volume.root());
        if !call.name.starts_with("rename") || !call.path.starts_with(&repo) {
            return;
        }
        if call.path.parent() == Some(&repo.join("snapshots")) {
            let is_of_it = |path: &&PathBuf| {
                path.starts_with(repo.join("blobs"))
                    || path.components().any(|part| part.as_os_str() == "cache-snapshot")
            };
            assert_eq!(self.paths.iter().find(is_of_it), None, "{what}");
        }
        if call.path == repo.join("refs/main") {
            self.named += 1;
            let is_ours = |path: &&PathBuf| path.starts_with(&repo) && !path.ends_with("refs");
            assert_eq!(self.paths.iter().find(is_ours), None, "{what}");
            let root = self.scene.volume.root();
            self.assert_nothing_in(&[root.join("hub"), root], what);
        }
    }

    #[track_caller]
    fn assert_nothing_in(&self, dirs: &[PathBuf], what: &str) {
        let stray = dirs.iter().find(|dir| self.paths.contains(*dir));
        assert_eq!(stray, None, "not synced before {what}, {:?}", self.scene.layout);
    }
}

#[test]
fn an_attempt_whose_journal_a_power_cut_took_is_removed() {
    let scene = Scene::update(Layout::Links);
    scene.reset();
    let attempts = scene.state().join("attempts");
    let leave = |id: &str, tree: Option<&Path>| {
        let attempt = attempts.join(format!("tiny~{id}"));
        std::fs::create_dir_all(&attempt).unwrap();
        match tree {
            Some(tree) => copy(tree, &attempt.join("tree")),
            None => std::fs::write(attempt.join("weights.bin"), vec![0; 100_000]).unwrap(),
        }
        std::fs::write(attempt.join("journal"), "").unwrap();
        std::fs::File::open(&attempt).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        attempt
    };
    let unfinished = leave("1111111111111111", None);
    // The power went right after an exchange of directories: what was replaced is kept, as ever.
    let replaced = leave("2222222222222222", Some(&std::fs::canonicalize(scene.family()).unwrap()));
    // This one may be about to begin.
    let of_this_boot = leave("3333333333333333", None);
    std::fs::write(of_this_boot.join("touched"), "").unwrap();
    scene.run(|_| Act::Pass).assert_success();
    assert_eq!(
        [unfinished.exists(), replaced.exists(), of_this_boot.exists()],
        [false, false, true]
    );
    let kept = scene.state().join("revisions/tiny/before-2222222222222222");
    assert_verifies(&kept, "the replaced revision");
}

fn flags(all: &[&str]) -> Vec<String> {
    all.iter().map(|flag| (*flag).to_owned()).collect()
}

fn signature(name: &str) -> Vec<u8> {
    std::fs::read(fixture("signed").join(name)).unwrap()
}

fn tries_all() -> bool {
    std::env::var("WEIGHTLIFT_TEST_ROUNDS").is_ok_and(|rounds| rounds == "all")
}

/// Which of the points before publication are tried.
fn offset() -> usize {
    static OFFSET: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
    *OFFSET.get_or_init(|| {
        let chosen = std::env::var("WEIGHTLIFT_TEST_OFFSET").ok();
        chosen.map_or_else(
            || std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() as usize % 1000,
            |offset| offset.parse().expect("WEIGHTLIFT_TEST_OFFSET is a number"),
        )
    })
}

/// All, or the one whose turn it is.
fn some_of<T: Copy>(all: &[T], n: usize) -> Vec<T> {
    if tries_all() { all.to_vec() } else { vec![all[(n + offset()) % all.len()]] }
}

/// Whether this is a name that is only there to find out what the volume can do.
fn is_of_the_probe(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with(".weightlift-probe~")
        || (name.starts_with("probe-") && path.to_string_lossy().contains("/attempts/"))
}

/// Whether `dir` holds nothing but directories and a journal without its first line.
fn is_empty(dir: &Path) -> bool {
    let is_nothing = |path: PathBuf| {
        path.is_dir()
            || (path.ends_with("journal") && !std::fs::read(path).unwrap().contains(&b'\n'))
    };
    entries_below(dir).into_iter().chain([dir.to_owned()]).all(is_nothing)
}

fn entries_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in list(dir) {
        if path.is_dir() && !path.is_symlink() {
            found.extend(entries_below(&path));
        }
        found.push(path);
    }
    found
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}
