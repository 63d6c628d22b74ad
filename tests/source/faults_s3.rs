//! What an S3, or something like it, may answer, and what becomes of it.
//!
//! | what S3 does | what happens |
//! |---|---|
//! | SlowDown, 5xx, throttled keys, broken bodies | tried again, all connections pausing together; then exit 20 or 21 |
//! | another object than was listed | exit 20 at once; a run that has a complete copy uses that |
//! | expired credentials | renewed once they are half a minute old; exit 11 if that does not help |
//! | a refusal | exit 11, 10 or 14 at once, naming what is missing |
//! | a listing that is no listing, goes in a circle, or is a bomb | exit 20 or 13 |

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::measure::with_peak_memory;
use crate::support::table::{BIG, Place, bucket, check, model, row, s3};
use crate::support::*;
use weightlift_fakes::{Blob, FakeS3, Fault, Response, Rule, Server};

/// Requests of a fetch of the model without any fault, and two more that may be on their way.
const USUAL: usize = 11;

fn error(status: u16, code: &str, message: &str) -> Fault {
    let body = format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>");
    Fault::status_with(status, &[("Content-Type", "application/xml")], &body)
}

fn listing() -> Rule {
    Rule::on("GET", "list-type=2")
}

fn reads() -> Rule {
    Rule::on("GET", "big.bin")
}

fn slow_down() -> Fault {
    error(503, "SlowDown", "Please reduce your request rate.")
}

/// A listing of `contents`, with `rest` beside it.
fn xml(contents: &str, rest: &str) -> Vec<u8> {
    format!(
        "<?xml version=\"1.0\"?><ListBucketResult><Name>models</Name><Prefix>llama/</Prefix>\
         <EncodingType>url</EncodingType>{rest}{contents}</ListBucketResult>"
    )
    .into_bytes()
}

/// What says that there is another page.
fn more(token: &str) -> String {
    format!("<IsTruncated>true</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>")
}

fn contents(key: &str) -> String {
    format!("<Contents><Key>{key}</Key><ETag>&quot;e&quot;</ETag><Size>8</Size></Contents>")
}

#[test]
fn trouble_that_passes_is_waited_out() {
    let internal = || error(500, "InternalError", "We encountered an internal error.");
    let throttled = || error(400, "KMS.ThrottlingException", "You have exceeded the rate");
    check([
        s3("SlowDown for the listing").rule(listing().once().then(slow_down())).recovers(USUAL + 2),
        s3("SlowDown for the checksums")
            .rule(Rule::on("HEAD", "").times(2).then(Fault::status(503)))
            .recovers(USUAL + 4),
        s3("SlowDown for three reads").rule(reads().times(3).then(slow_down())).recovers(USUAL + 4),
        s3("a burst of internal errors")
            .rule(reads().times(5).then(internal()))
            .recovers(USUAL + 6),
        s3("an internal error of the listing")
            .rule(listing().once().then(internal()))
            .recovers(USUAL + 2),
        s3("a throttled key").rule(reads().once().then(throttled())).recovers(USUAL + 2),
        s3("a listing that breaks off")
            .rule(listing().once().then(Fault::CutAfter(100)))
            .recovers(USUAL + 2),
        s3("a listing that is reset")
            .rule(listing().once().then(Fault::ResetAfter(100)))
            .recovers(USUAL + 2),
        s3("a listing that stalls")
            .rule(listing().once().then(Fault::StallAfter(100, Duration::from_secs(60))))
            .recovers(USUAL + 2),
        s3("a body that ends early, with all of its length announced")
            .rule(reads().times(2).then(Fault::CutAfter(300_000)))
            .recovers(USUAL + 2),
        s3("chunks without the last one").rule(reads().then(Fault::NoLastChunk)).recovers(USUAL),
        s3("a request that took too long")
            .rule(reads().once().then(error(400, "RequestTimeout", "Your socket connection …")))
            .recovers(USUAL + 2),
        s3("an entity tag that a proxy has weakened")
            .rule(reads().then(Fault::add_headers(&[("ETag", "W/\"5d4\"")])))
            .recovers(USUAL),
        s3("an entity tag that is left out")
            .rule(reads().then(Fault::drop_headers(&["ETag"])))
            .recovers(USUAL),
        s3("checksums that nobody may ask for")
            .rule(Rule::on("HEAD", "").then(Fault::status(403)))
            .recovers_saying(USUAL, &["2 files could not be compared with a published digest"]),
    ]);
}

