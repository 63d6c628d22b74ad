//! What a web server may answer, and what becomes of it.
//!
//! | what the server does | what happens |
//! |---|---|
//! | 5xx, 429, broken bodies, silence | tried again; then exit 20 or 21 |
//! | wrong bytes | fetched again; exit 12 if they stay wrong |
//! | a refusal | exit 11 at once; 10 where SOURCE itself is not there |
//! | a file of a list that is gone, or has another size | exit 20 at once |
//! | a redirect to less safety, or in a circle | exit 13, 20 |

use std::time::Duration;

use crate::support::table::{BIG, Case, check, web};
use weightlift_fakes::{Fault, Rule};

/// Requests of a fetch of the model without any fault, and two more that may be on their way.
const USUAL: usize = 12;

fn list() -> Rule {
    Rule::on("GET", "SHA256SUMS")
}

fn sizes() -> Rule {
    Rule::on("HEAD", "big.bin")
}

fn reads() -> Rule {
    Rule::on("GET", "big.bin")
}

fn page() -> Fault {
    Fault::ReplaceBody(b"<!DOCTYPE html><html>please log in</html>".to_vec())
}

#[test]
fn trouble_of_a_web_server_that_passes_is_waited_out() {
    let once = |name, rule: Rule, fault| -> Case { web(name).rule(rule.once().then(fault)) };
    check([
        once("500 for the list", list(), Fault::status(500)).recovers(USUAL + 3),
        once("a list that breaks off", list(), Fault::CutAfter(30)).recovers(USUAL + 3),
        once("a list that stalls", list(), Fault::StallAfter(9, Duration::from_secs(60)))
            .recovers(USUAL + 3),
        once("503 for a sentinel", Rule::on("GET", "weightlift-complete"), Fault::status(503))
            .recovers(USUAL + 3),
        once("502 for a size", sizes(), Fault::status(502)).recovers(USUAL + 3),
        once("429 for a size", sizes(), Fault::status(429)).recovers(USUAL + 3),
        once("a read that is cut", reads(), Fault::CutAfter(300_000)).recovers(USUAL + 2),
        once("a read that is reset", reads(), Fault::ResetAfter(300_000)).recovers(USUAL + 2),
        once("a read that stalls", reads(), Fault::StallAfter(1_000, Duration::from_secs(60)))
            .recovers(USUAL + 3),
        once("another range", reads(), Fault::WrongRange).recovers(USUAL + 2),
        once("no Content-Range", reads(), Fault::NoContentRange).recovers(USUAL + 2),
        once("bytes behind the range", reads(), Fault::ExtraBytes(10)).recovers(USUAL + 2),
        once("a claim of gzip", reads(), Fault::GzipHeader).recovers(USUAL + 2),
        once("500 for a read", reads(), Fault::status(500)).recovers(USUAL + 2),
        once("503 for a read", reads(), Fault::status(503)).recovers(USUAL + 2),
        once("429 for a read", reads(), Fault::status(429)).recovers(USUAL + 2),
        once("408 for a read", reads(), Fault::status(408)).recovers(USUAL + 2),
        once("416 for a read", reads(), Fault::status(416)).recovers(USUAL + 2),
        once("a flipped byte", reads().when_range_starts_at(1 << 20), Fault::FlipByteAt(1_500_000))
            .recovers_saying(2 * USUAL, &["fetching it again"]),
        web("a slow read")
            .rule(reads().once().then(Fault::Drip { bytes_per_second: 1 << 20 }))
            .recovers(USUAL + 3),
    ]);
}

#[test]
fn trouble_of_a_web_server_that_stays_is_named_and_is_no_storm() {
    let always = |name, rule: Rule, fault| -> Case { web(name).rule(rule.then(fault)) };
    let redirect = |to: &str| Fault::status_with(302, &[("Location", to)], "");
    check([
        always("500 for ever", reads(), Fault::status(500)).fails(20, USUAL + 14, &["500"]),
        always("503 of the list for ever", list(), Fault::status(503)).fails(20, 12, &["503"]),
        always("429 for ever", reads(), Fault::status(429)).fails(21, USUAL + 14, &["rate"]),
        always("401 for a read", reads(), Fault::status(401)).fails(
            11,
            USUAL,
            &["401", "big.bin", "the netrc file"],
        ),
        always("403 for a read", reads(), Fault::status(403)).fails(11, USUAL, &["403", "big.bin"]),
        always("403 for both lists", Rule::on("GET", ""), Fault::status(403)).fails(
            11,
            3,
            &["403"],
        ),
        always("404 for a read", reads(), Fault::status(404)).fails(20, USUAL, &["big.bin", "404"]),
        always("410 for a size", sizes(), Fault::status(410)).fails(20, USUAL, &["big.bin", "410"]),
        always("451 for a read", reads(), Fault::status(451)).fails(11, USUAL, &["451"]),
        always("another size than was listed", reads(), Fault::WrongTotal(BIG + 1)).fails(
            20,
            USUAL,
            &["big.bin"],
        ),
        always("wrong bytes for ever", reads(), Fault::FlipByteAt(1_500_000)).fails(
            12,
            4 * USUAL,
            &["`big.bin`", "3 complete fetches"],
        ),
        always("a page in place of a list", list(), page()).fails(10, 4, &["neither"]),
        always("a packed list", list(), Fault::GzipHeader).fails(20, 14, &["gzip"]),
        always("a metadata service", reads(), redirect("http://169.254.169.254/x")).fails(
            13,
            USUAL,
            &["link-local"],
        ),
        always("a file of the node", reads(), redirect("file:///etc/passwd")).fails(
            13,
            USUAL,
            &["which is less safe"],
        ),
        always("a circle", reads(), redirect("/llama/big.bin")).fails(20, 200, &["redirects more"]),
    ]);
}
