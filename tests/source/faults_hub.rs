//! What a Hub, or a mirror of one, may answer about a repo, and what becomes of it.
//!
//! | what the Hub does | what happens |
//! |---|---|
//! | answers for another commit | exit 16 |
//! | a listing that leads in a circle, goes on for ever, or breaks off | tried again; then exit 20 |
//! | refuses, at the start or half-way | exit 11 or 10 at once; what has arrived is kept |
//! | asks to wait | waited for; in the end exit 21 |
//! | a large file without a digest | published, and said so |

use std::time::Duration;

use crate::support::table::{BIG, Case, Place, check, hub, model, row};
use crate::support::*;
use serde_json::json;
use weightlift_fakes::{FakeHub, Fault, Rule};

/// Requests of a fetch of the model without any fault, and two more that may be on their way.
const USUAL: usize = 13;
const OTHER: &str = "0123456789012345678901234567890123456789";

fn api(what: &str) -> Rule {
    Rule::on("GET", what).at("hub")
}

fn refusal(status: u16, code: &str, message: &str) -> Fault {
    let headers = [("X-Error-Code", code), ("X-Error-Message", message)];
    Fault::status_with(status, &headers, &json!({ "error": message }).to_string())
}

/// A Hub whose listing of the model is `entries`.
fn listing(name: &'static str, entries: serde_json::Value) -> Case {
    let rule = api("/tree/").then(Fault::ReplaceBody(entries.to_string().into_bytes()));
    hub(name).rule(rule)
}

