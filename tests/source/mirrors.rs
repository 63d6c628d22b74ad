//! Several places of the same bytes: `fetch SOURCE DEST --also SOURCE`.

use std::process::Command;
use std::time::Duration;

use crate::support::*;
use weightlift_fakes::{Blob, Checksum, FakeHub, FakeS3, Fault, ObjectOptions, Rule, Tree};

const MIB: u64 = 1 << 20;
const BUCKET: &str = "s3://models/m/";

fn tree() -> Tree {
    Tree::new()
        .with("config.json", "{}")
        .with_blob("a.bin", Blob::synthetic(3 * MIB, 1))
        .with_blob("b.bin", Blob::synthetic(3 * MIB + 1, 2))
        .with_blob("c.bin", Blob::synthetic(3 * MIB + 2, 3))
}

fn one(size: u64) -> Tree {
    Tree::new().with("config.json", "{}").with_blob("big.bin", Blob::synthetic(size, 7))
}

/// A bucket with each tree below its prefix, and the SHA-256 of each object.
fn buckets(trees: &[(&str, &Tree)], checksum: Option<Checksum>) -> FakeS3 {
    let mut builder = FakeS3::builder().bucket("models").credentials(ACCESS_KEY, SECRET_KEY);
    for (prefix, tree) in trees {
        for (path, blob) in tree.iter() {
            let options = ObjectOptions { checksum, ..ObjectOptions::default() };
            let key = format!("{prefix}{path}");
            builder = builder.object_with("models", &key, blob.clone(), options);
        }
    }
    builder.start()
}

fn bucket(tree: &Tree) -> FakeS3 {
    buckets(&[("m/", tree)], Some(Checksum::Sha256))
}

/// `fetch` with a Hub and an S3 at hand.
fn fetch_both(hub: &FakeHub, s3: &FakeS3, volume: &Volume, arguments: &[&str]) -> Command {
    let mut command = fetch_s3(s3, volume, arguments);
    command.env("HF_ENDPOINT", hub.url()).env("HF_TOKEN", TOKEN);
    command
}

/// What the storage of the Hub has sent.
fn of_cdn(hub: &FakeHub) -> u64 {
    let requests = hub.requests();
    requests.iter().filter(|it| it.origin == "cdn").map(|it| it.body_bytes_sent).sum()
}

/// The lines of a log that are about `what`.
fn lines<'a>(run: &'a Run, what: &str) -> Vec<&'a str> {
    run.stderr.lines().filter(|line| line.contains(what)).collect()
}

#[test]
fn what_a_bucket_lacks_and_corrupts_comes_from_the_hub() {
    let hub = FakeHub::serving(REPO, tree());
    let s3 = bucket(&tree().without("b.bin"));
    s3.script(Rule::on("GET", "c.bin").then(Fault::FlipByteAt(1_000)));
    let volume = Volume::new();
    let run = fetch_both(&hub, &s3, &volume, &["hf://org/tiny", "--also", BUCKET]).run();
    let run = run.assert_success().assert_says(BUCKET).assert_says("c.bin");
    volume.assert_holds("tiny", &tree());
    volume.assert_clean();
    // Named, and once.
    assert_eq!(lines(&run, BUCKET).len(), 1, "{}", run.stderr);
    assert_eq!(hub.count("*", "a.bin"), 0, "the bucket has it");
    assert_eq!(s3.count("GET", "b.bin"), 0, "the bucket lacks it");
    assert_eq!(s3.bytes_sent_for("c.bin"), 3 * MIB + 2, "the second fetch avoids the bucket");
    assert_eq!(of_cdn(&hub), 6 * MIB + 3);
}

