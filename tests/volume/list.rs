//! What lies on a volume, as `list` tells it: by looking only, whatever lies there.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::link::{Pod, age, revision};
use super::probe::{as_user, bound, done, tmpfs};
use crate::support::measure::with_peak_memory;
use crate::support::*;
use weightlift_fakes::{Blob, FakeHub, Fault, Rule, Tree};

pub fn list_of(root: &Path) -> Command {
    let mut command = weightlift();
    command.arg("list").arg("--root").arg(root);
    command
}

/// The lines of JSON on standard output, by family.
pub fn families(run: &Run) -> BTreeMap<String, Value> {
    let line = |line: &str| {
        let family: Value = serde_json::from_str(line).unwrap();
        (family["family"].as_str().unwrap().to_owned(), family)
    };
    run.stdout.lines().map(line).collect()
}

pub fn listed(root: &Path) -> BTreeMap<String, Value> {
    families(&list_of(root).args(["--output", "json"]).run().assert_success())
}

/// Every name below `root` with what a write would change.
pub fn looks(root: &Path) -> BTreeMap<PathBuf, (u64, u64, i64, i64, u64)> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(path) = open.pop() {
        let meta = path.symlink_metadata().unwrap();
        let changed = (meta.ctime(), meta.ctime_nsec());
        found.insert(path.clone(), (meta.ino(), meta.len(), changed.0, changed.1, meta.nlink()));
        if meta.is_dir() {
            open.extend(self::list(&path));
        }
    }
    found
}

/// What a slow fetch is of: nothing of it is on the volume, under whatever name.
pub fn slow_tree() -> Tree {
    let tree = revision(9).with_blob("weights.bin", Blob::synthetic(300_000, 901));
    tree.with_blob("same.bin", Blob::synthetic(200_000, 902))
}

/// Begins to fetch that to `family` from a slow server.
pub fn slow_fetch(pod: &Pod, family: &str) -> Running {
    pod.hub.script(Rule::on("GET", "").at("cdn").then(Fault::Drip { bytes_per_second: 20_000 }));
    pod.hub.move_branch(REPO, "slow", slow_tree());
    let running = pod.fetch(&["hf://org/tiny@slow", family]).start();
    let attempt = format!("/{family}~");
    eventually("it has begun", || {
        let is_it = |path: &PathBuf| path.to_string_lossy().contains(&attempt);
        pod.volume.attempts().iter().any(|path| is_it(path) && path.join("owner.json").exists())
    });
    running
}

