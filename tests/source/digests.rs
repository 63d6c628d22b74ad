//! What files are compared with, and what is said of those that are compared with nothing.
//!
//! | what is published of an object | what it is compared with |
//! |---|---|
//! | a checksum | that |
//! | no more than an ETag in the form of an MD5 | that, as `md5-etag`: it can prove |
//! | such an ETag, and SSE-KMS, SSE-C or S3 Express | nothing |
//! | such an ETag that is not the MD5 of what comes | nothing, and that is said; never exit 12 by itself |

use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::support::table::{BIG, Row, check, row};
use crate::support::*;
use weightlift_fakes::{
    Blob, Checksum, FakeHub, FakeS3, FakeS3Builder, Fault, Habits, ObjectOptions, Rule, Tree,
};

const SENTINEL: &str = ".weightlift-complete.json";
const SSE: &str = "x-amz-server-side-encryption";
/// Two blocks with the same MD5, by Wang and Yu (2004).
const COLLISION: [&str; 2] = [
    "d131dd02c5e6eec4693d9a0698aff95c2fcab58712467eab4004583eb8fb7f8955ad340609f4b30283e488832571415a\
     085125e8f7cdc99fd91dbdf280373c5bd8823e3156348f5bae6dacd436c919c6dd53e2b487da03fd02396306d248cda0\
     e99f33420f577ee8ce54b67080a80d1ec69821bcb6a8839396f9652b6ff72a70",
    "d131dd02c5e6eec4693d9a0698aff95c2fcab50712467eab4004583eb8fb7f8955ad340609f4b30283e4888325f1415a\
     085125e8f7cdc99fd91dbd7280373c5bd8823e3156348f5bae6dacd436c919c6dd53e23487da03fd02396306d248cda0\
     e99f33420f577ee8ce54b67080280d1ec69821bcb6a8839396f965ab6ff72a70",
];

fn plain() -> ObjectOptions {
    ObjectOptions::default()
}

fn with(checksum: Checksum) -> ObjectOptions {
    ObjectOptions { checksum: Some(checksum), ..plain() }
}

/// As S3 keeps a simple upload.
fn simple(blob: &Blob) -> ObjectOptions {
    ObjectOptions { etag: Some(format!("\"{}\"", blob.md5())), ..plain() }
}

fn told(name: &'static str, value: &'static str, of: ObjectOptions) -> ObjectOptions {
    ObjectOptions { headers: vec![(name, value)], ..of }
}

fn of(objects: &[(&str, &Blob, ObjectOptions)], habits: Habits) -> FakeS3 {
    let put = |builder: FakeS3Builder, (name, blob, options): &(&str, &Blob, ObjectOptions)| {
        builder.object_with("models", &format!("m/{name}"), (*blob).clone(), options.clone())
    };
    objects.iter().fold(FakeS3::builder().habits(habits), put).start()
}

fn fetch_from(s3: &FakeS3, volume: &Volume, more: &[&str]) -> Run {
    let usual = ["s3://models/m/", "m", "--chunk-size", "1MiB", "--connections", "1"];
    let mut command = fetch_s3(s3, volume, &[&usual[..], more].concat());
    command.env("WEIGHTLIFT_RETRY_TIMEOUT", "5s").run()
}

/// What the sentinel says that the file was compared with.
fn verified_by(volume: &Volume, name: &str) -> String {
    let sentinel = std::fs::read(volume.family("m").join(SENTINEL)).unwrap();
    let sentinel: Value = serde_json::from_slice(&sentinel).unwrap();
    let files = sentinel["files"].as_array().unwrap();
    let file = files.iter().find(|file| file["path"] == name).unwrap();
    file["verified_by"].as_str().unwrap().to_owned()
}

fn warns(run: &Run, words: &str) -> bool {
    run.stderr.lines().any(|line| line.contains("warning: ") && line.contains(words))
}

fn blob() -> Blob {
    Blob::synthetic(300_000, 1)
}

