//! What any model on the volume has already is not fetched, and no other model is harmed by that.

use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::*;
use weightlift_fakes::{Blob, Checksum, FakeHub, FakeS3, Fault, ObjectOptions, Rule, Tree};

const BASE: &str = "org/base";
const TUNED: &str = "org/tuned";
/// Of one shard.
const SHARD: u64 = 3 << 20;

fn shard(seed: u64) -> Blob {
    Blob::synthetic(SHARD, seed)
}

/// Four shards, the last of them with a content of its own.
fn model(last: u64) -> Tree {
    let of = |n: u64| format!("weights/{n}.bin");
    let tree = (1..4).fold(Tree::new(), |tree, n| tree.with_blob(&of(n), shard(n)));
    tree.with_blob(&of(4), shard(last)).with("config.json", "{\"a\": 1}")
}

fn base() -> Tree {
    model(4)
}

fn tuned() -> Tree {
    model(9)
}

fn hub() -> FakeHub {
    FakeHub::builder().repo(BASE, base()).repo(TUNED, tuned()).start()
}

/// The base model, published as `base`.
fn with_base(hub: &FakeHub, volume: &Volume) {
    fetch(hub, volume, &["hf://org/base"]).run().assert_success();
    volume.assert_holds("base", &base());
    hub.log().clear();
}

fn fetch_tuned(hub: &FakeHub, volume: &Volume) -> Command {
    fetch(hub, volume, &["hf://org/tuned"])
}

fn weights_sent(hub: &FakeHub) -> u64 {
    hub.bytes_sent_for("xet-bridge")
}

fn inode(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().ino()
}

fn strace(inject: &str, command: &Command) -> Command {
    let calls = inject.split(':').next().unwrap();
    let trace = format!("trace={calls}");
    let inject = format!("inject={inject}");
    under(&["strace", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject], command)
}

/// An S3 with `tree` below `prefix`, each object with `checksum`.
fn s3_with(prefix: &str, tree: &Tree, checksum: Checksum) -> FakeS3 {
    let options = ObjectOptions { checksum: Some(checksum), ..ObjectOptions::default() };
    let mut builder = FakeS3::builder().bucket("models").credentials(ACCESS_KEY, SECRET_KEY);
    for (path, blob) in tree.iter() {
        let key = format!("{prefix}/{path}");
        builder = builder.object_with("models", &key, blob.clone(), options.clone());
    }
    builder.start()
}

#[test]
fn a_second_revision_transfers_the_shard_that_differs() {
    let (hub, volume) = (hub(), Volume::new());
    with_base(&hub, &volume);
    hub.move_branch(BASE, "main", tuned());
    fetch(&hub, &volume, &["hf://org/base"]).run().assert_success();
    volume.assert_holds("base", &tuned());
    assert_eq!(weights_sent(&hub), SHARD);

    for checksum in [Checksum::Sha256, Checksum::Crc64Nvme] {
        let (s3, volume) = (s3_with("base", &base(), checksum), Volume::new());
        fetch_s3(&s3, &volume, &["s3://models/base/"]).run().assert_success();
        let options = ObjectOptions { checksum: Some(checksum), ..ObjectOptions::default() };
        s3.overwrite_with("models", "base/weights/4.bin", shard(9), options);
        s3.log().clear();
        fetch_s3(&s3, &volume, &["s3://models/base/"]).run().assert_success();
        volume.assert_holds("base", &tuned());
        assert_eq!(s3.bytes_sent_for("weights/"), SHARD, "{checksum:?}");
    }
}

#[test]
fn a_fine_tune_under_another_name_costs_what_differs() {
    let (hub, volume) = (hub(), Volume::new());
    with_base(&hub, &volume);
    let run = fetch_tuned(&hub, &volume).run().assert_success();
    volume.assert_holds("tuned", &tuned());
    assert_eq!(weights_sent(&hub), SHARD);
    // Small files are known by the digest that Git has of them.
    assert_eq!(hub.count("GET", "config.json"), 0);
    let said = format!("reusing 4 files (9.4 MB) of `{}`", volume.family("base").display());
    assert!(run.stderr.contains(&said), "{}", run.stderr);
    for n in 1..4 {
        let path = format!("weights/{n}.bin");
        let (ours, theirs) =
            (volume.family("tuned").join(&path), volume.family("base").join(&path));
        assert_eq!(inode(&ours), inode(&theirs), "{path}");
    }
    volume.assert_holds("base", &base());
    for family in ["base", "tuned"] {
        weightlift().arg("verify").arg(volume.family(family)).run().assert_success();
    }
    volume.assert_clean();
}

