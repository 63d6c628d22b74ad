//! A server that is led to one revision by a link of its pod, whatever the model directory shows.

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use serde_json::Value;

use super::probe::{bound, done, tmpfs};
use crate::support::process::straced;
use crate::support::*;
use weightlift_fakes::{Blob, FakeHub, Fault, Rule, Tree};

/// Each revision shares a file with all others.
pub(super) fn revision(n: u64) -> Tree {
    Tree::new()
        .with("config.json", format!("{{\"revision\": {n}}}"))
        .with_blob("weights.bin", Blob::synthetic(300_000, n))
        .with_blob("same.bin", Blob::synthetic(200_000, 77))
}

/// A pod: a Hub, a volume, and an emptyDir of its own.
pub(super) struct Pod {
    pub(super) hub: FakeHub,
    pub(super) volume: Volume,
}

impl Pod {
    pub(super) fn new() -> Self {
        let (hub, volume) = (FakeHub::serving(REPO, revision(1)), Volume::in_memory());
        std::fs::create_dir(volume.path("pod")).unwrap();
        Self { hub, volume }
    }

    fn link(&self) -> PathBuf {
        self.volume.path("pod/current")
    }

    pub(super) fn fetch(&self, arguments: &[&str]) -> Command {
        fetch(&self.hub, &self.volume, arguments)
    }

    fn linked(&self, source: &str) -> Run {
        self.fetch(&[source, "--link", self.link().to_str().unwrap()]).run()
    }

    pub(super) fn publish(&self, n: u64) -> String {
        let commit = self.hub.move_branch(REPO, "main", revision(n));
        self.fetch(&["hf://org/tiny"]).run().assert_success();
        self.volume.assert_holds("tiny", &revision(n));
        commit
    }

    pub(super) fn kept(&self) -> Vec<PathBuf> {
        let shown = std::fs::canonicalize(self.volume.family("tiny")).unwrap();
        let all = list(&self.volume.root().join(".weightlift/revisions/tiny"));
        all.into_iter().filter(|path| *path != shown).collect()
    }

    /// Publishes as where there are no links: the family is a directory, as of an earlier version.
    pub(super) fn publish_directory(&self) {
        let command = self.fetch(&["hf://org/tiny"]);
        straced(&command, "symlinkat", &["symlinkat:error=EPERM"]).run().assert_success();
        assert!(!self.volume.family("tiny").is_symlink());
    }
}

fn pinned(commit: &str) -> String {
    format!("hf://org/tiny@{commit}")
}

fn json(run: &Run) -> Value {
    serde_json::from_str(&run.stdout).unwrap()
}

#[test]
fn a_link_leads_to_a_path_that_goes_on_to_show_its_revision() {
    let pod = Pod::new();
    let link = pod.link();
    let run = pod.linked("hf://org/tiny").assert_success();
    assert_eq!(run.stdout, format!("{}\n", link.display()), "what is to be loaded");
    let first = std::fs::read_link(&link).unwrap();
    assert!(first.starts_with(pod.volume.root().join(".weightlift/revisions/tiny")), "{first:?}");
    run.assert_says(&format!("`{}` leads to `{}`", link.display(), first.display()));
    assert_tree(&link, &revision(1));
    pod.publish(2);
    assert_tree(&link, &revision(1));
    let arguments = ["hf://org/tiny", "--output", "json", "--link", link.to_str().unwrap()];
    let told = json(&pod.fetch(&arguments).run().assert_success());
    assert_eq!(told["path"], pod.volume.family("tiny").to_str().unwrap());
    assert_eq!(told["link"], link.to_str().unwrap());
    let second = std::fs::read_link(&link).unwrap();
    assert_eq!(told["revision_path"], second.to_str().unwrap());
    assert_ne!(first, second);
    assert_tree(&link, &revision(2));
    assert_tree(&first, &revision(1));
    // Who asks for no link is told the path all the same.
    let told = json(&pod.fetch(&["hf://org/tiny", "--output", "json"]).run().assert_success());
    assert_eq!(
        (&told["revision_path"], told.get("link")),
        (&second.to_str().unwrap().into(), None)
    );
    assert_eq!(list(&pod.volume.path("pod")), [link], "something is left beside it");
}