#[test]
fn a_bucket_that_dies_in_a_file_is_followed_by_the_hub_at_the_byte_reached() {
    const SIZE: u64 = 8 * MIB;
    for last in [Fault::CutAfter(3 * MIB), Fault::ResetAfter(3 * MIB)] {
        let (hub, s3) = (FakeHub::serving(REPO, one(SIZE)), bucket(&one(SIZE)));
        s3.script(Rule::on("GET", "big.bin").once().then(last.clone()));
        s3.script(Rule::on("GET", "big.bin").then(Fault::HangBeforeHeaders(Duration::ZERO)));
        let volume = Volume::new();
        let run = fetch_both(&hub, &s3, &volume, &["hf://org/tiny", "--also", BUCKET])
            .args(["--connections", "1"])
            .run()
            .assert_success()
            .assert_says(BUCKET);
        volume.assert_holds("tiny", &one(SIZE));
        let (from_s3, from_hub) = (s3.bytes_sent_for("big.bin"), of_cdn(&hub));
        // A connection that is reset loses what is on its way.
        let lost = if matches!(last, Fault::CutAfter(_)) { 0 } else { 3 * MIB };
        let sent = from_s3 + from_hub;
        assert!((SIZE..=SIZE + lost).contains(&sent), "{from_s3} + {from_hub}: {}", run.stderr);
        assert!(from_s3 == 3 * MIB && from_hub >= 5 * MIB, "{from_s3} + {from_hub}");
    }
}

#[test]
fn a_bucket_that_is_gone_for_good_costs_no_byte_twice_on_many_connections() {
    const SIZE: u64 = 48 * MIB;
    let (hub, s3) = (FakeHub::serving(REPO, one(SIZE)), bucket(&one(SIZE)));
    s3.script(Rule::on("GET", "big.bin").then(Fault::Drip { bytes_per_second: 4 * MIB }));
    let volume = Volume::new();
    let running = fetch_both(&hub, &s3, &volume, &["hf://org/tiny", "--also", BUCKET])
        .args(["--connections", "4", "--chunk-size", "8MiB"])
        .start();
    eventually("bytes of the bucket", || s3.bytes_sent_for("big.bin") > 8 * MIB);
    let log = s3.log().clone();
    drop(s3);
    let run = running.wait().assert_success().assert_says(BUCKET);
    volume.assert_holds("tiny", &one(SIZE));
    let sent = log.bytes_sent_for("big.bin") + of_cdn(&hub);
    // What four connections had on their way.
    assert!((SIZE..=SIZE + 4 * 4 * MIB).contains(&sent), "{sent}: {}", run.stderr);
    // Each of its connections died; it is one thing to say.
    assert!(lines(&run, "continuing with").len() == 1, "{}", run.stderr);
}

#[test]
fn a_hub_whose_storage_refuses_is_no_obstacle_while_a_bucket_has_the_files() {
    // As the place that is pinned, and as the other one.
    for (arguments, is_named) in
        [(["hf://org/tiny", BUCKET], false), ([BUCKET, "hf://org/tiny"], true)]
    {
        let (hub, s3) = (FakeHub::serving(REPO, tree()), bucket(&tree()));
        hub.script(Rule::on("GET", "").at("cdn").then(Fault::status(403)));
        let volume = Volume::new();
        let [source, also] = arguments;
        let run = fetch_both(&hub, &s3, &volume, &[source, "m", "--also", also]).run();
        let run = run.assert_success();
        volume.assert_holds("m", &tree());
        let named = lines(&run, "fails for");
        assert_eq!(named.len(), usize::from(is_named), "{}", run.stderr);
        assert!(named.iter().all(|line| line.contains("hf://org/tiny@main")), "{named:?}");
    }
}

#[test]
fn places_are_asked_in_the_order_in_which_they_are_named() {
    let (first, second) = (tree().without("b.bin"), tree().without("c.bin"));
    for order in [["one/", "two/"], ["two/", "one/"]] {
        let hub = FakeHub::serving(REPO, tree().without("config.json").with("config.json", "[]"));
        let s3 = buckets(&[("one/", &first), ("two/", &second)], Some(Checksum::Sha256));
        let places = order.map(|prefix| format!("s3://models/{prefix}"));
        let volume = Volume::new();
        let run = fetch_both(&hub, &s3, &volume, &["hf://org/tiny"])
            .args(["--also", &places[0], "--also", &places[1]])
            .run()
            .assert_success();
        assert!(lines(&run, "s3://").is_empty(), "{}", run.stderr);
        // Both have it.
        assert_eq!(s3.bytes_sent_for(&format!("{}a.bin", order[0])), 3 * MIB);
        assert_eq!(s3.bytes_sent_for(&format!("{}a.bin", order[1])), 0);
        // One has it.
        assert_eq!(s3.bytes_sent_for("one/c.bin"), 3 * MIB + 2);
        assert_eq!(s3.bytes_sent_for("two/b.bin"), 3 * MIB + 1);
        assert_eq!(of_cdn(&hub), 0);
        // By the variable as well.
        let volume = Volume::new();
        s3.log().clear();
        fetch_both(&hub, &s3, &volume, &["hf://org/tiny"])
            .env("WEIGHTLIFT_ALSO", places.join(", "))
            .run()
            .assert_success();
        assert_eq!(s3.bytes_sent_for(&format!("{}a.bin", order[0])), 3 * MIB);
        assert_eq!(of_cdn(&hub), 0);
    }
}