#[test]
fn list_tells_of_each_model_what_it_shows_what_is_kept_and_who_is_at_work() {
    let pod = Pod::new();
    let root = pod.volume.root();
    let one = pod.hub.commit(REPO);
    pod.publish(1);
    let two = pod.publish(2);
    age(&pod.kept()[0], 49);
    pod.fetch(&["hf://org/tiny", "emb/b"]).run().assert_success();
    std::fs::create_dir(root.join("filled")).unwrap();
    pod.fetch(&["hf://org/tiny", "filled"]).run().assert_success();
    std::fs::create_dir(root.join("mine")).unwrap();
    std::fs::write(root.join("mine/notes"), "x").unwrap();
    let running = slow_fetch(&pod, "c");
    eventually("its heartbeat says how much there is", || {
        listed(&root)["c"]["attempts"][0]["total_bytes"] == 500_000 + 15
    });

    let found = listed(&root);
    let names: Vec<&str> = found.keys().map(String::as_str).collect();
    assert_eq!(names, ["c", "emb/b", "filled", "tiny"]);
    let tiny = &found["tiny"];
    let told = |name: &str| tiny[name].clone();
    assert_eq!(told("status"), "published");
    assert_eq!(told("path"), root.join("tiny").to_str().unwrap());
    assert_eq!((told("source"), told("revision")), ("hf://org/tiny".into(), two.as_str().into()));
    assert_eq!(told("requested_revision"), "main");
    assert_eq!(told("files"), 3);
    assert_eq!(told("total_bytes"), 500_000 + 15);
    assert!(told("age_seconds").as_u64().unwrap() < 600, "{tiny}");
    assert!(told("free_bytes").as_u64().unwrap() > 0, "{tiny}");
    assert_eq!(told("problems"), Value::Array(vec![]));
    let shown = std::fs::canonicalize(root.join("tiny")).unwrap();
    assert_eq!(told("revision_path"), shown.to_str().unwrap());
    let kept = &tiny["kept"][0];
    assert_eq!((&kept["revision"], &kept["files"]), (&one.as_str().into(), &3.into()));
    assert_eq!(kept["total_bytes"], 500_000 + 15);
    assert_eq!(kept["path"], pod.kept()[0].to_str().unwrap());
    // One file is that of the revision which is shown as well.
    let frees = kept["frees_bytes"].as_u64().unwrap();
    assert!((300_000..400_000).contains(&frees), "{kept}");
    let hours = kept["age_seconds"].as_u64().unwrap() / 3_600;
    assert_eq!((hours, tiny["kept"].as_array().unwrap().len()), (49, 1));
    assert_eq!(found["filled"]["status"], "published");
    assert!(found["filled"].get("revision_path").is_none());

    let c = &found["c"];
    assert_eq!((&c["status"], c.get("source")), (&"absent".into(), None));
    let attempt = &c["attempts"][0];
    assert_eq!(attempt["state"], "working");
    assert!(attempt["pod"].as_str().is_some_and(|pod| !pod.is_empty()), "{attempt}");
    assert_eq!(attempt["total_bytes"], 500_000 + 15);
    assert!(attempt["age_seconds"].as_u64().unwrap() < 30, "{attempt}");
    assert!(attempt["bytes"].as_u64().unwrap() > 0, "{attempt}");

    let run = list_of(&root).run().assert_success();
    let short = &two[..12];
    let line = format!("tiny: hf://org/tiny at {short}, 3 files, 500.0 kB, published ");
    assert!(run.stdout.contains(&line), "{}", run.stdout);
    let line = format!(": hf://org/tiny at {}, 3 files, 500.0 kB, frees ", &one[..12]);
    assert!(run.stdout.contains(&line), "{}", run.stdout);
    assert!(run.stdout.contains(", replaced 2 days ago\n"), "{}", run.stdout);
    assert!(run.stdout.contains("c: holds no model\n  attempt c~"), "{}", run.stdout);
    assert!(run.stdout.contains(", by pod "), "{}", run.stdout);
    let last = run.last_line();
    assert!(last.contains("holds 3 models (1.5 MB), 1 kept revision (500.0 kB), 1 "), "{last}");
    assert!(last.ends_with(" free"), "{last}");

    running.signal("-KILL");
    running.wait();
    let found = listed(&root);
    assert_eq!(found["c"]["attempts"][0]["state"], "gone");
}

#[test]
fn a_model_whose_link_was_removed_is_told_by_what_is_kept() {
    let pod = Pod::new();
    pod.publish(1);
    let two = pod.publish(2);
    std::fs::remove_file(pod.volume.family("tiny")).unwrap();
    let found = listed(&pod.volume.root());
    let tiny = &found["tiny"];
    assert_eq!((&tiny["status"], tiny.get("revision")), (&"absent".into(), None));
    assert_eq!(tiny["kept"].as_array().unwrap().len(), 2);
    assert_eq!(tiny["kept"][0]["revision"], two.as_str());
}

#[test]
fn list_writes_nothing_also_where_nothing_can_be_written() {
    let pod = Pod::new();
    let root = pod.volume.root();
    for n in [1, 2] {
        pod.publish(n);
    }
    pod.fetch(&["hf://org/tiny", "a/b"]).run().assert_success();
    std::fs::create_dir(root.join("filled")).unwrap();
    pod.fetch(&["hf://org/tiny", "filled"]).run().assert_success();
    let (before, told) = (looks(&root), listed(&root));
    assert_eq!(looks(&root), before);
    if !is_root() {
        return;
    }
    let mounted = bound(&root);
    assert!(done(&["mount", "-o", "remount,bind,ro"], &root));
    let read_only = std::panic::catch_unwind(|| listed(&root));
    drop(mounted);
    let names = |told: BTreeMap<String, Value>| {
        let short = |(name, it): (String, Value)| (name, it["status"].clone(), it["kept"].clone());
        told.into_iter().map(short).collect::<Vec<_>>()
    };
    let without_ages = |text: String| {
        let end = |rest: &str| rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let mut parts = text.split("age_seconds\":");
        let first = parts.next().unwrap().to_owned();
        parts.fold(first, |all, part| all + &part[end(part)..])
    };
    let [one, other] = [told, read_only.unwrap()]
        .map(|it| without_ages(serde_json::to_string(&names(it)).unwrap()));
    assert_eq!(one, other);
}

