//! Answers that HTTP allows, or should not: what becomes of each of them.
//!
//! | what the server does | what happens |
//! |---|---|
//! | an answer that is not the range, once | thrown away, asked for again |
//! | the same for ever | exit 20 after five tries |
//! | all bytes, and then no end of the body | complete: the digest decides |
//! | the whole file in place of a range, once or twice | asked for again, if there is something to lose |
//! | the same for ever | the file is read in one stream |
//! | another size of the file | exit 16 |
//! | 408, 425, 429, 5xx | tried again, as late as was asked for; in the end exit 20 or 21 |
//! | redirects | five are followed; never to less safety (exit 13) |
//! | a web page in place of a file | exit 20 or 12, and the message says so |
//! | bytes behind an answer, bodies that were left | their connection is not used again |

use std::time::{Duration, SystemTime};

use crate::support::table::{BIG, Case, check, hub, model, row};
use crate::support::*;
use weightlift_fakes::{Blob, FakeHub, Fault, Response, Rule, Server, Tree};

/// Requests of a fetch of the model without any fault, and two more that may be on their way.
const USUAL: usize = 13;
/// Of a fetch that is given up after five tries, by two workers.
const GIVEN_UP: usize = 40;
const PAGE: &str = "<!DOCTYPE html><html>please log in to the hotel network</html>";

/// The second chunk of the large file, whose link is known by then or soon.
fn second_chunk() -> Rule {
    Rule::on("GET", "").at("cdn").when_range_starts_at(1 << 20).once()
}

fn storage() -> Rule {
    Rule::on("GET", "").at("cdn")
}

/// An answer of the storage for the second chunk that breaks off behind `body`.
fn raw(headers: &str, body: &[u8]) -> Fault {
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {}-{}/{BIG}\r\n{headers}\r\n\r\n",
        1 << 20,
        (2 << 20) - 1
    );
    Fault::Raw([head.as_bytes(), body].concat())
}

/// `count` bytes from the beginning of the second chunk.
fn right_bytes(count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    model().blob("big.bin").unwrap().read_at(1 << 20, &mut bytes);
    bytes
}

#[test]
fn an_answer_that_is_not_the_range_is_asked_for_again() {
    let multipart = [("Content-Type", "multipart/byteranges; boundary=x")];
    let range = |text: &str| Fault::add_headers(&[("Content-Range", text)]);
    let once = |name, fault| hub(name).rule(second_chunk().then(fault)).recovers(USUAL + 3);
    check([
        once(
            "a multipart answer to a single range",
            Fault::status_with(
                206,
                &multipart,
                "--x\r\nContent-Range: bytes 0-1/2\r\n\r\nab\r\n--x--",
            ),
        ),
        once("a range of nothing", range(&format!("bytes */{BIG}"))),
        once("a range that ends before it begins", range(&format!("bytes 2097151-1048576/{BIG}"))),
        once("a range of other units", range(&format!("items 1048576-2097151/{BIG}"))),
        once("a range beyond all numbers", range("bytes 1048576-99999999999999999999/5")),
        once("half the range, announced as such", Fault::ShortLength(1 << 19)),
        once("no content", Fault::status(204)),
        once("the answer of a cache that was not asked", Fault::status(304)),
        once("a precondition that nobody set", Fault::status(412)),
        once("a teapot", Fault::status(418)),
        once("a chunked body with a broken length", raw("Transfer-Encoding: chunked", b"ZZ\r\nx")),
        once("a chunked body that ends early", {
            let mut body = b"4000\r\n".to_vec();
            body.extend(right_bytes(0x4000));
            body.extend(b"\r\n0\r\n\r\n");
            raw("Transfer-Encoding: chunked", &body)
        }),
        once("two lengths", raw("Content-Length: 1048576\r\nContent-Length: 7", b"1234567")),
        once("a length that is none", raw("Content-Length: -1", b"")),
        once("a megabyte of one header", raw(&format!("X-Pad: {}", "x".repeat(1 << 20)), b"")),
        once("a hundred thousand headers", raw("X-Pad: x\r\n".repeat(100_000).trim_end(), b"")),
        once("a header that never ends", raw(&"x".repeat(1 << 20), b"")),
        once("something that is not HTTP", Fault::Raw(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec())),
        once("nothing at all", Fault::HangBeforeHeaders(Duration::ZERO)),
        // A total that is not told says nothing wrong.
        hub("a range without a total")
            .rule(second_chunk().then(range("bytes 1048576-2097151/*")))
            .recovers(USUAL),
        // The digests decide, not what a storage calls a version.
        hub("a weak entity tag, and another one each time")
            .rule(second_chunk().then(Fault::add_headers(&[("ETag", "W/\"1\"")])))
            .rule(storage().times(2).then(Fault::add_headers(&[("ETag", "W/\"2\"")])))
            .rule(storage().then(Fault::drop_headers(&["ETag"])))
            .recovers(USUAL),
        hub("two edges of which one has other bytes")
            .rule(
                storage().when_range_starts_at(1 << 20).times(2).then(Fault::FlipByteAt(1_500_000)),
            )
            .recovers_saying(3 * USUAL, &["fetching it again"]),
    ]);
}

