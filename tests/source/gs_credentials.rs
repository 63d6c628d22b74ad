//! The ways in which a pod gets credentials for Google's storage, each against a stand-in of its service.

use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::support::*;
use weightlift_fakes::{Blob, FakeGcs, Fault, Request, Response, Rule, Server, Tree};

const EMAIL: &str = "fetcher@project.iam.gserviceaccount.com";

fn bucket() -> weightlift_fakes::FakeGcsBuilder {
    FakeGcs::builder().object("models", "p/a.json", Blob::bytes("{}"))
}

fn bare(gcs: &FakeGcs, volume: &Volume) -> Command {
    fetch_gs(gcs, None, volume, &["gs://models/p/"])
}

fn assert_fetched(command: &mut Command, volume: &Volume) {
    command.run().assert_success();
    volume.assert_holds("p", &Tree::new().with("a.json", "{}"));
}

fn key() -> &'static KeyPair {
    static KEY: OnceLock<KeyPair> = OnceLock::new();
    KEY.get_or_init(|| KeyPair::generate(KeySize::Rsa2048).unwrap())
}

/// The key of a service account, as the console of Google writes it.
fn service_account() -> Value {
    let der: aws_lc_rs::encoding::Pkcs8V1Der = key().as_der().unwrap();
    let text = STANDARD.encode(der.as_ref());
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    let pem =
        format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"));
    json!({
        "type": "service_account", "project_id": "project", "private_key_id": "key1",
        "private_key": pem, "client_email": EMAIL,
        "token_uri": "https://oauth2.googleapis.com/token",
    })
}

/// Whether the request carries a token that this service account has signed for reading.
fn is_signed(request: &Request) -> bool {
    let token = request.header("authorization").and_then(|it| it.strip_prefix("Bearer "));
    let parts: Vec<&str> = token.unwrap_or_default().split('.').collect();
    let [head, claims, signature] = parts[..] else { return false };
    let json = |part: &str| -> Value {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    };
    let (head_json, claims_json) = (json(head), json(claims));
    let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key().public_key().as_ref());
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    head_json["alg"] == "RS256"
        && head_json["kid"] == "key1"
        && claims_json["iss"] == EMAIL
        && claims_json["scope"].as_str().unwrap().starts_with("https://www.googleapis.com/auth/")
        && claims_json["exp"].as_u64().unwrap() > now
        && public.verify(format!("{head}.{claims}").as_bytes(), &signature).is_ok()
}

#[test]
fn the_key_of_a_service_account() {
    let (gcs, volume) = (bucket().admitting(is_signed).start(), Volume::new());
    let file = volume.path("key.json");
    std::fs::write(&file, service_account().to_string()).unwrap();
    assert_fetched(bare(&gcs, &volume).env("GOOGLE_APPLICATION_CREDENTIALS", &file), &volume);
    // That of `gcloud`, where none is named.
    let volume = Volume::new();
    let dir = volume.path("gcloud");
    std::fs::create_dir(&dir).unwrap();
    std::fs::copy(&file, dir.join("application_default_credentials.json")).unwrap();
    assert_fetched(bare(&gcs, &volume).env("CLOUDSDK_CONFIG", &dir), &volume);
    // A key that the service does not know, by the name of whoever has it.
    let refusing = bucket().token("other").start();
    let volume = Volume::new();
    let run = bare(&refusing, &volume).env("GOOGLE_APPLICATION_CREDENTIALS", &file).run();
    let run = run.assert_code(11).assert_says(EMAIL);
    assert!(!run.stderr.contains("eyJ") && !run.stderr.contains("PRIVATE"), "{}", run.stderr);
}

#[test]
fn a_file_that_holds_no_usable_credentials_is_named_and_not_shown() {
    let (gcs, volume) = (bucket().start(), Volume::new());
    let file = volume.path("key.json");
    let mut broken = service_account();
    broken["private_key"] = format!("-----BEGIN PRIVATE KEY-----\n{SECRET_KEY}\n").into();
    for (content, code, words) in [
        (format!("{{\"type\": \"service_account\", \"private_key\": {SECRET_KEY}"), 2, "line 1"),
        (json!({ "type": "external_account" }).to_string(), 2, "type `external_account`"),
        (json!({ "type": "service_account" }).to_string(), 2, "client_email"),
        (broken.to_string(), 11, EMAIL),
    ] {
        std::fs::write(&file, content).unwrap();
        let mut command = bare(&gcs, &volume);
        let run = command.env("GOOGLE_APPLICATION_CREDENTIALS", &file).run();
        run.assert_code(code).assert_says(words);
    }
    let mut command = bare(&gcs, &volume);
    command.env("GOOGLE_APPLICATION_CREDENTIALS", volume.path("none"));
    command.run().assert_code(2).assert_says("GOOGLE_APPLICATION_CREDENTIALS names");
    assert!(gcs.requests().is_empty());
}

