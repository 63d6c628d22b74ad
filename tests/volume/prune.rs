//! What `prune` removes, and what it never does.

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::link::{Pod, age, revision};
use super::list::{listed, looks, slow_fetch, slow_tree};
use super::probe::{as_user, bound, done, give, tmpfs};
use crate::support::process::{Node, straced};
use crate::support::*;
use weightlift_fakes::{Blob, Fault, Rule, Tree};

fn prune(root: &Path, arguments: &[&str]) -> Command {
    let mut command = weightlift();
    command.arg("prune").arg("--root").arg(root).args(arguments);
    command
}

/// What standard output tells, one object a line.
fn told(run: &Run) -> Vec<Value> {
    run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn ids(told: &[Value]) -> BTreeSet<String> {
    told.iter().map(|it| it["id"].as_str().unwrap().to_owned()).collect()
}

/// A model of which `n` revisions were published, the last one now and the one before it `hours` ago, the one
/// before that twice as long ago, and so on.
fn published(n: u64, hours: u64) -> Pod {
    let pod = Pod::new();
    for n in 1..=n {
        pod.publish(n);
    }
    for kept in 1..n {
        age(&find(&pod, kept).unwrap(), hours * (n - kept));
    }
    pod
}

/// The kept revision `n`.
fn find(pod: &Pod, n: u64) -> Option<PathBuf> {
    let wanted = revision(n).blob("config.json").unwrap().to_vec();
    pod.kept().into_iter().find(|path| files_below(path).get("config.json") == Some(&wanted))
}

fn left(pod: &Pod) -> Vec<u64> {
    (1..=9).filter(|n| find(pod, *n).is_some()).collect()
}

/// A fetch of `tiny` to `family` that was killed in the middle; its attempt.
fn killed(pod: &Pod, family: &str) -> PathBuf {
    let running = slow_fetch(pod, family);
    running.signal("-KILL");
    running.wait();
    pod.hub.clear_script();
    let start = format!("{family}~");
    let is_it = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(&start);
    pod.volume.attempts().into_iter().find(is_it).unwrap()
}

/// As if nothing had been written below `path` since then.
fn age_all(path: &Path, since: &str) {
    let find = ["-depth", "-exec", "touch", "-h", "-d", since, "{}", "+"];
    assert!(Command::new("find").arg(path).args(find).status().unwrap().success());
}

#[test]
fn nothing_is_removed_until_the_user_says_yes() {
    let pod = published(4, 10);
    let root = pod.volume.root();
    let before = looks(&root);
    let dry = prune(&root, &["--output", "json"]).run().assert_success();
    assert_eq!(looks(&root), before);
    dry.last_line().find("nothing was removed, --yes removes them").expect(&dry.stderr);
    let found = told(&dry);
    let oldest = &found[0];
    assert_eq!((&oldest["family"], &oldest["what"]), (&"tiny".into(), &"revision".into()));
    assert_eq!(oldest["status"], "removable");
    assert_eq!(oldest["path"], find(&pod, 1).unwrap().to_str().unwrap());
    assert!(oldest["revision"].as_str().is_some_and(|it| it.len() == 40), "{oldest}");
    assert_eq!(oldest["age_seconds"].as_u64().unwrap() / 3_600, 30);
    let bytes = oldest["bytes"].as_u64().unwrap();
    assert!((300_000..400_000).contains(&bytes), "one file is shared: {oldest}");
    assert!(prune(&root, &[]).run().stdout.starts_with("would remove revision "));

    let run = prune(&root, &["--output", "json", "--yes"]).run().assert_success();
    let removed = told(&run);
    assert_eq!(ids(&removed), ids(&found));
    assert!(removed.iter().all(|it| it["status"] == "removed"), "{removed:?}");
    assert!(run.last_line().contains("removed 2 kept revisions (6"), "{}", run.stderr);
    assert_eq!(left(&pod), [3]);
    pod.volume.assert_holds("tiny", &revision(4));
    let run = prune(&root, &["--yes"]).run().assert_success();
    assert!(run.last_line().contains("nothing to remove") && run.stdout.is_empty());
}

#[test]
fn kept_revisions_go_by_count_and_age() {
    for (arguments, expected) in [
        (&["--keep-revisions", "9"][..], &[1, 2, 3, 4][..]),
        (&[], &[4]),
        (&["--keep-revisions", "2"], &[3, 4]),
        (&["--keep-revisions", "0"], &[]),
        (&["--keep-revisions", "0", "--older-than", "15h"], &[4]),
        (&["--keep-revisions", "3", "--older-than", "15h"], &[2, 3, 4]),
        (&["--older-than", "35h"], &[2, 3, 4]),
        (&["--older-than", "999h"], &[1, 2, 3, 4]),
    ] {
        let pod = published(5, 10);
        prune(&pod.volume.root(), &[&["--yes"], arguments].concat()).run().assert_success();
        assert_eq!(left(&pod), expected, "{arguments:?}");
        pod.volume.assert_holds("tiny", &revision(5));
        let verify = weightlift().arg("verify").arg(pod.volume.family("tiny")).run();
        verify.assert_success();
    }
}

#[test]
fn a_model_that_shows_nothing_is_pruned_by_the_same_rules() {
    let pod = published(3, 10);
    std::fs::remove_file(pod.volume.family("tiny")).unwrap();
    let kept = || list(&pod.volume.root().join(".weightlift/revisions/tiny")).len();
    // Shown in one moment, as far as the clock of the filesystem tells.
    let then = std::time::SystemTime::now() - Duration::from_secs(3_600);
    for revision in list(&pod.volume.root().join(".weightlift/revisions/tiny")) {
        std::fs::File::open(revision).unwrap().set_modified(then).unwrap();
    }
    let latest = pod.hub.commit(REPO);
    prune(&pod.volume.root(), &["--yes"]).run().assert_success();
    assert_eq!(kept(), 1);
    assert_eq!(commit_of(&list(&pod.volume.root().join(".weightlift/revisions/tiny"))[0]), latest);
    prune(&pod.volume.root(), &["--yes", "--keep-revisions", "0"]).run().assert_success();
    assert_eq!(kept(), 0);
    pod.fetch(&["hf://org/tiny"]).run().assert_success();
    pod.volume.assert_holds("tiny", &revision(3));
}

#[test]
fn it_stops_when_as_much_is_free_as_is_asked_for() {
    if !is_root() {
        return;
    }
    let pod = Pod::new();
    let root = pod.volume.root();
    let mounted = tmpfs(&root, "size=64m");
    let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        for n in 1..=5 {
            pod.publish(n);
        }
        for kept in 1..5 {
            age(&find(&pod, kept).unwrap(), 10 * (5 - kept));
        }
        let free = listed(&root)["tiny"]["free_bytes"].as_u64().unwrap();
        let until = |bytes: u64, more: &[&str]| {
            let bytes = (free + bytes).to_string();
            let keep = ["--keep-revisions", "0", "--output", "json", "--until-free", &bytes];
            told(&prune(&root, &[&keep, more].concat()).run().assert_success()).len()
        };
        assert_eq!(until(0, &[]), 0, "there is enough");
        for (bytes, count) in [(1, 1), (350_000, 2), (1 << 30, 4)] {
            assert_eq!(until(bytes, &[]), count, "{bytes}");
        }
        assert_eq!(until(350_000, &["--yes"]), 2);
        assert_eq!(left(&pod), [3, 4], "the oldest go first");
        assert_eq!(until(350_000, &["--yes"]), 0);
    }));
    drop(mounted);
    checked.unwrap();
}