/// One object is complete, was compared with `expected`, and was sent `times`.
fn compared(name: &'static str, options: ObjectOptions, expected: &'static str, times: u64) -> Row {
    row(name, move || {
        let (s3, volume) = (of(&[("w.bin", &blob(), options)], Habits::default()), Volume::new());
        let run = fetch_from(&s3, &volume, &[]).assert_success();
        volume.assert_holds("m", &Tree::new().with_blob("w.bin", blob()));
        assert_eq!(verified_by(&volume, "w.bin"), expected);
        let nothing = "nothing could be compared with a published digest";
        assert_eq!(warns(&run, nothing), expected == "unpublished", "{}", run.stderr);
        let last = run.last_line();
        match expected {
            "unpublished" => assert!(last.contains("1 file could not be compared"), "{last}"),
            "md5-etag" => {
                assert!(
                    last.contains("all verified, 1 file by the MD5 in the ETag only"),
                    "{last}"
                );
            }
            _ => assert!(last.ends_with("all verified)"), "{last}"),
        }
        assert_eq!(s3.bytes_sent_for("w.bin"), times * 300_000, "{}", run.stderr);
    })
}

#[test]
fn an_etag_counts_where_it_is_an_md5_and_nothing_better_is_there() {
    let simple = || simple(&blob());
    let etag = |etag: &str| ObjectOptions { etag: Some(etag.into()), ..plain() };
    let parts = |etag: ObjectOptions| ObjectOptions { parts: Some(vec![200_000, 100_000]), ..etag };
    check([
        compared("the MD5", simple(), "md5-etag", 1),
        compared("in capitals", etag(&blob().md5().to_uppercase()), "md5-etag", 1),
        compared("with the store's own keys", told(SSE, "AES256", simple()), "md5-etag", 1),
        compared(
            "beside a checksum",
            ObjectOptions { checksum: Some(Checksum::Sha256), ..simple() },
            "sha256",
            1,
        ),
        compared(
            "beside a CRC",
            ObjectOptions { checksum: Some(Checksum::Crc32), ..simple() },
            "s3-crc32",
            1,
        ),
        compared("SSE-KMS", told(SSE, "aws:kms", plain()), "unpublished", 1),
        compared("DSSE-KMS", told(SSE, "aws:kms:dsse", plain()), "unpublished", 1),
        compared("an encryption of tomorrow", told(SSE, "quantum", simple()), "unpublished", 1),
        compared(
            "SSE-C",
            told("x-amz-server-side-encryption-customer-algorithm", "AES256", plain()),
            "unpublished",
            1,
        ),
        compared(
            "S3 Express",
            told("x-amz-storage-class", "EXPRESS_ONEZONE", plain()),
            "unpublished",
            1,
        ),
        compared("several parts", parts(plain()), "unpublished", 1),
        compared("not quite the form of one", etag("\"0123456789abcdef\""), "unpublished", 1),
        compared("a weak one", etag(&format!("W/\"{}\"", blob().md5())), "unpublished", 1),
        compared("none", etag(""), "unpublished", 1),
        // Only its form speaks for it, and it is not the MD5.
        compared("the form of one", plain(), "unpublished", 1),
        // The store has said so: it could as well be the bytes.
        compared("the store says so", told(SSE, "AES256", plain()), "unpublished", 2),
    ]);
}

