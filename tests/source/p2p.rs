//! `fetch --p2p dragonfly=URL`: one copy for a cluster, by peers that nobody believes.

use std::process::Command;
use std::time::Duration;

use crate::support::table::{check, row};
use crate::support::tls::{Authority, Front, Handshake};
use crate::support::*;
use weightlift_fakes::{
    Blob, Checksum, FakeDragonfly, FakeHub, FakeS3, Fault, Logged, ObjectOptions, Response, Rule,
    Server, Tree,
};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 24 * MIB;

fn big() -> Blob {
    Blob::synthetic(SIZE, 3)
}

fn tree() -> Tree {
    Tree::new().with("config.json", "{}").with_blob("big.bin", big())
}

fn task() -> String {
    format!("sha256:{}", big().sha256())
}

fn p2p(daemon: &FakeDragonfly) -> String {
    format!("dragonfly={}", daemon.url())
}

fn fetch_by(daemon: &FakeDragonfly, hub: &FakeHub, volume: &Volume) -> Command {
    let mut command = fetch(hub, volume, &["hf://org/tiny", "--p2p", &p2p(daemon)]);
    command.args(["--chunk-size", "8MiB"]).env("HF_TOKEN", TOKEN);
    command
}

fn of_cdn(hub: &FakeHub) -> Vec<Logged> {
    hub.requests().into_iter().filter(|it| it.origin == "cdn").collect()
}

fn sent(requests: &[Logged]) -> u64 {
    requests.iter().map(|it| it.body_bytes_sent).sum()
}

#[test]
fn pods_with_volumes_of_their_own_fetch_one_copy_between_them() {
    let (hub, daemon) = (FakeHub::serving(REPO, tree()), FakeDragonfly::start(None));
    let volumes: Vec<Volume> = (0..4).map(|_| Volume::new()).collect();
    let mut pods: Vec<Command> =
        volumes.iter().map(|volume| fetch_by(&daemon, &hub, volume)).collect();
    let running: Vec<Running> = pods.iter_mut().map(Runs::start).collect();
    for (pod, volume) in running.into_iter().zip(&volumes) {
        let run = pod.wait().assert_success();
        assert!(!run.stderr.contains("Dragonfly"), "{}", run.stderr);
        volume.assert_holds("tiny", &tree());
    }
    assert_eq!(sent(&of_cdn(&hub)), SIZE, "the storage has sent more than one copy");
    // One task, whatever link each of them had; the daemon's fake refuses what lacks a header.
    assert_eq!(daemon.tasks(), [task()]);
    let asked = daemon.requests();
    assert!(asked.len() >= 12 && asked.iter().all(|it| matches!(it.status, 200 | 206)));
    for request in &asked {
        assert!(request.header("authorization").is_none(), "the daemon has got a token");
        assert!(request.target.contains("Signature="), "not the link: {}", request.target);
    }
}

