//! `--layout hf-cache`: a model in a cache of the Hub's own clients, where a server finds it by its repo.

use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::adopt_dir::{seen, sent, write};
use super::link::revision;
use super::probe::{bound, done};
use crate::support::process::straced;
use crate::support::*;
use weightlift_fakes::{Blob, FakeHub, Tree};

/// A Hub, and a volume that is some server's `HF_HOME`.
pub struct Home {
    pub hub: FakeHub,
    pub volume: Volume,
}

/// Files below directories, two with one content, and an empty one.
fn model() -> Tree {
    revision(1)
        .with("a/b/config.json", "{\"below\": 1}")
        .with("a/again.json", "{\"revision\": 1}")
        .with("empty.txt", "")
}

impl Home {
    pub fn of(tree: Tree) -> Self {
        Self { hub: FakeHub::serving(REPO, tree), volume: Volume::in_memory() }
    }

    fn new() -> Self {
        Self::of(model())
    }

    pub fn repo(&self) -> PathBuf {
        self.volume.root().join("hub/models--org--tiny")
    }

    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.repo().join("snapshots").join(commit)
    }

    fn named(&self, name: &str) -> String {
        std::fs::read_to_string(self.repo().join("refs").join(name)).unwrap_or_default()
    }

    pub fn fetch(&self, arguments: &[&str]) -> Command {
        let mut command = fetch(&self.hub, &self.volume, arguments);
        command.args(["--layout", "hf-cache"]);
        command
    }

    /// Fails unless `commit` is there as clients keep it, whole and right.
    #[track_caller]
    pub fn assert_holds(&self, commit: &str, tree: &Tree) {
        let snapshot = self.snapshot(commit);
        let found = files_below(&snapshot);
        let names: Vec<&str> = found.keys().map(String::as_str).collect();
        assert_eq!(names, tree.iter().map(|(name, _)| name).collect::<Vec<_>>());
        for (path, blob) in tree.iter() {
            assert!(found[path] == blob.to_vec(), "{path} differs");
            let name = if is_lfs(path) { blob.sha256() } else { blob.git_sha1() };
            let up = "../".repeat(path.split('/').count() + 1);
            let target = std::fs::read_link(snapshot.join(path)).unwrap();
            assert_eq!(target, Path::new(&format!("{up}blobs/{name}")), "{path}");
        }
        weightlift().arg("verify").arg(&snapshot).run().assert_success();
    }

    /// Fails if anything of an attempt is left.
    #[track_caller]
    pub fn assert_clean(&self) {
        self.volume.assert_clean();
        let mut names: Vec<String> = list(&self.repo())
            .iter()
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
            .collect();
        names.retain(|name| !["refs", "snapshots", "blobs", "trees"].contains(&name.as_str()));
        assert_eq!(names, [".weightlift-complete"]);
    }

    fn blobs(&self) -> BTreeSet<String> {
        let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        list(&self.repo().join("blobs")).iter().map(name).collect()
    }
}

fn is_lfs(path: &str) -> bool {
    path.ends_with(".bin")
}

fn pinned(commit: &str) -> String {
    format!("hf://org/tiny@{commit}")
}

fn json(run: &Run) -> Value {
    serde_json::from_str(&run.stdout).unwrap()
}

#[test]
fn a_model_lies_as_the_hubs_own_client_would_have_put_it() {
    let home = Home::new();
    let commit = home.hub.commit(REPO);
    let run = home.fetch(&["hf://org/tiny"]).run().assert_success();
    assert_eq!(run.stdout, format!("{}\n", home.snapshot(&commit).display()));
    home.assert_holds(&commit, &model());
    home.assert_clean();
    assert_eq!(home.named("main"), commit, "without a line end: clients read it as it is");
    let names = |of: &str| list(&home.volume.root().join(of)).len();
    assert_eq!((names(""), names("hub")), (2, 1), "`hub` and `.weightlift`, and the repo alone");
    assert_eq!(home.blobs().len(), 5, "one content is one blob");
    for blob in list(&home.repo().join("blobs")) {
        let mode = blob.symlink_metadata().unwrap().permissions().mode();
        assert!(mode & 0o777 == 0o444, "{mode:o}");
    }
    let told = json(&home.fetch(&["hf://org/tiny", "--output", "json"]).run().assert_success());
    assert_eq!(told["path"], home.snapshot(&commit).to_str().unwrap());
    assert_eq!((&told["status"], &told["revision"]), (&"present".into(), &commit.into()));
}

