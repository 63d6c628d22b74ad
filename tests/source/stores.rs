//! Stores that call themselves S3 and have ways of their own, as other tools put up with them.
//!
//! | what the store does | what happens |
//! |---|---|
//! | refuses an optional question | the model is complete; the way is found out once, and said once |
//! | contradicts its own listing and stands still | complete, with a warning |
//! | really changes something | exit 20, as everywhere |
//! | sends reads on to a CDN | complete; no credential goes there |
//! | unpacks what is stored packed | the stored bytes are asked for, or exit 12 |
//! | has a list of digests that is older than the files | exit 12 after two fetches that agree, naming the list |

use std::time::Duration;

use crate::support::table::{BIG, Row, check, model, row};
use crate::support::*;
use weightlift_fakes::{
    Blob, Checksum, FakeS3, FakeS3Builder, Fault, Habits, ObjectOptions, Response, Rule, Server,
    Tree, Unpacks,
};

const ARGUMENTS: [&str; 5] = ["m", "--chunk-size", "1MiB", "--connections", "2"];
const SENTINEL: &str = ".weightlift-complete.json";

/// A bucket with `model()` below `llama/`, at a store with `habits`.
fn bucket(habits: Habits, checksum: Option<Checksum>) -> FakeS3 {
    put(FakeS3::builder().credentials(ACCESS_KEY, SECRET_KEY).habits(habits), checksum).start()
}

fn put(builder: FakeS3Builder, checksum: Option<Checksum>) -> FakeS3Builder {
    let options = ObjectOptions { checksum, ..ObjectOptions::default() };
    model().iter().fold(builder, |builder, (path, blob)| {
        builder.object_with("models", &format!("llama/{path}"), blob.clone(), options.clone())
    })
}

fn of(objects: &[(&str, Blob, ObjectOptions)], habits: Habits) -> FakeS3 {
    let builder = FakeS3::builder().credentials(ACCESS_KEY, SECRET_KEY).habits(habits);
    let put = |builder: FakeS3Builder, (key, blob, options): &(&str, Blob, ObjectOptions)| {
        builder.object_with("models", key, blob.clone(), options.clone())
    };
    objects.iter().fold(builder, put).start()
}

fn plain() -> ObjectOptions {
    ObjectOptions::default()
}

fn with(checksum: Checksum) -> ObjectOptions {
    ObjectOptions { checksum: Some(checksum), ..plain() }
}

fn fetch_from(s3: &FakeS3, volume: &Volume, source: &str, more: &[&str]) -> std::process::Command {
    let mut command = fetch_s3(s3, volume, &[&[source], &ARGUMENTS[..], more].concat());
    command.env("WEIGHTLIFT_RETRY_TIMEOUT", "5s");
    command
}

fn fetch(s3: &FakeS3, volume: &Volume) -> Run {
    fetch_from(s3, volume, "s3://models/llama/", &[]).run()
}

#[track_caller]
fn assert_said_once(run: &Run, words: &str) {
    assert_eq!(run.stderr.matches(words).count(), 1, "`{words}` in: {}", run.stderr);
}

/// Requests of a fetch of the model with a HEAD for each file, and two more.
const USUAL: usize = 11;

/// The model is complete, with so many more requests at most, and `words` are said once.
fn completes(
    name: &'static str,
    habits: impl FnOnce() -> Habits + Send + 'static,
    more_requests: usize,
    words: &'static [&'static str],
) -> Row {
    row(name, move || {
        let (s3, volume) = (bucket(habits(), Some(Checksum::Sha256)), Volume::new());
        let run = fetch(&s3, &volume).assert_success();
        volume.assert_holds("m", &model());
        volume.assert_clean();
        words.iter().for_each(|words| assert_said_once(&run, words));
        let requests = s3.requests();
        assert!(requests.len() <= USUAL + more_requests, "{} requests", requests.len());
        for request in requests {
            assert!(!format!("{request:?}").contains(SECRET_KEY));
        }
    })
}

