//! An update that takes what has not changed inside a file from what lies on the volume.

use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::time::Duration;

use crate::support::*;
use serde_json::Value;
use weightlift_fakes::{Blob, FakeHub, Fault, Rule, Tree};

const MIB: usize = 1 << 20;
/// Of the models: enough for hundreds of chunks.
const SIZE: usize = 24 * MIB;
const FILE: &str = "model.gguf";

fn noise(len: usize, seed: u64) -> Vec<u8> {
    Blob::synthetic(len as u64, seed).to_vec()
}

fn old() -> Vec<u8> {
    noise(SIZE, 1)
}

fn of(content: Vec<u8>) -> Tree {
    Tree::new().with("config.json", "{}").with(FILE, content)
}

/// A volume with the old model, and a Hub that has the new one at `main`.
struct Scene {
    hub: FakeHub,
    volume: Volume,
    old: Tree,
    new: Tree,
    commit: String,
}

impl Scene {
    fn new(old: Tree, new: Tree) -> Self {
        Self::with(old, new, &[])
    }

    fn with(old: Tree, new: Tree, arguments: &[&str]) -> Self {
        let hub = FakeHub::builder().repo(REPO, old.clone()).xet().start();
        let volume = Volume::new();
        let first = [&["hf://org/tiny", "--all"], arguments].concat();
        fetch(&hub, &volume, &first).run().assert_success();
        let commit = hub.commit(REPO);
        // What is asked about first is packed first, as if it had been uploaded first.
        for (path, _) in old.iter().filter(|(_, blob)| blob.len() > 1 << 20) {
            assert_eq!(hub.xet_new_bytes(REPO, path, &commit, &commit), 0);
        }
        hub.move_branch(REPO, "main", new.clone());
        Self { hub, volume, old, new, commit }
    }

    fn update(&self) -> Command {
        fetch(&self.hub, &self.volume, &["hf://org/tiny", "--all", "--output", "json"])
    }

    /// Updates, and returns what it said and how many bytes came over the network.
    fn updated(&self) -> (Run, u64) {
        self.updated_by(&mut self.update())
    }

    fn updated_by(&self, command: &mut Command) -> (Run, u64) {
        let before = self.sent();
        let run = command.run().assert_success();
        self.volume.assert_holds("tiny", &self.new);
        self.volume.assert_clean();
        (run, self.sent() - before)
    }

    /// Updates, and returns these calls of it.
    fn traced(&self, calls: &str) -> String {
        let out = self.volume.path("calls");
        let filter = format!("trace={calls}");
        let strace = ["strace", "-f", "-qq", "-e", &filter, "-o", out.to_str().unwrap()];
        under(&strace, &self.update()).run().assert_success();
        std::fs::read_to_string(out).unwrap()
    }

    fn sent(&self) -> u64 {
        self.hub.bytes_sent_for("xet-bridge") + self.hub.bytes_sent_for("/xorbs/")
    }

    /// Bytes of the chunks that the new revision has and the old one has not.
    fn new_chunks(&self) -> u64 {
        let new = self.hub.commit(REPO);
        let large = self.new.iter().filter(|(_, blob)| blob.len() > 1 << 20);
        large.map(|(path, _)| self.hub.xet_new_bytes(REPO, path, &self.commit, &new)).sum()
    }
}

fn outcome(run: &Run) -> Value {
    serde_json::from_str(&run.stdout).unwrap()
}