#[test]
fn a_copy_in_s3_costs_nothing_where_the_model_of_the_hub_is_there() {
    let (hub, volume) = (hub(), Volume::new());
    with_base(&hub, &volume);
    let tree = base().without("config.json");
    let s3 = s3_with("mirror", &tree, Checksum::Sha256);
    fetch_s3(&s3, &volume, &["s3://models/mirror/"]).run().assert_success();
    volume.assert_holds("mirror", &tree);
    assert_eq!(s3.bytes_sent_for("weights/"), 0);
    // A CRC is no proof that it is the same content: other bytes with the same one are easily made.
    let s3 = s3_with("crc", &tree, Checksum::Crc64Nvme);
    fetch_s3(&s3, &volume, &["s3://models/crc/"]).run().assert_success();
    volume.assert_holds("crc", &tree);
    assert_eq!(s3.bytes_sent_for("weights/"), 4 * SHARD);
}

#[test]
fn every_kind_of_model_directory_on_the_volume_is_found() {
    let hub = hub();
    // A link; below another directory; filled in place; a directory, as where there are no links.
    for (dest, filled, plain) in [
        ("base", false, false),
        ("teams/a/base", false, false),
        ("base", true, false),
        ("teams/base", true, false),
        ("base", false, true),
        ("teams/base", false, true),
    ] {
        let volume = Volume::new();
        let family = volume.family(dest);
        if filled {
            std::fs::create_dir_all(&family).unwrap();
        }
        fetch(&hub, &volume, &["hf://org/base", dest]).run().assert_success();
        if plain {
            let shown = std::fs::canonicalize(&family).unwrap();
            std::fs::remove_file(&family).unwrap();
            std::fs::rename(shown, &family).unwrap();
        }
        assert_eq!(family.is_symlink(), !filled && !plain);
        hub.log().clear();
        fetch_tuned(&hub, &volume).run().assert_success();
        volume.assert_holds("tuned", &tuned());
        assert_tree(&family, &base());
        assert_eq!(weights_sent(&hub), SHARD, "{dest} {filled} {plain}");
    }
}

#[test]
fn models_of_a_root_below_the_root_are_found() {
    let (hub, volume) = (hub(), Volume::new());
    let mut command = weightlift();
    command.args(["fetch", "hf://org/base", "--root"]).arg(volume.root().join("team-a"));
    command.env("HF_ENDPOINT", hub.url()).run().assert_success();
    assert_tree(&volume.family("team-a/base"), &base());
    hub.log().clear();
    fetch_tuned(&hub, &volume).run().assert_success();
    volume.assert_holds("tuned", &tuned());
    assert_eq!(weights_sent(&hub), SHARD);
}

#[test]
fn a_kept_revision_of_another_model_serves_too() {
    let (hub, volume) = (hub(), Volume::new());
    with_base(&hub, &volume);
    hub.move_branch(BASE, "main", Tree::new().with("config.json", "[]"));
    fetch(&hub, &volume, &["hf://org/base"]).run().assert_success();
    hub.log().clear();
    fetch_tuned(&hub, &volume).run().assert_success();
    volume.assert_holds("tuned", &tuned());
    assert_eq!(weights_sent(&hub), SHARD);
}

#[test]
fn a_directory_that_is_filled_in_place_takes_from_its_neighbours() {
    let (hub, volume) = (hub(), Volume::new());
    with_base(&hub, &volume);
    std::fs::create_dir_all(volume.family("tuned")).unwrap();
    fetch_tuned(&hub, &volume).run().assert_success();
    volume.assert_holds("tuned", &tuned());
    volume.assert_holds("base", &base());
    assert_eq!(weights_sent(&hub), SHARD);
}