#[test]
fn an_optional_question_that_is_refused_is_asked_once() {
    let status = Some::<u16>;
    check([
        completes(
            "501 for checksums",
            move || Habits { refuses_checksum_mode: status(501), ..Habits::default() },
            2,
            &["the store does not report checksums", "2 files could not be compared"],
        ),
        completes(
            "405 for checksums",
            move || Habits { refuses_checksum_mode: status(405), ..Habits::default() },
            2,
            &["the store does not report checksums", "2 files could not be compared"],
        ),
        completes(
            "400 for checksums",
            move || Habits { refuses_checksum_mode: status(400), ..Habits::default() },
            2,
            &["the store does not report checksums", "2 files could not be compared"],
        ),
        completes(
            "403 for checksums",
            move || Habits { refuses_checksum_mode: status(403), ..Habits::default() },
            0,
            &["S3 refuses HEAD", "2 files could not be compared"],
        ),
        completes(
            "405 for HEAD",
            move || Habits { refuses_head: status(405), ..Habits::default() },
            2,
            &["S3 refuses HEAD", "2 files could not be compared"],
        ),
        completes(
            "501 for HEAD",
            move || Habits { refuses_head: status(501), ..Habits::default() },
            2,
            &["S3 refuses HEAD", "2 files could not be compared"],
        ),
        completes(
            "400 for HEAD",
            move || Habits { refuses_head: status(400), ..Habits::default() },
            2,
            &["S3 refuses HEAD", "2 files could not be compared"],
        ),
        completes(
            "403 for signatures in the query",
            move || Habits { refuses_query_signatures: status(403), ..Habits::default() },
            0,
            &["all verified"],
        ),
        completes(
            "501 for signatures in the query",
            move || Habits { refuses_query_signatures: status(501), ..Habits::default() },
            0,
            &["all verified"],
        ),
    ]);
}

#[test]
fn a_store_without_checksums_is_asked_for_one_and_no_more() {
    let objects = |n: usize| format!("llama/{n}.json");
    let put = |builder: FakeS3Builder, n| builder.object("models", &objects(n), Blob::bytes("{}"));
    let habits = Habits { refuses_checksum_mode: Some(501), ..Habits::default() };
    let s3 = (0..60).fold(FakeS3::builder().habits(habits), put).start();
    let run = fetch(&s3, &Volume::new()).assert_success();
    assert_eq!(s3.count("HEAD", "llama/"), 2, "with the mode and without");
    assert_said_once(&run, "the store does not report checksums");
}

/// Something is needed of HEAD: whether there is such an object, and its size.
#[test]
fn a_single_object_is_found_without_head() {
    let name = "big.bin";
    let only = Tree::new().with_blob(name, model().blob(name).unwrap().clone());
    for status in [400, 403, 405, 501] {
        let (s3, volume) = (
            bucket(Habits { refuses_head: Some(status), ..Habits::default() }, None),
            Volume::new(),
        );
        fetch_from(&s3, &volume, "s3://models/llama/big.bin", &[]).run().assert_success();
        volume.assert_holds("m", &only);
        // What is not there is not found all the same.
        let run = fetch_from(&s3, &Volume::new(), "s3://models/llama/nothing", &[]).run();
        run.assert_code(10);
    }
    // Answers that lack what is needed.
    for faults in [
        vec![Rule::on("HEAD", "").then(Fault::drop_headers(&["Content-Length"]))],
        vec![Rule::on("HEAD", "").then(Fault::status_with(302, &[("Location", "/x")], ""))],
        vec![
            Rule::on("HEAD", "").then(Fault::status(501)),
            Rule::on("GET", "").then(Fault::IgnoreRange),
        ],
    ] {
        let (s3, volume) = (bucket(Habits::default(), None), Volume::new());
        faults.into_iter().for_each(|rule| s3.script(rule));
        fetch_from(&s3, &volume, "s3://models/llama/big.bin", &[]).run().assert_success();
        volume.assert_holds("m", &only);
    }
    // Of an empty one there is no first byte.
    let habits = Habits { refuses_head: Some(405), ..Habits::default() };
    let (s3, volume) = (of(&[("p/empty.txt", Blob::bytes(""), plain())], habits), Volume::new());
    fetch_from(&s3, &volume, "s3://models/p/empty.txt", &[]).run().assert_success();
    volume.assert_holds("m", &Tree::new().with("empty.txt", ""));
}

#[test]
fn a_store_that_contradicts_its_listing_and_stands_still_is_believed() {
    const OWN: &str = "lists ETags that differ from those of its objects";
    const REFUSES: &str = "refuses `If-Match` for objects that have not changed";
    check([
        completes(
            "412 to every If-Match",
            || Habits { refuses_if_match: true, ..Habits::default() },
            // Two workers may be refused before one has looked.
            5,
            &[REFUSES],
        ),
        completes(
            "other ETags in the listing",
            || Habits { has_own_listing: true, ..Habits::default() },
            5,
            &[OWN],
        ),
        completes(
            "both",
            || Habits { has_own_listing: true, refuses_if_match: true, ..Habits::default() },
            9,
            &[OWN, REFUSES],
        ),
        completes(
            "other ETags in the listing, and no HEAD",
            || Habits { has_own_listing: true, refuses_head: Some(405), ..Habits::default() },
            14,
            &[OWN],
        ),
        completes(
            "other ETags in the listing, and If-Match is not known",
            || Habits { has_own_listing: true, ignores_if_match: true, ..Habits::default() },
            5,
            &[OWN],
        ),
        row("a single object at a store that refuses every If-Match", || {
            let habits = Habits { refuses_if_match: true, ..Habits::default() };
            let (s3, volume) = (bucket(habits, None), Volume::new());
            let run = fetch_from(&s3, &volume, "s3://models/llama/big.bin", &[]).run();
            assert_said_once(&run.assert_success(), REFUSES);
        }),
        row("a list of sums at a store that refuses every If-Match", || {
            let sums = format!("{}  a.json\n", Blob::bytes("{}").sha256());
            let habits = Habits { refuses_if_match: true, ..Habits::default() };
            let objects = [
                ("llama/a.json", Blob::bytes("{}"), plain()),
                ("llama/SHA256SUMS", Blob::bytes(sums), plain()),
            ];
            let run = fetch(&of(&objects, habits), &Volume::new()).assert_success();
            assert_said_once(&run, REFUSES);
        }),
        row("the next run does not fetch again what such a store has", || {
            let habits = Habits { has_own_listing: true, ..Habits::default() };
            let (s3, volume) = (bucket(habits, None), Volume::new());
            fetch(&s3, &volume).assert_success();
            s3.log().clear();
            fetch(&s3, &volume).assert_success();
            assert_eq!(s3.requests().len(), 2);
        }),
    ]);
}

