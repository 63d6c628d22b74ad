//! The ways in which a pod gets credentials for S3, each against a stand-in of its service.

use std::process::Command;

use crate::support::*;
use weightlift_fakes::{Blob, FakeS3, Response, Server, Tree};

const SESSION: &str = "sessionCANARY";

fn s3() -> FakeS3 {
    FakeS3::builder()
        .bucket("models")
        .object("models", "p/a.json", Blob::bytes("{}"))
        .credentials(ACCESS_KEY, SECRET_KEY)
        .session_token(SESSION)
        .start()
}

/// A fetch without any credentials in its environment.
fn bare(s3: &FakeS3, volume: &Volume) -> Command {
    let mut command = fetch_s3(s3, volume, &["s3://models/p/"]);
    command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
    command.env("AWS_EC2_METADATA_DISABLED", "true");
    // What a proxy variable says does not concern the services of the node.
    command.env("NO_PROXY", "127.0.0.1");
    command
}

fn assert_fetched(command: &mut Command, volume: &Volume) {
    command.run().assert_success();
    volume.assert_holds("p", &Tree::new().with("a.json", "{}"));
}

fn json_credentials() -> serde_json::Value {
    serde_json::json!({
        "Code": "Success", "Type": "AWS-HMAC", "LastUpdated": "2026-01-01T00:00:00Z",
        "AccessKeyId": ACCESS_KEY, "SecretAccessKey": SECRET_KEY, "Token": SESSION,
        "Expiration": "2099-01-01T00:00:00Z",
    })
}

#[test]
fn variables_and_profiles() {
    let (s3, volume) = (s3(), Volume::new());
    let mut command = bare(&s3, &volume);
    command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
    assert_fetched(command.env("AWS_SESSION_TOKEN", SESSION), &volume);

    let volume = Volume::new();
    let file = volume.path("credentials");
    let profile = format!(
        "[models]\naws_access_key_id={ACCESS_KEY}\naws_secret_access_key={SECRET_KEY}\naws_session_token={SESSION}\n"
    );
    std::fs::write(&file, profile).unwrap();
    let mut command = bare(&s3, &volume);
    command.env("AWS_SHARED_CREDENTIALS_FILE", &file);
    assert_fetched(command.env("AWS_PROFILE", "models"), &volume);
}

#[test]
fn web_identity_as_irsa_gives_it() {
    let (s3, volume) = (s3(), Volume::new());
    let sts = Server::start(|request| {
        let body = String::from_utf8_lossy(&request.body).into_owned() + &request.query;
        if !body.contains("AssumeRoleWithWebIdentity") || !body.contains("the-jwt") {
            return Response::text(400, "no");
        }
        let answer = format!(
            "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
             <AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>{ACCESS_KEY}</AccessKeyId>\
             <SecretAccessKey>{SECRET_KEY}</SecretAccessKey><SessionToken>{SESSION}</SessionToken>\
             <Expiration>2099-01-01T00:00:00Z</Expiration></Credentials>\
             <AssumedRoleUser><Arn>arn:aws:sts::1:assumed-role/r/s</Arn><AssumedRoleId>x:s</AssumedRoleId>\
             </AssumedRoleUser></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
        );
        Response::text(200, &answer).header("Content-Type", "text/xml")
    });
    let token = volume.path("token");
    std::fs::write(&token, "the-jwt").unwrap();
    let mut command = bare(&s3, &volume);
    command.env("AWS_WEB_IDENTITY_TOKEN_FILE", &token);
    command.env("AWS_ROLE_ARN", "arn:aws:iam::1:role/r").env("AWS_ENDPOINT_URL_STS", sts.url());
    assert_fetched(&mut command, &volume);
}

#[test]
fn pod_identity() {
    let (s3, volume) = (s3(), Volume::new());
    let agent = Server::start(|request| {
        if request.header("authorization") != Some("pod-token") {
            return Response::text(401, "no");
        }
        Response::json(200, &json_credentials())
    });
    let token = volume.path("token");
    std::fs::write(&token, "pod-token").unwrap();
    let mut command = bare(&s3, &volume);
    command.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{}/v1/credentials", agent.url()));
    command.env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &token);
    assert_fetched(&mut command, &volume);
}

#[test]
fn the_metadata_service_of_a_node_in_its_second_version() {
    let (s3, volume) = (s3(), Volume::new());
    let metadata = Server::start(|request| {
        if request.method == "PUT" && request.path == "/latest/api/token" {
            return Response::text(200, "imds-token")
                .header("x-aws-ec2-metadata-token-ttl-seconds", "21600");
        }
        // Version 1, without a token, is refused.
        if request.header("x-aws-ec2-metadata-token") != Some("imds-token") {
            return Response::text(401, "no");
        }
        match request.path.trim_end_matches('/') {
            "/latest/meta-data/iam/security-credentials" => Response::text(200, "role"),
            "/latest/meta-data/iam/security-credentials/role" => {
                Response::json(200, &json_credentials())
            }
            _ => Response::text(404, "no"),
        }
    });
    let mut command = bare(&s3, &volume);
    command.env_remove("AWS_EC2_METADATA_DISABLED");
    command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.url());
    assert_fetched(&mut command, &volume);
}

#[test]
fn wrong_credentials_are_an_access_error() {
    let (s3, volume) = (s3(), Volume::new());
    let mut command = bare(&s3, &volume);
    command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", "wrong");
    command.run().assert_code(11);
    assert!(!volume.family("p").exists());
}