#[test]
fn a_daemon_that_cannot_serve_is_passed_by_at_once_and_named_once() {
    let error = |status: u16, whose: &str| Fault::Status {
        code: status,
        headers: vec![("X-Dragonfly-Error-Type".into(), whose.into())],
        body: Vec::new(),
    };
    let faults = |name: &'static str, faults: Vec<Fault>, words: &'static str| {
        row(name, move || {
            let (hub, daemon) = (FakeHub::serving(REPO, tree()), FakeDragonfly::start(None));
            daemon.script(faults.into_iter().fold(Rule::on("GET", ""), Rule::then));
            let volume = Volume::new();
            let mut command = fetch_by(&daemon, &hub, &volume);
            let run = command.args(["--stall-timeout", "1s"]).run().assert_success();
            volume.assert_holds("tiny", &tree());
            let lines: Vec<_> = run.stderr.lines().filter(|it| it.contains("Dragonfly")).collect();
            assert!(lines.len() == 1 && lines[0].contains(words), "{}", run.stderr);
            // Nothing that the daemon did wrong is the storage's fault.
            let requests = of_cdn(&hub);
            assert!(requests.iter().all(|it| matches!(it.status, 200 | 206)));
            assert!(sent(&requests) >= SIZE, "the storage was not asked");
        })
    };
    check([
        faults("its rate limit", vec![error(429, "proxy")], "429 (an error of `proxy`)"),
        faults("its disk is full", vec![error(507, "dfdaemon")], "507 (an error of `dfdaemon`)"),
        faults("an error in place of success", vec![error(200, "dfdaemon")], "`dfdaemon`"),
        faults("no words", vec![Fault::status(502)], "answered 502"),
        faults("a range is ignored", vec![Fault::IgnoreRange], "the requested range"),
        faults("another range", vec![Fault::WrongRange], "the requested range"),
        faults("another size", vec![Fault::WrongTotal(SIZE - 1)], "the requested range"),
        faults("no Content-Range", vec![Fault::NoContentRange], "the requested range"),
        faults("no answer", vec![Fault::HangBeforeHeaders(Duration::ZERO)], "could not be used"),
        faults("a body that breaks off", vec![Fault::CutAfter(MIB)], "closed the connection early"),
        faults("a reset", vec![Fault::ResetAfter(MIB)], "closed the connection early"),
        faults(
            "a body that stops",
            vec![Fault::StallAfter(MIB, Duration::from_secs(60))],
            "closed the connection early",
        ),
        faults("another length", vec![Fault::ShortLength(9)], "the requested range"),
        faults("not HTTP", vec![Fault::Raw(b"SSH-2.0-x\r\n".to_vec())], "could not be used"),
        row("the origin's own words, as of a link that has expired", || {
            let (hub, daemon) = (FakeHub::serving(REPO, tree()), FakeDragonfly::start(None));
            let backend = |status| {
                Rule::on("GET", "").times(2).then(Fault::Status {
                    code: status,
                    headers: vec![("X-Dragonfly-Error-Type".into(), "backend".into())],
                    body: Vec::new(),
                })
            };
            daemon.script(backend(403));
            daemon.script(backend(500));
            let volume = Volume::new();
            let run = fetch_by(&daemon, &hub, &volume).run().assert_success();
            volume.assert_holds("tiny", &tree());
            // It is heard directly, and no fault of the daemon's.
            assert!(!run.stderr.contains("Dragonfly"), "{}", run.stderr);
        }),
        row("nobody listens", || {
            let hub = FakeHub::serving(REPO, tree());
            let port = {
                let gone = FakeDragonfly::start(None);
                gone.port()
            };
            let volume = Volume::new();
            let daemon = format!("dragonfly=http://127.0.0.1:{port}");
            let mut command = fetch(&hub, &volume, &["hf://org/tiny", "--p2p", &daemon]);
            command.run().assert_success().assert_says(&format!("`http://127.0.0.1:{port}`"));
            volume.assert_holds("tiny", &tree());
            assert_eq!(sent(&of_cdn(&hub)), SIZE);
        }),
    ]);
}

#[test]
fn wrong_bytes_of_peers_are_fetched_twice_and_then_from_the_origin() {
    let (hub, daemon) = (FakeHub::serving(REPO, tree()), FakeDragonfly::start(None));
    daemon.have(&task(), Blob::synthetic(SIZE, 4));
    let volume = Volume::new();
    let run = fetch_by(&daemon, &hub, &volume).run().assert_success();
    volume.assert_holds("tiny", &tree());
    let run = run.assert_says("peers of Dragonfly have wrong bytes of `big.bin`");
    assert_eq!(run.stderr.matches("wrong bytes (").count(), 2, "{}", run.stderr);
    assert_eq!(sent(&daemon.requests()), 2 * SIZE);
    assert_eq!(sent(&of_cdn(&hub)), SIZE);
    // A list beside the files that names the digest is not to blame either.
    let daemon = FakeDragonfly::start(None);
    daemon.have(&task(), Blob::synthetic(SIZE, 4));
    let sums = format!("{}  big.bin\n", big().sha256());
    let s3 = FakeS3::builder().object("models", "m/big.bin", big());
    let s3 = s3.object("models", "m/SHA256SUMS", Blob::bytes(sums.clone())).start();
    let volume = Volume::new();
    let arguments = ["s3://models/m/", "--s3-anonymous", "--p2p", &p2p(&daemon)];
    fetch_s3(&s3, &volume, &arguments).run().assert_success();
    volume.assert_holds("m", &tree().without("config.json").with("SHA256SUMS", sums));
    // What the origin itself has wrong is not the peers' fault, and ends as ever.
    let (hub, daemon) = (FakeHub::serving(REPO, tree()), FakeDragonfly::start(None));
    hub.script(Rule::on("GET", "big.bin").at("cdn").then(Fault::FlipByteAt(9)));
    let volume = Volume::new();
    fetch_by(&daemon, &hub, &volume).run().assert_code(12).assert_says("big.bin");
    assert!(!volume.root().join("tiny").exists());
}