#[test]
fn two_pins_get_their_own_and_never_flip_what_is_shown() {
    let pod = Pod::new();
    let (one, two) = (pod.hub.commit(REPO), pod.publish(2));
    let links = [pod.volume.path("pod/a"), pod.volume.path("pod/b")];
    let run = |n: usize| {
        let (pin, link) = ([&one, &two][n], links[n].to_str().unwrap());
        pod.fetch(&[&pinned(pin), "--link", link]).run().assert_success()
    };
    run(0);
    run(1);
    let shown = std::fs::read_link(pod.volume.family("tiny")).unwrap();
    pod.volume.assert_holds("tiny", &revision(1));
    let own = links.clone().map(|link| std::fs::read_link(link).unwrap());
    pod.hub.log().clear();
    for round in 0..10 {
        for n in [round % 2, 1 - round % 2] {
            run(n).assert_says("nothing to do");
            assert_eq!(std::fs::read_link(&links[n]).unwrap(), own[n]);
            assert_tree(&links[n], &revision(n as u64 + 1));
            assert_eq!(std::fs::read_link(pod.volume.family("tiny")).unwrap(), shown);
        }
    }
    assert_eq!(pod.hub.requests().len(), 0);
    // At once, and where the Hub may not be asked.
    let running = [0, 1, 0, 1].map(|n| {
        let link = links[n].to_str().unwrap();
        let mut command = pod.fetch(&[&pinned([&one, &two][n]), "--link", link]);
        command.env("HF_HUB_OFFLINE", "1").start()
    });
    running.into_iter().for_each(|it| drop(it.wait().assert_success()));
    assert_eq!(links.map(|link| std::fs::read_link(link).unwrap()), own);
    assert_eq!(std::fs::read_link(pod.volume.family("tiny")).unwrap(), shown);
    // The others are not held up by whoever has the lock, nor do they wait for it.
    assert_eq!(pod.kept().len(), 1);
    pod.volume.assert_clean();
}

/// Pods of two ReplicaSets, and one that follows the branch, each with a link of its own.
struct Rollout<'a> {
    pod: &'a Pod,
    layout: &'a [&'static str],
    /// What each is told to fetch.
    sources: [Vec<String>; 3],
}

impl Rollout<'_> {
    fn link(&self, n: usize) -> PathBuf {
        self.pod.volume.path(&format!("pod/{n}"))
    }

    /// Starts the pod `n` again; the link must lead to `tree`.
    #[track_caller]
    fn starts(&self, n: usize, tree: &Tree) -> Run {
        let source: Vec<&str> = self.sources[n].iter().map(String::as_str).collect();
        let link = self.link(n);
        let arguments = [&source, self.layout, &["--link", link.to_str().unwrap()]].concat();
        let run = self.pod.fetch(&arguments).run().assert_success();
        for (name, blob) in tree.iter() {
            assert!(std::fs::read(link.join(name)).unwrap() == blob.to_vec(), "{n}: {name}");
        }
        run
    }
}

