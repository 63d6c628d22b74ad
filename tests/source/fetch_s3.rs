//! The main job against an S3.

use crate::support::*;
use weightlift_fakes::{Blob, Checksum, FakeS3, Fault, ObjectOptions, Rule, Tree};

fn bucket(tree: &Tree) -> FakeS3 {
    serving("llama/", tree, None)
}

fn serving(prefix: &str, tree: &Tree, checksum: Option<Checksum>) -> FakeS3 {
    let mut builder = FakeS3::builder().bucket("models").credentials(ACCESS_KEY, SECRET_KEY);
    for (path, blob) in tree.iter() {
        let options = ObjectOptions { checksum, ..ObjectOptions::default() };
        builder = builder.object_with("models", &format!("{prefix}{path}"), blob.clone(), options);
    }
    builder.start()
}

fn big() -> Tree {
    Tree::new().with("config.json", "{}").with_blob("big.bin", Blob::synthetic((5 << 20) + 3, 4))
}

#[test]
fn a_prefix_is_published_whole_with_signed_requests() {
    let (s3, volume) = (bucket(&tiny()), Volume::new());
    let run = fetch_s3(&s3, &volume, &["s3://models/llama/"]).run().assert_success();
    assert_eq!(run.stdout, format!("{}\n", volume.family("llama").display()));
    volume.assert_holds("llama", &tiny_selected());
    volume.assert_clean();
    // Warm: the listing, a look whether mirror has written one, and nothing else.
    s3.log().clear();
    fetch_s3(&s3, &volume, &["s3://models/llama/"]).run().assert_success();
    assert_eq!(s3.log().requests().len(), 2, "{:?}", s3.log().requests());
}

#[test]
fn a_prefix_is_a_directory_and_not_the_start_of_a_name() {
    let tree = Tree::new().with("config.json", "small");
    let s3 = FakeS3::builder()
        .bucket("models")
        .object("models", "llama/config.json", Blob::bytes("small"))
        .object("models", "llama/", Blob::bytes(""))
        .object("models", "llama/empty.txt", Blob::bytes(""))
        .object("models", "llama/sub/", Blob::bytes(""))
        .object("models", "llama-70b/config.json", Blob::bytes("large"))
        .start();
    let tree = tree.with("empty.txt", "");
    for source in ["s3://models/llama/", "s3://models/llama"] {
        let volume = Volume::new();
        fetch_s3(&s3, &volume, &[source]).run().assert_success();
        volume.assert_holds("llama", &tree);
    }
    fetch_s3(&s3, &Volume::new(), &["s3://models/lla"]).run().assert_code(10);
    fetch_s3(&s3, &Volume::new(), &["s3://nobucket/x/"]).run().assert_code(10);
}

#[test]
fn a_single_object_is_published_inside_the_family_directory() {
    let (s3, volume) = (bucket(&tiny()), Volume::new());
    let source = "s3://models/llama/model-00001-of-00002.safetensors";
    let run = fetch_s3(&s3, &volume, &[source, "one"]).run().assert_success();
    assert_eq!(run.stdout, format!("{}\n", volume.family("one").display()));
    let name = "model-00001-of-00002.safetensors";
    let only = Tree::new().with(name, tiny().blob(name).unwrap().to_vec());
    volume.assert_holds("one", &only);
}

#[test]
fn a_listing_of_many_pages_is_read_to_its_end() {
    let tree = (0..25).fold(Tree::new(), |tree, n| tree.with(&format!("d/f{n}.json"), "{}"));
    let mut builder = FakeS3::builder().bucket("models").page_size(4);
    for (path, blob) in tree.iter() {
        builder = builder.object("models", &format!("p/{path}"), blob.clone());
    }
    let (s3, volume) = (builder.start(), Volume::new());
    fetch_s3(&s3, &volume, &["s3://models/p/"]).run().assert_success();
    volume.assert_holds("p", &tree);
}