#[test]
fn wrong_bytes_are_fetched_again_where_the_etag_is_known_to_be_the_md5() {
    let flip = |at| Rule::on("GET", "w.bin").once().then(Fault::FlipByteAt(at));
    check([
        row("the store says so", move || {
            let options = told(SSE, "AES256", simple(&blob()));
            let (s3, volume) =
                (of(&[("w.bin", &blob(), options)], Habits::default()), Volume::new());
            s3.script(flip(7));
            fetch_from(&s3, &volume, &[]).assert_success().assert_says("wrong bytes");
            volume.assert_holds("m", &Tree::new().with_blob("w.bin", blob()));
            assert_eq!(verified_by(&volume, "w.bin"), "md5-etag");
        }),
        row("another file has its MD5 as ETag", move || {
            let small = Blob::bytes("{}");
            let objects = [("a.json", &small, simple(&small)), ("w.bin", &blob(), simple(&blob()))];
            let (s3, volume) = (of(&objects, Habits::default()), Volume::new());
            s3.script(flip(7));
            fetch_from(&s3, &volume, &[]).assert_success().assert_says("wrong bytes");
            assert_eq!(verified_by(&volume, "w.bin"), "md5-etag");
        }),
        row("bytes that come differently each time", move || {
            let options = told(SSE, "AES256", simple(&blob()));
            let (s3, volume) =
                (of(&[("w.bin", &blob(), options)], Habits::default()), Volume::new());
            (7..10).for_each(|at| s3.script(flip(at)));
            fetch_from(&s3, &volume, &[]).assert_code(12).assert_says("after 3 complete fetches");
            assert!(!volume.family("m").exists());
        }),
    ]);
}

/// A run with `--require-digests` that ends before anything is fetched.
fn refused(
    name: &'static str,
    objects: Vec<(&'static str, Blob, ObjectOptions)>,
    words: &'static [&'static str],
) -> Row {
    row(name, move || {
        let objects: Vec<_> =
            objects.iter().map(|(name, blob, options)| (*name, blob, options.clone())).collect();
        let (s3, volume) = (of(&objects, Habits::default()), Volume::new());
        let run = fetch_from(&s3, &volume, &["--require-digests"]).assert_code(12);
        for words in words.iter().chain(&["--require-digests", "s3://models/m/"]) {
            assert!(run.last_line().contains(words), "`{words}` in {}", run.stderr);
        }
        assert_eq!(s3.bytes_sent_for(".bin"), 0);
        assert!(!volume.family("m").exists());
        volume.assert_clean();
    })
}

#[test]
fn whoever_requires_digests_gets_nothing_without_one() {
    let named = |name| (name, blob(), plain());
    let none = |name| (name, blob(), told(SSE, "aws:kms", plain()));
    let summed = |name| (name, blob(), with(Checksum::Crc64Nvme));
    let sums = || Blob::bytes(format!("{}  w.bin\n", blob().sha256()));
    let fetch = |objects: &[(&str, &Blob, ObjectOptions)]| {
        let (s3, volume) = (of(objects, Habits::default()), Volume::new());
        (fetch_from(&s3, &volume, &["--require-digests"]), volume)
    };
    check([
        refused(
            "of none",
            vec![none("w.bin")],
            &["no digest of 1 of 1 file: `w.bin`", "SHA256SUMS"],
        ),
        refused(
            "of some",
            vec![summed("a.bin"), none("b.bin"), summed("c.bin"), none("d.bin")],
            &["no digest of 2 of 4 files: `b.bin`, `d.bin`"],
        ),
        refused(
            "of very many",
            ["a.bin", "b.bin", "c.bin", "d.bin", "e.bin", "f.bin", "g.bin"].map(none).to_vec(),
            &["`e.bin`, and 2 more"],
        ),
        row("of all", move || {
            let (name, blob, options) = summed("w.bin");
            let (run, volume) = fetch(&[(name, &blob, options)]);
            run.assert_success();
            assert_eq!(verified_by(&volume, "w.bin"), "s3-crc64nvme");
        }),
        row("in a list beside the files, of all but itself", move || {
            let list = sums();
            let objects =
                [("w.bin", &blob(), plain()), ("SHA256SUMS", &list, with(Checksum::Sha256))];
            fetch(&objects).0.assert_success();
        }),
        row("the MD5 in the ETag is one", move || {
            let (run, volume) = fetch(&[("w.bin", &blob(), simple(&blob()))]);
            run.assert_success();
            assert_eq!(verified_by(&volume, "w.bin"), "md5-etag");
        }),
        row("an ETag that is no MD5 shows only when all is there", move || {
            let (name, blob, options) = named("w.bin");
            let (run, volume) = fetch(&[(name, &blob, options)]);
            run.assert_code(12).assert_says("its ETag may not be an MD5");
            assert!(!volume.family("m").exists());
        }),
        row("what is left out needs none", move || {
            let (summed, none) = (summed("w.bin"), none("x.bin"));
            let objects = [(summed.0, &summed.1, summed.2), (none.0, &none.1, none.2)];
            let (s3, volume) = (of(&objects, Habits::default()), Volume::new());
            let arguments = ["--require-digests", "--exclude", "x.bin"];
            fetch_from(&s3, &volume, &arguments).assert_success();
        }),
        row("by the variable", move || {
            let (name, blob, options) = none("w.bin");
            let (s3, volume) = (of(&[(name, &blob, options)], Habits::default()), Volume::new());
            let mut command = fetch_s3(&s3, &volume, &["s3://models/m/", "m"]);
            command.env("WEIGHTLIFT_REQUIRE_DIGESTS", "true").run().assert_code(12);
        }),
        row("where there are very many, the small ones are asked as well", || {
            let put = |builder: FakeS3Builder, n: usize| {
                builder.object("models", &format!("m/{n:04}.txt"), Blob::bytes(""))
            };
            let s3 = (0..1_003).fold(FakeS3::builder(), put).start();
            fetch_from(&s3, &Volume::new(), &["--require-digests"]);
            assert_eq!(s3.count("HEAD", "/m/"), 1_003);
        }),
    ]);
}