#[test]
fn pods_of_two_replica_sets_restart_in_turn_and_each_reads_its_own() {
    let cache = ["--layout", "hf-cache"];
    for (what, layout) in [("pairs", &[][..]), ("models", &[]), ("cache", &cache[..])] {
        let pod = Pod::new();
        let one = pod.hub.commit(REPO);
        let two = pod.hub.move_branch(REPO, "main", revision(2));
        let list = |n: usize, source: &str| {
            let file = pod.volume.path(&format!("models-{n}.yaml"));
            let yaml = format!(
                "version: 1\nmodels:\n- {{name: tiny, source: '{source}'}}\n\
                 - {{name: other, source: 'hf://org/other'}}\n"
            );
            std::fs::write(&file, yaml).unwrap();
            ["--models", file.to_str().unwrap(), "--only", "tiny"].map(str::to_owned).to_vec()
        };
        let sources = [pinned(&one), pinned(&two), "hf://org/tiny".to_owned()];
        let sources = match what {
            "models" => [list(0, &sources[0]), list(1, &sources[1]), list(2, &sources[2])],
            _ => sources.map(|source| vec![source]),
        };
        let pods = Rollout { pod: &pod, layout, sources };
        let trees = [revision(1), revision(2), revision(2)];
        // What those see that have no link: the family, or the name in the cache.
        let shown = || match layout {
            [] => std::fs::read_link(pod.volume.family("tiny")).unwrap(),
            _ => {
                let name = pod.volume.root().join("hub/models--org--tiny/refs/main");
                std::fs::read_to_string(name).unwrap_or_default().into()
            }
        };
        pods.starts(0, &trees[0]);
        // While the new one is fetched, an old one starts without waiting for it.
        let slow = Fault::Drip { bytes_per_second: 200_000 };
        pod.hub.script(Rule::on("GET", "").at("cdn").then(slow));
        std::thread::scope(|scope| {
            let new = scope.spawn(|| pods.starts(1, &trees[1]));
            eventually("the new one is fetched", || pod.hub.bytes_sent_for("xet-bridge") > 0);
            pods.starts(0, &trees[0]).assert_says("nothing to do");
            assert!(!new.is_finished(), "{what}");
            new.join().unwrap();
        });
        pod.hub.clear_script();
        pods.starts(2, &trees[2]);
        let (before, own) = (shown(), [0, 1, 2].map(|n| std::fs::read_link(pods.link(n)).unwrap()));
        assert_ne!(own[0], own[1], "{what}");
        pod.hub.log().clear();
        for n in [0, 1, 2, 0, 2, 1, 0, 0, 1, 2] {
            pods.starts(n, &trees[n]).assert_says("nothing to do");
            assert_eq!(shown(), before, "{what}: the pod {n} has changed what is shown");
            assert_eq!(std::fs::read_link(pods.link(n)).unwrap(), own[n], "{what}");
        }
        assert_eq!(pod.hub.count("*", "/resolve/") + pod.hub.count("*", "/tree/"), 0, "{what}");
        // Who only waits is led to the one that it expects, whatever is shown.
        let at = match layout {
            [] => pod.volume.family("tiny"),
            _ => pod.volume.root().join("hub/models--org--tiny"),
        };
        for (n, commit) in [(0, &one), (1, &two), (0, &one)] {
            let mut command = weightlift();
            command.arg("wait").arg(&at).arg("--link").arg(pods.link(n));
            command.args(["--timeout", "1s", "--expect-revision", commit]).run().assert_success();
            assert_eq!(std::fs::read_link(pods.link(n)).unwrap(), own[n], "{what}");
            assert_eq!(shown(), before, "{what}");
        }
    }
}

#[test]
fn without_a_link_another_pin_is_shown_again_from_what_is_kept() {
    let pod = Pod::new();
    let (one, two) = (pod.hub.commit(REPO), {
        pod.publish(1);
        pod.publish(2)
    });
    pod.hub.log().clear();
    for (pin, n) in [(&one, 1), (&two, 2), (&one, 1)] {
        let run = pod.fetch(&[&pinned(pin), "--output", "json"]).run().assert_success();
        let told = json(&run);
        assert_eq!((&told["status"], &told["fetched_bytes"]), (&"restored".into(), &0.into()));
        assert_eq!(told["revision"], pin.as_str());
        pod.volume.assert_holds("tiny", &revision(n));
        assert_eq!(pod.kept().len(), 1);
        pod.volume.assert_clean();
    }
    assert_eq!(pod.hub.requests().len(), 0);
}

