//! Every kind of place beside every other: the same files by their digests, whoever has them.

use std::process::Command;

use crate::support::*;
use weightlift_fakes::{
    Blob, Checksum, FakeAzure, FakeDragonfly, FakeGcs, FakeHub, FakeModelScope, FakeRegistry,
    FakeS3, FakeWeb, Fault, ObjectOptions, Rule, Tree, Writes,
};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 3 * MIB + 7;

fn tree() -> Tree {
    Tree::new().with("config.json", "{}").with_blob("big.bin", Blob::synthetic(SIZE, 11))
}

fn sums() -> Blob {
    let line = |(path, blob): (&str, &Blob)| format!("{}  {path}\n", blob.sha256());
    Blob::bytes(tree().iter().map(line).collect::<String>())
}

/// One of each kind, with the same files.
struct Places {
    hub: FakeHub,
    s3: FakeS3,
    gcs: FakeGcs,
    azure: FakeAzure,
    registry: FakeRegistry,
    web: FakeWeb,
    modelscope: FakeModelScope,
    /// Holds the published model `there`.
    volume: Volume,
}

const KINDS: [&str; 8] = ["hf", "s3", "gs", "az", "oci", "https", "ms", "file"];

impl Places {
    fn start() -> Self {
        let mut s3 = FakeS3::builder()
            .bucket("models")
            .bucket("copies")
            .credentials(ACCESS_KEY, SECRET_KEY)
            .writable(Writes::default());
        let mut gcs = FakeGcs::builder().object("models", "m/SHA256SUMS", sums());
        let mut azure = FakeAzure::builder("models").object("weights", "m/SHA256SUMS", sums());
        for (path, blob) in tree().iter() {
            let key = format!("m/{path}");
            let options =
                ObjectOptions { checksum: Some(Checksum::Sha256), ..ObjectOptions::default() };
            s3 = s3.object_with("models", &key, blob.clone(), options);
            gcs = gcs.object("models", &key, blob.clone());
            azure = azure.object("weights", &key, blob.clone());
        }
        let places = Self {
            hub: FakeHub::serving(REPO, tree()),
            s3: s3.start(),
            gcs: gcs.start(),
            azure: azure.start(),
            registry: FakeRegistry::serving("org/tiny", "v1", &tree()),
            web: FakeWeb::builder().with_sums("m", &tree()).start(),
            modelscope: FakeModelScope::builder().model("org/tiny", tree()).start(),
            volume: Volume::new(),
        };
        places.fetch(&places.volume, &[&places.uri("hf"), "there"]).run().assert_success();
        places
    }

    fn uri(&self, kind: &str) -> String {
        match kind {
            "hf" => "hf://org/tiny".into(),
            "s3" => "s3://models/m/".into(),
            "gs" => "gs://models/m/".into(),
            "az" => "az://models/weights/m/".into(),
            "oci" => format!("oci://{}/org/tiny:v1", self.registry.host()),
            "https" => format!("{}/m/", self.web.url()),
            "ms" => "ms://org/tiny".into(),
            "file" => format!("file://{}", self.volume.family("there").display()),
            other => panic!("{other}"),
        }
    }

    fn fetch(&self, volume: &Volume, arguments: &[&str]) -> Command {
        let mut command = fetch_s3(&self.s3, volume, arguments);
        command.args(["--chunk-size", "1MiB", "--connections", "2"]);
        self.reached(command)
    }

    fn mirror(&self, source: &str, target: &str) -> Command {
        let mut command = weightlift();
        command.args([
            "mirror",
            source,
            target,
            "--s3-path-style",
            "--s3-endpoint",
            &self.s3.url(),
        ]);
        command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
        command.env("AWS_REGION", "us-east-1");
        self.reached(command)
    }

    fn reached(&self, mut command: Command) -> Command {
        command.env("HF_ENDPOINT", self.hub.url()).env("WEIGHTLIFT_RETRY_DELAY", "25ms");
        command.env("CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE", self.gcs.url());
        command.env("GCE_METADATA_HOST", "127.0.0.1:9").env("GCE_METADATA_IP", "127.0.0.1:9");
        command.env("MODELSCOPE_ENDPOINT", self.modelscope.url());
        command.env("AZURE_STORAGE_ENDPOINT", self.azure.url()).env("AZURE_SKIP_SIGNATURE", "true");
        command
    }

