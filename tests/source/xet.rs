//! Files of the Hub that are read by the chunks of its Xet store, in place of the bridge.

use std::time::Duration;

use crate::support::measure::with_peak_memory;
use crate::support::*;
use weightlift_fakes::{Blob, FakeHub, FakeHubBuilder, FakeS3, Fault, Logged, Rule, Tree, XetLie};

const MIB: u64 = 1 << 20;

/// How a Hub is made.
type With = fn(FakeHubBuilder) -> FakeHubBuilder;

/// Contents of every kind: what packs well, what repeats, what lies in another file as well, and what ends
/// where a chunk does.
fn tree() -> Tree {
    let numbers: Vec<u8> = (0..700_000_u32).flat_map(|n| (n as f32).to_le_bytes()).collect();
    let noise = Blob::synthetic(3 * MIB + 77, 5).to_vec();
    let mut mixed = noise[..MIB as usize].to_vec();
    mixed.extend(vec![0; 3 * MIB as usize]);
    mixed.extend(&noise[MIB as usize..2 * MIB as usize]);
    mixed.extend(vec![0; MIB as usize]);
    mixed.extend(&noise[..MIB as usize]);
    Tree::new()
        .with("config.json", "{}")
        .with("empty.bin", "")
        .with("one.bin", "1")
        .with("numbers.bin", numbers)
        .with("noise.bin", noise.clone())
        .with("again/noise.bin", noise)
        .with("mixed.bin", mixed)
        .with("text.bin", b"weights and biases, ".repeat(40_000))
        .with("max.bin", vec![7; 128 << 10])
        .with("max+1.bin", vec![7; (128 << 10) + 1])
}

fn hub_of(tree: Tree, with: With) -> FakeHub {
    with(FakeHub::builder().repo(REPO, tree).lfs_threshold(1).xet()).start()
}

fn by(mode: &str, hub: &FakeHub, volume: &Volume) -> std::process::Command {
    let mut command = fetch(hub, volume, &["hf://org/tiny", "--all", "--xet", mode]);
    command.args(["--chunk-size", "1MiB", "--connections", "4"]);
    command.env("HF_TOKEN", TOKEN).env("WEIGHTLIFT_RETRY_DELAY", "25ms");
    command
}

fn at(hub: &FakeHub, origin: &str) -> Vec<Logged> {
    hub.requests().into_iter().filter(|request| request.origin == origin).collect()
}

fn requests_for(hub: &FakeHub, what: &str) -> usize {
    hub.requests().iter().filter(|request| request.target.contains(what)).count()
}

/// The Hub's token goes to the Hub, the store's to the store, and none to who has the bytes.
#[track_caller]
fn assert_discreet(hub: &FakeHub) {
    for request in hub.requests() {
        let sent =
            request.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("authorization"));
        let sent = sent.map(|(_, value)| value.as_str());
        let is_hubs = sent.is_some_and(|value| value.contains(TOKEN));
        match request.origin {
            "hub" => assert!(is_hubs, "{request:?}"),
            "cas" => assert!(sent.is_some() && !is_hubs, "{request:?}"),
            _ => assert_eq!(sent, None, "{request:?}"),
        }
    }
}

#[test]
fn every_kind_of_content_comes_byte_for_byte() {
    let kinds: [(&str, With); 8] = [
        ("as it is best", |hub| hub),
        ("plain", |hub| hub.xet_scheme(0)),
        ("LZ4", |hub| hub.xet_scheme(1)),
        ("grouped", |hub| hub.xet_scheme(2)),
        ("small xorbs", |hub| hub.xet_xorb_chunks(3)),
        ("a store of the first version", |hub| hub.xet_v1_only()),
        ("ranges that are signed as a whole", |hub| hub.xet_whole_ranges()),
        ("links that serve one request", |hub| hub.xet_requests_per_link(1).xet_whole_ranges()),
    ];
    for (name, with) in kinds {
        let (hub, volume) = (hub_of(tree(), with), Volume::new());
        by("always", &hub, &volume).run().assert_success();
        volume.assert_holds("tiny", &tree());
        volume.assert_clean();
        assert_eq!(hub.bytes_sent_for("xet-bridge"), 0, "{name}: the bridge was asked");
        assert!(hub.bytes_sent_for("/xorbs/") > 0, "{name}");
        assert_discreet(&hub);
        let tokens = requests_for(&hub, "xet-read-token");
        assert_eq!(tokens, 1, "{name}: asked for {tokens} tokens");
    }
}