/// Each of these stores lacks one of the things by which a change is seen.
#[test]
fn what_really_changes_is_never_mixed() {
    let changing = |name, habits: fn() -> Habits| {
        row(name, move || {
            let (s3, volume) = (bucket(habits(), None), Volume::new());
            s3.script(Rule::on("GET", "big.bin").then(Fault::Drip { bytes_per_second: 1 << 20 }));
            let running = fetch_from(&s3, &volume, "s3://models/llama/", &[]).start();
            eventually("the first bytes are sent", || s3.bytes_sent_for("big.bin") > 1 << 20);
            s3.overwrite("models", "llama/big.bin", Blob::synthetic(BIG, 99));
            s3.clear_script();
            running.wait().assert_code(20).assert_says("run again");
            assert!(!volume.family("m").exists());
            fetch(&s3, &volume).assert_success();
            volume.assert_holds("m", &model().with_blob("big.bin", Blob::synthetic(BIG, 99)));
        })
    };
    check([
        changing("at S3", Habits::default),
        changing("If-Match is always refused", || Habits {
            refuses_if_match: true,
            ..Habits::default()
        }),
        changing("If-Match is not known", || Habits {
            ignores_if_match: true,
            ..Habits::default()
        }),
        changing("the listing has other ETags", || Habits {
            has_own_listing: true,
            ..Habits::default()
        }),
        changing("the listing has other ETags, If-Match is refused", || Habits {
            has_own_listing: true,
            refuses_if_match: true,
            ..Habits::default()
        }),
        changing("the listing has other ETags, If-Match is not known, nor is HEAD", || Habits {
            has_own_listing: true,
            ignores_if_match: true,
            refuses_head: Some(501),
            ..Habits::default()
        }),
        row("between the listing and the first read", || {
            let (s3, volume) = (bucket(Habits::default(), None), Volume::new());
            s3.script(Rule::on("GET", "big.bin").once().then(Fault::status(500)));
            s3.script(Rule::on("GET", "big.bin").then(Fault::Delay(Duration::from_millis(500))));
            let running = fetch_from(&s3, &volume, "s3://models/llama/", &[]).start();
            eventually("it is read", || s3.count("GET", "big.bin") > 0);
            s3.overwrite("models", "llama/big.bin", Blob::synthetic(BIG, 99));
            running.wait().assert_code(20).assert_says("run again");
        }),
    ]);
}

/// A CDN with `model()`, whose ETags are its own.
fn cdn() -> FakeS3 {
    let cdn = put(FakeS3::builder(), None).start();
    cdn.script(Rule::on("GET", "").then(Fault::add_headers(&[("ETag", "\"of the cdn\"")])));
    cdn
}

fn sends_on(status: u16, origin: String) -> Habits {
    Habits { sends_on: Some((status, origin)), ignores_if_match: true, ..Habits::default() }
}

#[test]
fn reads_that_are_sent_on_to_a_cdn_bring_no_credentials_there() {
    for status in [301, 302, 303, 307, 308] {
        let (cdn, volume) = (cdn(), Volume::new());
        let s3 = bucket(sends_on(status, cdn.url()), None);
        let mut command = fetch_from(&s3, &volume, "s3://models/llama/", &[]);
        let run = command.run().assert_success();
        volume.assert_holds("m", &model());
        assert_said_once(&run, "redirects reads to");
        assert!(cdn.count("GET", "big.bin") >= 5);
        for request in cdn.requests() {
            let shown = format!("{request:?}");
            for secret in [ACCESS_KEY, SECRET_KEY, "uthorization", "amz", "if-match", "Signature"] {
                assert!(!shown.to_lowercase().contains(&secret.to_lowercase()), "{shown}");
            }
        }
        // Each range by a link of its own, as it may be signed for.
        let reads = s3.count("GET", "/llama/") - s3.count("GET", SENTINEL);
        assert_eq!(reads, cdn.count("GET", "link="));
    }
}

