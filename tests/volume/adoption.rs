//! What earlier attempts have left, and what of it must not be taken for something else.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::tracer::{Act, Call, traced};
use crate::support::*;
use nix::errno::Errno;
use serde_json::json;
use weightlift_fakes::{Blob, FakeHub, FakeS3, Fault, Rule, Tree};

const MIB: u64 = 1 << 20;

fn revision(n: u64) -> Tree {
    Tree::new()
        .with("config.json", format!("{{\"revision\": {n}}}"))
        .with_blob("weights.bin", Blob::synthetic(300_000, n))
}

/// A run that is killed before the first call for which `is_last` holds.
fn killed(command: &Command, volume: &Volume, mut is_last: impl FnMut(&Call) -> bool) {
    let act = |call: &Call| if is_last(call) { Act::Kill } else { Act::Pass };
    let run = traced(command, &volume.path(""), act);
    assert_eq!(run.code, -1, "{}", run.stderr);
}

fn renames(call: &Call) -> bool {
    call.name.starts_with("rename")
}

/// The only attempt that there is; it is put aside, as if nobody could say what has become of it.
fn put_aside(volume: &Volume) -> PathBuf {
    let attempts = volume.attempts();
    assert_eq!(attempts.len(), 1, "{attempts:?}");
    std::fs::rename(&attempts[0], volume.path("aside")).unwrap();
    attempts.into_iter().next().unwrap()
}

#[track_caller]
fn assert_kept(volume: &Volume, trees: &[Tree]) {
    let kept = list(&volume.root().join(".weightlift/revisions/tiny"));
    let holds = |dir: &Path, tree: &Tree| {
        let found = files_below(dir);
        found.len() == tree.len()
            && tree.iter().all(|(name, blob)| found.get(name) == Some(&blob.to_vec()))
    };
    for tree in trees {
        assert!(kept.iter().any(|dir| holds(dir, tree)), "{kept:?}");
    }
}

#[test]
fn a_killed_update_in_place_takes_no_older_file_for_a_new_one() {
    let names = ["a.bin", "b.bin", "c.bin"];
    let of = |seed: u64| Blob::synthetic(300_000, seed);
    for moved in 0..names.len() {
        // No digest is published: what is taken for the new file is believed.
        let (mut builder, volume) = (FakeS3::builder().bucket("models"), Volume::in_memory());
        for (name, seed) in names.into_iter().zip(0..) {
            builder = builder.object("models", &format!("llama/{name}"), of(seed));
        }
        let s3 = builder.credentials(ACCESS_KEY, SECRET_KEY).start();
        let family = volume.family("llama");
        std::fs::create_dir_all(&family).unwrap();
        fetch_s3(&s3, &volume, &["s3://models/llama/"]).run().assert_success();
        let mut new = Tree::new();
        for (name, seed) in names.into_iter().zip(10..) {
            s3.overwrite("models", &format!("llama/{name}"), of(seed));
            new = new.with_blob(name, of(seed));
        }
        let mut moves = 0;
        killed(&fetch_s3(&s3, &volume, &["s3://models/llama/"]), &volume, |call| {
            let is_move = renames(call) && names.iter().any(|name| call.path == family.join(name));
            moves += usize::from(is_move);
            is_move && moves > moved
        });
        s3.log().clear();
        fetch_s3(&s3, &volume, &["s3://models/llama/"]).run().assert_success();
        volume.assert_holds("llama", &new);
        assert_eq!(s3.bytes_sent_for(".bin"), 0, "fetched again after {moved} moves");
    }
}

