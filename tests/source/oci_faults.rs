//! What a registry, its token server and the store behind it may answer, and what becomes of it.
//!
//! | what happens | what becomes of it |
//! |---|---|
//! | 429, 5xx, broken and slow bodies | tried again; then exit 20 or 21 |
//! | a link that has expired | a new one is asked for |
//! | a refusal | exit 11 or 10 at once |
//! | a manifest with other bytes than its digest says | three reads, then exit 12 |
//! | no manifest, or one that is too long | exit 20, exit 13 |

use std::time::Duration;

use crate::support::table::{BIG, Case, Place, check, model, row};
use crate::support::*;
use weightlift_fakes::{Access, FakeRegistry, Fault, Logged, Rule};

/// Requests of a fetch of the model without any fault.
const USUAL: usize = 14;

struct Registry {
    registry: FakeRegistry,
    config: tempfile::TempDir,
}

impl Place for Registry {
    fn script(&self, rule: Rule) {
        self.registry.script(rule);
    }

    fn clear_script(&self) {
        self.registry.clear_script();
    }

    fn requests(&self) -> Vec<Logged> {
        self.registry.requests()
    }

    fn fetch(&self, volume: &Volume) -> std::process::Command {
        let arguments = ["m", "--chunk-size", "1MiB", "--connections", "2"];
        let mut command = fetch_oci(&self.registry, volume, "org/llama:v1", &arguments);
        command.env("DOCKER_CONFIG", self.config.path());
        command
    }

    fn assert_discreet(&self, request: &Logged) {
        let shown = format!("{request:?}");
        assert!(!request.target.contains("CANARY"), "{shown}");
        let authorization = request.header("authorization").unwrap_or_default();
        match request.origin {
            "store" => assert!(authorization.is_empty(), "{shown}"),
            "registry" => assert!(!authorization.starts_with("Basic"), "{shown}"),
            _ => assert!(!authorization.starts_with("Bearer"), "{shown}"),
        }
    }
}

fn place(
    change: impl FnOnce(weightlift_fakes::FakeRegistryBuilder) -> weightlift_fakes::FakeRegistryBuilder,
) -> Box<dyn Place> {
    let builder = FakeRegistry::builder().access(Access::user("me", PASSWORD));
    let registry = change(builder.tree("org/llama", "v1", &model())).start();
    let config = tempfile::tempdir().unwrap();
    let auths = format!(
        r#"{{"auths":{{"http://{}/v2/":{{"username":"me","password":"{PASSWORD}"}}}}}}"#,
        registry.host()
    );
    std::fs::write(config.path().join("config.json"), auths).unwrap();
    Box::new(Registry { registry, config })
}

fn oci(name: &'static str) -> Case {
    Case::at(name, || place(|builder| builder))
}

fn direct(name: &'static str) -> Case {
    Case::at(name, || place(|builder| builder.direct()))
}

fn head() -> Rule {
    Rule::on("HEAD", "/manifests/")
}

fn manifest() -> Rule {
    Rule::on("GET", "/manifests/")
}

fn blobs() -> Rule {
    Rule::on("GET", "/blobs/")
}

fn store() -> Rule {
    Rule::on("GET", "").at("store")
}

fn token() -> Rule {
    Rule::on("GET", "/token")
}

#[test]
fn trouble_that_passes_is_waited_out() {
    let again = |name: &'static str, rule: Rule| oci(name).rule(rule).recovers(USUAL + 6);
    check([
        again("503 for the tag", head().once().then(Fault::status(503))),
        again(
            "no digest in the head",
            head().then(Fault::drop_headers(&["Docker-Content-Digest"])),
        ),
        again("no HEAD", head().then(Fault::status(405))),
        again("500 for the manifest", manifest().once().then(Fault::status(500))),
        again("429 for the manifest", manifest().once().then(Fault::status(429))),
        again("a manifest that breaks off", manifest().once().then(Fault::CutAfter(100))),
        again(
            "a manifest that is damaged",
            manifest().once().then(Fault::ReplaceBody(b"{}".to_vec())),
        ),
        again("503 of the token server", token().once().then(Fault::status(503))),
        again(
            "a token server that hangs up",
            token().once().then(Fault::HangBeforeHeaders(Duration::ZERO)),
        ),
        again("no token", token().once().then(Fault::ReplaceBody(b"{}".to_vec()))),
        again("502 for a blob", blobs().times(2).then(Fault::status(502))),
        again("503 of the store", store().times(2).then(Fault::status(503))),
        again("a link that is refused", store().once().then(Fault::status(403))),
        again("a body that ends early", store().once().then(Fault::CutAfter(300_000))),
        again("a reset", store().once().then(Fault::ResetAfter(300_000))),
        again("a stall", store().once().then(Fault::StallAfter(300_000, Duration::from_secs(60)))),
        again("another range", store().once().then(Fault::WrongRange)),
        again("no Content-Range", store().once().then(Fault::NoContentRange)),
        again("a short length", store().once().then(Fault::ShortLength(1_000))),
        oci("a flipped byte")
            .rule(store().once().then(Fault::FlipByteAt(3)))
            .recovers_saying(USUAL + 12, &["fetching it again"]),
        direct("a registry that sends blobs itself").recovers(USUAL),
        direct("and breaks off").rule(blobs().once().then(Fault::CutAfter(10))).recovers(USUAL + 2),
        direct("and knows no ranges").rule(blobs().then(Fault::IgnoreRange)).recovers(USUAL + 6),
        Case::at("links for one request each", || place(|builder| builder.requests_per_link(1)))
            .recovers(USUAL + 12),
    ]);
}

