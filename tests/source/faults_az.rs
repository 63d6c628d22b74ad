//! What Azure's storage, or something like it, may answer, and what becomes of it.
//!
//! | what it does | what happens |
//! |---|---|
//! | 429, 5xx, broken bodies, resets | tried again; then exit 20 or 21 |
//! | another ETag than was listed | exit 20 at once |
//! | a refusal | exit 11, 10 or 14 at once, naming who asked and what is missing |
//! | a listing that is no listing, goes in a circle, or is a bomb | exit 20 or 13 |

use std::time::Duration;

use crate::support::table::{az, check};
use weightlift_fakes::{Fault, Rule};

/// Requests of a fetch of the model without any fault, and two more that may be on their way.
const USUAL: usize = 10;

fn error(status: u16, code: &str, message: &str) -> Fault {
    let body = format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>");
    Fault::status_with(status, &[("x-ms-error-code", code)], &body)
}

fn listing() -> Rule {
    Rule::on("GET", "comp=list")
}

fn reads() -> Rule {
    Rule::on("GET", "big.bin")
}

fn page(blobs: &str, next: &str) -> Fault {
    let page = format!(
        "<?xml version=\"1.0\"?><EnumerationResults><Blobs>{blobs}</Blobs><NextMarker>{next}\
         </NextMarker></EnumerationResults>"
    );
    Fault::ReplaceBody(page.into_bytes())
}

fn blob(name: &str, properties: &str) -> String {
    format!("<Blob><Name>{name}</Name><Properties>{properties}</Properties></Blob>")
}

#[test]
fn trouble_that_passes_is_waited_out() {
    let seconds = Duration::from_secs;
    check([
        az("503 for the listing")
            .rule(listing().once().then(error(503, "ServerBusy", "The server is busy.")))
            .recovers(USUAL + 2),
        az("429 for the listing")
            .rule(listing().once().then(Fault::status_with(429, &[("Retry-After", "1")], "")))
            .recovers(USUAL + 2),
        az("a burst of 500 for reads")
            .rule(reads().times(5).then(error(500, "OperationTimedOut", "Operation timed out.")))
            .recovers(USUAL + 6),
        az("a listing that breaks off")
            .rule(listing().once().then(Fault::CutAfter(100)))
            .recovers(USUAL + 2),
        az("a listing that is reset")
            .rule(listing().once().then(Fault::ResetAfter(100)))
            .recovers(USUAL + 2),
        az("a body that ends early")
            .rule(reads().once().then(Fault::CutAfter(1_000)))
            .recovers(USUAL + 3),
        az("a body that is reset")
            .rule(reads().once().then(Fault::ResetAfter(1_000)))
            .recovers(USUAL + 3),
        az("a body that stalls")
            .rule(reads().once().then(Fault::StallAfter(1_000, seconds(60))))
            .recovers(USUAL + 3),
        az("the wrong range").rule(reads().once().then(Fault::WrongRange)).recovers(USUAL + 2),
        az("no answer at all")
            .rule(reads().once().then(Fault::HangBeforeHeaders(Duration::ZERO)))
            .recovers(USUAL + 2),
    ]);
}

#[test]
fn a_refusal_ends_the_run_and_says_what_is_missing() {
    check([
        az("no right to list")
            .rule(listing().then(error(403, "AuthorizationPermissionMismatch", "not authorized")))
            .fails(11, 2, &["listing the keys below `llama/`", "AZURE_STORAGE_KEY", "Data Reader"]),
        az("no right to read")
            .rule(reads().then(error(403, "AuthorizationFailure", "not authorized")))
            .fails(11, USUAL, &["`llama/big.bin`", "AuthorizationFailure"]),
        az("a signature that is not accepted")
            .rule(listing().then(error(403, "AuthenticationFailed", "Server failed")))
            .fails(11, 2, &["are not accepted"]),
        az("a clock that is wrong")
            .rule(listing().then(error(
                403,
                "AuthenticationFailed",
                "Request date header too old: 'Mon, 30 Nov 2020'",
            )))
            .fails(14, 2, &["clock"]),
        az("a container that is gone")
            .rule(listing().then(error(404, "ContainerNotFound", "does not exist")))
            .fails(10, 2, &["container `weights` of account `models` does not exist"]),
        az("a blob that is gone")
            .rule(reads().then(error(404, "BlobNotFound", "does not exist")))
            .fails(20, USUAL, &["was removed after it was listed", "run again"]),
        az("a blob that is archived")
            .rule(reads().then(error(409, "BlobArchived", "archived")))
            .fails(10, USUAL, &["is archived", "restore it first"]),
        az("a container that is not public")
            .rule(listing().then(error(409, "PublicAccessNotPermitted", "not permitted")))
            .fails(11, 2, &["is not allowed"]),
        az("a service that stays down").rule(listing().then(Fault::status(500))).fails(
            20,
            12,
            &["500"],
        ),
        az("another size than was listed").rule(reads().then(Fault::WrongTotal(4_999_999))).fails(
            20,
            USUAL,
            &["4999999 bytes"],
        ),
    ]);
}

#[test]
fn a_listing_that_is_none_is_not_believed() {
    let whole = blob("llama/a", "<Etag>0x1</Etag><Content-Length>1</Content-Length>");
    let bomb = "<?xml version=\"1.0\"?><!DOCTYPE l [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;\">]>\
                <EnumerationResults><Blobs><Blob><Name>&b;</Name></Blob></Blobs></EnumerationResults>";
    check([
        az("a web page")
            .rule(listing().then(Fault::ReplaceBody(b"<html>log in</html>".to_vec())))
            .fails(20, 12, &["in a wrong form"]),
        az("entities").rule(listing().then(Fault::ReplaceBody(bomb.into()))).fails(20, 12, &[]),
        az("a blob without an ETag")
            .rule(listing().then(page(&blob("llama/a", "<Content-Length>1</Content-Length>"), "")))
            .fails(20, 12, &["without a version"]),
        az("a blob without a size")
            .rule(listing().then(page(&blob("llama/a", "<Etag>0x1</Etag>"), "")))
            .fails(20, 12, &["without a size"]),
        az("a name of another prefix")
            .rule(listing().then(page(&whole.replace("llama", "other"), "")))
            .fails(20, 12, &["not below"]),
        az("a page that is its own next one").rule(listing().then(page(&whole, "x"))).fails(
            20,
            24,
            &["does not say where it continues"],
        ),
        az("more than any page")
            .rule(listing().then(Fault::ReplaceBody(vec![b'<'; 20 << 20])))
            .fails(13, 2, &["more than"]),
        az("nothing").rule(listing().then(page("", ""))).fails(10, 2, &["holds no object"]),
    ]);
}