#[test]
fn a_warm_start_is_free_and_works_on_a_read_only_mount() {
    let home = Home::new();
    let commit = home.hub.commit(REPO);
    home.fetch(&[&pinned(&commit)]).run().assert_success();
    assert_eq!(home.named("main"), commit, "what a server asks for that is told nothing else");
    let before = seen(&home.volume.root());
    home.hub.log().clear();
    home.fetch(&[&pinned(&commit)]).run().assert_success().assert_says("nothing to do");
    let mut offline = home.fetch(&[&pinned(&commit)]);
    offline.env("HF_HUB_OFFLINE", "1").run().assert_success();
    assert_eq!(home.hub.requests().len(), 0);
    home.fetch(&["hf://org/tiny"]).run().assert_success().assert_says("nothing to do");
    assert_eq!(home.hub.requests().len(), 1);
    assert!(seen(&home.volume.root()) == before, "a warm start has written");
    if !is_root() {
        return;
    }
    let mounted = bound(&home.volume.root());
    assert!(done(&["mount", "-o", "remount,bind,ro"], &home.volume.root()));
    let run = home.fetch(&[&pinned(&commit)]).run();
    let (repo, snapshot) = (home.repo(), home.snapshot(&commit));
    let runs = ["verify", "wait"].map(|what| weightlift().arg(what).args([&repo, &snapshot]).run());
    drop(mounted);
    run.assert_success().assert_says("nothing to do");
    runs.into_iter().for_each(|run| drop(run.assert_success()));
}

#[test]
fn another_revision_takes_what_is_there_and_leaves_what_is_served() {
    let home = Home::new();
    let one = home.hub.commit(REPO);
    home.fetch(&["hf://org/tiny"]).run().assert_success();
    let served = seen(&home.snapshot(&one));
    let two = home.hub.move_branch(REPO, "main", revision(2));
    home.hub.log().clear();
    let run = home.fetch(&["hf://org/tiny"]).run().assert_success();
    assert!(run.stderr.contains("updated from"), "{}", run.stderr);
    assert_eq!(home.hub.count("*", "same.bin"), 0, "its blob is there");
    assert_eq!(home.named("main"), two);
    home.assert_holds(&two, &revision(2));
    home.assert_holds(&one, &model());
    assert!(seen(&home.snapshot(&one)) == served, "what is served has changed");
    // The branch goes back, and a pin is asked for: no byte is fetched.
    home.hub.move_branch(REPO, "main", model());
    home.hub.log().clear();
    let run = home.fetch(&["hf://org/tiny", "--output", "json"]).run().assert_success();
    assert_eq!((&json(&run)["status"], home.named("main")), (&"restored".into(), one.clone()));
    home.fetch(&[&pinned(&two)]).run().assert_success().assert_says("nothing to do");
    assert_eq!(home.named("main"), two);
    assert_eq!(home.hub.count("*", "/resolve/"), 0);
    // Who has a link of its own does not turn the others' name.
    std::fs::create_dir(home.volume.path("pod")).unwrap();
    let link = home.volume.path("pod/current");
    home.fetch(&[&pinned(&one), "--link", link.to_str().unwrap()]).run().assert_success();
    assert_eq!(std::fs::read_link(&link).unwrap(), home.snapshot(&one));
    assert_eq!(home.named("main"), two);
    home.assert_clean();
}

#[test]
fn a_branch_has_a_name_of_its_own() {
    let home = Home::new();
    let dev = home.hub.move_branch(REPO, "refs/pr/7", revision(2));
    home.fetch(&["hf://org/tiny@refs/pr/7"]).run().assert_success();
    assert_eq!((home.named("refs/pr/7"), home.named("main")), (dev.clone(), String::new()));
    weightlift().arg("verify").arg(home.repo()).run().assert_success();
    home.fetch(&["hf://org/tiny"]).run().assert_success();
    assert_eq!(home.named("main"), home.hub.commit(REPO));
    home.assert_holds(&dev, &revision(2));
    home.assert_clean();
}