#[test]
fn what_a_live_fetch_has_is_never_touched() {
    let pod = published(3, 10);
    let root = pod.volume.root();
    pod.fetch(&["hf://org/tiny", "other"]).run().assert_success();
    pod.hub.move_branch(REPO, "main", revision(4));
    pod.fetch(&["hf://org/tiny", "other"]).run().assert_success();
    let other = list(&root.join(".weightlift/revisions/other")).len();
    let running = slow_fetch(&pod, "tiny");
    let attempts = pod.volume.attempts();
    let all = ["--keep-revisions", "0", "--older-than", "0s"];
    let dry = prune(&root, &all).run().assert_success();
    let run = prune(&root, &[&all[..], &["--yes"]].concat()).run().assert_success();
    for run in [&dry, &run] {
        let line = run.stderr.lines().find(|line| line.contains("skipped `tiny`: ")).unwrap();
        assert!(line.starts_with("warning: ") && line.contains("pod "), "{line}");
        assert!(!run.stdout.contains(" tiny"), "{}", run.stdout);
    }
    assert_eq!((pod.volume.attempts(), left(&pod)), (attempts, vec![1, 2]));
    assert_eq!(list(&root.join(".weightlift/revisions/other")).len(), other - 1);
    pod.hub.clear_script();
    running.wait().assert_success();
    pod.volume.assert_holds("tiny", &slow_tree());
    pod.volume.assert_clean();
}