#[test]
fn a_session_token_and_a_list_do_not_go_to_the_cdn_either() {
    let sums = Blob::bytes(format!("{}  a.json\n", Blob::bytes("{}").sha256()));
    let put = |builder: FakeS3Builder| {
        let builder = builder.object("models", "llama/a.json", Blob::bytes("{}"));
        builder.object("models", "llama/SHA256SUMS", sums.clone())
    };
    let cdn = put(FakeS3::builder()).start();
    let builder =
        FakeS3::builder().credentials(ACCESS_KEY, SECRET_KEY).session_token("sessionCANARY");
    let s3 = put(builder.habits(sends_on(302, cdn.url()))).start();
    let mut command = fetch_from(&s3, &Volume::new(), "s3://models/llama/", &[]);
    command.env("AWS_SESSION_TOKEN", "sessionCANARY").run().assert_success();
    assert!(cdn.count("GET", "SHA256SUMS") == 2);
    assert!(cdn.requests().iter().all(|request| !format!("{request:?}").contains("CANARY")));
}

#[test]
fn a_cdn_is_followed_as_far_as_it_is_safe_and_stays_the_same() {
    let at = |origin: String| (bucket(sends_on(302, origin), None), Volume::new());
    check([
        row("a link that has expired before it was used", move || {
            let cdn = cdn();
            cdn.clear_script();
            cdn.script(Rule::on("GET", "big.bin").times(2).then(Fault::status(403)));
            let (s3, volume) = at(cdn.url());
            fetch(&s3, &volume).assert_success();
            volume.assert_holds("m", &model());
        }),
        row("a CDN that refuses everything", move || {
            let cdn = cdn();
            cdn.clear_script();
            cdn.script(Rule::on("GET", "").then(Fault::status_with(403, &[], "no such key pair")));
            let (s3, volume) = at(cdn.url());
            fetch(&s3, &volume).assert_code(11).assert_says("no such key pair");
            assert!(s3.requests().len() < 20, "{}", s3.requests().len());
        }),
        row("another object at the CDN in the middle", move || {
            let cdn = cdn();
            cdn.clear_script();
            cdn.script(
                Rule::on("GET", "big.bin")
                    .skip(2)
                    .then(Fault::add_headers(&[("ETag", "\"another\"")])),
            );
            let (s3, volume) = at(cdn.url());
            fetch(&s3, &volume).assert_code(20).assert_says("changed while it was fetched");
        }),
        row("a size that is not the listed one", move || {
            let cdn = cdn();
            cdn.clear_script();
            cdn.script(Rule::on("GET", "big.bin").then(Fault::WrongTotal(BIG - 1)));
            let (s3, volume) = at(cdn.url());
            fetch(&s3, &volume).assert_code(20);
        }),
        row("to the metadata service of the node", move || {
            let (s3, volume) = at("http://169.254.169.254".into());
            fetch(&s3, &volume).assert_code(13).assert_says("link-local");
        }),
        row("to a file", move || {
            let (s3, volume) = at("file://".into());
            fetch(&s3, &volume).assert_code(13).assert_says("which is less safe");
        }),
        row("round and round", move || {
            let server =
                Server::start(|request| Response::new(302).header("Location", &request.path));
            let (s3, volume) = at(server.url());
            fetch(&s3, &volume).assert_code(20).assert_says("redirects more than");
            assert!(s3.requests().len() < 20, "{}", s3.requests().len());
        }),
        row("to another region, as S3 does it, it is signed anew and nobody else is asked", || {
            let other = cdn();
            let (s3, volume) = (bucket(Habits::default(), None), Volume::new());
            let location = format!("{}/models/llama/big.bin", other.url());
            s3.script(Rule::on("GET", "big.bin").once().then(Fault::status_with(
                307,
                &[("Location", &location), ("x-amz-bucket-region", "eu-west-1")],
                "<Error><Code>TemporaryRedirect</Code></Error>",
            )));
            fetch(&s3, &volume).assert_success();
            assert_eq!(other.requests().len(), 0);
            let is_new = |r: &weightlift_fakes::Logged| {
                r.header("authorization").is_some_and(|it| it.contains("/eu-west-1/"))
            };
            assert!(s3.requests().iter().any(is_new));
        }),
    ]);
}

/// Packed as it is stored: no real compression is needed to tell the two apart.
fn packed(unpacks: Unpacks) -> (FakeS3, Blob) {
    let stored = Blob::synthetic(2_500_000, 3);
    let options = ObjectOptions {
        content_encoding: Some("gzip".into()),
        unpacked: Some(Blob::synthetic(4_000_000, 4)),
        ..plain()
    };
    let habits = Habits { unpacks, ..Habits::default() };
    (of(&[("llama/w.bin", stored.clone(), options)], habits), stored)
}