/// `auto` has no reason to ask the store for a file that the bridge brings; `never` never has one, and the
/// variable of the Hub's own client means the same.
#[test]
fn the_store_is_asked_only_where_it_may_be_and_has_to_be() {
    for (mode, variable, by_store) in [
        (Some("auto"), None, false),
        (None, None, false),
        (Some("never"), None, false),
        (None, Some("1"), false),
        (Some("always"), Some("1"), true),
        (Some("always"), None, true),
    ] {
        let (hub, volume) = (hub_of(tree(), |hub| hub), Volume::new());
        let mut command = fetch(&hub, &volume, &["hf://org/tiny", "--all"]);
        mode.iter().for_each(|mode| _ = command.args(["--xet", mode]));
        variable.iter().for_each(|value| _ = command.env("HF_HUB_DISABLE_XET", value));
        command.run().assert_success();
        volume.assert_holds("tiny", &tree());
        let asked = !at(&hub, "cas").is_empty() || requests_for(&hub, "xet-read-token") > 0;
        assert_eq!(asked, by_store, "{mode:?} {variable:?}");
        assert_eq!(hub.bytes_sent_for("xet-bridge") == 0, by_store, "{mode:?} {variable:?}");
    }
}

/// Two ways to the same bytes, which fail at different times.
#[test]
fn what_one_way_refuses_the_other_brings() {
    let dead =
        |origin: &'static str| move |fault: Fault| Rule::on("GET", "").at(origin).then(fault);
    let bridge = [
        ("403", dead("cdn")(Fault::status_with(403, &[], "blocked"))),
        ("400", dead("cdn")(Fault::status_with(400, &[], "too large"))),
        ("404", dead("cdn")(Fault::status(404))),
        ("500", dead("cdn")(Fault::status(500))),
        ("resets", dead("cdn")(Fault::ResetAfter(10_000))),
        ("short bodies", dead("cdn")(Fault::CutAfter(10_000))),
        ("stalls", dead("cdn")(Fault::StallAfter(10_000, Duration::from_secs(60)))),
        ("flips bytes", dead("cdn")(Fault::FlipByteAt(100))),
    ];
    for (name, rule) in bridge {
        let (hub, volume) = (hub_of(tree(), |hub| hub), Volume::new());
        hub.script(rule);
        let run = by("auto", &hub, &volume).env("WEIGHTLIFT_STALL_TIMEOUT", "1s").run();
        let run = run.assert_success();
        volume.assert_holds("tiny", &tree());
        assert!(run.stderr.contains("continuing with Xet"), "{name}: {}", run.stderr);
        let said = run.stderr.matches("; continuing with Xet").count();
        let digests = run.stderr.matches("does not match what").count();
        assert!(said - digests <= 1, "{name}: said {said} times: {}", run.stderr);
        assert_discreet(&hub);
    }
    let store = [
        ("no token", Rule::on("*", "xet-read-token").then(Fault::status(404))),
        ("a token refused", Rule::on("*", "xet-read-token").then(Fault::status(403))),
        ("tokens that fail", Rule::on("*", "xet-read-token").then(Fault::status(500))),
        ("a token in another form", {
            Rule::on("*", "xet-read-token").then(Fault::status_with(200, &[], "{}"))
        }),
        ("401", Rule::on("*", "reconstructions").then(Fault::status(401))),
        ("403", Rule::on("*", "reconstructions").then(Fault::status(403))),
        ("400", Rule::on("*", "reconstructions").then(Fault::status(400))),
        ("404", Rule::on("*", "reconstructions").then(Fault::status(404))),
        ("416", Rule::on("*", "reconstructions").then(Fault::status(416))),
        ("500", Rule::on("*", "reconstructions").then(Fault::status(500))),
        ("another form", Rule::on("*", "reconstructions").then(Fault::ReplaceBody(b"[]".to_vec()))),
        ("links refused", Rule::on("*", "/xorbs/").then(Fault::status_with(403, &[], "no"))),
        ("xorbs gone", Rule::on("*", "/xorbs/").then(Fault::status(404))),
        ("xorbs fail", Rule::on("*", "/xorbs/").then(Fault::status(503))),
        ("xorbs break off", Rule::on("*", "/xorbs/").then(Fault::CutAfter(100))),
        ("xorbs stall", {
            Rule::on("*", "/xorbs/").then(Fault::StallAfter(100, Duration::from_secs(60)))
        }),
        ("bytes are flipped", Rule::on("*", "/xorbs/").then(Fault::FlipByteAt(40))),
        ("no ranges", Rule::on("*", "/xorbs/").then(Fault::IgnoreRange)),
    ];
    for (name, rule) in store {
        let (hub, volume) = (hub_of(tree(), |hub| hub.xet_scheme(0)), Volume::new());
        hub.script(rule);
        let run = by("always", &hub, &volume).env("WEIGHTLIFT_STALL_TIMEOUT", "1s").run();
        assert_eq!(run.code, 0, "{name}: {}", run.stderr);
        volume.assert_holds("tiny", &tree());
        let going_on = "continuing with hf://org/tiny";
        assert!(run.stderr.contains(going_on), "{name}: {}", run.stderr);
        assert!(hub.bytes_sent_for("xet-bridge") > 0, "{name}");
        assert_discreet(&hub);
    }
}