#[test]
fn trouble_that_stays_is_named_and_is_no_storm() {
    check([
        s3("SlowDown for ever").rule(reads().then(slow_down())).fails(
            21,
            USUAL + 14,
            &["limits the rate"],
        ),
        s3("SlowDown of the listing for ever").rule(listing().then(slow_down())).fails(
            21,
            10,
            &["limits the rate"],
        ),
        s3("internal errors for ever")
            .rule(reads().then(error(500, "InternalError", "oops")))
            .fails(20, USUAL + 14, &["`llama/big.bin`", "InternalError"]),
        s3("empty bodies for ever").rule(reads().then(Fault::CutAfter(0))).fails(
            20,
            USUAL + 14,
            &["`big.bin`"],
        ),
    ]);
}

#[test]
fn all_connections_pause_together_when_s3_asks_to_slow_down() {
    check([row("SlowDown to one of four connections, three times in a row", || {
        // Four workers with a second and a half of work, had they not been asked to slow down.
        let blob = Blob::synthetic(20 << 20, 9);
        let builder = FakeS3::builder().bucket("models").object("models", "llama/big.bin", blob);
        let (s3, volume) = (builder.start(), Volume::new());
        s3.script(reads().skip(4).times(3).then(slow_down()));
        s3.script(reads().then(Fault::Delay(Duration::from_millis(300))));
        let arguments = ["s3://models/llama/", "m", "--chunk-size", "1MiB", "--connections", "4"];
        fetch_s3(&s3, &volume, &arguments).run().assert_success();
        let requests = s3.requests();
        let refused: Vec<_> = requests.iter().filter(|r| r.status == 503).collect();
        // Whoever was on the way is let through, and may be refused as well, which says nothing new;
        // nobody sets out in the second after the first refusal.
        let mut pause: Option<std::time::Instant> = None;
        for refusal in &refused {
            if pause.is_some_and(|began| refusal.at < began + Duration::from_millis(950)) {
                continue;
            }
            pause = Some(refusal.at);
            let within = requests.iter().filter(|r| {
                let after = r.at.saturating_duration_since(refusal.at);
                after > Duration::from_millis(700) && after < Duration::from_millis(950)
            });
            assert_eq!(within.count(), 0);
        }
        assert!(refused.len() == 3 && requests.len() <= 20 + 10, "{}", requests.len());
    })]);
}

#[test]
fn another_object_than_was_listed_is_left_to_the_next_run() {
    check([
        s3("an entity tag that is another one, at a server that does not know If-Match")
            .rule(reads().then(Fault::add_headers(&[("ETag", "\"00000000\"")])))
            .fails(20, USUAL, &["`llama/big.bin`", "changed while it was fetched"]),
        s3("a precondition that fails")
            .rule(reads().then(error(412, "PreconditionFailed", "")))
            .fails(20, USUAL, &["`llama/big.bin`", "changed while it was fetched"]),
        s3("another one already when its checksum is asked for")
            .rule(Rule::on("HEAD", "").then(Fault::add_headers(&[("ETag", "\"00000000\"")])))
            .fails(20, USUAL, &["changed after it was listed"]),
        s3("an object that is shorter now").rule(reads().then(Fault::WrongTotal(BIG - 5))).fails(
            20,
            USUAL,
            &["`big.bin`"],
        ),
        s3("a range beyond its end").rule(reads().then(error(416, "InvalidRange", ""))).fails(
            20,
            USUAL,
            &["changed while it was fetched"],
        ),
        s3("an object that is gone").rule(reads().then(error(404, "NoSuchKey", "gone"))).fails(
            20,
            USUAL,
            &["was removed after it was listed"],
        ),
        row("an object that is new is left to the next run", || {
            let (s3, volume) = (bucket(), Volume::new());
            s3.script(reads().then(Fault::Delay(Duration::from_millis(300))));
            let running = s3.fetch(&volume).start();
            eventually("the reads begin", || s3.count("GET", "big.bin") > 0);
            s3.overwrite("models", "llama/new.json", Blob::bytes("{}"));
            running.wait().assert_success();
            volume.assert_holds("m", &model());
            s3.fetch(&volume).run().assert_success();
            volume.assert_holds("m", &model().with("new.json", "{}"));
        }),
        row("what changes during an update takes no copy away", || {
            let (s3, volume) = (bucket(), Volume::new());
            s3.fetch(&volume).run().assert_success();
            s3.overwrite("models", "llama/big.bin", Blob::synthetic(BIG, 10));
            s3.log().clear();
            s3.script(reads().then(error(412, "PreconditionFailed", "")));
            let run = s3.fetch(&volume).run().assert_success();
            assert!(run.stderr.contains("changed while it was fetched"), "{}", run.stderr);
            assert!(run.stderr.contains("using the complete copy"), "{}", run.stderr);
            assert!(s3.requests().len() <= USUAL, "{} requests", s3.requests().len());
            volume.assert_holds("m", &model());
            s3.clear_script();
            s3.fetch(&volume).run().assert_success();
            volume.assert_holds("m", &model().with_blob("big.bin", Blob::synthetic(BIG, 10)));
        }),
    ]);
}