#[test]
fn an_object_that_is_stored_packed_is_fetched_as_it_is_stored() {
    for unpacks in [Unpacks::Never, Unpacks::UnlessAccepted] {
        let ((s3, stored), volume) = (packed(unpacks), Volume::new());
        fetch(&s3, &volume).assert_success();
        volume.assert_holds("m", &Tree::new().with_blob("w.bin", stored));
    }
    // Without a length as well.
    let ((s3, stored), volume) = (packed(Unpacks::UnlessAccepted), Volume::new());
    s3.script(Rule::on("GET", "w.bin").then(Fault::NoLength));
    fetch(&s3, &volume).assert_success();
    volume.assert_holds("m", &Tree::new().with_blob("w.bin", stored));
}

#[test]
fn a_store_that_unpacks_all_the_same_is_named_and_not_tried_again() {
    for faults in [vec![], vec![Fault::NoLength]] {
        let ((s3, _), volume) = (packed(Unpacks::Always), Volume::new());
        if !faults.is_empty() {
            s3.script(faults.into_iter().fold(Rule::on("GET", "w.bin"), Rule::then));
        }
        let run = fetch(&s3, &volume).assert_code(12);
        let told = run.last_line();
        assert!(
            told.contains("`llama/w.bin`") && told.contains("without `Content-Encoding`"),
            "{told}"
        );
        assert!(s3.count("GET", "w.bin") <= 4, "tried again");
        assert!(!volume.family("m").exists());
    }
}

#[test]
fn whoever_pays_for_a_bucket_says_so_in_every_request() {
    let bucket = || bucket(Habits { requester_pays: true, ..Habits::default() }, None);
    let volume = Volume::new();
    let s3 = bucket();
    let run = fetch(&s3, &volume).assert_code(11);
    // That it is about paying is said where S3 says so.
    assert!(!run.stderr.contains("requester"), "{}", run.stderr);
    let told = "<Error><Code>AccessDenied</Code><Message>Bucket is a Requester Pays bucket</Message></Error>";
    s3.script(Rule::on("GET", "").then(Fault::status_with(403, &[], told)));
    fetch(&s3, &volume).assert_code(11).assert_says("`--s3-requester-pays`");
    assert!(s3.requests().iter().all(|request| request.header("x-amz-request-payer").is_none()));
    let s3 = bucket();
    fetch_from(&s3, &volume, "s3://models/llama/", &["--s3-requester-pays"]).run().assert_success();
    volume.assert_holds("m", &model());
    assert!(s3.requests().iter().all(|it| it.header("x-amz-request-payer") == Some("requester")));
    let (s3, volume) = (bucket(), Volume::new());
    let mut command = fetch_from(&s3, &volume, "s3://models/llama/big.bin", &[]);
    command.env("WEIGHTLIFT_S3_REQUESTER_PAYS", "true").run().assert_success();
}

#[test]
fn one_object_without_a_checksum_says_nothing_about_the_others() {
    for listed in [true, false] {
        let objects = [
            ("llama/.gitattributes", Blob::bytes("*.dat lfs"), plain()),
            ("llama/w.dat", Blob::synthetic(300_000, 1), with(Checksum::Sha256)),
        ];
        let (s3, volume) = (of(&objects, Habits::default()), Volume::new());
        if !listed {
            hide_checksums(&s3, &objects);
        }
        let run = fetch(&s3, &volume).assert_success();
        assert_said_once(&run, "1 file could not be compared with a published digest");
        s3.script(Rule::on("GET", "w.dat").then(Fault::FlipByteAt(200_000)));
        let volume = Volume::new();
        fetch(&s3, &volume).assert_code(12);
        assert!(!volume.family("m").exists());
    }
}

/// A listing that names no checksums, as of servers that have them all the same.
fn hide_checksums(s3: &FakeS3, objects: &[(&str, Blob, ObjectOptions)]) {
    let contents: String = objects
        .iter()
        .map(|(key, blob, _)| {
            let etag = s3.etag("models", key).unwrap().replace('"', "&quot;");
            format!(
                "<Contents><Key>{key}</Key><ETag>{etag}</ETag><Size>{}</Size></Contents>",
                blob.len()
            )
        })
        .collect();
    let body = format!("<?xml version=\"1.0\"?><ListBucketResult>{contents}</ListBucketResult>");
    s3.script(Rule::on("GET", "list-type=2").then(Fault::ReplaceBody(body.into_bytes())));
}