#[test]
fn the_same_content_has_another_path_or_another_revision_elsewhere() {
    let renamed = Tree::new()
        .with_blob("old/weights-a.bin", tree().blob("a.bin").unwrap().clone())
        .with_blob("x.bin", tree().blob("b.bin").unwrap().clone());
    // A bucket, and another repo of the same Hub.
    let hub = FakeHub::builder().repo(REPO, tree()).repo("backup/of-tiny", renamed.clone()).start();
    let s3 = bucket(&renamed);
    let commit = hub.commit("backup/of-tiny");
    for also in
        [BUCKET.to_owned(), "hf://backup/of-tiny".into(), format!("hf://backup/of-tiny@{commit}")]
    {
        hub.log().clear();
        s3.log().clear();
        let volume = Volume::new();
        // What is wanted has its name at the source.
        let run = fetch_both(&hub, &s3, &volume, &["hf://org/tiny", "--also", &also])
            .args(["--include", "[ab].bin"])
            .run()
            .assert_success();
        assert!(lines(&run, "fails").is_empty(), "{}", run.stderr);
        volume.assert_holds("tiny", &tree().without("c.bin").without("config.json"));
        let sent = s3.bytes_sent_for("weights-a.bin") + s3.bytes_sent_for("x.bin");
        let expected = if also == BUCKET { 6 * MIB + 1 } else { 0 };
        assert_eq!(sent, expected, "{also}");
        assert_eq!(hub.count("*", "org/tiny/resolve"), 0, "{also}");
    }
}

#[test]
fn without_a_published_digest_only_the_source_serves() {
    let hub = FakeHub::serving(REPO, tree());
    for checksum in [None, Some(Checksum::Crc64Nvme)] {
        let (s3, volume) = (buckets(&[("m/", &tree())], checksum), Volume::new());
        let run = fetch_both(&hub, &s3, &volume, &[BUCKET, "m", "--also", "hf://org/tiny"]).run();
        run.assert_success().assert_says("publishes no digest");
        volume.assert_holds("m", &tree());
        assert_eq!(hub.requests().len(), 0, "it has nothing to be asked for");
        // The other way round the bucket has nothing to offer.
        let volume = Volume::new();
        s3.log().clear();
        let run = fetch_both(&hub, &s3, &volume, &["hf://org/tiny", "--also", BUCKET]).run();
        run.assert_success().assert_says("no file with a digest");
        volume.assert_holds("tiny", &tree());
        assert_eq!(s3.bytes_sent_for(".bin"), 0);
        hub.log().clear();
    }
}

#[test]
fn a_list_of_digests_beside_the_objects_is_enough() {
    let sums: String =
        tree().iter().map(|(path, blob)| format!("{}  {path}\n", blob.sha256())).collect();
    let with_sums = tree().with("SHA256SUMS", sums);
    let hub = FakeHub::serving(REPO, tree());
    let (s3, volume) = (buckets(&[("m/", &with_sums)], None), Volume::new());
    fetch_both(&hub, &s3, &volume, &["hf://org/tiny", "--also", BUCKET]).run().assert_success();
    volume.assert_holds("tiny", &tree());
    assert_eq!(of_cdn(&hub), 0);
}