#[test]
fn another_commit_than_the_pinned_one_is_a_conflict() {
    let says = || Fault::add_headers(&[("X-Repo-Commit", OTHER)]);
    check([
        hub("in the answer that links to a large file")
            .rule(Rule::on("HEAD", "/resolve/").then(says()))
            .fails(16, USUAL, &["answered for commit 0123456789"]),
        hub("in the redirect to a small file").rule(api("/resolve/").then(says())).fails(
            16,
            USUAL,
            &["answered for commit 0123456789"],
        ),
        hub("beside the bytes of a small file").rule(api("/resolve-cache/").then(says())).fails(
            16,
            USUAL,
            &["answered for commit 0123456789"],
        ),
        hub("a revision that is no commit")
            .rule(api("/revision/").then(Fault::ReplaceBody(br#"{"sha": "main"}"#.to_vec())))
            .fails(20, 8, &["did not resolve `main`"]),
        hub("a revision without one")
            .rule(api("/revision/").then(Fault::ReplaceBody(b"{}".to_vec())))
            .fails(20, 8, &["did not resolve `main`"]),
        row("instead of the commit that was asked for", || {
            let (hub, volume) = (FakeHub::serving(REPO, model()), Volume::new());
            let other = json!({ "sha": OTHER }).to_string().into_bytes();
            hub.script(api("/revision/").then(Fault::ReplaceBody(other)));
            let source = format!("hf://org/tiny@{}", hub.commit(REPO));
            let run = fetch(&hub, &volume, &[&source]).run().assert_code(16);
            assert!(run.last_line().contains(OTHER), "{}", run.stderr);
            assert_eq!(hub.requests().len(), 1);
        }),
    ]);
}

#[test]
fn a_listing_is_read_to_its_end_or_not_believed() {
    let link = |target: &str| Fault::add_headers(&[("Link", target)]);
    let pages = |name| {
        Case::at(name, || Box::new(FakeHub::builder().repo(REPO, model()).page_size(1).start()))
    };
    let next = |commit: &str| {
        format!("</api/models/org/tiny/tree/{commit}?recursive=true&expand=false>; rel=\"next\"")
    };
    let commit = FakeHub::serving(REPO, model()).commit(REPO);
    check([
        pages("a second page that fails once")
            .rule(api("cursor=").once().then(Fault::status(502)))
            .recovers(USUAL + 4),
        pages("a second page that breaks off once")
            .rule(api("cursor=").once().then(Fault::CutAfter(20)))
            .recovers(USUAL + 4),
        pages("a second page that is not there")
            .rule(api("cursor=").then(Fault::status(404)))
            .fails(10, USUAL, &["has no listing"]),
        hub("a page that leads to itself").rule(api("/tree/").then(link(&next(&commit)))).fails(
            20,
            USUAL,
            &["returns to a page"],
        ),
        row("pages without entries, each leading to another one", || {
            // Each answer is to the cursor before it, so that no URL comes twice.
            let (hub, volume) = (FakeHub::serving(REPO, model()), Volume::new());
            for n in 0..1_000 {
                let next = format!("</api/models/org/tiny/tree/x?cursor={n}>; rel=\"next\"");
                let empty = Fault::status_with(200, &[("Link", &next)], "[]");
                hub.script(api("/tree/").once().then(empty));
            }
            let run = fetch(&hub, &volume, &["hf://org/tiny"])
                .env("WEIGHTLIFT_RETRY_TIMEOUT", "3s")
                .run()
                .assert_code(20);
            assert!(run.last_line().contains("without an entry"), "{}", run.stderr);
            assert!(hub.requests().len() < 60, "{} requests", hub.requests().len());
        }),
        hub("a link that is none").rule(api("/tree/").then(link("next page: 2"))).fails(
            20,
            USUAL,
            &["Link header in an unknown format"],
        ),
        hub("JSON that is cut off")
            .rule(api("/tree/").then(Fault::ReplaceBody(br#"[{"type": "file", "pa"#.to_vec())))
            .fails(20, USUAL, &["the listing in an unknown format"]),
        hub("JSON of another kind")
            .rule(api("/tree/").then(Fault::ReplaceBody(br#"{"error": "maintenance"}"#.to_vec())))
            .fails(20, USUAL, &["the listing in an unknown format"]),
        hub("JSON a hundred thousand levels deep")
            .rule(api("/tree/").then(Fault::ReplaceBody(vec![b'['; 100_000])))
            .fails(20, USUAL, &["the listing in an unknown format"]),
        hub("a listing that is larger than any")
            .rule(api("/tree/").then(Fault::ReplaceBody(vec![b' '; (64 << 20) + 1])))
            .fails(13, USUAL, &["sent an answer of more than"]),
    ]);
}

#[test]
fn sizes_and_digests_that_contradict_each_other_are_not_guessed_at() {
    let model = model();
    let (big, small) = (model.blob("big.bin").unwrap(), model.blob("config.json").unwrap());
    let small = json!({
        "type": "file", "path": "config.json", "size": small.len(), "oid": small.git_sha1()
    });
    let entry = |size: u64, lfs: serde_json::Value| {
        let big = json!({
            "type": "file", "path": "big.bin", "size": size, "oid": OTHER, "lfs": lfs
        });
        json!([small, big])
    };
    let sha256 = big.sha256();
    check([
        listing("a pointer of another size", entry(BIG, json!({"oid": sha256, "size": BIG - 1})))
            .fails(20, USUAL, &["`big.bin`", "sizes"]),
        listing(
            "a size that the storage has not",
            entry(BIG - 1, json!({"oid": sha256, "size": BIG - 1})),
        )
        .fails(16, USUAL + 2, &["`big.bin`", "the listing says 4194314"]),
        listing("a digest that is too short", entry(BIG, json!({"oid": "abc", "size": BIG})))
            .fails(20, USUAL, &["LFS oid `abc`"]),
        listing(
            "the digest of another file",
            entry(BIG, json!({"oid": "ab".repeat(32), "size": BIG})),
        )
        .fails(12, 3 * USUAL, &["`big.bin`", "3 complete fetches"]),
        listing("no digest", entry(BIG, json!({"size": BIG})))
            .recovers_saying(USUAL, &["1 file could not be compared with a published digest"]),
    ]);
}

#[test]
fn a_refusal_ends_the_fetch_at_once_and_keeps_what_has_arrived() {
    let always = |name, rule: Rule, fault| hub(name).rule(rule.then(fault));
    check([
        always(
            "a repo that is switched off",
            api("/revision/"),
            refusal(403, "", "Access to this resource is disabled."),
        )
        .fails(11, 1, &["disabled"]),
        always("401 for no reason", api("/revision/"), refusal(401, "", "Unauthorized")).fails(
            11,
            1,
            &["refuses access to `org/tiny`"],
        ),
        always(
            "451 for a reason",
            api("/revision/"),
            refusal(451, "", "unavailable for legal reasons"),
        )
        .fails(11, 1, &["answered 451", "legal reasons"]),
        always(
            "a token that is revoked half-way",
            Rule::on("*", "/resolve/"),
            refusal(401, "", "Invalid credentials in Authorization header"),
        )
        .fails(11, USUAL, &["does not accept the token"]),
        always(
            "a gate that closes half-way",
            Rule::on("HEAD", "/resolve/"),
            refusal(403, "GatedRepo", "Access to model org/tiny is restricted"),
        )
        .fails(11, USUAL, &["accept its licence at"]),
        always(
            "a repo that is gone half-way",
            Rule::on("*", "/resolve/"),
            refusal(404, "RepoNotFound", "Repository not found"),
        )
        .fails(10, USUAL, &["no longer has the file"]),
        always(
            "names that lead in a circle",
            Rule::on("*", "/api/models/"),
            Fault::status_with(307, &[("Location", "/api/models/org/tiny/revision/main")], ""),
        )
        .fails(20, 40, &["more than 5 times"]),
        row("a file that is gone half-way", || {
            let (hub, volume) = (FakeHub::serving(REPO, model()), Volume::new());
            // Known by then: the link to the large file; asked for last: the small one.
            let gone = refusal(404, "EntryNotFound", "Entry not found");
            hub.script(api("/resolve-cache/").then(gone));
            hub.script(api("/resolve/").then(Fault::Delay(Duration::from_millis(700))));
            let run = hub.fetch(&volume).run().assert_code(10);
            assert!(
                run.last_line().contains("no longer has the file `config.json`"),
                "{}",
                run.stderr
            );
            let arrived = hub.bytes_sent_for("xet-bridge");
            assert!(arrived > 1 << 20, "{arrived} bytes by then");
            hub.clear_script();
            let run = hub.fetch(&volume).run().assert_success();
            assert!(run.stderr.contains("are here already"), "{}", run.stderr);
            volume.assert_holds("m", &model());
            assert!(hub.bytes_sent_for("xet-bridge") <= BIG + (2 << 20));
        }),
    ]);
}

#[test]
fn a_hub_in_trouble_is_asked_again_but_not_stormed() {
    let limited = |window: &str| Fault::status_with(429, &[("RateLimit", window)], "");
    check([
        hub("a rate limit of the listing")
            .rule(api("/tree/").once().then(limited("\"api\";r=0;t=1")))
            .recovers(USUAL + 1),
        hub("a rate limit of the files")
            .rule(Rule::on("*", "/resolve/").once().then(limited("\"resolvers\";r=0;t=1")))
            .recovers(USUAL + 2),
        hub("a rate limit without end")
            .rule(Rule::on("*", "/resolve/").then(Fault::status(429)))
            .fails(21, USUAL, &["limits the rate"]),
        hub("a revision that hangs once")
            .rule(api("/revision/").once().then(Fault::HangBeforeHeaders(Duration::from_secs(60))))
            .recovers(USUAL + 1),
        hub("a listing that stalls once")
            .rule(api("/tree/").once().then(Fault::StallAfter(9, Duration::from_secs(60))))
            .recovers(USUAL + 1),
        hub("a listing that is reset once")
            .rule(api("/tree/").once().then(Fault::ResetAfter(30)))
            .recovers(USUAL + 2),
        hub("links that fail now and then")
            .rule(Rule::on("HEAD", "/resolve/").times(3).then(Fault::status(504)))
            .recovers(USUAL + 4),
        hub("links that are never made")
            .rule(Rule::on("HEAD", "/resolve/").then(Fault::status(500)))
            .fails(20, 2 * USUAL, &["answered 500"]),
        Case::at("a chunk store that is named beside the files", || {
            Box::new(FakeHub::builder().repo(REPO, model()).xet_hashes().start())
        })
        .rule(Rule::on("*", "xet-read-token").then(Fault::status(500)))
        .recovers(USUAL),
    ]);
}

/// A 403 of the storage can mean four things; only one is for ever.
#[test]
fn a_refusal_of_the_storage_is_understood() {
    let denied = |body: &str| Fault::status_with(403, &[], body);
    let storage = || Rule::on("GET", "").at("cdn");
    let with =
        |name, build: fn(weightlift_fakes::FakeHubBuilder) -> weightlift_fakes::FakeHubBuilder| {
            Case::at(name, move || Box::new(build(FakeHub::builder().repo(REPO, model())).start()))
        };
    check([
        with("links that expire after two requests", |hub| hub.expire_urls_after_requests(2))
            .recovers(4 * USUAL),
        with("links that expire while they are used", |hub| {
            hub.expire_urls_after(Duration::from_millis(150))
        })
        .rule(storage().then(Fault::Delay(Duration::from_millis(60))))
        .recovers(4 * USUAL),
        with("links that are good for one range each", |hub| hub.sign_ranges()).recovers(3 * USUAL),
        hub("a link that is refused once")
            .rule(storage().once().then(denied("try later")))
            .recovers(USUAL + 4),
        hub("for good, and why")
            .rule(storage().then(denied("<Message>blocked in your country</Message>")))
            .fails(11, 2 * USUAL, &["answered 403", "blocked in your country"]),
        hub("a file that the storage has lost").rule(storage().then(Fault::status(404))).fails(
            20,
            3 * USUAL,
            &["answered 404"],
        ),
    ]);
    // The same for a small file that the Hub itself refuses to hand out.
    check([hub("a small file for good, and why")
        .rule(api("/resolve-cache/").then(denied("scanned: unsafe")))
        .fails(11, USUAL, &["scanned: unsafe"])]);
}