#[test]
fn where_there_are_very_many_objects_the_weights_are_asked_for() {
    let put = |builder: FakeS3Builder, n: usize| {
        builder.object("models", &format!("llama/{n:04}.txt"), Blob::bytes(""))
    };
    let builder = (0..1_010).fold(FakeS3::builder(), put);
    let weights = Blob::synthetic(1_000, 1);
    // In a listing that names no checksums of anything else.
    let s3 = builder
        .object("models", "llama/small.safetensors.bin", weights.clone())
        .object("models", "llama/large.txt", Blob::synthetic((1 << 20) + 1, 2))
        .start();
    let run = fetch(&s3, &Volume::new()).assert_success();
    assert_eq!(s3.count("HEAD", "/llama/"), 2);
    assert_eq!(s3.count("HEAD", "small.safetensors.bin") + s3.count("HEAD", "large.txt"), 2);
    assert_said_once(&run, "the checksums of 1010 files of less than 1 MiB are not requested");
    assert_said_once(&run, "1012 files could not be compared with a published digest");
}

#[test]
fn what_is_excluded_is_not_asked_for_its_checksum() {
    let (s3, volume) = (bucket(Habits::default(), None), Volume::new());
    fetch_from(&s3, &volume, "s3://models/llama/", &["--exclude", "*.json"]).run().assert_success();
    assert_eq!((s3.count("HEAD", "config.json"), s3.count("HEAD", "big.bin")), (0, 1));
}

/// `blob` with its last four bytes such that its CRC32 is `wanted`.
fn forged(blob: &[u8], wanted: u32) -> Blob {
    let table: Vec<u32> = (0..256_u32)
        .map(|n| (0..8).fold(n, |crc, _| (crc >> 1) ^ (0xedb8_8320 & 0_u32.wrapping_sub(crc & 1))))
        .collect();
    let (head, _) = blob.split_at(blob.len() - 4);
    let forward = |crc: u32, byte: &u8| (crc >> 8) ^ table[usize::from(crc as u8 ^ byte)];
    let before = head.iter().fold(u32::MAX, forward);
    // Backwards through four steps, by the one entry of the table that has this first byte.
    let mut crc = wanted ^ u32::MAX;
    let mut steps = Vec::new();
    for _ in 0..4 {
        let n = table.iter().position(|entry| entry >> 24 == crc >> 24).unwrap();
        steps.push(n as u8);
        crc = (crc ^ table[n]) << 8;
    }
    let mut bytes = head.to_vec();
    let mut crc = before;
    for n in steps.into_iter().rev() {
        let byte = crc as u8 ^ n;
        crc = forward(crc, &byte);
        bytes.push(byte);
    }
    let forged = Blob::bytes(bytes);
    assert_eq!(forged.crc32(), wanted, "forged");
    forged
}

#[test]
fn a_file_with_the_same_crc_and_size_is_not_taken_for_a_new_one() {
    let old = Blob::synthetic(BIG, 1);
    let new = forged(&Blob::synthetic(BIG, 2).to_vec(), old.crc32());
    let objects = |blob: &Blob| {
        [
            ("llama/w.bin", blob.clone(), with(Checksum::Crc32)),
            ("llama/same.bin", Blob::synthetic(200_000, 3), with(Checksum::Crc32)),
        ]
    };
    let holds = |volume: &Volume, blob: &Blob| {
        let same = Blob::synthetic(200_000, 3);
        let tree = Tree::new().with_blob("w.bin", blob.clone()).with_blob("same.bin", same);
        volume.assert_holds("m", &tree);
    };
    // As an update of what was published.
    let (s3, volume) = (of(&objects(&old), Habits::default()), Volume::new());
    fetch(&s3, &volume).assert_success();
    holds(&volume, &old);
    s3.overwrite_with("models", "llama/w.bin", new.clone(), with(Checksum::Crc32));
    s3.log().clear();
    fetch(&s3, &volume).assert_success();
    holds(&volume, &new);
    // What is the same version of the same object is not fetched again.
    assert_eq!(s3.bytes_sent_for("same.bin"), 0);
    // Under another name, or from another place, it is another object.
    let (elsewhere, volume) = (of(&objects(&old), Habits::default()), Volume::new());
    fetch(&elsewhere, &volume).assert_success();
    elsewhere.overwrite_with("models", "llama/x.bin", new.clone(), with(Checksum::Crc32));
    elsewhere.remove("models", "llama/w.bin");
    fetch(&elsewhere, &volume).assert_success();
    let same = Blob::synthetic(200_000, 3);
    let tree = Tree::new().with_blob("x.bin", new.clone()).with_blob("same.bin", same);
    volume.assert_holds("m", &tree);

    // As what a killed run has left.
    let (s3, volume) = (of(&objects(&old), Habits::default()), Volume::new());
    s3.script(
        Rule::on("GET", "w.bin")
            .when_range_starts_at(4 << 20)
            .then(Fault::StallAfter(0, Duration::from_secs(60))),
    );
    let arguments = ["s3://models/llama/", "m", "--chunk-size", "1MiB", "--connections", "1"];
    let running = fetch_s3(&s3, &volume, &arguments).start();
    eventually("nearly all is there", || s3.bytes_sent_for("w.bin") >= 4 << 20);
    running.signal("-KILL");
    drop(running.wait());
    s3.clear_script();
    s3.overwrite_with("models", "llama/w.bin", new.clone(), with(Checksum::Crc32));
    s3.log().clear();
    fetch(&s3, &volume).assert_success();
    holds(&volume, &new);
    assert_eq!(s3.bytes_sent_for("w.bin"), BIG);
}