#[test]
fn a_place_that_cannot_be_listed_is_said_once_and_left_alone() {
    let hub = FakeHub::serving(REPO, tree());
    let gone = {
        let s3 = bucket(&tree());
        s3.url()
    };
    type Make = fn() -> FakeS3;
    let good: Make = || bucket(&tree());
    let denied: Make = || FakeS3::builder().bucket("models").deny_list().start();
    let failing: Make = || {
        let s3 = bucket(&tree());
        s3.script(Rule::on("*", "").then(Fault::status(503)));
        s3
    };
    for (name, make, also, endpoint) in [
        ("no such bucket", good, "s3://another/m/", None),
        ("no such prefix", good, "s3://models/n/", None),
        ("refused", denied, BUCKET, None),
        ("nobody there", good, BUCKET, Some(gone.as_str())),
        ("down", failing, BUCKET, None),
        ("no such repo", good, "hf://nobody/nothing", None),
        ("no such revision", good, "hf://org/tiny@v9", None),
    ] {
        let (s3, volume) = (make(), Volume::new());
        let mut command = fetch_both(&hub, &s3, &volume, &["hf://org/tiny", "--also", also]);
        if let Some(endpoint) = endpoint {
            command.env("WEIGHTLIFT_S3_ENDPOINT", endpoint);
            let all: Vec<_> = command.get_args().map(std::ffi::OsStr::to_owned).collect();
            let at = all.iter().position(|it| it == "--s3-endpoint").unwrap();
            let mut other = weightlift();
            other.args(all[..at].iter().chain(&all[at + 2..]));
            other.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
            command = other;
        }
        let run = command.run().assert_success();
        assert_eq!(lines(&run, "is not used").len(), 1, "{name}: {}", run.stderr);
        assert!(lines(&run, "is not used")[0].contains(also), "{name}: {}", run.stderr);
        volume.assert_holds("tiny", &tree());
    }
}

#[test]
fn what_can_never_work_is_a_usage_error() {
    let (hub, s3) = (FakeHub::serving(REPO, tree()), bucket(&tree()));
    for (name, arguments, variable, says) in [
        ("no URI", vec!["hf://org/tiny", "--also", "models/m"], None, "--also"),
        ("another scheme", vec!["hf://org/tiny", "--also", "ftp://x/y"], None, "--also"),
        (
            "several sources",
            vec!["hf://org/tiny", "a", "hf://org/tiny", "b", "--also", BUCKET],
            None,
            "one SOURCE",
        ),
        (
            "an endpoint",
            vec!["hf://org/tiny", "--also", BUCKET, "--s3-endpoint", "nonsense"],
            None,
            "--s3-endpoint",
        ),
        (
            "a region",
            vec!["hf://org/tiny", "--also", BUCKET],
            Some(("AWS_REGION", "a b")),
            "AWS_REGION",
        ),
        (
            "the endpoint of the Hub",
            vec![BUCKET, "--also", "hf://org/tiny"],
            Some(("HF_ENDPOINT", "nonsense")),
            "HF_ENDPOINT",
        ),
    ] {
        let volume = Volume::new();
        let mut command = fetch(&hub, &volume, &arguments);
        if !arguments.contains(&"--s3-endpoint") {
            command.args(["--s3-endpoint", &s3.url()]);
        }
        command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
        command.env("AWS_REGION", "us-east-1").envs(variable);
        let run = command.run();
        assert_eq!(run.code, 2, "{name}: {}", run.stderr);
        assert!(run.stderr.contains(says), "{name}: {}", run.stderr);
        assert!(!volume.family("tiny").exists(), "{name}");
    }
}

#[test]
fn where_all_places_fail_each_is_named_and_says_why() {
    // What the bucket does, what the storage of the Hub does, and what comes of it.
    for (name, of_s3, of_hub, code) in [
        ("both refuse", 403, 403, 11),
        ("gone and refused", 404, 403, 11),
        ("down, and refused: another run may do", 503, 403, 20),
        ("both down", 503, 503, 20),
    ] {
        let (hub, s3) = (FakeHub::serving(REPO, one(3 * MIB)), bucket(&one(3 * MIB)));
        s3.script(Rule::on("GET", "big.bin").then(Fault::status(of_s3)));
        hub.script(Rule::on("GET", "").at("cdn").then(Fault::status(of_hub)));
        let volume = Volume::new();
        let run = fetch_both(&hub, &s3, &volume, &["hf://org/tiny", "--also", BUCKET])
            .env("WEIGHTLIFT_RETRY_TIMEOUT", "4s")
            .run();
        assert_eq!(run.code, code, "{name}: {}", run.stderr);
        let last = run.last_line();
        for part in
            ["big.bin", BUCKET, "hf://org/tiny@main", &of_s3.to_string(), &of_hub.to_string()]
        {
            assert!(last.contains(part), "{name}: no {part} in {last}");
        }
        assert!(!volume.family("tiny").exists(), "{name}");
    }
}