/// Bodies whose length is not told: the last byte makes them complete, not what says so.
#[test]
fn a_body_that_lacks_nothing_but_its_end_is_complete() {
    fn always(name: &'static str, faults: &[Fault]) -> Case {
        hub(name).rule(faults.iter().cloned().fold(storage(), Rule::then))
    }
    let silence = Fault::StallAfter(1 << 20, Duration::from_secs(60));
    check([
        always("chunks without the last one", &[Fault::NoLastChunk]).recovers(USUAL),
        always("silence in place of the end", &[Fault::NoLength, silence]).recovers(USUAL),
        // What comes behind it belongs to another file, and so may what is before it.
        hub("more than the range")
            .rule(
                second_chunk().then(Fault::NoLength).then(Fault::StrayBytes(b"and more".to_vec())),
            )
            .recovers_saying(USUAL + 3, &["sent more bytes than the range has"]),
    ]);
}

#[test]
fn a_whole_answer_to_a_range_does_not_cost_what_has_arrived() {
    let whole = |times: usize| {
        let (hub, volume) = (FakeHub::serving(REPO, model()), Volume::new());
        let rule = storage().when_range_starts_at(3 << 20).times(times);
        hub.script(rule.then(Fault::IgnoreRange));
        let arguments = ["hf://org/tiny", "--chunk-size", "1MiB", "--connections", "1"];
        let run = fetch(&hub, &volume, &arguments).run().assert_success();
        volume.assert_holds("tiny", &model());
        (run, hub.requests().iter().filter(|request| request.origin == "cdn").count())
    };
    check([
        row("once, as by a cache that has the whole file", move || {
            let (run, requests) = whole(1);
            // Each chunk, and one of them twice.
            assert_eq!(requests, 6, "{}", run.stderr);
            assert!(!run.stderr.contains("streaming"), "{}", run.stderr);
        }),
        row("twice", move || assert_eq!(whole(2).1, 7)),
        // Three tries, and then one stream.
        row("for ever", move || assert_eq!(whole(usize::MAX).1, 3 + 3 + 1)),
        hub("from the middle of the file on")
            .rule(storage().skip(3).then(Fault::IgnoreRange))
            .recovers(USUAL + 6),
        row("to a run that goes on with what another has left", || {
            let (hub, volume) = (FakeHub::serving(REPO, model()), Volume::new());
            let arguments = ["hf://org/tiny", "--chunk-size", "1MiB", "--connections", "1"];
            hub.script(storage().skip(1).then(Fault::status(403)));
            fetch(&hub, &volume, &arguments).run().assert_code(11);
            hub.clear_script();
            hub.log().clear();
            hub.script(second_chunk().then(Fault::IgnoreRange));
            let run = fetch(&hub, &volume, &arguments).run().assert_success();
            assert!(run.stderr.contains("1.0 MB are here already"), "{}", run.stderr);
            assert!(!run.stderr.contains("streaming"), "{}", run.stderr);
            let is_whole = |it: &&weightlift_fakes::Logged| it.origin == "cdn" && it.status == 200;
            assert_eq!(hub.requests().iter().filter(is_whole).count(), 1);
            volume.assert_holds("tiny", &model());
        }),
    ]);
}