#[test]
fn a_stale_list_is_named_after_two_fetches_that_agree_and_can_be_excluded() {
    let weights = Blob::synthetic(400_000, 1);
    let sums = format!("{}  w.bin\n", Blob::synthetic(400_000, 2).sha256());
    let objects = [
        ("llama/w.bin", weights.clone(), plain()),
        ("llama/SHA256SUMS", Blob::bytes(sums), plain()),
    ];
    let s3 = of(&objects, Habits::default());
    let run = fetch(&s3, &Volume::new()).assert_code(12);
    let told = run.last_line();
    assert!(told.contains("`w.bin`") && told.contains("`SHA256SUMS`"), "{told}");
    assert!(told.contains("--exclude SHA256SUMS"), "{told}");
    assert_eq!(s3.bytes_sent_for("w.bin"), 2 * 400_000);
    for pattern in ["SHA256SUMS", "*SUMS"] {
        let volume = Volume::new();
        let mut command = fetch_from(&s3, &volume, "s3://models/llama/", &["--exclude", pattern]);
        let run = command.run().assert_success();
        volume.assert_holds("m", &Tree::new().with_blob("w.bin", weights.clone()));
        assert_said_once(&run, "`SHA256SUMS` is excluded, and not used to verify");
    }
    // Bytes that come differently each time are another matter.
    for flip in [7, 8, 9] {
        s3.script(Rule::on("GET", "w.bin").once().then(Fault::FlipByteAt(flip)));
    }
    s3.log().clear();
    fetch(&s3, &Volume::new()).assert_code(12).assert_says("after 3 complete fetches");
    assert_eq!(s3.bytes_sent_for("w.bin"), 3 * 400_000);
}

/// The sentinel of a family with these files.
fn sentinel(tree: &[(&str, Blob)]) -> Blob {
    let put = |builder: FakeS3Builder, (path, blob): &(&str, Blob)| {
        builder.object("models", &format!("llama/{path}"), blob.clone())
    };
    let (s3, volume) = (tree.iter().fold(FakeS3::builder(), put).start(), Volume::new());
    fetch(&s3, &volume).assert_success();
    Blob::bytes(std::fs::read(volume.family("m").join(SENTINEL)).unwrap())
}

#[test]
fn a_stale_sentinel_is_named_and_can_be_excluded() {
    let published = [("w.bin", Blob::synthetic(1_000, 1))];
    let key = format!("llama/{SENTINEL}");
    for (size, code) in [(1_000, 12), (1_001, 16)] {
        let objects = [
            ("llama/w.bin", Blob::synthetic(size, 2), plain()),
            (key.as_str(), sentinel(&published), plain()),
        ];
        let s3 = of(&objects, Habits::default());
        let run = fetch(&s3, &Volume::new()).assert_code(code);
        let hint = format!("--exclude {SENTINEL}");
        assert!(run.last_line().contains(&hint), "{}", run.stderr);
        let volume = Volume::new();
        fetch_from(&s3, &volume, "s3://models/llama/", &["--exclude", SENTINEL])
            .run()
            .assert_success();
        volume.assert_holds("m", &Tree::new().with_blob("w.bin", Blob::synthetic(size, 2)));
        // A pattern about other files does not mean it.
        fetch_from(&s3, &Volume::new(), "s3://models/llama/", &["--exclude", "*.json"])
            .run()
            .assert_code(code);
    }
}