/// Where both fail, the error is that of the bridge, and says what the other way had to say.
#[test]
fn where_both_ways_fail_both_are_named() {
    let (hub, volume) = (hub_of(tree(), |hub| hub), Volume::new());
    hub.script(Rule::on("GET", "").at("cdn").then(Fault::status_with(403, &[], "blocked here")));
    hub.script(Rule::on("*", "xet-read-token").then(Fault::status(404)));
    let run = by("auto", &hub, &volume).run().assert_code(11);
    let last = run.last_line();
    assert!(last.contains("blocked here") && last.contains("names no Xet store"), "{last}");
    assert!(!volume.family("tiny").exists());
}

/// What the bridge refuses for good is not tried for minutes because the store is in trouble.
#[test]
fn a_final_refusal_is_one_although_the_other_way_is_in_trouble() {
    for (name, rule) in [
        ("tokens that fail", Rule::on("*", "xet-read-token").then(Fault::status(500))),
        (
            "a web page",
            Rule::on("*", "xet-read-token").then(Fault::status_with(200, &[], "<html>")),
        ),
        ("a store that fails", Rule::on("*", "reconstructions").then(Fault::status(503))),
    ] {
        let (hub, volume) = (hub_of(tree(), |hub| hub), Volume::new());
        hub.script(Rule::on("GET", "").at("cdn").then(Fault::status_with(
            403,
            &[],
            "blocked here",
        )));
        hub.script(rule);
        let run = by("auto", &hub, &volume).run();
        assert_eq!(run.code, 11, "{name}: {}", run.stderr);
        assert!(run.last_line().contains("blocked here"), "{name}: {}", run.stderr);
        assert!(hub.requests().len() < 120, "{name}: {} requests", hub.requests().len());
    }
}

/// Whoever asks for a pause gets it, also where the other way has refused for good.
#[test]
fn a_store_that_asks_to_wait_is_waited_for() {
    let limited = || Fault::status_with(429, &[("Retry-After", "1")], "");
    for what in ["xet-read-token", "reconstructions", "/xorbs/"] {
        let (hub, volume) = (hub_of(tree(), |hub| hub), Volume::new());
        hub.script(Rule::on("GET", "").at("cdn").then(Fault::status(403)));
        hub.script(Rule::on("*", what).times(2).then(limited()));
        let run = by("auto", &hub, &volume).run();
        assert_eq!(run.code, 0, "{what}: {}", run.stderr);
        volume.assert_holds("tiny", &tree());
    }
}