#[test]
fn an_answer_that_stays_wrong_is_given_up_and_named() {
    let always = |name, fault| hub(name).rule(storage().then(fault));
    check([
        always("no range ever", Fault::NoContentRange).fails(
            20,
            GIVEN_UP,
            &["`big.bin`", "Content-Range `missing`"],
        ),
        always("another range every time", Fault::WrongRange).fails(
            20,
            GIVEN_UP,
            &["`big.bin`", "with Content-Range `bytes"],
        ),
        always("416 for ever", Fault::status(416)).fails(20, GIVEN_UP, &["answered 416"]),
        always("a status that means nothing", Fault::status_with(418, &[], "short and stout"))
            .fails(20, GIVEN_UP, &["answered 418", "short and stout"]),
        always("another size", Fault::WrongTotal(BIG - 1)).fails(16, USUAL, &["`big.bin`"]),
        always("bodies that end at once", Fault::CutAfter(0)).fails(
            20,
            GIVEN_UP,
            &["no byte arrived for"],
        ),
        always("bytes and then silence", Fault::StallAfter(100, Duration::from_secs(60))).fails(
            20,
            GIVEN_UP,
            &["sent nothing for"],
        ),
    ]);
}

#[test]
fn a_server_in_trouble_is_tried_again_as_late_as_it_asks() {
    let later =
        |seconds: u64| httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(seconds));
    let once = |name, fault| hub(name).rule(second_chunk().then(fault)).recovers(USUAL + 3);
    let status = |code, after: &str| Fault::status_with(code, &[("Retry-After", after)], "");
    check([
        once("425", Fault::status(425)),
        once("429 for a second", status(429, "1")),
        once("429 until a date", status(429, &later(2))),
        once("429 until a date that is past", status(429, "Sun, 06 Nov 1994 08:49:37 GMT")),
        once("429 for less than no time", status(429, "-5")),
        once("429 for soon", status(429, "soon")),
        once("503 until a date", status(503, &later(2))),
        once("503 for less than no time", status(503, "-5")),
        once("520 of a proxy", Fault::status(520)),
        hub("429 for thirty years").rule(storage().then(status(429, "1000000000"))).fails(
            21,
            USUAL,
            &["limits the rate", "24h"],
        ),
        hub("429 again and again").rule(storage().then(status(429, "1"))).fails(
            21,
            3 * USUAL,
            &["limits the rate"],
        ),
        hub("503 for ever")
            .rule(storage().then(Fault::status_with(503, &[], "all replicas are busy")))
            .fails(20, GIVEN_UP, &["answered 503", "all replicas are busy"]),
        hub("500 of the Hub for ever")
            .rule(Rule::on("*", "").at("hub").then(Fault::status(500)))
            .fails(20, 12, &["answered 500"]),
    ]);
}

/// Nobody asks while a server has asked for silence, whoever it was said to.
#[test]
fn a_pause_that_one_worker_is_asked_for_is_kept_by_all() {
    let paused = |name, code: u16, after: &'static str| {
        row(name, move || {
            // Four workers with two seconds of work, had they not been asked to pause.
            let tree = Tree::new().with_blob("big.bin", Blob::synthetic(24 << 20, 9));
            let (hub, volume) = (FakeHub::serving(REPO, tree), Volume::new());
            let pause = Fault::status_with(code, &[("Retry-After", after)], "");
            hub.script(storage().skip(4).once().then(pause));
            hub.script(storage().then(Fault::Delay(Duration::from_millis(350))));
            let arguments = ["hf://org/tiny", "--chunk-size", "1MiB", "--connections", "4"];
            fetch(&hub, &volume, &arguments).run().assert_success();
            let requests = hub.requests();
            let at = requests.iter().find(|r| r.status == code).unwrap().at;
            let within = |r: &&weightlift_fakes::Logged| {
                let after = r.at.saturating_duration_since(at);
                r.origin == "cdn"
                    && after > Duration::from_millis(700)
                    && after < Duration::from_millis(2_900)
            };
            assert_eq!(requests.iter().filter(within).count(), 0);
            assert!(requests.len() <= 24 + 10, "{}", requests.len());
        })
    };
    check([paused("429 with the seconds", 429, "3"), paused("503 with the seconds", 503, "3")]);
}