#[test]
fn a_sentinel_that_names_what_is_not_there_tells_of_an_upload_that_is_not_finished() {
    let names = ["a.bin", "b.bin", "c.bin", "d.bin", "e.bin", "f.bin", "g.bin", "h.json"];
    let published: Vec<_> =
        names.iter().zip(1..).map(|(name, n)| (*name, Blob::synthetic(1_000, n))).collect();
    let key = format!("llama/{SENTINEL}");
    let objects = [
        ("llama/h.json", Blob::synthetic(1_000, 8), plain()),
        (key.as_str(), sentinel(&published), plain()),
    ];
    let (s3, volume) = (of(&objects, Habits::default()), Volume::new());
    let run = fetch(&s3, &volume).assert_code(20);
    let told = run.last_line();
    assert!(told.contains("names 7 files that the prefix does not hold: `a.bin`"), "{told}");
    assert!(told.contains("`e.bin` and 2 more") && !told.contains("`f.bin`"), "{told}");
    assert!(!volume.family("m").exists() && s3.requests().len() == 3, "{:?}", s3.requests());
    // Excluded or not included, they are not missed.
    for choice in [["--exclude", "*.bin"], ["--include", "*.json"]] {
        let volume = Volume::new();
        fetch_from(&s3, &volume, "s3://models/llama/", &choice).run().assert_success();
        volume.assert_holds("m", &Tree::new().with_blob("h.json", Blob::synthetic(1_000, 8)));
    }
    // When the rest has arrived, it is complete.
    for (name, blob) in published {
        s3.overwrite("models", &format!("llama/{name}"), blob);
    }
    fetch(&s3, &volume).assert_success().assert_says("all verified");
}

#[test]
fn a_list_of_more_than_the_prefix_holds_is_no_reason_to_stop() {
    let sums = format!("{}  a.json\n{}  gone.bin\n", Blob::bytes("{}").sha256(), "0".repeat(64));
    let objects = [
        ("llama/a.json", Blob::bytes("{}"), plain()),
        ("llama/SHA256SUMS", Blob::bytes(sums), plain()),
    ];
    let s3 = of(&objects, Habits::default());
    assert_said_once(&fetch(&s3, &Volume::new()).assert_success(), "names 1 file that the prefix");
}

#[test]
fn headers_that_make_no_sense_are_not_there() {
    let head = || Rule::on("HEAD", "big.bin");
    let with = |name: &'static str, headers: &'static [(&'static str, &'static str)]| {
        row(name, move || {
            let (s3, volume) = (bucket(Habits::default(), None), Volume::new());
            s3.script(head().then(Fault::add_headers(headers)));
            fetch(&s3, &volume).assert_success().assert_says("2 files could not be compared");
            volume.assert_holds("m", &model());
        })
    };
    let etag = |name: &'static str, etag: &'static str| {
        row(name, move || {
            let options = ObjectOptions { etag: Some(etag.into()), ..plain() };
            let blob = model().blob("big.bin").unwrap().clone();
            let objects = [("llama/big.bin", blob.clone(), options)];
            let (s3, volume) = (of(&objects, Habits::default()), Volume::new());
            fetch(&s3, &volume).assert_success();
            volume.assert_holds("m", &Tree::new().with_blob("big.bin", blob));
        })
    };
    check([
        with("a checksum that is no base64", &[("x-amz-checksum-sha256", "!!")]),
        with("a checksum of a wrong length", &[("x-amz-checksum-crc32", "AAAAAAAAAAA=")]),
        with("a kind of checksum that nobody knows", &[("x-amz-checksum-xxhash3", "AAAAAA==")]),
        with(
            "counts and dates that are none",
            &[
                ("x-amz-mp-parts-count", "many"),
                ("Last-Modified", "yesterday"),
                ("x-amz-missing-meta", "some"),
                ("Expires", "0"),
                ("x-amz-checksum-type", "UNHEARD_OF"),
            ],
        ),
        with("an encoding that is none", &[("Content-Encoding", "aws-chunked")]),
        with(
            "a checksum of parts of which nothing is known",
            &[("x-amz-checksum-crc32c", "AAAAAA==-3"), ("x-amz-checksum-type", "COMPOSITE")],
        ),
        etag("a weak ETag", "W/\"a\""),
        etag("no ETag", ""),
        etag("an ETag without quotes", "abc"),
        etag("an ETag as of a key of the customer's", "\"1f2e3d4c5b6a79880f1e2d3c4b5a6978-1\""),
        row("no Content-Length of HEAD", || {
            let (s3, volume) = (bucket(Habits::default(), Some(Checksum::Sha256)), Volume::new());
            s3.script(Rule::on("HEAD", "").then(Fault::drop_headers(&["Content-Length"])));
            fetch(&s3, &volume).assert_success().assert_says("all verified");
        }),
        row("the whole file in place of the first range", || {
            let (s3, volume) = (bucket(Habits::default(), Some(Checksum::Sha256)), Volume::new());
            s3.script(Rule::on("GET", "big.bin").then(Fault::IgnoreRange));
            fetch(&s3, &volume).assert_success();
            volume.assert_holds("m", &model());
        }),
        row("a garbage checksum beside a good one", || {
            let (s3, volume) = (bucket(Habits::default(), Some(Checksum::Crc32)), Volume::new());
            let garbage = [("x-amz-checksum-sha256", "garbage")];
            s3.script(Rule::on("HEAD", "").then(Fault::add_headers(&garbage)));
            fetch(&s3, &volume).assert_success().assert_says("all verified");
        }),
    ]);
}