    /// Breaks the large file off there, and gives nothing of it after that.
    fn fails(&self, kind: &str) {
        let (once, then) = (
            Rule::on("GET", "").when_range_starts_at(0).once().then(Fault::CutAfter(500_000)),
            Rule::on("GET", "big.bin").then(Fault::status(500)),
        );
        match kind {
            "hf" => {
                self.hub.script(once.at("cdn"));
                self.hub.script(Rule::on("GET", "big.bin").at("cdn").then(Fault::status(500)));
            }
            "s3" => self.s3.script(then),
            "gs" => self.gcs.script(then),
            "az" => self.azure.script(then),
            "oci" => {
                self.registry.script(once.at("store"));
                self.registry.script(
                    Rule::on("GET", "")
                        .at("store")
                        .when_header("range", "bytes=")
                        .then(Fault::status(500)),
                );
            }
            "https" => self.web.script(then),
            "ms" => self.modelscope.script(then),
            "file" => {
                let file = self.volume.family("there").join("big.bin");
                std::fs::remove_file(std::fs::canonicalize(file).unwrap()).unwrap();
            }
            other => panic!("{other}"),
        }
    }
}

fn assert_has(volume: &Volume, what: &str) {
    for (path, blob) in tree().iter() {
        let found = std::fs::read(volume.family("m").join(path)).unwrap();
        assert!(found == blob.to_vec(), "{what}: {path}");
    }
}

#[test]
fn what_one_place_does_not_give_comes_from_any_other() {
    let mut pairs = 0;
    for pinned in KINDS {
        for also in KINDS.into_iter().filter(|also| *also != pinned) {
            let (places, volume) = (Places::start(), Volume::new());
            places.fails(also);
            let (source, other) = (places.uri(pinned), places.uri(also));
            let run = places.fetch(&volume, &[&source, "m", "--also", &other]).run();
            let what = format!("{pinned}, also {also}");
            assert_eq!(run.code, 0, "{what}: {}", run.stderr);
            assert_has(&volume, &what);
            // It was asked first, and is named.
            assert!(run.stderr.contains(&other), "{what}: {}", run.stderr);
            pairs += 1;
        }
    }
    assert_eq!(pairs, KINDS.len() * (KINDS.len() - 1));
}

#[test]
fn the_bytes_of_any_place_come_through_peers_as_one_task() {
    let daemon = FakeDragonfly::start(None);
    let p2p = format!("dragonfly={}", daemon.url());
    let task = format!("sha256:{}", Blob::synthetic(SIZE, 11).sha256());
    let places = Places::start();
    for kind in KINDS.into_iter().filter(|kind| *kind != "file") {
        let volume = Volume::new();
        let before = daemon.requests().len();
        let run = places.fetch(&volume, &[&places.uri(kind), "m", "--p2p", &p2p]).run();
        assert_eq!(run.code, 0, "{kind}: {}", run.stderr);
        assert_has(&volume, kind);
        let asked = daemon.requests().split_off(before);
        let is_task = |value: Option<&str>| value == Some(&*task);
        let of_task = asked
            .iter()
            .filter(|it| is_task(it.header("x-dragonfly-content-for-calculating-task-id")));
        assert!(of_task.count() >= 3, "{kind}: {asked:?}");
        for secret in [TOKEN, SECRET_KEY, ACCESS_KEY] {
            let shows =
                |value: &str| value.contains(secret) && !value.starts_with("AWS4-HMAC-SHA256");
            assert!(
                !asked.iter().flat_map(|it| &it.headers).any(|(_, value)| shows(value)),
                "{kind}"
            );
        }
    }
    assert_eq!(
        places
            .hub
            .requests()
            .iter()
            .filter(|it| it.origin == "cdn")
            .map(|it| it.body_bytes_sent)
            .sum::<u64>(),
        2 * SIZE,
        "the volume's own fetch, and one for all"
    );
    assert_eq!(places.s3.bytes_sent_for("big.bin"), 0, "the peers have it");
}

#[test]
fn what_any_place_has_is_mirrored_and_fetched_from_the_mirror() {
    let places = Places::start();
    for kind in KINDS {
        let target = format!("s3://copies/{kind}/");
        let run = places.mirror(&places.uri(kind), &target).run();
        assert_eq!(run.code, 0, "{kind}: {}", run.stderr);
        let volume = Volume::new();
        places.fetch(&volume, &[&target, "m"]).run().assert_success();
        assert_has(&volume, kind);
    }
}