#[test]
fn a_family_whose_lock_another_process_has_is_skipped() {
    let pod = published(3, 10);
    let root = pod.volume.root();
    let lock = root.join(".weightlift/locks/tiny.lock");
    let file = std::fs::File::open(&lock).unwrap();
    file.lock().unwrap();
    let all = ["--keep-revisions", "0", "--yes"];
    prune(&root, &all).run().assert_success().assert_says("skipped `tiny`: it is in use: another");
    assert_eq!(left(&pod), [1, 2]);
    drop(file);
    // A process that another thread is just starting has the lock as well, until it has started.
    eventually("the lock is free", || {
        prune(&root, &all).run().assert_success();
        left(&pod).is_empty()
    });
}

#[test]
fn dead_attempts_go_when_no_job_resumes_them_any_more() {
    let pod = Pod::new();
    let root = pod.volume.root();
    let (one, two) = (killed(&pod, "a"), killed(&pod, "b"));
    let filled = root.join("filled");
    std::fs::create_dir(&filled).unwrap();
    prune(&root, &["--yes"]).run().assert_success();
    assert!(one.is_dir() && two.is_dir(), "a Job would resume them");
    age_all(&one, "2 hours ago");
    prune(&root, &["--yes", "--older-than", "3h"]).run().assert_success();
    assert!(one.is_dir());
    let heartbeat = root.join(".weightlift/owners/a.json");
    assert!(heartbeat.exists());
    age_all(&heartbeat, "2 hours ago");
    let run = prune(&root, &["--yes", "--output", "json"]).run().assert_success();
    let found = told(&run);
    assert_eq!((&found[0]["what"], &found[0]["family"]), (&"attempt".into(), &"a".into()));
    assert!(found[0]["bytes"].as_u64().unwrap() > 0, "{found:?}");
    assert_eq!((one.exists(), two.is_dir(), heartbeat.exists()), (false, true, false));
    prune(&root, &["--yes", "--older-than", "0s"]).run().assert_success();
    pod.volume.assert_clean();
    pod.fetch(&["hf://org/tiny", "b"]).run().assert_success();
    pod.volume.assert_holds("b", &revision(1));
}

#[test]
fn what_was_cut_off_in_a_directory_that_is_filled_in_place_goes_as_well() {
    let pod = Pod::new();
    let family = pod.volume.family("filled");
    std::fs::create_dir_all(&family).unwrap();
    pod.hub.script(Rule::on("GET", "").at("cdn").then(Fault::Drip { bytes_per_second: 20_000 }));
    let running = pod.fetch(&["hf://org/tiny", "filled"]).start();
    let attempts = || list(&family.join(".weightlift/attempts"));
    eventually("it has begun", || attempts().iter().any(|it| it.join("owner.json").exists()));
    running.signal("-KILL");
    running.wait();
    let found = listed(&pod.volume.root());
    assert_eq!(found["filled"]["attempts"].as_array().unwrap().len(), 1, "{found:?}");
    prune(&pod.volume.root(), &["--yes", "--older-than", "0s"]).run().assert_success();
    assert_eq!(attempts(), Vec::<PathBuf>::new());
}

#[test]
fn what_another_node_has_begun_goes_when_it_is_old_and_still() {
    if !is_root() || !has("strace") || !has("unshare") {
        return;
    }
    let pod = Pod::new();
    let root = pod.volume.root();
    let far = Node::new(&pod.volume, "far");
    pod.hub.script(Rule::on("GET", "").at("cdn").then(Fault::Drip { bytes_per_second: 20_000 }));
    let running = far.run(&pod.fetch(&["hf://org/tiny", "a"])).start();
    let begun = || pod.volume.attempts().iter().any(|it| it.join("owner.json").exists());
    eventually("it has begun", begun);
    running.signal("-KILL");
    running.wait();
    let attempt = pod.volume.attempts().remove(0);
    let run = || on_network(&prune(&root, &["--yes", "--older-than", "0s"])).run().assert_success();
    age_all(&attempt, "50 minutes ago");
    age_all(&root.join(".weightlift/owners"), "50 minutes ago");
    run();
    assert!(attempt.is_dir(), "nobody knows whether it is slow");
    age_all(&attempt, "2 hours ago");
    let heartbeat = attempt.join("owner.json");
    std::thread::scope(|scope| {
        let running = scope.spawn(run);
        while !running.is_finished() {
            let text = std::fs::read_to_string(&heartbeat).unwrap();
            let mut owner: Value = serde_json::from_str(&text).unwrap();
            owner["sequence"] = (owner["sequence"].as_u64().unwrap() + 1).into();
            std::fs::write(attempt.join("next"), owner.to_string()).unwrap();
            std::fs::rename(attempt.join("next"), &heartbeat).unwrap();
            age_all(&heartbeat, "2 hours ago");
            std::thread::sleep(Duration::from_millis(500));
        }
    });
    assert!(attempt.is_dir(), "it has given signs");
    run().assert_says("to be sure that no other node still uses what it has left");
    assert!(!attempt.exists());
}