#[test]
fn whoever_removes_the_directory_gets_bytes_that_have_been_looked_at() {
    let pod = Pod::new();
    pod.publish(1);
    let family = pod.volume.family("tiny");
    let bad = family.join("weights.bin");
    let mut bytes = std::fs::read(&bad).unwrap();
    bytes[1000] ^= 1;
    std::fs::write(&bad, bytes).unwrap();
    weightlift().arg("verify").arg(&family).run().assert_code(12);
    std::fs::remove_file(&family).unwrap();
    pod.hub.log().clear();
    for source in ["hf://org/tiny", &pinned(&pod.hub.commit(REPO))] {
        pod.fetch(&[source]).run().assert_success();
        pod.volume.assert_holds("tiny", &revision(1));
    }
    assert_eq!(pod.hub.count("GET", "config.json"), 0, "what was right is used again");
}

#[test]
fn a_branch_that_goes_back_fetches_no_byte_again() {
    let pod = Pod::new();
    for n in [1, 2] {
        pod.publish(n);
    }
    pod.hub.log().clear();
    pod.publish(1);
    pod.publish(2);
    assert_eq!(pod.hub.count("*", "/resolve/"), 0);
    assert_eq!(pod.kept().len(), 1);
    // A third one that is half of the first.
    let mixed = revision(2).with_blob("weights.bin", Blob::synthetic(300_000, 1)).with("new", "n");
    pod.hub.move_branch(REPO, "main", mixed.clone());
    pod.fetch(&["hf://org/tiny"]).run().assert_success();
    pod.volume.assert_holds("tiny", &mixed);
    assert_eq!(pod.hub.count("*", "weights.bin"), 0, "it lies in a kept revision");
}

#[test]
fn where_there_are_no_links_kept_files_are_used_again() {
    if !has("strace") {
        return;
    }
    let pod = Pod::new();
    let one = pod.hub.commit(REPO);
    let run = |arguments: &[&str]| {
        let command = pod.fetch(arguments);
        straced(&command, "symlinkat", &["symlinkat:error=EPERM"]).run().assert_success()
    };
    run(&["hf://org/tiny"]);
    pod.hub.move_branch(REPO, "main", revision(2));
    run(&["hf://org/tiny"]);
    pod.hub.log().clear();
    run(&[&pinned(&one)]);
    pod.volume.assert_holds("tiny", &revision(1));
    assert_eq!(pod.hub.count("*", "weights.bin") + pod.hub.count("*", "config.json"), 0);
    pod.hub.move_branch(REPO, "main", revision(2));
    run(&["hf://org/tiny"]);
    pod.volume.assert_holds("tiny", &revision(2));
    assert_eq!(pod.hub.count("*", "weights.bin") + pod.hub.count("*", "config.json"), 0);
}