#[test]
fn what_the_hubs_own_client_has_left_is_hashed_before_it_counts() {
    let home = Home::new();
    let commit = home.hub.commit(REPO);
    let blob = |path: &str| {
        let blob = model().blob(path).unwrap().clone();
        (home.repo().join("blobs").join(blob.sha256()), blob.to_vec())
    };
    // One is whole, one has wrong bytes, one is half there; another revision and a name lie there as well.
    let ((good, bytes), (bad, mut wrong)) = (blob("same.bin"), blob("weights.bin"));
    write(&good, &bytes);
    wrong[1000] ^= 1;
    write(&bad, &wrong);
    let half = bad.with_extension("incomplete");
    write(&half, &wrong[..500]);
    let other = home.snapshot(&"0".repeat(40));
    std::fs::create_dir_all(&other).unwrap();
    let name = good.file_name().unwrap().to_str().unwrap();
    symlink(format!("../../blobs/{name}"), other.join("x.bin")).unwrap();
    write(&home.repo().join("refs/v1"), "0".repeat(40).as_bytes());
    // The client has begun with this commit.
    std::fs::create_dir_all(home.snapshot(&commit)).unwrap();
    symlink(format!("../../blobs/{name}"), home.snapshot(&commit).join("same.bin")).unwrap();
    write(&home.snapshot(&commit).join("config.json"), b"{\"revision\": 7}");
    let inode = |path: &Path| std::fs::metadata(path).unwrap().ino();
    let (kept, lost) = (inode(&good), inode(&bad));
    home.fetch(&["hf://org/tiny"])
        .run()
        .assert_success()
        .assert_says("the bytes that were here are damaged");
    home.assert_holds(&commit, &model());
    assert_eq!(home.hub.count("*", "same.bin"), 0);
    assert_eq!(inode(&good), kept, "a reader may have it open");
    assert_ne!(inode(&bad), lost, "it is replaced, not written into");
    assert_eq!(std::fs::read(&half).unwrap(), &wrong[..500], "it is not ours");
    assert_eq!(std::fs::read(other.join("x.bin")).unwrap(), bytes);
    assert_eq!((home.named("v1"), home.named("main")), ("0".repeat(40), commit));
}

#[test]
fn a_blob_that_repos_share_is_used_and_stays() {
    let home = Home::new();
    let commit = home.hub.commit(REPO);
    let blob = model().blob("weights.bin").unwrap().clone();
    let hash = "ab".repeat(32);
    let store = home.volume.root().join("hub/blobs/ab").join(&hash);
    write(&store, &blob.to_vec());
    std::fs::create_dir_all(home.repo().join("blobs")).unwrap();
    let link = home.repo().join("blobs").join(blob.sha256());
    symlink(format!("../../blobs/ab/{hash}"), &link).unwrap();
    let before = seen(&home.volume.root().join("hub/blobs"));
    home.fetch(&["hf://org/tiny"]).run().assert_success();
    assert!(link.is_symlink(), "a right one is not replaced");
    assert_eq!(home.hub.count("*", "weights.bin"), 0);
    home.assert_holds(&commit, &model());
    home.hub.log().clear();
    home.fetch(&[&pinned(&commit)]).run().assert_success();
    assert_eq!(home.hub.requests().len(), 0);
    assert!(seen(&home.volume.root().join("hub/blobs")) == before, "the store has changed");
}

