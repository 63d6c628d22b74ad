//! `prune --models`: what becomes of models that the models file does not name.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use super::link::{Pod, revision};
use super::list::{looks, slow_fetch};
use crate::support::process::straced;
use crate::support::*;

/// A volume with `tiny`, `old` and `sub/old`, two revisions each.
fn volume_of_three() -> Pod {
    let pod = Pod::new();
    for n in [1, 2] {
        pod.hub.move_branch(REPO, "main", revision(n));
        for family in ["tiny", "old", "sub/old"] {
            pod.fetch(&["hf://org/tiny", family]).run().assert_success();
        }
    }
    pod
}

/// `prune --models` with a file that names these.
fn prune(root: &Path, named: &[&str], arguments: &[&str]) -> Command {
    let file = root.parent().unwrap().join("models.yaml");
    let models = named.iter().map(|name| format!("- {{name: {name}, source: 'hf://org/tiny'}}\n"));
    let models: String = models.collect();
    std::fs::write(&file, format!("version: 1\nmodels:\n{models}")).unwrap();
    let mut command = weightlift();
    command.arg("prune").arg("--root").arg(root).arg("--models").arg(file).args(arguments);
    command
}

fn revisions(pod: &Pod, family: &str) -> usize {
    let dir = pod.volume.root().join(".weightlift/revisions").join(family);
    if dir.exists() { list(&dir).len() } else { 0 }
}

fn is_there(pod: &Pod, family: &str) -> bool {
    pod.volume.family(family).symlink_metadata().is_ok()
}

#[test]
fn a_model_that_is_not_named_goes_with_all_its_revisions() {
    let pod = volume_of_three();
    let root = pod.volume.root();
    let absolute = pod.volume.family("sub/old").display().to_string();
    for named in [["tiny", "sub/old"], ["tiny", absolute.as_str()]] {
        let before = looks(&root);
        let dry = prune(&root, &named, &[]).run().assert_success();
        assert!(dry.stdout.contains("would remove old at "), "{}", dry.stdout);
        assert!(
            dry.last_line().contains("would remove 1 model, 1 kept revision"),
            "{}",
            dry.stderr
        );
        assert_eq!(looks(&root), before);
    }
    let run = prune(&root, &["tiny", "sub/old"], &["--yes", "--output", "json"]).run();
    let run = run.assert_success();
    assert_eq!(run.stdout.matches("\"what\":\"family\"").count(), 1, "{}", run.stdout);
    assert!(!is_there(&pod, "old") && revisions(&pod, "old") == 0);
    for family in ["tiny", "sub/old"] {
        pod.volume.assert_holds(family, &revision(2));
    }
    assert_eq!(
        (revisions(&pod, "tiny"), revisions(&pod, "sub%2Fold")),
        (2, 2),
        "one is kept of each"
    );
    // A file that is wrong removes nothing.
    let wrong = prune(&root, &["tiny", "tiny"], &["--yes"]).run().assert_code(2);
    assert!(wrong.stderr.contains("a second model has the name `tiny`"), "{}", wrong.stderr);
    pod.volume.assert_holds("sub/old", &revision(2));
}

#[test]
fn what_is_in_use_or_cannot_go_by_itself_stays_and_is_told() {
    let pod = volume_of_three();
    let root = pod.volume.root();
    // Another link leads to what `old` shows.
    let shown = std::fs::read_link(pod.volume.family("old")).unwrap();
    symlink(&shown, root.join("alias")).unwrap();
    // A directory, as volumes without links have it.
    let command = pod.fetch(&["hf://org/tiny", "plain"]);
    if has("strace") {
        straced(&command, "symlinkat", &["symlinkat:error=EPERM"]).run().assert_success();
    }
    // Too young for --older-than are all.
    let run = prune(&root, &["tiny"], &["--yes", "--older-than", "1h"]).run().assert_success();
    assert!(run.stdout.is_empty(), "{}", run.stdout);
    let run = prune(&root, &["tiny"], &["--yes", "--keep-revisions", "9"]).run().assert_success();
    assert!(is_there(&pod, "old"), "a link leads to it");
    pod.volume.assert_holds("old", &revision(2));
    assert_eq!(revisions(&pod, "tiny"), 2);
    if has("strace") {
        pod.volume.assert_holds("plain", &revision(2));
        assert!(run.stderr.contains("`plain`, which is a directory"), "{}", run.stderr);
    }
    assert!(!is_there(&pod, "sub/old"));
}

#[test]
fn a_model_that_is_fetched_at_the_moment_stays() {
    let pod = volume_of_three();
    let root = pod.volume.root();
    let running = slow_fetch(&pod, "old");
    let run = prune(&root, &["tiny", "sub/old"], &["--yes"]).run().assert_success();
    assert!(run.stderr.contains("skipped `old`: it is in use"), "{}", run.stderr);
    pod.volume.assert_holds("old", &revision(2));
    running.signal("-KILL");
    running.wait();
}

#[test]
fn a_removal_that_is_killed_anywhere_leaves_a_model_whole_or_gone_and_the_next_one_finishes() {
    if !has("strace") {
        return;
    }
    let mut reached = 0;
    for call in ["unlinkat", "renameat", "fsync"] {
        for when in 1..=30 {
            let pod = Pod::new();
            pod.publish(1);
            pod.fetch(&["hf://org/tiny", "old"]).run().assert_success();
            let root = pod.volume.root();
            let kill = format!("{call}:signal=KILL:when={when}");
            let run = straced(&prune(&root, &["tiny"], &["--yes"]), call, &[&kill]).run();
            if run.code == 0 {
                assert!(when > 1, "{call} is never made");
                break;
            }
            reached += 1;
            if is_there(&pod, "old") {
                weightlift().arg("verify").arg(pod.volume.family("old")).run().assert_success();
            }
            prune(&root, &["tiny"], &["--yes"]).run().assert_success();
            assert!(!is_there(&pod, "old") && revisions(&pod, "old") == 0, "{call} {when}");
            pod.volume.assert_holds("tiny", &revision(1));
        }
    }
    assert!(reached > 5, "{reached}");
}