#[test]
fn trouble_that_stays_is_named_and_is_no_storm() {
    let web_page = || Fault::ReplaceBody(b"<html>log in</html>".to_vec());
    let long = || Fault::ReplaceBody(vec![b' '; (4 << 20) + 1]);
    let denied = || {
        let body = r#"{"errors":[{"code":"DENIED","message":"requested access is denied"}]}"#;
        Fault::status_with(403, &[], body)
    };
    let away = |to| Fault::status_with(307, &[("Location", to)], "");
    check([
        oci("no such tag").rule(Rule::on("*", "/manifests/").then(Fault::status(404))).fails(
            10,
            6,
            &["does not have `org/llama:v1`"],
        ),
        oci("denied").rule(Rule::on("*", "/manifests/").then(denied())).fails(
            11,
            6,
            &["DENIED: requested access is denied"],
        ),
        oci("the token server refuses").rule(token().then(Fault::status(401))).fails(
            11,
            6,
            &["refused a token for `org/llama`"],
        ),
        oci("a token server that is down").rule(token().then(Fault::status(503))).fails(
            20,
            24,
            &["answered 503 for a token"],
        ),
        oci("a token that is refused")
            .rule(Rule::on("*", "/manifests/").then(Fault::status(401)))
            .fails(11, 8, &["refused `org/llama:v1` (401)"]),
        oci("429 for ever").rule(manifest().then(Fault::status(429))).fails(
            21,
            12,
            &["limits the rate"],
        ),
        oci("a manifest that is another").rule(manifest().then(Fault::FlipByteAt(3))).fails(
            12,
            24,
            &[],
        ),
        oci("a manifest with another digest")
            .rule(manifest().then(Fault::ReplaceBody(b"{\"layers\":[]}".to_vec())))
            .fails(12, 10, &[" was requested"]),
        oci("a web page")
            .rule(
                Rule::on("*", "/manifests/")
                    .then(web_page())
                    .then(Fault::drop_headers(&["Docker-Content-Digest"])),
            )
            .fails(20, 24, &["check that a registry is at this host"]),
        oci("a manifest without an end").rule(manifest().then(long())).fails(13, 8, &["more than"]),
        oci("a blob that is gone").rule(blobs().then(Fault::status(404))).fails(
            10,
            USUAL,
            &["does not have `"],
        ),
        oci("a store that refuses").rule(store().then(Fault::status(403))).fails(
            11,
            USUAL + 10,
            &["(403)"],
        ),
        oci("a store that is broken").rule(store().then(Fault::status(500))).fails(
            20,
            USUAL + 20,
            &["answered 500"],
        ),
        oci("wrong bytes for ever").rule(store().then(Fault::FlipByteAt(1))).fails(
            12,
            USUAL + 24,
            &["3 complete fetches"],
        ),
        oci("another size").rule(store().then(Fault::WrongTotal(BIG + 1))).fails(16, USUAL, &[]),
        oci("a redirect to a metadata service")
            .rule(blobs().then(away("http://169.254.169.254/latest")))
            .fails(13, USUAL, &["link-local"]),
        oci("a redirect in a circle").rule(Rule::on("*", "/v2/").then(away("/v2/"))).fails(
            20,
            60,
            &["redirects more than"],
        ),
        row("a token is not sent to where a redirect leads", || {
            let (other, volume) = (FakeRegistry::serving("x", "y", &model()), Volume::new());
            let place = place(|builder| builder);
            let to = format!("http://{}/v2/x/manifests/y", other.host());
            let to = to.replace("127.0.0.1", "localhost");
            place.script(manifest().then(Fault::status_with(307, &[("Location", &to)], "")));
            // The manifest there is the same, so that it may be used.
            place.fetch(&volume).run().assert_success();
            assert!(!other.requests().is_empty());
            for request in other.requests() {
                assert_eq!(request.header("authorization"), None, "{request:?}");
            }
        }),
    ]);
}