/// As where the filesystem could be one that many nodes share.
fn on_network(command: &Command) -> Command {
    straced(command, "fstatfs", &["fstatfs:error=ENOSYS"])
}

#[test]
fn where_other_nodes_may_show_a_revision_already_a_young_one_stays() {
    if !has("strace") {
        return;
    }
    let pod = published(3, 10);
    let root = pod.volume.root();
    // Another node has led the family to the second one, and ours does not see it.
    let second = find(&pod, 2).unwrap();
    pod.fetch(&[&format!("hf://org/tiny@{}", commit_of(&second))]).run().assert_success();
    let family = pod.volume.family("tiny");
    std::fs::remove_file(&family).unwrap();
    let keep = ["--keep-revisions", "0", "--yes"];
    on_network(&prune(&root, &keep)).run().assert_success();
    let kept = list(&root.join(".weightlift/revisions/tiny"));
    assert!(kept.contains(&second), "{kept:?}");
    assert_eq!(kept.len(), 2, "the third was shown until just now");
    kept.iter().for_each(|kept| age(kept, 1));
    on_network(&prune(&root, &keep)).run().assert_success();
    assert_eq!(list(&root.join(".weightlift/revisions/tiny")), Vec::<PathBuf>::new());
}

fn commit_of(kept: &Path) -> String {
    let Ok(text) = std::fs::read_to_string(kept.join(".weightlift-complete.json")) else {
        return String::new();
    };
    let sentinel: Value = serde_json::from_str(&text).unwrap();
    sentinel["revision"].as_str().unwrap().to_owned()
}

#[test]
fn a_revision_that_is_shown_while_it_is_removed_comes_back() {
    if !has("strace") {
        return;
    }
    let pod = published(2, 10);
    let kept = find(&pod, 1).unwrap();
    let gone = PathBuf::from(format!("{}~gone", kept.display()));
    let command = prune(&pod.volume.root(), &["--yes", "--keep-revisions", "0"]);
    // Between the rename and the look after it.
    let running = straced(&command, "fsync", &["fsync:delay_enter=3000000:when=1"]).start();
    eventually("it has its last name", || gone.exists());
    let family = pod.volume.family("tiny");
    let link = pod.volume.family("new");
    symlink(kept.strip_prefix(pod.volume.root()).unwrap(), &link).unwrap();
    std::fs::rename(&link, &family).unwrap();
    running.wait().assert_success();
    pod.volume.assert_holds("tiny", &revision(1));
}