#[test]
fn damage_is_found_and_mended() {
    let home = Home::new();
    let commit = home.hub.commit(REPO);
    home.fetch(&["hf://org/tiny"]).run().assert_success();
    let blob = home.repo().join("blobs").join(model().blob("weights.bin").unwrap().sha256());
    let damage: [(&str, &dyn Fn()); 5] = [
        ("a bit", &|| {
            let mut bytes = std::fs::read(&blob).unwrap();
            bytes[7] ^= 1;
            std::fs::remove_file(&blob).unwrap();
            std::fs::write(&blob, bytes).unwrap();
        }),
        ("cut", &|| {
            std::fs::remove_file(&blob).unwrap();
            std::fs::write(&blob, b"short").unwrap();
        }),
        ("blob gone", &|| std::fs::remove_file(&blob).unwrap()),
        ("link gone", &|| {
            std::fs::remove_file(home.snapshot(&commit).join("a/again.json")).unwrap()
        }),
        ("snapshot gone", &|| std::fs::remove_dir_all(home.snapshot(&commit)).unwrap()),
    ];
    for (what, damage) in damage {
        damage();
        weightlift().arg("verify").arg(home.repo()).run().assert_code(match what {
            "snapshot gone" => 10,
            _ => 12,
        });
        home.hub.log().clear();
        home.fetch(&["hf://org/tiny", "--recheck"]).run().assert_success();
        home.assert_holds(&commit, &model());
        let is_fetched = home.hub.count("GET", "weights.bin") > 0;
        assert_eq!(is_fetched, ["a bit", "cut", "blob gone"].contains(&what), "{what}");
        home.assert_clean();
    }
}

#[test]
fn a_snapshot_keeps_what_others_have_asked_for() {
    let home = Home::new();
    let commit = home.hub.commit(REPO);
    home.fetch(&["hf://org/tiny", "--include", "*.json"]).run().assert_success();
    let served = home.snapshot(&commit);
    let before = std::fs::metadata(&served).unwrap().ino();
    let run = home.fetch(&["hf://org/tiny", "--include", "*.bin"]).run().assert_success();
    assert!(run.stderr.contains("extended from"), "{}", run.stderr);
    home.assert_holds(&commit, &model().without("empty.txt"));
    assert_eq!(std::fs::metadata(&served).unwrap().ino(), before);
    home.hub.log().clear();
    for selection in ["*.json", "*.bin"] {
        let mut command = home.fetch(&[&pinned(&commit), "--include", selection]);
        command.run().assert_success().assert_says("nothing to do");
    }
    assert_eq!(home.hub.requests().len(), 0);
    // Also where the name leads to another commit meanwhile, of which other files were asked for.
    let home = Home::new();
    let one = home.hub.commit(REPO);
    home.fetch(&[&pinned(&one), "--include", "*.json"]).run().assert_success();
    for tree in [revision(2), model()] {
        home.hub.move_branch(REPO, "main", tree);
        home.fetch(&["hf://org/tiny", "--include", "w*.bin"]).run().assert_success();
    }
    home.hub.log().clear();
    home.fetch(&[&pinned(&one), "--include", "*.json"]).run().assert_success();
    assert_eq!(home.hub.requests().len(), 0);
}

#[test]
fn a_model_moves_from_one_form_to_the_other_without_a_byte_from_the_network() {
    let home = Home::new();
    let commit = home.hub.commit(REPO);
    let root = |name: &str| home.volume.path(name);
    let fetch = |root: &Path, dir: Option<&Path>, more: &[&str]| {
        home.hub.log().clear();
        let mut command = weightlift();
        command.args(["fetch", "hf://org/tiny"]).args(more).arg("--root").arg(root);
        dir.into_iter().for_each(|dir| _ = command.arg("--adopt").arg(dir));
        let run = command.env("HF_ENDPOINT", home.hub.url()).run().assert_success();
        assert_eq!(sent(&home.hub), 0, "{}", run.stderr);
    };
    home.fetch(&["hf://org/tiny"]).run().assert_success();
    let before = seen(&home.volume.root());
    // Of a cache, of one repo of it; to a plain directory; and into a cache again.
    for (n, dir) in [home.volume.root(), home.repo()].iter().enumerate() {
        let plain = root(&format!("plain-{n}"));
        fetch(&plain, Some(dir), &["tiny"]);
        assert_tree(&plain.join("tiny"), &model());
        let again = root(&format!("again-{n}"));
        fetch(&again, Some(&plain.join("tiny")), &["--layout", "hf-cache"]);
        let snapshot = again.join("hub/models--org--tiny/snapshots").join(&commit);
        assert_eq!(files_below(&snapshot), files_below(&home.snapshot(&commit)));
        weightlift().arg("verify").args([&snapshot, &plain.join("tiny")]).run().assert_success();
    }
    assert!(seen(&home.volume.root()) == before, "what was adopted has changed");
    // On the volume of a plain model nothing has to be named.
    fetch(&root("plain-0"), None, &["--layout", "hf-cache"]);
}

