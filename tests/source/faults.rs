//! What happens on the wire must not reach the volume.

use std::time::{Duration, Instant};

use crate::support::*;
use weightlift_fakes::{Blob, FakeHub, Fault, Rule, Tree};

const BIG: u64 = (4 << 20) + 11;

/// One large file, served in chunks of 1 MiB, and a small one.
fn tree() -> Tree {
    Tree::new().with("config.json", "{\"a\": 1}").with_blob("big.bin", Blob::synthetic(BIG, 9))
}

fn hub() -> FakeHub {
    FakeHub::serving(REPO, tree())
}

fn run(hub: &FakeHub, volume: &Volume) -> Run {
    fetch(hub, volume, &["hf://org/tiny", "--chunk-size", "1MiB", "--connections", "2"])
        .env("WEIGHTLIFT_STALL_TIMEOUT", "2s")
        .run()
}

/// The fault happens once to the large file; the fetch gets over it.
#[track_caller]
fn survives(fault: Fault) -> FakeHub {
    let (hub, volume) = (hub(), Volume::new());
    hub.script(Rule::on("GET", "").at("cdn").once().then(fault));
    run(&hub, &volume).assert_success();
    volume.assert_holds("tiny", &tree());
    volume.assert_clean();
    hub
}

#[test]
fn a_reset_mid_body_continues_from_the_last_byte_written() {
    let hub = survives(Fault::ResetAfter(600_000));
    // What was on its way in the kernel may be lost with the connection, nothing more.
    let again = hub.log().bytes_sent_twice();
    assert!(again < 600_000, "{again} bytes were asked for twice");
    assert!(hub.requests().iter().any(|r| r.offset.is_some_and(|o| o % (1 << 20) != 0)));
}

#[test]
fn a_body_that_ends_early_is_no_end() {
    let hub = survives(Fault::CutAfter(123_456));
    assert_eq!(hub.log().bytes_sent_twice(), 0);
    survives(Fault::ShortLength(1_000));
}

#[test]
fn a_stalled_body_is_replaced() {
    let started = Instant::now();
    survives(Fault::StallAfter(100_000, Duration::from_secs(60)));
    assert!(started.elapsed() < Duration::from_secs(30));
}

#[test]
fn a_trickle_beside_a_fast_connection_is_replaced() {
    let tree = Tree::new().with_blob("big.bin", Blob::synthetic(64 << 20, 9));
    let (hub, volume) = (FakeHub::serving(REPO, tree.clone()), Volume::new());
    hub.script(Rule::on("GET", "").at("cdn").once().then(Fault::Drip { bytes_per_second: 100 }));
    hub.script(
        Rule::on("GET", "").at("cdn").times(40).then(Fault::Drip { bytes_per_second: 8 << 20 }),
    );
    let started = Instant::now();
    fetch(&hub, &volume, &["hf://org/tiny", "--chunk-size", "1MiB", "--connections", "2"])
        .env("WEIGHTLIFT_STALL_TIMEOUT", "1s")
        .run()
        .assert_success();
    // At 100 bytes a second the first chunk would take three hours.
    assert!(started.elapsed() < Duration::from_secs(60));
    volume.assert_holds("tiny", &tree);
}

#[test]
fn a_server_that_never_answers_is_given_up_in_time() {
    let started = Instant::now();
    survives(Fault::HangBeforeHeaders(Duration::from_secs(120)));
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
}

#[test]
fn a_connection_that_trickles_alone_is_replaced_and_given_up_if_all_do() {
    let trickle = || Fault::Drip { bytes_per_second: 50 };
    let run = |rule: Rule| {
        let (hub, volume) = (hub(), Volume::new());
        hub.script(rule.then(trickle()));
        let arguments = ["hf://org/tiny", "--chunk-size", "1MiB", "--connections", "1"];
        let run = fetch(&hub, &volume, &arguments)
            .env("WEIGHTLIFT_STALL_TIMEOUT", "1s")
            .env("WEIGHTLIFT_RETRY_TIMEOUT", "5s")
            .run();
        (run, volume)
    };
    let started = Instant::now();
    let (once, volume) = run(Rule::on("GET", "").at("cdn").when_range_starts_at(2 << 20).once());
    once.assert_success();
    volume.assert_holds("tiny", &tree());
    let (for_ever, _) = run(Rule::on("GET", "").at("cdn").skip(2));
    for_ever.assert_code(20).assert_says("the connection brought only");
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
}

#[test]
fn answers_that_break_the_protocol_are_not_written() {
    survives(Fault::WrongRange);
    survives(Fault::NoContentRange);
    survives(Fault::ExtraBytes(100));
    survives(Fault::GzipHeader);
    survives(Fault::Raw(b"HTTP/1.1 2oo NO\r\n\r\n".to_vec()));
    for status in [408, 500, 502, 503, 504, 416] {
        survives(Fault::status(status));
    }
}

#[test]
fn a_body_without_a_length_is_counted() {
    survives(Fault::NoLength);
}