/// Wrong bytes of one way are fetched by the other also where another place stands before both.
#[test]
fn wrong_bytes_are_told_to_both_ways_behind_another_place() {
    let (hub, volume) = (hub_of(tree(), |hub| hub.xet_scheme(0)), Volume::new());
    let empty = FakeS3::builder().bucket("models").object("models", "m/x.txt", Blob::bytes("x"));
    let s3 = empty.start();
    hub.xet_lie(XetLie::FlippedByte);
    let mut command = by("always", &hub, &volume);
    command.args(["--also", "s3://models/m/", "--s3-endpoint", &s3.url(), "--s3-path-style"]);
    command.args(["--s3-anonymous"]).env("AWS_REGION", "us-east-1");
    command.run().assert_success();
    volume.assert_holds("tiny", &tree());
    assert!(hub.bytes_sent_for("xet-bridge") > 0);
}

/// Of very many files that the store does not have nothing is kept but what says something.
#[test]
fn a_mirror_without_a_store_costs_no_memory() {
    let small = |n: u64| (format!("s/{n}.bin"), Blob::synthetic(10 + n, n));
    let add = |tree: Tree, (path, blob): (String, Blob)| tree.with_blob(&path, blob);
    let tree = (0..3_000).map(small).fold(Tree::new(), add);
    let peaks = [true, false].map(|has_hashes| {
        let hub = FakeHub::builder().repo(REPO, tree.clone()).lfs_threshold(1);
        let hub = if has_hashes { hub.xet_hashes().start() } else { hub.start() };
        let volume = Volume::in_memory();
        let (run, peak) = with_peak_memory(&mut by("always", &hub, &volume));
        run.assert_success();
        peak
    });
    // 32 bytes a hash, in three lists; a kibibyte for each file would be three mebibytes.
    eprintln!("{peaks:?}");
    assert!(peaks[0] < peaks[1] + (2 << 20), "{peaks:?}");
}

/// A mirror that passes the hashes on and has no store is a Hub like any other.
#[test]
fn a_mirror_without_a_store_is_read_as_ever() {
    for mode in ["auto", "always"] {
        let hub = FakeHub::builder().repo(REPO, tree()).lfs_threshold(1).xet_hashes().start();
        let volume = Volume::new();
        by(mode, &hub, &volume).run().assert_success();
        volume.assert_holds("tiny", &tree());
        // Asked once, and believed.
        let asked = requests_for(&hub, "xet-read-token");
        assert_eq!(asked, usize::from(mode == "always"), "{mode}");
    }
}

#[test]
fn tokens_and_links_are_renewed_before_and_when_they_expire() {
    let kinds: [(&str, With); 2] = [
        ("links of a second", |hub| hub.xet_link_lifetime(Duration::from_secs(1))),
        ("and tokens of two", |hub| {
            hub.xet_link_lifetime(Duration::from_secs(1)).xet_token_lifetime(Duration::from_secs(2))
        }),
    ];
    for (name, with) in kinds {
        let tree = Tree::new().with_blob("big.bin", Blob::synthetic(24 * MIB, 3));
        let hub =
            with(FakeHub::builder().repo(REPO, tree.clone()).xet().xet_xorb_chunks(40)).start();
        let volume = Volume::new();
        hub.script(Rule::on("GET", "/xorbs/").then(Fault::Drip { bytes_per_second: 3 << 20 }));
        let run = fetch(&hub, &volume, &["hf://org/tiny", "--xet", "always", "--connections", "1"])
            .run()
            .assert_success();
        volume.assert_holds("tiny", &tree);
        assert_eq!(hub.bytes_sent_for("xet-bridge"), 0, "{name}: {}", run.stderr);
        let refused = hub.requests().iter().filter(|it| matches!(it.status, 401 | 403)).count();
        let renewed =
            requests_for(&hub, "xet-read-token") - 1 + requests_for(&hub, "reconstructions") - 1;
        assert!(renewed > 0 && refused <= renewed, "{name}: {renewed} renewed, {refused} refused");
    }
}