#[test]
fn where_only_the_source_has_a_file_the_others_are_named_as_well() {
    // A place that lacks it, and one that could not be listed.
    for (also, why) in [(BUCKET, "no file with its digest"), ("s3://another/m/", "another")] {
        let hub = FakeHub::serving(REPO, one(3 * MIB));
        let s3 = bucket(&one(3 * MIB).without("big.bin").with("x", "x"));
        hub.script(Rule::on("GET", "").at("cdn").then(Fault::status(403)));
        let volume = Volume::new();
        let run = fetch_both(&hub, &s3, &volume, &["hf://org/tiny", "--also", also]).run();
        assert_eq!(run.code, 11, "{}", run.stderr);
        let last = run.last_line();
        assert!(last.contains(also) && last.contains(why) && last.contains("403"), "{last}");
    }
}

#[test]
fn wrong_bytes_everywhere_are_an_integrity_error_that_names_each_place() {
    let (hub, s3) = (FakeHub::serving(REPO, one(3 * MIB)), bucket(&one(3 * MIB)));
    s3.script(Rule::on("GET", "big.bin").then(Fault::FlipByteAt(1_000)));
    hub.script(Rule::on("GET", "").at("cdn").then(Fault::FlipByteAt(2_000)));
    let volume = Volume::new();
    let run = fetch_both(&hub, &s3, &volume, &["hf://org/tiny", "--also", BUCKET]).run();
    run.assert_code(12).assert_says(BUCKET).assert_says("still wrong after 3");
    assert!(!volume.family("tiny").exists());
    // Twice from whoever is believed most.
    assert_eq!(s3.bytes_sent_for("big.bin"), 3 * MIB);
    assert_eq!(of_cdn(&hub), 6 * MIB);
}