#[test]
fn where_there_are_no_links_the_files_lie_in_the_snapshot() {
    if !has("strace") {
        return;
    }
    let home = Home::new();
    let one = home.hub.commit(REPO);
    let run = |arguments: &[&str]| {
        let command = home.fetch(arguments);
        straced(&command, "symlinkat", &["symlinkat:error=EPERM"]).run().assert_success()
    };
    run(&["hf://org/tiny"]);
    let is_held = |commit: &str, tree: &Tree| {
        let found = files_below(&home.snapshot(commit));
        let expected = tree.iter().map(|(path, blob)| (path.to_owned(), blob.to_vec())).collect();
        assert_eq!(found, expected);
        for path in found.keys().map(|path| home.snapshot(commit).join(path)) {
            let stat = path.symlink_metadata().unwrap();
            assert!(stat.is_file() && stat.permissions().mode() & 0o222 == 0, "{path:?}");
        }
        weightlift().arg("verify").arg(home.snapshot(commit)).run().assert_success();
    };
    is_held(&one, &model());
    assert!(!home.repo().join("blobs").exists());
    let two = home.hub.move_branch(REPO, "main", revision(2));
    home.hub.log().clear();
    run(&["hf://org/tiny"]);
    is_held(&two, &revision(2));
    assert_eq!(home.hub.count("*", "same.bin"), 0, "the other snapshot has it");
    is_held(&one, &model());
    let damaged = home.snapshot(&two).join("weights.bin");
    std::fs::remove_file(&damaged).unwrap();
    std::fs::write(&damaged, b"x").unwrap();
    run(&["hf://org/tiny"]);
    is_held(&two, &revision(2));
}

#[test]
fn many_at_once_fetch_once_and_none_harms_another() {
    let home = Home::new();
    let commit = home.hub.commit(REPO);
    let running: Vec<Running> = (0..6).map(|_| home.fetch(&["hf://org/tiny"]).start()).collect();
    running.into_iter().for_each(|it| drop(it.wait().assert_success()));
    home.assert_holds(&commit, &model());
    home.assert_clean();
    assert_eq!(home.hub.bytes_sent_for("xet-bridge"), 500_000);
    assert_eq!(home.named("main"), commit);
}

#[test]
fn what_a_cache_cannot_be_is_a_usage_error() {
    let home = Home::new();
    for (arguments, says) in [
        (&["hf://org/tiny", "tiny"][..], "leave DEST out"),
        (&["s3://models/tiny/"], "is not a repo of a Hub"),
        (&["file:///data/models/x"], "is not a repo of a Hub"),
        (&["hf://org/tiny", "--replace"], "nothing is removed from a cache"),
        (&["hf://org/tiny", "--keep-revisions", "1"], "nothing is removed from a cache"),
        (&["hf://org/tiny", "--keep-for", "1h"], "nothing is removed from a cache"),
        (&["hf://org/tiny", "hf://org/tiny@v1"], "two models"),
        (&["hf://org/tiny", "--mirror", "s3://models/"], "name the place with --also"),
    ] {
        home.fetch(arguments).run().assert_code(2).assert_says(says);
    }
    assert_eq!(home.hub.requests().len(), 0);
    assert!(!home.volume.root().exists());
}