#[test]
fn a_link_that_would_harm_is_refused_before_anything_is_asked() {
    let pod = Pod::new();
    let place = |name: &str| pod.volume.path(name);
    std::fs::write(place("pod/file"), "mine").unwrap();
    std::fs::create_dir(place("pod/directory")).unwrap();
    symlink("/etc", place("pod/foreign")).unwrap();
    std::fs::create_dir_all(pod.volume.root().join("a")).unwrap();
    symlink(pod.volume.root(), place("pod/volume")).unwrap();
    for (path, code, says) in [
        (place("pod/file"), 16, "is a file"),
        (place("pod/directory"), 16, "is a directory"),
        (place("pod/foreign"), 16, "a link to `/etc`"),
        (place("nothing/current"), 14, "does not exist"),
        (pod.volume.root().join("current"), 2, "other pods"),
        (pod.volume.root().join("tiny"), 2, "in the way of the model"),
        (pod.volume.root().join("tiny/current"), 2, "in the way of the model"),
        (pod.volume.root().join(".weightlift/x"), 2, "own directory"),
        (place("pod/volume/current"), 2, "other pods"),
        (pod.volume.root(), 2, "in the way of the model"),
    ] {
        let run = pod.fetch(&["hf://org/tiny", "--link", path.to_str().unwrap()]).run();
        assert_eq!(run.code, code, "{path:?}: {}", run.stderr);
        assert!(run.last_line().contains(says), "{path:?}: {}", run.stderr);
    }
    let link = pod.link();
    let several = ["hf://org/tiny", "a/b", "hf://org/tiny", "c", "--link", link.to_str().unwrap()];
    pod.fetch(&several).run().assert_code(2).assert_says("one by one");
    pod.fetch(&["hf://org/tiny", "--link", link.to_str().unwrap(), "--link-root", "x"])
        .run()
        .assert_code(2);
    assert_eq!(pod.hub.requests().len(), 0);
    assert_eq!(std::fs::read_to_string(place("pod/file")).unwrap(), "mine");
    assert_eq!(std::fs::read_link(place("pod/foreign")).unwrap(), Path::new("/etc"));
    // What a run of before has left there is replaced.
    for target in [
        "/elsewhere/.weightlift/revisions/tiny/0123".into(),
        pod.volume.family("gone").display().to_string(),
    ] {
        let _ = std::fs::remove_file(&link);
        symlink(target, &link).unwrap();
        pod.linked("hf://org/tiny").assert_success();
        assert_tree(&link, &revision(1));
    }
}

#[test]
fn a_directory_of_an_earlier_version_becomes_a_link_without_a_byte() {
    if !has("strace") {
        return;
    }
    for pin in [false, true] {
        let pod = Pod::new();
        pod.publish_directory();
        let inode = |path: PathBuf| std::os::unix::fs::MetadataExt::ino(&path.metadata().unwrap());
        let before = inode(pod.volume.family("tiny/weights.bin"));
        pod.hub.log().clear();
        let source = if pin { pinned(&pod.hub.commit(REPO)) } else { "hf://org/tiny".into() };
        let run = pod.linked(&source).assert_success().assert_says("nothing to do");
        assert!(!run.stderr.contains("warning"), "{}", run.stderr);
        assert!(pod.volume.family("tiny").is_symlink());
        assert_eq!(inode(pod.link().join("weights.bin")), before);
        weightlift().arg("verify").arg(pod.link()).run().assert_success();
        pod.volume.assert_clean();
        assert_eq!(pod.hub.count("*", "/resolve/"), 0);
        pod.publish(2);
        assert_tree(&pod.link(), &revision(1));
    }
}

#[test]
fn where_no_path_can_be_given_the_link_leads_to_the_directory_and_that_is_said() {
    if !is_root() || !has("strace") {
        return;
    }
    // There are no links on the volume; it is read-only; the directory is filled in place.
    for way in ["no links", "read-only", "in place"] {
        let pod = Pod::new();
        let family = pod.volume.family("tiny");
        if way == "in place" {
            std::fs::create_dir_all(&family).unwrap();
            pod.fetch(&["hf://org/tiny"]).run().assert_success();
        } else {
            pod.publish_directory();
        }
        let command = pod.fetch(&["hf://org/tiny", "--link", pod.link().to_str().unwrap()]);
        let run = match way {
            // The third is that of the pod.
            "no links" => straced(&command, "symlinkat", &["symlinkat:error=EPERM:when=1"]).run(),
            "read-only" => {
                let mounted = bound(&pod.volume.root());
                assert!(done(&["mount", "-o", "remount,bind,ro"], &pod.volume.root()));
                let mut command = command;
                let run = command.run();
                drop(mounted);
                run
            }
            _ => {
                let mut command = command;
                command.run()
            }
        };
        let run = run.assert_success().assert_says("has no path that never changes");
        assert_eq!(std::fs::read_link(pod.link()).unwrap(), family, "{way}: {}", run.stderr);
        assert!(!family.is_symlink(), "{way}");
        pod.volume.assert_holds("tiny", &revision(1));
    }
}