#[test]
fn what_any_link_leads_to_stays_and_so_does_what_is_not_ours() {
    let pod = published(5, 10);
    let root = pod.volume.root();
    // People make links of their own, and put their data beside.
    let one = commit_of(&find(&pod, 1).unwrap());
    symlink(find(&pod, 1).unwrap().strip_prefix(&root).unwrap(), root.join("prod")).unwrap();
    std::fs::create_dir(root.join("team")).unwrap();
    symlink(find(&pod, 2).unwrap(), root.join("team/stable")).unwrap();
    let outside = pod.volume.path("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("x"), "x").unwrap();
    symlink(&outside, find(&pod, 3).unwrap().join("planted")).unwrap();
    let revisions = root.join(".weightlift/revisions");
    let foreign = [
        root.join("notes"),
        root.join("team/data"),
        root.join(".weightlift/notes"),
        revisions.join("tiny/no-revision"),
        revisions.join("somebody"),
        root.join(".weightlift/attempts/notes"),
        root.join(".weightlift/attempts/tiny~0123456789abcdef"),
    ];
    for dir in &foreign {
        std::fs::create_dir(dir).unwrap();
        std::fs::write(dir.join("x"), "mine").unwrap();
        age_all(dir, "99 days ago");
    }
    symlink(&outside, revisions.join("tiny/led-away")).unwrap();
    symlink(&outside, revisions.join("led-away")).unwrap();
    symlink(&outside, root.join(".weightlift/attempts/a~0123456789abcdef~gone")).unwrap();
    let all = ["--yes", "--keep-revisions", "0", "--older-than", "0s"];
    prune(&root, &all).run().assert_success();
    assert_eq!(left(&pod), [1, 2]);
    for dir in &foreign {
        assert_eq!(std::fs::read_to_string(dir.join("x")).unwrap(), "mine", "{dir:?}");
    }
    assert_eq!(std::fs::read_to_string(outside.join("x")).unwrap(), "x");
    pod.volume.assert_holds("tiny", &revision(5));
    // What the model shows cannot be told any more.
    let family = pod.volume.family("tiny");
    std::fs::remove_file(root.join("prod")).unwrap();
    std::fs::remove_file(&family).unwrap();
    symlink(outside.join("x"), &family).unwrap();
    prune(&root, &all).run().assert_success().assert_says("a link to `");
    let kept = list(&revisions.join("tiny"));
    assert!(kept.iter().any(|kept| commit_of(kept) == one), "{kept:?}");
}

#[test]
fn revisions_of_a_family_that_is_a_directory_go_by_the_same_rules() {
    if !has("strace") {
        return;
    }
    let pod = Pod::new();
    pod.publish_directory();
    for n in 2..=4 {
        pod.hub.move_branch(REPO, "main", revision(n));
        let command = pod.fetch(&["hf://org/tiny"]);
        straced(&command, "symlinkat", &["symlinkat:error=EPERM"]).run().assert_success();
    }
    assert!(!pod.volume.family("tiny").is_symlink());
    prune(&pod.volume.root(), &["--yes"]).run().assert_success();
    assert_eq!(list(&pod.volume.root().join(".weightlift/revisions/tiny")).len(), 1);
    pod.volume.assert_holds("tiny", &revision(4));
}

#[test]
fn a_name_that_was_cut_is_pruned_only_if_its_link_is_seen() {
    let pod = Pod::new();
    let root = pod.volume.root();
    let family = "x".repeat(230);
    for n in 1..=3 {
        pod.hub.move_branch(REPO, "main", revision(n));
        pod.fetch(&["hf://org/tiny", &family]).run().assert_success();
    }
    let revisions = || list(&list(&root.join(".weightlift/revisions"))[0]).len();
    let link = pod.volume.family(&family);
    let target = std::fs::read_link(&link).unwrap();
    std::fs::remove_file(&link).unwrap();
    prune(&root, &["--yes", "--keep-revisions", "0"]).run().assert_success();
    assert_eq!(revisions(), 3);
    let found = listed(&root);
    assert!(found.values().all(|it| it["status"] == "unreadable"), "{found:?}");
    symlink(target, &link).unwrap();
    assert_eq!(listed(&root)[&family]["kept"].as_array().unwrap().len(), 2);
    prune(&root, &["--yes", "--keep-revisions", "0"]).run().assert_success();
    assert_eq!(revisions(), 1);
    pod.volume.assert_holds(&family, &revision(3));
}

#[test]
fn a_prune_that_is_killed_anywhere_harms_no_model_and_the_next_one_finishes() {
    if !has("strace") {
        return;
    }
    let mut reached = 0;
    for call in ["unlinkat", "renameat", "fsync"] {
        for when in 1..=40 {
            let pod = published(3, 10);
            let root = pod.volume.root();
            let attempt = killed(&pod, "a");
            age_all(&attempt, "2 hours ago");
            age_all(&root.join(".weightlift/owners"), "2 hours ago");
            let all = ["--yes", "--keep-revisions", "0"];
            let kill = format!("{call}:signal=KILL:when={when}");
            let run = straced(&prune(&root, &all), call, &[&kill]).run();
            if run.code == 0 {
                assert!(when > 1, "{call} is never made");
                break;
            }
            reached += 1;
            pod.volume.assert_holds("tiny", &revision(3));
            for kept in pod.kept().iter().filter(|it| !it.to_string_lossy().ends_with("~gone")) {
                weightlift().arg("verify").arg(kept).run().assert_success();
            }
            listed(&root);
            prune(&root, &all).run().assert_success();
            assert_eq!(pod.kept(), Vec::<PathBuf>::new(), "{call} {when}");
            pod.volume.assert_holds("tiny", &revision(3));
            pod.volume.assert_clean();
        }
    }
    assert!(reached > 12, "{reached}");
}

#[test]
fn several_may_prune_at_once_while_models_are_fetched() {
    let pod = published(5, 10);
    let root = pod.volume.root();
    killed(&pod, "a");
    pod.hub.move_branch(REPO, "main", revision(6));
    let running: Vec<Running> = (0..8)
        .map(|n| match n {
            0 => pod.fetch(&["hf://org/tiny"]).start(),
            1 => pod.fetch(&["hf://org/tiny", "new"]).start(),
            _ => prune(&root, &["--yes", "--older-than", "0s"]).start(),
        })
        .collect();
    running.into_iter().for_each(|it| drop(it.wait().assert_success()));
    pod.volume.assert_holds("tiny", &revision(6));
    pod.volume.assert_holds("new", &revision(6));
    prune(&root, &["--yes", "--older-than", "0s"]).run().assert_success();
    assert_eq!(left(&pod), [5]);
    pod.volume.assert_clean();
}

#[test]
fn what_cannot_be_removed_is_told_with_the_reason() {
    if !is_root() || !has("setpriv") {
        return;
    }
    let pod = published(3, 10);
    let root = pod.volume.root();
    let mounted = bound(&root);
    assert!(done(&["mount", "-o", "remount,bind,ro"], &root));
    let run = prune(&root, &["--yes", "--keep-revisions", "0"]).run();
    let dry = prune(&root, &["--keep-revisions", "0"]).run();
    drop(mounted);
    run.assert_code(14).assert_says("is read-only; mount it writable");
    assert_eq!(dry.assert_success().stdout.lines().count(), 2);
    // Another user's revision stays.
    for dir in ["", ".weightlift", ".weightlift/locks", ".weightlift/revisions/tiny"] {
        give(&root.join(dir), 65_532, 0o755);
    }
    std::fs::remove_file(root.join(".weightlift/locks/tiny.lock")).unwrap();
    let command = prune(&root, &["--yes", "--keep-revisions", "0"]);
    let run = as_user(&pod.volume, &command).run().assert_success();
    run.assert_says("belongs to another user, and stays");
    assert_eq!(left(&pod), [1, 2]);
}

#[test]
fn a_fetch_that_lacks_space_says_what_prune_can_free() {
    if !is_root() {
        return;
    }
    let pod = Pod::new();
    let root = pod.volume.root();
    let mounted = tmpfs(&root, "size=12m");
    let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let large = |n| Tree::new().with_blob("weights.bin", Blob::synthetic(3 << 20, n));
        let update = |n| {
            pod.hub.move_branch(REPO, "main", large(n));
            pod.fetch(&["hf://org/tiny", "--if-stale", "fail"]).run()
        };
        for n in 1..=2 {
            update(n).assert_success();
        }
        let other = Tree::new().with_blob("other.bin", Blob::synthetic(9 << 20, 7));
        pod.hub.move_branch(REPO, "other", other);
        let fetch = || pod.fetch(&["hf://org/tiny@other", "other"]).run();
        let run = fetch().assert_code(15);
        assert!(!run.stderr.contains("prune"), "nothing would go: {}", run.stderr);
        update(3).assert_success();
        let run = fetch().assert_code(15);
        let expected = format!("; `weightlift prune --root {}` can free 3.", root.display());
        assert!(run.last_line().contains(&expected), "{}", run.stderr);
        let dry = prune(&root, &["--output", "json"]).run().assert_success();
        let bytes: u64 = told(&dry).iter().map(|it| it["bytes"].as_u64().unwrap()).sum();
        assert!((3 << 20..4 << 20).contains(&bytes), "{bytes}");
        let mut command = pod.fetch(&["hf://org/tiny@other", "other"]);
        let run = command.args(["--log-format", "json"]).run().assert_code(15);
        let last: Value = serde_json::from_str(run.last_line()).unwrap();
        assert!(last["hint"].as_str().unwrap().contains("weightlift prune"), "{last}");
    }));
    drop(mounted);
    checked.unwrap();
}