#[test]
fn unsafe_keys_are_refused() {
    for key in ["p/../x", "p/a\\b", "p/a\nb", "p/./x"] {
        let s3 = FakeS3::builder()
            .bucket("models")
            .object("models", "p/config.json", Blob::bytes("{}"))
            .object("models", key, Blob::bytes("x"))
            .start();
        let volume = Volume::new();
        let run = fetch_s3(&s3, &volume, &["s3://models/p/"]).run();
        assert_eq!(run.code, 13, "{key}: {}", run.stderr);
        assert!(!volume.family("p").exists());
    }
}

#[test]
fn every_read_names_the_object_that_was_listed() {
    let (s3, volume) = (bucket(&big()), Volume::new());
    fetch_s3(&s3, &volume, &["s3://models/llama/", "--chunk-size", "1MiB"]).run().assert_success();
    volume.assert_holds("llama", &big());
    let reads: Vec<_> = s3
        .log()
        .requests()
        .into_iter()
        .filter(|r| r.method == "GET" && r.header("range").is_some())
        .collect();
    assert!(reads.len() >= 6, "{}", reads.len());
    for read in reads {
        assert!(
            read.header("if-match").is_some() || read.target.contains("versionId"),
            "{}",
            read.target
        );
    }
}

#[test]
fn an_object_that_changes_during_the_fetch_is_left_to_the_next_run() {
    let (s3, volume) = (bucket(&big()), Volume::new());
    s3.script(Rule::on("GET", "big.bin").then(Fault::Drip { bytes_per_second: 2 << 20 }));
    let arguments = ["s3://models/llama/", "--chunk-size", "1MiB", "--connections", "1"];
    let running = fetch_s3(&s3, &volume, &arguments).start();
    eventually("the first bytes are sent", || s3.log().bytes_sent_for("big.bin") > 1 << 20);
    s3.overwrite("models", "llama/big.bin", Blob::synthetic((5 << 20) + 3, 99));
    // Not 16, which a Job takes for what ends the same again.
    running.wait().assert_code(20).assert_says("run again");
    assert!(!volume.family("llama").exists());
    fetch_s3(&s3, &volume, &arguments).run().assert_success();
    volume.assert_holds("llama", &big().with_blob("big.bin", Blob::synthetic((5 << 20) + 3, 99)));
}

#[test]
fn an_object_that_has_changed_since_is_an_update() {
    let (s3, volume) = (bucket(&big()), Volume::new());
    fetch_s3(&s3, &volume, &["s3://models/llama/"]).run().assert_success();
    s3.overwrite("models", "llama/config.json", Blob::bytes("[]"));
    fetch_s3(&s3, &volume, &["s3://models/llama/"]).run().assert_success();
    volume.assert_holds("llama", &big().with("config.json", "[]"));
}

#[test]
fn every_kind_of_full_object_checksum_is_verified() {
    for (checksum, name) in [
        (Checksum::Sha256, "s3-sha256"),
        (Checksum::Crc64Nvme, "s3-crc64nvme"),
        (Checksum::Crc32c, "s3-crc32c"),
        (Checksum::Crc32, "s3-crc32"),
    ] {
        let (s3, volume) = (serving("llama/", &big(), Some(checksum)), Volume::new());
        let arguments = ["s3://models/llama/", "--chunk-size", "1MiB"];
        fetch_s3(&s3, &volume, &arguments).run().assert_success();
        let sentinel =
            std::fs::read_to_string(volume.family("llama/.weightlift-complete.json")).unwrap();
        let verified = sentinel.matches(&format!("\"verified_by\": \"{name}\"")).count();
        assert!(
            verified == 2
                || (checksum == Checksum::Sha256 && sentinel.matches("sha256\"").count() >= 2),
            "{sentinel}"
        );
        // The same with a byte that flips on the way.
        let volume = Volume::new();
        s3.script(
            Rule::on("GET", "big.bin")
                .when_range_starts_at(1 << 20)
                .then(Fault::FlipByteAt(1_500_000)),
        );
        let run = fetch_s3(&s3, &volume, &arguments).run();
        assert_eq!(run.code, 12, "{name}: {}", run.stderr);
        assert!(!volume.family("llama").exists());
    }
}