#[test]
fn a_server_that_sees_the_volume_elsewhere_is_led_there() {
    let pod = Pod::new();
    let link = pod.link();
    let run = |dest: &str| {
        let arguments =
            ["hf://org/tiny", dest, "--link", link.to_str().unwrap(), "--link-root", "/models"];
        pod.fetch(&arguments).run().assert_success();
        std::fs::read_link(&link).unwrap()
    };
    let target = run("a/b");
    let below = target.strip_prefix("/models").unwrap();
    assert!(below.starts_with(".weightlift/revisions/a%2Fb"), "{target:?}");
    assert_tree(&pod.volume.root().join(below), &revision(1));
    // Another filesystem on the way is a root of its own, below the one that the server sees.
    if !is_root() {
        return;
    }
    let inner = pod.volume.family("team");
    let mounted = tmpfs(&inner, "size=16m");
    let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let target = run("team/b");
        let below = target.strip_prefix("/models").unwrap();
        assert!(below.starts_with("team/.weightlift/revisions/b"), "{target:?}");
        assert_tree(&pod.volume.root().join(below), &revision(1));
    }));
    drop(mounted);
    checked.unwrap();
}

#[test]
fn whoever_waits_is_led_to_the_revision_as_well() {
    let pod = Pod::new();
    let one = pod.hub.commit(REPO);
    let (family, link) = (pod.volume.family("tiny"), pod.link());
    let wait = |arguments: &[&str]| {
        let mut command = weightlift();
        command.arg("wait").arg(&family).args(["--output", "json", "--timeout", "1s", "--link"]);
        command.arg(&link).args(arguments).run()
    };
    wait(&[]).assert_code(23);
    assert!(link.symlink_metadata().is_err());
    pod.publish(1);
    let told = json(&wait(&["--expect-revision", &one]).assert_success());
    assert_eq!(told["link"], link.to_str().unwrap());
    assert_tree(&link, &revision(1));
    let two = pod.publish(2);
    assert_tree(&link, &revision(1));
    // The one that is kept, and the one that is shown.
    let told = json(&wait(&["--expect-revision", &one]).assert_success());
    assert_eq!(told["revision"], one.as_str());
    assert_eq!(told["revision_path"], std::fs::read_link(&link).unwrap().to_str().unwrap());
    assert_tree(&link, &revision(1));
    wait(&["--expect-revision", &two]).assert_success();
    assert_tree(&link, &revision(2));
    wait(&["--expect-revision", &"0".repeat(40)]).assert_code(23);
    // Without a link, what is shown is what counts.
    let mut command = weightlift();
    command.arg("wait").arg(&family).args(["--timeout", "1s", "--expect-revision", &one]);
    command.run().assert_code(23);
    std::fs::remove_file(&link).unwrap();
    std::fs::write(&link, "mine").unwrap();
    wait(&[]).assert_code(16);
    let mut command = weightlift();
    command.arg("wait").args([&family, &family]).arg("--link").arg(&link).run().assert_code(2);
}

#[test]
fn what_is_kept_and_damaged_is_not_used_if_it_is_rechecked() {
    let pod = Pod::new();
    let one = pod.hub.commit(REPO);
    pod.publish(1);
    pod.publish(2);
    let bad = pod.kept()[0].join("weights.bin");
    let mut bytes = std::fs::read(&bad).unwrap();
    bytes[1000] ^= 1;
    std::fs::write(&bad, bytes).unwrap();
    let link = pod.link();
    let arguments = [&pinned(&one), "--recheck", "--link", link.to_str().unwrap()];
    pod.fetch(&arguments).run().assert_success().assert_says("is damaged (`weights.bin`");
    assert_tree(&link, &revision(1));
    assert!(pod.hub.bytes_sent_for("weights.bin") + pod.hub.bytes_sent_for("xet-bridge") > 0);
}

