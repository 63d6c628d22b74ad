//! Layers that are archives, through the binary: what of them becomes the model, and what is refused.

use std::io::Write;
use std::time::Duration;

use crate::support::process::straced;
use crate::support::*;
use weightlift_fakes::{Blob, FakeDragonfly, FakeRegistry, Fault, Layer, Rule, Tree};

const NAME: &str = "org/tiny";
const MODEL_PACK: &str = "application/vnd.cncf.model.weight.v1.tar";
const KIT: &str = "application/vnd.kitops.modelkit.model.v1.tar";
const IMAGE: &str = "application/vnd.oci.image.layer.v1.tar";
const BIG: u64 = (4 << 20) + 11;

/// A tar archive, entry by entry.
#[derive(Clone, Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn file(self, path: &str, content: &[u8]) -> Self {
        self.entry(b'0', path, "", content)
    }

    fn entry(mut self, flag: u8, path: &str, target: &str, content: &[u8]) -> Self {
        self.header(flag, path, target, content.len() as u64);
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn header(&mut self, flag: u8, path: &str, target: &str, size: u64) {
        let mut header = [0_u8; 512];
        header[..path.len()].copy_from_slice(path.as_bytes());
        header[100..108].copy_from_slice(b"0000644\0");
        header[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
        header[136..148].copy_from_slice(b"00000000000\0");
        header[148..156].fill(b' ');
        header[156] = flag;
        header[157..157 + target.len()].copy_from_slice(target.as_bytes());
        header[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&header);
    }

    /// A path of any length, as pax has it.
    fn long(self, path: &str, content: &[u8]) -> Self {
        let rest = format!(" path={path}\n");
        let length = (rest.len()..).find(|n| n.to_string().len() + rest.len() == *n).unwrap();
        self.entry(b'x', "pax", "", format!("{length}{rest}").as_bytes()).file("short", content)
    }

    /// The same, as GNU has it.
    fn long_gnu(self, path: &str, content: &[u8]) -> Self {
        self.entry(b'L', "././@LongLink", "", format!("{path}\0").as_bytes()).file("short", content)
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }

    fn of(tree: &Tree, prefix: &str) -> Self {
        let add = |tar: Self, (path, blob): (&str, &Blob)| {
            tar.long(&format!("{prefix}{path}"), &blob.to_vec())
        };
        tree.iter().fold(Self::default(), add)
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    // Two members, as some tools write them.
    let (first, second) = bytes.split_at(bytes.len() / 2);
    let member = |part| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(part).unwrap();
        encoder.finish().unwrap()
    };
    [member(first), member(second)].concat()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    let (first, second) = bytes.split_at(bytes.len() / 2);
    // A frame to be skipped between the two.
    let skipped = [0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
    let frame =
        |part| ruzstd::encoding::compress_to_vec(part, ruzstd::encoding::CompressionLevel::Fastest);
    [frame(first), skipped.to_vec(), frame(second)].concat()
}

fn layer(media_type: &str, bytes: Vec<u8>) -> Layer {
    Layer::new(media_type, Blob::bytes(bytes))
}

fn tree() -> Tree {
    Tree::new()
        .with("config.json", "{}")
        .with("empty", "")
        .with(&format!("{}/deep.json", "long".repeat(40)), "deep")
        .with_blob("sub/big.bin", Blob::synthetic(BIG, 9))
}

fn registry(layers: &[Layer]) -> FakeRegistry {
    FakeRegistry::builder().artifact(NAME, "v1", layers).start()
}

fn run(registry: &FakeRegistry, volume: &Volume) -> Run {
    let mut command =
        fetch_oci(registry, volume, "org/tiny:v1", &["m", "--all", "--chunk-size", "1MiB"]);
    command.env("WEIGHTLIFT_STALL_TIMEOUT", "1s").env("WEIGHTLIFT_RETRY_DELAY", "25ms").run()
}

#[test]
fn an_archive_of_any_kind_is_unpacked_in_one_go_and_its_files_are_published() {
    let tar = || Tar::of(&tree(), "").end();
    for (media_type, bytes) in [
        (MODEL_PACK.to_owned(), tar()),
        (format!("{MODEL_PACK}+gzip"), gzip(&tar())),
        (format!("{MODEL_PACK}+zstd"), zstd(&tar())),
        (KIT.to_owned(), tar()),
        (format!("{KIT}+gzip"), gzip(&tar())),
        ("application/vnd.docker.ai.dir.tar".to_owned(), Tar::of(&tree(), "./").end()),
        (IMAGE.to_owned(), Tar::of(&tree(), "models/").end()),
        (
            "application/vnd.docker.image.rootfs.diff.tar.gzip".to_owned(),
            gzip(&Tar::of(&tree(), "/models/").end()),
        ),
    ] {
        let raw = Layer::file("raw.json", Blob::bytes("raw"));
        let packed = bytes.len() as u64;
        let (registry, volume) = (registry(&[layer(&media_type, bytes), raw]), Volume::new());
        run(&registry, &volume).assert_success();
        volume.assert_holds("m", &tree().with("raw.json", "raw"));
        volume.assert_clean();
        let sent = registry.log().bytes_sent_for("sha256:");
        assert!(sent < packed + 2_000, "{media_type}: {sent} bytes of {packed} were sent");
        weightlift().arg("verify").arg(volume.family("m")).run().assert_success();
        // What is there is asked for by nobody.
        registry.log().clear();
        run(&registry, &volume).assert_success();
        assert_eq!(registry.requests().len(), 1, "{media_type}");
    }
}

#[test]
fn what_is_unpacked_counts_as_fetched_and_not_as_reused() {
    let (registry, volume) =
        (registry(&[layer(MODEL_PACK, Tar::of(&tree(), "").end())]), Volume::new());
    let mut command = fetch_oci(&registry, &volume, "org/tiny:v1", &["m", "--output", "json"]);
    let run = command.run().assert_success();
    let told: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert!(told["fetched_bytes"].as_u64().unwrap() >= BIG, "{told}");
    assert_eq!(told["reused_bytes"].as_u64(), Some(0), "{told}");
    volume.assert_clean();
}

#[test]
fn the_layers_of_an_image_lie_one_over_the_other() {
    let lower = Tar::default()
        .entry(b'5', "models/", "", b"")
        .file("etc/passwd", b"root")
        .entry(b'2', "bin/sh", "../usr/bin/busybox", b"")
        .entry(b'3', "dev/null", "", b"")
        .file("models/gone.json", b"1")
        .file("models/kept.json", b"1")
        .file("models/changed.json", b"old")
        .file("models/opaque/a.json", b"1")
        .file("models/dir/a.json", b"1")
        .file("models/file", b"1");
    let upper = Tar::default()
        .file("models/.wh.gone.json", b"")
        .file("models/changed.json", b"new")
        .file("models/opaque/b.json", b"2")
        .file("models/opaque/.wh..wh..opq", b"")
        .file("models/.wh.dir", b"")
        .file("models/file/in.json", b"3")
        .entry(b'2', "models/link.json", "kept.json", b"")
        .file("models/kept.json", b"2")
        .entry(b'1', "models/hard.json", "models/kept.json", b"");
    let layers = [layer(&format!("{IMAGE}+gzip"), gzip(&lower.end())), layer(IMAGE, upper.end())];
    let (registry, volume) = (registry(&layers), Volume::new());
    run(&registry, &volume).assert_success();
    let expected = Tree::new()
        .with("kept.json", "2")
        .with("changed.json", "new")
        .with("opaque/b.json", "2")
        .with("file/in.json", "3")
        .with("link.json", "2")
        .with("hard.json", "2");
    volume.assert_holds("m", &expected);
}

#[test]
fn trouble_on_the_way_is_got_over_and_a_connection_that_breaks_is_continued() {
    let packed = gzip(&Tar::of(&tree(), "").end());
    let len = packed.len() as u64;
    let store = || Rule::on("GET", "").at("store");
    for (rule, most) in [
        (store().once().then(Fault::CutAfter(3_000_000)), len + 600_000),
        (store().once().then(Fault::ResetAfter(3_000_000)), len + 600_000),
        (store().once().then(Fault::StallAfter(100_000, Duration::from_secs(60))), len + 600_000),
        (store().times(2).then(Fault::status(503)), len + 1_000),
        (store().once().then(Fault::status(403)), len + 1_000),
        // Only its digest can tell.
        (store().once().then(Fault::FlipByteAt(1_000_000)), 2 * len + 1_000),
        (Rule::on("GET", "/blobs/").once().then(Fault::status(500)), len + 1_000),
    ] {
        let layers = [layer(&format!("{MODEL_PACK}+gzip"), packed.clone())];
        let (registry, volume) = (registry(&layers), Volume::new());
        let shown = format!("{rule:?}");
        registry.script(rule);
        run(&registry, &volume).assert_success();
        volume.assert_holds("m", &tree());
        volume.assert_clean();
        let sent = registry.log().bytes_sent_for("sha256:");
        assert!(sent <= most, "{shown}: {sent} bytes of {len}");
    }
}

#[test]
fn bytes_that_stay_wrong_are_never_published() {
    let layers = [layer(MODEL_PACK, Tar::of(&tree(), "").end())];
    let (registry, volume) = (registry(&layers), Volume::new());
    registry.script(Rule::on("GET", "").at("store").then(Fault::FlipByteAt(1_000_000)));
    run(&registry, &volume).assert_code(12).assert_says("with digest sha256:");
    assert!(!volume.family("m").exists());
    registry.clear_script();
    run(&registry, &volume).assert_success();
    volume.assert_holds("m", &tree());
    volume.assert_clean();
}

/// A registry that begins anew each time and never comes to the end must not be asked for ever, nor fill the
/// volume with what it has begun.
#[test]
fn a_registry_without_ranges_that_breaks_off_ends_the_run() {
    let layers = [layer(MODEL_PACK, Tar::of(&tree(), "").end())];
    let (registry, volume) = (registry(&layers), Volume::new());
    let fault = Rule::on("GET", "").at("store");
    registry.script(fault.then(Fault::IgnoreRange).then(Fault::CutAfter(3_000_000)));
    run(&registry, &volume).assert_code(20).assert_says("serves no ranges of it");
    assert!(registry.log().count("GET", "sha256:") < 30);
    assert!(!volume.family("m").exists());
    volume.assert_clean();
}

#[test]
fn names_that_would_fill_the_memory_are_refused() {
    let target = "x/".repeat(30_000);
    let link = |tar: Tar, n: usize| {
        let long = format!("{target}\0");
        tar.entry(b'K', "././@LongLink", "", long.as_bytes()).entry(b'2', &format!("a{n}"), "", b"")
    };
    let tar = (0..1_200).fold(Tar::default(), link);
    let layers = [layer(&format!("{MODEL_PACK}+gzip"), gzip(&tar.end()))];
    let (registry, volume) = (registry(&layers), Volume::new());
    run(&registry, &volume).assert_code(13).assert_says("the names of its files take more than");
    assert!(!volume.family("m").exists());
}

#[test]
fn wrong_bytes_of_peers_are_read_from_the_registry() {
    let packed = Blob::bytes(gzip(&Tar::of(&tree(), "").end()));
    let layers = [Layer::new(&format!("{MODEL_PACK}+gzip"), packed.clone())];
    let (registry, volume) = (registry(&layers), Volume::new());
    let daemon = FakeDragonfly::start(None);
    let mut wrong = packed.to_vec();
    let middle = wrong.len() / 2;
    wrong[middle] ^= 1;
    daemon.have(&format!("sha256:{}", packed.sha256()), Blob::bytes(wrong));
    let p2p = format!("dragonfly={}", daemon.url());
    let mut command = fetch_oci(&registry, &volume, "org/tiny:v1", &["m", "--all", "--p2p", &p2p]);
    command.env("WEIGHTLIFT_RETRY_DELAY", "25ms").run().assert_success();
    volume.assert_holds("m", &tree());
    let sent = registry.log().bytes_sent_for("sha256:");
    assert!((packed.len()..packed.len() + 2_000).contains(&sent), "{sent}");
    assert_eq!(daemon.requests().len(), 2, "twice, and then directly");
}

#[test]
fn beside_another_source_an_archive_is_neither_read_nor_offered() {
    let layers = [layer(MODEL_PACK, Tar::of(&tree(), "").end())];
    let (registry, volume) = (registry(&layers), Volume::new());
    let hub = weightlift_fakes::FakeHub::serving(REPO, tree());
    let also = format!("oci://{}/org/tiny:v1", registry.host());
    let run = fetch(&hub, &volume, &["hf://org/tiny", "m", "--all", "--also", &also]).run();
    run.assert_success().assert_says("the archives of");
    volume.assert_holds("m", &tree());
    assert!(registry.log().bytes_sent_for("sha256:") < 100_000, "the archive was read");
}

#[test]
fn hostile_archives_are_refused_and_nothing_of_them_is_published() {
    let file = |path: &str| Tar::default().file(path, b"x").end();
    let entry =
        |flag, path: &str, target: &str| Tar::default().entry(flag, path, target, b"").end();
    let huge = |size| {
        let mut tar = Tar::default();
        tar.header(b'0', "huge", "", size);
        tar.0
    };
    let bomb = gzip(&Tar::default().file("zeros", &vec![0; 160 << 20]).end());
    let mut broken = Tar::default().file("a", b"x").end();
    broken[0] ^= 1;
    for (name, media_type, bytes, code, says) in [
        ("an absolute path", MODEL_PACK, file("/etc/passwd"), 13, "absolute path"),
        ("up", MODEL_PACK, file("a/../../x"), 13, "leaves its directory"),
        ("up in an image", IMAGE, file("models/../../x"), 13, "leaves its directory"),
        ("ours", MODEL_PACK, file(".weightlift-complete.json"), 13, "reserved"),
        ("a control character", MODEL_PACK, file("a\u{1b}[2J"), 13, "control characters"),
        ("a link out", MODEL_PACK, entry(b'2', "a", "../../etc/passwd"), 13, "is a link to"),
        ("an absolute link", MODEL_PACK, entry(b'2', "a", "/etc/passwd"), 13, "is a link to"),
        ("a link in a circle", MODEL_PACK, entry(b'2', "a", "a"), 13, "is a link to"),
        ("a hard link out", MODEL_PACK, entry(b'1', "a", "/etc/passwd"), 13, "is a link to"),
        (
            "a link out of models",
            IMAGE,
            entry(b'2', "models/a", "../etc/passwd"),
            13,
            "is a link to",
        ),
        ("a device", MODEL_PACK, entry(b'3', "a", ""), 13, "a device or a pipe"),
        ("a pipe in models", IMAGE, entry(b'6', "models/a", ""), 13, "a device or a pipe"),
        ("sparse", MODEL_PACK, entry(b'S', "a", ""), 13, "sparse"),
        (
            "a bomb",
            "application/vnd.cncf.model.weight.v1.tar+gzip",
            bomb,
            13,
            "times what it takes packed",
        ),
        ("a size beyond all", MODEL_PACK, huge((1 << 33) - 1), 13, "times what it takes packed"),
        (
            "a header without end",
            MODEL_PACK,
            {
                let mut tar = Tar::default();
                tar.header(b'L', "x", "", 1 << 30);
                tar.0
            },
            12,
            "header",
        ),
        ("cut off", MODEL_PACK, huge(100), 12, "ends in the middle"),
        ("a wrong sum", MODEL_PACK, broken, 12, "header"),
        (
            "no gzip",
            "application/vnd.cncf.model.weight.v1.tar+gzip",
            file("a"),
            12,
            "not packed as its type says",
        ),
        (
            "no zstd",
            "application/vnd.cncf.model.weight.v1.tar+zstd",
            file("a"),
            12,
            "not packed as its type says",
        ),
        ("nothing in models", IMAGE, file("etc/passwd"), 10, "without a file below `/models`"),
    ] {
        let (registry, volume) = (registry(&[layer(media_type, bytes)]), Volume::new());
        let run = run(&registry, &volume);
        assert_eq!(run.code, code, "{name}: {}", run.stderr);
        assert!(run.stderr.contains(says), "{name}: {}", run.stderr);
        assert!(!volume.family("m").exists(), "{name}");
    }
}

#[test]
fn the_last_of_several_entries_counts_and_what_follows_the_end_does_not() {
    let mut tar = Tar::default()
        .file("a", b"first")
        .file("b", b"1")
        .file("./a", b"second")
        .long_gnu("sub/long-name", b"gnu")
        .end();
    tar.extend_from_slice(b"trailing garbage");
    let (registry, volume) = (registry(&[layer(MODEL_PACK, tar)]), Volume::new());
    run(&registry, &volume).assert_success();
    let expected = Tree::new().with("a", "second").with("b", "1").with("sub/long-name", "gnu");
    volume.assert_holds("m", &expected);
}

#[test]
fn an_archive_is_pinned_and_fetched_by_the_lock_file_and_planned_without_a_volume() {
    let layers = [layer(&format!("{MODEL_PACK}+gzip"), gzip(&Tar::of(&tree(), "").end()))];
    let (registry, volume) = (registry(&layers), Volume::new());
    let uri = format!("oci://{}/org/tiny:v1", registry.host());
    let lock = volume.path("models.lock");
    let mut pin = weightlift();
    pin.args(["pin", &uri, "m", "--all", "--locked"]).arg(&lock);
    pin.run().assert_success();
    let mut fetch = weightlift();
    fetch.arg("fetch").arg("--root").arg(volume.root()).arg("--locked").arg(&lock);
    fetch.run().assert_success();
    volume.assert_holds("m", &tree());
    let mut plan = weightlift();
    plan.args(["plan", &uri, "n", "--all", "--root"]).arg(volume.root()).run().assert_success();
}

#[test]
fn a_fetch_that_is_killed_while_it_unpacks_leaves_nothing_that_a_later_one_does_not_clear() {
    let layers = [layer(MODEL_PACK, Tar::of(&tree(), "").end())];
    let (registry, volume) = (registry(&layers), Volume::new());
    registry.script(
        Rule::on("GET", "").at("store").once().then(Fault::Drip { bytes_per_second: 500_000 }),
    );
    let running = fetch_oci(&registry, &volume, "org/tiny:v1", &["m", "--all"]).start();
    eventually("it unpacks", || registry.log().bytes_sent_for("sha256:") > 1_000_000);
    running.signal("-KILL");
    assert_ne!(running.wait().code, 0);
    assert_eq!(volume.attempts().len(), 1);
    run(&registry, &volume).assert_success();
    volume.assert_holds("m", &tree());
    volume.assert_clean();
}

#[test]
fn what_is_unpacked_stays_until_it_is_taken_where_there_are_no_locks() {
    if !has("strace") {
        return;
    }
    let layers = [layer(MODEL_PACK, Tar::of(&tree(), "").end())];
    let (registry, volume) = (registry(&layers), Volume::new());
    let fetch = fetch_oci(&registry, &volume, "org/tiny:v1", &["m", "--all"]);
    // As where the kernel grants every lock to everybody.
    let run = straced(&fetch, "flock", &["flock:retval=0"]).run().assert_success();
    assert!(!run.stderr.contains("waiting up to"), "{}", run.stderr);
    volume.assert_holds("m", &tree());
    volume.assert_clean();
}

#[test]
fn a_volume_needs_room_for_the_files_once_and_one_that_is_too_small_is_said_so() {
    if !is_root() {
        return;
    }
    let zeros = gzip(&Tar::default().file("zeros", &vec![0; 16 << 20]).end());
    let random = gzip(&Tar::of(&tree(), "").end());
    for (bytes, code) in [(random, 0), (zeros, 15)] {
        let layers = [layer(&format!("{MODEL_PACK}+gzip"), bytes)];
        let (registry, volume) = (registry(&layers), Volume::new());
        std::fs::create_dir(volume.root()).unwrap();
        let fetch = fetch_oci(&registry, &volume, "org/tiny:v1", &["m", "--all"]);
        // Twice the large file has no room.
        let mount = format!("mount -t tmpfs -o size=7m none {}", volume.root().display());
        let script = format!("{mount}\nexec \"$@\"");
        under(&["unshare", "-m", "sh", "-c", &script, "sh"], &fetch).run().assert_code(code);
    }
}