#[test]
fn redirects_are_followed_a_few_times_and_never_to_less_safety() {
    let first = || Rule::on("*", "config.json").at("hub");
    let to = |target: &str| Fault::status_with(302, &[("Location", target)], "");
    let refused = |name, target: &'static str| {
        hub(name).rule(first().then(to(target))).fails(13, USUAL, &["not followed"])
    };
    /// `count` redirects more than the usual one.
    fn chain(case: Case, count: usize) -> Case {
        let to = |target: String| Fault::status_with(307, &[("Location", &target)], "");
        let commit = FakeHub::serving(REPO, model()).commit(REPO);
        let end = format!("/api/resolve-cache/models/{REPO}/{commit}/config.json");
        let case = case.rule(Rule::on("GET", "/resolve/").then(to("/hop/1".into())));
        (1..count).fold(case, |case, n| {
            let next = if n + 1 == count { end.clone() } else { format!("/hop/{}", n + 1) };
            case.rule(Rule::on("GET", &format!("/hop/{n}")).then(to(next)))
        })
    }
    check([
        chain(hub("five hops"), 5).recovers(USUAL + 4),
        chain(hub("six hops"), 6).fails(20, GIVEN_UP, &["more than 5 times"]),
        hub("a circle").rule(first().then(to("/org/tiny/resolve/main/config.json"))).fails(
            20,
            GIVEN_UP,
            &["more than 5 times"],
        ),
        hub("no target").rule(first().then(Fault::status(302))).fails(
            20,
            GIVEN_UP,
            &["302 without a usable Location"],
        ),
        hub("a target that is none").rule(first().then(to("http://[::bad/"))).fails(
            20,
            GIVEN_UP,
            &["without a usable Location"],
        ),
        refused("the metadata service", "http://169.254.169.254/latest/meta-data/"),
        refused("the metadata service as a number", "http://2852039166/"),
        refused("the metadata service as IPv6", "http://[::ffff:169.254.169.254]/"),
        refused("the metadata service without a scheme", "//169.254.169.254/x"),
        refused("a link-local address", "http://[fe80::1]/x"),
        refused("a file", "file:///etc/passwd"),
        refused("data", "data:text/plain,{}"),
        refused("another protocol", "ftp://127.0.0.1/x"),
        hub("the metadata service, from the storage")
            .rule(storage().then(to("http://169.254.169.254/latest/")))
            .fails(13, USUAL, &["not followed"]),
    ]);
}

#[test]
fn a_web_page_in_place_of_an_answer_is_named_and_gets_no_token() {
    let html = [("Content-Type", "text/html; charset=utf-8")];
    let page = || Fault::status_with(200, &html, PAGE);
    check([
        hub("instead of a range of a file").rule(storage().then(page())).fails(
            20,
            GIVEN_UP,
            &["`big.bin`", "web page"],
        ),
        hub("instead of a small file").rule(Rule::on("GET", "config.json").then(page())).fails(
            20,
            GIVEN_UP,
            &["`config.json`", "web page"],
        ),
        hub("instead of the revision").rule(Rule::on("GET", "/revision/").then(page())).fails(
            20,
            8,
            &["the revision", "web page"],
        ),
        hub("instead of the listing").rule(Rule::on("GET", "/tree/").then(page())).fails(
            20,
            12,
            &["the listing", "web page"],
        ),
        row("by a redirect to the portal", || {
            let log = weightlift_fakes::Log::new();
            let portal =
                Server::start(weightlift_fakes::Script::new().observed("portal", &log, |_| {
                    Response::text(200, PAGE).header("Content-Type", "text/html")
                }));
            let (hub, volume) = (FakeHub::serving(REPO, model()), Volume::new());
            let location = format!("{}/login", portal.url());
            let portal_redirect = Fault::status_with(302, &[("Location", &location)], "");
            hub.script(Rule::on("*", "").then(portal_redirect));
            let run = fetch(&hub, &volume, &["hf://org/tiny"])
                .env("HF_TOKEN", TOKEN)
                .env("WEIGHTLIFT_RETRY_TIMEOUT", "2s")
                .run()
                .assert_code(20);
            assert!(run.last_line().contains("web page"), "{}", run.stderr);
            assert!(!log.requests().is_empty() && log.requests().len() < 10);
            for request in log.requests() {
                assert!(request.header("authorization").is_none(), "{request:?}");
            }
        }),
    ]);
}