#[test]
fn another_size_than_listed_is_a_conflict() {
    let (hub, volume) = (hub(), Volume::new());
    hub.script(Rule::on("GET", "").at("cdn").then(Fault::WrongTotal(BIG + 1)));
    run(&hub, &volume).assert_code(16);
    assert!(!volume.family("tiny").exists());
}

#[test]
fn a_server_that_ignores_ranges_is_read_in_one_stream() {
    let (hub, volume) = (hub(), Volume::new());
    hub.script(Rule::on("GET", "").at("cdn").then(Fault::IgnoreRange));
    run(&hub, &volume).assert_success();
    volume.assert_holds("tiny", &tree());
    // The stream is read once; what the first askers got before they knew is bounded.
    assert!(hub.body_bytes() < 4 * BIG, "{}", hub.body_bytes());
}

#[test]
fn a_flipped_byte_is_fetched_again() {
    for at in [0, 1_500_000, BIG - 1] {
        let (hub, volume) = (hub(), Volume::new());
        hub.script(
            Rule::on("GET", "")
                .at("cdn")
                .when_range_starts_at(at / (1 << 20) * (1 << 20))
                .once()
                .then(Fault::FlipByteAt(at)),
        );
        run(&hub, &volume).assert_success().assert_says("fetching it again");
        volume.assert_holds("tiny", &tree());
    }
}

#[test]
fn bytes_that_stay_wrong_are_never_published() {
    let (hub, volume) = (hub(), Volume::new());
    hub.script(Rule::on("GET", "").at("cdn").then(Fault::FlipByteAt(1_500_000)));
    let run = run(&hub, &volume).assert_code(12);
    for part in ["`big.bin`", "3 complete fetches", "sha256:"] {
        assert!(run.last_line().contains(part), "{}", run.stderr);
    }
    assert!(!volume.family("tiny").exists());
}

#[test]
fn a_web_page_instead_of_a_file_is_named_as_such() {
    let page = b"<!DOCTYPE html><html>please log in to the hotel network</html>".to_vec();
    let tree = Tree::new().with("config.json", vec![b' '; page.len()]);
    let (hub, volume) = (FakeHub::serving(REPO, tree), Volume::new());
    hub.script(Rule::on("GET", "/api/resolve-cache/").then(Fault::ReplaceBody(page)));
    let run = fetch(&hub, &volume, &["hf://org/tiny"]).run().assert_code(12);
    assert!(run.last_line().contains("looks like a web page"), "{}", run.stderr);
}

#[test]
fn a_small_file_with_wrong_bytes_is_seen_by_its_git_hash() {
    let (hub, volume) = (hub(), Volume::new());
    hub.script(Rule::on("GET", "resolve-cache").then(Fault::FlipByteAt(3)));
    let run = run(&hub, &volume).assert_code(12);
    assert!(run.last_line().contains("git-sha1:"), "{}", run.stderr);
}

#[test]
fn a_hub_that_comes_up_late_is_waited_for() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let volume = Volume::new();
    let mut command = weightlift();
    command.arg("fetch").arg("--root").arg(volume.root()).arg("hf://org/tiny");
    command.env("HF_ENDPOINT", format!("http://127.0.0.1:{port}"));
    let running = command.start();
    std::thread::sleep(Duration::from_secs(1));
    let _hub = FakeHub::builder().repo(REPO, tree()).hub_port(port).start();
    running.wait().assert_success();
    volume.assert_holds("tiny", &tree());
}

#[test]
fn a_hub_that_stays_away_is_given_up_after_the_budget() {
    let volume = Volume::new();
    let mut command = weightlift();
    command.arg("fetch").arg("--root").arg(volume.root()).arg("hf://org/tiny");
    command.env("HF_ENDPOINT", "http://127.0.0.1:9").env("WEIGHTLIFT_RETRY_TIMEOUT", "1s");
    let run = command.run().assert_code(20);
    assert!(run.last_line().contains("127.0.0.1:9"), "{}", run.stderr);
}

#[test]
fn a_redirect_to_a_metadata_service_or_in_a_circle_is_not_followed() {
    for (target, code) in [
        ("http://169.254.169.254/latest/meta-data", 13),
        ("file:///etc/passwd", 13),
        ("/org/tiny/resolve/main/loop", 20),
    ] {
        let (hub, volume) = (hub(), Volume::new());
        let redirect = Fault::status_with(302, &[("Location", target)], "");
        hub.script(Rule::on("*", "/resolve/").then(redirect));
        run(&hub, &volume).assert_code(code);
    }
}

#[test]
fn error_bodies_cannot_draw_on_the_terminal() {
    let (hub, volume) = (hub(), Volume::new());
    let nasty = "\u{1b}[2J\u{1b}]0;owned\u{7}\r\nerror: fake line\u{202e}";
    hub.script(Rule::on("*", "/api/models/").then(Fault::status_with(403, &[], nasty)));
    // `Run` itself refuses control characters in the output.
    let run = run(&hub, &volume).assert_code(11);
    assert_eq!(run.stderr.lines().filter(|line| line.starts_with("error:")).count(), 1);
}