#[test]
fn a_neighbour_that_cannot_be_used_is_no_failure() {
    let sentinel = ".weightlift-complete.json";
    type Harm = (&'static str, fn(&Path));
    let harms: [Harm; 12] = [
        ("no sentinel", |dir| std::fs::remove_file(dir.join(".weightlift-complete.json")).unwrap()),
        ("torn", |dir| {
            std::fs::write(dir.join(".weightlift-complete.json"), "{\"files\": [").unwrap()
        }),
        ("empty", |dir| std::fs::write(dir.join(".weightlift-complete.json"), "").unwrap()),
        ("later", |dir| {
            std::fs::write(dir.join(".weightlift-complete.json"), "{\"format\": 2, \"files\": 3}")
                .unwrap();
        }),
        ("a pipe", |dir| {
            let path = dir.join(".weightlift-complete.json");
            std::fs::remove_file(&path).unwrap();
            assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
        }),
        ("paths that lead out", |dir| {
            let path = dir.join(".weightlift-complete.json");
            let text = std::fs::read_to_string(&path).unwrap();
            std::fs::write(&path, text.replace("weights/", "../../../weights/")).unwrap();
        }),
        ("files are gone", |dir| std::fs::remove_dir_all(dir.join("weights")).unwrap()),
        ("a file for a directory", |dir| {
            std::fs::remove_dir_all(dir.join("weights")).unwrap();
            std::fs::write(dir.join("weights"), "x").unwrap();
        }),
        ("links", |dir| {
            let away = dir.join("../../../../../away");
            std::fs::rename(dir.join("weights"), &away).unwrap();
            symlink("../../../../../away", dir.join("weights")).unwrap();
        }),
        ("links to files", |dir| {
            for n in 1..5 {
                let file = dir.join(format!("weights/{n}.bin"));
                let away = dir.join(format!("../../../../../away-{n}"));
                std::fs::rename(&file, &away).unwrap();
                symlink(away, file).unwrap();
            }
        }),
        ("other sizes", |dir| {
            for n in 1..5 {
                let path = dir.join(format!("weights/{n}.bin"));
                let file = std::fs::OpenOptions::new().append(true).open(path).unwrap();
                file.set_len(SHARD + 1).unwrap();
            }
        }),
        ("pipes", |dir| {
            for n in 1..5 {
                let file = dir.join(format!("weights/{n}.bin"));
                std::fs::remove_file(&file).unwrap();
                assert!(Command::new("mkfifo").arg(file).status().unwrap().success());
            }
        }),
    ];
    let hub = hub();
    for (name, harm) in harms {
        let volume = Volume::new();
        with_base(&hub, &volume);
        let dir = std::fs::canonicalize(volume.family("base")).unwrap();
        assert!(dir.join(sentinel).is_file());
        harm(&dir);
        fetch_tuned(&hub, &volume).run().assert_success();
        volume.assert_holds("tuned", &tuned());
        assert_eq!(weights_sent(&hub), 4 * SHARD, "{name}");
    }
}

#[test]
fn a_sentinel_that_somebody_has_planted_costs_no_memory() {
    let (hub, volume) = (hub(), Volume::new());
    with_base(&hub, &volume);
    let planted = volume.root().join("planted");
    std::fs::create_dir_all(&planted).unwrap();
    let text = format!("{{\"files\": [{{\"path\": \"{}", "x".repeat(200 << 20));
    std::fs::write(planted.join(".weightlift-complete.json"), text).unwrap();
    let (run, peak) = measure::with_peak_memory(&mut fetch_tuned(&hub, &volume));
    run.assert_success();
    assert!(peak < 128 << 20, "{peak}");
    assert_eq!(weights_sent(&hub), SHARD);
}

#[test]
fn hundreds_of_models_with_hundreds_of_files_cost_little_memory() {
    let (hub, volume) = (hub(), Volume::in_memory());
    with_base(&hub, &volume);
    let head = std::fs::read_to_string(volume.family("base/.weightlift-complete.json")).unwrap();
    let files = (0..400).map(|n| {
        let digest = format!("{n:064x}");
        format!("{{\"path\": \"w/{n}\", \"size\": {SHARD},\n \"sha256\": \"{digest}\", \"verified_by\": \"sha256\"}}")
    });
    let files: Vec<String> = files.collect();
    let (before, after) = head.split_once("\"files\": [").unwrap();
    let text = format!("{before}\"files\": [{},{after}", files.join(",\n"));
    for n in 0..400 {
        let dir = volume.root().join(format!("team-{}/model-{n}", n % 7));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join(".weightlift-complete.json"), &text).unwrap();
    }
    let (run, peak) = measure::with_peak_memory(&mut fetch_tuned(&hub, &volume));
    run.assert_success();
    assert!(peak < 64 << 20, "{peak}");
    volume.assert_holds("tuned", &tuned());
    assert_eq!(weights_sent(&hub), SHARD);
}