/// Where a change is, and the model after it.
fn changes() -> Vec<(&'static str, Tree, Tree)> {
    let inserted = |at: usize, len: usize| {
        let mut content = old();
        content.splice(at..at, noise(len, 77));
        of(content)
    };
    let replaced = |at: usize, len: usize| {
        let mut content = old();
        content[at..at + len].copy_from_slice(&noise(len, 78));
        of(content)
    };
    let shards = |cut: usize| {
        let all = noise(2 * SIZE, 5);
        let tree = Tree::new().with("a.safetensors.bin", all[..cut].to_vec());
        tree.with("b.safetensors.bin", all[cut..].to_vec())
    };
    let one = || Tree::new().with("one.bin", noise(2 * SIZE, 5));
    let grown = [old(), noise(MIB, 79)].concat();
    let moved =
        [noise(SIZE / 2, 80), old()[SIZE / 3..].to_vec(), old()[..SIZE / 3].to_vec()].concat();
    vec![
        ("an insertion at the head", of(old()), inserted(100, 777)),
        ("the head rewritten", of(old()), replaced(0, 64 << 10)),
        ("512 KiB in the middle", of(old()), replaced(SIZE / 2 + 12_345, 512 << 10)),
        ("an insertion in the middle", of(old()), inserted(SIZE / 3, 5_000)),
        ("many edits", of(old()), {
            let mut content = old();
            for n in 0..12 {
                let at = n * 2 * MIB + 40_000 * n;
                content[at..at + 9].copy_from_slice(b"different");
            }
            of(content)
        }),
        ("an append", of(old()), of(grown.clone())),
        ("a cut at the end", of(grown), of(old())),
        ("a cut at the head", of(old()), of(old()[3_300_000..].to_vec())),
        ("parts in another order", of(old()), of(moved)),
        ("another border of shards", shards(SIZE), shards(SIZE + 3_300_000)),
        ("shards merged", shards(SIZE), one()),
        ("shards made", one(), shards(SIZE - 1_000_000)),
        ("another name and an edit", of(old()), {
            let mut content = old();
            content[5 * MIB] ^= 1;
            Tree::new().with("config.json", "{}").with("renamed.gguf", content)
        }),
        (
            "an edit behind a run of equal chunks",
            {
                let mut content = vec![7; 300 * (128 << 10)];
                content.extend(old());
                of(content)
            },
            {
                let mut content = vec![7; 300 * (128 << 10)];
                content.extend(old());
                let edit = content.len() - SIZE / 2;
                content[edit] ^= 1;
                of(content)
            },
        ),
        ("nothing in common", of(old()), of(noise(SIZE, 99))),
    ]
}

/// What must come is what the chunker says, and the ends of runs that are cut where a piece is too small to be
/// copied: 3 %.
#[test]
fn an_update_fetches_the_chunks_that_are_new_and_no_others() {
    for (name, old, new) in changes() {
        let scene = Scene::new(old, new);
        let (run, sent) = scene.updated();
        let must = scene.new_chunks();
        assert!(
            sent <= must + must * 3 / 100,
            "{name}: {sent} bytes for {must} of new chunks: {}",
            run.stderr
        );
        let (told, total) = (outcome(&run), scene.new.total_bytes());
        let small = scene.new.blob("config.json").map_or(0, Blob::len);
        let (fetched, reused) = (&told["fetched_bytes"], &told["reused_bytes"]);
        assert!(fetched.as_u64().unwrap() <= sent + small, "{name}: {told}");
        assert_eq!(fetched.as_u64().unwrap() + reused.as_u64().unwrap(), total, "{name}: {told}");
        let sentinel = scene.volume.family("tiny").join(".weightlift-complete.json");
        let sentinel: Value = serde_json::from_slice(&std::fs::read(sentinel).unwrap()).unwrap();
        assert_eq!(sentinel["reused_bytes"], *reused, "{name}");
        assert_eq!(sentinel["fetched_bytes"], *fetched, "{name}");
        if reused.as_u64().unwrap() > 1 << 20 {
            assert!(run.stderr.contains("reused "), "{name}: {}", run.stderr);
        }
    }
}

/// The old revision is served while this happens.
#[test]
fn the_old_revision_is_only_read() {
    if !has("strace") {
        return;
    }
    let mut edited = old();
    edited[SIZE / 2] ^= 1;
    let scene = Scene::new(of(old()), of(edited));
    let shown = std::fs::canonicalize(scene.volume.family("tiny")).unwrap();
    let stamp = |path: &std::path::Path| {
        let it = path.metadata().unwrap();
        (it.ino(), it.len(), it.mode(), it.mtime(), it.mtime_nsec(), it.ctime(), it.ctime_nsec())
    };
    let before = stamp(&shown.join(FILE));
    let calls = scene.traced("openat");
    let opened: Vec<&str> = calls.lines().filter(|line| line.contains(FILE)).collect();
    let to_write = opened.iter().filter(|line| !line.contains("O_RDONLY"));
    // The new file is made once, and opened for its transfer.
    assert!((1..=3).contains(&to_write.count()), "{opened:#?}");
    assert!(opened.iter().any(|line| line.contains("O_RDONLY")), "{opened:#?}");
    assert_eq!(stamp(&shown.join(FILE)), before);
    assert_tree(&shown, &scene.old);
}