#[test]
fn a_hub_that_publishes_no_digest_is_no_better() {
    let hub = FakeHub::serving("org/tiny", tiny());
    fetch(&hub, &Volume::new(), &["hf://org/tiny", "m", "--require-digests"])
        .run()
        .assert_success();
    let listing = serde_json::json!([
        {"type": "file", "path": "big.bin", "size": 300_000, "oid": "a".repeat(40), "lfs": {"size": 300_000}},
    ]);
    let repo = Tree::new().with_blob("big.bin", blob());
    let hub = FakeHub::builder().lfs_threshold(1_000).repo("org/m", repo).start();
    hub.script(
        Rule::on("GET", "/tree/").then(Fault::ReplaceBody(listing.to_string().into_bytes())),
    );
    let (volume, arguments) = (Volume::new(), ["hf://org/m", "m", "--require-digests"]);
    let run = fetch(&hub, &volume, &arguments).run().assert_code(12);
    let told = "hf://org/m publishes no digest of 1 of 1 file: `big.bin`";
    assert!(run.last_line().contains(told), "{}", run.stderr);
    assert_eq!(hub.bytes_sent_for("big.bin"), 0);
    // Without the flag it is fetched, and that is said.
    let run = fetch(&hub, &volume, &arguments[..2]).run().assert_success();
    assert!(warns(&run, "nothing could be compared with a published digest"), "{}", run.stderr);
}

#[test]
fn a_copy_that_was_compared_with_nothing_is_compared_now_or_refused() {
    let options = told(SSE, "aws:kms", plain());
    let (s3, volume) = (of(&[("w.bin", &blob(), options)], Habits::default()), Volume::new());
    fetch_from(&s3, &volume, &[]).assert_success();
    let run = fetch_from(&s3, &volume, &["--require-digests"]).assert_code(12);
    run.assert_says("no digest of 1 of 1 file: `w.bin`");
    volume.assert_holds("m", &Tree::new().with_blob("w.bin", blob()));
    // Of the same version the store now tells one.
    s3.overwrite_with("models", "m/w.bin", blob(), with(Checksum::Sha256));
    s3.log().clear();
    fetch_from(&s3, &volume, &["--require-digests"]).assert_success().assert_says("all verified");
    assert_eq!(verified_by(&volume, "w.bin"), "sha256");
    assert_eq!(s3.bytes_sent_for("w.bin"), 0, "the copy has this digest");
    s3.log().clear();
    fetch_from(&s3, &volume, &["--require-digests"]).assert_success().assert_says("nothing to do");
    // The listing, and a look whether mirror has written one.
    assert_eq!(s3.requests().len(), 2);
}

