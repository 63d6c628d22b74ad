//! `mirror` into stores that others wrote: moto, and the gateway of Ceph.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::real_peers::{Moto, has_packages, python, script};
use crate::support::*;
use weightlift_fakes::{Blob, FakeHub, Fault, Rule, Tree};

const MIB: u64 = 1 << 20;

fn model() -> Tree {
    tiny_selected()
        .with("empty.txt", "")
        .with("sub/with space+plus.txt", "odd")
        .with_blob("sub/big.bin", Blob::synthetic(40 * MIB + 3, 4))
}

fn run_on(url: &str, hub: &FakeHub, arguments: &[&str]) -> Command {
    let mut command = weightlift();
    command.args(arguments).args(["--s3-path-style", "--s3-endpoint", url]);
    command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
    command.env("AWS_REGION", "us-east-1").env("HF_ENDPOINT", hub.url());
    command.env("WEIGHTLIFT_RETRY_TIMEOUT", "60s");
    command
}

/// A copy, a kill in the middle of one, an update, a check, and a fetch, at the store of `url`.
fn a_whole_life(url: &str) {
    let hub = FakeHub::serving("org/tiny", model());
    let target = "s3://models/life/m/";
    let mirror = || run_on(url, &hub, &["mirror", "hf://org/tiny", target, "--all"]);
    hub.script(
        Rule::on("GET", "big.bin")
            .at("cdn")
            .when_range_starts_at(32 * MIB)
            .then(Fault::HangBeforeHeaders(Duration::from_secs(60))),
    );
    let running = mirror().start();
    wait_for_parts(url, 2);
    running.signal("-KILL");
    drop(running);
    let volume = Volume::new();
    let fetch = |volume: &Volume| {
        let root = volume.root();
        let root = root.to_str().unwrap();
        run_on(url, &hub, &["fetch", target, "m", "--all", "--root", root]).run()
    };
    fetch(&volume).assert_code(20);
    hub.clear_script();
    let run = mirror().arg("--output=json").run().assert_success();
    let told: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    let sent = told["sent_bytes"].as_u64().unwrap();
    assert!(sent < 9 * MIB, "two parts were there: {sent} bytes were sent");
    fetch(&volume).assert_success();
    volume.assert_holds("m", &model());
    mirror().run().assert_success().assert_says("nothing to do");
    let check = |deep: &[&str]| {
        let arguments = [&["mirror", "--check", target], deep].concat();
        run_on(url, &hub, &arguments).run()
    };
    check(&[]).assert_success();
    check(&["--deep"]).assert_success();
    let updated = model()
        .with("config.json", "{\"new\": 1}")
        .with_blob("sub/big.bin", Blob::synthetic(40 * MIB + 3, 5));
    hub.move_branch("org/tiny", "main", updated.clone());
    mirror().run().assert_success();
    fetch(&volume).assert_success();
    volume.assert_holds("m", &updated);
    check(&["--deep"]).assert_success();
}

/// Waits until an unfinished upload has so many parts.
fn wait_for_parts(url: &str, count: usize) {
    let code = "import sys, time, boto3\n\
        s3 = boto3.client('s3', endpoint_url=sys.argv[1], region_name='us-east-1',\n    \
            aws_access_key_id=sys.argv[3], aws_secret_access_key=sys.argv[4])\n\
        def parts(upload):\n    \
            of = dict(Bucket='models', Key=upload['Key'], UploadId=upload['UploadId'])\n    \
            return len(s3.list_parts(**of).get('Parts', []))\n\
        for _ in range(300):\n    \
            uploads = s3.list_multipart_uploads(Bucket='models').get('Uploads', [])\n    \
            if any(parts(upload) >= int(sys.argv[2]) for upload in uploads):\n        \
                sys.exit(0)\n    \
            time.sleep(0.2)\n\
        sys.exit(1)";
    let found = python()
        .args(["-c", code, url, &count.to_string(), ACCESS_KEY, SECRET_KEY])
        .output()
        .unwrap();
    assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
}

#[test]
fn moto_holds_a_mirror() {
    if !has_packages("moto.server, boto3") {
        return;
    }
    let volume = Volume::new();
    let dir = volume.path("nothing");
    std::fs::create_dir(&dir).unwrap();
    let server = Moto::serving(&dir, "none", "CRC64NVME");
    a_whole_life(&server.url);
}

#[test]
fn the_gateway_of_ceph_holds_a_mirror() {
    let programs = ["ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "ceph"];
    if !is_root() || !programs.iter().all(|program| has(program)) {
        return;
    }
    let volume = Volume::in_memory();
    let server = Gateway::start(&volume);
    let hub = FakeHub::serving("org/tiny", model());
    // There is no bucket yet.
    let arguments = ["mirror", "hf://org/tiny", "s3://models/m/"];
    run_on(&server.url, &hub, &arguments).run().assert_code(10);
    server.make_bucket("models");
    a_whole_life(&server.url);
}

/// Ceph in processes of its own.
struct Gateway {
    child: Child,
    url: String,
}

impl Gateway {
    /// Another test may take one of its ports between the look and the use.
    fn start(volume: &Volume) -> Self {
        let tries = (0..3).find_map(|n| Self::try_start(volume, &format!("ceph-{n}")));
        tries.expect("the gateway starts")
    }

    fn try_start(volume: &Volume, name: &str) -> Option<Self> {
        // The two ports behind it are taken as well.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let port = port.min(65_000).to_string();
        let mut child = Command::new(script("serve_radosgw"))
            .arg(volume.path(name))
            .args([port.as_str(), ACCESS_KEY, SECRET_KEY])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let Some(line) = lines.next() else {
            child.wait().unwrap();
            return None;
        };
        let url = line.unwrap().strip_prefix("AWS_ENDPOINT_URL=").unwrap().to_owned();
        Some(Self { child, url })
    }

    /// By Python, because nothing of ours makes buckets.
    fn make_bucket(&self, name: &str) {
        let code = "import sys, boto3\n\
            boto3.client('s3', endpoint_url=sys.argv[1], region_name='us-east-1',\n    \
                aws_access_key_id=sys.argv[3], aws_secret_access_key=sys.argv[4]\n\
            ).create_bucket(Bucket=sys.argv[2])";
        let made =
            python().args(["-c", code, &self.url, name, ACCESS_KEY, SECRET_KEY]).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