#[test]
fn the_metadata_server_of_a_node_as_workload_identity_uses_it() {
    let (gcs, metadata, volume) = (bucket().token(TOKEN).start(), google_metadata(), Volume::new());
    let mut command = fetch_gs(&gcs, Some(&metadata), &volume, &["gs://models/p/"]);
    // What a proxy variable says does not concern the services of the node.
    command
        .env("HTTP_PROXY", "http://127.0.0.1:9")
        .env("NO_PROXY", format!("127.0.0.1:{}", gcs.url().rsplit(':').next().unwrap()));
    assert_fetched(&mut command, &volume);
    // It refuses: the binding is missing, and nobody asks without.
    let refusing =
        Server::start(|_| Response::text(403, "no permission iam.serviceAccounts.getAccessToken"));
    let mut command = fetch_gs(&gcs, Some(&refusing), &Volume::new(), &["gs://models/p/"]);
    command.run().assert_code(11).assert_says("getAccessToken");
    // It is not ready: that passes.
    let starting = std::sync::Arc::new(AtomicUsize::new(0));
    let late = Server::start({
        let starting = starting.clone();
        move |_| match starting.fetch_add(1, Ordering::Relaxed) {
            0..3 => Response::text(503, "starting"),
            _ => Response::json(200, &json!({ "access_token": TOKEN, "expires_in": 3599 })),
        }
    });
    let volume = Volume::new();
    let mut command = fetch_gs(&gcs, Some(&late), &volume, &["gs://models/p/"]);
    assert_fetched(command.env("WEIGHTLIFT_RETRY_DELAY", "25ms"), &volume);
}

/// That of GKE begins to listen after the pod has started.
#[test]
fn a_metadata_server_that_is_not_there_yet_is_asked_again() {
    let (gcs, volume) = (bucket().token(TOKEN).start(), Volume::new());
    let port = {
        let early = google_metadata();
        early.port()
    };
    let mut command = bare(&gcs, &volume);
    let host = format!("127.0.0.1:{port}");
    command.env("GCE_METADATA_HOST", &host).env("GCE_METADATA_IP", &host);
    command.env("WEIGHTLIFT_RETRY_DELAY", "100ms");
    let running = command.start();
    eventually("it is refused without", || gcs.requests().len() >= 2);
    let _late = google_metadata_on(port);
    running.wait().assert_success();
    volume.assert_holds("p", &Tree::new().with("a.json", "{}"));
}

#[test]
fn without_any_credentials_public_buckets_are_read_and_others_say_what_to_set() {
    let (gcs, volume) = (bucket().start(), Volume::new());
    assert_fetched(&mut bare(&gcs, &volume), &volume);
    assert!(gcs.requests().iter().all(|it| it.header("authorization").is_none()));
    let private = bucket().token(TOKEN).start();
    let nobody = Server::start(|_| Response::text(404, "no service account"));
    let mut command = fetch_gs(&private, Some(&nobody), &Volume::new(), &["gs://models/p/"]);
    let run = command.run().assert_code(11);
    let run = run.assert_says("without credentials").assert_says("GOOGLE_APPLICATION_CREDENTIALS");
    assert!(run.last_line().contains("401"), "{}", run.stderr);
    // A server that answers, and is that of another cloud.
    let other = Server::start(|_| Response::text(401, "Unauthorized"));
    let volume = Volume::new();
    assert_fetched(&mut fetch_gs(&gcs, Some(&other), &volume, &["gs://models/p/"]), &volume);
    // One that takes connections and says nothing costs a few seconds.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let volume = Volume::new();
    let mut command = bare(&gcs, &volume);
    let host = silent.local_addr().unwrap().to_string();
    command.env("GCE_METADATA_HOST", &host).env("GCE_METADATA_IP", &host);
    assert_fetched(&mut command, &volume);
}

#[test]
fn who_pays_is_named_where_readers_do() {
    let gcs = bucket().start();
    let body = r#"{"error":{"code":400,"message":"Bucket is a requester pays bucket but no user project provided.","errors":[{"reason":"required"}]}}"#;
    let volume = Volume::new();
    gcs.script(
        Rule::on("GET", "")
            .when_header("x-goog-user-project", "payer")
            .then(Fault::add_headers(&[])),
    );
    gcs.script(Rule::on("GET", "").then(Fault::status_with(400, &[], body)));
    bare(&gcs, &volume).run().assert_code(11).assert_says("GOOGLE_CLOUD_QUOTA_PROJECT");
    assert_fetched(bare(&gcs, &volume).env("GOOGLE_CLOUD_QUOTA_PROJECT", "payer"), &volume);
}