#[test]
fn how_many_files_were_compared_with_what_is_told_everywhere() {
    let (small, other) = (Blob::bytes("{}"), Blob::bytes("[]"));
    let objects = [
        ("a.json", &small, with(Checksum::Sha256)),
        ("b.json", &other, simple(&other)),
        ("w.bin", &blob(), told(SSE, "aws:kms", plain())),
        ("x.bin", &blob(), with(Checksum::Crc32)),
    ];
    let (s3, volume) = (of(&objects, Habits::default()), Volume::new());
    let expected = serde_json::json!({"md5-etag": 1, "s3-crc32": 1, "sha256": 1, "unpublished": 1});
    let json = |run: &Run| serde_json::from_str::<Value>(&run.stdout).unwrap();
    let run = fetch_from(&s3, &volume, &["--output", "json"]).assert_success();
    assert!(warns(&run, "for 1 of 4 files, such as `w.bin`"), "{}", run.stderr);
    assert!(!warns(&run, "nothing could be compared"), "{}", run.stderr);
    for run in [
        run,
        fetch_from(&s3, &volume, &["--output", "json"]),
        weightlift().args(["verify", "--output", "json"]).arg(volume.family("m")).run(),
        weightlift().args(["wait", "--output", "json"]).arg(volume.family("m")).run(),
    ] {
        let told = json(&run.assert_success());
        assert_eq!((&told["verified_by"], &told["unpublished"]), (&expected, &1.into()));
    }
    let run = weightlift().arg("verify").arg(volume.family("m")).run().assert_success();
    let told =
        "1 file could not be compared with a published digest, 1 file by the MD5 in the ETag";
    assert!(run.last_line().contains(told), "{}", run.stderr);
}

/// What one object answers says nothing about the others.
#[test]
fn each_object_is_asked_for_its_checksum() {
    let objects = ["a.bin", "b.bin", "c.bin"].map(|name| {
        let key = format!("m/{name}");
        (name, key, blob())
    });
    let put = || {
        let objects: Vec<_> =
            objects.iter().map(|(name, _, blob)| (*name, blob, with(Checksum::Sha256))).collect();
        of(&objects, Habits::default())
    };
    let asked = |name: &'static str, rule: Rule, unpublished: usize| {
        let s3 = put();
        // As servers that have checksums and do not list them.
        let contents = objects.iter().map(|(_, key, blob)| {
            let etag = s3.etag("models", key).unwrap().replace('"', "&quot;");
            let size = blob.len();
            format!("<Contents><Key>{key}</Key><ETag>{etag}</ETag><Size>{size}</Size></Contents>")
        });
        let body = contents.collect::<String>();
        let body = format!("<ListBucketResult>{body}</ListBucketResult>").into_bytes();
        row(name, move || {
            s3.script(Rule::on("GET", "list-type=2").then(Fault::ReplaceBody(body)));
            s3.script(rule);
            let volume = Volume::new();
            let run = fetch_from(&s3, &volume, &["--output", "json"]).assert_success();
            let told: Value = serde_json::from_str(&run.stdout).unwrap();
            assert_eq!(told["unpublished"], unpublished, "{}", run.stderr);
        })
    };
    let question = |key| Rule::on("HEAD", key).when_header("x-amz-checksum-mode", "");
    check([
        asked("all answer", Rule::on("HEAD", "nothing").then(Fault::status(500)), 0),
        asked(
            "the first has none",
            question("a.bin").then(Fault::drop_headers(&["x-amz-checksum-sha256"])),
            1,
        ),
        asked("the first may not be asked", question("a.bin").then(Fault::status(403)), 1),
        asked(
            "the question about the first is refused",
            question("a.bin").then(Fault::status(400)),
            1,
        ),
        asked(
            "one in the middle may not be asked",
            Rule::on("HEAD", "b.bin").then(Fault::status(403)),
            1,
        ),
    ]);
}