#[test]
fn a_refusal_names_what_is_missing_and_ends_the_fetch_at_once() {
    let denied = |message: &str| error(403, "AccessDenied", message);
    check([
        s3("no right to use the key")
            .rule(reads().then(denied("User is not authorized to perform: kms:Decrypt")))
            .fails(11, USUAL, &["`kms:Decrypt`"]),
        s3("a bucket whose readers pay").rule(reads().then(denied("Access Denied"))).fails(
            11,
            USUAL,
            &["`s3:GetObject`"],
        ),
        s3("a key of the customer's own")
            .rule(Rule::on("HEAD", "big.bin").then(Fault::status(400)))
            .rule(reads().then(error(
                400,
                "InvalidRequest",
                "The object was stored using a form of Server Side Encryption.",
            )))
            .fails(11, USUAL, &["`llama/big.bin`", "Server Side Encryption"]),
        s3("a clock that is wrong, by the listing")
            .rule(listing().then(error(403, "RequestTimeTooSkewed", "The difference is too large")))
            .fails(14, 2, &["clock"]),
        s3("a clock that is wrong, by a read")
            .rule(reads().then(error(403, "RequestTimeTooSkewed", "The difference is too large")))
            .fails(14, USUAL, &["clock"]),
        s3("a signature that is not accepted")
            .rule(listing().then(error(403, "SignatureDoesNotMatch", "no")))
            .fails(11, 2, &["are not accepted"]),
        s3("an account that is closed")
            .rule(listing().then(error(403, "AllAccessDisabled", "All access is disabled")))
            .fails(11, 2, &["AllAccessDisabled"]),
        s3("credentials that have expired at once")
            .rule(listing().then(error(400, "ExpiredToken", "The provided token has expired.")))
            .fails(11, 3, &["have expired"]),
        s3("a bucket that is somewhere else, and nobody says where")
            .rule(listing().then(error(301, "PermanentRedirect", "elsewhere")))
            .fails(2, 3, &["AWS_REGION"]),
        s3("a region that is no name of one")
            .rule(listing().then(Fault::status_with(
                301,
                &[("x-amz-bucket-region", "evil.example/")],
                "<Error><Code>PermanentRedirect</Code></Error>",
            )))
            .fails(2, 3, &["AWS_REGION"]),
        s3("regions that point to each other")
            .rule(listing().once().then(Fault::status_with(
                301,
                &[("x-amz-bucket-region", "eu-west-1")],
                "",
            )))
            .rule(listing().then(Fault::status_with(
                301,
                &[("x-amz-bucket-region", "us-east-1")],
                "",
            )))
            .fails(20, 12, &["S3 answered 301"]),
    ]);
}