#[test]
fn a_header_that_a_bucket_damages_each_time_is_not_blamed_on_the_publisher() {
    const LEN: usize = 12 << 20;
    let header = format!(r#"{{"w":{{"dtype":"U8","shape":[{LEN}],"data_offsets":[0,{LEN}]}}}}"#);
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.resize(bytes.len() + LEN, 5);
    let tree = Tree::new().with("config.json", "{}").with("model.safetensors", bytes);
    let (hub, s3) = (FakeHub::serving(REPO, tree.clone()), bucket(&tree));
    s3.script(Rule::on("GET", "model.safetensors").then(Fault::FlipByteAt(9)));
    let volume = Volume::new();
    let run = fetch_both(&hub, &s3, &volume, &["hf://org/tiny", "--also", BUCKET]).run();
    run.assert_success().assert_says(BUCKET).assert_says("not valid safetensors");
    volume.assert_holds("tiny", &tree);
    // A broken header is broken everywhere if the publisher broke it.
    let broken = Tree::new()
        .with("config.json", "{}")
        .with_blob("model.safetensors", Blob::synthetic(12 * MIB, 1));
    let (hub, s3) = (FakeHub::serving(REPO, broken.clone()), bucket(&broken));
    let volume = Volume::new();
    let run = fetch_both(&hub, &s3, &volume, &["hf://org/tiny", "--also", BUCKET])
        .args(["--connections", "1"])
        .run();
    run.assert_code(12).assert_says("at the source");
    // One place began it, the other was asked for the start only.
    assert!(of_cdn(&hub) < MIB, "{}", of_cdn(&hub));
}

#[test]
fn a_killed_run_is_continued_from_another_place() {
    const SIZE: u64 = 40 * MIB;
    for from_bucket_first in [true, false] {
        let (hub, s3) = (FakeHub::serving(REPO, one(SIZE)), bucket(&one(SIZE)));
        let slowly = || Fault::Drip { bytes_per_second: 8 * MIB };
        s3.script(Rule::on("GET", "big.bin").then(slowly()));
        hub.script(Rule::on("GET", "").at("cdn").then(slowly()));
        let volume = Volume::new();
        let run = |with_bucket: bool| {
            let mut command = fetch_both(&hub, &s3, &volume, &["hf://org/tiny"]);
            if with_bucket {
                command.args(["--also", BUCKET]);
            }
            command.args(["--connections", "1", "--chunk-size", "64MiB"]);
            command
        };
        let sent = |of_bucket: bool| match of_bucket {
            true => s3.bytes_sent_for("big.bin"),
            false => of_cdn(&hub),
        };
        let running = run(from_bucket_first).start();
        eventually("half of it", || sent(from_bucket_first) > SIZE / 2);
        running.signal("-KILL");
        running.wait();
        let asked = |of_bucket: bool| match of_bucket {
            true => s3.count("GET", "big.bin"),
            false => hub.requests().iter().filter(|it| it.origin == "cdn").count(),
        };
        let before = asked(from_bucket_first);
        s3.clear_script();
        hub.clear_script();
        let run = run(!from_bucket_first).run().assert_success();
        assert!(run.stderr.contains("are here already"), "{}", run.stderr);
        assert!(!run.stderr.contains("damaged"), "{}", run.stderr);
        volume.assert_holds("tiny", &one(SIZE));
        assert_eq!(asked(from_bucket_first), before, "the first place is asked no more");
        let all = sent(true) + sent(false);
        // What was not noted yet, and what was on its way.
        assert!((SIZE..=SIZE + 8 * MIB).contains(&all), "{all}");
    }
}

#[test]
fn a_warm_start_asks_no_other_place() {
    let (hub, s3, volume) = (FakeHub::serving(REPO, tree()), bucket(&tree()), Volume::new());
    let pinned = format!("hf://org/tiny@{}", hub.commit(REPO));
    fetch_both(&hub, &s3, &volume, &["hf://org/tiny", "--also", BUCKET]).run().assert_success();
    for (source, requests) in [("hf://org/tiny", 1), (pinned.as_str(), 0)] {
        hub.log().clear();
        s3.log().clear();
        fetch_both(&hub, &s3, &volume, &[source, "tiny", "--also", BUCKET]).run().assert_success();
        assert_eq!((hub.requests().len(), s3.requests().len()), (requests, 0), "{source}");
    }
}

#[test]
fn a_place_that_must_not_be_asked_is_not() {
    let (hub, s3, volume) = (FakeHub::serving(REPO, tree()), bucket(&tree()), Volume::new());
    let run = fetch_both(&hub, &s3, &volume, &[BUCKET, "m", "--also", "hf://org/tiny"])
        .env("HF_HUB_OFFLINE", "1")
        .run();
    run.assert_success().assert_says("HF_HUB_OFFLINE is set");
    volume.assert_holds("m", &tree());
    assert_eq!(hub.requests().len(), 0);
}

#[test]
fn a_place_named_twice_or_as_the_source_is_one() {
    let (hub, s3, volume) = (FakeHub::serving(REPO, tree()), bucket(&tree()), Volume::new());
    let run = fetch_both(&hub, &s3, &volume, &["hf://org/tiny", "--also", "hf://org/tiny@main"])
        .args(["--also", BUCKET, "--also", BUCKET])
        .run()
        .assert_success();
    assert!(lines(&run, "continuing with").is_empty(), "{}", run.stderr);
    assert_eq!(s3.count("GET", "list-type"), 1);
    assert_eq!(of_cdn(&hub), 0);
}

#[test]
fn a_bucket_without_ranges_or_with_broken_answers_is_left_for_the_next_place() {
    for fault in [
        Fault::IgnoreRange,
        Fault::WrongRange,
        Fault::ShortLength(10),
        Fault::WrongTotal(7),
        Fault::status(500),
        Fault::status(429),
        Fault::status_with(429, &[("Retry-After", "1")], ""),
    ] {
        const SIZE: u64 = 20 * MIB;
        let (hub, s3) = (FakeHub::serving(REPO, one(SIZE)), bucket(&one(SIZE)));
        s3.script(Rule::on("GET", "big.bin").then(fault.clone()));
        let volume = Volume::new();
        let run = fetch_both(&hub, &s3, &volume, &["hf://org/tiny", "--also", BUCKET])
            .args(["--chunk-size", "4MiB", "--connections", "2"])
            .run();
        assert_eq!(run.code, 0, "{fault:?}: {}", run.stderr);
        assert_eq!(lines(&run, "continuing with").len(), 1, "{fault:?}: {}", run.stderr);
        volume.assert_holds("tiny", &one(SIZE));
    }
}

#[test]
fn a_model_in_another_directory_gives_what_it_has() {
    let hub = FakeHub::builder().repo(REPO, tree()).repo("org/base", tree()).start();
    type Spoil = fn(&std::path::Path);
    let not_at_all: Spoil = |_| {};
    // What has become of it, the files that the Hub is asked for, and what is said.
    for (name, spoil, asked, says) in [
        ("whole", not_at_all, [false; 3], ""),
        (
            "damaged",
            |dir| {
                let mut bytes = std::fs::read(dir.join("b.bin")).unwrap();
                bytes[7] ^= 1;
                std::fs::write(dir.join("b.bin"), bytes).unwrap();
            },
            [false, true, false],
            "does not match what hf://org/tiny@main publishes",
        ),
        (
            "cut",
            |dir| {
                let file = std::fs::OpenOptions::new().write(true).open(dir.join("a.bin"));
                file.unwrap().set_len(9).unwrap();
            },
            [true, false, false],
            "has 9 bytes",
        ),
        (
            "a file is gone",
            |dir| std::fs::remove_file(dir.join("c.bin")).unwrap(),
            [false, false, true],
            "in the sentinel but missing",
        ),
        (
            "a link is planted",
            |dir| {
                std::fs::rename(dir.join("c.bin"), dir.join("d.bin")).unwrap();
                std::os::unix::fs::symlink("d.bin", dir.join("c.bin")).unwrap();
            },
            [false, false, true],
            "c.bin",
        ),
        (
            "no sentinel",
            |dir| std::fs::remove_file(dir.join(".weightlift-complete.json")).unwrap(),
            [true; 3],
            "is not used",
        ),
        ("no directory", |dir| std::fs::remove_dir_all(dir).unwrap(), [true; 3], "is not used"),
        (
            "a sentinel that is none",
            |dir| std::fs::write(dir.join(".weightlift-complete.json"), "\u{1b}[2J{").unwrap(),
            [true; 3],
            "is not used",
        ),
    ] {
        let (other, volume) = (Volume::new(), Volume::new());
        fetch(&hub, &other, &["hf://org/base"]).run().assert_success();
        let dir = other.family("base");
        spoil(&dir);
        hub.log().clear();
        let also = format!("file://{}", dir.display());
        let run = fetch(&hub, &volume, &["hf://org/tiny", "--also", &also]).run();
        let run = run.assert_success().assert_says(says);
        volume.assert_holds("tiny", &tree());
        let found = ["a.bin", "b.bin", "c.bin"].map(|file| hub.count("*", file) > 0);
        assert_eq!(found, asked, "{name}: {}", run.stderr);
    }
}

#[test]
fn a_published_directory_is_a_source_like_others() {
    let (hub, other) = (hub_of_tiny(), Volume::new());
    fetch(&hub, &other, &["hf://org/tiny"]).run().assert_success();
    let dir = other.family("tiny");
    let source = format!("file://{}/", dir.display());
    hub.log().clear();
    let volume = Volume::new();
    let run = fetch(&hub, &volume, &[&source, "copy"]).run().assert_success();
    assert!(run.stderr.contains(&hub.commit(REPO)[..12]), "{}", run.stderr);
    volume.assert_holds("copy", &tiny_selected());
    weightlift().arg("verify").arg(volume.family("copy")).run().assert_success();
    // Again, and there is nothing to do.
    let run = fetch(&hub, &volume, &[&source, "copy"]).run().assert_success();
    run.assert_says("nothing to do");
    // What has been damaged there is not published here.
    let file = dir.join("model-00001-of-00002.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&file, bytes).unwrap();
    fetch(&hub, &Volume::new(), &[&source, "copy"]).run().assert_code(12);
    let nothing = format!("file://{}", other.path("nothing").display());
    fetch(&hub, &Volume::new(), &[&nothing, "copy"]).run().assert_code(10);
    let foreign = format!("file://{}", other.root().display());
    fetch(&hub, &Volume::new(), &[&foreign, "copy"]).run().assert_code(10);
    fetch(&hub, &Volume::new(), &["file://models/x", "copy"]).run().assert_code(2);
    assert_eq!(hub.requests().len(), 0);
}
