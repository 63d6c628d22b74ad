//! What Google's storage, or something like it, may answer, and what becomes of it.
//!
//! | what it does | what happens |
//! |---|---|
//! | 429, 5xx, broken bodies, resets | tried again; then exit 20 or 21 |
//! | another generation than was listed | exit 20 at once |
//! | a refusal | exit 11, 10 or 14 at once, naming who asked and what is missing |
//! | a listing that is no listing, goes in a circle, or is a bomb | exit 20 or 13 |

use std::time::Duration;

use crate::support::table::{check, gcs};
use weightlift_fakes::{Fault, Rule};

/// Requests of a fetch of the model without any fault, and two more that may be on their way.
const USUAL: usize = 10;

fn error(status: u16, reason: &str, message: &str) -> Fault {
    let body = serde_json::json!({ "error": {
        "code": status, "message": message, "errors": [{ "reason": reason, "message": message }],
    }});
    let json = [("Content-Type", "application/json")];
    Fault::status_with(status, &json, &body.to_string())
}

fn listing() -> Rule {
    Rule::on("GET", "/o?prefix")
}

fn reads() -> Rule {
    Rule::on("GET", "big.bin")
}

fn replaced(body: &str) -> Fault {
    Fault::ReplaceBody(body.as_bytes().to_vec())
}

#[test]
fn trouble_that_passes_is_waited_out() {
    let seconds = Duration::from_secs;
    check([
        gcs("503 for the listing")
            .rule(listing().once().then(error(503, "backendError", "Try again")))
            .recovers(USUAL + 2),
        gcs("429 for the listing")
            .rule(listing().once().then(Fault::status_with(429, &[("Retry-After", "1")], "")))
            .recovers(USUAL + 2),
        gcs("a burst of 500 for reads")
            .rule(reads().times(5).then(error(500, "internalError", "We encountered an error")))
            .recovers(USUAL + 6),
        gcs("a rate limit as 403")
            .rule(reads().once().then(error(403, "rateLimitExceeded", "slow down")))
            .recovers(USUAL + 2),
        gcs("a listing that breaks off")
            .rule(listing().once().then(Fault::CutAfter(50)))
            .recovers(USUAL + 2),
        gcs("a listing that is reset")
            .rule(listing().once().then(Fault::ResetAfter(50)))
            .recovers(USUAL + 2),
        gcs("a listing that stalls")
            .rule(listing().once().then(Fault::StallAfter(50, seconds(60))))
            .recovers(USUAL + 2),
        gcs("a body that ends early")
            .rule(reads().once().then(Fault::CutAfter(1_000)))
            .recovers(USUAL + 3),
        gcs("a body that is reset")
            .rule(reads().once().then(Fault::ResetAfter(1_000)))
            .recovers(USUAL + 3),
        gcs("a body that stalls")
            .rule(reads().once().then(Fault::StallAfter(1_000, seconds(60))))
            .recovers(USUAL + 3),
        gcs("the wrong range").rule(reads().once().then(Fault::WrongRange)).recovers(USUAL + 2),
        gcs("a range without Content-Range")
            .rule(reads().once().then(Fault::NoContentRange))
            .recovers(USUAL + 2),
        gcs("no answer at all")
            .rule(reads().once().then(Fault::HangBeforeHeaders(Duration::ZERO)))
            .recovers(USUAL + 2),
    ]);
}

#[test]
fn a_refusal_ends_the_run_and_says_what_is_missing() {
    check([
        gcs("no right to list")
            .rule(listing().then(error(403, "forbidden", "x does not have storage.objects.list")))
            .fails(11, 2, &["listing the keys below `llama/`", "metadata server", "Object Viewer"]),
        gcs("no right to read")
            .rule(reads().then(error(403, "forbidden", "x does not have storage.objects.get")))
            .fails(11, USUAL, &["`llama/big.bin`", "`storage.objects.get`"]),
        gcs("a token that is not accepted")
            .rule(listing().then(error(401, "authError", "Invalid Credentials")))
            .fails(11, 2, &["are not accepted", "Invalid Credentials"]),
        gcs("a clock that is wrong")
            .rule(listing().then(error(401, "authError", "Invalid JWT: in a reasonable timeframe")))
            .fails(14, 2, &["clock"]),
        gcs("a bucket that is gone")
            .rule(listing().then(error(404, "notFound", "The specified bucket does not exist.")))
            .fails(10, 2, &["bucket `models` does not exist"]),
        gcs("an object that is gone")
            .rule(reads().then(error(404, "notFound", "No such object: models/llama/big.bin")))
            .fails(20, USUAL, &["was removed after it was listed", "run again"]),
        gcs("a question that is not understood")
            .rule(listing().then(error(400, "invalid", "Invalid argument")))
            .fails(11, 2, &["is not accepted", "Invalid argument"]),
        gcs("a service that stays down").rule(listing().then(Fault::status(500))).fails(
            20,
            12,
            &["500"],
        ),
        gcs("another size than was listed").rule(reads().then(Fault::WrongTotal(4_999_999))).fails(
            20,
            USUAL,
            &["4999999 bytes"],
        ),
    ]);
}

#[test]
fn a_listing_that_is_none_is_not_believed() {
    let item = r#"{"name":"llama/a","size":"1","generation":"1"}"#;
    check([
        gcs("a web page").rule(listing().then(replaced("<html>log in</html>"))).fails(
            20,
            12,
            &["in a wrong form"],
        ),
        gcs("an object without a generation")
            .rule(listing().then(replaced(r#"{"items":[{"name":"llama/a","size":"1"}]}"#)))
            .fails(20, 12, &["without a version"]),
        gcs("an object without a size")
            .rule(listing().then(replaced(r#"{"items":[{"name":"llama/a","generation":"1"}]}"#)))
            .fails(20, 12, &["without a size"]),
        gcs("a key of another prefix")
            .rule(
                listing().then(replaced(
                    r#"{"items":[{"name":"other/a","size":"1","generation":"1"}]}"#,
                )),
            )
            .fails(20, 12, &["not below"]),
        gcs("two versions of one key")
            .rule(listing().then(replaced(&format!(
                r#"{{"items":[{item},{{"name":"llama/a","size":"1","generation":"2"}}]}}"#
            ))))
            .fails(20, 12, &["twice"]),
        gcs("a page that is its own next one")
            .rule(listing().then(replaced(&format!(r#"{{"nextPageToken":"x","items":[{item}]}}"#))))
            .fails(20, 24, &["does not say where it continues"]),
        gcs("a bomb").rule(listing().then(Fault::ReplaceBody(vec![b'['; 20 << 20]))).fails(
            13,
            2,
            &["more than"],
        ),
        gcs("nothing").rule(listing().then(replaced("{}"))).fails(10, 2, &["holds no object"]),
    ]);
}