/// Old bytes are no new ones because a sum that anybody can forge is the same.
#[test]
fn what_only_looks_the_same_is_fetched_anew() {
    let bytes = COLLISION.map(|hex| {
        let digit = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        let start: Vec<u8> = (0..hex.len()).step_by(2).map(digit).collect();
        [start, Blob::synthetic(300_000, 9).to_vec()].concat()
    });
    let [old, new] = bytes.map(Blob::bytes);
    assert_eq!(old.md5(), new.md5(), "a collision");
    let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds);
    let no_etag = move |seconds: u64, checksum: Option<Checksum>| ObjectOptions {
        etag: Some(String::new()),
        modified: Some(at(seconds)),
        checksum,
        ..plain()
    };
    let tree = |w: &Blob, text: &'static str| {
        Tree::new().with_blob("w.bin", w.clone()).with("z.txt", text)
    };
    let holds = move |volume: &Volume, w: &Blob, text| volume.assert_holds("m", &tree(w, text));
    let start = |options: ObjectOptions, old: &Blob| {
        let text = Blob::bytes("1");
        let objects = [("w.bin", old, options), ("z.txt", &text, with(Checksum::Sha256))];
        let (s3, volume) = (of(&objects, Habits::default()), Volume::new());
        fetch_from(&s3, &volume, &[]).assert_success();
        (s3, volume)
    };
    check([
        row("an update to another object with the same MD5", {
            let (old, new) = (old.clone(), new.clone());
            move || {
                let (s3, volume) = start(simple(&old), &old);
                s3.overwrite_with("models", "m/w.bin", new.clone(), simple(&new));
                s3.overwrite_with("models", "m/z.txt", Blob::bytes("2"), with(Checksum::Sha256));
                fetch_from(&s3, &volume, &[]).assert_success();
                holds(&volume, &new, "2");
                assert_eq!(verified_by(&volume, "w.bin"), "md5-etag");
            }
        }),
        row("an update at a store without ETags", {
            let (old, new) = (old.clone(), new.clone());
            move || {
                let (s3, volume) = start(no_etag(0, None), &old);
                fetch_from(&s3, &volume, &[]).assert_success().assert_says("nothing to do");
                s3.overwrite_with("models", "m/w.bin", new.clone(), no_etag(1, None));
                fetch_from(&s3, &volume, &[]).assert_success();
                holds(&volume, &new, "1");
            }
        }),
        row("a killed run at a store without ETags", move || {
            let (old, new) = (Blob::synthetic(BIG, 1), Blob::synthetic(BIG, 2));
            let objects = [("w.bin", &old, no_etag(0, None))];
            let (s3, volume) = (of(&objects, Habits::default()), Volume::new());
            s3.script(
                Rule::on("GET", "w.bin")
                    .when_range_starts_at(3 << 20)
                    .then(Fault::StallAfter(0, Duration::from_secs(60))),
            );
            let arguments = ["s3://models/m/", "m", "--chunk-size", "1MiB", "--connections", "1"];
            let running = fetch_s3(&s3, &volume, &arguments).start();
            eventually("most is there", || s3.bytes_sent_for("w.bin") >= 3 << 20);
            running.signal("-KILL");
            drop(running.wait());
            s3.clear_script();
            s3.overwrite_with("models", "m/w.bin", new.clone(), no_etag(1, None));
            s3.log().clear();
            fetch_from(&s3, &volume, &[]).assert_success();
            volume.assert_holds("m", &Tree::new().with_blob("w.bin", new));
            assert_eq!(s3.bytes_sent_for("w.bin"), BIG);
        }),
    ]);
}