#[test]
fn signed_requests_go_through_the_daemon_and_tokens_do_not() {
    let daemon = FakeDragonfly::start(None);
    let options = ObjectOptions { checksum: Some(Checksum::Sha256), ..ObjectOptions::default() };
    let builder = FakeS3::builder().bucket("models").credentials(ACCESS_KEY, SECRET_KEY);
    let s3 = builder.object_with("models", "m/big.bin", big(), options).start();
    let volume = Volume::new();
    let run = fetch_s3(&s3, &volume, &["s3://models/m/", "--p2p", &p2p(&daemon)]).run();
    run.assert_success();
    volume.assert_holds("m", &tree().without("config.json"));
    assert_eq!(daemon.tasks(), [task()]);
    assert_eq!(s3.bytes_sent_for("big.bin"), SIZE, "one copy, for whose ranges all signatures are");

    // A mirror that wants the token for the bytes themselves.
    let daemon = FakeDragonfly::start(None);
    let hub = FakeHub::builder().repo(REPO, tree()).lfs_direct().token(TOKEN).start();
    let volume = Volume::new();
    let run = fetch_by(&daemon, &hub, &volume).run().assert_success();
    run.assert_says("files that need a token are not read through Dragonfly");
    volume.assert_holds("tiny", &tree());
    assert_eq!(daemon.requests().len(), 0, "the daemon has seen a token");
}

#[test]
fn links_of_tls_go_through_a_tunnel_that_the_daemon_opens_or_in_the_plain_form() {
    if !has("openssl") {
        return;
    }
    let storage = Server::start(|request| Response::blob(request, &big()));
    let authority = Authority::new("Dragonfly");
    let config = authority.certify("IP:127.0.0.1", 2020, 2049);
    let front = Front::start(config.clone(), storage.port(), |_| Handshake::Done);
    let hub = FakeHub::builder().repo(REPO, tree()).external_cdn(&front.url()).start();
    let daemon = FakeDragonfly::start(Some(storage.port()));
    let tunnel = Front::start(config, daemon.port(), |_| Handshake::DoneBehindConnect);
    for proxy in [
        format!("dragonfly=http://127.0.0.1:{}", tunnel.port),
        format!("dragonfly-plain={}", daemon.url()),
    ] {
        let before = (front.connections(), daemon.requests().len());
        let volume = Volume::new();
        let mut command = fetch(&hub, &volume, &["hf://org/tiny", "--p2p", &proxy]);
        let run = command.env("SSL_CERT_FILE", authority.path()).run().assert_success();
        assert!(!run.stderr.contains("Dragonfly"), "{proxy}: {}", run.stderr);
        volume.assert_holds("tiny", &tree());
        let after = (front.connections(), daemon.requests().len());
        // To mint a link nobody asks the storage.
        assert!(after.0 == before.0 && after.1 > before.1, "{proxy}: {before:?} {after:?}");
    }
    assert!(tunnel.connections() > 0);
    assert_eq!(daemon.tasks(), [task()]);
}

#[test]
fn a_daemon_that_cannot_be_one_is_refused_without_its_password() {
    let hub = FakeHub::serving(REPO, tree());
    for given in [
        "http://127.0.0.1:4001",
        "dragonfly",
        "dragonfly=",
        "dragonfly=127.0.0.1:4001",
        "dragonfly=socks5://127.0.0.1:4001",
        "dragonfly=http://u:hunter2@127.0.0.1:4001/",
        "kraken=http://u:hunter2@127.0.0.1:4001",
    ] {
        let volume = Volume::new();
        let run = fetch(&hub, &volume, &["hf://org/tiny"]).env("WEIGHTLIFT_P2P", given).run();
        let run = run.assert_code(2).assert_says("dragonfly");
        assert!(!run.stderr.contains("hunter2"), "{}", run.stderr);
    }
}