/// A link that is refused although it has just come is tried once more, and then the store says why.
#[test]
fn a_fresh_link_that_is_refused_twice_is_no_way() {
    let (hub, volume) = (hub_of(tree(), |hub| hub), Volume::new());
    hub.script(Rule::on("GET", "/xorbs/").then(Fault::status_with(403, &[], "not your region")));
    let run = by("always", &hub, &volume).run().assert_success();
    assert!(run.stderr.contains("answered 403 for"), "{}", run.stderr);
    assert!(run.stderr.contains("not your region"), "{}", run.stderr);
    let tries = requests_for(&hub, "/xorbs/");
    assert!(tries <= 2 * tree().len(), "{tries} requests");
}

/// Chunks that several places of a file have, between others that are new: what is not asked for does not come,
/// whatever ranges the store signs.
#[test]
fn a_file_of_many_pieces_costs_no_more_than_it_has() {
    let old = Blob::synthetic(24 * MIB, 11).to_vec();
    let mut new = Vec::new();
    for (n, part) in old.chunks(512 << 10).enumerate() {
        new.extend(part);
        new.extend(Blob::synthetic(200_000, 100 + n as u64).to_vec());
    }
    let both = Tree::new().with("a.bin", old).with("b.bin", new);
    let hub = hub_of(both.clone(), |hub| hub.xet_scheme(0).xet_whole_ranges());
    let volume = Volume::new();
    let arguments = ["hf://org/tiny", "--all", "--xet", "always", "--connections", "2"];
    fetch(&hub, &volume, &arguments).run().assert_success();
    volume.assert_holds("tiny", &both);
    let (sent, size) = (hub.bytes_sent_for("/xorbs/"), both.total_bytes());
    assert!(sent < size + size / 10, "{sent} bytes for {size}");
}

/// Small files are asked for many at a time.
#[test]
fn the_store_is_asked_for_many_small_files_at_once() {
    let small = |n: u64| (format!("s/{n}.bin"), Blob::synthetic(20_000 + n, n));
    let tree =
        (0..200).map(small).fold(Tree::new(), |tree, (path, blob)| tree.with_blob(&path, blob));
    let (hub, volume) = (hub_of(tree.clone(), |hub| hub), Volume::new());
    by("always", &hub, &volume).run().assert_success();
    volume.assert_holds("tiny", &tree);
    let asked = at(&hub, "cas").len();
    assert!(asked <= 20, "{asked} questions for 200 files");
    // One that cannot be asked so is asked as the reference client does, and in the end file by file.
    for (gets, most) in [(false, 20), (true, 230)] {
        let (hub, volume) = (hub_of(tree.clone(), |hub| hub), Volume::new());
        hub.script(Rule::on("POST", "reconstructions").then(Fault::status(405)));
        if gets {
            hub.script(Rule::on("GET", "file_id=").then(Fault::status(405)));
        }
        by("always", &hub, &volume).run().assert_success();
        volume.assert_holds("tiny", &tree);
        assert_eq!(hub.bytes_sent_for("xet-bridge"), 0);
        let asked = at(&hub, "cas").len();
        assert!(asked <= most, "{asked} questions for 200 files");
    }
}

/// A lock file names the hashes, so the store serves where nothing is listed.
#[test]
fn a_locked_fetch_can_be_read_by_chunks() {
    let (hub, volume) = (hub_of(tree(), |hub| hub), Volume::new());
    let (desk, mut pin) = (tempfile::tempdir().unwrap(), weightlift());
    pin.args(["pin", "hf://org/tiny", "--all"]).current_dir(desk.path());
    pin.env("HF_ENDPOINT", hub.url()).run().assert_success();
    let lock = desk.path().join("models.lock");
    let mut command = weightlift();
    command.arg("fetch").arg("--root").arg(volume.root()).arg("--locked").arg(&lock);
    command.args(["--xet", "always"]).env("HF_ENDPOINT", hub.url()).run().assert_success();
    volume.assert_holds("tiny", &tree());
    assert_eq!(hub.bytes_sent_for("xet-bridge"), 0);
}