#[test]
fn a_killed_update_goes_on_where_it_was() {
    let mut edited = old();
    for n in 0..40 {
        edited[n * 600_000] ^= 1;
    }
    let scene = Scene::new(of(old()), of(edited));
    let must = scene.new_chunks();
    let before = scene.sent();
    scene.hub.script(Rule::on("GET", "").at("cdn").then(Fault::Drip { bytes_per_second: 300_000 }));
    let mut kills = 0;
    for delay in [400, 800, 1200] {
        let running = scene.update().args(["--connections", "2"]).start();
        std::thread::sleep(Duration::from_millis(delay));
        running.signal("-KILL");
        kills += usize::from(running.wait().code == -1);
        assert_tree(&scene.volume.family("tiny"), &scene.old);
    }
    assert!(kills > 0, "nothing was killed");
    scene.hub.clear_script();
    let (run, _) = scene.updated();
    assert!(run.stderr.contains("are here already"), "{}", run.stderr);
    let sent = scene.sent() - before;
    // What was on its way at each kill is lost.
    assert!(sent <= must + kills as u64 * 4 * (MIB as u64), "{sent} for {must}");
}

/// Somebody has written into the old file: its length is right, and what it has is not.
#[test]
fn what_is_wrong_on_the_volume_is_fetched() {
    let mut edited = old();
    edited[SIZE - 1_000_000] ^= 1;
    let scene = Scene::new(of(old()), of(edited));
    let file = std::fs::canonicalize(scene.volume.family("tiny")).unwrap().join(FILE);
    let mut damaged = old();
    damaged[3 * MIB] ^= 1;
    std::fs::write(&file, damaged).unwrap();
    let (run, sent) = scene.updated();
    assert!(run.stderr.contains("fetching it again"), "{}", run.stderr);
    assert!(sent >= SIZE as u64, "{sent}");
    let told = outcome(&run);
    assert!(told["reused_bytes"].as_u64().unwrap() < 1 << 20, "{told}");
}

/// No answer of the store keeps an update from being fetched.
#[test]
fn an_update_without_the_store_is_fetched_whole() {
    let mut edited = old();
    edited[SIZE / 2] ^= 1;
    for (name, rule) in [
        ("no token", Rule::on("*", "xet-read-token").then(Fault::status(404))),
        ("no recipes", Rule::on("*", "reconstructions").then(Fault::status(500))),
        ("another form", Rule::on("*", "reconstructions").then(Fault::ReplaceBody(b"{}".to_vec()))),
    ] {
        let scene = Scene::new(of(old()), of(edited.clone()));
        scene.hub.script(rule);
        let mut command = scene.update();
        command.env("WEIGHTLIFT_RETRY_DELAY", "25ms").env("WEIGHTLIFT_RETRY_TIMEOUT", "2s");
        let (run, sent) = scene.updated_by(&mut command);
        assert!(sent >= SIZE as u64, "{name}: {sent}");
        let says = run.stderr.contains("which chunks are here already");
        assert!(says || name == "no token", "{name}: {}", run.stderr);
    }
    // `never` does not even ask.
    let scene = Scene::new(of(old()), of(edited));
    let (_, sent) = scene.updated_by(scene.update().args(["--xet", "never"]));
    let asked = scene.hub.requests().iter().any(|it| it.target.contains("xet-read-token"));
    assert!(sent >= SIZE as u64 && !asked);
}

/// What is new comes by either way.
#[test]
fn an_update_can_be_read_by_chunks() {
    let mut edited = old();
    edited.splice(SIZE / 2..SIZE / 2, noise(300_000, 3));
    let scene = Scene::new(of(old()), of(edited));
    scene.hub.script(Rule::on("GET", "").at("cdn").then(Fault::status(403)));
    let before = scene.hub.bytes_sent_for("/xorbs/");
    let (_, _) = scene.updated();
    let sent = scene.hub.bytes_sent_for("/xorbs/") - before;
    assert!(sent > 0 && sent < 2_000_000, "{sent}");
}