#[test]
fn what_may_not_be_read_is_told_and_the_rest_is_listed() {
    if !is_root() || !has("setpriv") {
        return;
    }
    let pod = Pod::new();
    let root = pod.volume.root();
    for n in [1, 2] {
        pod.publish(n);
    }
    pod.fetch(&["hf://org/tiny", "other"]).run().assert_success();
    let close = |path: &Path| {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o700)).unwrap();
    };
    std::fs::create_dir(root.join("secret")).unwrap();
    close(&root.join("secret"));
    close(&pod.kept()[0]);
    let shown = std::fs::canonicalize(root.join("other")).unwrap();
    close(&shown);
    let mut command = list_of(&root);
    command.args(["--output", "json"]);
    let run = as_user(&pod.volume, &command).run().assert_success();
    run.last_line().strip_suffix("; 2 not read").expect(&run.stderr);
    let found = families(&run);
    assert_eq!(found["tiny"]["status"], "published");
    assert_eq!(found["tiny"]["kept"], Value::Array(vec![]));
    let problem = found["tiny"]["problems"][0].as_str().unwrap();
    assert!(problem.contains("Permission denied"), "{problem}");
    assert_eq!(found["other"]["status"], "unreadable");
    let run = run.assert_says("warning: cannot ").assert_says("/secret");
    // And where the whole working area is closed.
    close(&root.join(".weightlift"));
    let closed = as_user(&pod.volume, &command).run().assert_success();
    assert_eq!(families(&closed).keys().count(), 2, "{}", closed.stderr);
    drop(run);
}

#[test]
fn hostile_contents_are_survived_in_little_memory() {
    let pod = Pod::new();
    let root = pod.volume.root();
    pod.publish(1);
    pod.publish(2);
    let state = root.join(".weightlift");
    let revisions = state.join("revisions");
    for name in ["bad\u{1b}[2J", "bad\n", "b\u{202e}ad", "%2F", "%2F..%2Fetc", "..%2F..%2Fetc"] {
        std::fs::create_dir(root.join(name)).unwrap();
        std::fs::create_dir_all(revisions.join(name).join("id\u{1b}[2J")).unwrap();
        std::fs::create_dir_all(state.join("attempts").join(format!("{name}~0123456789abcdef")))
            .unwrap();
    }
    // Names that are no text, loops, links that lead away, pipes.
    std::fs::create_dir(
        root.join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"\xff\xfe")),
    )
    .unwrap();
    symlink(".", root.join("loop")).unwrap();
    symlink("/", root.join("away")).unwrap();
    symlink("/etc/.weightlift/revisions/x/../../../..", root.join("x")).unwrap();
    symlink(".weightlift/revisions/tiny/..", root.join("up")).unwrap();
    let kept = pod.kept()[0].clone();
    let sentinel = kept.join(".weightlift-complete.json");
    let text = std::fs::read_to_string(&sentinel).unwrap();
    let at = |name: &str| {
        let dir = revisions.join("tiny").join(name);
        std::fs::create_dir(&dir).unwrap();
        dir.join(".weightlift-complete.json")
    };
    assert!(done(&["mkfifo"], &at("pipe")));
    symlink("/etc/passwd", at("link")).unwrap();
    std::fs::File::create(at("sparse")).unwrap().set_len(300 << 20).unwrap();
    let long = format!("\"source\": \"{}", "x".repeat(100 << 20));
    std::fs::write(at("long"), text.replacen("\"source\": \"", &long, 1)).unwrap();
    std::fs::write(at("deep"), "[".repeat(50 << 20)).unwrap();
    std::fs::write(
        at("many"),
        text.replacen("\"files\": [", &format!("\"files\": [{}", "\"\",".repeat(20 << 20)), 1),
    )
    .unwrap();
    let forged = text.replace("hf://org/tiny", "hf://\\u001b[2J\\u202e");
    std::fs::write(at("forged"), forged).unwrap();
    // As on a volume that is used for other things too.
    for n in 0..3_000 {
        std::fs::create_dir(root.join(format!("mine-{n}"))).unwrap();
        std::fs::create_dir_all(revisions.join("many").join(format!("none-{n}"))).unwrap();
    }
    let mut command = list_of(&root);
    command.args(["--output", "json"]);
    let (run, peak) = with_peak_memory(&mut command);
    let run = run.assert_success();
    assert!(peak < 64 << 20, "{} MiB", peak >> 20);
    let found = families(&run);
    let tiny = &found["tiny"];
    assert_eq!(tiny["status"], "published");
    let kept: Vec<&str> =
        tiny["kept"].as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap()).collect();
    assert_eq!(kept.len(), 3, "{kept:?}");
    assert!(kept.contains(&"forged") && kept.contains(&"many"), "{kept:?}");
    for (bad, says) in
        [("sparse", "more than weightlift reads"), ("long", ""), ("deep", ""), ("pipe", "")]
    {
        let is_it = |it: &&Value| it.as_str().unwrap().contains(&format!("/{bad}"));
        let problem = tiny["problems"].as_array().unwrap().iter().find(is_it);
        assert!(problem.is_some_and(|it| it.as_str().unwrap().contains(says)), "{bad}");
    }
    list_of(&root).run().assert_success();
    assert!(!found.contains_key("away") && !found.contains_key("loop"), "{:?}", found.keys());
}