#[test]
fn a_model_that_is_removed_meanwhile_is_no_failure() {
    let (hub, volume) = (hub(), Volume::new());
    let log = volume.path("calls");
    if !has("strace") {
        return;
    }
    with_base(&hub, &volume);
    // Held at its first link, while the other model goes.
    let inject = "inject=linkat:delay_enter=3000000:when=2";
    let wrapper = ["strace", "-f", "-qq", "-o", log.to_str().unwrap(), "-e", "trace=linkat"];
    let wrapper = [&wrapper[..], &["-e", inject]].concat();
    let running = under(&wrapper, &fetch_tuned(&hub, &volume)).start();
    eventually("a file is linked", || {
        std::fs::read_to_string(&log).is_ok_and(|log| log.matches("linkat(").count() > 1)
    });
    std::fs::remove_dir_all(volume.root().join(".weightlift/revisions/base")).unwrap();
    std::fs::remove_file(volume.family("base")).unwrap();
    running.wait().assert_success();
    volume.assert_holds("tuned", &tuned());
}

/// Writes other bytes of the same size into the first shard of `family`, in place.
fn damage(volume: &Volume, family: &str) -> (PathBuf, Vec<u8>) {
    let path = volume.family(family).join("weights/1.bin");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[1_000_000] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    (path, bytes)
}

#[test]
fn damage_of_the_other_model_does_not_spread_and_is_not_repaired_behind_its_back() {
    let (hub, volume) = (hub(), Volume::new());
    with_base(&hub, &volume);
    let (path, bytes) = damage(&volume, "base");
    fetch_tuned(&hub, &volume)
        .run()
        .assert_success()
        .assert_says("the bytes that were here are damaged");
    volume.assert_holds("tuned", &tuned());
    assert_eq!(weights_sent(&hub), 2 * SHARD);
    assert!(std::fs::read(path).unwrap() == bytes, "the other model's file was written to");
}

#[test]
fn a_repair_replaces_a_shared_file_and_never_writes_into_it() {
    for filled in [false, true] {
        let (hub, volume) = (hub(), Volume::new());
        with_base(&hub, &volume);
        if filled {
            std::fs::create_dir_all(volume.family("tuned")).unwrap();
        }
        fetch_tuned(&hub, &volume).run().assert_success();
        // Whoever writes into the shared file damages both.
        let (path, bytes) = damage(&volume, "base");
        assert_eq!(inode(&path), inode(&volume.family("tuned/weights/1.bin")));
        weightlift().arg("verify").arg(volume.family("tuned")).run().assert_code(12);
        let before = inode(&path);
        fetch(&hub, &volume, &["hf://org/tuned", "--recheck"]).run().assert_success();
        volume.assert_holds("tuned", &tuned());
        assert_eq!(inode(&path), before);
        assert!(std::fs::read(&path).unwrap() == bytes, "repaired under the server of the other");
        fetch(&hub, &volume, &["hf://org/base", "--recheck"]).run().assert_success();
        volume.assert_holds("base", &base());
        volume.assert_holds("tuned", &tuned());
    }
}

#[test]
fn where_no_second_name_can_be_had_the_bytes_are_copied() {
    if !has("strace") {
        return;
    }
    for error in ["EPERM", "EMLINK", "EXDEV", "EOPNOTSUPP"] {
        let (hub, volume) = (hub(), Volume::new());
        with_base(&hub, &volume);
        let inject = format!("linkat:error={error}");
        strace(&inject, &fetch_tuned(&hub, &volume)).run().assert_success();
        volume.assert_holds("tuned", &tuned());
        volume.assert_holds("base", &base());
        assert_eq!(weights_sent(&hub), SHARD, "{error}");
        let of = |family: &str| inode(&volume.family(family).join("weights/1.bin"));
        assert_ne!(of("base"), of("tuned"), "{error}");
    }
}