#[test]
fn a_listing_that_is_none_is_not_believed() {
    let replaced = |name, body: Vec<u8>| s3(name).rule(listing().then(Fault::ReplaceBody(body)));
    let bomb = || {
        let mut entities = String::from("<!ENTITY a \"aaaaaaaaaa\">");
        for (n, c) in ('b'..='k').enumerate() {
            let before = char::from(b'a' + n as u8);
            entities += &format!("<!ENTITY {c} \"{}\">", format!("&{before};").repeat(10));
        }
        let key = contents("&k;");
        format!(
            "<?xml version=\"1.0\"?><!DOCTYPE l [{entities}]><ListBucketResult>{key}</ListBucketResult>"
        )
    };
    let outside = "<?xml version=\"1.0\"?><!DOCTYPE l [<!ENTITY x SYSTEM \"file:///etc/passwd\">]>\
                   <ListBucketResult><Contents><Key>&x;</Key><Size>1</Size></Contents></ListBucketResult>";
    check([
        replaced("entities that multiply", bomb().into_bytes()).fails(20, 8, &["S3"]),
        replaced("an entity that is a file", outside.into()).fails(20, 8, &["S3"]),
        replaced("elements a hundred thousand levels deep", "<a>".repeat(100_000).into_bytes())
            .fails(20, 8, &["S3"]),
        replaced("a web page", b"<!DOCTYPE html><html>please log in</html>".to_vec()).fails(
            20,
            8,
            &["S3"],
        ),
        replaced("XML that is cut off", xml("<Contents><Key>llama/a", "")).fails(20, 8, &["S3"]),
        replaced("more than any listing", vec![b' '; (32 << 20) + 1]).fails(
            13,
            2,
            &["sent an answer of more than"],
        ),
        replaced("a key that is not UTF-8", xml(&contents("llama/a%FF"), "")).fails(
            13,
            2,
            &["not UTF-8"],
        ),
        replaced("a key of another prefix", xml(&contents("other/a"), "")).fails(
            20,
            8,
            &["not below"],
        ),
        replaced("an object without a size", xml("<Contents><Key>llama/a</Key></Contents>", ""))
            .fails(20, 12, &["without a size"]),
        replaced(
            "a page that is cut and has no next one",
            xml(&contents("llama/a"), "<IsTruncated>true</IsTruncated>"),
        )
        .fails(20, 12, &["does not say where it continues"]),
        replaced("a page that is its own next one", xml(&contents("llama/a"), &more("x"))).fails(
            20,
            16,
            &["does not say where it continues"],
        ),
        s3("pages that are each other's next ones")
            .rule(
                Rule::on("GET", "continuation-token=x")
                    .then(Fault::ReplaceBody(xml(&contents("llama/b"), &more("y")))),
            )
            .rule(listing().then(Fault::ReplaceBody(xml(&contents("llama/a"), &more("x")))))
            .fails(20, 24, &["does not say where it continues"]),
        row("pages without keys, each with another next one", || {
            let count = Arc::new(AtomicUsize::new(0));
            let asked = count.clone();
            let server = Server::start(move |_| {
                let token = asked.fetch_add(1, Ordering::Relaxed);
                let page = xml("", &more(&token.to_string()));
                Response::new(200).header("Content-Type", "application/xml").body(page)
            });
            let volume = Volume::new();
            let mut command = weightlift();
            command.args(["fetch", "s3://models/llama/", "--s3-anonymous", "--s3-path-style"]);
            command.arg("--root").arg(volume.root()).args(["--s3-endpoint", &server.url()]);
            command.env("WEIGHTLIFT_RETRY_TIMEOUT", "1s").run().assert_code(20);
            let count = count.load(Ordering::Relaxed);
            assert!(count < 1_000, "{count} requests");
        }),
    ]);
}

#[test]
fn a_bomb_of_a_listing_costs_little_memory() {
    let (s3, volume) = (bucket(), Volume::new());
    s3.script(listing().then(Fault::ReplaceBody(vec![b'<'; 40 << 20])));
    let mut command = s3.fetch(&volume);
    command.env("WEIGHTLIFT_RETRY_TIMEOUT", "1s");
    let (run, peak) = with_peak_memory(&mut command);
    run.assert_code(13);
    assert!(peak < 96 << 20, "peak RSS {} KiB", peak >> 10);
}

/// Pod Identity rotates what it gives; the old ones stop to work in the middle of a fetch.
#[test]
fn credentials_that_expire_in_the_middle_are_renewed_once() {
    let (s3, volume) = (bucket_without_checks(), Volume::new());
    let given = Arc::new(AtomicUsize::new(0));
    let agent = Server::start({
        let given = given.clone();
        move |_| {
            let number = given.fetch_add(1, Ordering::Relaxed);
            let answer = serde_json::json!({
                "AccessKeyId": ACCESS_KEY, "SecretAccessKey": SECRET_KEY,
                "Token": format!("session{number}"), "Expiration": "2099-01-01T00:00:00Z",
            });
            Response::json(200, &answer)
        }
    });
    std::fs::write(volume.path("token"), "pod-token").unwrap();
    s3.script(
        reads()
            .when_range_starts_at(1 << 20)
            .once()
            .then(Fault::StallAfter(1_000, Duration::from_secs(33))),
    );
    let arguments = ["s3://models/llama/", "m", "--chunk-size", "1MiB", "--connections", "1"];
    let mut command = fetch_s3(&s3, &volume, &arguments);
    command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
    command.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{}/v1/credentials", agent.url()));
    command.env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", volume.path("token"));
    command.env("WEIGHTLIFT_STALL_TIMEOUT", "32s").env("WEIGHTLIFT_RETRY_TIMEOUT", "60s");
    let running = command.start();
    eventually("the second chunk stalls", || s3.bytes_sent_for("big.bin") > 1 << 20);
    let expired = error(400, "ExpiredToken", "The provided token has expired.");
    s3.script(Rule::on("GET", "").when_header("x-amz-security-token", "session0").then(expired));
    running.wait().assert_success();
    volume.assert_holds("m", &model());
    assert_eq!(given.load(Ordering::Relaxed), 2, "credentials were asked for");
    assert!(s3.requests().len() <= USUAL + 4, "{}", s3.requests().len());
}

fn bucket_without_checks() -> FakeS3 {
    let put = |builder: weightlift_fakes::FakeS3Builder, (path, blob): (&str, &Blob)| {
        builder.object("models", &format!("llama/{path}"), blob.clone())
    };
    model().iter().fold(FakeS3::builder().bucket("models"), put).start()
}