#[test]
fn volumes_that_are_mounted_below_the_root_are_listed_with_it() {
    if !is_root() {
        return;
    }
    let pod = Pod::new();
    let (root, inner) = (pod.volume.root(), pod.volume.root().join("team"));
    pod.publish(1);
    let mounted = tmpfs(&inner, "size=16m");
    let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        pod.fetch(&["hf://org/tiny", "team/a"]).run().assert_success();
        // Somebody has used a directory of it as a root.
        let nested = inner.join("nested");
        std::fs::create_dir(&nested).unwrap();
        let mut command = weightlift();
        command.args(["fetch", "hf://org/tiny", "e/f", "--root"]).arg(&nested);
        command.env("HF_ENDPOINT", pod.hub.url()).run().assert_success();
        let found = listed(&root);
        let names: Vec<&str> = found.keys().map(String::as_str).collect();
        assert_eq!(names, ["team/a", "team/nested/e/f", "tiny"]);
        assert!(found.values().all(|it| it["status"] == "published"), "{found:?}");
        assert!(found["team/a"]["free_bytes"].as_u64().unwrap() < 16 << 20);
        assert_eq!(listed(&inner).len(), 2);
    }));
    drop(mounted);
    checked.unwrap();
}

#[test]
fn a_root_that_is_none_is_told() {
    let pod = Pod::new();
    pod.publish(1);
    let root = pod.volume.root();
    list_of(&root.join("none")).run().assert_code(10).assert_says("does not exist");
    list_of(&root.join("tiny")).run().assert_code(2).assert_says("is a model, not a root");
    std::fs::write(root.join("file"), "x").unwrap();
    list_of(&root.join("file")).run().assert_code(14);
    let empty = pod.volume.path("empty");
    std::fs::create_dir(&empty).unwrap();
    let run = list_of(&empty).run().assert_success();
    assert_eq!(run.stdout, "");
    assert!(run.last_line().contains("holds 0 models"), "{}", run.stderr);
    // A directory that is filled in place is one as well.
    let hub = FakeHub::serving(REPO, revision(1));
    let alone = pod.volume.path("alone");
    std::fs::create_dir(&alone).unwrap();
    let mut command = weightlift();
    command.args(["fetch", "hf://org/tiny"]).arg(&alone).env("HF_ENDPOINT", hub.url());
    command.run().assert_success();
    let found = listed(&alone);
    assert_eq!(found["."]["status"], "published", "{found:?}");
}