#[test]
fn composite_checksums_are_verified_by_part() {
    for checksum in [Checksum::Sha256, Checksum::Crc32c, Checksum::Crc32] {
        let options = || ObjectOptions {
            checksum: Some(checksum),
            parts: Some(vec![2 << 20, 2 << 20, (1 << 20) + 3]),
            composite: true,
            ..ObjectOptions::default()
        };
        let blob = Blob::synthetic((5 << 20) + 3, 4);
        let s3 = FakeS3::builder()
            .bucket("models")
            .object_with("models", "p/big.bin", blob.clone(), options())
            .start();
        let volume = Volume::new();
        fetch_s3(&s3, &volume, &["s3://models/p/"]).run().assert_success();
        volume.assert_holds("p", &Tree::new().with_blob("big.bin", blob));
        let sentinel =
            std::fs::read_to_string(volume.family("p/.weightlift-complete.json")).unwrap();
        assert!(sentinel.contains("-composite\""), "{sentinel}");
        s3.script(Rule::on("GET", "big.bin").then(Fault::FlipByteAt(3_000_000)));
        fetch_s3(&s3, &Volume::new(), &["s3://models/p/"]).run().assert_code(12);
    }
}

#[test]
fn sums_beside_the_files_are_preferred_as_their_digests() {
    let blob = Blob::synthetic(2 << 20, 4);
    let sums =
        |sha256: &str| format!("{sha256}  big.bin\n{}  ./sub/a.json\n", Blob::bytes("{}").sha256());
    let s3 = |sums: String| {
        FakeS3::builder()
            .bucket("models")
            .object("models", "p/big.bin", blob.clone())
            .object("models", "p/sub/a.json", Blob::bytes("{}"))
            .object("models", "p/SHA256SUMS", Blob::bytes(sums))
            .start()
    };
    let volume = Volume::new();
    fetch_s3(&s3(sums(&blob.sha256())), &volume, &["s3://models/p/"]).run().assert_success();
    let sentinel = std::fs::read_to_string(volume.family("p/.weightlift-complete.json")).unwrap();
    assert_eq!(sentinel.matches("\"verified_by\": \"sha256\"").count(), 2, "{sentinel}");
    let volume = Volume::new();
    fetch_s3(&s3(sums(&"0".repeat(64))), &volume, &["s3://models/p/"]).run().assert_code(12);
    assert!(!volume.family("p").exists());
    // A list that has grown since the listing.
    let s3 = s3(sums(&blob.sha256()));
    s3.script(Rule::on("GET", "SHA256SUMS").then(Fault::ReplaceBody(vec![b'\n'; 500])));
    let run = fetch_s3(&s3, &volume, &["s3://models/p/"]).run().assert_code(20);
    assert!(run.last_line().contains("has 500 bytes"), "{}", run.stderr);
    assert_eq!((s3.requests().len(), s3.count("GET", "SHA256SUMS")), (3, 1), "asked for again");
}

#[test]
fn a_published_model_that_was_uploaded_brings_its_digests_along() {
    let (s3, first) = (bucket(&big()), Volume::new());
    fetch_s3(&s3, &first, &["s3://models/llama/"]).run().assert_success();
    let sentinel = std::fs::read(first.family("llama/.weightlift-complete.json")).unwrap();
    let upload = |big: Blob| {
        FakeS3::builder()
            .bucket("models")
            .object("models", "m/config.json", Blob::bytes("{}"))
            .object("models", "m/big.bin", big)
            .object("models", "m/.weightlift-complete.json", Blob::bytes(sentinel.clone()))
            .start()
    };
    let volume = Volume::new();
    fetch_s3(&upload(big().blob("big.bin").unwrap().clone()), &volume, &["s3://models/m/"])
        .run()
        .assert_success();
    volume.assert_holds("m", &big());
    let volume = Volume::new();
    let other = Blob::synthetic((5 << 20) + 3, 77);
    fetch_s3(&upload(other), &volume, &["s3://models/m/"]).run().assert_code(12);
    // That it is not what was published shows before a byte is fetched, and the next run cannot mend it.
    let run = fetch_s3(&upload(Blob::synthetic(5, 4)), &volume, &["s3://models/m/"]).run();
    run.assert_code(16).assert_says("the prefix does not hold what was published there");
}