/// A volume that was filled before sentinels had the names of the store: one listing of the old commit has them.
#[test]
fn an_old_sentinel_is_no_hindrance() {
    let mut edited = old();
    edited[SIZE / 2] ^= 1;
    let scene = Scene::new(of(old()), of(edited));
    let path = scene.volume.family("tiny").join(".weightlift-complete.json");
    let mut sentinel: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    for file in sentinel["files"].as_array_mut().unwrap() {
        file.as_object_mut().unwrap().remove("xet_hash");
    }
    std::fs::write(&path, serde_json::to_vec(&sentinel).unwrap()).unwrap();
    let (_, sent) = scene.updated();
    assert!(sent < 1 << 20, "{sent}");
}

#[test]
fn other_models_and_caches_give_their_chunks_too() {
    let mut edited = old();
    edited[SIZE / 2] ^= 1;
    // A fine-tune in a repo of its own, fetched beside the model.
    let hub = FakeHub::builder()
        .repo(REPO, of(old()))
        .repo("org/tuned", of(edited.clone()))
        .xet()
        .start();
    let volume = Volume::new();
    fetch(&hub, &volume, &["hf://org/tiny", "--all"]).run().assert_success();
    let before = hub.bytes_sent_for("xet-bridge");
    fetch(&hub, &volume, &["hf://org/tuned", "--all"]).run().assert_success();
    volume.assert_holds("tuned", &of(edited.clone()));
    let sent = hub.bytes_sent_for("xet-bridge") - before;
    assert!(sent < 1 << 20, "{sent}");

    let hub = FakeHub::builder().repo(REPO, of(old())).xet().start();
    let volume = Volume::new();
    let cache = ["hf://org/tiny", "--all", "--layout", "hf-cache"];
    fetch(&hub, &volume, &cache).run().assert_success();
    hub.move_branch(REPO, "main", of(edited.clone()));
    let before = hub.bytes_sent_for("xet-bridge");
    fetch(&hub, &volume, &cache).run().assert_success();
    let sent = hub.bytes_sent_for("xet-bridge") - before;
    assert!(sent < 1 << 20, "{sent}");
    let repo = volume.root().join("hub/models--org--tiny");
    let shown = repo.join("snapshots").join(hub.commit(REPO)).join(FILE);
    assert!(std::fs::read(shown).unwrap() == edited);
}

/// A Hub is not told of models that came from another one, nor of their names.
#[test]
fn no_hub_is_asked_about_models_of_another_one() {
    let mut edited = old();
    edited[SIZE / 2] ^= 1;
    let ours = FakeHub::builder().repo("corp/secret", of(old())).xet().start();
    let theirs = FakeHub::builder().repo(REPO, of(edited.clone())).xet().start();
    let volume = Volume::new();
    fetch(&ours, &volume, &["hf://corp/secret", "--all"]).run().assert_success();
    fetch(&theirs, &volume, &["hf://org/tiny", "--all"]).run().assert_success();
    volume.assert_holds("tiny", &of(edited));
    for request in theirs.requests() {
        assert!(!request.target.contains("secret"), "{request:?}");
        assert!(!request.target.contains("reconstructions"), "{request:?}");
    }
}

/// Where the filesystem can, both revisions have the same blocks for what they have in common.
#[test]
fn blocks_are_shared_where_the_filesystem_can() {
    if !has("strace") {
        return;
    }
    let mut edited = old();
    edited[SIZE / 2] ^= 1;
    let scene = Scene::new(of(old()), of(edited));
    let calls = scene.traced("copy_file_range");
    let copied = calls.lines().filter_map(|line| line.rsplit_once("= ")?.1.parse::<usize>().ok());
    let copied: usize = copied.sum();
    assert!(copied > SIZE - MIB, "{copied}: {calls}");
    scene.volume.assert_holds("tiny", &scene.new);
}