/// Request smuggling, and bodies of which the rest is still to come.
#[test]
fn what_is_left_on_a_connection_is_never_taken_for_an_answer() {
    /// No request comes over a connection whose earlier answer was not taken whole.
    fn assert_not_used_again(hub: &FakeHub, is_left: impl Fn(&weightlift_fakes::Logged) -> bool) {
        let requests = hub.requests();
        let left = requests.iter().find(|r| is_left(r)).expect("the answer that was left");
        let same = |r: &&weightlift_fakes::Logged| {
            (r.origin, r.connection) == (left.origin, left.connection) && r.at > left.at
        };
        let later: Vec<_> = requests.iter().filter(same).collect();
        assert!(later.is_empty(), "{later:?} after {left:?}");
    }
    fn fetched(rule: Rule) -> FakeHub {
        let (hub, volume) = (FakeHub::serving(REPO, model()), Volume::new());
        hub.script(rule);
        let arguments = ["hf://org/tiny", "--chunk-size", "1MiB", "--connections", "1"];
        let run = fetch(&hub, &volume, &arguments).run().assert_success();
        volume.assert_holds("tiny", &model());
        // Seen at once, not by the digest of the whole file.
        assert!(!run.stderr.contains("fetching it again"), "{}", run.stderr);
        hub
    }
    let forged = || {
        let head = format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Length: {0}\r\n\
             Content-Range: bytes 1048576-2097151/{BIG}\r\n\r\n",
            1 << 20
        );
        [head.into_bytes(), vec![b'!'; 1 << 20]].concat()
    };
    let first_chunk = || storage().when_range_starts_at(0).once();
    check([
        row("nothing is left: the connection is used again", || {
            let hub = fetched(Rule::on("POST", "nothing"));
            let requests = hub.requests();
            let connections = requests.iter().filter(|r| r.origin == "cdn").map(|r| r.connection);
            assert!(connections.clone().count() == 5 && connections.max() == Some(1));
        }),
        row("a whole answer behind another", move || {
            let hub = fetched(first_chunk().then(Fault::StrayBytes(forged())));
            assert_not_used_again(&hub, |r| r.origin == "cdn" && r.offset == Some(0));
        }),
        row("a few bytes behind an answer", move || {
            let hub =
                fetched(first_chunk().then(Fault::StrayBytes(b"\r\n\r\nHTTP/1.1 200".into())));
            assert_not_used_again(&hub, |r| r.origin == "cdn" && r.offset == Some(0));
        }),
        row("more of the file than was asked for", move || {
            let hub = fetched(first_chunk().then(Fault::ExtraBytes(1 << 20)));
            assert_not_used_again(&hub, |r| r.origin == "cdn" && r.offset == Some(0));
        }),
        row("the rest of a file without ranges", move || {
            let hub = fetched(first_chunk().then(Fault::IgnoreRange));
            assert_not_used_again(&hub, |r| r.origin == "cdn" && r.status == 200);
        }),
        row("the long body of a refusal", move || {
            let body = "x".repeat(1 << 20);
            let hub = fetched(first_chunk().then(Fault::status_with(500, &[], &body)));
            assert_not_used_again(&hub, |r| r.status == 500);
        }),
        row("the long body of a redirect", move || {
            let (hub, volume) = (FakeHub::serving(REPO, model()), Volume::new());
            let commit = hub.commit(REPO);
            let target = format!("/api/resolve-cache/models/{REPO}/{commit}/config.json");
            let redirect = Fault::status_with(302, &[("Location", &target)], &"x".repeat(1 << 20));
            hub.script(Rule::on("GET", "/resolve/").then(redirect));
            fetch(&hub, &volume, &["hf://org/tiny", "--include", "config.json"])
                .run()
                .assert_success();
            assert_not_used_again(&hub, |r| r.status == 302);
        }),
    ]);
}