#[test]
fn the_cache_is_where_its_clients_look() {
    let home = Home::new();
    let (commit, dir) = (home.hub.commit(REPO), home.volume.path("home"));
    let dir = dir.to_str().unwrap();
    let root = home.volume.root();
    let root = root.to_str().unwrap();
    for (variables, expected) in [
        (&[("HF_HOME", format!("{dir}/a"))][..], format!("{dir}/a/hub")),
        (
            &[("HF_HOME", format!("{dir}/a")), ("HF_HUB_CACHE", format!("{dir}/b/c"))],
            format!("{dir}/b/c"),
        ),
        (
            &[("WEIGHTLIFT_ROOT", root.to_owned()), ("HF_HUB_CACHE", format!("{dir}/d/e"))],
            format!("{root}/hub"),
        ),
    ] {
        let mut command = weightlift();
        command.args(["fetch", "hf://org/tiny"]).env("HF_ENDPOINT", home.hub.url());
        command.env("WEIGHTLIFT_LAYOUT", "hf-cache").envs(variables.iter().cloned());
        let run = command.run().assert_success();
        let snapshot = format!("{expected}/models--org--tiny/snapshots/{commit}");
        assert_eq!(run.stdout, format!("{snapshot}\n"));
        weightlift().arg("verify").arg(snapshot).run().assert_success();
    }
}

#[test]
fn several_models_go_into_one_cache() {
    let hub = FakeHub::builder().repo(REPO, model()).repo("org/other", revision(2)).start();
    let home = Home { hub, volume: Volume::in_memory() };
    let run = home.fetch(&["hf://org/tiny", "hf://org/other"]).run().assert_success();
    assert_eq!(run.stdout.lines().count(), 2);
    home.assert_holds(&home.hub.commit(REPO), &model());
    // The file that both have came once, or was fetched twice at the same time.
    weightlift().arg("verify").args(run.stdout.lines()).run().assert_success();
    weightlift().args(["list", "--root"]).arg(home.volume.root()).run().assert_success();
    let mut prune = weightlift();
    prune.args(["prune", "--yes", "--keep-revisions", "0", "--root"]).arg(home.volume.root());
    let before = seen(&home.volume.root().join("hub"));
    prune.run().assert_success();
    assert!(seen(&home.volume.root().join("hub")) == before, "prune has changed the cache");
}

#[test]
fn what_lies_in_the_way_is_said_and_stays() {
    for below in ["", "blobs", "snapshots", "refs", ".weightlift-complete"] {
        let home = Home::new();
        let (away, plant) = (home.volume.path("away"), home.repo().join(below));
        std::fs::create_dir(&away).unwrap();
        let plant = Path::new(plant.to_str().unwrap().trim_end_matches('/'));
        std::fs::create_dir_all(plant.parent().unwrap()).unwrap();
        symlink(&away, plant).unwrap();
        let run = home.fetch(&["hf://org/tiny"]).run();
        assert!([14, 16].contains(&run.code), "{below}: {} {}", run.code, run.stderr);
        assert_eq!(list(&away), Vec::<PathBuf>::new(), "{below}");
        assert_eq!(std::fs::read_link(plant).unwrap(), away, "{below}");
    }
    // A link in a snapshot or among the blobs is not followed out of the cache, whatever it leads to.
    let home = Home::new();
    let commit = home.hub.commit(REPO);
    home.fetch(&["hf://org/tiny"]).run().assert_success();
    let outside = home.volume.path("outside.bin");
    let blob: &Blob = &model().blob("weights.bin").unwrap().clone();
    std::fs::write(&outside, blob.to_vec()).unwrap();
    let place = home.repo().join("blobs").join(blob.sha256());
    std::fs::remove_file(&place).unwrap();
    symlink("../../../../outside.bin", &place).unwrap();
    weightlift().arg("verify").arg(home.snapshot(&commit)).run().assert_code(12);
    home.fetch(&["hf://org/tiny"]).run().assert_success();
    home.assert_holds(&commit, &model());
    assert!(!place.is_symlink());
    assert!(std::fs::read(&outside).unwrap() == blob.to_vec());
}