#[test]
fn files_of_one_size_and_no_digest_are_not_taken_for_each_other() {
    let (a, b) = (Blob::synthetic(20 * MIB, 1), Blob::synthetic(20 * MIB, 2));
    let tree = Tree::new().with_blob("a.bin", a).with_blob("b.bin", b);
    let (hub, volume) = (FakeHub::serving(REPO, tree.clone()), Volume::in_memory());
    let entry = |path: &str| json!({"type": "file", "path": path, "size": 20 * MIB});
    let listing = json!([entry("a.bin"), entry("b.bin")]).to_string();
    let mirror = || Rule::on("GET", "/tree/").then(Fault::ReplaceBody(listing.clone().into()));
    hub.script(mirror());
    hub.script(
        Rule::on("GET", "a.bin").at("cdn").then(Fault::HangBeforeHeaders(Duration::from_secs(60))),
    );
    let running = fetch(&hub, &volume, &["hf://org/tiny"]).start();
    eventually("b.bin has arrived", || {
        let journals = volume.attempts().into_iter().map(|attempt| attempt.join("journal"));
        journals
            .filter_map(|it| std::fs::read_to_string(it).ok())
            .any(|it| it.lines().any(|line| line.contains(&format!(r#""end":{},"#, 20 * MIB))))
    });
    running.signal("-KILL");
    running.wait();
    hub.clear_script();
    hub.script(mirror());
    let run = fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    volume.assert_holds("tiny", &tree);
    assert!(run.stderr.contains("are here already"), "{}", run.stderr);
}

#[test]
fn a_revision_that_was_served_is_not_taken_apart_by_whoever_finds_its_attempt() {
    let (hub, volume) = (FakeHub::serving(REPO, revision(1)), Volume::in_memory());
    let family = volume.family("tiny");
    let command = fetch(&hub, &volume, &["hf://org/tiny"]);
    let links = |call: &Call| call.name == "renameat2";
    let update = || {
        let act = |call: &Call| if links(call) { Act::Fail(Errno::EINVAL) } else { Act::Pass };
        traced(&command, &volume.path(""), act).assert_success();
    };
    // Killed as soon as it is published.
    let mut is_published = false;
    let run = traced(&command, &volume.path(""), |call| {
        if links(call) {
            return Act::Fail(Errno::EINVAL);
        }
        if is_published && call.changes() {
            return Act::Kill;
        }
        is_published |= renames(call) && call.path == family;
        Act::Pass
    });
    assert_eq!(run.code, -1, "{}", run.stderr);
    let served = std::fs::canonicalize(&family).unwrap();
    let attempt = put_aside(&volume);
    hub.move_branch(REPO, "main", revision(2));
    update();
    std::fs::rename(volume.path("aside"), &attempt).unwrap();
    hub.move_branch(REPO, "main", revision(3));
    update();
    volume.assert_holds("tiny", &revision(3));
    assert_tree(&served, &revision(1));
    assert_kept(&volume, &[revision(1), revision(2)]);
    volume.assert_clean();
}

/// A filesystem without links, or one that has them.
fn without_links(call: &Call) -> bool {
    call.name == "symlinkat"
}

/// Kills `command` when it has put its tree, or a link to it, in the place of the directory before, which it
/// now holds.
fn killed_after_the_exchange(command: &Command, volume: &Volume, has_links: bool) {
    let mut is_exchanged = false;
    let run = traced(command, &volume.path(""), |call| {
        if !has_links && without_links(call) {
            return Act::Fail(Errno::EPERM);
        }
        let was_exchanged = is_exchanged;
        is_exchanged |= call.name == "renameat2" && call.path == volume.family("tiny");
        if was_exchanged && call.changes() { Act::Kill } else { Act::Pass }
    });
    assert_eq!(run.code, -1, "{}", run.stderr);
}

/// Publishes a directory, as where there are no links.
fn publish_directory(command: &Command, volume: &Volume) {
    let run = traced(command, &volume.path(""), |call| {
        if without_links(call) { Act::Fail(Errno::EPERM) } else { Act::Pass }
    });
    run.assert_success();
    assert!(!volume.family("tiny").is_symlink());
}

#[test]
fn a_replaced_revision_is_kept_by_whoever_cleans_up_after_its_killed_publisher() {
    for has_links in [false, true] {
        let (hub, volume) = (FakeHub::serving(REPO, revision(1)), Volume::in_memory());
        let command = fetch(&hub, &volume, &["hf://org/tiny"]);
        publish_directory(&command, &volume);
        hub.move_branch(REPO, "main", revision(2));
        killed_after_the_exchange(&command, &volume, has_links);
        volume.assert_holds("tiny", &revision(2));
        let attempt = put_aside(&volume);
        let third = revision(3).with_blob("large.bin", Blob::synthetic(4 * MIB, 3));
        hub.move_branch(REPO, "main", third.clone());
        hub.script(Rule::on("GET", "").at("cdn").then(Fault::Drip { bytes_per_second: 100_000 }));
        let running = fetch(&hub, &volume, &["hf://org/tiny"]).start();
        eventually("the third one is on its way", || hub.bytes_sent_for("large.bin") > 10_000);
        std::fs::rename(volume.path("aside"), &attempt).unwrap();
        hub.clear_script();
        running.wait().assert_success();
        volume.assert_holds("tiny", &third);
        assert_kept(&volume, &[revision(1), revision(2)]);
        volume.assert_clean();
    }
}

#[test]
fn what_another_selection_of_the_same_revision_has_replaced_is_kept() {
    for has_links in [false, true] {
        let all = revision(1).with("notes.txt", "n");
        let (hub, volume) = (FakeHub::serving(REPO, all.clone()), Volume::in_memory());
        let first = fetch(&hub, &volume, &["hf://org/tiny", "--exclude", "notes.txt"]);
        publish_directory(&first, &volume);
        volume.assert_holds("tiny", &revision(1));
        let command = fetch(&hub, &volume, &["hf://org/tiny"]);
        killed_after_the_exchange(&command, &volume, has_links);
        volume.assert_holds("tiny", &all);
        fetch(&hub, &volume, &["hf://org/tiny", "--include", "config.json", "--replace"])
            .run()
            .assert_success();
        assert_kept(&volume, &[revision(1), all]);
        volume.assert_clean();
    }
}

#[test]
fn a_file_that_another_process_takes_first_is_fetched() {
    let tree = Tree::new().with_blob("big.bin", Blob::synthetic(24 * MIB, 1));
    let (hub, volume) = (FakeHub::serving(REPO, tree.clone()), Volume::in_memory());
    hub.script(Rule::on("GET", "").at("cdn").then(Fault::Drip { bytes_per_second: 6 * MIB }));
    let arguments = ["hf://org/tiny", "--chunk-size", "1MiB", "--connections", "2"];
    let running = fetch(&hub, &volume, &arguments).start();
    eventually("some megabytes arrive", || hub.bytes_sent_for("xet-bridge") > 6 * MIB);
    running.signal("-KILL");
    running.wait();
    hub.clear_script();
    let left = volume.attempts()[0].join("tree/big.bin");
    let mut was_there = false;
    let run = traced(&fetch(&hub, &volume, &arguments), &volume.path(""), |call| {
        if renames(call) && call.path.ends_with("tree/big.bin") {
            was_there |= std::fs::remove_file(&left).is_ok();
        }
        Act::Pass
    });
    assert!(was_there, "nobody wanted it: {}", run.stderr);
    run.assert_success();
    volume.assert_holds("tiny", &tree);
}

#[test]
fn a_file_that_takes_few_blocks_needs_no_space_when_it_is_taken_over() {
    if !is_root() || !has("fallocate") {
        return;
    }
    let tree = Tree::new().with_blob("zeros.bin", Blob::bytes(vec![0; 40 << 20]));
    let (hub, volume) = (FakeHub::serving(REPO, tree.clone()), Volume::new());
    let root = volume.root();
    std::fs::create_dir_all(&root).unwrap();
    let mount = |words: &[&str]| assert!(Command::new(words[0]).args(&words[1..]).run().code == 0);
    let at = root.to_str().unwrap();
    mount(&["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", at]);
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    // As a filesystem that compresses would keep it.
    mount(&["fallocate", "--dig-holes", &format!("{at}/tiny/zeros.bin")]);
    std::fs::write(root.join("filler"), vec![1; 56 << 20]).unwrap();
    let new = tree.with("new.json", "{}");
    hub.move_branch(REPO, "main", new.clone());
    let run = fetch(&hub, &volume, &["hf://org/tiny"]).run();
    let found = files_below(&volume.family("tiny"));
    mount(&["umount", "-l", at]);
    run.assert_success();
    assert_eq!(found.len(), new.len());
}

#[test]
fn a_sentinel_that_another_node_replaces_while_it_is_read_is_read_again() {
    let (hub, volume) = (FakeHub::serving(REPO, revision(1)), Volume::in_memory());
    let command = fetch(&hub, &volume, &["hf://org/tiny"]);
    fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_success();
    let mut stale = 0;
    let run = traced(&command, &volume.path(""), |call| {
        // As NFS answers for a file that is gone.
        let is_it = call.name == "openat" && call.path.ends_with(".weightlift-complete.json");
        stale += usize::from(is_it);
        if is_it && stale <= 2 { Act::Fail(Errno::ESTALE) } else { Act::Pass }
    });
    run.assert_success();
    assert!(stale > 2, "{stale}");
}