#[test]
fn what_has_no_digest_is_marked_so() {
    let (s3, volume) = (bucket(&big()), Volume::new());
    let run = fetch_s3(&s3, &volume, &["s3://models/llama/"]).run().assert_success();
    let sentinel =
        std::fs::read_to_string(volume.family("llama/.weightlift-complete.json")).unwrap();
    assert_eq!(sentinel.matches("\"verified_by\": \"unpublished\"").count(), 2, "{sentinel}");
    assert!(
        run.last_line().contains("2 files could not be compared with a published digest"),
        "{}",
        run.stderr
    );
    assert!(sentinel.contains(&big().blob("big.bin").unwrap().sha256()));
}

#[test]
fn missing_rights_are_named() {
    let s3 = FakeS3::builder()
        .bucket("models")
        .object("models", "p/a", Blob::bytes("a"))
        .deny_list()
        .start();
    let run = fetch_s3(&s3, &Volume::new(), &["s3://models/p/"]).run().assert_code(11);
    assert!(run.last_line().contains("s3:ListBucket"), "{}", run.stderr);
    let s3 = FakeS3::builder()
        .bucket("models")
        .object("models", "p/a", Blob::bytes("a"))
        .deny_get()
        .start();
    let run = fetch_s3(&s3, &Volume::new(), &["s3://models/p/"]).run().assert_code(11);
    assert!(run.last_line().contains("s3:GetObject"), "{}", run.stderr);
    let run = fetch_s3(&bucket(&tiny()), &Volume::new(), &["s3://models/llama/"])
        .env("AWS_SECRET_ACCESS_KEY", "wrong")
        .run();
    run.assert_code(11);
}

#[test]
fn anonymous_requests_carry_no_credentials() {
    let s3 = FakeS3::builder().bucket("models").object("models", "p/a", Blob::bytes("a")).start();
    let volume = Volume::new();
    fetch_s3(&s3, &volume, &["s3://models/p/", "--s3-anonymous"]).run().assert_success();
    for request in s3.log().requests() {
        assert!(
            request.header("authorization").is_none() && !request.target.contains("X-Amz-"),
            "{request:?}"
        );
    }
}

#[test]
fn without_credentials_the_message_says_what_to_do_and_comes_soon() {
    let s3 = bucket(&tiny());
    let started = std::time::Instant::now();
    let run = fetch_s3(&s3, &Volume::new(), &["s3://models/llama/"])
        .env_remove("AWS_ACCESS_KEY_ID")
        .env_remove("AWS_SECRET_ACCESS_KEY")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .run()
        .assert_code(11);
    assert!(run.last_line().contains("--s3-anonymous"), "{}", run.stderr);
    assert!(started.elapsed() < std::time::Duration::from_secs(15));
}

#[test]
fn the_bucket_of_another_region_is_found() {
    let s3 = FakeS3::builder()
        .bucket("models")
        .object("models", "p/a", Blob::bytes("a"))
        .credentials(ACCESS_KEY, SECRET_KEY)
        .region("eu-west-1")
        .redirect_wrong_region()
        .start();
    let volume = Volume::new();
    fetch_s3(&s3, &volume, &["s3://models/p/"]).run().assert_success();
    volume.assert_holds("p", &Tree::new().with("a", "a"));
}