#[test]
fn a_file_that_another_user_could_change_is_copied() {
    if !is_root() {
        return;
    }
    // Another owner; one that not everybody can read who can read ours.
    for is_foreign in [true, false] {
        let (hub, volume) = (hub(), Volume::new());
        with_base(&hub, &volume);
        let path = volume.family("base/weights/1.bin");
        if is_foreign {
            std::os::unix::fs::chown(&path, Some(65_534), None).unwrap();
        } else {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        }
        fetch_tuned(&hub, &volume).run().assert_success();
        volume.assert_holds("tuned", &tuned());
        assert_eq!(weights_sent(&hub), SHARD);
        assert_ne!(inode(&path), inode(&volume.family("tuned/weights/1.bin")));
        assert_eq!(
            inode(&volume.family("base/weights/2.bin")),
            inode(&volume.family("tuned/weights/2.bin"))
        );
        let mode = std::fs::metadata(volume.family("tuned/weights/1.bin")).unwrap().mode();
        assert_eq!(mode & 0o777, 0o644);
    }
}

#[test]
fn a_model_that_this_user_may_not_read_is_passed_over() {
    if !is_root() || !has("setpriv") {
        return;
    }
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    };
    // Its directory, its sentinel, its files.
    for closed in ["", ".weightlift-complete.json", "weights/1.bin"] {
        let (hub, volume) = (hub(), Volume::new());
        with_base(&hub, &volume);
        mode(&volume.path(""), 0o755);
        let chown = Command::new("chown").args(["-R", "65532:65532"]).arg(volume.root()).status();
        assert!(chown.unwrap().success());
        let path = std::fs::canonicalize(volume.family("base")).unwrap().join(closed);
        std::os::unix::fs::chown(&path, Some(0), Some(0)).unwrap();
        mode(&path, if closed.is_empty() { 0o700 } else { 0o600 });
        let user = ["setpriv", "--reuid=65532", "--regid=65532", "--clear-groups", "--"];
        under(&user, &fetch_tuned(&hub, &volume)).run().assert_success();
        volume.assert_holds("tuned", &tuned());
        let missed = if closed.starts_with("weights") { 2 } else { 4 };
        assert_eq!(weights_sent(&hub), missed * SHARD, "{closed}");
        volume.assert_holds("base", &base());
    }
}

#[test]
fn a_kill_at_any_link_or_rename_harms_no_model() {
    if !has("strace") {
        return;
    }
    for call in ["linkat", "renameat", "renameat2", "unlinkat"] {
        for when in 1.. {
            let (hub, volume) = (hub(), Volume::new());
            with_base(&hub, &volume);
            let inject = format!("{call}:signal=KILL:when={when}");
            let code = strace(&inject, &fetch_tuned(&hub, &volume)).run().code;
            volume.assert_holds("base", &base());
            if code == 0 {
                break;
            }
            let again = fetch_tuned(&hub, &volume).run().assert_success();
            volume.assert_holds("tuned", &tuned());
            volume.assert_holds("base", &base());
            // Who is killed while cleaning up has published already.
            if !again.stderr.contains("nothing to do") {
                volume.assert_clean();
            }
            assert!(when < 40, "{call}: no end");
        }
    }
}

#[test]
fn a_part_of_an_earlier_attempt_gives_way_to_a_whole_file() {
    let (hub, volume) = (FakeHub::serving(TUNED, tuned()), Volume::new());
    hub.script(Rule::on("GET", "xet-bridge").then(Fault::Drip { bytes_per_second: 400_000 }));
    let running = fetch_tuned(&hub, &volume).start();
    // Longer than it takes until what has come is noted.
    eventually("something is there", || weights_sent(&hub) > 4_000_000);
    running.signal("-KILL");
    running.wait();
    hub.clear_script();
    let other = self::hub();
    fetch(&other, &volume, &["hf://org/base"]).run().assert_success();
    hub.log().clear();
    fetch_tuned(&hub, &volume).run().assert_success();
    volume.assert_holds("tuned", &tuned());
    volume.assert_holds("base", &base());
    assert!(weights_sent(&hub) <= SHARD, "{}", weights_sent(&hub));
    for n in 1..4 {
        let of = |family: &str| inode(&volume.family(family).join(format!("weights/{n}.bin")));
        assert_eq!(of("base"), of("tuned"), "{n}");
    }
    volume.assert_clean();
}