/// Lets the kept revisions have been replaced so long ago.
pub(super) fn age(path: &Path, hours: u64) {
    let then = std::time::SystemTime::now() - Duration::from_secs(hours * 3_600);
    std::fs::File::open(path).unwrap().set_modified(then).unwrap();
}

#[test]
fn kept_revisions_go_by_count_and_age_and_no_others() {
    let pod = Pod::new();
    pod.publish(1);
    let update = |n: u64, arguments: &[&str]| {
        pod.hub.move_branch(REPO, "main", revision(n));
        let run = pod.fetch(&[&["hf://org/tiny"], arguments].concat()).run().assert_success();
        pod.volume.assert_holds("tiny", &revision(n));
        pod.volume.assert_clean();
        run
    };
    for n in 2..=4 {
        update(n, &[]);
    }
    let find = |n: u64| {
        pod.kept().into_iter().find(|path| {
            files_below(path).get("config.json")
                == Some(&revision(n).blob("config.json").unwrap().to_vec())
        })
    };
    let no_revision = pod.volume.root().join(".weightlift/revisions/tiny/no-revision");
    std::fs::create_dir(&no_revision).unwrap();
    std::fs::write(no_revision.join("x"), "x").unwrap();
    let outside = pod.volume.path("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("x"), "x").unwrap();
    symlink(&outside, find(1).unwrap().join("planted")).unwrap();
    for (n, hours) in [(1, 72), (2, 48), (3, 24)] {
        age(&find(n).unwrap(), hours);
    }
    age(&no_revision, 999);
    // Two are kept by their number, the others by their age.
    let run = update(5, &["--keep-revisions", "2", "--keep-for", "60h"]);
    run.assert_says("removed 1 kept revision of ");
    assert_eq!([1, 2, 3, 4].map(|n| find(n).is_some()), [false, true, true, true]);
    update(6, &["--keep-for", "30h"]);
    assert_eq!([2, 3, 4, 5].map(|n| find(n).is_some()), [false, true, true, true]);
    update(7, &["--keep-revisions", "1"]);
    assert_eq!([3, 4, 5, 6].map(|n| find(n).is_some()), [false, false, false, true]);
    assert!(no_revision.join("x").exists() && outside.join("x").exists());
    // A warm start removes nothing, and a run that is not told to neither.
    age(&find(6).unwrap(), 999);
    pod.fetch(&["hf://org/tiny", "--keep-revisions", "0"]).run().assert_success();
    update(8, &[]);
    assert_eq!([6, 7].map(|n| find(n).is_some()), [true, true]);
    weightlift().arg("verify").arg(pod.volume.family("tiny")).run().assert_success();
}

#[test]
fn the_age_of_a_revision_is_the_time_since_it_was_replaced() {
    let pod = Pod::new();
    pod.publish(1);
    // It has been served for a long time.
    age(&std::fs::canonicalize(pod.volume.family("tiny")).unwrap(), 999);
    pod.hub.move_branch(REPO, "main", revision(2));
    let keep = ["hf://org/tiny", "--keep-revisions", "0", "--keep-for", "1h"];
    pod.fetch(&keep).run().assert_success();
    assert_eq!(pod.kept().len(), 1);
}

#[test]
fn a_removal_of_a_kept_revision_that_is_killed_is_finished() {
    if !has("strace") {
        return;
    }
    for when in 1..=12 {
        let pod = Pod::new();
        pod.publish(1);
        pod.hub.move_branch(REPO, "main", revision(2));
        let command = pod.fetch(&["hf://org/tiny", "--keep-revisions", "0"]);
        let kill = format!("unlinkat:signal=KILL:when={when}");
        drop(straced(&command, "unlinkat", &[&kill]).run());
        for kept in pod.kept().iter().filter(|kept| !kept.to_string_lossy().ends_with("~gone")) {
            weightlift().arg("verify").arg(kept).run().assert_success();
        }
        // Half of it is not taken for the revision.
        let one = pinned(&pod.hub.move_branch(REPO, "old", revision(1)));
        pod.linked(&one).assert_success();
        assert_tree(&pod.link(), &revision(1));
        pod.hub.move_branch(REPO, "main", revision(3));
        pod.fetch(&["hf://org/tiny", "--keep-revisions", "0"]).run().assert_success();
        assert_eq!(pod.kept(), Vec::<PathBuf>::new(), "at {when}");
        pod.volume.assert_holds("tiny", &revision(3));
        pod.volume.assert_clean();
    }
}

const FILES: usize = 16;

/// Each of its files says which revision it is of.
fn marked(n: usize) -> Tree {
    let file = |tree: Tree, file: usize| {
        tree.with(&format!("{file}.json"), format!("revision {n}\n{}", "x".repeat(20_000)))
    };
    (0..FILES).fold(Tree::new(), file)
}

/// Opens the files one by one, as a server does, until `updates` have been made meanwhile; which revisions
/// were seen in each round.
fn read_slowly(dir: &Path, is_done: &dyn Fn() -> bool) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    for file in 0.. {
        let text = std::fs::read_to_string(dir.join(format!("{}.json", file % FILES))).unwrap();
        seen.insert(text.lines().next().unwrap().to_owned());
        if file + 1 >= FILES && is_done() {
            return seen;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    seen
}

/// Refreshes a model while two servers read it: through their link, and through the directory.
fn a_slow_server_sees_one_revision(kind: &str, volume: &Volume) {
    let hub = FakeHub::serving(REPO, marked(0));
    std::fs::create_dir(volume.path("pod")).unwrap();
    let link = volume.path("pod/current");
    let arguments = ["hf://org/tiny", "--link", link.to_str().unwrap()];
    fetch(&hub, volume, &arguments).run().assert_success();
    let refreshes = rounds(12);
    let done = AtomicBool::new(false);
    let (through_link, through_directory) = std::thread::scope(|scope| {
        let is_done = || done.load(SeqCst);
        let (link, family) = (link.clone(), volume.family("tiny"));
        let first = scope.spawn(move || read_slowly(&link, &is_done));
        let second = scope.spawn(move || read_slowly(&family, &is_done));
        for n in 1..=refreshes {
            hub.move_branch(REPO, "main", marked(n));
            fetch(&hub, volume, &["hf://org/tiny"]).run().assert_success();
        }
        done.store(true, SeqCst);
        (first.join().unwrap(), second.join().unwrap())
    });
    eprintln!(
        "{kind}: {refreshes} refreshes, {} revisions by the directory",
        through_directory.len()
    );
    assert_eq!(through_link, BTreeSet::from(["revision 0".to_owned()]), "{kind}");
    // Else the test could not fail.
    assert!(through_directory.len() > 1, "{kind}: {through_directory:?}");
}

#[test]
fn a_server_that_opens_its_files_one_by_one_sees_one_revision() {
    a_slow_server_sees_one_revision("here", &Volume::in_memory());
    for kind in ["ext4", "xfs"] {
        let mkfs = format!("mkfs.{kind}");
        if !is_root() || !has(&mkfs) {
            continue;
        }
        let volume = Volume::new();
        let (image, root) = (volume.path("image"), volume.root());
        std::fs::File::create(&image).unwrap().set_len(320 << 20).unwrap();
        std::fs::create_dir(&root).unwrap();
        assert!(Command::new(&mkfs).arg("-q").arg(&image).status().unwrap().success());
        if Command::new("mount").args(["-o", "loop"]).args([&image, &root]).run().code != 0 {
            skip(&format!("no image of {kind} can be mounted here"));
            continue;
        }
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            a_slow_server_sees_one_revision(kind, &volume);
        }));
        assert!(Command::new("umount").arg("-l").arg(&root).status().unwrap().success());
        if let Err(panic) = checked {
            std::panic::resume_unwind(panic);
        }
    }
}