#[test]
fn a_redirect_to_another_host_gets_no_credentials() {
    let (s3, other) = (bucket(&tiny()), bucket(&tiny()));
    let location = format!("{}/models?list-type=2", other.url());
    let redirect = Fault::status_with(307, &[("Location", &location)], "");
    s3.script(Rule::on("*", "").then(redirect));
    assert_ne!(fetch_s3(&s3, &Volume::new(), &["s3://models/llama/"]).run().code, 0);
    // Nothing but the look for a list that mirror has written is a read, and reads may be sent on.
    for request in other.log().requests() {
        assert!(request.is_for("/models?list-type=2"), "{request:?}");
        let shown = format!("{:?}", request.headers).to_lowercase();
        for secret in ["authorization", "amz", &ACCESS_KEY.to_lowercase()] {
            assert!(!shown.contains(secret), "{request:?}");
        }
    }
}

#[test]
fn slow_down_is_obeyed_and_faults_are_survived() {
    let slow =
        "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>";
    for fault in [
        Fault::status_with(503, &[], slow),
        Fault::status(500),
        Fault::ResetAfter(100_000),
        Fault::CutAfter(100_000),
        Fault::WrongRange,
    ] {
        let (s3, volume) = (bucket(&big()), Volume::new());
        s3.script(Rule::on("GET", "big.bin").times(2).then(fault));
        fetch_s3(&s3, &volume, &["s3://models/llama/", "--chunk-size", "1MiB"])
            .run()
            .assert_success();
        volume.assert_holds("llama", &big());
    }
}

#[test]
fn a_stored_content_encoding_is_no_reason_to_refuse() {
    let (s3, volume) = (serving("llama/", &big(), Some(Checksum::Crc64Nvme)), Volume::new());
    s3.script(Rule::on("GET", "big.bin").then(Fault::add_headers(&[("Content-Encoding", "gzip")])));
    s3.script(Rule::on("GET", "config.json").then(Fault::add_headers(&[("Content-Encoding", "")])));
    fetch_s3(&s3, &volume, &["s3://models/llama/", "--chunk-size", "1MiB"]).run().assert_success();
    volume.assert_holds("llama", &big());
    assert!(s3.log().requests().iter().all(|r| r.header("accept-encoding") == Some("identity")));
}

#[test]
fn a_bad_endpoint_is_a_usage_error_that_is_not_repeated() {
    let mut command = weightlift();
    command.args(["fetch", "s3://models/llama/"]);
    command.env("AWS_ENDPOINT_URL", "not a url?X-Amz-Signature=hunter2");
    let run = command.run().assert_code(2);
    assert!(!run.stderr.contains("hunter2"), "{}", run.stderr);
}

#[test]
fn a_killed_run_is_continued() {
    let (s3, volume) = (bucket(&big()), Volume::new());
    s3.script(Rule::on("GET", "big.bin").then(Fault::Drip { bytes_per_second: 2 << 20 }));
    let arguments = ["s3://models/llama/", "--chunk-size", "1MiB", "--connections", "1"];
    let running = fetch_s3(&s3, &volume, &arguments).start();
    eventually("some bytes are sent", || s3.log().bytes_sent_for("big.bin") > 3 << 20);
    running.signal("-KILL");
    drop(running.wait());
    s3.clear_script();
    let run = fetch_s3(&s3, &volume, &arguments).run().assert_success();
    assert!(run.stderr.contains("are here already"), "{}", run.stderr);
    volume.assert_holds("llama", &big());
}

#[test]
fn archived_objects_are_named_as_such() {
    let options =
        ObjectOptions { storage_class: Some("GLACIER".into()), ..ObjectOptions::default() };
    let s3 = FakeS3::builder()
        .bucket("models")
        .object_with("models", "p/a", Blob::bytes("a"), options)
        .start();
    let run = fetch_s3(&s3, &Volume::new(), &["s3://models/p/"]).run().assert_code(10);
    assert!(run.last_line().contains("restore"), "{}", run.stderr);
}