#[test]
fn list_has_a_line_for_each_repo() {
    let home = Home::new();
    let list = || {
        let mut command = weightlift();
        command.args(["list", "--output", "json", "--root"]).arg(home.volume.root());
        json(&command.run().assert_success())
    };
    for n in [1, 2] {
        let commit = home.hub.move_branch(REPO, "main", revision(n));
        home.fetch(&["hf://org/tiny"]).run().assert_success();
        let told = list();
        assert_eq!(told["family"], "hub/models--org--tiny");
        assert_eq!(
            (&told["status"], &told["revision"]),
            (&"published".into(), &commit.as_str().into())
        );
        assert_eq!(told["revision_path"], home.snapshot(&commit).to_str().unwrap());
        assert_eq!(told["problems"], Value::Array(vec![]));
    }
}

#[test]
fn a_lock_file_names_the_commit_and_the_branch_keeps_its_name() {
    let home = Home::new();
    let (commit, lock) = (home.hub.commit(REPO), home.volume.path("models.lock"));
    let mut pin = weightlift();
    pin.args(["pin", "hf://org/tiny", "--locked"]).arg(&lock).env("HF_ENDPOINT", home.hub.url());
    pin.run().assert_success();
    home.hub.move_branch(REPO, "main", revision(2));
    for says in ["all verified", "nothing to do"] {
        home.hub.log().clear();
        let run = home.fetch(&["--locked", lock.to_str().unwrap()]).run();
        run.assert_success().assert_says(says);
        assert_eq!(home.named("main"), commit);
    }
    assert_eq!(home.hub.requests().len(), 0);
    weightlift().arg("verify").arg(home.snapshot(&commit)).run().assert_success();
    assert!(files_below(&home.snapshot(&commit)).len() == model().len());
}

#[test]
fn a_plan_knows_the_blobs_that_are_there() {
    let home = Home::new();
    home.fetch(&["hf://org/tiny"]).run().assert_success();
    home.hub.move_branch(REPO, "main", revision(2));
    let before = seen(&home.volume.root());
    let plan = || json(&home.fetch(&["hf://org/tiny", "--dry-run", "--output", "json"]).run());
    let told = plan();
    assert_eq!((&told["reuse_files"], &told["reuse_bytes"]), (&1.into(), &200_000.into()));
    assert!(seen(&home.volume.root()) == before, "a plan has written");
}

#[test]
fn a_client_that_knows_of_more_files_is_warned_of() {
    let home = Home::of(tiny());
    let commit = home.hub.commit(REPO);
    let run = home.fetch(&["hf://org/tiny"]).run().assert_success();
    assert!(!run.stderr.contains("the Hub's client has listed"), "{}", run.stderr);
    write(&home.repo().join("trees").join(format!("{commit}.json")), b"{}");
    std::fs::remove_dir_all(home.snapshot(&commit)).unwrap();
    home.fetch(&["hf://org/tiny"])
        .run()
        .assert_success()
        .assert_says("the Hub's client has listed");
    std::fs::remove_dir_all(home.snapshot(&commit)).unwrap();
    let run = home.fetch(&["hf://org/tiny", "--all"]).run().assert_success();
    assert!(!run.stderr.contains("the Hub's client has listed"), "{}", run.stderr);
}

#[cfg(target_arch = "x86_64")]
#[test]
fn where_directories_cannot_be_renamed_a_snapshot_is_filled_if_that_is_asked_for() {
    use crate::support::tracer::{Act, traced};
    use nix::errno::Errno;
    let home = Home::new();
    let commit = home.hub.commit(REPO);
    let run = |arguments: &[&str]| {
        traced(&home.fetch(arguments), &home.volume.path(""), |call| {
            let is_of_directory = call.path.ends_with("probe-c")
                || call.path.parent().is_some_and(|above| above.ends_with("snapshots"));
            match call.name {
                "renameat2" => Act::Fail(Errno::EINVAL),
                "renameat" if is_of_directory => Act::Fail(Errno::EPERM),
                _ => Act::Pass,
            }
        })
    };
    run(&["hf://org/tiny"]).assert_code(14);
    assert!(!home.snapshot(&commit).exists());
    run(&["hf://org/tiny", "--allow-degraded"]).assert_success();
    home.assert_holds(&commit, &model());
    assert_eq!(home.named("main"), commit);
}
